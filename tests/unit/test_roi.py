"""Profit of a rollout: closed forms, exact integrals, and what is refused."""

import doctest
import math

import numpy as np
import pytest
from scipy import integrate, stats

from causal.core.errors import InferenceError, SpecError
from causal.core.inference import effect
from causal.core.result import Effect, Scale
from causal.core.spec import validate
from causal.experiments import roi as module
from causal.experiments.roi import Economics, Roi, roi

KNOWN = {"margin": 0.4, "eligible_units": 1e5, "periods_per_year": 12, "cost_per_treated_unit": 0.3}


def lift(
    estimate: float = 0.9, std_error: float = 0.2, *, df: float | None = None,
    scale: Scale = "absolute",
) -> Effect:  # fmt: skip
    return effect(
        estimator="welch", estimand="itt", metric="revenue", term="perk - control", scale=scale,
        estimate=estimate, std_error=std_error, confidence_level=0.95, n_treated=500,
        n_control=500, df=df,
    )  # fmt: skip


def found(found_effect: Effect | None = None, **changes: float) -> Roi:
    return roi(found_effect or lift(), validate(Economics, KNOWN | changes))


def test_by_hand() -> None:
    readout = found()
    assert readout.gain_per_year == pytest.approx(1.2e6 * 0.9 * 0.4)
    assert readout.cost_per_year == pytest.approx(1.2e6 * 0.3)
    profit = readout.profit_per_year
    assert profit.mean == pytest.approx(72_000)
    assert profit.sd == pytest.approx(1.2e6 * 0.4 * 0.2)
    assert profit.ci_lower == pytest.approx(72_000 - 1.959964 * 96_000, abs=1)
    assert readout.prob_positive == pytest.approx(stats.norm.cdf(0.75))
    assert readout.break_even_effect == pytest.approx(0.75)
    assert readout.break_even_cost == pytest.approx(0.36)
    assert readout.return_on_cost == pytest.approx(0.2)
    half = 1.959963985 * 96_000 / 360_000
    interval = (readout.return_on_cost_lower, readout.return_on_cost_upper)
    assert interval == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)


def test_uptake_and_one_off_cost() -> None:
    readout = found(uptake=0.5, one_off_cost=90_000, horizon_years=3)
    assert readout.cost_per_year == pytest.approx(180_000 + 30_000)
    assert readout.profit_per_year.mean == pytest.approx(432_000 - 210_000)
    assert readout.profit_over_horizon == pytest.approx(3 * 222_000)
    assert readout.profit_over_horizon_upper == pytest.approx(3 * readout.profit_per_year.ci_upper)
    assert readout.break_even_effect == pytest.approx(210_000 / (1.2e6 * 0.4))
    assert readout.break_even_cost == pytest.approx((432_000 - 30_000) / (1.2e6 * 0.5))


@pytest.mark.parametrize("changes", [{}, {"uptake": 0.3, "one_off_cost": 5e4, "horizon_years": 2}])
def test_break_even_is_where_the_profit_is_zero(changes: dict[str, float]) -> None:
    at = found(**changes).break_even_effect
    readout = found(lift(at), **changes)
    assert readout.profit_per_year.mean == pytest.approx(0, abs=1e-6)
    assert readout.prob_positive == pytest.approx(0.5)
    assert readout.return_on_cost == pytest.approx(0, abs=1e-12)
    dear = found(**changes | {"cost_per_treated_unit": found(**changes).break_even_cost})
    assert dear.profit_per_year.mean == pytest.approx(0, abs=1e-6)


def test_few_degrees_of_freedom() -> None:
    readout = found(lift(df=5))
    assert readout.prob_positive == pytest.approx(stats.t.cdf(0.75, 5))
    half = stats.t.ppf(0.975, 5) * 96_000
    assert readout.profit_per_year.ci_upper == pytest.approx(72_000 + half)
    spread = found(lift(df=5), cost_std_error=1e-9)
    assert spread.prob_positive == pytest.approx(readout.prob_positive, abs=1e-7)


