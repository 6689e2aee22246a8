"""Customers valued from a log of purchases: histories, back-test, table, refusals."""

import base64
import datetime as dt
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pyspark.sql import DataFrame, SparkSession

from causal.clv.cells import rows_of
from causal.clv.fitting import ClvOptions, fit
from causal.clv.models import MODELS, fit_purchases
from causal.core.errors import CausalError, DataError, SpecError
from causal.core.plan import run
from causal.core.spec import Source, validate
from jobs import clv, generate
from jobs.runtime.context import Context
from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings
from transforms.gram import SparkEngine
from transforms.histories import Log, births, check_known, histories, purchase_log

pytestmark = pytest.mark.usefixtures("many_small_queries")

SIZE = 3_000
SPEC = """
name: passenger_value
source: {path: %(folder)s/passenger_trips.parquet}
method: clv
options:
  unit: passenger_id
  time: started_at
  amount: fare
  units: {path: %(folder)s/passengers.parquet, born: registered_on}
  until: 2026-03-02
  purchases: transactions
  holdout_days: 28
  horizon: {periods: 1, period_days: 30}
"""


class Shared(Context):
    """A run on the session of the tests."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        super().__init__(settings=settings, progress=Progress())
        self.__dict__["session"] = spark


@pytest.fixture(scope="module")
def folder(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world of passengers in files."""
    assert generate.JOB.defaults is not None
    chosen = {"world": "passengers", "size": SIZE, "seed": 11}
    config = validate(generate.GenerateConfig, {**generate.JOB.defaults({}), **chosen})
    made = generate.JOB.build(config, {"passenger_ids": spark.range(0, SIZE, 1, 2)})
    folder = tmp_path_factory.mktemp("passengers")
    for name, frame in made.items():
        frame.write.parquet(str(folder / f"{name}.parquet"))
    return folder


