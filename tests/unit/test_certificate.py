"""The certificate: its replicates are the estimator itself on re-assigned rows, its rates exact."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.checks import certificate, health
from causal.checks.certificate import Subject, binomial_interval, ks_distances
from causal.core.buckets import bucket_numbers
from causal.core.errors import InferenceError, SpecError
from causal.core.frames import HashBucket
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Result
from causal.core.spec import validate
from causal.experiments import (
    ab,
    ab_certificate,
    ab_replicates,
    cluster_moments,
    cluster_sums,
)
from causal.experiments.ab_options import AbSpec
from causal.experiments.ab_replicates import (
    Case,
    beside,
    estimators_of,
    replicates_of,
    two_sided,
)
from causal.experiments.complete_randomisation import assignments
from causal.experiments.rerandomisation import Estimates, estimates

SEED = 3
N_BUCKETS = 2000
N_CHECKED = 2
"""Replicates that are compared with a readout of their rows."""
REVENUE = {"name": "revenue", "type": "mean", "column": "revenue", "role": "primary"}
CUPED = REVENUE | {"covariates": ["pre_revenue", "age"]}
PAID = {"name": "paid", "type": "proportion", "column": "paid"}
RATE = {
    "name": "rate", "type": "ratio", "numerator": "orders", "denominator": "sessions",
    "covariates": ["age", {"numerator": "pre_revenue", "denominator": "pre_sessions"}],
}  # fmt: skip
CAPPED = REVENUE | {"name": "capped", "winsorise": {"upper": 20.0}, "covariates": ["age"]}


def users(*, n: int = 700, arms: tuple[str, ...] = ("old", "new")) -> pd.DataFrame:
    """Users in homes, each home in one arm; revenue has a heavy tail and a large mean."""
    rng = np.random.default_rng(17)
    home = np.sort(rng.integers(0, n // 3, n))
    arm = rng.choice(len(arms), n // 3, p=[0.4, *[0.6 / (len(arms) - 1)] * (len(arms) - 1)])[home]
    tier = rng.choice(["basic", "gold"], n, p=[0.7, 0.3])
    before = rng.lognormal(1.0, 0.8, n)
    sessions = rng.poisson(4, n) + 1
    shared = rng.normal(size=n // 3)[home]
    revenue = 1000 + before + 3 * (tier == "gold") + shared + rng.lognormal(0, 1.2, n) + 0.4 * arm
    frame = pd.DataFrame(
        {
            "user": [f"user-{i}" for i in range(n)],
            "home": home,
            "variant": np.array(arms)[arm],
            "tier": tier,
            "shop": rng.integers(0, 30, n),
            "village": village(arm),
            "place": home // 2,
            "revenue": np.minimum(revenue, 1040.0) - 990,
            "paid": (rng.random(n) < 0.3 + 0.05 * arm).astype(int),
            "sessions": sessions,
            "pre_sessions": rng.poisson(5, n) + 1,
            "orders": rng.binomial(sessions, np.where(arm > 0, 0.4, 0.36)),
            "pre_revenue": before,
            "age": rng.normal(40, 10, n) + shared,
        }
    )  # fmt: skip
    return frame.assign(patchy=patchy)


def village(arm: np.ndarray) -> np.ndarray:
    """Villages of one arm each, fifteen to an arm, the last ones ten times the first."""
    shares = np.linspace(1.0, 10.0, 15)
    return arm * 15 + np.random.default_rng(8).choice(15, len(arm), p=shares / shares.sum())


def patchy(frame: pd.DataFrame) -> pd.Series:
    """Revenue that nobody of two villages has, and few of the others lack."""
    is_missing = frame["village"].isin([3, 20]) | (np.arange(len(frame)) % 11 == 0)
    return frame["revenue"].mask(is_missing)


def spec_of(*metrics: Mapping[str, Any], **options: Any) -> AbSpec:
    data = {
        "name": "certified",
        "source": {"table": "users"},
        "method": "ab",
        "seed": SEED,
        "options": {
            "unit": "user",
            "variant": "variant",
            "control": "old",
            "metrics": list(metrics),
            "certificate": {"replications": 1000, "buckets": N_BUCKETS},
            **options,
        },
    }
    return validate(AbSpec, data)


def readout(frame: pd.DataFrame, spec: AbSpec) -> Result:
    return run(ab.estimate(spec), PandasEngine(frame))


def check(result: Result, name: str) -> Diagnostic:
    (found,) = [item for item in result.diagnostics if item.name.startswith(name)]
    return found


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Case], dict[Any, int]]]:
    """The cases of each treatment, as the certificate makes them."""
    seen: list[tuple[list[Case], dict[Any, int]]] = []
    original = ab_replicates.replicated

    def spy(cases: list[Case], how: Any, **given: Any) -> Any:
        seen.append((list(cases), given["treated"]))
        return original(cases, how, **given)

    monkeypatch.setattr(ab_certificate, "replicated", spy)
    return seen


def reassigned(
    frame: pd.DataFrame, case: Case, is_treated: np.ndarray, *, effect: float
) -> pd.DataFrame:
    """The rows of one replicate: the estimated effect out, the arms anew, another effect in."""
    control, treatment = case.readout.comparison.variants
    names = case.metric.outcome
    column = names if isinstance(names, str) else names.numerator
    size = 1.0 if isinstance(names, str) else frame[names.denominator]
    inside = frame["variant"].isin([control, treatment])
    was, now = frame["variant"] == treatment, inside & is_treated
    value = frame[column] - case.effect * size * was + effect * size * now
    variant = frame["variant"].where(~inside, np.where(is_treated, treatment, control))
    return frame.assign(**{column: value, "variant": variant})


SUMMED = {"cluster_correction": "cr1", "degrees_of_freedom": "clusters_minus_one"}
"""Clustered errors that sums over buckets hold."""
FEW = {"cluster": "village"}
"""Thirty clusters, the largest with a seventh of the users."""
DESIGNS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "welch": (REVENUE, {}),
    "cuped": (CUPED, {}),
    "cuped within": (CUPED, {"theta": "within", "relative_interval": "fieller"}),
    "pooled": (CUPED, {"variance": "pooled"}),
    "proportion": (PAID, {}),
    "ratio": (RATE, {}),
    "ratio within, pooled": (RATE, {"theta": "within", "variance": "pooled"}),
    "post-stratified": (CUPED, {"strata": ["tier"]}),
    "post-stratified ratio": (RATE, {"strata": ["tier"]}),
    "blocked": (REVENUE, {"strata": ["tier"], "stratification": "blocked"}),
    "clusters": (CUPED, {"cluster": "home", **SUMMED}),
    "clustered ratio": (RATE, {"cluster": "home", **SUMMED}),
    "clusters without factor": (
        REVENUE,
        {"cluster": "home", **SUMMED, "cluster_correction": "cr0"},
    ),
    "villages": (CUPED, FEW),
    "villages, ratio": (RATE, FEW),
    "villages, ratio within": (RATE, {**FEW, "theta": "within"}),
    "villages, fieller": (REVENUE, {**FEW, "relative_interval": "fieller"}),
    "villages, jackknife": (CUPED, {**FEW, "cluster_correction": "cr3"}),
    "villages, ratio, jackknife": (RATE, {**FEW, "cluster_correction": "cr3"}),
    "villages, bell": (CUPED, {**FEW, "degrees_of_freedom": "bell_mccaffrey"}),
    "villages, ratio, cr3, bell": (
        RATE,
        {**FEW, "cluster_correction": "cr3", "degrees_of_freedom": "bell_mccaffrey"},
    ),
    "villages, cr1": (RATE, {**FEW, "cluster_correction": "cr1"}),
    "villages, cr0, bell": (
        REVENUE,
        {**FEW, "cluster_correction": "cr0", "degrees_of_freedom": "bell_mccaffrey"},
    ),
    "villages, cr2, all": (CUPED, {**FEW, "degrees_of_freedom": "clusters_minus_one"}),
    "villages, some without a value": (CUPED | {"column": "patchy"}, FEW),
    "homes": (CUPED, {"cluster": "home"}),
    "too many homes, all": (RATE, {"cluster": "home", **SUMMED}),
    "too many homes": (CUPED, {"cluster": "home", "cluster_correction": "cr1"}),
    "homes assigned by place": (
        CUPED,
        {"cluster": "home", **SUMMED, "certificate": {"assigned_by": "place", "buckets": 2000}},
    ),
    "households assigned": (CUPED, {"certificate": {"assigned_by": "home", "buckets": 2000}}),
}


TWO, THREE = ("old", "new"), ("old", "mid", "new")
CASES = [(name, TWO) for name in DESIGNS] + [
    (name, THREE)
    for name in ("cuped", "blocked", "clusters", "clustered ratio", "villages", "villages, ratio")
]


@pytest.mark.parametrize(("name", "arms"), CASES, ids=[f"{name}, {len(a)}" for name, a in CASES])
def test_a_replicate_is_the_readout_of_the_reassigned_rows(
    captured: list[tuple[list[Case], dict[Any, int]]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arms: tuple[str, ...],
) -> None:
    metric, options = DESIGNS[name]
    frame = users(arms=arms)
    if name.startswith("too many"):
        monkeypatch.setattr(cluster_sums, "MAX_CLUSTERS", 50)
    if metric is PAID:
        metric = PAID | {"type": "mean"}  # less an effect it is no longer zero or one
    spec = spec_of(metric, **options)
    readout(frame, spec)
    plain = spec_of(metric, **{**options, "certificate": None})
    assert len(captured) == len(arms) - 1
    for (case,), treated in captured:
        if case.clusters is not None and case.clusters.sizes is not None:
            numbers = frame[options["cluster"]].to_numpy()
        else:
            column = assigned_column(options)
            numbers = bucket_numbers(frame[column], HashBucket(column, N_BUCKETS, SEED))
        inside = frame["variant"].isin(case.readout.comparison.variants).to_numpy()
        occupied = np.unique(numbers[inside])
        n_buckets = len(occupied)
        draws = assignments(
            np.random.default_rng(5), n_buckets=n_buckets, replications=N_CHECKED,
            treated=treated.values(),
        )  # fmt: skip
        assigned = next(iter(draws))
        replicates = replicates_of(case, assigned, treated)
        position = np.searchsorted(occupied, np.where(inside, numbers, occupied[0]))
        for effect in (0.0, 0.7):
            moved = replicates.moved(effect, case.outcome)
            found = [
                estimates(
                    one.of(moved),
                    case.metric.quotients,
                    case_how(spec),
                    is_adjusted=one.is_adjusted,
                )
                for one in estimators_of(case)
            ]
            for at in range(N_CHECKED):
                key_of = {key: assigned[treated[key]][at] for key in case.keys}
                strata = [(value,) for value in frame["tier"]] if spec.options.strata else None
                is_treated = np.array(
                    [
                        key_of[strata[row] if strata else ()][position[row]] > 0
                        for row in range(len(frame))
                    ]
                )
                rows = reassigned(frame, case, is_treated, effect=effect)
                expected = readout(rows, plain)
                term = case.readout.comparison.term
                effects = [item for item in expected.effects if item.term == term]
                assert_same(found, effects, at=at)


def assigned_column(options: Mapping[str, Any]) -> str:
    named = (options.get("certificate") or {}).get("assigned_by")
    return str(named or options.get("cluster", "user"))


def case_how(spec: AbSpec) -> Any:
    return ab._inference(spec)


def assert_same(found: list[Estimates], effects: list[Any], *, at: int) -> None:
    absolute = [item for item in effects if item.scale == "absolute"]
    relative = [item for item in effects if item.scale == "relative"]
    assert len(found) == len(absolute) == len(relative)
    for one, effect, lift in zip(found, absolute, relative, strict=True):
        slack = 1e-10 * effect.std_error
        assert one.difference[at] == pytest.approx(effect.estimate, rel=1e-10, abs=slack)
        assert one.std_error[at] == pytest.approx(effect.std_error, rel=1e-10)
        assert one.df[at] == pytest.approx(effect.df, rel=1e-9)
        assert one.lift[at] == pytest.approx(lift.estimate, rel=1e-9, abs=1e-10 * lift.std_error)
        assert one.lift_error[at] == pytest.approx(lift.std_error, rel=1e-10)


def test_lifts_agree_with_the_intervals_of_fieller() -> None:
    """Whether a value lies in Fieller's interval, by its test and by its ends."""
    frame = users().assign(revenue=lambda rows: rows["revenue"] - 19.3)
    spec = spec_of(REVENUE, relative_interval="fieller", certificate=None)
    seen = set()
    rng = np.random.default_rng(1)
    for _ in range(40):
        rows = frame.assign(variant=rng.permutation(frame["variant"].to_numpy()))
        effects = readout(rows, spec).effects
        moments = [
            (part["revenue"].mean(), part["revenue"].var(ddof=1) / len(part))
            for _, part in rows.groupby("variant")
        ]
        (treatment, treated_variance), (control, variance) = moments
        one = Estimates(
            difference=np.array([treatment - control]),
            variance=np.array([variance + treated_variance]),
            df=np.array([effects[0].df]),
            control=np.array([control]),
            treatment=np.array([treatment]),
            _variance_of=lambda c, v=variance, t=treated_variance: c[0] ** 2 * v + c[1] ** 2 * t,
        )
        lift = 0.4
        has, _, is_covered = ab_replicates._lifts(one, one, case_how(spec), lift=lift)
        assert bool(has[0]) is (len(effects) == 2)
        if len(effects) == 2:
            assert bool(is_covered[0]) is (effects[1].ci_lower <= lift <= effects[1].ci_upper)
            seen.add(bool(is_covered[0]))
    assert seen == {True, False}


