"""Quality gates stop bad data with counts and examples, and let good data pass."""

import datetime as dt
import math

import pytest
from pyspark.sql import DataFrame, SparkSession

from causal.core.errors import DataError, SpecError
from transforms.bounded import collect_bounded
from transforms.quality import (
    Gate,
    Rule,
    declared,
    evaluate,
    fresh,
    in_range,
    keys_unique,
    no_nulls,
    referential,
    sample_ratio,
    satisfies,
)
from transforms.tables import table

AS_OF = dt.date(2026, 3, 1)


@pytest.fixture(scope="module")
def days(spark: SparkSession) -> DataFrame:
    rows = [
        (1, dt.date(2026, 2, 26), 10.0),
        (1, dt.date(2026, 2, 26), -3.0),
        (2, dt.date(2026, 2, 27), math.nan),
        (None, dt.date(2026, 2, 20), None),
    ]
    return spark.createDataFrame(rows, "unit_id long, activity_on date, minutes double")


@pytest.mark.parametrize(
    ("rule", "n_violations", "example"),
    [
        (keys_unique("unit_id", "activity_on"), 1, "(unit_id 1, activity_on 2026-02-26, n_rows 2)"),
        (no_nulls("unit_id", shown=("activity_on",))[0], 1, "(activity_on 2026-02-20)"),
        (in_range("minutes", lower=0.0), 2, "(minutes -3.0)"),
        (in_range("minutes", upper=5.0, shown=("unit_id",)), 2, "(unit_id 1, minutes 10.0)"),
        (satisfies("positive", "minutes >= 0", shown=("minutes",)), 1, "(minutes -3.0)"),
        (fresh("activity_on", as_of=AS_OF, max_age_days=1), 1, "newest is 2026-02-27"),
    ],
)
def test_a_broken_rule_says_how_often_and_where(
    days: DataFrame, rule: Rule, n_violations: int, example: str
) -> None:
    (violation,) = evaluate(days, [rule])

    assert violation.rule == rule.name
    assert violation.n_violations == n_violations
    assert example in violation.examples


@pytest.mark.parametrize(
    "rule",
    [
        keys_unique("unit_id", "activity_on", "minutes"),
        no_nulls("activity_on")[0],
        fresh("activity_on", as_of=AS_OF, max_age_days=2),
        satisfies("known", "unit_id < 3"),
    ],
)
def test_a_rule_that_holds_says_nothing(days: DataFrame, rule: Rule) -> None:
    assert evaluate(days, [rule]) == ()


def test_an_empty_frame_is_not_fresh(days: DataFrame) -> None:
    (violation,) = evaluate(days.limit(0), [fresh("activity_on", as_of=AS_OF, max_age_days=9)])

    assert violation.examples == ("there is no value",)


def test_unknown_keys_are_found(spark: SparkSession, days: DataFrame) -> None:
    population = spark.createDataFrame([(1,)], "subscriber_id long")
    rule = referential(
        ("unit_id",), other=population, other_columns=("subscriber_id",), other_name="subscribers"
    )
    (violation,) = evaluate(days, [rule])

    assert (violation.n_violations, violation.examples) == (1, ("(unit_id 2)",))


def test_at_most_five_examples(spark: SparkSession) -> None:
    (violation,) = evaluate(spark.range(100), [in_range("id", lower=50)])

    assert violation.n_violations == 50
    assert len(violation.examples) == 5


def test_a_gate_reports_all_broken_rules_in_one_line(days: DataFrame) -> None:
    rules = (keys_unique("unit_id", "activity_on"), *no_nulls("unit_id", "activity_on"))

    with pytest.raises(DataError) as caught:
        Gate(name="days", frame=days, rules=rules).check()
    text = str(caught.value)
    assert "days failed 2 of 3 quality rules" in text
    assert "(unit_id, activity_on) is unique: 1 violation(s)" in text
    assert "\n" not in text


def test_two_rules_of_one_name_are_refused(days: DataFrame) -> None:
    with pytest.raises(SpecError, match="two quality rules have one name"):
        evaluate(days, [*no_nulls("unit_id"), *no_nulls("unit_id")])


def test_the_declaration_of_a_table_makes_rules(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [(1, dt.date(2026, 1, 5), 2000, 1, 0.0), (1, dt.date(2026, 1, 5), 5, None, 0.0)],
        "subscriber_id long, activity_on date, minutes int, sessions int, revenue double",
    )
    broken = [violation.rule for violation in evaluate(frame, declared(table("subscriber_days")))]

    assert broken == [
        "(subscriber_id, activity_on) is unique",
        "sessions is not null",
        "minutes_in_a_day (minutes BETWEEN 0 AND 1440)",
    ]


def ratio_rule(spark: SparkSession) -> Rule:
    definitions = spark.createDataFrame(
        [("fair", ["a", "b"], [0.5, 0.5]), ("skewed", ["a", "b"], [0.9, 0.1])],
        "experiment string, variants array<string>, shares array<double>",
    )
    return sample_ratio(
        experiment="experiment", variant="variant", unit="cluster_id", definitions=definitions
    )


def test_a_sample_ratio_mismatch_is_found(spark: SparkSession) -> None:
    units = spark.range(2_000).selectExpr(
        "explode(array('fair', 'skewed')) AS experiment", "id AS cluster_id", "id % 2 AS half"
    )
    assigned = units.selectExpr(
        "experiment", "cluster_id", "CASE WHEN half = 0 THEN 'a' ELSE 'b' END AS variant"
    )
    (violation,) = evaluate(assigned, [ratio_rule(spark)])

    assert violation.n_violations == 1
    assert violation.examples[0].startswith(
        "skewed: a 1,000, b 1,000 for shares a 0.9, b 0.1, p = "
    )


def test_a_cluster_counts_once(spark: SparkSession) -> None:
    rows = spark.range(400).selectExpr(
        "'fair' AS experiment",
        "id % 20 AS cluster_id",
        "CASE WHEN id % 20 < 8 THEN 'a' ELSE 'b' END AS variant",
    )

    assert evaluate(rows, [ratio_rule(spark)]) == ()


def test_a_variant_that_was_not_planned_is_found(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [("fair", 1, "a"), ("fair", 2, "b"), ("fair", 3, "c")],
        "experiment string, cluster_id long, variant string",
    )
    (violation,) = evaluate(rows, [ratio_rule(spark)])

    assert "p = 0" in violation.examples[0]


def test_a_small_frame_leaves_spark(spark: SparkSession) -> None:
    assert len(collect_bounded(spark.range(10), max_rows=10, what="ids")) == 10


def test_a_large_frame_is_refused_and_its_largest_key_named(spark: SparkSession) -> None:
    frame = spark.range(11).selectExpr("id", "id % 2 AS half")

    with pytest.raises(
        DataError, match="ids has more rows than may leave Spark; given: more than 10"
    ):
        collect_bounded(frame, max_rows=10, what="ids")
    with pytest.raises(DataError, match="about 11 values of id, about 2 values of half"):
        collect_bounded(frame, max_rows=10, what="ids", keys=("half", "id"))
