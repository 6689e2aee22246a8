"""Runs two ways to the same answer by turns and records what each costs.

Both sides first run until ours gets no cheaper (the page cache and the JVM's compiler are warm
then), and must agree each time; what these runs cost is stored, but not in the ratio. Then they
alternate, so that whatever else the machine does falls on both. The ratio is of median CPU seconds:
ours counts this process and everything below it (the JVM, Python workers), the peer's counts this
process with all threads of the peer's library.
"""

import datetime as dt
import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.processes import TreeClock, own_cpu_seconds

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_BLOCK, _MAX_BLOCKS = 5, 6
_STEADY = 0.95
"""Runs are warm when a block of them costs no less than this share of the block before it."""

RESULTS = Path(__file__).resolve().parent / "results"
_LIBRARIES = (
    "pyspark", "delta-spark", "numpy", "pandas", "pyarrow",
    "polars", "duckdb", "pyfixest", "linearmodels",
)  # fmt: skip

Scale = Literal["full", "small"]


class DisagreementError(AssertionError):
    """Ours and the peer do not give the same answer, so their costs cannot be compared."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every question is given.

    Attributes:
        data: Folder for generated data; kept between runs.
        scale: "full", or "small" for a smoke run in seconds.
        n_runs: Measured runs of each side.
        session: Starts (or returns) the Spark session.
        memory: Driver memory of Spark.
    """

    data: Path
    scale: Scale
    n_runs: int
    session: Callable[[], "SparkSession"]
    memory: str

    def size(self, full: int, *, small: int) -> int:
        """A size that fits the scale."""
        return full if self.scale == "full" else small


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Two ways to one answer.

    Attributes:
        ours: Does the work with causalake and returns the answer.
        peer: Does it with the peer.
        check: Raises `DisagreementError` or AssertionError if the two answers differ.
        rows: Rows that both read or write.
        notes: Facts for the record.
        is_peer_on_spark: Whether the peer works on Spark too, so that the JVM counts for it.
    """

    ours: Callable[[], Any]
    peer: Callable[[], Any]
    check: Callable[[Any, Any], None]
    rows: int
    notes: Mapping[str, Any] = field(default_factory=dict)
    is_peer_on_spark: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row of the table of targets.

    Attributes:
        name: Its name on the command line.
        work: What is done.
        peer: With what it is compared.
        target: Largest ratio that fulfils the target.
        measure: Runs it.
    """

    name: str
    work: str
    peer: str
    target: float
    measure: Callable[["Question", Bench], "Record"]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one run costs."""

    cpu_seconds: float
    wall_seconds: float


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measured question, as it is stored.

    Attributes:
        question, work, peer, target: From the question.
        ratio: Median CPU seconds of ours over those of the peer (or the question's own ratio).
        wall_ratio: The same of wall seconds.
        ours: Every measured run of ours, in order.
        peer_runs: Every measured run of the peer.
        rows: Rows of the work.
        notes: Facts that explain the figure.
    """

    question: str
    work: str
    peer: str
    target: float
    ratio: float
    wall_ratio: float | None
    ours: tuple[Usage, ...]
    peer_runs: tuple[Usage, ...]
    rows: int
    notes: Mapping[str, Any]

    @property
    def is_met(self) -> bool:
        """Whether the target is met."""
        return self.ratio <= self.target


def compare(
    prepare: Callable[[Bench], Sides], *, n_warm: int | None = None
) -> Callable[[Question, Bench], Record]:
    """A measurement of two sides that `prepare` sets up.

    Args:
        prepare: Sets the sides up.
        n_warm: Runs before those that count; `None`: until ours gets no cheaper.
    """

    def measure(question: Question, bench: Bench) -> Record:
        sides = prepare(bench)
        cold = warmed_up(sides, n_runs=n_warm)
        ours, peer = alternate(sides, n_runs=bench.n_runs)
        return Record(
            question=question.name,
            work=question.work,
            peer=question.peer,
            target=question.target,
            ratio=median(ours, "cpu_seconds") / median(peer, "cpu_seconds"),
            wall_ratio=median(ours, "wall_seconds") / median(peer, "wall_seconds"),
            ours=ours,
            peer_runs=peer,
            rows=sides.rows,
            notes={
                **sides.notes,
                "warm_runs": len(cold),
                "warm_runs_cpu_seconds": [run.cpu_seconds for run in cold],
            },
        )

    return measure


