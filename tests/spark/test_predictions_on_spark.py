"""Samples, predictions, bootstraps and leverages on Spark are those of pandas."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from causal.core.errors import DataError, SpecError
from causal.core.frames import BUCKET, Column, HashBucket, HistogramRequest, SampleRequest
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.experiments import ab, cupac
from jobs import cupac as job
from jobs.runtime import analyses
from jobs.runtime.context import Context
from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings
from transforms.gram import Limits, SparkEngine
from transforms.predictions import declared, with_prediction

SPEC = """
name: forecast
source: {path: %s, where: {experiment: perk}}
method: cupac
seed: 3
options:
  unit: user
  target: spend
  prediction: predicted_spend
  features: [before, age]
  categorical: [tier, level]
  fold_by: home
  iterations: 30
"""


@pytest.fixture(scope="module")
def users() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    n = 2500
    home, before = rng.integers(0, 700, n), rng.normal(size=n)
    is_treated = home % 2
    return pd.DataFrame(
        {
            "user": np.arange(n) * 11,
            "home": [f"h{number}" for number in home],
            "variant": np.where(is_treated, "treatment", "control"),
            "experiment": np.where(np.arange(n) % 10 > 0, "perk", "other"),
            "before": np.where(rng.random(n) < 0.03, np.nan, before),
            "age": rng.integers(18, 80, n),
            "tier": np.where(rng.random(n) < 0.02, None, rng.choice(["a", "b"], n)),
            "level": rng.integers(0, 4, n).astype(float),
            "spend": 9 + 3 * np.abs(before) + 0.4 * is_treated + rng.normal(size=n),
        }
    )


@pytest.fixture(scope="module")
def rows(
    spark: SparkSession, users: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> DataFrame:
    # Through a file, as users have it: a frame made of pandas would hold NaN in place of null.
    path = tmp_path_factory.mktemp("users") / "users.parquet"
    users.to_parquet(path)
    return spark.read.parquet(str(path)).repartition(3)


@pytest.mark.parametrize("max_rows", [300, 5000])
def test_samples_are_the_same_rows(rows: DataFrame, users: pd.DataFrame, max_rows: int) -> None:
    request = SampleRequest(
        unit="user", max_rows=max_rows, numbers=("before", "age"), labels=("tier", "level"),
        known=("tier",), salt=4, bucket=HashBucket("home", 5, salt=4),
    )  # fmt: skip
    found, expected = SparkEngine(rows)(request), PandasEngine(users)(request)
    assert list(found.columns) == ["before", "age", "tier", "level", BUCKET]
    np.testing.assert_array_equal(found[["before", "age"]], expected[["before", "age"]])
    for name in ("tier", "level", BUCKET):
        assert list(found[name]) == list(expected[name])


def test_a_sample_is_bounded(rows: DataFrame) -> None:
    request = SampleRequest(unit="user", max_rows=10_000, numbers=("before",))
    with pytest.raises(DataError, match="larger than may leave Spark"):
        SparkEngine(rows, limits=Limits(max_bytes=100_000))(request)


def test_histograms_by_bucket_are_the_same(rows: DataFrame, users: pd.DataFrame) -> None:
    request = HistogramRequest(
        term=Column("before"), edges=(-1.0, 0.0, 0.5), by=("variant",),
        bucket=HashBucket("home", 40, salt=2),
    )  # fmt: skip
    found, expected = (
        engine(request).astype({BUCKET: int}).sort_values(["variant", BUCKET])
        for engine in (SparkEngine(rows), PandasEngine(users))
    )
    for name in ("variant", BUCKET, "n", "n_missing"):
        assert list(found[name]) == list(expected[name])
    for name in ("bins", "counts", "lowest", "highest"):
        for ours, theirs in zip(found[name], expected[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_predictions_bootstraps_and_leverages_are_the_same(
    rows: DataFrame, users: pd.DataFrame
) -> None:
    options = {
        "unit": "user", "target": "spend", "prediction": "forecast", "features": ["before", "age"],
        "categorical": ["tier", "level"], "fold_by": "home", "iterations": 20, "max_rows": 900,
    }  # fmt: skip
    data: dict[str, Any] = {"name": "forecast", "source": {"table": "t"}, "seed": 3}
    spec = validate(cupac.SPEC, data | {"method": "cupac", "options": options})
    forecasts = run(cupac.train(spec), SparkEngine(rows))
    own = run(cupac.train(spec), PandasEngine(users))
    assert (forecasts.n_drawn, forecasts.n_rows) == (900, 2500)
    assert forecasts.r_squared == pytest.approx(own.r_squared, rel=1e-12)
    scored = rows.transform(
        with_prediction(
            name="forecast", predict=forecasts.predict, numbers=["before", "age"],
            labels=["tier", "level"], fold=spec.fold,
        )
    )  # fmt: skip
    expected = users.assign(forecast=cupac.predictions(own, spec, users))
    found = scored.select("user", "forecast").toPandas().sort_values("user")
    np.testing.assert_allclose(found["forecast"], expected["forecast"], rtol=1e-12)

    metrics = [
        {"name": "spend", "type": "mean", "column": "spend", "covariates": ["forecast"]},
        {"name": "median", "type": "quantile", "column": "spend", "quantile": 0.5},
    ]
    trial = {
        "unit": "user", "variant": "variant", "control": "control", "cluster": "home",
        "metrics": metrics, "inference": "bootstrap",
        "bootstrap": {"replications": 500, "buckets": 500},
    }  # fmt: skip
    readout = validate(ab.SPEC, data | {"method": "ab", "options": trial})
    ours = run(ab.estimate(readout), SparkEngine(scored))
    theirs = run(ab.estimate(readout), PandasEngine(expected))
    numbers = ["estimate", "std_error", "ci_lower", "ci_upper", "pvalue"]
    np.testing.assert_allclose(ours.to_frame()[numbers], theirs.to_frame()[numbers], rtol=1e-8)
    (one,), (other,) = (
        [d.statistic for d in result.diagnostics if d.name.startswith("max_leverage")]
        for result in (ours, theirs)
    )
    assert one == pytest.approx(other, rel=1e-9)


class Shared(Context):
    """A run on the session of the tests."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        super().__init__(settings=settings, progress=Progress())
        self.__dict__["session"] = spark


