"""Memory of the driver while the number of units grows: it should not grow with them.

Each size runs in a process of its own, which asks for CUPED statistics by variant and stratum and
for the paths of a panel. Told apart: the driver's Python (peak resident set), and the JVM, whose
heap is the engine's (in local mode driver and executors share it).
"""

import json
import sys
from pathlib import Path

from bench import data, engine
from bench.harness import Bench, Question, Record
from bench.own_process import LIMIT_MIB, found_by, peaks

N_PERIODS = 4
FLAT = 1.15


def measure(question: Question, bench: Bench) -> Record:
    """The largest size's memory over the smallest's, both of the driver's Python."""
    sizes = (100_000, 1_000_000, 10_000_000) if bench.scale == "full" else (500, 1_000, 2_000)
    held = {n: found_by("bench.memory", bench.data, bench.memory, n) for n in sizes}
    python = [held[n_units]["python_mib"] for n_units in sizes]
    return Record(
        question=question.name,
        work=question.work,
        peer=question.peer,
        target=question.target,
        ratio=max(python) / python[0],
        wall_ratio=None,
        ours=(),
        peer_runs=(),
        rows=sizes[-1],
        notes={
            "units": {str(n_units): found for n_units, found in held.items()},
            "is_below_2_gb": max(python) < LIMIT_MIB,
        },
    )


def peaks_of(folder: Path, *, memory: str, n_units: int) -> dict[str, int]:
    """Run the requests and say how much memory it took, in MiB."""
    from pyspark.sql import functions as F

    from bench.cuped import STATISTICS
    from causal.core.frames import Column, PanelGramRequest
    from transforms.gram import SparkEngine

    session = engine.start(folder, memory=memory)
    days = session.range(n_units).select(
        F.col("id").alias("unit_id"),
        F.when(F.col("id") % 2 == 1, "treatment").otherwise("control").alias("variant"),
        (F.xxhash64("id") % data.N_STRATA).alias("stratum"),
        F.explode(F.sequence(F.lit(0), F.lit(N_PERIODS - 1))).alias("period"),
    )
    drawn = F.pmod(F.xxhash64("unit_id", "period"), F.lit(100))
    days = days.withColumn("y", F.col("period") + drawn)
    is_before = F.col("period") < N_PERIODS // 2
    units = days.groupBy("unit_id", "variant", "stratum").agg(
        F.sum(F.when(~is_before, F.col("y"))).alias("minutes"),
        F.sum(F.when(is_before, F.col("y"))).alias("pre_minutes"),
        F.max("y").alias("revenue"),
        F.min("y").alias("pre_revenue"),
    )
    SparkEngine(units)(STATISTICS)
    SparkEngine(days)(PanelGramRequest(unit="unit_id", period="period", outcome=Column("y")))
    found = peaks()
    session.stop()
    return found


QUESTIONS = (
    Question(
        name="driver_memory",
        work="driver memory at 1e5, 1e6, 1e7 units",
        peer="itself at 1e5 units",
        target=FLAT,
        measure=measure,
    ),
)

if __name__ == "__main__":
    FOLDER, MEMORY, UNITS = sys.argv[1:]
    print(json.dumps(peaks_of(Path(FOLDER), memory=MEMORY, n_units=int(UNITS))))
