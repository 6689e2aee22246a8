"""Dense panels: absent is zero, the churned stay, nothing is lost."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest
from chispa import assert_df_equality
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from transforms.columns import DRIVER_WORLD
from transforms.panels import place_weeks, weeks, within_panel
from transforms.quality import evaluate
from transforms.tables import table

START = dt.date(2026, 1, 5)
N_WEEKS = 3
SIGNUP = dt.date(2025, 6, 1)
POPULATION = [
    (1, "Lyon", "suv", SIGNUP, None),
    (2, "Oslo", "suv", SIGNUP, START + dt.timedelta(days=8)),
    (3, "Oslo", "bike", SIGNUP, None),
    (4, "Oslo", "bike", START, None),
]
ROLLOUT = [("Lyon", "FR", 1), ("Oslo", "NO", None)]


def rows(spark: SparkSession, name: str, values: Sequence[tuple[Any, ...]]) -> DataFrame:
    return spark.createDataFrame(list(values), table(name).schema)


def day(unit: int, number: int, hours: float = 1.0) -> tuple[Any, ...]:
    return (unit, START + dt.timedelta(days=number), hours, 2, 10.05, 1.01)


def panel(spark: SparkSession, days: Sequence[tuple[Any, ...]]) -> DataFrame:
    return rows(spark, "driver_days", days).transform(
        weeks(
            world=DRIVER_WORLD,
            population=rows(spark, "drivers", POPULATION),
            rollout=rows(spark, "driver_rollout", ROLLOUT),
            starts_on=START,
            n_weeks=N_WEEKS,
        )
    )


def test_every_unit_has_every_week(spark: SparkSession) -> None:
    found = panel(spark, [day(1, 0), day(1, 6, 2.5), day(1, 7), day(2, 20), day(4, 3)])
    nothing = (0.0, 0, 0.0, 0.0, 0)
    one = (1.0, 2, 10.05, 1.01, 1)
    expected = rows(
        spark,
        "driver_weeks",
        [
            (1, 0, "Lyon", 1, 3.5, 4, 20.1, 2.02, 2),
            (1, 1, "Lyon", 1, *one),
            (1, 2, "Lyon", 1, *nothing),
            (2, 0, "Oslo", None, *nothing),
            (2, 1, "Oslo", None, *nothing),
            (2, 2, "Oslo", None, *one),
            (3, 0, "Oslo", None, *nothing),
            (3, 1, "Oslo", None, *nothing),
            (3, 2, "Oslo", None, *nothing),
        ],
    )

    assert_df_equality(
        found, expected, ignore_row_order=True, ignore_nullable=True, ignore_metadata=True
    )


def test_places_are_summed_and_counted(spark: SparkSession) -> None:
    found = panel(spark, [day(2, 0), day(3, 1), day(3, 2), day(1, 14)]).transform(
        place_weeks(world=DRIVER_WORLD)
    )
    nothing = (0.0, 0, 0.0, 0.0, 0)
    expected = rows(
        spark,
        "driver_city_weeks",
        [
            ("Lyon", 0, 1, 1, 0, *nothing),
            ("Lyon", 1, 1, 1, 0, *nothing),
            ("Lyon", 2, 1, 1, 1, 1.0, 2, 10.05, 1.01, 1),
            ("Oslo", 0, None, 2, 2, 3.0, 6, 30.15, 3.03, 3),
            ("Oslo", 1, None, 2, 0, *nothing),
            ("Oslo", 2, None, 2, 0, *nothing),
        ],
    )

    assert_df_equality(
        found, expected, ignore_row_order=True, ignore_nullable=True, ignore_metadata=True
    )


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    days=st.dictionaries(
        st.tuples(st.sampled_from([1, 2, 3]), st.integers(0, 7 * N_WEEKS - 1)),
        st.integers(1, 96),
        max_size=30,
    )
)
def test_nothing_is_lost(spark: SparkSession, days: dict[tuple[int, int], int]) -> None:
    found = panel(spark, [day(*key, quarters / 4) for key, quarters in days.items()])
    (totals,) = found.agg(
        F.count(F.lit(1)).alias("n_rows"),
        F.sum("hours").alias("hours"),
        F.sum("active_days").alias("active_days"),
    ).collect()

    assert totals.n_rows == 3 * N_WEEKS
    assert totals.hours == sum(days.values()) / 4
    assert totals.active_days == len(days)


@pytest.mark.parametrize(("number", "n_violations"), [(-1, 1), (0, 0), (20, 0), (21, 1)])
def test_activity_outside_the_panel_is_a_violation(
    spark: SparkSession, number: int, n_violations: int
) -> None:
    rule = within_panel(starts_on=START, n_weeks=N_WEEKS)
    violations = evaluate(rows(spark, "driver_days", [day(1, number)]), [rule])

    assert sum(violation.n_violations for violation in violations) == n_violations
