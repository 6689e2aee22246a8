"""Figures of an experiment: effects with intervals, arm levels, segments, corrected intervals."""

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from causal.core.canvas import open_axes
from causal.core.inference import critical_value
from causal.core.multiplicity import Correction
from causal.core.result import Effect, Result, Scale

_INK, _GOOD, _RAW = "#1f3b5c", "#2a7f9e", "#b0b7bf"
_CORRECTIONS = get_args(Correction)
_ROW_HEIGHT = 0.42
_MAX_SEGMENTS, _MAX_PANELS = 40, 24
"""What one figure by segment can show; the effects are all in the table."""
_COLUMNS = 3


def figures(result: Result, *, metrics: Sequence[str]) -> Mapping[str, Figure]:
    """All figures of a result, by file name without ending.

    Args:
        result: The result.
        metrics: Names of the metrics in the order to show.
    """
    plain = [effect for effect in result.effects if not _is_corrected(effect)]
    main = [effect for effect in plain if effect.estimand == "ate"]
    best = _first_per_comparison(main)
    out = {"arm_levels": arm_levels(result, metrics=metrics)}
    absolute = [effect for effect in best if effect.scale == "absolute"]
    out["effects_absolute"] = absolute_effects(absolute, metrics=metrics)
    relative = [effect for effect in best if effect.scale == "relative"]
    if relative:
        out["effects_relative"] = relative_effects(relative)
    if len(main) > len(best):
        has_covariates = any("cuped" in effect.estimator for effect in main)
        name = "cuped_against_raw" if has_covariates else "strata_against_raw"
        out[name] = adjusted_and_raw(main, metrics=metrics)
    corrected = [
        effect for effect in result.effects if _is_corrected(effect) and effect.scale == "absolute"
    ]
    if corrected:
        out["effects_corrected"] = corrected_effects(absolute, corrected, metrics=metrics)
    return out | _segment_figures(plain, absolute, corrected, metrics=metrics)


def _segment_figures(
    plain: Sequence[Effect],
    overall: Sequence[Effect],
    corrected: Sequence[Effect],
    *,
    metrics: Sequence[str],
) -> dict[str, Figure]:
    cate = [item for item in plain if item.estimand == "cate" and item.scale == "absolute"]
    slices = _first_per_comparison(cate)
    columns = list(dict.fromkeys(_segment(effect)[0] for effect in slices))
    return {
        f"segments_{_file_name(column)}": segment_effects(
            [effect for effect in slices if _segment(effect)[0] == column],
            overall=overall,
            corrected=corrected,
            metrics=metrics,
        )
        for column in columns
    }


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
        open_axes(axes, label_size=9)
    for axes in grid[len(metrics) :]:
        axes.set_visible(False)
    return figure