def test_a_changed_formula_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ab_replicates.estimates

    def wrong(*args: Any, **options: Any) -> Estimates:
        found = original(*args, **options)
        return Estimates(
            found.difference, found.variance * 1.0001, found.df, found.control, found.treatment,
            found._variance_of,
        )  # fmt: skip

    monkeypatch.setattr(ab_replicates, "estimates", wrong)
    with pytest.raises(InferenceError, match="does not reproduce the standard error of cuped"):
        readout(users(), spec_of(CUPED))


@pytest.mark.parametrize("n_arms", [1, 2], ids=["of each arm", "of both together"])
def test_changed_degrees_of_freedom_are_noticed(
    monkeypatch: pytest.MonkeyPatch, n_arms: int
) -> None:
    """Half as many, so that the smaller of the two bounds is the changed one."""
    original = cluster_moments.satterthwaite_dfs

    def wrong(arms: Any, icc: Any) -> Any:
        return original(arms, icc) * (0.5 if len(arms) == n_arms else 1.0)

    monkeypatch.setattr(cluster_moments, "satterthwaite_dfs", wrong)
    with pytest.raises(InferenceError, match="does not reproduce the degrees of freedom"):
        readout(users(), spec_of(REVENUE, **FEW))


@pytest.mark.parametrize("correction", ["cr0", "cr1", "cr2", "cr3"])
def test_an_arm_of_one_cluster_has_no_result(
    captured: list[tuple[list[Case], dict[Any, int]]], correction: str
) -> None:
    """As in the readout; only one of the treated villages has users with the metric."""
    frame = users()
    spec = spec_of(
        CUPED | {"column": "patchy"},
        **{**FEW, **SUMMED, "cluster_correction": correction},
    )
    readout(frame, spec)
    (((case,), _),) = captured
    assert case.clusters is not None
    held = np.flatnonzero(case.clusters.units > 0)
    assigned = np.tile((case.clusters.units == 0).astype(float), (2, 1))
    assert assigned[0].sum() == 2
    assigned[0, held[0]] = 1.0
    assigned[1, held[:2]] = 1.0
    replicates = replicates_of(case, {1: assigned}, {(): 1})
    found = estimates(replicates, case.metric.quotients, case_how(spec), is_adjusted=False)
    assert found.is_usable.tolist() == [False, True]
    assert np.isnan(found.variance[0])


