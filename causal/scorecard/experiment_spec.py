"""The spec of an experiment: an `ab` analysis, how it is looked at, what decides, what it earns."""

from typing import Literal

from pydantic import Field, ValidationError, model_validator

from causal.core.errors import SpecError
from causal.core.result import Scale
from causal.core.spec import Part
from causal.experiments.ab_options import AbOptions, AbSpec
from causal.experiments.arm_posteriors import BetaPrior, GammaPrior
from causal.experiments.bayes import NormalPrior
from causal.experiments.decision_rule import (
    DecisionRule,
    Guardrail,
    Name,
    Primary,
    Thresholds,
    guardrails_of,
    rule_of_metrics,
)
from causal.experiments.metrics import ColumnName, Metric, MetricName, MetricType
from causal.experiments.roi import Economics
from causal.experiments.sequential_options import SequentialOptions

InformationUnit = Literal["inverse_variance", "units"]


class LooksPart(Part):
    """What the rows of a look are.

    Attributes:
        day: Column of the day on which a unit entered; a look then reads the units of its day and
            of earlier ones. Without it a look reads all rows that the source holds when it is made.
    """

    day: ColumnName | None = None


class SequentialPart(SequentialOptions):
    """How the primary metric is looked at: the options of the test, and what it is fed with.

    Attributes:
        scale: Scale of the effect that is tested; `null_value` and `effect_spread` are on it.
        information: Unit of `maximum_information`: one over the squared standard error, or units
            of both arms.
    """

    scale: Scale = "absolute"
    information: InformationUnit = "inverse_variance"


class BayesPart(Part):
    """What the posteriors start from.

    Attributes:
        prior: Prior of the primary metric's effect, on the scale on which it is decided; all other
            effects have a flat prior.
        rope: Region of practical equivalence of the primary metric, on that scale.
        beta: Prior of each arm's proportion; adds posteriors of proportions that need no normal
            approximation.
        gamma: Prior of each arm's rate; the same for counts that vary as Poisson counts do.
    """

    prior: NormalPrior = NormalPrior()
    rope: tuple[float, float] | None = None
    beta: BetaPrior | None = None
    gamma: GammaPrior | None = None

    @model_validator(mode="after")
    def _rope_has_two_ends(self) -> "BayesPart":
        if self.rope is not None and not self.rope[0] < self.rope[1]:
            raise ValueError("rope takes two numbers, the lower one first")
        return self


