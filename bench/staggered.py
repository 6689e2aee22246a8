"""Group-time effects of ten million units, and the same of some of them by three peers.

Each side runs in a process of its own. Ours reads Parquet files; pyfixest's frame is in memory. Its
saturated event study (cohort times event time, unit and period effects) has the effects of
Callaway and Sant'Anna with never-treated comparisons and a universal base as its coefficients.
moderndid (on Spark, from the same files) and csdid (a frame in memory) estimate the same effects.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import data, engine
from bench.harness import Bench, DisagreementError, Question, Record
from bench.own_process import LIMIT_MIB, found_by, peaks, usage_of, used

_ESTIMATES, _ERRORS = 1e-7, 1e-3
"""Relative agreement: estimates are the same, pyfixest's errors have a small-sample factor."""
_ASKED = {"yname": "y", "tname": "week", "idname": "unit_id", "gname": "first_treated_week"}
_TERM = r"rel_time::(?P<since>-?[\d.]+):first_treated_period::(?P<cohort>\d+)"

SPEC = {
    "name": "bench_staggered",
    "source": {"table": "weeks"},
    "method": "staggered",
    "options": {
        "unit": "unit_id",
        "period": "week",
        "outcome": "y",
        "first_treated_period": "first_treated_week",
        "base_period": "universal",
    },
}


def on_spark(folder: Path, *, memory: str, n_units: int) -> dict[str, Any]:
    """All effects from the files, in a session that has done nothing before."""
    from causal.core.plan import run
    from causal.core.spec import validate
    from causal.quasi import staggered
    from transforms.gram import SparkEngine

    path = data.weeks(folder, n_units=n_units)
    session = engine.start(folder, memory=memory)
    spec = validate(staggered.SPEC, SPEC)
    found: dict[str, pd.DataFrame] = {}

    def work() -> None:
        rows = SparkEngine(session.read.parquet(str(path)))
        found.update(run(staggered.estimate(spec), rows).tables)

    cost = used(work)
    cells = found["group_time"].rename(columns={"first_treated_period": "cohort"})
    cells = cells[cells["period"] != cells["cohort"] - 1]  # the reference is 0 by definition
    out = cost | peaks() | _cells(cells)
    session.stop()
    return out


def with_pyfixest(folder: Path, *, n_units: int) -> dict[str, Any]:
    """Effects by cohort and event time from a frame in memory."""
    import pyfixest

    rows = pd.read_parquet(data.weeks(folder, n_units=n_units))
    rows["cohort"] = rows.pop("first_treated_week").fillna(0).astype("int64")
    fits: list[Any] = []

    def work() -> None:
        fits.append(
            pyfixest.event_study(
                rows, yname="y", idname="unit_id", tname="week", gname="cohort",
                estimator="saturated", cluster="unit_id",
            )
        )  # fmt: skip

    cost = used(work)
    table = fits[0].tidy().reset_index()
    terms = table["Coefficient"].str.extract(_TERM).astype("float64")
    cells = pd.DataFrame(
        {
            "cohort": terms["cohort"],
            "period": terms["cohort"] + terms["since"],
            "estimate": table["Estimate"],
            "std_error": table["Std. Error"],
        }
    )
    return cost | peaks() | _cells(cells)


def with_moderndid(folder: Path, *, memory: str, n_units: int) -> dict[str, Any]:
    """The effects on Spark, from the files; never treated is its 0."""
    import moderndid

    session = engine.start(folder, memory=memory)
    rows = session.read.parquet(str(data.weeks(folder, n_units=n_units)))
    rows = rows.fillna({"first_treated_week": 0.0})
    fits: list[Any] = []

    def work() -> None:
        fits.append(moderndid.att_gt(rows, **_ASKED, base_period="universal"))

    cost = used(work)
    found = fits[0]
    cells = pd.DataFrame(
        {
            "cohort": np.ravel(found.groups),
            "period": np.ravel(found.times),
            "estimate": np.ravel(found.att_gt),
            "std_error": np.ravel(found.se_gt),
        }
    )
    out = cost | peaks() | _cells(cells[cells["period"] != cells["cohort"] - 1])
    session.stop()
    return out


