"""Ship, hold, roll back or wait: one decision object for the results of every method.

A decision reads effects and checks of a `Result` and a `DecisionRule`, and keeps each condition it
tested as data. `docs/methods/decision.md` has the table of which conditions give which verdict; the
order of the verdicts on a better estimate is roll back, hold, needs more data, ship.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from causal.checks import health
from causal.core.errors import InferenceError, SpecError
from causal.core.inference import critical_value
from causal.core.result import Diagnostic, Effect, Result, Scale
from causal.experiments.bayes import (
    FLAT,
    NormalPrior,
    Posterior,
    PosteriorSummary,
    effect_posterior,
    summarise,
)
from causal.experiments.decision_rule import DecisionRule, Guardrail, Primary, Thresholds
from causal.experiments.metrics import Direction

Verdict = Literal["ship", "hold", "roll_back", "needs_more_data"]
Relation = Literal["<", ">", ">=", "="]
Role = Literal["health", "harm", "ship", "wait"]

WORDS: Mapping[Verdict, str] = MappingProxyType(
    {
        "ship": "ship",
        "hold": "hold",
        "roll_back": "roll back",
        "needs_more_data": "needs more data",
    }
)


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One condition of the rule, as it was found.

    Attributes:
        rule: Name of the condition, such as `prob_worse` or `guardrail_precision`.
        compared: What was compared, such as a metric or a check.
        value: The number found; `None` where a check has none.
        relation: How it must stand to the threshold for the condition to hold.
        threshold: The number it was compared with.
        passed: Whether the condition holds.
        role: `health`: must hold for any verdict but hold; `harm`: roll back unless it holds;
            `ship`: must hold to ship; `wait`: tells hold from needs more data.
        detail: One plain sentence.
    """

    rule: str
    compared: str
    value: float | None
    relation: Relation
    threshold: float | None
    passed: bool
    role: Role
    detail: str


_NOTHING: Mapping[str, Sequence[Reason]] = MappingProxyType({})

REASON_COLUMNS: tuple[str, ...] = ("term", *(f.name for f in dataclasses.fields(Reason)))


