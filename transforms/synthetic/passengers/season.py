"""The weekly season: days of the world as season-weighted ones, in which riding is even."""

from itertools import accumulate

from pyspark.sql import Column
from pyspark.sql import functions as F

from transforms.synthetic.passengers.plan import PassengerPlan
from transforms.synthetic.randomness import lookup

_DAY_SECONDS = 86_400
_WEEK = 7


def _starts(plan: PassengerPlan) -> list[float]:
    """Season-weighted days from Monday to the start of each weekday."""
    return [0.0, *accumulate(plan.world.riding.weekday[:-1])]


def elapsed_until(day: Column, plan: PassengerPlan) -> Column:
    """Season-weighted days from the world's first day to the start of a day."""
    within = lookup(_starts(plan), F.pmod(day, F.lit(_WEEK)))
    return F.floor(day / F.lit(_WEEK)) * float(_WEEK) + within


def day_of(elapsed: Column, plan: PassengerPlan) -> Column:
    """The day that season-weighted days lie in (INT)."""
    week = F.floor(elapsed / float(_WEEK))
    rest = elapsed - week * float(_WEEK)
    weekday = F.lit(0)
    for start in _starts(plan)[1:]:
        weekday = weekday + (rest >= F.lit(start)).cast("int")
    return (week * _WEEK + weekday).cast("int")


def second_of(elapsed: Column, day: Column, plan: PassengerPlan) -> Column:
    """The second of that day."""
    factor = lookup(list(plan.world.riding.weekday), F.pmod(day, F.lit(_WEEK)))
    share = (elapsed - elapsed_until(day, plan)) / factor
    limited = F.least(F.floor(share * _DAY_SECONDS), F.lit(_DAY_SECONDS - 1))
    return F.greatest(limited, F.lit(0)).cast("int")
