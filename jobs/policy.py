"""Who gets which treatment within a budget, and what that is worth on units held out.

A spec names a model of `uplift`, costs and a budget (docs/methods/policy.md). The targets are
scored in Spark, each gets the treatment that pays best at the price of the budget, and the policy
is valued by doubly robust scores of units that the model has not seen, beside treating none, all,
or as many at random.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import Field
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.errors import CausalError, SpecError
from causal.core.frames import Condition
from causal.core.result import Result
from causal.core.unit_keys import check_units
from causal.uplift import learners_readout, policy_options, policy_readout
from causal.uplift.inputs import STATUSES
from causal.uplift.learned_model import UpliftModel, name_of, rows_by_arm
from causal.uplift.policy_options import PolicySpec
from causal.uplift.policy_readout import Compared, Given, value_name
from jobs import analyze, score
from jobs.runtime import analyses, models, plans, readout, unit_truths
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.models import StoredModel
from jobs.runtime.readout import Readout
from jobs.runtime.runner import record
from transforms.bounded import collect_bounded
from transforms.policy_rule import (
    TREATMENT,
    Rule,
    policy_names,
    with_gains,
    with_ties,
    with_values,
    within_budget,
)
from transforms.result_tables import POLICY_ASSIGNMENTS
from transforms.sampling import label
from transforms.terms import filtered, kinds
from transforms.uplift_frames import (
    effect_name,
    evaluated,
    part_of,
    status_text,
    with_arm_scores,
    with_effects,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PolicyConfig(JobConfig):
    """Options of the job.

    Attributes:
        spec: The policy.
        output: Folder for files.
    """

    spec: Path = Field(description="spec of the policy")
    output: Path | None = Field(
        default=None,
        description="folder for effects.json, diagnostics.json, summary.md and the figure",
    )


@dataclass(frozen=True)
class Valued(Readout):
    """A policy with what it is worth.

    Attributes:
        given: Who gets what.
    """

    given: Given

    @property
    def figures(self) -> Mapping[str, "Figure"]:
        """What the policies are worth."""
        return policy_readout.figures(self.result)

    @property
    def sentences(self) -> Sequence[str]:
        """Who gets what, and what it is worth."""
        counts = dict(zip(self.given.treatments, self.given.n, strict=True))
        return policy_readout.sentences(self.result, counts)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A policy while it is made.

    Attributes:
        spec: The spec.
        stored: The model.
        learner: The learner that scores.
        rule: Who gets what.
    """

    spec: PolicySpec
    stored: StoredModel
    learner: str
    rule: Rule

    @property
    def model(self) -> UpliftModel:
        """The model."""
        return self.stored.model


def check(config: PolicyConfig) -> None:
    """Validate the spec and the output folder without Spark."""
    _loaded(config)
    readout.check_output(config.output)


def _loaded(config: PolicyConfig) -> Analysis:
    item = analyses.load(config.spec, model=policy_options.SPEC)
    options = cast("PolicySpec", item.spec).options
    try:
        models.check_reference(options.model, options.sha256, prefix="options.")
    except SpecError as error:
        raise item.located(error) from error
    return item


def run(context: Context, config: PolicyConfig) -> int:
    """Make the policy, value it and store both; the exit code.

    Raises:
        CausalError: The model is not the recorded one, or the data cannot carry the policy.
    """
    decided(context, config)
    return 0


def decided(context: Context, config: PolicyConfig) -> Valued:
    """The policy with what it is worth; what `run` makes and stores.

    Raises:
        CausalError: The model is not the recorded one, or the data cannot carry the policy.
    """
    item = _loaded(config)
    started_at = datetime.now(UTC)
    try:
        found, written = _made(context, item, started_at)
    except CausalError as error:
        raise item.located(error) from error
    written = {**written, **analyze.store(context, [found])}
    record(context, [analyze.run_record(found, written, job="policy")])
    analyze.leave(context, found, output=config.output)
    context.progress.text("\n" + "\n".join(f"- {text}" for text in found.sentences))
    context.progress.text("\n" + found.result.summary())
    return found


def _made(context: Context, item: Analysis, started_at: datetime) -> tuple[Valued, dict[str, int]]:
    spec = cast("PolicySpec", item.spec)
    options = spec.options
    with context.progress.step(f"load {options.model}"):
        stored = models.load(context, options.model, sha256=options.sha256)
    treatments = stored.model.treatments
    if set(options.costs) != set(treatments):
        raise SpecError(
            "one cost for each treatment of the model", given=sorted(options.costs),
            allowed=treatments, key="options.costs",
        )  # fmt: skip
    plan = Plan(
        spec=spec,
        stored=stored,
        learner=stored.learner(options.learner),
        rule=Rule(
            gains=tuple(f"(gain {name})" for name in treatments),
            costs=tuple(options.costs[name] for name in treatments),
        ),
    )
    # The model is as much an input as the rows.
    bound = analyses.bind(context, item)
    bound = dataclasses.replace(bound, identity=f"{bound.identity} model {stored.sha256}")
    plan, given, written = _assigned(context, plan, item, bound)
    result = _valued(context, plan, item, given)
    return Valued(bound, result, started_at, given), written


