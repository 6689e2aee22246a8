"""Pictures of a difference-in-differences result, drawn from its tables."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causal.core.canvas import canvas
from causal.core.result import Result
from causal.quasi.did_options import DidSpec
from causal.quasi.treatment_timing import level

BLUE, ORANGE, GREY = "#1f5a93", "#c8622d", "#7a7a7a"
_CYCLE = ("#1f5a93", "#c8622d", "#3f8f5b", "#8c5aa8", "#b8962e", "#4fa3b8", "#a64253", "#6b6b2f")
_MAX_COHORTS = 8


def event_study_figure(spec: DidSpec, result: Result, *, outcome: str) -> Figure:
    """Coefficients by event time with intervals; the reference period is a hollow point at zero."""
    table = _of(result.tables["event_study"], outcome)
    reference = table["event_time"] == spec.options.reference
    figure, axes = canvas()
    shown = table[~reference]
    before = (shown["event_time"] < -spec.options.anticipation).to_numpy()
    for rows, colour, label in (
        (shown[before], GREY, "before the start"),
        (shown[~before], BLUE, "after the start"),
    ):
        if len(rows):
            ends = rows[["ci_lower", "ci_upper"]].replace([-np.inf, np.inf], np.nan)
            middle = rows["estimate"]
            distance = np.array([middle - ends["ci_lower"], ends["ci_upper"] - middle])
            axes.errorbar(
                rows["event_time"], rows["estimate"], yerr=distance, fmt="o", color=colour,
                capsize=3, markersize=5, linewidth=1.4, label=label,
            )  # fmt: skip
    if reference.any():
        axes.plot(
            table.loc[reference, "event_time"], [0.0] * int(reference.sum()), "o",
            markerfacecolor="white", markeredgecolor=GREY, markersize=6, label="reference period",
        )  # fmt: skip
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.axvline(-0.5 - spec.options.anticipation, color=GREY, linestyle="--", linewidth=0.9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=15))
    axes.set_xlabel("periods since the first treated period")
    axes.set_ylabel(f"effect on {outcome}")
    if spec.options.family == "poisson":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title(f"Event study of {outcome}, {spec.confidence_level:.0%} intervals", loc="left")
    _legend(axes)
    _mark_bins(axes, table)
    return figure


def cohort_path_figure(spec: DidSpec, result: Result, *, outcome: str) -> Figure:
    """Mean outcome of each cohort by period, with a tick where each cohort starts."""
    table = _of(result.tables["cohort_means"], outcome)
    figure, axes = canvas()
    starts = list(table["first_treated_period"].unique())
    treated = sorted(start for start in starts if not np.isnan(start))
    kept = treated[:_MAX_COHORTS]
    for colour, start in zip(_cycle(len(kept)), kept, strict=True):
        rows = table[table["first_treated_period"] == start]
        axes.plot(
            rows["period"], rows["mean"], "-o", color=colour, markersize=3.5, linewidth=1.5,
            label=f"starts at {level(start)}",
        )  # fmt: skip
        axes.axvline(start, color=colour, linestyle=":", linewidth=1.0)
    never = table[table["first_treated_period"].isna()]
    if len(never):
        name = "never treated" if treated else "all units"
        axes.plot(never["period"], never["mean"], "-o", color=GREY, markersize=3.5, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=15))
    axes.set_xlabel(spec.options.period)
    axes.set_ylabel(f"mean {outcome}")
    more = f" (first {_MAX_COHORTS} of {len(treated)} cohorts)" if len(treated) > len(kept) else ""
    axes.set_title(f"Mean {outcome} by cohort{more}", loc="left")
    _legend(axes)
    return figure


def dose_response_figure(result: Result, *, outcome: str) -> Figure:
    """Effects on units by their dose with intervals; a line where slopes were estimated."""
    table = _of(result.tables["dose_response"], outcome)
    figure, axes = canvas()
    middle = table["estimate"]
    ends = table[["ci_lower", "ci_upper"]].replace([-np.inf, np.inf], np.nan)
    distance = np.array([middle - ends["ci_lower"], ends["ci_upper"] - middle])
    is_curve = bool(table["low"].isna().all())
    axes.errorbar(
        table["mean_dose"], middle, yerr=distance, fmt="-o" if is_curve else "o", color=BLUE,
        capsize=3, markersize=5, linewidth=1.4,
    )  # fmt: skip
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("dose")
    axes.set_ylabel(f"effect on {outcome}")
    axes.set_title(f"Effect on {outcome} of the dose that units got", loc="left")
    return figure


def two_by_two_figure(spec: DidSpec, result: Result, *, outcome: str) -> Figure:
    """The four means, and the treated group's path had it changed like the comparison group."""
    table = _of(result.tables["cells"], outcome).set_index(["group", "phase"])
    estimate = next(e for e in result.effects if e.metric == outcome)
    figure, axes = canvas()
    for group, colour in (("control", GREY), ("treated", BLUE)):
        rows = table.loc[group].loc[["before", "after"]]
        axes.errorbar(
            [0, 1], rows["mean"], yerr=rows["std_error"], fmt="-o", color=colour, capsize=3,
            label=group, linewidth=1.6,
        )  # fmt: skip
    means = table["mean"].astype(float).to_dict()
    start, end = means["treated", "before"], means["treated", "after"]
    axes.plot(
        [0, 1], [start, end - estimate.estimate], "--o", color=ORANGE, markerfacecolor="white",
        label="treated, had it changed like control",
    )  # fmt: skip
    axes.annotate(
        f"{estimate.estimate:+.4g}", xy=(1.03, end - estimate.estimate / 2), color=ORANGE,
        va="center", annotation_clip=False,
    )  # fmt: skip
    axes.set_xlim(-0.15, 1.25)
    axes.set_xticks([0, 1], ["before", "after"])
    axes.set_ylabel(f"mean {outcome} (bars: one standard error)")
    axes.set_title(
        f"{outcome}: {estimate.estimate:+.4g} "
        f"[{estimate.ci_lower:.4g}, {estimate.ci_upper:.4g}], {spec.confidence_level:.0%} interval",
        loc="left",
    )
    _legend(axes)
    return figure


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8)


def _mark_bins(axes: Axes, table: pd.DataFrame) -> None:
    """Say at the ends of the axis which points stand for all earlier or later event times."""
    for term, time in zip(table["term"], table["event_time"], strict=True):
        if "<=" in term or ">=" in term:
            axes.annotate(
                "and before" if "<=" in term else "and later",
                xy=(time, 0.0), xycoords=("data", "axes fraction"),
                xytext=(0, 3), textcoords="offset points", ha="center", fontsize=7, color=GREY,
            )  # fmt: skip


def _of(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    return table[table["metric"] == outcome]


def _cycle(n: int) -> Iterable[str]:
    return _CYCLE[:n]
