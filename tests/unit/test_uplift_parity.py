"""Linear learners from aggregates against programs and derivatives on the raw rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats

from causal.core.errors import CausalError, DataError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import dml
from causal.uplift import linear_uplift

Matrix = NDArray[Any]


def rows(*, seed: int = 5, n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age, spend = rng.normal(40, 12, n), rng.gamma(2.0, 50.0, n)
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-0.03 * (age - 40) - 0.2))).astype(float)
    place = rng.integers(0, 25, n)
    y = 1e4 + age + 0.1 * spend + t * (3 + 0.2 * (age - 40) - 0.01 * spend)
    y += rng.normal(size=25)[place] + rng.normal(size=n) * (1 + t)
    tier = np.array(["a", "b"])[rng.integers(0, 2, n)]
    return pd.DataFrame({"t": t, "age": age, "spend": spend, "place": place, "y": y, "tier": tier})


ROWS = rows()
T, Y = ROWS["t"].to_numpy(), ROWS["y"].to_numpy()
X = np.column_stack([np.ones(len(ROWS)), ROWS["age"], ROWS["spend"]])
V = X[:, :2]
B = (ROWS["tier"] == "b").to_numpy(dtype=float)


def analysed(frame: pd.DataFrame = ROWS, **options: Any) -> Result:
    design = {"outcome": "y", "treatment": "t", "covariates": ["age", "spend"]}
    spec = validate(
        linear_uplift.SPEC,
        {
            "name": "parity", "source": {"table": "rows"}, "method": "uplift",
            "options": design | options,
        },
    )  # fmt: skip
    return run(linear_uplift.estimate(spec), PandasEngine(frame))


def coefficients(result: Result, learner: str) -> pd.DataFrame:
    table = result.tables["coefficients"]
    return table[table["learner"] == learner].set_index("term")


def least_squares(x: Matrix, y: Matrix, w: Matrix) -> Matrix:
    return np.linalg.solve((x * w[:, None]).T @ x, (x * w[:, None]).T @ y)


def reference(learner: str, w: Matrix) -> Matrix:
    """Coefficients, mean effect and that of tier b, of rows that count w times."""
    y = Y - Y.mean()
    if learner == "s":
        theta = np.append(least_squares(np.column_stack([X, T]), y, w)[-1], [0.0, 0.0])
    b0, b1 = least_squares(X, y, w * (1 - T)), least_squares(X, y, w * T)
    if learner == "t":
        theta = b1 - b0
    if learner == "x":
        e = (w * T).sum() / w.sum()
        g1 = least_squares(V, y - X @ b0, w * T)
        g0 = least_squares(V, X @ b1 - y, w * (1 - T))
        theta = np.append(e * g0 + (1 - e) * g1, 0.0)
    effect = X @ theta
    means = [(w * effect).sum() / w.sum(), (w * B * effect).sum() / (w * B).sum()]
    return np.append(theta, means)


def derivatives(learner: str) -> Matrix:
    """The influence of every row, by complex steps in its weight, shape (n, 5)."""
    found = []
    for i in range(len(T)):
        w = np.ones(len(T), dtype=complex)
        w[i] += 1e-30j
        found.append(reference(learner, w).imag / 1e-30)
    return np.array(found)


@pytest.mark.parametrize("cluster", [None, "place"])
@pytest.mark.parametrize(("learner", "k"), [("t", 6), ("s", 4), ("x", 6)])
def test_errors_are_those_of_the_derivatives(learner: str, k: int, cluster: str | None) -> None:
    result = analysed(
        learners=["dr", learner], effect_columns=["age"], segments=["tier"], cluster=cluster,
        covariance="CR1" if cluster else "HC1",
    )  # fmt: skip
    influence = derivatives(learner)
    n = len(T)
    factors = (n / (n - k), n / (n - 1))
    if cluster:
        influence = pd.DataFrame(influence).groupby(ROWS[cluster]).sum().to_numpy()
        g = len(influence)
        factors = (g / (g - 1) * (n - 1) / (n - k), g / (g - 1))
    errors = np.sqrt((influence**2).sum(axis=0))
    theta = reference(learner, np.ones(n))

    table = coefficients(result, learner)
    size = len(table)
    np.testing.assert_allclose(table["estimate"], theta[:size], rtol=1e-8)
    np.testing.assert_allclose(table["std_error"], errors[:size] * factors[0] ** 0.5, rtol=1e-8)
    effects = [e for e in result.effects if e.estimator == f"{learner}_learner"]
    found = [e for e in effects if e.term in {"t", "tier=b"}]
    size = len(found)
    assert size == (1 if learner == "s" else 2)
    assert [e.estimate for e in found] == pytest.approx(theta[3 : 3 + size], rel=1e-8)
    expected = errors[3 : 3 + size] * factors[1] ** 0.5
    assert [e.std_error for e in found] == pytest.approx(expected, rel=1e-8)
    assert found[-1].n_treated == int(T.sum() if size == 1 else (T * B).sum())


@pytest.mark.parametrize("kind", ["HC1", "HC3"])
@pytest.mark.parametrize("learner", ["t", "x", "r"])
def test_learners_of_all_columns_are_the_interacted_regression_of_statsmodels(
    learner: str, kind: str
) -> None:
    """Where treatment was randomised with one share; HC3 is what is reported if nothing is said."""
    said: dict[str, Any] = {} if kind == "HC3" else {"covariance": kind}
    result = analysed(learners=[learner], **said)
    found = coefficients(result, learner)
    fit = sm.OLS(Y, np.column_stack([X, X * T[:, None]])).fit(cov_type=kind)

    np.testing.assert_allclose(found["estimate"], fit.params[3:], rtol=1e-7)
    np.testing.assert_allclose(found["std_error"], fit.bse[3:], rtol=1e-7)
    low, high = fit.conf_int()[3:].T
    np.testing.assert_allclose(found["ci_lower"], low, rtol=1e-6)
    np.testing.assert_allclose(found["ci_upper"], high, rtol=1e-6)
    assert set(found["covariance"]) == {kind}


def test_s_learner_has_the_errors_of_statsmodels() -> None:
    fit = sm.OLS(Y, np.column_stack([X, T])).fit(cov_type="HC3")
    found = coefficients(analysed(learners=["s"]), "s")
    assert found["std_error"].tolist() == pytest.approx([fit.bse[3]], rel=1e-8)


@pytest.mark.parametrize("learner", ["t", "s", "x", "dr", "r"])
def test_clusters_are_left_out_in_turn(learner: str) -> None:
    """CR3 is the jackknife: the learner itself, of the rows that remain."""
    options: dict[str, Any] = {"learners": ["dr", learner] if learner != "dr" else ["dr"]}
    if learner in {"x", "dr", "r"}:
        options["effect_columns"] = ["age"]
    found = coefficients(analysed(cluster="place", **options), learner)
    again = [
        coefficients(analysed(part, covariance="HC1", **options), learner)["estimate"].to_numpy()
        for part in (ROWS[ROWS["place"] != place] for place in ROWS["place"].unique())
    ]
    changes = np.array(again) - found["estimate"].to_numpy()
    np.testing.assert_allclose(found["std_error"], (changes**2).sum(axis=0) ** 0.5, rtol=1e-6)


def test_clusters_left_out_of_a_logistic_study_keep_its_propensity() -> None:
    options: dict[str, Any] = {
        "learners": ["dr", "r"], "effect_columns": ["age"], "propensity": "logistic",
        "cluster": "place",
    }  # fmt: skip
    result, p = analysed(**options), logit()
    kept = [(ROWS["place"] != place).to_numpy() for place in ROWS["place"].unique()]
    for learner, estimate in (("dr", dense_dr), ("r", dense_r)):
        whole = estimate(np.ones(len(T)), p)
        changes = np.array([estimate(own.astype(float), p) - whole for own in kept])
        found = coefficients(result, learner)
        np.testing.assert_allclose(found["estimate"], whole, rtol=1e-6)
        np.testing.assert_allclose(found["std_error"], (changes**2).sum(axis=0) ** 0.5, rtol=1e-5)


def test_heterogeneity_over_clusters_is_hotellings() -> None:
    fit = sm.OLS(Y, np.column_stack([X, T[:, None] * X])).fit(
        cov_type="cluster", cov_kwds={"groups": ROWS["place"].to_numpy()}
    )
    slopes, covariance = fit.params[4:], fit.cov_params()[4:, 4:]
    chi2, df = slopes @ np.linalg.solve(covariance, slopes), ROWS["place"].nunique() - 1
    expected = (df - 1) / (df * 2) * chi2
    checks = analysed(learners=["t"], cluster="place", covariance="CR1").diagnostics
    found = next(item for item in checks if item.name == "heterogeneity.t")

    assert found.statistic == pytest.approx(expected, rel=1e-6)
    assert found.pvalue == pytest.approx(stats.f.sf(expected, 2, df - 1), rel=1e-6)


def test_x_learner_of_all_columns_is_the_t_learner() -> None:
    result = analysed(learners=["t", "x"])
    t, x = coefficients(result, "t"), coefficients(result, "x")

    np.testing.assert_allclose(
        x[["estimate", "std_error"]], t[["estimate", "std_error"]], rtol=1e-8
    )


def doubly_robust(p: Matrix, w: Matrix) -> Matrix:
    b0, b1 = (least_squares(X, Y, w * arm) for arm in (1 - T, T))
    psi = (X @ b1 - X @ b0) + T * (Y - X @ b1) / p - (1 - T) * (Y - X @ b0) / (1 - p)
    return np.asarray(psi)


def dense_dr(w: Matrix, p: Matrix) -> Matrix:
    return least_squares(V, doubly_robust(p, w), w)


def dense_r(w: Matrix, p: Matrix) -> Matrix:
    return least_squares(np.column_stack([X, V * (T - p)[:, None]]), Y, w)[X.shape[1] :]


def logit() -> Matrix:
    z = (X[:, 1:] - X[:, 1:].mean(axis=0)) / X[:, 1:].std(axis=0)
    fit = sm.Logit(T, sm.add_constant(z)).fit(disp=0, method="newton", tol=1e-14, maxiter=50)
    return np.asarray(fit.predict())


def leverages(x: Matrix) -> Matrix:
    return np.asarray(((x @ np.linalg.inv(x.T @ x)) * x).sum(axis=1))


@pytest.mark.parametrize("propensity", ["share", 0.6, "logistic"])
def test_dr_and_r_learners_are_regressions_of_their_scores(propensity: str | float) -> None:
    options: dict[str, Any] = {
        "learners": ["dr", "r"], "propensity": propensity, "effect_columns": ["age"],
        "segments": ["tier"],
    }  # fmt: skip
    ones = np.ones(len(T))
    p = {"share": T.mean() * ones, 0.6: 0.6 * ones, "logistic": logit()}[propensity]
    psi = doubly_robust(p, ones)
    joint = np.column_stack([X, V * (T - p)[:, None]])
    for kind in ("HC1", "HC3"):
        result = analysed(covariance=kind, **options)
        scores, residuals = sm.OLS(psi, V).fit(cov_type="HC1"), sm.OLS(Y, joint).fit(cov_type=kind)
        expected = scores.bse
        if kind == "HC3":
            b0, b1 = (least_squares(X, Y, arm) for arm in (1 - T, T))
            arms = [arm * leverages(X * arm[:, None]) for arm in (1 - T, T)]
            rest = X @ (b1 - b0) - V @ scores.params
            rest += T * (Y - X @ b1) / p / (1 - arms[1])
            rest -= (1 - T) * (Y - X @ b0) / (1 - p) / (1 - arms[0])
            left = V @ np.linalg.inv(V.T @ V) * (rest / (1 - leverages(V)))[:, None]
            expected = np.sqrt((left**2).sum(axis=0))
        found = coefficients(result, "dr")
        np.testing.assert_allclose(found["estimate"], scores.params, rtol=1e-6)
        np.testing.assert_allclose(found["std_error"], expected, rtol=1e-6)
        found = coefficients(result, "r")
        np.testing.assert_allclose(found["estimate"], residuals.params[3:], rtol=1e-6)
        np.testing.assert_allclose(found["std_error"], residuals.bse[3:], rtol=1e-6)
    whole = result.effects[0]
    assert whole.estimate == pytest.approx(psi.mean(), rel=1e-7)
    assert whole.std_error == pytest.approx(psi.std(ddof=1) / np.sqrt(len(psi)), rel=1e-7)


def test_r_learner_does_not_shrink_with_its_columns() -> None:
    """Fitting the outcome first, on the same rows, takes (k + 1) / n of the effect with it."""
    k, n, draws, rng = 20, 150, 40, np.random.default_rng(3)
    names = [f"x{j}" for j in range(k)]
    found, first = [], []
    for _ in range(draws):
        x = rng.normal(size=(n, k))
        t = np.asarray(np.arange(n) % 2, dtype=float)
        frame = pd.DataFrame(x, columns=names).assign(t=t, y=5 * t + 0.3 * rng.normal(size=n))
        result = analysed(
            frame, covariates=names, learners=["r"], effect_columns=["x0"], covariance="HC1"
        )
        found.append(result.effects[0].estimate)
        design = np.column_stack([np.ones(n), x])
        rest = frame["y"] - design @ least_squares(design, frame["y"].to_numpy(), np.ones(n))
        residual = (t - 0.5) * np.ones(n)
        first.append((residual @ rest) / (residual @ residual))
    assert np.mean(found) == pytest.approx(5, abs=0.04)
    assert np.mean(first) == pytest.approx(5 * (1 - k / (n - 1)), abs=0.15)


def test_rows_that_decide_their_own_fit_are_refused() -> None:
    frame = ROWS.assign(rare=(ROWS.index == 7).astype(float) + (ROWS.index == 8))
    frame.loc[[7, 8], "t"] = [0.0, 1.0]
    options: dict[str, Any] = {"covariates": ["age", "rare"], "learners": ["t"]}
    with pytest.raises(
        CausalError, match=r"alone determine a coefficient.*; given: 1 rows or more .*HC1"
    ):
        analysed(frame, **options)
    assert len(coefficients(analysed(frame, covariance="HC1", **options), "t")) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learners": ["t", "t"]}, "a learner stands twice"),
        ({"learners": ["t"], "effect_columns": ["age"]}, "effect_columns goes with"),
        ({"learners": ["t"], "propensity": "logistic"}, "propensity logistic goes with"),
        ({"effect_columns": ["size"]}, "size is no column that is adjusted for"),
        ({"segments": ["y"]}, "two roles"),
        ({"propensity": 1.0}, "propensity"),
        ({"covariance": "CR3"}, "CR1 or CR3 with cluster, HC1 or HC3 without"),
        ({"covariance": "HC3", "cluster": "place"}, "CR1 or CR3 with cluster"),
    ],
)
def test_what_does_not_go_together_is_refused(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(CausalError, match=message):
        analysed(**options)


def test_rows_without_a_segment_are_refused() -> None:
    frame = ROWS.assign(tier=ROWS["tier"].where(ROWS.index > 3))
    with pytest.raises(CausalError, match="tier is null in some rows"):
        analysed(frame, segments=["tier"])


def test_a_treatment_that_was_not_randomised_is_seen() -> None:
    frame = rows(n=2000)
    (check,) = [item for item in analysed(frame).diagnostics if item.name == "randomised"]
    fit = sm.OLS(frame["t"], sm.add_constant(frame[["age", "spend"]])).fit()

    assert check.passed is False
    assert check.statistic == pytest.approx(len(frame) * fit.rsquared, rel=1e-8)


def test_an_effect_that_is_the_same_for_all_has_one_score() -> None:
    result = analysed(learners=["s"])
    own = result.tables["scores"].iloc[0]
    assert own["sd"] == 0
    assert own["lowest"] == own["highest"] == own["mean"]
    assert result.tables["score_bins"]["n"].sum() == len(T)


def test_columns_of_the_effect_are_known_before_any_row_is_read() -> None:
    by_tier: dict[str, Any] = {"categorical": {"tier": None}, "interactions": [["age", "tier"]]}
    for name in ("age", "tier", "tier=b", "age:tier", "age:tier=b"):
        analysed(learners=["dr"], effect_columns=[name], **by_tier)
    with pytest.raises(SpecError, match=r"options\.effect_columns: .*place is no column .*\(age, "):
        analysed(learners=["dr"], effect_columns=["age", "place"], **by_tier)
    with pytest.raises(DataError, match=r"effect_columns names no column .*; given: tier=z"):
        analysed(learners=["dr"], effect_columns=["tier=z"], **by_tier)


def test_a_constant_outcome_is_a_matter_of_the_data() -> None:
    frame = ROWS.assign(y=3.0, user=range(len(ROWS)))
    with pytest.raises(DataError, match="y does not vary within either arm"):
        analysed(frame)
    options = {"outcome": "y", "treatment": "t", "covariates": ["age"], "unit": "user"}
    spec = validate(
        dml.SPEC,
        {"name": "parity", "source": {"table": "rows"}, "method": "dml", "options": options},
    )
    with pytest.raises(DataError, match="y does not vary within either arm"):
        run(dml.estimate(spec), PandasEngine(frame))
