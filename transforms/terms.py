"""Compiles terms and conditions of a request to Spark column expressions."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import add, and_, mul, or_
from types import MappingProxyType

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, types
from pyspark.sql import functions as F

from causal.core.errors import DataError
from causal.core.frames import (
    BUCKET,
    Between,
    Clipped,
    Column,
    ColumnKind,
    Condition,
    Constant,
    EventTime,
    Exponential,
    HashBucket,
    Indicator,
    Level,
    Linear,
    Logistic,
    Mapped,
    MappedTerm,
    Product,
    Reciprocal,
    SquareRoot,
    Term,
)
from transforms.given_numbers import WRITTEN_OUT, GivenNumbers

_LARGEST_WHOLE = 2.0**53
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
_NOTHING: Mapping[Term, SparkColumn] = MappingProxyType({})


def kinds(df: DataFrame) -> Mapping[str, ColumnKind]:
    """Column names and what they hold."""
    return {field.name: _kind(field.dataType) for field in df.schema.fields}


def quoted(name: str) -> SparkColumn:
    """A column by its exact name, whatever characters it has.

    Raises:
        DataError: The name holds a backtick, which cannot be quoted safely.
    """
    if "`" in name:
        raise DataError("a column name must not hold a backtick", given=name)
    return F.col(f"`{name}`")


def compiled(
    term: Term,
    columns: Mapping[str, str],
    held: Mapping[Term, SparkColumn] = _NOTHING,
    given: GivenNumbers = WRITTEN_OUT,
) -> SparkColumn:
    """A term as a column of doubles, null where the term is missing.

    Args:
        term: The term.
        columns: Kinds of the source's columns.
        held: Columns that hold the values of some terms already.
        given: Numbers that lie beside the rows.
    """
    if term in held:
        return held[term]
    match term:
        case Product(factors):
            return reduce(mul, [compiled(factor, columns, held, given) for factor in factors])
        case Linear(terms, coefficients):
            parts = zip(terms, coefficients, strict=True)
            scaled = [
                given.coefficient(c) * compiled(part, columns, held, given) for part, c in parts
            ]
            return reduce(add, scaled)
        case Mapped(inner):
            return _mapped(term, compiled(inner, columns, held, given), given)
        case _:
            return _compiled_atom(term, columns)


def _compiled_atom(term: Term, columns: Mapping[str, str]) -> SparkColumn:
    match term:
        case Column(name):
            return quoted(name).cast("double")
        case Constant(value):
            return F.lit(float(value))
        case Indicator(column, level):
            return (quoted(column) == _literal(level, columns[column])).cast("double")
        case EventTime():
            return _event_time(term)
        case HashBucket():
            return bucket_number(term, columns[term.column]).cast("double")
        case _:
            raise TypeError(f"{term} is no value of a row")


def atoms(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The columns, indicators and event-time dummies that terms are made of, each once."""
    return tuple(dict.fromkeys(atom for term in terms for atom in _atoms(term)))


def _atoms(term: Term) -> Iterator[Term]:
    match term:
        case Product(parts) | Linear(parts, _):
            for part in parts:
                yield from _atoms(part)
        case Constant():
            return
        case _:
            yield term


def value_at(term: Term, values: Mapping[Term, float]) -> float:
    """The value of a term where its parts have the values given."""
    match term:
        case Constant(value):
            return value
        case Product(factors):
            return math.prod(value_at(factor, values) for factor in factors)
        case Linear(terms, coefficients):
            pairs = zip(terms, coefficients, strict=True)
            return sum(c * value_at(part, values) for part, c in pairs)
        case _:
            return values[term]


def is_zero_one(term: Term) -> bool:
    """Whether a term can only be 0, 1 or missing, so that it needs no shift."""
    return isinstance(term, Indicator | EventTime | Constant | Between)


def is_heavy_tailed(term: Term) -> bool:
    """Whether a few rows say little about a term's mean, and its spread is no smaller than that."""
    return isinstance(term, Exponential)


def filtered(
    df: DataFrame, conditions: Iterable[Condition], columns: Mapping[str, str]
) -> DataFrame:
    """The rows that fulfil all conditions."""
    for condition in conditions:
        kind = columns[condition.column]
        values = [_literal(value, kind) for value in condition.values]
        df = df.where(quoted(condition.column).isin(*values))
    return df


def bucketed(df: DataFrame, bucket: HashBucket | None) -> DataFrame:
    """The rows with the number of their bucket as a further column, null where there is none."""
    if bucket is None:
        return df
    kind = _kind(df.schema[bucket.column].dataType)
    return df.withColumn(BUCKET, bucket_number(bucket, kind))


