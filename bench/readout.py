"""A readout from stored aggregates while the number of users grows: it should not grow with them.

Each size runs in a process of its own: 28 days of activity become one row per user, the job `gram`
stores what the analysis asks of these, and the analysis is then read from the frame tables alone,
several times, as `analyze` does it. The engine of the readout has no rows to turn to.
"""

import json
import shutil
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

from bench import engine
from bench.harness import Bench, Question, Record
from bench.own_process import LIMIT_MIB, found_by, peaks, usage_of, used

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from causal.core.result import Result

N_DAYS = 28
_FIRST_DAY = 14
_N_TIERS = 5
_FLAT = 1.25
_N_WARM = 3
_LEVEL = 0.03
"""The effect that every user of the treatment has on minutes, as a share."""


def users(session: "SparkSession", *, n_users: int) -> "DataFrame":
    """One row per user from 28 days of each: sums before the experiment and in it."""
    from pyspark.sql import functions as F

    days = session.range(n_users).select(
        F.col("id").alias("user_id"),
        F.explode(F.sequence(F.lit(0), F.lit(N_DAYS - 1))).alias("day"),
    )
    taste = F.pmod(F.xxhash64("user_id"), F.lit(60))
    drawn = F.pmod(F.xxhash64("user_id", "day"), F.lit(100))
    is_treated, is_in = F.col("user_id") % 2 == 1, F.col("day") >= _FIRST_DAY
    lift = F.when(is_treated & is_in, 1 + _LEVEL).otherwise(1.0)
    active = days.withColumn("minutes", F.when(drawn < 70, (taste + drawn) * lift).otherwise(0.0))
    sums = [
        F.sum(F.when(when, F.col("minutes")).otherwise(0.0)).alias(name)
        for name, when in (("minutes", is_in), ("pre_minutes", ~is_in))
    ]
    sums += [F.count_if(is_in & (F.col("minutes") > 0)).alias("active_days")]
    return (
        active.groupBy("user_id")
        .agg(*sums)
        .withColumn("variant", F.when(is_treated, "treatment").otherwise("control"))
        .withColumn("tier", F.pmod(F.xxhash64("user_id", F.lit(1)), F.lit(_N_TIERS)))
    )


def document(path: Path) -> dict[str, Any]:
    """The analysis: a mean with CUPED, a mean without, a ratio, and the effects by tier."""
    return {
        "name": path.name,
        "source": {"path": str(path), "format": "parquet"},
        "method": "ab",
        "options": {
            "unit": "user_id",
            "variant": "variant",
            "control": "control",
            "metrics": [
                {"name": "minutes", "type": "mean", "column": "minutes",
                 "covariates": ["pre_minutes"]},
                {"name": "active_days", "type": "count", "column": "active_days"},
                {"name": "minutes_per_day", "type": "ratio", "numerator": "minutes",
                 "denominator": "active_days"},
            ],
            "segments": ["tier"],
        },
    }  # fmt: skip


def read(folder: Path, *, memory: str, n_users: int, n_runs: int) -> dict[str, Any]:
    """Store the aggregates of so many users and read the experiment from them.

    Args:
        folder: For the rows and the tables.
        memory: Driver memory of Spark.
        n_users: Users.
        n_runs: Measured readouts.
    """
    from dataclasses import replace

    from causal.core.stored_gram import StoredGramEngine
    from jobs import analyze, gram
    from jobs.runtime import analyses

    session = engine.start(folder, memory=memory)
    tables, path = folder / "readout_tables", folder / f"readout_{n_users}"
    shutil.rmtree(tables, ignore_errors=True)  # aggregates that are current would not be made again
    context = engine.context(tables, session)
    if not path.exists():
        users(session, n_users=n_users).write.parquet(str(path))
    file = folder / f"{path.name}.yaml"
    file.write_text(yaml.safe_dump(document(path)), encoding="utf-8")
    stored = used(lambda: gram.run(context, gram.GramConfig(specs=(file,))))
    item = analyses.load(file)
    bound = analyses.bind(context, item)

    def readout() -> "Result":
        frames = analyses.StoredFrames(context, [item.spec.name])
        alone = StoredGramEngine(frames.of(item.spec.name, bound.identity))
        return analyze.estimated(context, replace(bound, engine=alone))

    for _ in range(_N_WARM):
        found = readout()
    runs = [used(readout) for _ in range(n_runs)]
    held = peaks()
    session.stop()
    return {
        "estimates": {f"{e.metric} {e.scale}": e.estimate for e in found.effects[:2]},
        "aggregation": stored, "readouts": runs, **held,
    }  # fmt: skip


def measure(question: Question, bench: Bench) -> Record:
    """Seconds and memory of the largest size over those of the smallest, whichever is worse."""
    sizes = (100_000, 1_000_000, 10_000_000) if bench.scale == "full" else (1_000, 2_000)
    n_runs = max(bench.n_runs, 5)
    found = {n: found_by("bench.readout", bench.data, bench.memory, n, n_runs) for n in sizes}
    cpu = [median(run["cpu_seconds"] for run in found[n]["readouts"]) for n in sizes]
    wall = [median(run["wall_seconds"] for run in found[n]["readouts"]) for n in sizes]
    python = [found[n]["python_mib"] for n in sizes]
    return Record(
        question=question.name, work=question.work, peer=question.peer, target=question.target,
        ratio=max(max(cpu) / cpu[0], max(python) / python[0]),
        wall_ratio=max(wall) / wall[0],
        ours=tuple(map(usage_of, found[sizes[-1]]["readouts"])),
        peer_runs=tuple(map(usage_of, found[sizes[0]]["readouts"])),
        rows=sizes[-1] * N_DAYS,
        notes={
            "ratio_is": "the larger of those of CPU seconds and of the driver's memory",
            "users": {str(n): item for n, item in found.items()},
            "is_below_2_gb": max(python) < LIMIT_MIB,
        },
    )  # fmt: skip


QUESTIONS = (
    Question(
        name="readout",
        work="readout from stored aggregates of 1e5, 1e6, 1e7 users x 28 days",
        peer="itself at 1e5 users",
        target=_FLAT,
        measure=measure,
    ),
)

if __name__ == "__main__":
    FOLDER, MEMORY, USERS, RUNS = sys.argv[1:]
    FOUND = read(Path(FOLDER), memory=MEMORY, n_users=int(USERS), n_runs=int(RUNS))
    print(json.dumps(FOUND))
