"""Size, bias and coverage of synthetic control and synthetic DiD over many small worlds.

Regions share two random-walk factors, so that a before/after comparison is badly wrong, and have
errors of their own. The treated region is one of them, drawn alike.
"""

import numpy as np
import pytest
from scipy import stats

from causal.core.gram import Array
from causal.core.inference import critical_value
from causal.quasi.synthetic.did_errors import replicate
from causal.quasi.synthetic.did_weights import Rule
from causal.quasi.synthetic.donor_fit import FitRule, Task, demeaned_fit, outcome_fit
from causal.quasi.synthetic.placebo import Average, average, permutation_test
from causal.quasi.synthetic.staggered_blocks import Design, fit_all

pytestmark = pytest.mark.slow

N_DONORS, N_PERIODS, N_PRE = 19, 30, 20
EFFECT = 2.0


def band(n: int, share: float, *, certainty: float = 0.999) -> tuple[float, float]:
    low, high = stats.binom.interval(certainty, n, share)
    return low / n, high / n


def make_world(rng: np.random.Generator, *, n_treated: int, effect: float) -> Array:
    """Regions in rows, the treated first; a common trend, two factors, level differences."""
    n = N_DONORS + n_treated
    factors = rng.normal(scale=0.7, size=(2, N_PERIODS)).cumsum(axis=1)
    loads = rng.uniform(0.0, 2.0, size=(n, 2))
    trend = 0.3 * np.arange(N_PERIODS)
    values = 20 + trend + loads @ factors + rng.normal(size=(n, N_PERIODS))
    values[:n_treated, N_PRE:] += effect
    return np.asarray(values)


def placebo_pvalue(values: Array, rule: FitRule) -> float:
    rows = np.arange(len(values))

    def fit(row: int, pool: Array) -> Average:
        task = Task(
            values=values, target=row, donors=pool[pool != row], n_pre=N_PRE,
            matched=np.arange(N_PRE),
        )  # fmt: skip
        return average([rule(task)])

    placebos = [fit(row, rows[1:]) for row in rows[1:]]
    return permutation_test(fit(0, rows[1:]), placebos, confidence_level=0.95).pvalue


@pytest.mark.parametrize("rule", [outcome_fit, demeaned_fit])
def test_placebos_reject_no_effect_as_often_as_they_say(rule: FitRule) -> None:
    n_worlds = 200
    check_size(rule, n_worlds=n_worlds, seed=11)


@pytest.mark.validation
@pytest.mark.parametrize("rule", [outcome_fit, demeaned_fit])
def test_placebo_size_in_many_worlds(rule: FitRule) -> None:
    check_size(rule, n_worlds=4_000, seed=12)


def check_size(rule: FitRule, *, n_worlds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pvalues = np.array(
        [placebo_pvalue(make_world(rng, n_treated=1, effect=0.0), rule) for _ in range(n_worlds)]
    )
    for size in (0.05, 0.10, 0.25):
        low, high = band(n_worlds, size)
        assert low <= (pvalues <= size + 1e-12).mean() <= high, size


def covers(
    values: Array, *, n_treated: int, kind: str, n_replications: int = 60, seed: int = 0
) -> tuple[float, bool]:
    starts = np.array([N_PRE] * n_treated + [N_PERIODS] * N_DONORS)
    design = Design(values=values, starts=starts, covariates=np.zeros((0, *values.shape)))
    rule = Rule()
    fitted = fit_all(design, rule)
    found = replicate(design, rule, fitted, kind=kind, n_replications=n_replications, seed=seed)
    half = critical_value(0.95) * found.std_error
    return fitted.effect, abs(fitted.effect - EFFECT) <= half


@pytest.mark.parametrize(
    ("kind", "n_treated", "n_worlds", "lowest"),
    [("placebo", 1, 300, 0.88), ("jackknife", 5, 300, 0.84), ("bootstrap", 5, 60, 0.80)],
)
def test_sdid_is_unbiased_and_its_intervals_cover(
    kind: str, n_treated: int, n_worlds: int, lowest: float
) -> None:
    check_coverage(kind, n_treated=n_treated, n_worlds=n_worlds, lowest=lowest, seed=21)


@pytest.mark.validation
@pytest.mark.parametrize(
    ("kind", "n_treated", "lowest"),
    [("placebo", 1, 0.90), ("jackknife", 5, 0.86), ("bootstrap", 5, 0.84)],
)
def test_sdid_coverage_in_many_worlds(kind: str, n_treated: int, lowest: float) -> None:
    check_coverage(kind, n_treated=n_treated, n_worlds=1_500, lowest=lowest, seed=22)


def check_coverage(kind: str, *, n_treated: int, n_worlds: int, lowest: float, seed: int) -> None:
    """Normal intervals from few regions cover less than they say: five treated ones, about 0.89."""
    rng = np.random.default_rng(seed)
    worlds = [make_world(rng, n_treated=n_treated, effect=EFFECT) for _ in range(n_worlds)]
    found = [covers(world, n_treated=n_treated, kind=kind) for world in worlds]
    effects = np.array([effect for effect, _ in found])
    naive = np.array(
        [world[:n_treated, N_PRE:].mean() - world[:n_treated, :N_PRE].mean() for world in worlds]
    )
    coverage = float(np.mean([is_covered for _, is_covered in found]))

    print(f"{kind}: coverage {coverage:.3f}, rmse {np.sqrt(((effects - EFFECT) ** 2).mean()):.3f}")  # noqa: T201
    assert abs(effects.mean() - EFFECT) < 4 * effects.std() / np.sqrt(n_worlds)
    assert abs(naive.mean() - EFFECT) > 3 * abs(effects.mean() - EFFECT)
    assert lowest <= coverage <= 0.995
