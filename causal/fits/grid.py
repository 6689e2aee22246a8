"""The grid of fits: which region, which outcome, from which period on, true or placebo."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import FrameRequest, GramRequest, Level
from causal.core.gram import grams
from causal.fits.fits_spec import FitsSpec, start_of
from causal.quasi.synthetic.region_options import RegionOptions
from causal.quasi.synthetic.region_panel import (
    Starts,
    found_region,
    known_keys,
    observe_starts,
)
from causal.quasi.time_axis import Label, label_of, shown


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One fit of the grid.

    Attributes:
        number: Its place in the grid, from 0.
        unit: The region that is treated, or taken as if it were.
        outcome: The outcome column.
        start: First treated period.
        is_placebo: Whether the region was never treated.
    """

    number: int
    unit: Level
    outcome: str
    start: Label
    is_placebo: bool

    @property
    def label(self) -> str:
        """The fit in a few words."""
        kind = "placebo " if self.is_placebo else ""
        return f"{self.outcome} in {kind}{self.unit} from {shown(self.start)}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All fits of a spec.

    Attributes:
        fits: The fits: outcome by outcome, treated regions before placebos.
        treated: The treated regions, sorted by name.
        donors: The never-treated regions that may be compared with, sorted by name.
        n_rows: Rows of the panel.
    """

    fits: tuple[Fit, ...]
    treated: tuple[Level, ...]
    donors: tuple[Level, ...]
    n_rows: int

    def excluded(self, fit: Fit) -> tuple[Level, ...]:
        """The treated regions that take no part in a fit: all but its own."""
        return tuple(unit for unit in self.treated if unit != fit.unit)


def grid(spec: FitsSpec) -> Generator[FrameRequest, pd.DataFrame, Grid]:
    """The fits of a spec on the regions that the data hold.

    Raises:
        DataError: The data hold no such region, no treated one, or no donor.
    """
    where = spec.source.conditions
    request = GramRequest(terms=(), by=(spec.unit,), where=where)
    cells = known_keys(grams((yield request), request))
    units = [unit for (unit,) in cells if unit is not None]
    excluded = [found_region(name, units, role="excluded") for name in _listed(spec, "excluded")]
    given = yield from _starts(spec, units)
    starts = {unit: label_of(start) for unit, start in given.items() if unit not in excluded}
    if not starts:
        raise DataError("no region has a first treated period: there is nothing to fit")
    treated = tuple(sorted(starts, key=str))
    pool = _pool(spec, units, starts=starts)
    donors = tuple(sorted((u for u in pool if u not in starts and u not in excluded), key=str))
    if not donors:
        raise DataError("there is no donor: every region is treated or left out", given=spec.unit)
    return Grid(
        fits=_fits(spec, treated=treated, donors=donors, starts=starts),
        treated=treated,
        donors=donors,
        n_rows=sum(cell.n + cell.n_missing for cell in cells.values()),
    )


def _starts(spec: FitsSpec, units: list[Level]) -> Generator[FrameRequest, pd.DataFrame, Starts]:
    over = spec.fits.over
    if over.column is None:
        return {
            found_region(name, units, role="treated"): start_of(spec, name) for name in over.treated
        }
    options = RegionOptions(
        unit=spec.unit, period=spec.options["period"], outcome=over.outcomes[0],
        first_treated_period=over.column,
    )  # fmt: skip
    return (yield from observe_starts(options, spec.source.conditions))


def _pool(spec: FitsSpec, units: list[Level], *, starts: Starts) -> list[Level]:
    """The regions among which donors are: those that the spec lists, or all."""
    named = [found_region(name, units, role="donor") for name in _listed(spec, "donors")]
    both = [str(unit) for unit in named if unit in starts]
    if both:
        raise DataError("treated region in the donor pool", given=both)
    return named or units


def _fits(
    spec: FitsSpec,
    *,
    treated: tuple[Level, ...],
    donors: tuple[Level, ...],
    starts: Mapping[Level, Label],
) -> tuple[Fit, ...]:
    over = spec.fits.over
    cells = [(unit, starts[unit], False) for unit in treated]
    if over.placebos:
        cells += [
            (unit, starts[treated[position % len(treated)]], True)
            for position, unit in enumerate(donors)
        ]
    every = [(outcome, *cell) for outcome in over.outcomes for cell in cells]
    return tuple(
        Fit(number=number, unit=unit, outcome=outcome, start=start, is_placebo=is_placebo)
        for number, (outcome, unit, start, is_placebo) in enumerate(every)
    )


def _listed(spec: FitsSpec, name: str) -> list[Level]:
    return list(spec.options.get(name) or ())
