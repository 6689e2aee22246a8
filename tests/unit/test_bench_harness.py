"""The harness of the benchmarks: what is counted, compared and recorded. No timing is asserted."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import data
from bench.harness import (
    Bench,
    Question,
    Sides,
    Usage,
    append,
    compare,
    is_steady,
    median,
    summary,
    usage,
)
from bench.own_process import peaks, usage_of, used
from bench.processes import (
    Spent,
    TreeClock,
    descendants,
    own_cpu_seconds,
    peak_resident_bytes,
    seconds_between,
    tree_cpu_seconds,
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    def no_session() -> None:
        raise AssertionError("this test needs no Spark")

    return Bench(data=tmp_path, scale="small", n_runs=3, session=no_session, memory="1g")


def question(sides: Sides, n_warm: int | None = 2) -> Question:
    return Question(
        name="sums", work="a sum", peer="another sum", target=2.0,
        measure=compare(lambda _: sides, n_warm=n_warm),
    )  # fmt: skip


def equal(ours: object, peer: object) -> None:
    np.testing.assert_equal(ours, peer)


def test_sides_warm_up_then_alternate(bench: Bench) -> None:
    calls = []
    sides = Sides(
        ours=lambda: calls.append("ours"),
        peer=lambda: calls.append("peer"),
        check=equal,
        rows=10,
    )
    asked = question(sides)
    record = asked.measure(asked, bench)
    assert calls == ["ours", "peer"] * (2 + bench.n_runs)
    assert len(record.ours) == len(record.peer_runs) == bench.n_runs
    assert record.rows == 10


def test_runs_count_once_ours_gets_no_cheaper(bench: Bench) -> None:
    counter = itertools.count()
    cost = [*[0.2] * 5, *[0.1] * 5, *[0.05] * 5, *[0.01] * 20]

    def ours() -> None:
        until = time.process_time() + cost[next(counter)]
        while time.process_time() < until:
            pass

    asked = question(Sides(ours=ours, peer=lambda: None, check=equal, rows=1), n_warm=None)
    record = asked.measure(asked, bench)
    # A hundredth is what the clock tells, so the last ones may seem to differ.
    assert record.notes["warm_runs"] in {25, 30}
    assert record.notes["warm_runs_cpu_seconds"][1] == pytest.approx(0.2, abs=0.08)
    assert max(run.cpu_seconds for run in record.ours) < 0.05


@pytest.mark.parametrize(
    ("costs", "steady"),
    [
        ([3.0] * 9, False),
        ([3.0] * 10, True),
        ([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 4.0, 4.0, 4.0, 9.0], False),
        ([9.0, 9.0, 1.0, 1.0, 1.0, 0.96, 0.96, 0.96, 0.1, 0.1], True),
        ([0.1] * 5 + [9.0] * 5 + [8.0] * 5, False),
    ],
)
def test_runs_are_steady_when_five_cost_what_five_before_cost(
    costs: list[float], *, steady: bool
) -> None:
    runs = [Usage(cpu_seconds=cost, wall_seconds=0.0) for cost in costs]
    assert is_steady(runs) is steady


def test_sides_that_differ_are_not_compared(bench: Bench) -> None:
    asked = question(Sides(ours=lambda: 1, peer=lambda: 2, check=equal, rows=1))
    with pytest.raises(AssertionError, match="not equal"):
        asked.measure(asked, bench)


def test_the_ratio_is_of_median_cpu_seconds() -> None:
    runs = [Usage(cpu_seconds=c, wall_seconds=w) for c, w in ((3.0, 1.0), (1.0, 9.0), (2.0, 5.0))]
    assert median(runs, "cpu_seconds") == 2.0
    assert median(runs, "wall_seconds") == 5.0


def test_records_are_appended_with_machine_facts(bench: Bench, tmp_path: Path) -> None:
    asked = question(Sides(ours=lambda: 1, peer=lambda: 1, check=equal, rows=1, notes={"terms": 6}))
    record = asked.measure(asked, bench)
    folder = tmp_path / "results"
    facts = {"n_cores": 2}
    append(record, bench=bench, facts=facts, folder=folder)
    path = append(record, bench=bench, facts=facts, folder=folder)
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert [entry["question"] for entry in entries] == ["sums", "sums"]
    assert entries[0]["machine"] == facts
    notes = entries[0]["notes"]
    assert (notes["terms"], notes["warm_runs"]) == (6, 2)
    assert len(notes["warm_runs_cpu_seconds"]) == 2
    assert entries[0]["scale"] == "small"
    assert path.name == "sums_small.json"
    assert "sums" in summary(record)


def test_a_process_that_works_is_counted_with_its_children() -> None:
    code = "sum(range(10**9))"
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert child.pid in descendants(os.getpid())
        assert os.getpid() not in descendants(os.getpid())
        assert peak_resident_bytes(child.pid) > 0
        assert tree_cpu_seconds(os.getpid()) >= tree_cpu_seconds(child.pid)
    finally:
        child.kill()
        child.wait()


def test_usage_counts_this_process() -> None:
    found = usage(lambda: sum(range(10**6)), cpu=own_cpu_seconds)
    assert found.cpu_seconds > 0
    assert found.wall_seconds > 0


ENDS = """
import os, signal, sys, time
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
child = os.fork()
if not child:
    while time.process_time() < 0.6:
        pass
    time.sleep(60)