def test_the_readout_itself_stays_as_it_is() -> None:
    frame = users()
    for options in ({}, FEW, {"cluster": "home", **SUMMED}, {"strata": ["tier"]}):
        with_, without = (
            spec_of(CUPED, RATE, **options),
            spec_of(CUPED, RATE, certificate=None, **options),
        )
        found, plain = readout(frame, with_), readout(frame, without)
        assert found.effects == plain.effects
        assert found.diagnostics[: len(plain.diagnostics)] == plain.diagnostics
        assert set(found.tables) - set(plain.tables) == {"certificate", "certificate_pvalues"}


def test_what_is_reported() -> None:
    frame = users(n=3000)
    options = {"certificate": {"replications": 1000, "buckets": 2000, "effects": [0.05, -0.02]}}
    result = readout(frame, spec_of(CUPED, PAID, **options))
    table = result.tables["certificate"]
    assert set(table["quantity"]) == {"type_one_error", "coverage", "power"}
    assert set(table["estimator"]) == {"cuped", "welch"}
    headline = table[table["is_headline"]]
    assert set(zip(headline["metric"], headline["estimator"], strict=True)) == {
        ("revenue", "cuped"), ("paid", "welch"),
    }  # fmt: skip
    assert (table["ci_lower"] <= table["rate"]).all()
    assert (table["rate"] <= table["ci_upper"]).all()
    assert (table["n_replications"] + table["n_unusable"] == 1000).all()
    power = table[table["quantity"] == "power"]
    assert power["passed"].isna().all()
    asked = power[power["metric"] == "paid"].tail(2)
    np.testing.assert_allclose(asked["effect_share"], [0.05, -0.02])
    planned = power[(power["metric"] == "revenue") & power["is_headline"]].iloc[3]
    stated = check(result, "mde.revenue")
    assert planned["effect"] == pytest.approx(stated.statistic, rel=1e-9)
    assert planned["nominal"] == pytest.approx(0.8, abs=0.03)
    one = check(result, "certificate.type_one_error.revenue")
    row = headline[
        (headline["metric"] == "revenue")
        & (headline["quantity"] == "type_one_error")
        & (headline["scale"] == "absolute")
    ].iloc[0]
    assert one.statistic == row["rate"]
    assert one.passed is bool(row["passed"]) is True
    assert "1,000 re-randomisations, promised 0.05" in one.detail
    names = [item.name for item in result.diagnostics if item.name.startswith("certificate.power")]
    assert len(names) == 2 * 3


