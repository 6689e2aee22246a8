"""From a plan and a range of ids to the frames of all tables of a world."""

from collections.abc import Callable, Mapping
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.schema import Table
from transforms.synthetic import drivers, subscribers, tables
from transforms.synthetic.cities.campaign import week_effects, week_rows
from transforms.synthetic.cities.dispatch import dispatch_effects, dispatch_rows
from transforms.synthetic.cities.switchback import slot_effects, slot_rows
from transforms.synthetic.drivers import DriverPlan
from transforms.synthetic.ground_truth import (
    Ratio,
    arm_totals,
    in_window,
    rollout_effects,
    trial_effects,
    under_every_arm,
    unit_truth,
)
from transforms.synthetic.money import exact_sum
from transforms.synthetic.parameters import World
from transforms.synthetic.places import PlacePlan
from transforms.synthetic.randomness import lookup
from transforms.synthetic.records import (
    assignments,
    at_second,
    exposure_log,
    keep_logged,
    trial_rows,
    uptakes,
)
from transforms.synthetic.subscribers import SubscriberPlan

SUBSCRIBER_RATIOS = (
    Ratio(name="minutes_per_session", numerator="minutes", denominator="sessions"),
    Ratio(name="minutes_per_active_day", numerator="minutes", denominator="active_days"),
    Ratio(name="revenue_per_active_day", numerator="revenue", denominator="active_days"),
)
DRIVER_RATIOS = (
    Ratio(name="earnings_per_hour", numerator="earnings", denominator="hours"),
    Ratio(name="trips_per_hour", numerator="trips", denominator="hours"),
    Ratio(name="payouts_per_trip", numerator="payouts", denominator="trips"),
)
CITY_ROWS: tuple[tuple[Table, Callable[[DriverPlan], list[tuple[Any, ...]]]], ...] = (
    (tables.DRIVER_SWITCHBACK_SLOTS, slot_rows),
    (tables.DRIVER_CAMPAIGN_WEEKS, week_rows),
    (tables.DRIVER_DISPATCH_UNITS, dispatch_rows),
)
"""Tables of experiments on cities, and what makes their rows: they are few."""
PLACE_SCHEMA = "place INT, name STRING, parent STRING, first_treated_period INT"


def place_rows(places: PlacePlan) -> list[tuple[Any, ...]]:
    """The places as rows of PLACE_SCHEMA."""
    columns = zip(places.names, places.groups, places.first_treated_periods, strict=True)
    return [(place, *row) for place, row in enumerate(columns)]


def subscriber_trial_rows(plan: SubscriberPlan) -> list[tuple[Any, ...]]:
    """Rows of `subscriber_trials`."""
    return trial_rows(plan, unit="subscriber_id", cluster="household_id")


def driver_trial_rows(plan: DriverPlan) -> list[tuple[Any, ...]]:
    """Rows of `driver_trials`."""
    return trial_rows(plan, unit="driver_id", cluster="driver_id")


def subscriber_frames(
    plan: SubscriberPlan, *, units: DataFrame, places: DataFrame, trials: DataFrame
) -> Mapping[str, DataFrame]:
    """The tables of the world of subscribers, all but the true effects.

    Args:
        plan: The world.
        units: One BIGINT column `id` from zero, one row per subscriber.
        places: The regions, PLACE_SCHEMA.
        trials: `subscriber_trials`.

    Returns:
        Frames by table name, with the columns of `tables`.
    """
    people = subscribers.population(units, plan)
    days = keep_logged(subscribers.usage(people, plan), plan)
    tier = lookup(list(plan.world.tiers), F.col("tier"))
    frames = {
        tables.SUBSCRIBERS.name: people.withColumns(
            {
                "country": plan.places.group(F.col("place")),
                "region": plan.places.name(F.col("place")),
                "tier": tier,
                "channel": lookup(list(plan.world.channels), F.col("channel")),
                "churned_on": _churned_on(plan.world, n_days=plan.n_days),
            }
        ),
        tables.SUBSCRIBER_DAYS.name: days.withColumn(
            "activity_on", _date(plan.world, F.col("day"))
        ),
        tables.SUBSCRIBER_TRIALS.name: trials,
        tables.SUBSCRIBER_ASSIGNMENTS.name: assignments(
            people,
            plan,
            cluster="household_id",
            stratum=tier,
        ),
        tables.SUBSCRIBER_UPTAKES.name: uptakes(people, plan),
        tables.SUBSCRIBER_EXPOSURE_LOG.name: exposure_log(people, plan),
        tables.SUBSCRIBER_ROLLOUT.name: _named_places(places, place="region", parent="country"),
        **_subscriber_truth(plan, people=people, places=places),
    }
    return _conformed(frames, key="subscriber_id")


