"""What a scorecard says, before it is Markdown, HTML or JSON: sentences and tables of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from causal.core.result import Diagnostic, Effect
from causal.experiments.decision import WORDS, Decision, Verdict
from causal.experiments.metrics import Metric
from causal.scorecard import wording
from causal.scorecard.experiment_readout import REPEATED_SUFFIX, STOP_SUFFIX, ExperimentReadout
from causal.scorecard.looks import trusted_effects

ADVICE: Mapping[Verdict, str] = {
    "ship": "Roll the change out.",
    "hold": "Do not roll the change out on these numbers.",
    "roll_back": "Take the change back.",
    "needs_more_data": "Let the experiment run on.",
}

_LOOK_WORDS: Mapping[str, str] = {
    "continue": "go on",
    "stop_efficacy": "stop: there is an effect",
    "stop_futility": "stop: no effect worth waiting for",
    "stop_end": "planned end",
    "after_stop": "after the stop",
}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the numbers come from, for whoever wants to make them again.

    Attributes:
        source: What was read.
        version: Its version, where it has one.
        run_key: Names the run.
        code_version: Names the suite's code.
    """

    source: str
    version: int | None
    run_key: str
    code_version: str


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    Attributes:
        columns: Heads of the columns.
        rows: Cells.
        marks: A word per row that says how it is to be shown: `good`, `bad` or nothing.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[str, ...] = ()


def title(readout: ExperimentReadout) -> str:
    """What the experiment is called on the page."""
    return readout.spec.description or readout.spec.name


def standing(readout: ExperimentReadout) -> str:
    """Which look this is, and on how many units."""
    units = sum(int(n) for name, n in readout.result.params.items() if name.startswith("n."))
    arms = ", ".join(
        f"{name.removeprefix('n.')} {int(n):,}"
        for name, n in readout.result.params.items()
        if name.startswith("n.")
    )
    return f"Look {readout.look}, {readout.as_of}. {wording.count(units, 'unit')} ({arms})."


def verdict_line(decision: Decision) -> str:
    """The verdict and what follows from it."""
    return f"{WORDS[decision.verdict].capitalize()}. {ADVICE[decision.verdict]}"


def findings(readout: ExperimentReadout, decision: Decision) -> list[str]:
    """What was found, in sentences for someone who has one minute."""
    effect, gain = decision.effect, decision.gain
    loss = wording.change(-gain.worse_than, effect.scale)
    lines = [
        (
            f"{effect.metric} changed by {wording.change(effect.estimate, effect.scale)} "
            f"({effect.confidence_level:.0%} interval {wording.interval(effect)}). The chance "
            f"that the change is for the better is {wording.chance(gain.prob_positive)}, "
            f"that it is a loss beyond {loss}: {wording.chance(gain.prob_worse)}."
        )
    ]
    lines += _guardrails(decision)
    lines += returns(readout, decision.term)[:1]
    if decision.failed:
        lines.append(
            "What stands against it: " + "; ".join(r.detail for r in decision.failed) + "."
        )
    return lines


def _guardrails(decision: Decision) -> list[str]:
    """Which guardrails are shown to be within their margins."""
    failed = {item.compared for item in decision.failed if item.rule.startswith("guardrail")}
    names = [item.guardrail.metric for item in decision.guardrails]
    kept, open_ = [n for n in names if n not in failed], [n for n in names if n in failed]
    lines = [f"Guardrails within their margins: {', '.join(kept)}."] if kept else []
    return lines + ([f"Guardrails not shown to be: {', '.join(open_)}."] if open_ else [])


def reasons(decision: Decision) -> TextTable:
    """Every condition of the rule, those that failed first."""
    ordered = sorted(decision.reasons, key=lambda item: item.passed)
    return TextTable(
        columns=("", "condition", "what was found"),
        rows=tuple(
            (
                "holds" if item.passed else "fails",
                f"{item.rule.replace('_', ' ')}: {item.compared}",
                item.detail,
            )
            for item in ordered
        ),
        marks=tuple("good" if item.passed else "bad" for item in ordered),
    )


