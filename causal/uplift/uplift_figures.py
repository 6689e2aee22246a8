"""The distribution of uplift scores."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from causal.core.canvas import open_axes

COLOURS = ("#1f5a93", "#c8622d", "#3f8f5b", "#8c5aa8", "#7a7a7a")


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
        open_axes(axes)
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
