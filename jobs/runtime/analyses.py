"""Analysis specs: found, validated, and bound to the rows and stored frames they read."""

import datetime as dt
import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import get_args

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from causal.core import registry
from causal.core.errors import CausalError, SpecError
from causal.core.frames import Engine
from causal.core.spec import Source, Spec, validate
from causal.core.stored_gram import Stored, StoredGramEngine
from jobs.runtime import places
from jobs.runtime.catalogue import code_version
from jobs.runtime.context import Context
from jobs.runtime.lakehouse import found_path, source_format
from jobs.runtime.yaml_file import YamlFile, read_yaml
from transforms.bounded import collect_bounded
from transforms.gram import Limits, SparkEngine
from transforms.result_tables import FRAME_TABLES
from transforms.stored_frames import answers_of
from transforms.tables import TABLES

OTHER_JOBS: Mapping[str, str] = MappingProxyType(
    {
        "power": "power",
        "geo_design": "power",
        "cupac": "cupac",
        "clv": "clv",
        "early_spend": "clv",
        "uplift_learners": "uplift",
        "policy": "policy",
    }
)
"""Methods whose specs look like those of analyses, and the jobs that run them."""


@dataclass(frozen=True)
class Analysis:
    """A validated spec and the file it stands in."""

    spec: Spec
    file: YamlFile

    def located(self, error: CausalError) -> CausalError:
        """The error pointing at the file, and at the key that holds the value complained of."""
        key = error.key if error.key is not None else self._key_of(error)
        return self.file.located(error.located(key=key))

    def _key_of(self, error: CausalError) -> str | None:
        """The key whose value was given, or that names the column a message begins with."""
        given = error.given if isinstance(error.given, list | tuple) else [error.given]
        names = [str(value).split(" (")[0] for value in given if value is not None]
        for name in (*names, error.message.split(" ")[0]):
            if _is_number(name):  # a count is equal to many a value that has nothing to do with it
                continue
            keys = [key for key, held in _leaves("", self.file.data) if str(held) == name]
            if keys:
                # A metric is often called like its column; the column is what the data lack.
                return min(keys, key=lambda key: key.endswith("name"))
        return None


@dataclass(frozen=True)
class Opened:
    """A table that an analysis reads; attributes as of `Bound`, Spark alone answers."""

    engine: SparkEngine
    source: str
    identity: str
    version: int | None