def driver_frames(
    plan: DriverPlan, *, units: DataFrame, places: DataFrame, trials: DataFrame
) -> Mapping[str, DataFrame]:
    """The tables of the world of drivers, all but the true effects.

    Arguments as in `subscriber_frames`.
    """
    people = drivers.population(units, plan)
    days = keep_logged(drivers.work(people, plan), plan)
    frames = {
        tables.DRIVERS.name: people.withColumns(
            {
                "city": plan.places.name(F.col("place")),
                "vehicle": lookup(list(plan.world.vehicles), F.col("vehicle")),
                "churned_on": _churned_on(plan.world, n_days=plan.n_days),
            }
        ),
        tables.DRIVER_DAYS.name: days.withColumn("activity_on", _date(plan.world, F.col("day"))),
        tables.DRIVER_TRIALS.name: trials,
        tables.DRIVER_ASSIGNMENTS.name: assignments(
            people,
            plan,
            cluster="unit_id",
            stratum=lookup(list(plan.world.vehicles), F.col("vehicle")),
        ),
        tables.DRIVER_EXPOSURE_LOG.name: exposure_log(people, plan),
        tables.DRIVER_PAYOUTS.name: _payouts(days, plan),
        tables.DRIVER_ROLLOUT.name: _named_places(places, place="city", parent="market"),
        **_driver_truth(plan, people=people, places=places),
    }
    return _conformed(frames, key="driver_id")


def subscriber_effects(
    plan: SubscriberPlan, *, truth: DataFrame, rollout: DataFrame
) -> Mapping[str, DataFrame]:
    """`truth_subscriber_effects` from the other truth tables.

    Args:
        plan: The world.
        truth: `truth_subscribers`.
        rollout: `truth_subscriber_rollout`.
    """
    totals = arm_totals(truth, plan, scenario="realised")
    effects = trial_effects(totals, plan, ratios=SUBSCRIBER_RATIOS)
    frame = effects.unionByName(rollout_effects(rollout, plan))
    return _conformed({tables.TRUTH_SUBSCRIBER_EFFECTS.name: frame}, key="subscriber_id")


def city_effect_rows(plan: DriverPlan) -> list[tuple[Any, ...]]:
    """True effects of the experiments on cities, rows of `truth_driver_effects`."""
    return [*slot_effects(plan), *week_effects(plan), *dispatch_effects(plan)]


def driver_effects(
    plan: DriverPlan, *, units: DataFrame, truth: DataFrame, rollout: DataFrame, cities: DataFrame
) -> Mapping[str, DataFrame]:
    """`truth_driver_effects` from the other truth tables and the world at its extremes.

    Args:
        plan: The world.
        units: One BIGINT column `id` from zero, one row per driver.
        truth: `truth_drivers`.
        rollout: `truth_driver_rollout`.
        cities: The rows of `city_effect_rows`.
    """
    people = under_every_arm(drivers.population(units, plan), plan)
    extreme = drivers.at_extreme_shares(people, plan)
    days = in_window(drivers.work(extreme, plan), plan)
    totals = arm_totals(truth, plan, scenario="realised").unionByName(
        arm_totals(unit_truth(extreme, days, plan), plan, scenario="extreme")
    )
    effects = trial_effects(totals, plan, ratios=DRIVER_RATIOS)
    frame = effects.unionByName(rollout_effects(rollout, plan)).unionByName(cities)
    return _conformed({tables.TRUTH_DRIVER_EFFECTS.name: frame}, key="driver_id")


