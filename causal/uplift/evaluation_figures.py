"""Figures of an uplift evaluation: Qini and TOC curves with their bands, uplift by decile."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from causal.core.canvas import canvas
from causal.uplift.resampling import Score

_INK, _BAND, _GREY, _ORANGE = "#1f3b5c", "#8fb3cc", "#8a929b", "#d9822b"


def qini_figure(band: pd.DataFrame, *, outcome: str, score: Score | None = None) -> Figure:
    """The Qini curve with its pointwise interval and the line of a random order.

    Args:
        band: What `causal.uplift.evaluation.qini_band` returns.
        outcome: Name of the outcome, for the axis.
        score: The Qini coefficient, for the title.
    """
    figure, axes = canvas()
    axes.fill_between(
        band["share"], band["ci_lower"], band["ci_upper"], color=_BAND, alpha=0.45, linewidth=0,
        label="pointwise interval",
    )  # fmt: skip
    axes.plot(band["share"], band["estimate"], color=_INK, linewidth=2, label="by score")
    axes.plot(band["share"], band["random"], "--", color=_GREY, label="random order")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("units targeted, highest scores first")
    axes.set_ylabel(f"extra {outcome} per treated unit")
    axes.set_title(_title(score), loc="left")
    axes.legend(frameon=False, loc="upper left")
    return figure


def toc_figure(band: pd.DataFrame, *, outcome: str) -> Figure:
    """How much more the units with the highest scores gain than all, with its interval.

    Args:
        band: What `causal.uplift.evaluation.toc_band` returns.
        outcome: Name of the outcome, for the axis.
    """
    figure, axes = canvas()
    axes.fill_between(
        band["share"], band["ci_lower"], band["ci_upper"], color=_BAND, alpha=0.45, linewidth=0,
        label="pointwise interval",
    )  # fmt: skip
    axes.plot(band["share"], band["estimate"], color=_INK, linewidth=2, label="by score")
    axes.axhline(0, linestyle="--", color=_GREY, label="random order")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("units targeted, highest scores first")
    axes.set_ylabel(f"effect on {outcome}, less that on all")
    axes.set_title("Targeting operator characteristic", loc="left")
    axes.legend(frameon=False, loc="upper right")
    return figure


def decile_figure(table: pd.DataFrame, *, outcome: str) -> Figure:
    """Observed uplift with intervals by group of the score, beside the mean score.

    Args:
        table: What `causal.uplift.groups.uplift_by_group` returns.
        outcome: Name of the outcome, for the axis.
    """
    figure, axes = canvas()
    at = table["group"].to_numpy()
    half = table["ci_upper"] - table["uplift"]
    axes.bar(at, table["uplift"], width=0.7, color=_BAND, label="observed")
    axes.errorbar(at, table["uplift"], yerr=half, fmt="none", color=_INK, capsize=3)
    axes.plot(at, table["score"], "o", color=_ORANGE, label="predicted (mean score)")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(at)
    axes.set_xlabel(f"group of units, 1 of {len(table)} has the highest scores")
    axes.set_ylabel(f"uplift in {outcome}")
    axes.set_title("Observed and predicted uplift by group of the score", loc="left")
    axes.legend(frameon=False)
    return figure


def _title(score: Score | None) -> str:
    if score is None:
        return "Qini curve"
    text = f"Qini curve: coefficient {score.estimate:.3f} ({score.definition})"
    if score.ci_lower is None or score.ci_upper is None:
        return text
    interval = f"[{score.ci_lower:.3f}, {score.ci_upper:.3f}]"
    return f"{text}, {score.confidence_level:.0%} interval {interval}"