def _source(context: Context, plan: Plan, item: Analysis) -> DataFrame:
    """The rows that value the policy."""
    source = plan.spec.source
    df, _ = context.lakehouse.read_source(source, beside=item.file.path.parent)
    score.check_features(df, plan.model)
    return filtered(df, source.conditions, kinds(df))


def _assigned(
    context: Context, plan: Plan, item: Analysis, bound: Bound
) -> tuple[Plan, Given, dict[str, int]]:
    """The rule within the budget, who gets what by it, and the version of the table of that."""
    spec, model, options = plan.spec, plan.model, plan.spec.options
    targets = _source(context, plan, item)
    if options.targets is not None:
        df, _ = context.lakehouse.read_source(options.targets, beside=item.file.path.parent)
        score.check_features(df, model)
        targets = filtered(df, options.targets.conditions, kinds(df))
    with context.progress.step("look at the targets"):
        plans.asked(context, check_units((model.spec.options.unit,), ()), targets)
    effects = [effect_name(name) for name in model.treatments]
    scored = (
        targets.transform(with_effects(model, learner=plan.learner))
        .transform(with_gains(effects, plan.rule, outcome_value=options.outcome_value))
        .transform(with_ties(spec.ties(model.spec.options.unit)))
        .persist()
    )
    try:
        with context.progress.step("score the targets"):
            counts = score.status_counts(scored)
        if options.unseen == "refuse":
            score.refuse_unscored(targets, model, counts)
        n_targets = sum(counts.values())
        limit = options.limit(n_targets)
        with context.progress.step("find the price of the budget"):
            rule = within_budget(scored, plan.rule, budget=limit)
        rows = scored.withColumn(TREATMENT, rule.choice)
        given = _given(rows, rule, model, limit=limit, n_scored=counts[STATUSES[0]])
        with context.progress.step(POLICY_ASSIGNMENTS.name):
            version = context.lakehouse.write(
                _rows(rows, rule, plan), POLICY_ASSIGNMENTS.name,
                run_key=bound.run_key, replace_where=f"policy = '{spec.name}'",
            )  # fmt: skip
    finally:
        scored.unpersist()
    return dataclasses.replace(plan, rule=rule), given, {POLICY_ASSIGNMENTS.name: version}


def _gain(rule: Rule) -> Column:
    """What a unit's treatment brings by its score, its cost taken off."""
    gains = F.array(F.lit(0.0), *[F.col(f"`{name}`") for name in rule.gains])
    return F.element_at(gains, F.col(f"`{TREATMENT}`") + 1)


def _rows(rows: DataFrame, rule: Rule, plan: Plan) -> DataFrame:
    """The table of who gets what."""
    options = plan.model.spec.options
    names = F.array(*map(F.lit, map(str, options.arms)))
    choice = F.col(f"`{TREATMENT}`")
    return rows.select(
        F.lit(plan.spec.name).alias("policy"),
        label(rows, options.unit).alias("unit_id"),
        F.element_at(names, choice + 1).alias("treatment"),
        _gain(rule).alias("gain"),
        rule.cost_of(choice).alias("cost"),
        status_text().alias("status"),
    )


def _given(
    rows: DataFrame, rule: Rule, model: UpliftModel, *, limit: float | None, n_scored: int
) -> Given:
    counted = rows.groupBy(F.col(f"`{TREATMENT}`").alias("number")).agg(
        F.count(F.lit(1)).alias("n"), F.sum(_gain(rule)).alias("gain")
    )
    found = collect_bounded(counted, max_rows=len(model.treatments) + 1, what="targets by arm")
    by_number = found.set_index("number")
    n = [int(by_number["n"].get(number, 0)) for number in range(len(model.treatments) + 1)]
    return Given(
        treatments=tuple(map(str, model.spec.options.arms)),
        n=tuple(n),
        n_unscored=sum(n) - n_scored,
        spent=sum(size * cost for size, cost in zip(n[1:], rule.costs, strict=True)),
        limit=limit,
        price=rule.price,
        expected=float(found["gain"].sum()),
    )


def _valued(context: Context, plan: Plan, item: Analysis, given: Given) -> Result:
    """The policy's value on the rows of the source that the model has not seen."""
    model = plan.model
    options = model.spec.options
    df = _source(context, plan, item)
    split = model.spec.split
    for name in (options.outcome, options.variant, split.column):
        if name not in df.columns:
            raise SpecError(
                "the source has no such column, so that nothing values the policy", given=name,
                allowed=df.columns, key="source",
            )  # fmt: skip
    held_out = filtered(df, (Condition(options.variant, options.arms),), kinds(df)).transform(
        part_of(split, n_held_out=model.spec.n_held_out, part="held_out")
    )
    scored = held_out.transform(evaluated(model)).persist()
    try:
        return _compared(context, plan, scored, given)
    finally:
        scored.unpersist()


