"""Clustered comparisons of the method `ab` against statsmodels, leaving out, and dense matrices."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from numpy.typing import NDArray
from scipy import stats

from causal.core.errors import DataError, SpecError
from causal.core.frames import FrameRequest, GramRequest, MeatRequest
from causal.core.pandas_engine import PandasEngine
from causal.core.result import Diagnostic, Effect, Result
from causal.core.spec import validate
from causal.experiments import ab, cluster_sums

EXACT = 1e-9
Array = NDArray[np.float64]
REVENUE = {"name": "revenue", "type": "mean", "column": "revenue"}
RATE = {"name": "rate", "type": "ratio", "numerator": "orders", "denominator": "sessions"}
BEFORE = {"covariates": ["before"]}


@pytest.fixture(scope="module")
def shops() -> pd.DataFrame:
    """Units in shops of unequal size; three arms of 9, 5 and 7 shops; regions that cut across."""
    rng = np.random.default_rng(41)
    sizes = np.array([30, 12, 5, 9, 40, 3, 18, 7, 11, 25, 6, 4, 15, 8, 10, 22, 5, 3, 9, 14, 6])
    shop = np.repeat(np.arange(21), sizes)
    n = len(shop)
    arm = np.array(["a", "b", "c"])[np.repeat([0, 1, 2], [9, 5, 7])][shop]
    taste = rng.normal(size=21)[shop]
    sessions = rng.poisson(3 + 2 * rng.random(21)[shop] * 5) + 1
    before = 2 + taste + rng.normal(size=n)
    return pd.DataFrame(
        {
            "user": np.arange(n), "shop": shop, "variant": arm,
            "region": rng.choice(["n", "s", "w"], n), "town": np.where(shop % 2, "x", "y"),
            "other": rng.choice(["old", "new"], n),
            "revenue": 5 + taste + 0.8 * before + rng.normal(size=n), "before": before,
            "sessions": sessions, "orders": rng.binomial(sessions, 0.3),
            "day": rng.integers(0, 12, n),
        }
    )  # fmt: skip


def analyse(
    frame: pd.DataFrame,
    *metrics: dict[str, Any],
    requests: list[FrameRequest] | None = None,
    **options: object,
) -> Result:
    base = {"unit": "user", "variant": "variant", "control": "a", "metrics": [*metrics]}
    base |= {"cluster": "shop"} | options
    data = {"name": "x", "source": {"table": "t"}, "method": "ab", "options": base}
    engine = PandasEngine(frame)

    def answer(request: FrameRequest) -> pd.DataFrame:
        if requests is not None:
            requests.append(request)
        return engine(request)

    plan = ab.estimate(validate(ab.SPEC, data))
    reply = None
    try:
        while True:
            reply = answer(plan.send(reply))
    except StopIteration as end:
        found: Result = end.value
        return found


def only(result: Result, **fields: object) -> Effect:
    wanted = {"scale": "absolute", "term": "b - a"} | fields
    found = [e for e in result.effects if all(getattr(e, k) == v for k, v in wanted.items())]
    assert len(found) == 1, [(e.estimator, e.metric, e.term) for e in result.effects]
    return found[0]


def check(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


def two(frame: pd.DataFrame, treatment: str = "b") -> pd.DataFrame:
    rows = frame[frame["variant"].isin(["a", treatment])]
    return rows.assign(treated=(rows["variant"] == treatment).astype(float))


def dense_clustered(
    frame: pd.DataFrame, outcome: str, *, power: float, icc: float = 0.0
) -> tuple[float, float, Array]:
    """Variance, degrees of freedom and the arms' variances, unit by unit (Bell and McCaffrey)."""
    x = np.column_stack([np.ones(len(frame)), frame["treated"]])
    y, cluster = frame[outcome].to_numpy(float), frame["shop"].to_numpy()
    bread = np.linalg.inv(x.T @ x)
    rest = np.eye(len(x)) - x @ bread @ x.T
    errors = rest @ y
    omega = np.where(cluster[:, None] == cluster, icc, 0.0)
    np.fill_diagonal(omega, 1.0)
    weights, by_arm, pieces = np.array([0.0, 1.0]), np.zeros(2), []
    for name in np.unique(cluster):
        at = np.flatnonzero(cluster == name)
        values, vectors = np.linalg.eigh(rest[np.ix_(at, at)])
        adjusted = x[at].T @ (vectors @ np.diag(values**-power) @ vectors.T)
        pieces.append(weights @ bread @ adjusted @ rest[at])
        by_arm[int(frame["treated"].to_numpy()[at[0]])] += (
            weights @ bread @ adjusted @ errors[at]
        ) ** 2
    together = np.array(pieces)
    values = np.linalg.eigvalsh(together @ omega @ together.T)
    return float(by_arm.sum()), float(values.sum() ** 2 / (values**2).sum()), by_arm


