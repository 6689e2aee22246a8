"""Options that every regression on a table shares: its columns, its rows and its errors."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.regression.columns import Categories, ColumnName, Interaction
from causal.regression.error_options import ErrorOptions


class RegressionOptions(ErrorOptions):
    """What `ols` and `iv` have in common, beside the options about errors.

    Attributes:
        outcome: The outcome column, or a list of them: one regression for each.
        categorical: Categorical regressors and their reference levels; null: the first level in
            order.
        interactions: Products of regressors, each a list of two to four columns that stand among
            the regressors as well; `[age, age]` is a square.
        intercept: Whether the model has one.
        absorb: Column whose fixed effects are swept out.
        weight: Column of row weights (inverse variances or sampling weights, not counts of rows).
        unit: Column or columns that identify a row; given, a repeated value is an error.
        collinear: What happens to columns that the others explain: `refuse` or `drop`.
    """

    outcome: ColumnName | Annotated[list[ColumnName], Field(min_length=1)]
    categorical: Categories = Field(default_factory=dict)
    interactions: list[Interaction] = Field(default_factory=list)
    intercept: bool = True
    absorb: ColumnName | None = None
    weight: ColumnName | None = None
    unit: ColumnName | Annotated[list[ColumnName], Field(min_length=1)] | None = None
    collinear: Literal["refuse", "drop"] = "refuse"

    @model_validator(mode="after")
    def _outcomes_differ(self) -> "RegressionOptions":
        names = [*self.outcomes, *([self.weight] if self.weight is not None else [])]
        if len(set(names)) < len(names):
            raise ValueError("outcomes and weight must be different columns")
        return self

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcome columns."""
        return (self.outcome,) if isinstance(self.outcome, str) else tuple(self.outcome)

    @property
    def units(self) -> tuple[str, ...]:
        """The columns that identify a row."""
        if self.unit is None:
            return ()
        return (self.unit,) if isinstance(self.unit, str) else tuple(self.unit)

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """Numeric regressors that are their own instruments."""
        raise NotImplementedError

    @property
    def has_constant(self) -> bool:
        """Whether the model has an intercept or effects that stand for one."""
        return self.intercept or self.absorb is not None
