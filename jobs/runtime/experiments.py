"""What an experiment leaves at each look: rows of `looks` and `decisions`, files, an MLflow run."""

import datetime as dt
import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pyspark.sql import functions as F

from causal.core.errors import CausalError
from causal.core.frames import GramRequest
from causal.core.plan import check_columns
from causal.scorecard.entry_days import EntryDays, entry_days
from causal.scorecard.experiment_readout import ExperimentReadout
from causal.scorecard.experiment_spec import ExperimentSpec
from causal.scorecard.report import decision_rows, report_json
from causal.scorecard.scorecard_content import Provenance
from causal.scorecard.scorecard_figures import figures
from causal.scorecard.scorecard_page import page
from causal.scorecard.scorecard_text import markdown
from jobs.runtime import readout as analysis_readout
from jobs.runtime.analyses import Bound
from jobs.runtime.catalogue import code_version
from jobs.runtime.context import Context
from jobs.runtime.locks import held
from jobs.runtime.readout import Readout
from jobs.runtime.tracking import Run
from transforms.bounded import collect_bounded
from transforms.result_tables import DECISIONS, LOOKS
from transforms.schema import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ExperimentRun(Readout):
    """An experiment at one look, and what it was made of.

    Attributes:
        experiment: What was read from the look and those before it.
    """

    experiment: ExperimentReadout

    @cached_property
    def figures(self) -> Mapping[str, "Figure"]:
        """The figures of the scorecard by file name without ending."""
        return figures(self.experiment)

    @property
    def provenance(self) -> Provenance:
        """Where the numbers come from."""
        return Provenance(
            source=self.bound.source,
            version=self.bound.version,
            run_key=self.run_key,
            code_version=code_version(),
        )


def stored_looks(context: Context, experiment: str) -> pd.DataFrame:
    """The looks at an experiment that are stored, columns of the table `looks`."""
    if not context.lakehouse.exists(LOOKS.name):
        return pd.DataFrame(columns=list(LOOKS.columns))
    return collect_bounded(
        context.lakehouse.read(LOOKS.name).where(F.col("experiment") == experiment),
        max_rows=context.settings.limits.frame_rows,
        what=f"looks at {experiment}",
        keys=("as_of_on", "metric", "term"),
    )


def store(context: Context, found: ExperimentRun, *, source_identity: str) -> dict[str, int]:
    """Put look and decisions in the place of what is stored for this day, one commit a table.

    Args:
        context: The run.
        found: The experiment.
        source_identity: Names the content that was read.

    Returns:
        Tables written, with their versions; empty if this very run is stored.
    """
    experiment = found.experiment
    # Names of experiments match NAME_PATTERN, so they hold no quote.
    part = f"experiment = '{experiment.spec.name}' AND as_of_on = DATE'{experiment.as_of}'"
    tail = {"run_key": found.run_key}
    look = experiment.this_look.to_dict("records")
    rows: tuple[tuple[Table, list[dict[str, Any]]], ...] = (
        (LOOKS, [_native(row) | tail | {"source_identity": source_identity} for row in look]),
        (DECISIONS, [row | tail for row in decision_rows(experiment)]),
    )
    tasks = {}
    for table, listed in rows:
        state = context.lakehouse.state(table.name, part=part)
        if state is None or state.run_key != found.run_key:
            tasks[table.name] = partial(_write, context, table, listed, run_key=found.run_key,
                                        part=part)  # fmt: skip
    return context.side_by_side(tasks)


def _write(
    context: Context, table: Table, rows: list[dict[str, Any]], *, run_key: str, part: str
) -> int:
    with context.progress.step(f"{table.name}: {len(rows)} rows"):
        frame = context.lakehouse.frame(rows, table.name)
        return context.lakehouse.write(frame, table.name, run_key=run_key, replace_where=part)


def leave(context: Context, found: ExperimentRun, *, folder: Path | None) -> None:
    """The scorecard and its figures as files, where they are wanted."""
    if folder is None:
        return
    analysis_readout.write_files(found, folder)
    analysis_readout.leave_files(folder, texts=texts(found), figures={})
    context.progress.line(f"{found.spec.name}: scorecard in {folder / 'scorecard.html'}")


def texts(found: ExperimentRun) -> dict[str, str]:
    """Scorecard and report by file name."""
    return {
        "scorecard.html": page(found.experiment, found.provenance, found.figures),
        "scorecard.md": markdown(found.experiment, found.provenance),
        "report.json": report_json(found.experiment, found.provenance),
    }


