"""The options of the method `staggered`, and which of them go together."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.spec import COLUMN_PATTERN, Part, Spec
from causal.quasi.credibility.sensitivity_options import Sensitivity
from causal.quasi.credibility.stability_options import Stability
from causal.quasi.treatment_timing import Timing

ColumnName = Annotated[str, Field(pattern=COLUMN_PATTERN)]
Kind = Literal["simple", "dynamic", "group", "calendar"]
Adjustment = Literal["regression", "weighting", "doubly_robust"]

_KINDS: tuple[Kind, ...] = ("simple", "dynamic", "group", "calendar")


class StaggeredOptions(Part):
    """Options of a group-time analysis.

    Attributes:
        unit: Column of the unit; the table has one row per unit and period.
        panel: Whether effects are changes of complete units. `false`: each row counts in its own
            period, as in repeated cross-sections; with a unit (an unbalanced panel) the rows of
            one unit are not independent.
        period: Numeric column of the period.
        outcome: The outcome column, or a list of them: one set of effects for each.
        first_treated_period: Column of the first treated period, constant within a unit; null
            means never treated.
        never_treated_value: Value of `first_treated_period` that means never, instead of null.
        control_group: `never_treated`, or `not_yet_treated`: all units, the never treated among
            them, that start (less the anticipation) after both periods of a comparison.
        base_period: What a period before the start is compared with: `varying`, the period before
            it; `universal`, like all later periods, the last period before the anticipation.
        anticipation: Time before the start in which the treatment may already have an effect.
        cluster: Column of the clusters; the unit if left out. A unit lies in one cluster.
        small_sample: `none` divides by the number of units and uses normal quantiles, as R's `did`
            does; `clusters` multiplies the covariance by G/(G-1), G clusters (or units), and uses
            t quantiles with G-1 degrees of freedom.
        min_cohort_size: Clusters (units where none are named) that a cohort and a comparison group
            need: one alone has no variance that could be seen. 1 keeps all, as R's `did` does.
        aggregations: The averages of ATT(g,t) to report.
        min_event_time: The event study starts here.
        max_event_time: The event study, `simple` and `group` end here.
        balanced_event_time: The event study uses only cohorts seen this long after their start, in
            the event times that all of them can have.
        bands: How the simultaneous bands find their critical value: `gaussian` draws from the
            estimated covariance; `multiplier` draws signs of clusters (needs `cluster`).
        n_draws: Number of draws for the bands; the spec's seed fixes them.
        covariates: Numeric columns, given which trends are parallel: constant within a unit, or
            with `panel: false` each row's own.
        adjustment: How they are held equal, for each effect on its own. `regression`: a linear
            model of the comparison units' changes; `weighting`: comparison units weighted by the
            odds of being in the cohort, a logistic model, normalised; `doubly_robust`: both, right
            where one of the models is (`est_method` "reg", "ipw" and "dr" of R's `did`). With
            `panel: false` linear models of the outcome in each period take the place of the
            changes', and `doubly_robust` has one of the cohort as well (the locally efficient
            `drdid_rc`).
        max_propensity: Comparison units whose propensity reaches this get no weight.
        weights: Column of sampling weights, constant within a unit, none negative: how many
            units each one stands for, up to a factor.
        sensitivity: How far trends may depart from parallel ones before the event study is in
            doubt; needs `base_period: universal`.
        stability: Placebos, cohorts left out in turn and the other comparison group; takes
            neither covariates nor weights.
    """

    unit: ColumnName | None = None
    panel: bool = True
    period: ColumnName
    outcome: ColumnName | Annotated[list[ColumnName], Field(min_length=1)]
    first_treated_period: ColumnName
    never_treated_value: float | None = None
    control_group: Literal["never_treated", "not_yet_treated"] = "never_treated"
    base_period: Literal["varying", "universal"] = "varying"
    anticipation: int = Field(default=0, ge=0)
    cluster: ColumnName | None = None
    small_sample: Literal["none", "clusters"] = "none"
    min_cohort_size: int = Field(default=2, ge=1)
    aggregations: Annotated[list[Kind], Field(min_length=1)] = Field(
        default_factory=lambda: list(_KINDS)
    )
    min_event_time: int | None = None
    max_event_time: int | None = Field(default=None, ge=0)
    balanced_event_time: int | None = Field(default=None, ge=0)
    bands: Literal["gaussian", "multiplier"] = "gaussian"
    n_draws: int = Field(default=20_000, ge=1_000, le=1_000_000)
    covariates: list[ColumnName] = Field(default_factory=list)
    adjustment: Adjustment = "regression"
    max_propensity: float = Field(default=0.995, gt=0, lt=1)
    weights: ColumnName | None = None
    sensitivity: Sensitivity | None = None
    stability: Stability | None = None

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcome columns."""
        return (self.outcome,) if isinstance(self.outcome, str) else tuple(self.outcome)

    @property
    def timing(self) -> Timing:
        """From when units are treated."""
        return Timing(
            period=self.period,
            cohort=self.first_treated_period,
            never_treated_value=self.never_treated_value,
        )

    @property
    def cluster_column(self) -> str | None:
        """Column of the clusters; `None` where every unit is its own."""
        return None if self.cluster in {None, self.unit} else self.cluster

    @model_validator(mode="after")
    def _columns_differ(self) -> "StaggeredOptions":
        roles = [
            *self.outcomes, self.period, self.first_treated_period, *self.covariates
        ]  # fmt: skip
        more = (self.unit, self.cluster_column, self.weights)
        taken = [*roles, *(name for name in more if name is not None)]
        repeated = sorted({name for name in taken if taken.count(name) > 1})
        if repeated:
            raise ValueError(f"column used in two roles: {', '.join(repeated)}")
        return self

    @property
    def has_propensity(self) -> bool:
        """Whether a propensity is fitted."""
        return self.adjustment != "regression"

    @property
    def has_unit_influence(self) -> bool:
        """Whether a unit's influence is no sum of its outcomes and products of these."""
        return self.has_propensity or self.weights is not None

    @model_validator(mode="after")
    def _rows(self) -> "StaggeredOptions":
        if self.panel and self.unit is None:
            raise ValueError("unit is missing (only with panel: false there need be none)")
        if not self.panel and self.unit is not None and self.weights is not None:
            raise ValueError("panel: false takes weights of rows, without a unit")
        return self

    @model_validator(mode="after")
    def _adjustment(self) -> "StaggeredOptions":
        if self.has_propensity and not self.covariates:
            raise ValueError(f"adjustment: {self.adjustment} needs covariates")
        if "max_propensity" in self.model_fields_set and not self.has_propensity:
            raise ValueError("max_propensity goes with adjustment: weighting or doubly_robust")
        return self

    @model_validator(mode="after")
    def _credibility(self) -> "StaggeredOptions":
        is_plain = self.panel and not self.covariates and self.weights is None
        if self.stability is not None and not is_plain:
            raise ValueError("stability takes neither covariates nor weights, and panel: true")
        if self.sensitivity is None:
            return self
        if self.base_period != "universal" or "dynamic" not in self.aggregations:
            raise ValueError("sensitivity needs base_period: universal and the aggregation dynamic")
        return self

    @model_validator(mode="after")
    def _window(self) -> "StaggeredOptions":
        low, high, balance = self.min_event_time, self.max_event_time, self.balanced_event_time
        if low is not None and high is not None and low > high:
            raise ValueError("min_event_time must not lie after max_event_time")
        if balance is not None and "dynamic" not in self.aggregations:
            raise ValueError("balanced_event_time goes with the aggregation dynamic")
        if len(set(self.aggregations)) < len(self.aggregations):
            raise ValueError("an aggregation is listed twice")
        if self.bands == "multiplier" and self.cluster_column is None:
            raise ValueError(
                "bands: multiplier needs a cluster; for units, gaussian is the same with normal "
                "multipliers"
            )
        return self


class StaggeredSpec(Spec):
    """A group-time difference-in-differences analysis."""

    method: Literal["staggered"]
    options: StaggeredOptions
