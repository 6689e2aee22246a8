"""The figures of a scorecard."""

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from causal.core.result import Result
from causal.experiments import sequential
from causal.experiments.bayes import effect_posterior, summarise
from causal.experiments.decision import Decision
from causal.scorecard.experiment_readout import REPEATED_SUFFIX, STOP_SUFFIX, ExperimentReadout

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(readout: ExperimentReadout) -> Mapping[str, "Figure"]:
    """Decision, looks and posterior by treatment, then the figures of `ab`; by file name."""
    from causal.experiments import ab, decision_figures

    out = {"decision": decision_figures.scorecard(readout.decisions)}
    for decision in readout.decisions.decisions:
        out[f"posterior_{file_name(decision.term)}"] = _posterior(readout, decision)
    for term, tested in readout.sequential.items():
        out[f"looks_{file_name(term)}"] = sequential.figure(tested)
    return out | dict(ab.figures(readout.spec, _at_one_look(readout.result)))


def file_name(term: str) -> str:
    """A comparison as part of a file name."""
    return re.sub(r"\W+", "_", term).strip("_")


def _posterior(readout: ExperimentReadout, decision: Decision) -> "Figure":
    from causal.experiments.bayes_figures import posterior_figure

    rule, effect = readout.spec.rule, decision.effect
    posterior = effect_posterior(effect, prior=rule.prior)
    summary = summarise(
        posterior,
        confidence_level=effect.confidence_level,
        worse_than=rule.thresholds.worse_than,
        rope=readout.spec.bayes.rope or (0.0, 0.0),
    )
    kind = "lift" if effect.scale == "relative" else "effect on"
    label = f"{kind} of {effect.metric}" if kind == "lift" else f"{kind} {effect.metric}"
    return posterior_figure(posterior, summary, label=f"{label}, {effect.term}", scale=effect.scale)


def _at_one_look(result: Result) -> Result:
    """The result without the effects that allow for the looks."""
    return dataclasses.replace(
        result,
        effects=tuple(
            effect
            for effect in result.effects
            if not effect.estimator.endswith((REPEATED_SUFFIX, STOP_SUFFIX))
        ),
    )
