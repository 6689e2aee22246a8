"""Two by two: the change of the treated group less the change of the comparison group.

Assumes parallel trends: without the treatment both groups would have changed alike. Card and
Krueger (1994), "Minimum wages and employment", is the classic example.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.checks import few_clusters, panel_health, parallel_trends
from causal.core.errors import DataError, InferenceError
from causal.core.frames import (
    Column,
    Condition,
    Constant,
    FrameRequest,
    MeatRequest,
    Score,
    Term,
    linear,
)
from causal.core.gram import meat
from causal.core.inference import cr1_factor, effect, hc1_factor
from causal.core.readout import Readout
from causal.core.result import Diagnostic
from causal.quasi.did_options import DidOptions, DidSpec
from causal.quasi.effects_regression import regress_leads
from causal.quasi.panel import (
    Cell,
    Panel,
    cohort_means,
    complete_cells,
    merged,
    observe,
    observe_cells,
)
from causal.quasi.readout import lead_regressors, pre_trend
from causal.quasi.treated_clusters import ask_treated_clusters
from causal.quasi.treatment_timing import EventWindow, period_sum, treated_post

TERM = "treated x post"
_N_CELLS = 4


@dataclass(frozen=True)
class FourMeans:
    """The four cells.

    Attributes:
        cells: Each cell by whether it is treated and whether it lies after the start.
        first_post: Periods from this one on count as after.
    """

    cells: Mapping[tuple[bool, bool], Cell]
    first_post: float

    @property
    def estimate(self) -> float:
        """Change of the treated less change of the others."""
        return sum(sign(key) * cell.mean for key, cell in self.cells.items())

    @property
    def n(self) -> int:
        """Rows."""
        return sum(cell.n for cell in self.cells.values())

    @property
    def sum_squares(self) -> float:
        """Weighted residual sum of squares around the four means."""
        return sum(cell.sum_squares for cell in self.cells.values())


@dataclass(frozen=True)
class Precision:
    """Variance of the estimate, degrees of freedom of its t reference, and clusters if any."""

    variance: float
    df: float
    n_clusters: int | None = None


def sign(key: tuple[bool, bool]) -> float:
    """Sign of a cell's mean in the estimate."""
    treated, post = key
    return 1.0 if treated == post else -1.0


def estimate(spec: DidSpec, *, outcome: str) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    """The two-by-two estimate for one outcome.

    All rows enter their group's mean before or after; with `balanced: true` only units that are
    observed in every period do.
    """
    options, where = spec.options, spec.source.conditions
    observed = yield from observe(options, outcome=outcome, where=where)
    start = _start(observed)
    panel = observed.complete() if options.balanced else observed
    if _is_complete(options, panel):
        cells, n_missing = complete_cells(panel), observed.n_missing
    else:
        terms = (Column(outcome),)
        survey = yield from observe_cells(options, terms=terms, where=where)
        cells, n_missing = survey.cells, survey.n_missing
    means = _four_means(cells, first_post=start - options.anticipation)
    precision = yield from _precision(options, means, outcome=outcome, panel=panel, where=where)
    trend = yield from _pre_trend(spec, panel, outcome=outcome)
    units = panel.units()
    n_treated, n_control = panel.n_units(units)
    result = effect(
        estimator=options.estimator,
        estimand="att",
        metric=outcome,
        term=TERM,
        estimate=means.estimate,
        std_error=float(np.sqrt(precision.variance)),
        confidence_level=spec.confidence_level,
        df=precision.df,
        n_treated=n_treated,
        n_control=n_control,
        n_clusters=precision.n_clusters,
    )
    notes = [
        trend,
        panel_health.missing_rows(n_missing),
        panel_health.incomplete_units(
            observed.n_incomplete,
            n_units=observed.n + observed.n_incomplete,
            is_dropped=options.balanced,
        ),
    ]
    if precision.n_clusters is not None:
        notes.append(few_clusters.total(precision.n_clusters))
        notes += yield from ask_treated_clusters(options, panel, units=units, where=where)
    return Readout(
        effects=(result,),
        diagnostics=tuple(notes),
        params={"n_rows": means.n, "n_units": n_treated + n_control, "treatment_period": start},
        tables={
            "cohort_means": cohort_means(cells, metric=outcome),
            "cells": cell_table(means, metric=outcome),
        },
    )


