"""Double machine learning from aggregates against numpy on the raw rows, with the same folds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray

from causal.core.buckets import bucket_numbers
from causal.core.errors import CausalError
from causal.core.frames import HashBucket
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect, Result
from causal.core.spec import validate
from causal.observational.sensitivity import e_value, robustness_value, standardised_risk_ratio
from causal.quasi import dml

Matrix = NDArray[Any]
N_FOLDS, SEED = 4, 9


def rows(*, seed: int = 3, n: int = 1200) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age, spend = rng.normal(40, 10, n), rng.gamma(2.0, 50.0, n)
    tier = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
    chance = 1 / (1 + np.exp(-0.05 * (age - 40) + 0.004 * (spend - 100) - 0.4 * (tier == "b")))
    t = (rng.uniform(size=n) < chance).astype(int)
    place = rng.integers(0, 60, n)
    y = 1e3 + 0.5 * age + 0.02 * spend + t * (4 + 0.1 * (age - 40)) + rng.normal(size=60)[place]
    return pd.DataFrame(
        {
            "id": [f"u{i}" for i in range(n)], "t": t, "age": age, "spend": spend, "tier": tier,
            "place": place, "y": y + rng.normal(size=n) * (1 + t),
        }
    )  # fmt: skip


ROWS = rows()
T, Y = ROWS["t"].to_numpy(dtype=float), ROWS["y"].to_numpy()
X = np.column_stack(
    [np.ones(len(ROWS)), ROWS["age"], ROWS["spend"], ROWS["tier"] == "b", ROWS["tier"] == "c"]
).astype(float)
Z = np.column_stack([X[:, :1], (X[:, 1:] - X[:, 1:].mean(axis=0)) / X[:, 1:].std(axis=0)])
DESIGN: Mapping[str, Any] = {
    "unit": "id", "outcome": "y", "treatment": "t", "covariates": ["age", "spend"],
    "categorical": {"tier": None}, "folds": N_FOLDS,
}  # fmt: skip


def analysed(frame: pd.DataFrame = ROWS, **options: Any) -> Result:
    spec = validate(
        dml.SPEC,
        {
            "name": "parity", "source": {"table": "rows"}, "method": "dml", "seed": SEED,
            "options": {**DESIGN, **options},
        },
    )  # fmt: skip
    return run(dml.estimate(spec), PandasEngine(frame))


def folds(column: str = "id", *, salt: int = SEED) -> Matrix:
    return bucket_numbers(ROWS[column], HashBucket(column, N_FOLDS, salt))


def fitted(x: Matrix, y: Matrix) -> Matrix:
    return np.linalg.lstsq(x, y, rcond=None)[0]


def nuisances(at: Matrix, model: str | float) -> dict[str, Matrix]:
    """Predictions in each fold of models of the others."""
    found = {name: np.zeros(len(T)) for name in ("g0", "g1", "l", "p")}
    for fold in range(N_FOLDS):
        own, rest = at == fold, at != fold
        for arm in (0, 1):
            found[f"g{arm}"][own] = Z[own] @ fitted(Z[rest & (arm == T)], Y[rest & (arm == T)])
        found["l"][own] = Z[own] @ fitted(Z[rest], Y[rest])
        if model == "logistic":
            fit = sm.Logit(T[rest], Z[rest]).fit(disp=0, method="newton", tol=1e-14, maxiter=99)
            found["p"][own] = fit.predict(Z[own])
        elif model == "linear":
            found["p"][own] = Z[own] @ fitted(Z[rest], T[rest])
        else:
            found["p"][own] = T[rest].mean() if model == "share" else model
    return found


def scores(name: str, estimand: str, own: dict[str, Matrix]) -> tuple[Matrix, Matrix]:
    g0, g1, p = own["g0"], own["g1"], own["p"]
    if name == "plr":
        return (T - p) * (Y - own["l"]), (T - p) ** 2
    if estimand == "att":
        return T * (Y - g0) - p * (1 - T) * (Y - g0) / (1 - p), T
    if estimand == "atc":
        return (1 - T) * (g1 - Y) + (1 - p) * T * (Y - g1) / p, 1 - T
    psi = g1 - g0 + T * (Y - g1) / p - (1 - T) * (Y - g0) / (1 - p)
    return psi, np.ones(len(T))


def solved(
    pair: tuple[Matrix, Matrix], rows_: Matrix, groups: Matrix | None = None
) -> tuple[float, float]:
    """The estimate and its error, as DoubleML's formulas give them."""
    top, bottom = pair[0][rows_], pair[1][rows_]
    estimate = top.sum() / bottom.sum()
    influence = (top - estimate * bottom) / bottom.sum()
    if groups is None:
        return estimate, np.sqrt((influence**2).sum())
    sums = pd.Series(influence).groupby(groups[rows_]).sum()
    return estimate, np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1))


