"""The figures of posteriors and decisions."""

import io

import pytest
from matplotlib.figure import Figure

from causal.core.inference import effect
from causal.core.result import Effect, Result, Scale
from causal.experiments.arm_contrasts import Lift
from causal.experiments.arm_posteriors import Beta
from causal.experiments.bayes import NormalPosterior, Posterior, summarise
from causal.experiments.bayes_figures import posterior_figure
from causal.experiments.decision import decide
from causal.experiments.decision_figures import scorecard
from causal.experiments.decision_rule import DecisionRule, Guardrail, Primary


def size(figure: Figure) -> int:
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=60)
    return target.getbuffer().nbytes


@pytest.mark.parametrize(
    ("posterior", "scale"),
    [
        (NormalPosterior(2.0, 1.5), "absolute"),
        (NormalPosterior(2.0, 0.1), "absolute"),
        (Lift(Beta(12.0, 88.0), Beta(15.0, 85.0)), "relative"),
    ],
)
def test_a_posterior_is_shaded_and_says_its_probabilities(
    posterior: Posterior, scale: Scale
) -> None:
    summary = summarise(posterior, worse_than=0.1, rope=(-0.1, 0.1))
    figure = posterior_figure(posterior, summary, label="effect on conversion", scale=scale)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(labels) == 4
    assert any(label.startswith("worse than -") for label in labels)
    assert sum("%" in label for label in labels) == 4
    assert size(figure) > 4000


def made(metric: str, term: str, estimate: float, std_error: float, scale: Scale) -> Effect:
    return effect(
        estimator="welch", estimand="ate", metric=metric, term=term, scale=scale,
        estimate=estimate, std_error=std_error, confidence_level=0.95, n_treated=9, n_control=9,
    )  # fmt: skip


def test_a_scorecard_has_a_panel_per_treatment_and_a_row_per_metric() -> None:
    effects = []
    for term, gain in (("new - control", 0.01), ("old - control", -0.3)):
        effects += [
            made("profit", term, gain, 0.002, "relative"),
            made("refunds", term, 0.001, 0.001, "absolute"),
        ]
    rule = DecisionRule(
        primary=Primary(metric="profit"),
        guardrails=(Guardrail(metric="refunds", margin=0.005, direction="decrease"),),
    )
    figure = scorecard(decide(Result(effects=tuple(effects)), rule))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["new - control: ship, recommended", "old - control: roll back"]
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["profit\n(primary)", "refunds\n(guardrail)"]
    assert {axes.get_xlim() for axes in figure.axes} == {(-6.0, 6.0)}
    assert size(figure) > 8000
