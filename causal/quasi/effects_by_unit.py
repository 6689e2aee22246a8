"""Group-time effects by weighting, double robustness or with sampling weights, pass by pass.

The propensities take a pass per Newton step, all of them together; a further pass sums what the
effects consist of; the last one sums the units' influences by cluster, or their products. What
reaches the driver has one row per cohort (and cluster), whatever the number of units.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Constant,
    FrameRequest,
    UnitValue,
    packed_indices,
    packed_size,
)
from causal.core.gram import Array, PanelGram, unpack
from causal.quasi import propensity, unit_influence
from causal.quasi.group_time import GroupTime, effects_with_influence
from causal.quasi.group_time_averages import Shares
from causal.quasi.influence import Estimates, Moments
from causal.quasi.outcome_regression import Layout
from causal.quasi.propensity import Pair, Propensity
from causal.quasi.staggered_options import StaggeredOptions
from causal.quasi.staggered_panel import Design, moments_of, sums_of
from causal.quasi.unit_influence import ScoreSums, Sums, UnitTerms

MAX_CROSSED = 120
"""More effects than these have too many products for one pass; by cluster there is no limit."""

Pool = tuple[int, tuple[int, ...]]
"""A cohort and its comparison cohorts."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How far comparison units resemble a cohort.

    Attributes:
        pair: The cohort and its comparison group.
        n_effective: Effective number of weighted comparison units, `(sum w)^2 / sum w^2`.
        n_without_weight: Comparison units whose propensity is too near 1.
        n_certain: Units of either side whose propensity is 0.999 or more.
    """

    pair: Pair
    n_effective: float
    n_without_weight: int
    n_certain: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """Group-time effects and the units' influence on them.

    Attributes:
        estimates: The K effects.
        moments: Of the units' K influences, by cohort and cluster.
        shares: Sizes of the cohorts, by which effects are averaged.
        paths: The cohorts' mean outcomes, weighted.
        overlaps: Of each cohort and comparison group, where propensities are fitted.
    """

    estimates: Estimates
    moments: Moments
    shares: Shares
    paths: tuple[PanelGram, ...]
    overlaps: tuple[Overlap, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """The propensities and the sums that follow from them.

    Attributes:
        fits: By cohort and comparison group.
        sums: The same.
        left: Sum of `w o e x` over the comparison units of each comparison, shape (K, p + 1).
        overlaps: What is said of each.
    """

    fits: Mapping[Pool, Propensity]
    sums: Mapping[Pool, ScoreSums]
    left: Array
    overlaps: tuple[Overlap, ...]


def effects_by_unit(
    design: Design, cells: Sequence[GroupTime], options: StaggeredOptions
) -> Generator[FrameRequest, pd.DataFrame, Found]:
    """The effects of all comparisons, with the units' influence.

    Args:
        design: The cohorts.
        cells: The K comparisons.
        options: The analysis.

    Raises:
        DataError: Too few units for their covariates, or these are collinear.
        InferenceError: The covariates separate a cohort from its comparison units.
    """
    used = [cell for cell in cells if not cell.is_reference]
    check_size(len(used), options)
    terms = _terms(design, options)
    sums = yield from _sums(design, options, terms)
    has_regression = options.adjustment != "weighting"
    slopes = [unit_influence.slope(cell, sums) if has_regression else None for cell in used]
    overlaps: tuple[Overlap, ...] = ()
    if options.has_propensity:
        scores = yield from _scores(design, options, terms, used, slopes=slopes, sums=sums)
        found = [
            unit_influence.by_odds(
                cell, b, sums,
                score=scores.fits[_pool(cell)], of_score=scores.sums[_pool(cell)], left=left,
            )
            for cell, b, left in zip(used, slopes, scores.left, strict=True)
        ]  # fmt: skip
        overlaps = scores.overlaps
    else:
        pairs = zip(used, slopes, strict=True)
        found = [unit_influence.by_regression(cell, b, sums) for cell, b in pairs if b is not None]
    values = [unit_influence.influence(terms, item) for item in found]
    if options.weights is not None:
        values.append(terms.weight)
    is_crossed = options.cluster_column is None
    moments = yield from moments_of(design, options, values, is_crossed=is_crossed)
    return Found(
        estimates=effects_with_influence(cells, [item.value for item in found], moments),
        moments=moments,
        shares=_shares(options, sums, moments),
        paths=design.paths if options.weights is None else _weighted_paths(design, sums),
        overlaps=overlaps,
    )


def _terms(design: Design, options: StaggeredOptions) -> UnitTerms:
    first = len(design.periods)
    return UnitTerms(
        covariates=tuple(UnitValue(first + j) for j in range(design.n_covariates)),
        weight=Constant() if options.weights is None else UnitValue(first + design.n_covariates),
        most=options.max_propensity / (1.0 - options.max_propensity),
    )


def _sums(
    design: Design, options: StaggeredOptions, terms: UnitTerms
) -> Generator[FrameRequest, pd.DataFrame, Sums]:
    """Sums of products of covariates and outcomes; a pass of their own where units have weights."""
    if options.weights is None:
        return _sums_of_moments(design)
    size, n_periods = len(terms.x), len(design.periods)
    totals = yield from sums_of(design, options, (*terms.moments, *terms.products(n_periods)))
    packed, products = np.split(totals, [packed_size(size)], axis=1)
    return Sums(
        squares=np.array([unpack(row, size) for row in packed]),
        products=products.reshape(len(totals), n_periods, size).swapaxes(1, 2),
    )


def _sums_of_moments(design: Design) -> Sums:
    """The same from the moments of a unit's values, which are there already."""
    p, n_periods = design.n_covariates, len(design.periods)
    layout = Layout(n_periods, p)
    counts = design.moments.counts
    totals = counts[:, None] * np.array([cohort.mean for cohort in design.moments.cohorts])
    squares = np.empty((len(counts), p + 1, p + 1))
    squares[:, 0, 0] = counts
    squares[:, 0, 1:] = squares[:, 1:, 0] = totals[:, layout.covariates]
    for value, (j, k) in zip(totals[:, layout.squares].T, packed_indices(p), strict=True):
        squares[:, 1 + j, 1 + k] = squares[:, 1 + k, 1 + j] = value
    products = np.empty((len(counts), p + 1, n_periods))
    products[:, 0] = totals[:, :n_periods]
    for at in range(n_periods):
        products[:, 1:, at] = totals[:, layout.products(at)]
    return Sums(squares, products)