def assert_is(effect: Effect, expected: tuple[float, float]) -> None:
    assert effect.estimate == pytest.approx(expected[0], rel=1e-8)
    assert effect.std_error == pytest.approx(expected[1], rel=1e-8)


EVERYONE = np.ones(len(T), dtype=bool)


@pytest.mark.parametrize("estimand", ["ate", "att", "atc"])
@pytest.mark.parametrize("propensity", ["logistic", "share", 0.4])
def test_the_interactive_model(estimand: str, propensity: str | float) -> None:
    result = analysed(estimand=estimand, propensity=propensity, segments=["tier"])
    pair = scores("aipw", estimand, nuisances(folds(), propensity))

    assert_is(result.effects[0], solved(pair, EVERYONE))
    for effect, tier in zip(result.effects[1:], "abc", strict=True):
        is_own = (ROWS["tier"] == tier).to_numpy()
        assert effect.term == f"tier={tier}"
        assert_is(effect, solved(pair, is_own))
        assert effect.n_treated == int(T[is_own].sum())


@pytest.mark.parametrize("propensity", ["logistic", "linear"])
def test_the_partially_linear_model(propensity: str) -> None:
    result = analysed(estimator="plr", propensity=propensity)
    pair = scores("plr", "ate", nuisances(folds(), propensity))

    assert result.effects[0].estimand == "overlap"
    assert_is(result.effects[0], solved(pair, EVERYONE))


def test_clusters_share_a_fold_and_their_errors() -> None:
    result = analysed(estimator=["aipw", "plr"], cluster="place", segments=["tier"])
    own, groups = nuisances(folds("place"), "logistic"), ROWS["place"].to_numpy()
    is_b = (ROWS["tier"] == "b").to_numpy()

    found = {(effect.estimator, effect.term): effect for effect in result.effects}
    for name in ("aipw", "plr"):
        pair = scores(name, "ate", own)
        assert_is(found[name, "t"], solved(pair, EVERYONE, groups))
        assert_is(found[name, "tier=b"], solved(pair, is_b, groups))
        assert found[name, "t"].df == ROWS["place"].nunique() - 1


def test_trimming_goes_by_the_cross_fitted_propensity() -> None:
    trim = {"rule": "fixed", "low": 0.35, "high": 0.7}
    result = analysed(trim=trim, estimator=["aipw", "plr"])
    own = nuisances(folds(), "logistic")
    kept = (own["p"] >= 0.35) & (own["p"] <= 0.7)

    for effect in result.effects:
        assert_is(effect, solved(scores(effect.estimator, "ate", own), kept))
    assert result.params["n_kept"] == kept.sum() < len(T)
    (note,) = [item for item in result.diagnostics if item.name == "trimmed_rows"]
    assert note.statistic == (~kept).sum()


def test_repetitions_give_their_median() -> None:
    found = [
        solved(scores("aipw", "ate", nuisances(folds(salt=SEED + r), "logistic")), EVERYONE)
        for r in range(3)
    ]
    estimates, errors = np.array(found).T
    middle = np.median(estimates)
    expected = np.sqrt(np.median(errors**2 + (estimates - middle) ** 2))

    assert_is(analysed(repetitions=3).effects[0], (middle, expected))


