"""The Delta tables, read and written by name; no other module writes a table.

Each write is one commit whose `userMetadata` names the run (its run key), so what a table holds can
be told from its own log: a job killed between two commits and run again writes only what is
missing. Overwrites and MERGE on the key are idempotent by themselves; Delta's transaction ids are
not used, because they would silently skip an overwrite that returns a table to earlier content.

Local paths get a lock per table besides: a local disk offers no mutual exclusion between processes.
"""

import hashlib
import json
import random
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from causal.core.errors import ConcurrencyError, DataError, SpecError
from causal.core.spec import Source
from jobs.runtime.locks import held
from jobs.runtime.settings import Settings
from jobs.runtime.spark_errors import SPARK_EXCEPTIONS, is_conflict, translate, translated
from jobs.runtime.yaml_file import shown_path
from transforms.schema import Field, Table

VACUUM_HOURS = 168
_MAINTENANCE = frozenset(
    {
        *(
            "OPTIMIZE",
            "VACUUM START",
            "VACUUM END",
            "REORG",
            "CLUSTER BY",
            "UPGRADE PROTOCOL",
            "COMPUTE STATS",
        ),
        *(
            "SET TBLPROPERTIES",
            "UNSET TBLPROPERTIES",
            "ADD CONSTRAINT",
            "DROP CONSTRAINT",
            "CHANGE COLUMN",
        ),
    }
)
_EMPTYING = frozenset({"CREATE TABLE", "REPLACE TABLE", "CREATE OR REPLACE TABLE"})
_HISTORY_ROWS = 200
_COMMIT = re.compile(r"\d{20}\.json")
_SUFFIXES: Mapping[str, str] = {".parquet": "parquet", ".csv": "csv", ".gz": "csv"}


@dataclass(frozen=True, kw_only=True)
class TableState:
    """What a table's log says.

    Attributes:
        version: The newest version.
        data_version: The newest version that changed data (OPTIMIZE does not).
        run_key: Run key of that version's commit; `None` if someone else wrote it.
        is_whole: Whether that commit replaced the whole table.
    """

    version: int
    data_version: int
    run_key: str | None
    is_whole: bool

    @property
    def identity(self) -> str:
        """Names the content: the run key if one run wrote all of it, else the version."""
        return self.run_key if self.is_whole and self.run_key else f"version {self.data_version}"


