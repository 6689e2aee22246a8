"""What a geo experiment returned: incremental outcome per unit spent, return on it, profit.

Incremental ROAS = incremental outcome / incremental spend (Kerman, Wang and Vaver 2017); return on
the spend = margin x ROAS - 1. Where the effect has a normal (or t) interval, spend and margin may
be uncertain too, and `causal.experiments.roi` integrates them out. The interval of a rank test has
no such distribution behind it: its ends are carried over, which is exact for a known spend and
margin.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from pydantic import Field, model_validator

from causal.core.errors import InferenceError, SpecError
from causal.core.inference import critical_value
from causal.core.readout import Readout
from causal.core.result import Effect
from causal.core.spec import Part
from causal.experiments.roi import Economics, Roi, roi

_ROUNDING = 1e-6


class Spend(Part):
    """What the treatment cost beyond what would have been spent, in one currency.

    Attributes:
        spend: Incremental spend on all treated regions and periods.
        spend_std_error: Its standard error; 0: known.
        margin: Profit per unit of the outcome: 1 when the outcome is profit, 0.3 when 30 % of
            revenue stay.
        margin_std_error: Its standard error; 0: known.
        outcome: The outcome that is paid for, where the analysis has several.
    """

    spend: float = Field(gt=0)
    spend_std_error: float = Field(default=0.0, ge=0)
    margin: float = Field(default=1.0, gt=0)
    margin_std_error: float = Field(default=0.0, ge=0)
    outcome: str | None = None

    @model_validator(mode="after")
    def _uncertainty_has_a_centre(self) -> "Spend":
        if self.margin_std_error > self.margin / 2:
            raise ValueError("margin_std_error leaves the sign of the margin open")
        return self

    @property
    def is_known(self) -> bool:
        """Whether neither spend nor margin is uncertain."""
        return self.spend_std_error == 0 and self.margin_std_error == 0

    def economics(self, *, margin: float, margin_std_error: float, units: float) -> Economics:
        """The spend as the cost of a single unit and period, whose effect comes `units` times."""
        return Economics(
            margin=margin,
            margin_std_error=margin_std_error,
            eligible_units=units,
            periods_per_year=1.0,
            cost_per_treated_unit=self.spend / units,
            cost_std_error=self.spend_std_error / units,
        )


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number with its interval; ends may be infinite."""

    estimate: float
    ci_lower: float
    ci_upper: float


@dataclass(frozen=True, kw_only=True)
class Returns:
    """What came back.

    Attributes:
        incremental: Incremental outcome over all treated regions and periods.
        roas: Incremental outcome per unit of spend.
        roi: Profit per unit of spend.
        profit: Margin x incremental outcome - spend.
        cost_per_unit: Spend per unit of incremental outcome; `None` unless there is some.
        prob_profit: P(profit > 0), where the effect has a distribution.
    """

    incremental: Quantity
    roas: Quantity
    roi: Quantity
    profit: Quantity
    cost_per_unit: float | None
    prob_profit: float | None


def returns(effect: Effect, spend: Spend, *, units: float = 1.0) -> Returns:
    """Incremental ROAS, return and profit of an effect.

    Args:
        effect: An effect on the absolute scale: `cumulative` of a geo analysis, or another one
            that is multiplied by `units`.
        spend: What it cost.
        units: Region-periods (or others) to which the effect applies.

    Raises:
        SpecError: The effect is relative; or spend or margin are uncertain where the effect's
            interval is that of a rank test.
        InferenceError: The effect is no number, or the spend may be negative.

    Example:
        >>> from causal.core.inference import effect
        >>> found = returns(
        ...     effect(
        ...         estimator="sdid",
        ...         estimand="att",
        ...         metric="sales",
        ...         term="cumulative",
        ...         estimate=3000.0,
        ...         std_error=500.0,
        ...         confidence_level=0.95,
        ...         n_treated=3,
        ...         n_control=40,
        ...     ),
        ...     Spend(spend=1000.0, margin=0.4),
        ... )
        >>> (
        ...     round(found.roas.estimate, 2),
        ...     round(found.roas.ci_lower, 2),
        ...     round(found.roi.estimate, 2),
        ... )
        (3.0, 2.02, 0.2)
    """
    if effect.scale != "absolute":
        raise SpecError(
            "a return needs an effect in the outcome's unit",
            given=f"{effect.metric} on the {effect.scale} scale", allowed="the absolute scale",
        )  # fmt: skip
    if not (math.isfinite(effect.estimate) and units > 0):
        raise InferenceError("a return needs a finite effect", given=f"{effect.estimate} x {units}")
    total = _times(effect, units)
    if _has_distribution(effect):
        return _with_distribution(effect, spend, total, units=units)
    if not spend.is_known:
        raise SpecError(
            f"the interval of {effect.estimator} comes from a rank test, which an uncertain spend "
            "or margin does not combine with",
            allowed="spend_std_error: 0 and margin_std_error: 0, or method synthetic_did",
        )
    roas = _line(total, slope=1 / spend.spend, constant=0.0)
    return Returns(
        incremental=total,
        roas=roas,
        roi=_line(roas, slope=spend.margin, constant=-1.0),
        profit=_line(total, slope=spend.margin, constant=-spend.spend),
        cost_per_unit=_cost(total, spend),
        prob_profit=None,
    )