@dataclass(frozen=True, kw_only=True)
class GuardrailReading:
    """A guardrail as one decision saw it.

    Attributes:
        guardrail: The metric, its margin and direction.
        effect: The effect.
        gain: Posterior of the change for the better, on the margin's scale.
        prob_breach: P(gain < -margin).
    """

    guardrail: Guardrail
    effect: Effect
    gain: PosteriorSummary
    prob_breach: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do with one treatment, and why.

    Attributes:
        term: The comparison decided on.
        metric: The primary metric.
        scale: Scale on which it was judged.
        verdict: ship, hold, roll_back or needs_more_data.
        reasons: Every condition tested.
        effect: The primary effect as the method gave it.
        gain: Posterior of the change for the better in the primary metric.
        guardrails: The guardrails, in the order of the rule.
        text: The decision in plain words.
    """

    term: str
    metric: str
    scale: Scale
    verdict: Verdict
    reasons: tuple[Reason, ...]
    effect: Effect
    gain: PosteriorSummary
    guardrails: tuple[GuardrailReading, ...]
    text: str

    @property
    def failed(self) -> tuple[Reason, ...]:
        """The conditions that did not hold, but for those that only tell hold from waiting."""
        return tuple(item for item in self.reasons if not item.passed and item.role != "wait")


DECISION_COLUMNS: tuple[str, ...] = (
    "term", "verdict", "is_recommended", "metric", "scale", "estimator", "estimate", "std_error",
    "ci_lower", "ci_upper", "expected_gain", "gain_lower", "gain_upper", "confidence_level",
    "prob_gain", "worse_than", "prob_worse", "loss_ship", "loss_keep", "n_failed", "failed", "text",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """One decision per treatment.

    Attributes:
        rule: The rule.
        decisions: In the order of the result's terms.
        recommended: Term of the treatment to ship: among those that may ship, the one with the
            highest expected gain; `None` when none may.
    """

    rule: DecisionRule
    decisions: tuple[Decision, ...]
    recommended: str | None

    def to_frame(self) -> pd.DataFrame:
        """One row per treatment, columns `DECISION_COLUMNS`."""
        rows = [_row(item, is_recommended=item.term == self.recommended) for item in self.decisions]
        return pd.DataFrame(rows, columns=list(DECISION_COLUMNS))

    def reasons_frame(self) -> pd.DataFrame:
        """One row per treatment and condition, columns `REASON_COLUMNS`."""
        rows = [
            {"term": decision.term} | dataclasses.asdict(reason)
            for decision in self.decisions
            for reason in decision.reasons
        ]
        return pd.DataFrame(rows, columns=list(REASON_COLUMNS))

    @property
    def text(self) -> str:
        """All decisions in plain words, one paragraph each."""
        paragraphs = [item.text for item in self.decisions]
        if len(self.decisions) > 1:
            paragraphs.append(
                "No treatment may ship."
                if self.recommended is None
                else f"Of the treatments that may ship, {self.recommended} promises most."
            )
        return "\n\n".join(paragraphs)


def decide(
    result: Result, rule: DecisionRule, *, further: Mapping[str, Sequence[Reason]] = _NOTHING
) -> Decisions:
    """Apply a rule to the result of any method.

    Args:
        result: Effects and checks. A failed check that stops (`causal.checks.health`) blocks every
            treatment; a guardrail that the result itself found breached, its own treatment.
        rule: The rule.
        further: Conditions from beyond the result, by term, such as a sequential test that has not
            stopped yet. They count like the rule's own, by their role.

    Raises:
        SpecError: The rule names a metric, scale, estimator or term that the result lacks.
        InferenceError: An effect has no positive standard error.

    Example:
        >>> from causal.core.inference import effect
        >>> lift = effect(
        ...     estimator="cuped",
        ...     estimand="ate",
        ...     metric="profit",
        ...     term="treatment - control",
        ...     scale="relative",
        ...     estimate=0.012,
        ...     std_error=0.004,
        ...     confidence_level=0.95,
        ...     n_treated=50_000,
        ...     n_control=50_000,
        ... )
        >>> rule = DecisionRule(primary=Primary(metric="profit"))
        >>> decide(Result(effects=(lift,)), rule).decisions[0].verdict
        'ship'
    """
    terms = _terms(result, rule)
    decisions = tuple(
        _decide_term(result, rule, term, further=further.get(term, ())) for term in terms
    )
    may_ship = [item for item in decisions if item.verdict == "ship"]
    best = max(may_ship, key=lambda item: item.gain.mean, default=None)
    return Decisions(
        rule=rule, decisions=decisions, recommended=None if best is None else best.term
    )


def gain_posterior(effect: Effect, *, direction: Direction, prior: NormalPrior = FLAT) -> Posterior:
    """Posterior of the change for the better: of the effect, or of its opposite.

    Args:
        effect: The effect.
        direction: The change that is good.
        prior: Prior of the effect, in the metric's own sign.
    """
    if direction == "increase":
        return effect_posterior(effect, prior=prior)
    flipped = dataclasses.replace(effect, estimate=-effect.estimate)
    mirrored = prior if prior.sd is None else NormalPrior(mean=-prior.mean, sd=prior.sd)
    return effect_posterior(flipped, prior=mirrored)


def _decide_term(
    result: Result, rule: DecisionRule, term: str, *, further: Sequence[Reason]
) -> Decision:
    effect = _find(result, rule.primary, term, key="primary")
    thresholds = rule.thresholds
    posterior = gain_posterior(effect, direction=rule.primary.direction, prior=rule.prior)
    gain = summarise(
        posterior,
        confidence_level=effect.confidence_level,
        worse_than=thresholds.worse_than,
        rope=(-thresholds.worse_than, thresholds.worth_waiting_for),
    )
    readings = tuple(
        _read_guardrail(_find(result, guardrail, term, key=f"guardrails.{at}"), guardrail)
        for at, guardrail in enumerate(rule.guardrails)
    )
    prob_worthwhile = posterior.sf(thresholds.worth_waiting_for)
    reasons = (
        *_health_reasons(result, rule, term),
        *_harm_reasons(result, rule, gain, readings, term),
        *_ship_reasons(thresholds, effect, gain, prob_worthwhile=prob_worthwhile),
        *(item for reading in readings for item in _guardrail_reasons(reading, thresholds)),
        *further,
    )
    verdict = _verdict(reasons)
    return Decision(
        term=term,
        metric=effect.metric,
        scale=effect.scale,
        verdict=verdict,
        reasons=reasons,
        effect=effect,
        gain=gain,
        guardrails=readings,
        text=_paragraph(verdict, effect, gain, reasons, rule),
    )


def _verdict(reasons: Sequence[Reason]) -> Verdict:
    failed = {item.role for item in reasons if not item.passed}
    if "health" in failed:
        return "hold"
    if "harm" in failed:
        return "roll_back"
    if "ship" not in failed:
        return "ship"
    return "hold" if "wait" in failed else "needs_more_data"


def _read_guardrail(effect: Effect, guardrail: Guardrail) -> GuardrailReading:
    posterior = gain_posterior(effect, direction=guardrail.direction)
    gain = summarise(
        posterior, confidence_level=effect.confidence_level, worse_than=guardrail.margin
    )
    return GuardrailReading(
        guardrail=guardrail, effect=effect, gain=gain, prob_breach=gain.prob_worse
    )


def _health_reasons(result: Result, rule: DecisionRule, term: str) -> list[Reason]:
    red = [item for item in health.stops(result) if not _is_guardrail(item)]
    judged: list[Primary | Guardrail] = [rule.primary, *rule.guardrails]
    names = {f"relative_scale.{item.metric}.{term}" for item in judged if item.scale == "relative"}
    red += [item for item in result.diagnostics if item.name in names]
    if not red:
        return [
            Reason(
                rule="health",
                compared="red checks",
                value=0.0,
                relation="=",
                threshold=0.0,
                passed=True,
                role="health",
                detail="no check that stops a decision is red",
            )
        ]
    return [
        Reason(
            rule="health",
            compared=item.name,
            value=item.statistic,
            relation="=",
            threshold=None,
            passed=False,
            role="health",
            detail=item.detail,
        )
        for item in red
    ]


def _is_guardrail(item: Diagnostic) -> bool:
    return item.name.startswith("guardrail.")


def _harm_reasons(
    result: Result,
    rule: DecisionRule,
    gain: PosteriorSummary,
    readings: Sequence[GuardrailReading],
    term: str,
) -> list[Reason]:
    """Harm to the primary metric, and breached guardrails: those of the rule and the result's."""
    prob_harm = 1 - gain.prob_positive
    limit = rule.thresholds.min_prob_harm
    found = [
        Reason(
            rule="harm",
            compared=rule.primary.metric,
            value=prob_harm,
            relation="<",
            threshold=limit,
            passed=prob_harm < limit,
            role="harm",
            detail=f"P({rule.primary.metric} gets worse) = {prob_harm:.1%}",
        )
    ]
    found += [_breach(item, rule.thresholds) for item in readings]
    judged = {item.guardrail.metric for item in readings}
    for item in result.failed_checks:
        metric = item.name.removeprefix("guardrail.").removesuffix(f".{term}")
        if item.name == f"guardrail.{metric}.{term}" and metric not in judged:
            found.append(
                Reason(
                    rule="guardrail_breach",
                    compared=metric,
                    value=item.statistic,
                    relation=">",
                    threshold=None,
                    passed=False,
                    role="harm",
                    detail=item.detail,
                )
            )
    return found


