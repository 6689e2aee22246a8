"""Equations from moments equal statsmodels and linearmodels on the raw rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from linearmodels.iv import IV2SLS

from causal.core.cross_products import inverse, redundant_columns
from causal.core.errors import InferenceError
from causal.core.frames import (
    Column,
    Constant,
    GramRequest,
    Indicator,
    Linear,
    MeatRequest,
    Product,
    Term,
    indicator_terms,
)
from causal.core.gram import Array, Gram, gram, meat
from causal.core.inference import cr1_factor, hc1_factor
from causal.core.pandas_engine import PandasEngine
from causal.regression.equation import Equation, Moments, k_class, least_squares

RTOL = 1e-9
Y, D, X, Z1, Z2, W = (Column(name) for name in ("y", "d", "x", "z1", "z2", "w"))
GROUP = Indicator("group", "b")
INTERACTION = Product((X, GROUP))
REGRESSORS: tuple[Term, ...] = (D, X, GROUP, INTERACTION)


@dataclass(frozen=True)
class Case:
    """A regression as terms and as columns of raw rows."""

    frame: pd.DataFrame
    weight: Term | None = None
    intercept: bool = True

    @property
    def engine(self) -> PandasEngine:
        return PandasEngine(self.frame)

    @property
    def design(self) -> pd.DataFrame:
        in_b = (self.frame["group"] == "b").astype(float)
        columns = {
            "d": self.frame["d"], "x": self.frame["x"], "b": in_b, "xb": in_b * self.frame["x"],
        }  # fmt: skip
        design = pd.DataFrame(columns)
        return sm.add_constant(design) if self.intercept else design

    def fit(self) -> Equation:
        request = GramRequest(terms=(Y, *REGRESSORS), weight=self.weight)
        return ols(gram(self.engine(request), request), REGRESSORS, intercept=self.intercept)

    def robust(self, fit: Equation, *, cluster: Sequence[str] = ()) -> tuple[Array, int]:
        scores = fit.scores(range(fit.k))
        request = MeatRequest(scores=scores, cluster=tuple(cluster), weight=self.weight)
        return meat(self.engine(request))


def ols(found: Gram, regressors: Sequence[Term], *, intercept: bool = True) -> Equation:
    return least_squares(
        Moments.of(found, intercept=intercept), outcome=Y, regressors=tuple(regressors)
    )


def two_stage(
    found: Gram,
    *,
    endogenous: Sequence[Term],
    exogenous: Sequence[Term],
    instruments: Sequence[Term],
    intercept: bool = True,
) -> Equation:
    return k_class(
        Moments.of(found, intercept=intercept), outcome=Y,
        regressors=(*endogenous, *exogenous), instruments=(*instruments, *exogenous),
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(20261121)
    n = 700
    z1, z2, u = rng.normal(size=(3, n))
    x = rng.normal(2, 1, n)
    d = 0.8 * z1 - 0.4 * z2 + 0.5 * u + 0.3 * x + rng.normal(size=n)
    firm = rng.integers(0, 35, n)
    y = 5 + 1.5 * d - 0.7 * x + u + rng.normal(size=35)[firm] + rng.normal(size=n) * (1 + 0.5 * x)
    return pd.DataFrame(
        {
            "y": y, "d": d, "x": x, "z1": z1, "z2": z2, "w": rng.uniform(0.2, 4, n),
            "firm": [f"firm {number}" for number in firm], "year": rng.integers(2001, 2009, n),
            "group": rng.choice(["a", "b"], n),
        }
    )  # fmt: skip


CASES: dict[str, Callable[[pd.DataFrame], Case]] = {
    "ols": Case,
    "wls": lambda frame: Case(frame, weight=W),
    "no intercept": lambda frame: Case(frame, intercept=False),
    "large outcome": lambda frame: Case(frame.assign(y=1e6 + frame["y"])),
}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest, rows: pd.DataFrame) -> Case:
    return CASES[request.param](rows)


@pytest.fixture(scope="module")
def peer(case: Case) -> sm.regression.linear_model.RegressionResults:
    weights = np.ones(len(case.frame)) if case.weight is None else case.frame["w"]
    return sm.WLS(case.frame["y"], case.design, weights=weights).fit()


def errors(covariance: Array) -> Array:
    return np.sqrt(np.diag(covariance))


def test_coefficients(case: Case, peer: sm.regression.linear_model.RegressionResults) -> None:
    fit = case.fit()

    np.testing.assert_allclose(fit.coefficients, peer.params, rtol=RTOL)
    assert fit.rss == pytest.approx(peer.ssr, rel=RTOL)
    assert fit.df_resid == peer.df_resid
    assert fit.k == len(fit.regressors) + fit.n_first == len(peer.params)
    assert fit.n_first == int(case.intercept)


def test_classical_errors(case: Case, peer: sm.regression.linear_model.RegressionResults) -> None:
    fit = case.fit()
    large_sample = errors(fit.classical(divisor=fit.n))

    np.testing.assert_allclose(errors(fit.classical(divisor=fit.df_resid)), peer.bse, rtol=RTOL)
    np.testing.assert_allclose(large_sample, peer.bse * np.sqrt(fit.df_resid / fit.n), rtol=RTOL)


def test_robust_errors(case: Case, peer: sm.regression.linear_model.RegressionResults) -> None:
    fit = case.fit()
    covariance, n_clusters = case.robust(fit)
    factor = hc1_factor(n=fit.n, k=fit.k)

    assert n_clusters == fit.n
    np.testing.assert_allclose(errors(covariance), peer.HC0_se, rtol=RTOL)
    np.testing.assert_allclose(errors(factor * covariance), peer.HC1_se, rtol=RTOL)


@pytest.mark.parametrize("cluster", ["firm", "year"])
def test_clustered_errors(
    case: Case, peer: sm.regression.linear_model.RegressionResults, cluster: str
) -> None:
    fit = case.fit()
    covariance, n_clusters = case.robust(fit, cluster=[cluster])
    groups = pd.factorize(case.frame[cluster])[0]
    plain = peer.get_robustcov_results("cluster", groups=groups, use_correction=False)
    cr1 = peer.get_robustcov_results("cluster", groups=groups)
    factor = cr1_factor(n=fit.n, k=fit.k, n_clusters=n_clusters)

    assert n_clusters == case.frame[cluster].nunique()
    np.testing.assert_allclose(errors(covariance), plain.bse, rtol=RTOL)
    np.testing.assert_allclose(factor * covariance, cr1.cov_params(), rtol=1e-8)
    np.testing.assert_allclose(errors(factor * covariance), cr1.bse, rtol=RTOL)


def test_residuals_and_scores_are_orthogonal_to_the_design(rows: pd.DataFrame) -> None:
    case = Case(rows)
    fit = case.fit()
    request = GramRequest(terms=(fit.residual, *REGRESSORS))
    moments = gram(case.engine(request), request)

    assert moments.mean[0] == pytest.approx(0.0, abs=1e-10)
    np.testing.assert_allclose(moments.cross[0, 1:], 0.0, atol=1e-8)
    assert moments.cross[0, 0] == pytest.approx(fit.rss, rel=RTOL)
    assert fit.scores([1])[0].right == fit.residual


INSTRUMENTS = {"one instrument": (Z1,), "two instruments": (Z1, Z2)}


@pytest.fixture(params=INSTRUMENTS)
def instruments(request: pytest.FixtureRequest) -> tuple[Column, ...]:
    return INSTRUMENTS[request.param]


@pytest.fixture(params=[None, W], ids=["unweighted", "weighted"])
def weight(request: pytest.FixtureRequest) -> Column | None:
    chosen: Column | None = request.param
    return chosen


@pytest.fixture(params=[True, False], ids=["intercept", "no intercept"])
def intercept(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@dataclass(frozen=True)
class Stages:
    """A two-stage fit and the same model at linearmodels."""

    engine: PandasEngine
    fit: Equation
    peer: IV2SLS
    order: list[int]
    weight: Term | None
    clusters: pd.Series

    def robust(self, *, cluster: Sequence[str] = ()) -> tuple[Array, int]:
        scores = self.fit.scores(range(self.fit.k))
        request = MeatRequest(scores=scores, cluster=tuple(cluster), weight=self.weight)
        return meat(self.engine(request))

    def errors_of_peer(self, **options: object) -> Array:
        return np.asarray(self.peer.fit(**options).std_errors)[self.order]


@pytest.fixture
def stages(
    rows: pd.DataFrame, instruments: tuple[Column, ...], weight: Column | None, *, intercept: bool
) -> Stages:
    engine = PandasEngine(rows)
    request = GramRequest(terms=(Y, D, X, *instruments), weight=weight)
    fit = two_stage(
        gram(engine(request), request),
        endogenous=[D], exogenous=[X], instruments=instruments, intercept=intercept,
    )  # fmt: skip
    exogenous = sm.add_constant(rows[["x"]]) if intercept else rows[["x"]]
    peer = IV2SLS(
        rows["y"], exogenous, rows[["d"]], rows[[item.name for item in instruments]],
        # linearmodels scales weights to a mean of one, which no covariance but n - k notices
        weights=None if weight is None else rows["w"],
    )  # fmt: skip
    order = [0, 2, 1] if intercept else [1, 0]
    return Stages(engine, fit, peer, order, weight, pd.Series(pd.factorize(rows["firm"])[0]))


def test_two_stage_coefficients_and_classical_errors(stages: Stages) -> None:
    unadjusted = stages.peer.fit(cov_type="unadjusted")

    np.testing.assert_allclose(
        stages.fit.coefficients, np.asarray(unadjusted.params)[stages.order], rtol=RTOL
    )
    np.testing.assert_allclose(
        errors(stages.fit.classical(divisor=stages.fit.n)),
        stages.errors_of_peer(cov_type="unadjusted"),
        rtol=RTOL,
    )
    np.testing.assert_allclose(
        errors(stages.fit.classical(divisor=stages.fit.df_resid)),
        stages.errors_of_peer(cov_type="unadjusted", debiased=True),
        rtol=RTOL,
    )


def test_two_stage_robust_errors(stages: Stages) -> None:
    covariance, _ = stages.robust()
    factor = hc1_factor(n=stages.fit.n, k=stages.fit.k)

    np.testing.assert_allclose(
        errors(covariance), stages.errors_of_peer(cov_type="robust"), rtol=RTOL
    )
    np.testing.assert_allclose(
        errors(factor * covariance),
        stages.errors_of_peer(cov_type="robust", debiased=True),
        rtol=RTOL,
    )


def test_two_stage_clustered_errors(stages: Stages) -> None:
    covariance, n_clusters = stages.robust(cluster=["firm"])
    factor = cr1_factor(n=stages.fit.n, k=stages.fit.k, n_clusters=n_clusters)

    np.testing.assert_allclose(
        errors(covariance),
        stages.errors_of_peer(cov_type="clustered", clusters=stages.clusters),
        rtol=RTOL,
    )
    np.testing.assert_allclose(
        errors(factor * covariance),
        stages.errors_of_peer(cov_type="clustered", clusters=stages.clusters, debiased=True),
        rtol=RTOL,
    )


def test_a_regressor_that_is_its_own_instrument_gives_least_squares(rows: pd.DataFrame) -> None:
    request = GramRequest(terms=(Y, D, X))
    moments = gram(PandasEngine(rows)(request), request)
    plain = ols(moments, [D, X])
    staged = k_class(
        Moments.of(moments, intercept=True), outcome=Y, regressors=(D, X), instruments=(X, D)
    )

    np.testing.assert_allclose(staged.coefficients, plain.coefficients, rtol=RTOL)
    np.testing.assert_allclose(staged.bread, plain.bread, rtol=1e-8)


@pytest.mark.parametrize("weight", [None, W], ids=["unweighted", "weighted"])
def test_absorbed_effects_equal_dummies(rows: pd.DataFrame, weight: Column | None) -> None:
    engine = PandasEngine(rows)
    years = indicator_terms("year", range(2002, 2009))
    request = GramRequest(terms=(Y, D, X, *years), weight=weight, absorb="firm")
    fit = ols(gram(engine(request), request), [D, X, *years])
    scores = fit.scores(range(fit.k))
    asked = MeatRequest(scores=scores, cluster=("firm",), weight=weight, absorb="firm")
    covariance, n_clusters = meat(engine(asked))

    dummies = [
        pd.get_dummies(rows[name], dtype=float, drop_first=name == "year")
        for name in ("year", "firm")
    ]
    design = pd.concat([rows[["d", "x"]], *dummies], axis=1)
    design.columns = design.columns.astype(str)
    weights = np.ones(len(rows)) if weight is None else rows["w"]
    peer = sm.WLS(rows["y"], design, weights=weights).fit()
    groups = pd.factorize(rows["firm"])[0]
    clustered = peer.get_robustcov_results("cluster", groups=groups, use_correction=False)

    assert fit.n_first == 0
    assert fit.df_resid == peer.df_resid
    assert n_clusters == 35
    np.testing.assert_allclose(fit.coefficients, peer.params[:9], rtol=1e-8)
    assert fit.rss == pytest.approx(peer.ssr, rel=RTOL)
    np.testing.assert_allclose(errors(fit.classical(divisor=fit.df_resid)), peer.bse[:9], rtol=RTOL)
    np.testing.assert_allclose(errors(covariance), clustered.bse[:9], rtol=1e-8)


def test_rows_with_gaps_are_left_out_and_counted(rows: pd.DataFrame) -> None:
    gaps = rows.assign(x=rows["x"].where(rows.index % 10 != 3))
    fit, whole = Case(gaps).fit(), Case(gaps.dropna()).fit()

    np.testing.assert_allclose(fit.coefficients, whole.coefficients, rtol=RTOL)
    assert fit.n == len(gaps.dropna())


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (Linear((D, X), (2.0, -1.0)), "(d + x)"),
        (Column("constant"), "constant"),
        (Product((Constant(3.0), D)), "3*d"),
    ],
)
def test_collinear_columns_are_named(rows: pd.DataFrame, extra: Term, named: str) -> None:
    request = GramRequest(terms=(Y, D, X, extra))
    moments = gram(PandasEngine(rows.assign(constant=7.0))(request), request)

    with pytest.raises(InferenceError, match="constant or collinear") as caught:
        ols(moments, [D, X, extra])

    assert caught.value.given == [named]


def test_a_constant_column_serves_as_an_intercept(rows: pd.DataFrame) -> None:
    one = Column("one")
    request = GramRequest(terms=(Y, D, one))
    moments = gram(PandasEngine(rows.assign(one=1.0))(request), request)
    fit = ols(moments, [one, D], intercept=False)

    np.testing.assert_allclose(fit.coefficients, ols(moments, [D]).coefficients, rtol=RTOL)


def test_collinear_instruments_are_named(rows: pd.DataFrame) -> None:
    twice = Linear((Z1,), (2.0,))
    request = GramRequest(terms=(Y, D, Z1, twice))
    moments = gram(PandasEngine(rows)(request), request)

    with pytest.raises(InferenceError, match=r"collinear.*\(z1\)"):
        two_stage(moments, endogenous=[D], exogenous=[], instruments=[Z1, twice])


def test_too_few_rows_are_refused(rows: pd.DataFrame) -> None:
    request = GramRequest(terms=(Y, D, X))
    moments = gram(PandasEngine(rows.head(3))(request), request)

    with pytest.raises(InferenceError, match=r"too few rows.*3 rows, 3 coefficients"):
        ols(moments, [D, X])


def test_one_cluster_gives_no_errors() -> None:
    with pytest.raises(InferenceError, match="two or more clusters; given: 1"):
        cr1_factor(n=100, k=2, n_clusters=1)


def test_the_mean_is_a_regression_on_nothing(rows: pd.DataFrame) -> None:
    request = GramRequest(terms=(Y,))
    fit = ols(gram(PandasEngine(rows)(request), request), [])

    assert fit.coefficients[0] == pytest.approx(rows["y"].mean(), rel=1e-12)
    assert errors(fit.classical(divisor=fit.df_resid))[0] == pytest.approx(
        rows["y"].sem(), rel=RTOL
    )


def test_redundant_columns_come_after_those_that_explain_them() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 3)) * [1, 1e6, 1e-6]
    design = np.column_stack([x[:, 0], x[:, 1], x[:, 0] * 2, x[:, 2], np.zeros(50)])

    assert redundant_columns(design.T @ design) == [2, 4]


def test_badly_scaled_columns_are_not_taken_for_collinear() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 3)) * [1e-8, 1.0, 1e8]
    matrix = x.T @ x

    scale = np.sqrt(np.diag(matrix))
    identity = (inverse(matrix, [D, X, Z1]) @ matrix) * scale[:, None] / scale[None, :]
    np.testing.assert_allclose(identity, np.eye(3), atol=1e-12)
