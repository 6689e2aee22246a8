"""The series: outcome and covariates by period, from a table or from a panel of regions."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Column, Condition, FrameRequest, GramRequest
from causal.core.gram import Array, Gram, Key, grams
from causal.core.result import Diagnostic
from causal.quasi.structural.bsts_options import BstsOptions
from causal.quasi.synthetic.region_notes import region_notes
from causal.quasi.synthetic.region_panel import RegionPanel, Starts, observe, observe_table
from causal.quasi.time_axis import (
    Label,
    between,
    check_spacing,
    given_label,
    n_before,
    order,
    period_labels,
    shown,
)

_COLUMNS_PER_REQUEST = 24
"""A request's answer grows with the square of its columns."""
_FLAT = 1e-12
_LARGEST = 1e100
_MAX_EXAMPLES = 5
_Plan = Generator[FrameRequest, pd.DataFrame, "TimeSeries"]
Table = Mapping[str, Mapping[Label, float]]


@dataclass(frozen=True, kw_only=True)
class TimeSeries:
    """An outcome and its covariates over T periods without holes.

    Attributes:
        labels: The periods, ascending.
        outcome: Shape (T,); of several treated regions their mean.
        covariates: Shape (T, K).
        names: The K covariates.
        n_pre: Periods before the start.
        n_regions: Treated regions; 1 where the data have none.
        n_donors: Donor regions; `None` where the data have no regions.
        notes: What a reader must know of how it was read.
    """

    labels: tuple[Label, ...]
    outcome: Array
    covariates: Array
    names: tuple[str, ...]
    n_pre: int
    n_regions: int = 1
    n_donors: int | None = None
    notes: tuple[Diagnostic, ...] = ()

    @property
    def n_post(self) -> int:
        """Periods from the start on."""
        return len(self.labels) - self.n_pre

    def pretending(self, n_pre: int) -> "TimeSeries":
        """The periods before the start, with an earlier one."""
        return replace(
            self, labels=self.labels[: self.n_pre], outcome=self.outcome[: self.n_pre],
            covariates=self.covariates[: self.n_pre], n_pre=n_pre, notes=(),
        )  # fmt: skip

    def flat_covariates(self) -> list[str]:
        """Covariates that do not vary before the start."""
        return [
            name
            for name, values in zip(self.names, self.covariates[: self.n_pre].T, strict=True)
            if _is_flat(values)
        ]


def observe_columns(
    options: BstsOptions, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Table]:
    """Outcomes and covariates of a table with a row per period, by column and period.

    Raises:
        DataError: Several rows for a period that were not to be aggregated, a value or period that
            is missing, or a period that is neither number nor date.
    """
    columns = (*options.outcomes, *options.covariates)
    weight = None if options.weight is None else Column(options.weight)
    found: dict[str, Mapping[Label, float]] = {}
    for first in range(0, len(columns), _COLUMNS_PER_REQUEST):
        names = columns[first : first + _COLUMNS_PER_REQUEST]
        request = GramRequest(
            terms=tuple(Column(name) for name in names), by=(options.period,), weight=weight,
            where=where,
        )  # fmt: skip
        cells = _within(options, _by_label(options, grams((yield request), request)))
        _check_cells(options, cells, names)
        for at, name in enumerate(names):
            found[name] = {
                label: float(cell.mean[at])
                * (cell.sum_weights if options.aggregate == "sum" else 1.0)
                for label, cell in cells.items()
            }
    return found


def series_of_table(options: BstsOptions, table: Table, *, outcome: str) -> TimeSeries:
    """The series of one outcome of a table.

    Raises:
        DataError: The data cannot carry the analysis.
    """
    labels = tuple(sorted(table[outcome], key=order))
    if options.spacing == "regular":
        check_spacing(labels, column=options.period)
    start = given_label(options.start, like=labels[0], key="treatment_period")
    columns = [[table[name][label] for label in labels] for name in options.covariates]
    series = TimeSeries(
        labels=labels,
        outcome=np.array([table[outcome][label] for label in labels]),
        covariates=np.array(columns).reshape(len(columns), len(labels)).T,
        names=tuple(options.covariates),
        n_pre=n_before(labels, start),
    )
    return checked(series, options, outcome=outcome, start=start)


