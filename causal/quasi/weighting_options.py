"""The options of the method `weighting`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.spec import Spec
from causal.observational.options import StudyOptions
from causal.observational.trimming import Trim
from causal.observational.weights import Target
from causal.regression.columns import ColumnName

EstimatorName = Literal["ipw", "regression", "aipw", "entropy_balancing"]


class WeightingOptions(StudyOptions):
    """Options of an analysis by weighting or regression, beside those of every study.

    Attributes:
        estimand: Whose mean effect: `ate` of all, `att` of the treated, `atc` of the controls,
            `overlap` of those who could have been either.
        estimator: `ipw`, `regression` (g-formula), `aipw` (doubly robust), `entropy_balancing`, or
            a list of them.
        normalise: Whether weights are divided by their sum (Hajek) or by the number of units
            (Horvitz-Thompson); left out: by their sum for `ipw`, by the number for `aipw`.
        trim: Which propensities are kept; left out: all.
        outcome_interactions: Columns whose slopes in the outcome model differ between the arms:
            `all`, `none` or a list.
        covariance: `sandwich` allows for the estimation of propensity and outcome model; `robust`
            takes them as known.
        cluster: Column of the clusters.
        small_sample: `none`, or `n-1`: n/(n-1), G/(G-1) with clusters. Left out: `n-1` with
            clusters, else `none`.
        balance_threshold: Largest standardised difference after weighting that passes.
        sensitivity: Whether to say how strong a hidden common cause would have to be.
    """

    estimand: Target = "ate"
    estimator: EstimatorName | Annotated[list[EstimatorName], Field(min_length=1)] = "ipw"
    normalise: bool | None = None
    trim: Trim | None = None
    outcome_interactions: Literal["all", "none"] | list[ColumnName] = "all"
    covariance: Literal["sandwich", "robust"] = "sandwich"
    cluster: ColumnName | None = None
    small_sample: Literal["none", "n-1"] | None = None
    balance_threshold: float = Field(default=0.1, gt=0.0)
    sensitivity: bool = False

    @property
    def estimators(self) -> tuple[EstimatorName, ...]:
        """The estimators."""
        return (self.estimator,) if isinstance(self.estimator, str) else tuple(self.estimator)

    @property
    def factor(self) -> str:
        """The small-sample factor with its default filled in."""
        return self.small_sample or ("none" if self.cluster is None else "n-1")

    @property
    def needs_propensity(self) -> bool:
        """Whether the propensity is estimated."""
        return bool({"ipw", "aipw"} & set(self.estimators)) or self.trim is not None

    def is_normalised(self, estimator: EstimatorName) -> bool:
        """Whether an estimator divides weights by their sum."""
        if estimator == "entropy_balancing":
            return True
        return estimator == "ipw" if self.normalise is None else self.normalise

    @model_validator(mode="after")
    def _options_go_together(self) -> "WeightingOptions":
        names = self.estimators
        if len(set(names)) < len(names):
            raise ValueError("an estimator stands twice")
        unweighted = [name for name in names if name != "ipw"]
        if self.estimand == "overlap" and unweighted:
            raise ValueError(f"estimand overlap goes with ipw, not with {', '.join(unweighted)}")
        if self.estimand == "overlap" and self.normalise is False:
            raise ValueError("overlap weights are divided by their sum: leave out normalise")
        if self.covariance == "robust" and "regression" in names:
            raise ValueError("the errors of regression come from its model: covariance: sandwich")
        if self.trim is not None and "entropy_balancing" in names:
            raise ValueError("trim goes by the propensity, which entropy_balancing has not")
        return self


class WeightingSpec(Spec):
    """Effects of a treatment that nobody randomised, by weighting."""

    method: Literal["weighting"]
    options: WeightingOptions