@pytest.mark.parametrize(("correction", "power"), [("cr0", 0.0), ("cr2", 0.5), ("cr3", 1.0)])
def test_corrections_are_those_of_the_regression(
    shops: pd.DataFrame, correction: str, power: float
) -> None:
    for treatment, n_clusters in (("b", 14), ("c", 16)):
        rows = two(shops, treatment)
        variance, df, _ = dense_clustered(rows, "revenue", power=power)
        found = only(
            analyse(
                shops, REVENUE, cluster_correction=correction, degrees_of_freedom="bell_mccaffrey"
            ),
            term=f"{treatment} - a",
        )
        factor = (n_clusters - 1) / n_clusters if correction == "cr3" else 1.0
        assert found.std_error == pytest.approx(np.sqrt(factor * variance), rel=EXACT)
        assert found.df == pytest.approx(df, rel=1e-7)
        assert found.n_clusters == n_clusters


@pytest.mark.parametrize("correction", ["cr0", "cr1"])
def test_two_arms_of_three_are_statsmodels_on_their_rows(
    shops: pd.DataFrame, correction: str
) -> None:
    result = analyse(
        shops, REVENUE, cluster_correction=correction, degrees_of_freedom="clusters_minus_one"
    )
    for treatment in ("b", "c"):
        rows = two(shops, treatment)
        reference = smf.ols("revenue ~ treated", rows).fit(
            cov_type="cluster",
            cov_kwds={"groups": rows["shop"], "use_correction": correction == "cr1"},
            use_t=True,
        )
        found = only(result, term=f"{treatment} - a")
        assert found.std_error == pytest.approx(reference.bse["treated"], rel=EXACT)
        assert found.pvalue == pytest.approx(reference.pvalues["treated"], rel=EXACT)


def test_another_arm_changes_nothing(shops: pd.DataFrame) -> None:
    whole = analyse(shops, REVENUE | BEFORE, RATE)
    alone = analyse(two(shops), REVENUE | BEFORE, RATE)
    for effect in alone.effects:
        found = only(whole, metric=effect.metric, estimator=effect.estimator, scale=effect.scale)
        for name in ("estimate", "std_error", "df", "ci_lower", "pvalue", "n_clusters"):
            assert getattr(found, name) == pytest.approx(getattr(effect, name), rel=EXACT)


def test_the_default_is_cr2_with_satterthwaites_degrees(shops: pd.DataFrame) -> None:
    """The fewer of those from the arms' variances and those of arms that vary alike."""
    rows = two(shops)
    result = analyse(rows, REVENUE)
    assert "cr2, satterthwaite" in check(result, "cluster_errors").detail
    errors = rows["revenue"] - rows.groupby("treated")["revenue"].transform("mean")
    sizes = rows.groupby("shop").size()
    between = (errors.groupby(rows["shop"]).sum() ** 2).sum()
    pairs = (sizes * (sizes - 1)).sum()
    icc = (between - (errors**2).sum()) / pairs / (errors**2).mean()
    variance, model, by_arm = dense_clustered(rows, "revenue", power=0.5, icc=icc)
    arm_dfs = []
    for arm in (0.0, 1.0):
        same = rows.assign(treated=np.where(rows["treated"] == arm, 1.0, 0.0))
        one = same[same["treated"] == 1.0]
        arm_dfs.append(_one_arm_df(one, icc))
    plug_in = by_arm.sum() ** 2 / (by_arm**2 / arm_dfs).sum()
    found = only(result)
    assert found.std_error == pytest.approx(np.sqrt(variance), rel=EXACT)
    assert found.df == pytest.approx(min(plug_in, model), rel=1e-7)
    assert only(result, scale="relative").df == found.df


