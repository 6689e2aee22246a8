"""The simulation study as a user starts it: a page, its figures and its numbers."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import environment, submit

pytestmark = pytest.mark.e2e


def test_a_quick_study_leaves_a_page(tmp_path: Path) -> None:
    page = tmp_path / "study" / "found.md"
    done = submit(
        "validate", "--quick", "--replications", "20", "--studies", "sample_ratio", "planned_power",
        "--workers", "2", "--output", str(page), "--warehouse", str(tmp_path / "warehouse"),
        env=environment(),
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "study sample_ratio: done" in done.stdout
    assert "Promised rates" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Validation")
    assert "## Sample ratio" in text
    assert "--studies sample_ratio planned_power --quick --replications 20" in text
    data = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert {row["study"] for row in data["rates"]} == {"sample_ratio", "planned_power"}
    assert data["versions"]["numpy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output", "page.html"), "a name ending in .md"),
        (("--replications", "5"), "replications"),
        (("--studies", "sample_ratios"), "studies"),
    ],
)
def test_mistakes_end_with_2(arguments: tuple[str, ...], message: str) -> None:
    done = submit("validate", *arguments)

    assert done.returncode == 2
    assert message in done.stderr
