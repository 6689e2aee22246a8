"""Weighting from aggregates against programs and equations on the raw rows."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import optimize
from statsmodels.treatment.treatment_effects import TreatmentEffect

from causal.core import registry
from causal.core.errors import DataError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import weighting

Matrix = NDArray[Any]
EXACT = 1e-9


def rows(*, seed: int = 11, n: int = 900) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    spend, age = rng.gamma(3.0, 200.0, n), rng.integers(18, 70, n).astype(float)
    kind = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
    score = 0.002 * (spend - 600) - 0.03 * (age - 44) + 0.5 * (kind == "b")
    joined = (rng.uniform(size=n) < 1 / (1 + np.exp(-score))).astype(int)
    place = rng.integers(0, 40, n)
    effect = 2 + 0.01 * age
    minutes = 1e3 + 0.1 * spend - age + effect * joined + rng.normal(size=40)[place]
    return pd.DataFrame(
        {
            "joined": joined, "spend": spend, "age": age, "kind": kind, "place": place,
            "minutes": minutes + (1 + joined) * rng.normal(size=n) * 5,
        }
    )  # fmt: skip


ROWS = rows()
T, Y = ROWS["joined"].to_numpy(dtype=float), ROWS["minutes"].to_numpy()
X = np.column_stack(
    [
        np.ones(len(ROWS)), ROWS["spend"], ROWS["age"], ROWS["kind"] == "b", ROWS["kind"] == "c",
        ROWS["spend"] * ROWS["age"],
    ]
).astype(float)  # fmt: skip
Z = np.column_stack([X[:, :1], (X[:, 1:] - X[:, 1:].mean(axis=0)) / X[:, 1:].std(axis=0)])
K = X.shape[1]
DESIGN: Mapping[str, Any] = {
    "outcome": "minutes", "treatment": "joined", "covariates": ["spend", "age"],
    "categorical": {"kind": None}, "interactions": [["spend", "age"]],
}  # fmt: skip


def analysed(frame: pd.DataFrame = ROWS, **options: Any) -> Result:
    spec = validate(
        weighting.SPEC,
        {
            "name": "parity", "source": {"table": "rows"}, "method": "weighting",
            "options": {**DESIGN, **options},
        },
    )  # fmt: skip
    return run(weighting.estimate(spec), PandasEngine(frame))


def propensity() -> Matrix:
    fit = sm.Logit(T, Z).fit(disp=0, method="newton", tol=1e-14, maxiter=100)
    return np.asarray(fit.predict())


def stacked_errors(
    psi: Callable[[Matrix], Matrix], theta: Matrix, *, groups: Matrix | None = None
) -> Matrix:
    """Covariance of the roots of stacked estimating equations, derivatives by complex steps."""
    found = optimize.root(lambda at: psi(at).mean(axis=0), theta, tol=1e-13).x
    for _ in range(3):
        jacobian = _jacobian(psi, found)
        found = found - np.linalg.solve(jacobian, psi(found).mean(axis=0))
    bread = np.linalg.inv(_jacobian(psi, found))
    scores = psi(found)
    if groups is not None:
        scores = pd.DataFrame(scores).groupby(groups).sum().to_numpy()
    return found, bread @ (scores.T @ scores) @ bread.T / len(T) ** 2


def _jacobian(psi: Callable[[Matrix], Matrix], theta: Matrix) -> Matrix:
    columns = []
    for j in range(len(theta)):
        moved = theta.astype(complex)
        moved[j] += 1e-30j
        columns.append(psi(moved).mean(axis=0).imag / 1e-30)
    return np.array(columns).T


def population(estimand: str, p: Matrix) -> Matrix:
    return {"ate": np.ones(len(T)) + 0 * p, "att": T, "atc": 1 - T, "overlap": p * (1 - p)}[
        estimand
    ]


def tilt(estimand: str, p: Matrix) -> Matrix:
    """What inverse propensities are multiplied with; its mean is the population's share."""
    return {"ate": 1 + 0 * p, "att": p, "atc": 1 - p, "overlap": p * (1 - p)}[estimand]


def weighting_equations(estimand: str, *, keep: Matrix, normalise: bool) -> Any:
    """Propensity, then both means; the propensity is that of all rows."""

    def psi(theta: Matrix) -> Matrix:
        b, m0, m1 = theta[:K], theta[K], theta[K + 1]
        p = 1 / (1 + np.exp(-Z @ b))
        h = population(estimand, p)
        w1, w0 = T * tilt(estimand, p) / p, (1 - T) * tilt(estimand, p) / (1 - p)
        means = [
            keep * (w0 * (Y - m0) if normalise else w0 * Y - h * m0),
            keep * (w1 * (Y - m1) if normalise else w1 * Y - h * m1),
        ]
        return np.column_stack([Z * (T - p)[:, None], *means])

    return psi


