"""Regressions of first days: the search, its errors, what is refused, models by their hash."""

import base64
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causal.clv import deciles
from causal.clv.early_report import EarlySpendReport
from causal.clv.early_spend import SPEC, TARGET, EarlySpendSpec, Search, search
from causal.clv.model_files import model_text, read_model
from causal.core.errors import DataError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.spec import validate
from causal.uplift.learners import dumped


def spec(**options: Any) -> EarlySpendSpec:
    given: dict[str, Any] = {
        "unit": "unit", "time": "t", "amount": "a", "units": {"table": "u", "born": "b"},
        "until": "2026-01-01", "categorical": ["city"],
        "families": {
            "mean": {}, "ridge": {"penalty": [1.0, 1e6]},
            "random_forest": {"n_estimators": [20], "max_depth": [4]},
        },
    }  # fmt: skip
    data = {"name": "early", "source": {"table": "x"}, "method": "early_spend", "seed": 5}
    return validate(SPEC, {**data, "options": {**given, **options}})


def customers(n: int = 3000, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frequency = rng.poisson(1.5, n).astype(float)
    money = frequency * rng.gamma(4.0, 2.0, n)
    city = rng.choice(["lisbon", "madrid"], n)
    mean = 5 + 3 * money + 4 * (city == "lisbon")
    return pd.DataFrame(
        {
            "unit": np.arange(n),
            "recency_7": np.where(frequency > 0, rng.uniform(0, 7, n), 0.0),
            "frequency_7": frequency,
            "monetary_7": money,
            "city": city,
            TARGET: rng.gamma(1.0, mean),
        }
    )


def sample(frame: pd.DataFrame, given: EarlySpendSpec) -> pd.DataFrame:
    return PandasEngine(frame)(given.request())


@pytest.fixture(scope="module")
def found() -> Search:
    return search(spec(), sample(customers(), spec()))


def test_out_of_fold_errors_are_those_of_scikit_learn() -> None:
    given = spec(families={"ridge": {"penalty": [30.0]}}, categorical=[])
    rows = sample(customers(), given)
    found = search(given, rows)
    bucket = rows["(bucket)"].to_numpy()
    kept = bucket >= 250
    x = rows.loc[kept, ["recency_7", "frequency_7", "monetary_7"]].to_numpy()
    y, fold = rows.loc[kept, TARGET].to_numpy(), bucket[kept] % 5
    predicted = np.empty(len(y))
    for one in range(5):
        model = make_pipeline(StandardScaler(), Ridge(alpha=30.0)).fit(
            x[fold != one], y[fold != one]
        )
        predicted[fold == one] = model.predict(x[fold == one]).clip(min=0.0)
    squares = (y - predicted) ** 2
    row = found.table.iloc[0]
    assert row["rmse"] == pytest.approx(squares.mean() ** 0.5, rel=1e-9)
    upper = squares.mean() + 1.959964 * squares.std(ddof=1) / len(y) ** 0.5
    assert row["ci_upper"] == pytest.approx(upper**0.5, rel=1e-6)
    assert row["mae"] == pytest.approx(np.abs(y - predicted).mean(), rel=1e-9)
    assert found.n_searched == kept.sum()
    assert len(found.held_out) == (~kept).sum()


def test_the_best_candidate_wins_and_is_judged_on_others(found: Search) -> None:
    table = found.table
    assert table["rmse"].is_monotonic_increasing
    assert (table["worse_by"] >= 0).all()
    assert table.iloc[0][["worse_by", "std_error"]].tolist() == [0.0, 0.0]
    assert table["candidate"].tolist().index("mean") > table["candidate"].tolist().index(
        "ridge(penalty=1)"
    )
    assert found.model.candidate.name == table["candidate"].iloc[0]
    errors = found.errors
    assert errors["rmse_lower"] < errors["rmse"] < errors["rmse_upper"] < errors["rmse_mean"]
    off = found.held_out["actual"] - found.held_out["predicted"]
    assert errors["rmse"] == pytest.approx((off**2).mean() ** 0.5)
    assert errors["rank_correlation"] == pytest.approx(
        found.held_out.corr("spearman").iloc[0, 1], rel=1e-9
    )


def test_the_same_seed_gives_the_same_model(found: Search) -> None:
    shuffled = customers().sample(frac=1.0, random_state=3)
    again = search(spec(), sample(shuffled, spec()))
    pd.testing.assert_frame_equal(again.table, found.table)
    columns = [customers()[name] for name in found.model.inputs]
    np.testing.assert_array_equal(again.model.score(columns), found.model.score(columns))


def test_nothing_is_scored_wrongly_in_silence(found: Search) -> None:
    rows = customers(50, seed=2)
    columns = {name: rows[name] for name in found.model.inputs}
    unseen = columns | {"city": rows["city"].where(rows.index > 2, "atlantis")}
    with pytest.raises(
        DataError, match=r"city has levels.*given: atlantis; allowed: lisbon, madrid"
    ):
        found.model.score(list(unseen.values()))
    lost = columns | {"city": rows["city"].where(rows.index > 2)}
    with pytest.raises(DataError, match="city has levels that the model was not trained on, or is"):
        found.model.score(list(lost.values()))
    holed = columns | {"monetary_7": rows["monetary_7"].where(rows.index > 2)}
    with pytest.raises(DataError, match="monetary_7 is missing or infinite; given: 3 customers"):
        found.model.score(list(holed.values()))


def test_models_are_read_by_their_hash_alone(found: Search) -> None:
    text, sha256 = model_text(found.model)
    columns = [customers(50, seed=2)[name] for name in found.model.inputs]
    again = read_model(text, sha256=sha256)
    np.testing.assert_array_equal(again.score(columns), found.model.score(columns))
    data = json.loads(text)
    other = base64.b64encode(base64.b64decode(data["model"]) + b" ").decode()
    with pytest.raises(DataError, match="is not the recorded one"):
        read_model(json.dumps(data | {"model": other}), sha256=sha256)
    with pytest.raises(DataError, match="is not the recorded one"):
        read_model(text, sha256="0" * 64)
    for damaged in (text[:-9], "[]", json.dumps(data | {"model": "?"}), json.dumps({"a": 1})):
        with pytest.raises(DataError, match="no file of a model, or it is damaged"):
            read_model(damaged, sha256=sha256)
    raw, own = dumped({"not": "a model"})  # type: ignore[arg-type]  # that is the point
    text = json.dumps({"model": base64.b64encode(raw).decode()})
    with pytest.raises(DataError, match="a model of something else; given: dict"):
        read_model(text, sha256=own)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"amount": None}, "amount and units are required"),
        ({"units": None}, "amount and units are required"),
        ({"families": {"ridge": {"alpha": [1.0]}}}, "ridge has no parameter alpha"),
        ({"families": {"ridge": {"penalty": []}}}, "a parameter needs one value"),
        ({"families": {"ridge": {"penalty": list(range(1, 70))}}}, "more than the 64 allowed"),
        ({"families": {"lasso": {}}}, "families"),
        ({"stored": {"path": "x", "sha256": "abc"}}, "sha256"),
    ],
)
def test_specs_that_mean_nothing_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        spec(**options)


