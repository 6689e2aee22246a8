"""An error of an analysis points at the key that it is about."""

import os
from pathlib import Path

import pytest

from causal.core import registry
from causal.core.errors import CausalError, DataError, SpecError
from causal.core.inference import effect
from causal.core.result import Effect
from causal.core.spec import validate
from causal.experiments import cupac, power_plan
from causal.scorecard.experiment_spec import ExperimentSpec
from jobs import analyze, experiment, power
from jobs.runtime import analyses, readout

SPEC = """\
name: trial
source: {path: units.csv}
method: ab
options:
  unit: unit_id
  variant: arm
  control: a
  certificate: {replications: 1000, buckets: 2000, seed: 250}
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
        (DataError("too few rows", given=250), None),
        (DataError("too few rows", given="250"), None),
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


def test_a_second_table_is_looked_for_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "units.csv").touch()
    text = """\
name: trial
source: {path: units.csv}
method: surrogate_index
options:
  {unit: id, variant: arm, control: a, outcome: year, surrogates: [week], history: {path: past.%s}}
"""
    for ending, message in (("csv", "there is nothing to read"), ("x", "there is nothing to read")):
        (tmp_path / "trial.yaml").write_text(text % ending, encoding="utf-8")
        with pytest.raises(SpecError, match=rf"trial\.yaml:\d: options\.history\.path: {message}"):
            analyses.load(tmp_path / "trial.yaml")
    (tmp_path / "past.x").touch()
    with pytest.raises(SpecError, match=r"options\.history\.format: the format cannot be told"):
        analyses.load(tmp_path / "trial.yaml")


def test_a_plan_of_an_experiment_names_the_job_that_runs_it(tmp_path: Path) -> None:
    (tmp_path / "trial.yaml").write_text(SPEC.replace("ab", "power", 1), encoding="utf-8")
    message = (
        r"trial\.yaml:3: method: this job has no such method: run this spec with .* power --spec"
    )

    with pytest.raises(SpecError, match=message):
        analyses.load(tmp_path / "trial.yaml")


@pytest.mark.parametrize(
    ("model", "method", "job"),
    [
        (cupac.SPEC, "ab", "analyze"),
        (cupac.SPEC, "power", "power"),
        ({"power": power_plan.SPEC}, "cupac", "cupac"),
        ({"power": power_plan.SPEC}, "did", "analyze"),
        (ExperimentSpec, "cupac", "cupac"),
    ],
)
def test_a_spec_of_another_job_names_that_job(
    tmp_path: Path, model: analyses.Models, method: str, job: str
) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text(SPEC.replace("ab", method, 1), encoding="utf-8")

    with pytest.raises(SpecError, match=f"run this spec with ./spark-submit.sh {job} --spec FILE"):
        analyses.load(file, model=model)

    file.write_text(SPEC.replace("method: ab", "method: magic"), encoding="utf-8")
    with pytest.raises(SpecError, match="method: unknown method; given: magic; allowed: "):
        analyses.load(file, model=model)
    file.write_text(SPEC.replace("method: ab\n", ""), encoding="utf-8")
    with pytest.raises(SpecError, match="method: this key is required; allowed: "):
        analyses.load(file, model=model)


@pytest.mark.parametrize("job", ["analyze", "experiment", "power"])
def test_an_output_that_cannot_be_written_is_noticed_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    checks = {
        "analyze": lambda out: analyze.check(analyze.AnalyzeConfig(output=out)),
        "experiment": lambda out: experiment.check(experiment.ExperimentConfig(output=out)),
        "power": lambda out: power.check(power.PowerConfig(output=out)),
    }
    check = checks[job]
    check(tmp_path / "new" / "out")
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below"):
        with pytest.raises(SpecError, match=r"--output: this is a file, not a folder; .*/file$"):
            check(place)
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path)
    with pytest.raises(
        SpecError, match=f"--output: this folder cannot be written to; .*{tmp_path}$"
    ):
        check(tmp_path / "new" / "out")


def test_a_folder_of_one_of_several_analyses_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "units.csv").touch()
    specs = []
    for name in ("trial", "second"):
        specs.append(tmp_path / f"{name}.yaml")
        specs[-1].write_text(SPEC.replace("trial", name), encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    (out / "second").touch()

    analyze.check(analyze.AnalyzeConfig(spec=tuple(specs[:1]), output=out))
    with pytest.raises(SpecError, match=r"this is a file, not a folder; given: .*/out/second$"):
        analyze.check(analyze.AnalyzeConfig(spec=tuple(specs), output=out))


def test_nothing_is_left_where_a_folder_has_the_name_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "b.json").mkdir()

    with pytest.raises(SpecError, match=r"this is a folder, not a file; given: .*/b\.json$"):
        readout.leave_files(tmp_path, texts={"a.json": "", "b.json": ""}, figures={})

    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def effect_of(estimator: str, *, metric: str = "minutes") -> Effect:
    return effect(
        estimator=estimator, estimand="ate", metric=metric, term="treated", estimate=1.0,
        std_error=0.5, df=None, confidence_level=0.95, n_treated=10, n_control=10,
    )  # fmt: skip


def test_each_estimator_that_was_asked_for_has_a_line() -> None:
    effects = [effect_of("aipw"), effect_of("plr"), effect_of("aipw", metric="visits")]

    assert readout.headline(effects) == [effects[0], effects[2]]
    assert readout.headline(effects, asked=("aipw", "plr")) == effects
    assert readout.headline(effects, asked=("plr",)) == effects
    study = {"outcome": "y", "treatment": "d", "covariates": ["x"], "unit": "u"}
    several = {
        "dml": ({"estimator": ["aipw", "plr"]}, ("aipw", "plr")),
        "weighting": ({"estimator": ["ipw", "aipw"]}, ("ipw", "aipw")),
        "uplift": ({"learners": ["t", "dr"]}, ("t_learner", "dr_learner")),
        "matching": ({"matching": "coarsened"}, ()),
    }
    for method, (options, names) in several.items():
        spec = validate(
            registry.method(method).SPEC,
            {"name": "x", "source": {"table": "t"}, "method": method, "options": study | options},
        )
        assert readout.asked(spec) == names
