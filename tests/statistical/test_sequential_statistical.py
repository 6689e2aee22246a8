"""Error rates of sequential tests in repeated experiments looked at many times.

Paths of z statistics are drawn as what they are in large samples, a Brownian motion in information;
one test draws skewed data unit by unit. Bands follow from the number of experiments: the nominal
rate plus or minus a number of binomial errors.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from causal.experiments.confidence_sequence import log_evalue, radius, tuning
from causal.experiments.group_sequential import (
    Boundaries,
    Rule,
    WangTsiatis,
    boundaries,
    planned_error,
)
from causal.experiments.sequential import evaluate
from causal.experiments.sequential_design import Futility, design
from causal.experiments.sequential_looks import Look
from causal.experiments.sequential_options import SequentialOptions
from causal.experiments.sequential_srm import log_bayes_factor
from causal.experiments.spending import Spending
from causal.experiments.stage_wise import tail_above

pytestmark = pytest.mark.slow

Array = NDArray[np.float64]

N_PATHS = 40_000
ALPHA = 0.05
ERRORS = 3.5
"""Half-width of a band in binomial standard errors."""

LOOKS = (5, 10, 20)
RULES: dict[str, Rule] = {
    "spending, O'Brien-Fleming": Spending(),
    "spending, Pocock": Spending(family="pocock"),
    "spending, Hwang-Shih-DeCani": Spending(family="hwang_shih_decani", parameter=-4),
    "spending, power": Spending(family="power", parameter=3),
    "O'Brien-Fleming": WangTsiatis(delta=0.0),
    "Pocock": WangTsiatis(delta=0.5),
    "Wang-Tsiatis": WangTsiatis(delta=0.25),
}


def band(rate: float, n: int = N_PATHS) -> float:
    return ERRORS * float(np.sqrt(rate * (1 - rate) / n))


def paths(fractions: Array, *, drift: float = 0.0, seed: int = 1, n: int = N_PATHS) -> Array:
    """z statistics, shape (n, looks)."""
    rng = np.random.default_rng(seed)
    steps = np.diff(fractions, prepend=0.0)
    scores = np.cumsum(
        drift * steps + rng.standard_normal((n, len(fractions))) * np.sqrt(steps), axis=1
    )
    return np.asarray(scores / np.sqrt(fractions))


def equal_looks(n_looks: int) -> Array:
    return np.arange(1, n_looks + 1) / n_looks


def uneven_looks(n_looks: int, seed: int = 5) -> Array:
    steps = np.random.default_rng(seed).uniform(0.3, 1.7, n_looks)
    fractions = np.cumsum(steps) / steps.sum()
    fractions[-1] = 1.0
    return fractions


@pytest.mark.parametrize(("n_looks", "rate"), [(5, 0.142), (10, 0.193), (20, 0.248)])
def test_peeking_at_a_fixed_horizon_test_inflates_its_level(n_looks: int, rate: float) -> None:
    """The rates of Armitage, McPherson and Rowe (1969): why the other tests of this file exist."""
    crossed = (np.abs(paths(equal_looks(n_looks))) > stats.norm.isf(ALPHA / 2)).any(axis=1)
    assert crossed.mean() == pytest.approx(rate, abs=band(rate) + 5e-4)


@pytest.mark.parametrize("name", list(RULES))
@pytest.mark.parametrize("n_looks", LOOKS)
@pytest.mark.parametrize("is_two_sided", [True, False])
def test_group_sequential_tests_keep_their_level(
    *, name: str, n_looks: int, is_two_sided: bool
) -> None:
    side = ALPHA / 2 if is_two_sided else ALPHA
    plan = equal_looks(n_looks)
    observed = uneven_looks(n_looks)
    rule = RULES[name]
    at = observed if isinstance(rule, Spending) else plan
    error = planned_error(rule, at, alpha=side, is_two_sided=is_two_sided)
    limits = boundaries(observed, error, is_two_sided=is_two_sided)
    z = paths(observed, seed=n_looks)
    size = np.abs(z) if is_two_sided else z
    rate = float((size >= limits.efficacy).any(axis=1).mean())
    assert rate == pytest.approx(ALPHA, abs=band(ALPHA))
    assert rate <= 0.055


@pytest.mark.parametrize("n_looks", LOOKS)
@pytest.mark.parametrize("is_two_sided", [True, False])
def test_always_valid_tests_keep_their_level(*, n_looks: int, is_two_sided: bool) -> None:
    at = equal_looks(n_looks)
    z = paths(at, seed=n_looks)
    size = np.abs(z) if is_two_sided else z
    for scale in (0.3, 1.0, 10.0):
        ratio = scale * tuning(alpha=ALPHA, is_two_sided=is_two_sided) * at
        limit = radius(ratio, alpha=ALPHA, is_two_sided=is_two_sided)
        crossed = (size >= limit).any(axis=1)
        assert float(crossed.mean()) <= ALPHA
        evidence = log_evalue(z, ratio, is_two_sided=is_two_sided)
        assert ((evidence.max(axis=1) >= -np.log(ALPHA)) == crossed).all()


def test_a_confidence_sequence_covers_at_every_look_of_many() -> None:
    """500 looks: coverage stays above the nominal level, yet is no vacuous 100 %."""
    at = np.geomspace(0.002, 1.0, 500)
    ratio = tuning(alpha=ALPHA, is_two_sided=True) * at / 0.1
    z = paths(at, n=10_000, seed=9)
    missed = (np.abs(z) > radius(ratio, alpha=ALPHA, is_two_sided=True)).any(axis=1).mean()
    assert 0.5 * ALPHA < missed <= ALPHA


def test_a_confidence_sequence_on_skewed_data() -> None:
    """Differences of exponential means from the estimates and errors at twenty looks."""
    rng = np.random.default_rng(21)
    n, n_looks, effect = 4000, 20, 0.15
    at = np.arange(1, n_looks + 1) * (n // n_looks)
    missed = 0
    for _ in range(1000):
        totals = []
        for mean in (1.0, 1.0 + effect):
            x = rng.exponential(mean, n)
            sums, squares = np.cumsum(x)[at - 1], np.cumsum(x * x)[at - 1]
            totals.append((sums / at, (squares / at - (sums / at) ** 2) / at))
        estimate = totals[1][0] - totals[0][0]
        std_error = np.sqrt(totals[0][1] + totals[1][1])
        ratio = tuning(alpha=ALPHA, is_two_sided=True) * (std_error[-1] / std_error) ** 2
        half = radius(ratio, alpha=ALPHA, is_two_sided=True) * std_error
        missed += bool((np.abs(estimate - effect) > half).any())
    assert missed / 1000 <= ALPHA + band(ALPHA, 1000)


@pytest.mark.parametrize(("concentration", "found"), [(100.0, 0.5), (10_000.0, 0.8)])
def test_sequential_sample_ratio_alarms(concentration: float, found: float) -> None:
    """Few false alarms over 28 looks; a shift by a point is found among 56,000 units."""
    rng = np.random.default_rng(17)
    shares = np.array([0.5, 0.3, 0.2])
    alpha = 0.01

    def alarms(true_shares: Array, n: int) -> float:
        daily = rng.multinomial(2000, true_shares, size=(n, 28))
        counts = np.cumsum(daily, axis=1)
        evidence = log_bayes_factor(counts, shares, concentration=concentration)
        return float((evidence.max(axis=1) >= -np.log(alpha)).mean())

    assert alarms(shares, 4000) <= alpha + band(alpha, 4000)
    assert alarms(np.array([0.51, 0.295, 0.195]), 1000) > found


DESIGNS: dict[str, tuple[Rule, bool, Futility | None]] = {
    "two-sided": (Spending(), True, None),
    "Pocock": (WangTsiatis(delta=0.5), True, None),
    "non-binding futility": (Spending(), False, Futility(power=0.85)),
    "binding futility": (
        Spending(family="hwang_shih_decani", parameter=-2),
        False,
        Futility(spending=Spending(family="power", parameter=1.5), power=0.85, is_binding=True),
    ),
    "inner wedge": (Spending(), True, Futility(power=0.85)),
}


def stopped_upwards(z: Array, limits: Boundaries, *, heeds_futility: bool) -> NDArray[np.bool_]:
    """Whether the first stop of each path is an effect upwards."""
    up = z >= limits.efficacy
    stop = up | (z <= -limits.efficacy) if limits.is_two_sided else up
    if heeds_futility and limits.futility is not None:
        size = np.abs(z) if limits.is_two_sided else z
        stop = stop | (size <= limits.futility)
    first = np.argmax(stop, axis=1)
    return np.asarray(stop.any(axis=1) & up[np.arange(len(z)), first])


@pytest.mark.parametrize("name", list(DESIGNS))
def test_designs_have_the_power_and_level_they_promise(name: str) -> None:
    rule, is_two_sided, futility = DESIGNS[name]
    at = np.array([0.2, 0.45, 0.7, 1.0])
    found = design(
        at, rule=rule, alpha=0.025, is_two_sided=is_two_sided, power=0.85, futility=futility
    )
    with_effect = stopped_upwards(
        paths(at, drift=found.drift, seed=3), found.limits, heeds_futility=True
    )
    assert with_effect.mean() == pytest.approx(0.85, abs=band(0.85))
    is_binding = futility is not None and futility.is_binding
    without = stopped_upwards(paths(at, seed=4), found.limits, heeds_futility=is_binding)
    assert without.mean() == pytest.approx(0.025, abs=band(0.025))
    under = found.under_alternative.upper.sum()
    assert under == pytest.approx(0.85, abs=1e-9)


@pytest.mark.parametrize("drift", [0.0, 1.5, 3.0])
@pytest.mark.parametrize(
    "name", ["two-sided", "Pocock", "non-binding futility", "binding futility"]
)
def test_stage_wise_intervals_cover_and_estimates_are_median_unbiased(
    name: str, drift: float
) -> None:
    """The tail probability of the outcome at the true drift is uniform, so its inversion covers."""
    rule, is_two_sided, futility = DESIGNS[name]
    at = np.array([0.2, 0.45, 0.7, 1.0])
    limits = design(
        at, rule=rule, alpha=0.025, is_two_sided=is_two_sided, power=0.85, futility=futility
    ).limits
    z = paths(at, drift=drift, seed=6)
    stop = np.abs(z) >= limits.efficacy if is_two_sided else z >= limits.efficacy
    if limits.futility is not None and limits.is_binding:
        stop |= z <= limits.futility
    stop[:, -1] = True
    first = np.argmax(stop, axis=1)
    tails = np.empty(len(z))
    for look in range(len(at)):
        here = first == look
        tails[here] = tail_above(limits, z[here, look], look=look, drift=drift)
    assert stats.kstest(tails, "uniform").pvalue > 0.001
    assert ((tails > 0.025) & (tails < 0.975)).mean() == pytest.approx(0.95, abs=band(0.05))
    assert (tails < 0.5).mean() == pytest.approx(0.5, abs=band(0.5))


def test_naive_intervals_at_the_stop_do_not_cover() -> None:
    """What the adjusted intervals are for: Pocock's test, no effect."""
    limits = boundaries(
        equal_looks(5),
        planned_error(WangTsiatis(delta=0.5), equal_looks(5), alpha=0.1, is_two_sided=True),
        is_two_sided=True,
    )
    z = paths(equal_looks(5), seed=8)
    stop = np.abs(z) >= limits.efficacy
    stop[:, -1] = True
    at_stop = z[np.arange(len(z)), np.argmax(stop, axis=1)]
    assert (np.abs(at_stop) > stats.norm.isf(0.1)).mean() > 1.1 * 0.2


