"""Pictures of a switchback, drawn from its tables."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal.core.result import Result
from causal.quasi.geo.switchback_options import SwitchbackSpec
from causal.quasi.synthetic.region_figures import BLUE, GREY, ORANGE, stacked


def wash_out_figure(result: Result, *, outcome: str) -> Figure:
    """The effect as more periods after a switch are left out; the chosen one stands out."""
    table = _of(result, "by_wash_out", outcome)
    figure, (axes,) = stacked()
    _points(axes, table, at="wash_out", colours=[BLUE if c else GREY for c in table["is_chosen"]])
    chosen = table[table["is_chosen"]].iloc[0]
    axes.set_xlabel("wash-out: periods left out after a switch")
    axes.set_ylabel(f"effect on {outcome}")
    axes.set_title(
        f"{outcome}: {chosen['estimate']:+.4g} with a wash-out of {chosen['wash_out']:.0f}",
        loc="left",
    )
    return figure


def position_figure(spec: SwitchbackSpec, result: Result, *, outcome: str) -> Figure:
    """The effect in each period of a block; periods that the wash-out leaves out are shaded."""
    table = _of(result, "by_position", outcome)
    figure, (axes,) = stacked()
    if spec.options.wash_out:
        axes.axvspan(-0.5, spec.options.wash_out - 0.5, color=ORANGE, alpha=0.10, linewidth=0)
    _points(axes, table, at="position", colours=[BLUE] * len(table))
    shaded = " (shaded: the wash-out)" if spec.options.wash_out else ""
    axes.set_xlabel(f"periods since the block began{shaded}")
    axes.set_ylabel(f"effect on {outcome}")
    axes.set_title(f"{outcome}: the effect in each period of a block", loc="left")
    return figure


def _points(axes: Axes, table: pd.DataFrame, *, at: str, colours: list[str]) -> None:
    for row, colour in zip(table.to_dict("records"), colours, strict=True):
        axes.plot([row[at]] * 2, [row["ci_lower"], row["ci_upper"]], color=colour, linewidth=2.0)
        axes.plot([row[at]], [row["estimate"]], "o", color=colour, markersize=6)
    low, high = axes.get_ylim()
    if low <= 0.0 <= high:  # elsewhere it would press the effects together
        axes.axhline(0.0, color="black", linewidth=0.8)


def _of(result: Result, name: str, outcome: str) -> pd.DataFrame:
    table = result.tables[name]
    return table[table["metric"] == outcome]