def test_the_seed_decides() -> None:
    frame = users()
    first, again = (readout(frame, spec_of(REVENUE)).tables["certificate"] for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    other = {"replications": 1000, "buckets": 2000, "seed": 9}
    moved = readout(frame, spec_of(REVENUE, certificate=other)).tables["certificate"]
    assert (first["rate"] != moved["rate"]).any()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"population_sizes": {"old": 9000, "new": 9000}}, "sampled from a population"),
        ({"cluster": ["home", "shop"]}, "two kinds of clusters"),
        (
            {"cluster": "home", "certificate": {"assigned_by": "place", "buckets": 2000}},
            "cr2, the default, and cr3) cannot be had where groups of them are assigned by place",
        ),
        (
            {
                "cluster": "home",
                "cluster_correction": "cr1",
                "certificate": {"assigned_by": "place", "buckets": 2000},
            },
            "satterthwaite look at single clusters, but groups",
        ),
        ({"cluster": "hamlet"}, "7 and 7 clusters can be assigned in 3,432 ways only"),
        ({"cluster": "shop"}, "several arms"),
        ({"cluster": "shop", **SUMMED}, "several arms or buckets"),
        (
            {"cluster": "home", **SUMMED, "certificate": {"assigned_by": "user", "buckets": 2000}},
            "several arms or buckets",
        ),
        ({"certificate": {"assigned_by": "place", "buckets": 2000}}, "7 rows have no place"),
        ({"strata": ["thin"]}, "only 1,052 buckets fit"),
    ],
)
def test_what_cannot_be_certified_is_said(options: Mapping[str, Any], why: str) -> None:
    frame = users(n=4000) if "strata" in options else users()
    frame["place"] = np.where(np.arange(len(frame)) < 7, None, "x" + frame["home"].astype(str))
    frame["thin"] = np.arange(len(frame)) % 190
    frame["hamlet"] = frame["village"] % 7 + 7 * (frame["variant"] == "new")
    result = readout(frame, spec_of(REVENUE, **options))
    found = check(result, "certificate")
    assert found.name == "certificate.none.all metrics"
    assert found.passed is None
    assert why in found.detail
    assert "certificate" not in result.tables
    assert not any(item.name.startswith("certificate") for item in health.stops(result))


