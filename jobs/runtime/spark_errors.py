"""Spark's and Delta's exceptions as one line of the suite's own error tree.

Delta's constraint violations reach Python as a bare `Py4JJavaError` (classic) or as a Connect
exception; both carry the error class in their text, which is what is read here.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from causal.core.errors import CausalError, ConcurrencyError, DataError, SpecError

SPARK_EXCEPTIONS = (PySparkException, Py4JError)
_MAX_LENGTH = 300


def translate(error: Exception, *, table: str | None = None) -> CausalError:
    """The `CausalError` that says what a Spark exception means.

    Args:
        error: One of `SPARK_EXCEPTIONS`.
        table: The table or path that was being read or written.
    """
    text = str(error)
    for pattern, build in _KNOWN:
        if match := pattern.search(text):
            return build(match, table)
    return CausalError(_headline(text), file=table)


@contextmanager
def translated(table: str | None = None) -> Iterator[None]:
    """Raise `CausalError` in place of Spark's exceptions."""
    try:
        yield
    except SPARK_EXCEPTIONS as error:
        raise translate(error, table=table) from error


def is_conflict(error: Exception) -> bool:
    """Whether another writer won the version that this one wanted."""
    return bool(_CONFLICT.search(str(error)))


def _headline(text: str) -> str:
    """The first line that says something: Py4J puts the call's name before it."""
    lines = [line.strip(" :\t") for line in text.splitlines() if line.strip(" :\t")]
    lines = [
        line for line in lines if not line.startswith(("An error occurred while calling", "at "))
    ]
    headline = (
        re.sub(r"^\(?[\w.$]+(?:Exception|Error)\)?:?\s+", "", lines[0]) if lines else "Spark failed"
    )
    return headline[:_MAX_LENGTH]


def _null_found(match: re.Match[str], table: str | None) -> CausalError:
    return DataError(
        "the column may not be null, but is in at least one row", file=table, key=match[1]
    )


def _check_failed(match: re.Match[str], table: str | None) -> CausalError:
    values = ", ".join(line.strip(" -\t") for line in match[3].splitlines() if line.strip())
    predicate = re.sub(r"^coalesce\((.+), true\)$", r"\1", match[2])
    predicate = re.sub(r"^\((.+)\)$", r"\1", predicate)
    return DataError(
        f"the constraint {match[1]} is violated", given=values, allowed=predicate, file=table
    )


def _column_missing(match: re.Match[str], table: str | None) -> CausalError:
    suggestions = re.findall(r"`((?:[^`]|``)+)`", match[2] or "")
    return SpecError("no such column", given=match[1], allowed=suggestions or None, file=table)


def _path_missing(match: re.Match[str], table: str | None) -> CausalError:
    return SpecError("there is nothing to read at this path", given=match[1], file=table)


def _not_delta(match: re.Match[str], table: str | None) -> CausalError:
    return SpecError("is not a Delta table", given=match[1], file=table)


def _not_readable(match: re.Match[str], table: str | None) -> CausalError:
    return DataError(f"the file cannot be read ({match[0][:_MAX_LENGTH]})", file=table)


def _no_file_system(match: re.Match[str], table: str | None) -> CausalError:
    return SpecError(
        "no file system is set up for this kind of path", given=f"{match[1]}://", file=table
    )


def _no_catalog(match: re.Match[str], table: str | None) -> CausalError:
    return SpecError("no such catalog or schema", given=match[1], file=table)


def _no_table(match: re.Match[str], table: str | None) -> CausalError:
    return SpecError("no such table or view", given=match[1], file=table)


def _conflict(match: re.Match[str], table: str | None) -> CausalError:
    return ConcurrencyError(f"another process changed the table first ({match[0]})", file=table)


def _storage(match: re.Match[str], table: str | None) -> CausalError:
    return CausalError(f"the storage refused: {match[0]}", file=table)


def _memory(match: re.Match[str], table: str | None) -> CausalError:
    return CausalError(
        f"out of memory ({match[0]}); give the driver more (--driver-memory before the job's name)",
        file=table,
    )


def _value(match: re.Match[str], table: str | None) -> CausalError:
    return DataError(match[0][:_MAX_LENGTH], file=table)


_CONFLICT = re.compile(
    r"DELTA_CONCURRENT_\w+|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED|Concurrent\w+Exception"
    r"|MetadataChangedException|ProtocolChangedException"
)
_KNOWN: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str | None], CausalError]], ...] = (
    (re.compile(r"NOT NULL constraint violated for column: ([\w.`]+?)\.?\s"), _null_found),
    (
        re.compile(
            r"CHECK constraint (\w+) (.+?) violated by row with values:\s*((?:\s*- .+\n?)*)",
            re.IGNORECASE,
        ),
        _check_failed,
    ),
    (
        re.compile(
            r"\[UNRESOLVED_COLUMN[\w.]*\].*?name `(.+?)` cannot(?:.*?following\? \[(.*?)\])?",
            re.DOTALL,
        ),
        _column_missing,
    ),
    (re.compile(r"\[PATH_NOT_FOUND\] Path does not exist: (\S+?)\.?\s"), _path_missing),
    (
        re.compile(r"\[DELTA_\w+\] `?([^`\n]+?)`? (?:is not a Delta table|doesn't exist)"),
        _not_delta,
    ),
    (re.compile(r"\[TABLE_OR_VIEW_NOT_FOUND\] The table or view (\S+)"), _no_table),
    (re.compile(r"\[CATALOG_NOT_FOUND\] The catalog (\S+) not found"), _no_catalog),
    (
        re.compile(r"\[REQUIRES_SINGLE_PART_NAMESPACE\][^\n]*identifier (\S+?)\.? SQLSTATE"),
        _no_catalog,
    ),
    (re.compile(r"\[SCHEMA_NOT_FOUND\] The schema (\S+) cannot"), _no_catalog),
    (re.compile(r"No FileSystem for scheme \"([^\"]+)\""), _no_file_system),
    (
        re.compile(
            r"[^\n]*(?:is not a Parquet file|CANNOT_READ_FILE_FOOTER|FAILED_READ_FILE)[^\n]*"
        ),
        _not_readable,
    ),
    (_CONFLICT, _conflict),
    (re.compile(r"No space left on device|Read-only file system|Permission denied"), _storage),
    (
        re.compile(r"java\.lang\.OutOfMemoryError|GC overhead limit exceeded|Java heap space"),
        _memory,
    ),
    (
        re.compile(
            r"\[(?:CAST_INVALID_INPUT|DIVIDE_BY_ZERO|ARITHMETIC_OVERFLOW|MALFORMED_\w+)[\w.]*\][^\n]*"
        ),
        _value,
    ),
)
