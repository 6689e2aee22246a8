"""Sensitivity to trends and the power of pre-tests against published figures.

`HonestDiD` (R, MIT licence, asheshrambachan/HonestDiD): README, "Medicaid expansions", 43 states of
which some expanded in 2014, five estimates before 2013 and two after it; its figures are those of
the stored results behind the README, unrounded. The estimates are the two-way fixed effects event
study of the README on Mixtape-Sessions' `ehec_data`, errors clustered by state as in fixest.
`pretrends` (R, MIT licence, jonathandroth/pretrends): README, He and Wang (2017).

R draws random numbers where this suite has a formula: a million for the quantile of a folded
normal, a thousand for the least favourable critical value. The tests repeat R's draws (seed 0), so
that what is left is the method.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import special

from causal.core.gram import Array
from causal.quasi.credibility import conditional_sets, restrictions
from causal.quasi.credibility.event_path import EventPath, event_path
from causal.quasi.credibility.fixed_length import fixed_length, frontier
from causal.quasi.credibility.pretest_power import detectable_slope, pretested, trend_power
from causal.quasi.credibility.sensitivity import original, sensitivity

MEDICAID = (
    -0.0052853424242424746, -0.011297318398268421, -0.0026759755411256084, -0.001419311904761971,
    0.00033967748917743817, 0.046446864502164342, 0.069206180303030163,
)  # fmt: skip
MEDICAID_COVARIANCE = (
    7.4884847103995e-05,
    6.0398755243524e-05, 7.2664990607522e-05,
    4.4446186904779e-05, 3.789328115699e-05, 5.0520507244056e-05,
    3.3857655990032e-05, 2.8665763072407e-05, 2.6736779513641e-05, 4.0032217795016e-05,
    4.3280135086532e-05, 4.5433213430979e-05, 2.7781938330122e-05, 2.4128608688487e-05,
    5.4626653870844e-05,
    4.7658821837675e-05, 4.4288526851648e-05, 3.0606454242836e-05, 2.380869371084e-05,
    3.6825353163577e-05, 8.3756740285163e-05,
    2.4251295373347e-05, 2.8246557930494e-05, 9.6375480161754e-06, 2.9239019091007e-06,
    9.7229777899517e-06, 6.3214033033889e-05, 0.00010712358152956,
)  # fmt: skip
"""Lower triangle, row by row."""
HE_WANG = (
    0.066703148186206818, -0.0077017922885715961, -0.030769053846597672, 0.084030658006668091,
    0.2424418181180954, 0.21987898647785187, 0.19109253585338593,
)  # fmt: skip
HE_WANG_COVARIANCE = (
    0.0089065711945295,
    0.0044883135706186, 0.0059369169175625,
    0.0014587024925277, 0.0027500791475177, 0.0030386247672141,
    0.0012157688615844, 0.0013505858369172, 0.00090561661636457, 0.0039247409440577,
    0.0020327644888312, 0.0014315459411591, 0.00067912985105067, 0.0025961180217564,
    0.0080658970400691,
    0.0013225014554337, 0.0012067791540176, 0.0010167636210099, 0.001732614939101,
    0.0058753751218319, 0.007881578989327,
    0.0019617727957666, 0.0013847157824785, 0.00070901442086324, 0.0022345525212586,
    0.0037414359394461, 0.0036507095210254, 0.0097884265705943,
)  # fmt: skip
R_RELATIVE_MAGNITUDES = {
    0.0: (0.02876563121251613, 0.06431042392097558),
    0.5: (0.024001896107258697, 0.06724195321651863),
    1.0: (0.017039514030343955, 0.07200568832177609),
    1.5: (0.008244926143714831, 0.07970095272257657),
    2.0: (-0.0009161029048571911, 0.08812909944726285),
}
"""Stored results of `createSensitivityResults_relativeMagnitudes`, first period after the start."""
R_README = {
    0.5: (0.0241, 0.0673), 1.0: (0.0171, 0.0720), 1.5: (0.00859, 0.0796), 2.0: (-0.00107, 0.0883)
}  # fmt: skip
"""The same as printed in the README, by another version of the package."""
R_SMOOTHNESS = {
    0.0: (0.02594147902742559, 0.06072578637633297),
    0.01: (0.013197025151447349, 0.0786707425358153),
    0.02: (0.002856995951433544, 0.09071603940652409),
    0.03: (-0.007142576403053387, 0.10071561176101101),
    0.04: (-0.017142576402225745, 0.11071561176018338),
    0.05: (-0.027142576401398125, 0.12071561175935576),
}
"""Stored results of `createSensitivityResults`, method FLCI."""
FIRST = np.array([1.0, 0.0])
GRID_STEP = 40.0 / 999.0
"""Of R's grid of effects, in standard errors."""
R_LEVEL = 2 * special.ndtr(-1.96)
"""R's `pretrends` takes 1.96 for the quantile."""


