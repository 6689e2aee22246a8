"""Assignment on Spark equals its plain twin, whatever the partitions."""

from collections import Counter

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from transforms.assignment import (
    assign,
    assign_stratified,
    hash_uniform,
    stratified_variants,
    uniform_column,
    variant,
)

ARMS = ("control", "light", "full")
SHARES = (0.5, 0.25, 0.25)
N_UNITS = 3_000


def test_draws_equal_the_plain_twin_bit_by_bit(spark: SparkSession) -> None:
    draws = spark.range(N_UNITS).select("id", uniform_column(F.col("id"), salt="s").alias("draw"))

    for row in draws.collect():
        assert row.draw == hash_uniform(row.id, salt="s")


def test_text_ids_equal_the_plain_twin(spark: SparkSession) -> None:
    names = ["unité", "ä ö", "a:b", "", "9007199254740993"]
    frame = spark.createDataFrame([(name,) for name in names], "name string")
    draws = frame.select("name", uniform_column(F.col("name"), salt="s").alias("draw"))

    assert {row.name: row.draw for row in draws.collect()} == {
        name: hash_uniform(name, salt="s") for name in names
    }


def test_variants_equal_the_plain_twin(spark: SparkSession) -> None:
    assigned = spark.range(N_UNITS).transform(
        assign(unit="id", salt="s", variants=ARMS, shares=SHARES)
    )

    assert assigned.columns == ["id", "variant"]
    for row in assigned.collect():
        assert row.variant == variant(row.id, salt="s", variants=ARMS, shares=SHARES)


def test_a_null_unit_gets_no_variant(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(None,), (1,)], "id long")
    assigned = frame.transform(assign(unit="id", salt="s", variants=ARMS, shares=SHARES))

    assert [row.variant is None for row in assigned.orderBy("id").collect()] == [True, False]


def test_units_of_a_cluster_share_their_variant(spark: SparkSession) -> None:
    frame = spark.range(N_UNITS).withColumn("household", F.floor(F.col("id") / 4))
    assigned = frame.transform(assign(unit="household", salt="s", variants=ARMS, shares=SHARES))
    arms = assigned.groupBy("household").agg(F.count_distinct("variant").alias("n_arms"))

    assert arms.where("n_arms > 1").count() == 0


@pytest.mark.parametrize("n_partitions", [1, 7])
def test_stratified_variants_equal_the_plain_twin(spark: SparkSession, n_partitions: int) -> None:
    frame = (
        spark.range(N_UNITS)
        .withColumn("tier", F.concat(F.lit("tier "), F.col("id") % 3))
        .repartition(n_partitions)
    )
    assigned = frame.transform(
        assign_stratified(unit="id", stratum="tier", salt="s", variants=ARMS, shares=SHARES)
    ).collect()
    expected = stratified_variants(
        {row.id: row.tier for row in assigned}, salt="s", variants=ARMS, shares=SHARES
    )

    assert {row.id: row.variant for row in assigned} == expected
    assert set(Counter((row.tier, row.variant) for row in assigned).values()) <= {
        249,
        250,
        251,
        500,
    }


def test_rows_without_a_stratum_are_kept(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1, "a"), (2, None), (3, None)], "id long, tier string")
    assigned = frame.transform(
        assign_stratified(
            unit="id", stratum="tier", salt="s", variants=("x", "y"), shares=(0.5, 0.5)
        )
    )

    assert assigned.columns == ["id", "tier", "variant"]
    arms = {row.id: row.variant for row in assigned.collect()}
    assert {arms[2], arms[3]} == {"x", "y"}


def test_null_units_are_kept_and_do_not_count(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [(1, "a"), (2, "a"), (None, "a"), (None, "b")], "id long, tier string"
    )
    plan = {1: "a", 2: "a"}
    assigned = frame.transform(
        assign_stratified(unit="id", stratum="tier", salt="s", variants=ARMS, shares=SHARES)
    ).collect()

    assert len(assigned) == frame.count()
    assert [row.variant for row in assigned if row.id is None] == [None, None]
    assert {row.id: row.variant for row in assigned if row.id} == stratified_variants(
        plan, salt="s", variants=ARMS, shares=SHARES
    )
