"""Pictures of group-time effects, drawn from the tables of a result."""

from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from causal.core.canvas import open_axes
from causal.core.result import Result
from causal.quasi.did_figures import BLUE, GREY
from causal.quasi.staggered_options import StaggeredSpec
from causal.quasi.treatment_timing import level

_MAX_PANELS = 12
_N_COLUMNS = 3
_MANY_POINTS = 40


def event_study_figure(spec: StaggeredSpec, result: Result, *, outcome: str) -> Figure:
    """Average effects by event time: pointwise intervals and, thin, the simultaneous band."""
    table = _of(result.tables["event_study"], outcome)
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    _prepare(axes)
    _points(axes, table, x="event_time", anticipation=spec.options.anticipation)
    axes.axvline(-0.5 - spec.options.anticipation, color=GREY, linestyle="--", linewidth=0.9)
    axes.set_xlabel("periods since the first treated period")
    axes.set_ylabel(f"effect on {outcome}")
    axes.set_title(f"Effect on {outcome} by event time", loc="left")
    _legend(figure, spec, table)
    return figure


def cohort_figure(spec: StaggeredSpec, result: Result, *, outcome: str) -> Figure:
    """Group-time effects, one panel per cohort, on common axes."""
    table = _of(result.tables["group_time"], outcome)
    starts = sorted(table["first_treated_period"].unique())
    shown = starts[:_MAX_PANELS]
    n_columns = min(_N_COLUMNS, len(shown))
    n_rows = ceil(len(shown) / n_columns)
    figure = Figure(figsize=(max(3.1 * n_columns, 6.2), 2.5 * n_rows + 1.0), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, start in zip(grid.flat, shown, strict=False):
        rows = table[table["first_treated_period"] == start]
        _prepare(axes)
        _points(axes, rows, x="period", anticipation=spec.options.anticipation)
        border = start - spec.options.anticipation - 0.5
        axes.axvline(border, color=GREY, linestyle="--", linewidth=0.9)
        n_units = rows["n_treated"].iloc[0]
        axes.set_title(f"start {level(start)}, {n_units:,} units", loc="left", fontsize=9)
    more = f" (first {len(shown)} of {len(starts)} cohorts)" if len(starts) > len(shown) else ""
    figure.suptitle(f"Effect on {outcome} by cohort and period{more}", x=0.01, ha="left")
    for axes in grid[-1]:
        axes.set_xlabel(spec.options.period)
    figure.supylabel(f"effect on {outcome}", fontsize=10)
    _legend(figure, spec, table)
    return figure


def _prepare(axes: Axes) -> None:
    open_axes(axes, grid="y")
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))


def _points(axes: Axes, table: pd.DataFrame, *, x: str, anticipation: int) -> None:
    known = table["std_error"].notna()
    before = table["event_time"] < -anticipation
    size = 3 if len(table) > _MANY_POINTS else 4.5
    for rows, colour in ((table[known & before], GREY), (table[known & ~before], BLUE)):
        axes.vlines(
            rows[x], rows["band_lower"], rows["band_upper"], color=colour, linewidth=1.0, alpha=0.75
        )
        axes.vlines(rows[x], rows["ci_lower"], rows["ci_upper"], color=colour, linewidth=2.6)
        axes.plot(rows[x], rows["estimate"], "o", color=colour, markersize=size)
    rest = table[~known]
    axes.plot(
        rest[x], rest["estimate"], "o", markerfacecolor="white", markeredgecolor=GREY,
        markersize=size + 0.5,
    )  # fmt: skip


def _legend(figure: Figure, spec: StaggeredSpec, table: pd.DataFrame) -> None:
    from matplotlib.lines import Line2D

    share = f"{spec.confidence_level:.0%}"
    handles = [
        Line2D([], [], color=GREY, marker="o", linestyle="", label="before the start"),
        Line2D([], [], color=BLUE, marker="o", linestyle="", label="from the start on"),
        Line2D([], [], color=BLUE, linewidth=2.6, label=f"{share} interval of each"),
        Line2D([], [], color=BLUE, linewidth=1.0, label=f"{share} band for all"),
    ]
    if table["std_error"].isna().any():
        handles.append(
            Line2D(
                [], [], color=GREY, marker="o", markerfacecolor="white", linestyle="",
                label="reference",
            )
        )  # fmt: skip
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=_N_COLUMNS,
        frameon=False,
        fontsize=8,
        columnspacing=1.4,
    )


def _of(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    return table[table["metric"] == outcome]
