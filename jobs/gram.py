"""Aggregate what each analysis asks of its table into stored frames.

Runs the plan of each spec on its table and keeps every answer: `gram`, `panel_gram`, `meat` and
`key_check` hold them under the analysis' name and the identity of the content that was aggregated.
`analyze` reads them back and touches the rows only for what they do not answer.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from causal.core import plan, registry
from causal.core.errors import CausalError
from causal.core.frames import FrameRequest, describe
from causal.core.stored_gram import Recorder
from jobs.runtime import analyses
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.runner import RunRecord, record
from transforms.result_tables import FRAME_TABLES
from transforms.stored_frames import rows_of, table_of


class GramConfig(JobConfig):
    """Options of the job.

    Attributes:
        specs: The analyses; those of `conf/analyses` if left out.
    """

    specs: tuple[Path, ...] = Field(
        default=(), description="analysis specs (default: all of conf/analyses)"
    )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The spec files."""
        return self.specs or analyses.default_specs()


def check(config: GramConfig) -> None:
    """Validate the specs without Spark."""
    analyses.load_all(config.paths)


def run(context: Context, config: GramConfig) -> int:
    """Aggregate for every spec whose stored frames are not current; the exit code."""
    bound = [analyses.bind(context, item) for item in analyses.load_all(config.paths)]
    part = _part([item.analysis for item in bound])
    key = hashlib.sha256("".join(item.run_key for item in bound).encode()).hexdigest()
    stale = [
        table.name for table in FRAME_TABLES if not _is_current(context, table.name, part, key)
    ]
    if not stale:
        context.progress.line(f"gram: already current ({len(bound)} analyses)")
        return 0
    started_at = datetime.now(UTC)
    rows: dict[str, list[Mapping[str, Any]]] = {table.name: [] for table in FRAME_TABLES}
    sources: dict[str, list[Bound]] = {}
    for item in bound:
        sources.setdefault(f"{item.source} {item.identity}", []).append(item)
    tasks = {name: partial(_all_answers, context, items) for name, items in sources.items()}
    for answers in context.side_by_side(tasks).values():
        for name, row in answers:
            rows[name].append(row)

    def put(name: str) -> int:
        frame = context.lakehouse.frame(rows[name], name)
        with context.progress.step(f"{name}: {len(rows[name]):,} rows"):
            return context.lakehouse.write(frame, name, run_key=key, replace_where=part)

    written = context.side_by_side({name: partial(put, name) for name in rows})
    made = RunRecord(
        run_key=key,
        job="gram",
        started_at=started_at,
        config=config,
        inputs={name: version for item in bound for name, version in item.inputs.items()},
        outputs=written,
    )
    record(context, [made])
    return 0


def _all_answers(context: Context, bound: Sequence[Bound]) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows of the frame tables for analyses of the same rows; what two ask is answered once."""
    known: dict[FrameRequest, pd.DataFrame] = {}
    return [row for item in bound for row in _answers(context, item, known)]


def _answers(
    context: Context, bound: Bound, known: dict[FrameRequest, pd.DataFrame]
) -> list[tuple[str, Mapping[str, Any]]]:
    spec = bound.analysis.spec
    recorder = Recorder(bound.engine, known)
    with context.progress.step(f"gram of {spec.name}"):
        try:
            plan.run(
                registry.method(spec.method).estimate(spec),
                recorder,
                others=bound.other_engines,
                on_request=lambda number, asked: context.progress.line(
                    f"pass {number}: {describe(asked)}"
                ),
            )
        except CausalError as error:
            raise bound.analysis.located(error) from error
    return [
        (table_of(request).name, row)
        for request, frame in recorder.answers
        for row in rows_of(
            request, frame, analysis=spec.name, source=bound.source, source_identity=bound.identity
        )
    ]


def _part(chosen: Sequence[Analysis]) -> str:
    # Names of analyses match NAME_PATTERN, so they hold no quote.
    names = ", ".join(f"'{analysis.spec.name}'" for analysis in chosen)
    return f"analysis IN ({names})"


def _is_current(context: Context, table: str, part: str, key: str) -> bool:
    state = context.lakehouse.state(table, part=part)
    return state is not None and state.run_key == key


JOB = CommandJob(name="gram", config=GramConfig, run=run, check=check)