def test_data_that_teach_nothing_are_refused() -> None:
    given = spec(categorical=[])
    with pytest.raises(DataError, match="too few customers"):
        search(given, sample(customers(150), given))
    with pytest.raises(DataError, match="everyone spent the same"):
        search(given, sample(customers().assign(**{TARGET: 3.0}), given))
    lost = customers()
    lost.loc[5, "city"] = None
    with pytest.raises(DataError, match="city is missing; given: 1 customers"):
        search(spec(), sample(lost, spec()))


def test_the_report_says_what_the_search_found(found: Search) -> None:
    text, sha256 = model_text(found.model)
    report = EarlySpendReport(spec=spec(), found=found, text=text, sha256=sha256, counts=(3000, 7))
    result = report.result
    assert result.failed_checks == ()
    assert result.diagnostics[0].statistic == 7
    table = result.tables["deciles_spend"]
    held = found.held_out
    assert table["n"].sum() == len(held)
    assert (table["n"] * table["actual"]).sum() == pytest.approx(held["actual"].sum())
    assert (table["n"] * table["predicted"]).sum() == pytest.approx(held["predicted"].sum())
    assert set(report.nested()) == set(found.table["candidate"])
    assert sha256 in report.sentences()[-1]
    for figure in report.figures().values():
        assert figure.axes[0].get_xlabel()


def test_the_back_test_allows_for_the_error_of_the_fitted_level(found: Search) -> None:
    """As a mean of the searched foretells one of the others: variances of both add up."""
    test = EarlySpendReport(spec=spec(), found=found, text="", sha256="", counts=(0, 0)).backtest
    off = found.held_out["predicted"] - found.held_out["actual"]
    n = len(off)
    alone = (test.table["n"] * test.table["std_error"]).pow(2).sum()
    expected = alone + n**2 * (off**2).mean() / found.n_searched
    assert test.std_error == pytest.approx(np.sqrt(expected), rel=1e-9)


def test_a_back_test_sees_a_bias_and_has_the_errors_of_its_groups() -> None:
    rng = np.random.default_rng(3)
    predicted = rng.gamma(2.0, 2.0, 4000)
    actual = rng.poisson(predicted).astype(float)
    group = (predicted > np.median(predicted)).astype(int)
    frame = pd.DataFrame({"p": predicted, "a": actual, deciles.GROUP: group})
    frame["e"] = (frame["p"] - frame["a"]).abs()
    asked = deciles.request(predicted="p", actual="a", error="e")
    fair = deciles.backtest(PandasEngine(frame)(asked), asked, what="trips")
    assert fair.check.passed
    off = frame["a"] - frame["p"]
    assert fair.rmse == pytest.approx((off**2).mean() ** 0.5)
    assert fair.mae == pytest.approx(frame["e"].mean())
    assert fair.correlation == pytest.approx(np.corrcoef(predicted, actual)[0, 1])
    errors = off.groupby(group).std() / np.sqrt(2000)
    np.testing.assert_allclose(fair.table["std_error"], errors, rtol=1e-9)
    assert fair.std_error == pytest.approx(np.sqrt(((errors * 2000) ** 2).sum()))
    biased = frame.assign(p=0.8 * frame["p"], e=(0.8 * frame["p"] - frame["a"]).abs())
    found = deciles.backtest(PandasEngine(biased)(asked), asked, what="trips")
    assert not found.check.passed
    holed = frame.assign(a=frame["a"].where(frame.index > 3))
    with pytest.raises(DataError, match="no trips to compare; given: 4 units"):
        deciles.backtest(PandasEngine(holed)(asked), asked, what="trips")
