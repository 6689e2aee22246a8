"""Options of the plan `geo_design`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.frames import Level
from causal.core.spec import Spec
from causal.quasi.synthetic.region_options import ColumnName, WholePanelOptions

Selection = Literal["correlation", "random", "stratified", "matched_pairs"]
Estimator = Literal["synthetic_did", "synthetic_control", "did"]


class GeoDesignOptions(WholePanelOptions):
    """A geo experiment to be designed on the history of its regions.

    Attributes:
        outcome: The outcome column.
        sizes: Numbers of treated regions to try.
        durations: Numbers of periods the experiment may take.
        lifts: True effects for which power is shown, as shares of the treated regions' outcome;
            zero, the A/A rate, is always among them.
        include: Regions that are treated in any case.
        control_only: Regions that are never treated but may be compared with.
        selection: How treated sets are found: `correlation` (a region and those that move with it
            most), `random`, `stratified` (random within strata of volume), `matched_pairs` (one of
            each of the pairs that move together most, at random).
        n_strata: Strata of volume.
        n_draws: Random sets per size and kind of selection.
        max_candidates: Sets that are screened at most; those beyond are counted.
        n_finalists: Sets, per size, whose test is simulated after the screening.
        estimator: The analysis to come: `synthetic_did`, `synthetic_control` or `did` (method
            `synthetic_did` with `estimator: did`), each with placebo inference.
        variant: Of `synthetic_control`.
        n_replications: Placebo draws behind each test of `synthetic_did` and `did`.
        n_windows: Pretended experiments on the history, at most, the latest ones.
        step: Periods from one to the next; as many as the experiment takes if left out, so that
            windows do not overlap.
        pre_periods: Periods before a window that its test is given; all there are if left out.
        min_pre_periods: Fewest periods before a window; a third of the history if left out.
        power: Wanted power, for the smallest detectable lift.
        direction: Side of that lift.
        max_treated_share: Largest share of the volume that may be treated.
        min_treated_share: Smallest one.
        cost_per_unit: Cost of one more unit of the outcome, to turn a lift into a budget.
        budget: Sets whose smallest detectable lift costs more are ranked last.
    """

    outcome: ColumnName
    sizes: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=20)]
    durations: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=20)]
    lifts: Annotated[
        list[Annotated[float, Field(gt=-1.0, lt=10.0)]], Field(min_length=1, max_length=50)
    ] = Field(default=[0.02, 0.05, 0.1, 0.15, 0.2])
    include: list[Level] = Field(default_factory=list)
    control_only: list[Level] = Field(default_factory=list)
    selection: Annotated[list[Selection], Field(min_length=1)] = Field(
        default=["correlation", "stratified"]
    )
    n_strata: int = Field(default=4, ge=2, le=20)
    n_draws: int = Field(default=50, ge=1, le=10_000)
    max_candidates: int = Field(default=200, ge=1, le=10_000)
    n_finalists: int = Field(default=3, ge=1, le=100)
    estimator: Estimator = "synthetic_did"
    variant: Literal["standard", "demeaned", "ridge_augmented", "penalised"] = "standard"
    n_replications: int = Field(default=100, ge=50, le=100_000)
    n_windows: int = Field(default=30, ge=2, le=1_000)
    step: int | None = Field(default=None, ge=1)
    pre_periods: int | None = Field(default=None, ge=2)
    min_pre_periods: int | None = Field(default=None, ge=2)
    power: float = Field(default=0.8, gt=0.0, lt=1.0)
    direction: Literal["increase", "decrease"] = "increase"
    max_treated_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    min_treated_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    cost_per_unit: float | None = Field(default=None, gt=0.0)
    budget: float | None = Field(default=None, gt=0.0)

    @property
    def shown_lifts(self) -> tuple[float, ...]:
        """The lifts, zero among them, ascending."""
        return tuple(sorted({0.0, *self.lifts}))

    @model_validator(mode="after")
    def _lists_do_not_repeat(self) -> "GeoDesignOptions":
        for name in ("sizes", "durations", "lifts", "include", "control_only", "selection"):
            values = [str(value) for value in getattr(self, name)]
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names a value twice")
        return self

    @model_validator(mode="after")
    def _lifts_are_effects(self) -> "GeoDesignOptions":
        if 0.0 in self.lifts:
            raise ValueError("lifts must not be zero: the A/A rate is always shown")
        return self

    @model_validator(mode="after")
    def _regions_have_one_role(self) -> "GeoDesignOptions":
        roles = (("include", self.include), ("control_only", self.control_only))
        for name, regions in roles:
            both = sorted({str(x) for x in regions} & {str(x) for x in self.excluded})
            if both:
                raise ValueError(f"region both in {name} and excluded: {', '.join(both)}")
        both = sorted({str(x) for x in self.include} & {str(x) for x in self.control_only})
        if both:
            raise ValueError(f"region both in include and control_only: {', '.join(both)}")
        if min(self.sizes) < len(self.include):
            raise ValueError(f"a size is smaller than the {len(self.include)} included regions")
        return self

    @model_validator(mode="after")
    def _bounds_fit(self) -> "GeoDesignOptions":
        if self.variant != "standard" and self.estimator != "synthetic_control":
            raise ValueError("variant goes with estimator: synthetic_control")
        if self.budget is not None and self.cost_per_unit is None:
            raise ValueError("budget needs cost_per_unit")
        low, high = self.min_treated_share, self.max_treated_share
        if low is not None and high is not None and low >= high:
            raise ValueError("min_treated_share must lie below max_treated_share")
        before, least = self.pre_periods, self.min_pre_periods
        if before is not None and least is not None and least > before:
            raise ValueError("min_pre_periods lies above pre_periods")
        return self


class GeoDesignSpec(Spec):
    """The plan of a geo experiment."""

    method: Literal["geo_design"] = "geo_design"
    options: GeoDesignOptions
