"""Intervals that allow for trends cover the effect where the trend is the worst allowed."""

import dataclasses

import numpy as np
import pytest

from causal.core.gram import Array
from causal.quasi.credibility import conditional_sets, restrictions
from causal.quasi.credibility.event_path import EventPath, event_path
from causal.quasi.credibility.fixed_length import fixed_length, frontier
from causal.quasi.credibility.pretest_power import detectable_slope, pretested

WEIGHTS = np.array([0.5, 0.5])
EFFECT = np.array([0.0, 0.0, 0.0, 1.0, 2.0])
THETA = 1.5


def a_study(trend: Array) -> EventPath:
    """Three periods before, two after; estimates correlated as around a common reference."""
    covariance = 0.04 * (np.eye(5) + 0.8)
    return event_path(trend + EFFECT, covariance, n_pre=3, n_post=2)


def draws(study: EventPath, n: int, *, seed: int = 5) -> Array:
    rng = np.random.default_rng(seed)
    return rng.multivariate_normal(study.estimates, study.covariance, n)


def conditional_coverage(study: EventPath, bound: float, n: int, *, restriction: str) -> float:
    members = getattr(restrictions, restriction)(study, WEIGHTS, bound)
    tests = conditional_sets.prepared(study, members, alpha=0.05, kind="c_lf")
    theta = np.array([THETA])
    covered = 0
    for estimates in draws(study, n):
        moved = [
            dataclasses.replace(
                test, values=test.violations.slopes @ estimates - test.violations.constants
            )
            for test in tests
        ]
        covered += int(conditional_sets.accepted(moved, theta)[0])
    return covered / n


def bends(size: float, sign: float) -> Array:
    """The trend whose slope changes by `size` in every period: the worst for later effects."""
    distance = np.array([-3.0, -2.0, -1.0, 1.0, 2.0])
    return sign * size * np.where(distance > 0, distance * (distance + 1) / 2, -distance * 0)


def check_flci(n: int) -> None:
    for size in (0.0, 0.05, 0.3):
        for sign in (1.0, -1.0):
            # The trend at which the bias of the estimator is largest, from its own weights.
            flat = a_study(np.zeros(5))
            found = fixed_length(frontier(flat, WEIGHTS), size, confidence_level=0.95)
            rows = restrictions.differences(flat, order=2)
            on_bends = np.linalg.lstsq(rows.T, found.weights, rcond=None)[0]
            trend = sign * np.linalg.lstsq(rows, size * np.sign(on_bends), rcond=None)[0]
            assert np.abs(rows @ trend).max() <= size + 1e-12
            bias = float(found.weights @ trend)
            assert abs(bias) == pytest.approx(found.bias, abs=1e-10)
            middles = draws(a_study(trend), n) @ found.weights
            coverage = np.mean(np.abs(middles - THETA) <= found.half_length)
            # The interval is exact at its worst case, in both directions.
            assert coverage == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / n))


def check_relative_magnitudes(n: int) -> None:
    margin = 4 * np.sqrt(0.95 * 0.05 / n)
    # A clear break before, and breaks of 1 times it afterwards: one bound binds, the test is exact.
    worst = a_study(np.array([-3.0, 0.0, 0.0, 3.0, 6.0]))
    coverage = conditional_coverage(worst, 1.0, n, restriction="relative_magnitudes")
    assert coverage == pytest.approx(0.95, abs=margin)
    for trend, bound in (
        ([-3.0, 0.0, 0.0, -3.0, -6.0], 1.0),
        ([0.0, 0.3, 0.0, 0.15, 0.3], 0.5),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 1.0),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 0.0),
    ):
        study = a_study(np.array(trend))
        coverage = conditional_coverage(study, bound, n, restriction="relative_magnitudes")
        assert coverage >= 0.95 - margin
    # Beyond the bound nothing is promised, and it shows.
    outside = a_study(np.array([-1.0, 0.0, 0.0, 4.0, 8.0]))
    assert conditional_coverage(outside, 1.0, n, restriction="relative_magnitudes") < 0.5


def check_smoothness(n: int) -> None:
    margin = 4 * np.sqrt(0.95 * 0.05 / n)
    for sign in (1.0, -1.0):
        # Bends that noise could not make: those before are slack for certain, so the test is exact.
        study = a_study(bends(3.0, sign))
        coverage = conditional_coverage(study, 3.0, n, restriction="smoothness")
        assert coverage == pytest.approx(0.95, abs=margin)
        # Bounds of half a standard error are broken by noise before the start: then it is careful.
        study = a_study(bends(0.3, sign))
        coverage = conditional_coverage(study, 0.3, n, restriction="smoothness")
        assert 0.95 - margin < coverage < 0.965 + margin
    assert conditional_coverage(a_study(bends(2.0, 1.0)), 0.3, n, restriction="smoothness") < 0.5


def test_fixed_length_intervals_cover_at_the_worst_trend() -> None:
    check_flci(40_000)


def test_relative_magnitudes_cover_at_the_worst_trend() -> None:
    check_relative_magnitudes(600)


def test_smoothness_sets_cover_at_the_worst_trend() -> None:
    check_smoothness(600)


@pytest.mark.validation
def test_coverage_with_many_draws() -> None:
    check_flci(400_000)
    check_relative_magnitudes(10_000)
    check_smoothness(10_000)


def test_the_slope_found_is_detected_as_often_as_said() -> None:
    study = pretested(a_study(np.zeros(5)))
    slope = detectable_slope(study, power=0.8)
    moved = dataclasses.replace(a_study(np.zeros(5)), estimates=slope * study.line)
    found = draws(moved, 100_000)[:, :3]
    errors = np.sqrt(np.diag(moved.covariance)[:3])
    rejected = (np.abs(found) > 1.959964 * errors).any(axis=1).mean()
    assert rejected == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / 100_000))
