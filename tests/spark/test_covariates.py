"""Experiment units: zeros for the inactive, sums by window, means by cluster."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession

from transforms.columns import DRIVER_WORLD, SUBSCRIBER_WORLD
from transforms.covariates import experiment_units
from transforms.tables import table

START = dt.date(2026, 2, 2)
END = dt.date(2026, 3, 1)
PRE_START = dt.date(2026, 1, 5)
SIGNUP = dt.date(2025, 2, 2)
MOMENT = dt.datetime(2026, 2, 2, tzinfo=dt.UTC)


def rows(spark: SparkSession, name: str, values: Sequence[tuple[Any, ...]]) -> DataFrame:
    return spark.createDataFrame(list(values), table(name).schema)


def trial(name: str, start: dt.date = START, end: dt.date = END) -> tuple[Any, ...]:
    what = (name, "perk", "clustered", "household_id", "salt")
    return (*what, start, end, PRE_START, 14, "control", ["control", "treatment"], [0.5, 0.5])


TRIALS = (trial("perk"),)


def subscriber(unit: int, *, churned_on: dt.date | None = None) -> tuple[Any, ...]:
    return (unit, unit, "FR", "FR-01", "basic", "search", SIGNUP, 9.99, churned_on)


def assigned(trial_name: str, unit: int, *, cluster: int | None = None) -> tuple[Any, ...]:
    return (trial_name, unit, "treatment", "all", cluster or unit, MOMENT)


def exposed(trial_name: str, unit: int, *, is_in_window: bool) -> tuple[Any, ...]:
    arm = "treatment"
    return (trial_name, unit, arm, arm, MOMENT, 1, 0, 0, 1, 0, 1, is_in_window, False)


def units_of(
    spark: SparkSession,
    *,
    population: Sequence[tuple[Any, ...]],
    **tables: Sequence[tuple[Any, ...]],
) -> DataFrame:
    given = {"days": (), "trials": TRIALS, "first_exposures": (), "uptakes": (), **tables}
    frames = {name: rows(spark, f"subscriber_{name}", values) for name, values in given.items()}
    return frames["days"].transform(
        experiment_units(
            world=SUBSCRIBER_WORLD,
            population=rows(spark, "subscribers", population),
            assignments=frames["assignments"],
            trials=frames["trials"],
            exposures=frames["first_exposures"],
            uptakes=frames["uptakes"],
        )
    )


def test_every_enrolled_unit_has_a_row_with_its_sums(spark: SparkSession) -> None:
    found = units_of(
        spark,
        population=[subscriber(1), subscriber(2, churned_on=END), subscriber(3)],
        days=[
            (1, PRE_START, 30, 2, 0.1),
            (1, START - dt.timedelta(days=1), 10, 1, 0.2),
            (1, START, 5, 1, 9.99),
            (1, END, 0, 0, 0.01),
            (1, END + dt.timedelta(days=1), 100, 1, 5.0),
            (1, PRE_START - dt.timedelta(days=1), 100, 1, 5.0),
            (3, START, 100, 1, 5.0),
        ],
        assignments=[assigned("perk", 1, cluster=7), assigned("perk", 2, cluster=7)],
        first_exposures=[
            exposed("perk", 1, is_in_window=True),
            exposed("perk", 2, is_in_window=False),
        ],
        uptakes=[("perk", 1, MOMENT)],
    )
    place = ("FR-01", "FR", "basic", "search", 365)
    means = (20.0, 1.5, 0.15, 1.0)
    head = ("treatment", "all", 7, *place)
    expected = rows(
        spark,
        "subscriber_experiment_units",
        [
            ("perk", 1, *head, True, True, 40, 3, 0.3, 2, *means, 5, 1, 10.0, 1, True),
            ("perk", 2, *head, False, False, 0, 0, 0.0, 0, *means, 0, 0, 0.0, 0, False),
        ],
    )

    assert_df_equality(
        found, expected, ignore_row_order=True, ignore_nullable=True, ignore_metadata=True
    )


@pytest.mark.parametrize(
    ("churned_on", "is_retained"),
    [(None, True), (END + dt.timedelta(days=1), True), (END, False), (START, False)],
)
def test_retained_means_there_on_the_last_day(
    spark: SparkSession, churned_on: dt.date | None, *, is_retained: bool
) -> None:
    found = units_of(
        spark,
        population=[subscriber(1, churned_on=churned_on)],
        assignments=[assigned("perk", 1)],
    )

    assert [row.is_retained for row in found.collect()] == [is_retained]


def test_uptake_after_the_end_does_not_count(spark: SparkSession) -> None:
    last = dt.datetime(2026, 3, 1, 23, 59, 59, tzinfo=dt.UTC)
    found = units_of(
        spark,
        population=[subscriber(1), subscriber(2)],
        assignments=[assigned("perk", 1), assigned("perk", 2)],
        uptakes=[("perk", 1, last), ("perk", 2, last + dt.timedelta(seconds=1))],
    )

    assert {row.unit_id: row.is_uptake for row in found.collect()} == {1: True, 2: False}


def test_experiments_with_dates_of_their_own_get_their_own_sums(spark: SparkSession) -> None:
    days = [(1, PRE_START + dt.timedelta(days=day), 1 + day, 1, 0.5) for day in range(56)]
    middle = dt.date(2026, 1, 19)
    found = units_of(
        spark,
        population=[subscriber(1)],
        days=days,
        assignments=[assigned(name, 1) for name in ("full", "early", "same")],
        trials=[trial("full"), trial("early", middle, START), trial("same")],
    )
    sums = {
        row.experiment: (row.pre_minutes, row.minutes, row.active_days) for row in found.collect()
    }

    assert sums["full"] == (sum(range(1, 29)), sum(range(29, 57)), 28)
    assert sums["early"] == (sum(range(1, 15)), sum(range(15, 30)), 15)
    assert sums["same"] == sums["full"]


@pytest.mark.parametrize("n_partitions", [1, 5])
def test_sums_equal_pandas_and_ignore_the_partitions(
    spark: SparkSession, n_partitions: int
) -> None:
    frame = pd.DataFrame(
        [
            (
                unit,
                PRE_START + dt.timedelta(days=day),
                (unit * day) % 90,
                1,
                (unit * day % 997) / 100,
            )
            for unit in range(1, 40)
            for day in range(56)
            if (unit * 7 + day) % 3
        ],
        columns=["subscriber_id", "activity_on", "minutes", "sessions", "revenue"],
    )
    days = spark.createDataFrame(frame, table("subscriber_days").schema).repartition(n_partitions)
    units = range(1, 40)
    found = days.transform(
        experiment_units(
            world=SUBSCRIBER_WORLD,
            population=rows(spark, "subscribers", [subscriber(unit) for unit in units]),
            assignments=rows(
                spark,
                "subscriber_assignments",
                [assigned("perk", unit, cluster=unit // 3) for unit in units if unit % 3],
            ),
            trials=rows(spark, "subscriber_trials", [trial("perk")]),
            exposures=rows(spark, "subscriber_first_exposures", []),
            uptakes=rows(spark, "subscriber_uptakes", []),
        )
    ).toPandas()
    after = frame[frame.activity_on >= START].groupby("subscriber_id")
    before = frame[frame.activity_on < START].groupby("subscriber_id")
    found = found.set_index("unit_id").sort_index()

    revenue = after.revenue.sum().round(2).loc[found.index]
    pd.testing.assert_series_equal(found.revenue, revenue, check_names=False, check_exact=True)
    pd.testing.assert_series_equal(
        found.pre_minutes, before.minutes.sum().loc[found.index], check_names=False
    )
    means = found.groupby("cluster_id").pre_revenue.transform("sum").round(2)
    sizes = found.groupby("cluster_id").pre_revenue.transform("size")
    pd.testing.assert_series_equal(
        found.cluster_pre_revenue, means / sizes, check_names=False, check_exact=True
    )


def test_a_world_without_uptakes_has_no_column_for_them(spark: SparkSession) -> None:
    found = rows(spark, "driver_days", [(1, START, 7.25, 9, 80.5, 6.0)]).transform(
        experiment_units(
            world=DRIVER_WORLD,
            population=rows(spark, "drivers", [(1, "Lyon", "suv", SIGNUP, None)]),
            assignments=rows(spark, "driver_assignments", [assigned("payout", 1)]),
            trials=rows(spark, "driver_trials", [trial("payout")]),
            exposures=rows(spark, "driver_first_exposures", []),
            uptakes=None,
        )
    )

    assert tuple(found.columns) == table("driver_experiment_units").columns
    (row,) = found.collect()
    assert (row.hours, row.trips, row.earnings, row.payouts) == (7.25, 9, 80.5, 6.0)
    assert (row.active_days, row.pre_active_days) == (1, 0)
