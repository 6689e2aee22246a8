"""An experiment at one look: what `ab` found, and all that follows from it and the looks before.

Nothing here reads data: effects, stored looks and the spec give boundaries, posteriors, decisions
and returns.
"""

import dataclasses
import datetime as dt
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from causal.core.errors import CausalError, DataError
from causal.core.inference import effect as effect_of
from causal.core.result import Diagnostic, Effect, Result
from causal.experiments import sequential, sequential_srm
from causal.experiments.decision import Decisions, Reason, decide
from causal.experiments.metrics import Direction
from causal.experiments.roi import Roi, roi
from causal.experiments.sequential import SequentialResult
from causal.scorecard import looks as rows
from causal.scorecard.experiment_spec import ExperimentSpec, SequentialPart
from causal.scorecard.looks import PLAN_CHECK, trusted_effects
from causal.scorecard.posteriors import posteriors

REPEATED_SUFFIX = "sequential"
STOP_SUFFIX = "stage_wise"
"""What the estimators of effects that allow for the looks end with: the interval and p-value that
hold at every look, and inference at the stop."""

_ONE_LOOK = 1
_MIN_ARMS = 2


@dataclass(frozen=True, kw_only=True)
class ExperimentReadout:
    """Everything known of an experiment at one look.

    Attributes:
        spec: The experiment.
        as_of: Day of the look.
        look: Its number, from 1.
        result: What `ab` found, with the effects that allow for the looks, the checks over all
            looks, and the tables `looks`, `sequential`, `posteriors`, `decisions`, `reasons` and
            `roi`.
        sequential: The test of the primary metric, by comparison; empty without one.
        decisions: The decision on every treatment.
        roi: The return on every treatment; empty if none is asked for.
        looks: Rows of all looks so far, columns `causal.scorecard.looks.LOOK_COLUMNS`.
    """

    spec: ExperimentSpec
    as_of: dt.date
    look: int
    result: Result
    sequential: Mapping[str, SequentialResult]
    decisions: Decisions
    roi: Mapping[str, Roi]
    looks: pd.DataFrame

    @property
    def this_look(self) -> pd.DataFrame:
        """Rows of this look."""
        return self.looks[self.looks["as_of_on"] == self.as_of]

    @property
    def stops(self) -> tuple[str, ...]:
        """Why health checks or guardrails say stop, one sentence each."""
        found = [
            reason.detail
            for decision in self.decisions.decisions
            for reason in decision.failed
            if reason.rule in {"health", "guardrail_breach"}
        ]
        return tuple(dict.fromkeys(found))


def read(
    spec: ExperimentSpec,
    result: Result,
    *,
    earlier: pd.DataFrame,
    as_of: dt.date,
    is_final: bool = False,
) -> ExperimentReadout:
    """Make of one look what can be made of it.

    Args:
        spec: The experiment.
        result: What `ab` found on the data of this look.
        earlier: Rows of the looks before it, in order of time, columns
            `causal.scorecard.looks.LOOK_COLUMNS`.
        as_of: Day of the look.
        is_final: Whether the experiment ends here for reasons that have nothing to do with its
            estimates.

    Raises:
        DataError: The looks do not follow each other (information that does not grow, a look after
            the planned end).
        SpecError: The rule names what the result lacks.
    """
    look = earlier["as_of_on"].nunique() + 1
    found = rows.look_rows(spec, result, as_of=as_of, look=look, is_final=is_final)
    kept = [earlier[list(rows.LOOK_COLUMNS)], found] if len(earlier) else [found]
    looks = pd.concat(kept, ignore_index=True)
    tested = _tested(spec, looks, found)
    known = dataclasses.replace(
        result,
        effects=(*result.effects, *_effects_over_looks(spec, result, tested)),
        diagnostics=(*result.diagnostics, *_checks_over_looks(spec, looks)),
    )
    further = {
        term: _sequential_reasons(item, metric=spec.rule.primary.metric, direction=direction)
        for direction in [spec.rule.primary.direction]
        for term, item in tested.items()
    }
    decisions = decide(known, spec.rule, further=further)
    returns = _returns(spec, known, decisions)
    return ExperimentReadout(
        spec=spec,
        as_of=as_of,
        look=look,
        result=dataclasses.replace(
            known,
            tables={**known.tables, **_tables(spec, known, looks, tested, decisions, returns)},
        ),
        sequential=tested,
        decisions=decisions,
        roi=returns,
        looks=looks,
    )


def _tested(
    spec: ExperimentSpec, looks: pd.DataFrame, found: pd.DataFrame
) -> dict[str, SequentialResult]:
    """The sequential test of the primary metric, by comparison."""
    if spec.sequential is None:
        return {}
    metric, scale = spec.rule.primary.metric, spec.sequential.scale
    of_metric = found[(found["metric"] == metric) & (found["scale"] == scale)]
    out = {}
    for term in spec.rule.terms or tuple(of_metric["term"]):
        seen = rows.sequence(looks, metric=metric, term=term, scale=scale)
        try:
            out[term] = sequential.evaluate(seen, spec.sequential)
        except CausalError as error:
            raise error.located(key="sequential") from error
    return out


