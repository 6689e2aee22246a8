"""Count how often the suite's tests reject and its intervals cover, in simulated experiments.

Needs no tables and no Spark session. The page (docs/validation.md) says what was promised and what
was found, with seeds and versions; a JSON file beside it has every rate.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
from pydantic import Field

from causal.core.errors import HealthError, SpecError
from causal.validation import report
from causal.validation.replication import Findings, Size
from causal.validation.studies import STUDIES
from jobs.runtime import places, readout
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.processes import Processes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

StudyName = Literal["sample_ratio", "stopping_rules", "planned_power", "estimators"]

_REPLICATIONS, _QUICK_REPLICATIONS = 2000, 200
_IMAGES = "images"
_PICTURES = {
    "estimators": ("validation_estimators", "validation_pvalues"),
    "stopping_rules": ("validation_stopping_rules",),
}


class ValidateConfig(JobConfig):
    """Options of the job.

    Attributes:
        studies: The studies; all if left out.
        output: The page; figures go to `images` beside it.
        replications: Experiments per estimator and scenario.
        confirmation: New experiments of an estimator where a promise is open, in multiples.
        quick: Few experiments, and no new ones.
        seed: Of everything.
        workers: Processes; one for each core if left out.
    """

    studies: tuple[StudyName, ...] = Field(
        default=(), description=f"which of {', '.join(STUDIES)} (default: all)"
    )
    output: Path = Field(
        default=Path("docs/validation.md"),
        description="the page; relative paths start from the checkout",
    )
    replications: int | None = Field(
        default=None,
        ge=20,
        le=1_000_000,
        description=f"experiments per estimator and scenario (default: {_REPLICATIONS}, "
        f"with --quick {_QUICK_REPLICATIONS})",
    )
    confirmation: int = Field(
        default=5,
        ge=0,
        le=100,
        description="where a promise of an estimator is open, that many times as many new "
        "experiments decide",
    )
    quick: bool = Field(
        default=False, description="few experiments: for a look at the page, not for its numbers"
    )
    seed: int = Field(default=20261123, ge=0, lt=2**32, description="seed of everything")
    workers: int | None = Field(
        default=None, ge=1, le=1024, description="processes (default: one for each core)"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The studies, in the order in which they run."""
        return tuple(name for name in STUDIES if not self.studies or name in self.studies)

    @property
    def size(self) -> Size:
        """How much is simulated."""
        default = _QUICK_REPLICATIONS if self.quick else _REPLICATIONS
        return Size(
            replications=self.replications or default,
            confirmation=0 if self.quick else self.confirmation,
            seed=self.seed,
        )

    @property
    def page(self) -> Path:
        """Where the page goes."""
        return places.root() / self.output

    @property
    def command(self) -> str:
        """The command that makes the same page."""
        parts = ["./spark-submit.sh validate"]
        parts += [f"--studies {' '.join(self.names)}"] if self.studies else []
        parts += ["--quick"] if self.quick else []
        parts += [] if self.replications is None else [f"--replications {self.replications}"]
        is_told = not self.quick and "confirmation" in self.model_fields_set
        parts += [f"--confirmation {self.confirmation}"] if is_told else []
        return " ".join([*parts, f"--seed {self.seed}"])


def check(config: ValidateConfig) -> None:
    """The page can be written."""
    if config.output.suffix != ".md":
        raise SpecError("the page is Markdown", given=config.output, allowed="a name ending in .md")
    readout.check_output(config.page.parent, below=[_IMAGES])
    readout.check_files([config.page, config.page.with_suffix(".json")])


def run(context: Context, config: ValidateConfig) -> int:
    """Run the studies and write the page.

    Returns:
        0, or the exit code of a health check if a promised rate is broken.
    """
    found = _studied(context, config)
    table = pd.concat([item.rates for item in found.values()], ignore_index=True)
    pvalues = pd.concat([item.pvalues for item in found.values()], ignore_index=True)
    _write(config, table, pvalues)
    context.progress.line(f"results in {config.page}")
    rows = report.counts(table)
    context.progress.table("Promised rates", ("study", "promised", "kept", "open", "broken"), rows)
    broken = table[report.is_broken(table)]
    for row in broken.to_dict("records"):
        context.progress.warning(
            f"{row['study']}: {row['metric_type']}, {row['estimator']}, {row['scenario']}: "
            f"{row['quantity']} {row['estimate']:.4g}, promised {row['target_lower']:.4g} to "
            f"{row['target_upper']:.4g}"
        )
    return HealthError.exit_code if len(broken) else 0


def _studied(context: Context, config: ValidateConfig) -> Mapping[str, Findings]:
    found = {}
    progress = context.progress
    n = config.workers or os.cpu_count() or 1

    def told(done: int, total: int) -> None:
        progress.bar(done=done, total=total, label="pieces of work")

    with Processes(n, on_done=told) as workers:
        for name in config.names:
            with progress.step(f"study {name}"):
                found[name] = STUDIES[name](config.size, workers)
    return found


def _write(config: ValidateConfig, table: pd.DataFrame, pvalues: pd.DataFrame) -> None:
    """Pictures first: the page that shows them comes last."""
    about = report.Run(
        command=config.command, seed=config.seed, replications=config.size.replications,
        is_confirmed=config.size.confirmation > 0,
        versions=_versions(),
    )  # fmt: skip
    pictures = _figures(table, pvalues)
    if pictures:
        readout.leave_files(config.page.parent / _IMAGES, texts={}, figures=pictures)
    shown = {
        study: [f"{_IMAGES}/{name}.png" for name in names if name in pictures]
        for study, names in _PICTURES.items()
    }
    text = report.page(table, about, figures=shown)
    stem = config.page.stem
    texts = {f"{stem}.json": report.as_json(table, pvalues, about), f"{stem}.md": text}
    readout.leave_files(config.page.parent, texts=texts, figures={})


def _figures(table: pd.DataFrame, pvalues: pd.DataFrame) -> Mapping[str, "Figure"]:
    from causal.validation import figures

    return figures.figures(table, pvalues)


def _versions() -> dict[str, str]:
    found = {name.removeprefix("version."): text for name, text in readout.versions().items()}
    return {"python": platform.python_version(), **found}


JOB = CommandJob(name="validate", config=ValidateConfig, run=run, check=check)