def _one_arm_df(rows: pd.DataFrame, icc: float) -> float:
    cluster, n = rows["shop"].to_numpy(), len(rows)
    rest = np.eye(n) - 1.0 / n
    omega = np.where(cluster[:, None] == cluster, icc, 0.0)
    np.fill_diagonal(omega, 1.0)
    pieces = []
    for name in np.unique(cluster):
        at = cluster == name
        pieces.append(rest[at].sum(axis=0) / n / np.sqrt(1 - at.mean()))
    values = np.linalg.eigvalsh(np.array(pieces) @ omega @ np.array(pieces).T)
    return float(values.sum() ** 2 / (values**2).sum())


def test_clusters_of_one_size_are_welchs_test_of_cluster_means() -> None:
    """The classical analysis of a cluster-randomised trial."""
    rng = np.random.default_rng(5)
    shop = np.repeat(np.arange(25), 6)
    rows = pd.DataFrame(
        {
            "user": np.arange(150), "shop": shop, "variant": np.where(shop < 8, "b", "a"),
            "revenue": rng.normal(size=25)[shop] * np.where(shop < 8, 2.0, 1.0)
            + rng.normal(size=150),
        }
    )  # fmt: skip
    found = only(analyse(rows, REVENUE))
    means = rows.groupby(["variant", "shop"])["revenue"].mean()
    reference = stats.ttest_ind(means["b"], means["a"], equal_var=False)
    assert found.statistic == pytest.approx(reference.statistic, rel=EXACT)
    # The treated vary more: their few clusters weigh more than in arms that vary alike.
    assert found.df == pytest.approx(reference.df, rel=EXACT)
    swapped = rows.assign(revenue=rows["revenue"] / np.where(shop < 8, 6.0, 1.0))
    means = swapped.groupby(["variant", "shop"])["revenue"].mean()
    plug_in = stats.ttest_ind(means["b"], means["a"], equal_var=False).df
    alike = (1 / 8 + 1 / 17) ** 2 / (1 / 8**2 / 7 + 1 / 17**2 / 16)
    assert plug_in > alike
    assert only(analyse(swapped, REVENUE)).df == pytest.approx(alike, rel=1e-6)


def test_cr3_of_a_ratio_leaves_every_cluster_out(shops: pd.DataFrame) -> None:
    rows = two(shops)
    found = only(analyse(rows, RATE, cluster_correction="cr3"), metric="rate")

    def effect(part: pd.DataFrame) -> float:
        sums = part.groupby("treated")[["orders", "sessions"]].sum()
        return float((sums["orders"] / sums["sessions"]).diff().iloc[-1])

    without = np.array([effect(rows[rows["shop"] != name]) for name in rows["shop"].unique()])
    variance = 13 / 14 * ((without - effect(rows)) ** 2).sum()
    assert found.std_error == pytest.approx(np.sqrt(variance), rel=EXACT)


def test_cr2_of_paired_clusters_is_the_paired_test() -> None:
    rng = np.random.default_rng(8)
    pairs = pd.DataFrame(
        {
            "user": np.arange(40), "shop": np.arange(40) // 2,
            "variant": np.tile(["a", "b"], 20),
            "revenue": rng.normal(size=20).repeat(2) + rng.normal(size=40),
        }
    )  # fmt: skip
    wide = pairs.pivot(index="shop", columns="variant", values="revenue")
    reference = stats.ttest_rel(wide["b"], wide["a"])
    found = only(analyse(pairs, REVENUE, degrees_of_freedom="bell_mccaffrey"))
    assert found.statistic == pytest.approx(reference.statistic, rel=EXACT)
    assert found.df == pytest.approx(reference.df, rel=EXACT)


