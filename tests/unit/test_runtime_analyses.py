"""An error of an analysis points at the key that it is about."""

from pathlib import Path

import pytest

from causal.core.errors import CausalError, DataError, SpecError
from jobs.runtime import analyses

SPEC = """\
name: trial
source: {path: units.csv}
method: ab
options:
  unit: unit_id
  variant: arm
  control: a
  metrics:
    - {name: minutes, type: mean, column: minutes}
"""


@pytest.fixture
def loaded(tmp_path: Path) -> analyses.Analysis:
    (tmp_path / "units.csv").touch()
    (tmp_path / "trial.yaml").write_text(SPEC, encoding="utf-8")
    return analyses.load(tmp_path / "trial.yaml")


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (DataError("unit_id must identify a row", given="3 units"), "options.unit"),
        (DataError("arm has no such variant", given=["a"]), "options.control"),
        (SpecError("no such column", given="minutes"), "options.metrics.0.column"),
        (SpecError("no such column", given="minutes", key="options"), "options"),
        (DataError("something else is wrong", given=3), None),
    ],
)
def test_the_key_is_found(loaded: analyses.Analysis, error: CausalError, key: str | None) -> None:
    found = loaded.located(error)

    assert found.key == key
    assert str(found).startswith(f"{loaded.file.path}")
    assert type(found) is type(error)


def test_a_version_needs_delta(tmp_path: Path) -> None:
    (tmp_path / "units.csv").touch()
    text = SPEC.replace("units.csv}", "units.csv, version: 3}")
    (tmp_path / "trial.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(SpecError, match=r"trial\.yaml:2: source\.version: only Delta has versions"):
        analyses.load(tmp_path / "trial.yaml")


def test_a_plan_of_an_experiment_names_the_job_that_runs_it(tmp_path: Path) -> None:
    (tmp_path / "trial.yaml").write_text(SPEC.replace("ab", "power", 1), encoding="utf-8")
    message = (
        r"trial\.yaml:3: method: analyze has no such method: run this spec with .* power --spec"
    )

    with pytest.raises(SpecError, match=message):
        analyses.load(tmp_path / "trial.yaml")
