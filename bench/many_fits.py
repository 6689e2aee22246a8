"""Thousands of synthetic controls: tasks of Spark against the same loop in one process, and a peer.

200 regions of 50 outcomes are compared, each by itself, with 30 that were never treated; each fit
has its 30 placebos. Ours is what the job `fits` does between reading the spec and writing tables,
in a process of its own per number of cores. The loop makes the same fits one after the other, for
some of the outcomes. pysyncon gives the weights of a few fits, without placebos.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pysyncon import Synth

from bench import engine
from bench.harness import Bench, DisagreementError, Question, Record, Usage
from bench.own_process import found_by
from bench.processes import TreeClock
from causal.core import plan
from causal.core.pandas_engine import PandasEngine
from causal.core.spec import validate
from causal.fits.fits_spec import FitsSpec
from causal.fits.fitting import fit_each, tasks
from causal.fits.grid import grid

_N_PERIODS, _FIRST_TREATED = 40, 30
_N_DONORS, _N_FACTORS = 30, 3
_N_PEER = 10


def panel(*, n_regions: int, n_outcomes: int) -> pd.DataFrame:
    """One row per region and period: outcomes that follow random walks, the last regions donors."""
    rng = np.random.default_rng(20261122)
    size = n_regions + _N_DONORS
    loadings = rng.dirichlet(np.ones(_N_FACTORS), size)
    rows: dict[str, Any] = {
        "region": np.repeat([f"r{number:03d}" for number in range(size)], _N_PERIODS),
        "period": np.tile(np.arange(_N_PERIODS), size),
        "start": np.repeat([*[_FIRST_TREATED] * n_regions, *[None] * _N_DONORS], _N_PERIODS),
    }
    for number in range(n_outcomes):
        walks = rng.normal(size=(_N_FACTORS, _N_PERIODS)).cumsum(axis=1)
        paths = 100.0 + 5.0 * loadings @ walks + rng.normal(size=(size, _N_PERIODS))
        rows[f"y{number:02d}"] = paths.ravel()
    return pd.DataFrame(rows).astype({"start": "float64"})


def document(path: Path, *, n_outcomes: int) -> dict[str, Any]:
    """The spec, of the first outcomes."""
    outcomes = [f"y{number:02d}" for number in range(n_outcomes)]
    return {
        "name": "many_fits", "source": {"path": str(path)}, "method": "synthetic_control",
        "options": {"unit": "region", "period": "period", "leave_one_out": False},
        "fits": {"over": {"treated": "start", "outcomes": outcomes}},
    }  # fmt: skip


def on_spark(path: Path, folder: Path, *, n_outcomes: int, n_cores: int) -> dict[str, Any]:
    """The fits of the job, and what they cost; the workers are warm.

    Args:
        path: The panel.
        folder: For the tables.
        n_outcomes: How many outcomes.
        n_cores: Cores of the session.
    """
    from jobs.runtime import analyses, many_fits

    session = engine.start(folder, memory="2g", master=f"local[{n_cores}]")
    context = engine.context(folder, session)

    def made(number: int) -> many_fits.FitsRun:
        file = folder / f"many_fits_{number}.yaml"
        file.write_text(yaml.safe_dump(document(path, n_outcomes=number)), encoding="utf-8")
        item = analyses.load(file, model=FitsSpec)
        return many_fits.run(context, analyses.bind(context, item))

    made(1)
    clock, begun = TreeClock(os.getpid()), time.perf_counter()
    table = made(n_outcomes).result.tables["fits"]
    wall = time.perf_counter() - begun
    cpu = clock()
    session.stop()
    return {"wall": wall, "cpu": cpu, "n_fits": len(table), "estimates": list(table["estimate"])}


def in_a_loop(rows: pd.DataFrame, path: Path, *, n_outcomes: int) -> dict[str, Any]:
    """The same fits in this process, one after the other."""
    begun, cpu = time.perf_counter(), time.process_time()
    spec = validate(FitsSpec, document(path, n_outcomes=n_outcomes))
    found = plan.run(grid(spec), PandasEngine(rows))
    made = [
        item for task in tasks(spec, found) for item in fit_each(spec, task, grid=found, rows=rows)
    ]
    estimates = [item.headline.estimate for item in made if item.headline is not None]
    return {
        "wall": time.perf_counter() - begun, "cpu": time.process_time() - cpu,
        "n_fits": len(made), "estimates": estimates,
    }  # fmt: skip


def with_pysyncon(rows: pd.DataFrame) -> float:
    """Seconds per fit of a few regions' weights alone."""
    paths = rows.pivot(index="period", columns="region", values="y00").iloc[:_FIRST_TREATED]
    donors = paths.iloc[:, -_N_DONORS:]
    begun = time.perf_counter()
    for number in range(_N_PEER):
        own, fit = paths.iloc[:, number], Synth()
        fit.fit(X0=donors, X1=own, Z0=donors, Z1=own, custom_V=np.ones(_FIRST_TREATED))
    return (time.perf_counter() - begun) / _N_PEER


