"""Units by the day on which they entered an experiment."""

import datetime as dt
from dataclasses import dataclass, replace

import pandas as pd

from causal.core.errors import DataError
from causal.core.result import Diagnostic, Result


@dataclass(frozen=True, kw_only=True)
class EntryDays:
    """Units by day.

    Attributes:
        units: Units by day, days in order.
        n_without: Units without a day.
    """

    units: dict[dt.date, int]
    n_without: int

    @property
    def last(self) -> dt.date:
        """The last day."""
        return max(self.units)

    def noted(self, result: Result, *, as_of: dt.date) -> Result:
        """The result with a check that counts what a look on a day did not read."""
        later = sum(n for day, n in self.units.items() if day > as_of)
        note = Diagnostic(
            name="units_without_day",
            statistic=float(self.n_without),
            pvalue=None,
            passed=self.n_without == 0,
            detail=f"{self.n_without:,} units left out for want of a day; {later:,} that entered "
            f"after {as_of} are not read yet",
        )
        return replace(result, diagnostics=(*result.diagnostics, note))


def entry_days(frame: pd.DataFrame, column: str) -> EntryDays:
    """Read a frame of counts by day.

    Args:
        frame: Columns `column` (dates, times, or their text) and `n`.
        column: Name of the column of days.

    Raises:
        DataError: A value is no day, or no unit has one.
    """
    units: dict[dt.date, int] = {}
    n_without = 0
    for value, n in zip(frame[column], frame["n"], strict=True):
        if value is None or pd.isna(value):
            n_without += int(n)
            continue
        day = _day(value, column)
        units[day] = units.get(day, 0) + int(n)
    if not units:
        raise DataError("no unit has a day", given=column, key="looks.day")
    return EntryDays(units=dict(sorted(units.items())), n_without=n_without)


def _day(value: object, column: str) -> dt.date:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    try:
        return dt.date.fromisoformat(str(value)[:10])
    except ValueError as error:
        raise DataError(
            f"{column} holds what is no day", given=value, allowed="dates", key="looks.day"
        ) from error
