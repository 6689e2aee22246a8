"""Pictures of how far an event study can be believed, drawn from the tables of a result."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from causal.core.canvas import canvas
from causal.core.result import Result

_BLUE, _ORANGE, _GREY = "#1f5a93", "#c8622d", "#7a7a7a"
_MANY_VALUES = 8
_AXIS = {
    "relative_magnitudes": "largest break in trends, as a multiple of the worst one before "
    "the treatment",
    "smoothness": "largest change of the trend's slope from one period to the next",
}


def credibility_figures(result: Result, *, outcome: str) -> Mapping[str, Figure]:
    """The figures that the tables of a result allow, by file name.

    Args:
        result: What the method returned.
        outcome: The outcome column.
    """
    found: dict[str, Figure] = {}
    if _has(result, "sensitivity", outcome):
        found[f"sensitivity_{outcome}"] = sensitivity_figure(result, outcome=outcome)
    if _has(result, "pre_trend_power", outcome):
        found[f"pre_trend_power_{outcome}"] = pre_trend_figure(result, outcome=outcome)
    if _has(result, "stability", outcome):
        found[f"stability_{outcome}"] = stability_figure(result, outcome=outcome)
    return found


def sensitivity_figure(result: Result, *, outcome: str) -> Figure:
    """Intervals by how far trends may depart; left, the one under parallel trends."""
    table = _of(result, "sensitivity", outcome)
    kind, parameter = table["type"].iloc[0], table["parameter"].iloc[0]
    is_robust = table["value"].notna()
    robust, parallel = table[is_robust], table[~is_robust].iloc[0]
    values = robust["value"].to_numpy()
    step = float(np.diff(values).min()) if len(values) > 1 else max(float(values[0]), 1.0)
    figure, axes = canvas()
    axes.axhline(0.0, color="black", linewidth=0.8)
    _bar(axes, values[0] - step, parallel, colour=_ORANGE, label="trends are parallel")
    for k, (_, row) in enumerate(robust.iterrows()):
        label = "trends may depart" if k == 0 else ""
        _bar(axes, float(row["value"]), row, colour=_BLUE, label=label)
    breakdown = float(table["breakdown"].iloc[0])
    if 0 < breakdown <= values[-1] + step:
        axes.axvline(breakdown, color=_GREY, linestyle="--", linewidth=0.9)
        axes.annotate(
            f"zero is inside from {breakdown:.3g} on", xy=(breakdown, 1.0),
            xycoords=("data", "axes fraction"), xytext=(-4, -2), textcoords="offset points",
            fontsize=8, color=_GREY, va="top", ha="right", rotation=90,
        )  # fmt: skip
    ticks = values[:: 1 + len(values) // _MANY_VALUES]
    axes.set_xticks([values[0] - step, *ticks], ["parallel", *(f"{v:.3g}" for v in ticks)])
    axes.set_xlabel(_AXIS[kind])
    what = "average effect" if parameter == "average" else f"effect at event time {parameter}"
    axes.set_ylabel(f"{what} on {outcome}")
    axes.set_title(f"How far trends may part: {what} on {outcome}", loc="left")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def pre_trend_figure(result: Result, *, outcome: str) -> Figure:
    """The event study beside a straight trend that its pre-test often misses."""
    table = _of(result, "pre_trend_power", outcome)
    first = table[(table["test"] == table["test"].iloc[0]) & (table["power"] == table["power"][0])]
    study = _of(result, "event_study", outcome)
    figure, axes = canvas()
    axes.axhline(0.0, color="black", linewidth=0.8)
    shown = study[study["std_error"].fillna(0.0) > 0]
    axes.vlines(shown["event_time"], shown["ci_lower"], shown["ci_upper"], color=_GREY)
    axes.plot(shown["event_time"], shown["estimate"], "o", color=_GREY, label="estimates")
    slope, power = first["slope"].iloc[0], first["power"].iloc[0]
    axes.plot(
        first["event_time"], first["trend"], "-", color=_ORANGE, linewidth=1.5,
        label=f"a trend of {slope:.3g} per period, missed with {1 - power:.0%} probability",
    )  # fmt: skip
    axes.plot(
        first["event_time"], first["mean_if_passed"], "--o", color=_BLUE, markersize=3.5,
        linewidth=1.2, label="estimates expected without any effect where it is missed",
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=15))
    axes.set_xlabel("periods since the first treated period")
    axes.set_ylabel(f"effect on {outcome}")
    axes.set_title(f"What the pre-test of {outcome} would not see", loc="left")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=1)
    return figure


def stability_figure(result: Result, *, outcome: str) -> Figure:
    """The average effect, its variants below it, and placebos, which should cover zero."""
    table = _of(result, "stability", outcome)
    rows = table[table["std_error"].notna()].reset_index(drop=True)
    figure, axes = canvas(height=1.6 + 0.28 * len(rows), grid="x")
    axes.axvline(0.0, color="black", linewidth=0.8)
    whole = float(table["estimate"].iloc[0])
    axes.axvline(whole, color=_BLUE, linestyle=":", linewidth=0.9)
    for colour, label, chosen in (
        (_BLUE, "average effect", ~rows["is_placebo"]),
        (_ORANGE, "placebo", rows["is_placebo"]),
    ):
        if chosen.any():
            shown = rows[chosen]
            half = (shown["ci_upper"] - shown["ci_lower"]) / 2
            axes.errorbar(
                shown["estimate"], -shown.index, xerr=half, fmt="o", color=colour, capsize=3,
                markersize=4.5, linewidth=1.4, label=label,
            )  # fmt: skip
    names = [f"{check}: {name}" for check, name in zip(rows["check"], rows["variant"], strict=True)]
    axes.set_yticks(-rows.index, [name.replace("_", " ") for name in names], fontsize=8)
    axes.set_xlabel(f"average effect on {outcome}")
    axes.set_title("Does the effect hold up?", loc="left")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def _bar(axes: Axes, x: float, row: pd.Series, *, colour: str, label: str) -> None:
    low, high = float(row["ci_lower"]), float(row["ci_upper"])
    if not np.isfinite([low, high]).all():
        return
    axes.errorbar(
        [x], [(low + high) / 2], yerr=[(high - low) / 2], fmt="none", color=colour, capsize=4,
        linewidth=1.8, label=label or None,
    )  # fmt: skip


def _has(result: Result, name: str, outcome: str) -> bool:
    return name in result.tables and outcome in set(result.tables[name]["metric"])


def _of(result: Result, name: str, outcome: str) -> pd.DataFrame:
    table = result.tables[name]
    return table[table["metric"] == outcome].reset_index(drop=True)
