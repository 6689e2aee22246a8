"""The fits of a spec as tasks of the cluster, and the runs that they leave in MLflow."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, cast

import pandas as pd
from pyspark.sql import DataFrame

from causal.core import plan
from causal.core.errors import CausalError, DataError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.result import Diagnostic
from causal.fits import fits_figures, fits_readout
from causal.fits.fits_readout import effects_of
from causal.fits.fits_spec import FitsSpec
from causal.fits.fitting import Fitted, decoded, encoded, fit_alone, fit_each, spec_of, tasks
from causal.fits.grid import Fit, Grid, grid
from jobs.runtime import readout
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.context import Context
from jobs.runtime.readout import Readout
from jobs.runtime.tracking import Run
from transforms.bounded import collect_bounded
from transforms.fit_tasks import fits_of
from transforms.terms import filtered, kinds, quoted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_BATCHES, _MIN_TASKS = 10, 8
"""Spark jobs that the tasks are split into at most, and the fewest tasks of each: what is in flight
must fill the cluster, and after each job the progress is shown."""
_SHOWN = 10
_OVERVIEW = ("fits", "multiplicity", "placebo_rejections")


@dataclass(frozen=True)
class FitsRun(Readout):
    """The fits of a spec.

    Attributes:
        found: What came of each.
        grid: The grid.
        rows: The panel that they were made on.
    """

    found: tuple[Fitted, ...]
    grid: Grid
    rows: DataFrame

    @property
    def fits_spec(self) -> FitsSpec:
        """The spec."""
        return cast("FitsSpec", self.spec)

    @cached_property
    def figures(self) -> Mapping[str, "Figure"]:
        """The figures by file name without ending."""
        return fits_figures.figures(self.fits_spec, self.result)

    @property
    def sentences(self) -> list[str]:
        """What is said of the fits as a whole, and the clearest effects."""
        chosen = fits_readout.discoveries(self.fits_spec, self.result.tables["fits"])
        numbers = set(chosen["number"].head(_SHOWN))
        return [item.detail for item in self.overview] + [
            readout.line(effects_of(item)[0]) for item in self.found if item.fit.number in numbers
        ]

    @property
    def metrics(self) -> dict[str, float]:
        """Counts; the estimates are in tables, there may be thousands."""
        numbers = {f"fits/{name}": float(value) for name, value in self.result.params.items()}
        checks = {
            f"check/{item.name}/statistic": item.statistic
            for item in self.overview
            if item.statistic is not None
        }
        return numbers | checks

    @property
    def overview(self) -> tuple[Diagnostic, ...]:
        """What is said of the fits as a whole."""
        return tuple(item for item in self.result.diagnostics if item.name in _OVERVIEW)

    @property
    def failure(self) -> CausalError | None:
        """The error of a spec of whose fits none could be made."""
        if any(item.reason is None for item in self.found):
            return None
        codes = {item.exit_code for item in self.found}
        kind = next((k for k in (SpecError, DataError) if codes == {k.exit_code}), CausalError)
        reasons = [f"{n} x {text}" for text, n in fits_readout.reasons(self.found)]
        return self.bound.analysis.located(kind("none of the fits could be made", given=reasons))


def run(context: Context, bound: Bound) -> FitsRun:
    """Make all fits of a spec.

    Args:
        context: The run.
        bound: The spec and the panel.

    Raises:
        CausalError: The panel cannot carry any fit, or is too large to be given to a task.
    """
    spec = cast("FitsSpec", bound.analysis.spec)
    started_at = datetime.now(UTC)
    with context.progress.step(f"fits of {spec.name}"):
        try:
            found_grid = plan.run(grid(spec), bound.engine)
            _check(context, spec, found_grid, columns=bound.engine.columns)
            rows = _rows(context, bound)
            found = _fitted(context, spec, found_grid, rows)
        except CausalError as error:
            raise bound.analysis.located(error) from error
    result = fits_readout.readout(spec, found, grid=found_grid)
    return FitsRun(bound, result, started_at, tuple(found), found_grid, rows)


def _check(context: Context, spec: FitsSpec, found: Grid, *, columns: Mapping[str, str]) -> None:
    """Outcomes are there and hold numbers, and the panel is small enough for a task."""
    for outcome in spec.fits.over.outcomes:
        if columns.get(outcome) not in {"number", "boolean"}:
            raise SpecError(
                "an outcome must be a column of numbers",
                given=f"{outcome} ({columns.get(outcome, 'no such column')})",
                allowed=sorted(name for name, kind in columns.items() if kind == "number"),
                key="fits.over.outcomes",
            )
    most = context.settings.limits.frame_rows
    if found.n_rows > most:
        raise DataError(
            "a task is given the whole panel of its outcome, and this one is too large: sum it by "
            "region and period first, as the job regions does",
            given=f"{found.n_rows:,} rows", allowed=f"{most:,} rows",
        )  # fmt: skip


def _rows(context: Context, bound: Bound) -> DataFrame:
    """The source at the version that the grid was read from."""
    source = bound.analysis.spec.source
    if bound.version is not None:
        source = source.model_copy(update={"version": bound.version})
    return context.lakehouse.read_source(source, beside=bound.analysis.file.path.parent)[0]


def _fitted(context: Context, spec: FitsSpec, found: Grid, rows: DataFrame) -> list[Fitted]:
    every = list(tasks(spec, found))
    size = max(_MIN_TASKS, math.ceil(len(every) / _MAX_BATCHES))
    batches = [every[first : first + size] for first in range(0, len(every), size)]
    context.progress.line(
        f"{len(found.fits):,} fits in {len(every):,} tasks: {len(found.treated):,} treated "
        f"regions, {len(found.donors):,} never treated, {len(spec.fits.over.outcomes)} outcomes"
    )
    counter = _Counter(context, total=len(found.fits))
    texts = context.side_by_side(
        {
            str(number): partial(_batch, spec, found, rows, batch, counter)
            for number, batch in enumerate(batches)
        }
    )
    return [decoded(fit, text) for answers in texts.values() for fit, text in answers]


class _Counter:
    """Counts fits over threads and shows how many there are."""

    def __init__(self, context: Context, *, total: int) -> None:
        self._context, self._total = context, total
        self._done = 0
        self._counting = threading.Lock()

    def add(self, n_fits: int) -> None:
        with self._counting:
            self._done += n_fits
            self._context.progress.bar(done=self._done, total=self._total, label="fits")
            self._context.progress.line(f"{self._done:,} of {self._total:,} fits")


def _batch(
    spec: FitsSpec,
    found: Grid,
    rows: DataFrame,
    batch: Sequence[tuple[Fit, ...]],
    counter: _Counter,
) -> list[tuple[Fit, str]]:
    """The answers of some tasks, in the order of their fits."""
    regions = replace(found, fits=())  # what travels with each task

    def fit(task: int, panel: pd.DataFrame) -> list[tuple[int, str]]:
        made = fit_each(spec, batch[task], grid=regions, rows=panel)
        return [(item.fit.number, encoded(item)) for item in made]

    outcomes = {number: fits[0].outcome for number, fits in enumerate(batch)}
    answered = rows.transform(
        fits_of(outcomes, fit=fit, columns=spec.columns, where=spec.source.conditions)
    )
    wanted = [fit_ for fits in batch for fit_ in fits]
    frame = collect_bounded(answered, max_rows=len(wanted), what=f"the fits of {spec.name}")
    texts = dict(zip(frame["number"], frame["answer"], strict=True))
    counter.add(len(wanted))
    return [(fit_, str(texts[fit_.number])) for fit_ in wanted]


def track_clearest(context: Context, found: FitsRun, opened: Run) -> None:
    """Nest the runs of the clearest fits in the MLflow run of the fits as a whole.

    A nested run is that of the same analysis by itself, with its figures, so these fits are made
    once more, here. Their number is bounded by `fits.tracked_fits`.
    """
    chosen = clearest(found)
    panel = _panel(context, found, chosen)
    for number, fit in enumerate(chosen, start=1):
        context.progress.bar(done=number - 1, total=len(chosen), label=f"log {fit.label}")
        _track_fit(context, found, fit, panel=panel, parent=opened)


def clearest(found: FitsRun) -> list[Fit]:
    """The fits of treated regions with the largest statistics."""
    made = [
        (abs(item.headline.statistic), item.fit)
        for item in found.found
        if item.headline is not None and not item.fit.is_placebo
    ]
    made.sort(key=lambda pair: (-pair[0], pair[1].number))
    return [fit for _, fit in made[: found.fits_spec.fits.tracked_fits]]


def _panel(context: Context, found: FitsRun, chosen: Sequence[Fit]) -> PandasEngine:
    """The panel of some fits on the driver; it is no larger than what a task is given."""
    spec, rows = found.fits_spec, found.rows
    names = spec.columns | {fit.outcome for fit in chosen}
    kept = filtered(rows, spec.source.conditions, kinds(rows)).select(
        [quoted(name) for name in rows.columns if name in names]
    )
    most = context.settings.limits.frame_rows
    return PandasEngine(collect_bounded(kept, max_rows=most, what=f"the panel of {spec.name}"))


def _track_fit(
    context: Context, found: FitsRun, fit: Fit, *, panel: PandasEngine, parent: Run
) -> None:
    """The run of one fit, as `analyze` would leave it."""
    spec, started_at = found.fits_spec, datetime.now(UTC)
    own = Analysis(
        spec_of(spec, fit, grid=found.grid).model_copy(update={"description": fit.label}),
        found.bound.analysis.file,
    )
    result = fit_alone(spec, fit, grid=found.grid, engine=panel)
    alone = Readout(replace(found.bound, analysis=own), result, started_at)
    with context.tracking.run(
        spec.name,
        run_name=fit.label,
        run_key=alone.run_key,
        tags=readout.tags(alone),
        parent=parent,
    ) as opened:
        readout.log(alone, opened)