def returns_table(found: Returns) -> pd.DataFrame:
    """The quantities in rows: quantity, estimate, ci_lower, ci_upper."""
    rows: list[tuple[str, float, float, float]] = [
        (name, item.estimate, item.ci_lower, item.ci_upper)
        for name, item in (
            ("incremental", found.incremental), ("iroas", found.roas), ("roi", found.roi),
            ("profit", found.profit),
        )
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["quantity", "estimate", "ci_lower", "ci_upper"])


def with_returns(readout: Readout, spend: Spend | None, *, outcome: str) -> Readout:
    """The readout of an outcome with the table `returns`, if that outcome is paid for."""
    if spend is None or spend.outcome not in {None, outcome}:
        return readout
    found = returns(_cumulative(readout.effects), spend)
    table = returns_table(found).assign(metric=outcome)
    table = table[["metric", *[name for name in table.columns if name != "metric"]]]
    params = {
        "iroas": found.roas.estimate,
        "iroas_lower": found.roas.ci_lower,
        "iroas_upper": found.roas.ci_upper,
        "roi": found.roi.estimate,
    }
    return replace(
        readout,
        tables={**readout.tables, "returns": table},
        params={**readout.params, **params},
    )


def _cumulative(effects: Sequence[Effect]) -> Effect:
    return next(item for item in effects if item.term == "cumulative" and item.scale == "absolute")


def _with_distribution(effect: Effect, spend: Spend, total: Quantity, *, units: float) -> Returns:
    as_sold = spend.economics(margin=1.0, margin_std_error=0.0, units=units)
    earned = spend.economics(
        margin=spend.margin, margin_std_error=spend.margin_std_error, units=units
    )
    level = effect.confidence_level
    sold, found = (roi(effect, item, confidence_level=level) for item in (as_sold, earned))
    profit = found.profit_per_year
    return Returns(
        incremental=total,
        roas=_line(_on_cost(sold), slope=1.0, constant=1.0),
        roi=_on_cost(found),
        profit=Quantity(
            estimate=profit.mean, ci_lower=profit.ci_lower, ci_upper=profit.ci_upper
        ),
        cost_per_unit=_cost(total, spend),
        prob_profit=found.prob_positive,
    )  # fmt: skip


def _on_cost(found: Roi) -> Quantity:
    values = (found.return_on_cost, found.return_on_cost_lower, found.return_on_cost_upper)
    estimate, lower, upper = (math.nan if value is None else value for value in values)
    return Quantity(estimate=estimate, ci_lower=lower, ci_upper=upper)


def _has_distribution(effect: Effect) -> bool:
    """Whether the interval is the estimate plus and minus its standard errors."""
    half = critical_value(effect.confidence_level, df=effect.df) * effect.std_error
    return all(
        math.isclose(end, effect.estimate + sign * half, abs_tol=_ROUNDING * half)
        for sign, end in ((-1, effect.ci_lower), (1, effect.ci_upper))
    )


def _times(effect: Effect, units: float) -> Quantity:
    return Quantity(
        estimate=units * effect.estimate,
        ci_lower=units * effect.ci_lower,
        ci_upper=units * effect.ci_upper,
    )


def _line(item: Quantity, *, slope: float, constant: float) -> Quantity:
    """A rising line of a quantity, its ends with it."""
    return Quantity(
        estimate=slope * item.estimate + constant,
        ci_lower=slope * item.ci_lower + constant,
        ci_upper=slope * item.ci_upper + constant,
    )


def _cost(total: Quantity, spend: Spend) -> float | None:
    return spend.spend / total.estimate if total.estimate > 0 else None
