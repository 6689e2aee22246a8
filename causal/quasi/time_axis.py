"""Labels of periods, numbers or dates, and whether they are evenly spaced."""

import datetime as dt
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Level
from causal.core.gram import Array

Label = float | pd.Timestamp
GivenPeriod = float | dt.datetime | dt.date
Periods: TypeAlias = "pd.Index[Any]"
"""Labels of one kind, ascending and distinct."""
_ISO_DATE = re.compile(r"\d{4}-\d{2}(-\d{2}([T ].*)?)?")
_MAX_EXAMPLES = 5
_MONTHS = 12
_DAY = 86_400.0
_TOLERANCE = 1e-9
_CODES = (("%Y%m", 6, ""), ("%G%V%u", 6, "1"), ("%Y%m%d", 8, ""))
"""Numbers that write a month (202601), an ISO week (202653) or a day (20260131): how they are read,
their digits, and what is put behind them (a week is its Monday)."""


def period_labels(values: Iterable[Level], *, column: str) -> dict[Level, Label]:
    """The distinct values of a column of periods, each as a number or a point in time.

    Raises:
        DataError: One is neither, some are numbers and some dates, or two mean the same period.
    """
    found = {value: period_label(value, column=column) for value in values}
    if len({isinstance(label, float) for label in found.values()}) > 1:
        raise DataError(f"{column} must hold numbers, or dates, not both")
    written = Counter(found.values())
    twice = sorted(str(value) for value, label in found.items() if written[label] > 1)
    if twice:
        raise DataError(f"{column} writes one period in two ways", given=twice[:_MAX_EXAMPLES])
    return found


def period_label(value: Level, *, column: str) -> Label:
    """A period as a number or a point in time.

    Raises:
        DataError: It is neither.
    """
    found = _date(value) if isinstance(value, str) else float(value)
    if found is None or found in {np.inf, -np.inf}:
        raise DataError(
            f"{column} must hold numbers or dates", given=value, allowed="2026-11-21, or 37"
        )
    return found


def _date(text: str) -> pd.Timestamp | None:
    """Text other than an ISO date means different days in different countries."""
    if not _ISO_DATE.fullmatch(text):
        return None
    try:
        return _in_utc(pd.Timestamp(text))
    except ValueError:
        return None


def label_of(value: GivenPeriod) -> Label:
    """A period of the spec."""
    return float(value) if isinstance(value, float | int) else _in_utc(pd.Timestamp(value))


def given_label(value: GivenPeriod, *, like: Label, key: str) -> Label:
    """A period of the spec in the kind of the data's.

    Raises:
        DataError: The data hold dates and the spec a number, or the reverse.
    """
    label = label_of(value)
    if isinstance(label, float) != isinstance(like, float):
        raise DataError(
            "the spec and the data must both give numbers, or both dates",
            given=f"{shown(label)} in the spec, {shown(like)} in the data",
            key=f"options.{key}",
        )
    return label


def lies_after(first: GivenPeriod, last: GivenPeriod) -> bool:
    """Whether the first of two periods of the spec lies after the last.

    Raises:
        ValueError: One is a number and the other a date.
    """
    low, high = label_of(first), label_of(last)
    if isinstance(low, float) != isinstance(high, float):
        raise ValueError(f"{shown(low)} and {shown(high)} must both be numbers, or both dates")
    return order(low) > order(high)


def between(
    first: GivenPeriod | None, last: GivenPeriod | None, *, like: Label, keys: tuple[str, str]
) -> Callable[[Label], bool]:
    """Whether a period lies between two of the spec, both included; `None` is no limit.

    A last day is included to its end, whatever times of day the data have.

    Args:
        first: The first.
        last: The last.
        like: A period of the data.
        keys: The spec's keys of first and last.

    Raises:
        DataError: The data hold dates and the spec a number, or the reverse.
    """
    low, high = (
        None if value is None else order(given_label(value, like=like, key=key))
        for value, key in zip((first, last), keys, strict=True)
    )
    if high is not None and isinstance(last, dt.date) and not isinstance(last, dt.datetime):
        high = math.nextafter(high + _DAY, high)
    return lambda label: (
        (low is None or low <= order(label)) and (high is None or order(label) <= high)
    )


