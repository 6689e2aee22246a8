"""What every tier needs: one Python for driver and workers, no telemetry, tiers in order."""

import os
import sys

import pytest
from hypothesis import settings

# Time is no property of the code: other work on the machine would make tests fail.
settings.register_profile("suite", deadline=None, database=None)
settings.load_profile("suite")

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads of their own would wait for each other and burn time.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
# Every JVM of the suite lives for minutes at most: the optimising compiler does not pay.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

TIERS = ("unit", "test_architecture", "contracts", "golden", "statistical", "spark", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tiers first, or the long ones where two workers share the suite; mark by folder."""
    for item in items:
        if _tier(item) == "spark":
            item.add_marker(pytest.mark.spark)
        if _tier(item) == "e2e":
            item.add_marker(pytest.mark.e2e)
    is_shared = "PYTEST_XDIST_WORKER" in os.environ
    items.sort(key=lambda item: TIERS.index(_tier(item)), reverse=is_shared)


def _tier(item: pytest.Item) -> str:
    parts = item.path.relative_to(item.config.rootpath / "tests").parts
    return parts[0].removesuffix(".py")
