"""What the pictures of synthetic control and synthetic difference in differences share."""

from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causal.core.canvas import canvas, open_axes
from causal.quasi.time_axis import shown

BLUE, ORANGE, GREY, LIGHT = "#1f5a93", "#c8622d", "#7a7a7a", "#c9c9c9"
_CYCLE = ("#1f5a93", "#c8622d", "#3f8f5b", "#8c5aa8", "#b8962e", "#4fa3b8")
_MAX_DONORS = 15
_SHOWN_WEIGHT = 0.001


def stacked(*, n_panels: int = 1, height: float = 4.4) -> tuple[Figure, list[Axes]]:
    """A figure with panels below each other."""
    figure = Figure(figsize=(7.2, height * n_panels), layout="constrained")
    found = list(figure.subplots(n_panels, 1, squeeze=False)[:, 0])
    for axes in found:
        open_axes(axes, grid="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    return figure, found


def on_axis(periods: "pd.Series[Any]") -> "pd.Series[float]":
    """Where periods lie on an axis: numbers as they are, dates in days as matplotlib counts."""
    if not _are_dates(periods):
        return periods
    days = date2num(periods.to_numpy())  # type: ignore[no-untyped-call]
    return pd.Series(days, index=periods.index)


def period_ticks(axes: Axes, periods: "pd.Series[Any]") -> None:
    """Ticks at whole numbers or at dates, whichever the periods are."""
    if _are_dates(periods):
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))


def _are_dates(periods: "pd.Series[Any]") -> bool:
    return pd.api.types.is_datetime64_any_dtype(periods)


def mark_start(axes: Axes, *, last_before: float, first_after: float) -> None:
    """A dashed line between the last period before and the first after the start."""
    axes.axvline(
        (last_before + first_after) / 2, color=GREY, linestyle="--", linewidth=0.9, zorder=1
    )


def start_line(axes: Axes, periods: "pd.Series[float]", *, start: float) -> None:
    """The same, by the periods that occur and the first treated one."""
    ordered = sorted(set(periods))
    for before, after in pairwise(ordered):
        if after == start:
            mark_start(axes, last_before=before, first_after=after)


def weight_figure(table: pd.DataFrame, *, outcome: str, group: str) -> Figure:
    """Weights of the donors, the largest on top, one colour per treated region or start.

    Args:
        table: Columns metric, donor, weight and the one named by `group`.
        outcome: The metric.
        group: Column by which weights are set apart.
    """
    own = table[table["metric"] == outcome]
    wide = own.pivot(index="donor", columns=group, values="weight").fillna(0.0)
    size = wide.abs().max(axis=1).sort_values(ascending=False, kind="stable")
    top = [name for name in size.index[:_MAX_DONORS] if size[name] >= _SHOWN_WEIGHT]
    groups = list(wide.columns)[: len(_CYCLE)]
    height = max(2.4, 0.32 * len(top) * max(1, len(groups) / 2) + 1.2)
    figure, axes = canvas(height=height, grid="x")
    thickness = 0.75 / len(groups)
    for number, name in enumerate(groups):
        at = [row + (number - (len(groups) - 1) / 2) * thickness for row in range(len(top))]
        axes.barh(
            at, wide.loc[top, name], height=thickness * 0.9, color=_CYCLE[number],
            label=_text(name),
        )  # fmt: skip
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(top)), top)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    rest = int((size >= _SHOWN_WEIGHT).sum()) - len(top)
    more = f" (and {rest} smaller ones)" if rest else ""
    axes.set_xlabel("share of the synthetic region")
    axes.set_title(f"Donor weights for {outcome}{more}", loc="left")
    if len(groups) > 1:
        axes.legend(frameon=False, fontsize=8, title=group, title_fontsize=8)
    return figure


def _text(group: object) -> str:
    return shown(group) if isinstance(group, pd.Timestamp) else str(group).removesuffix(".0")
