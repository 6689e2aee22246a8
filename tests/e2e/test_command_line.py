"""Help and mistakes are answered at once, from any folder, without a JVM."""

from pathlib import Path

import pytest

from tests.e2e.conftest import environment, submit


@pytest.fixture
def without_java(tmp_path: Path) -> dict[str, str]:
    return environment(JAVA_HOME=str(tmp_path / "no-java"), SPARK_HOME=str(tmp_path / "no-spark"))


def test_help_from_any_folder(tmp_path: Path, without_java: dict[str, str]) -> None:
    done = submit("--help", cwd=tmp_path, env=without_java)
    assert done.returncode == 0
    assert "  generate " in done.stdout
    done = submit("generate", "--help", cwd=tmp_path, env=without_java)
    assert done.returncode == 0
    assert "--size N" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generat",), "did you mean 'generate'?"),
        (("generate", "--sise", "5000"), "did you mean --size?"),
        (("generate", "--size", "-5"), "size"),
        (("generate", "--set", "subscribers.nonsense=1"), "nonsense"),
        (("analyze", "--spec", "nowhere.yaml"), "nowhere.yaml"),
        (("pipeline", "--only", "cook"), "only"),
        (("pipeline", "--days", "28"), "days must exceed"),
        (("maintain", "--retain-hours", "1"), "retain_hours"),
        (("maintain", "--tables", "nope"), "no such table"),
    ],
)
def test_mistakes_end_with_2(
    arguments: tuple[str, ...], message: str, without_java: dict[str, str]
) -> None:
    done = submit(*arguments, env=without_java)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_debug_shows_the_traceback(without_java: dict[str, str]) -> None:
    done = submit("generate", "--size", "-5", "--debug", env=without_java)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
