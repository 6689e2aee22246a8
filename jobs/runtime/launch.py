"""What spark-submit.sh calls: validates the command line, then starts spark-submit and watches it.

Nothing here imports Spark's Java side: help and mistakes are answered without a JVM.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from jobs.runtime import places
from jobs.runtime.cli import Invocation, guarded, parse
from jobs.runtime.logs import configure_logging

_SWITCHES = frozenset({"--verbose", "-v", "--supervise", "--load-spark-defaults"})
_HELP = frozenset({"--help", "-h"})
_GRACE_SECONDS = 9.0
PID_FILE = "CAUSALAKE_DRIVER_PID_FILE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a job through spark-submit; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    spark_options, job_arguments = split_arguments(given)
    is_debug = "--debug" in job_arguments
    configure_logging(is_debug=is_debug)
    return guarded(lambda: _launch(spark_options, job_arguments), is_debug=is_debug)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before the job's name belongs to spark-submit, the rest to the job.

    `--env` is understood in both places.
    """
    spark: list[str] = []
    env: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in _HELP:
        has_value = rest[0] not in _SWITCHES and "=" not in rest[0]
        taken, rest = rest[: 1 + has_value], rest[1 + has_value :]
        if taken[0].split("=")[0] == "--env":
            env = taken
        else:
            spark += taken
    return spark, rest + env if rest else rest


def _launch(spark_options: list[str], job_arguments: list[str]) -> int:
    invocation = parse(job_arguments)
    if invocation is None:
        return 0
    command = submit_command(invocation, spark_options, job_arguments)
    with tempfile.TemporaryDirectory(prefix="causalake-") as scratch:
        pid_file = Path(scratch) / "driver.pid"
        environment = submit_environment(invocation, command) | {PID_FILE: str(pid_file)}
        return _watched(command, environment, pid_file)


def submit_command(
    invocation: Invocation, spark_options: Sequence[str], job_arguments: Sequence[str]
) -> list[str]:
    """The spark-submit command line of a job."""
    from jobs.runtime import jars
    from jobs.runtime.zip_package import ensure_zip

    root, env = places.root(), invocation.settings.env
    command = [jars.spark_submit(), "--properties-file", str(places.conf("spark", f"{env}.conf"))]
    if env != "local":
        command.append("--load-spark-defaults")
    command += ["--name", f"causalake {invocation.job.name}", "--py-files", str(ensure_zip(root))]
    if env != "databricks":
        command += ["--jars", ",".join(str(path) for path in jars.ensure_jars())]
    if "SPARK_MASTER" in os.environ:
        command += ["--master", os.environ["SPARK_MASTER"]]
    if invocation.is_debug:
        command += ["--conf", "spark.log.level=WARN"]
    for key, value in invocation.settings.spark.items():
        command += ["--conf", f"{key}={value}"]
    return [*command, *spark_options, str(root / "jobs" / "run.py"), *job_arguments]


def submit_environment(invocation: Invocation, command: Sequence[str]) -> dict[str, str]:
    """The environment of spark-submit: this Python, a Java, the checkout."""
    from jobs.runtime.java import find_java_home

    environment = dict(os.environ)
    environment["SPARK_HOME"] = str(Path(command[0]).resolve().parents[1])
    environment["CAUSALAKE_ROOT"] = str(places.root())
    environment.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    if not invocation.is_debug:
        quiet = f"-Dlog4j2.configurationFile={places.conf('spark', 'log4j2.properties').as_uri()}"
        environment["SPARK_SUBMIT_OPTS"] = (
            f"{environment.get('SPARK_SUBMIT_OPTS', '')} {quiet}".strip()
        )
    if invocation.settings.env == "local":
        environment.setdefault("PYSPARK_PYTHON", sys.executable)
        environment.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        environment["JAVA_HOME"] = str(find_java_home())
    return environment


def _watched(command: Sequence[str], environment: Mapping[str, str], pid_file: Path) -> int:
    """Run the command; SIGTERM and SIGINT go to the driver first, which closes what is open."""
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        del frame
        received.append(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, note)
    process = subprocess.Popen(command, env=dict(environment))  # noqa: S603 - built above from the settings
    while process.poll() is None and not received:
        time.sleep(0.05)
    if not received:
        return process.returncode
    driver = int(pid_file.read_text(encoding="utf-8")) if pid_file.is_file() else process.pid
    _signal(driver, received[0])
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline and (
        process.poll() is None or _is_alive(driver, process.pid)
    ):
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()
        process.wait()
    return 128 + received[0]


def _signal(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def _is_alive(driver: int, child: int) -> bool:
    if driver == child:
        return False
    try:
        os.kill(driver, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
