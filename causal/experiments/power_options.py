"""What the spec of a plan may hold."""

from typing import Literal

from pydantic import Field, model_validator

from causal.core.frames import Level
from causal.core.spec import Part, Spec
from causal.experiments.comparison import Variance
from causal.experiments.metrics import ColumnName, MarginScale, Metric, columns_of
from causal.experiments.planned_test import Definition, Distribution
from causal.experiments.power_family import Correction
from causal.experiments.power_outcome import Response

_ANALYSIS_KEYS = ("confidence_level", "seed", "truth")
_MIN_ARMS = 2


class PlannedMetric(Metric):
    """A metric as in `ab`, with the effect that the experiment should find.

    A guardrail with a margin is planned as a test of non-inferiority, everything else as one of a
    difference.

    Attributes:
        mde: The effect to find: a positive number, in the good direction.
        mde_scale: Whether `mde`, and the detectable effects that are reported, are in the metric's
            unit or a share of the control level.
        response: Whether the treatment adds to units or multiplies them.
    """

    mde: float | None = Field(default=None, gt=0)
    mde_scale: MarginScale = "absolute"
    response: Response = "additive"

    @model_validator(mode="after")
    def _is_of_moments(self) -> "PlannedMetric":
        if not self.is_moment:
            raise ValueError(
                f"metric {self.name}: a {self.type} cannot be planned; plan a mean, a proportion, "
                "a count or a ratio"
            )
        if self.winsorise is not None and self.winsorise.quantiles:
            raise ValueError(
                f"metric {self.name}: a plan needs numbers for the bounds of winsorise"
            )
        return self

    @model_validator(mode="after")
    def _one_question(self) -> "PlannedMetric":
        given = sorted({"mde", "mde_scale"} & self.model_fields_set)
        if self.margin is not None and given:
            raise ValueError(
                f"metric {self.name}: a margin is planned as non-inferiority; leave {given[0]} out"
            )
        return self

    @property
    def is_non_inferiority(self) -> bool:
        """Whether the test is whether the metric stays within its margin."""
        return self.margin is not None

    @property
    def wanted(self) -> float | None:
        """The effect to find, or the margin to show; positive."""
        return self.mde if self.margin is None else self.margin


class PlannedClusters(Part):
    """Clusters of the experiment, where the history has none.

    Attributes:
        icc: Correlation of two units of one cluster.
        mean_size: Units per cluster.
        size_cv: Standard deviation of the clusters' sizes over their mean.
    """

    icc: float = Field(ge=0, le=1)
    mean_size: float = Field(ge=1)
    size_cv: float = Field(default=0.0, ge=0)


class PlannedArrivals(Part):
    """How units come in.

    Attributes:
        day: Column of the history: the day (date or whole number) on which a unit first appeared
            in the stretch that the history covers.
        is_new: 0/1 column: the unit had not been there before the stretch. Beyond the history only
            new units are counted on; without it all units count as new.
        per_day: Units per day, in place of a column.
        enrolled_share: Share of the arriving units that enter the experiment.
        follow_up_days: Days after its arrival until a unit's outcome is complete.
        whole_weeks: Round enrolment up to whole weeks.
        max_weeks: Longest enrolment that is looked at.
    """

    day: ColumnName | None = None
    is_new: ColumnName | None = None
    per_day: float | None = Field(default=None, gt=0)
    enrolled_share: float = Field(default=1.0, gt=0, le=1)
    follow_up_days: int = Field(default=0, ge=0, le=3650)
    whole_weeks: bool = True
    max_weeks: int = Field(default=26, ge=1, le=520)

    @model_validator(mode="after")
    def _one_source(self) -> "PlannedArrivals":
        if (self.day is None) == (self.per_day is None):
            raise ValueError("give exactly one of day and per_day")
        if self.is_new is not None and self.day is None:
            raise ValueError("is_new needs day")
        return self