def metrics(readout: ExperimentReadout, term: str) -> TextTable:
    """Every metric of one treatment: levels, change with its interval, chance to be better."""
    table = readout.result.tables["posteriors"]
    better = {
        (row["metric"], row["scale"]): float(row["prob_better"])
        for row in table[(table["term"] == term) & (table["posterior"] == "effect")].to_dict(
            "records"
        )
    }
    found = _by_metric(readout, term)
    rows, marks = [], []
    for metric in readout.spec.options.metrics:
        if metric.name not in found:
            continue
        absolute, relative = found[metric.name].get("absolute"), found[metric.name].get("relative")
        shown = relative or absolute
        if shown is None:
            continue
        control, treatment = _levels(readout, metric.name, term)
        word = wording.direction_of(shown, metric.direction)
        prob = better.get((metric.name, shown.scale))
        rows.append(
            (
                metric.name,
                _role(metric),
                wording.number(control),
                wording.number(treatment),
                _change(relative),
                _change(absolute),
                "" if prob is None else wording.chance(prob),
                word,
            )
        )
        marks.append({"better": "good", "worse": "bad"}.get(word, ""))
    return TextTable(
        columns=(
            "metric",
            "role",
            "control",
            "treatment",
            "change",
            "change in its unit",
            "chance it is better",
            "",
        ),
        rows=tuple(rows),
        marks=tuple(marks),
    )


def looks(readout: ExperimentReadout, term: str) -> TextTable | None:
    """The primary metric look by look, with intervals that hold over all looks."""
    tested = readout.sequential.get(term)
    if tested is None or readout.spec.sequential is None:
        return None
    scale = readout.spec.sequential.scale
    rows = tuple(
        (
            str(look.look),
            look.name,
            "" if look.fraction is None else f"{look.fraction:.0%}",
            wording.change(look.estimate, scale),
            f"{wording.change(look.ci_lower, scale)} to {wording.change(look.ci_upper, scale)}",
            wording.pvalue(look.pvalue),
            _LOOK_WORDS[look.decision],
        )
        for look in tested.looks
    )
    return TextTable(
        columns=("look", "day", "of the plan", "change", "interval", "p-value", "what it said"),
        rows=rows,
    )


def stop_sentence(readout: ExperimentReadout, term: str) -> str:
    """What the sequential test says now."""
    tested = readout.sequential.get(term)
    if tested is None or readout.spec.sequential is None:
        return ""
    scale = readout.spec.sequential.scale
    level = f"{readout.spec.sequential.confidence_level:.0%}"
    if tested.adjusted is None:
        return (
            "The test has not stopped. The intervals above hold at all looks together, so looking "
            "early does not make them wrong."
        )
    found = tested.adjusted
    return (
        f"The test stopped at look {tested.stopped_at}. Allowing for the looks, the change is "
        f"{wording.change(found.estimate, scale)} ({level} interval "
        f"{wording.change(found.ci_lower, scale)} to {wording.change(found.ci_upper, scale)}, "
        f"p = {wording.pvalue(found.pvalue)})."
    )


def returns(readout: ExperimentReadout, term: str) -> list[str]:
    """What a rollout earns, in sentences."""
    found = readout.roi.get(term)
    if found is None:
        return []
    profit = found.profit_per_year
    level = f"{profit.confidence_level:.0%}"
    lines = [
        (
            f"Incremental profit per year: {wording.number(profit.mean, is_signed=True)} "
            f"({level} interval {wording.number(profit.ci_lower, is_signed=True)} to "
            f"{wording.number(profit.ci_upper, is_signed=True)}); the chance that it is a profit "
            f"is {wording.chance(found.prob_positive)}."
        ),
        (
            f"It is a gain of {wording.number(found.gain_per_year)} less a cost of "
            f"{wording.number(found.cost_per_year)} per year."
        ),
        (
            f"It breaks even at a change of {found.effect.metric} of "
            f"{wording.number(found.break_even_effect, is_signed=True)} per unit and period; "
            f"{wording.number(found.effect.estimate, is_signed=True)} was measured."
        ),
    ]
    if found.return_on_cost is not None and found.return_on_cost_lower is not None:
        upper = found.return_on_cost_upper
        ends = f"{found.return_on_cost_lower:+.0%} to {upper:+.0%}" if upper is not None else ""
        lines.append(f"Return on that cost: {found.return_on_cost:+.0%} ({level} interval {ends}).")
    tested = readout.sequential.get(term)
    if tested is not None and tested.adjusted is not None and _is_early(readout, term):
        lines.append(
            "The test stopped early, and changes at an early stop tend to look larger than they "
            "are: this return is of the change as measured."
        )
    return lines