def contrast(theta: Matrix, covariance: Matrix) -> tuple[float, float]:
    c = np.zeros(len(theta))
    c[-2:] = (-1, 1)
    return float(c @ theta), float(np.sqrt(c @ covariance @ c))


def start(n_more: int) -> Matrix:
    fit = sm.Logit(T, Z).fit(disp=0, method="newton", tol=1e-14, maxiter=100)
    return np.concatenate([fit.params, np.zeros(n_more - 2), [Y.mean(), Y.mean()]])


def same(
    result: Result, expected: tuple[float, float], *, at: int = 0, rtol: float = EXACT
) -> None:
    effect = result.effects[at]
    np.testing.assert_allclose((effect.estimate, effect.std_error), expected, rtol=rtol)


def test_the_propensity_is_that_of_statsmodels() -> None:
    fit = sm.Logit(T, X).fit(disp=0, method="newton", tol=1e-14, maxiter=100)
    table = analysed().tables["propensity"]

    assert table["term"].tolist() == ["intercept", "spend", "age", "kind=b", "kind=c", "spend:age"]
    np.testing.assert_allclose(table["estimate"], fit.params, rtol=EXACT)
    np.testing.assert_allclose(table["std_error"], fit.bse, rtol=EXACT)
    np.testing.assert_allclose(table["pvalue"], fit.pvalues, rtol=1e-7)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("estimand", ["ate", "att", "atc", "overlap"])
def test_weighting_solves_the_stacked_equations(estimand: str, *, normalise: bool) -> None:
    if estimand == "overlap" and not normalise:
        pytest.skip("overlap weights are divided by their sum")
    psi = weighting_equations(estimand, keep=np.ones(len(T)), normalise=normalise)
    theta, covariance = stacked_errors(psi, start(2))
    result = analysed(estimand=estimand, normalise=normalise)

    same(result, contrast(theta, covariance), rtol=1e-8)
    means = result.tables["means"]
    np.testing.assert_allclose(means["mean"], theta[-2:], rtol=EXACT)
    np.testing.assert_allclose(means["std_error"], np.sqrt(np.diag(covariance))[-2:], rtol=1e-8)


def test_clustered_errors_sum_the_equations_within_clusters() -> None:
    psi = weighting_equations("ate", keep=np.ones(len(T)), normalise=True)
    theta, covariance = stacked_errors(psi, start(2), groups=ROWS["place"].to_numpy())
    plain = analysed(cluster="place", small_sample="none")

    same(plain, contrast(theta, covariance), rtol=1e-8)
    assert (plain.effects[0].df, plain.effects[0].n_clusters) == (39, 40)
    estimate, std_error = contrast(theta, covariance)
    same(analysed(cluster="place"), (estimate, std_error * np.sqrt(40 / 39)), rtol=1e-8)


@pytest.mark.parametrize("refit", [False, True])
def test_trimmed_rows_have_no_part(*, refit: bool) -> None:
    p = propensity()
    keep = ((p >= 0.2) & (p <= 0.7)).astype(float)
    trim = {"rule": "fixed", "low": 0.2, "high": 0.7, "refit": refit}
    result = analysed(trim=trim)
    if refit:
        same(result, tuple(_effect(analysed(ROWS[keep == 1]))), rtol=1e-8)
    else:
        psi = weighting_equations("ate", keep=keep, normalise=True)
        same(result, contrast(*stacked_errors(psi, start(2))), rtol=1e-8)
    assert result.effects[0].n_treated == int((keep * T).sum())
    assert result.effects[0].n_control == int((keep * (1 - T)).sum())
    assert result.params["n_kept"] == int(keep.sum())


