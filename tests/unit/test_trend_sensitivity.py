"""Sensitivity to trends: closed forms against linear programmes, searches and simulation."""

import dataclasses

import numpy as np
import pytest
from scipy import optimize, stats

from causal.core.errors import DataError, InferenceError, SpecError
from causal.core.gram import Array
from causal.quasi.credibility import conditional_sets, restrictions
from causal.quasi.credibility.event_path import EventPath, event_path
from causal.quasi.credibility.fixed_length import fixed_length, folded_quantile, frontier
from causal.quasi.credibility.pretest_power import (
    detectable_slope,
    normal_in_box,
    pretested,
    trend_power,
)
from causal.quasi.credibility.sensitivity import default_values, sensitivity

SHAPES = [(1, 1), (1, 3), (2, 1), (3, 2), (4, 4), (6, 3)]


def a_path(seed: int, n_pre: int, n_post: int) -> EventPath:
    rng = np.random.default_rng(seed)
    n = n_pre + n_post
    root = rng.normal(size=(n, 2 * n))
    covariance = root @ root.T / (2 * n)
    estimates = rng.multivariate_normal(np.zeros(n), covariance)
    return event_path(estimates, covariance, n_pre=n_pre, n_post=n_post)


def some_weights(seed: int, n: int) -> Array:
    """Weights of either sign."""
    return np.random.default_rng(seed).normal(size=n)


def moments(path: EventPath, bound: float, restriction: str) -> list[tuple[Array, Array]]:
    """The rows and bounds `A delta <= d` of each member of the restriction, written out."""
    order = 1 if restriction == "relative_magnitudes" else 2
    rows = np.delete(
        np.diff(np.eye(path.n_pre + path.n_post + 1), n=order, axis=0), path.n_pre, axis=1
    )
    touches = (rows[:, path.n_pre :] != 0).any(axis=1)
    if order == 2:
        kept = rows if path.n_post == 1 else rows[touches]
        return [(np.vstack([kept, -kept]), np.full(2 * len(kept), bound))]
    after = rows[touches]
    return [
        (np.vstack([after, -after]) - bound * sign * largest, np.zeros(2 * len(after)))
        for largest in rows[~touches]
        for sign in (1.0, -1.0)
    ]


