"""A job killed and run again leaves the tables of one that was not; signals close what is open."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.runtime.lakehouse import Lakehouse
from jobs.runtime.settings import load_settings
from jobs.runtime.tracking import Tracking
from tests.e2e.conftest import QUICK, start, submit
from transforms.tables import TABLES


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def hashes(frames: Mapping[str, DataFrame]) -> dict[str, tuple[int, int]]:
    """Rows and an order-free hash of the content of every table."""
    found = {}
    for name, frame in frames.items():
        total = F.sum(F.xxhash64(*frame.columns).cast("decimal(38,0)")).alias("hash")
        row = frame.agg(F.count("*").alias("n"), total).collect()[0]
        found[name] = (int(row["n"]), int(row["hash"]))
    return found


FIRST_TABLES = (
    *("subscriber_days", "driver_days", "subscriber_first_exposures", "driver_cohorts"),
    *("subscriber_experiment_units", "driver_weeks", "subscriber_region_weeks", "gram", "effects"),
)
PIPELINE = ("pipeline", "--size", "2000")


@pytest.mark.validation
@pytest.mark.timeout(3600)
def test_every_job_killed_and_run_again(spark: SparkSession, tmp_path: Path) -> None:
    """Killed when a table's log appears and again within seconds of its first commit."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for name in FIRST_TABLES:
        log = killed / "causalake" / name / "_delta_log"
        for path in (log, log / f"{1:020d}.json"):
            process = start(*QUICK, *PIPELINE, "--warehouse", str(killed))
            wait_for(path, process)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for warehouse in (killed, whole):
        done = submit(*QUICK, *PIPELINE, "--warehouse", str(warehouse))
        assert done.returncode == 0, done.stderr
    assert contents(spark, killed) == contents(spark, whole)


def contents(spark: SparkSession, warehouse: Path) -> dict[str, tuple[int, int]]:
    """Hashes of all tables but of `runs`, which holds the times of every attempt."""
    lakehouse = Lakehouse(session=spark, settings=load_settings(warehouse=str(warehouse)))
    return hashes({name: lakehouse.read(name) for name in TABLES if name != "runs"})


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_closes_the_run(tmp_path: Path, signum: int, code: int) -> None:
    process = start(
        *QUICK, "pipeline", "--only", "generate", "--size", "1000", "--warehouse", str(tmp_path)
    )
    wait_for(tmp_path / ".locks" / "causalake.job-generate.lock", process)
    begun = time.monotonic()
    os.kill(process.pid, signum)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == code, shown
    assert time.monotonic() - begun < 12
    assert "Traceback" not in shown
    client = Tracking(load_settings(warehouse=str(tmp_path)))._client
    experiment = client.get_experiment_by_name("pipeline")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["KILLED"]
