"""Figures of curves over time: effects since exposure, and retention."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causal.core.canvas import canvas

_INK, _GOOD, _ZERO = "#1f3b5c", "#2a7f9e", "#555555"
_COLOURS = ("#7a828b", "#2a7f9e", "#c5743a", "#5b8c3e", "#7b5ea7", "#b8434e")


def novelty(curves: pd.DataFrame, *, column: str, confidence_level: float) -> dict[str, Figure]:
    """Effects by period, one figure per comparison.

    Args:
        curves: The table `novelty` of a result.
        column: What a period is.
        confidence_level: Of intervals and bands.
    """
    found = {}
    for (metric, term), rows in curves.groupby(["metric", "term"], sort=False):
        figure, axes = canvas()
        _novelty(axes, rows, confidence_level=confidence_level)
        axes.set_title(f"{metric}: {term}", loc="left", fontsize=11)
        axes.set_xlabel(f"{column.replace('_', ' ')} since exposure")
        found[f"novelty_{_file_name(f'{metric}_{term}')}"] = figure
    return found


def _novelty(axes: Axes, rows: pd.DataFrame, *, confidence_level: float) -> None:
    period = rows["period"].to_numpy()
    level = f"{confidence_level:.0%}"
    axes.fill_between(
        period, rows["band_lower"], rows["band_upper"], color=_GOOD, alpha=0.18, linewidth=0,
        label=f"{level} band for all periods together",
    )  # fmt: skip
    half = (rows["ci_upper"] - rows["ci_lower"]) / 2
    axes.errorbar(
        period, rows["estimate"], yerr=half, fmt="o", color=_INK, markersize=4.5, linewidth=1.4,
        label=f"effect, {level} interval",
    )  # fmt: skip
    axes.plot(period, rows["trend"], color=_INK, linewidth=1.0, linestyle="--", label="trend")
    axes.axhline(0.0, color=_ZERO, linewidth=0.8, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("difference from control")
    axes.legend(frameon=False, fontsize=9)


def retention(curves: pd.DataFrame, *, horizons: dict[str, int]) -> dict[str, Figure]:
    """Share of units still there by day, one figure per metric.

    Args:
        curves: The table `retention` of a result.
        horizons: Day at which each metric is read.
    """
    found = {}
    for metric, rows in curves.groupby("metric", sort=False):
        figure, axes = canvas()
        horizon = horizons[str(metric)]
        for colour, (variant, arm) in zip(
            _COLOURS * len(rows), rows.groupby("variant", sort=False), strict=False
        ):
            _steps(axes, arm, colour=colour, name=str(variant))
        axes.axvline(horizon, color=_ZERO, linewidth=0.8, linestyle=":")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylabel("still there")
        axes.set_xlabel("days since start")
        axes.set_title(f"{metric}: retention, read at day {horizon}", loc="left", fontsize=11)
        axes.set_xlim(0, max(2.0 * horizon, 1.0))
        _fit(axes, rows[rows["day"] <= max(2.0 * horizon, 1.0)])
        axes.legend(frameon=False, fontsize=9)
        found[f"retention_{_file_name(str(metric))}"] = figure
    return found


def _steps(axes: Axes, arm: pd.DataFrame, *, colour: str, name: str) -> None:
    day = np.concatenate([[0.0], arm["day"]])
    share = np.concatenate([[1.0], arm["survival"]])
    axes.step(day, share, where="post", color=colour, linewidth=1.8, label=name)
    axes.fill_between(
        arm["day"], arm["ci_lower"], arm["ci_upper"], step="post", color=colour, alpha=0.15,
        linewidth=0,
    )  # fmt: skip


def _fit(axes: Axes, rows: pd.DataFrame) -> None:
    """The share's axis starts below the lowest point that is shown."""
    lowest = float(rows[["survival", "ci_lower"]].to_numpy(dtype=float).min()) if len(rows) else 0.0
    axes.set_ylim(max(0.0, lowest - 0.05), 1.02)


def _file_name(text: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in text).split())