def observe_regions(
    options: BstsOptions, where: tuple[Condition, ...], *, outcome: str, starts: Starts
) -> _Plan:
    """The series of the treated regions, their donors' paths beside.

    Raises:
        DataError: The data cannot carry the analysis.
    """
    regions = options.regions
    panel = yield from observe(regions, where, outcome=outcome, starts=starts)
    if len(set(panel.starts[panel.treated])) > 1:
        raise DataError(
            "the treated regions start at different times: analyse each start on its own",
            given=[shown(panel.periods[at]) for at in np.unique(panel.starts[panel.treated])],
        )
    tables = {}
    for name in options.covariates:
        tables[name], _ = yield from observe_table(regions, where, column=name)
    labels = tuple(panel.periods)
    own = [_of_treated(table, panel, name=name) for name, table in tables.items()]
    series = TimeSeries(
        labels=labels,
        outcome=panel.values[panel.treated].mean(axis=0),
        covariates=np.vstack([panel.values[panel.donors], *own]).T,
        names=(*map(str, panel.names(panel.donors)), *options.covariates),
        n_pre=int(panel.starts[panel.treated][0]),
        n_regions=len(panel.treated),
        n_donors=len(panel.donors),
        notes=tuple(region_notes(panel)),
    )
    return checked(series, options, outcome=outcome, start=labels[series.n_pre])


def checked(series: TimeSeries, options: BstsOptions, *, outcome: str, start: Label) -> TimeSeries:
    """The series, if an effect can be estimated from it.

    Raises:
        DataError: It cannot; says why.
    """
    labels = series.labels
    if not order(labels[0]) < order(start) <= order(labels[-1]):
        raise DataError(
            "the treatment starts outside the data", given=shown(start),
            allowed=f"after {shown(labels[0])}, up to {shown(labels[-1])}",
        )  # fmt: skip
    if series.n_pre < options.min_pre_periods:
        why = " (two cycles of the seasonality)" if options.cycles else ""
        raise DataError(
            "there are too few periods before the treatment", given=series.n_pre,
            allowed=f"{options.min_pre_periods} or more{why}",
        )  # fmt: skip
    if np.abs(series.outcome).max() > _LARGEST:
        raise DataError(f"{outcome} is too large for sums of squares", allowed=f"{_LARGEST:g}")
    if _is_flat(series.outcome[: series.n_pre]):
        raise DataError(f"{outcome} has the same value in every period before the treatment")
    flat = series.flat_covariates()
    if flat:
        raise DataError(
            "some covariates do not vary before the treatment", given=flat,
            allowed="covariates that vary: leave these out"
            + ("" if series.n_donors is None else " (excluded)"),
        )  # fmt: skip
    return series


def _is_flat(values: Array) -> bool:
    return bool(np.ptp(values) <= _FLAT * np.abs(values).max())


def _of_treated(table: pd.DataFrame, panel: RegionPanel, *, name: str) -> Array:
    whole = table.reindex(index=panel.names(panel.treated), columns=list(panel.periods))
    values = whole.to_numpy(dtype=np.float64)
    if np.isnan(values).any():
        raise DataError(
            f"covariate {name} lacks values of the treated regions",
            given=f"{int(np.isnan(values).sum())} cells",
        )
    return np.asarray(values.mean(axis=0))


def _by_label(options: BstsOptions, cells: Mapping[Key, Gram]) -> dict[Label, Gram]:
    nameless = cells.get((None,))
    if nameless is not None:
        n_rows = nameless.n + nameless.n_missing
        raise DataError(f"{options.period} is null", given=f"{n_rows} rows")
    periods = {period: cell for (period,), cell in cells.items() if period is not None}
    labels = period_labels(periods, column=options.period)
    return {labels[period]: cell for period, cell in periods.items()}


def _within(options: BstsOptions, cells: Mapping[Label, Gram]) -> dict[Label, Gram]:
    if not cells:
        raise DataError("the source has no rows after the filters")
    is_within = between(
        options.first_period, options.last_period, like=next(iter(cells)),
        keys=("first_period", "last_period"),
    )  # fmt: skip
    kept = {label: cell for label, cell in cells.items() if is_within(label)}
    if not kept:
        raise DataError("there is no period between first_period and last_period")
    return kept


def _check_cells(options: BstsOptions, cells: Mapping[Label, Gram], names: Sequence[str]) -> None:
    several = [label for label, cell in cells.items() if cell.n + cell.n_missing > 1]
    if options.aggregate == "none" and several:
        raise DataError(
            f"more than one row for the same {options.period}",
            given=f"{len(several)} periods, such as {_examples(several)}",
            allowed="aggregate: mean or sum",
        )
    holes = [label for label, cell in cells.items() if cell.n_missing or cell.sum_weights <= 0]
    if holes:
        raise DataError(
            f"a value is missing in {', '.join(names[:_MAX_EXAMPLES])}"
            + (" or others" if len(names) > _MAX_EXAMPLES else ""),
            given=f"{len(holes)} periods, such as {_examples(holes)}",
            allowed="a value of the outcome and each covariate in each period",
        )


def _examples(labels: Iterable[Label]) -> str:
    return ", ".join(shown(label) for label in sorted(labels, key=order)[:_MAX_EXAMPLES])
