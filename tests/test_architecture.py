"""Rules of the house that no linter knows: who may touch the outside world, and how."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.runtime import places

ROOT = places.root()
MODULES = sorted(
    path for package in ("jobs", "transforms", "causal") for path in (ROOT / package).rglob("*.py")
)
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def attributes(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def users(*wanted: str) -> set[str]:
    return {name(path) for path in MODULES if set(wanted).intersection(attributes(path))}


def test_one_module_writes_tables() -> None:
    assert users("writeTo", "saveAsTable", "insertInto", "writeStream") == {
        "jobs/runtime/lakehouse.py"
    }


def test_one_module_builds_the_session() -> None:
    assert users("getOrCreate", "getActiveSession") == {"jobs/runtime/session.py"}


def test_one_module_opens_mlflow() -> None:
    assert {name(path) for path in MODULES if "mlflow" in imports(path)} == {
        "jobs/runtime/tracking.py"
    }


@pytest.mark.parametrize("attribute", ["sparkContext", "rdd", "_jvm", "_jsc", "_jdf"])
def test_nothing_that_spark_connect_lacks(attribute: str) -> None:
    assert users(attribute) == set()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_random_columns(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "F.rand(" not in text
    assert "F.randn(" not in text
    assert "F.uuid(" not in text


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_names_say_what_is_inside(path: Path) -> None:
    assert path.stem not in VAGUE
    assert path.stem not in sys.stdlib_module_names, "spark-submit puts jobs/ first on the path"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_settings_of_spark_are_the_same_in_kind() -> None:
    for path in (ROOT / "conf" / "spark").glob("*.conf"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        assert all(line.startswith(("#", "spark.")) for line in lines), path
