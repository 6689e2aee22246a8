"""Numbers beside the rows, and parts that are evaluated once."""

import re
from collections.abc import Mapping

import pytest
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from causal.core.frames import (
    Clipped,
    Column,
    Constant,
    Exponential,
    GramRequest,
    Product,
    Term,
    linear,
)
from transforms.given_numbers import MAX_GIVEN, WRITTEN_OUT, GivenNumbers
from transforms.gram import SparkEngine
from transforms.shared_terms import given_numbers, leaves, n_parts, with_shared
from transforms.terms import compiled

X, Z = Column("x"), Column("z")
NUMBERS = (
    0.1, -0.1, 1.0, -1.0, 0.0, -0.0, 3.0, 1e308, 5e-324, -2.2250738585072014e-308, 1 / 3, 2.0**60,
    float("inf"), -float("inf"),
)  # fmt: skip


def predictor(*coefficients: float) -> Term:
    """A bounded combination of both columns."""
    combined = linear([(Constant(), coefficients[0]), (X, coefficients[1]), (Z, coefficients[2])])
    return Clipped(combined, low=-coefficients[3], high=coefficients[3])


def evaluated(
    spark: SparkSession, terms: tuple[Term, ...], given: GivenNumbers = WRITTEN_OUT
) -> DataFrame:
    """The terms in five rows; in the last nothing is known."""
    rows = spark.sql("SELECT id / 4 AS x, 2 - id AS z, id < 4 AS is_used FROM range(5)")
    held: Mapping[Term, SparkColumn] = {
        leaf: F.col(leaf.name) for leaf in leaves(terms) if isinstance(leaf, Column)
    }
    rows, held = with_shared(given.beside(rows), terms, held, where=F.col("is_used"), given=given)
    return rows.select(*[compiled(term, {}, held, given).alias(f"t{i}")
                         for i, term in enumerate(terms)])  # fmt: skip


def code_of(df: DataFrame, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The Java code that a query is compiled to."""
    capsys.readouterr()
    df.explain("codegen")
    shown = capsys.readouterr().out
    return [line for line in shown.splitlines() if re.match(r"/\* \d+ \*/", line)]


def test_numbers_are_what_they_were(spark: SparkSession) -> None:
    given = GivenNumbers(NUMBERS, NUMBERS)
    columns = [
        *[given.coefficient(number).alias(f"c{at}") for at, number in enumerate(NUMBERS)],
        *[given.bound(number).alias(f"b{at}") for at, number in enumerate(NUMBERS)],
    ]

    row = given.beside(spark.range(1)).select(*columns).first()

    assert row is not None
    assert [str(value) for value in row[: len(NUMBERS)]] == [str(number) for number in NUMBERS]
    assert list(row[len(NUMBERS) :]) == list(NUMBERS)


@pytest.mark.usefixtures("large_queries")
def test_queries_that_differ_in_numbers_are_compiled_once(
    spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (
        (Exponential(predictor(*numbers)), Product((X, predictor(*numbers))))
        for numbers in ((0.25, -0.5, 1.5, 300.0), (7.0, 1e-9, -3.25, 1.0))
    )
    beside = [
        code_of(evaluated(spark, terms, given_numbers(terms, ())), capsys) for terms in (one, other)
    ]
    written = [code_of(evaluated(spark, terms), capsys) for terms in (one, other)]

    assert len(beside[0]) > 50
    assert beside[0] == beside[1]
    assert written[0] != written[1]


def test_values_do_not_depend_on_where_numbers_are(spark: SparkSession) -> None:
    inner = predictor(0.25, -0.5, 1.5, 0.75)
    terms = (
        Exponential(inner),
        Product((X, inner)),
        linear([(Exponential(inner), 0.1), (Z, -3.0)]),
    )
    written = evaluated(spark, terms).toPandas()
    beside = evaluated(spark, terms, given_numbers(terms, ())).toPandas()
    many = evaluated(spark, terms, given_numbers(terms, map(float, range(2, MAX_GIVEN + 2))))

    assert written.to_numpy().tolist() == beside.to_numpy().tolist()
    assert written.to_numpy().tolist() == many.toPandas().to_numpy().tolist()
    assert not any("given" in name for name in many.columns)


def test_too_many_numbers_are_written_out(spark: SparkSession) -> None:
    few = GivenNumbers([2.0 + i for i in range(MAX_GIVEN)])
    many = GivenNumbers([2.0 + i for i in range(MAX_GIVEN)], [0.5])

    assert len(few.names) == MAX_GIVEN
    assert many.names == []
    assert many.beside(spark.range(1)).columns == ["id"]


def test_unused_rows_divide_by_nothing(spark: SparkSession) -> None:
    shared = linear([(X, 1.0), (Constant(), -1.0)])
    terms = (Exponential(shared), Product((shared, shared)))

    values = evaluated(spark, terms).toPandas()

    assert values["t0"].iloc[-1] == values["t1"].iloc[-1] == 0.0
    assert values["t1"].iloc[0] == 1.0


def test_parts_are_counted_once() -> None:
    term: Term = linear([(X, 1.0), (Z, 2.0)])
    for _ in range(12):
        term = Product((term, term))

    assert n_parts([term, term]) == 2 + 12 * 2


def test_unused_rows_may_hold_anything(spark: SparkSession) -> None:
    """Without a weight the row counts for nothing, even where it is infinite."""
    rows = spark.sql("SELECT * FROM VALUES (1D, 1D), (3D, 1D), (double('inf'), NULL) AS v(x, w)")
    request = GramRequest(terms=(X, Product((X, X))), weight=Column("w"))

    found = SparkEngine(rows)(request)

    assert list(found["mean"].iloc[0]) == [2.0, 5.0]


def test_numbers_too_large_to_be_rounded_are_kept(spark: SparkSession) -> None:
    rows = spark.sql("SELECT * FROM VALUES (1D), (2D), (3D) AS v(x)")

    found = SparkEngine(rows)(GramRequest(terms=(linear([(X, 5e307)]), Column("x"))))

    assert list(found["mean"].iloc[0]) == pytest.approx([1e308, 2.0], rel=1e-12)
