"""Options of the placebos and of what is left out in turn in a staggered design."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from causal.core.spec import Part

Check = Literal["leave_one_cohort_out", "control_group", "placebo_time", "placebo_cohorts"]


class Stability(Part):
    """Does the average effect hold up, and is there none where there can be none?

    All of it comes from the moments that the analysis asked for anyway.

    Attributes:
        checks: `leave_one_cohort_out`: the average without each cohort in turn, as treated and as
            comparison; `control_group`: with the other comparison group; `placebo_time`: every
            cohort pretended to start `placebo_periods` earlier, up to its true start;
            `placebo_cohorts`: cohorts not treated yet pretended to start when an earlier one does,
            up to their own start.
        placebo_periods: By how much earlier `placebo_time` has the cohorts start.
    """

    checks: Annotated[list[Check], Field(min_length=1)] = Field(
        default_factory=lambda: list(get_args(Check))
    )
    placebo_periods: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _listed_once(self) -> "Stability":
        if len(set(self.checks)) < len(self.checks):
            raise ValueError("a check is listed twice")
        return self
