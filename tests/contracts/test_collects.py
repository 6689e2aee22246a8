"""Rows leave Spark through one function only."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLLECTS = re.compile(r"\.(toPandas|toArrow|toLocalIterator|collect|take|tail|first|head)\(")
SESSION = re.compile(r"\.(rdd|sparkContext|_jvm|_jdf|_sc)\b|\brand\(|\brandn\(")
MODULES = sorted((ROOT / "transforms").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=[path.stem for path in MODULES])
def test_transforms_collect_through_the_guard(path: Path) -> None:
    if path.name != "bounded.py":
        assert not COLLECTS.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=[path.stem for path in MODULES])
def test_transforms_run_under_spark_connect(path: Path) -> None:
    assert not SESSION.search(path.read_text(encoding="utf-8"))


def test_nothing_else_calls_to_pandas() -> None:
    modules = [path for name in ("jobs", "causal") for path in (ROOT / name).rglob("*.py")]

    assert not [str(path) for path in modules if ".toPandas(" in path.read_text(encoding="utf-8")]