def cell_table(means: FourMeans, *, metric: str) -> pd.DataFrame:
    """The four means: metric, group, phase, n, mean, std_error (NaN for a single row)."""
    rows = [
        {
            "metric": metric,
            "group": "treated" if treated else "control",
            "phase": "after" if post else "before",
            "n": cell.n,
            "mean": cell.mean,
            "std_error": np.sqrt(cell.sum_squares / cell.sum_weights / (cell.n - 1))
            if cell.n > 1
            else np.nan,
        }
        for (treated, post), cell in sorted(means.cells.items())
    ]
    return pd.DataFrame(rows)


def _start(panel: Panel) -> float:
    starts = panel.starts
    if len(starts) > 1:
        raise DataError(
            "two_by_two needs units that all start in one period; use twfe or event_study",
            given=starts,
        )
    if not any(cohort.first_treated_period is None for cohort in panel.cohorts):
        raise DataError("two_by_two needs never-treated units for comparison")
    return starts[0]


def _is_complete(options: DidOptions, panel: Panel) -> bool:
    """Whether the panel's moments hold everything that is needed."""
    return panel.n_incomplete == 0 and options.weight is None and options.clusters == options.unit


def _four_means(cells: tuple[Cell, ...], *, first_post: float) -> FourMeans:
    groups: dict[tuple[bool, bool], list[Cell]] = {}
    for cell in cells:
        post = cell.period is not None and cell.period >= first_post
        groups.setdefault((cell.first_treated_period is not None, post), []).append(cell)
    found = {key: merged(group) for key, group in groups.items()}
    if len(found) < _N_CELLS or any(cell.sum_weights <= 0 for cell in found.values()):
        raise DataError(
            "each group needs rows before and after the start of the treatment",
            given=f"{len(found)} of 4 cells have rows",
        )
    return FourMeans(dict(sorted(found.items())), first_post)


def _precision(
    options: DidOptions,
    means: FourMeans,
    *,
    outcome: str,
    panel: Panel,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, Precision]:
    if means.n <= _N_CELLS:
        raise InferenceError("too few rows for this model", given=f"{means.n} rows, 4 means")
    match options.covariance:
        case "classical":
            error = means.sum_squares / (means.n - _N_CELLS)
            spread = sum(1.0 / cell.sum_weights for cell in means.cells.values())
            return Precision(error * spread, means.n - _N_CELLS)
        case "welch":
            return _welch_changes(means, panel) if options.balanced else _welch_cells(means)
    if _is_complete(options, panel):
        return _closed_form(options, means, panel)
    return (yield from _clustered(options, means, outcome=outcome, panel=panel, where=where))


def _welch_cells(means: FourMeans) -> Precision:
    """Four independent samples."""
    return _welch([(cell.sum_squares, cell.n) for cell in means.cells.values()])


def _welch_changes(means: FourMeans, panel: Panel) -> Precision:
    """Two independent samples of the units' own changes."""
    return _welch(_change_squares(means, panel))


def _welch(samples: list[tuple[float, int]]) -> Precision:
    """Sum of the variances of independent means, Satterthwaite's degrees of freedom.

    Args:
        samples: Sum of squares around the mean and size of each sample.
    """
    if min(n for _, n in samples) <= 1:
        raise InferenceError("covariance welch needs two or more rows in each group")
    parts = [(square / (n - 1) / n, n) for square, n in samples]
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / (n - 1) for part, n in parts)
    return Precision(variance, variance**2 / spread if spread > 0 else np.inf)


