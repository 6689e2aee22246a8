"""What the transforms are told about a world, so that one implementation serves all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.errors import SpecError

Transform = Callable[[DataFrame], DataFrame]

DAYS_PER_WEEK = 7


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A column of the daily activity table that is summed over days.

    Attributes:
        name: The column, there and in every derived table.
        meaning: What its sum is, with the unit of measurement.
        decimals: Decimals of the daily values; zero means whole numbers.
    """

    name: str
    meaning: str
    decimals: int = 0

    @property
    def type(self) -> str:
        """Spark DDL type of a sum."""
        return "BIGINT" if self.decimals == 0 else "DOUBLE"

    def total(self, where: Column | None = None) -> Column:
        """The sum as an aggregate: exact, and zero where no row counts.

        A sum of decimals is rounded to their number, which takes away the trace that the order of
        addition leaves in the last bits: the result does not depend on the partitions.

        Args:
            where: Condition on the rows that count; `None`: all.
        """
        value = F.col(self.name)
        counted = value if where is None else F.when(where, value)
        return self.exact(F.coalesce(F.sum(counted), F.lit(0)))

    def exact(self, total: Column) -> Column:
        """A total in the type and to the decimals of this outcome."""
        if self.decimals == 0:
            return total.cast("bigint")
        return F.round(total.cast("double"), self.decimals)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Two arms of a trial between which units might have chosen themselves.

    Attributes:
        experiment: The trial.
        control: The arm without the treatment.
        treatment: The arm with it.
        pull: Log-odds of the treatment that a standard deviation of a column from before the trial
            adds.
    """

    experiment: str
    control: str
    treatment: str
    pull: Mapping[str, float]

    @property
    def name(self) -> str:
        """Name of the study: `ad_free_by_choice`."""
        return f"{self.experiment}_by_choice"


@dataclass(frozen=True, kw_only=True)
class World:
    """Names of the source tables and columns of one kind of unit.

    Attributes:
        name: What the units are together: `subscribers`.
        prefix: First word of the table names: `subscriber`.
        unit: Column of the unit in the source tables.
        place: Column of the place in which features are rolled out.
        household: Column of a standing group of units, where there is one.
        segments: Further columns of the population by which results are cut.
        outcomes: What the daily table measures.
        activity: The outcome that is above zero on an active day.
        has_uptakes: Whether there is a table of who took an encouraged perk up.
        choice: What units chose in the world's observational study.
    """

    name: str
    prefix: str
    unit: str
    place: str
    household: str | None
    segments: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    activity: str
    has_uptakes: bool
    choice: Choice

    def active_days(self, where: Column | None = None) -> Column:
        """The number of active days as an aggregate (BIGINT).

        Args:
            where: Condition on the rows that count; `None`: all.
        """
        is_active = F.col(self.activity) > 0
        return F.count_if(is_active if where is None else is_active & where)

    def table(self, what: str) -> str:
        """Name of a table of this world: `table("days")` is `subscriber_days`."""
        return f"{self.prefix}_{what}"


SUBSCRIBER_WORLD = World(
    name="subscribers",
    prefix="subscriber",
    unit="subscriber_id",
    place="region",
    household="household_id",
    segments=("country", "tier", "channel"),
    outcomes=(
        Outcome(name="minutes", meaning="Minutes watched"),
        Outcome(name="sessions", meaning="Sessions started"),
        Outcome(name="revenue", meaning="Revenue in money", decimals=2),
    ),
    activity="minutes",
    has_uptakes=True,
    choice=Choice(
        experiment="ad_free",
        control="control",
        treatment="full",
        pull=MappingProxyType({"pre_active_days": 0.9, "tenure_days": -0.4}),
    ),
)

DRIVER_WORLD = World(
    name="drivers",
    prefix="driver",
    unit="driver_id",
    place="city",
    household=None,
    segments=("vehicle",),
    outcomes=(
        Outcome(name="hours", meaning="Hours worked", decimals=2),
        Outcome(name="trips", meaning="Trips completed"),
        Outcome(name="earnings", meaning="Earnings of the driver in money", decimals=2),
        Outcome(name="payouts", meaning="Incentives paid within the earnings in money", decimals=2),
    ),
    activity="hours",
    has_uptakes=False,
    choice=Choice(
        experiment="payout_scheme",
        control="control",
        treatment="flat_bonus",
        pull=MappingProxyType({"pre_active_days": -0.8, "tenure_days": 0.4}),
    ),
)

WORLDS: Mapping[str, World] = MappingProxyType(
    {world.name: world for world in (SUBSCRIBER_WORLD, DRIVER_WORLD)}
)


def worlds(choice: str) -> tuple[World, ...]:
    """The worlds that a job was asked for.

    Args:
        choice: `both` or the name of one.

    Raises:
        SpecError: There is no such world.
    """
    if choice == "both":
        return tuple(WORLDS.values())
    if choice not in WORLDS:
        raise SpecError("there is no such world", given=choice, allowed=["both", *WORLDS])
    return (WORLDS[choice],)


def quoted(name: str) -> str:
    """A column name in back-quotes, so that dots and spaces in it are taken literally."""
    return f"`{name.replace('`', '``')}`"


def week_start(day: Column) -> Column:
    """The Monday of a day's week (DATE)."""
    return F.date_trunc("week", day).cast("date")


def days_between(start: Column, end: Column) -> Column:
    """Whole days from `start` to `end` (INT)."""
    return F.date_diff(end, start)
