"""The Spark session of the measurements: the suite's own settings for one machine."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.runtime.settings import Settings, load_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.runtime.context import Context


def settings(data: Path) -> Settings:
    """Settings whose tables lie below the folder of the measurements."""
    return load_settings(warehouse=str(data / "warehouse"))


def start(data: Path, *, memory: str, master: str | None = None) -> "SparkSession":
    """The session, started once; on all cores unless `master` says otherwise."""
    from jobs.runtime.session import build_session

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    extra = {
        "spark.driver.memory": memory,
        "spark.sql.warehouse.dir": str(data / "spark"),
    }
    if master is not None:
        extra["spark.master"] = master
    return build_session(settings(data), extra=extra)


def context(data: Path, session: "SparkSession") -> "Context":
    """What a job is given, on a session that has started."""
    from jobs.runtime.context import Context
    from jobs.runtime.progress import Progress

    made = Context(settings=settings(data), progress=Progress(is_quiet=True))
    made.__dict__["session"] = session
    return made
