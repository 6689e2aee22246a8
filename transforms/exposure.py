"""From the raw exposure log to one row per experiment and unit, with every row accounted for."""

from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.columns import Transform, World
from transforms.tables import first_exposures as declaration

LateRows = Literal["drop", "keep"]
_HOUR = 3600
_DAY = 86_400


def first_exposures(
    *,
    world: World,
    assignments: DataFrame,
    trials: DataFrame,
    late_after_hours: int,
    late_rows: LateRows,
) -> Transform:
    """Reduce the log to the first exposure of each unit to each experiment.

    Rows of one unit that share an `event_id` are one event, the copy that arrived first. An event
    is late when it arrived more than `late_after_hours` after it happened. The attribution window
    of a unit opens with its assignment and closes after the `attribution_days` of the experiment.
    Nothing vanishes: units of the log that were never assigned, or whose events were all dropped,
    keep a row, and the counts of a row add up to its rows of the log.

    Args:
        world: Names of the columns.
        assignments: Variant and time of assignment by experiment and unit.
        trials: Definitions with `attribution_days`.
        late_after_hours: Tolerance between exposure and arrival, in hours.
        late_rows: `drop`: late events are counted and not used; `keep`: counted and used.

    Returns:
        A transform from the raw log to `<w>_first_exposures`.
    """
    columns = declaration(world).columns

    def transform(log: DataFrame) -> DataFrame:
        return (
            log.transform(_to_events(world))
            .withColumn("is_late", _seconds("exposed_at", "ingested_at") > late_after_hours * _HOUR)
            .withColumn("is_used", ~F.col("is_late") | F.lit(late_rows == "keep"))
            .join(_windows(world, assignments, trials), on=["experiment", "unit_id"], how="left")
            .transform(_to_units)
            .select(*columns)
        )

    return transform


def _to_events(world: World) -> Transform:
    """One row per event: the copy that arrived first, and the number of copies."""

    def transform(log: DataFrame) -> DataFrame:
        copy = F.struct("ingested_at", "exposed_at", "variant")
        return (
            log.withColumn("unit_id", F.col(world.unit))
            .repartition("experiment", "unit_id")
            .groupBy("experiment", "unit_id", "event_id")
            .agg(F.min(copy).alias("first"), F.count(F.lit(1)).alias("n_rows"))
            .select("experiment", "unit_id", "first.*", "n_rows")
        )

    return transform


def _windows(world: World, assignments: DataFrame, trials: DataFrame) -> DataFrame:
    """Assigned variant and attribution window of each unit."""
    days = F.broadcast(trials.select("experiment", "attribution_days"))
    return assignments.join(days, on="experiment", how="left").select(
        "experiment",
        F.col(world.unit).alias("unit_id"),
        F.col("variant").alias("assigned_variant"),
        F.col("assigned_at").alias("opens_at"),
        F.timestamp_seconds(F.unix_seconds("assigned_at") + F.col("attribution_days") * _DAY).alias(
            "closes_at"
        ),
    )


def _to_units(events: DataFrame) -> DataFrame:
    is_used = F.col("is_used")
    is_inside = _is_inside(F.col("exposed_at"))
    return (
        events.groupBy("experiment", "unit_id", "assigned_variant", "opens_at", "closes_at")
        .agg(
            F.min(F.when(is_used, F.struct("exposed_at", "variant"))).alias("first"),
            F.sum("n_rows").alias("n_rows"),
            F.sum(F.col("n_rows") - 1).alias("n_duplicates"),
            F.count_if("is_late").alias("n_late"),
            F.count_if(is_used).alias("n_events"),
            F.count_if(is_used & ~is_inside).alias("n_outside_window"),
            F.size(F.collect_set(F.when(is_used, F.col("variant")))).alias("n_variants"),
        )
        .withColumn("first_exposed_at", F.col("first.exposed_at"))
        .withColumn("variant", F.col("first.variant"))
        .withColumn("is_in_window", _is_inside(F.col("first_exposed_at")))
        .withColumn("is_crossover", _is_crossover())
    )


def _is_inside(exposed_at: Column) -> Column:
    """Within the attribution window; false without an exposure or an assignment."""
    is_inside = (exposed_at >= F.col("opens_at")) & (exposed_at < F.col("closes_at"))
    return F.coalesce(is_inside, F.lit(False))


def _is_crossover() -> Column:
    is_other = F.coalesce(F.col("variant") != F.col("assigned_variant"), F.lit(False))
    return is_other | (F.col("n_variants") > 1)


def _seconds(start: str, end: str) -> Column:
    return F.unix_seconds(end) - F.unix_seconds(start)
