"""Options of the method `switchback`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.spec import Spec
from causal.quasi.synthetic.region_options import ColumnName, PanelOptions

Effects = Literal["region", "season", "period"]
Covariance = Literal["block", "neighbours", "region_day", "region", "newey_west", "driscoll_kraay"]


class SwitchbackOptions(PanelOptions):
    """A switchback experiment: regions whose treatment is drawn anew for each block of periods.

    Attributes:
        period: Column of the period, whole numbers such as hours since a date.
        treatment: Column of the treatment, 0 or 1, the same within a block.
        block_length: Periods of a block; or
        block: a column that names the block within its region.
        block_origin: A period in which a block begins, with `block_length`.
        randomised_by: What is drawn on its own: each `region_block`, or each `block` for all
            regions together.
        fixed_effects: Taken out of outcome and treatment: `region`, and `season` (the position in
            a season, such as the hour of the week) or `period`; none: a difference in means.
        season: Periods of a season: 168 hours of a week, 24 of a day.
        wash_out: Periods after a switch that are left out: a period is used if the treatment was
            the same in so many periods before it.
        weighting: Whether each region and period counts the same (`cells`) or by its rows.
        covariance: Errors clustered by `block` (what is randomised), by `neighbours` (the same,
            with what blocks share with those before), `region_day` or `region`, or serially
            correlated: `newey_west` within regions, `driscoll_kraay` across them too. If left out
            `block`, or `neighbours` with a wash-out.
        cluster_correction: Of clustered errors: `cr2` (Bell and McCaffrey 2002), unbiased under
            independent errors of one variance, with the degrees of freedom that follow; or `cr1`,
            `G/(G-1) (n-1)/(n-k)` with G - 1, too small with few blocks. If left out `cr2`.
        day_length: Periods of a day, for `region_day`; days begin at `block_origin`.
        lags: Of the last two; if left out the larger of two blocks and
            `4 (T / 100)^(2/9)`.
        randomisation_draws: Assignments drawn for the randomisation test; 0: none.
        randomisation: How: each block by itself (`bernoulli`), or the blocks of a region permuted
            (`permute`).
        treated_share: Probability of the treatment in a block, for `bernoulli`.
    """

    first_period: float | None = None
    last_period: float | None = None
    treatment: ColumnName
    block_length: int | None = Field(default=None, ge=1)
    block: ColumnName | None = None
    block_origin: int = 0
    randomised_by: Literal["region_block", "block"] = "region_block"
    fixed_effects: Annotated[list[Effects], Field(max_length=2)] = Field(
        default=["region", "season"]
    )
    season: int | None = Field(default=None, ge=2)
    wash_out: int = Field(default=0, ge=0, le=1_000)
    weighting: Literal["cells", "rows"] = "cells"
    covariance: Covariance | None = None
    cluster_correction: Literal["cr2", "cr1"] | None = None
    day_length: int = Field(default=24, ge=1)
    lags: int | None = Field(default=None, ge=0)
    randomisation_draws: int = Field(default=999, ge=0, le=100_000)
    randomisation: Literal["bernoulli", "permute"] = "bernoulli"
    treated_share: float = Field(default=0.5, gt=0.0, lt=1.0)

    @property
    def roles(self) -> tuple[str, ...]:
        """Columns of which each has a role of its own."""
        block = () if self.block is None else (self.block,)
        return (*super().roles, self.treatment, *block)

    @property
    def errors(self) -> Covariance:
        """The covariance that is used.

        A wash-out keeps the first periods of a block only if the block before had the same
        treatment, so what two such blocks add to the estimate moves together.
        """
        if self.covariance is not None:
            return self.covariance
        return "block" if self.wash_out == 0 else "neighbours"

    @property
    def correction(self) -> Literal["cr2", "cr1"]:
        """The correction of clustered errors that is used."""
        return self.cluster_correction or "cr2"

    @property
    def is_serial(self) -> bool:
        """Whether errors are serially correlated in place of clustered."""
        return self.covariance in {"newey_west", "driscoll_kraay"}

    @model_validator(mode="after")
    def _blocks_are_known(self) -> "SwitchbackOptions":
        if (self.block_length is None) == (self.block is None):
            raise ValueError("give exactly one of block_length and block")
        if self.block_length is not None and self.wash_out >= self.block_length:
            raise ValueError(
                f"wash_out {self.wash_out} leaves nothing of blocks of {self.block_length} periods"
            )
        if self.block_origin != 0 and self.block_length is None:
            raise ValueError("block_origin goes with block_length")
        return self

    @model_validator(mode="after")
    def _effects_fit(self) -> "SwitchbackOptions":
        effects = set(self.fixed_effects)
        if len(effects) < len(self.fixed_effects) or {"season", "period"} <= effects:
            raise ValueError("fixed_effects: region, and season or period, each once")
        if ("season" in effects) != (self.season is not None):
            raise ValueError(
                "season (168 for hours of the week) goes with fixed effects of the season; "
                "fixed_effects: [region] leaves them out"
            )
        if "period" in effects and self.randomised_by == "block":
            raise ValueError(
                "effects of each period take the treatment out where all regions switch together"
            )
        return self

    @model_validator(mode="after")
    def _errors_fit(self) -> "SwitchbackOptions":
        if self.lags is not None and not self.is_serial:
            raise ValueError("lags go with covariance: newey_west or driscoll_kraay")
        if self.cluster_correction is not None and self.is_serial:
            raise ValueError("cluster_correction goes with clustered errors")
        if self.randomised_by == "block" and self.covariance in {
            "region_day", "region", "newey_west",
        }:  # fmt: skip
            raise ValueError(
                f"{self.covariance} takes regions for independent, which they are not where all "
                "switch together: covariance: block or driscoll_kraay"
            )
        if self.weighting == "rows" and self.aggregate != "mean":
            raise ValueError("weighting: rows needs aggregate: mean")
        if self.randomisation == "permute" and self.treated_share != 0.5:  # noqa: PLR2004
            raise ValueError("treated_share goes with randomisation: bernoulli")
        return self


class SwitchbackSpec(Spec):
    """A switchback analysis."""

    method: Literal["switchback"] = "switchback"
    options: SwitchbackOptions