class DecisionPart(Part):
    """The rule. What is left out follows from the roles, directions and margins of the metrics.

    Attributes:
        primary: The metric that decides.
        scale: Scale on which the primary metric is judged, where `primary` is left out.
        guardrails: The metrics that must not get worse than their margins.
        thresholds: The numbers of the rule; by default those of the checkout rule.
        terms: The comparisons to decide on; all if left out.
    """

    primary: Primary | None = None
    scale: Scale = "relative"
    guardrails: tuple[Guardrail, ...] | None = None
    thresholds: Thresholds = Thresholds()
    terms: tuple[Name, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_scale(self) -> "DecisionPart":
        if self.primary is not None and "scale" in self.model_fields_set:
            raise ValueError("say the scale in primary.scale")
        return self


class RoiPart(Economics):
    """What a unit of effect is worth and what the treatment costs.

    Attributes:
        metric: The metric that earns; the one that decides if left out.
    """

    metric: MetricName | None = None


class ExperimentSpec(AbSpec):
    """An experiment: what `ab` estimates, and what is made of it.

    Attributes:
        looks: What the rows of a look are.
        sequential: The test that allows for repeated looks; without it only the last look holds.
        bayes: Priors and the region of practical equivalence.
        decision: The rule.
        roi: Worth and cost, if a return is wanted.
    """

    looks: LooksPart = LooksPart()
    sequential: SequentialPart | None = None
    bayes: BayesPart = BayesPart()
    decision: DecisionPart = DecisionPart()
    roi: RoiPart | None = None

    @property
    def rule(self) -> DecisionRule:
        """The rule with everything that the metrics say filled in."""
        return decision_rule(self.options, self.decision, prior=self.bayes.prior)

    @property
    def earning_metric(self) -> Metric:
        """The metric that the return is made of."""
        named = None if self.roi is None else self.roi.metric
        return self.metric(named or self.rule.primary.metric)

    def metric(self, name: str) -> Metric:
        """A metric by its name."""
        return next(metric for metric in self.options.metrics if metric.name == name)

    @model_validator(mode="after")
    def _rule_fits_metrics(self) -> "ExperimentSpec":
        try:
            rule = self.rule
        except SpecError as error:
            raise ValueError(f"decision: {error}") from error
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"decision: {message}") from error
        known = {metric.name for metric in self.options.metrics}
        judged: list[Primary | Guardrail] = [rule.primary, *rule.guardrails]
        for item in judged:
            if item.metric not in known:
                raise ValueError(f"decision: no metric is called {item.metric}")
            if item.scale == "relative" and self.options.relative_interval == "fieller":
                raise ValueError(
                    f"decision: {item.metric} is judged on the relative scale, whose interval must "
                    "then follow from a standard error: relative_interval delta, or another scale"
                )
            if item.estimator is None and self.options.is_bootstrapped(self.metric(item.metric)):
                raise ValueError(
                    f"decision: {item.metric} is judged, so its interval must follow from a "
                    "standard error: inference formula for it; others may have bootstrap"
                )
        return self

    @model_validator(mode="after")
    def _sequential_scale_is_normal(self) -> "ExperimentSpec":
        if (
            self.sequential is not None
            and self.sequential.scale == "relative"
            and self.options.relative_interval == "fieller"
        ):
            raise ValueError("sequential: the lift needs relative_interval delta")
        return self

    @model_validator(mode="after")
    def _arm_priors_have_arms(self) -> "ExperimentSpec":
        wanted: list[tuple[str, object, MetricType]] = [
            ("beta", self.bayes.beta, "proportion"),
            ("gamma", self.bayes.gamma, "count"),
        ]
        for name, prior, kind in wanted:
            if prior is None:
                continue
            if self.options.cluster is not None or self.options.population_sizes is not None:
                raise ValueError(f"bayes.{name}: posteriors of arms are for independent units")
            if all(metric.type != kind for metric in self.options.metrics):
                raise ValueError(f"bayes.{name}: no metric is a {kind}")
        return self

    @model_validator(mode="after")
    def _return_is_per_unit(self) -> "ExperimentSpec":
        if self.roi is None:
            return self
        named = self.roi.metric
        if named is not None and all(metric.name != named for metric in self.options.metrics):
            raise ValueError(f"roi: no metric is called {named}")
        if self.earning_metric.type == "ratio":
            raise ValueError(
                f"roi: {self.earning_metric.name} is a ratio; a return needs an effect per unit"
            )
        return self


def decision_rule(options: AbOptions, part: DecisionPart, *, prior: NormalPrior) -> DecisionRule:
    """The rule of an experiment: what its spec says, the rest from its metrics.

    Raises:
        SpecError: Nothing says which metric decides.
    """
    if part.primary is None:
        implied = rule_of_metrics(
            options.metrics, thresholds=part.thresholds, prior=prior, scale=part.scale
        )
    else:
        chosen = part.primary.metric
        others = [metric for metric in options.metrics if metric.name != chosen]
        implied = DecisionRule(
            primary=part.primary,
            guardrails=guardrails_of(others),
            thresholds=part.thresholds,
            prior=prior,
        )
    guardrails = implied.guardrails if part.guardrails is None else part.guardrails
    return DecisionRule(
        primary=implied.primary,
        guardrails=guardrails,
        thresholds=part.thresholds,
        prior=prior,
        terms=part.terms,
    )
