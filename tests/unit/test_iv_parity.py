"""`iv` equals linearmodels on the raw rows, and its tests those that regressions on rows give."""

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from linearmodels.iv import IV2SLS, IVGMM, IVLIML
from scipy import stats

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Result
from causal.core.spec import validate
from causal.quasi import iv

RELATIVE = 1e-8
few = settings(max_examples=2, derandomize=True)
worlds = given(seed=st.integers(0, 10_000), n=st.integers(80, 200))


def rows(seed: int, n: int, *, gaps: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    firm, year = rng.integers(0, 15, n), rng.integers(0, 9, n)
    hidden = rng.normal(size=n) + rng.normal(size=15)[firm] + 0.7 * rng.normal(size=9)[year]
    frame = pd.DataFrame(
        {
            "firm": firm, "year": year, "x": rng.normal(5, 1, n), "v": rng.normal(size=n),
            "z1": rng.normal(2, 1, n), "z2": rng.uniform(size=n) + 0.2 * firm,
            "z3": rng.normal(size=n),
            "w": rng.uniform(0.3, 3.0, n),
        }
    )  # fmt: skip
    frame["d1"] = 1 + frame["z1"] + 0.5 * frame["z2"] + 0.3 * frame["x"] + hidden
    frame["d2"] = frame["z3"] - frame["z1"] + rng.normal(size=n) + 0.5 * hidden
    noise = rng.normal(size=n) * (0.5 + np.abs(frame["z1"]) / 3)
    frame["y"] = 3 + 0.5 * frame["d1"] - 0.7 * frame["d2"] + frame["x"] + hidden + noise
    for name in ("y", "d1", "z2"):
        frame[name] = frame[name].mask(rng.uniform(size=n) < gaps)
    return frame


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    data = {
        "name": "parity",
        "source": {"table": "t"},
        "method": "iv",
        "options": {"outcome": "y", **options},
    }
    return run(iv.estimate(validate(iv.SPEC, data)), PandasEngine(frame))


def table(result: Result, name: str = "coefficients") -> pd.DataFrame:
    return result.tables[name].set_index("term")


def check(result: Result, name: str) -> Diagnostic:
    (found,) = [item for item in result.diagnostics if item.name == name]
    return found


def assert_agree(result: Result, peer: object) -> None:
    params = peer.params.rename({"const": "intercept"})  # type: ignore[attr-defined]
    errors = peer.std_errors.rename({"const": "intercept"})  # type: ignore[attr-defined]
    found = table(result).loc[list(params.index)]
    np.testing.assert_allclose(found["estimate"], params, rtol=RELATIVE, atol=1e-10)
    np.testing.assert_allclose(found["std_error"], errors, rtol=RELATIVE)


TWO = {"treatment": ["d1", "d2"], "instruments": ["z1", "z2", "z3"], "covariates": ["x", "v"]}
ONE = {"treatment": "d1", "instruments": ["z1", "z2"], "covariates": ["x", "v"]}


def peer_of(frame: pd.DataFrame, options: dict, model: type = IV2SLS, **config: object) -> object:
    used = frame.dropna()
    treatments = options["treatment"]
    treatments = [treatments] if isinstance(treatments, str) else treatments
    exogenous = sm.add_constant(used[options["covariates"]])
    return model(used["y"], exogenous, used[treatments], used[options["instruments"]], **config)


@few
@worlds
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("estimator", ["2sls", "liml", "fuller"])
def test_coefficients_and_errors_are_those_of_linearmodels(
    seed: int,
    n: int,
    weighted: bool,  # noqa: FBT001
    estimator: str,
) -> None:
    frame = rows(seed, n, gaps=0.03)
    used = frame.dropna()
    config = {"weights": used["w"]} if weighted else {}
    config |= {"fuller": 1} if estimator == "fuller" else {}
    model = peer_of(frame, TWO, IV2SLS if estimator == "2sls" else IVLIML, **config)
    options = TWO | {"estimator": estimator} | ({"weight": "w"} if weighted else {})
    clusters = used[["firm"]]

    def agree(fitted: object, **more: object) -> None:
        assert_agree(analyse(frame, **options, **more), fitted)

    agree(model.fit(cov_type="unadjusted", debiased=True), covariance="classical")
    agree(
        model.fit(cov_type="unadjusted", debiased=False),
        covariance="classical",
        small_sample="none",
    )
    agree(model.fit(cov_type="robust", debiased=True), covariance="HC1")
    agree(model.fit(cov_type="robust", debiased=False), covariance="HC0")
    agree(
        model.fit(cov_type="clustered", clusters=clusters, debiased=True),
        cluster="firm",
    )
    agree(
        model.fit(cov_type="clustered", clusters=clusters, debiased=False),
        cluster="firm", covariance="CR0",
    )  # fmt: skip


@few
@worlds
def test_two_way_errors_are_those_of_linearmodels(seed: int, n: int) -> None:
    frame = rows(seed, n)
    model = peer_of(frame, ONE)
    for debias, factor in ((True, "stata"), (False, "none")):
        peer = model.fit(
            cov_type="clustered", clusters=frame[["firm", "year"]], debiased=debias,
        )  # fmt: skip
        found = analyse(frame, **ONE, cluster=["firm", "year"], small_sample=factor)
        assert_agree(found, peer)


@few
@worlds
def test_an_absorbed_effect_is_that_of_pyfixest(seed: int, n: int) -> None:
    frame = rows(seed, n, gaps=0.03)
    is_complete = frame[["y", "d1"]].notna().all(axis=1)
    # pyfixest drops groups of one row from an instrumental regression, whatever it is told.
    frame = frame[is_complete.groupby(frame["firm"]).transform("sum") != 1]
    formula = "y ~ x + v | firm | d1 ~ z1"
    just = ONE | {"instruments": ["z1"], "absorb": "firm"}
    for vcov, more in (
        ("iid", {"covariance": "classical"}),
        ("HC1", {"covariance": "HC1"}),
        ({"CRV1": "firm"}, {"cluster": "firm"}),
    ):
        used = frame.dropna(subset=["y", "d1"])
        peer = pf.feols(formula, used, vcov=vcov, fixef_rm="none")
        found = table(analyse(frame, **just, **more)).loc[list(peer.coef().index)]
        np.testing.assert_allclose(found["estimate"], peer.coef(), rtol=RELATIVE, atol=1e-10)
        np.testing.assert_allclose(found["std_error"], peer.se(), rtol=RELATIVE)


@few
@worlds
def test_absorbing_is_writing_dummies(seed: int, n: int) -> None:
    frame = rows(seed, n)
    dummies = ONE | {"categorical": {"firm": None}}
    for more in ({"covariance": "classical"}, {"covariance": "HC0"}, {"cluster": "firm"}):
        within = analyse(frame, **ONE, absorb="firm", **more)
        explicit = analyse(frame, **dummies, **more)
        for name in ("wu_hausman", "first_stage_f", "sargan", "hansen_j"):
            if "cluster" in more and name == "hansen_j":
                continue
            if any(item.name == name for item in within.diagnostics):
                expected = check(explicit, name).statistic
                found = check(within, name).statistic
                assert (found is None) == (expected is None)
                assert found is None or found == pytest.approx(expected, rel=1e-7)
        np.testing.assert_allclose(
            table(within)["estimate"], table(explicit).loc[table(within).index, "estimate"],
            rtol=RELATIVE,
        )  # fmt: skip


@few
@worlds
def test_specification_tests_are_those_of_linearmodels(seed: int, n: int) -> None:
    frame = rows(seed, n)
    for options in (ONE, TWO):
        peer = peer_of(frame, options).fit(cov_type="unadjusted")
        found = analyse(frame, **options, covariance="classical")
        treatments = [options["treatment"]] if options is ONE else options["treatment"]

        assert check(found, "sargan").statistic == pytest.approx(peer.sargan.stat, rel=RELATIVE)
        assert check(found, "sargan").pvalue == pytest.approx(peer.sargan.pval, rel=1e-6)
        hausman = peer.wu_hausman()
        assert check(found, "wu_hausman").statistic == pytest.approx(hausman.stat, rel=1e-7)
        assert check(found, "wu_hausman").pvalue == pytest.approx(hausman.pval, rel=1e-6)
        robust = analyse(frame, **options, covariance="HC0")
        gmm = peer_of(frame, options, IVGMM).fit(iter_limit=2)
        assert check(robust, "hansen_j").statistic == pytest.approx(gmm.j_stat.stat, rel=1e-6)
        clustered = analyse(frame, **options, cluster="firm")
        gmm = peer_of(frame, options, IVGMM, weight_type="clustered", clusters=frame["firm"]).fit(
            iter_limit=2
        )
        assert check(clustered, "hansen_j").statistic == pytest.approx(gmm.j_stat.stat, rel=1e-6)
        for name in treatments:
            suffix = "" if options is ONE else f".{name}"
            formula = f"{name} ~ {' + '.join(options['instruments'])} + x + v"
            zero = ", ".join(f"{z} = 0" for z in options["instruments"])
            for kind, test in (("nonrobust", "first_stage_f"), ("HC1", "first_stage_f_robust")):
                first = smf.ols(formula, frame).fit(cov_type=kind, use_t=True).f_test(zero)
                result = found if kind == "nonrobust" else analyse(frame, **options)
                assert check(result, f"{test}{suffix}").statistic == pytest.approx(
                    float(first.fvalue), rel=1e-7
                )


@few
@worlds
def test_the_robust_wu_hausman_test_is_a_regression_on_rows(seed: int, n: int) -> None:
    frame = rows(seed, n)
    first = smf.ols("d1 ~ z1 + z2 + x + v", frame).fit()
    second = smf.ols("y ~ d1 + x + v + r", frame.assign(r=first.resid))
    peer = second.fit(cov_type="cluster", cov_kwds={"groups": frame["firm"]}, use_t=True)
    found = analyse(frame, **ONE, cluster="firm")

    expected = float(peer.f_test("r = 0").fvalue)
    assert check(found, "wu_hausman_robust").statistic == pytest.approx(expected, rel=1e-7)


@few
@worlds
@pytest.mark.parametrize(
    ("kind", "more"),
    [("nonrobust", {"covariance": "classical"}), ("HC1", {}), ("cluster", {"cluster": "firm"})],
)
def test_the_anderson_rubin_test_is_a_regression_on_rows(
    seed: int, n: int, kind: str, more: dict
) -> None:
    """The set's ends have a p-value of exactly 5 %; inside it is higher, outside lower."""
    frame = rows(seed, n)
    result = analyse(frame, **ONE, **more)
    keywords = {"cov_kwds": {"groups": frame["firm"]}} if kind == "cluster" else {}

    def pvalue(effect: float) -> float:
        moved = frame.assign(moved=frame["y"] - effect * frame["d1"])
        fitted = smf.ols("moved ~ z1 + z2 + x + v", moved).fit(
            cov_type=kind, use_t=True, **keywords
        )
        return float(fitted.f_test("z1 = 0, z2 = 0").pvalue)

    assert check(result, "anderson_rubin").pvalue == pytest.approx(pvalue(0.0), rel=1e-6)
    for _, part in result.tables["anderson_rubin_set"].iterrows():
        for end, out in ((part["lower"], -1.0), (part["upper"], 1.0)):
            if np.isfinite(end):
                assert pvalue(end) == pytest.approx(0.05, rel=1e-6)
                assert (
                    pvalue(end + 1e-3 * out * abs(end)) < 0.05 < pvalue(end - 1e-3 * out * abs(end))
                )


def test_the_effective_f_is_that_of_its_definition() -> None:
    frame = rows(5, 150)
    x = sm.add_constant(frame[["x", "v"]]).to_numpy()
    sweep = np.eye(len(x)) - x @ np.linalg.pinv(x)
    z = sweep @ frame[["z1", "z2"]].to_numpy()
    values, vectors = np.linalg.eigh(z.T @ z)
    z = z @ vectors @ np.diag(values**-0.5)
    d = sweep @ frame["d1"].to_numpy()
    v = d - z @ (z.T @ d)
    n, k = len(frame), 5
    w = n / (n - k) * (z * v[:, None]).T @ (z * v[:, None])
    expected = float((z.T @ d) @ (z.T @ d) / np.trace(w))
    found = check(analyse(frame, **ONE), "effective_f")

    assert found.statistic == pytest.approx(expected, rel=1e-9)


def test_critical_values_of_the_effective_f() -> None:
    """One instrument: the published 37.42, 23.11 and 15.06 at biases of 5, 10 and 20 %."""
    frame = rows(6, 150)
    detail = check(analyse(frame, **ONE | {"instruments": ["z1"]}), "effective_f").detail

    assert "5%: 37.42, 10%: 23.11, 20%: 15.06" in detail
    assert stats.ncx2.ppf(0.95, 1, 10) == pytest.approx(23.11, abs=5e-3)


def test_one_instrument_makes_all_strengths_the_same() -> None:
    frame = rows(7, 150)
    for more in ({}, {"cluster": "firm"}):
        found = analyse(frame, **ONE | {"instruments": ["z1"]}, **more)
        robust = check(found, "first_stage_f_robust").statistic
        assert check(found, "effective_f").statistic == pytest.approx(robust, rel=1e-9)


def test_liml_is_two_stage_when_just_identified() -> None:
    frame = rows(8, 150)
    just = ONE | {"instruments": ["z2"]}
    left, right = (table(analyse(frame, **just, estimator=name)) for name in ("2sls", "liml"))

    pd.testing.assert_frame_equal(left, right, rtol=1e-8)


def trial(seed: int = 11, n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.normal(40, 10, n)
    invited = rng.integers(0, 2, n)
    kind = np.where(age + rng.normal(0, 8, n) > 45, "complier", rng.choice(["always", "never"], n))
    used = np.where(kind == "complier", invited, kind == "always").astype(int)
    return pd.DataFrame(
        {
            "variant": np.where(invited, "invited", "control"), "invited": invited, "used": used,
            "age": age, "y": 5 + 2 * used + 0.1 * age + rng.normal(size=n),
            "group": rng.integers(0, 40, n),
        }
    )  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"cluster": "group"}, {"covariance": "classical"}])
