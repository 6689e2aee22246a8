"""One row per enrolled unit and experiment: pre-period covariates, exposure, outcomes."""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from transforms.columns import Transform, World, days_between
from transforms.tables import experiment_units as declaration

_WINDOW = ("pre_starts_on", "starts_on", "ends_on")


def experiment_units(
    *,
    world: World,
    population: DataFrame,
    assignments: DataFrame,
    trials: DataFrame,
    exposures: DataFrame,
    uptakes: DataFrame | None,
) -> Transform:
    """Sum the activity of every enrolled unit before and during its experiments.

    The daily table is read once, whatever the number of experiments: experiments that share their
    dates share the sums. Covariates come from `[pre_starts_on, starts_on)`, outcomes from
    `[starts_on, ends_on]`, both for every enrolled unit whether exposed or not (intention to
    treat). A unit without activity has zeros. Covariates predate the assignment, so adjusting for
    them leaves the effect unbiased (Deng et al. 2013, "Improving the sensitivity of online
    controlled experiments by utilizing pre-experiment data", WSDM).

    Args:
        world: Names of the columns.
        population: One row per unit with place, segments, `signup_on` and `churned_on`.
        assignments: Variant, stratum and cluster by experiment and unit.
        trials: Definitions with the dates of each experiment.
        exposures: `<w>_first_exposures`.
        uptakes: Who took up which perk; `None` in worlds without encouragements.

    Returns:
        A transform from the daily activity to `<w>_experiment_units`.
    """
    dates = F.broadcast(trials.select("experiment", *_WINDOW))
    enrolled = assignments.withColumn("unit_id", F.col(world.unit)).join(
        dates, on="experiment", how="left"
    )

    def transform(days: DataFrame) -> DataFrame:
        sums = days.transform(_sums_by_window(world, trials))
        return (
            enrolled.join(sums, on=["unit_id", *_WINDOW], how="left")
            .join(_attributes(world, population), on="unit_id", how="left")
            .join(_exposed(exposures), on=["experiment", "unit_id"], how="left")
            .transform(_with_uptake(uptakes, world))
            .transform(_filled(world))
            .transform(_with_cluster_means(world))
            .withColumn("tenure_days", days_between(F.col("signup_on"), F.col("starts_on")))
            .withColumn("is_retained", _is_retained())
            .select(*declaration(world).columns)
        )

    return transform


def _sums_by_window(world: World, trials: DataFrame) -> Transform:
    """One row per unit and distinct set of dates.

    Where files keep a unit's days together, nearly all of the sum is made before the shuffle.
    """
    windows = F.broadcast(trials.select(*_WINDOW).distinct())
    is_before = F.col("activity_on") < F.col("starts_on")

    def transform(days: DataFrame) -> DataFrame:
        in_window = F.col("activity_on").between(F.col("pre_starts_on"), F.col("ends_on"))
        return (
            days.join(windows, on=in_window, how="inner")
            .groupBy(F.col(world.unit).alias("unit_id"), *_WINDOW)
            .agg(
                *[o.total(is_before).alias(f"pre_{o.name}") for o in world.outcomes],
                world.active_days(is_before).alias("pre_active_days"),
                *[o.total(~is_before).alias(o.name) for o in world.outcomes],
                world.active_days(~is_before).alias("active_days"),
            )
        )

    return transform


def _attributes(world: World, population: DataFrame) -> DataFrame:
    return population.select(
        F.col(world.unit).alias("unit_id"),
        world.place,
        *world.segments,
        "signup_on",
        "churned_on",
    )


def _exposed(exposures: DataFrame) -> DataFrame:
    return exposures.select("experiment", "unit_id", F.col("is_in_window").alias("is_exposed"))


def _with_uptake(uptakes: DataFrame | None, world: World) -> Transform:
    """Add `is_uptake`: took the perk up by the last day of the experiment (UTC)."""

    def transform(units: DataFrame) -> DataFrame:
        if uptakes is None:
            return units
        taken = uptakes.select("experiment", F.col(world.unit).alias("unit_id"), "taken_up_at")
        is_in_time = F.unix_seconds("taken_up_at") < F.unix_date(F.date_add("ends_on", 1)) * 86_400
        return units.join(taken, on=["experiment", "unit_id"], how="left").withColumn(
            "is_uptake", F.coalesce(is_in_time, F.lit(False))
        )

    return transform


def _filled(world: World) -> Transform:
    """No activity is zero, no exposure is false. A NaN is left to be seen."""
    measured = [name for o in world.outcomes for name in (o.name, f"pre_{o.name}")]
    fillings = {name: F.lit(0) for name in (*measured, "active_days", "pre_active_days")}
    fillings["is_exposed"] = F.lit(False)
    filled = {name: F.coalesce(F.col(name), filling) for name, filling in fillings.items()}
    return lambda units: units.withColumns(filled)


def _with_cluster_means(world: World) -> Transform:
    """Add `cluster_pre_*`: means over the enrolled units of the cluster."""
    cluster = Window.partitionBy("experiment", "cluster_id")

    def mean(name: str, total: Column) -> Column:
        return (total / F.count(F.lit(1)).over(cluster)).alias(f"cluster_{name}")

    def transform(units: DataFrame) -> DataFrame:
        means = [
            mean(f"pre_{o.name}", o.exact(F.sum(f"pre_{o.name}").over(cluster)))
            for o in world.outcomes
        ]
        active = mean("pre_active_days", F.sum("pre_active_days").over(cluster))
        return units.select("*", *means, active)

    return transform


def _is_retained() -> Column:
    return F.col("churned_on").isNull() | (F.col("churned_on") > F.col("ends_on"))
