"""Options of a Bayesian structural time series: the series, the model, its priors, the sampler."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from causal.core.frames import Level
from causal.core.spec import Part, Spec
from causal.quasi.structural.spike_slab import CoefficientPrior
from causal.quasi.structural.state_model import Components
from causal.quasi.structural.variance import VariancePrior
from causal.quasi.synthetic.region_options import ColumnName, Levels, RegionOptions
from causal.quasi.time_axis import GivenPeriod

MIN_PRE_PERIODS = 3
MIN_CYCLES = 2
_REGION_KEYS = (
    "treated", "first_treated_period", "donors", "excluded", "incomplete",
)  # fmt: skip
_PERIOD_KEYS = ("treatment_period", "first_period", "last_period")


class Seasonality(Part):
    """Effects of seasons that sum to zero over a cycle and may drift.

    Attributes:
        n_seasons: Seasons in a cycle: 7 for days of the week.
        duration: Periods that a season lasts.
    """

    n_seasons: int = Field(ge=2, le=366, strict=True)
    duration: int = Field(default=1, ge=1, le=10_000, strict=True)


class Priors(Part):
    """What is believed before the data; scales in standard deviations of the series before.

    Attributes:
        level_sd: Guess at the standard deviation of a step of the level.
        level_df: Periods that the guess is worth.
        slope_sd: The same for the slope of a local linear trend.
        slope_df: Periods that the guess is worth.
        seasonal_sd: The same for the seasonal effects.
        seasonal_df: Periods that the guess is worth.
        expected_model_size: Covariates expected to matter.
        expected_r2: Share of the variance expected to be explained.
        residual_df: Periods that `expected_r2` is worth.
        information: Periods that the prior mean zero of the coefficients is worth.
        diagonal_shrinkage: Near 0 the prior of the coefficients has the covariates' correlations
            (Zellner's g-prior), at 1 it has none.
    """

    level_sd: float = Field(default=0.01, gt=0, le=1)
    level_df: float = Field(default=32.0, gt=0)
    slope_sd: float = Field(default=0.01, gt=0, le=1)
    slope_df: float = Field(default=32.0, gt=0)
    seasonal_sd: float = Field(default=0.01, gt=0, le=1)
    seasonal_df: float = Field(default=0.01, gt=0)
    expected_model_size: float = Field(default=3.0, gt=0)
    expected_r2: float = Field(default=0.8, gt=0, lt=1)
    residual_df: float = Field(default=50.0, gt=0)
    information: float = Field(default=0.01, gt=0)
    diagonal_shrinkage: float = Field(default=0.5, ge=0.01, le=1)

    @property
    def coefficients(self) -> CoefficientPrior:
        """The spike and the slab."""
        return CoefficientPrior(
            expected_size=self.expected_model_size,
            information=self.information,
            diagonal_shrinkage=self.diagonal_shrinkage,
        )


class BstsOptions(Part):
    """One series, treated from some period on, and what moves with it.

    Either a table with a row per period (`covariates` are its columns), or a panel of regions
    (`unit` is given; the other regions' paths are covariates too).

    Attributes:
        period: Column of the period, numbers or dates.
        outcome: The outcome column, or a list of them: one set of effects for each.
        covariates: Columns that move with the outcome and that the treatment leaves alone.
        unit: Column of the region.
        treated: The treated region, or a list of them; their mean is the series.
        treatment_period: First treated period.
        first_treated_period: Column of the first treated period instead; null means never treated.
        donors: The regions that may serve as covariates; all untreated ones if left out.
        excluded: Regions that take no part.
        incomplete: What becomes of donors that lack a period: `refuse` the data or `drop` them.
        first_period: Earlier periods are left out.
        last_period: Later periods are left out.
        aggregate: How several rows of a period (and region) become one: `none` refuses them.
        weight: Column of row weights; needs `aggregate: mean` or `sum`.
        spacing: `regular` refuses holes in the periods, `ordered` takes them as they follow.
        trend: `level` is a random walk, `linear` gives it a slope that walks too.
        seasonality: A cycle of seasons, or a list of cycles.
        n_draws: Draws of each chain.
        burn_in: Share of them that is thrown away.
        n_chains: Independent chains.
        max_flips: How many covariates each draw may take in or out; all if left out.
        placebo: Pretend an earlier start on the periods before the true one.
        placebo_period: The pretended start; if left out, so late that as many periods follow as
            follow the true one, but at most a third of those before.
        priors: Beliefs before the data.
        tail: `two_sided` reports twice the posterior probability of an effect of the other sign as
            p-value, `one_sided` the probability itself, as R's CausalImpact does.
    """

    period: ColumnName
    outcome: ColumnName | Annotated[list[ColumnName], Field(min_length=1)]
    covariates: list[ColumnName] = Field(default_factory=list)
    unit: ColumnName | None = None
    treated: Level | Levels | None = None
    treatment_period: GivenPeriod | None = None
    first_treated_period: ColumnName | None = None
    donors: Annotated[list[Level], Field(min_length=1)] | None = None
    excluded: list[Level] = Field(default_factory=list)
    incomplete: Literal["refuse", "drop"] = "refuse"
    first_period: GivenPeriod | None = None
    last_period: GivenPeriod | None = None
    aggregate: Literal["none", "mean", "sum"] = "none"
    weight: ColumnName | None = None
    spacing: Literal["regular", "ordered"] = "regular"
    trend: Literal["level", "linear"] = "level"
    seasonality: Seasonality | Annotated[list[Seasonality], Field(min_length=1)] | None = None
    n_draws: int = Field(default=1000, ge=100, le=1_000_000, strict=True)
    burn_in: float = Field(default=0.1, ge=0.01, le=0.9)
    n_chains: int = Field(default=1, ge=1, le=64, strict=True)
    max_flips: int | None = Field(default=None, ge=1, strict=True)
    placebo: bool = True
    placebo_period: GivenPeriod | None = None
    priors: Priors = Field(default_factory=Priors)
    tail: Literal["two_sided", "one_sided"] = "two_sided"

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcome columns."""
        return (self.outcome,) if isinstance(self.outcome, str) else tuple(self.outcome)

    @property
    def start(self) -> GivenPeriod:
        """The first treated period of a table with a row per period."""
        if self.treatment_period is None:
            raise ValueError("the regions say when they start")
        return self.treatment_period

    @property
    def cycles(self) -> tuple[Seasonality, ...]:
        """The seasonal cycles."""
        if self.seasonality is None:
            return ()
        if isinstance(self.seasonality, Seasonality):
            return (self.seasonality,)
        return tuple(self.seasonality)

    @property
    def components(self) -> Components:
        """The parts of the state."""
        priors = self.priors
        return Components(
            has_slope=self.trend == "linear",
            seasons=tuple((cycle.n_seasons, cycle.duration) for cycle in self.cycles),
            level=VariancePrior(guess=priors.level_sd, df=priors.level_df, upper=1.0),
            slope=VariancePrior(guess=priors.slope_sd, df=priors.slope_df, upper=1.0),
            seasonal=VariancePrior(guess=priors.seasonal_sd, df=priors.seasonal_df, upper=1.0),
        )

    @property
    def min_pre_periods(self) -> int:
        """Periods that must come before the start: some, and two cycles of each seasonality."""
        lengths = [cycle.n_seasons * cycle.duration for cycle in self.cycles]
        return max([MIN_PRE_PERIODS, *(MIN_CYCLES * length for length in lengths)])

    @property
    def regions(self) -> RegionOptions:
        """The part of the options that says which panel of regions is read."""
        if self.unit is None:
            raise ValueError("a table with a row per period has no regions")
        given: dict[str, Any] = {name: getattr(self, name) for name in _REGION_KEYS}
        for name in _PERIOD_KEYS:
            given[name] = getattr(self, name)
        return RegionOptions(
            unit=self.unit, period=self.period, outcome=self.outcome, aggregate=self.aggregate,
            weight=self.weight, spacing=self.spacing, **given,
        )  # fmt: skip

    @model_validator(mode="after")
    def _table_or_panel(self) -> "BstsOptions":
        if self.unit is not None:
            return self._panel_is_valid()
        for name in _REGION_KEYS:
            if name in self.model_fields_set and getattr(self, name) is not None:
                raise ValueError(f"{name} needs unit: it speaks of a panel of regions")
        if self.treatment_period is None:
            raise ValueError("treatment_period is required: the first treated period")
        if self.weight is not None and self.aggregate == "none":
            raise ValueError("weight needs aggregate: mean or sum")
        return self

    def _panel_is_valid(self) -> "BstsOptions":
        try:
            _ = self.regions
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return self

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> "BstsOptions":
        roles = [
            *self.outcomes, *self.covariates, self.period, self.unit, self.first_treated_period,
            self.weight,
        ]  # fmt: skip
        repeated = sorted({name for name in roles if name is not None and roles.count(name) > 1})
        if repeated:
            raise ValueError(f"column used in two roles: {', '.join(repeated)}")
        return self

    @model_validator(mode="after")
    def _placebo_is_wanted(self) -> "BstsOptions":
        if self.placebo_period is not None and not self.placebo:
            raise ValueError("placebo_period goes with placebo: true")
        return self


class BstsSpec(Spec):
    """A Bayesian structural time series analysis."""

    method: Literal["bsts"]
    options: BstsOptions