@pytest.mark.parametrize("restriction", ["relative_magnitudes", "smoothness"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_violation_is_that_of_the_linear_programme(
    shape: tuple[int, int], restriction: str
) -> None:
    path, weights = a_path(3, *shape), some_weights(4, shape[1])
    build = getattr(restrictions, restriction)
    members = build(path, weights, 0.7)
    written = moments(path, 0.7, restriction)
    assert len(members) == len(written)
    for found, (rows, bounds) in zip(members, written, strict=True):
        errors = np.sqrt(np.diag(rows @ path.covariance @ rows.T))
        for theta in (-1.0, 0.3):
            # min eta over eta and the effects tau with weights' tau = theta.
            solved = optimize.linprog(
                np.r_[1.0, np.zeros(path.n_post)],
                A_ub=np.column_stack([-errors, -rows[:, path.n_pre :]]),
                b_ub=bounds - rows @ path.estimates,
                A_eq=np.r_[0.0, weights][None],
                b_eq=[theta],
                bounds=(None, None),
            )
            statistics = found.slopes @ path.estimates - found.constants - theta * found.shifts
            assert statistics.max() == pytest.approx(solved.fun, abs=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bias_of_a_fixed_length_interval_is_the_worst_of_its_set(
    shape: tuple[int, int],
) -> None:
    path, weights = a_path(5, *shape), some_weights(6, shape[1])
    found = fixed_length(frontier(path, weights), 0.4, confidence_level=0.95)
    rows = restrictions.differences(path, order=2)
    worst = optimize.linprog(
        -found.weights, A_ub=np.vstack([rows, -rows]), b_ub=np.full(2 * len(rows), 0.4),
        bounds=(None, None),
    )  # fmt: skip
    assert found.bias == pytest.approx(-worst.fun, abs=1e-8)
    assert found.std_error**2 == pytest.approx(found.weights @ path.covariance @ found.weights)
    assert found.weights[path.n_pre :] == pytest.approx(weights)


@pytest.mark.parametrize("bend", [0.0, 0.02, 0.2, 3.0])
@pytest.mark.parametrize("shape", [(2, 1), (3, 2), (6, 3)])
def test_no_interval_of_fixed_length_is_shorter(shape: tuple[int, int], bend: float) -> None:
    path, weights = a_path(7, *shape), some_weights(8, shape[1])
    choices = frontier(path, weights)
    found = fixed_length(choices, bend, confidence_level=0.9)

    def half(u: Array) -> float:
        chosen = choices.estimator(u)
        error = np.sqrt(chosen @ path.covariance @ chosen)
        bias = bend * (choices.bias_after + np.abs(u).sum())
        return error * folded_quantile(bias / error, confidence_level=0.9)

    rng = np.random.default_rng(9)
    ends = [piece.end for piece in choices.segments]
    starts = [*ends, *(ends[-1] * rng.normal(1.0, 0.3, len(ends[-1])) for _ in range(2))]
    searched = min(
        optimize.minimize(half, start, method="Powell", options={"xtol": 1e-10}).fun
        for start in starts
    )
    assert found.half_length <= searched * (1 + 1e-9)
    assert found.half_length == pytest.approx(searched, rel=1e-3)


def test_the_path_of_weights_meets_the_conditions_of_the_lasso() -> None:
    for seed in range(20):
        path, weights = a_path(seed, 8, 2), some_weights(seed, 2)
        choices = frontier(path, weights)
        pre = path.covariance[:8, :8]
        for piece in choices.segments:
            for u in (0.5 * (piece.start + piece.end), piece.end):
                chosen = choices.fixed + choices.moving @ u
                gradient = choices.moving.T @ (pre @ chosen + path.covariance[:8, 8:] @ weights)
                penalty = np.abs(gradient).max()
                is_used = np.abs(u) > 1e-9
                assert gradient[is_used] == pytest.approx(-penalty * np.sign(u[is_used]), abs=1e-8)
        assert np.abs(gradient).max() == pytest.approx(0.0, abs=1e-8)
        assert all(
            np.array_equal(one.end, two.start)
            for one, two in zip(choices.segments, choices.segments[1:], strict=False)
        )


@pytest.mark.parametrize("mean", [0.0, 0.3, 2.0, 50.0, 1e5])
def test_folded_quantile(mean: float) -> None:
    found = folded_quantile(mean, confidence_level=0.95)
    reached = stats.norm.cdf(found - mean) - stats.norm.cdf(-found - mean)
    assert reached == pytest.approx(0.95, abs=1e-10)


def test_truncated_pvalues_far_in_the_tails() -> None:
    low = np.array([-np.inf, 0.0, 30.0, -40.0, 1.0, -np.inf])
    high = np.array([np.inf, np.inf, np.inf, -30.0, 1.5, -2.0])
    z = np.array([1.0, 2.0, 30.05, -30.02, 1.2, -2.5])
    found = conditional_sets._truncated_pvalue(z, low, high)
    assert found == pytest.approx(stats.truncnorm.sf(z, low, high), rel=1e-6)


def test_the_set_ends_where_the_test_changes_its_mind() -> None:
    path = a_path(11, 3, 2)
    weights = np.array([0.5, 0.5])
    members = restrictions.relative_magnitudes(path, weights, 1.0)
    tests = conditional_sets.prepared(path, members, alpha=0.05, kind="c_lf")
    lower, upper = conditional_sets.confidence_set(path, weights, tests)
    width = upper - lower
    inside = conditional_sets.accepted(tests, np.array([lower, upper]))
    beyond = conditional_sets.accepted(
        tests, np.array([lower, upper]) + width * 1e-4 * np.r_[-1, 1]
    )
    assert inside.all()
    assert not beyond.any()


def test_large_estimates_do_not_leave_the_grid() -> None:
    path = a_path(12, 3, 2)
    far = dataclasses.replace(path, estimates=path.estimates + np.array([0, 0, 0, 1e3, 1e3]))
    near, moved = (
        sensitivity(p, np.array([1.0, 0.0]), restriction="relative_magnitudes", values=[1.0])
        for p in (path, far)
    )
    assert moved.intervals[0].ci_lower == pytest.approx(near.intervals[0].ci_lower + 1e3, abs=1e-3)
    assert moved.breakdown > near.breakdown


@pytest.mark.parametrize("restriction", ["relative_magnitudes", "smoothness"])
@pytest.mark.parametrize("method", ["c_lf", "conditional", None])
def test_scale_and_sign_of_the_outcome(restriction: str, method: str | None) -> None:
    path, weights = a_path(13, 4, 3), np.array([0.0, 1.0, 0.0])
    values = [0.0, 0.5, 1.0]
    flipped = dataclasses.replace(
        path, estimates=-10 * path.estimates, covariance=100 * path.covariance
    )
    scale = 10 if restriction == "smoothness" else 1
    one = sensitivity(path, weights, restriction=restriction, values=values, method=method)
    two = sensitivity(
        flipped, weights, restriction=restriction, values=[scale * v for v in values], method=method
    )
    for a, b in zip(one.intervals, two.intervals, strict=True):
        assert b.ci_lower == pytest.approx(-10 * a.ci_upper, rel=1e-4, abs=1e-4)
        assert b.ci_upper == pytest.approx(-10 * a.ci_lower, rel=1e-4, abs=1e-4)


def test_the_break_down_value_is_where_zero_enters() -> None:
    path = event_path([0.1, 0.0, 3.0, 3.5], 0.04 * (np.eye(4) + 0.2), n_pre=2, n_post=2)
    weights = np.array([1.0, 0.0])
    for restriction in ("relative_magnitudes", "smoothness"):
        found = sensitivity(path, weights, restriction=restriction, values=[0.0])
        assert 0 < found.breakdown < np.inf
        around = sensitivity(
            path, weights, restriction=restriction,
            values=[found.breakdown * 0.99, found.breakdown * 1.01],
        )  # fmt: skip
        assert [item.holds_zero for item in around.intervals] == [False, True]
    none = event_path([0.1, 0.0, 0.01, 3.5], 0.04 * (np.eye(4) + 0.2), n_pre=2, n_post=2)
    assert sensitivity(none, weights, restriction="smoothness").breakdown == 0


def test_values_of_smoothness_come_from_the_periods_before() -> None:
    path = event_path([0.3, -0.2, 0.1, 1.0], 0.01 * np.eye(4), n_pre=3, n_post=1)
    # Second differences 0.8, -0.4 and errors 0.1 times sqrt(6), sqrt(5).
    largest = 0.8 + 1.6448536269514722 * 0.1 * np.sqrt(6)
    assert default_values(path, "smoothness") == pytest.approx(np.linspace(0, largest, 10))


def test_what_cannot_be_bounded_is_refused() -> None:
    good = a_path(14, 3, 2)
    with pytest.raises(DataError, match="every event time between"):
        dataclasses.replace(good, times=np.array([-5.0, -3.0, -2.0, 0.0, 1.0]))
    with pytest.raises(DataError, match="before the reference"):
        event_path([1.0], np.eye(1), n_pre=0, n_post=1)
    with pytest.raises(InferenceError, match="singular"):
        event_path([1.0, 2.0, 3.0], np.ones((3, 3)), n_pre=2, n_post=1)
    with pytest.raises(InferenceError, match="not symmetric"):
        event_path([1.0, 2.0], np.array([[1.0, 0.5], [0.1, 1.0]]), n_pre=1, n_post=1)
    with pytest.raises(InferenceError, match="do not go together"):
        event_path([1.0, 2.0], np.eye(3), n_pre=1, n_post=1)
    with pytest.raises(SpecError, match="fixed length exists for smoothness"):
        sensitivity(good, np.ones(2), restriction="relative_magnitudes", method="flci")
    with pytest.raises(SpecError, match="weights"):
        sensitivity(good, np.ones(3), restriction="smoothness")
    with pytest.raises(SpecError, match="not negative"):
        sensitivity(good, np.ones(2), restriction="smoothness", values=[-1.0])
    with pytest.raises(SpecError, match="event time after the reference"):
        good.weights(7)


def test_normal_probability_and_mean_in_a_box() -> None:
    rng = np.random.default_rng(15)
    for k in (1, 2, 4, 8):
        root = rng.normal(size=(k, 2 * k))
        covariance, mean = root @ root.T / k, rng.normal(size=k)
        half = 1.5 * np.sqrt(np.diag(covariance))
        total, inside = normal_in_box(mean, covariance, half)
        expected = stats.multivariate_normal(mean, covariance, seed=1).cdf(half, lower_limit=-half)
        assert total == pytest.approx(expected, abs=5e-4)
        draws = rng.multivariate_normal(mean, covariance, 200_000)
        kept = draws[(np.abs(draws) <= half).all(axis=1)]
        error = kept.std(axis=0) / np.sqrt(len(kept))
        assert (np.abs(inside - kept.mean(axis=0)) < 5 * error + 5e-4).all()


@pytest.mark.parametrize("test", ["individual", "joint"])
def test_power_and_what_passes_against_simulation(test: str) -> None:
    path = a_path(16, 3, 2)
    study = pretested(path)
    slope = detectable_slope(study, power=0.6, test=test)
    found = trend_power(study, slope * study.line, test=test)
    assert found.power == pytest.approx(0.6, abs=1e-6)
    draws = np.random.default_rng(17).multivariate_normal(
        slope * study.line, path.covariance, 400_000
    )
    pre = draws[:, :3]
    if test == "individual":
        errors = np.sqrt(np.diag(path.covariance)[:3])
        passed = (np.abs(pre) <= 1.959964 * errors).all(axis=1)
    else:
        inverse = np.linalg.inv(path.covariance[:3, :3])
        wald = np.einsum("ij,jk,ik->i", pre, inverse, pre)
        passed = wald <= stats.chi2.ppf(0.95, 3)
    assert 1 - passed.mean() == pytest.approx(0.6, abs=4e-3)
    error = draws[passed].std(axis=0) / np.sqrt(passed.sum())
    assert (np.abs(found.mean_if_passed - draws[passed].mean(axis=0)) < 5 * error + 1e-3).all()


@pytest.mark.parametrize(("test", "reference"), [
    ("individual", "hotelling"), ("joint", "hotelling"), ("joint", "wald"),
])  # fmt: skip
def test_power_with_few_clusters_against_simulation(test: str, reference: str) -> None:
    """The covariance is a Wishart matrix over df, drawn as sums of products of normals."""
    path, df, k, n = a_path(16, 3, 2), 9, 3, 60_000
    study = pretested(path, df=df, joint_test=reference)
    slope = detectable_slope(study, power=0.6, test=test)
    found = trend_power(study, slope * study.line, test=test)
    rng = np.random.default_rng(17)
    draws = rng.multivariate_normal(slope * study.line, path.covariance, n)
    parts = rng.multivariate_normal(np.zeros(k), path.covariance[:k, :k], (n, df))
    covariances = np.einsum("nij,nik->njk", parts, parts) / df
    pre = draws[:, :k]
    if test == "individual":
        errors = np.sqrt(np.einsum("nii->ni", covariances))
        passed = (np.abs(pre) <= stats.t.ppf(0.975, df) * errors).all(axis=1)
    else:
        chi2 = np.einsum("ni,ni->n", pre, np.linalg.solve(covariances, pre[..., None])[..., 0])
        rest = df - k + 1 if reference == "hotelling" else df
        passed = rest / (df * k) * chi2 <= stats.f.ppf(0.95, k, rest)
    assert 1 - passed.mean() == pytest.approx(0.6, abs=4 * np.sqrt(0.24 / n) + 1e-3)
    error = draws[passed].std(axis=0) / np.sqrt(passed.sum())
    assert (np.abs(found.mean_if_passed - draws[passed].mean(axis=0)) < 5 * error + 2e-3).all()
    # The same slope seems easier to detect where the covariance is taken for known.
    assert trend_power(pretested(path), slope * study.line, test=test).power > 0.63


@pytest.mark.parametrize("test", ["individual", "joint"])
def test_power_where_one_variance_is_estimated_against_simulation(test: str) -> None:
    """Classical errors: the covariance is known but for a factor that is a chi-square over df."""
    path, df, k, n = a_path(16, 3, 2), 9, 3, 60_000
    study = pretested(path, df=df, joint_test="exact")
    assert trend_power(study, 0 * study.line, test="joint").power == pytest.approx(0.05, abs=1e-9)
    slope = detectable_slope(study, power=0.6, test=test)
    rng = np.random.default_rng(19)
    pre = rng.multivariate_normal(slope * study.line[:k], path.covariance[:k, :k], n)
    factor = rng.chisquare(df, n) / df
    if test == "individual":
        errors = np.sqrt(factor[:, None] * np.diag(path.covariance)[:k])
        passed = (np.abs(pre) <= stats.t.ppf(0.975, df) * errors).all(axis=1)
    else:
        whitened = np.linalg.solve(np.linalg.cholesky(path.covariance[:k, :k]), pre.T)
        passed = (whitened**2).sum(axis=0) / (k * factor) <= stats.f.ppf(0.95, k, df)
    assert 1 - passed.mean() == pytest.approx(0.6, abs=4 * np.sqrt(0.24 / n) + 1e-3)


def test_many_clusters_are_a_known_covariance() -> None:
    path = a_path(16, 3, 2)
    known, many = pretested(path), pretested(path, df=1e7)
    for test in ("individual", "joint"):
        slope = detectable_slope(known, power=0.8, test=test)
        assert detectable_slope(many, power=0.8, test=test) == pytest.approx(slope, rel=2e-3)


def test_power_needs_as_many_degrees_of_freedom_as_estimates() -> None:
    with pytest.raises(InferenceError, match="degrees of freedom"):
        detectable_slope(pretested(a_path(16, 3, 2), df=2), power=0.8)


def test_a_power_below_the_size_has_no_slope() -> None:
    with pytest.raises(InferenceError, match="more than the power"):
        detectable_slope(pretested(a_path(18, 6, 1)), power=0.05)


def test_a_trend_that_no_sample_passes_has_no_mean_there() -> None:
    study = pretested(a_path(19, 4, 3))
    found = trend_power(study, 1e4 * study.line, test="joint")

    assert found.power == 1.0
    assert found.bayes_factor == 0.0
    assert np.isnan(found.mean_if_passed).all()