def _breach(reading: GuardrailReading, thresholds: Thresholds) -> Reason:
    """A breach is harm for certain that may exceed the margin."""
    metric = reading.guardrail.metric
    prob_harm = 1 - reading.gain.prob_positive
    is_cleared = reading.prob_breach < thresholds.max_prob_breach
    value, limit = (
        (reading.prob_breach, thresholds.max_prob_breach)
        if is_cleared
        else (prob_harm, thresholds.min_prob_harm)
    )
    return Reason(
        rule="guardrail_breach",
        compared=metric,
        value=value,
        relation="<",
        threshold=limit,
        passed=value < limit,
        role="harm",
        detail=(
            f"P({metric} gets worse) = {prob_harm:.1%}, P(worse than its margin of "
            f"{reading.guardrail.margin:g}) = {reading.prob_breach:.1%}"
        ),
    )


def _ship_reasons(
    thresholds: Thresholds, effect: Effect, gain: PosteriorSummary, *, prob_worthwhile: float
) -> list[Reason]:
    shown = "{:.2%}".format if effect.scale == "relative" else "{:.4g}".format
    name, has_gain = effect.metric, gain.mean > thresholds.min_gain
    found = [
        Reason(
            rule="gain",
            compared=name,
            value=gain.mean,
            relation=">",
            threshold=thresholds.min_gain,
            passed=has_gain,
            role="ship",
            detail=f"expected gain of {name} is {shown(gain.mean)}",
        ),
        Reason(
            rule="prob_worse",
            compared=name,
            value=gain.prob_worse,
            relation="<",
            threshold=thresholds.max_prob_worse,
            passed=gain.prob_worse < thresholds.max_prob_worse,
            role="ship",
            detail=f"P({name} worse than -{shown(gain.worse_than)}) = {gain.prob_worse:.2%}",
        ),
    ]
    if has_gain:
        return found
    possible = Reason(
        rule="gain_possible",
        compared=name,
        value=prob_worthwhile,
        relation=">=",
        threshold=thresholds.max_prob_worse,
        passed=prob_worthwhile >= thresholds.max_prob_worse,
        role="wait",
        detail=(
            f"P({name} better than {shown(thresholds.worth_waiting_for)}) = {prob_worthwhile:.2%}"
        ),
    )
    return [*found, possible]


