"""The tables an observer sees of trials: definitions, assignments, uptakes and the exposure log."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.ground_truth import label_arms
from transforms.synthetic.parameters import EffectT, Fault, Trial, World
from transforms.synthetic.randomness import Draws, lookup
from transforms.synthetic.trials import Arm, is_enrolled

_DAY_SECONDS = 86_400
_MAX_REPEATS = 6


def trial_rows(
    trials: Sequence[Trial[EffectT]], world: World, *, n_days: int, unit: str, cluster: str
) -> list[tuple[Any, ...]]:
    """The definitions of the trials, as rows of `<world>_trials`."""
    starts_on = world.starts_on + dt.timedelta(days=world.pre_days)
    ends_on = world.starts_on + dt.timedelta(days=n_days - 1)
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
        for trial in trials
    ]


def assignments(
    units: DataFrame,
    arms: Sequence[Arm[EffectT]],
    draws: Draws,
    world: World,
    *,
    cluster: str,
    stratum: Column,
    faults: frozenset[Fault],
) -> DataFrame:
    """Who was assigned what: experiment, unit_id, variant, stratum, cluster_id, assigned_at."""
    unit = F.col("unit_id")
    is_clustered = _by_design(arms, "clustered")
    is_stratified = _by_design(arms, "stratified")
    rows = label_arms(units.where(is_enrolled(world)), arms)
    if "sample_ratio_mismatch" in faults:
        is_missing = draws.uniform("fault-mismatch", unit) < world.faults.sample_ratio_mismatch
        rows = rows.where(_is_control(arms) | ~is_missing)
    if "duplicate_units" in faults:
        is_double = draws.uniform("fault-duplicate", unit) < world.faults.duplicate_units
        rows = rows.withColumn("copy", F.explode(F.sequence(F.lit(0), is_double.cast("int"))))
    return rows.select(
        "experiment",
        "unit_id",
        "variant",
        F.when(is_stratified, stratum).otherwise(F.lit("all")).alias("stratum"),
        F.when(is_clustered, F.col(cluster)).otherwise(unit).alias("cluster_id"),
        at_second(world, F.lit(world.pre_days), F.lit(0)).alias("assigned_at"),
    )


def uptakes(
    units: DataFrame, arms: Sequence[Arm[EffectT]], draws: Draws, world: World
) -> DataFrame:
    """Who took an encouraged perk up: experiment, unit_id, taken_up_at."""
    second = F.floor(draws.uniform("uptake-second", F.col("unit_id")) * float(_DAY_SECONDS))
    rows = units.where(is_enrolled(world) & F.col("is_uptake"))
    return label_arms(rows, arms).select(
        "experiment",
        "unit_id",
        at_second(world, F.col("exposure_day"), second).alias("taken_up_at"),
    )


def exposure_log(
    units: DataFrame,
    arms: Sequence[Arm[EffectT]],
    draws: Draws,
    world: World,
    *,
    n_days: int,
    faults: frozenset[Fault],
) -> DataFrame:
    """The raw exposure log: event_id, experiment, unit_id, variant, exposed_at, ingested_at.

    A first exposure on `exposure_day`, then further ones until the unit leaves. Some rows are there
    twice under one event_id, and some arrive days late.
    """
    settings = world.exposure_log
    unit, number = F.col("unit_id"), F.col("number")
    n_repeats = F.floor(draws.exponential("repeats", unit) * settings.repeats)
    last = F.least(n_repeats, F.lit(_MAX_REPEATS)).cast("int")
    seen = units.where(is_enrolled(world) & F.col("is_exposed"))
    events = _logged_arms(seen.withColumn("last", last), arms, draws, world, faults=faults)
    stay = F.least(F.col("churn_day"), F.lit(n_days)) - F.col("exposure_day")
    later = F.floor(draws.uniform("event-day-of-log", unit, number) * stay)
    day = F.col("exposure_day") + F.when(number == 0, 0).otherwise(later)
    second = F.floor(draws.uniform("event-second", unit, number) * float(_DAY_SECONDS))
    is_late = draws.uniform("late", unit, number) < settings.late
    n_late = 2 + F.floor(
        draws.uniform("late-days", unit, number) * float(settings.max_days_late - 1)
    )
    delay = F.floor(draws.exponential("ingestion", unit, number) * 30.0) + F.when(
        is_late, n_late * _DAY_SECONDS
    ).otherwise(0)
    is_double = draws.uniform("duplicate", unit, number) < settings.duplicates
    logged = events.withColumn("copy", F.explode(F.sequence(F.lit(0), is_double.cast("int"))))
    return label_arms(logged, arms).select(
        F.lower(F.hex(draws.bits("event-id", unit, number))).alias("event_id"),
        "experiment",
        "unit_id",
        "variant",
        at_second(world, day, second).alias("exposed_at"),
        at_second(world, day, second + delay + F.col("copy") * 60).alias("ingested_at"),
    )


def keep_logged(
    days: DataFrame,
    arms: Sequence[Arm[EffectT]],
    draws: Draws,
    world: World,
    *,
    faults: frozenset[Fault],
) -> DataFrame:
    """The unit-days that reach the activity table: all, or fewer in treatment arms (a fault)."""
    if "logging_loss" not in faults:
        return days
    drawn = draws.uniform("fault-loss-day", F.col("unit_id"), F.col("day"))
    in_trial = ~_is_untreated(arms) & (F.col("day") >= world.pre_days)
    return days.where(~in_trial | (drawn >= world.faults.logging_loss))


def at_second(world: World, day: Column, second: Column) -> Column:
    """The TIMESTAMP of a second of a day of the world, whatever the session's time zone."""
    midnight = dt.datetime.combine(world.starts_on, dt.time(), tzinfo=dt.UTC)
    start = int(midnight.timestamp())
    seconds = F.lit(start) + day.cast("bigint") * _DAY_SECONDS + second.cast("bigint")
    return F.timestamp_seconds(seconds)