@pytest.mark.parametrize("refit", [False, True])
def test_clusters_that_trimming_empties_are_not_counted(*, refit: bool) -> None:
    """Neither in the factor G/(G-1) nor in the degrees of freedom."""
    p = propensity()
    keep = ((p >= 0.35) & (p <= 0.65)).astype(float)
    places = pd.qcut(p, 30, labels=False)
    frame = ROWS.assign(place=places)
    held = len(np.unique(places[keep == 1]))
    trim = {"rule": "fixed", "low": 0.35, "high": 0.65, "refit": refit}
    result = analysed(frame, trim=trim, cluster="place")
    if refit:
        same(result, tuple(_effect(analysed(frame[keep == 1], cluster="place"))), rtol=1e-8)
    else:
        psi = weighting_equations("ate", keep=keep, normalise=True)
        estimate, error = contrast(*stacked_errors(psi, start(2), groups=places))
        same(result, (estimate, error * np.sqrt(held / (held - 1))), rtol=1e-8)

    assert held < 28
    assert (result.effects[0].df, result.effects[0].n_clusters) == (held - 1, held)


def _effect(result: Result) -> tuple[float, float]:
    return result.effects[0].estimate, result.effects[0].std_error


def test_robust_errors_are_those_of_weighted_least_squares() -> None:
    p = propensity()
    weights = np.where(T == 1, 1 / p, 1 / (1 - p))
    fit = sm.WLS(Y, sm.add_constant(T), weights=weights).fit(cov_type="HC0")

    same(analysed(covariance="robust"), (fit.params[1], fit.bse[1]))


@pytest.mark.parametrize("group", ["all", 1])
@pytest.mark.parametrize("name", ["ipw", "regression", "aipw"])
def test_estimates_and_errors_are_those_of_statsmodels(name: str, group: Any) -> None:
    model = TreatmentEffect(
        sm.OLS(Y, Z), T.astype(int),
        results_select=sm.Logit(T, Z).fit(disp=0, method="newton", tol=1e-14, maxiter=100),
    )  # fmt: skip
    if name == "aipw" and group == 1:
        pytest.skip("statsmodels has no doubly robust effect on the treated")
    method = {"ipw": model.ipw, "regression": model.ra, "aipw": model.aipw}[name]
    found = method() if name == "aipw" else method(effect_group=group)
    result = analysed(
        estimator=name, estimand="ate" if group == "all" else "att",
        normalise=None if name == "regression" else name == "ipw",
    )  # fmt: skip

    # The reference solves its equations by a general optimiser.
    np.testing.assert_allclose(result.effects[0].estimate, np.ravel(found.effect)[0], rtol=1e-5)
    np.testing.assert_allclose(
        result.effects[0].std_error, np.sqrt(np.diag(found.results_gmm.cov_params()))[0], rtol=1e-4
    )


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("estimand", ["ate", "att", "atc"])
@pytest.mark.parametrize("interactions", ["all", "none", ["age", "kind"]])
def test_the_doubly_robust_estimate_solves_the_stacked_equations(
    estimand: str, interactions: Any, *, normalise: bool
) -> None:
    shifted = {"all": list(range(K)), "none": [0]}.get(str(interactions), [0, 2, 3, 4])
    q = K + len(shifted)

    def predicted(beta: Matrix, t: Any) -> Matrix:
        return Z @ beta[:K] + t * (Z[:, shifted] @ beta[K:])

    def psi(theta: Matrix) -> Matrix:
        b, beta, a0, a1 = theta[:K], theta[K : K + q], theta[-4], theta[-3]
        m0, m1 = theta[-2], theta[-1]
        p = 1 / (1 + np.exp(-Z @ b))
        h = population(estimand, p)
        design = np.column_stack([Z, T[:, None] * Z[:, shifted]])
        residual = Y - predicted(beta, T)
        w1, w0 = T * tilt(estimand, p) / p, (1 - T) * tilt(estimand, p) / (1 - p)
        size1, size0 = (w1, w0) if normalise else (h, h)
        return np.column_stack(
            [
                Z * (T - p)[:, None], design * residual[:, None],
                w0 * residual - size0 * a0, w1 * residual - size1 * a1,
                h * (predicted(beta, 0) + a0 - m0), h * (predicted(beta, 1) + a1 - m1),
            ]
        )  # fmt: skip

    design = np.column_stack([Z, T[:, None] * Z[:, shifted]])
    first = np.concatenate(
        [start(2)[:K], np.linalg.lstsq(design, Y, rcond=None)[0], [0, 0, Y.mean(), Y.mean()]]
    )
    result = analysed(
        estimator="aipw", estimand=estimand, normalise=normalise, outcome_interactions=interactions
    )

    same(result, contrast(*stacked_errors(psi, first)), rtol=1e-7)


