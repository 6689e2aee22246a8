"""Linear learners on Hillstrom's e-mail experiment: the figures of three libraries."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.uplift import linear_uplift

OPTIONS: dict[str, Any] = {
    "outcome": "visit", "treatment": "segment", "treated": "Womens E-Mail", "control": "No E-Mail",
    "covariates": ["recency", "history", "mens", "womens", "newbie"],
    "categorical": {"zip_code": "Rural", "channel": "Phone"},
    "learners": ["t", "x", "s", "dr", "r"], "segments": ["channel"],
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(validation_data: Path) -> pd.DataFrame:
    return pd.read_csv(validation_data / "hillstrom.csv")


@pytest.fixture(scope="module")
def found(rows: pd.DataFrame) -> Result:
    spec = validate(
        linear_uplift.SPEC,
        {
            "name": "golden", "source": {"table": "rows"}, "method": "uplift", "options": OPTIONS,
        },
    )  # fmt: skip
    return run(linear_uplift.estimate(spec), PandasEngine(rows))


def scores(found: Result, learner: str) -> Any:
    table = found.tables["scores"]
    return table[table["learner"] == learner].iloc[0]


def test_up1_t_learner(found: Result) -> None:
    own = scores(found, "t")
    assert own["n"] == 42_693
    assert own["mean"] == pytest.approx(0.0454096330, abs=1e-9)
    assert own["sd"] == pytest.approx(0.0324184419, abs=1e-9)
    assert own["highest"] == pytest.approx(0.0892382416, abs=1e-8)
    table = found.tables["coefficients"]
    womens = table[(table["learner"] == "t") & (table["term"] == "womens")]
    assert womens["estimate"].iloc[0] == pytest.approx(0.0623713138, abs=1e-9)


@pytest.mark.parametrize(
    ("learner", "mean"), [("x", 0.0454096330), ("s", 0.0454091165), ("dr", 0.0454096330)]
)
def test_up1_means_of_the_other_learners(found: Result, learner: str, mean: float) -> None:
    assert scores(found, learner)["mean"] == pytest.approx(mean, abs=1e-9)


def test_up1_error_of_the_doubly_robust_mean(found: Result) -> None:
    (own,) = [e for e in found.effects if e.estimator == "dr_learner" and e.estimand == "ate"]
    assert own.estimate == pytest.approx(0.0454096330, abs=1e-9)
    assert own.std_error == pytest.approx(0.0031920663, abs=1e-8)


def test_the_expression_gives_the_scores(found: Result, rows: pd.DataFrame) -> None:
    used = rows[rows["segment"].isin(["Womens E-Mail", "No E-Mail"])]
    own = scores(found, "t")
    with sqlite3.connect(":memory:") as connection:
        used.to_sql("rows", connection)
        text = own["expression"]
        score = pd.read_sql(f"select {text} as score from rows", connection)["score"]
    assert score.mean() == pytest.approx(own["mean"], abs=1e-12)
    assert np.std(score) == pytest.approx(own["sd"], abs=1e-12)
    assert score.max() == pytest.approx(own["highest"], abs=1e-12)
