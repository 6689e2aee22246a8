"""Pictures of an instrumental-variable regression."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal.core.canvas import open_axes
from causal.core.result import Result
from causal.instruments.options import IvSpec, variable_name

BLUE, ORANGE, GREY = "#1f5a93", "#c8622d", "#7a7a7a"
_NAMES = {"2sls": "two-stage least squares", "liml": "LIML", "fuller": "Fuller"}


def estimate_figure(spec: IvSpec, result: Result, *, outcome: str) -> Figure:
    """The estimate beside least squares and, for one treatment, the Anderson-Rubin set."""
    treatments = [variable_name(item) for item in spec.options.treatments]
    main = _of(result.tables["coefficients"], outcome).set_index("term").loc[treatments]
    plain = _of(result.tables["least_squares"], outcome).set_index("term").loc[treatments]
    has_set = "anderson_rubin_set" in result.tables
    n_rows = (3 if has_set else 2) * len(treatments)
    figure = Figure(figsize=(7.2, 1.5 + 0.45 * n_rows), layout="constrained")
    axes = figure.subplots()
    labels: list[str] = []
    estimator = _NAMES[spec.options.estimator]
    for name in treatments:
        prefix = f"{name}: " if len(treatments) > 1 else ""
        for table, text, colour in ((main, estimator, BLUE), (plain, "least squares", GREY)):
            row, place = table.loc[name], -len(labels)
            axes.plot([row["ci_lower"], row["ci_upper"]], [place, place], color=colour, lw=1.8)
            axes.plot(row["estimate"], place, "o", color=colour, markersize=5)
            labels.append(f"{prefix}{text}")
    if has_set:
        low, high = axes.get_xlim()
        _draw_set(axes, result, outcome=outcome, place=-len(labels), limits=(low, high))
        labels.append("Anderson-Rubin set")
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks([-place for place in range(len(labels))], labels)
    axes.set_ylim(-len(labels) + 0.4, 0.6)
    open_axes(axes, grid="x")
    axes.set_xlabel(
        f"effect on {outcome}, {spec.confidence_level:.0%} intervals (arrows: without end)"
        if has_set
        else f"effect on {outcome}, {spec.confidence_level:.0%} intervals"
    )
    what = treatments[0] if len(treatments) == 1 else "the treatments"
    axes.set_title(f"Effect of {what} on {outcome}", loc="left")
    return figure


def anderson_rubin_figure(spec: IvSpec, result: Result, *, outcome: str) -> Figure:
    """The p-value of each effect; the set is where it lies above the level."""
    table = _of(result.tables["anderson_rubin"], outcome)
    main = _of(result.tables["coefficients"], outcome).iloc[0]
    alpha = 1.0 - spec.confidence_level
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    kept = table["pvalue"].to_numpy() >= alpha
    axes.plot(table["value"], table["pvalue"], color=BLUE, linewidth=1.6)
    axes.fill_between(table["value"], 0, table["pvalue"], where=kept, color=BLUE, alpha=0.15)
    axes.axhline(alpha, color=GREY, linestyle="--", linewidth=0.9)
    axes.axvline(main["estimate"], color=ORANGE, linewidth=1.2)
    axes.annotate(
        _NAMES[spec.options.estimator],
        xy=(main["estimate"], 1.0), xycoords=("data", "axes fraction"),
        xytext=(4, -10), textcoords="offset points", color=ORANGE, fontsize=8,
    )  # fmt: skip
    axes.annotate(
        f"{alpha:.0%}", xy=(1.0, alpha), xycoords=("axes fraction", "data"),
        xytext=(-4, 3), textcoords="offset points", ha="right", color=GREY, fontsize=8,
    )  # fmt: skip
    axes.set_ylim(0, 1.15 * max(float(table["pvalue"].max()), 2 * alpha))
    axes.set_xlim(float(table["value"].min()), float(table["value"].max()))
    axes.set_xlabel(f"effect of {main['term']} on {outcome}")
    axes.set_ylabel("p-value of the Anderson-Rubin test")
    axes.set_title(f"Effects that are not rejected at {alpha:.0%}", loc="left")
    open_axes(axes, grid="y")
    return figure


def _draw_set(
    axes: Axes, result: Result, *, outcome: str, place: int, limits: tuple[float, float]
) -> None:
    parts = _of(result.tables["anderson_rubin_set"], outcome)
    ends = parts[["lower", "upper"]].to_numpy(dtype=np.float64)
    finite = ends[np.isfinite(ends)]
    low, high = min([limits[0], 0.0, *finite]), max([limits[1], 0.0, *finite])
    room = 0.06 * (high - low)
    low, high = low - room, high + room
    for lower, upper in ends:
        shown = (max(lower, low), min(upper, high))
        axes.plot(shown, [place, place], color=ORANGE, linewidth=2.4)
        for end, at, marker in ((lower, low, "<"), (upper, high, ">")):
            if np.isinf(end):
                axes.plot(at, place, marker, color=ORANGE, markersize=7, clip_on=False)
    if len(ends) == 0:
        axes.text((low + high) / 2, place, "empty", color=ORANGE, ha="center", va="center")
    axes.set_xlim(low, high)


def _of(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    return table[table["metric"] == outcome]
