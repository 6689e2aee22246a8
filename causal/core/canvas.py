"""The plain axes on which figures of one panel are drawn."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_GRID = "#d9dde2"


def canvas() -> tuple[Figure, Axes]:
    """A figure with one panel, open at the top and right, with lines behind the data."""
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes
