"""The job `experiment`: looks that join each other in Delta and MLflow, and what it refuses."""

import datetime as dt
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pyspark.sql import SparkSession

from causal.core.errors import DataError, HealthError, SpecError
from causal.scorecard.experiment_readout import ExperimentReadout
from jobs import experiment
from jobs.runtime.context import Context
from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings
from tests import experiment_worlds as worlds
from tests.experiment_worlds import TERM

WITH_MEDIAN = {
    **worlds.SPEC["options"],
    "metrics": [
        *worlds.SPEC["options"]["metrics"],
        {"name": "median_profit", "type": "quantile", "column": "profit", "quantile": 0.5,
         "inference": "bootstrap"},
    ],
    "bootstrap": {"replications": 500, "buckets": 500},
}  # fmt: skip
"""A metric of the experiment has its intervals from the bootstrap."""
FIRST, SECOND = dt.date(2026, 11, 15), dt.date(2026, 11, 30)


class Shared(Context):
    """A run on the session of the tests."""

    def __init__(self, spark: SparkSession, settings: Settings, progress: Progress) -> None:
        super().__init__(settings=settings, progress=progress)
        self.__dict__["session"] = spark


@pytest.fixture
def spec_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes units and a spec that reads them; the spec's file."""

    def write(name: str, rows: pd.DataFrame, **changes: Any) -> Path:
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
        file = tmp_path / f"{name}.yaml"
        data = {
            **worlds.SPEC,
            **changes,
            "name": name,
            "source": {"path": str(tmp_path / f"{name}.csv")},
            "looks": {"day": "entered_on"},
        }
        file.write_text(yaml.safe_dump(data), encoding="utf-8")
        return file

    return write


def table(context: Context, name: str, experiment_name: str) -> pd.DataFrame:
    rows = context.lakehouse.read(name).where(f"experiment = '{experiment_name}'")
    return rows.toPandas()