def _is_early(readout: ExperimentReadout, term: str) -> bool:
    """Whether the metric that earns is the one whose test stopped for an effect."""
    tested = readout.sequential[term]
    earns = readout.spec.earning_metric.name == readout.spec.rule.primary.metric
    return earns and tested.decision == "stop_efficacy"


def checks(readout: ExperimentReadout) -> TextTable:
    """The health checks, failed ones first; what is for information only comes last."""
    order = {False: 0, True: 1, None: 2}
    listed = sorted(readout.result.diagnostics, key=lambda item: order[item.passed])
    return TextTable(
        columns=("", "check", "what was found"),
        rows=tuple((_state(item), item.name, item.detail) for item in listed),
        marks=tuple({False: "bad", True: "good", None: ""}[item.passed] for item in listed),
    )


def failed_checks(readout: ExperimentReadout) -> Sequence[Diagnostic]:
    """The checks that failed."""
    return readout.result.failed_checks


def origin(readout: ExperimentReadout, provenance: Provenance) -> list[str]:
    """How to read the page and how to make it again."""
    spec = readout.spec
    rule = spec.rule
    version = "" if provenance.version is None else f", version {provenance.version}"
    loss = wording.change(-rule.thresholds.worse_than, rule.primary.scale)
    lines = [
        (
            f"The rule: ship if the expected change of {rule.primary.metric} is for the better, "
            f"the chance that it is worse than {loss} is below "
            f"{rule.thresholds.max_prob_worse:.0%}, every guardrail is within its "
            "margin and measured well enough, and no health check is red."
        ),
        (
            f"Intervals have level {spec.confidence_level:.0%} unless they say otherwise. "
            "Changes are relative to the control arm, of the units that were assigned."
        ),
        (
            f"Data: {provenance.source}{version}. Run {provenance.run_key[:12]}, code "
            f"{provenance.code_version[:12]}."
        ),
    ]
    if spec.sequential is not None:
        what = "relative change" if spec.sequential.scale == "relative" else "change in its unit"
        lines.insert(
            1,
            f"The sequential test ({spec.sequential.method.replace('_', ' ')}, alpha "
            f"{spec.sequential.alpha:g}, {spec.sequential.alternative.replace('_', '-')}) is of "
            f"the {what} of {rule.primary.metric}; a change ships only once the test has stopped.",
        )
    return lines


def _state(item: Diagnostic) -> str:
    return {True: "ok", False: "failed", None: "note"}[item.passed]


def _role(metric: Metric) -> str:
    if metric.role != "guardrail" or metric.margin is None:
        return metric.role
    margin = (
        f"{100 * metric.margin:g} %" if metric.margin_scale == "relative" else f"{metric.margin:g}"
    )
    return f"guardrail, margin {margin}"


def _change(effect: Effect | None) -> str:
    if effect is None:
        return ""
    return f"{wording.change(effect.estimate, effect.scale)} ({wording.interval(effect)})"


def _by_metric(readout: ExperimentReadout, term: str) -> dict[str, dict[str, Effect]]:
    out: dict[str, dict[str, Effect]] = {}
    for effect in trusted_effects(readout.result):
        if effect.term == term and not effect.estimator.endswith((REPEATED_SUFFIX, STOP_SUFFIX)):
            out.setdefault(effect.metric, {})[effect.scale] = effect
    return out


def _levels(readout: ExperimentReadout, metric: str, term: str) -> tuple[float, float]:
    """Mean of the control and of the treatment, adjusted where the effect is."""
    table: pd.DataFrame = readout.result.tables["arms"]
    chosen = table[(table["metric"] == metric) & (table["term"] == term)]
    control, treatment = chosen["adjusted_mean"].tolist()
    return float(control), float(treatment)
