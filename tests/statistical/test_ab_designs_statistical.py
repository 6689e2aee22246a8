"""Size, coverage and error rates of the designs and corrections of the method `ab`.

Every experiment goes through the functions that a readout uses; bands are binomial.
"""

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from causal.checks import guardrail
from causal.core.frames import Column
from causal.core.gram import Gram
from causal.core.multiplicity import Correction, adjusted_pvalues, interval_levels
from causal.experiments.ab_checks import comparison_checks
from causal.experiments.ab_health import agreement
from causal.experiments.arms import Arms
from causal.experiments.cluster_sums import ClusterRows
from causal.experiments.clustering import ClusterCorrection, Clustering, Way, one_way
from causal.experiments.comparison import (
    Comparison,
    Inference,
    Joint,
    Readout,
    adjusted_readout,
    comparisons,
    raw_readout,
)
from causal.experiments.metrics import Metric
from causal.experiments.segments import heterogeneity, interactions
from causal.experiments.slice_covariance import Slice, independent_slices
from causal.experiments.strata import stratified

pytestmark = pytest.mark.slow

Array = NDArray[np.float64]
ALPHA = 0.05
ERRORS = 3.5
"""Half-width of a band in binomial standard errors."""

SIZES = [
    pytest.param(400, id="quick"),
    pytest.param(10_000, id="long", marks=pytest.mark.validation),
]
Y = Metric(name="y", type="mean", column="y", role="primary")
HOW = Inference(confidence_level=0.95)
FIELLER = Inference(confidence_level=0.95, relative_interval="fieller")


def assert_rate(found: Array, rate: float) -> None:
    band = ERRORS * np.sqrt(rate * (1 - rate) / len(found))
    assert float(np.mean(found)) == pytest.approx(rate, abs=band)


def assert_at_most(found: Array, rate: float) -> None:
    assert float(np.mean(found)) <= rate + ERRORS * np.sqrt(rate * (1 - rate) / len(found))


def moments(rows: Array, names: tuple[str, ...] = ("y",)) -> Gram:
    mean = rows.mean(axis=0)
    off = rows - mean
    terms = tuple(Column(name) for name in names)
    return Gram(terms, len(rows), 0, 0, float(len(rows)), mean, off.T @ off)


def compare(control: Array, treatment: Array, metric: Metric = Y) -> Comparison:
    names = tuple(term.name for term in metric.terms if isinstance(term, Column))
    pair = (moments(control, names), moments(treatment, names))
    return Comparison(metric=metric, variants=("c", "t"), moments=pair)


def covers(readout: Readout, truth: float, *, at: int = 0) -> bool:
    effect = readout.effects[at]
    return effect.ci_lower <= truth <= effect.ci_upper


@pytest.mark.parametrize("n_experiments", SIZES)
@pytest.mark.parametrize("lift", [0.0, 0.3])
def test_fieller_covers_where_the_control_level_is_noisy(n_experiments: int, lift: float) -> None:
    """The control level is four standard errors from zero, so that some sets are unbounded."""
    rng = np.random.default_rng(5)
    n_bounded, holds = 0, []
    for _ in range(n_experiments):
        control, treated = rng.normal(1.0, 2.5, 100), rng.normal(1.0 * (1 + lift), 2.5, 100)
        found = raw_readout(compare(control[:, None], treated[:, None]), FIELLER)
        if len(found.effects) > 1:
            n_bounded += 1
            holds.append(covers(found, lift, at=1))
        else:  # the set is unbounded, so no interval is given; it has its part in the rate
            distance = treated.mean() - (1 + lift) * control.mean()
            variance = (treated.var(ddof=1) + (1 + lift) ** 2 * control.var(ddof=1)) / 100
            holds.append(abs(distance) <= stats.t.ppf(0.975, 198) * np.sqrt(variance))
    assert n_bounded > 0.95 * n_experiments
    assert_rate(np.array(holds), 0.95)


@pytest.mark.parametrize("n_experiments", SIZES)
def test_fieller_covers_a_lift(n_experiments: int) -> None:
    rng = np.random.default_rng(6)
    found = [
        covers(
            raw_readout(
                compare(rng.gamma(4, 0.5, (300, 1)), 1.2 * rng.gamma(4, 0.5, (200, 1))), FIELLER
            ),
            0.2,
            at=1,
        )
        for _ in range(n_experiments)
    ]
    assert_rate(np.array(found), 0.95)


