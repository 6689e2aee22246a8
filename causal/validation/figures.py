"""Figures of the studies: rates in their promised ranges, p-values, stops without an effect."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causal.core.canvas import open_axes
from causal.validation import estimators, rates, stopping_rules

_INK, _GOOD, _BAD, _OPEN, _BAND = "#1f3b5c", "#2a7f9e", "#b3362c", "#c98a2b", "#e4edf1"
_PANELS = 6
_RULE_MARKS = {5: "o", 10: "s", 20: "^"}


def figures(table: pd.DataFrame, pvalues: pd.DataFrame) -> Mapping[str, Figure]:
    """All figures of what was studied, by file name without ending.

    Args:
        table: The rates.
        pvalues: Counts of p-values by bin.
    """
    found = {}
    if (table["study"] == estimators.STUDY).any():
        rows = table[table["study"] == estimators.STUDY]
        found["validation_estimators"] = in_their_ranges(rows)
        found["validation_pvalues"] = histograms(pvalues)
    if (table["study"] == stopping_rules.STUDY).any():
        found["validation_stopping_rules"] = stops(table[table["study"] == stopping_rules.STUDY])
    return found


def in_their_ranges(rows: pd.DataFrame) -> Figure:
    """Rejection and coverage of every estimator on both scales, with their promised ranges."""
    parts = rows["scenario"].str.rsplit(", ", n=2, expand=True)
    rows = rows.assign(scale=parts[2], label=rows["metric_type"] + ": " + rows["estimator"])
    labels = list(dict.fromkeys(rows["label"]))
    figure = Figure(figsize=(9.0, 1.2 + 0.19 * len(labels)), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    for axes, quantity, title in zip(
        both,
        (rates.REJECTION, rates.COVERAGE),
        ("rejects without an effect", "covers the effect"),
        strict=True,
    ):
        shown = rows[rows["quantity"] == quantity]
        first = shown.iloc[0]
        axes.axvspan(first["target_lower"], first["target_upper"], color=_BAND, zorder=0)
        for row in shown.to_dict("records"):
            shift = -0.18 if row["scale"] == "absolute" else 0.18
            _interval(axes, row, labels.index(row["label"]) + shift)
        axes.set_title(title, loc="left", fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        open_axes(axes, label_size=7)
    both[0].set_yticks(range(len(labels)), [text.replace("_", " ") for text in labels], fontsize=7)
    both[0].set_ylim(len(labels) - 0.3, -0.7)
    figure.supxlabel(
        "share of experiments, 95% binomial interval; upper mark absolute, lower mark relative; "
        "shaded: promised",
        fontsize=8,
    )
    return figure


def _interval(axes: Axes, row: Mapping[Any, Any], at: float) -> None:
    colour = {True: _GOOD, False: _BAD, None: _OPEN}[row["passed"]]
    axes.plot([row["ci_lower"], row["ci_upper"]], [at, at], color=colour, linewidth=1.0)
    axes.plot([row["estimate"]], [at], "o", color=colour, markersize=2.6)


def histograms(pvalues: pd.DataFrame) -> Figure:
    """p-values without an effect, one panel for each estimator."""
    panels = list(pvalues.groupby(["metric_type", "estimator"], sort=False))
    n_rows = -(-len(panels) // _PANELS)
    height = 0.8 + 1.05 * n_rows
    figure = Figure(figsize=(11.0, height))
    # Set by hand: a solver takes seconds for fifty panels.
    figure.subplots_adjust(
        left=0.06, right=0.99, bottom=0.65 / height, top=1 - 0.45 / height, hspace=0.75, wspace=0.12
    )
    grid = figure.subplots(n_rows, _PANELS, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, ((metric, estimator), rows) in zip(grid, panels, strict=False):
        counts = rows["count"].to_numpy(dtype=np.float64)
        expected = counts.sum() / len(counts)
        half = 1.96 * math.sqrt((1 - 1 / len(counts)) / expected)
        axes.axhspan(1 - half, 1 + half, color=_BAND, zorder=0)
        axes.bar(
            rows["lower"], counts / expected, width=1 / len(counts), align="edge", color=_GOOD,
            edgecolor="white", linewidth=0.3,
        )  # fmt: skip
        axes.set_title(f"{metric}\n{estimator}".replace("_", " "), loc="left", fontsize=7)
        axes.set_xticks([0, 0.5, 1])
        open_axes(axes, label_size=7)
    grid[0].set_ylim(0, 1.6)
    figure.supylabel("density", fontsize=8, x=0.01)
    figure.supxlabel(
        "p-value without an effect; shaded: 95% band of a uniform bin", fontsize=8, y=0.1 / height
    )
    return figure


def stops(rows: pd.DataFrame) -> Figure:
    """Stops without an effect by rule and number of looks."""
    kept = rows[(rows["quantity"] == rates.REJECTION) & rows["scenario"].str.contains(" equal")]
    rules = list(dict.fromkeys(kept["estimator"]))
    figure = Figure(figsize=(8.0, 1.2 + 0.3 * len(rules)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(stopping_rules.LEVEL.upper, color=_INK, linewidth=0.8, linestyle="--")
    for n_looks, mark in _RULE_MARKS.items():
        part = kept[kept["scenario"].str.startswith(f"{n_looks} ")]
        at = [rules.index(name) for name in part["estimator"]]
        axes.plot(part["estimate"], at, mark, color=_GOOD, markersize=5, label=f"{n_looks} looks")
    axes.set_yticks(range(len(rules)), rules, fontsize=8)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlim(0, None)
    axes.set_xlabel(
        "share of experiments without an effect that stop for one; dashed: 5.5%", fontsize=8
    )
    axes.legend(frameon=False, fontsize=8)
    open_axes(axes, label_size=7)
    return figure
