"""What every job fulfils: one file, a line of help, frozen options with help, declared tables."""

import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from causal.core.errors import SpecError
from jobs import pipeline
from jobs.runtime import truths
from jobs.runtime.catalogue import find_job, job_lines
from jobs.runtime.cli import configured, overview, parse
from jobs.runtime.contract import CommandJob, JobConfig, TableJob
from jobs.runtime.flags import flag_kind
from transforms.tables import TABLES

ROOT = Path(__file__).parents[2]
JOBS: Mapping[str, TableJob[Any] | CommandJob[Any]] = {name: find_job(name) for name in job_lines()}
TABLE_JOBS = {name: job for name, job in JOBS.items() if isinstance(job, TableJob)}

every_job = pytest.mark.parametrize("name", JOBS)
every_table_job = pytest.mark.parametrize("name", TABLE_JOBS)


REQUIRED: Mapping[str, Mapping[str, Any]] = {
    "notebook": {"file": [str(ROOT / "notebooks" / "01_quickstart.py")]},
    "clv": {"spec": str(ROOT / "conf" / "customers" / "passenger_value.yaml")},
    "cupac": {"spec": str(ROOT / "conf" / "forecasts" / "revenue_forecast.yaml")},
    "uplift": {"spec": str(ROOT / "conf" / "uplift" / "payout_uplift.yaml")},
    "policy": {"spec": str(ROOT / "conf" / "uplift" / "payout_policy.yaml")},
    "score": {"model": "payout_uplift", "table": "drivers", "output_table": "driver_scores"},
}
"""Options without a default."""


def options(name: str, **given: Any) -> BaseModel:
    return configured(JOBS[name], {**REQUIRED.get(name, {}), **given})


def test_there_is_a_job_in_every_file() -> None:
    files = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__", "run"}

    assert files == set(JOBS)


@every_job
def test_a_job_has_the_name_of_its_file(name: str) -> None:
    assert JOBS[name].name == name
    assert name not in sys.stdlib_module_names


@every_job
def test_the_first_line_of_the_file_is_its_help(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / "jobs" / f"{name}.py").read_text("utf-8")))
    line = job_lines()[name]

    assert docstring is not None
    assert docstring.splitlines()[0] == line
    assert line.endswith(".")
    assert f"{name} " in overview()
    assert line in overview()


@every_job
def test_options_are_frozen_and_refuse_unknown_keys(name: str) -> None:
    config = JOBS[name].config

    assert issubclass(config, JobConfig)
    assert config.model_config["frozen"] is True
    assert config.model_config["extra"] == "forbid"
    with pytest.raises(SpecError, match=f"^{name}: no_such_option: unknown key"):
        options(name, no_such_option=1)
    with pytest.raises(ValidationError):
        setattr(options(name), next(iter(config.model_fields)), None)


@every_job
def test_every_flag_says_what_it_does(name: str) -> None:
    for field in JOBS[name].config.model_fields.values():
        if flag_kind(field.annotation) is not None:
            assert field.description
            assert field.description[-1] != "."


@every_job
def test_help_lists_every_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse([name, "--help"]) is None

    shown = capsys.readouterr()
    text = shown.out + shown.err
    flags = [
        "--" + option.replace("_", "-")
        for option, field in JOBS[name].config.model_fields.items()
        if flag_kind(field.annotation) is not None
    ]
    assert all(flag in text for flag in (*flags, "--env", "--warehouse", "--set", "--debug"))
    assert "exit codes" in text


@every_job
def test_a_misspelt_flag_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"unknown option, did you mean --warehouse\?"):
        parse([name, "--warehous", "x"])


@every_job
def test_a_job_runs_with_its_defaults_as_far_as_can_be_told(name: str) -> None:
    required = [f"--set={key}={value}" for key, value in REQUIRED.get(name, {}).items()]
    invocation = parse([name, *required])

    assert invocation is not None
    assert invocation.job is JOBS[name]
    assert invocation.config == options(name)


@every_job
def test_options_travel_as_json(name: str) -> None:
    config = options(name)

    assert type(config).model_validate_json(config.model_dump_json()) == config


@every_table_job
def test_tables_read_and_written_are_declared(name: str) -> None:
    job, config = TABLE_JOBS[name], options(name)
    reads, writes = job.reads(config), job.writes(config)

    assert writes
    assert set(reads) | set(writes) <= set(TABLES)
    assert len(set(writes)) == len(writes)
    assert len(set(reads)) == len(reads)
    assert not set(reads) & set(writes)


@pytest.mark.parametrize(
    "name", [name for name, job in TABLE_JOBS.items() if "world" in job.config.model_fields]
)
@pytest.mark.parametrize("world", ["subscribers", "drivers"])
def test_one_world_takes_part_of_the_tables(name: str, world: str) -> None:
    job = TABLE_JOBS[name]
    both, one = options(name), options(name, world=world)

    assert set(job.writes(one)) < set(job.writes(both))
    assert set(job.reads(one)) <= set(job.reads(both))


def test_no_table_is_written_by_two_jobs() -> None:
    written = [table for name, job in TABLE_JOBS.items() for table in job.writes(options(name))]

    assert len(set(written)) == len(written)


@pytest.mark.parametrize("world", pipeline.STEPS)
def test_the_pipeline_runs_jobs_after_those_they_read_from(world: str) -> None:
    written: set[str] = set()
    for name in pipeline.PipelineConfig(world=world).steps():
        job = TABLE_JOBS.get(name)
        if job is not None:
            given = options(name, world=world) if name == "generate" else options(name)
            assert set(job.reads(given)) <= written, name
            written |= set(job.writes(given))


def test_every_table_of_true_effects_is_read_beside_estimates() -> None:
    assert set(truths.TABLES) == {name for name in TABLES if name.endswith("_effects")}


def test_every_table_job_is_in_a_pipeline() -> None:
    assert set(TABLE_JOBS) <= {*pipeline.PREPARATION, *pipeline.CHECKOUT_PREPARATION}


def test_the_pipeline_of_passengers_values_every_customer_base_and_the_voucher() -> None:
    config = pipeline.PipelineConfig(world="passengers")
    pipeline.check(config)

    assert config.steps() == ("generate", "clv", "gram", "analyze")
    assert {path.stem for path in config.specs()} == {"voucher_pilot", "voucher_trial"}
    with pytest.raises(ValidationError, match="the pipeline of 'passengers' has no step visitors"):
        pipeline.PipelineConfig(world="passengers", only=("visitors",))
