"""Tables: one commit per write, constraints, run keys, parts, versions, one-line errors."""

import multiprocessing
import time
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from causal.core.errors import ConcurrencyError, DataError, SpecError
from causal.core.spec import Source
from jobs.runtime.lakehouse import Lakehouse
from jobs.runtime.locks import held
from jobs.runtime.settings import Settings, load_settings
from transforms.schema import Field, Table

VISITS = Table(
    name="visits",
    comment="It's one row per visitor",
    fields=(
        Field(name="unit_id", type="BIGINT", comment="The visitor"),
        Field(name="place", type="STRING", comment="Where"),
        Field(name="minutes", type="DOUBLE", comment="How long", is_nullable=True),
    ),
    key=("unit_id",),
    checks={"minutes_not_negative": "minutes >= 0"},
    clustering=("unit_id",),
)
WIDER = Table(
    name="visits",
    comment=VISITS.comment,
    fields=(*VISITS.fields, Field(name="score", type="INT", comment="New", is_nullable=True)),
    key=VISITS.key,
    checks={},
)
CATALOG = {"tables": "catalog", "catalog": "spark_catalog", "database": "of_a_test"}


def declared(name: str) -> Table:
    if name != "visits":
        raise SpecError("no such table", given=name)
    return VISITS


@pytest.fixture
def tables(spark: SparkSession, settings: Settings) -> Lakehouse:
    return Lakehouse(session=spark, settings=settings, declared=declared)


def visits(
    spark: SparkSession, n_rows: int, *, place: str = "a", minutes: float = 1.0
) -> DataFrame:
    return spark.range(n_rows).select(
        F.lit(minutes).alias("minutes"),
        F.lit(place).alias("place"),
        F.col("id").alias("unit_id"),
    )


def test_a_table_has_what_it_declares(spark: SparkSession, tables: Lakehouse) -> None:
    assert tables.state("visits") is None
    assert not tables.exists("visits")
    tables.write(visits(spark, 5), "visits", run_key="k1")
    schema = spark.table(tables.identifier("visits")).schema
    assert [(f.name, f.dataType, f.nullable) for f in schema.fields] == [
        (f.name, f.dataType, f.nullable) for f in VISITS.schema.fields
    ]
    assert [f.metadata["comment"] for f in schema.fields] == ["The visitor", "Where", "How long"]
    detail = spark.sql(f"DESCRIBE DETAIL {tables.identifier('visits')}").collect()[0]
    assert detail["description"] == VISITS.comment
    assert detail["properties"]["delta.constraints.minutes_not_negative"] == (
        "coalesce(minutes >= 0, true)"
    )


def test_versions_and_run_keys(spark: SparkSession, tables: Lakehouse) -> None:
    first = tables.write(visits(spark, 5), "visits", run_key="k1")
    second = tables.write(visits(spark, 3), "visits", run_key="k2")
    state = tables.state("visits")
    assert state is not None
    assert (state.version, state.data_version, state.run_key, state.identity) == (
        second,
        second,
        "k2",
        "k2",
    )
    assert tables.read("visits").count() == 3
    assert tables.read("visits", version=first).count() == 5
    assert tables.version("visits") == second


def test_optimize_leaves_identity_alone(spark: SparkSession, tables: Lakehouse) -> None:
    written = tables.write(visits(spark, 50).repartition(4), "visits", run_key="k1")
    assert tables.n_files("visits") > 1
    assert tables.optimize("visits")["n_files_added"] == 1
    tables.vacuum("visits")
    state = tables.state("visits")
    assert state is not None
    assert state.version > written
    assert (state.data_version, state.identity) == (written, "k1")
    with pytest.raises(SpecError, match="retention is too short"):
        tables.vacuum("visits", hours=1)


def test_parts_are_replaced_alone(spark: SparkSession, tables: Lakehouse) -> None:
    tables.write(visits(spark, 2, place="a"), "visits", run_key="k1", replace_where="place = 'a'")
    tables.write(visits(spark, 3, place="b"), "visits", run_key="k2", replace_where="place = 'b'")
    tables.write(visits(spark, 4, place="a"), "visits", run_key="k3", replace_where="place = 'a'")
    counts = {
        row["place"]: row["count"]
        for row in tables.read("visits").groupBy("place").count().collect()
    }
    assert counts == {"a": 4, "b": 3}
    for part, key in (("place = 'a'", "k3"), ("place = 'b'", "k2")):
        state = tables.state("visits", part=part)
        assert state is not None
        assert state.run_key == key
        assert state.identity.startswith("version ")
    assert tables.state("visits", part="place = 'c'") is None


