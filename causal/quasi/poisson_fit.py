r"""Poisson regression with unit and period effects, from the paths of cohorts.

Given its sum over periods, a unit's outcomes are multinomial and its effect is gone (Hausman, Hall
and Griliches 1984). Where nothing but the cohort tells one unit's regressors from another's, the
chances `p_c` are common to a cohort and the scores of its units are linear in their paths:

    s_i = Z_c' (I - p_c 1') y_i,    Z_c = [regressors, period dummies],    p_ct ~ exp(Z_ct g),

so sizes, mean paths and T x T cross-products give the coefficients and the sandwich by unit, and
sums by cluster the one by clusters. Both are those of the regression with a dummy for every unit.
The outcome need not be a count: means that are multiplied by exp(b) suffice (Wooldridge 1999).

A unit that lacks periods has chances over its own: with `w_ct = exp(Z_ct g)`, `o_it` the mark of a
row that is there and `D_i = sum_t o_it w_ct` they are `o_it w_ct / D_i`. Score and information then
need the sums over the units of a cohort of `o_it y_i / D_i` and `o_it o_is y_i / D_i^2`, y_i being
the sum of a unit's outcomes: a pass over the rows for each of Newton's steps.

A unit whose outcomes are all 0 has no finite effect, and one with a single row fits it exactly:
neither moves the likelihood or the scores (Correia, Guimaraes and Zylkin 2020), so rows, units and
clusters are counted without them, in one pass more.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.cross_products import redundant_columns
from causal.core.errors import DataError, InferenceError
from causal.core.frames import (
    Between,
    Clipped,
    FrameRequest,
    Product,
    Reciprocal,
    SquareRoot,
    Term,
    linear,
)
from causal.core.gram import Array, Key, PanelGram
from causal.observational.logistic import is_escaping
from causal.quasi.panel import Panel, UnitCount
from causal.quasi.unit_paths import CellSums, UnitPaths, second_moments
from causal.quasi.within_fit import Regressor, WithinFit

_MAX_STEPS = 60
_HALVINGS = 40
_TOLERANCE = 1e-13
"""Newton decrement, as a share of the outcome's sum, below which a fit has converged."""
_TINY = 1e-300
_MIN_ROWS = 2
_HALF = 0.5

Steps = Generator[Array, "Sums", "Maximum"]
"""Asks for sums at weights of the periods, shape (C, T), receives them and returns the maximum."""


@dataclass(frozen=True)
class Sums:
    """Sums over the units of each cohort at weights w of the periods.

    Attributes:
        shares: Of `o y / D`, shape (C, T).
        squares: Of `o o' y / D^2`, shape (C, T, T).
    """

    shares: Array
    squares: Array


@dataclass(frozen=True)
class Maximum:
    """Where the likelihood is largest.

    Attributes:
        g: Coefficients: regressors, then the periods but the first, shape (K + T - 1,).
        weights: `exp(Z g)`, the largest of each cohort 1, shape (C, T).
        sums: There.
    """

    g: Array
    weights: Array
    sums: Sums


@dataclass(frozen=True)
class Telling:
    """The units that tell something: two rows or more, and an outcome that is not 0.

    Attributes:
        units: By cohort, or by cohort and cluster.
        n: Their rows.
    """

    units: tuple[UnitCount, ...]
    n: int

    @property
    def n_units(self) -> int:
        """How many they are."""
        return sum(part.n for part in self.units)

    @property
    def n_clusters(self) -> int:
        """How many clusters they lie in."""
        return len({part.key for part in self.units})


@dataclass(frozen=True)
class _Part:
    """Outcomes less what their unit's sum makes of them, of a cohort (in one cluster).

    Attributes:
        at: Position of the cohort.
        key: The cluster; empty without.
        sums: By period, shape (T,).
        moments: Sums over units of products, shape (T, T); `None` by cluster.
    """

    at: int
    key: Key
    sums: Array
    moments: Array | None = None


def ask_telling(paths: UnitPaths) -> Generator[FrameRequest, pd.DataFrame, Telling]:
    """Count the units that tell something, in one pass.

    Args:
        paths: The units; complete ones alone if the analysis is of these.

    Raises:
        DataError: There is none, or an outcome is negative.
    """
    options, periods = paths.options, len(paths.panel.periods)
    n_rows = linear([(seen, 1.0) for seen in paths.seen])
    least = periods if options.balanced else _MIN_ROWS
    total = linear([(value, 1.0) for value in paths.values])
    tells = Product((Between(total, low=_TINY), Between(n_rows, low=least - _HALF)))
    below = linear([(Between(value, high=-_TINY), 1.0) for value in paths.values])
    ask = paths.by_cohort if options.clusters == paths.panel.unit else paths.by_cluster
    parts = yield from ask([tells, Product((tells, n_rows)), below])
    sums = [(part, *(part.n * part.mean)) for part in parts if part.n > 0]
    n_negative = round(sum(n for *_, n in sums))
    if n_negative:
        raise DataError(
            "outcomes of a Poisson regression are not negative", given=f"{n_negative} rows below 0"
        )
    units = tuple(
        UnitCount(part.first_treated_period, part.key, round(n))
        for part, n, *_ in sums
        if n > _HALF
    )
    if not units:
        raise DataError("every outcome is 0, or that of a unit seen in one period only")
    return Telling(units=units, n=round(sum(n for _, _, n, _ in sums)))


