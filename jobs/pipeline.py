"""All jobs in order, skipping what is current, and the effects beside their truth."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd
from pydantic import Field, model_validator

from causal.core.errors import HealthError
from jobs import analyze, clv
from jobs.generate import AnyFault
from jobs.runtime import analyses, truths
from jobs.runtime.catalogue import code_version, find_job
from jobs.runtime.cli import configured
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.readout import Readout
from jobs.runtime.runner import run_job
from jobs.runtime.settings import merged
from jobs.runtime.tracking import Run
from jobs.runtime.truths import Comparison
from transforms.columns import DAYS_PER_WEEK

PREPARATION = (
    "generate",
    "exposure",
    "cohorts",
    "covariates",
    "choices",
    "panels",
    "regions",
    "gram",
)
CHECKOUT_PREPARATION = ("generate", "quality", "visitors", "gram")
STEPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "both": (*PREPARATION, "analyze"),
        "checkout": (*CHECKOUT_PREPARATION, "analyze"),
        "passengers": ("generate", "clv", "gram", "analyze"),
    }
)
"""The steps of each world, in order."""
Step = Literal[
    "generate",
    "exposure",
    "cohorts",
    "covariates",
    "choices",
    "panels",
    "regions",
    "quality",
    "visitors",
    "gram",
    "analyze",
    "clv",
]


class PipelineConfig(JobConfig):
    """Options of the job.

    Attributes:
        world: The worlds of subscribers and drivers, that of the shop, or that of the passengers.
        size: Number of subscribers, of users of the shop, or of passengers.
        days: Days of activity.
        seed: Seed of the worlds.
        faults: Faults to switch on.
        only: The steps to run; all if left out.
    """

    world: Literal["both", "checkout", "passengers"] = Field(
        default="both",
        description="subscribers and drivers (both), the shop (checkout), or passengers, what "
        "they are worth and a voucher for them (passengers)",
    )
    size: int = Field(
        default=1_000_000,
        ge=1_000,
        le=10**10,
        description="number of subscribers (drivers are a fifth of it), of users of the shop, or "
        "of passengers",
    )
    days: int = Field(
        default=56, ge=28, le=3_640, multiple_of=7, description="days of activity, whole weeks"
    )
    seed: int = Field(default=20261121, ge=0, lt=2**63, description="seed of the worlds")
    faults: tuple[AnyFault, ...] = Field(
        default=(), description="faults of the worlds to switch on"
    )
    only: tuple[Step, ...] = Field(default=(), description="steps to run (default: all)")

    @model_validator(mode="after")
    def _steps_are_of_the_world(self) -> "PipelineConfig":
        unknown = [name for name in self.only if name not in STEPS[self.world]]
        if unknown:
            raise ValueError(f"the pipeline of '{self.world}' has no step {unknown[0]}")
        return self

    def steps(self) -> tuple[str, ...]:
        """The steps in order."""
        return tuple(name for name in STEPS[self.world] if not self.only or name in self.only)

    def specs(self) -> tuple[Path, ...]:
        """The analyses of the world."""
        folder = "analyses" if self.world == "both" else f"analyses/{self.world}"
        return analyses.default_specs(folder)


def check(config: PipelineConfig) -> None:
    """Validate the world and every analysis before anything starts."""
    if "generate" in config.steps():
        _generation(config, {})
    if "analyze" in config.steps():
        analyses.load_all(config.specs())
    if "clv" in config.steps():
        for given in _options(config, "clv", {}):
            clv.check(clv.ClvConfig.model_validate(given))


def run(context: Context, config: PipelineConfig) -> int:
    """Run the steps under one MLflow run; the exit code.

    Raises:
        CausalError: A step failed; those before it are written and are skipped next time.
    """
    parts = (config.model_dump_json(), code_version(), context.settings.database)
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    context.start()
    with context.tracking.run(
        "pipeline", run_name=f"pipeline of {config.size:,}", run_key=key
    ) as parent:
        parent.log_params(config.model_dump(mode="json"))
        for index, name in enumerate(steps := config.steps()):
            context.progress.bar(done=index, total=len(steps), label=name)
            if name != "analyze":
                _prepare(context, config, name, parent)
        if "analyze" not in steps:
            return 0
        readouts = analyze.run_all(context, config.specs(), parent=parent)
        comparisons = truths.compare(readouts, truths.read_truths(context.lakehouse))
        _close(context, comparisons, parent)
        return _verdict(context, readouts)


def _generation(config: PipelineConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `generate`.

    Raises:
        SpecError: They are not a world.
    """
    chosen = {name: getattr(config, name) for name in ("world", "size", "days", "seed", "faults")}
    options = merged(given, chosen)
    configured(find_job("generate"), options)
    return options


def _prepare(context: Context, config: PipelineConfig, name: str, parent: Run) -> None:
    job = find_job(name)
    begun = time.monotonic()
    for options in _options(config, name, context.settings.jobs.get(name, {})):
        run_job(context, job, configured(job, options))
    parent.log_metrics({f"seconds/{name}": time.monotonic() - begun})


def _options(
    config: PipelineConfig, name: str, given: Mapping[str, Any]
) -> Sequence[dict[str, Any]]:
    """Options of a step, for each time that it is run."""
    if name == "generate":
        return [_generation(config, given)]
    if name == "panels":
        return [merged({"n_weeks": config.days // DAYS_PER_WEEK}, given)]
    if name == "gram":
        return [merged({"specs": config.specs()}, given)]
    if name == "clv":
        return [merged({"spec": path}, given) for path in analyses.default_specs("customers")]
    return [dict(given)]


def _close(context: Context, comparisons: Sequence[Comparison], parent: Run) -> None:
    """The closing table on the terminal and in MLflow."""
    rows = truths.summary_rows(comparisons)
    n_covered = sum(item.is_covered for item in comparisons)
    line = f"{n_covered} of {len(comparisons)} intervals contain the truth"
    context.progress.table("Effects beside the truth", truths.SUMMARY_COLUMNS, rows)
    context.progress.text("\n" + line)
    context.progress.text(f"runs: {context.tracking.uri} (make ui shows them)")
    parent.log_table(
        "effects_beside_truth", pd.DataFrame(rows, columns=list(truths.SUMMARY_COLUMNS))
    )
    parent.log_metrics({"n_intervals": len(comparisons), "n_covered": n_covered})
    parent.note(f"{line}. The nested runs hold one analysis each.")


def _verdict(context: Context, readouts: Sequence[Readout]) -> int:
    stops = [f"{item.spec.name}: {found.detail}" for item in readouts for found in item.stops]
    for text in stops:
        context.progress.warning(text)
    return HealthError.exit_code if stops else 0


JOB = CommandJob(name="pipeline", config=PipelineConfig, run=run, check=check)
