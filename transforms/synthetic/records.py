"""The tables an observer sees of trials: definitions, assignments, uptakes and the exposure log."""

import datetime as dt
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.ground_truth import label_arms
from transforms.synthetic.parameters import EffectT, World
from transforms.synthetic.plan import Arm, Plan, WorldT
from transforms.synthetic.trials import is_enrolled

_DAY_SECONDS = 86_400
_MAX_REPEATS = 6
_RETRY_SECONDS = 60
_USUAL_DELAY_SECONDS = 30.0


def trial_rows(plan: Plan[WorldT, EffectT], *, unit: str, cluster: str) -> list[tuple[Any, ...]]:
    """The definitions of the trials, as rows of `<world>_trials`."""
    world = plan.world
    starts_on = world.starts_on + dt.timedelta(days=world.pre_days)
    ends_on = world.starts_on + dt.timedelta(days=plan.n_days - 1)
    return [
        (
            trial.experiment,
            trial.perk,
            trial.design,
            cluster if trial.design == "clustered" else unit,
            trial.salt,
            starts_on,
            ends_on,
            world.starts_on,
            world.attribution_days,
            trial.variants[0].name,
            [variant.name for variant in trial.variants],
            [variant.share for variant in trial.variants],
        )
        for trial in plan.trials
    ]


def assignments(
    units: DataFrame, plan: Plan[WorldT, EffectT], *, cluster: str, stratum: Column
) -> DataFrame:
    """Who was assigned what: experiment, unit_id, variant, stratum, cluster_id, assigned_at."""
    unit, arm, faults = F.col("unit_id"), F.col("arm"), plan.world.faults
    is_clustered = plan.is_arm(lambda entry: _has_design(entry, "clustered"), arm)
    is_stratified = plan.is_arm(lambda entry: _has_design(entry, "stratified"), arm)
    rows = label_arms(units.where(is_enrolled(plan.world)), plan)
    if "sample_ratio_mismatch" in plan.faults:
        drawn = plan.draws.uniform("fault-mismatch", "unit_id")
        rows = rows.where(_is_control(plan) | (drawn >= faults.sample_ratio_mismatch))
    if "duplicate_units" in plan.faults:
        is_double = plan.draws.uniform("fault-duplicate", "unit_id") < faults.duplicate_units
        rows = rows.withColumn("copy", F.explode(F.sequence(F.lit(0), is_double.cast("int"))))
    return rows.select(
        "experiment",
        "unit_id",
        "variant",
        F.when(is_stratified, stratum).otherwise(F.lit("all")).alias("stratum"),
        F.when(is_clustered, F.col(cluster)).otherwise(unit).alias("cluster_id"),
        at_second(plan.world, F.lit(plan.world.pre_days), F.lit(0)).alias("assigned_at"),
    )