def test_merge_replaces_by_key_and_can_be_repeated(spark: SparkSession, tables: Lakehouse) -> None:
    tables.merge(visits(spark, 3, minutes=1.0), "visits", run_key="k1")
    for _ in range(2):
        tables.merge(visits(spark, 4, minutes=2.0), "visits", run_key="k2")
    rows = {row["unit_id"]: row["minutes"] for row in tables.read("visits").collect()}
    assert rows == {0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0}


def test_null_is_allowed_where_declared(spark: SparkSession, tables: Lakehouse) -> None:
    rows = visits(spark, 3).withColumn("minutes", F.lit(None).cast("double"))
    tables.write(rows, "visits", run_key="k1")
    assert tables.read("visits").where("minutes IS NULL").count() == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda df: df.withColumn("minutes", F.lit(-1.0)),
            DataError,
            "minutes_not_negative is violated",
        ),
        (
            lambda df: df.withColumn("place", F.when(F.col("unit_id") > 1, "x")),
            DataError,
            "visits: place: the column may not be null",
        ),
        (lambda df: df.drop("place"), SpecError, "place: missing (declared: string)"),
        (
            lambda df: df.withColumn("extra", F.lit(1)),
            SpecError,
            "extra: int (declared: not at all)",
        ),
        (
            lambda df: df.withColumn("unit_id", F.col("unit_id").cast("int")),
            SpecError,
            "unit_id: int (declared: bigint)",
        ),
    ],
)
def test_bad_rows_leave_the_table_alone(
    spark: SparkSession, tables: Lakehouse, change: object, error: type[Exception], message: str
) -> None:
    tables.write(visits(spark, 3), "visits", run_key="k1")
    assert callable(change)
    with pytest.raises(error) as raised:
        tables.write(change(visits(spark, 5)), "visits", run_key="k2")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    state = tables.state("visits")
    assert state is not None
    assert state.run_key == "k1"
    assert tables.read("visits").count() == 3


def test_a_new_declaration_replaces_the_table(
    spark: SparkSession, tables: Lakehouse, settings: Settings
) -> None:
    tables.write(visits(spark, 3), "visits", run_key="k1")
    wider = Lakehouse(session=spark, settings=settings, declared=lambda _name: WIDER)
    rows = visits(spark, 2).withColumn("score", F.lit(1))
    with pytest.raises(SpecError, match="has not the declared columns"):
        wider.write(rows, "visits", run_key="k2", replace_where="place = 'a'")
    wider.write(rows, "visits", run_key="k2")
    assert wider.read("visits").columns == list(WIDER.columns)


def test_reading_what_is_not_there(tables: Lakehouse, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has not been written yet"):
        tables.read("visits")
    with pytest.raises(SpecError, match="nothing to read"):
        tables.read_source(Source(path=str(tmp_path / "none.csv")))
    (tmp_path / "data.xyz").touch()
    with pytest.raises(SpecError, match="format cannot be told"):
        tables.read_source(Source(path=str(tmp_path / "data.xyz")))
    with pytest.raises(SpecError, match="no such table"):
        tables.read_source(Source(table="elsewhere.nothing"))
    with pytest.raises(SpecError, match="no such"):
        tables.read_source(Source(table="nowhere.elsewhere.nothing"))
    with pytest.raises(SpecError, match=r"no file system is set up.*given: s3://"):
        tables.read_source(Source(path="s3://bucket/data.parquet"))
    (tmp_path / "data.parquet").write_bytes(b"not what its name says" * 9)
    with pytest.raises(DataError, match="cannot be read"):
        tables.read_source(Source(path=str(tmp_path / "data.parquet")))
    (tmp_path / "data.csv").write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"source\.version: only Delta has versions"):
        tables.read_source(Source(path=str(tmp_path / "data.csv"), version=3))


def test_reading_a_users_files(spark: SparkSession, tables: Lakehouse, tmp_path: Path) -> None:
    text = 'a,b\n1,.\n2,"say ""x"", he said"\n'
    (tmp_path / "data.csv").write_text(text, encoding="utf-8")
    frame, version = tables.read_source(Source(path="data.csv", null_value="."), beside=tmp_path)
    assert version is None
    assert [tuple(row) for row in frame.collect()] == [(1, None), (2, 'say "x", he said')]
    tables.write(visits(spark, 2), "visits", run_key="k1")
    for name in ("visits", "causalake.visits"):
        source = Source(table=name)
        frame, version = tables.read_source(source)
        assert version == tables.version("visits")
        assert frame.count() == 2
        assert tables.source_identity(source, version) == "k1"
    assert tables.source_identity(Source(table="other.visits"), version) == f"version {version}"
    frame, version = tables.read_source(Source(path=tables.path("visits")))
    assert (frame.count(), version) == (2, tables.version("visits"))


