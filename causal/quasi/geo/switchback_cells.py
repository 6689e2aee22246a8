"""The cells of a switchback: one pass gives outcome, treatment and rows by region and period."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Column, Condition, FrameRequest, GramRequest, Level
from causal.core.gram import Array, Gram, Key, grams
from causal.quasi.geo.switchback_layout import Bounds, Layout, layout
from causal.quasi.geo.switchback_options import SwitchbackOptions
from causal.quasi.synthetic.region_panel import (
    check_cells,
    check_values,
    examples_of,
    found_region,
    known_keys,
)

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Regions in periods.

    Attributes:
        regions: Names of the regions.
        layout: Where the n cells lie.
        outcome: Shape (n,).
        weights: Shape (n,).
        rows: Rows behind each cell, or ones where each cell counts the same, shape (n,).
        assignment: Treatment of each randomised unit, 0 or 1, shape (u,).
        n_missing: Rows without an outcome, treatment or weight.
    """

    regions: tuple[Level, ...]
    layout: Layout
    outcome: Array
    weights: Array
    rows: Array
    assignment: Array
    n_missing: int

    @property
    def treatment(self) -> Array:
        """Of each cell, shape (n,)."""
        return np.asarray(self.assignment[self.layout.unit], dtype=np.float64)


def observe(
    options: SwitchbackOptions, where: tuple[Condition, ...], *, outcome: str
) -> Generator[FrameRequest, pd.DataFrame, Cells]:
    """The cells of one outcome.

    Raises:
        DataError: The treatment is not 0 or 1, changes within a block, or is everywhere the same;
            a period is no whole number; there are no cells.
    """
    by = (options.unit, options.period, *(() if options.block is None else (options.block,)))
    request = GramRequest(
        terms=(Column(outcome), Column(options.treatment)), by=by, where=where,
        weight=None if options.weight is None else Column(options.weight),
    )  # fmt: skip
    found = known_keys(grams((yield request), request))
    found = _within(options, found)
    check_cells(options, found)
    cells = {key: cell for key, cell in found.items() if cell.n > 0 and cell.sum_weights > 0}
    if not cells:
        raise DataError("no row has a value for every column of the analysis")
    treatment = _treatment(options, cells)
    table = _table(options, cells)
    laid = layout(
        table["region"].to_numpy(dtype=np.intp), table["period"].to_numpy(dtype=np.int64),
        table["block"].to_numpy(dtype=np.intp), bounds=_bounds(options),
        is_joint=options.randomised_by == "block",
    )  # fmt: skip
    values = np.array([float(cell.mean[0]) for cell in cells.values()])
    if options.aggregate == "sum":
        values *= np.array([cell.sum_weights for cell in cells.values()])
    check_values(values, outcome)
    is_by_rows = options.weighting == "rows"
    counts = np.array([float(cell.n) for cell in cells.values()])
    shares = np.array([cell.sum_weights for cell in cells.values()])
    return Cells(
        regions=tuple(dict.fromkeys(table.sort_values("region")["name"])),
        layout=laid,
        outcome=values,
        weights=shares if is_by_rows else np.ones(len(values)),
        rows=counts if is_by_rows else np.ones(len(values)),
        assignment=_assignment(options, laid, treatment, list(cells)),
        n_missing=sum(cell.n_missing for cell in found.values()),
    )


def _within(options: SwitchbackOptions, cells: dict[Key, Gram]) -> dict[Key, Gram]:
    units = list(dict.fromkeys(key[0] for key in cells))
    known = [unit for unit in units if unit is not None]
    gone = {found_region(name, known, role="excluded") for name in options.excluded}
    low = -np.inf if options.first_period is None else options.first_period
    high = np.inf if options.last_period is None else options.last_period
    kept = {
        key: cell
        for key, cell in cells.items()
        if key[0] not in gone and low <= _period_number(options, key[1]) <= high
    }
    # Sums of floats depend on their order: that of the names, not that of the rows.
    return dict(sorted(kept.items(), key=lambda item: (str(item[0][0]), _order(item[0]))))


