"""Quality checks in SQL: a query returns one row per violation, and none when all is well.

The text of a check names tables plainly, so that a person can read it, paste it into any SQL
editor whose tables have these names, and change it. `run_checks` counts the violations of all
checks in one statement and fetches examples of those that found something.

Example:
    for warning in run_checks(CHECKOUT_CHECKS, frames):
        print(warning)
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from causal.core.errors import SpecError
from transforms.bounded import collect_bounded
from transforms.quality import MAX_EXAMPLES


@dataclass(frozen=True, kw_only=True)
class SqlCheck:
    """A named query for rows that should not be there.

    Attributes:
        name: Name of the warning, such as `duplicate_orders`.
        warning: What it means when the query finds something; one clause.
        sql: One SELECT. May use the parameter `:as_of`, the logical date of the run; without one
            it is a day after every other.
    """

    name: str
    warning: str
    sql: str


@dataclass(frozen=True, kw_only=True)
class SqlWarning:
    """What a check found.

    Attributes:
        name: Name of the check.
        warning: What it means.
        n_violations: Rows that the query returned.
        examples: Up to five of them as text.
    """

    name: str
    warning: str
    n_violations: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """One line: name, meaning, count, examples."""
        shown = "; ".join(self.examples)
        return f"{self.name}: {self.warning}; {self.n_violations:,} found, such as {shown}"


def run_checks(
    checks: Sequence[SqlCheck], frames: Mapping[str, DataFrame], *, as_of: dt.date | None = None
) -> tuple[SqlWarning, ...]:
    """The checks that found something, in the order given.

    The frames become temporary views of the session under their names while the checks run.

    Args:
        checks: The checks; names must differ.
        frames: The tables that the queries name.
        as_of: Logical date of the run, for checks that ask how new the data are; `None`: late.

    Raises:
        SpecError: Two checks have one name, or there is no table.
    """
    names = [check.name for check in checks]
    if len(set(names)) < len(names):
        raise SpecError("two quality checks have one name", given=names)
    if not frames:
        raise SpecError("quality checks need the tables that they name", given="no table")
    with _views(frames) as session:
        counts = _counts(session, checks, as_of)
        return tuple(
            SqlWarning(
                name=check.name,
                warning=check.warning,
                n_violations=counts[check.name],
                examples=_examples(session, check, as_of),
            )
            for check in checks
            if counts[check.name]
        )


def _counts(
    session: SparkSession, checks: Sequence[SqlCheck], as_of: dt.date | None
) -> Mapping[str, int]:
    """Violations by check, in one statement."""
    parts = [
        f"SELECT '{check.name}' AS name, count(*) AS n_violations FROM ({_bound(check, as_of)})"
        for check in checks
    ]
    found = session.sql("\nUNION ALL\n".join(parts))
    rows = collect_bounded(found, max_rows=len(checks), what="violation counts")
    return {str(row["name"]): int(row["n_violations"]) for row in rows.to_dict("records")}


def _examples(session: SparkSession, check: SqlCheck, as_of: dt.date | None) -> tuple[str, ...]:
    found = session.sql(f"SELECT * FROM ({_bound(check, as_of)}) LIMIT {MAX_EXAMPLES}")
    rows = collect_bounded(found, max_rows=MAX_EXAMPLES, what=f"examples of {check.name}")
    return tuple(
        "(" + ", ".join(f"{name} {_text(value)}" for name, value in row.items()) + ")"
        for row in rows.to_dict("records")
    )


def _bound(check: SqlCheck, as_of: dt.date | None) -> str:
    """The text of a check with the date in the place of its parameter.

    Written into the text, because parsers that extend Spark's own, as Delta's does, do not all
    pass parameters on.
    """
    return check.sql.replace(":as_of", f"DATE '{as_of or dt.date.max:%Y-%m-%d}'")


@contextmanager
def _views(frames: Mapping[str, DataFrame]) -> Iterator[SparkSession]:
    """The frames as temporary views; the session that holds them."""
    session = next(iter(frames.values())).sparkSession
    try:
        for name, frame in frames.items():
            frame.createOrReplaceTempView(name)
        yield session
    finally:
        for name in frames:
            session.catalog.dropTempView(name)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