@pytest.mark.parametrize("estimand", ["ate", "att", "atc"])
def test_regression_is_the_mean_of_predictions(estimand: str) -> None:
    def psi(theta: Matrix) -> Matrix:
        b0, b1, m0, m1 = theta[:K], theta[K : 2 * K], theta[-2], theta[-1]
        h = population(estimand, np.zeros(len(T)))
        return np.column_stack(
            [
                Z * ((1 - T) * (Y - Z @ b0))[:, None], Z * (T * (Y - Z @ b1))[:, None],
                h * (Z @ b0 - m0), h * (Z @ b1 - m1),
            ]
        )  # fmt: skip

    first = np.concatenate(
        [
            *(np.linalg.lstsq(Z[arm == 1], Y[arm == 1], rcond=None)[0] for arm in (1 - T, T)),
            [Y.mean(), Y.mean()],
        ]
    )
    result = analysed(estimator="regression", estimand=estimand)

    same(result, contrast(*stacked_errors(psi, first)), rtol=1e-8)
    assert "propensity" not in result.tables


@pytest.mark.parametrize("estimand", ["ate", "att", "atc"])
def test_entropy_balancing_solves_the_convex_problem(estimand: str) -> None:
    h = population(estimand, np.zeros(len(T)))
    goal = h @ Z

    def weights(arm: Matrix) -> Matrix:
        own = Z[arm == 1]
        if np.array_equal(arm, h):
            return np.ones(len(own))
        found = optimize.minimize(
            lambda b: np.exp(own @ b).sum() - goal @ b,
            np.zeros(K),
            jac=lambda b: np.exp(own @ b) @ own - goal,
            hess=lambda b: own.T @ (own * np.exp(own @ b)[:, None]),
            method="trust-exact",
            options={"gtol": 1e-10},
        ).x
        for _ in range(3):
            w = np.exp(own @ found)
            found = found - np.linalg.solve(own.T @ (own * w[:, None]), w @ own - goal)
        return np.exp(own @ found)

    w1, w0 = weights(T), weights(1.0 - T)
    expected = w1 @ Y[T == 1] / w1.sum() - w0 @ Y[T == 0] / w0.sum()
    result = analysed(estimator="entropy_balancing", estimand=estimand)

    assert result.effects[0].estimate == pytest.approx(expected, rel=1e-8)
    after = result.tables["balance"].query("stage == 'after'")
    assert after["smd"].abs().max() < 1e-9
    assert result.tables["balance"]["covariate"].isin(["kind=a"]).sum() == 2


@pytest.mark.parametrize("estimand", ["ate", "att"])
def test_errors_of_entropy_balancing_solve_the_stacked_equations(estimand: str) -> None:
    h = population(estimand, np.zeros(len(T)))

    def psi(theta: Matrix) -> Matrix:
        b0, b1, m0, m1 = theta[:K], theta[K : 2 * K], theta[-2], theta[-1]
        w0 = (1 - T) * np.exp(Z @ b0)
        w1 = T * np.exp(Z @ b1) if estimand == "ate" else T + 0 * b1[0]
        one = Z * (h - w1)[:, None] if estimand == "ate" else Z * 0.0 + (b1 - 1)[None, :]
        return np.column_stack([Z * (h - w0)[:, None], one, w0 * (Y - m0), w1 * (Y - m1)])

    first = np.concatenate([np.zeros(K), np.ones(K) * (estimand == "att"), [Y.mean()] * 2])
    first[0] = 0.1

    same(
        analysed(estimator="entropy_balancing", estimand=estimand),
        contrast(*stacked_errors(psi, first)),
        rtol=1e-7,
    )


def test_several_estimators_are_those_one_by_one() -> None:
    names = ["ipw", "regression", "aipw", "entropy_balancing"]
    together = analysed(estimator=names, cluster="place")

    for at, name in enumerate(names):
        alone = analysed(estimator=name, cluster="place")
        same(together, (alone.effects[0].estimate, alone.effects[0].std_error), at=at)
        assert together.effects[at].estimator == name


def test_the_crump_bound_solves_its_equation() -> None:
    frame = rows(seed=3, n=400)
    frame["joined"] |= ((frame["spend"] > 900) & (frame["age"] > 30)).astype(int)
    result = analysed(frame, trim={"rule": "crump"})
    low, high = result.params["propensity_low"], result.params["propensity_high"]
    x = np.column_stack(
        [
            np.ones(len(frame)), frame["spend"] / 100, frame["age"] / 10, frame["kind"] == "b",
            frame["kind"] == "c", frame["spend"] * frame["age"] / 1e4,
        ]
    ).astype(float)  # fmt: skip
    p = sm.Logit(frame["joined"], x).fit(disp=0, method="newton", tol=1e-14).predict()
    inverse = 1 / (p * (1 - p))
    candidates = [2 * inverse[inverse <= cut].mean() for cut in np.sort(inverse)]
    fixed = [bound for bound, cut in zip(candidates, np.sort(inverse), strict=True)
             if (inverse <= bound).sum() == (inverse <= cut).sum()]  # fmt: skip

    assert 0 < low < 0.5
    assert high == pytest.approx(1 - low)
    assert 1 / (low * high) == pytest.approx(max(fixed), rel=1e-9)
    assert result.params["n_kept"] == int((inverse <= max(fixed)).sum()) < len(frame)