def fit_poisson(panel: Panel, regressors: Sequence[Regressor], telling: Telling) -> WithinFit:
    """The regression on units that are all seen in every period.

    Args:
        panel: The panel; its cohorts determine the regressors.
        regressors: K regressors with event windows.
        telling: The units that count.

    Raises:
        DataError: Outcomes sum to nothing in a period or in all rows of a regressor.
        InferenceError: A regressor is collinear with the effects, or there is no maximum.
    """
    sums = np.array([cohort.n * cohort.mean for cohort in panel.cohorts])
    z = _design(panel, regressors)
    _check_positive(panel, regressors, sums=sums, z=z)
    steps = _maximum(z, sums, names=[r.name for r in regressors])
    answer: Sums | None = None
    while True:
        try:
            weights = next(steps) if answer is None else steps.send(answer)
        except StopIteration as stop:
            found: Maximum = stop.value
            break
        total, inverse = sums.sum(axis=1), 1.0 / weights.sum(axis=1)
        ones = np.ones_like(sums)
        answer = Sums(
            shares=(total * inverse)[:, None] * ones,
            squares=(total * inverse**2)[:, None, None] * ones[:, :, None] * ones[:, None, :],
        )
    chances = found.weights / found.weights.sum(axis=1, keepdims=True)
    left = np.eye(sums.shape[1]) - chances[:, :, None]
    at = {cohort.first_treated_period: c for c, cohort in enumerate(panel.cohorts)}
    members = panel.cohorts if panel.clusters is None else panel.clusters.parts

    def part(units: PanelGram) -> _Part:
        own = left[at[units.first_treated_period]]
        return _Part(
            at=at[units.first_treated_period], key=units.key, sums=units.n * own @ units.mean,
            moments=own @ second_moments(units) @ own.T,
        )  # fmt: skip

    return _fit(
        panel, regressors, found=found, telling=telling,
        parts=[part(units) for units in members if units.n],
    )  # fmt: skip


def fit_poisson_on_all(
    paths: UnitPaths, regressors: Sequence[Regressor], cells: CellSums, telling: Telling
) -> Generator[FrameRequest, pd.DataFrame, WithinFit]:
    """The regression on all units, whichever periods they lack: a pass a step, and one more.

    Args:
        paths: The units.
        regressors: K regressors with event windows that have rows.
        cells: Sums of the outcome by cohort and period.
        telling: The units that count.

    Raises:
        DataError: As of complete units.
        InferenceError: As of complete units.
    """
    panel, sums = paths.panel, cells.outcomes
    z = _design(panel, regressors)
    _check_positive(panel, regressors, sums=sums, z=z)
    total = linear([(value, 1.0) for value in paths.values])

    def reciprocal(weights: Array) -> Term:
        return Reciprocal(Clipped(paths.of_cohort(weights, paths.seen), low=_TINY))

    steps = _maximum(z, sums, names=[r.name for r in regressors])
    weights = next(steps)
    size = sums.shape[1]
    while True:
        root = SquareRoot(total)
        own = [Product((root, seen, reciprocal(weights))) for seen in paths.seen]
        second = np.array([second_moments(p) for p in (yield from paths.by_cohort([*own, root]))])
        try:
            weights = steps.send(
                Sums(shares=second[:, :size, size], squares=second[:, :size, :size])
            )
        except StopIteration as stop:
            found: Maximum = stop.value
            break
    left = [
        linear(
            [(value, 1.0),
             (Product((total, reciprocal(found.weights), paths.of_cohort(column, [seen]))), -1.0)]
        )
        for value, seen, column in zip(
            paths.values, paths.seen, found.weights.T[:, :, None], strict=True
        )
    ]  # fmt: skip
    is_by_unit = paths.options.clusters == panel.unit
    answer = yield from (paths.by_cohort if is_by_unit else paths.by_cluster)(left)
    at = {cohort.first_treated_period: c for c, cohort in enumerate(panel.cohorts)}
    parts = [
        _Part(
            at=at[part.first_treated_period], key=part.key, sums=part.n * part.mean,
            moments=second_moments(part) if is_by_unit else None,
        )
        for part in answer
        if part.n > 0
    ]  # fmt: skip
    return _fit(panel, regressors, found=found, parts=parts, telling=telling)


