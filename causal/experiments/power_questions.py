"""The questions of a plan: each treatment against control on each metric, by each estimator."""

import math
from dataclasses import dataclass

from causal.core.errors import InferenceError
from causal.core.frames import Level
from causal.experiments.planned_test import Alternative, PlannedTest, check_fits
from causal.experiments.power import mde, power, sample_size, smallest_margin, smallest_size
from causal.experiments.power_family import alpha_per_test
from causal.experiments.power_history import History, outcome_of, unit_variance
from causal.experiments.power_options import PlannedMetric, PowerOptions
from causal.experiments.power_outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Question:
    """One treatment against control on one metric, by one estimator.

    Attributes:
        metric: The metric.
        treatment: The arm.
        estimator: As `ab` calls it: welch, pooled, cluster_robust or cuped.
        outcome: What the history says.
        test: How it will be tested.
        effect: The true effect that is planned for, signed (0 for non-inferiority); `None`: none.
        power: Wanted.
        control_share: Control's share of all units.
        variance_kept: Share of the variance that the covariates leave.
        design_effect: Variance with clusters over that without.
        std: Standard deviation of the (linearised) metric over units.
    """

    metric: PlannedMetric
    treatment: Level
    estimator: str
    outcome: Outcome
    test: PlannedTest
    effect: float | None
    power: float
    control_share: float
    variance_kept: float
    design_effect: float
    std: float

    @property
    def name(self) -> str:
        """Metric and treatment, for diagnostics and parameters."""
        return f"{self.metric.name}.{self.treatment}"

    def total_size(self) -> float | None:
        """Units of all arms that are needed, not rounded; `None`: no effect is planned for."""
        if self.effect is None:
            return None
        return (
            sample_size(self.outcome, self.test, effect=self.effect, power=self.power)
            / self.control_share
        )

    def power_with(self, total: float) -> float | None:
        """Power with so many units in all arms; `None`: no effect, or too few units."""
        n_control = total * self.control_share
        if self.effect is None or n_control < smallest_size(self.outcome, self.test):
            return None
        return power(self.outcome, self.test, effect=self.effect, n_control=n_control)

    def detectable_with(self, total: float) -> float | None:
        """Smallest effect, or margin, with so many units in all arms; `None`: there is none."""
        n_control = total * self.control_share
        if n_control < smallest_size(self.outcome, self.test):
            return None
        try:
            if self.metric.is_non_inferiority:
                return smallest_margin(
                    self.outcome, self.test, n_control=n_control, power=self.power
                )
            return mde(
                self.outcome,
                self.test,
                n_control=n_control,
                power=self.power,
                direction=self.metric.direction,
            )
        except InferenceError:
            return None


def questions(metric: PlannedMetric, history: History, options: PowerOptions) -> list[Question]:
    """Every treatment, the adjusted estimator before the raw one.

    Raises:
        DataError: The covariates do not fit.
        SpecError: The test does not fit the metric, or the effect leaves its range.
        InferenceError: No sample size finds the effect.
    """
    kinds = [True, False] if metric.covariates else [False]
    out = []
    for treatment in options.treatments:
        for is_adjusted in kinds:
            question = _question(metric, treatment, history, options, is_adjusted=is_adjusted)
            check_fits(question.outcome, question.test)
            question.total_size()  # what cannot be planned is refused here, with the metric's key
            out.append(question)
    return out


def _question(
    metric: PlannedMetric,
    treatment: Level,
    history: History,
    options: PowerOptions,
    *,
    is_adjusted: bool,
) -> Question:
    outcome = outcome_of(metric, history, response=metric.response, is_adjusted=is_adjusted)
    spread = unit_variance(metric, history)
    effect_of_design = outcome.variance / spread
    if options.planned_clusters is not None:
        planned = options.planned_clusters
        outcome = outcome.clustered(
            icc=planned.icc, mean_size=planned.mean_size, size_cv=planned.size_cv
        )
        effect_of_design = outcome.variance / spread
    sign = 1.0 if metric.direction == "increase" else -1.0
    effect = None if metric.wanted is None else sign * metric.wanted
    shares = options.normalised_shares
    is_clustered = outcome.units_per_cluster is not None
    raw_name = "cluster_robust" if is_clustered else options.variance
    return Question(
        metric=metric,
        treatment=treatment,
        estimator="cuped" if is_adjusted else raw_name,
        outcome=outcome,
        test=_test(metric, options, ratio=shares[treatment] / shares[options.control]),
        effect=0.0 if metric.is_non_inferiority else effect,
        power=options.power,
        control_share=shares[options.control],
        variance_kept=outcome.residual / outcome.variance,
        design_effect=effect_of_design,
        std=math.sqrt(spread),
    )


def _test(metric: PlannedMetric, options: PowerOptions, *, ratio: float) -> PlannedTest:
    good: Alternative = "larger" if metric.direction == "increase" else "smaller"
    is_two_sided = options.alternative == "two_sided"
    if metric.margin is not None:
        alpha = options.alpha / 2 if is_two_sided else options.alpha
        side, scale = good, metric.margin_scale
        null = -metric.margin if good == "larger" else metric.margin
    else:
        is_corrected = metric.role != "guardrail"
        alpha = alpha_per_test(
            options.alpha,
            n_tests=options.family_size,
            correction=options.correction if is_corrected else "none",
        )
        side, scale, null = "two_sided" if is_two_sided else good, metric.mde_scale, 0.0
    return PlannedTest(
        alpha=alpha,
        alternative=side,
        scale=scale,
        null=null,
        ratio=ratio,
        distribution=options.distribution,
        variance=options.variance,
        definition=options.definition,
        inflation=options.inflation,
    )
