"""Plan experiments on a history of units or regions: sample size, duration, detectable effects.

A plan is a spec like that of an analysis: `source` is the history. With `method: power` it has one
row per unit, and `options` hold metrics, arms and the test (docs/methods/power.md); with `method:
geo_design` one per region and period (docs/methods/geo_design.md). The tables go to files and
MLflow; no table of the lakehouse is written.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import Field

from causal.core import plan
from causal.core.errors import CausalError
from causal.core.frames import describe
from causal.core.registry import Plan
from causal.core.result import Result
from causal.core.spec import Spec
from causal.experiments import power_plan, power_text
from causal.quasi.geo import geo_design
from jobs import analyze
from jobs.runtime import analyses, readout
from jobs.runtime.analyses import Bound
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.tracking import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PowerConfig(JobConfig):
    """Options of the job.

    Attributes:
        spec: The plans; those of `conf/plans` if left out.
        output: Folder for the tables and the figures.
    """

    spec: tuple[Path, ...] = Field(default=(), description="plans (default: all of conf/plans)")
    output: Path | None = Field(
        default=None,
        description="folder for plan.json, the tables as CSV, summary.md and the figures; several "
        "plans get a folder each",
    )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The spec files."""
        return self.spec or analyses.default_specs("plans")


@dataclass(frozen=True, kw_only=True)
class Planner:
    """A kind of plan.

    Attributes:
        model: Its spec.
        estimate: The plan of a spec.
        figures: Figures of a result, by file name without ending.
        sentences: A result in plain words.
        metrics: Its numbers by name.
        shown: Columns of the table `plan` to be shown, and their headings.
    """

    model: type[Spec]
    estimate: Callable[[Any], Plan]
    figures: Callable[[Result], Mapping[str, "Figure"]]
    sentences: Callable[[Result], list[str]]
    metrics: Callable[[Result], dict[str, float]]
    shown: Mapping[str, str]


@dataclass(frozen=True)
class Planned:
    """A plan with its result."""

    bound: Bound
    result: Result

    @property
    def planner(self) -> "Planner":
        """How it was made."""
        return _PLANNERS[self.bound.analysis.spec.method]

    @property
    def name(self) -> str:
        """The plan's name."""
        return self.bound.analysis.spec.name

    @property
    def figures(self) -> Mapping[str, "Figure"]:
        """The figures by file name without ending."""
        return self.planner.figures(self.result)


def check(config: PowerConfig) -> None:
    """Validate plans and the output folder without Spark."""
    loaded = analyses.load_all(config.paths, model=_MODELS)
    readout.check_output(config.output, below=analyze.own_folders(loaded))


def run(context: Context, config: PowerConfig) -> int:
    """Make the plans; the exit code.

    Raises:
        CausalError: The history cannot carry a plan; those before it are kept.
    """
    loaded = analyses.load_all(config.paths, model=_MODELS)
    for item in loaded:
        found = _planned(context, analyses.bind(context, item))
        output = config.output
        folder = output / found.name if output is not None and len(loaded) > 1 else output
        if folder is not None:
            readout.leave_files(folder, texts=_texts(found), figures=found.figures)
            context.progress.line(f"{found.name}: results in {folder}")
        _track(context, found)
        _show(context, found)
    return 0


def _planned(context: Context, bound: Bound) -> Planned:
    spec = bound.analysis.spec
    with context.progress.step(f"plan {spec.name}"):
        try:
            result = plan.run(
                _PLANNERS[spec.method].estimate(spec),
                bound.engine,
                on_request=lambda number, asked: context.progress.line(
                    f"pass {number}: {describe(asked)}"
                ),
            )
        except CausalError as error:
            raise bound.analysis.located(error) from error
    return Planned(bound, result)


def _show(context: Context, found: Planned) -> None:
    table = found.result.tables["plan"]
    headings = found.planner.shown
    shown = [name for name in headings if table[name].notna().any()]
    rows = [[_plain(value) for value in row] for row in table[shown].itertuples(index=False)]
    context.progress.table(f"Plan {found.name}", [headings[name] for name in shown], rows)
    context.progress.text("\n" + "\n".join(found.planner.sentences(found.result)))
    context.progress.text(found.result.summary())


