"""The options of the method `did`, and which of them go together."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from causal.core.inference import JointTest
from causal.core.spec import COLUMN_PATTERN, Part, Spec
from causal.quasi.credibility.sensitivity_options import Sensitivity
from causal.quasi.treatment_timing import Timing
from causal.regression.error_options import at_most_two

ColumnName = Annotated[str, Field(pattern=COLUMN_PATTERN)]
Doses = list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]

_FACTORS = {
    "cluster": ("cr1", "min", "none"),
    "CR3": ("none", "jackknife"),
    "driscoll_kraay": ("cr1", "none"),
}
"""Small-sample factors of each covariance, the default first."""

_ONLY_FOR = {
    "group": (
        "two_by_two",
        "twfe",
        "event_study",
        "sun_abraham",
        "etwfe",
        "two_stage",
        "imputation",
    ),
    "treatment": ("twfe",),
    "dose": ("dose_response",),
    "dose_bins": ("dose_response",),
    "dose_knots": ("dose_response",),
    "covariates": ("twfe", "event_study", "sun_abraham", "etwfe", "dose_response"),
    "period_effects_by": ("twfe", "event_study", "sun_abraham", "etwfe", "dose_response"),
    "reference_period": ("event_study", "sun_abraham"),
    "weight": ("two_by_two", "twfe", "event_study", "dose_response"),
    "min_event_time": ("event_study",),
    "max_event_time": ("event_study",),
    "balanced": ("two_by_two", "two_stage", "imputation", "twfe", "event_study"),
    "leave_out": ("imputation",),
    "wild_bootstrap": ("twfe", "event_study", "dose_response"),
    "sensitivity": ("event_study", "sun_abraham"),
}


class WildBootstrap(Part):
    """The restricted wild cluster bootstrap of the effects' p-values and intervals.

    Attributes:
        weights: `rademacher` (signs; all draws where there are no more than `n_draws`) or `webb`
            (six points, for a dozen clusters or fewer).
        n_draws: Draws.
    """

    weights: Literal["rademacher", "webb"] = "rademacher"
    n_draws: int = Field(default=9_999, ge=99, le=99_999)


class DidOptions(Part):
    """Options of a difference-in-differences analysis.

    Attributes:
        unit: Column of the unit; the table has one row per unit and period.
        period: Numeric column of the period.
        outcome: The outcome column, or a list of them: one set of effects for each.
        estimator: `two_by_two` (four means), `twfe` (unit and period effects, one treatment
            dummy), `event_study` (unit and period effects, one dummy per event time) or
            `sun_abraham` and `etwfe` (one dummy per cohort and event time, averaged by the cohorts'
            shares; with leads around a reference period, or with lags only), `two_stage` (unit
            and period effects from untreated rows, then means of what is left), `imputation`
            (the same effects with errors that hold the cohorts' shares fixed) or `dose_response`
            (effects of a dose that differs between units and starts in one period).
        family: `linear`, or `poisson` (twfe, event_study): outcomes are multiplied by the effect,
            which is a ratio; parallel are the trends of their logarithms.
        first_treated_period: Column of the first treated period, constant within a unit; null
            means never treated.
        never_treated_value: Value of `first_treated_period` that means never, instead of null.
        group: 0/1 column of the ever-treated units; needs `treatment_period`.
        treatment_period: The first treated period of all units of `group`, or that have a `dose`.
        treatment: Numeric column that varies over time, possibly a fraction (twfe only).
        dose: Numeric column of the dose that a unit gets from `treatment_period` on, constant
            within the unit; 0 for units without treatment (dose_response only).
        dose_bins: Ascending doses between which `dose_response` forms bins, the last one open; one
            bin of all doses where neither these nor `dose_knots` are given.
        dose_knots: Ascending doses at which the slope of `dose_response` may change, in place of
            bins; an empty list: one straight line.
        control_group: Which units serve as comparison. The four means use the never treated; the
            regressions use never-treated and not-yet-treated units alike; `sun_abraham` the never
            treated.
        covariates: Time-varying numeric columns held fixed.
        period_effects_by: Column by whose values the period effects differ (region-by-year); it
            may change within a unit. A list: period effects by each of them (by region and by
            eligible group: triple differences).
        weight: Column of row weights.
        cluster: Column of the clusters; the unit if left out. A unit lies in one cluster. For the
            regressions also a list of two columns, such as unit and period (two-way).
        covariance: `cluster`, `classical` (independent equal-variance errors); for the regressions
            also `CR3` (the jackknife over clusters) and `driscoll_kraay` (any dependence between
            units, serial dependence up to a lag); for `two_by_two` also `HC1` and `welch` (sum of
            the variances of the means).
        small_sample: `cr1` multiplies the clustered covariance by `G/(G-1) * (N-1)/(N-k)`, k
            counting regressors and period effects but not the unit effects nested in clusters; in
            two-way clustering each part has its own G, with `min` the smaller one. Driscoll-Kraay
            errors count periods as clusters and unit effects in k. CR3: `none` or `jackknife`,
            which is `(G-1)/G`. `imputation` has none unless `cr1` is asked for.
        lags: Lags of `driscoll_kraay`, in periods; the integer part of `4 (T/100)^(2/9)` if left
            out.
        wild_bootstrap: Take p-values and intervals of the effects from the wild cluster bootstrap.
        joint_test: What the test of the leads refers to where errors are not `classical`:
            `hotelling` (the default), F(q, df - q + 1) of Hotelling's T squared; `wald`, F(q, df)
            as Stata and pyfixest do, which rejects too often with few clusters.
        balanced: Keep only units observed in every period (two_by_two, two_stage, imputation,
            family poisson).
        leave_out: Errors of `imputation` take a unit's (cluster's) effects less the mean of the
            others of its cohort and period, in place of the mean of all: larger, as they should be
            where cohorts are small.
        anticipation: Periods before the start in which the treatment may already have an effect.
        reference_period: Event time left out of the event study; the last period before
            anticipation if left out.
        min_event_time: Earlier event times are binned with this one.
        max_event_time: Later event times are binned with this one.
        sensitivity: How far trends may depart from parallel ones before the effects of an event
            study are in doubt.
    """

    unit: ColumnName
    period: ColumnName
    outcome: ColumnName | Annotated[list[ColumnName], Field(min_length=1)]
    estimator: Literal[
        "two_by_two", "twfe", "event_study", "sun_abraham", "etwfe", "two_stage", "imputation",
        "dose_response",
    ]  # fmt: skip
    family: Literal["linear", "poisson"] = "linear"
    first_treated_period: ColumnName | None = None
    never_treated_value: float | None = None
    group: ColumnName | None = None
    treatment_period: float | None = None
    treatment: ColumnName | None = None
    dose: ColumnName | None = None
    dose_bins: Doses | None = None
    dose_knots: Doses | None = None
    control_group: Literal["never_treated", "not_yet_treated"] | None = None
    covariates: list[ColumnName] = Field(default_factory=list)
    period_effects_by: ColumnName | Annotated[list[ColumnName], Field(min_length=1)] | None = None
    weight: ColumnName | None = None
    cluster: ColumnName | Annotated[list[ColumnName], Field(min_length=1)] | None = None
    covariance: Literal["cluster", "CR3", "driscoll_kraay", "classical", "HC1", "welch"] = "cluster"
    small_sample: Literal["cr1", "min", "none", "jackknife"] | None = None
    lags: int | None = Field(default=None, ge=0)
    wild_bootstrap: WildBootstrap | None = None
    joint_test: JointTest | None = None
    balanced: bool = False
    leave_out: bool = False
    anticipation: int = Field(default=0, ge=0)
    reference_period: int | None = None
    min_event_time: int | None = None
    max_event_time: int | None = Field(default=None, ge=0)
    sensitivity: Sensitivity | None = None

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcome columns."""
        return (self.outcome,) if isinstance(self.outcome, str) else tuple(self.outcome)

    @property
    def period_effect_columns(self) -> tuple[str, ...]:
        """The columns by whose values the period effects differ."""
        by = self.period_effects_by
        return () if by is None else (by,) if isinstance(by, str) else tuple(by)

    @property
    def cluster_columns(self) -> tuple[str, ...]:
        """The columns of the clusters; none where errors are not clustered."""
        if self.covariance not in {"cluster", "CR3"}:
            return ()
        if self.cluster is None:
            return (self.unit,)
        return (self.cluster,) if isinstance(self.cluster, str) else tuple(self.cluster)

    @property
    def clusters(self) -> str:
        """The column of one-way clusters."""
        return self.cluster_columns[0] if self.cluster_columns else self.unit

    @property
    def is_two_way(self) -> bool:
        """Whether there are two columns of clusters."""
        return len(self.cluster_columns) > 1

    @property
    def factor(self) -> str:
        """The small-sample factor with its default filled in."""
        first = "none" if self.estimator == "imputation" else None
        return self.small_sample or first or _FACTORS.get(self.covariance, ("none",))[0]

    @property
    def joint_reference(self) -> JointTest:
        """The reference of the test of the leads; exact for classical errors."""
        return "exact" if self.covariance == "classical" else self.joint_test or "hotelling"

    @property
    def needs_blocks(self) -> bool:
        """Whether the errors need moments by cluster."""
        return self.covariance == "CR3" or self.wild_bootstrap is not None

    @property
    def has_sums_by_cohort(self) -> bool:
        """Whether the estimator takes sums by cohort and cluster rather than a regression."""
        return self.estimator in {"two_stage", "imputation"} or self.family == "poisson"

    @property
    def named(self) -> str:
        """What messages call the analysis."""
        return "family: poisson" if self.family == "poisson" else self.estimator

    @property
    def needs_row_scores(self) -> bool:
        """Whether the errors need the score of each row."""
        return self.covariance == "driscoll_kraay" or self.is_two_way

    @property
    def has_cohorts_only(self) -> bool:
        """Whether nothing but the cohort tells the regressors of one unit from another's."""
        controls = (self.weight, self.period_effects_by, self.covariates or None)
        asked = (*controls, self.treatment, self.dose)
        return all(item is None for item in asked)

    @property
    def reference(self) -> int:
        """Event time of the reference period."""
        last = -1 - self.anticipation
        return last if self.reference_period is None else self.reference_period

    @property
    def timing(self) -> Timing | None:
        """From when units are treated; `None` when a treatment column says it row by row."""
        column = self.first_treated_period or self.group
        if column is None:
            return None
        return Timing(
            period=self.period,
            cohort=column,
            treatment_period=self.treatment_period,
            never_treated_value=self.never_treated_value,
        )

    @field_validator("cluster")
    @classmethod
    def _one_or_two_columns(cls, value: str | list[str] | None) -> str | list[str] | None:
        return at_most_two(value)

    @model_validator(mode="after")
    def _one_treatment(self) -> "DidOptions":
        ways = ("first_treated_period", "group", "treatment", "dose")
        if sum(getattr(self, way) is not None for way in ways) != 1:
            raise ValueError(f"give exactly one of {', '.join(ways)}")
        if (self.group is None and self.dose is None) != (self.treatment_period is None):
            raise ValueError("group (or dose) and treatment_period go together")
        if self.never_treated_value is not None and self.first_treated_period is None:
            raise ValueError("never_treated_value needs first_treated_period")
        if self.anticipation and self.treatment is not None:
            raise ValueError("anticipation needs first_treated_period or group")
        return self

    @model_validator(mode="after")
    def _options_of_the_estimator(self) -> "DidOptions":
        for name, estimators in _ONLY_FOR.items():
            value = getattr(self, name)
            is_given = not (value is None or value is False or value == [])
            if is_given and self.estimator not in estimators:
                raise ValueError(
                    f"{name} goes with {' or '.join(estimators)}, not {self.estimator}"
                )
        if self.balanced and not (self.estimator == "two_by_two" or self.has_sums_by_cohort):
            raise ValueError(
                "balanced goes with two_by_two, two_stage, imputation or family: poisson"
            )
        against_never = self.estimator in {"two_by_two", "sun_abraham", "dose_response"}
        implied = "never_treated" if against_never else "not_yet_treated"
        if self.control_group not in {None, implied}:
            raise ValueError(f"{self.estimator} compares with {implied} units")
        return self

    @model_validator(mode="after")
    def _options_of_the_family(self) -> "DidOptions":
        if self.family == "linear":
            return self
        if self.estimator not in {"twfe", "event_study"}:
            raise ValueError("family poisson goes with twfe or event_study")
        if not self.has_cohorts_only:
            raise ValueError(
                "family poisson takes first_treated_period or group and neither covariates, weight "
                "nor period_effects_by"
            )
        if self.wild_bootstrap is not None or self.sensitivity is not None:
            raise ValueError("family poisson takes neither wild_bootstrap nor sensitivity")
        return self

    @model_validator(mode="after")
    def _options_of_the_dose(self) -> "DidOptions":
        if self.estimator == "dose_response" and self.dose is None:
            raise ValueError("dose_response needs dose and treatment_period")
        if self.dose_bins is not None and self.dose_knots is not None:
            raise ValueError("give dose_bins or dose_knots, not both")
        for name in ("dose_bins", "dose_knots"):
            doses = getattr(self, name) or []
            if sorted(set(doses)) != doses:
                raise ValueError(f"{name} must ascend")
        return self

    @model_validator(mode="after")
    def _covariance_options(self) -> "DidOptions":
        if self.covariance in {"HC1", "welch"} and self.estimator != "two_by_two":
            raise ValueError(f"covariance {self.covariance} goes with two_by_two")
        if self.covariance == "welch" and self.weight is not None:
            raise ValueError("covariance welch takes no weight")
        if self.covariance in {"CR3", "driscoll_kraay"} and self.estimator == "two_by_two":
            raise ValueError(f"covariance {self.covariance} goes with the regressions")
        if self.cluster is not None and not self.cluster_columns:
            raise ValueError("cluster goes with covariance: cluster or CR3")
        if self.lags is not None and self.covariance != "driscoll_kraay":
            raise ValueError("lags goes with covariance: driscoll_kraay")
        is_means = self.estimator == "two_by_two"
        if self.balanced and is_means and (self.weight is not None or self.cluster is not None):
            raise ValueError("balanced takes neither weight nor cluster")
        if self.has_sums_by_cohort and (self.covariance != "cluster" or self.is_two_way):
            raise ValueError(f"{self.named} has covariance: cluster by one column")
        return self

    @model_validator(mode="after")
    def _cluster_options(self) -> "DidOptions":
        if len(set(self.period_effect_columns)) < len(self.period_effect_columns):
            raise ValueError("period_effects_by names a column twice")
        if len(set(self.cluster_columns)) < len(self.cluster_columns):
            raise ValueError("the two columns of cluster must differ")
        if self.is_two_way and (self.covariance == "CR3" or self.estimator == "two_by_two"):
            raise ValueError("two columns of clusters go with covariance: cluster of a regression")
        if self.wild_bootstrap is not None and (self.covariance != "cluster" or self.is_two_way):
            raise ValueError("wild_bootstrap goes with covariance: cluster and one column")
        allowed = _FACTORS.get(self.covariance, ())
        if self.small_sample is not None and self.small_sample not in allowed:
            raise ValueError(
                f"small_sample of covariance {self.covariance}: one of {', '.join(allowed)}"
                if allowed
                else "small_sample goes with covariance: cluster, CR3 or driscoll_kraay"
            )
        if self.joint_test is not None and self.covariance == "classical":
            raise ValueError("joint_test goes with errors that are not classical")
        if self.small_sample == "min" and not self.is_two_way:
            raise ValueError("small_sample min goes with two columns of clusters")
        return self

    @model_validator(mode="after")
    def _columns_differ(self) -> "DidOptions":
        treatment = self.first_treated_period or self.group or self.treatment or self.dose
        roles = [*self.outcomes, self.unit, self.period, treatment, *self.covariates]
        repeated = sorted({str(name) for name in roles if roles.count(name) > 1})
        if repeated:
            raise ValueError(f"column used in two roles: {', '.join(repeated)}")
        return self

    @model_validator(mode="after")
    def _event_window(self) -> "DidOptions":
        if self.reference >= -self.anticipation:
            raise ValueError(f"reference_period must lie before {-self.anticipation}")
        if self.min_event_time is not None and self.min_event_time >= self.reference:
            raise ValueError(f"min_event_time must lie before the reference {self.reference}")
        if self.sensitivity is not None and self.reference != -1 - self.anticipation:
            raise ValueError(
                f"sensitivity needs the reference_period {-1 - self.anticipation}: leave it out"
            )
        return self


class DidSpec(Spec):
    """A difference-in-differences analysis."""

    method: Literal["did"]
    options: DidOptions