@pytest.mark.parametrize("n_experiments", SIZES)
@pytest.mark.parametrize(
    ("how", "scale", "direction"),
    [
        pytest.param(HOW, "absolute", "increase", id="absolute"),
        pytest.param(HOW, "relative", "decrease", id="delta"),
        pytest.param(FIELLER, "relative", "increase", id="fieller"),
    ],
)
def test_a_guardrail_at_its_margin_passes_at_the_one_sided_rate(
    n_experiments: int, how: Inference, scale: str, direction: guardrail.Direction
) -> None:
    """The true change is exactly the margin: the test may say "no worse" in 2.5 % of the cases."""
    rng = np.random.default_rng(7)
    metric = Metric(
        name="y", type="mean", column="y", role="guardrail", direction=direction,
        margin=0.1 if scale == "relative" else 0.5, margin_scale=scale,
    )  # fmt: skip
    sign = -1.0 if direction == "increase" else 1.0
    control, treatment = rng.normal(5.0, 2.0, (2, n_experiments, 200, 1))
    treatment = treatment + sign * 0.5
    passed = []
    for c, t in zip(control, treatment, strict=True):
        pair = compare(c, t, metric)
        (check,) = [
            item
            for item in comparison_checks(pair, raw_readout(pair, how), None, how)
            if item.name.startswith("guardrail")
        ]
        assert check.pvalue is not None
        assert (check.pvalue < 0.025) is (check.passed is True)
        passed.append(check.passed is True)
    assert_rate(np.array(passed), 0.025)


def arms_by_stratum(y: Array, arm: Array, stratum: Array) -> Arms:
    cells = {
        level: {
            (int(key),): moments(y[(arm == at) & (stratum == key)][:, None])
            for key in np.unique(stratum[arm == at])
        }
        for at, level in enumerate(("c", "t"))
    }
    whole = tuple(moments(y[arm == at][:, None]) for at in (0, 1))
    return Arms(
        levels=("c", "t"),
        counts={"c": whole[0].n, "t": whole[1].n},
        n_other=0,
        moments={"y": whole},
        cells={"y": cells},
    )


@pytest.mark.parametrize("n_experiments", SIZES)
def test_post_stratified_and_blocked_intervals_cover(n_experiments: int) -> None:
    """Effects differ by stratum; sampled strata vary, blocks keep their sizes in the design."""
    rng = np.random.default_rng(8)
    level, effect = np.array([0.0, 3.0, 9.0]), np.array([0.0, 1.0, 4.0])
    share = np.array([0.5, 0.3, 0.2])
    out: dict[str, list[bool]] = {"post_stratified": [], "blocked": [], "too_short": []}
    gains = []
    for _ in range(n_experiments):
        sampled = rng.choice(3, 400, p=share)
        arm = rng.integers(0, 2, 400)
        fixed = np.repeat([0, 1, 2], [200, 120, 80])
        blocked_arm = np.concatenate([rng.permutation(n) % 2 for n in (200, 120, 80)])
        for name, s, a in (
            ("post_stratified", sampled, arm),
            ("blocked", fixed, blocked_arm),
            ("too_short", sampled, arm),
        ):
            y = 5 + level[s] + effect[s] * a + rng.normal(size=400)
            (pair,) = stratified(
                Y,
                arms_by_stratum(y, a, s),
                stratification="post_stratified" if name == "post_stratified" else "blocked",
                strata=["s"],
            )
            found = raw_readout(pair, HOW)
            out[name].append(covers(found, float(share @ effect)))
            if name == "post_stratified":
                plain = raw_readout(compare(y[a == 0][:, None], y[a == 1][:, None]), HOW)
                gains.append(found.effects[0].std_error / plain.effects[0].std_error)
    assert_rate(np.array(out["post_stratified"]), 0.95)
    assert_rate(np.array(out["blocked"]), 0.95)
    assert float(np.mean(out["too_short"])) < 0.9, "the strata's shares are a sample"
    assert float(np.mean(gains)) < 0.6


