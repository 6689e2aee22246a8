"""One side of a question in a process of its own: what it costs and how much memory it takes.

The process is a module of the bench that prints one line of JSON last. Told apart: the driver's
Python (peak resident set), and the JVM, whose heap is the engine's (in local mode driver and
executors share it).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from bench.harness import Usage, usage
from bench.processes import TreeClock, descendants, peak_resident_bytes

MIB = 2**20
LIMIT_MIB = 2048
"""What the driver may take, whatever the number of rows."""


def found_by(module: str, *arguments: object) -> dict[str, Any]:
    """Run a module in a process of its own; what it printed last, from JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def used(work: Callable[[], object]) -> dict[str, float]:
    """Run something once: CPU seconds of this process and those below it, and wall seconds."""
    return vars(usage(work, cpu=TreeClock(os.getpid())))


def usage_of(found: dict[str, Any]) -> Usage:
    """The usage among the numbers that a process printed."""
    return Usage(cpu_seconds=found["cpu_seconds"], wall_seconds=found["wall_seconds"])


def peaks() -> dict[str, int]:
    """Peak resident sets so far, in MiB: this process, and the largest below it."""
    below = max((peak_resident_bytes(pid) for pid in descendants(os.getpid())), default=0)
    return {
        "python_mib": round(peak_resident_bytes(os.getpid()) / MIB),
        "jvm_mib": round(below / MIB),
    }
