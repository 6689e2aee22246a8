"""Learn who benefits from which treatment on a sample, and check it on units held out.

A spec names unit, outcome, arms, features and learners (docs/methods/uplift_learners.md). Learners
are trained on a bounded sample of each arm; units that a hash holds out are scored in Spark, and
what is reported is found on them: mean effects, effects by segment and by group of the score, how
well scores rank. The model goes to MLflow with its hash; `score` and `policy` load it from there.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from causal.core.errors import CausalError, DataError, HealthError
from causal.core.frames import Condition, HashBucket
from causal.core.result import Diagnostic, Result
from causal.uplift import learners_options, learners_readout
from causal.uplift.learned_model import UpliftModel, learn
from causal.uplift.learners_options import UpliftLearnersSpec
from jobs import analyze
from jobs.runtime import analyses, models, plans, readout, unit_truths
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.models import Dumped
from jobs.runtime.readout import Readout
from jobs.runtime.runner import record
from transforms.bounded import collect_bounded
from transforms.result_tables import UPLIFT_SCORES
from transforms.sampling import label
from transforms.schema import check_columns
from transforms.terms import filtered, kinds, quoted
from transforms.uplift_frames import (
    PARTS,
    evaluated,
    part_of,
    score_rows,
    with_arm_scores,
    with_fold,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOLD_SALT = 2


class UpliftConfig(JobConfig):
    """Options of the job.

    Attributes:
        spec: What is learned.
        output: Folder for files.
    """

    spec: Path = Field(description="spec of the learners")
    output: Path | None = Field(
        default=None,
        description="folder for effects.json, diagnostics.json, summary.md and the figures",
    )


@dataclass(frozen=True)
class Learned(Readout):
    """A model with what was found of it.

    Attributes:
        stored: The model as it is kept.
        scores: The table of scores and the version written.
        is_trained: Whether it was trained now; else it is that of a finished run of the same key.
    """

    stored: Dumped
    scores: Mapping[str, int]
    is_trained: bool

    @property
    def content_key(self) -> str:
        """Names the model too: training again may give another one of the same key."""
        return f"{self.run_key}.{self.stored.sha256}"

    @property
    def figures(self) -> Mapping[str, "Figure"]:
        """Qini curves and uplift by group."""
        return learners_readout.figures(cast("UpliftLearnersSpec", self.spec), self.result)

    @property
    def sentences(self) -> Sequence[str]:
        """Who benefits."""
        return learners_readout.sentences(cast("UpliftLearnersSpec", self.spec), self.result)

    @property
    def metrics(self) -> Mapping[str, float]:
        """How well scores rank."""
        return {**super().metrics, **learners_readout.metrics(self.result)}


def check(config: UpliftConfig) -> None:
    """Validate the spec and the output folder without Spark."""
    analyses.load(config.spec, model=learners_options.SPEC)
    readout.check_output(config.output)


def run(context: Context, config: UpliftConfig) -> int:
    """Train, evaluate and store; the exit code.

    Raises:
        HealthError: A check says stop; everything is stored.
        CausalError: The data cannot carry the learners.
    """
    item = analyses.load(config.spec, model=learners_options.SPEC)
    bound = analyses.bind(context, item)
    state = context.lakehouse.state(UPLIFT_SCORES.name, part=_part(item.spec.name))
    is_current = state is not None and state.run_key == bound.run_key
    if is_current and context.tracking.find_finished(bound.run_key) is not None:
        context.progress.line(f"uplift: already current ({item.spec.name})")
        return 0
    found = _made(context, item, bound, output=config.output)
    if found.stops:
        raise HealthError("a health check says stop", given=[stop.detail for stop in found.stops])
    return 0


def trained(context: Context, path: Path) -> Learned:
    """The model of a spec with what was found of it; trains and stores it as `run` does.

    Args:
        context: The run.
        path: The spec.

    Raises:
        CausalError: The data cannot carry the learners.
    """
    item = analyses.load(path, model=learners_options.SPEC)
    return _made(context, item, analyses.bind(context, item), output=None)


def _made(context: Context, item: Analysis, bound: Bound, *, output: Path | None) -> Learned:
    """Train, evaluate and store."""
    started_at = datetime.now(UTC)
    try:
        found = _learned(context, item, bound, started_at)
    except CausalError as error:
        raise item.located(error) from error
    written = {**found.scores, **analyze.store(context, [found])}
    record(context, [analyze.run_record(found, written, job="uplift")])
    keep = partial(models.store, context, stored=found.stored, name=item.spec.name)
    analyze.leave(context, found, output=output, more=keep, is_new=found.is_trained)
    context.progress.text("\n" + "\n".join(f"- {text}" for text in found.sentences))
    context.progress.text("\n" + found.result.summary())
    return found


def _learned(context: Context, item: Analysis, bound: Bound, started_at: datetime) -> Learned:
    spec = cast("UpliftLearnersSpec", item.spec)
    rows, others = _rows(context, item)
    training, held_out = (
        rows.transform(part_of(spec.split, n_held_out=spec.n_held_out, part=part)) for part in PARTS
    )
    known = models.finished(context, bound.run_key)
    if known is None:
        with context.progress.step(f"train {', '.join(spec.options.learners)}"):
            model = plans.asked(context, learn(spec), training)
        stored = Dumped.of(model)
    else:
        model, stored = known.model, Dumped(known.data, known.sha256)
        context.progress.line(f"model: that of run {known.run_id}, sha256 {known.sha256}")
    scored = held_out.transform(evaluated(model)).persist()
    try:
        result, written = _evaluated(context, model, scored, run_key=bound.run_key)
    finally:
        scored.unpersist()
    note = Diagnostic(
        name="model", statistic=float(len(stored.data)), pvalue=None, passed=None,
        detail=f"SHA-256 of the model: {stored.sha256}",
    )  # fmt: skip
    result = dataclasses.replace(result, diagnostics=(*result.diagnostics, others, note))
    return Learned(bound, result, started_at, stored, written, is_trained=known is None)


def _rows(context: Context, item: Analysis) -> tuple[DataFrame, Diagnostic]:
    """The rows of the arms, with the fold that intervals are made by, and how many others are not.

    Raises:
        SpecError: A column is missing.
        DataError: Rows lack the cluster, so that they are in no part.
    """
    spec = cast("UpliftLearnersSpec", item.spec)
    options = spec.options
    df, _ = context.lakehouse.read_source(spec.source, beside=item.file.path.parent)
    needed = (options.unit, options.outcome, options.variant, *options.inputs, *options.segments)
    check_columns(df.columns, (*needed, spec.split.column))
    chosen = filtered(df, spec.source.conditions, kinds(df))
    is_own = label(df, options.variant).isin(*map(str, options.arms))
    lacks_part = quoted(spec.split.column).isNull()
    counted = chosen.agg(
        F.count_if(is_own & lacks_part).alias("lost"),
        F.count_if(~F.coalesce(is_own, F.lit(False))).alias("others"),
    )
    counts = collect_bounded(counted, max_rows=1, what="rows that are left out").iloc[0]
    if counts["lost"]:
        raise DataError(
            f"{spec.split.column} is null, so that some rows are neither trained on nor held out",
            given=f"{counts['lost']:,} rows",
        )
    rows = filtered(chosen, (Condition(options.variant, options.arms),), kinds(df))
    if options.cluster is not None:
        fold = HashBucket(options.cluster, learners_readout.N_FOLDS, salt=spec.seed + _FOLD_SALT)
        rows = rows.transform(with_fold(fold, name=learners_readout.FOLD))
    return rows, learners_readout.other_variants(int(counts["others"]))


def _evaluated(
    context: Context, model: UpliftModel, scored: DataFrame, *, run_key: str
) -> tuple[Result, dict[str, int]]:
    """What is found on the held-out units, and the version of the table of their scores."""
    spec, options = model.spec, model.spec.options
    with context.progress.step("score the held-out units"):
        rows = plans.asked(context, learners_readout.held_out(spec), scored)
    full = scored.transform(
        with_arm_scores(
            outcome=options.outcome,
            variant=options.variant,
            arms=options.arms,
            chances=rows.shares(spec) if options.is_randomised else None,
        )
    )
    with context.progress.step("evaluate"):
        result = plans.asked(context, learners_readout.estimate(model, rows), full)
    named = list(enumerate(model.treatments, start=1))
    scores = full.transform(
        score_rows(
            analysis=spec.name,
            unit=options.unit,
            outcome=options.outcome,
            variant=options.variant,
            scored=[(learner, name, at) for learner in model.learners for at, name in named],
        )
    )
    with context.progress.step(UPLIFT_SCORES.name):
        version = context.lakehouse.write(
            scores, UPLIFT_SCORES.name, run_key=run_key, replace_where=_part(spec.name)
        )
    return _beside_truth(context, model, full, result), {UPLIFT_SCORES.name: version}


def _beside_truth(context: Context, model: UpliftModel, full: DataFrame, result: Result) -> Result:
    """The result with rank correlations of scores and true effects, where a world keeps them."""
    if model.spec.truth is None:
        return result
    with context.progress.step("compare with the truth"):
        sample = unit_truths.effects_beside_truth(context, model, full)
    found = learners_readout.rank_correlations(model, sample)
    return dataclasses.replace(result, diagnostics=(*result.diagnostics, *found))


def _part(analysis: str) -> str:
    return f"analysis = '{analysis}'"


JOB = CommandJob(name="uplift", config=UpliftConfig, run=run, check=check)
