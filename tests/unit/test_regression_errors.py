"""What `ols` and `iv` refuse, what they note, and that pages and options say the same."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from causal.core import registry
from causal.core.errors import CausalError, DataError, InferenceError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate

PAGES = Path(__file__).resolve().parents[2] / "docs" / "methods"


def rows(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "id": np.arange(n), "firm": np.arange(n) % 12,
            "g": np.array(list("ab"))[np.arange(n) % 2],
            "h": np.array(list("uvw"))[np.arange(n) % 3], "x": rng.normal(size=n),
            "z": rng.normal(size=n), "far": rng.normal(size=n), "w": 1.0,
        }
    )  # fmt: skip
    frame["d"] = frame["z"] + rng.normal(size=n)
    frame["y"] = frame["d"] + frame["x"] + rng.normal(size=n)
    return frame


def analyse(method: str, frame: pd.DataFrame, **options: object) -> Result:
    data = {"name": "a", "source": {"table": "t"}, "method": method, "options": options}
    module = registry.method(method)
    return run(
        module.estimate(validate(module.SPEC, {**data, "options": {"outcome": "y", **options}})),
        PandasEngine(frame),
    )


def passed(result: Result) -> dict[str, bool | None]:
    return {item.name: item.passed for item in result.diagnostics}


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("ols", {"numeric": ["x"], "interactions": [["x", "z"]]}, "needs z among the regressors"),
        ("ols", {"numeric": ["x", "y"]}, "column used in two roles: y"),
        ("ols", {"numeric": ["x"], "covariance": "CR3"}, "covariance CR3 needs cluster"),
        ("ols", {"numeric": ["x"], "cluster": "firm", "covariance": "HC1"}, "cluster goes with"),
        (
            "ols",
            {"numeric": ["x"], "cluster": ["firm", "g"], "covariance": "CR2"},
            "takes one column",
        ),
        (
            "ols",
            {"numeric": ["x"], "cluster": ["firm", "g", "id"]},
            r"cluster takes one column, or two.*given: \['firm', 'g', 'id'\]",
        ),
        ("ols", {"numeric": ["x"], "small_sample": "stata"}, "small_sample of covariance HC1"),
        (
            "ols",
            {"numeric": ["x"], "cluster": "firm", "reference": "satterthwaite"},
            "reference satterthwaite goes with covariance: CR2",
        ),
        ("ols", {"numeric": ["x"], "tests": {"t": ["q"]}}, "no such coefficient"),
        ("iv", {"treatment": ["d", "x"], "instruments": "z"}, "2 treatments need as many"),
        ("iv", {"treatment": "d", "instruments": "z", "covariance": "HC3"}, "is for least squares"),
        ("iv", {"treatment": "d", "instruments": "d"}, "column used in two roles: d"),
        (
            "iv",
            {"treatment": "d", "instruments": "z", "fuller": 4.0},
            "goes with estimator: fuller",
        ),
    ],
    ids=str,
)
def test_a_wrong_spec_is_refused(method: str, options: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        analyse(method, rows(), **options)


@pytest.mark.parametrize(
    ("method", "options", "kind", "message"),
    [
        ("ols", {"numeric": ["x", "twice"]}, InferenceError, "collinear.*given: twice"),
        ("ols", {"numeric": ["x", "per_firm"], "absorb": "firm"}, InferenceError, "per_firm"),
        ("ols", {"numeric": ["x"], "categorical": {"g": "q"}}, DataError, "reference level of g"),
        ("ols", {"numeric": ["x"], "unit": "firm"}, DataError, "firm must identify the rows"),
        ("ols", {"numeric": ["x"], "cluster": "holes"}, DataError, "holes is null in some rows"),
        ("ols", {"numeric": ["x"], "weight": "z"}, DataError, "weights must not be negative"),
        ("ols", {"numeric": ["x"], "weight": "zero"}, DataError, "zero is 0 in every row"),
        (
            "iv",
            {"treatment": "d", "instruments": "z", "weight": "zero"},
            DataError, "zero is 0 in every row",
        ),
        ("ols", {"numeric": ["x"], "cluster": "one"}, InferenceError, "two or more clusters"),
        ("ols", {"numeric": ["spike"], "covariance": "HC3"}, InferenceError, "so much leverage"),
        ("ols", {"numeric": ["spike"], "cluster": "id", "covariance": "CR3"}, InferenceError, "C"),
        ("ols", {"numeric": ["y2"]}, InferenceError, "explain y exactly"),
        ("ols", {"numeric": ["x"], "absorb": "firm", "cluster": "g3"}, DataError, "one cluster"),
        ("iv", {"treatment": "d", "instruments": ["z", "z2"]}, InferenceError, "given: z2"),
        ("iv", {"treatment": "d", "instruments": "nothing"}, InferenceError, "do not move"),
        (
            "iv",
            {"treatment": "d", "instruments": "z", "characteristics": ["x"]},
            DataError, "that are 0 or 1",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_data_that_cannot_carry_it_are_refused(
    method: str, options: dict, kind: type[CausalError], message: str
) -> None:
    frame = rows().assign(
        twice=lambda f: 2 * f["x"] + 1, per_firm=lambda f: f["firm"] * 3.0, one=1, zero=0.0,
        holes=lambda f: f["firm"].mask(f["id"] == 5), spike=lambda f: (f["id"] == 0) * 1.0,
        y2=lambda f: f["y"] * 2, z2=lambda f: 3 - f["z"], g3=lambda f: f["id"] % 5,
    )  # fmt: skip
    resid = frame["far"] - np.polyval(np.polyfit(frame["d"], frame["far"], 1), frame["d"])
    with pytest.raises(kind, match=message) as caught:
        analyse(method, frame.assign(nothing=resid), **options)
    assert "\n" not in str(caught.value)


def test_an_infinite_outcome_is_named_by_its_column() -> None:
    frame = rows()
    frame["used"], frame["invited"] = (frame["d"] > 0).astype(int), (frame["z"] > 0).astype(int)
    frame.loc[frame.index[3], "y"] = np.inf

    with pytest.raises(DataError, match=r"NaN or infinite values; given: y$"):
        analyse("iv", frame, treatment="used", instruments="invited", characteristics=["x"])


def test_collinear_columns_can_be_dropped_by_name() -> None:
    frame = rows().assign(twice=lambda f: 2 * f["x"] + 1)
    base = analyse("ols", frame, numeric=["x", "z"])
    found = analyse("ols", frame, numeric=["x", "z", "twice"], collinear="drop")

    assert "twice" in next(d.detail for d in found.diagnostics if d.name == "dropped_columns")
    assert [item.std_error for item in found.effects] == pytest.approx(
        [item.std_error for item in base.effects], rel=1e-10
    )


def test_cells_without_rows_are_left_out_and_named() -> None:
    frame = rows().query("not (g == 'b' and h == 'w')")
    found = analyse("ols", frame, categorical={"g": None, "h": None}, interactions=[["g", "h"]])

    assert "g=b:h=w" in next(d.detail for d in found.diagnostics if d.name == "dropped_columns")
    assert [item.term for item in found.effects] == ["intercept", "g=b", "h=v", "h=w", "g=b:h=v"]


def test_missing_rows_are_counted() -> None:
    frame = rows()
    frame.loc[:6, "x"] = np.nan
    found = analyse("ols", frame, numeric=["x", "z"])

    assert next(d.statistic for d in found.diagnostics if d.name == "n_missing") == 7
    assert found.params["n"] == 113


def test_more_coefficients_than_clusters_fails() -> None:
    frame = rows().assign(few=lambda f: f["id"] % 3)
    found = analyse("ols", frame, numeric=["x", "z", "far"], cluster="few")

    assert passed(found)["clusters_against_coefficients"] is False
    assert np.isnan(found.tables["tests"]["statistic"]).all()


def test_weak_instruments_fail_and_the_set_is_unbounded() -> None:
    frame = rows().assign(weak=lambda f: f["far"] + 0.05 * f["z"])
    found = analyse("iv", frame, treatment="d", instruments="weak")
    (test,) = [item for item in found.diagnostics if item.name == "anderson_rubin"]

    assert passed(found)["effective_f"] is False
    assert "unbounded" in test.detail or "the whole line" in test.detail
    assert np.isinf(found.tables["anderson_rubin_set"][["lower", "upper"]]).any(axis=None)


def test_contradicting_instruments_give_an_empty_set() -> None:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(rng.normal(size=(800, 3)), columns=["z1", "z2", "e"])
    frame["d"] = frame["z1"] + frame["z2"] + frame["e"]
    frame["y"] = frame["z1"] - frame["z2"] + rng.normal(size=800)
    for covariance in ("classical", "HC1"):
        found = analyse("iv", frame, treatment="d", instruments=["z1", "z2"], covariance=covariance)
        (test,) = [item for item in found.diagnostics if item.name == "anderson_rubin"]
        assert "empty" in test.detail
        assert found.tables["anderson_rubin_set"].empty
        assert passed(found)["sargan" if covariance == "classical" else "hansen_j"] is False


@pytest.mark.parametrize("name", ["ols", "iv", "did"])
def test_the_specs_of_the_page_are_valid(name: str) -> None:
    blocks = re.findall(
        r"```yaml\n(.*?)```", (PAGES / f"{name}.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert blocks
    for block in blocks:
        spec = validate(registry.method(name).SPEC, yaml.safe_load(block))
        assert spec.method == name