def test_compliers_are_two_stage_least_squares_of_products(options: dict) -> None:
    frame = trial()
    result = analyse(
        frame, treatment="used", instruments={"column": "variant", "level": "invited"},
        characteristics=["age"], **options,
    )  # fmt: skip
    found = result.tables["compliers"].set_index("quantity")
    settings_: dict[str, object] = {"cov_type": "robust", "debiased": True}
    if "cluster" in options:
        settings_ |= {"cov_type": "clustered", "clusters": frame["group"]}
    if "covariance" in options:
        settings_ |= {"cov_type": "unadjusted"}
    constant = pd.DataFrame({"const": np.ones(len(frame))})
    for name, outcome, treated in (
        ("outcome with treatment", frame["y"] * frame["used"], frame["used"]),
        ("outcome without treatment", frame["y"] * (1 - frame["used"]), 1 - frame["used"]),
        ("age", frame["age"] * frame["used"], frame["used"]),
    ):
        peer = IV2SLS(outcome, constant, treated.rename("d"), frame["invited"]).fit(**settings_)
        assert found.loc[name, "compliers"] == pytest.approx(peer.params["d"], rel=1e-9)
        assert found.loc[name, "std_error"] == pytest.approx(peer.std_errors["d"], rel=1e-8)
    effect = result.effects[0]
    means = found["compliers"]
    gap = means["outcome with treatment"] - means["outcome without treatment"]
    assert effect.estimand == "late"
    assert effect.estimate == pytest.approx(gap, rel=1e-9)
    share = frame.groupby("invited")["used"].mean()
    assert check(result, "complier_share").statistic == pytest.approx(share[1] - share[0], rel=1e-9)
    itt = next(item for item in result.effects if item.estimator == "reduced_form")
    assert itt.estimand == "itt"
    assert itt.term == "variant=invited"
    assert found.loc["age", "compliers"] > found.loc["age", "all_rows"] + 5