def track(context: Context, found: ExperimentRun) -> None:
    """An MLflow run with a step per look, unless this very one is there already."""
    if context.tracking.find_finished(found.run_key) is not None:
        context.progress.line(f"{found.spec.name}: already in MLflow")
        return
    experiment = found.experiment
    with (
        context.progress.step(f"log {found.spec.name} to MLflow"),
        context.tracking.run(
            found.spec.name,
            run_name=f"{found.spec.name} {experiment.as_of}",
            run_key=found.run_key,
            tags=_tags(found),
        ) as opened,
    ):
        analysis_readout.log(found, opened)
        opened.note(markdown(experiment, found.provenance))
        for step, metrics in look_metrics(experiment):
            opened.log_metrics(metrics, step=step)
        _log_artefacts(found, opened)


def _log_artefacts(found: ExperimentRun, opened: Run) -> None:
    for name, text in texts(found).items():
        opened.log_text(name, text)
    opened.log_metrics(dict(_decision_metrics(found.experiment)))


def _tags(found: ExperimentRun) -> dict[str, str]:
    experiment = found.experiment
    verdicts = {item.term: item.verdict for item in experiment.decisions.decisions}
    stops = experiment.stops
    return analysis_readout.tags(found) | {
        "causalake.as_of": str(experiment.as_of),
        "causalake.look": str(experiment.look),
        "causalake.decision": ", ".join(f"{term}: {said}" for term, said in verdicts.items()),
        "causalake.health": f"stop: {'; '.join(stops)}" if stops else "ok",
    }


def look_metrics(experiment: ExperimentReadout) -> Iterator[tuple[int, dict[str, float]]]:
    """Every look's numbers by its number: estimates of all metrics, the test of the primary."""
    for look, rows in experiment.looks.groupby("look", sort=True):
        metrics = {}
        for row in rows.to_dict("records"):
            name = f"{row['metric']}/{row['scale']}/{row['term']}"
            metrics[f"look/estimate/{name}"] = float(row["estimate"])
            metrics[f"look/std_error/{name}"] = float(row["std_error"])
            metrics[f"look/units/{name}"] = float(row["n_treated"] + row["n_control"])
        yield int(str(look)), metrics
    for term, tested in experiment.sequential.items():
        for item in tested.looks:
            values = {
                "information": item.information,
                "fraction": item.fraction,
                "statistic": item.statistic,
                "efficacy_lower": item.efficacy_lower,
                "efficacy_upper": item.efficacy_upper,
                "alpha_spent": item.alpha_spent,
                "ci_lower": item.ci_lower,
                "ci_upper": item.ci_upper,
                "pvalue": item.pvalue,
            }
            shown = {
                f"sequential/{name}/{term}": value
                for name, value in values.items()
                if value is not None and math.isfinite(value)
            }
            yield item.look, shown


def _decision_metrics(experiment: ExperimentReadout) -> Iterator[tuple[str, float]]:
    for row in experiment.decisions.to_frame().to_dict("records"):
        for name in ("expected_gain", "prob_gain", "prob_worse", "loss_ship", "loss_keep"):
            yield f"decision/{name}/{row['term']}", float(row[name])
    for term, found in experiment.roi.items():
        yield f"roi/profit_per_year/{term}", found.profit_per_year.mean
        yield f"roi/prob_profit/{term}", found.prob_positive


def look_of_content(stored: pd.DataFrame, identity: str) -> dt.date | None:
    """Day of the last stored look that was made of this very content."""
    same = stored.loc[stored["source_identity"] == identity, "as_of_on"]
    return None if same.empty else max(same)


def _native(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Python values, missing numbers as nothing."""
    out: dict[str, Any] = {}
    for name, value in row.items():
        plain = value.item() if isinstance(value, np.generic) else value
        out[str(name)] = None if isinstance(plain, float) and math.isnan(plain) else plain
    return out


def days_of(bound: Bound, spec: ExperimentSpec) -> EntryDays | None:
    """Units by day; `None` where the spec names no column of days."""
    column = spec.looks.day
    if column is None:
        return None
    try:
        request = GramRequest(terms=(), by=(column,), where=spec.source.conditions)
        check_columns(request, bound.engine.columns)
        frame = bound.engine(request)
        return entry_days(frame, column)
    except CausalError as error:
        raise bound.analysis.located(error.located(key="looks.day")) from error


@contextmanager
def one_at_a_time(context: Context, experiment: str) -> Generator[None]:
    """Two processes that look at the same experiment or restate its days take turns."""
    folder = context.settings.local_warehouse
    if folder is None:
        yield
        return
    path = folder / ".locks" / f"{context.settings.database}.experiment-{experiment}.lock"
    with held(path, timeout=context.settings.limits.lock_seconds, purpose=f"look at {experiment}"):
        yield
