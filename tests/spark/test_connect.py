"""The jobs run under Spark Connect, are killed there and leave what a classic session makes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from causal.core import plan, registry
from causal.core.result import EFFECT_COLUMNS
from jobs.runtime import analyses, places
from jobs.runtime.catalogue import find_job
from jobs.runtime.cli import configured
from jobs.runtime.contract import TableJob
from jobs.runtime.lakehouse import Lakehouse
from jobs.runtime.settings import load_settings
from transforms.gram import SparkEngine

ROOT = Path(__file__).parents[2]
WORLD = {"world": "drivers"}
GENERATE = {**WORLD, "size": 5000}
PREPARATION = ("exposure", "cohorts", "covariates", "choices", "panels")
SPECS = [
    places.conf("analyses", f"{name}.yaml")
    for name in ("payout_scheme", "weekly_quests_twfe", "flat_bonus_choice_weighting")
]
COMPARED = ("drivers", "driver_days", "driver_experiment_units", "driver_choices", "driver_weeks")
# The jobs run twice in processes of their own, beside whatever else the machine does.
pytestmark = pytest.mark.timeout(1800)
SMALL_QUERIES = """
spark.sql.adaptive.enabled false
spark.sql.codegen.wholeStage false
spark.sql.codegen.factoryMode NO_CODEGEN
"""
RUN_ALL = """
import sys
from jobs.runtime.cli import main
from pyspark.sql import SparkSession
warehouse, *specs = sys.argv[1:]
commands = [
    ["generate", "--world", "drivers", "--size", "5000"],
    ["exposure", "--world", "drivers"], ["cohorts", "--world", "drivers"],
    ["covariates", "--world", "drivers"], ["choices", "--world", "drivers"],
    ["panels", "--world", "drivers"],
    ["gram", "--specs", *specs],
    ["analyze", "--spec", *specs],
]
for command in commands:
    code = main([*command, "--warehouse", warehouse])
    if code not in (0, 4):
        sys.exit(f"{command[0]} ended with {code}")
kind = type(SparkSession.getActiveSession())
assert ".connect." in kind.__module__, kind
"""


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse that jobs filled through Spark Connect, killed once on the way."""
    warehouse = tmp_path_factory.mktemp("connect")
    killed = _start(warehouse)
    _wait_for(warehouse / "causalake" / "driver_days" / "_delta_log", killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    done = _start(warehouse)
    shown, _ = done.communicate(timeout=1700)
    assert done.returncode == 0, shown[-3000:]
    return warehouse


def _start(warehouse: Path) -> subprocess.Popen[str]:
    """All jobs in a process of their own, the head of its group."""
    (warehouse / "spark-defaults.conf").write_text(SMALL_QUERIES, encoding="utf-8")
    remote = {"SPARK_REMOTE": "local[2]", "SPARK_CONF_DIR": str(warehouse)}
    return subprocess.Popen(
        [sys.executable, "-c", RUN_ALL, str(warehouse), *map(str, SPECS)],
        env={**os.environ, **remote, "PYTHONPATH": str(ROOT)},
        cwd=warehouse,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 900
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def classic(spark: SparkSession) -> Mapping[str, DataFrame]:
    """The tables as the jobs' `build` makes them in a classic session, nothing written."""
    job = find_job("generate")
    config = configured(job, GENERATE)
    assert isinstance(job, TableJob)
    assert job.sources is not None
    tables = dict(job.build(config, job.sources(spark, config)))
    for name in PREPARATION:
        step = find_job(name)
        assert isinstance(step, TableJob)
        options = configured(step, WORLD)
        tables |= step.build(options, {table: tables[table] for table in step.reads(options)})
    return tables


@pytest.fixture(scope="module")
def tables(spark: SparkSession, connected: Path) -> Lakehouse:
    return Lakehouse(session=spark, settings=load_settings(warehouse=str(connected)))


def content(df: DataFrame) -> tuple[int, str]:
    """Number of rows and a hash over all of them, in any order."""
    hashed = F.xxhash64(*[F.col(f"`{name}`") for name in sorted(df.columns)])
    row = df.agg(F.count(F.lit(1)), F.sum(hashed.cast("decimal(38,0)"))).first()
    assert row is not None
    return int(row[0]), str(row[1])


@pytest.mark.parametrize("name", COMPARED)
def test_tables_are_those_of_a_classic_session(
    tables: Lakehouse, classic: Mapping[str, DataFrame], name: str
) -> None:
    found = content(tables.read(name))

    assert found[0] > 0
    assert found == content(classic[name])


def test_effects_are_those_of_a_classic_session(
    tables: Lakehouse, classic: Mapping[str, DataFrame]
) -> None:
    stored = tables.read("effects").toPandas()
    for path in SPECS:
        spec = analyses.load(path).spec
        rows = classic[str(spec.source.table).split(".")[-1]].cache()
        result = plan.run(registry.method(spec.method).estimate(spec), SparkEngine(rows))
        found = stored[stored["analysis"] == spec.name][list(EFFECT_COLUMNS)]
        by = ["metric", "term", "scale", "estimator"]
        left, right = (
            frame.astype(object).where(frame.notna(), np.nan).sort_values(by, ignore_index=True)
            for frame in (found, result.to_frame())
        )
        assert len(left) > 0
        pd.testing.assert_frame_equal(
            left, right, check_dtype=False, check_exact=False, rtol=1e-9, atol=1e-9
        )
