"""The distribution of uplift scores, and effects by segment."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from causal.core.result import Effect

COLOURS = ("#1f5a93", "#c8622d", "#3f8f5b", "#8c5aa8", "#7a7a7a")
_GRID = "#d9dde2"
_MAX_SHOWN = 40


def score_figure(bins: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Shares of the rows by score, one panel per learner, with the mean.

    Args:
        bins: Columns learner, low, high and n.
        scores: Columns learner, mean and sd.
    """
    learners = list(scores["learner"])
    figure = Figure(figsize=(7.0, 1.0 + 1.7 * len(learners)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(learners), sharex=True))
    for axes, learner, colour in zip(panels, learners, COLOURS, strict=False):
        own = bins[bins["learner"] == learner]
        row = scores[scores["learner"] == learner].iloc[0]
        axes.spines[["top", "right"]].set_visible(False)
        if row["sd"] > 0:
            axes.bar(
                own["low"], own["n"] / own["n"].sum(), width=own["high"] - own["low"],
                align="edge", color=colour, edgecolor="white", linewidth=0.4,
            )  # fmt: skip
        axes.axvline(row["mean"], color="black", linewidth=1.0)
        axes.axvline(0.0, color="#7a7a7a", linewidth=0.9, linestyle="--")
        text = f"{learner.upper()}-learner: mean {row['mean']:.3g}, sd {row['sd']:.3g}"
        axes.set_title(text, loc="left", fontsize=10)
        axes.set_ylabel("share of rows" if row["sd"] > 0 else "all rows")
        if row["sd"] == 0:
            axes.set_yticks([])
    panels[-1].set_xlabel("effect")
    return figure


def segment_figure(effects: Sequence[Effect]) -> Figure:
    """Mean effects by segment with intervals, one colour per learner.

    Args:
        effects: Of one outcome.
    """
    learners = list(dict.fromkeys(e.estimator for e in effects if e.estimand == "cate"))
    terms = list(dict.fromkeys(item.term for item in effects if item.estimand == "cate"))
    shown = terms[:_MAX_SHOWN]
    figure = Figure(figsize=(7.0, 1.6 + 0.34 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    step = 0.6 / max(len(learners), 1)
    for position, (learner, colour) in enumerate(zip(learners, COLOURS, strict=False)):
        own = {item.term: item for item in effects if item.estimator == learner}
        at = np.arange(len(shown)) + step * (position - (len(learners) - 1) / 2)
        found = [own[term] for term in shown]
        axes.hlines(
            at, [item.ci_lower for item in found], [item.ci_upper for item in found],
            color=colour, linewidth=1.6,
        )  # fmt: skip
        label = learner.replace("_learner", "").upper() + "-learner"
        axes.plot(
            [item.estimate for item in found], at, "o", color=colour, markersize=5, label=label
        )
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("mean effect")
    more = f" (the first {len(shown)} of {len(terms)})" if len(terms) > len(shown) else ""
    axes.set_title(f"Mean effects by segment{more}", loc="left")
    figure.legend(frameon=False, loc="outside lower center", ncols=len(learners))
    return figure
