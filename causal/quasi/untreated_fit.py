r"""Unit and period effects of untreated rows, and what they leave of every row.

With `o_it` the mark of a row that is there, `m_ct` of a period in which cohort c is untreated and
`U_i` the untreated rows of unit i, the effects of the periods solve

    A l = sum_i m_c o_i (y_i - mean of i's untreated rows),
    A   = sum_c diag(m_c) sum_i diag(o_i) - m_c m_c' * L_c,      L_c = sum_i o_i o_i' / U_i,

and what is left of a row is its outcome less its period's effect, less the mean of that over the
unit's untreated rows. A unit that is seen under treatment only has no effect of its own: it is left
out and counted. Where all units are seen in every period the cohorts' moments tell all of it; else
it takes three passes of sums over units, whose size does not depend on how their paths have gaps.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Between,
    Clipped,
    FrameRequest,
    Linear,
    Product,
    Reciprocal,
    SquareRoot,
    Term,
)
from causal.core.gram import Array, Key, PanelGram
from causal.quasi.panel import Cell, Panel, UnitCount, complete_cells
from causal.quasi.unit_paths import UnitPaths, second_moments

_SOME = 0.5


@dataclass(frozen=True, kw_only=True)
class PeriodEffects:
    """The effects of the periods, and what their errors need.

    Attributes:
        starts: First treated periods of the C cohorts; `None`: never.
        values: The T effects, the first one's that of its level, shape (T,).
        untreated: 1 in the periods in which a cohort is not treated, shape (C, T).
        inverse: A generalised inverse of A, shape (T, T).
        links: L by cohort, shape (C, T, T).
    """

    starts: tuple[float | None, ...]
    values: Array
    untreated: Array
    inverse: Array
    links: Array


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is left of the outcomes of one cohort (in one cluster).

    Attributes:
        at: Position of the cohort.
        key: The cluster; empty without.
        n: Units.
        counts: Rows by period, shape (T,).
        sums: Sums of what is left by period, shape (T,).
        moments: Sums over units of products of what is left, and of marks of rows that are there,
            period by period, shape (2T, 2T); `None` by cluster.
    """

    at: int
    key: Key
    n: int
    counts: Array
    sums: Array
    moments: Array | None = None


@dataclass(frozen=True, kw_only=True)
class UntreatedFit:
    """What untreated rows leave of all rows.

    Attributes:
        effects: The effects of the periods.
        parts: By cohort, or by cohort and cluster.
        cells: Mean outcome by cohort and period.
        n_only_treated: Units left out as they are seen under treatment only.
    """

    effects: PeriodEffects
    parts: tuple[Part, ...]
    cells: tuple[Cell, ...]
    n_only_treated: int = 0

    def totals(self) -> tuple[Array, Array]:
        """Rows and sums of what is left by cohort and period, shapes (C, T)."""
        counts, sums = np.zeros((2, *self.effects.untreated.shape))
        for part in self.parts:
            counts[part.at] += part.counts
            sums[part.at] += part.sums
        return counts, sums

    def units(self) -> tuple[UnitCount, ...]:
        """The units used."""
        starts = self.effects.starts
        return tuple(UnitCount(starts[part.at], part.key, part.n) for part in self.parts if part.n)


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """What the effects of the periods are solved from.

    Attributes:
        counts: Rows, shape (C, T).
        outcomes: Sums of outcomes less the levels, shape (C, T).
        links: L by cohort, shape (C, T, T).
        pulls: Sums over the rows of the mean of their unit's untreated outcomes less the levels,
            shape (C, T).
        levels: Taken from the outcomes, shape (T,).
    """

    counts: Array
    outcomes: Array
    links: Array
    pulls: Array
    levels: Array


def fit_complete_units(panel: Panel, *, anticipation: int, cluster: str) -> UntreatedFit:
    """The fit on units that are all seen in every period.

    Args:
        panel: The panel.
        anticipation: Periods before the start that count as treated.
        cluster: Column of the clusters; the unit: none.

    Raises:
        DataError: The untreated rows do not identify every unit's and every period's effect.
    """
    untreated = _untreated(panel, anticipation=anticipation)
    n = np.array([cohort.n for cohort in panel.cohorts], dtype=np.float64)
    means = np.array([cohort.mean for cohort in panel.cohorts])
    size = untreated.sum(axis=1)
    links = np.ones((1, *np.eye(len(panel.periods)).shape)) * (n / size)[:, None, None]
    counts = np.ones_like(untreated) * n[:, None]
    levels = n @ means / n.sum()
    pulls = (
        np.ones_like(untreated) * (n * ((means - levels) * untreated).sum(axis=1) / size)[:, None]
    )
    sums = _Sums(
        counts=counts, links=links, pulls=pulls, levels=levels, outcomes=counts * (means - levels)
    )
    effects = _effects(panel, untreated, sums)
    parts = [(c, cohort) for c, cohort in enumerate(panel.cohorts)]
    if cluster != panel.unit and panel.clusters is not None:
        at = {start: c for c, start in enumerate(effects.starts)}
        parts = [(at[p.first_treated_period], p) for p in panel.clusters.parts if p.n > 0]
    return UntreatedFit(
        effects=effects,
        parts=tuple(_complete_part(effects, c, part) for c, part in parts),
        cells=complete_cells(panel),
    )