def bucket_number(bucket: HashBucket, kind: str) -> SparkColumn:
    """The number of a row's bucket, null where there is no value.

    What is hashed, and how, is told in `causal.core.buckets`, which gives the same numbers.

    Args:
        bucket: The column, how many buckets, and the salt.
        kind: What the column holds.
    """
    value, salt = quoted(bucket.column), F.lit(bucket.salt).cast("bigint")
    hashed = F.xxhash64(salt, value if kind == "string" else value.cast("bigint"))
    known = value.isNotNull()
    if kind == "number":
        number = value.cast("double")
        is_integer = F.typeof(value).isin(*_INTEGERS)
        is_whole = (number == F.floor(number)) & (F.abs(number) < _LARGEST_WHOLE)
        hashed = F.when(is_integer | is_whole, hashed).otherwise(F.xxhash64(salt, number))
        known = known & ~F.isnan(number)
    return F.when(known, F.pmod(hashed, F.lit(bucket.n_buckets)))


def keys_of(names: Sequence[str]) -> list[SparkColumn]:
    """Key columns as `k_<name>`, which no other name of an aggregation clashes with."""
    return [quoted(name).alias(f"k_{name}") for name in names]


def all_known(names: Iterable[str]) -> SparkColumn:
    """Whether none of these columns is null in a row."""
    known = [quoted(name).isNotNull() for name in sorted(set(names))]
    return reduce(and_, known, F.lit(1) == F.lit(1))


def or_zero(condition: SparkColumn, value: SparkColumn) -> SparkColumn:
    """The value where the condition holds, 0 elsewhere."""
    return F.when(condition, value).otherwise(F.lit(0.0))


def any_changing(names: Sequence[str]) -> SparkColumn:
    """Aggregate: 1 if one of these columns takes two values in the group; null is a value."""
    rows = F.count(F.lit(1))
    columns = [quoted(name) for name in names]
    flags = [
        (F.min(held) != F.max(held)) | ((F.count(held) > 0) & (F.count(held) < rows))
        for held in columns
    ]
    return F.when(reduce(or_, flags, rows < 0), 1).otherwise(0).cast("long")


def _clipped(
    value: SparkColumn, *, low: SparkColumn | None, high: SparkColumn | None
) -> SparkColumn:
    """Null and NaN stay what they are: for Spark NaN is larger than any bound."""
    out = value
    if low is not None:
        out = F.when(value < low, low).otherwise(out)
    if high is not None:
        out = F.when((value > high) & ~F.isnan(value), high).otherwise(out)
    return out


def _mapped(  # noqa: C901 - one per kind
    term: MappedTerm, value: SparkColumn, given: GivenNumbers
) -> SparkColumn:
    """A term that is a function of one other; null and NaN stay what they are."""
    match term:
        case Clipped(_, low, high):
            return _clipped(value, low=_bound(low, given), high=_bound(high, given))
        case Logistic():
            return F.lit(1.0) / (F.lit(1.0) + F.exp(-value))
        case Exponential():
            return F.exp(value)
        case Reciprocal():
            return F.lit(1.0) / value
        case SquareRoot():
            return F.sqrt(value)
        case Between(_, low, high, is_closed):
            inside = value.isNotNull()
            if (bottom := _bound(low, given)) is not None:
                inside = inside & (value >= bottom)
            if (top := _bound(high, given)) is not None:
                inside = inside & ((value <= top) if is_closed else (value < top))
            known = F.when(F.isnan(value), value).otherwise(inside.cast("double"))
            return F.when(value.isNotNull(), known)


def _bound(bound: float | None, given: GivenNumbers) -> SparkColumn | None:
    return None if bound is None else given.bound(bound)


def _event_time(term: EventTime) -> SparkColumn:
    first = quoted(term.first_treated_period)
    elapsed = quoted(term.period).cast("double") - first.cast("double")
    inside = quoted(term.period).isNotNull()
    if term.low is not None:
        inside = inside & (elapsed >= float(term.low))
    if term.high is not None:
        inside = inside & (elapsed <= float(term.high))
    is_never = first.isNull() | F.isnan(first.cast("double"))
    known = F.when(is_never, 0.0).otherwise(inside.cast("double"))
    return F.when(quoted(term.period).isNotNull(), known)


def _literal(level: Level, kind: str) -> SparkColumn:
    """A level in the kind of its column: a YAML 1 must find the text '1' and the reverse."""
    if kind == "string":
        return F.lit(str(level))
    if kind == "date":
        return F.lit(str(level)).cast("timestamp")
    if kind == "boolean":
        return F.lit(str(level).lower() in {"true", "1", "1.0"})
    if isinstance(level, str):
        return F.lit(level).try_cast("double")
    return F.lit(level)


def _kind(data_type: types.DataType) -> ColumnKind:
    match data_type:
        case types.BooleanType():
            return "boolean"
        case types.NumericType():
            return "number"
        case types.StringType():
            return "string"
        case types.DateType() | types.TimestampType() | types.TimestampNTZType():
            return "date"
        case _:
            return "other"
