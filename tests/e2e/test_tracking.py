"""Runs: first use by several processes at once, statuses, names, runs that were abandoned."""

import multiprocessing
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from causal.core.errors import DataError, SpecError
from jobs.runtime.settings import load_settings
from jobs.runtime.tracking import Tracking, artifact_name, metric_name


@pytest.fixture
def tracking(tmp_path: Path) -> Tracking:
    return Tracking(load_settings(warehouse=str(tmp_path)))


def log_three(warehouse: str, who: str) -> None:
    tracking = Tracking(load_settings(warehouse=warehouse))
    for number in range(3):
        with tracking.run("race", run_name=who, run_key=f"{who}-{number}") as run:
            run.log_metrics({"number": number})


def hang(warehouse: str) -> None:
    with Tracking(load_settings(warehouse=warehouse)).run("hang", run_name="h", run_key="h"):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_several_processes_may_come_first(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=log_three, args=(str(tmp_path), who)) for who in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    tracking = Tracking(load_settings(warehouse=str(tmp_path)))
    assert all(tracking.find_finished(f"{who}-{number}") for who in "abc" for number in range(3))


def test_a_run_holds_what_was_logged(tracking: Tracking, tmp_path: Path) -> None:
    with (
        tracking.run("pipeline", run_name="p", run_key="k1") as parent,
        tracking.run("loyalty", run_name="r", run_key="k2", parent=parent, tags={"a": "b"}) as run,
    ):
        run.log_params({"db.password": "password=hunter2", "options[0]": 1})
        run.log_metrics({"estimate/minutes [x]": 1.5})
        for step in (0, 1):
            run.log_metrics({"look": step}, step=step)
        run.log_table("effects", pd.DataFrame({"estimate": [1.0]}))
        figure = Figure()
        figure.subplots().plot([1, 2])
        run.log_figure("../../lift", figure)
        run.log_text("report.md", "# Lift")
        run.log_dict("spec.yaml", {"name": "loyalty"})
        run.note("**It works.**")
    client = tracking._client
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"db.password": "password=***", "options_0_": "1"}
    assert found.data.metrics == {"estimate/minutes _x_": 1.5, "look": 1.0}
    assert found.data.tags["mlflow.parentRunId"] == parent.run_id
    assert found.data.tags["mlflow.note.content"] == "**It works.**"
    names = sorted(item.path for item in client.list_artifacts(run.run_id))
    assert names == ["effects.json", "lift.png", "report.md", "spec.yaml"]
    assert tracking.find_finished("k2") == run.run_id
    assert tracking.find_finished("k3") is None
    outside = [path for path in tmp_path.rglob("*.png") if "artifacts" not in path.parts]
    assert outside == []


def test_a_failed_run_says_why(tracking: Tracking) -> None:
    with (
        pytest.raises(DataError),
        tracking.run("loyalty", run_name="r", run_key="k") as run,
    ):
        raise DataError("no rows left")
    found = tracking._client.get_run(run.run_id)
    assert found.info.status == "FAILED"
    assert "no rows left" in found.data.tags["mlflow.note.content"]
    assert tracking.find_finished("k") is None


def test_a_run_whose_process_is_gone_is_closed(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=hang, args=(str(tmp_path),))
    process.start()
    process.join(100)
    assert process.exitcode == -signal.SIGKILL
    client = Tracking(load_settings(warehouse=str(tmp_path)))._client
    experiment = client.get_experiment_by_name("hang")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FAILED"]


def test_a_remote_warehouse_needs_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SpecError, match=r"tracking\.uri"):
        _ = Tracking(load_settings(warehouse="s3a://bucket/x")).uri


def test_names() -> None:
    assert metric_name("a[b]%@c") == "a_b_c"
    assert artifact_name("../../etc/passwd") == "etc/passwd"
    assert artifact_name("/..") == "unnamed"