OPTIONS = {
    "spending": SequentialOptions(maximum_information=100.0),
    "pocock": SequentialOptions(method="pocock", planned_fractions=(0.25, 0.5, 0.75, 1.0)),
    "confidence_sequence": SequentialOptions(
        method="confidence_sequence", maximum_information=100.0
    ),
    "msprt": SequentialOptions(method="msprt", effect_spread=0.2),
}


def evaluated(name: str, *, effect: float, n: int, seed: int) -> tuple[float, float, float]:
    """Rate of stops for an effect, coverage of the adjusted interval, ends agree with tests."""
    fractions = np.array([0.25, 0.5, 0.75, 1.0])
    information = 100.0 * fractions
    z = paths(fractions, drift=effect * 10.0, seed=seed, n=n)
    stops = covered = agree = 0
    for row in z:
        looks = [
            Look(name=str(k), estimate=float(value / np.sqrt(i)), std_error=float(i**-0.5))
            for k, (value, i) in enumerate(zip(row, information, strict=True))
        ]
        looks[-1] = Look(
            name="end",
            estimate=looks[-1].estimate,
            std_error=looks[-1].std_error,
            is_final=True,
        )
        result = evaluate(looks, OPTIONS[name])
        found = result.adjusted
        assert found is not None
        is_effect = result.decision == "stop_efficacy"
        stops += is_effect
        covered += found.ci_lower <= effect <= found.ci_upper
        agree += is_effect == (found.ci_lower > 0 or found.ci_upper < 0)
    return stops / n, covered / n, agree / n