def test_the_placebo_is_the_analysis_of_a_hashed_coin() -> None:
    """Drawn here by hand and analysed as a treatment of its own."""
    result = analysed(estimator="plr", propensity="linear", refute=["placebo", "subset"])
    coin = bucket_numbers(ROWS["id"], HashBucket("id", 1_000_000, SEED + 7_919))
    frame = ROWS.assign(t=(coin < round(T.mean() * 1e6)).astype(int))
    again = analysed(frame, estimator="plr", propensity="linear").effects[0]
    part = bucket_numbers(ROWS["id"], HashBucket("id", 1_000_000, SEED + 32_452_843)) < 800_000
    fewer = analysed(ROWS[part], estimator="plr", propensity="linear").effects[0]

    table = result.tables["refutations"].set_index("refuter")
    assert table.loc["placebo", "estimate"] == pytest.approx(again.estimate, rel=1e-8)
    assert table.loc["placebo", "std_error"] == pytest.approx(again.std_error, rel=1e-8)
    assert table.loc["subset", "estimate"] == pytest.approx(fewer.estimate, rel=1e-8)
    assert table.loc["subset", "std_error"] == pytest.approx(fewer.std_error, rel=1e-8)


def test_one_more_cause_is_a_column_more() -> None:
    result = analysed(refute=["random_common_cause"])
    drawn = bucket_numbers(ROWS["id"], HashBucket("id", 1_000_000, SEED + 15_485_863))
    frame = ROWS.assign(extra=drawn / 1e6)
    again = analysed(frame, covariates=["age", "spend", "extra"]).effects[0]

    found = result.tables["refutations"].iloc[0]
    assert found["estimate"] == pytest.approx(again.estimate, rel=1e-8)


def test_sensitivity_is_that_of_its_own_functions() -> None:
    result = analysed(estimator=["aipw", "plr"], sensitivity=True)
    table = result.tables["sensitivity"].set_index(["estimator", "quantity"])["value"]
    aipw = result.effects[0]
    ratios = [
        standardised_risk_ratio(value, standard_deviation=Y.std(ddof=1))
        for value in (aipw.estimate, aipw.ci_lower, aipw.ci_upper)
    ]
    values = e_value(ratios[0], ci_lower=ratios[1], ci_upper=ratios[2])
    assert table["aipw", "e_value"] == pytest.approx(values.estimate, rel=1e-9)
    assert table["aipw", "e_value_interval"] == pytest.approx(values.interval, rel=1e-9)

    own = nuisances(folds(), "logistic")
    v, u = T - own["p"], Y - own["l"]
    df = len(T) - X.shape[1] - 1
    theta = (v * u).sum() / (v * v).sum()
    error = np.sqrt(((u - theta * v) ** 2).sum() / df / (v * v).sum())
    expected = robustness_value(theta / error, df=df)
    assert table["plr", "robustness_value"] == pytest.approx(expected, rel=1e-8)


def test_segments_that_cannot_carry_an_effect_are_named() -> None:
    odd = ROWS.assign(kind=np.where(ROWS.index < 2, "rare", "usual"))
    odd["kind"] = odd["kind"].where(ROWS.index != 5)
    odd["t"] = odd["t"].where(ROWS.index >= 2, 1)
    result = analysed(odd, segments=["kind"])
    (note,) = [item for item in result.diagnostics if item.name == "segments_left_out"]

    assert [effect.term for effect in result.effects] == ["t", "kind=usual"]
    assert "kind is null (1 rows)" in note.detail
    assert "kind=rare (2 treated of 2 rows)" in note.detail


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"propensity": "linear"}, "it goes with plr alone"),
        ({"estimator": "plr", "estimand": "att"}, "estimand goes with aipw"),
        ({"trim": {"rule": "crump", "refit": True}}, "leave out refit"),
        ({"folds": 1}, "folds"),
        ({"refute": ["subset", "subset"]}, "twice"),
        ({"segments": ["t"]}, "two roles"),
        ({"cluster": "home"}, "home is null in some rows"),
        ({"folds": 50}, "a fold has no row of one arm"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], message: str) -> None:
    frame = ROWS.head(200).assign(home=ROWS["place"].where(ROWS.index > 3))
    with pytest.raises(CausalError, match=message):
        analysed(frame, **options)
