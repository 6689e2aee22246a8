"""Group-time effects given covariates where each row counts in its own period, pass by pass.

As for complete units (`effects_by_unit`): propensities take a pass per Newton step, one each for
every comparison and its two periods, all of them together; a further pass sums what weighting by
their odds needs, the last one the rows' influences by cohort and cluster, or their products.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Column, Constant, FrameRequest, GramRequest, Term, linear
from causal.core.gram import grams, pooled
from causal.quasi import propensity, row_influence
from causal.quasi.cross_sections import Rows, by_cell, mean_paths, part_of, shares_of_rows
from causal.quasi.effects_by_unit import Found, Overlap, check_size
from causal.quasi.group_time import GroupTime, effects_with_influence
from causal.quasi.influence import Moments
from causal.quasi.propensity import Pair, Propensity
from causal.quasi.row_influence import OddsSums, RowSums, RowTerms
from causal.quasi.staggered_options import StaggeredOptions
from causal.quasi.staggered_panel import moments_of_parts, standardised
from causal.quasi.unit_influence import UnitTerms


def effects_by_row(
    rows: Rows, cells: Sequence[GroupTime], options: StaggeredOptions
) -> Generator[FrameRequest, pd.DataFrame, Found]:
    """The effects of all comparisons, with the influence of rows, or of units' rows together.

    Args:
        rows: The cohorts' rows.
        cells: The K comparisons.
        options: The analysis; it has covariates.

    Raises:
        DataError: Too few rows for their covariates, or these are collinear.
        InferenceError: The covariates separate a cohort from its comparison rows.
    """
    used = [cell for cell in cells if not cell.is_reference]
    check_size(len(used), options)
    terms, sums = _terms(rows, options), _sums(rows, options)
    fits: list[Propensity | None] = [None] * len(used)
    odds: list[OddsSums | None] = [None] * len(used)
    overlaps: tuple[Overlap, ...] = ()
    if options.has_propensity:
        pairs = [_pair(cell, n_periods=len(rows.design.periods)) for cell in used]
        _check_cohorts(used, sums)
        steps = propensity.fit(pairs, terms.held.covariates, terms.held.weight, first=sums.flat)
        fitted = yield from propensity.answered(steps, lambda asked: by_cell(rows, options, asked))
        asked = [term for score in fitted for term in terms.of_score(score)]
        totals = yield from by_cell(rows, options, asked)
        blocks = zip(np.split(totals, len(pairs), axis=1), pairs, strict=True)
        weighted = [OddsSums.of(block, pair, size=len(terms.held.x)) for block, pair in blocks]
        overlaps = tuple(_overlap(pair, item) for pair, item in zip(pairs, weighted, strict=True))
        fits, odds = [*fitted], [*weighted]
    found = [
        row_influence.compare(cell, sums, options.adjustment, score=score, odds=part)
        for cell, score, part in zip(used, fits, odds, strict=True)
    ]
    values = [row_influence.influence(terms, item) for item in found]
    shares = shares_of_rows(rows.design, options)
    if options.weights is not None:
        shares = replace(shares, at=(len(values),))
        values.append(terms.held.weight)
    moments = yield from _moments_of(rows, options, values)
    return Found(
        estimates=effects_with_influence(cells, [item.value for item in found], moments),
        moments=moments,
        shares=shares,
        paths=mean_paths(rows.design, rows.level),
        overlaps=overlaps,
    )


def _terms(rows: Rows, options: StaggeredOptions) -> RowTerms:
    """The values of a row; the weight is missing wherever one of the others is."""
    read = [Column(name) for name in (rows.outcome, options.period, *options.covariates)]
    weight: tuple[Term, float] = (Constant(), 1.0)
    if options.weights is not None:
        weight = (Column(options.weights), rows.mean_weight**-1)
    return RowTerms(
        held=UnitTerms(
            covariates=standardised(options.covariates, pooled(rows.by_cell.values())),
            weight=linear([weight, *[(part, 0.0) for part in read]]),
            most=options.max_propensity / (1.0 - options.max_propensity),
        ),
        outcome=linear([(Column(rows.outcome), 1.0), (Constant(), -rows.level)]),
        period=options.period,
        first_treated_period=options.first_treated_period,
    )


def _sums(rows: Rows, options: StaggeredOptions) -> RowSums:
    """Sums by cohort and period from the first pass, of standardised covariates."""
    whole = pooled(rows.by_cell.values())
    at = whole.positions([Column(rows.outcome), *map(Column, options.covariates)])
    centre = np.array([rows.level, *whole.mean[at[1:]]])
    scale = np.array([1.0, *np.sqrt(whole.sum_weights / np.diag(whole.cross)[at[1:]])])
    size = len(at)
    shape = (len(rows.design.starts), len(rows.design.periods))
    squares, products = np.zeros((*shape, size, size)), np.zeros((*shape, size))
    counts = np.zeros(shape)
    for where, cell in rows.cells(options):
        weight = cell.sum_weights / rows.mean_weight
        mean = (cell.mean[at] - centre) * scale
        cross = cell.cross[np.ix_(at, at)] * np.outer(scale, scale) / rows.mean_weight
        moment = cross + weight * np.outer(mean, mean)
        products[where] += [weight * mean[0], *moment[0, 1:]]
        squares[where] += np.block(
            [[np.array([[weight]]), weight * mean[None, 1:]],
             [weight * mean[1:, None], moment[1:, 1:]]]
        )  # fmt: skip
        counts[where] += cell.n
    return RowSums(squares, products, counts)


def _moments_of(
    rows: Rows, options: StaggeredOptions, values: Sequence[Term]
) -> Generator[FrameRequest, pd.DataFrame, Moments]:
    """Moments of the influences by cohort and cluster; those of a unit's rows are added up."""
    request = GramRequest(
        terms=tuple(values),
        by=tuple(filter(None, (options.first_treated_period, options.cluster_column))),
        summed_by=() if options.unit is None else (options.unit,),
        where=rows.where,
        crossed="all" if options.cluster_column is None else "none",
    )
    found = grams((yield request), request)
    parts = [part_of(key, gram, rows.design.periods, options) for key, gram in found.items()]
    return moments_of_parts(parts, options)


def _pair(cell: GroupTime, *, n_periods: int) -> Pair:
    """Both sides in both periods, as positions in cohorts times periods."""
    periods = (cell.at, cell.base)
    return Pair(
        treated=tuple(cell.cohort * n_periods + at for at in periods),
        start=cell.start,
        controls=tuple(c * n_periods + at for at in periods for c in cell.controls),
        periods=(cell.period,),
    )


def _overlap(pair: Pair, odds: OddsSums) -> Overlap:
    return Overlap(
        pair=pair,
        n_effective=odds.n_effective,
        n_without_weight=odds.n_without_weight,
        n_certain=odds.n_certain,
    )


def _check_cohorts(cells: Sequence[GroupTime], sums: RowSums) -> None:
    """A logistic regression needs more rows of the cohort than it has covariates."""
    n_covariates = sums.products.shape[-1] - 1
    for cell in cells:
        n_rows = int(sums.counts[cell.cohort, [cell.at, cell.base]].sum())
        if n_rows <= n_covariates:
            raise DataError(
                f"too few rows for the covariates: cohort {cell.start:g} in period "
                f"{cell.period:g} and its base period",
                given=f"{n_rows} rows of the cohort, {n_covariates} covariates",
                allowed="more rows than covariates, or adjustment: regression",
            )
