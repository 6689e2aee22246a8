"""Each fault of the shop's records raises the warning of its name, and no other."""

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
from pyspark.sql import DataFrame, SparkSession

from causal.core.errors import SpecError
from causal.core.spec import validate
from jobs.generate import JOB, GenerateConfig, checkout_plan
from transforms.checkout_checks import CHECKOUT_CHECKS
from transforms.sql_checks import SqlCheck, run_checks
from transforms.synthetic.checkout.faults import RECORD_FAULTS, with_faults
from transforms.synthetic.checkout.parameters import CheckoutFault
from transforms.synthetic.checkout.records import records as records_of
from transforms.synthetic.checkout.tables import RECORD_TABLES, TRIALS
from transforms.synthetic.checkout.visitors import population
from transforms.synthetic.checkout.visits import sessions
from transforms.synthetic.checkout.world import conformed, trial_rows
from transforms.tables import table

pytestmark = pytest.mark.usefixtures("many_small_queries")

NAMES = [declared.name for declared in (*RECORD_TABLES, TRIALS)]
FAULTS = [fault for fault in get_args(CheckoutFault) if fault != "novelty"]
USUAL = (
    "sample_ratio_mismatch",
    "segment_imbalance",
    "null_user_id",
    "duplicate_orders",
    "latency_in_seconds",
    "late_events",
)
"""A fault of every table and one of the world itself; `make validate` runs the others too."""
EVERY = [
    pytest.param(fault, marks=() if fault in USUAL else (pytest.mark.validation,))
    for fault in FAULTS
]


def _config(*faults: str) -> GenerateConfig:
    assert JOB.defaults is not None
    given = {"world": "checkout", "size": 6_000, "seed": 7, "faults": list(faults)}
    return validate(GenerateConfig, {**JOB.defaults({}), **given})


def _records(spark: SparkSession, folder: Path, *faults: str) -> dict[str, DataFrame]:
    """The records of a world; what happens in sessions is drawn once, into a file."""
    config = _config(*faults)
    plan = checkout_plan(config)
    trials = spark.createDataFrame(trial_rows(plan), TRIALS.schema)
    people = population(spark.range(config.size), plan)
    sessions(people, plan).coalesce(1).write.parquet(str(folder / "drawn"))
    rows = spark.read.parquet(str(folder / "drawn"))
    return dict(conformed(records_of(people, rows, plan, trials=trials)))


def _affected(records: Mapping[str, DataFrame], frames: Mapping[str, DataFrame]) -> list[SqlCheck]:
    """The checks that read a table which is another one now.

    The others would read the very frames in which `test_sound_records_raise_no_warning` has them
    find nothing.
    """
    changed = {name for name in frames if frames[name] is not records[name]}
    return [
        check for check in CHECKOUT_CHECKS if changed & set(re.findall(r"checkout_\w+", check.sql))
    ]


@pytest.fixture(scope="module")
def records(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, DataFrame]:
    """The records of a world without faults, from files."""
    folder = tmp_path_factory.mktemp("records")
    for name, frame in _records(spark, folder).items():
        frame.coalesce(1).write.parquet(str(folder / name))
    return {name: spark.read.parquet(str(folder / name)) for name in NAMES}


def test_there_are_twenty_faults_and_a_check_for_each() -> None:
    assert len(FAULTS) >= 20
    assert set(USUAL) < set(FAULTS)
    assert sorted(check.name for check in CHECKOUT_CHECKS) == sorted(FAULTS)


def test_sound_records_raise_no_warning(records: Mapping[str, DataFrame]) -> None:
    assert run_checks(CHECKOUT_CHECKS, records) == ()


@pytest.mark.parametrize("fault", EVERY)
def test_a_fault_raises_its_own_warning_alone(
    fault: CheckoutFault, spark: SparkSession, records: Mapping[str, DataFrame], tmp_path: Path
) -> None:
    if fault in RECORD_FAULTS:
        frames = with_faults(records, checkout_plan(_config(fault)))
    else:
        frames = _records(spark, tmp_path, fault)
    (warning,) = run_checks(_affected(records, frames), frames)

    assert warning.name == fault
    assert warning.n_violations >= len(warning.examples) >= 1
    assert str(warning).startswith(f"{fault}: ")


def test_no_data_are_stale(spark: SparkSession) -> None:
    trial = ("t", "p", "s", dt.date(2026, 2, 2), dt.date(2026, 3, 1), dt.date(2026, 1, 5), "a")
    frames = {
        declared.name: spark.createDataFrame([], declared.schema) for declared in RECORD_TABLES
    }
    frames[TRIALS.name] = spark.createDataFrame(
        [(*trial, ["a", "b"], [0.5, 0.5])], table(TRIALS.name).schema
    )
    warnings = run_checks(CHECKOUT_CHECKS, frames)

    assert [warning.name for warning in warnings] == ["stale_data"]


def test_freshness_is_counted_to_the_date_of_the_run(records: Mapping[str, DataFrame]) -> None:
    (stale,) = [check for check in CHECKOUT_CHECKS if check.name == "stale_data"]
    until = records["checkout_sessions"].where("started_at < '2026-02-10'")
    frames = {**records, "checkout_sessions": until}

    assert run_checks([stale], frames, as_of=dt.date(2026, 2, 10)) == ()
    (warning,) = run_checks([stale], frames, as_of=dt.date(2026, 2, 11))
    assert "newest_on 2026-02-09" in warning.examples[0]
    assert run_checks([stale], frames) != ()


def test_checks_need_names_and_tables(records: Mapping[str, DataFrame]) -> None:
    check = SqlCheck(name="any", warning="something", sql="SELECT 1 AS one")
    with pytest.raises(SpecError, match="two quality checks have one name"):
        run_checks([check, check], records)
    with pytest.raises(SpecError, match="need the tables"):
        run_checks([check], {})


def test_views_are_gone_afterwards(spark: SparkSession, records: Mapping[str, DataFrame]) -> None:
    run_checks(CHECKOUT_CHECKS[-1:], records)

    assert not spark.catalog.tableExists("checkout_orders")
