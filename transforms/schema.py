"""How a table is declared: named and commented fields, a key, checks and clustering columns.

A declaration is plain data. The runtime turns it into Delta comments, NOT NULL and CHECK
constraints; transforms select its columns; the data dictionary is printed from it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import types

from causal.core.errors import SpecError

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*")
_ARRAY = re.compile(r"ARRAY<(.+)>", re.IGNORECASE)
_ATOMIC: Mapping[str, type[types.DataType]] = {
    "BIGINT": types.LongType,
    "INT": types.IntegerType,
    "DOUBLE": types.DoubleType,
    "STRING": types.StringType,
    "BOOLEAN": types.BooleanType,
    "DATE": types.DateType,
    "TIMESTAMP": types.TimestampType,
}


@dataclass(frozen=True, kw_only=True)
class Field:
    """One column of a table.

    Attributes:
        name: Column name, lower-case letters, digits and underscores.
        type: Spark DDL type: BIGINT, INT, DOUBLE, STRING, BOOLEAN, DATE, TIMESTAMP or ARRAY of one.
        comment: What the column holds, with its unit of measurement.
        is_nullable: Whether the column may be null; it may not unless said here.
    """

    name: str
    type: str
    comment: str
    is_nullable: bool = False

    def __post_init__(self) -> None:
        """Refuse a name or a type that cannot become a column."""
        _check_identifier(self.name, what="field")
        _data_type(self.type, field=self.name)

    @property
    def data_type(self) -> types.DataType:
        """The Spark type that the DDL text stands for."""
        return _data_type(self.type, field=self.name)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The contract of one table.

    Attributes:
        name: Table name without catalog or schema.
        comment: What one row is.
        fields: The columns in their stored order.
        key: Columns that identify a row; together unique, each not null.
        checks: Constraint name to the SQL predicate that every row fulfils.
        clustering: Columns by which large files are clustered.
    """

    name: str
    comment: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    checks: Mapping[str, str]
    clustering: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that repeat, a key that is unknown or nullable, and unknown clustering."""
        _check_identifier(self.name, what="table")
        for constraint in self.checks:
            _check_identifier(constraint, what=f"constraint of table {self.name}")
        repeated = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if repeated:
            raise SpecError(f"table {self.name} declares a field twice", given=repeated)
        required = [field.name for field in self.fields if not field.is_nullable]
        if not self.key or not set(self.key) <= set(required):
            raise SpecError(
                f"the key of table {self.name} must be columns that are not nullable",
                given=self.key,
                allowed=required,
            )
        if not set(self.clustering) <= set(self.columns):
            raise SpecError(
                f"table {self.name} is clustered by an unknown column",
                given=self.clustering,
                allowed=self.columns,
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names in their stored order."""
        return tuple(field.name for field in self.fields)

    @property
    def schema(self) -> types.StructType:
        """The Spark schema, with nullability and comments."""
        return types.StructType(
            [
                types.StructField(
                    field.name, field.data_type, field.is_nullable, {"comment": field.comment}
                )
                for field in self.fields
            ]
        )


def _check_identifier(name: str, *, what: str) -> None:
    if not _IDENTIFIER.fullmatch(name):
        raise SpecError(
            f"not a valid {what} name",
            given=name,
            allowed="lower-case letters, digits and underscores, not starting with a digit",
        )


def _data_type(ddl: str, *, field: str) -> types.DataType:
    array = _ARRAY.fullmatch(ddl)
    if array:
        return types.ArrayType(_data_type(array.group(1), field=field), containsNull=False)
    if ddl.upper() not in _ATOMIC:
        allowed = [*_ATOMIC, "ARRAY<...>"]
        raise SpecError(f"field {field} has a type that is not known", given=ddl, allowed=allowed)
    return _ATOMIC[ddl.upper()]()


def check_columns(
    columns: Sequence[str], names: Iterable[str | None], *, key: str | None = None
) -> None:
    """A source has the columns that a spec names.

    Args:
        columns: Those of the source.
        names: Those that are needed; `None`: an option that was left out.
        key: Where the spec names them.

    Raises:
        SpecError: One is missing.
    """
    for name in names:
        if name is not None and name not in columns:
            raise SpecError(
                "the source has no such column", given=name,
                allowed=columns or "nothing: the source has no columns", key=key,
            )  # fmt: skip