def test_looks_join_in_tables_and_runs(
    spark: SparkSession,
    settings: Settings,
    spec_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    context = Shared(spark, settings, Progress())
    users = worlds.users(3000, lift=1.5)
    file = spec_file("perk", users[:2900], options=WITH_MEDIAN)
    first = experiment.ExperimentConfig(spec=(file,), as_of=FIRST)
    second = experiment.ExperimentConfig(spec=(file,), as_of=SECOND, output=tmp_path / "out")

    experiment.check(second)
    assert experiment.run(context, first) == 0
    assert experiment.run(context, second) == 0
    before = table(context, "looks", "perk").set_index(["look", "metric", "scale"]).sort_index()
    spec_file("perk", users, options=WITH_MEDIAN)
    assert experiment.run(context, second) == 0

    expected = worlds.looked(worlds.spec(options=WITH_MEDIAN), [users[:1500], users])
    looks = table(context, "looks", "perk").set_index(["look", "metric", "scale"]).sort_index()
    assert set(zip(looks["as_of_on"], looks.index.get_level_values("look"), strict=True)) == {
        (FIRST, 1),
        (SECOND, 2),
    }
    pd.testing.assert_frame_equal(looks.loc[[1]], before.loc[[1]])
    wanted = expected.looks.set_index(["look", "metric", "scale"]).sort_index()
    for name in ("estimate", "std_error", "information"):
        np.testing.assert_allclose(looks[name], wanted[name], rtol=1e-8)
    decisions = table(context, "decisions", "perk").set_index("look")
    assert decisions["verdict"].to_dict() == {1: "needs_more_data", 2: "ship"}
    assert decisions["sequential_decision"].to_dict() == {1: "continue", 2: "stop_efficacy"}
    assert expected.decisions.decisions[0].verdict == "ship"
    assert decisions.loc[2, "profit_per_year"] == pytest.approx(
        expected.roi[TERM].profit_per_year.mean, rel=1e-8
    )
    check_files(tmp_path / "out", expected)
    found = json.loads((tmp_path / "out" / "effects.json").read_text("utf-8"))
    (median,) = [e for e in expected.result.effects if e.metric == "median_profit"][:1]
    (ours,) = [e for e in found if e["metric"] == "median_profit"][:1]
    assert ours["estimator"] == median.estimator == "quantile_bootstrap"
    for name in ("estimate", "std_error", "ci_lower", "ci_upper"):
        assert ours[name] == pytest.approx(getattr(median, name), rel=1e-8)
    shown = capsys.readouterr().out
    assert "perk, look 2 (2026-11-30): profit" in shown
    assert "The test stopped at look 2." in shown
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    check_run(context, report["provenance"]["run_key"], expected)

    versions = {name: context.lakehouse.version(name) for name in ("looks", "decisions", "effects")}
    assert experiment.run(context, second) == 0
    assert "already in MLflow" in capsys.readouterr().out
    for name, version in versions.items():
        assert context.lakehouse.version(name) == version
    between = experiment.ExperimentConfig(spec=(file,), as_of=dt.date(2026, 11, 20))
    with pytest.raises(DataError, match="later ones were made already"):
        experiment.run(context, between)
    dearer = users.assign(profit=users["profit"] + (users["variant"] == "perk"))
    spec_file("perk", dearer, options=WITH_MEDIAN)
    with pytest.raises(DataError, match="cannot be restated"):
        experiment.run(context, first)


def check_files(folder: Path, expected: ExperimentReadout) -> None:
    assert {
        *("scorecard.html", "scorecard.md", "report.json", "effects.json", "diagnostics.json"),
        *("spec.json", "summary.md", "decision.png", "looks_perk_control.png"),
    } <= {path.name for path in folder.iterdir()}
    report = json.loads((folder / "report.json").read_text("utf-8"))
    adjusted = expected.sequential[TERM].adjusted
    assert adjusted is not None
    found = report["sequential"][TERM]["adjusted"]
    assert found["pvalue"] == pytest.approx(adjusted.pvalue, rel=1e-6)


def check_run(context: Context, run_key: str, expected: ExperimentReadout) -> None:
    client = context.tracking._client
    run_id = context.tracking.find_finished(run_key)
    assert run_id is not None
    metric = f"look/estimate/profit/absolute/{TERM}"
    history = {item.step: item.value for item in client.get_metric_history(run_id, metric)}
    assert history.keys() == {1, 2}
    assert history[2] == pytest.approx(expected.result.effects[0].estimate, rel=1e-8)
    kept = {item.path for item in client.list_artifacts(run_id)}
    assert {"scorecard.html", "scorecard.md", "report.json", "effects.json", "figures"} <= kept
    assert client.get_run(run_id).data.tags["causalake.decision"] == f"{TERM}: ship"


def test_two_experiments_at_once_one_of_them_red(
    spark: SparkSession, settings: Settings, spec_file: Callable[..., Path], tmp_path: Path
) -> None:
    users = worlds.users(2000)
    lost = users[(users["variant"] == "perk") | (users["user"] % 4 > 0)]
    frames = {"whole": users, "lost": lost}
    files = {name: spec_file(name, rows) for name, rows in frames.items()}

    def go(name: str) -> int:
        config = experiment.ExperimentConfig(spec=(files[name],), output=tmp_path / name / "out")
        try:
            return experiment.run(Shared(spark, settings, Progress(is_quiet=True)), config)
        except HealthError as error:
            return error.exit_code

    with ThreadPoolExecutor(max_workers=2) as pool:
        assert list(pool.map(go, files)) == [0, 4]

    both = Shared(spark, settings, Progress())
    for name, rows in frames.items():
        expected = worlds.looked(worlds.spec(name=name), [rows])
        looks = table(both, "looks", name).sort_values(["metric", "scale"])
        wanted = expected.looks.sort_values(["metric", "scale"])
        np.testing.assert_allclose(looks["estimate"], wanted["estimate"], rtol=1e-8)
        verdict = expected.decisions.decisions[0].verdict
        assert table(both, "decisions", name)["verdict"].tolist() == [verdict]
    assert table(both, "decisions", "lost")["verdict"].tolist() == ["hold"]
    assert len(both.lakehouse.read("runs").toPandas()) == 2
    report = json.loads((tmp_path / "lost" / "out" / "report.json").read_text("utf-8"))
    assert any("split does not fit" in reason for reason in report["stops"])
    page = (tmp_path / "lost" / "out" / "scorecard.html").read_text("utf-8")
    assert "Stop: a health check" in page


def test_a_day_column_that_is_not_there_is_refused(
    spark: SparkSession, settings: Settings, spec_file: Callable[..., Path]
) -> None:
    file = spec_file("dayless", worlds.users(100).drop(columns="entered_on"))
    config = experiment.ExperimentConfig(spec=(file,))

    with pytest.raises((SpecError, DataError), match="entered_on"):
        experiment.run(Shared(spark, settings, Progress()), config)