def _effects_over_looks(
    spec: ExperimentSpec, result: Result, tested: Mapping[str, SequentialResult]
) -> list[Effect]:
    """The tested effects with intervals and p-values that allow for the looks."""
    if spec.sequential is None:
        return []
    out: list[Effect] = []
    for plain in trusted_effects(result):
        is_tested = (plain.metric, plain.scale) == (
            spec.rule.primary.metric,
            spec.sequential.scale,
        )
        if is_tested and plain.term in tested:
            out += _over_looks(plain, tested[plain.term], spec.sequential)
    return out


def _over_looks(plain: Effect, found: SequentialResult, options: SequentialPart) -> list[Effect]:
    now = found.looks[-1]
    repeated = dataclasses.replace(
        plain,
        estimator=f"{plain.estimator}_{REPEATED_SUFFIX}",
        statistic=now.statistic,
        df=None,
        ci_lower=now.ci_lower,
        ci_upper=now.ci_upper,
        confidence_level=options.confidence_level,
        pvalue=now.pvalue,
    )
    adjusted = found.adjusted
    is_now = found.stopped_at == len(found.looks)
    if adjusted is None or adjusted.kind != STOP_SUFFIX or not is_now:
        return [repeated]
    at_stop = dataclasses.replace(
        repeated,
        estimator=f"{plain.estimator}_{STOP_SUFFIX}",
        estimate=adjusted.estimate,
        ci_lower=adjusted.ci_lower,
        ci_upper=adjusted.ci_upper,
        confidence_level=adjusted.confidence_level,
        pvalue=adjusted.pvalue,
    )
    return [repeated, at_stop]


def _checks_over_looks(spec: ExperimentSpec, looks: pd.DataFrame) -> list[Diagnostic]:
    n_looks = looks["as_of_on"].nunique()
    changed = rows.changed_plan(looks)
    found = [
        Diagnostic(
            name=PLAN_CHECK,
            statistic=float(len(changed)),
            pvalue=None,
            passed=not changed,
            detail=(
                f"the test, its metric or the comparison changed after the first of {n_looks} "
                f"looks (on {', '.join(map(str, changed))}): error rates over the looks are not "
                "known; give the experiment a new name to start again"
                if changed
                else f"test, metric and comparison are those of the first of {n_looks} looks"
            ),
        )
    ]
    if spec.sequential is None and n_looks > _ONE_LOOK:
        found.append(
            Diagnostic(
                name="repeated_looks",
                statistic=float(n_looks),
                pvalue=None,
                passed=False,
                detail=f"this is look {n_looks} and the spec has no sequential test: p-values and "
                "intervals hold for a single look",
            )
        )
    return [*found, *_unit_checks(spec, looks)]


def _unit_checks(spec: ExperimentSpec, looks: pd.DataFrame) -> list[Diagnostic]:
    """Units by arm over the looks: they must not fall, and keep the planned shares throughout."""
    counts = rows.counts_by_arm(looks)
    fell = [
        f"{arm}: {before:,} at look {at}, {after:,} at look {at + 1}"
        for arm, units in counts.items()
        for at, (before, after) in enumerate(itertools.pairwise(units), start=1)
        if after < before
    ]
    if fell:
        return [
            Diagnostic(
                name="units_by_look",
                statistic=float(len(fell)),
                pvalue=None,
                passed=False,
                detail=f"units disappeared between looks ({'; '.join(fell)}): earlier looks saw "
                "rows that are gone",
            )
        ]
    planned = spec.options.expected_shares
    if planned is None or spec.options.cluster is not None:
        return []
    shares = {arm: float(share) for arm, share in planned.items()}
    by_arm = {str(arm): share for arm, share in shares.items() if str(arm) in counts}
    if len(by_arm) < _MIN_ARMS:
        return []
    total = sum(by_arm.values())
    test = sequential_srm.sequential_ratio(
        {arm: counts[arm] for arm in by_arm},
        shares=[share / total for share in by_arm.values()],
        alpha=spec.options.srm_alpha,
    )
    return [test.diagnostic()]


