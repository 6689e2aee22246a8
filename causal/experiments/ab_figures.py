"""Figures of an experiment: effects with intervals, arm levels, adjusted against raw effects."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from causal.core.inference import critical_value
from causal.core.result import Effect, Result, Scale

_INK, _GOOD, _RAW = "#1f3b5c", "#2a7f9e", "#b0b7bf"
_ROW_HEIGHT = 0.42
_COLUMNS = 3


def figures(result: Result, *, metrics: Sequence[str]) -> Mapping[str, Figure]:
    """All figures of a result, by file name without ending.

    Args:
        result: The result.
        metrics: Names of the metrics in the order to show.
    """
    best = _first_per_comparison(result.effects)
    out = {"arm_levels": arm_levels(result, metrics=metrics)}
    absolute = [effect for effect in best if effect.scale == "absolute"]
    out["effects_absolute"] = absolute_effects(absolute, metrics=metrics)
    relative = [effect for effect in best if effect.scale == "relative"]
    if relative:
        out["effects_relative"] = relative_effects(relative)
    if any(effect.estimator == "cuped" for effect in result.effects):
        out["cuped_against_raw"] = adjusted_and_raw(result.effects, metrics=metrics)
    return out


def relative_effects(effects: Sequence[Effect]) -> Figure:
    """Forest plot of lifts: one row per metric and treatment, one common axis in per cent."""
    figure = Figure(figsize=(7.5, 1.3 + _ROW_HEIGHT * len(effects)), layout="constrained")
    axes = figure.subplots()
    _forest(axes, effects, [f"{effect.metric}: {effect.term}" for effect in effects])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(f"change relative to control, {effects[0].confidence_level:.0%} interval")
    return figure


def absolute_effects(effects: Sequence[Effect], *, metrics: Sequence[str]) -> Figure:
    """Forest plots of differences: one panel per metric, for each has its own unit."""
    panels = [[effect for effect in effects if effect.metric == name] for name in metrics]
    heights = [len(panel) + 1.0 for panel in panels]
    figure = Figure(figsize=(7.5, 0.6 + _ROW_HEIGHT * 1.4 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _forest(axes, panel, [effect.term for effect in panel])
        axes.set_title(panel[0].metric, loc="left", fontsize=10)
    grid[-1, 0].set_xlabel(f"difference from control, {effects[0].confidence_level:.0%} interval")
    return figure


def arm_levels(result: Result, *, metrics: Sequence[str]) -> Figure:
    """Level of each arm with its interval, one panel per metric."""
    table = result.tables["arms"].drop_duplicates(["metric", "variant"])
    half = critical_value(result.effects[0].confidence_level)
    n_rows = -(-len(metrics) // _COLUMNS)
    n_columns = min(len(metrics), _COLUMNS)
    figure = Figure(figsize=(1.0 + 2.9 * n_columns, 0.4 + 2.5 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, name in zip(grid, metrics, strict=False):
        rows = table[table["metric"] == name]
        at = np.arange(len(rows))
        axes.errorbar(
            at, rows["mean"], yerr=half * rows["std_error"], fmt="o", color=_INK, capsize=3
        )
        axes.set_xticks(at, rows["variant"].tolist())
        axes.set_xlim(-0.6, len(rows) - 0.4)
        axes.set_title(name, fontsize=10)
        _tidy(axes)
    for axes in grid[len(metrics) :]:
        axes.set_visible(False)
    return figure


def adjusted_and_raw(effects: Sequence[Effect], *, metrics: Sequence[str]) -> Figure:
    """Each adjusted difference above its raw one; shorter intervals are what covariates buy."""
    absolute = [effect for effect in effects if effect.scale == "absolute"]
    with_covariates = {effect.metric for effect in absolute if effect.estimator == "cuped"}
    names = [name for name in metrics if name in with_covariates]
    panels = [[effect for effect in absolute if effect.metric == name] for name in names]
    heights = [len(panel) + 1.0 for panel in panels]
    figure = Figure(figsize=(7.5, 0.6 + _ROW_HEIGHT * 1.3 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _forest(axes, panel, [f"{effect.term} ({effect.estimator})" for effect in panel])
        axes.set_title(panel[0].metric, loc="left", fontsize=10)
    grid[-1, 0].set_xlabel(f"difference from control, {absolute[0].confidence_level:.0%} interval")
    return figure


def _forest(axes: Axes, effects: Sequence[Effect], labels: Sequence[str]) -> None:
    for row, effect in enumerate(effects):
        excludes_zero = effect.ci_lower > 0 or effect.ci_upper < 0
        colour = _GOOD if excludes_zero else _RAW
        axes.plot([effect.ci_lower, effect.ci_upper], [row, row], color=colour, linewidth=2.5)
        axes.plot([effect.estimate], [row], "o", color=_INK, markersize=5)
    axes.axvline(0.0, color="#555555", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(effects)), list(labels))
    axes.set_ylim(len(effects) - 0.4, -0.6)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def _first_per_comparison(effects: Sequence[Effect]) -> list[Effect]:
    """The adjusted effect where there is one: it comes first."""
    found: dict[tuple[str, str, Scale], Effect] = {}
    for effect in effects:
        found.setdefault((effect.metric, effect.term, effect.scale), effect)
    return list(found.values())