def _guardrail_reasons(reading: GuardrailReading, thresholds: Thresholds) -> list[Reason]:
    guardrail, effect = reading.guardrail, reading.effect
    largest = thresholds.max_std_error_to_margin * guardrail.margin
    return [
        Reason(
            rule="guardrail_cleared",
            compared=guardrail.metric,
            value=reading.prob_breach,
            relation="<",
            threshold=thresholds.max_prob_breach,
            passed=reading.prob_breach < thresholds.max_prob_breach,
            role="ship",
            detail=(
                f"P({guardrail.metric} worse than its margin of {guardrail.margin:g}) "
                f"= {reading.prob_breach:.2%}"
            ),
        ),
        Reason(
            rule="guardrail_precision",
            compared=guardrail.metric,
            value=effect.std_error,
            relation="<",
            threshold=largest,
            passed=effect.std_error < largest,
            role="ship",
            detail=(
                f"standard error of {guardrail.metric} is {effect.std_error:.3g}, "
                f"{effect.std_error / guardrail.margin:.2f} of its margin"
            ),
        ),
    ]


def _terms(result: Result, rule: DecisionRule) -> list[str]:
    primary = rule.primary
    found = list(dict.fromkeys(
        effect.term for effect in result.effects if _fits(effect, primary)
    ))  # fmt: skip
    if not found:
        raise _nothing_found(result, primary, key="primary")
    if rule.terms is not None:
        unknown = [term for term in rule.terms if term not in found]
        if unknown:
            raise SpecError(
                "the result has no such comparison of the primary metric",
                given=unknown,
                allowed=found,
                key="terms",
            )
        return list(rule.terms)
    if len(found) > 1 and len({term.partition(" - ")[2] for term in found} - {""}) != 1:
        raise SpecError(
            "the result has several coefficients; say which of them decides",
            allowed=found,
            key="terms",
        )
    return found


def _fits(effect: Effect, wanted: Primary | Guardrail) -> bool:
    return (
        effect.metric == wanted.metric
        and effect.scale == wanted.scale
        and wanted.estimator in {None, effect.estimator}
    )


def _find(result: Result, wanted: Primary | Guardrail, term: str, *, key: str) -> Effect:
    """The first fitting effect: methods put the estimate that a reader wants first."""
    for effect in result.effects:
        if effect.term == term and _fits(effect, wanted):
            _check_interval(effect, key=key)
            return effect
    raise _nothing_found(result, wanted, key=key, term=term)