def symmetric(rows: tuple[float, ...], n: int) -> Array:
    found = np.zeros((n, n))
    found[np.tril_indices(n)] = rows
    return found + np.tril(found, -1).T


@pytest.fixture(scope="module")
def medicaid() -> EventPath:
    return event_path(MEDICAID, symmetric(MEDICAID_COVARIANCE, 7), n_pre=5, n_post=2)


@pytest.fixture(scope="module")
def he_wang() -> EventPath:
    return event_path(HE_WANG, symmetric(HE_WANG_COVARIANCE, 7), n_pre=3, n_post=4)


def r_normal(n: int) -> Array:
    """What `set.seed(0); rnorm(n)` gives: Mersenne Twister and inversion."""
    state, key = 0, []
    for i in range(50 + 625):
        state = (69_069 * state + 1) % 2**32
        if i > 50:
            key.append(state)
    twister = np.random.MT19937()
    inner = twister.state
    inner["state"] = {"key": np.array(key, dtype=np.uint32), "pos": 624}
    twister.state = inner
    uniform = twister.random_raw(2 * n) * 2.3283064365386963e-10
    return special.ndtri((np.floor(2**27 * uniform[::2]) + uniform[1::2]) / 2**27)


def test_the_draws_are_those_of_r() -> None:
    assert r_normal(3) == pytest.approx([1.2629543, -0.3262334, 1.3297993], abs=1e-7)


def test_fixed_length_intervals(medicaid: EventPath) -> None:
    choices, draws = frontier(medicaid, FIRST), r_normal(10**6)
    for bend, ends in R_SMOOTHNESS.items():
        found = fixed_length(choices, bend, confidence_level=0.95)
        error = found.std_error
        half = np.quantile(np.abs(draws + found.bias / error), 0.95) * error
        # Where the shortest weights lie inside, R finds them to this tolerance.
        margin = 1.5e-5 if bend < 0.02 else 2e-7
        assert found.estimate - half == pytest.approx(ends[0], abs=margin)
        assert found.estimate + half == pytest.approx(ends[1], abs=margin)
        # The exact quantile differs by the noise of a million draws.
        assert found.half_length == pytest.approx((ends[1] - ends[0]) / 2, rel=1.5e-3)


def r_first_critical(test: conditional_sets.Test, path: EventPath, rows: Array) -> float:
    """The least favourable critical value as R draws it, from the moments themselves."""
    covariance = rows @ path.covariance @ rows.T
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    draws = r_normal(1_000 * len(rows)).reshape(1_000, len(rows)) @ root
    corners = np.linalg.lstsq(rows.T, test.violations.slopes.T, rcond=None)[0].T
    assert corners @ rows == pytest.approx(test.violations.slopes, abs=1e-9)
    return float(np.quantile((draws @ corners.T).max(axis=1), 0.995))


