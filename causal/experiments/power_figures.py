"""Figures of a plan: power by sample size, detectable effect by weeks, adjusted against raw."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from causal.core.canvas import open_axes
from causal.core.result import Result

_INK, _GOOD, _RAW = "#1f3b5c", "#2a7f9e", "#b0b7bf"
_COLUMNS = 2


def figures(result: Result) -> Mapping[str, Figure]:
    """All figures of a plan, by file name without ending."""
    plan, out = result.tables["plan"], {}
    if "power_by_size" in result.tables:
        out["power_by_size"] = power_by_size(result.tables["power_by_size"], plan=plan)
    if "mde_by_duration" in result.tables:
        table = result.tables["mde_by_duration"]
        if table["detectable"].notna().any():
            out["mde_by_weeks"] = mde_by_weeks(table, plan=plan)
    return out


def power_by_size(table: pd.DataFrame, *, plan: pd.DataFrame) -> Figure:
    """Power of the planned effect against units in all arms, a panel per metric."""
    power, units = float(plan["power"].iloc[0]), plan["units"].iloc[0]
    figure, panels = _panels(table)
    for axes, (name, rows) in panels:
        lines = _lines(rows)
        for line, label, colour in lines:
            axes.plot(line["n_total"], line["power"], color=colour, label=label, linewidth=2)
            _mark(axes, _planned(plan, line), is_left=colour == _GOOD and len(lines) > 1)
        axes.axhline(power, color="#555555", linewidth=0.8, linestyle=":")
        if pd.notna(units):
            axes.axvline(float(units), color="#555555", linewidth=0.8, linestyle="--")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        # On a narrow axis the ticks between would get labels of their own, one over the other.
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title(name, loc="left", fontsize=10)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8, loc="lower right")
        open_axes(axes, label_size=8)
    figure.supxlabel("units in all arms", fontsize=9)
    figure.supylabel("power", fontsize=9)
    return figure


def mde_by_weeks(table: pd.DataFrame, *, plan: pd.DataFrame) -> Figure:
    """Smallest effect (or margin) that weeks of enrolment can show, a panel per metric."""
    figure, panels = _panels(table)
    for axes, (name, rows) in panels:
        for line, label, colour in _lines(rows):
            axes.plot(
                line["weeks"],
                line["detectable"].astype(float).abs(),
                "o-",
                color=colour,
                label=label,
                linewidth=2,
                markersize=3,
            )
        wanted = _wanted(_planned(plan, rows))
        if wanted is not None:
            axes.axhline(wanted, color="#555555", linewidth=0.8, linestyle=":", label="planned")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        what = "margin" if (rows["question"] == "non_inferiority").all() else "effect"
        if rows["scale"].iloc[0] == "relative":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            what = f"relative {what}"
        axes.set_title(f"{name}: {what}", loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=8)
        open_axes(axes, label_size=8)
    figure.supxlabel("weeks of enrolment", fontsize=9)
    figure.supylabel("smallest that can be shown", fontsize=9)
    return figure


def _panels(
    table: pd.DataFrame,
) -> tuple[Figure, list[tuple[Axes, tuple[str, pd.DataFrame]]]]:
    """A panel for each metric and treatment; the treatment is named where there are several."""
    groups = list(table.groupby(["metric", "treatment"], sort=False))
    has_several = table["treatment"].nunique() > 1
    n_columns = min(len(groups), _COLUMNS)
    n_rows = -(-len(groups) // _COLUMNS)
    figure = Figure(figsize=(0.6 + 3.9 * n_columns, 0.6 + 2.7 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in grid[len(groups) :]:
        axes.set_visible(False)
    named = [
        (f"{metric}, {treatment}" if has_several else str(metric), rows)
        for (metric, treatment), rows in groups
    ]
    return figure, list(zip(grid, named, strict=False))


def _lines(rows: pd.DataFrame) -> list[tuple[pd.DataFrame, str, str]]:
    """Points, label and colour of each estimator; raw is grey beside an adjusted one."""
    estimators = list(dict.fromkeys(rows["estimator"]))
    out = []
    for estimator in reversed(estimators):
        label = "with covariates" if estimator == "cuped" else "without covariates"
        colour = _GOOD if estimator == estimators[0] else _RAW
        out.append((rows[rows["estimator"] == estimator], label, colour))
    return out


def _planned(plan: pd.DataFrame, rows: pd.DataFrame) -> "pd.Series[Any]":
    """The row of the plan that a curve belongs to."""
    first = rows.iloc[0]
    names = ["metric", "treatment", "estimator"]
    return plan[(plan[names] == first[names]).all(axis=1)].iloc[0]


def _mark(axes: Axes, row: "pd.Series[Any]", *, is_left: bool) -> None:
    """The planned sample size on its curve."""
    at = (float(row["n_total"]), float(row["power"]))
    axes.plot(*at, "o", color=_INK, markersize=5, zorder=3)
    axes.annotate(
        EngFormatter(places=1, sep="")(at[0]),
        at,
        xytext=(-7, 5) if is_left else (7, -11),
        textcoords="offset points",
        ha="right" if is_left else "left",
        fontsize=8,
        color=_INK,
    )


def _wanted(row: "pd.Series[Any]") -> float | None:
    for name in ("mde", "margin"):
        if pd.notna(row[name]):
            return float(row[name])
    return None
