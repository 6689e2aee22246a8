"""What a spec of the job `clv` may say: a log of purchases, and what its customers are worth."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.clv.lifetime_value import Horizon
from causal.core.spec import COLUMN_PATTERN, Part, Source, Spec

ColumnName = Annotated[str, Field(pattern=COLUMN_PATTERN)]


class Units(Source):
    """A table with one row per unit, which says since when it could have bought.

    Attributes:
        born: Column of the day (or time) from which a unit is watched, such as its registration.
    """

    born: ColumnName


class LogOptions(Part):
    """A log with one row per transaction.

    Attributes:
        unit: Column of the customer; in `units` too.
        time: Column of the day or time of a transaction.
        amount: Column of its amount in money.
        units: Since when each customer is watched; without it, since the first purchase, which then
            does not count as a repeat.
        until: First day of which nothing is read.
    """

    unit: ColumnName
    time: ColumnName
    amount: ColumnName | None = None
    units: Units | None = None
    until: dt.date


class ValueHorizon(Part):
    """How far ahead value counts.

    Attributes:
        periods: How many periods.
        period_days: Length of one, in days.
        discount_rate: Rate per period; what a period brings counts 1 / (1 + rate)^k.
    """

    periods: int = Field(default=12, ge=1, le=600, strict=True)
    period_days: float = Field(default=30.0, gt=0)
    discount_rate: float = Field(default=0.0, gt=-1.0)

    def scaled(self, unit_days: float) -> Horizon:
        """The horizon in units of time of so many days."""
        return Horizon(
            n_periods=self.periods,
            period=self.period_days / unit_days,
            discount_rate=self.discount_rate,
        )


class ValueOptions(LogOptions):
    """Which model is fitted on the log, and what is predicted with it.

    Attributes:
        model: `bg_nbd` or `pareto_nbd`.
        purchases: `days`: what a customer buys on one day is one purchase; `transactions`: each
            transaction is one, at its own time.
        unit_days: Days in the unit of time of recency, age and the model's parameters.
        cell_days: Recency and age are grouped by so many days into cells that hold their means; by
            default exact for `days`, 1 for `transactions`.
        holdout_days: The model is first fitted without the last so many days, which it then
            predicts; 0: it is not checked in this way.
        horizon: How far ahead value counts.
    """

    model: Literal["bg_nbd", "pareto_nbd"] = "bg_nbd"
    purchases: Literal["days", "transactions"] = "days"
    unit_days: float = Field(default=1.0, gt=0)
    cell_days: float | None = Field(default=None, gt=0)
    holdout_days: int = Field(default=0, ge=0, strict=True)
    horizon: ValueHorizon = Field(default_factory=ValueHorizon)

    @model_validator(mode="after")
    def _columns_differ(self) -> "ValueOptions":
        named = [self.unit, self.time, *([] if self.amount is None else [self.amount])]
        if len(set(named)) < len(named):
            raise ValueError("unit, time and amount are three columns")
        return self

    @property
    def grid_days(self) -> float | None:
        """Width of the cells in days; `None`: exact."""
        if self.cell_days is None and self.purchases == "transactions":
            return 1.0
        return self.cell_days


class ValueSpec(Spec):
    """A customer base whose future is predicted from a log of purchases."""

    method: Literal["clv"]
    options: ValueOptions


SPEC = ValueSpec
