"""Jobs as a user starts them: through spark-submit.sh, in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from jobs.runtime import places
from tests.spark.conftest import spark

__all__ = ["spark"]

QUICK = (
    *("--master", "local[2]", "--driver-memory", "2g"),
    *("--conf", "spark.sql.shuffle.partitions=2"),
    *("--conf", "spark.driver.extraJavaOptions=-XX:+UseSerialGC"),
)
SCRIPT = str(places.root() / "spark-submit.sh")


def environment(**changes: str) -> dict[str, str]:
    """The environment of a user's shell, with this Python."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SPARK_REMOTE")}
    return {**kept, "CAUSALAKE_PYTHON": sys.executable, **changes}


def submit(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run spark-submit.sh to its end."""
    return subprocess.run(
        [SCRIPT, *arguments],
        cwd=cwd,
        env=dict(env) if env is not None else environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start spark-submit.sh as the head of a process group of its own."""
    return subprocess.Popen(
        [SCRIPT, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )
