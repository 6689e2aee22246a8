"""What a job is: a table job maps tables to tables, a command job does what it likes.

A job is one file `jobs/<name>.py` that exposes `JOB`. The first line of its docstring is the help
that `--help` shows; it is read without importing the file.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict
from pyspark.sql import DataFrame, SparkSession

from jobs.runtime.context import Context


class JobConfig(BaseModel):
    """Base of every job's options: frozen, unknown keys refused.

    Each field with a scalar type becomes a command-line flag (`n_units` becomes `--n-units`), its
    description the flag's help. Everything else is reached by `--set key.path=value`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ConfigType = TypeVar("ConfigType", bound=BaseModel)


class Gate(Protocol):
    """A quality gate bound to the frames that it looks at."""

    @property
    def name(self) -> str:
        """Name shown while it runs, such as `subscribers: key is unique`."""

    def check(self) -> None:
        """Return if the data pass.

        Raises:
            DataError: They do not; says counts and up to five example keys.
        """


@dataclass(frozen=True, kw_only=True)
class TableJob(Generic[ConfigType]):
    """A job that maps tables to tables; `build` has no session and does no I/O.

    The runtime pins the versions of the tables that are read, computes the run key, skips outputs
    that already carry it, runs the gates before anything is written, writes each output in one
    Delta commit and records the run.

    Attributes:
        name: The file's name without ending.
        config: Pydantic model of the options, frozen, `extra="forbid"` (see `JobConfig`).
        reads: The names of the tables read.
        writes: The names of the tables written.
        build: Maps the frames of `reads` (and of `sources`) to the frames of `writes`.
        finish: Maps those frames and the tables that `build` made, as they were written, to the
            rest of `writes`: for what is dear to make twice.
        sources: Frames that come from no table, such as `{"units": spark.range(n)}`.
        gates: Quality gates over the frames read and the frames about to be written, by name. A
            gate on an output evaluates it once more, so gate what is cheap or what is read; NOT
            NULL and CHECK constraints are enforced by Delta on every write without a gate.
        defaults: Values beneath those the user gave, computed from them (such as a world's YAML
            file, found by the `world` given). May read files of conf.
    """

    name: str
    config: type[ConfigType]
    reads: Callable[[ConfigType], tuple[str, ...]]
    writes: Callable[[ConfigType], tuple[str, ...]]
    build: Callable[[ConfigType, Mapping[str, DataFrame]], Mapping[str, DataFrame]]
    finish: Callable[[ConfigType, Mapping[str, DataFrame]], Mapping[str, DataFrame]] | None = None
    sources: Callable[[SparkSession, ConfigType], Mapping[str, DataFrame]] | None = None
    gates: Callable[[ConfigType, Mapping[str, DataFrame]], Iterable[Gate]] | None = None
    defaults: Callable[[Mapping[str, object]], Mapping[str, object]] | None = None


@dataclass(frozen=True, kw_only=True)
class CommandJob(Generic[ConfigType]):
    """A job that steers others or leaves the tables: analyze, pipeline, maintain.

    Attributes:
        name: The file's name without ending.
        config: Pydantic model of the options, frozen, `extra="forbid"` (see `JobConfig`).
        run: Does the work and returns the exit code; failures are raised as `CausalError`.
        check: Validates what can be validated without Spark (a spec file); raises `SpecError`.
        defaults: As in `TableJob`.
    """

    name: str
    config: type[ConfigType]
    run: Callable[[Context, ConfigType], int]
    check: Callable[[ConfigType], None] | None = None
    defaults: Callable[[Mapping[str, object]], Mapping[str, object]] | None = None


Job = TableJob[ConfigType] | CommandJob[ConfigType]
