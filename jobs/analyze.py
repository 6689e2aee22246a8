"""Run analyses from their specs: estimates, checks and figures into tables, files and MLflow."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from causal.core import plan, registry
from causal.core.errors import CausalError, HealthError
from causal.core.frames import describe
from causal.core.result import Result
from jobs.runtime import analyses, readout
from jobs.runtime.analyses import Analysis, Bound, StoredFrames
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.readout import Readout
from jobs.runtime.runner import RunRecord, record
from jobs.runtime.tracking import Run
from transforms.result_tables import DIAGNOSTICS, EFFECTS
from transforms.schema import Table


class AnalyzeConfig(JobConfig):
    """Options of the job.

    Attributes:
        spec: The analyses; those of `conf/analyses` if left out.
        output: Folder for effects.json, diagnostics.json, the summary and the figures.
    """

    spec: tuple[Path, ...] = Field(
        default=(), description="analysis specs (default: all of conf/analyses)"
    )
    output: Path | None = Field(
        default=None,
        description="folder for effects.json, diagnostics.json, summary.md and the figures; "
        "several specs get a folder each",
    )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The spec files."""
        return self.spec or analyses.default_specs()


def check(config: AnalyzeConfig) -> None:
    """Validate specs and the output folder without Spark."""
    readout.check_output(config.output, below=own_folders(analyses.load_all(config.paths)))


def own_folders(loaded: Sequence[Analysis]) -> list[str]:
    """Names of the folders below `--output`: one for each spec where there are several."""
    return [item.spec.name for item in loaded] if len(loaded) > 1 else []


def run(context: Context, config: AnalyzeConfig) -> int:
    """Run the analyses; the exit code.

    Raises:
        HealthError: A check says that a result must not be decided on; everything is written.
        CausalError: An analysis failed; those before it are written.
    """
    readouts = run_all(context, config.paths, output=config.output)
    for item in readouts:
        context.progress.text("\n" + item.result.summary())
    stopped = [f"{item.spec.name}: {check_.detail}" for item in readouts for check_ in item.stops]
    if stopped:
        raise HealthError("a health check or guardrail says stop", given=stopped)
    return 0


def run_all(
    context: Context,
    paths: Sequence[Path],
    *,
    output: Path | None = None,
    parent: Run | None = None,
) -> list[Readout]:
    """Run analyses and store what they found.

    Args:
        context: The run.
        paths: The spec files.
        output: Folder for files, if wanted.
        parent: The MLflow run in which theirs are nested.

    Raises:
        CausalError: An analysis failed; those before it are stored.
    """
    loaded = analyses.load_all(paths)
    stored = StoredFrames(context, [item.spec.name for item in loaded])
    done: list[Readout] = []
    try:
        for number, item in enumerate(loaded, start=1):
            context.progress.bar(done=number - 1, total=len(loaded), label=item.spec.name)
            bound = analyses.bind(context, item, stored=stored)
            done.append(_estimated(context, bound))
    finally:
        written = store(context, done)
        if written:
            record(context, [run_record(item, written) for item in done])
        for found in done:
            leave(context, found, output=_folder(output, found, len(loaded)), parent=parent)
    return done


def _estimated(context: Context, bound: Bound) -> Readout:
    spec = bound.analysis.spec
    started_at = datetime.now(UTC)
    with context.progress.step(f"analyze {spec.name}"):
        result = estimated(context, bound)
    return Readout(bound, result, started_at)


def estimated(context: Context, bound: Bound) -> Result:
    """Run the plan of an analysis on what it is bound to.

    Raises:
        CausalError: The data cannot carry it; says file and key.
    """
    spec = bound.analysis.spec
    try:
        return plan.run(
            registry.method(spec.method).estimate(spec),
            bound.engine,
            others=bound.other_engines,
            on_request=lambda number, asked: context.progress.line(
                f"pass {number}: {describe(asked)}"
            ),
        )
    except CausalError as error:
        raise bound.analysis.located(error) from error


def store(context: Context, done: Sequence[Readout]) -> dict[str, int]:
    """Effects and diagnostics of all runs, one commit a table; nothing if they are there.

    Args:
        context: The run.
        done: The analyses with their results.

    Returns:
        Tables written, with their versions.
    """
    if not done:
        return {}
    keys = ", ".join(f"'{item.run_key}'" for item in done)
    part = f"run_key IN ({keys})"
    contents = ", ".join(f"'{item.content_key}'" for item in done)
    commit = hashlib.sha256(contents.encode()).hexdigest()
    rows = (
        (EFFECTS, [row for item in done for row in readout.effect_rows(item)]),
        (DIAGNOSTICS, [row for item in done for row in readout.diagnostic_rows(item)]),
    )
    tasks = {}
    for table, found in rows:
        state = context.lakehouse.state(table.name, part=part)
        if state is None or state.run_key != commit:
            tasks[table.name] = partial(_write, context, table, found, run_key=commit, part=part)
    return context.side_by_side(tasks)


def run_record(found: Readout, written: Mapping[str, int], *, job: str = "analyze") -> RunRecord:
    """The row of `runs` for an analysis.

    Args:
        found: The analysis with its result.
        written: Tables written, with their versions.
        job: The job that made it.
    """
    return RunRecord(
        run_key=found.run_key,
        job=job,
        started_at=found.started_at,
        config=found.spec,
        inputs=found.bound.inputs,
        outputs=written,
    )


def _write(
    context: Context, table: Table, rows: Sequence[Mapping[str, Any]], *, run_key: str, part: str
) -> int:
    with context.progress.step(f"{table.name}: {len(rows)} rows"):
        frame = context.lakehouse.frame(rows, table.name)
        return context.lakehouse.write(frame, table.name, run_key=run_key, replace_where=part)


def _folder(output: Path | None, found: Readout, n_analyses: int) -> Path | None:
    return output / found.spec.name if output is not None and n_analyses > 1 else output


def leave(
    context: Context,
    found: Readout,
    *,
    output: Path | None,
    parent: Run | None = None,
    more: Callable[[Run], None] | None = None,
    is_new: bool = False,
) -> None:
    """Files, where they are wanted, and an MLflow run, unless this very run is there already.

    Args:
        context: The run.
        found: The analysis with its result.
        output: Folder for files.
        parent: The MLflow run in which its own is nested.
        more: Logs what else belongs to the MLflow run.
        is_new: Whether the result is another one than that of a run that is there already.
    """
    if output is not None:
        readout.write_files(found, output)
        context.progress.line(f"{found.spec.name}: results in {output}")
    if not is_new and context.tracking.find_finished(found.run_key) is not None:
        context.progress.line(f"{found.spec.name}: already in MLflow")
        return
    with (
        context.progress.step(f"log {found.spec.name} to MLflow"),
        context.tracking.run(
            found.spec.name,
            run_name=found.spec.name,
            run_key=found.run_key,
            tags=readout.tags(found),
            parent=parent,
        ) as opened,
    ):
        readout.log(found, opened)
        if more is not None:
            more(opened)


JOB = CommandJob(name="analyze", config=AnalyzeConfig, run=run, check=check)
