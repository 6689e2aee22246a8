"""The options of the method `uplift`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.spec import Spec
from causal.observational.options import StudyOptions
from causal.regression.columns import ColumnName
from causal.uplift.linear_learners import Learner

Kind = Literal["HC1", "HC3", "CR1", "CR3"]
MAX_LEFT_OUT = 1000
"""Clusters that are left out in turn where nothing is said."""
Probability = Annotated[float, Field(gt=0.0, lt=1.0, strict=True)]


def _default() -> list[Learner]:
    return ["t", "dr"]


class UpliftOptions(StudyOptions):
    """Options of effects that are linear in covariates, beside those of every study.

    Attributes:
        learners: `s`, `t`, `x`, `dr`, `r`, in the order of the result.
        effect_columns: Columns along which the effect of the X-, DR- and R-learner varies; left
            out: all. The T-learner's varies along all, the S-learner's along none.
        propensity: `share`: treatment was randomised, with the share of treated rows as its
            probability; a number: randomised with this probability; `logistic`: it was not, and a
            logistic regression on the columns gives it.
        segments: Columns by whose levels mean effects are given; null in no row.
        cluster: Column of the clusters.
        covariance: Of the coefficients: HC3 or HC1; with clusters CR3 or CR1. Left out: HC3, or CR3
            for at most `MAX_LEFT_OUT` clusters and CR1 for more.
    """

    learners: Annotated[list[Learner], Field(min_length=1)] = Field(default_factory=_default)
    effect_columns: Annotated[list[ColumnName], Field(min_length=1)] | None = None
    propensity: Literal["share", "logistic"] | Probability = "share"
    segments: list[ColumnName] = Field(default_factory=list)
    cluster: ColumnName | None = None
    covariance: Kind | None = None

    def kind(self, n_clusters: int | None) -> Kind:
        """The covariance of the coefficients.

        Args:
            n_clusters: Clusters, if they were counted.
        """
        if self.covariance is not None:
            return self.covariance
        if self.cluster is None:
            return "HC3"
        return "CR3" if (n_clusters or 0) <= MAX_LEFT_OUT else "CR1"

    @property
    def estimators(self) -> tuple[str, ...]:
        """The learners, as effects name them."""
        return tuple(f"{name}_learner" for name in self.learners)

    @property
    def needs_propensity(self) -> bool:
        """Whether a logistic regression is fitted."""
        return self.propensity == "logistic" and bool({"dr", "r"} & set(self.learners))

    @model_validator(mode="after")
    def _options_go_together(self) -> "UpliftOptions":
        if len(set(self.learners)) < len(self.learners):
            raise ValueError("a learner stands twice")
        if len(set(self.segments)) < len(self.segments):
            raise ValueError("a segment stands twice")
        clash = sorted({*self.outcomes, self.treatment} & set(self.segments))
        if clash:
            raise ValueError(f"column used in two roles: {', '.join(clash)}")
        if self.covariance is not None and self.covariance.startswith("CR") != bool(self.cluster):
            raise ValueError(
                f"covariance {self.covariance}: CR1 or CR3 with cluster, HC1 or HC3 without"
            )
        if self.effect_columns is not None and not {"x", "dr", "r"} & set(self.learners):
            raise ValueError("effect_columns goes with the learners x, dr and r")
        self._check_effect_columns()
        if self.propensity == "logistic" and not {"dr", "r"} & set(self.learners):
            raise ValueError("propensity logistic goes with the learners dr and r")
        return self

    def _check_effect_columns(self) -> None:
        """Refuse names that cannot be those of columns; levels are known once data are seen."""
        groups = {*self.covariates, *self.categorical, *map(":".join, self.interactions)}
        by_level = tuple(f"{name}=" for name in self.categorical)
        unknown = [
            name
            for name in self.effect_columns or ()
            if name not in groups and not any(start in name for start in by_level)
        ]
        if unknown:
            raise ValueError(
                f"effect_columns: {unknown[0]} is no column that is adjusted for "
                f"({', '.join(sorted(groups))})"
            )


class UpliftSpec(Spec):
    """Effects that are linear in covariates."""

    method: Literal["uplift"]
    options: UpliftOptions