@pytest.mark.parametrize("bound", [0.5, 1.0, 1.5, 2.0])
def test_conditional_sets_with_a_least_favourable_first_stage(
    medicaid: EventPath, bound: float
) -> None:
    breaks = restrictions.differences(medicaid, order=1)
    signed = [sign * row for row in breaks[:5] for sign in (1.0, -1.0)]
    members = restrictions.relative_magnitudes(medicaid, FIRST, bound)
    tests = [
        replace(
            test,
            first_critical=r_first_critical(
                test, medicaid, np.vstack([breaks[5:], -breaks[5:]]) - bound * row
            ),
        )
        for test, row in zip(
            conditional_sets.prepared(medicaid, members, alpha=0.05, kind="c_lf"),
            signed,
            strict=True,
        )
    ]
    error = float(np.sqrt(medicaid.covariance[5, 5]))
    grid = np.linspace(-20 * error, 20 * error, 1_000)
    inside = grid[conditional_sets.accepted(tests, grid)]
    assert inside[[0, -1]] == pytest.approx(R_RELATIVE_MAGNITUDES[bound], abs=1e-6)


def test_relative_magnitudes_within_a_step_of_the_grid_of_r(medicaid: EventPath) -> None:
    step = GRID_STEP * float(np.sqrt(medicaid.covariance[5, 5]))
    found = sensitivity(
        medicaid, FIRST, restriction="relative_magnitudes", values=list(R_RELATIVE_MAGNITUDES)
    )
    for interval in found.intervals:
        # The noise of a thousand draws moves R's ends by a step more from version to version.
        known = [(R_RELATIVE_MAGNITUDES[interval.value], step + 1e-4)]
        known += [(R_README[interval.value], 2 * step)] if interval.value in R_README else []
        for ends, margin in known:
            assert interval.ci_lower == pytest.approx(ends[0], abs=margin)
            assert interval.ci_upper == pytest.approx(ends[1], abs=margin)
    # README: "the breakdown value for a significant effect is 2", on steps of 0.5.
    assert 1.5 < found.breakdown < 2.0


def test_break_down_of_smoothness(medicaid: EventPath) -> None:
    found = sensitivity(medicaid, FIRST, restriction="smoothness", values=[0.02, 0.03])
    # README: "the breakdown value for a significant effect is 0.03", on steps of 0.01.
    assert 0.02 < found.breakdown < 0.03
    assert [item.holds_zero for item in found.intervals] == [False, True]


def test_interval_under_parallel_trends(medicaid: EventPath) -> None:
    found = original(medicaid, FIRST, confidence_level=0.95)
    assert found.ci_lower == pytest.approx(MEDICAID[5] - 1.959963985 * 0.00915187086, abs=1e-10)


def test_slope_that_a_pre_test_detects_half_of_the_time(he_wang: EventPath) -> None:
    slope = detectable_slope(pretested(he_wang), power=0.5, level=R_LEVEL)
    # R's root finder stops at a tolerance of 1.2e-4.
    assert slope == pytest.approx(0.05205871, abs=1e-5)


def test_expectation_after_a_pre_test(he_wang: EventPath) -> None:
    study = pretested(he_wang)
    found = trend_power(study, 0.05205871 * study.line, level=R_LEVEL)
    assert found.power == pytest.approx(0.4999776, abs=2e-4)
    assert found.bayes_factor == pytest.approx(0.56901, abs=2e-4)
    assert found.likelihood_ratio == pytest.approx(0.1057627, abs=1e-6)
    published = [
        -0.09230764, -0.05555285, -0.02790950, 0.06490184, 0.12084694, 0.16946498, 0.22453827
    ]  # fmt: skip
    assert found.mean_if_passed == pytest.approx(published, abs=1e-5)


def test_power_against_a_curved_trend(he_wang: EventPath) -> None:
    study = pretested(he_wang)
    found = trend_power(study, 0.024 * study.line**2, level=R_LEVEL)
    assert found.power == pytest.approx(0.6624282, abs=5e-5)
    assert found.bayes_factor == pytest.approx(0.3841516, abs=5e-5)
    assert found.likelihood_ratio == pytest.approx(0.4332635, abs=1e-6)