def _subscriber_truth(
    plan: SubscriberPlan, *, people: DataFrame, places: DataFrame
) -> dict[str, DataFrame]:
    units = under_every_arm(people, plan)
    days = in_window(subscribers.usage(units, plan), plan)
    added = _place_weeks(
        people, subscribers.rollout_additions(people, plan), places, n_weeks=plan.n_weeks
    )
    return {
        tables.TRUTH_SUBSCRIBERS.name: unit_truth(units, days, plan),
        tables.TRUTH_SUBSCRIBER_ROLLOUT.name: added.withColumnRenamed("name", "region"),
    }


def _driver_truth(
    plan: DriverPlan, *, people: DataFrame, places: DataFrame
) -> dict[str, DataFrame]:
    units = under_every_arm(people, plan)
    days = in_window(drivers.work(units, plan), plan)
    added = _place_weeks(
        people, drivers.rollout_additions(people, plan), places, n_weeks=plan.n_weeks
    )
    return {
        tables.TRUTH_DRIVERS.name: unit_truth(units, days, plan),
        tables.TRUTH_DRIVER_ROLLOUT.name: added.withColumnRenamed("name", "city"),
    }


def _place_weeks(
    people: DataFrame, additions: DataFrame, places: DataFrame, *, n_weeks: int
) -> DataFrame:
    """Every place and week: its units and what the rollout added there (zero if nothing)."""
    outcomes = [name for name in additions.columns if name not in {"place", "week"}]
    n_units = people.groupBy("place").agg(F.count(F.lit(1)).alias("n_units"))
    sums = additions.groupBy("place", F.col("week").alias("period")).agg(
        *[exact_sum(name).alias(name) for name in outcomes]
    )
    grid = places.withColumn("period", F.explode(F.sequence(F.lit(0), F.lit(n_weeks - 1))))
    return (
        grid.join(n_units, on="place", how="inner")
        .join(sums, on=["place", "period"], how="left")
        .select(
            "name",
            "period",
            "first_treated_period",
            "n_units",
            *[F.coalesce(F.col(name), F.lit(0.0)).alias(name) for name in outcomes],
        )
    )


def _payouts(days: DataFrame, plan: DriverPlan) -> DataFrame:
    """One payout a driver, week and kind (fares, incentive), paid on the Monday after."""
    kinds = F.array(
        *[
            F.struct(
                F.lit(number).alias("number"),
                F.lit(kind).alias("kind"),
                F.col(name).alias("amount"),
            )
            for number, (kind, name) in enumerate((("fares", "fares"), ("incentive", "payouts")))
        ]
    )
    return (
        days.groupBy("unit_id", "week")
        .agg(*[exact_sum(name).alias(name) for name in ("fares", "payouts")])
        .select("unit_id", "week", F.explode(kinds).alias("entry"))
        .select("unit_id", "week", "entry.*")
        .select(
            F.lower(F.hex(plan.draws.bits("payout-id", "unit_id", "week", "number"))).alias(
                "payout_id"
            ),
            "unit_id",
            "kind",
            "amount",
            at_second(plan.world, (F.col("week") + 1) * 7, F.lit(6 * 3600)).alias("paid_at"),
        )
        .where(F.col("amount") > 0.0)
    )


def _named_places(places: DataFrame, *, place: str, parent: str) -> DataFrame:
    return places.withColumnsRenamed({"name": place, "parent": parent})


def _churned_on(world: World, *, n_days: int) -> Column:
    day = F.col("churn_day")
    return F.when(day < n_days, _date(world, day))


def _date(world: World, day: Column) -> Column:
    return F.date_add(F.lit(world.starts_on), day)


def _conformed(frames: Mapping[str, DataFrame], *, key: str) -> Mapping[str, DataFrame]:
    """The columns of each declaration, in its order and types; `unit_id` becomes the id."""
    declared = {table.name: table for table in tables.WORLD_TABLES}
    return {name: _select(frame, declared[name], key=key) for name, frame in frames.items()}


def _select(frame: DataFrame, table: Table, *, key: str) -> DataFrame:
    return frame.select(
        *[
            F.col("unit_id" if field.name == key else field.name)
            .cast(field.data_type)
            .alias(field.name)
            for field in table.fields
        ]
    )