def warmed_up(sides: Sides, *, n_runs: int | None) -> tuple[Usage, ...]:
    """What ours cost while both sides got warm; their answers are compared each time.

    Args:
        sides: The sides.
        n_runs: Runs; `None`: until ours is steady, at most thirty.
    """
    found: list[Usage] = []
    whole_tree = TreeClock(os.getpid())
    while len(found) < (_BLOCK * _MAX_BLOCKS if n_runs is None else n_runs):
        if n_runs is None and len(found) % _BLOCK == 0 and is_steady(found):
            break
        answers: list[Any] = []

        def ours(kept: list[Any] = answers) -> None:
            kept.append(sides.ours())

        found.append(usage(ours, cpu=whole_tree))
        sides.check(answers[0], sides.peer())
    return tuple(found)


def is_steady(runs: Sequence[Usage]) -> bool:
    """Whether the last five runs cost hardly less than the five before them."""
    if len(runs) < 2 * _BLOCK:
        return False
    before, last = runs[-2 * _BLOCK : -_BLOCK], runs[-_BLOCK:]
    return median(last, "cpu_seconds") >= _STEADY * median(before, "cpu_seconds")


def alternate(sides: Sides, *, n_runs: int) -> tuple[tuple[Usage, ...], tuple[Usage, ...]]:
    """Ours, peer, ours, peer, ..."""
    ours, peer = [], []
    whole_tree = TreeClock(os.getpid())
    for _ in range(n_runs):
        ours.append(usage(sides.ours, cpu=whole_tree))
        peer.append(
            usage(sides.peer, cpu=whole_tree if sides.is_peer_on_spark else own_cpu_seconds)
        )
        print(f"  cpu {ours[-1].cpu_seconds:.2f} s, peer {peer[-1].cpu_seconds:.2f} s", flush=True)
    return tuple(ours), tuple(peer)


def usage(work: Callable[[], object], *, cpu: Callable[[], float]) -> Usage:
    """Run something once and say what it cost."""
    gc.collect()
    cpu_before, wall_before = cpu(), time.perf_counter()
    answer = work()
    used = Usage(
        cpu_seconds=max(cpu() - cpu_before, 0.005),  # the clock ticks a hundred times a second
        wall_seconds=time.perf_counter() - wall_before,
    )
    del answer
    return used


def median(runs: Sequence[Usage], name: str) -> float:
    """Median of one figure over runs."""
    return statistics.median(getattr(run, name) for run in runs)


def machine_facts() -> dict[str, Any]:
    """The machine, the load when asked, and the versions of the libraries."""
    return {
        "measured_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "n_cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_1m": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "java": _java(),
        "hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def append(
    record: Record, *, bench: Bench, facts: Mapping[str, Any], folder: Path = RESULTS
) -> Path:
    """Add a record to the results of its question.

    Args:
        record: What was measured.
        bench: How.
        facts: The machine.
        folder: Where the results live, one JSON file (a list) per question and scale.
    """
    folder.mkdir(parents=True, exist_ok=True)
    suffix = "" if bench.scale == "full" else f"_{bench.scale}"
    path = folder / f"{record.question}{suffix}.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    how = {"scale": bench.scale, "n_runs": bench.n_runs, "driver_memory": bench.memory}
    entry = asdict(record) | {"is_met": record.is_met} | how | {"machine": dict(facts)}
    text = json.dumps([*earlier, _rounded(entry)], indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def summary(record: Record) -> str:
    """One line that a person can read."""
    verdict = "met" if record.is_met else "missed"
    line = f"{record.question:<20} ratio {record.ratio:8.3f}  target {record.target:g} {verdict}"
    if record.ours and record.peer_runs:
        line += (
            f"  cpu {median(record.ours, 'cpu_seconds'):.2f} s against"
            f" {median(record.peer_runs, 'cpu_seconds'):.2f} s"
            f"  wall {median(record.ours, 'wall_seconds'):.2f} s against"
            f" {median(record.peer_runs, 'wall_seconds'):.2f} s"
        )
    return line


def _rounded(value: Any) -> Any:
    """Floats to six significant digits, whatever they are nested in."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _java() -> str:
    found = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    return (found.stderr or found.stdout).splitlines()[0].strip()
