"""Cohorts of units: signup week, first exposure, first treated period."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession

from transforms.cohorts import cohorts
from transforms.columns import DRIVER_WORLD
from transforms.tables import table

PANEL_STARTS_ON = dt.date(2026, 1, 5)


def rows(spark: SparkSession, name: str, values: Sequence[tuple[Any, ...]]) -> DataFrame:
    return spark.createDataFrame(list(values), table(name).schema)


def exposure(experiment: str, unit: int, moment: dt.datetime | None) -> tuple[Any, ...]:
    n_events = int(moment is not None)
    variant = None if moment is None else "surge"
    counts = (1, 0, 1 - n_events, n_events, 0, n_events)
    return (experiment, unit, variant, "surge", moment, *counts, True, False)


def test_every_unit_has_its_cohorts(spark: SparkSession) -> None:
    population = rows(
        spark,
        "drivers",
        [
            (1, "Lyon", "suv", dt.date(2025, 12, 31), None),
            (2, "Lyon", "suv", dt.date(2026, 1, 4), dt.date(2026, 2, 1)),
            (3, "Oslo", "bike", dt.date(2026, 1, 5), None),
            (4, "Rome", "bike", dt.date(2025, 1, 6), None),
        ],
    )
    rollout = rows(spark, "driver_rollout", [("Lyon", "FR", 3), ("Oslo", "NO", None)])
    late_evening = dt.datetime(2026, 2, 8, 23, 59, 59, tzinfo=dt.UTC)
    exposures = rows(
        spark,
        "driver_first_exposures",
        [
            exposure("one", 1, late_evening),
            exposure("two", 1, late_evening + dt.timedelta(days=9)),
            exposure("one", 2, None),
        ],
    )
    found = population.transform(
        cohorts(
            world=DRIVER_WORLD,
            exposures=exposures,
            rollout=rollout,
            panel_starts_on=PANEL_STARTS_ON,
        )
    )
    expected = rows(
        spark,
        "driver_cohorts",
        [
            (1, "Lyon", dt.date(2025, 12, 29), dt.date(2026, 2, 8), dt.date(2026, 2, 2), 3, True),
            (2, "Lyon", dt.date(2025, 12, 29), None, None, 3, True),
            (3, "Oslo", dt.date(2026, 1, 5), None, None, None, False),
            (4, "Rome", dt.date(2025, 1, 6), None, None, None, True),
        ],
    )

    assert_df_equality(
        found, expected, ignore_row_order=True, ignore_nullable=True, ignore_metadata=True
    )
