"""First exposures: de-duplication, late rows, attribution windows; every row is counted."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest
from chispa import assert_df_equality
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from transforms.columns import SUBSCRIBER_WORLD
from transforms.exposure import LateRows, first_exposures
from transforms.tables import table

START = dt.datetime(2026, 2, 2, tzinfo=dt.UTC)
WINDOW_DAYS = 14
HOUR = dt.timedelta(hours=1)
few = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rows(spark: SparkSession, name: str, values: Sequence[tuple[Any, ...]]) -> DataFrame:
    return spark.createDataFrame(list(values), table(name).schema)


def trials(spark: SparkSession) -> DataFrame:
    start = START.date()
    definition = (
        "perk", "perk", "randomised", "subscriber_id", "salt", start, dt.date(2026, 3, 1),
        dt.date(2026, 1, 5), WINDOW_DAYS, "control", ["control", "treatment"], [0.5, 0.5],
    )  # fmt: skip
    return rows(spark, "subscriber_trials", [definition])


def assignments(spark: SparkSession, units: Sequence[int]) -> DataFrame:
    values = [("perk", unit, "treatment", "all", unit, START) for unit in units]
    return rows(spark, "subscriber_assignments", values)


def event(
    name: str,
    unit: int,
    hours: float,
    *,
    delay: float = 0.0,
    variant: str = "treatment",
) -> tuple[Any, ...]:
    exposed_at = START + hours * HOUR
    return (name, "perk", unit, variant, exposed_at, exposed_at + delay * HOUR)


def exposures(
    spark: SparkSession,
    log: Sequence[tuple[Any, ...]],
    *,
    units: Sequence[int] = (1, 2),
    late_rows: LateRows = "drop",
) -> DataFrame:
    return rows(spark, "subscriber_exposure_log", log).transform(
        first_exposures(
            world=SUBSCRIBER_WORLD,
            assignments=assignments(spark, units),
            trials=trials(spark),
            late_after_hours=48,
            late_rows=late_rows,
        )
    )


def test_the_first_event_counts_once(spark: SparkSession) -> None:
    log = [
        event("a", 1, 5),
        event("a", 1, 5, delay=1),
        event("b", 1, 2),
        event("c", 2, 30),
    ]
    expected = rows(
        spark,
        "subscriber_first_exposures",
        [
            ("perk", 1, "treatment", "treatment", START + 2 * HOUR, 3, 1, 0, 2, 0, 1, True, False),
            ("perk", 2, "treatment", "treatment", START + 30 * HOUR, 1, 0, 0, 1, 0, 1, True, False),
        ],
    )

    assert_df_equality(
        exposures(spark, log),
        expected,
        ignore_row_order=True,
        ignore_nullable=True,
        ignore_metadata=True,
    )


def test_a_late_event_is_counted_and_dropped(spark: SparkSession) -> None:
    log = [event("a", 1, 1, delay=49), event("b", 1, 3, delay=48)]
    (row,) = exposures(spark, log).collect()

    assert (row.n_rows, row.n_late, row.n_events) == (2, 1, 1)
    assert row.first_exposed_at == exposures(spark, log[1:]).collect()[0].first_exposed_at


def test_a_late_event_is_counted_and_kept_on_request(spark: SparkSession) -> None:
    log = [event("a", 1, 1, delay=49), event("b", 1, 3)]
    (row,) = exposures(spark, log, late_rows="keep").collect()

    assert (row.n_rows, row.n_late, row.n_events) == (2, 1, 2)
    assert (
        row.first_exposed_at == exposures(spark, [event("a", 1, 1)]).collect()[0].first_exposed_at
    )


def test_a_unit_with_only_late_events_keeps_its_row(spark: SparkSession) -> None:
    (row,) = exposures(spark, [event("a", 1, 1, delay=100)]).collect()

    assert (row.n_rows, row.n_late, row.n_events, row.n_variants) == (1, 1, 0, 0)
    assert row.first_exposed_at is None
    assert row.variant is None
    assert row.is_in_window is False
    assert row.is_crossover is False


def test_an_unassigned_unit_keeps_its_row(spark: SparkSession) -> None:
    (row,) = exposures(spark, [event("a", 99, 1)]).collect()

    assert row.assigned_variant is None
    assert row.variant == "treatment"
    assert (row.n_events, row.n_outside_window, row.is_in_window) == (1, 1, False)


@pytest.mark.parametrize(
    ("hours", "is_in_window"),
    [(-1, False), (0, True), (24 * WINDOW_DAYS - 1, True), (24 * WINDOW_DAYS, False)],
)
def test_the_window_is_closed_at_its_start_and_open_at_its_end(
    spark: SparkSession, hours: float, *, is_in_window: bool
) -> None:
    (row,) = exposures(spark, [event("a", 1, hours)]).collect()

    assert row.is_in_window is is_in_window
    assert row.n_outside_window == int(not is_in_window)


def test_seeing_another_variant_is_a_crossover(spark: SparkSession) -> None:
    both = [event("a", 1, 1), event("b", 1, 2, variant="control")]
    other = [event("c", 2, 1, variant="control")]
    found = {row.unit_id: row for row in exposures(spark, both + other).collect()}

    assert (found[1].n_variants, found[1].is_crossover, found[1].variant) == (2, True, "treatment")
    assert (found[2].n_variants, found[2].is_crossover) == (1, True)


@few
@given(
    log=st.lists(
        st.builds(
            event,
            st.sampled_from("abcdefgh"),
            st.integers(1, 4),
            st.integers(-48, 24 * 20),
            delay=st.integers(0, 100),
            variant=st.sampled_from(["control", "treatment"]),
        ),
        min_size=1,
        max_size=30,
    ),
    late_rows=st.sampled_from(["drop", "keep"]),
)
def test_every_row_of_the_log_is_accounted_for(
    spark: SparkSession, log: list[tuple[Any, ...]], late_rows: LateRows
) -> None:
    found = exposures(spark, log, units=(1, 2, 3), late_rows=late_rows).collect()
    n_dropped = sum(row.n_late for row in found) if late_rows == "drop" else 0

    assert {row.unit_id for row in found} == {row[2] for row in log}
    assert sum(row.n_rows for row in found) == len(log)
    assert sum(row.n_events + row.n_duplicates for row in found) + n_dropped == len(log)
    for row in found:
        times = {entry[4] for entry in log if entry[2] == row.unit_id}
        assert row.n_outside_window <= row.n_events <= len({(e[0], e[2]) for e in log})
        assert (row.first_exposed_at is None) == (row.n_events == 0)
        assert row.first_exposed_at is None or row.first_exposed_at.astimezone(dt.UTC) in times
