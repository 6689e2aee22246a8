"""A world of passengers that is fixed but not yet generated."""

import datetime as dt
from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F

from transforms.synthetic.passengers.parameters import PassengerFault, PassengerWorld
from transforms.synthetic.randomness import Draws

_DAY_SECONDS = 86_400


@dataclass(frozen=True, kw_only=True)
class PassengerPlan:
    """A world of passengers that is fixed but not yet generated.

    Attributes:
        world: The parameters.
        draws: Randomness.
        n_days: Days of the world from the first registration on, whole weeks.
        faults: Those that are switched on.
    """

    world: PassengerWorld
    draws: Draws
    n_days: int
    faults: frozenset[PassengerFault]

    def date(self, day: Column) -> Column:
        """The DATE of a day of the world."""
        return F.date_add(F.lit(self.world.starts_on), day)

    def at_second(self, day: Column, second: Column) -> Column:
        """The TIMESTAMP of a second of a day of the world, whatever the session's time zone."""
        midnight = dt.datetime.combine(self.world.starts_on, dt.time(), tzinfo=dt.UTC)
        seconds = F.lit(int(midnight.timestamp())) + day.cast("bigint") * _DAY_SECONDS
        return F.timestamp_seconds(seconds + second.cast("bigint"))


def plan(
    world: PassengerWorld, *, seed: int, n_days: int, faults: frozenset[PassengerFault]
) -> PassengerPlan:
    """Fix a world of passengers.

    Args:
        world: The parameters.
        seed: Of everything that is drawn.
        n_days: Days after the last registration.
        faults: Those that are switched on.
    """
    draws = Draws(seed=seed, world="passengers")
    return PassengerPlan(
        world=world, draws=draws, n_days=world.registration_days + n_days, faults=faults
    )