def test_giving_up_on_a_lock(spark: SparkSession, tmp_path: Path) -> None:
    settings = load_settings(warehouse=str(tmp_path), overrides=["limits.lock_seconds=0.2"])
    tables = Lakehouse(session=spark, settings=settings, declared=declared)
    lock = tmp_path / ".locks" / "causalake.visits.lock"
    with (
        held(lock, timeout=1, purpose="a long job"),
        pytest.raises(ConcurrencyError, match="a long job"),
    ):
        tables.write(visits(spark, 1), "visits", run_key="k1")


def merge_many(spark: SparkSession, tables: Lakehouse, first: int) -> None:
    for number in range(3):
        rows = visits(spark, 10).withColumn(
            "unit_id", F.col("unit_id") + F.lit(first + 10 * number)
        )
        tables.merge(rows, "visits", run_key=f"{first}-{number}")


def merge_elsewhere(warehouse: str, first: int) -> None:
    from jobs.runtime.session import build_session
    from tests.spark.conftest import QUICK

    settings = load_settings(warehouse=warehouse)
    spark = build_session(settings, extra={**QUICK, "spark.driver.memory": "700m"})
    Path(warehouse, "is_ready").touch()
    merge_many(spark, Lakehouse(session=spark, settings=settings, declared=declared), first)
    spark.stop()


@pytest.mark.slow
def test_two_processes_lose_nothing(
    spark: SparkSession, tables: Lakehouse, settings: Settings
) -> None:
    warehouse = Path(settings.warehouse)
    warehouse.mkdir()
    other = multiprocessing.get_context("spawn").Process(
        target=merge_elsewhere, args=(settings.warehouse, 1000)
    )
    other.start()
    while not (warehouse / "is_ready").exists():
        assert other.is_alive()
        time.sleep(0.05)
    merge_many(spark, tables, 0)
    other.join(300)
    assert other.exitcode == 0
    assert tables.read("visits").select("unit_id").distinct().count() == 60
    assert tables.read("visits").count() == 60


@pytest.mark.parametrize("left", [(), (".00000000000000000000.json.1.tmp",), ("_commits/",)])
def test_a_writer_killed_before_its_first_commit(
    spark: SparkSession, tables: Lakehouse, left: tuple[str, ...]
) -> None:
    log = Path(tables.path("visits")) / "_delta_log"
    log.mkdir(parents=True)
    for name in left:
        if name.endswith("/"):
            (log / name).mkdir()
        else:
            (log / name).write_text('{"commitInfo":')
    assert not tables.exists("visits")
    tables.write(visits(spark, 5), "visits", run_key="k1")
    assert tables.read("visits").count() == 5


def test_nothing_written_is_a_commit_too(spark: SparkSession, tables: Lakehouse) -> None:
    part = "place = 'b'"
    tables.write(visits(spark, 0, place="b"), "visits", run_key="k1", replace_where=part)
    state = tables.state("visits", part=part)
    assert state is not None
    assert state.run_key == "k1"
    assert tables.read("visits").count() == 0
    tables.write(visits(spark, 0, place="b"), "visits", run_key="k2", replace_where=part)
    again = tables.state("visits", part=part)
    assert again is not None
    assert again.run_key == "k2"


def test_tables_of_a_catalog(spark: SparkSession, tmp_path: Path) -> None:
    """Three-level names; the schema is made with its first table."""
    chosen = [f"{key}={value}" for key, value in CATALOG.items()]
    settings = load_settings(warehouse=str(tmp_path), overrides=chosen)
    tables = Lakehouse(session=spark, settings=settings, declared=declared)
    try:
        assert tables.path("visits") == "spark_catalog.of_a_test.visits"
        assert not tables.exists("visits")
        tables.write(visits(spark, 5), "visits", run_key="k1")
        tables.merge(visits(spark, 3, minutes=2.0), "visits", run_key="k2")
        state = tables.state("visits")
        assert state is not None
        assert state.run_key == "k2"
        assert tables.read("visits").agg(F.sum("minutes")).first()[0] == 8.0  # type: ignore[index]
    finally:
        spark.sql("DROP SCHEMA IF EXISTS spark_catalog.of_a_test CASCADE")