def _compared(context: Context, plan: Plan, scored: DataFrame, given: Given) -> Result:
    spec, model = plan.spec, plan.model
    options = model.spec.options
    with context.progress.step("score the held-out units"):
        rows = plans.asked(context, learners_readout.held_out(model.spec), scored)
    n_arms = len(options.arms)
    effects = [name_of("effect", plan.learner, number) for number in range(1, n_arms)]
    known = (F.col("status") == 0) & F.col(f"`{options.outcome}`").isNotNull()
    chosen = (
        scored.where(known)
        .transform(
            with_arm_scores(
                outcome=options.outcome,
                variant=options.variant,
                arms=options.arms,
                chances=rows.shares(model.spec) if options.is_randomised else None,
            )
        )
        .transform(with_gains(effects, plan.rule, outcome_value=spec.options.outcome_value))
        .transform(with_ties(spec.ties(options.unit)))
        .withColumn(TREATMENT, plan.rule.choice)
    )
    counted = chosen.groupBy(F.col(f"`{TREATMENT}`").alias("number")).agg(
        F.count(F.lit(1)).alias("n")
    )
    found = collect_bounded(counted, max_rows=n_arms, what="held-out units by arm")
    n_by_arm = rows_by_arm(dict(zip(found["number"], found["n"], strict=True)), range(n_arms))
    compared = Compared(
        names=policy_names(model.treatments),
        n_by_arm=tuple(n_by_arm),
        n_left_out=sum(rows.not_scored.values()),
        cluster=options.cluster,
        unit=options.unit,
        metric=f"value of {options.outcome}",
    )  # fmt: skip
    scores = [f"arm_score_{number}" for number in range(n_arms)]
    valued = chosen.transform(
        with_values(
            scores, plan.rule, outcome_value=spec.options.outcome_value, shares=given.shares
        )
    )
    with context.progress.step("value the policy"):
        result = plans.asked(context, policy_readout.estimate(spec, given, compared), valued)
    if spec.truth is None:
        return result
    with context.progress.step("compare with the truth"):
        return _beside_truth(context, plan, chosen, given, result)


def _beside_truth(
    context: Context, plan: Plan, chosen: DataFrame, given: Given, result: Result
) -> Result:
    """The result with true values of the policies on the same units, and that of the best one."""
    spec, model = plan.spec, plan.model
    options = model.spec.options
    arms = tuple(map(str, options.arms))
    if spec.truth is None:
        return result
    truths = unit_truths.potential_outcomes(context, spec.truth, outcome=options.outcome, arms=arms)
    outcomes = [f"truth_outcome_{number}" for number in range(len(arms))]
    true_effects = {
        f"true_effect_{number}": F.col(name) - F.col(outcomes[0])
        for number, name in enumerate(outcomes[1:], start=1)
    }
    own = (
        chosen.withColumn(unit_truths.UNIT, label(chosen, options.unit))
        .join(truths, on=unit_truths.UNIT, how="inner")
        .withColumns(true_effects)
    )
    own = own.persist()
    try:
        return _true_values(plan, own, given, result)
    finally:
        own.unpersist()


def _true_values(plan: Plan, own: DataFrame, given: Given, result: Result) -> Result:
    spec, arms = plan.spec, range(len(given.treatments))
    outcomes = [f"truth_outcome_{number}" for number in arms]
    value, names = spec.options.outcome_value, policy_names(plan.model.treatments)
    learned = own.transform(
        with_values(outcomes, plan.rule, outcome_value=value, shares=given.shares)
    )
    means = learned.agg(
        F.count(F.lit(1)).alias("n"),
        *[F.avg(value_name(number)).alias(name) for number, name in enumerate(names)],
    )
    row = collect_bounded(means, max_rows=1, what="true values").iloc[0]
    limit = spec.options.limit(sum(given.n))
    knowing = own.transform(
        with_gains([f"true_effect_{number}" for number in arms[1:]], plan.rule, outcome_value=value)
    )
    start = dataclasses.replace(plan.rule, price=0.0, low_price=0.0, kept=1.0)
    best = within_budget(
        knowing, start, budget=None if limit is None else limit * row["n"] / sum(given.n)
    )
    optimal = knowing.withColumn(TREATMENT, best.choice).transform(
        with_values(outcomes, best, outcome_value=value, shares=given.shares)
    )
    top = collect_bounded(
        optimal.agg(F.avg(value_name(0)).alias("value")), max_rows=1, what="the best value"
    )
    return policy_readout.beside_truth(
        result, {name: float(row[name]) for name in names}, optimum=float(top["value"].iloc[0])
    )


JOB = CommandJob(name="policy", config=PolicyConfig, run=run, check=check)
