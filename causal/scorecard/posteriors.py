"""Posteriors of every effect of an experiment, as rows."""

import dataclasses
from typing import Any

import pandas as pd

from causal.core.result import Effect, Result
from causal.experiments.arm_contrasts import ArmReadout, Questions, compare
from causal.experiments.arm_posteriors import beta_posterior, gamma_posterior
from causal.experiments.bayes import FLAT, PosteriorSummary, effect_posterior, summarise
from causal.experiments.decision_rule import DecisionRule
from causal.experiments.metrics import Metric
from causal.scorecard.experiment_spec import ExperimentSpec
from causal.scorecard.looks import trusted_effects

_READ: tuple[str, ...] = tuple(
    field.name
    for field in dataclasses.fields(PosteriorSummary)
    if field.name not in {"worse_than", "prob_worse"}
)
POSTERIOR_COLUMNS: tuple[str, ...] = ("metric", "term", "scale", "posterior", "prob_better", *_READ)
"""Effects stand in their own sign; `prob_better` is the probability of a change for the better."""


def posteriors(spec: ExperimentSpec, result: Result) -> pd.DataFrame:
    """What the posteriors say of every effect on all units, one row each.

    The effect that decides has the spec's prior and region of practical equivalence; all others
    are flat. Lifts with Fieller intervals have none: their intervals follow from no standard error.

    Args:
        spec: The experiment.
        result: What `ab` found.

    Returns:
        Columns `POSTERIOR_COLUMNS`. `posterior` is `effect` (normal, or t) or `arms` (beta or
        gamma).
    """
    rule = spec.rule
    rows = []
    for effect in trusted_effects(result):
        is_fieller = spec.options.relative_interval == "fieller" and effect.scale == "relative"
        if not is_fieller and effect.std_error > 0:
            rows.append(_row(spec, effect, effect_summary(spec, effect, rule), kind="effect"))
        readout = _of_arms(spec, result, effect, rule)
        if readout is not None:
            found = readout.absolute if effect.scale == "absolute" else readout.relative
            rows.append(_row(spec, effect, found, kind="arms"))
    return pd.DataFrame(rows, columns=list(POSTERIOR_COLUMNS))


def effect_summary(spec: ExperimentSpec, effect: Effect, rule: DecisionRule) -> PosteriorSummary:
    """The posterior of one effect."""
    decides = _decides(effect, rule)
    return summarise(
        effect_posterior(effect, prior=rule.prior if decides else FLAT),
        confidence_level=effect.confidence_level,
        rope=_rope(spec, effect, rule),
    )


def _decides(effect: Effect, rule: DecisionRule) -> bool:
    return effect.metric == rule.primary.metric and effect.scale == rule.primary.scale


def _rope(spec: ExperimentSpec, effect: Effect, rule: DecisionRule) -> tuple[float, float]:
    if spec.bayes.rope is None or not _decides(effect, rule):
        return (0.0, 0.0)
    return spec.bayes.rope


def _of_arms(
    spec: ExperimentSpec, result: Result, effect: Effect, rule: DecisionRule
) -> ArmReadout | None:
    """The comparison of two arms' own posteriors, where the spec gives them a prior."""
    metric = spec.metric(effect.metric)
    if not _has_arm_prior(spec, metric):
        return None
    levels = result.tables["arms"]
    chosen = levels[(levels["metric"] == effect.metric) & (levels["term"] == effect.term)]
    control, treatment = (_arm(spec, metric, row) for row in chosen.to_dict("records"))
    if effect.scale == "relative" and not control.mean > 0:
        return None
    asked = Questions(rope=_rope(spec, effect, rule))
    return compare(
        treatment,
        control,
        confidence_level=effect.confidence_level,
        absolute=asked if effect.scale == "absolute" else None,
        relative=asked if effect.scale == "relative" else None,
    )


def _has_arm_prior(spec: ExperimentSpec, metric: Metric) -> bool:
    if metric.type == "proportion":
        return spec.bayes.beta is not None
    return metric.type == "count" and spec.bayes.gamma is not None and metric.winsorise is None


def _arm(spec: ExperimentSpec, metric: Metric, row: dict[Any, Any]) -> Any:
    n, total = int(row["n"]), round(float(row["mean"]) * int(row["n"]))
    if metric.type == "proportion" and spec.bayes.beta is not None:
        return beta_posterior(total, n=n, prior=spec.bayes.beta)
    if spec.bayes.gamma is not None:
        return gamma_posterior(total, exposure=n, prior=spec.bayes.gamma)
    return None


def _row(
    spec: ExperimentSpec, effect: Effect, found: PosteriorSummary, *, kind: str
) -> dict[str, Any]:
    rises = spec.metric(effect.metric).direction == "increase"
    return {
        "metric": effect.metric,
        "term": effect.term,
        "scale": effect.scale,
        "posterior": kind,
        "prob_better": found.prob_positive if rises else 1 - found.prob_positive,
        **{name: getattr(found, name) for name in _READ},
    }