def _fit(
    panel: Panel,
    regressors: Sequence[Regressor],
    *,
    found: Maximum,
    parts: Sequence[_Part],
    telling: Telling,
) -> WithinFit:
    """The coefficients with their sandwich.

    Scores are sums over periods of `Z_ct` times what is left; what is left sums to zero by unit.
    """
    k, z = len(regressors), _design(panel, regressors)
    bread: Array = np.asarray(np.linalg.inv(_information(z, found)), dtype=np.float64)
    known = {}
    if all(part.moments is not None for part in parts):
        meats = [z[p.at].T @ p.moments @ z[p.at] for p in parts if p.moments is not None]
        known[panel.unit] = ((bread @ np.sum(meats, axis=0) @ bread)[:k, :k], telling.n_units)
    if panel.clusters is not None:
        scores: dict[Key, Array] = {}
        for part in parts:
            own = z[part.at].T @ part.sums
            scores[part.key] = scores.get(part.key, np.zeros(len(found.g))) + own
        stacked = (np.array(list(scores.values())) @ bread)[:, :k]
        known[panel.clusters.column] = (stacked.T @ stacked, telling.n_clusters)
    return WithinFit(
        regressors=tuple(regressors),
        coefficients=found.g[:k],
        bread=bread[:k, :k],
        rss=None,
        n=telling.n,
        n_units=telling.n_units,
        n_nuisance=len(panel.periods) - 1,
        scores=(),
        known=known,
    )


def _design(panel: Panel, regressors: Sequence[Regressor]) -> Array:
    """Regressors and dummies of the periods but the first by cohort, shape (C, T, K + T - 1)."""
    windows = [r.window for r in regressors if r.window is not None]
    periods = np.eye(len(panel.periods))[:, 1:]
    return np.array(
        [
            np.column_stack(
                [*(w.path(panel.periods, c.first_treated_period) for w in windows), periods]
            )
            for c in panel.cohorts
        ]
    )


def _check_positive(
    panel: Panel, regressors: Sequence[Regressor], *, sums: Array, z: Array
) -> None:
    """A dummy whose rows all hold zero has no finite coefficient."""
    empty = panel.periods[sums.sum(axis=0) <= 0]
    if len(empty):
        raise DataError(
            f"every outcome of period {empty[0]:g} is 0: leave the period out (source.where)"
        )
    inside = np.einsum("ctk,ct->k", z[:, :, : len(regressors)], sums)
    for regressor, total in zip(regressors, inside, strict=True):
        if total <= 0:
            raise DataError(f"every outcome of {regressor.name} is 0: its ratio is not identified")


def _maximum(z: Array, sums: Array, *, names: Sequence[str]) -> Steps:
    """Newton's method; a step that does not lessen the score is halved.

    Args:
        z: Shape (C, T, K + T - 1).
        sums: Of the outcome, shape (C, T).
        names: Names of the K regressors.

    Yields:
        Weights of the periods.
    """
    g = np.zeros(z.shape[2])
    found = yield from _at(z, g)
    reference = _information(z, found)
    _check_identified(reference, names)
    score = _score(z, sums, found)
    history: list[Array] = []
    for _ in range(_MAX_STEPS):
        step: Array = np.asarray(np.linalg.solve(_information(z, found), score), dtype=np.float64)
        history.append(step)
        if is_escaping(history):
            break
        is_last = float(score @ step) <= _TOLERANCE * sums.sum()
        merit = score @ np.linalg.solve(reference, score)
        for _ in range(_HALVINGS):
            trial = yield from _at(z, g + step)
            there = _score(z, sums, trial)
            if is_last or there @ np.linalg.solve(reference, there) < merit:
                break
            step = step / 2
        else:
            break
        g, found, score = g + step, trial, there
        if is_last:
            return found
    raise InferenceError("the Poisson regression has no maximum: a ratio is 0 or without bound")


def _at(z: Array, g: Array) -> Generator[Array, Sums, Maximum]:
    index = z @ g
    weights = np.exp(index - index.max(axis=1, keepdims=True))
    return Maximum(g, weights, (yield weights))


def _score(z: Array, sums: Array, found: Maximum) -> Array:
    left = sums - found.weights * found.sums.shares
    return np.asarray(np.einsum("ctk,ct->k", z, left), dtype=np.float64)


def _information(z: Array, found: Maximum) -> Array:
    weights, sums = found.weights, found.sums
    own = np.einsum("ctk,ct,ctl->kl", z, weights * sums.shares, z)
    weighted = z * weights[:, :, None]
    return np.asarray(own - np.einsum("ctk,cts,csl->kl", weighted, sums.squares, weighted))


def _check_identified(information: Array, names: Sequence[str]) -> None:
    """No column is a combination of others.

    The period effects come first, so that a regressor they explain is the one that is named.
    """
    k = len(names)
    order: NDArray[np.intp] = np.roll(np.arange(len(information)), -k)
    redundant = [int(order[j]) for j in redundant_columns(information[np.ix_(order, order)])]
    if redundant:
        raise InferenceError(
            "not identified: collinear with the unit effects, period effects or other regressors",
            given=[names[j] for j in redundant if j < k] or "period effects",
        )