def test_balance_is_that_of_the_rows() -> None:
    p = propensity()
    table = analysed(estimand="att").tables["balance"].set_index(["stage", "covariate"])
    w = np.where(T == 1, 1.0, p / (1 - p))
    spend = ROWS["spend"].to_numpy()
    sd = spend[T == 1].std(ddof=1)
    after = spend[T == 1].mean() - np.average(spend[T == 0], weights=w[T == 0])
    share = (ROWS["kind"] == "a").to_numpy()
    gap = share[T == 1].mean() - share[T == 0].mean()
    spread = np.sqrt(share[T == 1].mean() * (1 - share[T == 1].mean()))

    before = table.loc[("before", "spend")]
    assert before["smd"] == pytest.approx((spend[T == 1].mean() - spend[T == 0].mean()) / sd)
    ratio = spend[T == 1].var(ddof=1) / spend[T == 0].var(ddof=1)
    assert before["variance_ratio"] == pytest.approx(ratio)
    assert table.loc[("after", "spend"), "smd"] == pytest.approx(after / sd, abs=1e-9)
    assert table.loc[("before", "kind=a"), "smd"] == pytest.approx(gap / spread)
    own = w[T == 0] / w[T == 0].sum()
    centred = spend[T == 0] - own @ spend[T == 0]
    weighted = own @ centred**2 / (1 - own @ own)
    assert table.loc[("after", "spend"), "variance_ratio"] == pytest.approx(sd**2 / weighted)
    propensities = (p[T == 1].mean() - p[T == 0].mean()) / p[T == 1].std(ddof=1)
    assert table.loc[("before", "propensity"), "smd"] == pytest.approx(propensities)


def test_weights_and_overlap_are_counted() -> None:
    p = propensity()
    result = analysed()
    weights = result.tables["weights"].set_index("arm")
    own = 1 / p[T == 1]
    counted = result.tables["overlap"]
    treated = counted[counted["arm"] == "treated"]["n"].to_numpy()

    assert weights.loc["treated", "sum_weights"] == pytest.approx(own.sum())
    assert weights.loc["treated", "effective_sample_size"] == pytest.approx(
        own.sum() ** 2 / (own**2).sum()
    )
    np.testing.assert_array_equal(treated, np.histogram(p[T == 1], np.linspace(0, 1, 21))[0])
    stable = np.where(T == 1, T.mean() / p, (1 - T.mean()) / (1 - p)).mean()
    assert result.params["stabilised_weight_mean"] == pytest.approx(stable)


@pytest.mark.parametrize("method", ["weighting", "matching", "dml", "uplift"])
def test_a_copy_of_the_outcome_among_the_columns_is_refused(method: str) -> None:
    module = registry.method(method)
    options = {"outcome": "minutes", "treatment": "joined", "covariates": ["age", "copy"]}
    data = {"name": "copied", "source": {"table": "rows"}, "method": method, "options": options}
    frame = ROWS.assign(copy=3 - 2 * ROWS["minutes"], id=np.arange(len(ROWS)))
    if method in {"dml", "matching"}:
        options |= {"unit": "id"}

    with pytest.raises(DataError, match=r"explain minutes exactly in both arms.*given: age, copy"):
        run(module.estimate(validate(module.SPEC, data)), PandasEngine(frame))


def test_too_few_units_for_the_columns_are_told() -> None:
    few = pd.concat([ROWS[T == 1].head(12), ROWS[T == 0]])
    for estimator in ("ipw", "entropy_balancing"):
        for frame, passed in ((ROWS, True), (few, False)):
            result = analysed(
                frame, estimator=estimator, covariates=["age"], categorical={}, interactions=[]
            )
            (check,) = [d for d in result.diagnostics if d.name == "columns_against_units"]
            assert check.passed is passed
    assert check.detail.startswith("1 columns, 12 units in the smaller arm: intervals")