@pytest.mark.parametrize("correction", ["cr0", "cr1"])
@pytest.mark.parametrize("degrees", ["satterthwaite", "clusters_minus_one"])
def test_summed_squares_give_the_digits_of_single_clusters(
    shops: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, correction: str, degrees: str
) -> None:
    options = {"cluster_correction": correction, "degrees_of_freedom": degrees}
    metrics = (REVENUE | BEFORE, RATE)
    held = analyse(shops, *metrics, **options)
    monkeypatch.setattr(cluster_sums, "MAX_CLUSTERS", 10)
    requests: list[FrameRequest] = []
    summed = analyse(shops, *metrics, requests=requests, **options)
    assert not any(isinstance(r, GramRequest) and "shop" in r.by for r in requests)
    assert sum(isinstance(r, MeatRequest) for r in requests) == 3
    for one, other in zip(held.effects, summed.effects, strict=True):
        assert one.std_error == pytest.approx(other.std_error, rel=EXACT)
        assert one.n_clusters == other.n_clusters
        if degrees == "clusters_minus_one":
            assert one.df == other.df
    if degrees == "satterthwaite":
        # Counts only: Welch's formula with 8 and 4 degrees of freedom.
        found = only(summed, metric="rate")
        assert 4 < (found.df or 0) < 12
        assert "do not look at their sizes" in check(summed, "cluster_errors").detail


def test_what_looks_at_every_cluster_is_refused_where_they_are_too_many(
    shops: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_sums, "MAX_CLUSTERS", 10)
    for options in (
        {"cluster_correction": "cr2"},
        {"cluster_correction": "cr3"},
        {"degrees_of_freedom": "bell_mccaffrey"},
    ):
        with pytest.raises(DataError, match=r"looks at every cluster.*given: 21 clusters"):
            analyse(shops, REVENUE, **options)
    result = analyse(shops, REVENUE)
    assert "cr1, satterthwaite" in check(result, "cluster_errors").detail


@pytest.mark.parametrize("correction", ["cr0", "cr1", "cr2", "cr3"])
def test_an_arm_of_one_cluster_is_refused(shops: pd.DataFrame, correction: str) -> None:
    frame = shops.assign(shop=shops["shop"].where(shops["variant"] != "b", 99))
    with pytest.raises(DataError, match="all units of variant b lie in one cluster") as caught:
        analyse(frame, REVENUE, cluster_correction=correction)
    assert "\n" not in str(caught.value)


def test_a_ratio_whose_denominator_lies_in_one_cluster_is_refused(shops: pd.DataFrame) -> None:
    alone = shops["sessions"].where((shops["variant"] != "b") | (shops["shop"] == 9), 0)
    with pytest.raises(DataError, match="variant b lie in one cluster"):
        analyse(shops.assign(sessions=alone, orders=0 * alone + (alone > 3)), RATE)


def test_two_ways_take_the_fewer_degrees(shops: pd.DataFrame) -> None:
    result = analyse(two(shops), REVENUE, cluster=["shop", "day"])
    assert "cr1, satterthwaite" in check(result, "cluster_errors").detail
    by = {
        column: only(analyse(two(shops), REVENUE, cluster=column, cluster_correction="cr1")).df
        for column in ("shop", "day")
    }
    assert only(result).df == pytest.approx(min(by["shop"] or 0, by["day"] or 0), rel=EXACT)
    with pytest.raises(SpecError, match="cr2 is for one column"):
        analyse(shops, REVENUE, cluster=["shop", "day"], cluster_correction="cr2")