def test_effects_without_a_certificate_are_named() -> None:
    result = readout(users(), spec_of(REVENUE, segments=["tier"]))
    assert check(result, "certificate.none").name == "certificate.none.segments"


def test_intervals_that_are_too_wide_are_a_note_and_stop_nothing() -> None:
    """With one event in each arm the test never rejects: that is on the safe side of 5 %."""
    frame = users()
    first = frame.groupby("variant").head(1).index
    frame["paid"] = np.isin(frame.index, first).astype(int)
    result = readout(frame, spec_of(PAID, REVENUE))
    noted = check(result, "certificate.type_one_error.paid")
    assert noted.passed is None
    assert noted.statistic == 0.0
    assert "wider than these units need" in noted.detail
    assert noted not in health.stops(result)


def test_a_metric_without_enough_results_is_not_certified() -> None:
    """A stratum of four units seldom has two in each arm."""
    frame = users()
    frame["thin"] = "rest"
    few = [*frame.groupby("variant").head(2).index]
    frame.loc[few, "thin"] = "few"
    result = readout(frame, spec_of(REVENUE, strata=["thin"]))
    found = check(result, "certificate.none")
    assert found.name == "certificate.none.revenue.new - old"
    assert "has no result in" in found.detail


def test_figures() -> None:
    frame = users(n=2000, arms=("old", "mid", "new"))
    spec = spec_of(CUPED, RATE, certificate={"replications": 1000, "effects": [0.03]})
    result = readout(frame, spec)
    drawn = {name: item for name, item in ab.figures(spec, result).items() if "certif" in name}
    assert set(drawn) == {"certificate", "certificate_power", "certificate_pvalues"}
    for figure in drawn.values():
        target = io.BytesIO()
        figure.savefig(target, format="png", dpi=60)
        assert target.getbuffer().nbytes > 4000
    labels = [tick.get_text() for tick in drawn["certificate"].axes[0].get_yticklabels()]
    assert labels[0] == "revenue: mid - old (cuped)"
    assert "rate: new - old (welch, lift)" in labels
    titles = [axes.get_title(loc="left") for axes in drawn["certificate_power"].axes]
    assert titles[:2] == ["revenue: mid - old", "rate: mid - old"]