def _period_number(options: SwitchbackOptions, period: Level | None) -> float:
    if isinstance(period, str | None):
        raise DataError(
            f"{options.period} must hold numbers", given=str(period),
            allowed="whole numbers, such as hours since a date",
        )  # fmt: skip
    return float(period)


def _order(key: Key) -> tuple[float, str]:
    return float(key[1] or 0), str(key[2:])


def _treatment(options: SwitchbackOptions, cells: dict[Key, Gram]) -> Array:
    share = np.array([float(cell.mean[1]) for cell in cells.values()])
    spread = np.array([float(cell.cross[1, 1]) for cell in cells.values()])
    is_flag = (np.abs(share) < _ROUNDING) | (np.abs(share - 1) < _ROUNDING)
    if not (is_flag & (np.abs(spread) < _ROUNDING)).all():
        bad = [key for key, is_good in zip(cells, is_flag, strict=True) if not is_good]
        raise DataError(
            f"{options.treatment} must be 0 or 1, the same in all rows of a region and period",
            given=f"{len(bad)} cells, such as {examples_of(key[:2] for key in bad)}",
        )
    return np.round(share)


def _table(options: SwitchbackOptions, cells: dict[Key, Gram]) -> pd.DataFrame:
    names = [key[0] for key in cells]
    period = np.array([_period_number(options, key[1]) for key in cells])
    if (period != np.round(period)).any():
        raise DataError(
            f"{options.period} must hold whole numbers, such as hours since a date",
            given=f"{period[period != np.round(period)][0]:g}",
        )
    whole = period.astype(np.int64)
    repeated = pd.DataFrame({"name": [str(name) for name in names], "period": whole}).duplicated()
    if repeated.any():
        at = int(np.flatnonzero(repeated)[0])
        raise DataError(
            f"a {options.unit} lies in two blocks in the same {options.period}",
            given=f"{names[at]}/{whole[at]}",
        )
    if options.block_length is not None:
        block = np.floor_divide(whole - options.block_origin, options.block_length)
    else:
        block = pd.factorize(pd.Series([str(key[2]) for key in cells]), sort=True)[0]
    region = pd.factorize(pd.Series(names, dtype=object))[0]
    return pd.DataFrame({"name": names, "region": region, "period": whole, "block": block})


def _bounds(options: SwitchbackOptions) -> Bounds:
    return Bounds(options.block_length, options.block_origin)


def _assignment(
    options: SwitchbackOptions, laid: Layout, treatment: Array, keys: list[Key]
) -> Array:
    n_units = int(laid.span_unit.max()) + 1
    total = np.bincount(laid.unit, treatment, n_units)
    count = np.bincount(laid.unit, minlength=n_units)
    mixed = np.flatnonzero((total > 0) & (total < count))
    if len(mixed):
        at = [int(np.flatnonzero(laid.unit == unit)[0]) for unit in mixed[:5]]
        raise DataError(
            f"{options.treatment} changes within what is randomised: blocks do not end where "
            "block_length, block_origin or randomised_by say",
            given=f"{len(mixed)} blocks, such as that of {examples_of(keys[i][:2] for i in at)}",
        )
    found = total / count
    if found.min() == found.max():
        raise DataError(
            f"{options.treatment} is the same in every block: there is nothing to compare",
            given=f"{found[0]:g}",
        )
    _check_independent(options, laid, found)
    return np.asarray(found, dtype=np.float64)


def _check_independent(options: SwitchbackOptions, laid: Layout, assignment: Array) -> None:
    """Regions that always switch together were not randomised one by one."""
    if options.randomised_by == "block" or int(laid.span_region.max()) == 0:
        return
    by_time = pd.DataFrame({"period": laid.period, "treatment": assignment[laid.unit]})
    groups = by_time.groupby("period")["treatment"]
    shared = groups.transform("size") > 1
    if shared.any() and (groups.nunique() == 1).all():
        raise DataError(
            "all regions have the same treatment in every period, so that they were not "
            "randomised one by one",
            given="randomised_by: region_block", allowed="randomised_by: block",
        )  # fmt: skip