def test_covariates_and_lifts_share_the_reference(shops: pd.DataFrame) -> None:
    """CUPED is the analysis of the adjusted outcome: its own correlation, its own degrees."""
    rows = two(shops)
    result = analyse(rows, REVENUE | BEFORE)
    theta = result.params["theta.revenue.b.before"]
    adjusted = rows.assign(revenue=rows["revenue"] - theta * rows["before"])
    found, reference = only(result, estimator="cuped"), only(analyse(adjusted, REVENUE))
    assert found.std_error == pytest.approx(reference.std_error, rel=EXACT)
    assert found.df == pytest.approx(reference.df, rel=1e-7)
    assert only(result, estimator="cuped", scale="relative").df == found.df
    gap = check(result, "cuped_agreement.revenue.b - a")
    assert gap.statistic is not None
    assert gap.pvalue is not None
    assert gap.pvalue > 2 * stats.norm.sf(abs(gap.statistic)), "a t, not a normal reference"
    share = only(result, estimator="cluster_robust").estimate - found.estimate
    assert share == pytest.approx(
        theta * np.diff(rows.groupby("treated")["before"].mean())[0], rel=1e-7
    )


def test_corrected_effects_use_the_same_degrees(shops: pd.DataFrame) -> None:
    result = analyse(
        two(shops), REVENUE | {"role": "primary"}, RATE | {"role": "primary"},
        multiplicity={"correction": "bonferroni"}, segments=["region"],
    )  # fmt: skip
    for metric in ("revenue", "rate"):
        plain = only(result, metric=metric, estimator="cluster_robust")
        family = only(result, metric=metric, estimator="cluster_robust_bonferroni")
        assert family.df == plain.df
        half = stats.t.ppf(1 - 0.025 / 2, plain.df) * plain.std_error
        assert family.ci_upper - family.estimate == pytest.approx(half, rel=EXACT)


# Segments and interactions


@pytest.mark.parametrize("correction", ["cr0", "cr1", "cr2", "cr3"])
def test_a_contrast_of_segments_has_the_variance_of_its_contributions(
    shops: pd.DataFrame, correction: str
) -> None:
    """The interaction with the other experiment: clusters lie in both of its arms."""
    rows = two(shops)
    found = only(
        analyse(
            rows, REVENUE, interaction={"variant": "other", "control": "old"},
            cluster_correction=correction,
        ),
        estimand="coefficient", term="b - a | other: new - old",
    )  # fmt: skip
    power = {"cr2": 0.5, "cr3": 1.0}.get(correction, 0.0)
    sums: dict[int, float] = {}
    for (arm, other), cell in rows.groupby(["treated", "other"]):
        sign = (1 if arm else -1) * (1 if other == "new" else -1)
        for shop, part in cell.groupby("shop"):
            share = len(part) / len(cell)
            change = share * (part["revenue"].mean() - cell["revenue"].mean())
            sums[shop] = sums.get(shop, 0.0) + sign * change / (1 - share) ** power
    n, g = len(rows), len(sums)
    factor = {"cr1": g / (g - 1) * (n - 1) / (n - 4), "cr3": (g - 1) / g}.get(correction, 1.0)
    variance = factor * sum(value**2 for value in sums.values())
    assert found.std_error == pytest.approx(np.sqrt(variance), rel=EXACT)
    assert found.df is not None
    assert 1 < found.df < 13


def test_segments_of_whole_clusters_are_independent(shops: pd.DataFrame) -> None:
    """Welch's test of two effects is the squared Welch t of their difference."""
    result = analyse(two(shops), REVENUE, segments=["town"])
    one, other = (only(result, term=f"b - a | town={town}") for town in ("x", "y"))
    variance = one.std_error**2 + other.std_error**2
    df = variance**2 / (one.std_error**4 / one.df + other.std_error**4 / other.df)  # type: ignore[operator]
    statistic = (one.estimate - other.estimate) / np.sqrt(variance)
    found = check(result, "heterogeneity.town.revenue.b - a")
    assert found.statistic == pytest.approx(statistic**2, rel=EXACT)
    assert found.pvalue == pytest.approx(2 * stats.t.sf(abs(statistic), df), rel=1e-7)


