r"""Poisson regression with unit and period effects, from the paths of cohorts.

Given its sum over periods, a unit's outcomes are multinomial and its effect is gone (Hausman, Hall
and Griliches 1984). Where nothing but the cohort tells one unit's regressors from another's, the
chances `p_c` are common to a cohort and the scores of its units are linear in their paths:

    s_i = Z_c' (I - p_c 1') y_i,    Z_c = [regressors, period dummies],    p_ct ~ exp(Z_ct g),

so sizes, mean paths and T x T cross-products give the coefficients and the sandwich by unit, and
sums by cluster the one by clusters. Both are those of the regression with a dummy for every unit.
The outcome need not be a count: means that are multiplied by exp(b) suffice (Wooldridge 1999).
"""

from collections.abc import Sequence

import numpy as np

from causal.core.cross_products import redundant_columns
from causal.core.errors import DataError, InferenceError
from causal.core.gram import Array, Key
from causal.quasi.panel import Panel
from causal.quasi.within_fit import Regressor, WithinFit

_MAX_STEPS = 60
_TOLERANCE = 1e-13
"""Newton decrement, as a share of the outcome's sum, below which a fit has converged."""


def fit_poisson(panel: Panel, regressors: Sequence[Regressor]) -> WithinFit:
    """The regression on the complete units of a panel.

    Args:
        panel: The panel; its cohorts determine the regressors.
        regressors: K regressors with event windows.

    Raises:
        DataError: Outcomes sum to nothing in a period or in all rows of a regressor.
        InferenceError: A regressor is collinear with the effects, or there is no maximum.
    """
    cohorts = [cohort for cohort in panel.cohorts if cohort.n > 0]
    windows = [r.window for r in regressors if r.window is not None]
    k, n_periods = len(windows), len(panel.periods)
    sums = np.array([cohort.n * cohort.mean for cohort in cohorts])
    z = np.array(
        [
            np.column_stack(
                [
                    *(w.path(panel.periods, c.first_treated_period) for w in windows),
                    np.eye(n_periods)[:, 1:],
                ]
            )
            for c in cohorts
        ]
    )
    _check_positive(panel, regressors, sums=sums, z=z)
    g, chances = _maximum(z, sums, names=[r.name for r in regressors])
    bread: Array = np.asarray(np.linalg.inv(_information(z, sums, chances)), dtype=np.float64)
    centred = z - np.einsum("ct,ctk->ck", chances, z)[:, None, :]
    at = {cohort.first_treated_period: j for j, cohort in enumerate(cohorts)}
    mean_scores = np.einsum("ctk,ct->ck", centred, [cohort.mean for cohort in cohorts])
    n = np.array([cohort.n for cohort in cohorts], dtype=np.float64)
    spread = np.array([cohort.cross for cohort in cohorts])
    meat = np.einsum("ctk,cts,csl->kl", centred, spread, centred)
    meat += np.einsum("c,ck,cl->kl", n, mean_scores, mean_scores)
    known = {panel.unit: ((bread @ meat @ bread)[:k, :k], panel.n)}
    if panel.clusters is not None:
        scores: dict[Key, Array] = {}
        for part in panel.clusters.parts:
            if part.n > 0:
                own = part.n * centred[at[part.first_treated_period]].T @ part.mean
                scores[part.key] = scores.get(part.key, np.zeros(len(g))) + own
        stacked = (np.array(list(scores.values())) @ bread)[:, :k]
        known[panel.clusters.column] = (stacked.T @ stacked, len(scores))
    left = np.eye(n_periods) - chances[:, :, None]
    moments = spread + np.einsum("c,ct,cs->cts", n, sums / n[:, None], sums / n[:, None])
    return WithinFit(
        regressors=tuple(regressors),
        coefficients=g[:k],
        bread=bread[:k, :k],
        rss=float(np.einsum("cut,cts,cus->", left, moments, left)),
        n=panel.n * n_periods,
        n_units=panel.n,
        n_nuisance=n_periods - 1,
        scores=(),
        known=known,
    )


def _check_positive(
    panel: Panel, regressors: Sequence[Regressor], *, sums: Array, z: Array
) -> None:
    """A dummy whose rows all hold zero has no finite coefficient."""
    if (sums < 0).any():
        raise DataError("outcomes of a Poisson regression are not negative", given=sums.min())
    empty = panel.periods[sums.sum(axis=0) <= 0]
    if len(empty):
        raise DataError(
            f"every outcome of period {empty[0]:g} is 0: leave the period out (source.where)"
        )
    inside = np.einsum("ctk,ct->k", z[:, :, : len(regressors)], sums)
    for regressor, total in zip(regressors, inside, strict=True):
        if total <= 0:
            raise DataError(f"every outcome of {regressor.name} is 0: its ratio is not identified")


def _maximum(z: Array, sums: Array, *, names: Sequence[str]) -> tuple[Array, Array]:
    """Coefficients, and the chances of the periods by cohort, shape (C, T), by Newton's method."""
    g = np.zeros(z.shape[2])
    chances = _chances(z, g)
    redundant = redundant_columns(_ordered_last(_information(z, sums, chances), len(names)))
    lost = [names[j - (len(g) - len(names))] for j in redundant if j >= len(g) - len(names)]
    if redundant:
        raise InferenceError(
            "not identified: collinear with the unit effects, period effects or other regressors",
            given=lost or "period effects",
        )
    value = _likelihood(z, sums, g)
    for _ in range(_MAX_STEPS):
        score = np.einsum("ctk,ct->k", z, sums - sums.sum(axis=1, keepdims=True) * chances)
        step = np.linalg.solve(_information(z, sums, chances), score)
        decrement = float(score @ step)
        if decrement <= _TOLERANCE * sums.sum():
            return g + step, _chances(z, g + step)
        size = 1.0
        while _likelihood(z, sums, g + size * step) < value and size > _TOLERANCE:
            size /= 2
        g = g + size * step
        value = _likelihood(z, sums, g)
        chances = _chances(z, g)
    raise InferenceError("the Poisson regression has no maximum: a ratio is 0 or without bound")


def _ordered_last(matrix: Array, k: int) -> Array:
    """The period effects first, so that a regressor they explain is the one that is named."""
    order = [*range(k, len(matrix)), *range(k)]
    return matrix[np.ix_(order, order)]


def _chances(z: Array, g: Array) -> Array:
    index = z @ g
    weights = np.exp(index - index.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _likelihood(z: Array, sums: Array, g: Array) -> float:
    index = z @ g
    top = index.max(axis=1)
    whole = top + np.log(np.exp(index - top[:, None]).sum(axis=1))
    return float((sums * (index - whole[:, None])).sum())


def _information(z: Array, sums: Array, chances: Array) -> Array:
    middle = np.einsum("ct,ctk->ck", chances, z)
    centred = z - middle[:, None, :]
    return np.asarray(
        np.einsum("c,ct,ctk,ctl->kl", sums.sum(axis=1), chances, centred, centred),
        dtype=np.float64,
    )
