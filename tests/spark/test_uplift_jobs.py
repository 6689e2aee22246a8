"""From `uplift` over `score` to `policy` on a small world whose effects are known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from jobs import uplift
from jobs.runtime import models
from jobs.runtime.context import Context
from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings, load_settings

SPEC = """
name: payout_uplift
source: {{path: {path}, where: {{experiment: payout_scheme}}}}
method: uplift_learners
seed: 5
options:
  unit: driver
  outcome: hours
  variant: variant
  control: control
  treatments: [flat_bonus, surge]
  features: [before, age]
  categorical: [vehicle]
  segments: [vehicle]
  learners: [t]
  missing: model
  held_out: 0.5
  trees: 40
  leaves: 6
  bins: 50
  groups: 5
  draws: 200
truth: {{world: drivers, design: payout_scheme}}
"""
ARMS = ("control", "flat_bonus", "surge")


def outcomes(rng: np.random.Generator, units: pd.DataFrame) -> np.ndarray:
    """Hours of each unit under each arm: surge helps those who worked much, bonus the bikes."""
    base = 10 + 2 * np.abs(units["before"].fillna(0.0)) + rng.normal(size=len(units))
    bonus = np.where(units["vehicle"] == "bike", 2.0, -0.3)
    surge = np.where(units["before"].fillna(0.0) > 0, 3.0, 0.2)
    return np.column_stack([base, base + bonus, base + surge])


@pytest.fixture(scope="module")
def drivers() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    n = 6000
    units = pd.DataFrame(
        {
            "driver": np.arange(n) + 1,
            "experiment": np.where(np.arange(n) % 12 > 0, "payout_scheme", "other"),
            "before": np.where(rng.random(n) < 0.05, np.nan, rng.normal(size=n)),
            "age": rng.integers(18, 70, n),
            "vehicle": rng.choice(["bike", "sedan", "suv"], n),
        }
    )
    potential = outcomes(rng, units)
    arm = rng.integers(0, 3, n)
    units["variant"] = np.array(ARMS)[arm]
    units["hours"] = potential[np.arange(n), arm]
    for number, name in enumerate(ARMS):
        units[f"truth_{name}"] = potential[:, number]
    return units


class Shared(Context):
    """A run on the session of the tests."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        super().__init__(settings=settings, progress=Progress())
        self.__dict__["session"] = spark


@pytest.fixture(scope="module")
def context(
    spark: SparkSession, drivers: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Context:
    folder = tmp_path_factory.mktemp("uplift")
    settings = load_settings(
        warehouse=str(folder / "warehouse"), overrides=["limits.lock_seconds=30"]
    )
    own = Shared(spark, settings)
    drivers.drop(columns=[f"truth_{name}" for name in ARMS]).to_parquet(folder / "drivers.parquet")
    long = pd.concat(
        [
            drivers[["experiment", "driver"]].assign(variant=name, hours=drivers[f"truth_{name}"])
            for name in ARMS
        ]
    )
    long.to_parquet(folder / "truth.parquet")
    truth = spark.read.parquet(str(folder / "truth.parquet")).selectExpr(
        "experiment", "driver AS driver_id", "variant", "true AS is_exposed", "hours",
        "0 AS trips", "0D AS earnings", "0D AS payouts", "0 AS active_days", "true AS is_retained",
    )  # fmt: skip
    own.lakehouse.write(truth, "truth_drivers", run_key="truth")
    return own


@pytest.fixture(scope="module")
def folder(context: Context) -> Path:
    assert context.settings.local_warehouse is not None
    return context.settings.local_warehouse.parent


@pytest.fixture(scope="module")
def trained(context: Context, folder: Path) -> models.StoredModel:
    file = folder / "uplift.yaml"
    file.write_text(SPEC.format(path=folder / "drivers.parquet"), encoding="utf-8")
    config = uplift.UpliftConfig(spec=file, output=folder / "out")
    uplift.check(config)
    assert uplift.run(context, config) == 0
    assert uplift.run(context, config) == 0
    return models.load(context, "payout_uplift")


def test_x(context: Context, trained: models.StoredModel, folder: Path) -> None:
    print((folder / "out" / "summary.md").read_text())
    print(context.lakehouse.read("effects").toPandas().to_string())
    print(context.lakehouse.read("diagnostics").toPandas().to_string())
    print(context.lakehouse.read("uplift_scores").limit(5).toPandas().to_string())
