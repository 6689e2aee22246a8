"""Figure of a posterior: density, region of practical equivalence and what lies beyond."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from causal.core.gram import Array
from causal.core.result import Scale
from causal.experiments.bayes import Posterior, PosteriorSummary

_INK, _GOOD, _BAD, _NEUTRAL = "#1f3b5c", "#2a7f9e", "#b4472e", "#d9dde2"
_N_POINTS = 161
_TAIL = 5e-5


def posterior_figure(
    posterior: Posterior, summary: PosteriorSummary, *, label: str, scale: Scale
) -> Figure:
    """Density of an effect, shaded where it is worse than tolerated and where it is a gain.

    Args:
        posterior: The posterior.
        summary: What was read from it.
        label: Name of the effect for the axis, such as `lift of revenue`.
        scale: Relative effects are shown in per cent.
    """
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    x = np.linspace(posterior.quantile(_TAIL), posterior.quantile(1 - _TAIL), _N_POINTS)
    x = np.unique([*x, 0.0, -summary.worse_than]) if x[0] < 0 < x[-1] else x
    density = posterior.pdf(x)
    axes.plot(x, density, color=_INK, linewidth=1.6)
    shown = _shown(scale)
    _shade(axes, x, density, where=(x <= -summary.worse_than).tolist(), colour=_BAD, label=(
        f"worse than {shown(-summary.worse_than)}: {_chance(summary.prob_worse)}"
    ))  # fmt: skip
    _shade(axes, x, density, where=(x >= 0).tolist(), colour=_GOOD, label=(
        f"above zero: {_chance(summary.prob_positive)}"
    ))  # fmt: skip
    if summary.rope_upper > summary.rope_lower:
        axes.axvspan(summary.rope_lower, summary.rope_upper, color=_NEUTRAL, alpha=0.55, zorder=0,
            linewidth=0, label=(
            f"practically equal, {shown(summary.rope_lower)} to {shown(summary.rope_upper)}: "
            f"{_chance(summary.prob_rope)}"
        ))  # fmt: skip
    top = float(density.max())
    axes.plot([summary.hdi_lower, summary.hdi_upper], [-0.04 * top] * 2, color=_INK, linewidth=4,
        solid_capstyle="butt", label=(
        f"{summary.confidence_level:.0%} of highest density, "
        f"{shown(summary.hdi_lower)} to {shown(summary.hdi_upper)}"
    ))  # fmt: skip
    axes.plot([summary.median], [-0.04 * top], "o", color="white", markeredgecolor=_INK)
    axes.axvline(0.0, color="#555555", linewidth=0.8, linestyle=":")
    _dress(axes, label=label, scale=scale, top=top)
    return figure


def _shade(
    axes: Axes, x: Array, density: Array, *, where: list[bool], colour: str, label: str
) -> None:
    axes.fill_between(
        x, 0.0, density, where=where, color=colour, alpha=0.45, label=label, linewidth=0
    )


def _dress(axes: Axes, *, label: str, scale: Scale, top: float) -> None:
    if scale == "relative":
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(label)
    axes.set_ylabel("posterior density")
    axes.set_yticks([])
    axes.set_ylim(-0.09 * top, 1.45 * top)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def _shown(scale: Scale) -> Callable[[float], str]:
    return "{:+.2%}".format if scale == "relative" else "{:+.3g}".format


def _chance(probability: float) -> str:
    """A probability in per cent that never claims certainty."""
    if 0 < probability < 0.001:  # noqa: PLR2004 - what one decimal cannot show
        return "< 0.1 %"
    if 0.999 < probability < 1:  # noqa: PLR2004
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"
