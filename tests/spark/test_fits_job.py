"""The job `fits` makes on Spark what the method makes by itself, and keeps what fails as rows."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from causal.core import plan, registry
from causal.core.pandas_engine import PandasEngine
from causal.core.spec import validate
from causal.fits.fitting import spec_of
from causal.fits.grid import grid
from jobs import fits
from jobs.runtime import analyses
from jobs.runtime.context import Context
from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings

SPEC = """
name: by_city
source: {path: %s, where: {kind: city}}
method: synthetic_control
options:
  unit: city
  period: day
  special_predictors: [{column: trips, periods: [3, 4]}]
  importance: equal
fits:
  over: {treated: start, outcomes: [sales, trips, broken], placebos: true}
  fits_per_task: 6
  tracked_fits: 1
"""


class Shared(Context):
    """A run on the session of the tests."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        super().__init__(settings=settings, progress=Progress())
        self.__dict__["session"] = spark


@pytest.fixture(scope="module")
def panel() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    n_cities, n_days = 14, 20
    walks = rng.normal(size=(2, n_days)).cumsum(axis=1)
    paths = 30 + rng.dirichlet(np.ones(2), n_cities) @ walks
    number = np.repeat(np.arange(n_cities), n_days)
    frame = pd.DataFrame(
        {
            "city": number,
            "day": np.tile(np.arange(n_days), n_cities),
            "kind": "city",
            "sales": paths.ravel() + 0.2 * rng.normal(size=paths.size),
            "trips": rng.poisson(50 + paths).ravel(),
            "broken": np.where(number == 5, np.nan, paths.ravel()),
            "start": np.where(number < 3, 12.0 + number, np.nan),
        }
    )
    frame.loc[(frame["city"] == 0) & (frame["day"] >= 12), "sales"] += 8.0
    village = frame[frame["city"] == 4].assign(city=99, kind="village", sales=1e6)
    return pd.concat([frame, village], ignore_index=True)


def test_fits_on_spark_are_those_made_alone(
    spark: SparkSession,
    settings: Settings,
    panel: pd.DataFrame,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    panel.to_parquet(tmp_path / "panel.parquet")
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC % (tmp_path / "panel.parquet"), encoding="utf-8")
    config = fits.FitsConfig(spec=(file,), output=tmp_path / "out")
    context = Shared(spark, settings)
    fits.check(config)
    assert fits.run(context, config) == 0

    item = analyses.load(file, model=fits.FitsSpec)
    spec = item.spec
    assert isinstance(spec, fits.FitsSpec)
    cities = grid(spec)
    found_grid = plan.run(cities, PandasEngine(panel))
    stored = context.lakehouse.read("effects").toPandas()
    numbers = ["estimate", "std_error", "ci_lower", "ci_upper", "pvalue", "n_treated", "n_control"]
    n_rows = 0
    for fit in found_grid.fits:
        if fit.outcome == "broken":
            continue
        own = spec_of(spec, fit, grid=found_grid)
        alone = plan.run(registry.method(own.method).estimate(own), PandasEngine(panel)).to_frame()
        mine = stored[
            (stored["metric"] == fit.outcome) & stored["term"].str.endswith(f" | {fit.unit}")
        ]
        merged = mine.assign(term=mine["term"].str.split(" | ", regex=False).str[0])
        merged = merged.set_index(["term", "scale"]).loc[
            list(zip(alone["term"], alone["scale"], strict=True))
        ]
        np.testing.assert_array_equal(
            merged[numbers].to_numpy(float), alone[numbers].to_numpy(float)
        )
        n_rows += len(alone)
    assert len(stored) == n_rows
    assert set(stored["analysis"]) == {"by_city"}

    checks = context.lakehouse.read("diagnostics").toPandas().set_index("name")
    assert "lack a value" in checks.loc["fit:broken:1", "detail"]
    assert checks.loc["fits", "statistic"] == 14
    assert checks.loc["pvalue_adjusted:sales:0", "pvalue"] <= 1.0

    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("effects.json", "diagnostics.json", "spec.json", "summary.md", "fits.csv"),
        *("effects_sales.png", "effects_trips.png", "placebo_pvalues.png"),
    }
    assert len(json.loads((tmp_path / "out" / "effects.json").read_text("utf-8"))) == n_rows
    shown = capsys.readouterr().out
    assert "28 of 42 fits were made" in shown
    assert "14 fits failed: " in shown
    assert "42 of 42 fits" in shown

    client = context.tracking._client
    run_id = context.tracking.find_finished(analyses.bind(context, item).run_key)
    logged = client.get_run(run_id)
    assert logged.data.metrics["fits/n_failed"] == 14
    nested = client.search_runs(
        [logged.info.experiment_id], filter_string=f"tags.mlflow.parentRunId = '{run_id}'"
    )
    assert [run.info.run_name for run in nested] == ["sales in 0 from 12"]
    kept = {entry.path for entry in client.list_artifacts(nested[0].info.run_id, "figures")}
    assert any(path.startswith("figures/gaps_") for path in kept)


DATED = """
name: by_city
source: {path: %s}
method: synthetic_did
options: {unit: city, period: day, n_replications: 50, first_period: 2025-02-21}
fits: {over: {treated: begun, outcomes: [sales]}, tracked_fits: 1}
"""


def test_fits_of_dates_are_those_of_numbers(
    spark: SparkSession, settings: Settings, panel: pd.DataFrame, tmp_path: Path
) -> None:
    cities = panel[panel["kind"] == "city"]
    days = pd.Series(pd.date_range("2025-02-20", periods=20).date)
    rows = cities.assign(
        day=cities["day"].map(days), begun=cities["start"].map(days).astype(object)
    )
    rows[["city", "day", "begun", "sales"]].to_csv(tmp_path / "panel.csv", index=False)
    file = tmp_path / "spec.yaml"
    file.write_text(DATED % (tmp_path / "panel.csv"), encoding="utf-8")
    context = Shared(spark, settings)
    config = fits.FitsConfig(spec=(file,), output=tmp_path / "out")
    fits.check(config)
    assert fits.run(context, config) == 0

    table = pd.read_csv(tmp_path / "out" / "fits.csv", float_precision="round_trip")
    assert table["start"].tolist() == ["2025-03-04", "2025-03-05", "2025-03-06"]
    module = registry.method("synthetic_did")
    for unit, start, estimate in zip(table["unit"], table["start"], table["estimate"], strict=True):
        others = [name for name in (0, 1, 2) if name != unit]
        options = {
            "unit": "city", "period": "day", "outcome": "sales", "treated": unit,
            "treatment_period": 12 + unit, "first_period": 1, "excluded": others,
            "n_replications": 50,
        }  # fmt: skip
        data = {
            "name": "x", "source": {"table": "t"}, "method": "synthetic_did", "options": options,
        }  # fmt: skip
        alone = plan.run(module.estimate(validate(module.SPEC, data)), PandasEngine(cities))
        assert estimate == alone.effects[0].estimate, start