def _scores(
    design: Design,
    options: StaggeredOptions,
    terms: UnitTerms,
    cells: Sequence[GroupTime],
    *,
    slopes: Sequence[Array | None],
    sums: Sums,
) -> Generator[FrameRequest, pd.DataFrame, _Scores]:
    """Fit the propensities, then sum what weighting by their odds needs."""
    pairs = _pairs(cells)
    _check_cohorts(design, pairs)
    steps = propensity.fit(pairs, terms.covariates, terms.weight, first=sums.squares)
    fits = yield from propensity.answered(
        steps, lambda asked: sums_of(design, options, asked)
    )  # fmt: skip
    by_pool = dict(zip(map(_pool, pairs), fits, strict=True))
    size = len(terms.x)
    zeros = np.zeros(size)
    asked = [term for fit in fits for term in terms.of_score(fit)]
    for cell, b in zip(cells, slopes, strict=True):
        asked += terms.of_cell(cell, zeros if b is None else b, by_pool[_pool(cell)])
    totals = yield from sums_of(design, options, asked)
    first = len(pairs) * ScoreSums.width(size)
    blocks = np.split(totals[:, :first], len(pairs), axis=1)
    found = [
        ScoreSums.of(block, pair, size=size) for block, pair in zip(blocks, pairs, strict=True)
    ]
    left = totals[:, first:].reshape(len(totals), len(cells), size)
    return _Scores(
        fits=by_pool,
        sums=dict(zip(map(_pool, pairs), found, strict=True)),
        left=np.array([left[list(cell.controls), k].sum(axis=0) for k, cell in enumerate(cells)]),
        overlaps=tuple(_overlap(pair, item) for pair, item in zip(pairs, found, strict=True)),
    )


def _shares(options: StaggeredOptions, sums: Sums, moments: Moments) -> Shares:
    if options.weights is None:
        return Shares.of_units(moments.counts)
    sizes = sums.squares[:, 0, 0]
    at = len(moments.cohorts[0].mean) - 1
    return Shares(sizes=sizes, means=sizes / moments.counts, at=(at,))


def _weighted_paths(design: Design, sums: Sums) -> tuple[PanelGram, ...]:
    """Mean outcomes; zeros where a cohort has no weight, which no effect then uses."""
    sizes = sums.squares[:, 0, 0]
    means = sums.products[:, 0] / np.where(sizes > 0, sizes, 1.0)[:, None] + design.level
    return tuple(replace(path, mean=mean) for path, mean in zip(design.paths, means, strict=True))


def _pool(item: Pair | GroupTime) -> Pool:
    return (item.treated[0] if isinstance(item, Pair) else item.cohort), item.controls


def _pairs(cells: Sequence[GroupTime]) -> list[Pair]:
    """The cohorts and comparison groups that need a propensity, each once."""
    members: dict[Pool, list[GroupTime]] = {}
    for cell in cells:
        members.setdefault(_pool(cell), []).append(cell)
    return [
        Pair((cohort,), found[0].start, controls, tuple(cell.period for cell in found))
        for (cohort, controls), found in members.items()
    ]


def _overlap(pair: Pair, sums: ScoreSums) -> Overlap:
    return Overlap(
        pair=pair,
        n_effective=float(sums.odds[0]) ** 2 / sums.squares if sums.squares > 0 else 0.0,
        n_without_weight=sums.n_without_weight,
        n_certain=sums.n_certain,
    )


def check_size(n_effects: int, options: StaggeredOptions) -> None:
    """Without clusters all products of influences are summed: effects must be few enough.

    Raises:
        DataError: They are not.
    """
    if n_effects > MAX_CROSSED and options.cluster_column is None:
        raise DataError(
            "too many effects for their covariance by unit: coarsen the periods, or name a cluster",
            given=f"{n_effects} effects",
            allowed=f"at most {MAX_CROSSED}",
        )


def _check_cohorts(design: Design, pairs: Sequence[Pair]) -> None:
    """A logistic regression needs more units in the cohort than it has covariates."""
    for pair in pairs:
        n_units = design.n_units(pair.treated)
        if n_units <= design.n_covariates:
            raise DataError(
                f"too few units for the covariates: {pair.named}",
                given=f"{n_units} units in the cohort, {design.n_covariates} covariates",
                allowed="more units than covariates, or adjustment: regression",
            )