@pytest.mark.parametrize(("count", "n"), [(0, 50), (3, 50), (250, 5000), (50, 50)])
def test_the_binomial_interval_is_exact(count: int, n: int) -> None:
    expected = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
    assert binomial_interval(count, n) == pytest.approx((expected.low, expected.high), rel=1e-10)


def test_kolmogorovs_distance_and_its_test() -> None:
    rng = np.random.default_rng(2)
    pvalues = rng.random(3000) ** 1.3
    wide = rng.random(3000) ** 0.8
    expected = stats.kstest(pvalues, "uniform", method="asymp")
    subject = Subject(metric="y", term="t", estimator="e", scale="absolute", is_headline=True)
    found = certificate.uniform_check(subject, pvalues)
    assert max(ks_distances(pvalues)) == pytest.approx(expected.statistic, rel=1e-12)
    above = stats.kstest(pvalues, "uniform", alternative="greater").statistic
    assert ks_distances(pvalues)[0] == pytest.approx(above, rel=1e-12)
    safe = certificate.uniform_check(subject, wide)
    assert (safe.passed, "on the safe side" in safe.detail) == (None, True)
    assert found.pvalue == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.passed is False
    assert certificate.uniform_check(subject, rng.random(3000)).passed is True


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("dfs", [(3.0, 40.0), (9998.0, 9998.0), (1.0, 1e6)])
def test_pvalues_beside_a_level_lie_on_the_side_of_the_exact_ones(
    alpha: float, dfs: tuple[float, float]
) -> None:
    rng = np.random.default_rng(1)
    df, gap, ones = rng.uniform(*dfs, 4000), rng.normal(size=4000) * 2, np.ones(4000)
    gap[:2000] = stats.t(df[:2000]).isf(alpha / 2) * (1 + rng.normal(size=2000) * 1e-4)
    gap[2000:2004], df[2004] = [np.nan, np.inf, 0.0, -np.inf], np.nan

    exact, quick = two_sided(gap, ones, df), beside(gap, ones, df, alpha=alpha)

    assert 0.1 < np.mean(exact[:2000] < alpha) < 0.9
    np.testing.assert_array_equal(quick < alpha, exact < alpha)
    np.testing.assert_array_equal(quick >= alpha, exact >= alpha)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.05, True), (0.066, True), (0.08, False), (0.03, None), (0.037, True)],
)
def test_a_rate_fails_when_its_interval_lies_above_the_band(
    share: float, *, expected: bool | None
) -> None:
    hits = np.arange(5000) < share * 5000
    subject = Subject(metric="y", term="t", estimator="e", scale="absolute", is_headline=True)
    tally = certificate.Tally(hits=hits)
    rate = certificate.promised_rate(subject, "type_one_error", tally, promised=0.05, slack=0.01)
    assert (rate.band_lower, rate.band_upper) == pytest.approx((0.04, 0.06))
    assert rate.passed is expected
    assert certificate.rate_check(rate).passed is expected
    covered = certificate.promised_rate(
        subject, "coverage", certificate.Tally(hits=~hits), promised=0.95, slack=0.01
    )
    assert covered.passed is expected
    assert ("too short" in certificate.rate_check(covered).detail) is (expected is False)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"replications": 10}, "replications"),
        ({"buckets": 100}, "buckets"),
        ({"bucket": 100}, "did you mean 'buckets'"),
        ({"tolerance": 0}, "tolerance"),
    ],
)
def test_options_are_checked(option: Mapping[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        spec_of(REVENUE, certificate=option)