def _sequential_reasons(
    found: SequentialResult, *, metric: str, direction: Direction
) -> tuple[Reason, ...]:
    """The test's state as conditions of the decision."""
    now = found.looks[-1]
    if found.stopped_at is None:
        return (_reason(found, metric, detail=_goes_on(found), passed=False),)
    at = found.looks[found.stopped_at - 1]
    if found.decision == "stop_end":
        detail = f"the planned end came at look {at.look}, with no effect beyond the boundary"
        return (_reason(found, metric, detail=detail, passed=True),)
    if found.decision == "stop_futility":
        detail = f"the test stopped at look {at.look} for lack of an effect"
        return (
            _reason(found, metric, detail=detail, passed=False),
            _reason(found, metric, detail=detail, passed=False, role="wait"),
        )
    is_better = (at.statistic > 0) == (direction == "increase")
    pvalue = now.pvalue if found.adjusted is None else found.adjusted.pvalue
    side = "better" if is_better else "worse"
    detail = (
        f"the test stopped at look {at.look} for a change for the {side} "
        f"(p = {pvalue:.2g}, allowing for the looks)"
    )
    if is_better:
        return (_reason(found, metric, detail=detail, passed=True),)
    return (_reason(found, metric, detail=detail, passed=False, role="harm"),)


def _reason(
    found: SequentialResult,
    metric: str,
    *,
    detail: str,
    passed: bool,
    role: str = "ship",
) -> Reason:
    now = found.looks[-1]
    return Reason(
        rule="sequential",
        compared=metric,
        value=now.statistic,
        relation=">=",
        threshold=None,
        passed=passed,
        role=role,  # type: ignore[arg-type]
        detail=detail,
    )


def _goes_on(found: SequentialResult) -> str:
    now = found.looks[-1]
    planned = "" if now.fraction is None else f", {now.fraction:.0%} of the planned information"
    return (
        f"the sequential test goes on: look {now.look}{planned}, z = {now.statistic:.2f} is "
        "within its boundaries"
    )


def _returns(spec: ExperimentSpec, result: Result, decisions: Decisions) -> dict[str, Roi]:
    if spec.roi is None:
        return {}
    metric = spec.earning_metric
    found = {
        effect.term: effect
        for effect in trusted_effects(result)
        if effect.metric == metric.name and effect.scale == "absolute"
    }
    out = {}
    for decision in decisions.decisions:
        if decision.term not in found:
            raise DataError(
                f"there is no effect of {metric.name} to make a return of",
                given=decision.term,
                allowed=list(found),
                key="roi.metric",
            )
        gain = _gain(found[decision.term], metric.direction)
        out[decision.term] = roi(gain, spec.roi, confidence_level=spec.confidence_level)
    return out


def _gain(effect: Effect, direction: Direction) -> Effect:
    """The change for the better: a metric that should fall earns by falling."""
    if direction == "increase":
        return effect
    return effect_of(
        estimator=effect.estimator,
        estimand=effect.estimand,
        metric=effect.metric,
        term=effect.term,
        scale=effect.scale,
        estimate=-effect.estimate,
        std_error=effect.std_error,
        df=effect.df,
        confidence_level=effect.confidence_level,
        n_treated=effect.n_treated,
        n_control=effect.n_control,
        n_clusters=effect.n_clusters,
    )


def _tables(
    spec: ExperimentSpec,
    result: Result,
    looks: pd.DataFrame,
    tested: Mapping[str, SequentialResult],
    decisions: Decisions,
    returns: Mapping[str, Roi],
) -> dict[str, pd.DataFrame]:
    frames = {
        "looks": looks.drop(columns=["arm_units", "plan"]).astype({"as_of_on": str}),
        "posteriors": posteriors(spec, result),
        "decisions": decisions.to_frame(),
        "reasons": decisions.reasons_frame(),
    }
    if tested:
        parts = [item.to_frame().assign(term=term) for term, item in tested.items()]
        frames["sequential"] = pd.concat(parts, ignore_index=True)
    if returns:
        frames["roi"] = pd.DataFrame([return_row(term, item) for term, item in returns.items()])
    return frames


def return_row(term: str, found: Roi) -> dict[str, object]:
    """A return as a row: amounts per year, chance of a profit, break-even."""
    profit = found.profit_per_year
    return {
        "term": term,
        "metric": found.effect.metric,
        "profit_per_year": profit.mean,
        "profit_lower": profit.ci_lower,
        "profit_upper": profit.ci_upper,
        "confidence_level": profit.confidence_level,
        "prob_profit": found.prob_positive,
        "gain_per_year": found.gain_per_year,
        "gain_per_year_std_error": found.gain_per_year_std_error,
        "cost_per_year": found.cost_per_year,
        "cost_per_year_std_error": found.cost_per_year_std_error,
        "profit_over_horizon": found.profit_over_horizon,
        "profit_over_horizon_lower": found.profit_over_horizon_lower,
        "profit_over_horizon_upper": found.profit_over_horizon_upper,
        "break_even_effect": found.break_even_effect,
        "break_even_cost": found.break_even_cost,
        "return_on_cost": found.return_on_cost,
        "return_on_cost_lower": found.return_on_cost_lower,
        "return_on_cost_upper": found.return_on_cost_upper,
    }