def test_the_job_writes_a_table_that_an_analysis_reads(
    spark: SparkSession,
    settings: Settings,
    users: pd.DataFrame,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    users.to_parquet(tmp_path / "users.parquet")
    file = tmp_path / "forecast.yaml"
    file.write_text(SPEC % (tmp_path / "users.parquet"), encoding="utf-8")
    config = job.CupacConfig(spec=file)
    context = Shared(spark, settings)
    assert job.run(context, config) == 0
    assert job.run(context, config) == 0
    said = capsys.readouterr()
    assert "already current" in said.out + said.err
    assert "covariates: [predicted_spend]" in said.out + said.err

    place = f"{settings.local_warehouse}/{settings.database}/forecast"
    found = spark.read.format("delta").load(place).toPandas().sort_values("user")
    perk = users[users["experiment"] == "perk"].reset_index(drop=True)
    assert list(found.columns) == [*users.columns, "predicted_spend"]
    spec = analyses.load(file, model=cupac.SPEC).spec
    assert isinstance(spec, cupac.CupacSpec)
    own = run(cupac.train(spec), PandasEngine(users))
    np.testing.assert_allclose(
        found["predicted_spend"], cupac.predictions(own, spec, perk), rtol=1e-12
    )

    file.write_text((SPEC % "x.parquet").replace("name: forecast", "name: subscribers"), "utf-8")
    with pytest.raises(SpecError):
        job.check(config)
    (tmp_path / "empty.csv").touch()
    for path, old, new, message in (
        (
            "users.parquet",
            "unit: user",
            "unit: person",
            r"options\.unit: .* no such column; given: p",
        ),
        (
            "users.parquet",
            "predicted_spend",
            "variant",
            r"prediction: the source has this column alre",
        ),
        ("empty.csv", "unit: user", "unit: user", r"options\.unit: .*the source has no columns"),
    ):
        file.write_text((SPEC % (tmp_path / path)).replace(old, new), "utf-8")
        with pytest.raises(SpecError, match=message):
            job.run(context, config)


def test_what_cannot_be_written_is_said(rows: DataFrame) -> None:
    odd = rows.selectExpr("user", "cast(age as decimal(5, 2)) age")
    with pytest.raises(SpecError, match="cannot be carried along"):
        declared(odd.schema, table="forecast", unit="user", prediction="forecast")
    with pytest.raises(SpecError, match="has this column already"):
        with_prediction(
            name="age", predict=lambda folds, _: folds * 1.0, numbers=[], labels=[],
            fold=HashBucket("user", 2),
        )(rows)  # fmt: skip
