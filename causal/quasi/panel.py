"""The panel behind a difference-in-differences analysis: cohorts, mean paths and unit counts."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Column,
    Condition,
    FrameRequest,
    GramRequest,
    Indicator,
    KeyRequest,
    PanelGramRequest,
    Term,
)
from causal.core.gram import Array, Gram, Key, PanelGram, grams, panel_grams, pooled, pooled_paths
from causal.quasi.did_options import DidOptions
from causal.quasi.treatment_timing import Timing

_MIN_PERIODS = 2
_MAX_CLUSTERS = 1_000
"""More clusters than these are summed where the rows are, not brought to the driver."""
_FLAT = 1e-24
"""An outcome whose variance is below this share of its squared size does not vary."""


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Moments by cluster and cohort.

    Attributes:
        column: Column of the clusters.
        parts: Units of one cluster and cohort each; `key` holds the cluster.
    """

    column: str
    parts: tuple[PanelGram, ...]


@dataclass(frozen=True)
class UnitCount:
    """How many units of one cohort (in one cluster) there are, or are used.

    Attributes:
        first_treated_period: The cohort; `None`: never treated.
        key: The cluster; empty without.
        n: Units, one or more.
    """

    first_treated_period: float | None
    key: Key
    n: int


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Outcome paths of the complete units by cohort, and counts of the others.

    Attributes:
        periods: The T periods, ascending, shape (T,).
        cohorts: Moments of each cohort; `first_treated_period` is the start of the treatment,
            `None` where the cohort is never treated or the design has no cohorts.
        timing: How cohorts were read off the table; `None` without cohorts.
        unit: Column of the units.
        clusters: The same by cluster, where asked for and few enough.
    """

    periods: Array
    cohorts: tuple[PanelGram, ...]
    timing: Timing | None
    unit: str
    clusters: Clusters | None = None

    @property
    def n(self) -> int:
        """Complete units."""
        return sum(cohort.n for cohort in self.cohorts)

    @property
    def n_incomplete(self) -> int:
        """Units that lack some period."""
        return sum(cohort.n_incomplete for cohort in self.cohorts)

    @property
    def n_missing(self) -> int:
        """Rows without an outcome."""
        return sum(cohort.n_missing for cohort in self.cohorts)

    @property
    def starts(self) -> tuple[float, ...]:
        """First treated periods of the treated cohorts, ascending."""
        return tuple(
            c.first_treated_period for c in self.cohorts if c.first_treated_period is not None
        )

    @property
    def has_never_treated(self) -> bool:
        """Whether some units are never treated within the data."""
        return any(
            c.first_treated_period is None or c.first_treated_period > self.periods[-1]
            for c in self.cohorts
        )

    def is_treated(self, units: PanelGram | UnitCount) -> bool:
        """Whether units of one cohort are treated within the data."""
        first = units.first_treated_period
        return first is not None and first <= self.periods[-1]

    def complete(self) -> "Panel":
        """The same without the units that lack some period."""

        def kept(parts: Sequence[PanelGram]) -> tuple[PanelGram, ...]:
            return tuple(replace(part, n_incomplete=0) for part in parts if part.n > 0)

        clusters = self.clusters
        if clusters is not None:
            clusters = replace(clusters, parts=kept(clusters.parts))
        return replace(self, cohorts=kept(self.cohorts), clusters=clusters)

    def seen(self) -> "Panel":
        """The same without cohorts that have no rows."""
        return replace(self, cohorts=tuple(c for c in self.cohorts if c.n + c.n_incomplete > 0))

    def units(self) -> tuple[UnitCount, ...]:
        """The units, complete or not, by cluster where these are at hand."""
        parts = self.cohorts if self.clusters is None else self.clusters.parts
        counts = [(part, part.n + part.n_incomplete) for part in parts]
        return tuple(UnitCount(part.first_treated_period, part.key, n) for part, n in counts if n)

    def n_units(self, units: Sequence[UnitCount]) -> tuple[int, int]:
        """How many of some units are and are not treated within the data."""
        n_treated = sum(part.n for part in units if self.is_treated(part))
        return n_treated, sum(part.n for part in units) - n_treated


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Outcome of one cohort in one period, over all rows used.

    Attributes:
        first_treated_period: The cohort; `None`: never treated.
        period: The period; `None` where several periods were pooled.
        n: Rows.
        sum_weights: Sum of the weights (n when unweighted).
        mean: Weighted mean of the outcome.
        sum_squares: Weighted sum of squares around the mean.
    """

    first_treated_period: float | None
    period: float | None
    n: int
    sum_weights: float
    mean: float
    sum_squares: float


