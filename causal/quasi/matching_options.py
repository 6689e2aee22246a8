"""The options of the method `matching`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.spec import Spec
from causal.observational.nearest import Order
from causal.observational.options import StudyOptions
from causal.regression.columns import ColumnName

Cuts = Annotated[int, Field(ge=1, le=1000)] | Annotated[list[float], Field(min_length=1)]


class MatchingOptions(StudyOptions):
    """Options of an analysis by matching, beside those of every study.

    Attributes:
        matching: `nearest` on the propensity, or `coarsened` exact cells.
        estimand: `att` (treated look for controls), `atc` (the reverse), or `ate` of the matched
            (coarsened only).
        distance: What is near: the `propensity` or its `log_odds`.
        ratio: Partners of each unit.
        replace: Whether a unit may be a partner several times.
        order: Who chooses first without replacement: the `largest` propensity, the `smallest`, or
            the first `unit`.
        caliper: Largest distance, in standard deviations of the distance over all units.
        exact: Columns in which partners agree.
        cutpoints: Inner cut points of numeric columns, or a number of bins of equal width; the
            other columns are matched exactly (coarsened only).
        covariance: `robust` or `strata` (clustered by cell), coarsened only; nearest matching has
            errors of its own.
        small_sample: `stata` (n/(n-2), with clusters G/(G-1) (n-1)/(n-2)), `n-1` (n/(n-1), G/(G-1))
            or `none`; errors with replacement take none.
        max_units: Nearest matching is refused above so many units.
        balance_threshold: Largest standardised difference after matching that passes.
        sensitivity: Whether to say how strong a hidden common cause would have to be.
    """

    matching: Literal["nearest", "coarsened"] = "nearest"
    estimand: Literal["att", "atc", "ate"] = "att"
    distance: Literal["propensity", "log_odds"] = "propensity"
    ratio: int = Field(default=1, ge=1, le=100)
    replace: bool = False
    order: Order = "largest"
    caliper: float | None = Field(default=None, gt=0.0)
    exact: list[ColumnName] = Field(default_factory=list)
    cutpoints: dict[ColumnName, Cuts] = Field(default_factory=dict)
    covariance: Literal["robust", "strata"] = "robust"
    small_sample: Literal["stata", "n-1", "none"] = "stata"
    max_units: int = Field(default=100_000, ge=2)
    balance_threshold: float = Field(default=0.1, gt=0.0)
    sensitivity: bool = False

    @model_validator(mode="after")
    def _options_go_together(self) -> "MatchingOptions":
        given = self.model_fields_set
        own = {
            "nearest": {"distance", "ratio", "replace", "order", "caliper", "exact", "max_units"},
            "coarsened": {"cutpoints", "covariance"},
        }
        for kind, names in own.items():
            foreign = sorted(names & given)
            if kind != self.matching and foreign:
                raise ValueError(f"{foreign[0]} goes with matching: {kind}")
        if self.matching == "nearest":
            self._check_nearest()
        else:
            self._check_coarsened()
        return self

    def _check_nearest(self) -> None:
        if not self.units:
            raise ValueError("matching: nearest needs unit, the column that identifies a row")
        if self.estimand == "ate":
            raise ValueError("estimand ate goes with matching: coarsened")
        if self.replace and {"order", "small_sample"} & self.model_fields_set:
            raise ValueError("order and small_sample go with replace: false")

    def _check_coarsened(self) -> None:
        if self.interactions:
            raise ValueError("matching: coarsened takes no interactions")
        unknown = [name for name in self.cutpoints if name not in self.covariates]
        if unknown:
            raise ValueError(f"cutpoints of a column that is no covariate: {unknown[0]}")


class MatchingSpec(Spec):
    """Effects of a treatment that nobody randomised, by matching."""

    method: Literal["matching"]
    options: MatchingOptions
