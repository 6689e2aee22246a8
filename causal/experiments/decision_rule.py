"""The rule by which an analysis is decided, as a spec states it.

The defaults are the checkout rule: ship when the lift is above zero, P(worse than -0.5 %) is below
5 %, no guardrail is breached, no health check is red and every guardrail is measured to better than
0.8 of its margin.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.errors import SpecError
from causal.core.result import Scale
from causal.core.spec import Part
from causal.experiments.bayes import NormalPrior
from causal.experiments.metrics import Direction, Metric

Name = Annotated[str, Field(min_length=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]


class Primary(Part):
    """The metric that decides.

    Attributes:
        metric: Its name in the result.
        scale: Scale on which it is judged; tolerances and prior are stated on it.
        direction: The change that is good.
        estimator: Which of several estimates to read; the first one of the metric if left out.
    """

    metric: Name
    scale: Scale = "relative"
    direction: Direction = "increase"
    estimator: Name | None = None


class Guardrail(Part):
    """A metric that must not get worse than its margin.

    Attributes:
        metric: Its name in the result.
        margin: How much worse it may get: a positive number on `scale`.
        scale: Scale of the margin.
        direction: The change that is good.
        estimator: Which of several estimates to read; the first one of the metric if left out.
    """

    metric: Name
    margin: float = Field(gt=0)
    scale: Scale = "absolute"
    direction: Direction = "increase"
    estimator: Name | None = None


class Thresholds(Part):
    """The numbers of the rule. Gains are changes in the good direction.

    Attributes:
        min_gain: Ship only if the expected gain is above it.
        worse_than: The loss that must be unlikely, on the primary metric's scale; must be said
            where that is the absolute one.
        max_prob_worse: Ship only if P(gain < -worse_than) is below it.
        worthwhile: The smallest gain worth waiting for; `worse_than` if left out. When the gain
            is not above `min_gain` and P(gain > worthwhile) is below `max_prob_worse`, more data
            would not help.
        min_prob_harm: Roll back if P(gain < 0) is at least it: the 95 % interval lies below zero.
        max_prob_breach: A guardrail is cleared if P(worse than its margin) is below it.
        max_std_error_to_margin: Ship only if each guardrail's standard error is below this share
            of its margin.
    """

    min_gain: float = Field(default=0.0, ge=0)
    worse_than: float = Field(default=0.005, gt=0)
    max_prob_worse: Probability = 0.05
    worthwhile: float | None = Field(default=None, gt=0)
    min_prob_harm: Probability = 0.975
    max_prob_breach: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    max_std_error_to_margin: float = Field(default=0.8, gt=0)

    @model_validator(mode="after")
    def _worthwhile_is_a_gain(self) -> "Thresholds":
        if self.worthwhile is not None and self.worthwhile < self.min_gain:
            raise ValueError("worthwhile must be at least min_gain")
        return self

    @property
    def worth_waiting_for(self) -> float:
        """The smallest gain for which more data are worth waiting."""
        given = self.worse_than if self.worthwhile is None else self.worthwhile
        return max(given, self.min_gain)


class DecisionRule(Part):
    """Which effects are judged, and by which numbers.

    Attributes:
        primary: The metric that decides.
        guardrails: The metrics that must not get worse.
        thresholds: The numbers of the rule.
        prior: Prior of the primary effect on its scale, in the metric's own sign; guardrails are
            judged with a flat prior, for a prior must not talk harm away.
        terms: The comparisons to decide on; all if left out, provided they compare with one
            control.
    """

    primary: Primary
    guardrails: tuple[Guardrail, ...] = ()
    thresholds: Thresholds = Thresholds()
    prior: NormalPrior = NormalPrior()
    terms: tuple[Name, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _each_metric_once(self) -> "DecisionRule":
        names = [guardrail.metric for guardrail in self.guardrails]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"guardrail {repeated[0]} is listed twice")
        if self.primary.metric in names:
            raise ValueError(f"{self.primary.metric} is the primary metric and a guardrail")
        if self.terms is not None and len(set(self.terms)) < len(self.terms):
            raise ValueError("a term is listed twice")
        return self

    @model_validator(mode="after")
    def _loss_in_the_metrics_unit(self) -> "DecisionRule":
        if (
            self.primary.scale == "absolute"
            and "worse_than" not in self.thresholds.model_fields_set
        ):
            raise ValueError(
                "on the absolute scale thresholds.worse_than must be said, in the metric's unit"
            )
        return self


def rule_of_metrics(
    metrics: Sequence[Metric],
    *,
    thresholds: Thresholds | None = None,
    prior: NormalPrior | None = None,
    scale: Literal["absolute", "relative"] = "relative",
) -> DecisionRule:
    """The rule that an experiment's metrics imply by their roles, directions and margins.

    Args:
        metrics: One of them is primary; guardrails without a margin only stop by their own check.
        thresholds: The numbers; the checkout rule's if left out.
        prior: Prior of the primary effect.
        scale: Scale on which the primary metric is judged.

    Raises:
        SpecError: No metric or more than one is primary.
    """
    primary = [metric for metric in metrics if metric.role == "primary"]
    if len(primary) != 1:
        raise SpecError(
            "a decision needs exactly one primary metric",
            given=[metric.name for metric in primary] or "none",
            allowed=[metric.name for metric in metrics],
            key="metrics",
        )
    return DecisionRule(
        primary=Primary(metric=primary[0].name, scale=scale, direction=primary[0].direction),
        guardrails=guardrails_of(metrics),
        thresholds=thresholds or Thresholds(),
        prior=prior or NormalPrior(),
    )


def guardrails_of(metrics: Sequence[Metric]) -> tuple[Guardrail, ...]:
    """The guardrails among an experiment's metrics that have a margin."""
    return tuple(
        Guardrail(
            metric=metric.name,
            margin=metric.margin,
            scale=metric.margin_scale,
            direction=metric.direction,
        )
        for metric in metrics
        if metric.role == "guardrail" and metric.margin is not None
    )
