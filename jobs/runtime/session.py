"""The Spark session: built here and nowhere else."""

import os
import warnings
from collections.abc import Mapping

from pyspark.sql import SparkSession

from jobs.runtime import jars, places
from jobs.runtime.settings import Settings
from jobs.runtime.signals import raise_on_signals


def build_session(settings: Settings, *, extra: Mapping[str, str] | None = None) -> SparkSession:
    """The session of this process.

    Under spark-submit and on Databricks the JVM already has its settings; started from plain Python
    or under Spark Connect (`SPARK_REMOTE`), the properties of `conf/spark/<env>.conf` and the Delta
    jars are given here.

    Args:
        settings: Whose environment and Spark settings to use.
        extra: Settings that win over all others (tests).
    """
    running = SparkSession.getActiveSession()
    session = running if running is not None else _started(settings, extra or {})
    for key, value in settings.spark.items():
        if session.conf.isModifiable(key):
            session.conf.set(key, value)
    raise_on_signals()
    return session


def _started(settings: Settings, extra: Mapping[str, str]) -> SparkSession:
    builder = SparkSession.builder
    if _has_jvm():
        return builder.getOrCreate()
    properties = {**read_properties(settings.env), **settings.spark, **extra}
    if settings.env == "local":
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        properties.setdefault("spark.jars", ",".join(str(path) for path in jars.ensure_jars()))
    remote = os.environ.get("SPARK_REMOTE", "")
    if remote:
        properties.pop("spark.master", None)
        if not remote.startswith("local"):
            properties.pop("spark.jars", None)
    for key, value in properties.items():
        builder = builder.config(key, value)
    with warnings.catch_warnings():
        # A Connect session warns of each property that only its server can set.
        warnings.filterwarnings("ignore", message="Failed to set spark", category=UserWarning)
        return builder.getOrCreate()


def read_properties(env: str) -> dict[str, str]:
    """The properties of `conf/spark/<env>.conf`: a key, blanks, a value; `#` begins a comment."""
    lines = places.conf("spark", f"{env}.conf").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    return {pair[0]: pair[1].strip() for pair in pairs}


def _has_jvm() -> bool:
    """Whether spark-submit started this process (its JVM waits at the gateway's port)."""
    return "PYSPARK_GATEWAY_PORT" in os.environ