def test_heterogeneity_over_shared_clusters_is_hotellings(shops: pd.DataFrame) -> None:
    rows = two(shops)
    found = check(analyse(rows, REVENUE, segments=["region"]), "heterogeneity.region.revenue.b - a")
    assert "Hotelling" in found.detail
    assert found.pvalue is not None
    reference = check(
        analyse(
            rows, REVENUE, segments=["region"], cluster_correction="cr1",
            degrees_of_freedom="clusters_minus_one",
        ),
        "heterogeneity.region.revenue.b - a",
    )  # fmt: skip
    wald = (
        smf.ols("revenue ~ treated * C(region)", rows)
        .fit(cov_type="cluster", cov_kwds={"groups": rows["shop"]}, use_t=True)
        .wald_test(
            "treated:C(region)[T.s] = 0, treated:C(region)[T.w] = 0", scalar=True, use_f=True
        )
    )
    assert reference.statistic == pytest.approx(wald.statistic, rel=1e-8)
    assert reference.pvalue == pytest.approx(wald.pvalue, rel=1e-7)
    assert found.pvalue > reference.pvalue


def test_segments_with_few_clusters_in_an_arm_are_counted(shops: pd.DataFrame) -> None:
    """Town y has two shops of arm b, town x three."""
    result = analyse(two(shops), REVENUE, segments=["town"])
    shops_of_b = two(shops).query("variant == 'b'").groupby("town")["shop"].nunique()
    assert check(result, "segments_few_clusters.town").statistic == (shops_of_b < 4).sum() == 2


def test_another_experiment_on_clusters_is_not_tested_and_says_so(shops: pd.DataFrame) -> None:
    result = analyse(two(shops), REVENUE, interaction={"variant": "other", "control": "old"})
    found = check(result, "independent_assignment.other")
    assert (found.passed, found.pvalue) == (None, None)
    assert "not tested" in found.detail


# Checks


def placed(n_treated: int, n_control: int, size: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    shop = np.repeat(np.arange(n_treated + n_control), size)
    return pd.DataFrame(
        {
            "user": np.arange(len(shop)), "shop": shop,
            "variant": np.where(shop < n_treated, "b", "a"),
            "revenue": rng.normal(size=n_treated + n_control)[shop] + rng.normal(size=len(shop)),
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arms", "options", "passed"),
    [
        ((2, 100), {}, False),
        ((3, 3), {}, False),
        ((4, 30), {}, None),
        ((9, 30), {}, None),
        ((9, 30), {"cluster_correction": "cr1"}, False),
        ((9, 30), {"degrees_of_freedom": "clusters_minus_one"}, False),
        ((10, 30), {"cluster_correction": "cr1"}, None),
    ],
)
def test_arms_with_few_clusters(
    arms: tuple[int, int], options: dict[str, str], *, passed: bool | None
) -> None:
    found = check(analyse(placed(*arms), REVENUE, **options), "arm_clusters")
    assert found.statistic == min(arms)
    assert found.passed is passed


def test_twenty_clusters_in_an_arm_need_no_remark() -> None:
    result = analyse(placed(20, 30), REVENUE)
    assert not any(item.name in {"arm_clusters", "few_clusters"} for item in result.diagnostics)
    assert check(analyse(placed(20, 25), REVENUE), "few_clusters").statistic == 45


def test_one_huge_cluster_makes_an_arm_red() -> None:
    """Twelve clusters, but one holds nine in ten units: they are worth hardly more than one."""
    rows = placed(12, 40)
    rng = np.random.default_rng(6)
    more = pd.DataFrame(
        {
            "user": np.arange(10_000, 10_900), "shop": 0, "variant": "b",
            "revenue": rows.loc[rows["shop"] == 0, "revenue"].mean() + rng.normal(size=900),
        }
    )  # fmt: skip
    result = analyse(pd.concat([rows, more]), REVENUE)
    found = check(result, "arm_clusters")
    assert found.passed is False
    assert "worth" in found.detail
    assert (only(result).df or 0) < 30, "of 52 clusters"
