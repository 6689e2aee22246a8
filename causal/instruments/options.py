"""The options of the method `iv`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.frames import Column, Indicator, Level, Term
from causal.core.spec import Part, Spec
from causal.regression.columns import ColumnName, check_design
from causal.regression.options import RegressionOptions

Reported = Literal["treatment", "covariates", "first_stage", "reduced_form"]


class LevelOf(Part):
    """A 0/1 variable: whether a column holds a level, such as `variant: treatment`.

    Attributes:
        column: The column.
        level: The level.
    """

    column: ColumnName
    level: Level


Variable = ColumnName | LevelOf


class IvOptions(RegressionOptions):
    """Options of an instrumental-variable regression, beside those that all regressions share.

    Attributes:
        treatment: The endogenous regressor or regressors: a numeric or boolean column, or
            `{column, level}` for whether a column holds a level.
        instruments: The excluded instruments, written like treatments; at least as many.
        covariates: Numeric regressors that are their own instruments.
        estimator: `2sls`, `liml` or `fuller` (LIML with finite moments).
        fuller: Fuller's alpha; 1 is nearly unbiased, 4 has the least mean squared error.
        characteristics: Numeric columns of which the means among compliers are wanted; needs one
            0/1 treatment and one 0/1 instrument.
        report: What becomes effects: the coefficients of the `treatment`, of the `covariates`, the
            `first_stage` (treatment on instruments) and the `reduced_form` (outcome on
            instruments). Tables have all of it.
    """

    treatment: Variable | Annotated[list[Variable], Field(min_length=1)]
    instruments: Variable | Annotated[list[Variable], Field(min_length=1)]
    covariates: list[ColumnName] = Field(default_factory=list)
    estimator: Literal["2sls", "liml", "fuller"] = "2sls"
    fuller: float = Field(default=1.0, gt=0)
    characteristics: list[ColumnName] = Field(default_factory=list)
    report: Annotated[tuple[Reported, ...], Field(min_length=1)] = (
        "treatment",
        "first_stage",
        "reduced_form",
    )

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """Numeric regressors that are their own instruments."""
        return tuple(self.covariates)

    @property
    def treatments(self) -> tuple[Variable, ...]:
        """The endogenous regressors."""
        return _listed(self.treatment)

    @property
    def excluded(self) -> tuple[Variable, ...]:
        """The excluded instruments."""
        return _listed(self.instruments)

    @model_validator(mode="after")
    def _columns_go_together(self) -> "IvOptions":
        check_design(self.covariates, self.categorical, self.interactions)
        roles = [
            *self.outcomes, *map(variable_name, self.treatments),
            *map(variable_name, self.excluded), *self.covariates, *self.categorical,
        ]  # fmt: skip
        roles += [str(name) for name in (self.absorb, self.weight) if name is not None]
        repeated = sorted({name for name in roles if roles.count(name) > 1})
        if repeated:
            raise ValueError(f"column used in two roles: {', '.join(repeated)}")
        if len(self.excluded) < len(self.treatments):
            raise ValueError(
                f"{len(self.treatments)} treatments need as many instruments, not "
                f"{len(self.excluded)}"
            )
        return self

    @model_validator(mode="after")
    def _what_the_estimator_takes(self) -> "IvOptions":
        if self.kind in {"HC2", "HC3", "CR2", "CR3"}:
            raise ValueError(
                f"covariance {self.kind} is for least squares; iv takes classical, HC0, HC1, "
                "CR0 or cluster"
            )
        if "fuller" in self.model_fields_set and self.estimator != "fuller":
            raise ValueError("fuller goes with estimator: fuller")
        is_single = len(self.treatments) == 1 and len(self.excluded) == 1
        if self.characteristics and not is_single:
            raise ValueError("characteristics of compliers need one treatment and one instrument")
        return self


class IvSpec(Spec):
    """An instrumental-variable regression."""

    method: Literal["iv"]
    options: IvOptions


def variable_name(variable: Variable) -> str:
    """The name of a treatment or instrument in results."""
    if isinstance(variable, LevelOf):
        return f"{variable.column}={variable.level}"
    return variable


def variable_term(variable: Variable) -> Term:
    """The values of a treatment or instrument."""
    if isinstance(variable, LevelOf):
        return Indicator(variable.column, variable.level)
    return Column(variable)


def _listed(value: Variable | list[Variable]) -> tuple[Variable, ...]:
    return tuple(value) if isinstance(value, list) else (value,)
