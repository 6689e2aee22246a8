"""Group-time effects and their averages as rows of the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.gram import PanelGram
from causal.core.inference import effect
from causal.core.result import Effect
from causal.quasi.group_time import GroupTime
from causal.quasi.group_time_averages import Average
from causal.quasi.group_time_inference import Inference
from causal.quasi.staggered_options import Kind, StaggeredSpec
from causal.quasi.staggered_panel import Design
from causal.quasi.treatment_timing import level

ESTIMATOR = "callaway_santanna"
LABELS: Mapping[Kind, tuple[str, str]] = {
    "dynamic": ("event_study", "event_time"),
    "group": ("cohort_effects", "cohort"),
    "calendar": ("period_effects", "period"),
}
"""Table and term of the averages of a kind."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is to be said of one estimate.

    Attributes:
        term: Its name.
        n_treated: Units of the cohorts behind it.
        n_control: Units of their comparison groups.
        labels: Further columns of its table.
        is_reference: Whether it is zero by definition.
    """

    term: str
    n_treated: int
    n_control: int
    labels: Mapping[str, float]
    is_reference: bool = False


def cell_rows(cells: Sequence[GroupTime]) -> list[Row]:
    """Rows of group-time effects."""
    return [
        Row(
            term=f"att({level(cell.start)},{level(cell.period)})",
            n_treated=cell.n_treated,
            n_control=cell.n_control,
            labels={
                "first_treated_period": cell.start, "period": cell.period,
                "base_period": cell.base_period, "event_time": cell.event_time,
            },
            is_reference=cell.is_reference,
        )
        for cell in cells
    ]  # fmt: skip


def average_rows(found: Average, cells: Sequence[GroupTime], design: Design) -> list[Row]:
    """Rows of the averages of a kind but the overall one."""
    if found.kind not in LABELS:
        return []
    name = LABELS[found.kind][1]
    column = "first_treated_period" if name == "cohort" else name
    return [
        _row(f"{name}={level(label)}", [cells[k] for k in members], design, {column: label})
        for label, members in zip(found.labels, found.members, strict=True)
    ]


def overall_row(found: Average, cells: Sequence[GroupTime], design: Design) -> Row:
    """Row of the overall average of a kind."""
    return _row(found.kind, [cells[k] for k in found.overall_members], design, {})


def effect_rows(
    spec: StaggeredSpec, rows: Sequence[Row], found: Inference, *, metric: str, n_clusters: int
) -> list[Effect]:
    """The estimates that have a standard error, as effects with pointwise intervals."""
    return [
        effect(
            estimator=ESTIMATOR,
            estimand="att",
            metric=metric,
            term=row.term,
            estimate=float(found.values[k]),
            std_error=float(found.std_errors[k]),
            confidence_level=spec.confidence_level,
            df=found.df,
            n_treated=row.n_treated,
            n_control=row.n_control,
            n_clusters=n_clusters,
        )
        for k, row in enumerate(rows)
        if found.is_known[k]
    ]


def table(rows: Sequence[Row], found: Inference, *, metric: str) -> pd.DataFrame:
    """The estimates with intervals and simultaneous bands.

    Columns: metric, term, the labels, estimate, std_error, ci_lower, ci_upper, band_lower,
    band_upper, n_treated, n_control. The reference of a universal base and estimates without
    variance have NaN for their standard error and bounds.
    """
    errors = found.std_errors
    sizes = pd.DataFrame(
        {
            "estimate": found.values,
            "std_error": errors,
            "ci_lower": found.values - found.pointwise * errors,
            "ci_upper": found.values + found.pointwise * errors,
            "band_lower": found.values - found.simultaneous * errors,
            "band_upper": found.values + found.simultaneous * errors,
            "n_treated": [row.n_treated for row in rows],
            "n_control": [row.n_control for row in rows],
        }
    )
    labels = pd.DataFrame([{"metric": metric, "term": row.term, **row.labels} for row in rows])
    return pd.concat([labels, sizes], axis=1)


def cohort_means(cohorts: Sequence[PanelGram], *, metric: str) -> pd.DataFrame:
    """Mean outcome of each cohort by period, weighted where units are.

    Columns: metric, first_treated_period (NaN: never), period, n, mean.
    """
    frames = [
        pd.DataFrame(
            {
                "metric": metric,
                "first_treated_period": np.nan if start is None else start,
                "period": cohort.periods,
                "n": cohort.n,
                "mean": cohort.mean,
            }
        )
        for cohort in cohorts
        for start in [cohort.first_treated_period]
    ]
    return pd.concat(frames, ignore_index=True)


def _row(
    term: str, members: Sequence[GroupTime], design: Design, labels: Mapping[str, float]
) -> Row:
    treated = {cell.cohort for cell in members}
    controls = {c for cell in members for c in cell.controls}
    return Row(
        term=term,
        n_treated=design.n_units(sorted(treated)),
        n_control=design.n_units(sorted(controls)),
        labels=labels,
        is_reference=all(cell.is_reference for cell in members),
    )
