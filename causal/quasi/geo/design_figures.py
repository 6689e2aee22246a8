"""Pictures of a planned geo experiment, drawn from its tables."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causal.core.result import Result
from causal.quasi.synthetic.region_figures import (
    BLUE,
    GREY,
    ORANGE,
    on_axis,
    period_ticks,
    stacked,
    start_line,
)

_COLOURS = ("#c9d8e8", "#8fb2d3", "#5488b9", "#1f5a93", "#123a61")


def power_figure(result: Result) -> Figure:
    """Power by lift of the best set of regions, one line per duration; at zero the A/A rate."""
    plan, table = result.tables["plan"], result.tables["power"]
    best = plan.iloc[0]
    shown = table[table["treated"] == best["treated"]]
    durations = sorted(shown["duration"].unique())
    figure, (axes,) = stacked()
    for number, duration in enumerate(durations):
        rows = shown[shown["duration"] == duration].sort_values("lift")
        at = len(_COLOURS) - 1 - (len(durations) - 1 - number) % len(_COLOURS)
        axes.plot(
            rows["lift"], rows["power"], "o-", color=_COLOURS[at], markersize=4, linewidth=1.8,
            label=f"{duration} periods",
        )  # fmt: skip
        if duration == best["duration"]:
            axes.fill_between(
                rows["lift"], rows["lower"], rows["upper"], color=_COLOURS[at], alpha=0.12,
                linewidth=0,
            )  # fmt: skip
    axes.axhline(result.params["level"], color=ORANGE, linewidth=1.0, linestyle="--")
    axes.axhline(best["power"], color=GREY, linewidth=0.8, linestyle=":")
    axes.annotate(
        f"nominal size {result.params['level']:.0%}", xy=(0.99, result.params["level"]),
        xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color=ORANGE,
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("true lift (at zero: A/A)")
    axes.set_ylabel("share of windows in which the test rejects")
    axes.set_title(
        f"Power of {best['estimator']} treating {_shortened(best['treated'])}", loc="left"
    )
    axes.legend(
        fontsize=8, title="duration (band: of the best)", title_fontsize=8, loc="center right",
        edgecolor="none",
    )  # fmt: skip
    return figure


def series_figure(result: Result) -> Figure:
    """The chosen regions and what stands in for them; the last periods were held out."""
    table, best = result.tables["series"], result.tables["plan"].iloc[0]
    figure, (axes,) = stacked()
    x = on_axis(table["period"])
    held = x[table["is_held_out"]]
    axes.axvspan(held.min(), held.max(), color=GREY, alpha=0.08, linewidth=0)
    axes.plot(x, table["treated"], color=BLUE, linewidth=2.0, label="treated regions")
    axes.plot(
        x, table["synthetic"], color=ORANGE, linewidth=1.8, linestyle=(0, (5, 2)),
        label="made of the others",
    )  # fmt: skip
    start_line(axes, x, start=float(held.min()))
    period_ticks(axes, table["period"])
    axes.set_xlabel("period")
    axes.set_ylabel("mean outcome of a region")
    axes.set_title(
        f"{_shortened(best['treated'])}: history, the last {best['duration']} periods held out",
        loc="left",
    )
    axes.legend(frameon=False, fontsize=9)
    return figure


def _shortened(names: str) -> str:
    return names if len(names) <= 40 else names[:37] + "..."  # noqa: PLR2004
