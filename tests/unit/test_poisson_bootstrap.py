"""The Poisson bootstrap of the method `ab`: the same weights on raw rows give the same digits."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import special

from causal.core.buckets import bucket_numbers
from causal.core.errors import DataError, InferenceError, SpecError
from causal.core.frames import Column, HistogramRequest
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect, Result
from causal.core.spec import validate
from causal.experiments import ab, poisson_bootstrap
from causal.experiments.bootstrap_intervals import (
    BootstrapInterval,
    BootstrapOptions,
    summarise,
)
from causal.experiments.poisson_bootstrap import Resampling

Array = NDArray[np.float64]
CONTROL, TREATMENT = "control", "treatment"
REVENUE = {"name": "revenue", "type": "mean", "column": "revenue"}
CUPED = REVENUE | {"covariates": ["before", "minutes"]}
RATIO = {"name": "ctr", "type": "ratio", "numerator": "clicks", "denominator": "views"}
MEDIAN = {"name": "median", "type": "quantile", "column": "revenue", "quantile": 0.5}
FAST = {"replications": 500, "buckets": 600}


@pytest.fixture(scope="module")
def users() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 4000
    home = np.sort(rng.integers(0, 1200, n))
    taste = rng.normal(size=1200)[home] + rng.normal(size=n)
    treated = rng.random(n) < 0.4
    views = rng.poisson(np.exp(1 + 0.3 * taste)) + 1
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "home": home,
            "variant": np.where(treated, TREATMENT, CONTROL),
            "tier": rng.choice(["basic", "gold", "plus"], n, p=[0.5, 0.3, 0.2]),
            "revenue": np.exp(1 + 0.5 * taste + 0.4 * rng.normal(size=n)) * (1 + 0.05 * treated),
            "before": np.exp(1 + 0.5 * taste + 0.4 * rng.normal(size=n)),
            "minutes": 1e6 + taste + rng.normal(size=n),
            "clicks": rng.binomial(views, 0.3),
            "views": views,
        }
    )


def analyse(frame: pd.DataFrame, *metrics: dict[str, Any], **options: Any) -> Result:
    base = {"unit": "user", "variant": "variant", "control": CONTROL, "metrics": list(metrics)}
    data = {"name": "users", "source": {"table": "t"}, "method": "ab", "seed": 7}
    spec = validate(ab.SPEC, {**data, "options": base | options})
    return run(ab.estimate(spec), PandasEngine(frame))


def bootstrapped(frame: pd.DataFrame, *metrics: dict[str, Any], **options: Any) -> Result:
    return analyse(frame, *metrics, **{"inference": "bootstrap", "bootstrap": FAST, **options})


def effect_of(result: Result, estimator: str, scale: str = "absolute") -> Effect:
    (found,) = [e for e in result.effects if (e.estimator, e.scale) == (estimator, scale)]
    return found


def unit_weights(frame: pd.DataFrame, *, column: str = "user", seed: int = 7, **how: int) -> Array:
    """The weight of every row in every replicate, shape (r, n)."""
    resampling = Resampling.of(BootstrapOptions(**(FAST | how)), column=column, seed=seed)
    numbers = bucket_numbers(frame[column], resampling.bucket)
    return np.concatenate([part[:, numbers] for part in resampling.weights()])


def check(effect: Effect, draws: Array, *, rel: float = 1e-8) -> None:
    """An effect against the same statistic's replicates on raw rows."""
    alpha = 1 - effect.confidence_level
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2], method="weibull")
    assert effect.std_error == pytest.approx(np.std(draws, ddof=1), rel=rel)
    assert (effect.ci_lower, effect.ci_upper) == pytest.approx((low, high), rel=rel)
    assert effect.df is None


def mean(w: Array, x: Array) -> Array:
    return (w @ x) / w.sum(axis=1)


def arms(frame: pd.DataFrame, w: Array) -> list[tuple[pd.DataFrame, Array]]:
    masks = [(frame["variant"] == level).to_numpy() for level in (CONTROL, TREATMENT)]
    return [(frame[mask], w[:, mask]) for mask in masks]