def uptakes(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """Who took an encouraged perk up: experiment, unit_id, taken_up_at."""
    second = F.floor(plan.draws.uniform("uptake-second", "unit_id") * float(_DAY_SECONDS))
    rows = units.where(is_enrolled(plan.world) & F.col("is_uptake"))
    return label_arms(rows, plan).select(
        "experiment",
        "unit_id",
        at_second(plan.world, F.col("exposure_day"), second).alias("taken_up_at"),
    )


def exposure_log(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """The raw exposure log: event_id, experiment, unit_id, variant, exposed_at, ingested_at.

    A first exposure on `exposure_day`, then further ones until the unit leaves. Some rows are there
    twice under one event_id, and some arrive days late.
    """
    world, draws, settings = plan.world, plan.draws, plan.world.exposure_log
    number, ids = F.col("number"), ("unit_id", "number")
    n_repeats = F.floor(draws.exponential("repeats", "unit_id") * settings.repeats)
    last = F.least(n_repeats, F.lit(_MAX_REPEATS)).cast("int")
    seen = units.where(is_enrolled(world) & F.col("is_exposed")).withColumn("last", last)
    stay = F.least(F.col("churn_day"), F.lit(plan.n_days)) - F.col("exposure_day")
    later = F.floor(draws.uniform("event-day-of-log", *ids) * stay)
    day = F.col("exposure_day") + F.when(number == 0, 0).otherwise(later)
    second = F.floor(draws.uniform("event-second", *ids) * float(_DAY_SECONDS))
    is_double = draws.uniform("duplicate", *ids) < settings.duplicates
    logged = _number_events(seen, plan).withColumn(
        "copy", F.explode(F.sequence(F.lit(0), is_double.cast("int")))
    )
    arrival = second + _ingestion_delay(plan) + F.col("copy") * _RETRY_SECONDS
    return label_arms(logged, plan).select(
        F.lower(F.hex(draws.bits("event-id", *ids))).alias("event_id"),
        "experiment",
        "unit_id",
        "variant",
        at_second(world, day, second).alias("exposed_at"),
        at_second(world, day, arrival).alias("ingested_at"),
    )


def keep_logged(days: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """The unit-days that reach the activity table: all, or fewer in treatment arms (a fault)."""
    if "logging_loss" not in plan.faults:
        return days
    drawn = plan.draws.uniform("fault-loss-day", "unit_id", "day")
    is_treated = plan.is_arm(lambda arm: arm.trial is not None and not arm.is_control, F.col("arm"))
    is_at_risk = is_treated & (F.col("day") >= plan.world.pre_days)
    return days.where(~is_at_risk | (drawn >= plan.world.faults.logging_loss))


def at_second(world: World, day: Column, second: Column) -> Column:
    """The TIMESTAMP of a second of a day of the world, whatever the session's time zone."""
    midnight = dt.datetime.combine(world.starts_on, dt.time(), tzinfo=dt.UTC)
    start = int(midnight.timestamp())
    seconds = F.lit(start) + day.cast("bigint") * _DAY_SECONDS + second.cast("bigint")
    return F.timestamp_seconds(seconds)


def _ingestion_delay(plan: Plan[WorldT, EffectT]) -> Column:
    """Seconds from the event to the arrival of its row: half a minute, or days when it is late."""
    settings, draws = plan.world.exposure_log, plan.draws
    ids = ("unit_id", "number")
    n_days = 2 + F.floor(draws.uniform("late-days", *ids) * float(settings.max_days_late - 1))
    is_late = draws.uniform("late", *ids) < settings.late
    usual = F.floor(draws.exponential("ingestion", *ids) * _USUAL_DELAY_SECONDS)
    return usual + F.when(is_late, n_days * _DAY_SECONDS).otherwise(0)


def _number_events(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """One row per exposure, `number` from zero to `last`; `arm` is the one that the log names."""
    number, faults = F.col("number"), plan.world.faults
    if "crossover" in plan.faults:
        crosses = plan.draws.uniform("fault-crossover", "unit_id") < faults.crossover
        highest = F.col("last") + crosses.cast("int")
        other = plan.of_arm(lambda arm: _other_arm(plan, arm), F.col("arm")).cast("int")
        events = units.withColumn("number", F.explode(F.sequence(F.lit(0), highest))).withColumn(
            "arm", F.when(number > F.col("last"), other).otherwise(F.col("arm"))
        )
    else:
        events = units.withColumn("number", F.explode(F.sequence(F.lit(0), F.col("last"))))
    if "logging_loss" in plan.faults:
        drawn = plan.draws.uniform("fault-loss-event", "unit_id", "number")
        events = events.where(_is_control(plan) | (drawn >= faults.logging_loss))
    return events


def _other_arm(plan: Plan[WorldT, EffectT], arm: Arm[EffectT]) -> int:
    """The number of the next arm of the same trial."""
    same = [n for n, other in enumerate(plan.arms) if other.experiment == arm.experiment]
    here = next(place for place, n in enumerate(same) if plan.arms[n].variant == arm.variant)
    return same[(here + 1) % len(same)]


def _has_design(arm: Arm[EffectT], design: str) -> bool:
    return arm.trial is not None and arm.trial.design == design


def _is_control(plan: Plan[WorldT, EffectT]) -> Column:
    return plan.is_arm(lambda arm: arm.is_control, F.col("arm"))