def _logged_arms(
    units: DataFrame,
    arms: Sequence[Arm[EffectT]],
    draws: Draws,
    world: World,
    *,
    faults: frozenset[Fault],
) -> DataFrame:
    """One row per exposure, numbered from zero, with the arm that the log names."""
    unit, number = F.col("unit_id"), F.col("number")
    if "crossover" in faults:
        crosses = draws.uniform("fault-crossover", unit) < world.faults.crossover
        others = [float(_other_arm(arms, place)) for place in range(len(arms))]
        other = lookup(others, F.col("arm")).cast("int")
        events = units.withColumn(
            "number", F.explode(F.sequence(F.lit(0), F.col("last") + crosses.cast("int")))
        ).withColumn("arm", F.when(number > F.col("last"), other).otherwise(F.col("arm")))
    else:
        events = units.withColumn("number", F.explode(F.sequence(F.lit(0), F.col("last"))))
    if "logging_loss" in faults:
        drawn = draws.uniform("fault-loss-event", unit, number)
        events = events.where(_is_control(arms) | (drawn >= world.faults.logging_loss))
    return events


def _other_arm(arms: Sequence[Arm[EffectT]], place: int) -> int:
    """The next arm of the same trial."""
    same = [number for number, arm in enumerate(arms) if arm.trial is arms[place].trial]
    return same[(same.index(place) + 1) % len(same)]


def _by_design(arms: Sequence[Arm[EffectT]], design: str) -> Column:
    return lookup(
        [arm.trial is not None and arm.trial.design == design for arm in arms], F.col("arm")
    )


def _is_control(arms: Sequence[Arm[EffectT]]) -> Column:
    return lookup([arm.is_control for arm in arms], F.col("arm"))


def _is_untreated(arms: Sequence[Arm[EffectT]]) -> Column:
    return lookup([arm.is_control or arm.trial is None for arm in arms], F.col("arm"))