def _note(found: Planned) -> str:
    """The plan in plain words, as Markdown."""
    spec, version = found.bound.analysis.spec, found.bound.version
    failed = [f"- failed: {item.name}: {item.detail}" for item in found.result.failed_checks]
    return "\n".join(
        [
            f"### {spec.description or spec.name}",
            "",
            *[f"- {sentence}" for sentence in found.planner.sentences(found.result)],
            "",
            *failed,
            *([""] if failed else []),
            f"Planned on `{found.bound.source}`"
            + ("" if version is None else f", version {version}")
            + f"; run key `{found.bound.run_key[:12]}`.",
        ]
    )


def _texts(found: Planned) -> dict[str, str]:
    rows = _rows(found.result.tables["plan"])
    spec = found.bound.analysis.spec.model_dump(mode="json")
    tables = {f"{name}.csv": _csv(table) for name, table in found.result.tables.items()}
    return {
        "plan.json": json.dumps(rows, indent=2, allow_nan=False),
        "diagnostics.json": found.result.diagnostics_json(),
        "spec.json": json.dumps(spec, indent=2),
        "summary.md": _note(found),
        **tables,
    }


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n").rstrip("\n")


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    """A missing number as nothing."""
    return None if value is None or pd.isna(value) else value


def _track(context: Context, found: Planned) -> None:
    """An MLflow run, unless this very one is there already."""
    if context.tracking.find_finished(found.bound.run_key) is not None:
        context.progress.line(f"{found.name}: already in MLflow")
        return
    tags = {"causalake.analysis": found.name, "causalake.method": found.bound.analysis.spec.method}
    with (
        context.progress.step(f"log {found.name} to MLflow"),
        context.tracking.run(
            found.name, run_name=found.name, run_key=found.bound.run_key, tags=tags
        ) as opened,
    ):
        _log(found, opened)


def _log(found: Planned, opened: Run) -> None:
    spec = found.bound.analysis.spec.model_dump(mode="json", exclude_none=True)
    opened.note(_note(found))
    opened.log_params(
        dict(readout.flattened(spec))
        | {
            "run_key": found.bound.run_key,
            "source_version": found.bound.version,
            "source_identity": found.bound.identity,
            **readout.versions(),
        }
    )
    numbers = {f"plan/{name}": float(value) for name, value in found.result.params.items()}
    opened.log_metrics(numbers | found.planner.metrics(found.result))
    for name, table in found.result.tables.items():
        opened.log_table(name, pd.DataFrame(_rows(table)).astype(object))
    opened.log_table("diagnostics", found.result.diagnostics_frame().astype(object))
    for name, figure in found.figures.items():
        opened.log_figure(f"figures/{name}", figure)
    opened.log_dict("spec.yaml", found.bound.analysis.spec.model_dump(mode="json"))
    opened.log_text("summary.md", _note(found))


def _unit_metrics(result: Result) -> dict[str, float]:
    """The numbers of each row of a plan of units."""
    out = {}
    for row in _rows(result.tables["plan"]):
        name = f"{row['metric']}/{row['estimator']}/{row['term']}"
        for part in ("n_total", "total_days", "power_with_units", "detectable_with_units"):
            if row[part] is not None:
                out[f"{part}/{name}"] = float(row[part])
    return out


_PLANNERS: Mapping[str, Planner] = MappingProxyType(
    {
        "power": Planner(
            model=power_plan.SPEC,
            estimate=power_plan.estimate,
            figures=power_plan.figures,
            sentences=power_text.sentences,
            metrics=_unit_metrics,
            shown={
                "metric": "metric",
                "term": "term",
                "estimator": "estimator",
                "question": "question",
                "level": "level",
                "n_total": "units needed",
                "total_days": "days",
                "power_with_units": "power with units",
                "detectable_with_units": "detectable with units",
            },
        ),
        "geo_design": Planner(
            model=geo_design.SPEC,
            estimate=geo_design.estimate,
            figures=geo_design.figures,
            sentences=geo_design.sentences,
            metrics=geo_design.metrics,
            shown=geo_design.SHOWN,
        ),
    }
)
_MODELS: Mapping[str, type[Spec]] = MappingProxyType(
    {name: planner.model for name, planner in _PLANNERS.items()}
)

JOB = CommandJob(name="power", config=PowerConfig, run=run, check=check)
