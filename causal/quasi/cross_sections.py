r"""Group-time effects without complete paths: repeated cross-sections and unbalanced panels.

Each row counts in its own period, whoever else is seen in it:

    att = (mean_g,t - mean_g,b) - (mean_C,t - mean_C,b),

means over the rows of a cohort and period. A row i of the cohort moves it by
`+- w_i (y_i - mean) / sum w`, the sum over its period, a comparison row by the opposite. Rows are
independent draws; with a unit, the sums over its rows are (Callaway and Sant'Anna 2021, section 2.2
and `panel = FALSE`, `allow_unbalanced_panel = TRUE` of R's `did`). With T periods the values of a
unit are its T outcomes, 0 where it is not seen, and T marks of where it is seen, so that its
influence is linear in them and their cross-products by cohort hold all variances. Given covariates,
which are each row's own, see `effects_by_row`.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Column,
    Condition,
    Constant,
    FrameRequest,
    GramRequest,
    Indicator,
    Product,
    Term,
    linear,
)
from causal.core.gram import Array, Gram, Key, PanelGram, grams, pooled
from causal.quasi.group_time import GroupTime
from causal.quasi.group_time_averages import Shares
from causal.quasi.influence import Estimates, Moments
from causal.quasi.staggered_options import StaggeredOptions
from causal.quasi.staggered_panel import Design, check_known, check_periods, design, used_parts
from causal.quasi.treatment_timing import level

_TWICE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a staggered design.

    Attributes:
        design: The cohorts; their values are described above.
        outcome: The outcome column.
        level: What was taken from every outcome.
        mean_weight: Mean weight of a row; 1 without weights.
        where: Conditions on the rows.
        by_cell: Moments of outcome, period and covariates, weighted; given covariates by first
            treated period and period as they stand in the table.
    """

    design: Design
    outcome: str
    level: float
    mean_weight: float
    where: tuple[Condition, ...]
    by_cell: Mapping[Key, Gram]

    def cells(self, options: StaggeredOptions) -> Iterator[tuple[tuple[int, int], Gram]]:
        """Moments with the positions of their cohort and period, of those that are used."""
        for key, gram in self.by_cell.items():
            at = _position(part_of(key, gram, self.design.periods, options), self.design, options)
            if at is not None:
                yield at, gram


def observe_rows(
    options: StaggeredOptions, *, outcome: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Rows]:
    """Ask for the cohorts' sums by period; two passes, and one more where there are units.

    Args:
        options: The analysis.
        outcome: The outcome column.
        where: Conditions on the rows.

    Raises:
        DataError: As for panels, or a unit changes its start or cluster, or has two rows in a
            period.
    """
    weight = None if options.weights is None else Column(options.weights)
    covariates = tuple(Column(name) for name in options.covariates)
    first = GramRequest(
        terms=(Column(outcome), Column(options.period), *covariates),
        by=(*((options.first_treated_period,) if covariates else ()), options.period),
        weight=weight,
        where=where,
    )
    seen = {key: gram for key, gram in grams((yield first), first).items() if gram.n > 0}
    if not seen:
        given = ", a period and all covariates" if covariates else " and a period"
        raise DataError(f"no row has an outcome{given}")
    whole = pooled(seen.values())
    if not whole.sum_weights > 0:
        raise DataError(f"the weights {options.weights} are zero in every row")
    mean = float(whole.mean[0])
    # Not the periods' means: with weights these are periods but for rounding.
    labels = [key[-1] for key, gram in seen.items() if gram.sum_weights > 0]
    periods = np.unique([float(label) for label in labels if label is not None])
    check_periods(periods, options)
    # A row that lacks a covariate has no outcome either.
    y = linear([(Column(outcome), 1.0), (Constant(), -mean), *[(x, 0.0) for x in covariates]])
    seen_in = [Indicator(options.period, level(t)) for t in periods]
    marks: list[Term] = list(seen_in)
    if weight is not None:
        share = linear([(weight, whole.n / whole.sum_weights)])
        marks = [Product((mark, share)) for mark in seen_in]
    request = GramRequest(
        terms=(
            *[Product((mark, y)) for mark in marks],
            *marks,
            *(() if weight is None else seen_in),
        ),
        by=tuple(filter(None, (options.first_treated_period, options.cluster_column))),
        summed_by=() if options.unit is None else (options.unit,),
        where=where,
    )
    found = grams((yield request), request)
    parts = [part_of(key, gram, periods, options) for key, gram in found.items()]
    if options.unit is not None:
        lone = replace(request, by=())
        _check_units(parts, grams((yield lone), lone)[()].n, options)
    check_known(parts, options.cluster_column)
    return Rows(
        design=design(parts, options), outcome=outcome, level=mean,
        mean_weight=whole.sum_weights / whole.n, where=where, by_cell=seen,
    )  # fmt: skip


def by_cell(
    rows: Rows, options: StaggeredOptions, values: Sequence[Term]
) -> Generator[FrameRequest, pd.DataFrame, Array]:
    """Sums of values over the rows of each cohort and period, shape (C T, S); one pass.

    Args:
        rows: The cohorts' rows.
        options: The analysis.
        values: The S values.
    """
    request = GramRequest(
        terms=tuple(values),
        by=(options.first_treated_period, options.period),
        where=rows.where,
        crossed="none",
    )
    answer = replace(rows, by_cell=grams((yield request), request))
    sums = np.zeros((len(rows.design.starts), len(rows.design.periods), len(values)))
    for at, gram in answer.cells(options):
        sums[at] += gram.n * gram.mean
    return sums.reshape(-1, len(values))


