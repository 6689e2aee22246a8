"""The options of the method `ols`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.spec import Spec
from causal.regression.columns import ColumnName, check_design
from causal.regression.options import RegressionOptions

INTERCEPT = "intercept"


class OlsOptions(RegressionOptions):
    """Options of a linear regression, beside those that all regressions share.

    Attributes:
        numeric: Numeric or boolean regressors.
        tests: Joint tests by name: the coefficients that are zero, each by its own name or by the
            item of the spec that it stands for (`region` names all its levels).
        report: Coefficients that become effects, by name or item; all of them if left out. The
            table `coefficients` has every one.
    """

    numeric: list[ColumnName] = Field(default_factory=list)
    tests: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(default_factory=dict)
    report: Annotated[list[str], Field(min_length=1)] | None = None

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """Numeric regressors."""
        return tuple(self.numeric)

    @model_validator(mode="after")
    def _columns_go_together(self) -> "OlsOptions":
        check_design(self.numeric, self.categorical, self.interactions)
        used = {*self.numeric, *self.categorical}
        clash = [str(name) for name in (*self.outcomes, self.absorb, self.weight) if name in used]
        if clash:
            raise ValueError(f"column used in two roles: {', '.join(clash)}")
        if not (used or self.intercept):
            raise ValueError("a regression needs a regressor or an intercept")
        if not used and self.absorb is not None:
            raise ValueError("absorb needs a regressor beside it")
        return self


class OlsSpec(Spec):
    """A linear regression."""

    method: Literal["ols"]
    options: OlsOptions
