"""Pictures of regressions: coefficients with their intervals."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from causal.core.canvas import open_axes
from causal.core.result import Effect

BLUE, ORANGE, GREY = "#1f5a93", "#c8622d", "#7a7a7a"
MAX_SHOWN = 30


def coefficient_figure(effects: Sequence[Effect], *, title: str, confidence_level: float) -> Figure:
    """Coefficients and intervals, one line each; the intercept is left to the table.

    Args:
        effects: The coefficients of one outcome.
        title: The title.
        confidence_level: Nominal coverage of the intervals.
    """
    slopes = [item for item in effects if item.term != "intercept"] or list(effects)
    shown = slopes[:MAX_SHOWN]
    figure = Figure(figsize=(7.2, 1.6 + 0.32 * len(shown)), layout="constrained")
    axes = figure.subplots()
    at = np.arange(len(shown))[::-1]
    for place, item in zip(at, shown, strict=True):
        is_clear = item.ci_lower * item.ci_upper > 0
        colour = BLUE if is_clear else GREY
        axes.plot([item.ci_lower, item.ci_upper], [place, place], color=colour, linewidth=1.8)
        axes.plot(item.estimate, place, "o", color=colour, markersize=5)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(at, [item.term for item in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    open_axes(axes, grid="x")
    axes.set_xlabel(f"coefficient, {confidence_level:.0%} interval (grey: holds zero)")
    more = f" (first {MAX_SHOWN} of {len(slopes)})" if len(slopes) > MAX_SHOWN else ""
    axes.set_title(f"{title}{more}", loc="left")
    return figure
