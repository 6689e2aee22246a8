"""Return on a treatment: profit per year with its interval, break-even effect, chance of a profit.

Profit per year = eligible units x periods per year x (effect x margin - uptake x cost per treated
unit) - one-off cost / horizon. Effect, margin and cost are independent; the effect is per eligible
unit and period and is taken to last, undiminished, for the horizon. What is uncertain is integrated
out exactly: given the margin (and the unknown variance of an effect with few degrees of freedom)
profit is normal, so its posterior is a mixture of normals.
"""

import math
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from causal.core.errors import InferenceError, SpecError
from causal.core.gram import Array
from causal.core.result import Effect
from causal.core.spec import Part
from causal.experiments.bayes import (
    NormalMixture,
    Posterior,
    PosteriorSummary,
    chi_square_nodes,
    solve_quantile,
    student_posterior,
    summarise,
)

_NEGLIGIBLE = 1e-6
"""Probability of a cost below zero up to which a return on it has a meaning."""

_MARGIN_REACH = 8.5
_N_MARGINS = 1001
"""Points over 8.5 standard errors to either side: the trapezoidal rule, exact for normals."""


class Economics(Part):
    """What a unit of effect is worth and what the treatment costs, in one currency.

    Attributes:
        margin: Profit per unit of the metric: 1 when the metric is profit, 0.3 when 30 % of
            revenue stay, 2.50 when each order earns as much.
        margin_std_error: Its standard error; 0: known.
        eligible_units: Units that would be treated after a rollout.
        cost_per_treated_unit: Cost of treating one unit for one period, such as a perk.
        cost_std_error: Its standard error; 0: known.
        uptake: Share of the eligible units that take the treatment up and so cost something.
        one_off_cost: Cost of building and launching, spread evenly over the horizon.
        periods_per_year: Periods of the effect and of the cost in a year: 12 for months.
        horizon_years: For how long the effect is believed to last.
    """

    margin: float = Field(default=1.0, gt=0)
    margin_std_error: float = Field(default=0.0, ge=0)
    eligible_units: float = Field(gt=0)
    cost_per_treated_unit: float = Field(default=0.0, ge=0)
    cost_std_error: float = Field(default=0.0, ge=0)
    uptake: float = Field(default=1.0, gt=0, le=1)
    one_off_cost: float = Field(default=0.0, ge=0)
    periods_per_year: float = Field(gt=0)
    horizon_years: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _uncertainty_has_a_centre(self) -> "Economics":
        if self.cost_std_error > 0 and self.cost_per_treated_unit == 0:
            raise ValueError("cost_std_error needs cost_per_treated_unit")
        if self.margin_std_error > self.margin / 2:
            raise ValueError("margin_std_error leaves the sign of the margin open")
        return self

    @property
    def unit_periods(self) -> float:
        """Unit-periods in a year."""
        return self.eligible_units * self.periods_per_year

    @property
    def cost_per_year(self) -> float:
        """Expected cost in a year, the one-off cost spread over the horizon."""
        return self._running_cost + self.one_off_cost / self.horizon_years

    @property
    def cost_per_year_std_error(self) -> float:
        """Its standard error."""
        return self.unit_periods * self.uptake * self.cost_std_error

    @property
    def _running_cost(self) -> float:
        return self.unit_periods * self.uptake * self.cost_per_treated_unit

    @property
    def break_even_effect(self) -> float:
        """Effect per unit and period at which profit is zero, at the expected margin and cost."""
        return self.cost_per_year / (self.unit_periods * self.margin)


@dataclass(frozen=True, kw_only=True)
class Roi:
    """What a rollout earns. Amounts are per year unless they say otherwise.

    Attributes:
        effect: Effect per eligible unit and period.
        gain_per_year: Expected gain before cost.
        gain_per_year_std_error: Its posterior standard deviation.
        cost_per_year: Expected cost, the one-off cost spread over the horizon.
        cost_per_year_std_error: Its standard error.
        profit_per_year: Posterior of gain less cost: mean, intervals, P(profit > 0) as
            `prob_positive`, and the expected losses of rolling out and of not.
        profit_over_horizon: Expected profit over the whole horizon.
        profit_over_horizon_lower: Lower end of its interval.
        profit_over_horizon_upper: Upper end of its interval.
        break_even_effect: Effect per unit and period at which the expected profit is zero.
        break_even_cost: Running cost per treated unit and period at which it is zero; negative
            when the gain does not even pay the one-off cost.
        return_on_cost: Profit per unit of cost; `None` when nothing is spent.
        return_on_cost_lower: Lower end of its interval.
        return_on_cost_upper: Upper end of its interval.
        prob_positive: P(profit > 0).
        posterior: The posterior of the profit per year.
    """

    effect: Effect
    gain_per_year: float
    gain_per_year_std_error: float
    cost_per_year: float
    cost_per_year_std_error: float
    profit_per_year: PosteriorSummary
    profit_over_horizon: float
    profit_over_horizon_lower: float
    profit_over_horizon_upper: float
    break_even_effect: float
    break_even_cost: float
    return_on_cost: float | None
    return_on_cost_lower: float | None
    return_on_cost_upper: float | None
    prob_positive: float
    posterior: Posterior