@dataclass(frozen=True, kw_only=True)
class CellSurvey:
    """All rows of a panel by cohort and period.

    Attributes:
        cells: The cells that have rows.
        n_missing: Rows left out because a column was null.
        total: Moments of the outcome and the other columns over all rows used.
    """

    cells: tuple[Cell, ...]
    n_missing: int
    total: Gram

    def spread(self) -> dict[Term, float]:
        """Sum of squares of each column around its mean over all rows."""
        diagonal = np.diag(self.total.cross)
        return {term: float(diagonal[j]) for j, term in enumerate(self.total.terms)}


def observe(
    options: DidOptions, *, outcome: str, where: tuple[Condition, ...], by_cluster: bool = False
) -> Generator[FrameRequest, pd.DataFrame, Panel]:
    """Ask for the panel moments and check that the panel can carry the design.

    Args:
        options: The analysis.
        outcome: The outcome column.
        where: Conditions on the rows.
        by_cluster: Whether moments by cluster save a pass over the rows.

    Raises:
        DataError: Fewer than two periods, no treated or no comparison units, a start of the
            treatment outside the data, or an outcome that never varies.
    """
    timing = options.timing
    by = (yield from _few_clusters(options, where)) if by_cluster else ()
    request = PanelGramRequest(
        unit=options.unit,
        period=options.period,
        outcome=Column(outcome),
        first_treated_period=None if timing is None else timing.cohort,
        by=by,
        where=where,
    )
    found = panel_grams((yield request), request)
    if not found:
        raise DataError("the source has no rows after the filters")
    if timing is not None:
        found = tuple(
            replace(item, first_treated_period=timing.first_treated(item.first_treated_period))
            for item in found
        )
    clusters = Clusters(column=by[0], parts=found) if by else None
    if clusters is not None:
        _check_known(clusters)
    panel = Panel(
        periods=found[0].periods,
        cohorts=_ordered(pooled_paths(found)),
        timing=timing,
        unit=options.unit,
        clusters=clusters,
    )
    _check_periods(panel, options)
    if timing is not None:
        _check_arms(panel, anticipation=options.anticipation)
    _check_varies(panel, outcome)
    return panel


def panel_of_cohorts(options: DidOptions, panel: Panel) -> Panel:
    """The panel of an estimator that takes sums by cohort, and by clusters that are at hand.

    Args:
        options: The analysis; `balanced` leaves out units that lack a period.
        panel: All units.

    Raises:
        DataError: There are too many clusters to hold them one by one, or no unit is complete.
    """
    what = options.named
    if options.balanced and panel.n == 0:
        raise DataError("balanced: true leaves no unit: every one lacks some period")
    if options.clusters != options.unit and (
        panel.clusters is None or panel.clusters.column != options.clusters
    ):
        raise DataError(
            f"{what} takes each {options.clusters} on its own: too many of them",
            allowed=f"at most {_MAX_CLUSTERS:,} clusters, or the unit",
        )
    return panel.complete() if options.balanced else panel.seen()


def observe_cells(
    options: DidOptions, *, terms: Sequence[Term], where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, CellSurvey]:
    """Mean outcome of every cohort and period over all rows, complete units or not.

    Args:
        options: The analysis.
        terms: The outcome first; rows with a null in any of them are not used.
        where: Conditions on the rows.
    """
    timing = options.timing
    by = (options.period,) if timing is None else (timing.cohort, options.period)
    weight = None if options.weight is None else Column(options.weight)
    request = GramRequest(terms=tuple(terms), by=by, weight=weight, where=where)
    answer = grams((yield request), request)
    cells = []
    for key, gram in answer.items():
        if gram.n == 0 or key[-1] is None:
            continue
        first = None
        if timing is not None:
            first = timing.first_treated(None if key[0] is None else float(key[0]))
        cells.append(
            Cell(
                first_treated_period=first,
                period=float(key[-1]),
                n=gram.n,
                sum_weights=gram.sum_weights,
                mean=float(gram.mean[0]),
                sum_squares=float(gram.cross[0, 0]),
            )
        )
    n_rows = sum(gram.n + gram.n_missing for gram in answer.values())
    return CellSurvey(
        cells=tuple(cells),
        n_missing=n_rows - sum(cell.n for cell in cells),
        total=pooled(answer.values()),
    )


def of_a_unit(options: DidOptions) -> Term:
    """A term that is null in the rows without a unit, which has no effect that could be held."""
    return Indicator(options.unit, 0)


