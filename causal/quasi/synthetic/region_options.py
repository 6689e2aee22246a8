"""Options that synthetic control and synthetic difference in differences share."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.frames import Level
from causal.core.spec import COLUMN_PATTERN, Part
from causal.quasi.geo.returns import Spend
from causal.quasi.time_axis import GivenPeriod, label_of, lies_after, shown

ColumnName = Annotated[str, Field(pattern=COLUMN_PATTERN)]
Levels = Annotated[list[Level], Field(min_length=1)]


class PanelOptions(Part):
    """A panel of regions, one value per region and period.

    Attributes:
        unit: Column of the region.
        period: Column of the period, numbers or dates.
        outcome: The outcome column, or a list of them: one set of effects for each.
        excluded: Regions that take no part.
        first_period: Earlier periods are left out.
        last_period: Later periods are left out.
        aggregate: How several rows of a region and period become one value: `none` refuses them.
        weight: Column of row weights; needs `aggregate: mean` or `sum`.
    """

    unit: ColumnName
    period: ColumnName
    outcome: ColumnName | Annotated[list[ColumnName], Field(min_length=1)]
    excluded: list[Level] = Field(default_factory=list)
    first_period: GivenPeriod | None = None
    last_period: GivenPeriod | None = None
    aggregate: Literal["none", "mean", "sum"] = "none"
    weight: ColumnName | None = None

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcome columns."""
        return (self.outcome,) if isinstance(self.outcome, str) else tuple(self.outcome)

    @property
    def roles(self) -> tuple[str, ...]:
        """Columns of which each has a role of its own."""
        return (*self.outcomes, self.unit, self.period)

    @model_validator(mode="after")
    def _periods_are_ordered(self) -> "PanelOptions":
        first, last = self.first_period, self.last_period
        if first is not None and last is not None and lies_after(first, last):
            raise ValueError(
                f"first_period {shown(label_of(first))} lies after last_period "
                f"{shown(label_of(last))}"
            )
        return self

    @model_validator(mode="after")
    def _rows(self) -> "PanelOptions":
        if self.weight is not None and self.aggregate == "none":
            raise ValueError("weight needs aggregate: mean or sum")
        repeated = sorted({name for name in self.roles if self.roles.count(name) > 1})
        if repeated:
            raise ValueError(f"column used in two roles: {', '.join(repeated)}")
        return self


class WholePanelOptions(PanelOptions):
    """A panel without holes.

    Attributes:
        incomplete: What becomes of regions that lack a period (treated ones excepted): `refuse` the
            data or `drop` them.
        spacing: `regular` refuses periods that no region has, `ordered` takes periods as they
            follow.
    """

    incomplete: Literal["refuse", "drop"] = "refuse"
    spacing: Literal["regular", "ordered"] = "regular"


class RegionOptions(WholePanelOptions):
    """A panel of regions, of which some are treated from some period on.

    Attributes:
        treated: The treated region, a list of them (they start in `treatment_period`), or a mapping
            of each to its first treated period.
        treatment_period: First treated period of the regions of `treated`.
        first_treated_period: Column of the first treated period instead, constant within a region;
            null means never treated.
        donors: The regions that may serve as comparison; all untreated ones if left out.
        returns: What the treatment cost, for the incremental return on it.
    """

    treated: Level | Levels | Annotated[dict[Level, GivenPeriod], Field(min_length=1)] | None = None
    treatment_period: GivenPeriod | None = None
    first_treated_period: ColumnName | None = None
    donors: Annotated[list[Level], Field(min_length=1)] | None = None
    returns: Spend | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        """Columns of which each has a role of its own."""
        first = self.first_treated_period
        return super().roles if first is None else (*super().roles, first)

    @property
    def named_starts(self) -> dict[Level, GivenPeriod]:
        """First treated periods of the regions that `treated` names; empty where a column says."""
        if self.treated is None:
            return {}
        if isinstance(self.treated, dict):
            return dict(self.treated)
        names = self.treated if isinstance(self.treated, list) else [self.treated]
        start = 0.0 if self.treatment_period is None else self.treatment_period
        return dict.fromkeys(names, start)

    @model_validator(mode="after")
    def _one_treatment(self) -> "RegionOptions":
        if (self.treated is None) == (self.first_treated_period is None):
            raise ValueError("give exactly one of treated and first_treated_period")
        needs_period = self.treated is not None and not isinstance(self.treated, dict)
        if needs_period != (self.treatment_period is not None):
            raise ValueError(
                "treatment_period goes with treated: one region or a list; a mapping of regions "
                "to periods and first_treated_period say it themselves"
            )
        if isinstance(self.treated, list) and len(set(self.treated)) < len(self.treated):
            raise ValueError("treated names a region twice")
        return self

    @model_validator(mode="after")
    def _regions_have_one_role(self) -> "RegionOptions":
        treated = set(self.named_starts)
        pool = set(self.donors or ())
        if len({str(donor) for donor in self.donors or ()}) < len(self.donors or ()):
            raise ValueError("a donor is listed twice")
        for one, other, words in (
            (treated, pool, "treated region in the donor pool"),
            (treated, set(self.excluded), "treated region among the excluded"),
            (pool, set(self.excluded), "donor among the excluded"),
        ):
            if one & other:
                raise ValueError(f"{words}: {', '.join(sorted(map(str, one & other)))}")
        return self

    @model_validator(mode="after")
    def _one_outcome_is_paid_for(self) -> "RegionOptions":
        if self.returns is None:
            return self
        if self.returns.outcome is None and len(self.outcomes) > 1:
            raise ValueError(f"returns.outcome must say which: {', '.join(self.outcomes)}")
        if self.returns.outcome not in {None, *self.outcomes}:
            raise ValueError(f"returns.outcome {self.returns.outcome} is no outcome")
        return self
