"""Who belongs together: by week of signup, by week of first exposure, by first treated period."""

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.columns import Transform, World, week_start
from transforms.tables import cohorts as declaration

_EPOCH = dt.date(1970, 1, 1)
_DAY = 86_400


def cohorts(
    *, world: World, exposures: DataFrame, rollout: DataFrame, panel_starts_on: dt.date
) -> Transform:
    """Give every unit of the population its cohorts.

    Args:
        world: Names of the columns.
        exposures: `<w>_first_exposures`.
        rollout: First treated period by place; a place that is not in it is never treated.
        panel_starts_on: First day of the panel of weeks.

    Returns:
        A transform from the population to `<w>_cohorts`.
    """
    exposed = exposures.groupBy("unit_id").agg(
        _utc_day(F.min("first_exposed_at")).alias("first_exposed_on")
    )
    treated = F.broadcast(rollout.select(world.place, "first_treated_period"))
    columns = declaration(world).columns

    def transform(population: DataFrame) -> DataFrame:
        return (
            population.withColumn("unit_id", F.col(world.unit))
            .withColumn("signup_cohort", week_start(F.col("signup_on")))
            .withColumn("is_in_panel", is_in_panel(panel_starts_on))
            .join(exposed, on="unit_id", how="left")
            .join(treated, on=world.place, how="left")
            .withColumn("exposure_cohort", week_start(F.col("first_exposed_on")))
            .select(*columns)
        )

    return transform


def is_in_panel(starts_on: dt.date) -> Column:
    """Signed up before the panel's first day (BOOLEAN, from `signup_on`)."""
    return F.col("signup_on") < F.lit(starts_on)


def _utc_day(moment: Column) -> Column:
    """The UTC day of a timestamp, whatever the session's time zone."""
    return F.date_add(F.lit(_EPOCH), F.floor(F.unix_seconds(moment) / _DAY).cast("int"))