def test_means_and_ratios(users: pd.DataFrame) -> None:
    w = unit_weights(users)
    result = bootstrapped(users, REVENUE, RATIO)
    (c, wc), (t, wt) = arms(users, w)
    control, treatment = mean(wc, c["revenue"].to_numpy()), mean(wt, t["revenue"].to_numpy())
    own = [e for e in result.effects if e.metric == "revenue"]
    check(own[0], treatment - control)
    check(own[1], treatment / control - 1)
    assert {e.estimator for e in result.effects} == {"bootstrap"}
    formula = analyse(users, REVENUE)
    assert own[0].estimate == formula.effects[0].estimate
    ratios = [(ww @ f["clicks"]) / (ww @ f["views"]) for f, ww in ((c, wc), (t, wt))]
    check(next(e for e in result.effects if e.metric == "ctr"), ratios[1] - ratios[0])


@pytest.mark.parametrize("theta", ["total", "within"])
def test_slopes_of_covariates_are_found_anew_in_every_replicate(
    users: pd.DataFrame, theta: str
) -> None:
    w = unit_weights(users)[:40]
    result = bootstrapped(users, CUPED, theta=theta)
    treated = (users["variant"] == TREATMENT).to_numpy(dtype=float)
    x = users[["before", "minutes"]].to_numpy()
    y = users["revenue"].to_numpy()
    draws = []
    for weight in w:
        total = weight.sum()
        if theta == "within":
            design = np.column_stack([np.ones(len(y)), treated, x - weight @ x / total])
            root = np.sqrt(weight)
            draws.append(np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0][1])
            continue
        off = x - weight @ x / total
        slope = np.linalg.solve((off * weight[:, None]).T @ off, (off * weight[:, None]).T @ y)
        rest = y - off @ slope
        arm = [weight * (1 - treated), weight * treated]
        draws.append(arm[1] @ rest / arm[1].sum() - arm[0] @ rest / arm[0].sum())
    found = replicates_of(users, CUPED, theta=theta)[:40]
    assert found == pytest.approx(np.array(draws), rel=1e-6)
    assert effect_of(result, "cuped_bootstrap").estimate == pytest.approx(
        effect_of(analyse(users, CUPED, theta=theta), "cuped").estimate
    )