def order(label: Label) -> float:
    """A number by which labels of one kind are sorted."""
    return label if isinstance(label, float) else label.timestamp()


def n_before(labels: "Sequence[Label] | Periods", start: Label) -> int:
    """How many labels lie before one: its position among the ascending ones."""
    return int((pd.Index(labels) < start).sum())


def _in_utc(stamp: pd.Timestamp) -> pd.Timestamp:
    return stamp if stamp.tzinfo is None else stamp.tz_convert("UTC").tz_localize(None)


def shown(label: Label) -> str:
    """A label as text."""
    if isinstance(label, float):
        return f"{label:.15g}"
    text: str = label.isoformat(sep=" ")
    return text.removesuffix(" 00:00:00")


def check_spacing(labels: Sequence[Label], *, column: str) -> None:
    """Periods must follow each other without a hole: in days, weeks, months, or numbers.

    Numbers may write months, weeks or days: 202101 follows 202012.

    Args:
        labels: Ascending and distinct.
        column: Named in the message.

    Raises:
        DataError: Some periods are missing.
    """
    steps = [np.diff(positions) for positions in _scales(labels)]
    if len(labels) <= 1 or any(np.allclose(step, step[0], rtol=_TOLERANCE) for step in steps):
        return
    smallest = [step.min() for step in steps]
    # On the scale that explains the data best, holes are the steps beyond the smallest one.
    best = min(range(len(steps)), key=lambda at: (steps[at] > smallest[at] * (1 + 1e-9)).sum())
    holes = [
        f"{shown(before)} to {shown(after)}"
        for (before, after), step in zip(pairwise(labels), steps[best], strict=True)
        if step > smallest[best] * (1 + 1e-9)
    ]
    raise DataError(
        f"periods are missing or unevenly spaced in {column}",
        given=f"{len(holes)} holes, such as {', '.join(holes[:_MAX_EXAMPLES])}",
        allowed="a row for each period, or spacing: ordered if rows follow each other all the same",
    )


def _scales(labels: Sequence[Label]) -> list[Array]:
    """Positions of the labels on each scale on which they may be even."""
    stamps = [label for label in labels if isinstance(label, pd.Timestamp)]
    if len(stamps) == len(labels):
        return _calendar_scales(stamps)
    numbers = [float(label) for label in labels if not isinstance(label, pd.Timestamp)]
    written = [_written_in(code, numbers) for code in _CODES]
    calendars = [scale for dates in written if dates for scale in _calendar_scales(dates)]
    return [np.array(numbers), *calendars]


def _written_in(code: tuple[str, int, str], numbers: Sequence[float]) -> list[pd.Timestamp]:
    """The dates that numbers write in a code; none where one of them does not."""
    pattern, n_digits, behind = code
    texts = [f"{number:.15g}" for number in numbers]
    if any(len(text) != n_digits for text in texts):
        return []
    try:
        return [pd.Timestamp(dt.datetime.strptime(text + behind, pattern)) for text in texts]  # noqa: DTZ007
    except ValueError:
        return []


def _calendar_scales(stamps: Sequence[pd.Timestamp]) -> list[Array]:
    """Positions in time and, where dates may stand for months, in months."""
    seconds = np.array([(stamp - pd.Timestamp(0)).total_seconds() for stamp in stamps])
    are_months = len({stamp.day for stamp in stamps}) == 1 or all(
        stamp.is_month_end for stamp in stamps
    )
    months = [_MONTHS * stamp.year + stamp.month for stamp in stamps]
    return [seconds, np.array(months, dtype=np.float64)] if are_months else [seconds]