while input():
    os.kill(child, 9)
    if sys.argv[1] == "waited":
        os.waitpid(child, 0)
    done = time.process_time() + 0.2
    while time.process_time() < done:
        pass
    print("killed", flush=True)
"""


@pytest.mark.parametrize("how", ["waited", "ignored"])
def test_what_was_counted_stays_counted_when_a_process_ends(how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDS, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin
        assert parent.stdout
        while tree_cpu_seconds(parent.pid) < 0.5:
            time.sleep(0.02)
        clock = TreeClock(parent.pid)
        time.sleep(0.1)
        before = clock()
        parent.stdin.write("kill\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "killed\n"
        spent = clock() - before
        parent.kill()
    assert 0.15 <= spent <= 0.35


def test_seconds_of_a_process_that_ended_are_not_taken_off() -> None:
    def look(**found: tuple[float, float]) -> dict[tuple[int, int], Spent]:
        at = {"root": (1, 0), "child": (2, 3), "other": (2, 9)}
        return {at[name]: Spent(own=o, waited_for=w) for name, (o, w) in found.items()}

    before = look(root=(5.0, 1.0), child=(9.0, 0.5))
    assert seconds_between(before, look(root=(6.0, 1.0), child=(9.5, 0.5))) == 1.5
    # The child ended, unnoticed or waited for; another one got its process id.
    assert seconds_between(before, look(root=(6.0, 1.0), other=(2.0, 0.0))) == 3.0
    assert seconds_between(before, look(root=(6.0, 11.0))) == 1.5


def test_unit_days_are_contiguous_and_complete(tmp_path: Path) -> None:
    path = data.unit_days(tmp_path, n_units=40)
    rows = pd.concat(pd.read_parquet(part) for part in sorted(path.glob("*.parquet")))
    assert rows["unit_id"].is_monotonic_increasing
    assert len(rows) == 40 * data.N_DAYS
    assert not rows.duplicated(["unit_id", "day"]).any()


def test_data_are_written_once(tmp_path: Path) -> None:
    path = data.panel(tmp_path, n_units=16)
    written = {part: part.stat().st_mtime_ns for part in path.glob("*.parquet")}
    assert data.panel(tmp_path, n_units=16) == path
    assert {part: part.stat().st_mtime_ns for part in path.glob("*.parquet")} == written


def test_the_panel_has_both_kinds_of_units(tmp_path: Path) -> None:
    rows = pd.read_parquet(data.panel(tmp_path, n_units=64))
    assert rows["first_treated_period"].isna().any()
    started = rows["period"] >= rows["first_treated_period"]
    assert (rows["d"] == started).all()


def test_weeks_and_confounded_rows_hold_their_effects(tmp_path: Path) -> None:
    rows = pd.read_parquet(data.weeks(tmp_path, n_units=2000))
    assert len(rows) == 2000 * data.N_WEEKS
    since = rows["week"] - rows["first_treated_week"]
    means = rows["y"].groupby(np.sign(since + 0.5)).mean()
    assert means[1.0] - means[-1.0] > 0.5
    assert rows["first_treated_week"].isna().any()

    rows = pd.read_parquet(data.confounded(tmp_path, n_rows=4000))
    design = np.column_stack([np.ones(4000), rows["d"], rows[[f"x{i}" for i in range(20)]]])
    solved = np.linalg.lstsq(design, rows["y"], rcond=None)[0]
    assert solved[1] == pytest.approx(1.0, abs=0.3)


def test_a_side_of_its_own_says_what_it_took() -> None:
    held = list(range(10**6))
    found = used(lambda: sum(held)) | peaks()
    assert usage_of(found).cpu_seconds > 0
    assert found["python_mib"] > 10
