"""The command line validates everything without Spark."""

import datetime as dt
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from causal.core.errors import DataError, SpecError
from jobs.runtime import cli, launch
from jobs.runtime.catalogue import code_version, find_job, job_lines
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.flags import flag_kind
from jobs.runtime.signals import Interrupted


class Options(JobConfig):
    n_units: int = Field(default=10, ge=1, description="how many, 100% of them")
    kind: Literal["a", "b"] = "a"
    starts_on: dt.date | None = None
    names: tuple[str, ...] = ()
    is_dense: bool = True
    nested: dict[str, int] = Field(default_factory=dict)


JOB = CommandJob(name="maintain", config=Options, run=lambda _context, _config: 0)


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_job", lambda _name: JOB)


def options(*arguments: str) -> Any:
    invocation = cli.parse(["maintain", *arguments])
    assert invocation is not None
    return invocation.config


def test_fields_become_flags() -> None:
    config = options(
        "--n-units", "5", "--kind", "b", "--starts-on", "2026-01-05", "--names", "x", "y"
    )
    assert config == Options(n_units=5, kind="b", starts_on=dt.date(2026, 1, 5), names=("x", "y"))
    assert options("--no-is-dense").is_dense is False
    assert options("--n-units=7").n_units == 7


def test_order_of_precedence(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("n_units: 3\nkind: b\n", encoding="utf-8")
    given = ["--set", "jobs.maintain.n_units=2", "--set", "jobs.maintain.names=[z]"]
    assert options(*given) == Options(n_units=2, names=("z",))
    assert options(*given, "--config", str(file)) == Options(n_units=3, kind="b", names=("z",))
    assert options(*given, "--config", str(file), "--n-units", "4").n_units == 4
    assert options("--set", "nested.x=1").nested == {"x": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-unit", "5"], "unknown option, did you mean --n-units?"),
        (["--n-units", "0"], "greater than or equal to 1"),
        (["--n-units", "many"], "n_units"),
        (["--n-units"], "expected one argument"),
        (["--kind", "c"], "'a' or 'b'"),
        (["--starts-on", "2026-13-01"], "starts_on"),
        (["--set", "jobs.maintian.n_units=3"], "unknown job"),
        (["--set", "n_unitz=3"], "did you mean 'n_units'"),
        (["--env", "prod"], "unknown environment"),
        (["extra"], "unknown option"),
        (["--config", "/nowhere.yaml"], "cannot be read"),
    ],
)
def test_mistakes(arguments: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=r"^.") as raised:
        options(*arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_job_comes_first() -> None:
    with pytest.raises(SpecError, match="the job's name comes first"):
        cli.parse(["--env", "local"])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.parse([]) is None
    assert "exit codes:" in capsys.readouterr().out
    assert cli.parse(["maintain", "--help"]) is None
    shown = capsys.readouterr().out
    assert "how many, 100% of them (default: 10)" in shown
    assert "--nested" not in shown


def test_every_job_is_found_and_described() -> None:
    lines = job_lines()
    assert {"generate", "exposure", "analyze", "pipeline", "maintain"} <= set(lines)
    for name, line in lines.items():
        assert line.endswith("."), name
        assert find_job(name).name == name
    with pytest.raises(SpecError, match="did you mean 'generate'"):
        find_job("generat")


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("bad"), 3), (Interrupted(15), 143), (Interrupted(2), 130), (ValueError("x"), 1)],
)
def test_failures_are_one_line(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert cli.guarded(work, is_debug=False) == code
    shown = capsys.readouterr().err
    assert shown.startswith("causalake: ")
    assert shown.count("\n") == 1


def test_what_stands_before_the_job_is_for_spark() -> None:
    split = launch.split_arguments(
        [
            "--conf",
            "a=b",
            "--verbose",
            "--master=local[1]",
            "--env",
            "cluster",
            "generate",
            "--size",
            "5",
        ]
    )
    assert split == (
        ["--conf", "a=b", "--verbose", "--master=local[1]"],
        ["generate", "--size", "5", "--env", "cluster"],
    )
    assert launch.split_arguments(["--help"]) == ([], ["--help"])


def test_types_without_a_flag() -> None:
    assert flag_kind(dict[str, int]) is None
    assert flag_kind(int | str) is None


def test_the_code_has_a_version() -> None:
    assert len(code_version()) == 64
