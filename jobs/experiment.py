"""Look at experiments: estimates, sequential test, posteriors, decision, return and a scorecard.

A spec is that of an `ab` analysis with sections that say how the experiment is looked at and what
decides (docs/methods/experiment.md). Each run is one look: it joins the looks of the same
experiment that the table `looks` holds, which are not read from the data again.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pandas as pd
from pydantic import Field

from causal.core.errors import CausalError, HealthError
from causal.experiments.decision import WORDS
from causal.scorecard import experiment_readout, wording
from causal.scorecard import looks as look_history
from causal.scorecard import scorecard_content as content
from causal.scorecard.entry_days import EntryDays
from causal.scorecard.experiment_spec import ExperimentSpec
from causal.scorecard.looks import LOOK_COLUMNS, Place
from jobs import analyze
from jobs.runtime import analyses, daily, experiments, readout
from jobs.runtime.analyses import Analysis, Bound, Until
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.experiments import ExperimentRun
from jobs.runtime.runner import record


class ExperimentConfig(JobConfig):
    """Options of the job.

    Attributes:
        spec: The experiments; those of `conf/experiments` if left out.
        output: Folder for the scorecard, the report, the tables and the figures.
        as_of: Day of the look.
        final: Whether the experiments end with this look.
    """

    spec: tuple[Path, ...] = Field(
        default=(), description="experiment specs (default: all of conf/experiments)"
    )
    output: Path | None = Field(
        default=None,
        description="folder for scorecard.html, scorecard.md, report.json, effects.json, "
        "diagnostics.json and the figures; several specs get a folder each",
    )
    as_of: dt.date | None = Field(
        default=None,
        description="day of the look (default: the last day in the data where looks.day names "
        "its column, else today); the day of the last look restates it",
    )
    final: bool = Field(
        default=False,
        description="the experiment ends with this look for reasons that have nothing to do with "
        "its estimates",
    )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The spec files."""
        return self.spec or analyses.default_specs("experiments")


def check(config: ExperimentConfig) -> None:
    """Validate specs and the output folder without Spark."""
    loaded = analyses.load_all(config.paths, model=ExperimentSpec)
    readout.check_output(config.output, below=analyze.own_folders(loaded))


def run(context: Context, config: ExperimentConfig) -> int:
    """Make a look at every experiment; the exit code.

    Raises:
        HealthError: A health check or guardrail says stop; everything is written.
        CausalError: A look could not be made; those before it are written.
    """
    stopped = [
        f"{found.spec.name}: {reason}"
        for found in run_all(context, config)
        for reason in found.experiment.stops
    ]
    if stopped:
        raise HealthError("a health check or guardrail says stop", given=stopped)
    return 0


def run_all(context: Context, config: ExperimentConfig) -> list[ExperimentRun]:
    """Make a look at every experiment, store and show it.

    Raises:
        CausalError: A look could not be made; those before it are written.
    """
    loaded = analyses.load_all(config.paths, model=ExperimentSpec)
    done = []
    for number, item in enumerate(loaded, start=1):
        context.progress.bar(done=number - 1, total=len(loaded), label=item.spec.name)
        with experiments.one_at_a_time(context, item.spec.name):
            found = _look(context, item, config)
            _keep(context, found)
        folder = config.output
        if folder is not None and len(loaded) > 1:
            folder = folder / found.spec.name
        experiments.leave(context, found, folder=folder)
        experiments.track(context, found)
        _show(context, found)
        done.append(found)
    return done


def _look(context: Context, item: Analysis, config: ExperimentConfig) -> ExperimentRun:
    spec = cast("ExperimentSpec", item.spec)
    started_at = datetime.now(UTC)
    with context.progress.step(f"look at {spec.name}"):
        stored = experiments.stored_looks(context, spec.name)
        whole = analyses.bind(context, item)
        days = experiments.days_of(whole, spec)
        as_of = config.as_of or _day(days, stored, whole)
        with _located(item):
            at = look_history.place(stored, as_of=as_of)
        until = None if spec.looks.day is None else Until(spec.looks.day, as_of)
        bound = whole if until is None else _until(context, item, until)
        is_final = config.final or bool(at.held["is_final"].any())
        result = analyze.estimated(context, bound)
        if days is not None:
            result = days.noted(result, as_of=as_of)
        with _located(item):
            experiment = experiment_readout.read(
                spec,
                result,
                earlier=at.earlier[list(LOOK_COLUMNS)],
                as_of=as_of,
                is_final=is_final,
            )
            look_history.check_unchanged(experiment.this_look, at)
    named = replace(bound, identity=_identity(bound, at, as_of=as_of, is_final=is_final))
    return ExperimentRun(named, experiment.result, started_at, experiment)


def _until(context: Context, item: Analysis, until: Until) -> Bound:
    """The rows of the look, by way of stored days where these are of the same content."""
    bound = analyses.bind(context, item, until=until)
    engine = daily.from_days(context, bound, until)
    return bound if engine is None else replace(bound, engine=engine)


def _identity(bound: Bound, at: Place, *, as_of: dt.date, is_final: bool) -> str:
    """Names all that a look was made of: the content read, its day, and the looks before it."""
    before = at.earlier[list(LOOK_COLUMNS)].to_json(orient="records", double_precision=15)
    seen = hashlib.sha256(before.encode()).hexdigest()[:16]
    return json.dumps(
        {
            "content": bound.identity,
            "as_of": str(as_of),
            "earlier_looks": seen,
            "is_final": is_final,
        }
    )


def _day(days: EntryDays | None, stored: pd.DataFrame, bound: Bound) -> dt.date:
    """The day of a look that the user leaves to the job."""
    if days is not None:
        return days.last
    return experiments.look_of_content(stored, bound.identity) or datetime.now(UTC).date()


def _keep(context: Context, found: ExperimentRun) -> None:
    content_read = json.loads(found.bound.identity)["content"]
    written = analyze.store(context, [found])
    written |= experiments.store(context, found, source_identity=content_read)
    if written:
        record(context, [analyze.run_record(found, written, job="experiment")])


def _show(context: Context, found: ExperimentRun) -> None:
    """The closing summary."""
    experiment = found.experiment
    rows = [
        [
            item.term,
            WORDS[item.verdict],
            wording.change(item.effect.estimate, item.scale),
            wording.interval(item.effect),
            wording.chance(item.gain.prob_positive),
            wording.chance(item.gain.prob_worse),
        ]
        for item in experiment.decisions.decisions
    ]
    metric = experiment.spec.rule.primary.metric
    context.progress.table(
        f"{experiment.spec.name}, look {experiment.look} ({experiment.as_of}): {metric}",
        ["treatment", "decision", "change", "interval", "chance better", "chance of harm"],
        rows,
    )
    for decision in experiment.decisions.decisions:
        lines = [decision.text, content.stop_sentence(experiment, decision.term)]
        lines += content.returns(experiment, decision.term)
        context.progress.text("\n" + "\n".join(line for line in lines if line))
    for item in content.failed_checks(experiment):
        context.progress.warning(f"{item.name}: {item.detail}")


@contextmanager
def _located(item: Analysis) -> Generator[None]:
    """Errors point at the spec's file."""
    try:
        yield
    except CausalError as error:
        raise item.located(error) from error


JOB = CommandJob(name="experiment", config=ExperimentConfig, run=run, check=check)
