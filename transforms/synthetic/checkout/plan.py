"""What is fixed about a world of the shop before a row is made."""

import datetime as dt
from dataclasses import dataclass

from pyspark.sql import Column
from pyspark.sql import functions as F

from transforms.synthetic.checkout.parameters import CheckoutEffect, CheckoutFault, CheckoutWorld
from transforms.synthetic.randomness import Draws, lookup

DAY_SECONDS = 86_400
CONTROL, TREATMENT = 0, 1


@dataclass(frozen=True, kw_only=True)
class CheckoutPlan:
    """A world of the shop that is fixed but not yet generated.

    Attributes:
        world: The parameters.
        draws: Randomness.
        n_days: Days of the world, whole weeks.
        faults: The faults that are switched on.
    """

    world: CheckoutWorld
    draws: Draws
    n_days: int
    faults: frozenset[CheckoutFault]

    @property
    def effect(self) -> CheckoutEffect:
        """What the treatment does."""
        return self.world.trial.effect

    @property
    def n_trial_days(self) -> int:
        """Days of the trial."""
        return self.n_days - self.world.pre_days

    def date(self, day: Column) -> Column:
        """The DATE of a day of the world."""
        return F.date_add(F.lit(self.world.starts_on), day)

    def at_second(self, day: Column, second: Column) -> Column:
        """The TIMESTAMP of a second of a day of the world, whatever the session's time zone."""
        midnight = dt.datetime.combine(self.world.starts_on, dt.time(), tzinfo=dt.UTC)
        start = int(midnight.timestamp())
        seconds = F.lit(start) + day.cast("bigint") * DAY_SECONDS + second.cast("bigint")
        return F.timestamp_seconds(seconds)

    def variant(self, arm: Column) -> Column:
        """Name of an arm, whose number the column holds."""
        return lookup(self.world.trial.variants, arm)


def plan(
    world: CheckoutWorld, *, seed: int, n_days: int, faults: frozenset[CheckoutFault]
) -> CheckoutPlan:
    """Fix a world of the shop."""
    return CheckoutPlan(
        world=world, draws=Draws(seed=seed, world="checkout"), n_days=n_days, faults=faults
    )
