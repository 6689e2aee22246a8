"""The job `power` plans on a history that Spark reads and leaves files and an MLflow run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal.core.errors import SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.experiments import power_plan
from causal.quasi.geo import geo_design
from jobs import power
from jobs.runtime import analyses
from jobs.runtime.context import Context
from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings

SPEC = """
name: checkout
source: {path: %s}
method: power
options:
  unit: user
  cluster: household
  metrics:
    - {name: revenue, type: mean, column: revenue, role: primary, covariates: [before],
       mde: 0.05, mde_scale: relative}
    - {name: rate, type: ratio, numerator: orders, denominator: sessions,
       role: guardrail, margin: 0.02}
  units: 4000
  arrivals: {day: first_on, is_new: is_new, max_weeks: 6}
"""


@pytest.fixture
def history(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    n = 3000
    before = rng.gamma(2.0, 5.0, n)
    days = pd.Timestamp("2026-03-02") + pd.to_timedelta(rng.integers(0, 14, n), unit="D")
    frame = pd.DataFrame(
        {
            "user": np.arange(n),
            "household": np.arange(n) // 3,
            "revenue": before + rng.gamma(2.0, 4.0, n),
            "before": before,
            "orders": rng.poisson(2.0, n),
            "sessions": 1 + rng.poisson(6.0, n),
            "first_on": days.date,
            "is_new": rng.random(n) < 0.5,
        }
    )
    frame.to_csv(tmp_path / "users.csv", index=False)
    return frame


class Shared(Context):
    """A run on the session of the tests."""

    def __init__(self, spark: SparkSession, settings: Settings, progress: Progress) -> None:
        super().__init__(settings=settings, progress=progress)
        self.__dict__["session"] = spark


def test_a_plan_from_spark_is_the_one_from_pandas(
    spark: SparkSession,
    settings: Settings,
    history: pd.DataFrame,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(SPEC % (tmp_path / "users.csv"), encoding="utf-8")
    config = power.PowerConfig(spec=(file,), output=tmp_path / "out")
    context = Shared(spark, settings, Progress())

    power.check(config)
    assert power.run(context, config) == 0

    spec = analyses.load(file, model=power_plan.SPEC).spec
    expected = run(power_plan.estimate(spec), PandasEngine(history)).tables["plan"]  # type: ignore[arg-type]
    found = pd.DataFrame(json.loads((tmp_path / "out" / "plan.json").read_text("utf-8")))
    pd.testing.assert_frame_equal(
        found[["n_total", "level", "std", "design_effect", "detectable_with_units"]].astype(float),
        expected[["n_total", "level", "std", "design_effect", "detectable_with_units"]].astype(
            float
        ),
        rtol=1e-8,
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("plan.json", "diagnostics.json", "spec.json", "summary.md"),
        *("plan.csv", "power_by_size.csv", "mde_by_duration.csv"),
        *("power_by_size.png", "mde_by_weeks.png"),
    }
    shown = capsys.readouterr().out
    assert "Plan checkout" in shown
    assert "with 80% power it takes" in shown
    client = context.tracking._client
    run_id = context.tracking.find_finished(
        analyses.bind(context, analyses.load(file, model=power_plan.SPEC)).run_key
    )
    logged = client.get_run(run_id)
    assert logged.data.metrics["plan/n_total"] == found["n_total"].max()
    kept = {item.path for item in client.list_artifacts(run_id)}
    assert {"plan.json", "mde_by_duration.json", "figures", "summary.md"} <= kept

    assert power.run(context, config) == 0
    assert "already in MLflow" in capsys.readouterr().out


@pytest.mark.parametrize("days", [np.arange(24), pd.date_range("2025-02-20", periods=24)])
def test_a_geo_design_is_planned_by_the_same_job(
    spark: SparkSession,
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    days: Any,
) -> None:
    rng = np.random.default_rng(4)
    sales = 50 + rng.normal(size=24).cumsum() + rng.normal(size=(10, 24))
    frame = pd.DataFrame(
        {
            "city": np.repeat([f"c{i}" for i in range(10)], 24), "day": np.tile(days, 10),
            "sales": sales.ravel(),
        }
    )  # fmt: skip
    frame.to_csv(tmp_path / "cities.csv", index=False)
    file = tmp_path / "geo.yaml"
    file.write_text(
        f"""
name: cities
source: {{path: {tmp_path / "cities.csv"}}}
method: geo_design
options: {{unit: city, period: day, outcome: sales, sizes: [2], durations: [3], estimator: did,
          n_draws: 5, n_replications: 50, n_windows: 4}}
""",
        encoding="utf-8",
    )
    config = power.PowerConfig(spec=(file,), output=tmp_path / "out")
    context = Shared(spark, settings, Progress())

    power.check(config)
    assert power.run(context, config) == 0

    spec = analyses.load(file, model={"geo_design": geo_design.SPEC}).spec
    expected = run(geo_design.estimate(spec), PandasEngine(frame)).tables["plan"]  # type: ignore[arg-type]
    found = pd.DataFrame(json.loads((tmp_path / "out" / "plan.json").read_text("utf-8")))
    assert found["treated"].tolist() == expected["treated"].tolist()
    np.testing.assert_allclose(found["mde"], expected["mde"], rtol=1e-8)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"assignment.csv", "power.csv", "power_by_lift.png", "chosen_regions.png"} <= names
    series = pd.read_csv(tmp_path / "out" / "series.csv")
    shown = [str(value).removesuffix(".0") for value in series["period"]]
    assert shown == [str(day).removesuffix(" 00:00:00") for day in days]
    assert "where nothing happened the test rejects" in capsys.readouterr().out


def test_the_plans_of_the_suite_are_valid() -> None:
    config = power.PowerConfig()
    assert config.paths
    power.check(config)


def test_another_method_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(SPEC.replace("method: power", "method: ab") % "users.csv", encoding="utf-8")
    with pytest.raises(SpecError, match="method"):
        power.check(power.PowerConfig(spec=(file,)))
