"""The job that runs the studies: its options, its processes, its files and its exit code."""

import json
import operator
from pathlib import Path

import pandas as pd
import pytest

from causal.core.errors import HealthError, SpecError
from causal.validation import rates
from causal.validation.rates import Range, Subject
from causal.validation.replication import Findings, Size, Workers
from jobs import validate
from jobs.runtime.context import Context
from jobs.runtime.processes import Processes
from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings
from jobs.validate import ValidateConfig


def test_processes_answer_in_order_and_say_how_far_they_are() -> None:
    seen: list[tuple[int, int]] = []
    with Processes(2, on_done=lambda done, total: seen.append((done, total))) as workers:
        assert list(workers(operator.neg, range(5))) == [0, -1, -2, -3, -4]
    assert seen == [(at, 5) for at in range(1, 6)]


def test_a_failure_of_a_piece_ends_the_processes() -> None:
    with (
        pytest.raises(ValueError, match="invalid literal"),
        Processes(1, on_done=lambda _done, _total: None) as workers,
    ):
        list(workers(int, ["1", "two", "3"]))


def rate(count: int) -> rates.Rate:
    subject = Subject(
        study="sample_ratio", metric_type="sample_ratio", estimator="chi-square",
        scenario="50:50", seed=1,
    )  # fmt: skip
    happened = [number < count for number in range(1000)]
    promised = Range(lower=0.0, upper=0.003)
    return rates.share(subject, rates.REJECTION, happened, promised=promised)


@pytest.mark.parametrize(("count", "code"), [(1, 0), (4, 0), (40, HealthError.exit_code)])
def test_a_broken_promise_is_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, count: int, code: int
) -> None:
    def study(size: Size, workers: Workers) -> Findings:
        del size, workers
        return Findings(rates=rates.frame([rate(count)]))

    monkeypatch.setattr(validate, "STUDIES", {"sample_ratio": study})
    settings = Settings(env="local", warehouse=str(tmp_path / "warehouse"))
    config = ValidateConfig(output=tmp_path / "page.md", quick=True)
    context = Context(settings=settings, progress=Progress(is_quiet=True))

    assert validate.run(context, config) == code
    data = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))
    assert data["rates"][0]["estimate"] == count / 1000
    assert data["replications"] == 200
    assert (tmp_path / "page.md").read_text(encoding="utf-8").startswith("# Validation\n")


def test_quick_is_small_and_the_command_makes_the_page_again() -> None:
    full, quick = ValidateConfig(), ValidateConfig(quick=True, studies=("estimators",))
    plain = ValidateConfig(replications=1000, confirmation=0)

    assert full.size == Size(replications=2000, confirmation=5, seed=20261123)
    assert quick.size == Size(replications=200, confirmation=0, seed=20261123)
    assert full.names[-1] == "estimators"
    assert quick.names == ("estimators",)
    assert plain.size == Size(replications=1000, confirmation=0, seed=20261123)
    assert plain.command == (
        "./spark-submit.sh validate --replications 1000 --confirmation 0 --seed 20261123"
    )
    assert full.command == "./spark-submit.sh validate --seed 20261123"
    assert quick.command == (
        "./spark-submit.sh validate --studies estimators --quick --seed 20261123"
    )


def test_a_page_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "taken" / "page.json").mkdir(parents=True)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "images").touch()
    refused = {
        "page.txt": "the page is Markdown",
        "file/page.md": r"this is a file, not a folder; given: .*/file$",
        "pictures/page.md": r"this is a file, not a folder; given: .*/pictures/images$",
        "taken/page.md": r"this is a folder, not a file; given: .*/taken/page\.json$",
    }
    validate.check(ValidateConfig(output=tmp_path / "new" / "page.md"))
    for output, text in refused.items():
        with pytest.raises(SpecError, match=text):
            validate.check(ValidateConfig(output=tmp_path / output))


def test_figures_are_those_of_the_studies_that_ran() -> None:
    table = rates.frame([rate(1)])

    assert validate._figures(table, pd.DataFrame()) == {}
