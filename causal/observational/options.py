"""Options that weighting and matching share: who is treated, what is measured, what is adjusted."""

from typing import Annotated

from pydantic import Field, model_validator

from causal.core.frames import Level, same_level
from causal.core.spec import Part
from causal.regression.columns import Categories, ColumnName, Interaction, check_design


class StudyOptions(Part):
    """An observational study of one treatment.

    Attributes:
        outcome: The outcome column, or a list of them.
        treatment: Column of the treatment.
        treated: Its level that is the treatment.
        control: Its level that is compared with; rows with other levels are left out and counted.
        covariates: Numeric or boolean columns to adjust for.
        categorical: Categorical columns to adjust for, and their reference levels; null: the first
            level in order.
        interactions: Products of the columns above, each a list of two to four; `[age, age]` is a
            square.
        unit: Column or columns that identify a row; given, a repeated value is an error.
    """

    outcome: ColumnName | Annotated[list[ColumnName], Field(min_length=1)]
    treatment: ColumnName
    treated: Level = 1
    control: Level = 0
    covariates: list[ColumnName] = Field(default_factory=list)
    categorical: Categories = Field(default_factory=dict)
    interactions: list[Interaction] = Field(default_factory=list)
    unit: ColumnName | Annotated[list[ColumnName], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _roles_differ(self) -> "StudyOptions":
        check_design(self.covariates, self.categorical, self.interactions)
        adjusted = [*self.covariates, *self.categorical]
        if not adjusted:
            raise ValueError("name covariates or categorical columns to adjust for")
        named = [*self.outcomes, self.treatment]
        clash = sorted({name for name in named if name in adjusted or named.count(name) > 1})
        if clash:
            raise ValueError(f"column used in two roles: {', '.join(clash)}")
        if same_level(self.treated, self.control):
            raise ValueError(f"treated and control are both {self.control}")
        return self

    @property
    def estimators(self) -> tuple[str, ...]:
        """The estimators that were asked for, as effects name them; empty where there is one."""
        return ()

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
