"""The always-valid test of arms' unit counts."""

import doctest

import numpy as np
import pytest
from scipy import stats

from causal.core.errors import DataError, SpecError
from causal.experiments import sequential_srm
from causal.experiments.sequential_srm import log_bayes_factor, sequential_ratio

COUNTS = {"control": [480, 5000, 50000], "treatment": [505, 5100, 51600]}


def test_the_example_runs() -> None:
    found = doctest.testmod(sequential_srm)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_bayes_factor_is_the_ratio_of_two_likelihoods() -> None:
    """Dirichlet-multinomial over multinomial, as scipy gives both."""
    shares = np.array([0.5, 0.3, 0.2])
    counts = np.array([40, 45, 15])
    found = log_bayes_factor(counts.astype(float), shares, concentration=20.0)
    alternative = stats.dirichlet_multinomial(20.0 * shares, 100).logpmf(counts)
    null = stats.multinomial(100, shares).logpmf(counts)
    assert found == pytest.approx(alternative - null, rel=1e-10)


def test_it_is_a_martingale_step_by_step() -> None:
    """Under the plan the expected factor after one more unit is the factor now."""
    shares = np.array([0.6, 0.4])
    now = np.array([13.0, 4.0])
    after = np.exp(log_bayes_factor(now + np.eye(2), shares, concentration=7.0))
    before = np.exp(log_bayes_factor(now, shares, concentration=7.0))
    assert float(shares @ after) == pytest.approx(float(before), rel=1e-12)


def test_pvalues_never_rise_and_alarms_are_kept() -> None:
    found = sequential_ratio(COUNTS, shares=(0.5, 0.5), alpha=0.001)
    assert found.first_alarm == 3
    assert (np.diff(found.pvalues) <= 0).all()
    frame = found.to_frame()
    assert frame["n_treatment"].tolist() == COUNTS["treatment"]
    assert frame["is_alarm"].tolist() == [False, False, True]
    assert found.diagnostic().passed is False
    assert "since look 3" in found.diagnostic().detail
    healed = {name: [*looks, 500_000] for name, looks in COUNTS.items()}
    again = sequential_ratio(healed, shares=(0.5, 0.5), alpha=0.001)
    assert again.log_evalues[-1] < again.log_evalues[-2]
    assert again.diagnostic().passed is False


def test_an_even_split_passes() -> None:
    found = sequential_ratio({0: [100, 990], 1: [95, 1010]}, shares=(0.5, 0.5), alpha=0.01)
    assert found.first_alarm is None
    assert found.diagnostic().passed is True
    assert found.pvalues.tolist() == pytest.approx([1.0, 1.0], abs=0.2)


@pytest.mark.parametrize(
    ("counts", "shares", "concentration", "error"),
    [
        ({"a": [5, 4], "b": [5, 6]}, (0.5, 0.5), 10.0, DataError),
        ({"a": [5, 7], "b": [5]}, (0.5, 0.5), 10.0, DataError),
        ({"a": [], "b": []}, (0.5, 0.5), 10.0, DataError),
        ({"a": [5], "b": [5]}, (0.5, 0.6), 10.0, SpecError),
        ({"a": [5], "b": [5]}, (1.0, 0.0), 10.0, SpecError),
        ({"a": [5], "b": [5]}, (1.0,), 10.0, SpecError),
        ({"a": [5]}, (1.0,), 10.0, SpecError),
        ({"a": [5], "b": [5]}, (0.5, 0.5), 0.0, SpecError),
    ],
)
def test_counts_and_shares_that_make_no_sense_are_refused(
    *,
    counts: dict[str, list[int]],
    shares: tuple[float, ...],
    concentration: float,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        sequential_ratio(counts, shares=shares, alpha=0.01, concentration=concentration)