@pytest.mark.parametrize("name", list(OPTIONS))
def test_evaluated_experiments(name: str) -> None:
    """End to end, few experiments: level, coverage, and intervals that agree with the decision."""
    rate, coverage, agreement = evaluated(name, effect=0.0, n=8, seed=12)
    assert rate <= ALPHA + band(ALPHA, 8)
    assert coverage >= 1 - ALPHA - band(ALPHA, 8)
    assert agreement == 1.0


@pytest.mark.validation
@pytest.mark.parametrize("effect", [0.0, 0.15, 0.3])
@pytest.mark.parametrize("name", list(OPTIONS))
def test_evaluated_experiments_in_thousands(name: str, effect: float) -> None:
    rate, coverage, agreement = evaluated(name, effect=effect, n=3000, seed=13)
    assert coverage >= 1 - ALPHA - band(ALPHA, 3000)
    assert agreement == 1.0
    if effect == 0.0:
        assert rate <= ALPHA + band(ALPHA, 3000)
    else:
        at_once = float(stats.norm.sf(stats.norm.isf(ALPHA / 2) - 10.0 * effect))
        is_weak = name in {"confidence_sequence", "msprt"} and effect < 0.3
        least = ALPHA + band(ALPHA, 3000) if is_weak else 0.1
        assert least < rate <= at_once + band(at_once, 3000)
