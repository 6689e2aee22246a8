"""The panel of regions: a matrix of the outcome by region and period, and who starts when.

A region panel is a Gram request by (region, period): the engine aggregates the rows, the driver
gets one number per region and period.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.errors import DataError
from causal.core.frames import Column, Condition, FrameRequest, GramRequest, Level
from causal.core.gram import Array, Gram, Key, grams, means
from causal.quasi.synthetic.region_options import (
    PanelOptions,
    RegionOptions,
    WholePanelOptions,
)
from causal.quasi.time_axis import (
    GivenPeriod,
    Label,
    Periods,
    between,
    check_spacing,
    given_label,
    label_of,
    n_before,
    order,
    period_label,
    period_labels,
    shown,
)

Indices = NDArray[np.intp]
MIN_PRE_PERIODS = 2
_FLAT = 1e-12
_MAX_EXAMPLES = 5
_LARGEST = 1e100


@dataclass(frozen=True, kw_only=True)
class RegionPanel:
    """A complete panel; treated regions first, each group in the order of its names.

    Attributes:
        units: The N regions.
        periods: The T periods, numbers or dates, ascending.
        values: The outcome, shape (N, T).
        starts: Position of the first treated period of each region; T where it is a donor.
        n_missing: Rows without an outcome or weight, left out.
        dropped: Donors left out because they lack a period.
        already_treated: Regions left out because they are treated from the first period on.
        between_periods: Treated regions whose start is no period, and which period counts as it.
    """

    units: tuple[Level, ...]
    periods: Periods
    values: Array
    starts: Indices
    n_missing: int
    dropped: tuple[Level, ...]
    already_treated: tuple[Level, ...]
    between_periods: tuple[str, ...] = ()

    @property
    def treated(self) -> Indices:
        """Positions of the treated regions."""
        return np.flatnonzero(self.starts < len(self.periods))

    @property
    def donors(self) -> Indices:
        """Positions of the donors."""
        return np.flatnonzero(self.starts == len(self.periods))

    def names(self, at: Iterable[int]) -> list[Level]:
        """Names of the regions at some positions."""
        return [self.units[int(position)] for position in at]


Starts = Mapping[Level, GivenPeriod]


def observe_starts(
    options: RegionOptions, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Starts]:
    """First treated periods of the treated regions, from the spec or from a column.

    Raises:
        DataError: The column changes within a region, or holds neither numbers nor dates.
    """
    column = options.first_treated_period
    if column is None:
        return options.named_starts
    request = GramRequest(terms=(), by=(options.unit, column), where=where)
    cells = grams((yield request), request)
    _check_named(sum(cell.n + cell.n_missing for (unit, _), cell in cells.items() if unit is None))
    written: dict[Level, Level | None] = {}
    for unit, start in cells:
        if unit in written:
            raise DataError(f"{column} must not change within {options.unit}", given=str(unit))
        if unit is not None:
            written[unit] = start
    return {
        unit: period_label(start, column=column)
        for unit, start in written.items()
        if start is not None
    }


def observe(
    options: RegionOptions, where: tuple[Condition, ...], *, outcome: str, starts: Starts
) -> Generator[FrameRequest, pd.DataFrame, RegionPanel]:
    """The panel of one outcome.

    Raises:
        DataError: The data cannot carry the analysis: a treated region, donors, periods before the
            start or values are missing.
    """
    table, n_missing = yield from observe_table(options, where, column=outcome)
    table = without(table, options.excluded)
    if table.empty:
        raise DataError("the source has no rows after the filters")
    begins, already = _begins(options, table, starts)
    table = table.drop(index=[unit for unit in table.index if unit in already])
    table, dropped = _complete(options, table, treated=begins)
    panel = _panel(table, begins, options, n_missing=n_missing, dropped=dropped, already=already)
    check_values(panel.values, outcome)
    return panel


def observe_table(
    options: PanelOptions, where: tuple[Condition, ...], *, column: str
) -> Generator[FrameRequest, pd.DataFrame, tuple[pd.DataFrame, int]]:
    """One value per region (rows) and period (columns), NaN where there is none; rows left out.

    Raises:
        DataError: Several rows for a region and period that were not to be aggregated, or a period
            that is neither number nor date.
    """
    weight = None if options.weight is None else Column(options.weight)
    request = GramRequest(
        terms=(Column(column),), by=(options.unit, options.period), weight=weight, where=where
    )
    cells = means((yield request), request)
    _check_known(cells, options)
    n_rows = cells["n"] + cells["n_missing"]
    several = cells.loc[n_rows > 1, [options.unit, options.period]]
    check_single(options, list(several.itertuples(index=False, name=None)))
    labels = period_labels(cells[options.period].unique(), column=options.period)
    long = pd.DataFrame(
        {
            "unit": cells[options.unit],
            "period": cells[options.period].map(_within(options, labels)),
            "value": _values(options, cells),
        }
    ).dropna(subset="period")
    table = long.pivot(index="unit", columns="period", values="value")
    return table, int(cells["n_missing"].sum())


def _within(options: PanelOptions, labels: Mapping[Level, Label]) -> dict[Level, Label]:
    """The periods from `first_period` to `last_period`."""
    if not labels:
        return {}
    is_within = between(
        options.first_period, options.last_period, like=next(iter(labels.values())),
        keys=("first_period", "last_period"),
    )  # fmt: skip
    return {value: label for value, label in labels.items() if is_within(label)}


def names_a_region(name: Level, units: Iterable[Level]) -> Level | None:
    """The region that a name of the spec means: 17 finds 17.0 and the text '17'."""
    for unit in units:
        if unit == name or str(unit) == str(name) or _as_number(unit) == _as_number(name):
            return unit
    return None


def _as_number(value: Level) -> float | str:
    try:
        return float(value)
    except ValueError:
        return str(value)


def known_keys(cells: Mapping[Key, Gram]) -> dict[Key, Gram]:
    """The cells, if each has a region and a period.

    Raises:
        DataError: One has not.
    """
    _check_named(sum(cell.n + cell.n_missing for key, cell in cells.items() if None in key))
    return dict(cells)


def _check_known(cells: pd.DataFrame, options: PanelOptions) -> None:
    is_null = cells[options.unit].isna() | cells[options.period].isna()
    _check_named(int(cells.loc[is_null, ["n", "n_missing"]].to_numpy().sum()))


def _check_named(n_nameless: int) -> None:
    if n_nameless:
        raise DataError("the region or the period is null", given=f"{n_nameless} rows")


def check_cells(options: PanelOptions, cells: Mapping[Key, Gram]) -> None:
    """Cells hold one row each, unless rows are to be aggregated.

    Raises:
        DataError: They do not.
    """
    check_single(options, [key for key, cell in cells.items() if cell.n + cell.n_missing > 1])


def check_single(options: PanelOptions, several: Sequence[Key]) -> None:
    """No cells hold several rows, unless rows are to be aggregated.

    Args:
        options: The options.
        several: Keys of the cells that do.

    Raises:
        DataError: They do.
    """
    if options.aggregate == "none" and several:
        raise DataError(
            f"more than one row for the same {options.unit} and {options.period}",
            given=f"{len(several)} cells, such as {examples_of(several)}",
            allowed="aggregate: mean or sum",
        )


def _values(options: PanelOptions, cells: pd.DataFrame) -> "pd.Series[float]":
    """The outcome of each cell; NaN where no row has one."""
    is_known = (cells["n"] > 0) & (cells["sum_weights"] > 0)
    factor = cells["sum_weights"] if options.aggregate == "sum" else 1.0
    return (cells["mean"] * factor).where(is_known)


def periods_of(table: pd.DataFrame) -> Periods:
    """The periods that a table of regions has."""
    return table.columns.rename(None)


def without(table: pd.DataFrame, excluded: Sequence[Level]) -> pd.DataFrame:
    """The table without the rows of some regions.

    Raises:
        DataError: It has no such region.
    """
    units = list(table.index)
    gone = [found_region(name, units, role="excluded") for name in excluded]
    return table.drop(index=gone)


def found_region(name: Level, units: Sequence[Level], *, role: str) -> Level:
    """The region of the data that a name of the spec means.

    Raises:
        DataError: There is none.
    """
    # Looked up at once where the spec has the very name; a few hundred names make many pairs.
    unit = units[units.index(name)] if name in units else names_a_region(name, units)
    if unit is None:
        raise DataError(f"the data hold no such {role} region", given=str(name), allowed=units)
    return unit


def _begins(
    options: RegionOptions, table: pd.DataFrame, starts: Starts
) -> tuple[dict[Level, Label], tuple[Level, ...]]:
    """Starts of the regions treated within the data, and regions treated all the time."""
    units, periods = list(table.index), periods_of(table)
    if options.first_treated_period is None:
        key = "treated" if isinstance(options.treated, dict) else "treatment_period"
        named = {
            found_region(name, units, role="treated"): given_label(start, like=periods[0], key=key)
            for name, start in starts.items()
        }
        for unit, start in named.items():
            _check_start(options, unit=unit, start=start, periods=periods)
        return named, ()
    labels = {unit: label_of(start) for unit, start in starts.items() if unit in table.index}
    _check_kinds(options, labels, like=periods[0])
    first, last = order(periods[0]), order(periods[-1])
    within = {unit: start for unit, start in labels.items() if order(start) <= last}
    already = tuple(unit for unit, start in within.items() if order(start) <= first)
    begins = {unit: start for unit, start in within.items() if unit not in already}
    if not begins:
        raise DataError(
            "no region starts the treatment within the data: there is no treated region"
        )
    for unit, start in begins.items():
        _check_start(options, unit=unit, start=start, periods=periods)
    return begins, already


def _check_kinds(options: RegionOptions, starts: Mapping[Level, Label], *, like: Label) -> None:
    is_number = isinstance(like, float)
    other = [start for start in starts.values() if isinstance(start, float) != is_number]
    if other:
        raise DataError(
            f"{options.first_treated_period} and {options.period} must both hold numbers, or both "
            "dates",
            given=f"{shown(other[0])} and {shown(like)}",
            key="options.first_treated_period",
        )


def _check_start(options: RegionOptions, *, unit: Level, start: Label, periods: Periods) -> None:
    if not order(periods[0]) < order(start) <= order(periods[-1]):
        raise DataError(
            f"the treatment of {unit} starts outside the data",
            given=shown(start),
            allowed=f"after {shown(periods[0])}, up to {shown(periods[-1])}",
        )
    n_pre = n_before(periods, start)
    if n_pre < MIN_PRE_PERIODS:
        raise DataError(
            f"{unit} has too few periods before its treatment to be matched on",
            given=f"{n_pre} before {options.period} {shown(start)}",
            allowed=f"{MIN_PRE_PERIODS} or more",
        )


def _complete(
    options: RegionOptions, table: pd.DataFrame, *, treated: Mapping[Level, Label]
) -> tuple[pd.DataFrame, tuple[Level, ...]]:
    """Treated regions and donors observed in every period, and the donors left out."""
    units = list(table.index)
    if options.donors is not None:
        pool = [found_region(name, units, role="donor") for name in options.donors]
        for unit in pool:
            if unit in treated:
                raise DataError("treated region in the donor pool", given=str(unit))
        table = table.loc[[*treated, *pool]]
    lacking = table.isna().any(axis=1)
    holes = [unit for unit in table.index if lacking[unit]]
    is_droppable = options.incomplete == "drop" and not any(unit in treated for unit in holes)
    if holes and not is_droppable:
        cells = [
            (unit, shown(period))
            for period in periods_of(table)
            for unit in table.index[table[period].isna()]
        ]
        raise DataError(
            f"some regions lack a value in some {options.period}",
            given=f"{len(cells)} cells, such as {examples_of(cells)}",
            allowed="a value in each period, or incomplete: drop for donors",
        )
    return table.drop(index=holes), tuple(holes)


def _panel(
    table: pd.DataFrame,
    begins: Mapping[Level, Label],
    options: RegionOptions,
    *,
    n_missing: int,
    dropped: tuple[Level, ...],
    already: tuple[Level, ...],
) -> RegionPanel:
    donors = sorted((unit for unit in table.index if unit not in begins), key=str)
    treated = sorted(begins, key=str)
    if not donors:
        raise DataError(
            "there is no donor: every region is treated or left out", given=options.unit
        )
    periods = spaced_periods(options, table)
    first = [n_before(periods, begins[unit]) for unit in treated]
    between = [
        f"{unit}: {shown(begins[unit])} counts as {shown(periods[at])}"
        for unit, at in zip(treated, first, strict=True)
        if order(periods[at]) != order(begins[unit])
    ]
    ordered = table.loc[[*treated, *donors]]
    return RegionPanel(
        units=(*treated, *donors),
        periods=periods,
        values=ordered.to_numpy(dtype=np.float64),
        starts=np.array([*first, *[len(periods)] * len(donors)], dtype=np.intp),
        n_missing=n_missing,
        dropped=dropped,
        already_treated=already,
        between_periods=tuple(between),
    )


def spaced_periods(options: WholePanelOptions, table: pd.DataFrame) -> Periods:
    """The periods of a table of regions, ascending.

    Raises:
        DataError: Some are missing in every region, and that was not said to be meant.
    """
    periods = periods_of(table)
    if options.spacing == "regular":
        check_spacing(list(periods), column=options.period)
    return periods


def check_values(values: Array, outcome: str) -> None:
    """The outcome varies, and its squares are numbers.

    Raises:
        DataError: They are not, or it does not.
    """
    size = np.abs(values).max()
    if size > _LARGEST:
        raise DataError(
            f"{outcome} is too large for sums of squares",
            given=f"{size:g}",
            allowed=f"{_LARGEST:g}",
        )
    if np.ptp(values) <= _FLAT * size:
        raise DataError(f"{outcome} has the same value in every row: there is nothing to explain")


def examples_of(keys: Iterable[Any]) -> str:
    """A few of the keys, as text."""
    texts = ["/".join(str(part) for part in key) for key in keys]
    return ", ".join(sorted(texts)[:_MAX_EXAMPLES])