def measure(question: Question, bench: Bench) -> Record:
    """Seconds per fit on Spark over those of the loop."""
    n_regions, n_outcomes = bench.size(200, small=12), bench.size(50, small=2)
    n_compared = bench.size(5, small=2)
    path = bench.data / f"many_fits_{n_regions}_{n_outcomes}.parquet"
    rows = panel(n_regions=n_regions, n_outcomes=n_outcomes)
    rows.to_parquet(path)
    two = _in_own_process(bench, path, n_outcomes=n_outcomes, n_cores=2)
    one = _in_own_process(bench, path, n_outcomes=n_compared, n_cores=1)
    pair = _in_own_process(bench, path, n_outcomes=n_compared, n_cores=2)
    loop = in_a_loop(rows, path, n_outcomes=n_compared)
    if not loop["estimates"] == two["estimates"][: loop["n_fits"]] == one["estimates"]:
        raise DisagreementError("the fits on Spark are not those of the loop")
    each, alone = two["wall"] / two["n_fits"], loop["wall"] / loop["n_fits"]
    return Record(
        question=question.name, work=question.work, peer=question.peer, target=question.target,
        ratio=each / alone, wall_ratio=each / alone,
        ours=(Usage(cpu_seconds=two["cpu"], wall_seconds=two["wall"]),),
        peer_runs=(_scaled(loop, two["n_fits"] / loop["n_fits"]),),
        rows=two["n_fits"],
        notes={
            "ratio_is": "wall seconds per fit, two cores over the loop's one",
            "loop_fits": loop["n_fits"],
            "wall_seconds_per_fit": {"two_cores": each, "loop": alone},
            "one_core_over_two": one["wall"] / pair["wall"],
            "scaling_fits": one["n_fits"],
            "pysyncon_seconds_per_weights": with_pysyncon(rows),
        },
    )  # fmt: skip


def _scaled(found: dict[str, Any], factor: float) -> Usage:
    return Usage(cpu_seconds=factor * found["cpu"], wall_seconds=factor * found["wall"])


def _in_own_process(bench: Bench, path: Path, *, n_outcomes: int, n_cores: int) -> dict[str, Any]:
    found = found_by("bench.many_fits", path, bench.data, n_outcomes, n_cores)
    print(f"  {n_cores} cores: {found['n_fits']} fits in {found['wall']:.1f} s", flush=True)
    return found


QUESTIONS = (
    Question(
        name="many_fits",
        work="10,000 synthetic controls with placebos (50 outcomes x 200 regions) on two cores",
        peer="the same fits in a loop in one process, wall seconds",
        target=0.65,
        measure=measure,
    ),
)

if __name__ == "__main__":
    PANEL, FOLDER, OUTCOMES, CORES = sys.argv[1:]
    FOUND = on_spark(Path(PANEL), Path(FOLDER), n_outcomes=int(OUTCOMES), n_cores=int(CORES))
    print(json.dumps(FOUND))
