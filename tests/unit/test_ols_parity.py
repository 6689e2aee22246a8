"""`ols` equals statsmodels and pyfixest on the raw rows, whatever the columns and errors."""

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest
import statsmodels.formula.api as smf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from causal.core.errors import InferenceError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import ols

RELATIVE = 1e-8
FORMULA = "y ~ x + z + C(g) + x:z + x:C(g)"
DESIGN = {
    "numeric": ["x", "z"],
    "categorical": {"g": None},
    "interactions": [["x", "z"], ["x", "g"]],
}
worlds = given(
    seed=st.integers(0, 10_000), n=st.integers(60, 150), level=st.sampled_from([0.0, 3.0, 1e3])
)
few = settings(max_examples=2, derandomize=True)


def rows(seed: int, n: int, level: float = 0.0, *, gaps: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    firm, year = rng.integers(0, 12, n), rng.integers(0, 7, n)
    frame = pd.DataFrame(
        {
            "firm": firm, "year": year, "region": firm // 3, "g": np.array(list("abc"))[firm % 3],
            "x": level + rng.normal(size=n),
            "z": rng.uniform(size=n) + 0.3 * rng.normal(size=12)[firm],
            "w": rng.uniform(0.3, 3.0, n),
        }
    )  # fmt: skip
    noise = rng.normal(size=n) * (1 + frame["z"]) + rng.normal(size=12)[firm]
    noise += rng.normal(size=7)[year] * (1 + frame["z"])
    frame["y"] = level + frame["x"] - 2 * frame["z"] + (frame["g"] == "b") + noise
    for name in ("x", "z", "y"):
        frame[name] = frame[name].mask(rng.uniform(size=n) < gaps)
    return frame


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    data = {
        "name": "parity",
        "source": {"table": "t"},
        "method": "ols",
        "options": {"outcome": "y", **options},
    }
    return run(ols.estimate(validate(ols.SPEC, data)), PandasEngine(frame))


def table(result: Result) -> pd.DataFrame:
    return result.tables["coefficients"].set_index("term")


def ours(name: str) -> str:
    """A name of patsy or formulaic as ours."""
    name = name.replace("Intercept", "intercept")
    return ":".join(
        part.replace("C(g)[T.", "g=").rstrip("]") if "[T." in part else part
        for part in name.split(":")
    )


def assert_agree(
    result: Result, params: pd.Series, errors: pd.Series, rtol: float = RELATIVE
) -> None:
    names = [ours(name) for name in params.index]
    found = table(result).loc[names]
    scale = float(np.abs(params).max())
    np.testing.assert_allclose(found["estimate"], params, rtol=rtol, atol=rtol * 1e-2 * scale)
    np.testing.assert_allclose(found["std_error"], errors, rtol=rtol)


@few
@worlds
def test_row_wise_errors_are_those_of_statsmodels(seed: int, n: int, level: float) -> None:
    frame = rows(seed, n, level, gaps=0.05)
    model = smf.ols(FORMULA, frame)
    for kind in ("classical", "HC0", "HC1", "HC2", "HC3"):
        peer = model.fit(cov_type="nonrobust" if kind == "classical" else kind, use_t=True)
        result = analyse(frame, **DESIGN, covariance=kind)

        assert_agree(result, peer.params, peer.bse, rtol=RELATIVE * max(1.0, level / 3))
        assert result.params["n"] == int(peer.nobs)
        assert result.params["r_squared"] == pytest.approx(peer.rsquared, rel=1e-9)
        assert result.params["r_squared_adjusted"] == pytest.approx(peer.rsquared_adj, rel=1e-9)
        np.testing.assert_allclose(table(result)["pvalue"].min(), peer.pvalues.min(), rtol=1e-5)


@few
@worlds
def test_clustered_errors_are_those_of_statsmodels(seed: int, n: int, level: float) -> None:
    frame = rows(seed, n, level)
    model = smf.ols("y ~ x + z", frame)
    design = {"numeric": ["x", "z"]}
    groups = {"groups": frame["firm"]}
    one = model.fit(cov_type="cluster", cov_kwds=groups, use_t=True)
    plain = model.fit(cov_type="cluster", cov_kwds={**groups, "use_correction": False})
    two = model.fit(
        cov_type="cluster", cov_kwds={"groups": frame[["firm", "year"]].to_numpy()}, use_t=True
    )
    assume((np.diag(two.cov_params()) > 0).all())
    tight = RELATIVE * max(1.0, level)

    assert_agree(analyse(frame, **design, cluster="firm"), one.params, one.bse, tight)
    for options in ({"covariance": "CR0"}, {"small_sample": "none"}):
        found = analyse(frame, **design, cluster="firm", **options)
        assert_agree(found, plain.params, plain.bse, tight)
    assert_agree(analyse(frame, **design, cluster=["firm", "year"]), two.params, two.bse, tight)


@few
@given(seed=st.integers(0, 10_000), n=st.integers(60, 150))
def test_weighted_errors_are_those_of_statsmodels(seed: int, n: int) -> None:
    frame = rows(seed, n, gaps=0.03)
    used = frame.dropna()
    model = smf.wls("y ~ x + z", used, weights=used["w"])
    for kind in ("classical", "HC0", "HC1", "HC2", "HC3"):
        peer = model.fit(cov_type="nonrobust" if kind == "classical" else kind)
        found = analyse(frame, numeric=["x", "z"], weight="w", covariance=kind)
        assert_agree(found, peer.params, peer.bse)
        assert found.effects[0].estimator == "wls"
    peer = model.fit(cov_type="cluster", cov_kwds={"groups": used["firm"]})
    found = analyse(frame, numeric=["x", "z"], weight="w", cluster="firm")
    assert_agree(found, peer.params, peer.bse)


@few
@given(seed=st.integers(0, 10_000), n=st.integers(60, 150))
def test_an_absorbed_effect_is_that_of_pyfixest(seed: int, n: int) -> None:
    frame = rows(seed, n, gaps=0.03)
    design = {"numeric": ["x", "z"], "absorb": "firm"}
    cases = {
        "classical": ("iid", {"covariance": "classical"}),
        "nested": ({"CRV1": "firm"}, {"cluster": "firm"}),
        "coarser": ({"CRV1": "region"}, {"cluster": "region"}),
        "rows": ("HC1", {"covariance": "HC1"}),
        "two ways": ({"CRV1": "firm + year"}, {"cluster": ["firm", "year"], "small_sample": "min"}),
        "two coarse": (
            {"CRV1": "region + year"},
            {"cluster": ["region", "year"], "small_sample": "min"},
        ),
    }
    for vcov, options in cases.values():
        with np.errstate(invalid="ignore"):
            peer = pf.feols("y ~ x + z | firm", frame, vcov=vcov, fixef_rm="none")
        if peer.se().isna().any():
            with pytest.raises(InferenceError, match="two-way clustered variance is negative"):
                analyse(frame, **design, **options)
        else:
            assert_agree(analyse(frame, **design, **options), peer.coef(), peer.se())


@few
@given(seed=st.integers(0, 10_000), n=st.integers(60, 150))
def test_a_second_effect_is_written_as_a_category(seed: int, n: int) -> None:
    frame = rows(seed, n)
    peer = pf.feols("y ~ x + z + C(year) | firm", frame, vcov={"CRV1": "firm"}, fixef_rm="none")
    found = analyse(
        frame, numeric=["x", "z"], categorical={"year": None}, absorb="firm", cluster="firm"
    )
    at = ["x", "z"]
    np.testing.assert_allclose(table(found).loc[at, "estimate"], peer.coef()[at], rtol=RELATIVE)
    np.testing.assert_allclose(table(found).loc[at, "std_error"], peer.se()[at], rtol=RELATIVE)


@few
@given(seed=st.integers(0, 10_000), n=st.integers(60, 150), weighted=st.booleans())
def test_leaving_clusters_out_is_refitting(seed: int, n: int, weighted: bool) -> None:  # noqa: FBT001
    frame = rows(seed, n)
    weights = frame["w"] if weighted else pd.Series(1.0, frame.index)

    def fit(kept: pd.DataFrame) -> np.ndarray:
        return smf.wls("y ~ x + z", kept, weights=weights[kept.index]).fit().params.to_numpy()

    whole, groups = fit(frame), frame["firm"].unique()
    moved = np.array([fit(frame[frame["firm"] != group]) for group in groups]) - whole
    expected = np.sqrt(np.diag(moved.T @ moved))
    options = {"weight": "w"} if weighted else {}
    for factor, share in (("none", 1.0), ("jackknife", 1 - 1 / len(groups))):
        found = analyse(
            frame, numeric=["x", "z"], cluster="firm", covariance="CR3", small_sample=factor,
            **options,
        )  # fmt: skip
        np.testing.assert_allclose(
            table(found)["std_error"], expected * np.sqrt(share), rtol=RELATIVE
        )


def blocks(frame: pd.DataFrame, *, power: float) -> np.ndarray:
    """CR2 (power -1/2) and CR3 (-1) from the hat matrix of all rows."""
    x = np.column_stack([np.ones(len(frame)), frame["x"], frame["z"]])
    bread = np.linalg.inv(x.T @ x)
    residual = frame["y"].to_numpy() - x @ bread @ x.T @ frame["y"].to_numpy()
    scores = []
    for at in frame.groupby("firm").indices.values():
        values, vectors = np.linalg.eigh(np.eye(len(at)) - x[at] @ bread @ x[at].T)
        scores.append(x[at].T @ vectors @ np.diag(values**power) @ vectors.T @ residual[at])
    stacked = np.array(scores)
    return np.sqrt(np.diag(bread @ stacked.T @ stacked @ bread))


@pytest.mark.parametrize(("kind", "power"), [("CR2", -0.5), ("CR3", -1.0)])
def test_leverage_of_clusters_is_that_of_the_hat_matrix(kind: str, power: float) -> None:
    frame = rows(3, 150)
    found = analyse(frame, numeric=["x", "z"], cluster="firm", covariance=kind)

    np.testing.assert_allclose(table(found)["std_error"], blocks(frame, power=power), rtol=1e-9)


def dense_dfs(
    frame: pd.DataFrame, x: np.ndarray, *, cluster: str, weight: np.ndarray
) -> np.ndarray:
    """Bell and McCaffrey's degrees of freedom from the residual maker of all rows."""
    x = np.sqrt(weight)[:, None] * x
    bread = np.linalg.inv(x.T @ x)
    maker = np.eye(len(x)) - x @ bread @ x.T
    found = []
    for contrast in np.eye(x.shape[1]):
        forms = []
        for at in frame.groupby(cluster).indices.values():
            values, vectors = np.linalg.eigh(maker[np.ix_(at, at)])
            power = np.where(values > 1e-9, np.maximum(values, 1e-9) ** -0.5, 0.0)
            forms.append(maker[:, at] @ vectors @ (power * (vectors.T @ x[at] @ bread @ contrast)))
        cross = np.array(forms) @ np.array(forms).T
        found.append(np.trace(cross) ** 2 / (cross**2).sum())
    return np.array(found)


@pytest.mark.parametrize("weighted", [False, True])
def test_degrees_of_freedom_are_those_of_the_residual_maker(*, weighted: bool) -> None:
    frame = rows(3, 150)
    found = analyse(
        frame, numeric=["x", "z"], cluster="firm", covariance="CR2", reference="satterthwaite",
        tests={"both": ["x", "z"]}, **({"weight": "w"} if weighted else {}),
    )  # fmt: skip
    weight = frame["w"].to_numpy() if weighted else np.ones(len(frame))
    x = np.column_stack([np.ones(len(frame)), frame["x"], frame["z"]])
    expected = dense_dfs(frame, x, cluster="firm", weight=weight)

    np.testing.assert_allclose(table(found)["df"], expected, rtol=1e-9)
    np.testing.assert_allclose([item.df for item in found.effects], expected, rtol=1e-9)
    both = found.tables["tests"].set_index("name").loc["both"]
    assert both["df"] == pytest.approx(expected[1:].min(), rel=1e-9)


def test_degrees_of_freedom_with_an_absorbed_effect_are_those_with_dummies() -> None:
    frame = rows(4, 180)
    asked = {"cluster": "region", "covariance": "CR2", "reference": "satterthwaite"}
    within = analyse(frame, numeric=["x", "z"], absorb="firm", **asked)
    dummies = pd.get_dummies(frame["firm"]).to_numpy(dtype=float)
    x = np.column_stack([frame[["x", "z"]].to_numpy(), dummies])
    expected = dense_dfs(frame, x, cluster="region", weight=np.ones(len(frame)))

    np.testing.assert_allclose(table(within)["df"], expected[:2], rtol=1e-8)


def test_degrees_of_freedom_of_two_means_are_those_of_imbens_and_kolesar() -> None:
    """Three treated and 27 controls, each a cluster: 2.5 in their table 1, HC2's error."""
    rng = np.random.default_rng(0)
    treated = np.arange(30) < 3
    frame = pd.DataFrame({"id": np.arange(30), "d": treated * 1.0, "y": rng.normal(size=30)})
    found = analyse(frame, numeric=["d"], cluster="id", covariance="CR2", reference="satterthwaite")
    n_1, n_0 = 3, 27
    expected = (n_0 + n_1) ** 2 * (n_0 - 1) * (n_1 - 1)
    expected /= n_1**2 * (n_1 - 1) + n_0**2 * (n_0 - 1)

    assert round(expected, 1) == 2.5
    assert table(found)["df"]["d"] == pytest.approx(expected, rel=1e-9)
    peer = smf.ols("y ~ d", frame).fit(cov_type="HC2").bse["d"]
    assert table(found)["std_error"]["d"] == pytest.approx(peer, rel=1e-9)


def test_a_coefficient_that_one_cluster_alone_identifies_has_no_error() -> None:
    rng = np.random.default_rng(1)
    region = np.repeat(np.arange(12), 8)
    noise = rng.normal(size=12)[region] + rng.normal(size=96)
    frame = pd.DataFrame({"region": region, "d": (region == 3) * 1.0, "x": rng.normal(size=96)})
    frame["y"] = noise + frame["x"]
    asked = {"cluster": "region", "covariance": "CR2", "reference": "satterthwaite"}
    for reference in ("satterthwaite", "t", "normal"):
        with pytest.raises(InferenceError, match=r"one cluster alone.*given: d"):
            analyse(frame, numeric=["d", "x"], **{**asked, "reference": reference})
    found = analyse(frame, numeric=["d", "x"], report=["x"], tests={"both": ["d", "x"]}, **asked)
    rows_ = table(found)
    assert np.isnan(rows_.loc["d", ["df", "pvalue", "ci_lower", "ci_upper"]].astype(float)).all()
    assert rows_.loc["x", "df"] > 5
    both = found.tables["tests"].set_index("name").loc["both"]
    assert np.isnan(both["pvalue"])


def test_joint_tests_with_few_clusters_are_those_of_hotelling() -> None:
    frame = rows(3, 150)
    asked = {"cluster": "firm", "covariance": "CR2", "reference": "satterthwaite"}
    found = analyse(frame, numeric=["x", "z"], tests={"both": ["x", "z"]}, **asked)
    covariance = found.tables["covariance"]
    b = table(found)["estimate"][["x", "z"]].to_numpy()
    v = covariance.pivot(index="row", columns="column", values="covariance")
    v = v.loc[["x", "z"], ["x", "z"]].to_numpy()
    df = table(found)["df"][["x", "z"]].min()
    test = found.tables["tests"].set_index("name").loc["both"]
    statistic = (df - 1) / (2 * df) * b @ np.linalg.solve(v, b)
    assert test["statistic"] == pytest.approx(statistic, rel=1e-9)
    assert test["pvalue"] == pytest.approx(stats.f.sf(statistic, 2, df - 1), rel=1e-9)


def test_cr3_with_an_absorbed_effect_is_cr3_with_dummies() -> None:
    frame = rows(4, 180)
    within = analyse(frame, numeric=["x", "z"], absorb="firm", cluster="region", covariance="CR3")
    moved = []
    whole = smf.ols("y ~ x + z + C(firm)", frame).fit().params[["x", "z"]].to_numpy()
    for region in frame["region"].unique():
        kept = smf.ols("y ~ x + z + C(firm)", frame[frame["region"] != region]).fit()
        moved.append(kept.params[["x", "z"]].to_numpy() - whole)
    stacked = np.array(moved)

    np.testing.assert_allclose(
        table(within)["std_error"], np.sqrt(np.diag(stacked.T @ stacked)), rtol=RELATIVE
    )


@pytest.mark.parametrize(
    ("factor", "G_df", "k_adj", "G_adj"),
    [
        ("min", "min", True, True),
        ("stata", "conventional", True, True),
        ("none", "min", False, False),
    ],
)
def test_small_sample_factors_by_name(factor: str, G_df: str, *, k_adj: bool, G_adj: bool) -> None:  # noqa: N803
    frame = rows(5, 150)
    rule = pf.ssc(k_adj=k_adj, G_adj=G_adj, G_df=G_df)
    peer = pf.feols("y ~ x + z", frame, vcov={"CRV1": "firm + year"}, ssc=rule)
    found = analyse(frame, numeric=["x", "z"], cluster=["firm", "year"], small_sample=factor)

    np.testing.assert_allclose(
        table(found)["std_error"], peer.se()[["Intercept", "x", "z"]], rtol=RELATIVE
    )


def test_joint_tests_are_those_of_statsmodels() -> None:
    frame = rows(6, 160)
    peer = smf.ols("y ~ x + z + C(g)", frame).fit(cov_type="HC1", use_t=True)
    result = analyse(
        frame, numeric=["x", "z"], categorical={"g": "a"}, tests={"groups": ["g"]}, covariance="HC1"
    )
    tests = result.tables["tests"].set_index("name")
    groups = peer.f_test("C(g)[T.b] = 0, C(g)[T.c] = 0")
    slopes = peer.f_test("x = 0, z = 0, C(g)[T.b] = 0, C(g)[T.c] = 0")

    for name, expected in (("groups", groups), ("all slopes", slopes)):
        assert tests.loc[name, "statistic"] == pytest.approx(float(expected.fvalue), rel=1e-9)
        assert tests.loc[name, "pvalue"] == pytest.approx(float(expected.pvalue), rel=1e-7)


def test_a_normal_reference_gives_chi_square_and_z() -> None:
    frame = rows(7, 120)
    peer = smf.ols("y ~ x + z", frame).fit(cov_type="HC1")
    result = analyse(frame, numeric=["x", "z"], covariance="HC1", reference="normal")

    np.testing.assert_allclose(table(result)["pvalue"], peer.pvalues, rtol=1e-7)
    np.testing.assert_allclose(table(result)[["ci_lower", "ci_upper"]], peer.conf_int(), rtol=1e-8)
    assert result.effects[0].df is None


def test_without_an_intercept() -> None:
    frame = rows(8, 120)
    peer = smf.ols("y ~ x + z - 1", frame).fit(cov_type="HC3")
    found = analyse(frame, numeric=["x", "z"], intercept=False, covariance="HC3")

    assert_agree(found, peer.params, peer.bse)
    assert found.params["r_squared"] == pytest.approx(peer.rsquared, rel=1e-10)


def test_a_square_is_an_interaction_with_itself() -> None:
    frame = rows(9, 120)
    peer = smf.ols("y ~ x + I(x ** 2)", frame).fit(cov_type="HC1")
    found = table(analyse(frame, numeric=["x"], interactions=[["x", "x"]]))

    assert found.loc["x:x", "estimate"] == pytest.approx(peer.params["I(x ** 2)"], rel=1e-9)
    assert found.loc["x:x", "std_error"] == pytest.approx(peer.bse["I(x ** 2)"], rel=1e-9)


def test_rows_without_weight_count_for_nothing() -> None:
    frame = rows(10, 120)
    frame.loc[:9, "w"] = 0.0
    for kind in ("classical", "HC1", "HC3"):
        with_zeros = analyse(frame, numeric=["x", "z"], weight="w", covariance=kind)
        without = analyse(frame.iloc[10:], numeric=["x", "z"], weight="w", covariance=kind)
        pd.testing.assert_frame_equal(table(with_zeros), table(without), rtol=1e-9)
        assert "10 rows with weight 0" in with_zeros.summary()