def way_of(y: Array, arm: Array, ids: Array, arms: Arms, correction: ClusterCorrection) -> Way:
    cells = np.unique(np.column_stack([arm, ids]), axis=0)
    means = [y[(arm == at) & (ids == key)] for at, key in cells]
    rows = ClusterRows(
        terms=(Column("y"),),
        cells=tuple((("c", "t")[int(at)],) for at, _ in cells),
        clusters=cells[:, 1],
        n=np.array([float(len(part)) for part in means]),
        means=np.array([[part.mean()] for part in means]),
    )
    moments_ = {("c",): arms.moments["y"][0], ("t",): arms.moments["y"][1]}
    return one_way(rows.sums(Y, moments_), correction)


def clustered(
    y: Array, arm: Array, clusters: list[Array]
) -> tuple[Arms, dict[str, tuple[Clustering, ...]]]:
    """Both arms with their clustered covariances of means, one-way and two-way."""
    grams = tuple(moments(y[arm == at][:, None]) for at in (0, 1))
    arms = Arms(
        levels=("c", "t"), counts={"c": grams[0].n, "t": grams[1].n}, n_other=0,
        moments={"y": grams}, cells={},
    )  # fmt: skip
    size = (grams[0].n, grams[1].n)

    def clustering(ids: list[Array], correction: ClusterCorrection) -> tuple[Clustering, ...]:
        ways = tuple(way_of(y, arm, one, arms, correction) for one in ids)
        return (
            Clustering(
                ways=ways, correction=correction, degrees_of_freedom="satterthwaite", n_units=size
            ),
        )

    found = {
        "plain": (
            Clustering(
                ways=(way_of(y, arm, clusters[0], arms, "cr1"),), correction="cr1",
                degrees_of_freedom="clusters_minus_one", n_units=size,
            ),
        ),
        "cr3": clustering(clusters[:1], "cr3"),
    }  # fmt: skip
    if len(clusters) > 1:
        found["two_way"] = clustering(clusters, "cr1")
    return arms, found


@pytest.mark.parametrize("n_experiments", SIZES)
def test_the_cluster_jackknife_holds_its_size_with_few_unequal_clusters(n_experiments: int) -> None:
    rng = np.random.default_rng(9)
    sizes = np.array([40, 24, 16, 10, 8, 6, 5, 4, 4, 3, 3, 3, 2, 2])
    rejected: dict[str, list[bool]] = {"plain": [], "cr3": []}
    for _ in range(n_experiments):
        cluster = np.repeat(np.arange(len(sizes)), sizes)
        arm = (rng.permutation(len(sizes)) % 2)[cluster]
        y = 5 + rng.normal(size=len(sizes))[cluster] + rng.normal(size=len(cluster))
        arms, found = clustered(y, arm, [cluster])
        for name, seen in rejected.items():
            (pair,) = comparisons(Y, arms, found[name])
            seen.append(raw_readout(pair, HOW).effects[0].pvalue < ALPHA)
    plain, cr3 = (float(np.mean(rejected[name])) for name in ("plain", "cr3"))
    assert plain > 0.09, "the case is one where CR1 rejects far too often"
    assert cr3 < 0.6 * plain
    assert_at_most(np.array(rejected["cr3"]), ALPHA)


@pytest.mark.parametrize("n_experiments", SIZES)
def test_two_way_clustered_intervals_cover_crossed_designs(n_experiments: int) -> None:
    rng = np.random.default_rng(10)
    n_rows, n_columns = 40, 40
    row, column = (item.ravel() for item in np.indices((n_rows, n_columns)))
    covered: dict[str, list[bool]] = {"plain": [], "two_way": []}
    for _ in range(n_experiments):
        # The arm depends on row and column, and so do the errors.
        arm = (rng.integers(0, 2, n_rows)[row] + rng.integers(0, 2, n_columns)[column]) % 2
        treated = (
            rng.normal(size=(2, n_rows))[arm, row] + rng.normal(size=(2, n_columns))[arm, column]
        )
        y = 3 + treated + rng.normal(size=len(row))
        arms, found = clustered(y, arm, [row, column, row * n_columns + column])
        for name, seen in covered.items():
            (pair,) = comparisons(Y, arms, found[name])
            seen.append(covers(raw_readout(pair, HOW), 0.0))
    one_way, two_way = (float(np.mean(covered[name])) for name in ("plain", "two_way"))
    assert one_way < 0.9
    assert 0.925 < two_way < 0.975


