"""Dense panels: every unit in every week, and every place in every week."""

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.cohorts import is_in_panel
from transforms.columns import DAYS_PER_WEEK, Transform, World, days_between
from transforms.quality import RowRule
from transforms.tables import place_weeks as place_declaration
from transforms.tables import weeks as unit_declaration


def weeks(
    *,
    world: World,
    population: DataFrame,
    rollout: DataFrame,
    starts_on: dt.date,
    n_weeks: int,
) -> Transform:
    """Spread the daily activity over a dense panel of units and weeks.

    The panel holds every unit that had signed up before its first day, in every week: a week
    without activity is a row of zeros, also after the unit has left, so that means over units do
    not rise because the less active leave. All weeks are summed in one pass and become rows only
    after the join with the population: what is shuffled has one row per unit.

    Args:
        world: Names of the columns.
        population: One row per unit with place and `signup_on`.
        rollout: First treated period by place; a place that is not in it is never treated.
        starts_on: First day of the panel.
        n_weeks: Weeks of the panel.

    Returns:
        A transform from the daily activity to `<w>_weeks`.
    """
    treated = F.broadcast(rollout.select(world.place, "first_treated_period"))
    household = () if world.household is None else (world.household,)
    names = [*(outcome.name for outcome in world.outcomes), "active_days"]
    members = (
        population.where(is_in_panel(starts_on))
        .select(F.col(world.unit).alias("unit_id"), world.place, *household)
        .join(treated, on=world.place, how="left")
    )
    columns = unit_declaration(world).columns

    def transform(days: DataFrame) -> DataFrame:
        sums = days.transform(_sums_by_week(world, starts_on, n_weeks))
        rows = [
            F.struct(
                F.lit(week).alias("week"),
                *[F.coalesce(_named(name, week), F.lit(0)).alias(name) for name in names],
            )
            for week in range(n_weeks)
        ]
        return (
            members.join(sums, on="unit_id", how="left")
            .select(*members.columns, F.inline(F.array(*rows)))
            .select(*columns)
        )

    return transform


def place_weeks(*, world: World) -> Transform:
    """Sum the panel of units by place and week.

    Args:
        world: Names of the columns.

    Returns:
        A transform from `<w>_weeks` to `<w>_region_weeks` (`<w>_city_weeks`).
    """
    columns = place_declaration(world).columns

    def transform(panel: DataFrame) -> DataFrame:
        return (
            panel.groupBy(world.place, "week", "first_treated_period")
            .agg(
                F.count(F.lit(1)).alias("n_units"),
                F.count_if(F.col("active_days") > 0).alias("n_active_units"),
                *[outcome.total().alias(outcome.name) for outcome in world.outcomes],
                F.sum("active_days").alias("active_days"),
            )
            .select(*columns)
        )

    return transform


def within_panel(*, starts_on: dt.date, n_weeks: int) -> RowRule:
    """The rule that no day of activity lies outside the panel, where it would be left out.

    Args:
        starts_on: First day of the panel.
        n_weeks: Weeks of the panel.
    """
    ends_on = starts_on + dt.timedelta(days=DAYS_PER_WEEK * n_weeks - 1)
    return RowRule(
        name=f"activity_on is within {starts_on} and {ends_on}",
        is_violated=lambda: ~F.col("activity_on").between(F.lit(starts_on), F.lit(ends_on)),
    )


def _sums_by_week(world: World, starts_on: dt.date, n_weeks: int) -> Transform:
    """One row per unit, a column per outcome and week."""
    week = F.floor(days_between(F.lit(starts_on), F.col("activity_on")) / DAYS_PER_WEEK)
    totals = [
        total.alias(f"{name}_{place}")
        for place in range(n_weeks)
        for name, total in _totals(world, F.col("week") == place)
    ]

    def transform(days: DataFrame) -> DataFrame:
        dated = days.withColumn("week", week.cast("int"))
        return dated.groupBy(F.col(world.unit).alias("unit_id")).agg(*totals)

    return transform


def _totals(world: World, where: Column) -> list[tuple[str, Column]]:
    sums = [(outcome.name, outcome.total(where)) for outcome in world.outcomes]
    return [*sums, ("active_days", world.active_days(where))]


def _named(name: str, week: int) -> Column:
    return F.col(f"{name}_{week}")
