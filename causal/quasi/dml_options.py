"""The options of the method `dml`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.spec import Spec
from causal.observational.options import StudyOptions
from causal.observational.trimming import Trim
from causal.regression.columns import ColumnName

EstimatorName = Literal["aipw", "plr"]
Population = Literal["ate", "att", "atc"]
Refuter = Literal["placebo", "random_common_cause", "subset"]
Probability = Annotated[float, Field(gt=0.0, lt=1.0, strict=True)]


class DmlOptions(StudyOptions):
    """Options of double machine learning, beside those of every study.

    Attributes:
        unit: Column that identifies a row; folds are hashes of it, or of the cluster.
        estimator: `aipw` (interactive model: effects may differ from row to row), `plr` (partially
            linear model: one effect), or a list of both.
        estimand: Whose mean effect `aipw` estimates: `ate`, `att`, `atc`. `plr` estimates that of
            the overlap population if effects differ.
        propensity: `logistic`, `linear` (for `plr` alone), `share` (randomised), or a number, the
            known probability of treatment.
        folds: Parts of the rows; models are fitted on all parts but the one that they score.
        repetitions: Ways to part the rows; the median of their estimates is reported.
        segments: Columns by whose levels effects are given.
        trim: Which propensities are kept; left out: all.
        cluster: Column of the clusters.
        small_sample: `none`, or `n-1`: n/(n-1), G/(G-1) with clusters. Left out: `n-1` with
            clusters, else `none`.
        sensitivity: Whether to say how strong a hidden common cause would have to be.
        refute: Analyses whose answer is known, beside the one that is asked for.
    """

    unit: ColumnName
    estimator: EstimatorName | Annotated[list[EstimatorName], Field(min_length=1)] = "aipw"
    estimand: Population = "ate"
    propensity: Literal["logistic", "linear", "share"] | Probability = "logistic"
    folds: int = Field(default=5, ge=2, le=50, strict=True)
    repetitions: int = Field(default=1, ge=1, le=100, strict=True)
    segments: list[ColumnName] = Field(default_factory=list)
    trim: Trim | None = None
    cluster: ColumnName | None = None
    small_sample: Literal["none", "n-1"] | None = None
    sensitivity: bool = False
    refute: list[Refuter] = Field(default_factory=list)

    @property
    def estimators(self) -> tuple[EstimatorName, ...]:
        """The estimators."""
        return (self.estimator,) if isinstance(self.estimator, str) else tuple(self.estimator)

    @property
    def factor(self) -> str:
        """The small-sample factor with its default filled in."""
        return self.small_sample or ("none" if self.cluster is None else "n-1")

    @model_validator(mode="after")
    def _options_go_together(self) -> "DmlOptions":
        lists: dict[str, list[str]] = {
            "estimator": list(self.estimators), "segments": self.segments, "refute": [*self.refute],
        }  # fmt: skip
        for name, items in lists.items():
            if len(set(items)) < len(items):
                raise ValueError(f"{name} holds something twice")
        clash = sorted({*self.outcomes, self.treatment} & set(self.segments))
        if clash:
            raise ValueError(f"column used in two roles: {', '.join(clash)}")
        if self.propensity == "linear" and "aipw" in self.estimators:
            raise ValueError("a linear propensity can leave (0, 1): it goes with plr alone")
        if self.propensity == "linear" and self.trim is not None:
            raise ValueError("trim goes by a propensity within (0, 1), which linear is not")
        if self.estimand != "ate" and "aipw" not in self.estimators:
            raise ValueError("estimand goes with aipw: plr has its own population")
        if self.trim is not None and self.trim.refit:
            raise ValueError("the nuisance models see all rows: leave out refit")
        return self


class DmlSpec(Spec):
    """Effects of a treatment that nobody randomised, by double machine learning."""

    method: Literal["dml"]
    options: DmlOptions