def draws(rng: np.random.Generator, n: int, *, means: Array) -> Array:
    """Statistics of m correlated tests, shape (n, m)."""
    shared = rng.normal(size=(n, 1))
    return means + np.sqrt(0.4) * shared + np.sqrt(0.6) * rng.normal(size=(n, len(means)))


@pytest.mark.parametrize("n_experiments", [pytest.param(4000, id="quick"), SIZES[1]])
@pytest.mark.parametrize("correction", get_args(Correction))
def test_families_keep_their_error_rates(n_experiments: int, correction: Correction) -> None:
    """Half of ten effects are null: false rejections, and misses of the corrected intervals."""
    rng = np.random.default_rng(11)
    means = np.array([0.0] * 5 + [2.0, 2.5, 3.0, 3.5, 4.0])
    is_null = means == 0
    statistics = draws(rng, n_experiments, means=means)
    pvalues = 2 * stats.norm.sf(np.abs(statistics))
    adjusted = np.array([adjusted_pvalues(row, correction=correction) for row in pvalues])
    levels = np.array([interval_levels(row, correction=correction, alpha=ALPHA) for row in pvalues])
    misses = np.abs(statistics - means) > stats.norm.ppf(0.5 + levels / 2)
    rejected = adjusted <= ALPHA
    if correction in {"bonferroni", "holm", "hommel"}:
        assert_at_most((rejected & is_null).any(axis=1), ALPHA)
        assert_at_most(misses.any(axis=1), ALPHA)
        return
    n_rejected = np.maximum(rejected.sum(axis=1), 1)
    assert float(np.mean((rejected & is_null).sum(axis=1) / n_rejected)) <= ALPHA
    # False coverage rate: misses among the selected.
    assert float(np.mean((rejected & misses).sum(axis=1) / n_rejected)) <= ALPHA
    if correction == "benjamini_hochberg":
        assert float(np.mean((rejected & is_null).any(axis=1))) > ALPHA, "a rate, not every error"


@pytest.mark.parametrize("n_experiments", [pytest.param(4000, id="quick"), SIZES[1]])
def test_without_correction_the_family_errs_often(n_experiments: int) -> None:
    statistics = draws(np.random.default_rng(12), n_experiments, means=np.zeros(10))
    pvalues = 2 * stats.norm.sf(np.abs(statistics))
    assert float((pvalues <= ALPHA).any(axis=1).mean()) > 0.25
    for correction in get_args(Correction):
        adjusted = np.array([adjusted_pvalues(row, correction=correction) for row in pvalues])
        # With all effects null a false discovery rate is a family-wise rate.
        assert_at_most((adjusted <= ALPHA).any(axis=1), ALPHA)


@pytest.mark.parametrize("n_experiments", SIZES)
def test_heterogeneity_interaction_and_agreement_hold_their_size(n_experiments: int) -> None:
    rng = np.random.default_rng(13)
    metric = Metric(name="y", type="mean", column="y", covariates=("x",))
    differ, interact, covered, disagree = [], [], [], []
    for _ in range(n_experiments):
        slices = []
        for at, (n, scale) in enumerate(((120, 1.0), (200, 2.0), (400, 1.0))):
            x = rng.normal(size=(2, n))
            y = 4 + at + x + scale * rng.normal(size=(2, n)) + np.array([[0.0], [0.5]])
            pair = compare(*(np.column_stack([y[arm], x[arm]]) for arm in (0, 1)), metric)
            raw, adjusted = raw_readout(pair, HOW), adjusted_readout(pair, HOW)
            slices.append(Slice(level=at, raw=raw, best=adjusted))
            if at == 0:
                check = agreement(pair, raw, adjusted)
                assert check is not None
                disagree.append((check.pvalue or 0.0) < ALPHA)
        joint = independent_slices(slices)
        differ.append((heterogeneity(slices, joint, column="s").pvalue or 0.0) < ALPHA)
        pair_ = independent_slices(slices[:2])
        effect = interactions(slices[:2], pair_, HOW, control=0, column="s")[0]
        interact.append(effect.pvalue < ALPHA)
        covered.append(effect.ci_lower <= 0 <= effect.ci_upper)
    assert_rate(np.array(differ), ALPHA)
    assert_rate(np.array(interact), ALPHA)
    assert_rate(np.array(covered), 1 - ALPHA)
    assert_rate(np.array(disagree), ALPHA)


