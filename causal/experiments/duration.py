"""How long an experiment takes: from units that arrive per day to days that fill a sample.

New units keep coming with the week's rhythm; returning units arrive once, soon after the start, and
run out. The history of first arrivals therefore answers for the days that it covers, and beyond
them only new units are counted on: a plan errs on the long side.
"""

import math
from dataclasses import dataclass

import numpy as np

from causal.core.errors import SpecError
from causal.core.gram import Array

WEEK = 7


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Units by the day on which they first appeared, in a stretch of whole days.

    Attributes:
        new: Units that had not been there before the stretch, shape (d,).
        returning: Units that had been, shape (d,); zeros where the two are not told apart.

    Raises:
        SpecError: The counts are no counts, or nobody arrives.
    """

    new: Array
    returning: Array

    def __post_init__(self) -> None:
        """Refuse what are no counts."""
        if self.new.shape != self.returning.shape or self.new.ndim != 1 or not len(self.new):
            raise SpecError("arrivals need one count of new and returning units per day")
        both = np.concatenate([self.new, self.returning])
        if not (np.isfinite(both).all() and (both >= 0).all() and both.sum() > 0):
            raise SpecError("arrivals must be counts of which some are positive")

    @property
    def n_days(self) -> int:
        """Days of history."""
        return len(self.new)

    def by_day(self, n_days: int) -> Array:
        """Units that have arrived after 1, 2, ... days of an experiment, shape (n_days,).

        Beyond the history each weekday brings the average of its new units over the whole weeks at
        the history's end (of all days, if it is shorter than a week) and no returning ones.
        """
        known = min(n_days, self.n_days)
        daily = np.zeros(n_days)
        daily[:known] = (self.new + self.returning)[:known]
        later = np.arange(known, n_days)
        n_weeks = self.n_days // WEEK
        if n_weeks:
            recent = self.new[self.n_days - n_weeks * WEEK :].reshape(n_weeks, WEEK)
            daily[later] = recent.mean(axis=0)[(later - self.n_days) % WEEK]
        else:
            daily[later] = self.new.mean()
        return np.cumsum(daily)


def steady(per_day: float) -> Arrivals:
    """The same number of new units every day.

    Raises:
        SpecError: It is not positive.
    """
    return Arrivals(new=np.full(WEEK, float(per_day)), returning=np.zeros(WEEK))


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """How days of arrivals become days of an experiment.

    Attributes:
        enrolled_share: Share of the arriving units that enter the experiment.
        follow_up_days: Days after its arrival until a unit's outcome is complete.
        is_whole_weeks: Round enrolment up to whole weeks, so that each weekday counts alike.
        max_days: Longest enrolment that is looked at.

    Raises:
        SpecError: A number is out of range.
    """

    enrolled_share: float = 1.0
    follow_up_days: int = 0
    is_whole_weeks: bool = True
    max_days: int = 182

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if not 0 < self.enrolled_share <= 1:
            raise SpecError(
                "enrolled_share must be above 0 and at most 1", given=self.enrolled_share
            )
        if self.follow_up_days < 0:
            raise SpecError("follow_up_days must not be negative", given=self.follow_up_days)
        if self.max_days < 1:
            raise SpecError("max_days must be at least 1", given=self.max_days)


@dataclass(frozen=True)
class Duration:
    """Days of an experiment.

    Attributes:
        enrolment_days: Days on which units enter.
        total_days: The same with the follow-up of the last of them.
        n_units: Units that have entered by then.
    """

    enrolment_days: int
    total_days: int
    n_units: float


def enrolled(arrivals: Arrivals, calendar: Calendar) -> Array:
    """Units in the experiment after 1, 2, ..., `max_days` days of enrolment."""
    return arrivals.by_day(calendar.max_days) * calendar.enrolled_share


def duration(arrivals: Arrivals, calendar: Calendar, *, n_units: float) -> Duration | None:
    """How long it takes to enrol so many units; `None` if `max_days` do not suffice.

    With whole weeks `max_days` counts its whole weeks only.
    """
    by_day = enrolled(arrivals, calendar)
    enough = np.flatnonzero(by_day >= n_units)
    if not len(enough):
        return None
    days = int(enough[0]) + 1
    if calendar.is_whole_weeks:
        days = math.ceil(days / WEEK) * WEEK
    if days > calendar.max_days:
        return None
    return Duration(days, days + calendar.follow_up_days, float(by_day[days - 1]))
