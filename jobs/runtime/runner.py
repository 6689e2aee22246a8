"""Runs a job: a table job with pinned inputs and a run key, a command job with its context."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel
from pyspark.sql import DataFrame

from causal.core.errors import CausalError
from jobs.runtime.catalogue import code_version
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, Gate, TableJob
from jobs.runtime.locks import held
from jobs.runtime.spark_errors import translated
from transforms.result_tables import RUNS


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run of a table job did.

    Attributes:
        run_key: Names the content of the outputs.
        written: Tables written, with their versions.
        current: Tables that carried the run key already, with their versions.
    """

    run_key: str
    written: Mapping[str, int]
    current: Mapping[str, int]


def run_job(context: Context, job: TableJob[Any] | CommandJob[Any], config: BaseModel) -> int:
    """Run a job; its exit code."""
    if isinstance(job, CommandJob):
        return job.run(context, config)
    run_table_job(context, job, config)
    return 0


def run_table_job(context: Context, job: TableJob[Any], config: BaseModel) -> Outcome:
    """Write the outputs that are not current, each in one commit, and record the run.

    Raises:
        CausalError: A gate failed, an input is missing, or a write was refused.
    """
    with _one_at_a_time(context, job.name):
        return _Run(context, job, config).go()


def run_key(job: str, config: BaseModel, inputs: Mapping[str, str]) -> str:
    """SHA-256 that names what a job makes of its inputs.

    Args:
        job: The job's name.
        config: Its options.
        inputs: Table to the identity of its content.
    """
    parts = {
        "job": job,
        "config": config.model_dump(mode="json"),
        "inputs": dict(inputs),
        "code": code_version(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _Run:
    """One run of a table job."""

    def __init__(self, context: Context, job: TableJob[Any], config: BaseModel) -> None:
        self._context = context
        self._job = job
        self._config = config
        self._started_at = datetime.now(UTC)
        lakehouse = context.lakehouse
        self._pins = {name: lakehouse.version(name) for name in job.reads(config)}
        states = {name: lakehouse.state(name) for name in self._pins}
        self._run_key = run_key(
            job.name,
            config,
            {name: state.identity for name, state in states.items() if state is not None},
        )

    def go(self) -> Outcome:
        """Do the work."""
        wanted = self._job.writes(self._config)
        current = self._current(wanted)
        if len(current) == len(wanted):
            self._context.progress.line(f"{self._job.name}: already current ({', '.join(wanted)})")
            return Outcome(run_key=self._run_key, written={}, current=current)
        written: dict[str, int] = {}
        try:
            with self._context.progress.step(self._job.name):
                self._write([name for name in wanted if name not in current], written)
        except CausalError as error:
            self._record("failed", written, error=str(error))
            raise
        self._record("finished", {**current, **written})
        return Outcome(run_key=self._run_key, written=written, current=current)

    def _current(self, names: tuple[str, ...]) -> dict[str, int]:
        states = {name: self._context.lakehouse.state(name) for name in names}
        return {
            name: state.data_version
            for name, state in states.items()
            if state is not None and state.identity == self._run_key
        }

    def _write(self, names: Sequence[str], written: dict[str, int]) -> None:
        """Build, gate, write and finish; adds to `written` table by table."""
        lakehouse = self._context.lakehouse
        with translated():
            frames = {name: lakehouse.read(name, version=pin) for name, pin in self._pins.items()}
            if self._job.sources is not None:
                frames |= self._job.sources(self._context.session, self._config)
            outputs = self._job.build(self._config, frames)
            self._check({**frames, **outputs})
        self._put({name: outputs[name] for name in names if name in outputs}, written)
        rest = [name for name in names if name not in outputs]
        if not rest:
            return
        finished: Mapping[str, DataFrame] = {}
        if self._job.finish is not None:
            with translated():
                made = {name: lakehouse.read(name) for name in outputs}
                finished = self._job.finish(self._config, {**frames, **made})
        if missing := [name for name in rest if name not in finished]:
            raise CausalError(
                "the job does not build what it declares", given=missing, file=self._job.name
            )
        self._put({name: finished[name] for name in rest}, written)

    def _put(self, frames: Mapping[str, DataFrame], written: dict[str, int]) -> None:
        def put(name: str) -> None:
            with self._context.progress.step(name):
                written[name] = self._context.lakehouse.write(
                    frames[name], name, run_key=self._run_key
                )

        self._context.side_by_side({name: partial(put, name) for name in frames})

    def _check(self, frames: Mapping[str, DataFrame]) -> None:
        if self._job.gates is None:
            return

        def check(gate: Gate) -> None:
            with self._context.progress.step(f"gate {gate.name}"):
                gate.check()

        gates = self._job.gates(self._config, frames)
        self._context.side_by_side(
            {f"{number} {gate.name}": partial(check, gate) for number, gate in enumerate(gates)}
        )

    def _record(
        self,
        status: Literal["finished", "failed"],
        outputs: Mapping[str, int],
        *,
        error: str | None = None,
    ) -> None:
        run = RunRecord(
            run_key=self._run_key,
            job=self._job.name,
            status=status,
            started_at=self._started_at,
            config=self._config,
            inputs=self._pins,
            outputs=outputs,
            error=error,
        )
        record(self._context, [run])


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run that ends now, as the table `runs` keeps it.

    Attributes:
        run_key: Names what the run made.
        job: The job's name.
        started_at: When the run began, UTC.
        config: Its options, or the spec of an analysis.
        inputs: Tables read, with the versions pinned (`None`: the source has no versions).
        outputs: Tables written, with their versions.
        status: `finished` or `failed`.
        error: Why it failed.
    """

    run_key: str
    job: str
    started_at: datetime
    config: BaseModel
    inputs: Mapping[str, int | None]
    outputs: Mapping[str, int]
    status: Literal["finished", "failed"] = "finished"
    error: str | None = None

    def row(self) -> dict[str, Any]:
        """The row of the table."""
        return {
            "run_key": self.run_key,
            "job": self.job,
            "status": self.status,
            "started_at": self.started_at,
            "finished_at": max(datetime.now(UTC), self.started_at),
            "config": self.config.model_dump_json(),
            "inputs": json.dumps(dict(self.inputs), sort_keys=True),
            "outputs": json.dumps(dict(self.outputs), sort_keys=True),
            "code_version": code_version()[:16],
            "error": self.error,
        }


def record(context: Context, runs: Sequence[RunRecord]) -> None:
    """Store runs in the table `runs`, replacing earlier rows of the same run keys."""
    lakehouse = context.lakehouse
    frame = lakehouse.frame([run.row() for run in runs], RUNS.name)
    lakehouse.merge(frame, RUNS.name, run_key=runs[0].run_key)


def _one_at_a_time(context: Context, job: str) -> AbstractContextManager[None]:
    """A second process with the same job on the same local tables waits and finds them current."""
    folder = context.settings.local_warehouse
    if folder is None:
        return nullcontext()
    path = folder / ".locks" / f"{context.settings.database}.job-{job}.lock"
    return held(path, timeout=context.settings.limits.lock_seconds, purpose=f"job {job}")