def roi(effect: Effect, economics: Economics, *, confidence_level: float = 0.95) -> Roi:
    """Profit of rolling a treatment out.

    Args:
        effect: Effect of any method on the absolute scale, per eligible unit and period.
        economics: Worth and cost.
        confidence_level: Probability of the intervals.

    Raises:
        SpecError: The effect is relative.
        InferenceError: The estimate or its error is not a number, or the cost may be negative.

    Example:
        >>> from causal.core.inference import effect
        >>> found = roi(
        ...     effect(
        ...         estimator="welch",
        ...         estimand="ate",
        ...         metric="profit",
        ...         term="perk - control",
        ...         estimate=0.5,
        ...         std_error=0.1,
        ...         confidence_level=0.95,
        ...         n_treated=5000,
        ...         n_control=5000,
        ...     ),
        ...     Economics(eligible_units=1000, periods_per_year=12, cost_per_treated_unit=0.3),
        ... )
        >>> round(found.profit_per_year.mean), round(found.profit_per_year.sd)
        (2400, 1200)
    """
    if effect.scale != "absolute":
        raise SpecError(
            "profit needs an effect in the metric's unit",
            given=f"{effect.metric} on the {effect.scale} scale",
            allowed="the absolute scale",
        )
    if not (math.isfinite(effect.estimate) and effect.std_error > 0):
        raise InferenceError(
            "profit needs a finite estimate and a positive standard error",
            given=f"estimate {effect.estimate}, standard error {effect.std_error}",
        )
    gain = _net(effect, economics, cost_weight=0.0)
    posterior = _net(effect, economics, cost_weight=1.0)
    profit = summarise(posterior, confidence_level=confidence_level)
    lower, upper = _return_interval(effect, economics, confidence_level=confidence_level)
    years, spent = economics.horizon_years, economics.cost_per_year
    treated_periods = economics.unit_periods * economics.uptake
    return Roi(
        effect=effect,
        gain_per_year=gain.mean,
        gain_per_year_std_error=gain.sd,
        cost_per_year=spent,
        cost_per_year_std_error=economics.cost_per_year_std_error,
        profit_per_year=profit,
        profit_over_horizon=profit.mean * years,
        profit_over_horizon_lower=profit.ci_lower * years,
        profit_over_horizon_upper=profit.ci_upper * years,
        break_even_effect=economics.break_even_effect,
        break_even_cost=(gain.mean - economics.one_off_cost / years) / treated_periods,
        return_on_cost=gain.mean / spent - 1 if spent > 0 else None,
        return_on_cost_lower=lower,
        return_on_cost_upper=upper,
        prob_positive=profit.prob_positive,
        posterior=posterior,
    )


def _net(effect: Effect, economics: Economics, *, cost_weight: float) -> Posterior:
    """Posterior of gain less `cost_weight` times cost, per year.

    A gain g and a cost k have (g - (1 + r) k > 0) exactly when the return on cost is above r, so
    the same function serves profit (weight 1) and the interval of the return.
    """
    from_cost = cost_weight * economics.cost_per_year_std_error
    margins, margin_weights = _margins(economics)
    worth = economics.unit_periods * margins
    means = worth * effect.estimate - cost_weight * economics.cost_per_year
    if len(margins) == 1 and from_cost == 0:
        std_error = float(worth[0] * effect.std_error)
        df = math.inf if effect.df is None else effect.df
        return student_posterior(float(means[0]), std_error=std_error, df=df)
    scales, variance_weights = _effect_scales(effect)
    sds = np.hypot(np.abs(worth)[:, None] * scales * effect.std_error, from_cost)
    return NormalMixture(
        weights=np.outer(margin_weights, variance_weights).ravel(),
        means=np.repeat(means, len(scales)),
        # A margin of exactly zero has a certain gain of zero.
        sds=np.maximum(sds.ravel(), np.finfo(np.float64).tiny),
    )


def _effect_scales(effect: Effect) -> tuple[Array, Array]:
    """Factors of the standard error and their weights: one, or the mixture that makes a t."""
    if effect.df is None or math.isinf(effect.df):
        return np.ones(1), np.ones(1)
    precisions, weights = chi_square_nodes(effect.df)
    return 1 / np.sqrt(precisions), weights


def _margins(economics: Economics) -> tuple[Array, Array]:
    """Values of the margin and their weights, dense enough for an effect without any error."""
    if economics.margin_std_error == 0:
        return np.array([economics.margin]), np.ones(1)
    steps = np.linspace(-_MARGIN_REACH, _MARGIN_REACH, _N_MARGINS)
    weights = np.exp(-0.5 * steps**2)
    return economics.margin + economics.margin_std_error * steps, weights / weights.sum()


def _return_interval(
    effect: Effect, economics: Economics, *, confidence_level: float
) -> tuple[float | None, float | None]:
    """Equal-tailed interval of gain / cost - 1, exact also when the cost is uncertain."""
    from scipy import special

    spent, error = economics.cost_per_year, economics.cost_per_year_std_error
    if spent == 0:
        return None, None
    if error > 0 and special.ndtr(-spent / error) > _NEGLIGIBLE:
        raise InferenceError(
            "the cost is too uncertain for a return on it: it may be negative",
            given=f"{spent:g} with a standard error of {error:g} a year",
            key="cost_std_error",
        )
    found = _Return(effect, economics)
    tail = (1 - confidence_level) / 2
    worth = economics.unit_periods * economics.margin / spent
    start, step = worth * effect.estimate - 1, worth * effect.std_error
    return (
        solve_quantile(found, tail, start=start, step=step),
        solve_quantile(found, 1 - tail, start=start, step=step),
    )


@dataclass(frozen=True)
class _Return:
    """Distribution of the return on cost."""

    effect: Effect
    economics: Economics

    def cdf(self, x: float) -> float:
        return _net(self.effect, self.economics, cost_weight=1 + x).cdf(0.0)

    def sf(self, x: float) -> float:
        return _net(self.effect, self.economics, cost_weight=1 + x).sf(0.0)
