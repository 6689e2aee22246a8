"""Who is treated from when: cohorts, event time and the regressors that they define.

A table says it in one of two ways: a column holds the first treated period of each unit (null, or
a stated value, for never), or a 0/1 column marks the ever-treated units, all of which start in one
given period.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.errors import DataError
from causal.core.frames import Column, Constant, EventTime, Indicator, Linear, Product, Term
from causal.core.gram import Array

_HALF = 0.5


@dataclass(frozen=True)
class EventWindow:
    """A range of event times, `period - first_treated_period`; `None` leaves a side open.

    Attributes:
        name: Name of its regressor, such as `event_time=2`.
        low: Smallest event time of the window.
        high: Largest event time of the window.
        cohort: The only cohort with this window; `None`: all.
    """

    name: str
    low: int | None
    high: int | None
    cohort: float | None = None

    def path(self, periods: Array, first_treated_period: float | None) -> Array:
        """1 in the periods that a cohort spends in the window, 0 elsewhere, shape (T,)."""
        if first_treated_period is None or self.cohort not in {None, first_treated_period}:
            return np.zeros(len(periods))
        elapsed = periods - first_treated_period
        inside = np.ones(len(periods), dtype=bool)
        if self.low is not None:
            inside &= elapsed >= self.low
        if self.high is not None:
            inside &= elapsed <= self.high
        return inside.astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How a table says from when a unit is treated.

    Attributes:
        period: Column of the period.
        cohort: Column of the first treated period, or the 0/1 column of ever-treated units.
        treatment_period: Start of the treatment where `cohort` is a 0/1 column.
        never_treated_value: Value of `cohort` that means never; `None`: null means never.
    """

    period: str
    cohort: str
    treatment_period: float | None = None
    never_treated_value: float | None = None

    def first_treated(self, raw: float | None) -> float | None:
        """The first treated period that a value of the cohort column stands for.

        Raises:
            DataError: The value has no meaning in this coding.
        """
        if self.treatment_period is not None:
            if raw not in {0.0, 1.0}:
                raise DataError(
                    f"{self.cohort} must be 0 or 1 in every row",
                    given="null" if raw is None else raw,
                )
            return self.treatment_period if raw else None
        if self.never_treated_value is None:
            return raw
        if raw is None:
            raise DataError(
                f"{self.cohort} holds nulls although never_treated_value is given: code never "
                "treated units in one way"
            )
        return None if raw == self.never_treated_value else raw

    def raw(self, start: float) -> float:
        """The value of the cohort column that stands for a first treated period."""
        return start if self.treatment_period is None else 1.0

    def term(self, window: EventWindow, periods: Array) -> Term:
        """The window's regressor as a term, 1 inside the window and 0 elsewhere.

        Args:
            window: The window.
            periods: All periods of the data, shape (T,).
        """
        if self.treatment_period is not None:
            inside = window.path(periods, self.treatment_period) > _HALF
            return Product((Column(self.cohort), period_sum(self.period, periods[inside])))
        raw = EventTime(self.period, self.cohort, window.low, window.high)
        if self.never_treated_value is None:
            return raw
        never = Indicator(self.cohort, level(self.never_treated_value))
        return Product((Linear((Constant(), never), (1.0, -1.0)), raw))


def period_sum(column: str, periods: Iterable[float]) -> Linear:
    """1 in the rows of the given periods."""
    terms = tuple(Indicator(column, level(period)) for period in periods)
    return Linear(terms, (1.0,) * len(terms))


def level(value: float) -> int | float:
    """A whole number as an integer, so that a request prints as the data do."""
    return int(value) if float(value).is_integer() else float(value)


def treated_post(anticipation: int) -> EventWindow:
    """The treatment dummy of a staggered design."""
    return EventWindow("treated x post", -anticipation, None)


def event_times(periods: Array, cohorts: Iterable[float | None]) -> tuple[int, ...]:
    """The event times that occur, ascending.

    Raises:
        DataError: A period or a start is not a whole number.
    """
    starts = np.array([start for start in cohorts if start is not None])
    if not np.isfinite(starts).all():
        raise DataError("a first treated period is infinite: never treated is a null")
    times = np.unique(np.subtract.outer(periods, starts))
    if not np.array_equal(times, np.round(times)):
        raise DataError("event times are not whole numbers: recode the periods", given=times)
    return tuple(int(time) for time in times)


def event_windows(
    times: Sequence[int], *, reference: int, low: int | None = None, high: int | None = None
) -> tuple[EventWindow, ...]:
    """One window per event time but the reference; the ends are binned where times lie beyond.

    Args:
        times: The event times that occur, ascending.
        reference: The event time left out.
        low: All event times up to this one share a window.
        high: All event times from this one on share a window.
    """
    bins_low = low is not None and min(times) < low
    bins_high = high is not None and max(times) > high
    inner = [
        time
        for time in times
        if time != reference
        and (low is None or not bins_low or time > low)
        and (high is None or not bins_high or time < high)
    ]
    windows = [EventWindow(f"event_time={time}", time, time) for time in inner]
    if bins_low:
        windows.insert(0, EventWindow(f"event_time<={low}", None, low))
    if bins_high:
        windows.append(EventWindow(f"event_time>={high}", high, None))
    return tuple(windows)


def is_lead(window: EventWindow, *, anticipation: int) -> bool:
    """Whether the whole window lies before the treatment can have an effect."""
    return window.high is not None and window.high < -anticipation


def is_post(window: EventWindow) -> bool:
    """Whether the whole window lies after the start of the treatment."""
    return window.low is not None and window.low >= 0
