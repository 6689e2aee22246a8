"""The plain axes on which figures are drawn."""

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_GRID = "#d9dde2"


def canvas(*, height: float = 4.2, grid: Literal["x", "y"] | None = "y") -> tuple[Figure, Axes]:
    """A figure with one panel, open at the top and right, with lines behind the data.

    Args:
        height: In inches.
        grid: Along which values lines are drawn; `None`: no lines.
    """
    figure = Figure(figsize=(7.0, height), layout="constrained")
    axes = figure.subplots()
    open_axes(axes, grid=grid)
    return figure, axes


def open_axes(
    axes: Axes, *, grid: Literal["x", "y"] | None = None, label_size: float | None = None
) -> None:
    """Leave the frame away at the top and right.

    Args:
        axes: A panel.
        grid: Along which values lines are drawn behind the data.
        label_size: Points of the tick labels.
    """
    axes.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axes.grid(axis=grid, color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    if label_size is not None:
        axes.tick_params(labelsize=label_size)