class PowerOptions(Part):
    """Options of a plan.

    Attributes:
        unit: Column of the unit; it must identify a row of the history.
        metrics: The outcomes.
        cluster: Column of the clusters that will be randomised, if the history has them.
        planned_clusters: The same by numbers, if it has not.
        control: Name of the control arm.
        shares: Planned share of each variant, as shares or weights.
        alpha: Error rate of the family of tests (1 less the analysis' `confidence_level`).
        power: Wanted probability to find the effect, or to show non-inferiority.
        alternative: Of differences. Non-inferiority is tested on one side at `alpha / 2`, or at
            `alpha` with `one_sided`, and is not corrected: all guardrails have to hold.
        correction: For several tests of differences.
        n_tests: How many there are; treatments times metrics that are no guardrails if left out.
        variance: As in `ab`.
        distribution: Reference of the test; `ab` takes `t`.
        definition: `suite` is what `ab` does; the others reproduce known calculators.
        inflation: Largest sample of the sequential design over that of the fixed one.
        units: Units that will be there in all arms: what can be found with them?
        arrivals: How units come in: how long will it take?
    """

    unit: ColumnName
    metrics: tuple[PlannedMetric, ...] = Field(min_length=1)
    cluster: ColumnName | None = None
    planned_clusters: PlannedClusters | None = None
    control: Level = "control"
    shares: dict[Level, float] = Field(default={"control": 0.5, "treatment": 0.5})
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    power: float = Field(default=0.8, gt=0.5, lt=1)
    alternative: Literal["two_sided", "one_sided"] = "two_sided"
    correction: Correction = "none"
    n_tests: int | None = Field(default=None, ge=1)
    variance: Variance = "welch"
    distribution: Distribution = "t"
    definition: Definition = "suite"
    inflation: float = Field(default=1.0, ge=1, le=100)
    units: int | None = Field(default=None, ge=4)
    arrivals: PlannedArrivals | None = None

    @model_validator(mode="after")
    def _names_fit(self) -> "PowerOptions":
        names = [metric.name for metric in self.metrics]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two metrics are called {repeated[0]}")
        roles = {self.unit, self.cluster} - {None}
        if self.cluster == self.unit:
            raise ValueError("unit and cluster must be different columns")
        for metric in self.metrics:
            shared = columns_of(metric).intersection(roles)
            if shared:
                raise ValueError(f"metric {metric.name}: {min(shared)} is the unit or cluster")
        return self

    @model_validator(mode="after")
    def _arms_fit(self) -> "PowerOptions":
        bad = [level for level, share in self.shares.items() if not share > 0]
        if bad:
            raise ValueError(f"the share of {bad[0]} must be positive")
        if self.control not in self.shares:
            raise ValueError(f"control {self.control} has no share")
        if len(self.shares) < _MIN_ARMS:
            raise ValueError("there is no treatment among the shares")
        return self

    @model_validator(mode="after")
    def _test_fits(self) -> "PowerOptions":
        is_clustered = self.cluster is not None or self.planned_clusters is not None
        if self.cluster is not None and self.planned_clusters is not None:
            raise ValueError("give cluster or planned_clusters, not both")
        if is_clustered and "variance" in self.model_fields_set:
            raise ValueError("variance applies to independent units; with clusters leave it out")
        if self.n_tests is not None and self.correction == "none":
            raise ValueError("n_tests needs a correction")
        if self.definition == "suite":
            return self
        if is_clustered:
            raise ValueError(f"{self.definition} knows independent units only")
        given = sorted({"variance", "distribution"} & self.model_fields_set)
        if given:
            raise ValueError(f"{self.definition} has a {given[0]} of its own; leave it out")
        return self

    @model_validator(mode="after")
    def _something_is_asked(self) -> "PowerOptions":
        has_effects = any(metric.wanted is not None for metric in self.metrics)
        if not has_effects and self.units is None and self.arrivals is None:
            raise ValueError("nothing to plan: give an mde or margin, units or arrivals")
        return self

    @property
    def treatments(self) -> tuple[Level, ...]:
        """The arms but control."""
        return tuple(level for level in self.shares if level != self.control)

    @property
    def normalised_shares(self) -> dict[Level, float]:
        """Shares that add up to one."""
        total = sum(self.shares.values())
        return {level: share / total for level, share in self.shares.items()}

    @property
    def family_size(self) -> int:
        """Tests of differences among which the error rate is shared."""
        n_metrics = sum(metric.role != "guardrail" for metric in self.metrics)
        return self.n_tests or max(1, n_metrics * len(self.treatments))


class PowerSpec(Spec):
    """A plan: the source is the history."""

    method: Literal["power"] = "power"
    options: PowerOptions

    @model_validator(mode="after")
    def _has_no_analysis(self) -> "PowerSpec":
        for key in _ANALYSIS_KEYS:
            if key in self.model_fields_set:
                raise ValueError(
                    f"{key} belongs to an analysis; a plan has alpha among its options"
                )
        return self


SPEC = PowerSpec