@pytest.mark.parametrize(
    ("std_error", "margin_std_error"), [(0.2, 0.05), (0.001, 0.08), (0.3, 0.2)]
)
def test_uncertain_margin_and_cost_are_integrated_out(
    std_error: float, margin_std_error: float
) -> None:
    readout = found(lift(0.9, std_error), margin_std_error=margin_std_error, cost_std_error=0.02)
    scale = 1.2e6

    def profit_is_positive(margin: float) -> float:
        spread = math.hypot(margin * std_error, 0.02)
        chance = stats.norm.cdf((margin * 0.9 - 0.3) / spread)
        return float(chance * stats.norm.pdf(margin, 0.4, margin_std_error))

    reach = 8.5 * margin_std_error
    expected = integrate.quad(
        profit_is_positive, 0.4 - reach, 0.4 + reach, epsabs=1e-12, limit=400, points=[1 / 3]
    )[0]
    assert readout.prob_positive == pytest.approx(expected, abs=1e-9)
    variance = (
        0.9**2 * margin_std_error**2 + 0.4**2 * std_error**2
        + std_error**2 * margin_std_error**2 + 0.02**2
    )  # fmt: skip
    assert readout.profit_per_year.sd == pytest.approx(scale * math.sqrt(variance), rel=1e-9)
    assert readout.cost_per_year_std_error == pytest.approx(scale * 0.02)


@pytest.mark.validation
def test_intervals_agree_with_simulation() -> None:
    economics = {"margin_std_error": 0.05, "cost_std_error": 0.02, "one_off_cost": 1e5}
    readout = found(lift(df=6), **economics)
    rng = np.random.default_rng(5)
    n = 4_000_000
    draws = (0.9 + 0.2 * rng.standard_t(6, n)) * rng.normal(0.4, 0.05, n) * 1.2e6
    cost = 1.2e6 * rng.normal(0.3, 0.02, n) + 1e5
    profit, returns = draws - cost, draws / cost - 1
    error = 4 / math.sqrt(n)
    assert np.mean(profit > 0) == pytest.approx(readout.prob_positive, abs=error)
    assert np.mean(profit < readout.profit_per_year.ci_lower) == pytest.approx(0.025, abs=error)
    assert np.mean(profit > readout.profit_per_year.ci_upper) == pytest.approx(0.025, abs=error)
    assert np.mean(returns < readout.return_on_cost_lower) == pytest.approx(0.025, abs=error)
    assert np.mean(returns > readout.return_on_cost_upper) == pytest.approx(0.025, abs=error)


def test_nothing_spent_has_no_return_on_cost() -> None:
    readout = found(cost_per_treated_unit=0.0)
    assert readout.return_on_cost is readout.return_on_cost_lower is readout.return_on_cost_upper
    assert readout.return_on_cost is None
    assert readout.break_even_effect == 0.0


def test_a_sure_profit_makes_the_rollout_free_of_loss() -> None:
    profit = found(lift(5.0, 0.01)).profit_per_year
    assert profit.loss_treatment == pytest.approx(0, abs=1e-9)
    assert profit.loss_control == pytest.approx(profit.mean)


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(SpecError, match="the absolute scale"):
        found(lift(scale="relative"))
    with pytest.raises(InferenceError, match="it may be negative"):
        found(cost_std_error=0.2)
    for changes, message in (
        ({"cost_per_treated_unit": 0.0, "cost_std_error": 0.1}, "needs cost_per_treated_unit"),
        ({"margin_std_error": 0.3}, "leaves the sign of the margin open"),
        ({"eligible_units": 0}, "eligible_units"),
        ({"uptake": 1.5}, "uptake"),
        ({"horizon": 2}, "did you mean 'horizon_years'"),
    ):
        with pytest.raises(SpecError, match=message):
            found(**changes)


def test_the_example_runs() -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