class Lakehouse:
    """Tables by name.

    Args:
        session: The session.
        settings: Says where the tables are.
        declared: Finds the declaration of a table by name; by default those of the suite.
    """

    def __init__(
        self,
        *,
        session: SparkSession,
        settings: Settings,
        declared: Callable[[str], Table] | None = None,
    ) -> None:
        self._session = session
        self._settings = settings
        self._declared = declared if declared is not None else declaration

    def path(self, name: str) -> str:
        """Folder or URI of a table (`tables: path`), or its three-level name (`catalog`)."""
        table = self._declared(name)
        if self._settings.tables == "catalog":
            return f"{self._settings.catalog}.{self._settings.database}.{table.name}"
        return self._place(table.name)

    def _place(self, name: str) -> str:
        """Where a table lies that has no catalog."""
        folder = self._settings.local_warehouse
        warehouse = str(folder) if folder is not None else self._settings.warehouse.rstrip("/")
        return f"{warehouse}/{self._settings.database}/{name}"

    def identifier(self, name: str) -> str:
        """The quoted name that stands in SQL."""
        path = self.path(name)
        if self._settings.tables == "catalog":
            return ".".join(_quoted(part) for part in path.split("."))
        return f"delta.{_quoted(path)}"

    def exists(self, name: str) -> bool:
        """Whether the table has been written to."""
        return self.state(name) is not None

    def version(self, name: str) -> int:
        """The newest version.

        Raises:
            DataError: The table has not been written yet.
        """
        return self._written(name).version

    def state(self, name: str, *, part: str | None = None) -> TableState | None:
        """What the log says; `None` if there is no table or nothing was written to it.

        Args:
            name: The table.
            part: Look at the last commit that wrote this `replace_where` part (or the whole table).
        """
        commits = self._history(name)
        newest = next(commits, None)
        if newest is None:
            return None
        for commit in (newest, *commits):
            if commit["operation"] in _EMPTYING:
                return None
            metadata = _metadata(commit["userMetadata"])
            if part is not None and metadata.get("part") not in (None, part):
                continue
            return TableState(
                version=newest["newest"],
                data_version=commit["version"],
                run_key=metadata.get("run_key"),
                is_whole=metadata.get("mode") == "overwrite" and metadata.get("part") is None,
            )
        return None

    def read(self, name: str, *, version: int | None = None) -> DataFrame:
        """The rows of a table.

        Args:
            name: The table.
            version: The version to read; the newest if left out.

        Raises:
            DataError: The table has not been written yet.
        """
        pinned = self._written(name).version if version is None else version
        with translated(name):
            frame = self._session.read.option("versionAsOf", pinned).table(self.identifier(name))
        return frame.select(*self._declared(name).columns)

    def frame(self, rows: Iterable[Mapping[str, Any]], name: str) -> DataFrame:
        """A few rows made on the driver, as a frame of a declared table."""
        table = self._declared(name)
        is_double = {field.name: field.type.upper() == "DOUBLE" for field in table.fields}
        values = [
            tuple(
                float(row[column]) if is_double[column] and row[column] is not None else row[column]
                for column in table.columns
            )
            for row in rows
        ]
        return self._session.createDataFrame(values, table.schema)

    def write(
        self, df: DataFrame, name: str, *, run_key: str, replace_where: str | None = None
    ) -> int:
        """Replace the table (or the rows of `replace_where`) in one commit.

        Args:
            df: The rows; must have the declared columns with their types, in any order.
            name: The table.
            run_key: Names the run; stored with the commit.
            replace_where: SQL predicate of the part that is replaced; every row must fulfil it.

        Returns:
            The version written.

        Raises:
            SpecError: The frame's columns are not those declared.
            DataError: A row breaks NOT NULL or a constraint.
            ConcurrencyError: Another writer would not let go.
        """
        table = self._declared(name)
        rows = _conformed(df, table)
        metadata = json.dumps(
            {"run_key": run_key, "mode": "overwrite", "part": replace_where}, sort_keys=True
        )
        condition = F.lit(True) if replace_where is None else F.expr(replace_where)

        def commit() -> None:
            self._prepare(table, may_replace=replace_where is None)
            rows.writeTo(self.identifier(name)).option("userMetadata", metadata).overwrite(
                condition
            )

        return self._committed(name, commit, purpose=f"write {name} ({run_key[:12]})")

    def merge(self, df: DataFrame, name: str, *, run_key: str) -> int:
        """Insert the rows, replacing those with the same key, in one commit.

        Args:
            df: The rows, each key once; must have the declared columns with their types.
            name: The table.
            run_key: Names the run; stored with the commit.

        Returns:
            The version written.

        Raises:
            SpecError: The frame's columns are not those declared.
            DataError: A row breaks NOT NULL or a constraint.
            ConcurrencyError: Another writer would not let go.
        """
        table = self._declared(name)
        rows = _conformed(df, table)
        condition = " AND ".join(f"held.{_quoted(key)} = given.{_quoted(key)}" for key in table.key)
        metadata = json.dumps({"run_key": run_key, "mode": "merge", "part": None}, sort_keys=True)

        def commit() -> None:
            self._prepare(table, may_replace=False)
            view = f"merge_{table.name}_{time.monotonic_ns()}"
            rows.createOrReplaceTempView(view)
            setting = "spark.databricks.delta.commitInfo.userMetadata"
            self._session.conf.set(setting, metadata)
            try:
                self._session.sql(
                    f"MERGE INTO {self.identifier(name)} AS held USING {view} AS given "
                    f"ON {condition} "
                    "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
                ).collect()
            finally:
                self._session.conf.unset(setting)
                self._session.catalog.dropTempView(view)

        return self._committed(name, commit, purpose=f"merge into {name} ({run_key[:12]})")

    def read_source(
        self, source: Source, *, beside: Path | None = None
    ) -> tuple[DataFrame, int | None]:
        """The rows an analysis reads, and the Delta version that was pinned.

        Args:
            source: A table of the lakehouse or the session's catalog, or a path.
            beside: Folder where a relative path is looked for if not in the working directory.

        Raises:
            SpecError: There is nothing to read, or its format is not known.
        """
        if source.table is not None:
            return self._read_table(source.table, source.version)
        path = found_path(str(source.path), beside=beside)
        form = source_format(source, path)
        with translated(path):
            if form == "delta":
                pinned = (
                    source.version
                    if source.version is not None
                    else self._newest(f"delta.{_quoted(path)}")
                )
                return self._session.read.option("versionAsOf", pinned).table(
                    f"delta.{_quoted(path)}"
                ), pinned
            if form == "csv":
                reader = self._session.read.option("header", "true").option("inferSchema", "true")
                # A quote within quotes is doubled, as in RFC 4180.
                reader = reader.option("escape", '"')
                return reader.option("nullValue", source.null_value).csv(path), None
            return self._session.read.parquet(path), None

    def source_identity(
        self, source: Source, version: int | None, *, beside: Path | None = None
    ) -> str:
        """Names the content that `read_source` opened, to tell what was made of it stale.

        A table of the suite goes by the run that wrote it, other Delta by its version, local files
        by name, size and time of change; what has neither gets a name that never comes again.
        """
        if source.table is not None:
            own = self._own(source.table)
            if version is not None and own is not None:
                state = self._written(own)
                if state.version == version:
                    return state.identity
            return str(uuid.uuid4()) if version is None else f"version {version}"
        path = found_path(str(source.path), beside=beside)
        if version is not None:
            return f"{path} version {version}"
        return _listing(Path(path)) if Path(path).exists() else str(uuid.uuid4())

    def optimize(self, name: str) -> Mapping[str, int]:
        """Merge small files (and cluster, where declared); files removed and added."""
        with self._locked(name, purpose=f"optimize {name}"), translated(name):
            metrics = self._session.sql(f"OPTIMIZE {self.identifier(name)}").collect()[0]["metrics"]
        return {
            "n_files_removed": metrics["numFilesRemoved"],
            "n_files_added": metrics["numFilesAdded"],
        }

    def vacuum(self, name: str, *, hours: int = VACUUM_HOURS) -> None:
        """Delete files that no version younger than `hours` uses.

        Raises:
            SpecError: Less than seven days: files of a running writer would be lost.
        """
        if hours < VACUUM_HOURS:
            raise SpecError(
                "the retention is too short: running writers and pinned readers would lose files",
                given=hours,
                allowed=f"at least {VACUUM_HOURS} hours",
            )
        with self._locked(name, purpose=f"vacuum {name}"), translated(name):
            self._session.sql(f"VACUUM {self.identifier(name)} RETAIN {hours} HOURS").collect()

    def n_files(self, name: str) -> int:
        """Number of files of the newest version."""
        return int(self._detail(name)["numFiles"])

    @contextmanager
    def _locked(self, name: str, *, purpose: str) -> Iterator[None]:
        folder = self._settings.local_warehouse
        if folder is None:
            with nullcontext():
                yield
            return
        lock = folder / ".locks" / f"{self._settings.database}.{name}.lock"
        with held(lock, timeout=self._settings.limits.lock_seconds, purpose=purpose):
            yield

    def _committed(self, name: str, commit: Callable[[], None], *, purpose: str) -> int:
        """Run a commit under the lock, again if another writer came first; the version it made."""
        attempts = self._settings.limits.write_attempts
        with self._locked(name, purpose=purpose):
            for attempt in range(1, attempts + 1):
                try:
                    commit()
                except SPARK_EXCEPTIONS as error:
                    if not is_conflict(error):
                        raise translate(error, table=name) from error
                    if attempt == attempts:
                        raise ConcurrencyError(
                            f"gave up after {attempts} attempts: another process keeps changing it",
                            file=name,
                        ) from error
                    time.sleep(random.uniform(0.2, 1.0) * attempt)  # noqa: S311 - spreads retries only
                else:
                    break
            return self.version(name)

    def _prepare(self, table: Table, *, may_replace: bool) -> None:
        """Make the table, or bring it in line with its declaration."""
        name = self.identifier(table.name)
        if next(self._history(table.name), None) is None:
            log = self._local_log(table.name)
            if log is not None and log.is_dir():
                # What a writer killed before its first commit left would count as a table.
                shutil.rmtree(log)
            if self._settings.tables == "catalog":
                schema = name.rpartition(".")[0]
                self._session.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            self._session.sql(f"CREATE TABLE IF NOT EXISTS {name} {_definition(table)}")
            return
        held_schema = self._session.table(name).schema
        properties = self._session.sql(f"SHOW TBLPROPERTIES {name}").collect()
        held_checks = _checks({row["key"]: row["value"] for row in properties})
        if _shape(held_schema) == _shape(table.schema) and held_checks == _constraints(table):
            return
        if not may_replace:
            raise SpecError(
                "the stored table has not the declared columns and constraints; "
                "move it away, or rewrite it whole",
                given=held_schema.simpleString(),
                allowed=table.schema.simpleString(),
                file=table.name,
            )
        self._session.sql(f"REPLACE TABLE {name} {_definition(table)}")

    def _local_log(self, name: str) -> Path | None:
        """The folder of the table's log, if that is on a local disk."""
        if self._settings.tables == "catalog" or self._settings.local_warehouse is None:
            return None
        return Path(self.path(name)) / "_delta_log"

    def _history(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Commits that changed data, newest first, each with the newest version of all."""
        log = self._local_log(name)
        commits = self._described(name) if log is None else _logged(log)
        newest = None
        for commit in commits:
            newest = commit["version"] if newest is None else newest
            if commit["operation"] not in _MAINTENANCE:
                yield {**commit, "newest": newest}

    def _described(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Version, operation and userMetadata of the commits as Delta tells them."""
        try:
            rows = (
                self._session.sql(f"DESCRIBE HISTORY {self.identifier(name)} LIMIT {_HISTORY_ROWS}")
                .select("version", "operation", "userMetadata")
                .collect()
            )
        except SPARK_EXCEPTIONS as error:
            if _is_missing(error):
                return
            raise translate(error, table=name) from error
        yield from (row.asDict() for row in rows)

    def _detail(self, name: str) -> Mapping[str, Any]:
        with translated(name):
            row = self._session.sql(f"DESCRIBE DETAIL {self.identifier(name)}").collect()[0]
        return row.asDict()

    def _newest(self, identifier: str) -> int:
        row = (
            self._session.sql(f"DESCRIBE HISTORY {identifier} LIMIT 1")
            .select("version")
            .collect()[0]
        )
        return int(row["version"])

    def _found(self, identifier: str) -> int | None:
        """The newest version of what a job wrote under a name of the user; `None` if none did."""
        try:
            return self._newest(identifier)
        except SPARK_EXCEPTIONS as error:
            if _is_missing(error):
                return None
            raise translate(error, table=identifier) from error

    def _written(self, name: str) -> TableState:
        state = self.state(name)
        if state is None:
            raise DataError(
                "the table has not been written yet; run the job that makes it first", given=name
            )
        return state

    def _own(self, name: str) -> str | None:
        """The suite's table that a spec names, with or without the schema; `None` for others."""
        database, _, short = name.rpartition(".")
        catalog = f"{self._settings.catalog}.{self._settings.database}"
        if database in ("", self._settings.database, catalog) and _is_declared(
            short, self._declared
        ):
            return short
        return None

    def _read_table(self, name: str, version: int | None) -> tuple[DataFrame, int | None]:
        own = self._own(name)
        if own is not None:
            pinned = version if version is not None else self.version(own)
            return self.read(own, version=pinned), pinned
        identifier = ".".join(_quoted(part) for part in name.split("."))
        if self._settings.tables == "path" and "." not in name:
            made = f"delta.{_quoted(self._place(name))}"
            newest = self._found(made)
            if newest is not None:
                identifier, version = made, newest if version is None else version
        with translated(name):
            if version is None:
                return self._session.table(identifier), None
            return self._session.read.option("versionAsOf", version).table(identifier), version


def declaration(name: str) -> Table:
    """The declaration of a table of the suite.

    Raises:
        SpecError: No table has this name.
    """
    from transforms import tables

    return tables.table(name)


_MISSING = frozenset(
    {
        *("DELTA_TABLE_ONLY_OPERATION", "DELTA_TABLE_NOT_FOUND", "DELTA_MISSING_DELTA_TABLE"),
        *(
            "DELTA_PATH_DOES_NOT_EXIST",
            "TABLE_OR_VIEW_NOT_FOUND",
            "PATH_NOT_FOUND",
            "SCHEMA_NOT_FOUND",
        ),
    }
)


def _is_missing(error: Exception) -> bool:
    return bool(_MISSING.intersection(str(error).split("]")[0].strip("[ ").split(".")))


def _conformed(df: DataFrame, table: Table) -> DataFrame:
    """The frame with the declared columns in order.

    Raises:
        SpecError: A column is missing, not declared, or of another type.
    """
    given = {field.name: field.dataType.simpleString() for field in df.schema.fields}
    wanted = {field.name: field.data_type.simpleString() for field in table.fields}
    if given != wanted:
        differences = [
            f"{name}: {given.get(name, 'missing')} (declared: {wanted.get(name, 'not at all')})"
            for name in (*wanted, *(name for name in given if name not in wanted))
            if given.get(name) != wanted.get(name)
        ]
        raise SpecError(
            "the frame is not what the table declares", given=differences, file=table.name
        )
    return df.select(*(_quoted(name) for name in table.columns))


def _definition(table: Table) -> str:
    """The part of CREATE TABLE behind the name."""
    columns = ", ".join(_column(field) for field in table.fields)
    statistics = dict.fromkeys((*table.key, *table.clustering))
    properties = {
        "delta.dataSkippingStatsColumns": ",".join(statistics),
        **{
            f"delta.constraints.{name}": predicate
            for name, predicate in _constraints(table).items()
        },
    }
    clustering = (
        f" CLUSTER BY ({', '.join(map(_quoted, table.clustering))})" if table.clustering else ""
    )
    listed = ", ".join(f"{_literal(key)} = {_literal(value)}" for key, value in properties.items())
    comment = f"COMMENT {_literal(table.comment)}"
    return f"({columns}) USING DELTA{clustering} {comment} TBLPROPERTIES ({listed})"


def _constraints(table: Table) -> dict[str, str]:
    """The declared checks, met where a nullable column is null (as in SQL; Delta would refuse)."""
    nullable = {field.name for field in table.fields if field.is_nullable}
    return {
        name: f"coalesce({predicate}, true)"
        if nullable & set(re.findall(r"\w+", predicate))
        else predicate
        for name, predicate in table.checks.items()
    }


def _column(field: Field) -> str:
    null = "" if field.is_nullable else " NOT NULL"
    return f"{_quoted(field.name)} {field.type}{null} COMMENT {_literal(field.comment)}"


def _shape(schema: Any) -> list[tuple[str, str, bool]]:
    return [(field.name, field.dataType.simpleString(), field.nullable) for field in schema.fields]


def _checks(properties: Mapping[str, str]) -> dict[str, str]:
    prefix = "delta.constraints."
    return {
        key.removeprefix(prefix): value
        for key, value in properties.items()
        if key.startswith(prefix)
    }


def _logged(log: Path) -> Iterator[Mapping[str, Any]]:
    """Version, operation and userMetadata of the commits in a local log, newest first.

    One file says what DESCRIBE HISTORY would start Spark jobs for (PROTOCOL.md of Delta, "Delta Log
    Entries" and "Commit Provenance Information").
    """
    files = sorted(log.glob("*.json"), reverse=True) if log.is_dir() else []
    for file in files:
        if not _COMMIT.fullmatch(file.name):
            continue
        with file.open(encoding="utf-8") as lines:
            entries = (json.loads(line) for line in lines)
            info: Mapping[str, Any] = next(
                (e["commitInfo"] for e in entries if "commitInfo" in e), {}
            )
        yield {
            "version": int(file.stem),
            "operation": info.get("operation"),
            "userMetadata": info.get("userMetadata"),
        }


def _metadata(text: str | None) -> Mapping[str, Any]:
    """The commit's metadata, empty if it is not ours."""
    if not text:
        return {}
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {}


def _is_declared(name: str, declared: Callable[[str], Table]) -> bool:
    try:
        declared(name)
    except SpecError:
        return False
    return True


def found_path(path: str, *, beside: Path | None) -> str:
    """A path as Spark should see it.

    Args:
        path: A URI, or a path relative to the working directory or to `beside`.
        beside: Folder that is tried second.

    Raises:
        SpecError: There is no such file or folder.
    """
    if ":/" in path:
        return path
    candidates = [Path(path)] + ([beside / path] if beside is not None else [])
    try:
        for candidate in candidates:
            if candidate.exists():
                return str(candidate.resolve())
    except OSError as error:
        raise SpecError(
            f"cannot be read ({error.strerror})", given=shown_path(path), key="source.path"
        ) from error
    raise SpecError("there is nothing to read at this path", given=path, key="source.path")


def _listing(path: Path) -> str:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    text = "".join(f"{name} {stat.st_size} {stat.st_mtime_ns};" for name, stat in stats)
    return hashlib.sha256(text.encode()).hexdigest()


def source_format(source: Source, path: str) -> str:
    """The format of the files at `path`: the one that the spec says, else told from the name.

    Raises:
        SpecError: The name says nothing, or the format has no versions and the spec asks for one.
    """
    form = source.format if source.format is not None else _guessed_format(path)
    if source.version is not None and form != "delta":
        raise SpecError(
            f"only Delta has versions, and this is {form}",
            given=source.version,
            allowed="no version",
            key="source.version",
        )
    return form


def _guessed_format(path: str) -> str:
    if (Path(path) / "_delta_log").is_dir():
        return "delta"
    form = _SUFFIXES.get(Path(path).suffix.lower())
    if form is None:
        raise SpecError(
            "the format cannot be told from the name",
            given=path,
            allowed=("delta", "parquet", "csv"),
            key="source.format",
        )
    return form


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