def encouragement(seed: int, n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "z": rng.integers(0, 2, n), "z2": rng.integers(0, 2, n), "age": rng.normal(40, 9, n),
            "is_new": rng.integers(0, 2, n), "city": rng.choice(["a", "b", "c"], n),
            "tier": rng.choice(["x", "y"], n), "w": rng.uniform(0.5, 2, n),
        }
    )  # fmt: skip
    frame["d"] = ((frame["z"] + frame["z2"]) * 0.4 + 0.1 > rng.uniform(size=n)).astype(int)
    frame["dose"] = frame["d"] * rng.uniform(1, 3, n)
    frame["y"] = frame["d"] + 0.1 * frame["age"] + rng.normal(size=n)
    return frame


CROSSED = {"categorical": {"city": None, "tier": None}, "interactions": [["city", "tier"]]}


@pytest.mark.parametrize(
    ("options", "estimand", "detail"),
    [
        ({}, "late", "the effect on compliers"),
        ({"weight": "w"}, "late", "the effect on compliers"),
        ({"estimator": "liml"}, "late", "the effect on compliers"),
        ({"categorical": {"city": None}}, "late", "over the cells"),
        ({"absorb": "city"}, "late", "over the cells"),
        ({"absorb": "city", "cluster": "city"}, "late", "over the cells"),
        ({"covariates": ["is_new"]}, "late", "over the cells"),
        (CROSSED, "late", "over the cells"),
        ({"categorical": CROSSED["categorical"]}, "coefficient", "not saturated"),
        ({"categorical": {"city": None}, "absorb": "tier"}, "coefficient", "not saturated"),
        ({"covariates": ["age"]}, "coefficient", "not saturated"),
        ({"covariates": ["is_new"], "intercept": False}, "coefficient", "not saturated"),
        ({"covariates": ["is_new", "age"]}, "coefficient", "not saturated"),
        ({"instruments": ["z", "z2"]}, "coefficient", "late needs one 0/1 treatment"),
        ({"treatment": "dose"}, "coefficient", "late needs one 0/1 treatment"),
        ({"instruments": "age"}, "coefficient", "late needs one 0/1 treatment"),
    ],
    ids=str,
)
def test_the_effect_is_that_on_compliers_only_where_it_is(
    options: dict, estimand: str, detail: str
) -> None:
    result = analyse(
        encouragement(11),
        **({"treatment": "d", "instruments": "z", "report": ["treatment"]} | options),
    )

    assert [effect.estimand for effect in result.effects] == [estimand]
    assert detail in check(result, "estimand").detail


def test_saturated_covariates_average_the_effects_of_their_cells() -> None:
    """Weights: size of the cell, variance of the instrument in it, share of compliers in it."""
    frame = encouragement(12, n=3000)
    frame["y"] += frame["d"] * frame["city"].map({"a": 0.0, "b": 3.0, "c": -2.0})
    effects, weights = [], []
    for _, cell in frame.groupby("city"):
        moved = cell.groupby("z")[["y", "d"]].mean()
        share = moved["d"][1] - moved["d"][0]
        effects.append((moved["y"][1] - moved["y"][0]) / share)
        weights.append(len(cell) * cell["z"].var(ddof=0) * share)
    found = analyse(frame, treatment="d", instruments="z", absorb="city").effects[0]

    assert found.estimand == "late"
    assert found.estimate == pytest.approx(np.average(effects, weights=weights), rel=1e-9)