def row_effects(found: Design, cells: Sequence[GroupTime]) -> Estimates:
    """The K effects and how the rows' values move them.

    Args:
        found: The cohorts.
        cells: The K comparisons.
    """
    moments = found.moments
    sums, weights = _sums(moments)
    means = np.array([cohort.mean for cohort in moments.cohorts])
    size = len(found.periods)
    values = np.zeros(len(cells))
    slopes = np.zeros((len(cells), *means.shape))
    for k, cell in enumerate(cells):
        if cell.is_reference:
            continue
        for sign, members in ((1.0, [cell.cohort]), (-1.0, list(cell.controls))):
            for side, at in ((sign, cell.at), (-sign, cell.base)):
                total = weights[members, at].sum()
                mean = sums[members, at].sum() / total
                values[k] += side * mean
                slopes[k, members, at] = side / total
                slopes[k, members, size + at] = -side * mean / total
    offsets = np.einsum("kcs,cs->kc", slopes, means)
    return Estimates(values=values, slopes=slopes, offsets=offsets)


def is_seen(found: Design, cell: GroupTime, *, least: int) -> bool:
    """Whether all four means of a comparison have enough rows behind them.

    Args:
        found: The cohorts.
        cell: The comparison.
        least: Rows, or clusters with rows, that each mean needs.
    """
    sides = ([cell.cohort], list(cell.controls))
    return all(
        _n_seen(found, members, at) >= least for members in sides for at in (cell.at, cell.base)
    )


def shares_of_rows(found: Design, options: StaggeredOptions) -> Shares:
    """Sizes of the cohorts: units, or rows where there are none, or their weights."""
    if options.weights is None:
        return Shares.of_units(found.moments.counts)
    _, weights = _sums(found.moments)
    sizes = weights.sum(axis=1)
    size = len(found.periods)
    at = tuple(range(size, 2 * size))
    return Shares(sizes=sizes, means=sizes / found.moments.counts, at=at)


def mean_paths(found: Design, mean: float) -> tuple[PanelGram, ...]:
    """Mean outcome of the rows of each cohort by period, NaN where there are none."""
    sums, weights = _sums(found.moments)
    has_rows = weights > 0
    means = np.where(has_rows, sums / np.where(has_rows, weights, 1.0) + mean, np.nan)
    return tuple(
        replace(cohort, mean=path)
        for cohort, path in zip(found.moments.cohorts, means, strict=True)
    )


def _sums(moments: Moments) -> tuple[Array, Array]:
    """Weighted sums of outcomes and of weights by cohort and period, shapes (C, T)."""
    size = len(moments.cohorts[0].periods)
    totals = moments.counts[:, None] * np.array([cohort.mean for cohort in moments.cohorts])
    return totals[:, :size], totals[:, size : 2 * size]


def _n_seen(found: Design, members: Sequence[int], at: int) -> int:
    """Clusters, or units or rows, that are seen in a period."""
    place = at - len(found.periods)
    if not found.clusters:
        cohorts = [found.moments.cohorts[c] for c in members]
        return sum(round(cohort.n * float(cohort.mean[place])) for cohort in cohorts)
    starts = {found.starts[c] for c in members}
    return len(
        {
            part.key
            for part in found.moments.parts
            if part.first_treated_period in starts and part.mean[place] > 0
        }
    )


def part_of(key: Key, gram: Gram, periods: Array, options: StaggeredOptions) -> PanelGram:
    """Moments by first treated period and further keys, as those of a cohort.

    Raises:
        DataError: The first treated period is text.
    """
    start = key[0]
    if isinstance(start, str):
        raise DataError(f"{options.first_treated_period} must hold numbers", given=start)
    return PanelGram(
        None if start is None else float(start), key[1:], periods, gram.n, 0, gram.n_missing,
        gram.mean, gram.cross,
    )  # fmt: skip


def _check_units(parts: Sequence[PanelGram], n_units: int, options: StaggeredOptions) -> None:
    """Each unit lies in one cohort and cluster, and has at most one row in a period."""
    names = ", ".join(filter(None, (options.first_treated_period, options.cluster_column)))
    n_changing = sum(part.n for part in parts) - n_units
    if n_changing:
        raise DataError(
            f"{names} must not change within {options.unit}", given=f"{n_changing} changes"
        )
    size = len(parts[0].periods)
    squares = sum(np.diag(part.cross)[size:] + part.n * part.mean[size:] ** 2 for part in parts)
    rows = sum(part.n * part.mean[size:] for part in parts)
    if np.any(squares - rows > _TWICE * rows):
        raise DataError(f"more than one row for the same {options.unit} and {options.period}")


def _position(part: PanelGram, found: Design, options: StaggeredOptions) -> tuple[int, int] | None:
    """Where a part with the period as its key stands; `None`: it is not used."""
    used = used_parts([part], options)
    period = part.key[0]
    at = np.flatnonzero(found.periods == (np.nan if period is None else float(period)))
    if part.n == 0 or not used or not len(at):
        return None
    return found.starts.index(used[0].first_treated_period), int(at[0])
