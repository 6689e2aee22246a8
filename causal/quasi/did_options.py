"""The options of the method `did`, and which of them go together."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.spec import COLUMN_PATTERN, Part, Spec
from causal.quasi.treatment_timing import Timing

ColumnName = Annotated[str, Field(pattern=COLUMN_PATTERN)]

_ONLY_FOR = {
    "group": ("two_by_two", "twfe", "event_study", "sun_abraham", "etwfe"),
    "treatment": ("twfe",),
    "covariates": ("twfe", "event_study", "sun_abraham", "etwfe"),
    "period_effects_by": ("twfe", "event_study", "sun_abraham", "etwfe"),
    "reference_period": ("event_study", "sun_abraham"),
    "weight": ("two_by_two", "twfe", "event_study"),
    "min_event_time": ("event_study",),
    "max_event_time": ("event_study",),
    "balanced": ("two_by_two",),
}


class DidOptions(Part):
    """Options of a difference-in-differences analysis.

    Attributes:
        unit: Column of the unit; the table has one row per unit and period.
        period: Numeric column of the period.
        outcome: The outcome column, or a list of them: one set of effects for each.
        estimator: `two_by_two` (four means), `twfe` (unit and period effects, one treatment
            dummy), `event_study` (unit and period effects, one dummy per event time) or
            `sun_abraham` and `etwfe` (one dummy per cohort and event time, averaged by the cohorts'
            shares; with leads around a reference period, or with lags only).
        first_treated_period: Column of the first treated period, constant within a unit; null
            means never treated.
        never_treated_value: Value of `first_treated_period` that means never, instead of null.
        group: 0/1 column of the ever-treated units; needs `treatment_period`.
        treatment_period: The first treated period of all units of `group`.
        treatment: Numeric column that varies over time, possibly a fraction (twfe only).
        control_group: Which units serve as comparison. The four means use the never treated; the
            regressions use never-treated and not-yet-treated units alike; `sun_abraham` the never
            treated.
        covariates: Time-varying numeric columns held fixed.
        period_effects_by: Column by whose values the period effects differ (region-by-year); it
            may change within a unit.
        weight: Column of row weights.
        cluster: Column of the clusters; the unit if left out. A unit lies in one cluster.
        covariance: `cluster`, `classical` (independent equal-variance errors) or, for
            `two_by_two`, `HC1` and `welch` (sum of the variances of the means).
        small_sample: `cr1` multiplies the clustered covariance by `G/(G-1) * (N-1)/(N-k)`, k
            counting regressors and period effects but not the unit effects nested in clusters.
        balanced: Keep only units observed in every period (two_by_two).
        anticipation: Periods before the start in which the treatment may already have an effect.
        reference_period: Event time left out of the event study; the last period before
            anticipation if left out.
        min_event_time: Earlier event times are binned with this one.
        max_event_time: Later event times are binned with this one.
    """

    unit: ColumnName
    period: ColumnName
    outcome: ColumnName | Annotated[list[ColumnName], Field(min_length=1)]
    estimator: Literal["two_by_two", "twfe", "event_study", "sun_abraham", "etwfe"]
    first_treated_period: ColumnName | None = None
    never_treated_value: float | None = None
    group: ColumnName | None = None
    treatment_period: float | None = None
    treatment: ColumnName | None = None
    control_group: Literal["never_treated", "not_yet_treated"] | None = None
    covariates: list[ColumnName] = Field(default_factory=list)
    period_effects_by: ColumnName | None = None
    weight: ColumnName | None = None
    cluster: ColumnName | None = None
    covariance: Literal["cluster", "classical", "HC1", "welch"] = "cluster"
    small_sample: Literal["cr1", "none"] = "cr1"
    balanced: bool = False
    anticipation: int = Field(default=0, ge=0)
    reference_period: int | None = None
    min_event_time: int | None = None
    max_event_time: int | None = Field(default=None, ge=0)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcome columns."""
        return (self.outcome,) if isinstance(self.outcome, str) else tuple(self.outcome)

    @property
    def clusters(self) -> str:
        """Column of the clusters."""
        return self.cluster or self.unit

    @property
    def has_cohorts_only(self) -> bool:
        """Whether nothing but the cohort tells the regressors of one unit from another's."""
        asked = (self.weight, self.treatment, self.period_effects_by, self.covariates or None)
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

    @model_validator(mode="after")
    def _one_treatment(self) -> "DidOptions":
        ways = ("first_treated_period", "group", "treatment")
        if sum(getattr(self, way) is not None for way in ways) != 1:
            raise ValueError(f"give exactly one of {', '.join(ways)}")
        if (self.group is None) != (self.treatment_period is None):
            raise ValueError("group and treatment_period go together")
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
        against_never = self.estimator in {"two_by_two", "sun_abraham"}
        implied = "never_treated" if against_never else "not_yet_treated"
        if self.control_group not in {None, implied}:
            raise ValueError(f"{self.estimator} compares with {implied} units")
        return self

    @model_validator(mode="after")
    def _covariance_options(self) -> "DidOptions":
        if self.covariance in {"HC1", "welch"} and self.estimator != "two_by_two":
            raise ValueError(f"covariance {self.covariance} goes with two_by_two")
        if self.covariance == "welch" and self.weight is not None:
            raise ValueError("covariance welch takes no weight")
        if self.covariance != "cluster" and self.cluster is not None:
            raise ValueError("cluster goes with covariance: cluster")
        if self.covariance != "cluster" and self.small_sample != "cr1":
            raise ValueError("small_sample goes with covariance: cluster")
        if self.balanced and (self.weight is not None or self.cluster is not None):
            raise ValueError("balanced takes neither weight nor cluster")
        return self

    @model_validator(mode="after")
    def _columns_differ(self) -> "DidOptions":
        treatment = self.first_treated_period or self.group or self.treatment
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
        return self


class DidSpec(Spec):
    """A difference-in-differences analysis."""

    method: Literal["did"]
    options: DidOptions
