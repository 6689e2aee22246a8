"""From a log of purchases to one row per customer: how many, when the last, watched how long."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.errors import DataError
from transforms.bounded import collect_bounded
from transforms.columns import Transform
from transforms.terms import quoted

_DAY_MICROSECONDS = 86_400 * 10**6
_SPEND_STEPS = 200.0
"""Cells of mean spend per power of e: half a percent wide."""
_NOT_POSITIVE = -1e6
_EPOCH = dt.date(1970, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Log:
    """A log of purchases in a form of its own.

    Attributes:
        rows: One row per purchase: `unit`, `at` (days since 1970), `amount` (null: there is none).
        births: One row per unit, `unit` and `born` (days since 1970); `None`: the first purchase.
        is_daily: Whether `at` are whole days. A purchase then counts at the end of its day if
            births are given, else as many days after the first as the calendar says.
    """

    rows: DataFrame
    births: DataFrame | None
    is_daily: bool


def purchase_log(
    *, unit: str, time: str, amount: str | None, until: dt.date, is_daily: bool
) -> Transform:
    """The purchases of a log before a day: `unit`, `at`, `amount`.

    Args:
        unit: Column of the customer.
        time: Column of the day or time.
        amount: Column of money.
        until: First day that does not count.
        is_daily: Whether what a unit buys on one day is one purchase.

    Raises:
        DataError: A row lacks one of the columns, or an amount is infinite.
    """

    def transform(df: DataFrame) -> DataFrame:
        names = [unit, time, *([] if amount is None else [amount])]
        money = F.lit(None) if amount is None else quoted(amount)
        rows = df.select(
            quoted(unit).alias("unit"),
            days_since(quoted(time)).alias("at"),
            money.cast("double").alias("amount"),
        )
        _check_complete(rows, names)
        rows = rows.where(F.col("at") < F.lit(float((until - _EPOCH).days)))
        if not is_daily:
            return rows
        day = F.floor("at").cast("double").alias("at")
        return rows.groupBy("unit", day).agg(F.sum("amount").alias("amount"))

    return transform


def days_since(time: Column) -> Column:
    """Days since 1970 of a DATE or a TIMESTAMP, as a double."""
    return F.unix_micros(time.cast("timestamp")) / F.lit(float(_DAY_MICROSECONDS))


def births(*, unit: str, born: str, is_daily: bool) -> Transform:
    """`unit` and `born`, days since 1970 from which each is watched.

    Args:
        unit: Column of the customer.
        born: Column of that day or time.
        is_daily: Whether only the day matters.

    Raises:
        DataError: A unit is null or twice there, or has no such day.
    """

    def transform(df: DataFrame) -> DataFrame:
        since = days_since(quoted(born))
        day = F.floor(since).cast("double") if is_daily else since
        rows = df.select(quoted(unit).alias("unit"), day.alias("born"))
        _check_complete(rows, [unit, born])
        counts = rows.agg(F.count(F.lit(1)).alias("n"), F.count_distinct("unit").alias("n_units"))
        found = collect_bounded(counts, max_rows=1, what="a count").iloc[0]
        if found["n"] != found["n_units"]:
            raise DataError(
                "units must have one row per unit",
                given=f"{found['n']:,} rows of {found['n_units']:,} units",
                key="options.units",
            )
        return rows

    return transform


def histories(log: Log, *, until: dt.date, grid: float | None, unit_days: float) -> DataFrame:
    """One row per unit that was there before a day: what it did before, and what after.

    Args:
        log: The purchases.
        until: The day; purchases from it on are the later ones.
        grid: Width in days of cells of recency and age; `None`: exact.
        unit_days: Days in the unit of time.

    Returns:
        `unit`, `born` (days since 1970), `frequency`, `recency`, `age`, `monetary_value` (mean
        amount per repeat purchase, null without one), `recency_cell`, `age_cell`, `monetary_cell`
        and `later_purchases`, `later_spend`; all DOUBLE but the unit.
    """
    end = float((until - _EPOCH).days)
    is_before = F.col("at") < F.lit(end)
    sums = log.rows.groupBy("unit").agg(
        F.count_if(is_before).cast("double").alias("n"),
        F.count_if(~is_before).cast("double").alias("later_purchases"),
        F.min("at").alias("first"),
        F.max(F.when(is_before, F.col("at"))).alias("last"),
        _total(is_before).alias("spent"),
        F.min_by("amount", F.struct("at", "amount")).alias("first_amount"),
        _total(~is_before).alias("later_spend"),
    )
    watched = (
        _since_birth(sums, log, end) if log.births is not None else _since_first(sums, log, end)
    )
    scaled = watched.where(F.col("born") < end).select(
        "unit",
        "born",
        "frequency",
        (F.col("recency") / unit_days).alias("recency"),
        (F.col("age") / unit_days).alias("age"),
        F.when(F.col("frequency") > 0, F.col("repeat_spend") / F.col("frequency")).alias(
            "monetary_value"
        ),
        _cell("recency", grid).alias("recency_cell"),
        _cell("age", grid).alias("age_cell"),
        "later_purchases",
        "later_spend",
    )
    return scaled.withColumn("monetary_cell", _money_cell(F.col("monetary_value")))


def check_known(log: Log) -> None:
    """Every purchase is by a unit that has a birth, and after it.

    Raises:
        DataError: Some are not; they are counted.
    """
    if log.births is None:
        return
    joined = log.rows.join(log.births, on="unit", how="left")
    counts = joined.agg(
        F.count_if(F.col("born").isNull()).alias("n_unknown"),
        F.count_if(F.col("at") < F.col("born")).alias("n_early"),
    )
    found = collect_bounded(counts, max_rows=1, what="a count").iloc[0]
    if found["n_unknown"]:
        raise DataError(
            "some purchases are by units that are not in units",
            given=f"{found['n_unknown']:,} purchases",
            key="options.units",
        )
    if found["n_early"]:
        raise DataError(
            "some purchases are before the day since which their unit is watched",
            given=f"{found['n_early']:,} purchases",
            key="options.units.born",
        )


def _since_birth(sums: DataFrame, log: Log, end: float) -> DataFrame:
    """All purchases count; a daily one at the end of its day, so that none is at time zero."""
    shift = 1.0 if log.is_daily else 0.0
    births = log.births
    assert births is not None  # noqa: S101 - the caller chose this function by it
    rows = births.join(sums, on="unit", how="left")
    n = F.coalesce(F.col("n"), F.lit(0.0))
    return rows.select(
        "unit",
        "born",
        n.alias("frequency"),
        F.coalesce(F.col("last") - F.col("born") + shift, F.lit(0.0)).alias("recency"),
        (F.lit(end) - F.col("born")).alias("age"),
        F.col("spent").alias("repeat_spend"),
        F.coalesce("later_purchases", F.lit(0.0)).alias("later_purchases"),
        F.coalesce("later_spend", F.lit(0.0)).alias("later_spend"),
    )


def _since_first(sums: DataFrame, log: Log, end: float) -> DataFrame:
    """The first purchase starts the clock and is no repeat; the last day ends a daily one."""
    last_tick = end - 1.0 if log.is_daily else end
    return sums.where(F.col("n") > 0).select(
        "unit",
        F.col("first").alias("born"),
        (F.col("n") - 1.0).alias("frequency"),
        (F.col("last") - F.col("first")).alias("recency"),
        (F.lit(last_tick) - F.col("first")).alias("age"),
        (F.col("spent") - F.col("first_amount")).alias("repeat_spend"),
        "later_purchases",
        "later_spend",
    )


def _cell(name: str, grid: float | None) -> Column:
    return F.col(name) if grid is None else F.ceil(F.col(name) / grid).cast("double")


def _money_cell(spend: Column) -> Column:
    """Cells half a percent wide; spend that is not positive has one of its own, to be refused."""
    return F.when(spend > 0, F.round(F.log(spend) * _SPEND_STEPS)).when(
        spend <= 0, F.lit(_NOT_POSITIVE)
    )


def _check_complete(rows: DataFrame, names: Sequence[str]) -> None:
    """No value lacks in the first columns, which are called `names` in the source."""
    kinds_ = dict(rows.dtypes)
    counts = [F.count(F.lit(1)).alias("(rows)")]
    for column in rows.columns[: len(names)]:
        is_missing = F.col(column).isNull()
        if kinds_[column] == "double":
            is_missing = is_missing | F.isnan(column) | (F.abs(column) == float("inf"))
        counts.append(F.count_if(is_missing).alias(column))
    found = collect_bounded(rows.agg(*counts), max_rows=1, what="a count").iloc[0]
    if not found["(rows)"]:
        raise DataError("the source has no rows after the filters")
    for column, name in zip(rows.columns, names, strict=False):
        if found[column]:
            raise DataError(
                f"{name} is missing or infinite: repair these rows, or leave them out with where",
                given=f"{found[column]:,} of {found['(rows)']:,} rows",
            )


def purchases_by_step(log: Log, customers: DataFrame, *, start: float, step: float) -> DataFrame:
    """Repeat purchases in steps of calendar time: `step` (from 0) and `n`.

    Args:
        log: The purchases.
        customers: Rows of `histories`, whose purchases count; where there are no births, their
            first ones do not.
        start: Where the first step starts, days since 1970.
        step: Length of a step in days.
    """

    def number(at: str) -> Column:
        return F.floor((F.col(at) - start) / step).cast("int").alias("step")

    own = log.rows.join(customers.select("unit"), on="unit", how="left_semi")
    rows = own.select(number("at"), F.lit(1).alias("n"))
    if log.births is None:
        rows = rows.unionByName(customers.select(number("born"), F.lit(-1).alias("n")))
    return rows.groupBy("step").agg(F.sum("n").alias("n"))


def early_features(log: Log, *, feature_days: int, target_days: int, until: dt.date) -> DataFrame:
    """One row per unit with what it did in its first days, and what it spent in those after.

    Args:
        log: The purchases, with births.
        feature_days: First days, of which the features are.
        target_days: Days after these, whose spend is the target.
        until: First day that was not seen.

    Returns:
        `unit`; `recency_7`, days from the birth to the last purchase of the first days (0 without
        one), `frequency_7`, how many, and `monetary_7`, their amount (named by `feature_days`);
        `target`, null where its days are not over; `is_seen`, whether the first days are.
    """
    end = float((until - _EPOCH).days)
    births = log.births
    if births is None:
        raise DataError("early features need the day since which each unit is watched")
    last_day = float(feature_days + target_days)
    age = F.col("at") - F.col("born")
    is_early = age < float(feature_days)
    is_late = ~is_early & (age < last_day)
    sums = (
        births.join(log.rows, on="unit", how="left")
        .groupBy("unit", "born")
        .agg(
            F.coalesce(F.max(F.when(is_early, age)), F.lit(0.0)).alias(f"recency_{feature_days}"),
            F.count_if(is_early).cast("double").alias(f"frequency_{feature_days}"),
            _total(is_early).alias(f"monetary_{feature_days}"),
            _total(is_late).alias("target"),
        )
    )
    is_over = F.col("born") + last_day <= end
    return sums.select(
        *[name for name in sums.columns if name not in {"born", "target"}],
        F.when(is_over, F.col("target")).alias("target"),
        (F.col("born") + float(feature_days) <= end).alias("is_seen"),
    )


def _total(condition: Column) -> Column:
    """Sum of amounts, rounded to millionths so that the order of rows does not show."""
    return F.coalesce(F.round(F.sum(F.when(condition, F.col("amount"))), 6), F.lit(0.0))
