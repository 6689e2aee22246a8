"""Jars, Java, zip, locks, logs and the terminal."""

import io
import multiprocessing
import os
import stat
import zipfile
from pathlib import Path

import pytest

from causal.core.errors import CausalError, ConcurrencyError, DataError, SpecError
from jobs.runtime import jars, java, places
from jobs.runtime.locks import held
from jobs.runtime.logs import redacted
from jobs.runtime.progress import Progress
from jobs.runtime.spark_errors import is_conflict, translate
from jobs.runtime.zip_package import ensure_zip


def test_a_jar_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSALAKE_CACHE", str(tmp_path))
    (tmp_path / "jars").mkdir()
    for name in jars.SHA256:
        (tmp_path / "jars" / name).write_bytes(b"something else")
    with pytest.raises(CausalError, match="not the published one"):
        jars.ensure_jars()


def fake_java(folder: Path, version: str) -> Path:
    java_file = folder / "bin" / "java"
    java_file.parent.mkdir(parents=True)
    java_file.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n", encoding="utf-8")
    java_file.chmod(java_file.stat().st_mode | stat.S_IXUSR)
    return folder


def test_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "new", "21.0.2")))
    assert java.find_java_home() == tmp_path / "new"
    assert java.java_version(fake_java(tmp_path / "old", "1.8.0_292") / "bin" / "java") == 8


def test_no_java_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", "11.0.2")))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CAUSALAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # `make java` may have run
    with pytest.raises(CausalError, match=r"needs Java 17 or newer.*make java.*Java 11"):
        java.find_java_home()


def test_the_zip_is_reproducible(tmp_path: Path) -> None:
    first = ensure_zip(places.root(), folder=tmp_path / "a")
    second = ensure_zip(places.root(), folder=tmp_path / "b")
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert {
        "jobs/run.py",
        "transforms/schema.py",
        "causal/core/errors.py",
        "conf/base.yaml",
    } <= set(names)
    assert not [name for name in names if "__pycache__" in name]


def hold(path: Path, started: str) -> None:
    with held(path, timeout=5, purpose="test"):
        Path(started).touch()
        os.read(os.open(started + ".fifo", os.O_RDONLY), 1)


def test_a_lock_says_who_holds_it_and_dies_with_its_holder(tmp_path: Path) -> None:
    started = str(tmp_path / "started")
    os.mkfifo(started + ".fifo")
    process = multiprocessing.get_context("spawn").Process(
        target=hold, args=(tmp_path / "l", started)
    )
    process.start()
    while not Path(started).exists():
        process.join(0.05)
    waiting = held(tmp_path / "l", timeout=0.2, purpose="other")
    with pytest.raises(ConcurrencyError, match=f'"pid": {process.pid}'), waiting:
        pass
    process.kill()
    process.join()
    with held(tmp_path / "l", timeout=5, purpose="other"):
        pass


def test_secrets_are_blotted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "abcdef123")
    text = redacted("abcdef123 https://me:pw@host db.password=hunter2 plain=1")
    assert text == "*** https://me:***@host db.password=*** plain=1"


def test_a_table_is_aligned() -> None:
    stream = io.StringIO()
    Progress(stream=stream).table("T", ("name", "n"), [("a", 1), ("long", 12.345678), ("c", None)])
    assert stream.getvalue().splitlines() == [
        *("", "T", "name       n", "----  ------", "a          1", "long  12.346", "c          -"),
    ]


def test_a_step_says_how_it_ended() -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream)
    with pytest.raises(ValueError, match="x"), progress.step("work"):
        raise ValueError("x")
    assert "work: failed in" in stream.getvalue()


def test_a_log_hears_of_long_work_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("jobs.runtime.progress.time.monotonic", lambda: now)
    stream, quiet = io.StringIO(), io.StringIO()
    told = [Progress(stream=stream), Progress(stream=quiet, is_quiet=True)]
    for done in range(1, 2001):
        now += 0.125
        for progress in told:
            progress.bar(done=done, total=2000, label="fits")

    found = [line.split(" s  ") for line in stream.getvalue().splitlines()]
    assert [text for _, text in found] == [f"{n:,} of 2,000 fits" for n in (480, 960, 1440, 1920)]
    assert [float(seconds) for seconds, _ in found] == [60.0, 120.0, 180.0, 240.0]
    assert not quiet.getvalue()


NULL_FOUND = """An error occurred while calling o1.overwrite.
: o.DeltaInvariantViolationException: [DELTA_NOT_NULL_CONSTRAINT_VIOLATED] NOT NULL constraint \
violated for column: g.

	at org.apache.spark"""
CHECK_FAILED = """[DELTA_VIOLATE_CONSTRAINT_WITH_VALUES] CHECK constraint pos \
coalesce((x >= 0), true) violated by row with values:
 - x : -1.0
	at org.apache.spark"""
NO_COLUMN = """[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column, variable, or function parameter with \
name `a` cannot be resolved. Did you mean one of the following? [`b`, `c`]. SQLSTATE: 42703"""


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        (NULL_FOUND, DataError, "t: g: the column may not be null"),
        (CHECK_FAILED, DataError, "constraint pos is violated; given: x : -1.0; allowed: x >= 0"),
        (NO_COLUMN, SpecError, "no such column; given: a; allowed: b, c"),
        (
            "[PATH_NOT_FOUND] Path does not exist: file:/x. SQLSTATE: 42K03",
            SpecError,
            "nothing to read",
        ),
        (
            "[REQUIRES_SINGLE_PART_NAMESPACE] got identifier `a`.`b`.`c`. SQLSTATE: 42K05",
            SpecError,
            "no such catalog or schema; given: `a`.`b`.`c`",
        ),
        ("[DELTA_CONCURRENT_APPEND] Files were added", ConcurrencyError, "another process changed"),
        ("java.io.IOException: No space left on device", CausalError, "No space left on device"),
    ],
)
def test_spark_errors_are_one_line(text: str, kind: type[CausalError], shown: str) -> None:
    error = translate(RuntimeError(text), table="t")
    assert type(error) is kind
    assert shown in str(error)
    assert "\n" not in str(error)
    assert is_conflict(RuntimeError(text)) == (kind is ConcurrencyError)