def replicates_of(frame: pd.DataFrame, metric: dict[str, Any], **options: Any) -> Array:
    """The replicates of the best readout of one metric."""
    kept: list[Array] = []
    real = poisson_bootstrap.with_draws

    def watched(readout: Any, draws: Any, how: Any) -> Any:
        kept.append(draws.difference)
        return real(readout, draws, how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(poisson_bootstrap, "with_draws", watched)
        bootstrapped(frame, metric, **options)
    return kept[-1]


@pytest.mark.parametrize("kind", ["post_stratified", "blocked"])
def test_strata_are_weighed_by_their_replicated_or_given_shares(
    users: pd.DataFrame, kind: str
) -> None:
    w = unit_weights(users)
    tiers = sorted(users["tier"].unique())
    inside = [(users["tier"] == tier).to_numpy() for tier in tiers]
    if kind == "blocked":
        shares = np.array([[mask.mean()] for mask in inside])
    else:
        shares = np.array([w[:, mask].sum(axis=1) for mask in inside]) / w.sum(axis=1)
    draws = np.zeros(len(w))
    for share, mask in zip(shares, inside, strict=True):
        (c, wc), (t, wt) = arms(users[mask], w[:, mask])
        gap = mean(wt, t["revenue"].to_numpy()) - mean(wc, c["revenue"].to_numpy())
        draws += share * gap
    result = bootstrapped(users, REVENUE, strata=["tier"], stratification=kind)
    check(effect_of(result, f"{kind}_bootstrap"), draws)
    (c, wc), (t, wt) = arms(users, w)
    check(
        effect_of(result, "bootstrap"),
        mean(wt, t["revenue"].to_numpy()) - mean(wc, c["revenue"].to_numpy()),
    )


def weighted_quantile(values: Array, weights: Array, share: float) -> Array:
    """The smallest value up to which the share of the weight lies, in every replicate."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[:, order], axis=1)
    target = share * cumulative[:, -1:] * (1 - 1e-12)
    return np.asarray(values[order][np.argmax(cumulative >= target, axis=1)])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("digits", [None, 1])
def test_quantiles(users: pd.DataFrame, share: float, digits: int | None) -> None:
    frame = users if digits is None else users.round({"revenue": digits})
    w = unit_weights(frame)
    result = bootstrapped(frame, MEDIAN | {"quantile": share})
    found = [weighted_quantile(f["revenue"].to_numpy(), ww, share) for f, ww in arms(frame, w)]
    draws = found[1] - found[0]
    effect = effect_of(result, "quantile_bootstrap")
    # Steps are finer than the distance of most rows: only a few hold two values or more.
    assert effect.std_error == pytest.approx(np.std(draws, ddof=1), rel=1e-9 if digits else 5e-3)
    point = [np.quantile(f["revenue"], share, method="inverted_cdf") for f, _ in arms(frame, w)]
    assert effect.estimate == pytest.approx(point[1] - point[0], abs=1e-12)
    lift = effect_of(result, "quantile_bootstrap", "relative")
    assert lift.estimate == pytest.approx(point[1] / point[0] - 1)
    assert lift.std_error == pytest.approx(np.std(found[1] / found[0], ddof=1), rel=5e-3)


def test_a_resolution_spreads_the_rows_of_a_value(users: pd.DataFrame) -> None:
    rounded = users.round({"revenue": 0})
    w = unit_weights(rounded)
    draws = []
    for f, ww in arms(rounded, w):
        values = f["revenue"].to_numpy()
        at = weighted_quantile(values, ww, 0.5)
        total = ww.sum(axis=1)
        below = np.array([one[values < v].sum() for one, v in zip(ww, at, strict=True)])
        equal = np.array([one[values == v].sum() for one, v in zip(ww, at, strict=True)])
        draws.append(at - 0.5 + (0.5 * total - below) / equal)
    result = bootstrapped(rounded, MEDIAN | {"resolution": 1})
    check(effect_of(result, "quantile_bootstrap"), draws[1] - draws[0])
    smooth = effect_of(analyse(users, MEDIAN), "quantile")
    assert effect_of(result, "quantile_bootstrap").std_error == pytest.approx(
        smooth.std_error, rel=0.15
    )


def test_clusters_are_resampled_as_wholes_even_where_they_hold_both_arms(
    users: pd.DataFrame,
) -> None:
    w = unit_weights(users, column="home")
    result = bootstrapped(users, REVENUE, MEDIAN, cluster="home")
    (c, wc), (t, wt) = arms(users, w)
    own = next(e for e in result.effects if e.metric == "revenue")
    check(own, mean(wt, t["revenue"].to_numpy()) - mean(wc, c["revenue"].to_numpy()))
    assert own.n_clusters == users["home"].nunique()
    found = [weighted_quantile(f["revenue"].to_numpy(), ww, 0.5) for f, ww in ((c, wc), (t, wt))]
    median = effect_of(result, "quantile_bootstrap")
    assert median.std_error == pytest.approx(np.std(found[1] - found[0], ddof=1), rel=5e-3)


def test_standard_errors_are_those_of_the_formulas(users: pd.DataFrame) -> None:
    """Off by `sqrt(1 / 2B + 1 / 2R)` = 2.4 %; three of that."""
    how = {"replications": 1500, "buckets": 2000}
    metrics = [CUPED, RATIO, MEDIAN, MEDIAN | {"name": "p90", "quantile": 0.9}]
    for options in ({}, {"cluster": "home"}):
        ours = bootstrapped(users, *metrics, bootstrap=how, **options)
        theirs = analyse(users, *metrics, **options)
        names = {e.estimator for e in theirs.effects}
        assert names >= {"cuped", "quantile"}
        for mine, other in zip(ours.effects, theirs.effects, strict=True):
            assert (mine.metric, mine.scale) == (other.metric, other.scale)
            # The density of a quantile is an estimate of its own.
            slack = 0.15 if other.estimator == "quantile" else 0.073
            assert mine.std_error == pytest.approx(other.std_error, rel=slack)


def test_unit_level_replicates_have_the_same_error_and_interval(users: pd.DataFrame) -> None:
    """Weights for every unit on its own, another seed: what the buckets stand for."""
    rng = np.random.default_rng(11)
    w = rng.poisson(1.0, (3000, len(users))).astype(float)
    (c, wc), (t, wt) = arms(users, w)
    ratios = [(ww @ f["clicks"]) / (ww @ f["views"]) for f, ww in ((c, wc), (t, wt))]
    lifts = ratios[1] / ratios[0] - 1
    how = {"replications": 3000, "buckets": 4000}
    found = effect_of(bootstrapped(users, RATIO, bootstrap=how), "bootstrap", "relative")
    assert found.std_error == pytest.approx(np.std(lifts, ddof=1), rel=0.07)
    ends = np.quantile(lifts, [0.025, 0.975])
    assert found.ci_lower == pytest.approx(ends[0], abs=0.25 * found.std_error)
    assert found.ci_upper == pytest.approx(ends[1], abs=0.25 * found.std_error)


def test_parting_moves_a_standard_error_as_much_as_is_said(users: pd.DataFrame) -> None:
    """Over salts of few buckets, `sqrt(1 / 2B + 1 / 2R)`."""
    buckets, replications = 500, 2000
    errors = []
    for seed in range(16):
        how = {"replications": replications, "buckets": buckets, "seed": seed}
        errors.append(bootstrapped(users, REVENUE, bootstrap=how).effects[0].std_error)
    spread = np.std(errors, ddof=1) / np.mean(errors)
    expected = np.sqrt(0.5 / buckets + 0.5 / replications)
    assert 0.5 * expected < spread < 1.6 * expected
    assert np.mean(errors) == pytest.approx(analyse(users, REVENUE).effects[0].std_error, rel=0.02)


def test_values_that_formulas_refuse_are_read(users: pd.DataFrame) -> None:
    rounded = users.round({"revenue": 0})
    with pytest.raises(DataError, match="rounded"):
        analyse(rounded, MEDIAN | {"quantile": 0.9})
    found = bootstrapped(rounded, MEDIAN | {"quantile": 0.9})
    assert effect_of(found, "quantile_bootstrap").std_error > 0
    constant = users.assign(revenue=(users["user"] % 100 == 0).astype(float))
    with pytest.raises(DataError, match="zero variance"):
        bootstrapped(constant, MEDIAN)


def test_one_metric_may_be_bootstrapped_and_the_others_not(users: pd.DataFrame) -> None:
    result = analyse(users, REVENUE, MEDIAN | {"inference": "bootstrap"}, bootstrap=FAST)
    assert [e.estimator for e in result.effects] == ["welch"] * 2 + ["quantile_bootstrap"] * 2
    names = [d.name for d in result.diagnostics if d.name.startswith("bootstrap")]
    assert names == ["bootstrap.median"]
    other = bootstrapped(users, REVENUE | {"inference": "formula"}, MEDIAN)
    assert [e.estimator for e in other.effects] == [e.estimator for e in result.effects]


def test_another_arm_does_not_change_a_comparison(users: pd.DataFrame) -> None:
    third = users.assign(variant=users["variant"].where(users["user"] % 5 > 0, "third"))
    both = bootstrapped(third, CUPED, MEDIAN)
    alone = bootstrapped(third, CUPED, MEDIAN, treatments=[TREATMENT])
    pair = [e for e in both.effects if e.term == "treatment - control"]
    assert len(pair) == len(alone.effects) == 6
    for ours, theirs in zip(pair, alone.effects, strict=True):
        assert (ours.metric, ours.scale, ours.estimator) == (
            theirs.metric, theirs.scale, theirs.estimator,
        )  # fmt: skip
        assert ours.estimate == pytest.approx(theirs.estimate)
        # Steps of values differ with the arms' windows.
        slack = 5e-3 if ours.metric == "median" else 1e-8
        assert ours.std_error == pytest.approx(theirs.std_error, rel=slack)


def test_the_same_seed_gives_the_same_digits_in_any_order(users: pd.DataFrame) -> None:
    shuffled = users.sample(frac=1.0, random_state=1).reset_index(drop=True)
    first = bootstrapped(users, CUPED, MEDIAN).to_frame()
    second = bootstrapped(shuffled, CUPED, MEDIAN).to_frame()
    for name in ("estimate", "std_error", "ci_lower", "ci_upper", "pvalue"):
        assert first[name].to_numpy() == pytest.approx(second[name].to_numpy(), rel=1e-8)


def test_corrected_intervals_come_from_the_same_replicates(users: pd.DataFrame) -> None:
    how = {"replications": 2000, "buckets": 600}
    result = bootstrapped(
        users, REVENUE, RATIO, bootstrap=how, multiplicity={"correction": "bonferroni"}
    )
    w = unit_weights(users, replications=2000)
    (c, wc), (t, wt) = arms(users, w)
    draws = mean(wt, t["revenue"].to_numpy()) - mean(wc, c["revenue"].to_numpy())
    found = next(e for e in result.effects if e.estimator == "bootstrap_bonferroni")
    ends = np.quantile(draws, [0.0125, 0.9875], method="weibull")
    assert (found.ci_lower, found.ci_upper) == pytest.approx(tuple(ends), rel=1e-8)


@pytest.mark.parametrize("interval", ["percentile", "basic", "bias_corrected"])
def test_a_test_rejects_just_when_its_interval_leaves_zero_out(
    interval: BootstrapInterval,
) -> None:
    rng = np.random.default_rng(2)
    n_rejected = 0
    for _ in range(300):
        estimate = rng.normal(0.0, 2.0)
        draws = estimate + rng.gamma(4.0, 0.5, 1999) - 2.0
        for level in (0.8, 0.95, 0.99):
            found = summarise(draws, estimate, confidence_level=level, interval=interval)
            is_out = found.ci_lower > 0 or found.ci_upper < 0
            n_rejected += is_out
            assert is_out == (found.pvalue < 1 - level - 1e-9) or np.isclose(
                found.pvalue, 1 - level, rtol=0.03
            )
    assert 100 < n_rejected < 800


def test_the_three_intervals_are_the_textbooks() -> None:
    draws = np.random.default_rng(4).gamma(3.0, 1.0, 1999)
    estimate = 2.9
    ends = {
        kind: summarise(draws, estimate, confidence_level=0.9, interval=kind)  # type: ignore[arg-type]
        for kind in ("percentile", "basic", "bias_corrected")
    }
    ordered = np.sort(draws)
    low, high = ordered[99], ordered[1899]
    assert (ends["percentile"].ci_lower, ends["percentile"].ci_upper) == pytest.approx((low, high))
    assert (ends["basic"].ci_lower, ends["basic"].ci_upper) == pytest.approx(
        (2 * estimate - high, 2 * estimate - low)
    )
    z0 = special.ndtri((draws < estimate).mean())
    levels = special.ndtr(2 * z0 + special.ndtri([0.05, 0.95]))
    wanted = np.quantile(draws, levels, method="weibull")
    found = ends["bias_corrected"]
    assert (found.ci_lower, found.ci_upper) == pytest.approx(tuple(wanted))
    with pytest.raises(InferenceError, match="too few replications"):
        summarise(draws[:99], estimate, confidence_level=0.99)


def test_a_control_level_that_comes_to_zero_has_no_lift(users: pd.DataFrame) -> None:
    centred = users.assign(revenue=users["revenue"] - users["revenue"].mean())
    result = bootstrapped(centred, REVENUE)
    assert [e.scale for e in result.effects] == ["absolute"]
    assert any(d.name.startswith("relative_scale") for d in result.diagnostics)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bootstrap": FAST}, "needs inference: bootstrap"),
        ({"inference": "bootstrap", "certificate": {}}, "certificate is for formulas"),
        ({"inference": "bootstrap", "variance": "pooled"}, "variance is for formulas"),
        ({"inference": "bootstrap", "cluster": ["home", "tier"]}, "two columns in cluster"),
        (
            {"inference": "bootstrap", "population_sizes": {CONTROL: 9999, TREATMENT: 9999}},
            "population_sizes is for formulas",
        ),
    ],
)
def test_what_has_no_bootstrap_is_refused(
    users: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        analyse(users, REVENUE, **options)


def test_few_clusters_are_refused(users: pd.DataFrame) -> None:
    few = users.assign(home=users["home"] % 40)
    with pytest.raises(DataError, match="too few values of home in variant"):
        bootstrapped(few, REVENUE, cluster="home")
    with pytest.raises(DataError, match="too few values of home in variant"):
        bootstrapped(few, MEDIAN, cluster="home")


def test_histograms_by_bucket_add_up_to_those_of_all_rows(users: pd.DataFrame) -> None:
    engine = PandasEngine(users.assign(revenue=users["revenue"].where(users["user"] % 50 > 0)))
    resampling = Resampling.of(BootstrapOptions(), column="home", seed=3)
    whole = HistogramRequest(term=Column("revenue"), edges=(1.0, 2.0, 5.0), by=("variant", "tier"))
    parted = HistogramRequest(
        term=whole.term, edges=whole.edges, by=whole.by, bucket=resampling.bucket
    )
    total, parts = engine(whole), engine(parted)
    keys = ["variant", "tier"]
    sums = parts.groupby(keys)[["n", "n_missing"]].sum().sort_index()
    expected = total.set_index(keys)[["n", "n_missing"]].sort_index()
    assert np.array_equal(sums.to_numpy(), expected.to_numpy())
    for key, rows in parts.groupby(keys):
        counts = np.zeros(4)
        for row in rows.to_dict("records"):
            counts[np.asarray(row["bins"], dtype=int)] += row["counts"]
        found = total.set_index(keys).loc[key]
        assert np.array_equal(counts[np.asarray(found["bins"], dtype=int)], found["counts"])
        assert min(map(min, (r for r in rows["lowest"] if len(r)))) == found["lowest"][0]