def with_csdid(folder: Path, *, n_units: int) -> dict[str, Any]:
    """The effects from a frame in memory, analytic errors."""
    from csdid.att_gt import ATTgt

    rows = pd.read_parquet(data.weeks(folder, n_units=n_units)).fillna({"first_treated_week": 0.0})
    fits: list[Any] = []

    def work() -> None:
        asked = ATTgt(data=rows, control_group=["nevertreated"], xformla="y~1", **_ASKED)
        fits.append(asked.fit(base_period="universal", bstrap=False))

    cost = used(work)
    found = fits[0].results
    cells = pd.DataFrame(
        {
            "cohort": np.ravel(found["group"]),
            "period": np.ravel(found["year"]),
            "estimate": np.ravel(found["att"]),
            "std_error": np.ravel(found["se"]),
        }
    )
    return cost | peaks() | _cells(cells[cells["period"] != cells["cohort"] - 1])


def _cells(cells: pd.DataFrame) -> dict[str, list[float]]:
    ordered = cells.sort_values(["cohort", "period"])
    names = ("cohort", "period", "estimate", "std_error")
    return {name: [float(value) for value in ordered[name]] for name in names}


def measure(question: Question, bench: Bench) -> Record:
    """CPU seconds of both on the units that pyfixest survives; ours on all of them beside."""
    n_all, n_some = bench.size(10_000_000, small=4_000), bench.size(100_000, small=2_000)
    for n_units in (n_all, n_some):
        data.weeks(bench.data, n_units=n_units)  # here: writing counts for nobody's memory
    whole = found_by("bench.staggered", "ours", bench.data, bench.memory, n_all)
    some, *peers = (
        found_by("bench.staggered", side, bench.data, bench.memory, n_some)
        for side in ("ours", *_PEERS)
    )
    for peer in peers:
        check(some, peer)
    peer = peers[0]
    return Record(
        question=question.name, work=question.work, peer=question.peer, target=question.target,
        ratio=some["cpu_seconds"] / peer["cpu_seconds"],
        wall_ratio=some["wall_seconds"] / peer["wall_seconds"],
        ours=(usage_of(some),), peer_runs=(usage_of(peer),), rows=n_some * data.N_WEEKS,
        notes={
            "ratio_is": "of one run each, ours with a cold engine, on the units of the peer",
            "units": n_all, "units_of_the_peer": n_some, "weeks": data.N_WEEKS,
            "all_units": {name: whole[name] for name in _COSTS},
            "peer_units": {name: some[name] for name in _COSTS},
            "peers": {
                side: {name: found[name] for name in _COSTS}
                for side, found in zip(_PEERS, peers, strict=True)
            },
            "is_below_2_gb": whole["python_mib"] < LIMIT_MIB,
            "effects": len(whole["estimate"]),
        },
    )  # fmt: skip


_PEERS = ("pyfixest", "moderndid", "csdid")
_COSTS = ("cpu_seconds", "wall_seconds", "python_mib", "jvm_mib")


def check(ours: dict[str, Any], peer: dict[str, Any]) -> None:
    """The same cells, effects and clustered errors."""
    for name, tolerance in (
        ("cohort", 0.0), ("period", 0.0), ("estimate", _ESTIMATES), ("std_error", _ERRORS),
    ):  # fmt: skip
        if len(ours[name]) != len(peer[name]):
            raise DisagreementError(f"{len(ours[name])} effects against {len(peer[name])}")
        np.testing.assert_allclose(ours[name], peer[name], rtol=tolerance, atol=tolerance / 10)


QUESTIONS = (
    Question(
        name="staggered",
        work="ATT(g, t) of 100,000 units x 26 weeks (10 M units in the notes)",
        peer="pyfixest's saturated event study, data in memory",
        target=1.0,
        measure=measure,
    ),
)

if __name__ == "__main__":
    SIDE, FOLDER, MEMORY, UNITS = sys.argv[1:]
    if SIDE == "ours":
        FOUND = on_spark(Path(FOLDER), memory=MEMORY, n_units=int(UNITS))
    elif SIDE == "moderndid":
        FOUND = with_moderndid(Path(FOLDER), memory=MEMORY, n_units=int(UNITS))
    else:
        FOUND = {"pyfixest": with_pyfixest, "csdid": with_csdid}[SIDE](
            Path(FOLDER), n_units=int(UNITS)
        )
    print(json.dumps(FOUND))
