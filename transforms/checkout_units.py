"""The shop's records by user and by visitor day: pre-period covariates, outcomes of the trial.

A user counts from the assignment on, whatever is done with it (intention to treat). A visitor day
is a day on which the user left any record. Rows without a user cannot be told whose they are and
are in neither table; the quality check `null_user_id` counts them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.checkout_tables import (
    ACTIVITY,
    CHECKOUT_UNITS,
    CHECKOUT_VISITOR_DAYS,
    PRE_OUTCOMES,
)
from transforms.schema import Field

RETURN_DAYS = 7
_DAY_SECONDS = 86_400
_KEYS = ("experiment", "unit_id")
_ENROLLED = ("variant", "assigned_on", "starts_on", "ends_on", "country", "device", "customer_type")


@dataclass(frozen=True, kw_only=True)
class ShopRecords:
    """The tables of the shop that outcomes are made of.

    Attributes:
        users: `checkout_users`.
        trials: `checkout_trials`.
        assignments: `checkout_assignments`, each user once per experiment.
        sessions: `checkout_sessions`.
        orders: `checkout_orders`.
        perf: `checkout_perf`.
    """

    users: DataFrame
    trials: DataFrame
    assignments: DataFrame
    sessions: DataFrame
    orders: DataFrame
    perf: DataFrame


def checkout_units(records: ShopRecords, *, slow_ms: int) -> DataFrame:
    """`checkout_units`: one row per assigned user.

    Args:
        records: The tables of the shop.
        slow_ms: A checkout page that takes more milliseconds is slow.
    """
    enrolled = _enrolled(records)
    is_back = F.datediff("visited_on", "assigned_on").between(1, RETURN_DAYS)
    last_followed = F.date_add("assigned_on", RETURN_DAYS)
    days = _days(records, enrolled, slow_ms=slow_ms)
    before, after = F.col("is_before"), ~F.col("is_before")
    sums = days.groupBy(*_KEYS).agg(
        F.count_if(before).alias("pre_visitor_days"),
        F.count_if(after).alias("visitor_days"),
        *_sums(where=before, prefix="pre_", names=PRE_OUTCOMES),
        *_sums(where=after),
        F.max((after & is_back).cast("int")).alias("is_back"),
    )
    units = enrolled.join(sums, on=list(_KEYS), how="left")
    filled = {name: F.coalesce(F.col(name), F.lit(0)) for name in sums.columns if name not in _KEYS}
    followed = (last_followed <= F.col("ends_on")).cast("int")
    made = units.withColumns(filled).withColumns(
        {
            "is_converted": F.col("orders") > 0,
            "followed_d7": followed,
            "returned_d7": followed * F.col("is_back"),
        }
    )
    return _declared(made, CHECKOUT_UNITS.fields)


def checkout_visitor_days(records: ShopRecords, *, slow_ms: int) -> DataFrame:
    """`checkout_visitor_days`: one row per assigned user and day of the trial with a record.

    Arguments as in `checkout_units`.
    """
    days = _days(records, _enrolled(records), slow_ms=slow_ms).where(~F.col("is_before"))
    made = days.withColumns(
        {
            "day": F.datediff("visited_on", "assigned_on"),
            "visitor_day_id": F.xxhash64("experiment", "unit_id", "visited_on"),
        }
    )
    return _declared(made, CHECKOUT_VISITOR_DAYS.fields)


def _enrolled(records: ShopRecords) -> DataFrame:
    """Assigned users with their trial's dates and their segments."""
    is_new = F.col("first_seen_on") >= F.col("starts_on")
    dates = records.trials.select("experiment", "pre_starts_on", "starts_on", "ends_on")
    return (
        records.assignments.join(F.broadcast(dates), on="experiment", how="inner")
        .join(records.users, on="user_id", how="left")
        .withColumn("assigned_on", _utc_date("assigned_at"))
        .withColumn("customer_type", F.when(is_new, "new").otherwise("existing"))
        .withColumnRenamed("user_id", "unit_id")
    )


def _days(records: ShopRecords, enrolled: DataFrame, *, slow_ms: int) -> DataFrame:
    """One row per assigned user, day and side of the trial's start, with the sums of the day."""
    seen_on = F.col("visited_on")
    is_before = seen_on < F.col("starts_on")
    is_counted = F.when(is_before, seen_on >= F.col("pre_starts_on")).otherwise(
        (F.col("at") >= F.col("assigned_at")) & (seen_on <= F.col("ends_on"))
    )
    return (
        _activity(records, slow_ms=slow_ms)
        .join(enrolled, on="unit_id", how="inner")
        .withColumn("visited_on", _utc_date("at"))
        .withColumn("is_before", is_before)
        .where(is_counted)
        .groupBy(*_KEYS, *_ENROLLED, "visited_on", "is_before")
        .agg(*_sums())
    )


def _activity(records: ShopRecords, *, slow_ms: int) -> DataFrame:
    """Sessions, orders and checkout loads in one frame: user, moment and what they add."""
    is_checkout = F.col("page") == "checkout"
    is_slow = is_checkout & (F.col("latency_ms") > slow_ms)
    latency = F.when(is_checkout, F.col("latency_ms")).otherwise(0)
    return (
        _adding(records.sessions, "started_at", {"sessions": F.lit(1)})
        .unionByName(
            _adding(
                records.orders,
                "ordered_at",
                {
                    "orders": F.lit(1),
                    "revenue": F.col("revenue"),
                    "gross_profit": F.col("gross_profit"),
                    "refunds": (F.col("refund_amount") > 0).cast("int"),
                    "tickets": F.col("n_tickets"),
                },
            )
        )
        .unionByName(
            _adding(
                records.perf,
                "loaded_at",
                {
                    "checkout_loads": is_checkout.cast("int"),
                    "slow_checkout_loads": is_slow.cast("int"),
                    "checkout_ms": latency,
                },
            )
        )
    )


def _adding(rows: DataFrame, at: str, amounts: Mapping[str, Column]) -> DataFrame:
    """The rows as additions to what adds up; zero where they add nothing."""
    return rows.where("user_id IS NOT NULL").select(
        F.col("user_id").alias("unit_id"),
        F.col(at).alias("at"),
        *[
            amounts.get(field.name, F.lit(0)).cast(field.data_type).alias(field.name)
            for field in ACTIVITY
        ],
    )


def _sums(
    *, where: Column | None = None, prefix: str = "", names: Sequence[str] | None = None
) -> list[Column]:
    """Sums of what adds up, zero where nothing counts; money to the cent, in any order of rows."""
    aggregates = []
    for field in ACTIVITY:
        if names is not None and field.name not in names:
            continue
        value = F.col(field.name)
        total = F.coalesce(F.sum(value if where is None else F.when(where, value)), F.lit(0))
        is_money = field.type == "DOUBLE"
        aggregates.append((F.round(total, 2) if is_money else total).alias(prefix + field.name))
    return aggregates


def _utc_date(name: str) -> Column:
    days = F.floor(F.unix_seconds(name) / _DAY_SECONDS).cast("int")
    return F.date_from_unix_date(days)


def _declared(rows: DataFrame, fields: Sequence[Field]) -> DataFrame:
    return rows.select(
        *[F.col(field.name).cast(field.data_type).alias(field.name) for field in fields]
    )
