"""One Spark session for all tests of the tier, tuned to start and plan quickly."""

from collections.abc import Iterator
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
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The session; classic, or Spark Connect when SPARK_REMOTE is set."""
    folder = tmp_path_factory.mktemp("spark")
    extra = {**QUICK, "spark.sql.warehouse.dir": str(folder)}
    session = build_session(load_settings(warehouse=str(folder)), extra=extra)
    yield session
    session.stop()


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
