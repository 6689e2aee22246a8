"""From a plan and a range of ids to passengers, their trips, their vouchers, and the truth."""

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.schema import Table
from transforms.synthetic.passengers import tables
from transforms.synthetic.passengers.lives import fare, population
from transforms.synthetic.passengers.plan import PassengerPlan
from transforms.synthetic.passengers.season import day_of, elapsed_until, second_of
from transforms.synthetic.passengers.vouchers import (
    voucher_effects,
    voucher_passengers,
    voucher_truth,
)
from transforms.synthetic.randomness import lookup

FEATURE_DAYS, TARGET_DAYS = 7, 30


def passenger_frames(plan: PassengerPlan, *, units: DataFrame) -> Mapping[str, DataFrame]:
    """The tables of the world, all but the true effects.

    Args:
        plan: The world.
        units: One BIGINT column `id` from zero, one row per passenger.

    Returns:
        Frames by table name, with the columns of `tables`.
    """
    people = population(units, plan)
    made = {
        tables.PASSENGERS.name: _passengers(people, plan),
        tables.TRIPS.name: _trips(people, plan),
        tables.VOUCHERS.name: voucher_passengers(people, plan),
        tables.TRUTH_PASSENGERS.name: _truth(people, plan),
        tables.TRUTH_VOUCHERS.name: voucher_truth(people, plan),
    }
    return _conformed(made)


def passenger_effects(plan: PassengerPlan, *, vouchers: DataFrame) -> Mapping[str, DataFrame]:
    """`truth_passenger_effects`.

    Args:
        plan: The world.
        vouchers: `truth_voucher_passengers`.
    """
    return _conformed({tables.TRUTH_EFFECTS.name: voucher_effects(vouchers, plan)})


def _conformed(frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The columns of each declaration, in its order and types."""
    declared = {table.name: table for table in tables.PASSENGER_TABLES}
    return {name: _select(frame, declared[name]) for name, frame in frames.items()}


def _select(frame: DataFrame, table: Table) -> DataFrame:
    columns = [F.col(field.name).cast(field.data_type).alias(field.name) for field in table.fields]
    return frame.select(*columns)


def _passengers(people: DataFrame, plan: PassengerPlan) -> DataFrame:
    return people.select(
        F.col("unit_id").alias("passenger_id"),
        plan.date(F.col("start_day")).alias("registered_on"),
        lookup(list(plan.world.cities), F.col("city")).alias("city"),
        lookup(list(plan.world.platforms), F.col("platform")).alias("platform"),
    )


def _trips(people: DataFrame, plan: PassengerPlan) -> DataFrame:
    """One row per trip; the season turns shares of the passenger's time into days and seconds."""
    rows = people.select(
        "unit_id", "money", "start", "length", F.posexplode("places").alias("number", "share")
    ).withColumn("elapsed", F.col("start") + F.col("share") * F.col("length"))
    timed = rows.withColumn("day", day_of(F.col("elapsed"), plan)).withColumn(
        "second", second_of(F.col("elapsed"), F.col("day"), plan)
    )
    return timed.select(
        F.col("unit_id").alias("passenger_id"),
        (F.col("number") + 1).alias("trip_number"),
        plan.at_second(F.col("day"), F.col("second")).alias("started_at"),
        fare(plan, plan.draws).alias("fare"),
    )


def _truth(people: DataFrame, plan: PassengerPlan) -> DataFrame:
    """What is expected of a passenger in a time ahead: nothing if gone, else (1 - e^-lpt) / p."""
    n_trips = F.size("places")
    seen = F.filter("places", lambda share: share * F.col("length") < float(FEATURE_DAYS))
    is_there_early = F.size(seen) < F.col("n_until_leaving")
    last = F.col("start") + F.element_at("places", n_trips) * F.col("length")
    early = F.col("start_day") + FEATURE_DAYS
    ahead = elapsed_until(early + TARGET_DAYS, plan) - elapsed_until(early, plan)
    end = F.lit(plan.n_days)
    after = elapsed_until(end + TARGET_DAYS, plan) - elapsed_until(end, plan)
    next_trips = F.when(F.col("has_left"), 0.0).otherwise(_expected(after))
    return people.select(
        F.col("unit_id").alias("passenger_id"),
        F.col("rate").alias("trip_rate"),
        F.col("leave").alias("leave_probability"),
        F.col("money").alias("mean_fare"),
        F.when(F.col("has_left"), plan.date(day_of(last, plan))).alias("left_on"),
        F.when(is_there_early, _expected(ahead) * F.col("money"))
        .otherwise(0.0)
        .alias("expected_spend_30"),
        next_trips.alias("expected_trips_next_30"),
        (next_trips * F.col("money")).alias("expected_spend_next_30"),
    )


def _expected(ahead: Column) -> Column:
    """Expected trips in season-weighted days ahead of a passenger who is there (equation 7)."""
    return -F.expm1(-F.col("rate") * F.col("leave") * ahead) / F.col("leave")