@dataclass(frozen=True)
class Bound:
    """An analysis and the engine that answers it.

    Attributes:
        analysis: The analysis.
        engine: Stored frames first, then Spark.
        source: Name of what is read.
        identity: Names the content that is read.
        version: Delta version that is read, where there is one.
        others: Further tables that the spec names, by the option that names them.
    """

    analysis: Analysis
    engine: Engine
    source: str
    identity: str
    version: int | None
    others: Mapping[str, "Opened"] = field(default_factory=dict)

    @property
    def other_engines(self) -> dict[str, Engine]:
        """The engines of further tables."""
        return {name: item.engine for name, item in self.others.items()}

    @property
    def inputs(self) -> dict[str, int | None]:
        """Names of all that is read, with their versions."""
        opened = {item.source: item.version for item in self.others.values()}
        return {**opened, self.source: self.version}

    @property
    def run_key(self) -> str:
        """SHA-256 over the spec, the content read and the code."""
        parts = {
            "spec": self.analysis.spec.model_dump(mode="json"),
            "identity": self.identity,
            "code": code_version(),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Until:
    """The rows of a day and of the days before it.

    Attributes:
        column: Column of a row's day; rows without one are not read.
        day: The last day.
    """

    column: str
    day: dt.date


def default_specs(folder: str = "analyses") -> tuple[Path, ...]:
    """The specs of `conf/analyses` (or another folder of `conf`), by name."""
    return tuple(sorted(places.conf(folder).glob("*.yaml")))


Models = type[Spec] | Mapping[str, type[Spec]]


def load(path: Path | str, *, model: Models | None = None) -> Analysis:
    """Read and validate a spec; nothing is read but the file (and whether its source file exists).

    Args:
        path: The file.
        model: What it must fit, or that by the name of its method; by default the spec of the
            method of the suite that it names.

    Raises:
        SpecError: The file cannot be read or a key does not fit; names file, line and key.
    """
    file = read_yaml(path)
    try:
        spec = validate(_model(file.data, model), file.data)
        _check_path(spec.source, file, key="source")
        for name, source in spec.other_sources.items():
            _check_path(source, file, key=f"options.{name}")
    except CausalError as error:
        raise file.located(error) from error
    return Analysis(spec, file)


def _check_path(source: Source, file: YamlFile, *, key: str) -> None:
    if source.path is None:
        return
    try:
        source_format(source, found_path(source.path, beside=file.path.parent))
    except SpecError as error:
        raise _under(error, key) from error


def _model(data: Mapping[str, object], model: Models | None) -> type[Spec]:
    if model is None:
        return registry.method(_method_name(data, registry.names())).SPEC
    if isinstance(model, type):
        known = get_args(model.model_fields["method"].annotation)
        if not known:
            return model
        model = dict.fromkeys(known, model)
    return model[_method_name(data, tuple(model))]


def _method_name(data: Mapping[str, object], allowed: Sequence[str]) -> str:
    if "method" not in data:
        for key in difflib.get_close_matches("method", list(map(str, data)), n=1):
            raise SpecError("unknown key, did you mean 'method'?", key=key)
        raise SpecError("this key is required", allowed=allowed, key="method")
    name = data["method"]
    if not isinstance(name, str):
        raise SpecError(
            "the name of a method is expected", given=repr(name), allowed=allowed, key="method"
        )
    if name in allowed:
        return name
    job = OTHER_JOBS.get(name, "analyze" if name in registry.names() else None)
    if job is None:
        raise SpecError("unknown method", given=name, allowed=allowed, key="method")
    raise SpecError(
        f"this job has no such method: run this spec with ./spark-submit.sh {job} --spec FILE",
        given=name,
        allowed=allowed,
        key="method",
    )


def load_for_table(path: Path | str, *, model: Models) -> Analysis:
    """Read and validate, as `load` does, a spec after whose name a table is called.

    Raises:
        SpecError: It does not fit, or the suite has a table of this name.
    """
    item = load(path, model=model)
    if item.spec.name in TABLES:
        error = SpecError(
            "this is a table of the suite: the spec's name is that of the table that is written",
            given=item.spec.name,
            key="name",
        )
        raise item.located(error)
    return item


def load_all(paths: Sequence[Path], *, model: Models | None = None) -> tuple[Analysis, ...]:
    """Read and validate several specs, as `load` does.

    Raises:
        SpecError: One does not fit, or two have the same name.
    """
    analyses = tuple(load(path, model=model) for path in paths)
    seen: dict[str, Path] = {}
    for analysis in analyses:
        name = analysis.spec.name
        if name in seen:
            raise SpecError(
                f"two analyses have this name, also {seen[name]}", given=name,
                file=analysis.file.path, key="name",
            )  # fmt: skip
        seen[name] = analysis.file.path
    return analyses


def bind(
    context: Context,
    analysis: Analysis,
    *,
    stored: "StoredFrames | None" = None,
    until: Until | None = None,
) -> Bound:
    """Open the source of an analysis.

    Args:
        context: The run.
        analysis: The analysis.
        stored: Stored answers; without them everything is asked of Spark.
        until: Which days are read; all if left out.

    Raises:
        SpecError: There is nothing to read, or it has no such column of days.
    """
    own = _opened(context, analysis, analysis.spec.source, until=until)
    others = {
        name: _opened(context, analysis, source, key=f"options.{name}")
        for name, source in analysis.spec.other_sources.items()
    }
    identity = "".join([own.identity, *(f" {name} {o.identity}" for name, o in others.items())])
    answers = stored.of(analysis.spec.name, identity) if stored is not None else []
    engine = StoredGramEngine(answers, otherwise=own.engine)
    return Bound(analysis, engine, own.source, identity, own.version, others)


def _opened(
    context: Context,
    analysis: Analysis,
    source: Source,
    *,
    until: Until | None = None,
    key: str = "source",
) -> Opened:
    lakehouse, beside = context.lakehouse, analysis.file.path.parent
    try:
        df, version = lakehouse.read_source(source, beside=beside)
        identity = lakehouse.source_identity(source, version, beside=beside)
        if until is not None:
            df, identity = _until(df, until), f"{identity} until {until.day}"
    except CausalError as error:
        raise analysis.located(_under(error, key)) from error
    name = str(source.table or source.path)
    return Opened(engine_of(context, df), name, identity, version)


def _under(error: CausalError, key: str) -> CausalError:
    """The error of a source that stands under another key than `source`."""
    if error.key is None or not error.key.startswith("source"):
        return error
    return type(error)(
        error.message,
        given=error.given, allowed=error.allowed, file=error.file,
        key=f"{key}{error.key.removeprefix('source')}",
    )  # fmt: skip


def engine_of(context: Context, df: DataFrame) -> SparkEngine:
    """An engine on rows, within the limits of the settings."""
    limits = context.settings.limits
    return SparkEngine(df, limits=Limits(max_rows=limits.frame_rows, max_bytes=limits.frame_bytes))


def _until(df: DataFrame, until: Until) -> DataFrame:
    if until.column not in df.columns:
        raise SpecError(
            "the data have no such column", given=until.column, allowed=df.columns, key="looks.day"
        )
    quoted = "`" + until.column.replace("`", "``") + "`"
    return df.where(F.to_date(F.col(quoted)) <= F.lit(until.day))


class StoredFrames:
    """The frame tables of the lakehouse, read once.

    Args:
        context: The run.
        names: The analyses whose answers are wanted.
    """

    def __init__(self, context: Context, names: Sequence[str]) -> None:
        limits = context.settings.limits
        self._tables = [
            collect_bounded(
                context.lakehouse.read(table.name).where(F.col("analysis").isin(list(names))),
                max_rows=limits.frame_rows,
                what=f"stored answers in {table.name}",
                keys=("analysis",),
            )
            for table in FRAME_TABLES
            if context.lakehouse.exists(table.name)
        ]

    def of(self, analysis: str, identity: str) -> list[Stored]:
        """The answers for one analysis on this very content."""
        return answers_of(
            frame[(frame["analysis"] == analysis) & (frame["source_identity"] == identity)]
            for frame in self._tables
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _leaves(prefix: str, value: object) -> Iterable[tuple[str, object]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{prefix}{name}.", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(f"{prefix}{index}.", inner)
    else:
        yield prefix.removesuffix("."), value