def _closed_form(options: DidOptions, means: FourMeans, panel: Panel) -> Precision:
    """Robust variances of a panel whose units are all complete."""
    if options.covariance == "HC1":
        raw = sum(cell.sum_squares / cell.n**2 for cell in means.cells.values())
        return Precision(raw * hc1_factor(n=means.n, k=_N_CELLS), means.n - _N_CELLS)
    raw = sum(square / n**2 for square, n in _change_squares(means, panel))
    return _with_cluster_factor(options, raw, n=means.n, n_clusters=panel.n)


def _change_squares(means: FourMeans, panel: Panel) -> list[tuple[float, int]]:
    """Sum of squares of the units' changes around their mean, and units, by group."""
    post = panel.periods >= means.first_post
    contrast = post / post.sum() - ~post / (~post).sum()
    return [(float(contrast @ c.cross @ contrast), c.n) for c in panel.cohorts if c.n > 0]


def _with_cluster_factor(options: DidOptions, raw: float, *, n: int, n_clusters: int) -> Precision:
    factor = cr1_factor(n=n, k=_N_CELLS, n_clusters=n_clusters)
    if options.factor == "none":
        factor = 1.0
    return Precision(raw * factor, n_clusters - 1, n_clusters)


def _clustered(
    options: DidOptions,
    means: FourMeans,
    *,
    outcome: str,
    panel: Panel,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, Precision]:
    """Clustered variance, or HC1 where each row is its own cluster, in one pass of one score."""
    is_clustered = options.covariance == "cluster"
    request = MeatRequest(
        scores=(_score(options, means, outcome=outcome, panel=panel),),
        cluster=(options.clusters,) if is_clustered else (),
        weight=None if options.weight is None else Column(options.weight),
        where=where,
    )
    frame = yield request
    matrix, n_clusters = meat(frame)
    n_used = int(frame["n"].iloc[0])
    if n_used != means.n:
        raise DataError(
            f"{options.clusters} is null in some rows", given=f"{means.n - n_used} rows"
        )
    raw = float(matrix[0, 0])
    if is_clustered:
        return _with_cluster_factor(options, raw, n=means.n, n_clusters=n_clusters)
    return Precision(raw * hc1_factor(n=means.n, k=_N_CELLS), means.n - _N_CELLS)


def _score(options: DidOptions, means: FourMeans, *, outcome: str, panel: Panel) -> Score:
    """The estimate's score: each row's signed share in its mean times its residual."""
    cells = means.cells
    shares = {key: sign(key) / cell.sum_weights for key, cell in cells.items()}
    levels = {key: cell.mean for key, cell in cells.items()}
    left = _saturated(options, panel, means.first_post, shares)
    fitted = _saturated(options, panel, means.first_post, levels)
    residual = ((Column(outcome), 1.0), *((term, -value) for term, value in fitted))
    return Score(linear(left), linear(residual))


def _saturated(
    options: DidOptions,
    panel: Panel,
    first_post: float,
    values: Mapping[tuple[bool, bool], float],
) -> tuple[tuple[Term, float], ...]:
    """A value for each of the four cells as a combination of group, phase and their product."""
    timing = panel.timing
    if timing is None:
        raise DataError("two_by_two needs first_treated_period or group")
    post = period_sum(options.period, panel.periods[panel.periods >= first_post])
    treated = timing.term(EventWindow("treated", None, None), panel.periods)
    both = timing.term(treated_post(options.anticipation), panel.periods)
    base = values[False, False]
    change, gap = values[False, True] - base, values[True, False] - base
    return (
        (Constant(), base),
        (post, change),
        (treated, gap),
        (both, values[True, True] - base - change - gap),
    )


def _pre_trend(
    spec: DidSpec, panel: Panel, *, outcome: str
) -> Generator[FrameRequest, pd.DataFrame, Diagnostic]:
    """Test of the leads; with unit and period effects, clustered."""
    options = spec.options.model_copy(update={"covariance": "cluster"})
    leads = lead_regressors(options, panel)
    if not leads:
        return parallel_trends.untested("no test: fewer than two periods before the treatment")
    found = yield from regress_leads(
        options, leads, outcome=outcome, panel=panel, where=spec.source.conditions
    )
    return pre_trend(options, found, alpha=1 - spec.confidence_level)
