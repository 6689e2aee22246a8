"""The picture of Arkhangelsky et al. (2021), figure 1: what is compared with what."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal.core.result import Result
from causal.quasi.synthetic.did_readout import SyntheticDidSpec
from causal.quasi.synthetic.region_figures import (
    BLUE,
    GREY,
    ORANGE,
    on_axis,
    period_ticks,
    stacked,
    start_line,
)

_MAX_STARTS = 4
_BAND = 0.18


def comparison_figure(spec: SyntheticDidSpec, result: Result, *, outcome: str) -> Figure:
    """Both paths, their weighted means before and after, the effect, and the time weights.

    One panel per start, the first four.
    """
    paths = _of(result.tables["paths"], outcome)
    weights = _of(result.tables["time_weights"], outcome)
    starts = sorted(paths["start"].unique())
    figure, panels = stacked(n_panels=min(len(starts), _MAX_STARTS))
    for axes, start in zip(panels, starts[:_MAX_STARTS], strict=True):
        own = paths[paths["start"] == start]
        _draw(axes, own, weights[weights["start"] == start])
        period_ticks(axes, own["period"])
        start_line(axes, on_axis(own["period"]), start=_first(own))
        axes.set_xlabel(spec.options.period)
        axes.set_ylabel(f"mean {outcome}")
    found = next(e for e in result.effects if e.metric == outcome and e.term == "average")
    more = f", first {_MAX_STARTS} of {len(starts)} starts" if len(starts) > _MAX_STARTS else ""
    panels[0].set_title(
        f"{outcome}: {found.estimate:+.4g} [{found.ci_lower:.4g}, {found.ci_upper:.4g}], "
        f"{found.confidence_level:.0%} interval ({found.estimator}{more})",
        loc="left",
    )
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _first(paths: pd.DataFrame) -> float:
    """Where the first treated period lies."""
    return float(on_axis(paths.loc[paths["event_time"] == 0, "period"]).iloc[0])


def _draw(axes: Axes, paths: pd.DataFrame, weights: pd.DataFrame) -> None:
    paths = paths.assign(x=on_axis(paths["period"]))
    weights = weights.assign(x=on_axis(weights["period"]))
    after = paths[paths["is_post"]]
    axes.plot(paths["x"], paths["treated"], color=BLUE, linewidth=1.8, label="treated")
    axes.plot(paths["x"], paths["synthetic"], color=ORANGE, linewidth=1.8, label="weighted donors")
    share = weights["weight"].to_numpy()
    late = float(after["x"].mean())
    late_treated, late_donors = float(after["treated"].mean()), float(after["synthetic"].mean())
    has_time_weights = share.sum() > 0
    shift = 0.0
    if has_time_weights:
        before = paths[~paths["is_post"]]
        early = float(share @ weights["x"])
        early_treated = float(share @ before["treated"])
        early_donors = float(share @ before["synthetic"])
        shift = early_treated - early_donors
        axes.plot([early, late], [early_treated, late_treated], "-o", color=BLUE, markersize=4,
                  linewidth=0.9)  # fmt: skip
        axes.plot([early, late], [early_donors, late_donors], "-o", color=ORANGE, markersize=4,
                  linewidth=0.9)  # fmt: skip
        axes.plot(
            [early, late], [early_treated, late_donors + shift], "--", color=GREY, linewidth=1.2,
            label="treated, had it changed like the donors",
        )  # fmt: skip
        _draw_time_weights(axes, weights)
    axes.annotate(
        "", xy=(late, late_treated), xytext=(late, late_donors + shift),
        arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 1.4},
    )  # fmt: skip
    axes.annotate(
        f"{late_treated - late_donors - shift:+.4g}",
        xy=(late, (late_treated + late_donors + shift) / 2), xytext=(6, 0),
        textcoords="offset points", va="center", fontsize=9,
    )  # fmt: skip


def _draw_time_weights(axes: Axes, weights: pd.DataFrame) -> None:
    """Bars at the foot of the panel, below the lines."""
    low, high = axes.get_ylim()
    foot = low - _BAND * (high - low)
    periods = weights["x"].to_numpy()
    width = 0.8 * float(np.diff(periods).min()) if len(periods) > 1 else 0.8
    size = weights["weight"] / weights["weight"].max() * _BAND * (high - low) * 0.85
    axes.bar(periods, size, bottom=foot, width=width, color=GREY, alpha=0.45, label="time weights")
    axes.set_ylim(foot, high)


def _of(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    return table[table["metric"] == outcome]
