"""One Spark session for all tests of the tier, tuned to start and plan quickly."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.runtime.lakehouse import Lakehouse
from jobs.runtime.session import build_session
from jobs.runtime.settings import Settings, load_settings

QUICK = {
    "spark.master": "local[2]",
    "spark.driver.memory": "2g",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.driver.maxResultSize": "256m",
    "spark.ui.enabled": "false",
    # Planning and compiling small queries takes most of their time: as little of it as can be.
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
}

SMALL_QUERIES = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": "1",
}

LARGE_QUERIES = {
    "spark.sql.codegen.factoryMode": "FALLBACK",
    "spark.sql.codegen.wholeStage": "true",
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The session; classic, or Spark Connect when SPARK_REMOTE is set."""
    folder = tmp_path_factory.mktemp("spark")
    extra = {**QUICK, "spark.sql.warehouse.dir": str(folder)}
    session = build_session(load_settings(warehouse=str(folder)), extra=extra)
    yield session
    session.stop()


@pytest.fixture(scope="module")
def many_small_queries(spark: SparkSession) -> Iterator[None]:
    """Planning and compiling small queries takes most of their time: as little of it as can be."""
    with _configured(spark, SMALL_QUERIES):
        yield


@pytest.fixture(scope="module")
def large_queries(spark: SparkSession) -> Iterator[None]:
    """Whole worlds are generated faster by compiled code."""
    with _configured(spark, LARGE_QUERIES):
        yield


@contextmanager
def _configured(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """These properties within, those before after."""
    before = {key: spark.conf.get(key) for key in settings}
    for key, value in settings.items():
        spark.conf.set(key, value)
    yield
    for key, held in before.items():
        spark.conf.set(key, str(held))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose tables and runs lie in a folder of the test's own."""
    return load_settings(
        warehouse=str(tmp_path / "warehouse"), overrides=["limits.lock_seconds=30"]
    )


@pytest.fixture
def lakehouse(spark: SparkSession, settings: Settings) -> Lakehouse:
    """An empty lakehouse."""
    return Lakehouse(session=spark, settings=settings)