@pytest.mark.parametrize("n_experiments", SIZES)
def test_a_finite_population_is_covered(n_experiments: int) -> None:
    """Half of a fixed population is drawn: without the factor the interval is too long."""
    rng = np.random.default_rng(14)
    populations = [rng.gamma(2.0, 1.0, 400), 1.0 + rng.gamma(2.0, 1.0, 400)]
    truth = populations[1].mean() - populations[0].mean()
    how = Inference(confidence_level=0.95, population={"c": 400, "t": 400})
    covered, too_long = [], []
    for _ in range(n_experiments):
        samples = [rng.choice(item, 200, replace=False)[:, None] for item in populations]
        pair = compare(samples[0], samples[1])
        covered.append(covers(raw_readout(pair, how), float(truth)))
        too_long.append(covers(raw_readout(pair, HOW), float(truth)))
    assert_rate(np.array(covered), 0.95)
    assert float(np.mean(too_long)) > 0.98


def test_a_joint_of_two_samples_is_the_plain_comparison() -> None:
    rng = np.random.default_rng(15)
    pair = compare(rng.normal(size=(30, 1)), rng.normal(size=(50, 1)))
    parts, dfs = [], []
    for arm, item in enumerate(pair.moments):
        part = np.zeros((2, 2))
        part[arm, arm] = item.covariance[0, 0] / item.n
        parts.append(part)
        dfs.append(item.n - 1.0)
    joint = Joint(estimator="welch", parts=tuple(parts), dfs=tuple(dfs))
    found = raw_readout(Comparison(**{**vars(pair), "joint": joint}), HOW).effects[0]
    expected = raw_readout(pair, HOW).effects[0]
    assert found.std_error == pytest.approx(expected.std_error, rel=1e-12)
    assert found.df == pytest.approx(expected.df, rel=1e-12)


@pytest.mark.parametrize("n_experiments", SIZES)
@pytest.mark.parametrize(("n_arm", "n_strata", "excess"), [(2, 40, 0.25), (50, 4, 0.0)])
def test_small_strata_make_the_post_stratified_variance_conservative(
    n_experiments: int, n_arm: int, n_strata: int, excess: float
) -> None:
    """`sum w (d_s - d)^2 / n` holds the noise of d_s: by a quarter with two units an arm.

    Against the variance of Miratrix, Sekhon and Yu (2013) for a sampled population, which with
    equal effects in all strata is that of the blocks alone.
    """
    rng = np.random.default_rng(15)
    estimates, variances = [], []
    for _ in range(n_experiments):
        level = rng.normal(size=n_strata)[:, None]
        y = level + rng.normal(size=(2, n_strata, n_arm))
        cells = {
            name: {(s,): moments(y[at, s][:, None]) for s in range(n_strata)}
            for at, name in enumerate(("c", "t"))
        }
        n = n_arm * n_strata
        whole = tuple(moments(y[at].reshape(-1, 1)) for at in (0, 1))
        arms = Arms(
            levels=("c", "t"), counts={"c": n, "t": n}, n_other=0, moments={"y": whole},
            cells={"y": cells},
        )  # fmt: skip
        (pair,) = stratified(Y, arms, stratification="post_stratified", strata=["s"])
        found = raw_readout(pair, HOW).effects[0]
        estimates.append(found.estimate)
        variances.append(found.std_error**2)
    truth = 2 / (n_arm * n_strata)
    noise = ERRORS * np.sqrt(2 / n_experiments)
    assert float(np.var(estimates)) == pytest.approx(truth, rel=noise)
    assert float(np.mean(variances)) == pytest.approx((1 + excess) * truth, rel=0.05)
