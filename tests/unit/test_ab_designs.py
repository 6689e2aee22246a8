"""Designs and corrections of the method `ab` against statsmodels and scipy on raw rows."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.oneway import anova_generic

from causal.core.errors import DataError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Effect, Result
from causal.core.spec import validate
from causal.experiments import ab

EXACT = 1e-9

REVENUE = {"name": "revenue", "type": "mean", "column": "revenue", "role": "primary"}
PAID = {"name": "paid", "type": "proportion", "column": "paid"}
RATE = {"name": "rate", "type": "ratio", "numerator": "orders", "denominator": "sessions"}
BEFORE = {"covariates": ["pre_revenue"]}


@pytest.fixture(scope="module")
def users() -> pd.DataFrame:
    """Households in shops, three tiers that differ, a second experiment on most units."""
    rng = np.random.default_rng(23)
    n = 1800
    home = np.sort(rng.integers(0, 500, n))
    shop = rng.integers(0, 40, n)
    tier = rng.choice(["basic", "gold", "plus"], n, p=[0.5, 0.2, 0.3])
    arm = rng.random(500)[home] < 0.45
    other = rng.choice(["old", "new", None], n, p=[0.45, 0.45, 0.1])
    level = pd.Series(tier).map({"basic": 0.0, "plus": 2.0, "gold": 5.0}).to_numpy()
    noise = rng.normal(size=500)[home] + 0.5 * rng.normal(size=40)[shop] + rng.normal(size=n)
    before = rng.gamma(3.0, 1.0, n) + level
    sessions = rng.poisson(4, n) + 1
    lift = arm * (0.5 + 0.2 * level + 0.4 * (other == "new"))
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "home": home,
            "shop": shop,
            "tier": tier,
            "other": other,
            "variant": np.where(arm, "treatment", "control"),
            "treated": arm.astype(int),
            "revenue": 10 + level + 0.7 * before + noise + lift,
            "paid": (rng.random(n) < 0.3 + 0.05 * arm).astype(int),
            "sessions": sessions,
            "orders": rng.binomial(sessions, np.where(arm, 0.4, 0.36)),
            "pre_revenue": before,
        }
    )


def spec_of(*metrics: dict[str, Any], **options: object) -> ab.AbSpec:
    base = {"unit": "user", "variant": "variant", "control": "control", "metrics": [*metrics]}
    data = {"name": "x", "source": {"table": "t"}, "method": "ab", "options": base | options}
    return validate(ab.SPEC, data)


def analyse(frame: pd.DataFrame, *metrics: dict[str, Any], **options: object) -> Result:
    return run(ab.estimate(spec_of(*metrics, **options)), PandasEngine(frame))


def only(result: Result, **fields: object) -> Effect:
    wanted = {"scale": "absolute"} | fields
    found = [e for e in result.effects if all(getattr(e, k) == v for k, v in wanted.items())]
    assert len(found) == 1, [(e.estimator, e.metric, e.term) for e in result.effects]
    return found[0]


def check(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


def close(found: float, expected: float, *, tolerance: float = EXACT) -> bool:
    return found == pytest.approx(expected, rel=tolerance)


# Clusters


@pytest.mark.parametrize("correction", ["cr0", "cr1"])
def test_two_way_clusters_are_statsmodels(users: pd.DataFrame, correction: str) -> None:
    result = analyse(
        users, REVENUE, cluster=["home", "shop"], cluster_correction=correction,
        degrees_of_freedom="clusters_minus_one",
    )  # fmt: skip
    reference = smf.ols("revenue ~ treated", users).fit(
        cov_type="cluster",
        cov_kwds={
            "groups": users[["home", "shop"]].to_numpy(),
            "use_correction": correction == "cr1",
        },
    )
    found = only(result, estimator="cluster_robust")
    assert close(found.std_error, reference.bse["treated"])
    assert found.df == 39
    assert found.n_clusters == 40


def test_cr3_is_the_cluster_jackknife(users: pd.DataFrame) -> None:
    result = analyse(users, REVENUE, cluster="shop", cluster_correction="cr3")
    found = only(result, estimator="cluster_robust")
    whole = smf.ols("revenue ~ treated", users).fit().params["treated"]
    without = [
        smf.ols("revenue ~ treated", users[users["shop"] != shop]).fit().params["treated"]
        for shop in range(40)
    ]
    jackknife = np.sqrt(39 / 40 * np.sum((np.array(without) - whole) ** 2))
    assert close(found.std_error, jackknife)
    # Every shop holds both arms and none is large: nearly G - 1.
    assert found.df == pytest.approx(39, abs=3)
    for smaller in ("cr1", "cr2"):
        other = only(
            analyse(users, REVENUE, cluster="shop", cluster_correction=smaller),
            estimator="cluster_robust",
        )
        assert found.std_error > other.std_error


def test_cr3_of_nested_clusters_and_of_missing_values(users: pd.DataFrame) -> None:
    holes = users.assign(revenue=users["revenue"].mask(users["user"] % 50 == 0))
    result = analyse(holes, REVENUE, PAID, cluster="home", cluster_correction="cr3")
    full = holes.dropna(subset="revenue")
    found = only(result, estimator="cluster_robust", metric="revenue")
    arms = [full[full["treated"] == arm] for arm in (0, 1)]
    variance = 0.0
    n_clusters = full["home"].nunique()
    for arm in arms:
        mean = arm["revenue"].mean()
        for _, rows in arm.groupby("home"):
            rest = (arm["revenue"].sum() - rows["revenue"].sum()) / (len(arm) - len(rows))
            variance += (rest - mean) ** 2
    assert close(found.std_error, np.sqrt((n_clusters - 1) / n_clusters * variance))
    assert found.n_clusters == n_clusters


def test_a_single_cluster_per_arm_has_no_jackknife(users: pd.DataFrame) -> None:
    frame = users.assign(shop=users["treated"])
    with pytest.raises(DataError, match="lie in one cluster"):
        analyse(frame, REVENUE, cluster="shop", cluster_correction="cr3")


@pytest.mark.parametrize("cluster", ["home", ["home", "shop"]])
@pytest.mark.parametrize("correction", ["cr1", "cr3"])
def test_null_clusters_are_refused(users: pd.DataFrame, cluster: Any, correction: str) -> None:
    if correction == "cr3" and cluster != "home":
        return
    frame = users.assign(home=users["home"].astype(float).mask(users["user"] == 5))
    with pytest.raises(DataError, match=r"home.* is null; given: 1 rows"):
        analyse(frame, REVENUE, cluster=cluster, cluster_correction=correction)


# Lifts and finite populations


@pytest.mark.parametrize("covariates", [{}, BEFORE])
def test_fieller_inverts_the_test_of_the_difference(
    users: pd.DataFrame, covariates: dict[str, Any]
) -> None:
    result = analyse(users, REVENUE | covariates, relative_interval="fieller")
    estimator = "cuped" if covariates else "welch"
    found = only(result, estimator=estimator, scale="relative")
    absolute = only(result, estimator=estimator)
    assert (found.pvalue, found.statistic) == (absolute.pvalue, absolute.statistic)
    delta = only(analyse(users, REVENUE | covariates), estimator=estimator, scale="relative")
    assert found.estimate == delta.estimate
    assert (found.ci_lower, found.ci_upper) != (delta.ci_lower, delta.ci_upper)
    assert found.ci_lower == pytest.approx(delta.ci_lower, abs=0.05 * delta.std_error)
    if covariates:
        return
    arms = [users.loc[users["treated"] == arm, "revenue"] for arm in (0, 1)]
    variances = [arm.var() / len(arm) for arm in arms]
    limit = stats.t.ppf(0.975, absolute.df)

    def distance(ratio: float) -> float:
        gap = arms[1].mean() - ratio * arms[0].mean()
        return gap / math.sqrt(variances[1] + ratio**2 * variances[0])

    for end, side in ((found.ci_lower, 1.0), (found.ci_upper, -1.0)):
        root = optimize.brentq(lambda r, s=side: distance(r) - s * limit, 0.5, 2.0, xtol=1e-14)
        assert end == pytest.approx(root - 1, abs=1e-10)


def test_an_unbounded_fieller_set_is_said_in_words(users: pd.DataFrame) -> None:
    control = users.loc[users["treated"] == 0, "revenue"].mean()
    frame = users.assign(revenue=users["revenue"] - control + 0.01)
    result = analyse(frame, REVENUE, relative_interval="fieller")
    assert {effect.scale for effect in result.effects} == {"absolute"}
    note = check(result, "relative_scale.revenue.treatment - control")
    assert "no finite interval holds the lift" in note.detail
    assert {e.scale for e in analyse(frame, REVENUE).effects} == {"absolute", "relative"}


def test_a_finite_population_shrinks_each_arms_variance(users: pd.DataFrame) -> None:
    sizes = {"control": 1500, "treatment": 2500}
    found = only(analyse(users, REVENUE, population_sizes=sizes), estimator="welch")
    arms = {
        name: users.loc[users["variant"] == name, "revenue"] for name in ("control", "treatment")
    }
    variance = sum(
        (1 - len(rows) / sizes[name]) * rows.var() / len(rows) for name, rows in arms.items()
    )
    assert close(found.std_error, math.sqrt(variance))
    with pytest.raises(DataError, match="must be larger than its sample"):
        analyse(users, REVENUE, population_sizes={"control": 100, "treatment": 2500})
    with pytest.raises(DataError, match="no population size"):
        analyse(users, REVENUE, population_sizes={"treatment": 2500})


# Strata


def test_blocked_strata_are_the_interacted_regression(users: pd.DataFrame) -> None:
    result = analyse(users, REVENUE, strata=["tier"], stratification="blocked")
    found = only(result, estimator="blocked")
    centred = users.assign(
        gold=(users["tier"] == "gold") - (users["tier"] == "gold").mean(),
        plus=(users["tier"] == "plus") - (users["tier"] == "plus").mean(),
    )
    reference = smf.ols("revenue ~ treated * (gold + plus)", centred).fit(cov_type="HC2")
    assert close(found.estimate, reference.params["treated"])
    assert close(found.std_error, reference.bse["treated"])
    assert {e.estimator for e in result.effects} == {"blocked", "welch"}


def test_post_stratification_adds_the_spread_of_effects_over_strata(users: pd.DataFrame) -> None:
    result = analyse(users, REVENUE, strata=["tier"])
    found = only(result, estimator="post_stratified")
    blocked = only(
        analyse(users, REVENUE, strata=["tier"], stratification="blocked"), estimator="blocked"
    )
    cells = users.groupby(["tier", "treated"])["revenue"].mean().unstack()
    shares = users["tier"].value_counts(normalize=True).sort_index()
    effects = cells[1] - cells[0]
    between = (shares * (effects - shares @ effects) ** 2).sum() / len(users)
    assert close(found.estimate, float(shares @ effects))
    assert close(found.std_error, math.sqrt(blocked.std_error**2 + between))
    lift = only(result, estimator="post_stratified", scale="relative")
    levels = shares @ cells
    assert close(lift.estimate, levels[1] / levels[0] - 1)


def test_one_stratum_is_the_plain_comparison(users: pd.DataFrame) -> None:
    frame = users.assign(one="all")
    result = analyse(frame, REVENUE | BEFORE, RATE, strata=["one"])
    for metric, estimator, plain in (
        ("revenue", "post_stratified_cuped", "cuped"),
        ("rate", "post_stratified", "welch"),
    ):
        found = only(result, estimator=estimator, metric=metric)
        base = only(analyse(users, REVENUE | BEFORE, RATE), estimator=plain, metric=metric)
        for name in ("estimate", "std_error", "df", "pvalue"):
            assert close(getattr(found, name), getattr(base, name))


def test_several_columns_make_strata_and_null_is_one(users: pd.DataFrame) -> None:
    frame = users.assign(tier=users["tier"].where(users["user"] % 20 != 0))
    result = analyse(frame, REVENUE, RATE, strata=["tier", "paid"])
    assert check(result, "strata").statistic == 8
    assert "rows without a value form strata" in check(result, "strata").detail
    filled = analyse(frame.fillna({"tier": "none"}), REVENUE, RATE, strata=["tier", "paid"])
    for metric in ("revenue", "rate"):
        found = only(result, estimator="post_stratified", metric=metric)
        assert close(
            found.std_error,
            only(filled, estimator="post_stratified", metric=metric).std_error,
        )


def test_strata_without_units_of_an_arm_are_refused(users: pd.DataFrame) -> None:
    frame = users.assign(tier=users["tier"].mask(users["user"] == 3, "new"))
    with pytest.raises(DataError, match=r"fewer than 2 units in an arm.*given: tier=new"):
        analyse(frame, REVENUE, strata=["tier"])


# Segments


@pytest.mark.parametrize("options", [{}, {"cluster": "home"}, {"variance": "pooled"}])
def test_a_segment_is_the_analysis_of_its_units(
    users: pd.DataFrame, options: dict[str, Any]
) -> None:
    metrics = (REVENUE | BEFORE, PAID, RATE)
    result = analyse(users, *metrics, segments=["tier"], **options)
    for tier in ("basic", "gold", "plus"):
        alone = analyse(users[users["tier"] == tier], *metrics, **options)
        for base in alone.effects:
            found = only(
                result,
                estimator=base.estimator,
                metric=base.metric,
                scale=base.scale,
                term=f"treatment - control | tier={tier}",
            )
            assert found.estimand == "cate"
            for name in ("estimate", "std_error", "df", "ci_lower", "pvalue"):
                assert close(getattr(found, name), getattr(base, name))


def test_heterogeneity_is_welchs_test_of_the_effects(users: pd.DataFrame) -> None:
    """statsmodels' one-way test of unequal variances, fed with each segment's Welch t test."""
    result = analyse(users, REVENUE, segments=["tier"])
    found = check(result, "heterogeneity.tier.revenue.treatment - control")
    effects, variances, dfs = [], [], []
    for _, rows in users.groupby("tier"):
        arms = [rows.loc[rows["treated"] == arm, "revenue"] for arm in (0, 1)]
        test = stats.ttest_ind(arms[1], arms[0], equal_var=False)
        effects.append(arms[1].mean() - arms[0].mean())
        variances.append((effects[-1] / test.statistic) ** 2)
        dfs.append(test.df)
    nobs = np.array(dfs) + 1
    reference = anova_generic(np.array(effects), np.array(variances) * nobs, nobs)
    assert found.statistic is not None
    assert found.pvalue is not None
    assert close(found.statistic, reference.statistic)
    assert close(found.pvalue, reference.pvalue)
    large = smf.ols("revenue ~ treated * C(tier)", users).fit(cov_type="HC2")
    joint = "treated:C(tier)[T.gold] = 0, treated:C(tier)[T.plus] = 0"
    chi2 = large.wald_test(joint, scalar=True)
    assert found.statistic == pytest.approx(chi2.statistic / 2, rel=0.01)
    assert found.pvalue > chi2.pvalue
    clustered = check(
        analyse(
            users, REVENUE, segments=["tier"], cluster="home", cluster_correction="cr1",
            degrees_of_freedom="clusters_minus_one",
        ),
        "heterogeneity.tier.revenue.treatment - control",
    )  # fmt: skip
    reference = (
        smf.ols("revenue ~ treated * C(tier)", users)
        .fit(cov_type="cluster", cov_kwds={"groups": users["home"]}, use_t=True)
        .wald_test(joint, scalar=True, use_f=True)
    )
    assert clustered.statistic == pytest.approx(reference.statistic, rel=1e-8)
    assert clustered.pvalue == pytest.approx(reference.pvalue, rel=1e-7)


def test_segments_that_cannot_be_compared_are_counted(users: pd.DataFrame) -> None:
    tier = users["tier"].mask(users["user"] < 3, "tiny").mask(users["user"] % 30 == 7)
    frame = users.assign(tier=tier)
    frame.loc[frame["tier"] == "gold", "pre_revenue"] = 0.0
    frame.loc[frame["tier"] == "plus", "paid"] = 1
    result = analyse(frame, REVENUE | BEFORE, PAID, segments=["tier"])
    assert check(result, "segment_missing.tier").statistic == tier.isna().sum()
    left_out = check(result, "segments_left_out.tier")
    assert left_out.statistic == 3
    assert "tier=tiny: fewer than 2 units" in left_out.detail
    assert "paid, treatment - control | tier=plus: zero variance" in left_out.detail
    assert check(result, "segments_unadjusted.tier").statistic == 1
    gold = [e for e in result.effects if e.term.endswith("tier=gold") and e.metric == "revenue"]
    assert {e.estimator for e in gold} == {"welch"}


def test_a_segment_without_an_event_under_treatment_has_no_lift(users: pd.DataFrame) -> None:
    frame = users.copy()
    is_idle = (frame["tier"] == "gold") & (frame["variant"] == "treatment")
    frame.loc[is_idle, "revenue"] = 0.0
    result = analyse(frame, REVENUE, segments=["tier"])
    scales = {e.scale for e in result.effects if e.term.endswith("tier=gold")}
    assert scales == {"absolute"}
    assert {e.scale for e in result.effects if e.term.endswith("tier=plus")} == {
        "absolute",
        "relative",
    }


@pytest.mark.parametrize("interval", ["delta", "fieller"])
def test_a_treatment_without_an_event_has_no_lift_and_that_is_said(
    users: pd.DataFrame, interval: str
) -> None:
    frame = users.copy()
    frame.loc[frame["variant"] == "treatment", "revenue"] = 0.0
    guarded = REVENUE | {"role": "guardrail", "margin": 0.1, "margin_scale": "relative"}
    result = analyse(frame, PAID, guarded, relative_interval=interval)
    assert [e.scale for e in result.effects if e.metric == "revenue"] == ["absolute"]
    said = check(result, "relative_scale.revenue.treatment - control").detail
    assert "zero throughout the treatment" in said
    stopped = check(result, "guardrail.revenue.treatment - control")
    assert stopped.passed is None
    assert "needs a treatment above zero" in stopped.detail


def test_segments_with_clusters_that_leave_one_are_counted(users: pd.DataFrame) -> None:
    frame = users.assign(shop=np.where(users["tier"] == "gold", -1, users["shop"]))
    result = analyse(frame, REVENUE, segments=["tier"], cluster="shop")
    left_out = check(result, "segments_left_out.tier")
    assert left_out.statistic == 1
    assert "lie in one cluster" in left_out.detail


def test_shares_of_segments(users: pd.DataFrame) -> None:
    shares = {"control": 0.55, "treatment": 0.45}
    even = analyse(users, REVENUE, segments=["tier"], expected_shares=shares)
    found = check(even, "sample_ratio.tier")
    pvalues = []
    for _, rows in users.groupby("tier"):
        n_treated = int(rows["treated"].sum())
        counts = [len(rows) - n_treated, n_treated]
        pvalues.append(stats.chisquare(counts, len(rows) * np.array([0.55, 0.45])).pvalue)
    assert found.pvalue == pytest.approx(min(1.0, 3 * min(pvalues)), rel=EXACT)
    is_lost = (users["tier"] == "gold") & (users["treated"] == 1) & (users["user"] % 2 == 0)
    lost = analyse(users[~is_lost], REVENUE, segments=["tier"], expected_shares=shares)
    assert check(lost, "sample_ratio.tier").passed is False
    assert "tier=gold" in check(lost, "sample_ratio.tier").detail
    clustered = analyse(users, REVENUE, segments=["tier"], cluster="home")
    assert check(clustered, "assumed_sample_ratio.tier").passed is True


# Two experiments


def test_the_interaction_of_two_experiments(users: pd.DataFrame) -> None:
    other = {"variant": "other", "control": "old"}
    result = analyse(users, REVENUE, interaction=other)
    both = users.dropna(subset="other").assign(new=lambda f: (f["other"] == "new").astype(int))
    fit = smf.ols("revenue ~ treated * new", both)
    found = only(result, term="treatment - control | other: new - old")
    reference = fit.fit(cov_type="HC2")
    assert found.estimand == "coefficient"
    assert close(found.estimate, reference.params["treated:new"])
    assert close(found.std_error, reference.bse["treated:new"])
    assert found.n_treated + found.n_control == len(both)
    assert check(result, "segment_missing.other").statistic == users["other"].isna().sum()
    table = pd.crosstab(both["treated"], both["other"])
    independence = check(result, "independent_assignment.other")
    expected = stats.chi2_contingency(table, correction=False)
    assert independence.statistic == pytest.approx(expected.statistic, rel=EXACT)
    clustered = only(
        analyse(
            users, REVENUE, interaction=other, cluster="home", cluster_correction="cr1",
            degrees_of_freedom="clusters_minus_one",
        ),
        term="treatment - control | other: new - old",
    )  # fmt: skip
    reference = fit.fit(cov_type="cluster", cov_kwds={"groups": both["home"]}, use_t=True)
    assert clustered.std_error == pytest.approx(reference.bse["treated:new"], rel=1e-8)
    assert clustered.pvalue == pytest.approx(reference.pvalues["treated:new"], rel=1e-7)
    with pytest.raises(DataError, match="other has no such variant; given: none"):
        analyse(users, REVENUE, interaction={"variant": "other", "control": "none"})
    with pytest.raises(DataError, match="one arm only"):
        analyse(users[users["other"] == "old"], REVENUE, interaction=other)


# Families


@pytest.mark.parametrize(
    ("correction", "peer"),
    [
        ("bonferroni", "bonferroni"),
        ("holm", "holm"),
        ("hommel", "hommel"),
        ("benjamini_hochberg", "fdr_bh"),
        ("benjamini_yekutieli", "fdr_by"),
    ],
)
def test_families_across_metrics_and_variants(
    users: pd.DataFrame, correction: str, peer: str
) -> None:
    frame = users.assign(variant=np.array(["control", "light", "full"])[users["user"] % 3])
    metrics = (
        REVENUE | BEFORE | {"role": "primary"},
        PAID | {"role": "primary"},
        RATE | {"role": "guardrail", "margin": 0.1},
    )
    result = analyse(frame, *metrics, multiplicity={"correction": correction})
    best = {"revenue": "cuped", "paid": "welch"}
    for scale in ("absolute", "relative"):
        plain = [
            only(result, estimator=best[metric], metric=metric, term=term, scale=scale)
            for metric in ("revenue", "paid")
            for term in ("full - control", "light - control")
        ]
        expected = multipletests([item.pvalue for item in plain], method=peer)[1]
        rows = [
            only(
                result,
                estimator=f"{item.estimator}_{correction}",
                metric=item.metric,
                term=item.term,
                scale=scale,
            )
            for item in plain
        ]
        np.testing.assert_allclose([row.pvalue for row in rows], expected, rtol=0, atol=1e-12)
        for row, item in zip(rows, plain, strict=True):
            assert (row.estimate, row.std_error, row.confidence_level) == (
                item.estimate, item.std_error, item.confidence_level,
            )  # fmt: skip
            assert row.ci_upper - row.ci_lower >= item.ci_upper - item.ci_lower
            if correction in {"bonferroni", "holm", "hommel"}:
                half = stats.t.ppf(1 - 0.05 / 4 / 2, item.df) * item.std_error
                assert close(row.ci_upper - row.estimate, half)
    assert not any(e.metric == "rate" and correction in e.estimator for e in result.effects)
    assert "metrics without correction: rate" in check(result, "multiplicity").detail
    assert check(result, "multiplicity.primary").statistic == sum(
        e.pvalue <= 0.05 and e.scale == "absolute" and e.estimator.endswith(correction)
        for e in result.effects
    )


def test_named_families_and_segments(users: pd.DataFrame) -> None:
    families = {"decision": ["revenue", "rate"], "look": ["paid"]}
    result = analyse(
        users,
        REVENUE,
        PAID,
        RATE | {"role": "guardrail", "margin": 0.1},
        segments=["tier"],
        multiplicity={"correction": "benjamini_hochberg", "families": families},
    )
    names = {item.name for item in result.diagnostics if item.name.startswith("multiplicity")}
    assert names == {
        "multiplicity", "multiplicity.decision", "multiplicity.look", "multiplicity.decision.tier",
        "multiplicity.look.tier",
    }  # fmt: skip
    pvalues = [
        only(result, estimator="welch", metric=m, term=f"treatment - control | tier={t}").pvalue
        for m in ("revenue", "rate")
        for t in ("basic", "gold", "plus")
    ]
    adjusted = [
        only(
            result,
            estimator="welch_benjamini_hochberg",
            metric=m,
            term=f"treatment - control | tier={t}",
        ).pvalue
        for m in ("revenue", "rate")
        for t in ("basic", "gold", "plus")
    ]
    np.testing.assert_allclose(adjusted, multipletests(pvalues, method="fdr_bh")[1], atol=1e-12)
    frame = result.to_frame()
    assert not frame.duplicated(["estimator", "metric", "term", "scale"]).any()


# Metrics


def test_winsorised_means_and_counts(users: pd.DataFrame) -> None:
    metric = REVENUE | {"winsorise": {"lower": 11.0, "upper": 15.0}}
    counts = {"name": "orders", "type": "count", "column": "orders", "winsorise": {"upper": 4}}
    raw = {"name": "plain", "type": "mean", "column": "revenue", "covariates": ["pre_revenue"]}
    result = analyse(users, metric, counts, raw)
    for name, column, low, high in (
        ("revenue", "revenue", 11.0, 15.0),
        ("orders", "orders", None, 4),
        ("plain", "revenue", None, None),
    ):
        values = users[column].clip(low, high)
        reference = stats.ttest_ind(
            values[users["treated"] == 1], values[users["treated"] == 0], equal_var=False
        )
        found = only(result, estimator="welch", metric=name)
        assert close(found.statistic, reference.statistic)
        assert close(found.pvalue, reference.pvalue)
    with pytest.raises(DataError, match="a count is never negative"):
        analyse(users.assign(orders=-users["orders"]), counts)


# Health


def test_missingness_by_arm(users: pd.DataFrame) -> None:
    is_lost = (users["user"] % 10 == 0) | ((users["treated"] == 1) & (users["user"] % 10 == 1))
    frame = users.assign(revenue=users["revenue"].mask(is_lost))
    result = analyse(frame, REVENUE, PAID)
    table = pd.crosstab(users["treated"], is_lost)
    expected = stats.chi2_contingency(table, correction=False)
    found = check(result, "missingness.revenue")
    assert found.pvalue == pytest.approx(expected.pvalue, rel=EXACT)
    assert found.passed is False
    assert not any(item.name == "missingness.paid" for item in result.diagnostics)


def test_units_in_two_variants_are_named(users: pd.DataFrame) -> None:
    extra = users.head(4).assign(variant=["treatment", "control"] * 2)
    crossed = pd.concat([users, extra])
    n_changed = int((extra["variant"].to_numpy() != users.head(4)["variant"].to_numpy()).sum())
    with pytest.raises(DataError, match=f"{n_changed} of them are in two variants"):
        analyse(crossed, REVENUE)
    with pytest.raises(DataError, match="none changes variant"):
        analyse(pd.concat([users, users.head(2)]), REVENUE)


def test_the_adjusted_and_the_raw_effect_agree_or_not(users: pd.DataFrame) -> None:
    result = analyse(users, REVENUE | BEFORE)
    found = check(result, "cuped_agreement.revenue.treatment - control")
    arms = [users.loc[users["treated"] == arm, "pre_revenue"] for arm in (0, 1)]
    expected = stats.ttest_ind(arms[0], arms[1], equal_var=False).statistic
    assert abs(found.statistic or 0) == pytest.approx(abs(expected), rel=1e-8)
    assert found.passed is True
    shifted = users.assign(pre_revenue=users["pre_revenue"] + 0.5 * users["treated"])
    assert (
        check(
            analyse(shifted, REVENUE | BEFORE), "cuped_agreement.revenue.treatment - control"
        ).passed
        is False
    )


def test_the_smallest_effect_that_is_found(users: pd.DataFrame) -> None:
    result = analyse(users, REVENUE, power=0.9)
    effect = only(result, estimator="welch")
    found = check(result, "mde.revenue.treatment - control")
    expected = (stats.t.ppf(0.975, effect.df) + stats.t.ppf(0.9, effect.df)) * effect.std_error
    assert found.statistic == pytest.approx(expected, rel=EXACT)


# What a spec may not say


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster": ["a", "b", "c"]}, "cluster is one column or two"),
        ({"cluster": ["a", "a"]}, "must be different columns"),
        ({"cluster": ["a", "b"], "cluster_correction": "cr3"}, "cr3 is for one column"),
        ({"strata": ["a"], "cluster": "b"}, "strata are for independent units"),
        ({"strata": ["a", "a"]}, "a is listed twice"),
        ({"strata": ["revenue"]}, "revenue is the unit, the variant or an outcome"),
        ({"strata": ["a"], "variance": "pooled"}, "variance applies to unstratified arms"),
        ({"stratification": "blocked"}, "stratification needs strata"),
        ({"segments": ["variant"]}, "variant is the unit, the variant or an outcome"),
        ({"interaction": {"variant": "variant", "control": "a"}}, "is the unit, the variant"),
        ({"population_sizes": {"a": 5}, "cluster": "b"}, "independent units without strata"),
        ({"population_sizes": {"a": 5}, "segments": ["b"]}, "leave segments out"),
        ({"population_sizes": {"a": 1}}, "greater than 1"),
        ({"multiplicity": {"families": {"f": ["nothing"]}}}, "no metric is called nothing"),
        ({"multiplicity": {"families": {"f": []}}}, "family f has no metrics"),
        (
            {"multiplicity": {"families": {"f": ["revenue"], "g": ["revenue"]}}},
            "metric revenue is in two families",
        ),
        ({"multiplicity": {"correction": "sidak"}}, "'bonferroni', 'holm'"),
        ({"relative_interval": "bootstrap"}, "'delta' or 'fieller'"),
        ({"power": 1.2}, "less than 1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(REVENUE, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (PAID | {"winsorise": {"upper": 1}}, "only a mean or a count can be winsorised"),
        (REVENUE | {"winsorise": {}}, "winsorise needs lower or upper"),
        (REVENUE | {"winsorise": {"lower": 2, "upper": 1}}, "lower must be below upper"),
    ],
)
def test_wrong_bounds_are_refused(metric: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(metric)
    assert message in str(caught.value)


def test_guardrails_alone_make_no_family() -> None:
    with pytest.raises(SpecError, match="guardrails only"):
        spec_of(REVENUE | {"role": "guardrail"}, multiplicity={"correction": "holm"})