def adjusted_and_raw(effects: Sequence[Effect], *, metrics: Sequence[str]) -> Figure:
    """Each adjusted difference above its raw one; shorter intervals are what adjustment buys."""
    absolute = [effect for effect in effects if effect.scale == "absolute"]
    pairs = [(effect.metric, effect.estimator) for effect in absolute]
    names = [name for name in metrics if len({e for metric, e in pairs if metric == name}) > 1]
    panels = [[effect for effect in absolute if effect.metric == name] for name in names]
    heights = [len(panel) + 1.0 for panel in panels]
    figure = Figure(figsize=(7.5, 0.6 + _ROW_HEIGHT * 1.3 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _forest(axes, panel, [f"{effect.term} ({effect.estimator})" for effect in panel])
        axes.set_title(panel[0].metric, loc="left", fontsize=10)
    grid[-1, 0].set_xlabel(f"difference from control, {absolute[0].confidence_level:.0%} interval")
    return figure


def corrected_effects(
    effects: Sequence[Effect], corrected: Sequence[Effect], *, metrics: Sequence[str]
) -> Figure:
    """Each difference with its own interval (thick) and that of its family (thin)."""
    wider = {(effect.metric, effect.term): effect for effect in corrected}
    inside = [effect for effect in effects if (effect.metric, effect.term) in wider]
    panels = [[e for e in inside if e.metric == name] for name in metrics]
    panels = [panel for panel in panels if panel]
    figure, grid = _column_of_panels(panels)
    for axes, panel in zip(grid, panels, strict=True):
        rows = [wider[effect.metric, effect.term] for effect in panel]
        labels = [
            f"{effect.term}, adjusted p = {row.pvalue:.3g}"
            for effect, row in zip(panel, rows, strict=True)
        ]
        _whiskers(axes, rows)
        _forest(axes, panel, labels)
        axes.set_title(panel[0].metric, loc="left", fontsize=10)
    level, name = inside[0].confidence_level, corrected[0].estimator
    correction = next(item for item in _CORRECTIONS if name.endswith(f"_{item}"))
    grid[-1].set_xlabel(
        f"difference from control; thick: {level:.0%} alone, thin: {level:.0%} for the family "
        f"({correction.replace('_', '-')})",
        fontsize=9,
    )
    return figure


def segment_effects(
    slices: Sequence[Effect],
    *,
    overall: Sequence[Effect],
    corrected: Sequence[Effect],
    metrics: Sequence[str],
) -> Figure:
    """Forest plot by segment: one panel per metric and comparison, all units on top."""
    wider = {(effect.metric, effect.term): effect for effect in corrected}
    whole = {(effect.metric, effect.term): effect for effect in overall}
    keys = [key for name in metrics for key in whole if key[0] == name]
    groups = [
        (key, [e for e in slices if (e.metric, e.term.partition(" | ")[0]) == key]) for key in keys
    ]
    groups = [(key, group[:_MAX_SEGMENTS]) for key, group in groups if group][:_MAX_PANELS]
    panels = [[whole[key], *group] for key, group in groups]
    figure, grid = _column_of_panels(panels)
    for axes, (key, _), panel in zip(grid, groups, panels, strict=True):
        labels = [f"{_segment(e)[1] or 'all'} ({e.n_treated + e.n_control:,} units)" for e in panel]
        axes.axvline(whole[key].estimate, color=_INK, linewidth=0.8, linestyle="--")
        _whiskers(axes, [wider.get((e.metric, e.term)) for e in panel])
        _forest(axes, panel, labels)
        axes.set_title(f"{key[0]}: {key[1]}", loc="left", fontsize=10)
    level = slices[0].confidence_level
    thin = f", thin: {level:.0%} for the family" if wider else ""
    grid[-1].set_xlabel(
        f"difference from control by {_segment(slices[0])[0]}, {level:.0%} interval{thin}",
        fontsize=9,
    )
    return figure


def _column_of_panels(panels: Sequence[Sequence[Effect]]) -> tuple[Figure, list[Axes]]:
    heights = [len(panel) + 1.0 for panel in panels]
    figure = Figure(figsize=(7.5, 0.7 + _ROW_HEIGHT * 1.15 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    return figure, list(grid[:, 0])


def _whiskers(axes: Axes, effects: Sequence[Effect | None]) -> None:
    """Thin lines with caps, under the intervals of the same rows."""
    for row, effect in enumerate(effects):
        if effect is not None:
            ends = [effect.ci_lower, effect.ci_upper]
            axes.plot(ends, [row, row], "|-", color=_INK, linewidth=0.9, markersize=7)


def _is_corrected(effect: Effect) -> bool:
    return effect.estimator.endswith(tuple(f"_{name}" for name in _CORRECTIONS))


def _segment(effect: Effect) -> tuple[str, str]:
    """Column and level of a segment's effect; empty for all units."""
    column, _, level = effect.term.partition(" | ")[2].partition("=")
    return column, level


def _file_name(column: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in column)


def _forest(axes: Axes, effects: Sequence[Effect], labels: Sequence[str]) -> None:
    for row, effect in enumerate(effects):
        excludes_zero = effect.ci_lower > 0 or effect.ci_upper < 0
        colour = _GOOD if excludes_zero else _RAW
        axes.plot([effect.ci_lower, effect.ci_upper], [row, row], color=colour, linewidth=2.5)
        axes.plot([effect.estimate], [row], "o", color=_INK, markersize=5)
    axes.axvline(0.0, color="#555555", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(effects)), list(labels))
    axes.set_ylim(len(effects) - 0.4, -0.6)
    open_axes(axes, label_size=9)


def _first_per_comparison(effects: Sequence[Effect]) -> list[Effect]:
    """The adjusted effect where there is one: it comes first."""
    found: dict[tuple[str, str, Scale], Effect] = {}
    for effect in effects:
        found.setdefault((effect.metric, effect.term, effect.scale), effect)
    return list(found.values())