def _check_interval(effect: Effect, *, key: str) -> None:
    """A posterior from estimate and error says something only if the interval comes from them.

    That of a permutation test, a simultaneous or an always-valid one does not: where it reaches
    to infinity, the posterior would still be sure of itself.
    """
    half = critical_value(effect.confidence_level, df=effect.df) * effect.std_error
    ends = (effect.estimate - half, effect.estimate + half)
    if not np.allclose((effect.ci_lower, effect.ci_upper), ends, rtol=0.0, atol=1e-6 * half):
        raise InferenceError(
            "a decision needs an effect whose interval follows from its standard error",
            given=f"{effect.metric}, {effect.estimator}: [{effect.ci_lower:.4g}, "
            f"{effect.ci_upper:.4g}] beside [{ends[0]:.4g}, {ends[1]:.4g}]",
            key=key,
        )


def _nothing_found(
    result: Result, wanted: Primary | Guardrail, *, key: str, term: str | None = None
) -> SpecError:
    of_term = [effect for effect in result.effects if term in {None, effect.term}]
    present = [f"{effect.metric} ({effect.scale}, {effect.estimator})" for effect in of_term]
    estimator = "" if wanted.estimator is None else f", {wanted.estimator}"
    place = "" if term is None else f" for {term}"
    return SpecError(
        f"the result has no such effect{place}",
        given=f"{wanted.metric} ({wanted.scale}{estimator})",
        allowed=list(dict.fromkeys(present)) or "a result with effects",
        key=key,
    )


def _row(decision: Decision, *, is_recommended: bool) -> dict[str, object]:
    effect, gain = decision.effect, decision.gain
    return {
        "term": decision.term,
        "verdict": decision.verdict,
        "is_recommended": is_recommended,
        "metric": decision.metric,
        "scale": decision.scale,
        "estimator": effect.estimator,
        "estimate": effect.estimate,
        "std_error": effect.std_error,
        "ci_lower": effect.ci_lower,
        "ci_upper": effect.ci_upper,
        "expected_gain": gain.mean,
        "gain_lower": gain.ci_lower,
        "gain_upper": gain.ci_upper,
        "confidence_level": gain.confidence_level,
        "prob_gain": gain.prob_positive,
        "worse_than": gain.worse_than,
        "prob_worse": gain.prob_worse,
        "loss_ship": gain.loss_treatment,
        "loss_keep": gain.loss_control,
        "n_failed": len(decision.failed),
        "failed": ", ".join(f"{item.rule}: {item.compared}" for item in decision.failed),
        "text": decision.text,
    }


def _paragraph(
    verdict: Verdict,
    effect: Effect,
    gain: PosteriorSummary,
    reasons: Sequence[Reason],
    rule: DecisionRule,
) -> str:
    shown = "{:+.2%}".format if effect.scale == "relative" else "{:+.4g}".format
    change = "change for the better" if rule.primary.direction == "decrease" else "change"
    opening = (
        f"{effect.term}: {WORDS[verdict]}. The expected {change} of {effect.metric} is "
        f"{shown(gain.mean)} ({gain.confidence_level:.0%} interval {shown(gain.ci_lower)} to "
        f"{shown(gain.ci_upper)})"
    )
    return f"{opening}. {_because(verdict, reasons)}"


def _because(verdict: Verdict, reasons: Sequence[Reason]) -> str:
    failed = {
        role: "; ".join(item.detail for item in reasons if item.role == role and not item.passed)
        for role in ("health", "harm", "ship", "wait")
    }
    if verdict == "ship":
        kept = "; ".join(item.detail for item in reasons if item.role == "ship")
        return f"Every condition of the rule holds: {kept}."
    if failed["health"]:
        return f"No decision can rest on these numbers: {failed['health']}."
    if verdict == "roll_back":
        return f"There is harm: {failed['harm']}."
    if verdict == "hold":
        return (
            f"A gain worth having is ruled out, more data would not change that: {failed['wait']}."
        )
    return f"The data do not settle it yet: {failed['ship']}."
