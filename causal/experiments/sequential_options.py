"""What a spec says about looking at an experiment while it runs."""

import itertools
from typing import Literal, cast

from pydantic import Field, model_validator

from causal.core.spec import Part
from causal.experiments.group_sequential import Rule, WangTsiatis
from causal.experiments.sequential_design import Futility, design, planned_fractions
from causal.experiments.spending import MIN_INCREMENT, Spending

Method = Literal[
    "spending", "obrien_fleming", "pocock", "wang_tsiatis", "confidence_sequence", "msprt"
]

_CLASSIC = {"obrien_fleming": 0.0, "pocock": 0.5}
ALWAYS_VALID = ("confidence_sequence", "msprt")
"""Methods without a planned number of looks or amount of information."""


class SequentialOptions(Part):
    """How an experiment is looked at.

    Attributes:
        method: The test.
        alpha: Its level over all looks: two-sided, or of the one side if `alternative` has one.
        alternative: Which effects count as one.
        spending: With method `spending`: the function; O'Brien-Fleming type if left out.
        delta: With method `wang_tsiatis`: exponent of the boundary.
        planned_fractions: Planned information fractions, the last one 1. The classic tests need
            them, one per look; futility needs them for its drift.
        maximum_information: Information at the planned end, in the unit of the looks' information.
            With `confidence_sequence`: where the interval is to be narrowest.
        futility: Stops for lack of an effect; group sequential methods only.
        effect_spread: With method `msprt`: standard deviation of the effects one expects, in the
            unit of the estimate.
        null_value: The effect under the null hypothesis.
    """

    method: Method = "spending"
    alpha: float = Field(default=0.05, gt=1e-6, lt=0.5)
    alternative: Literal["two_sided", "increase", "decrease"] = "two_sided"
    spending: Spending | None = None
    delta: float | None = Field(default=None, ge=-0.5, le=0.75)
    planned_fractions: tuple[float, ...] | None = Field(default=None, min_length=1)
    maximum_information: float | None = Field(default=None, gt=0)
    futility: Futility | None = None
    effect_spread: float | None = Field(default=None, gt=0)
    null_value: float = 0.0

    @model_validator(mode="after")
    def _options_fit_method(self) -> "SequentialOptions":
        needed, refused = _FITTING[self.method]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"method {self.method} needs {name}")
        for name in refused:
            if getattr(self, name) is not None:
                raise ValueError(f"method {self.method} has no use for {name}")
        return self

    @model_validator(mode="after")
    def _futility_is_planned(self) -> "SequentialOptions":
        if self.futility is None:
            return self
        if self.planned_fractions is None or self.maximum_information is None:
            raise ValueError("futility needs planned_fractions and maximum_information")
        if self.futility.is_binding and self.is_two_sided:
            raise ValueError("binding futility needs a one-sided alternative")
        return self

    @model_validator(mode="after")
    def _plan_grows_to_one(self) -> "SequentialOptions":
        if self.planned_fractions is None:
            return self
        at = (0.0, *self.planned_fractions)
        is_growing = all(
            after - before >= MIN_INCREMENT * after for before, after in itertools.pairwise(at)
        )
        if not is_growing or at[-1] != 1.0:
            raise ValueError("planned_fractions must grow and end at 1")
        return self

    @property
    def is_two_sided(self) -> bool:
        """Whether effects of both signs count."""
        return self.alternative == "two_sided"

    @property
    def side_alpha(self) -> float:
        """Level of one side."""
        return self.alpha / 2 if self.is_two_sided else self.alpha

    @property
    def confidence_level(self) -> float:
        """Coverage of the intervals: each end errs with the level of one side."""
        return 1 - 2 * self.side_alpha

    @property
    def rule(self) -> Rule:
        """How a group sequential method spends its error."""
        if self.method == "spending":
            return self.spending or Spending()
        delta = self.delta if self.delta is not None else _CLASSIC[self.method]
        return WangTsiatis(delta=delta)


_FITTING: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "spending": (("maximum_information",), ("delta", "effect_spread")),
    "obrien_fleming": (("planned_fractions",), ("spending", "delta", "effect_spread")),
    "pocock": (("planned_fractions",), ("spending", "delta", "effect_spread")),
    "wang_tsiatis": (("planned_fractions", "delta"), ("spending", "effect_spread")),
    "confidence_sequence": (
        ("maximum_information",),
        ("spending", "delta", "effect_spread", "planned_fractions", "futility"),
    ),
    "msprt": (
        ("effect_spread",),
        ("spending", "delta", "planned_fractions", "futility", "maximum_information"),
    ),
}
"""By method: the options it needs and those it refuses."""


def planned_drift(options: SequentialOptions) -> float:
    """Mean of z at the planned end under the effect that the futility stops are made for."""
    futility = cast(Futility, options.futility)
    planned = design(
        planned_fractions(cast(tuple[float, ...], options.planned_fractions)),
        rule=options.rule,
        alpha=options.side_alpha,
        is_two_sided=options.is_two_sided,
        power=futility.power,
        futility=futility,
    )
    return planned.drift