def test_the_job_values_every_passenger(
    spark: SparkSession,
    settings: Settings,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "value.yaml"
    file.write_text(SPEC % {"folder": folder}, encoding="utf-8")
    context = Shared(spark, settings)
    config = clv.ClvConfig(spec=file, output=tmp_path / "out")
    assert clv.run(context, config) == 0
    assert clv.run(context, config) == 0
    said = "".join(capsys.readouterr())
    assert "already current (passenger_value)" in said
    assert f"{SIZE:,} customers as of 2026-03-02" in said

    place = f"{settings.local_warehouse}/{settings.database}/passenger_value"
    found = spark.read.format("delta").load(place).toPandas().set_index("passenger_id").sort_index()
    truth = (
        pd.read_parquet(folder / "truth_passengers.parquet").set_index("passenger_id").sort_index()
    )
    assert list(found.index) == list(truth.index) == list(range(1, SIZE + 1))
    _check_against_the_truth(found, truth)

    # The fit on cells of a day is that on rows with their exact times, and so are predictions.
    rows = rows_of(found["frequency"], found["recency"], found["age"])
    own = fit_purchases("bg_nbd", rows)
    stored = pd.read_json(tmp_path / "out" / "parameters.json").set_index("parameter")
    assert np.allclose(stored["estimate"][list(own.names)], own.parameters, rtol=0.02)
    expected = MODELS["bg_nbd"].conditional_purchases(own.parameters, rows, 30.0)
    np.testing.assert_allclose(found["expected_purchases"], expected, rtol=0.03)

    checks = {
        row["name"]: row
        for row in pd.read_json(tmp_path / "out" / "diagnostics.json").to_dict("records")
    }
    for name in ("backtest.purchases", "backtest.spend", "bg_nbd.rounding", "gamma_gamma.rounding"):
        assert checks[name]["passed"], checks[name]
    for name in ("tracking", "frequencies", "holdout", "deciles_spend", "deciles_purchases"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5_000
    deciles = pd.read_csv(tmp_path / "out" / "deciles_spend.csv")
    assert deciles["n"].sum() == SIZE
    assert deciles["predicted"].is_monotonic_increasing
    kept = context.lakehouse.read("diagnostics").where("analysis = 'passenger_value'").count()
    assert kept == len(checks)


def _check_against_the_truth(found: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Predictions know less than the truth, and are right on the average of any group."""
    predicted, true = found["expected_spend"], truth["expected_spend_next_30"]
    assert np.corrcoef(predicted, true)[0, 1] > 0.6
    for group in (predicted > -1, predicted > predicted.median(), found["frequency"] == 0):
        off = (predicted - true)[group]
        assert abs(off.mean()) < 4 * off.std() / group.sum() ** 0.5
    alive = truth["left_on"].isna()
    off = found["alive_probability"] - alive
    assert abs(off.mean()) < 4 * off.std() / len(off) ** 0.5


EARLY = """
name: early_spend
source: {path: %(folder)s/passenger_trips.parquet}
method: early_spend
seed: 2
options:
  unit: passenger_id
  time: started_at
  amount: fare
  units: {path: %(folder)s/passengers.parquet, born: registered_on}
  until: 2026-03-02
  categorical: [city, platform]
  families: {mean: {}, ridge: {penalty: [10]}, boosted: {max_iter: [40], max_leaf_nodes: [4, 8]}}
"""


def test_early_spend_is_learned_scored_and_told(
    spark: SparkSession, settings: Settings, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "early.yaml"
    file.write_text(EARLY % {"folder": folder}, encoding="utf-8")
    context = Shared(spark, settings)
    assert clv.run(context, clv.ClvConfig(spec=file, output=tmp_path / "out")) == 0
    rows, version = context.lakehouse.read_source(Source(table="early_spend"))
    assert version == context.lakehouse.read_source(Source(table="early_spend", version=version))[1]
    found = rows.toPandas().set_index("passenger_id").sort_index()
    expected = _early(folder)
    assert len(found) == SIZE
    for name in ("recency_7", "frequency_7", "monetary_7"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6)

    # Predictions are right on the average of groups, against the true expectation.
    truth = pd.read_parquet(folder / "truth_passengers.parquet").set_index("passenger_id")
    off = found["expected_spend_30"] - truth["expected_spend_30"].sort_index()
    assert abs(off.mean()) < 4 * off.std() / SIZE**0.5 + 0.5
    bought = found["frequency_7"] > 0
    assert (
        found["expected_spend_30"][bought].mean() > 2 * found["expected_spend_30"][~bought].mean()
    )

    candidates = pd.read_csv(tmp_path / "out" / "candidates.csv")
    assert set(candidates["family"]) == {"mean", "ridge", "boosted"}
    assert candidates["rmse"].is_monotonic_increasing
    assert candidates["family"].iloc[-1] == "mean"
    for name in ("candidates", "predicted_actual", "residuals", "deciles_spend"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5_000
    client = context.tracking._client
    runs = client.search_runs([client.get_experiment_by_name("early_spend").experiment_id])
    parents = [run.data.tags.get("mlflow.parentRunId") for run in runs]
    assert sorted(map(bool, parents)) == [False, *[True] * 4]

    _stored_model_scores_the_same(context, file, tmp_path, found)


def _early(folder: Path) -> pd.DataFrame:
    """The features, computed by pandas."""
    units = pd.read_parquet(folder / "passengers.parquet").set_index("passenger_id").sort_index()
    trips = pd.read_parquet(folder / "passenger_trips.parquet")
    born = pd.to_datetime(units["registered_on"]).reindex(trips["passenger_id"]).to_numpy()
    started = trips["started_at"].dt.tz_localize(None)
    trips["age"] = (started - born).dt.total_seconds() / 86_400
    early = trips[trips["age"] < 7].groupby("passenger_id")
    made = {
        "recency_7": early["age"].max(),
        "frequency_7": early.size(),
        "monetary_7": early["fare"].sum(),
    }
    return pd.DataFrame(made).reindex(units.index).fillna(0.0)


def _stored_model_scores_the_same(
    context: Context, file: Path, tmp_path: Path, found: pd.DataFrame
) -> None:
    """By its hash alone; a file that was changed, and a city never seen, stop the job."""
    (sha256,) = set(found["model_sha256"])
    model, text = tmp_path / "out" / "model.json", file.read_text(encoding="utf-8")
    again = text.replace("name: early_spend", "name: scored_again")
    again += f"  stored: {{path: {model}, sha256: {sha256}}}\n"
    file.write_text(again, encoding="utf-8")
    config = clv.ClvConfig(spec=file)
    assert clv.run(context, config) == 0
    place = f"{context.settings.local_warehouse}/{context.settings.database}/scored_again"
    second = context.session.read.format("delta").load(place).toPandas()
    second = second.set_index("passenger_id").sort_index()
    pd.testing.assert_series_equal(second["expected_spend_30"], found["expected_spend_30"])

    moved = tmp_path / "passengers.parquet"
    folder = Path(yaml.safe_load(text)["options"]["units"]["path"])
    pd.read_parquet(folder).assign(city="atlantis").to_parquet(moved)
    other = again.replace("scored_again", "scored_wrongly")
    file.write_text(other.replace(str(folder), str(moved)), encoding="utf-8")
    with pytest.raises(CausalError, match="city has levels that the model was not trained on"):
        clv.run(context, config)
    file.write_text(other, encoding="utf-8")
    whole = model.read_text(encoding="utf-8")
    stored = json.loads(whole)
    raw = bytearray(base64.b64decode(stored["model"]))
    raw[len(raw) // 2] ^= 1
    stored["model"] = base64.b64encode(bytes(raw)).decode()
    model.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(DataError, match="is not the recorded one"):
        clv.run(context, config)
    model.write_text(whole[: len(whole) // 2], encoding="utf-8")
    with pytest.raises(DataError, match="no file of a model, or it is damaged"):
        clv.run(context, config)
    model.write_text(whole, encoding="utf-8")


LOG = pd.DataFrame(
    {
        "who": ["a", "a", "a", "a", "b", "c", "c"],
        "day": [dt.date(2026, 1, day) for day in (1, 1, 5, 9, 3, 2, 20)],
        "paid": [5.0, 7.0, 20.0, 4.0, 3.0, 8.0, 6.0],
    }
)
UNTIL = dt.date(2026, 1, 15)
COLUMNS = {"unit": "who", "time": "day", "amount": "paid"}


def _log(spark: SparkSession, frame: pd.DataFrame, *, until: dt.date = dt.date(2026, 2, 1)) -> Log:
    made = purchase_log(**COLUMNS, until=until, is_daily=True)
    return Log(rows=spark.createDataFrame(frame).transform(made), births=None, is_daily=True)


def _rows(frame: DataFrame) -> Mapping[str, Mapping[str, float]]:
    return frame.toPandas().set_index("unit").drop(columns="born").to_dict("index")


def test_histories_are_those_of_the_definition(spark: SparkSession) -> None:
    """A day is one purchase, the first is no repeat, time ends with the last day."""
    found = _rows(histories(_log(spark, LOG), until=UNTIL, grid=None, unit_days=1.0))
    a, b, c = (found[name] for name in "abc")
    assert (a["frequency"], a["recency"], a["age"], a["monetary_value"]) == (2, 8, 13, 12)
    assert (b["frequency"], b["recency"], b["age"]) == (0, 0, 11)
    assert np.isnan(b["monetary_value"])
    assert (c["frequency"], c["later_purchases"], c["later_spend"]) == (0, 1, 6)
    weeks = _rows(histories(_log(spark, LOG), until=UNTIL, grid=7.0, unit_days=7.0))["a"]
    assert weeks["recency"] == pytest.approx(8 / 7)
    assert (weeks["recency_cell"], weeks["age_cell"]) == (2, 2)


def test_births_start_the_clock(spark: SparkSession) -> None:
    units = pd.DataFrame(
        {"who": ["a", "b", "c", "d"], "since": [dt.date(2026, 1, day) for day in (1, 1, 2, 10)]}
    )
    since = spark.createDataFrame(units).transform(births(unit="who", born="since", is_daily=True))
    log = _log(spark, LOG)
    found = _rows(
        histories(
            Log(rows=log.rows, births=since, is_daily=True), until=UNTIL, grid=None, unit_days=1.0
        )
    )
    a, d = found["a"], found["d"]
    assert (a["frequency"], a["recency"], a["age"], a["monetary_value"]) == (3, 9, 14, 12)
    assert (d["frequency"], d["recency"], d["age"], d["later_purchases"]) == (0, 0, 5, 0)
    check_known(Log(rows=log.rows, births=since, is_daily=True))
    with pytest.raises(DataError, match=r"not in units; given: 2 purchases"):
        check_known(Log(rows=log.rows, births=since.where("unit != 'c'"), is_daily=True))
    late = since.selectExpr("unit", "born + 3 born")
    with pytest.raises(DataError, match=r"before the day since which"):
        check_known(Log(rows=log.rows, births=late, is_daily=True))
    twice = spark.createDataFrame(pd.concat([units, units.head(1)]))
    with pytest.raises(DataError, match=r"one row per unit; given: 5 rows of 4 units"):
        twice.transform(births(unit="who", born="since", is_daily=True))


def test_the_log_of_cdnow_gives_the_published_parameters(spark: SparkSession) -> None:
    """Fader, Hardie and Lee (2005), from transactions to parameters in weeks."""
    found = importlib.util.find_spec("lifetimes")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no CDNOW data: the package Lifetimes==0.11.3 is not installed")
    file = Path(next(iter(found.submodule_search_locations))) / "datasets" / "CDNOW_sample.txt"
    rows = pd.read_csv(
        file, sep=r"\s+", header=None, names=["master", "who", "day", "items", "paid"]
    )
    rows["day"] = pd.to_datetime(rows["day"].astype(str), format="%Y%m%d").dt.date
    customers = histories(
        _log(spark, rows[["who", "day", "paid"]], until=dt.date(1997, 10, 1)),
        until=dt.date(1997, 10, 1), grid=None, unit_days=7.0,
    )  # fmt: skip
    options = ClvOptions(frequency="frequency", recency="recency", age="age")
    fitted = run(fit(options), SparkEngine(customers)).purchases
    assert fitted.n == 2357
    np.testing.assert_allclose(fitted.parameters, [0.243, 4.414, 0.793, 2.426], atol=1e-3)
    assert fitted.log_likelihood == pytest.approx(-9582.4, abs=0.5)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("who", None, "who is missing or infinite.*given: 1 of 7 rows"),
        ("day", None, "day is missing or infinite.*given: 1 of 7 rows"),
        ("paid", np.nan, "paid is missing or infinite.*given: 1 of 7 rows"),
        ("paid", np.inf, "paid is missing or infinite.*given: 1 of 7 rows"),
    ],
)
def test_missing_values_stop_the_job(
    spark: SparkSession, column: str, value: object, text: str
) -> None:
    frame = LOG.copy()
    frame.loc[3, column] = value
    with pytest.raises(DataError, match=text):
        _log(spark, frame)


def test_what_the_spec_cannot_mean_is_said(
    spark: SparkSession, settings: Settings, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "value.yaml"
    text = SPEC % {"folder": folder}
    for old, new, message in (
        ("time: started_at", "time: began_at", "the source has no such column; given: began_at"),
        ("born: registered_on", "born: joined_on", "no such column; given: joined_on"),
        ("name: passenger_value", "name: passengers", "this is a table of the suite"),
        ("amount: fare", "amount: started_at", "unit, time and amount are three columns"),
        ("until: 2026-03-02", "until: 2020-01-01", "no"),
    ):
        file.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(CausalError, match=message) as caught:
            clv.run(Shared(spark, settings), clv.ClvConfig(spec=file))
        assert str(file) in str(caught.value)
    assert issubclass(SpecError, CausalError)