def fit_all_units(
    paths: UnitPaths, *, anticipation: int
) -> Generator[FrameRequest, pd.DataFrame, UntreatedFit]:
    """The fit on all units, whichever periods they lack, in three passes.

    Args:
        paths: The units.
        anticipation: Periods before the start that count as treated.

    Raises:
        DataError: As of complete units, or units without a cluster.
    """
    panel, options = paths.panel, paths.options
    untreated = _untreated(panel, anticipation=anticipation)
    cells = yield from paths.cells()
    n_untreated = paths.of_cohort(untreated, paths.seen)
    share = Reciprocal(Clipped(n_untreated, low=1.0))
    is_used = Between(n_untreated, low=_SOME)
    root = SquareRoot(Product((is_used, share)))
    both = (*paths.values, *paths.seen)
    total = paths.of_cohort(np.hstack([untreated, -untreated * cells.levels]), both)
    found = yield from paths.by_cohort(
        [*[Product((root, seen)) for seen in paths.seen], Product((root, total)), is_used]
    )
    size = len(panel.periods)
    second = np.array([second_moments(part) for part in found])
    sums = _Sums(
        counts=cells.counts, links=second[:, :size, :size], pulls=second[:, :size, size],
        levels=cells.levels, outcomes=cells.outcomes - cells.counts * cells.levels,
    )  # fmt: skip
    effects = _effects(panel, untreated, sums)
    values = _left(paths, effects, share=share, is_used=is_used)
    is_by_unit = options.clusters == options.unit
    ask = paths.by_cohort if is_by_unit else paths.by_cluster
    answer = yield from ask([*values, is_used])
    at = {start: c for c, start in enumerate(effects.starts)}
    parts = tuple(
        _part(at[part.first_treated_period], part, size=size) for part in answer if part.n > 0
    )
    return UntreatedFit(
        effects=effects, parts=parts, cells=cells.survey.cells,
        n_only_treated=sum(part.n for part in found) - sum(part.n for part in parts),
    )  # fmt: skip


def _left(paths: UnitPaths, effects: PeriodEffects, *, share: Term, is_used: Term) -> list[Term]:
    """What is left of each row, 0 where there is none; then marks of the rows, 2T values."""
    both = (*paths.values, *paths.seen)
    weights = np.hstack([effects.untreated, -effects.untreated * effects.values])
    mean = Product((share, paths.of_cohort(weights, both)))
    left: list[Term] = [
        Linear(
            (Product((is_used, y)), Product((is_used, seen)), Product((is_used, seen, mean))),
            (1.0, -float(effect), -1.0),
        )
        for y, seen, effect in zip(paths.values, paths.seen, effects.values, strict=True)
    ]
    return [*left, *[Product((is_used, seen)) for seen in paths.seen]]


def _part(at: int, found: PanelGram, *, size: int) -> Part:
    """From means (and cross-products) of what is left, of marks, and of whether a unit is used."""
    sums = found.n * found.mean
    moments = second_moments(found)[: 2 * size, : 2 * size] if len(found.cross) else None
    return Part(
        at=at, key=found.key, n=round(float(sums[2 * size])), counts=sums[size : 2 * size],
        sums=sums[:size], moments=moments,
    )  # fmt: skip


def _complete_part(effects: PeriodEffects, at: int, part: PanelGram) -> Part:
    m = effects.untreated[at]
    left = np.eye(len(m)) - m[None, :] / m.sum()
    mean = left @ (part.mean - effects.values)
    ones = np.ones(len(m))
    both = np.concatenate([mean, ones])
    moments = part.n * np.outer(both, both)
    moments[: len(m), : len(m)] += left @ part.cross @ left.T
    return Part(
        at=at, key=part.key, n=part.n, counts=part.n * ones, sums=part.n * mean, moments=moments
    )


def _untreated(panel: Panel, *, anticipation: int) -> Array:
    """1 in the periods in which each cohort is untreated, shape (C, T).

    Raises:
        DataError: A cohort is treated in every period, or all cohorts are in some period.
    """
    begins = np.array(
        [
            np.inf if c.first_treated_period is None else c.first_treated_period
            for c in panel.cohorts
        ]
    )  # fmt: skip
    untreated = (panel.periods < begins[:, None] - anticipation).astype(np.float64)
    for cohort, m in zip(panel.cohorts, untreated, strict=True):
        if not m.any():
            raise DataError(
                f"the cohort of {cohort.first_treated_period:g} is treated in every period: leave "
                "it out (source.where)",
                given=f"first period {panel.periods[0]:g}, anticipation {anticipation}",
            )
    _check_none_bare(panel, untreated)
    return untreated


def _check_none_bare(panel: Panel, untreated_rows: Array) -> None:
    bare = panel.periods[~(untreated_rows > 0).any(axis=0)]
    if len(bare):
        raise DataError(
            f"no unit is untreated in period {bare[0]:g}: keep the periods before it "
            "(source.where)",
            given=f"cohorts {', '.join(f'{start:g}' for start in panel.starts)}",
        )


def _effects(panel: Panel, untreated: Array, found: _Sums) -> PeriodEffects:
    """Solve for the effects of the periods.

    Raises:
        DataError: The untreated rows do not link all periods with each other.
    """
    counts, links = found.counts, found.links
    _check_none_bare(panel, untreated * counts)
    n = counts.sum()
    a = np.diag((untreated * counts).sum(axis=0) / n)
    a -= np.einsum("ct,cs,cts->ts", untreated, untreated, links) / n
    right = (untreated * (found.outcomes - found.pulls)).sum(axis=0) / n
    if np.linalg.matrix_rank(a) < len(a) - 1:
        raise DataError("the untreated rows do not link all periods with each other")
    inverse = np.zeros_like(a)
    inverse[1:, 1:] = np.linalg.inv(a[1:, 1:])
    return PeriodEffects(
        starts=tuple(cohort.first_treated_period for cohort in panel.cohorts),
        values=found.levels + inverse @ right,
        untreated=untreated,
        inverse=inverse / n,
        links=links,
    )
