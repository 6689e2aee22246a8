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
        learners=["dr", learner], effect_columns=["age"], segments=["tier"], cluster=cluster
    )
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


def test_t_learner_is_the_interacted_regression_of_statsmodels() -> None:
    found = coefficients(analysed(learners=["t"]), "t")
    design = np.column_stack([X, X * T[:, None]])
    fit = sm.OLS(Y, design).fit(cov_type="HC1")

    np.testing.assert_allclose(found["estimate"], fit.params[3:], rtol=1e-7)
    np.testing.assert_allclose(found["std_error"], fit.bse[3:], rtol=1e-7)


def test_heterogeneity_over_clusters_is_hotellings() -> None:
    fit = sm.OLS(Y, np.column_stack([X, T[:, None] * X])).fit(
        cov_type="cluster", cov_kwds={"groups": ROWS["place"].to_numpy()}
    )
    slopes, covariance = fit.params[4:], fit.cov_params()[4:, 4:]
    chi2, df = slopes @ np.linalg.solve(covariance, slopes), ROWS["place"].nunique() - 1
    expected = (df - 1) / (df * 2) * chi2
    checks = analysed(learners=["t"], cluster="place").diagnostics
    found = next(item for item in checks if item.name == "heterogeneity.t")

    assert found.statistic == pytest.approx(expected, rel=1e-6)
    assert found.pvalue == pytest.approx(stats.f.sf(expected, 2, df - 1), rel=1e-6)


def test_x_learner_of_all_columns_is_the_t_learner() -> None:
    result = analysed(learners=["t", "x"])
    t, x = coefficients(result, "t"), coefficients(result, "x")

    np.testing.assert_allclose(
        x[["estimate", "std_error"]], t[["estimate", "std_error"]], rtol=1e-8
    )


def doubly_robust(p: Matrix) -> Matrix:
    b0, b1 = (least_squares(X, Y, arm) for arm in (1 - T, T))
    return (X @ b1 - X @ b0) + T * (Y - X @ b1) / p - (1 - T) * (Y - X @ b0) / (1 - p)


def logit() -> Matrix:
    z = (X[:, 1:] - X[:, 1:].mean(axis=0)) / X[:, 1:].std(axis=0)
    fit = sm.Logit(T, sm.add_constant(z)).fit(disp=0, method="newton", tol=1e-14, maxiter=50)
    return np.asarray(fit.predict())


@pytest.mark.parametrize("propensity", ["share", 0.6, "logistic"])
def test_dr_and_r_learners_are_regressions_of_their_scores(propensity: str | float) -> None:
    result = analysed(
        learners=["dr", "r"], propensity=propensity, effect_columns=["age"], segments=["tier"]
    )
    p = {"share": np.full(len(T), T.mean()), 0.6: np.full(len(T), 0.6), "logistic": logit()}[
        propensity
    ]
    scores = sm.OLS(doubly_robust(p), V).fit(cov_type="HC1")
    rest = Y - X @ least_squares(X, Y, np.ones(len(T)))
    residuals = sm.OLS(rest, V * (T - p)[:, None]).fit(cov_type="HC1")

    for learner, fit in (("dr", scores), ("r", residuals)):
        found = coefficients(result, learner)
        np.testing.assert_allclose(found["estimate"], fit.params, rtol=1e-6)
        np.testing.assert_allclose(found["std_error"], fit.bse, rtol=1e-6)
    psi = doubly_robust(p)
    whole = result.effects[0]
    assert whole.estimate == pytest.approx(psi.mean(), rel=1e-7)
    assert whole.std_error == pytest.approx(psi.std(ddof=1) / np.sqrt(len(psi)), rel=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learners": ["t", "t"]}, "a learner stands twice"),
        ({"learners": ["t"], "effect_columns": ["age"]}, "effect_columns goes with"),
        ({"learners": ["t"], "propensity": "logistic"}, "propensity logistic goes with"),
        ({"effect_columns": ["size"]}, "size is no column that is adjusted for"),
        ({"segments": ["y"]}, "two roles"),
        ({"propensity": 1.0}, "propensity"),
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
    by_tier = {"categorical": {"tier": None}, "interactions": [["age", "tier"]]}
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