def complete_cells(panel: Panel) -> tuple[Cell, ...]:
    """The cells of the complete units, from the panel's moments."""
    return tuple(
        Cell(
            first_treated_period=cohort.first_treated_period, period=float(period), n=cohort.n,
            sum_weights=float(cohort.n), mean=float(cohort.mean[t]),
            sum_squares=float(cohort.cross[t, t]),
        )
        for cohort in panel.cohorts
        if cohort.n > 0
        for t, period in enumerate(panel.periods)
    )  # fmt: skip


def merged(cells: Sequence[Cell]) -> Cell:
    """Cells of one cohort pooled over their periods."""
    moments = [
        Gram(
            (), cell.n, 0, 0, cell.sum_weights,
            np.array([cell.mean]), np.array([[cell.sum_squares]]),
        )
        for cell in cells
    ]  # fmt: skip
    total = pooled(moments)
    return Cell(
        first_treated_period=cells[0].first_treated_period, period=None, n=total.n,
        sum_weights=total.sum_weights, mean=float(total.mean[0]),
        sum_squares=float(total.cross[0, 0]),
    )  # fmt: skip


def cohort_means(cells: Sequence[Cell], *, metric: str) -> pd.DataFrame:
    """Cells as a table: metric, first_treated_period (NaN: never), period, n, mean."""
    rows = [
        {
            "metric": metric,
            "first_treated_period": np.nan
            if c.first_treated_period is None
            else c.first_treated_period,
            "period": c.period,
            "n": c.n,
            "mean": c.mean,
        }
        for c in cells
    ]
    table = pd.DataFrame(rows, columns=["metric", "first_treated_period", "period", "n", "mean"])
    return table.sort_values(["first_treated_period", "period"], ignore_index=True)


def _few_clusters(
    options: DidOptions, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, tuple[str, ...]]:
    """The column of the clusters, if moments by cluster are useful and few."""
    column = options.clusters
    taken = (
        options.unit,
        options.period,
        *(() if options.timing is None else (options.timing.cohort,)),
    )
    is_useful = options.covariance == "cluster" and options.has_cohorts_only
    if not is_useful or options.needs_blocks or options.is_two_way or column in taken:
        return ()
    frame = yield KeyRequest(key=(column,), n_examples=0, where=where)
    return (column,) if frame["n_keys"].iloc[0] <= _MAX_CLUSTERS else ()


def _check_known(clusters: Clusters) -> None:
    n_rows = sum(part.n * len(part.periods) for part in clusters.parts if part.key == (None,))
    if n_rows:
        raise DataError(f"{clusters.column} is null in some rows", given=f"{n_rows} rows")


def _ordered(found: Sequence[PanelGram]) -> tuple[PanelGram, ...]:
    return tuple(
        sorted(
            found,
            key=lambda c: np.inf if c.first_treated_period is None else c.first_treated_period,
        )
    )


def _check_periods(panel: Panel, options: DidOptions) -> None:
    if not np.isfinite(panel.periods).all():
        raise DataError(f"{options.period} is null or not finite in some rows")
    if len(panel.periods) < _MIN_PERIODS:
        raise DataError("two or more periods are needed", given=panel.periods)
    start, first, last = options.treatment_period, panel.periods[0], panel.periods[-1]
    if start is not None and not first < start - options.anticipation <= last:
        raise DataError(
            "treatment_period leaves no period before or after it",
            given=start, allowed=f"after {first:g} and up to {last:g}",
        )  # fmt: skip


def _check_arms(panel: Panel, *, anticipation: int) -> None:
    begins = [
        np.inf if c.first_treated_period is None else c.first_treated_period - anticipation
        for c in panel.cohorts
    ]
    first, last = panel.periods[0], panel.periods[-1]
    if all(begin + anticipation > last for begin in begins):
        raise DataError("no unit is treated within the data: there is no treated group")
    if all(begin <= first for begin in begins):
        raise DataError("all units are treated in every period: there is no comparison group")
    if len(set(begins)) == 1:
        raise DataError(
            "all units are treated from the same period on: there is no comparison group",
            given=begins[0],
        )


def _check_varies(panel: Panel, outcome: str) -> None:
    if panel.n == 0 or panel.n_incomplete > 0:
        return
    means = np.array([cohort.mean for cohort in panel.cohorts])
    counts = np.array([cohort.n for cohort in panel.cohorts], dtype=np.float64)
    grand = counts @ means.mean(axis=1) / counts.sum()
    spread = sum(np.trace(c.cross) for c in panel.cohorts) + counts @ ((means - grand) ** 2).sum(
        axis=1
    )
    size = counts @ (means**2).sum(axis=1)
    if spread <= _FLAT * size or spread == 0:
        raise DataError(f"{outcome} has the same value in every row: there is nothing to explain")
