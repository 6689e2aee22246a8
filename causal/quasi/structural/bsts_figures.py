"""Pictures of a Bayesian structural time series, drawn from its tables."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from causal.core.canvas import canvas, open_axes
from causal.core.result import Effect, Result
from causal.quasi.structural.bsts_options import BstsSpec
from causal.quasi.synthetic.region_figures import BLUE, GREY, ORANGE, period_ticks

_GRID = "#e4e4e4"
_MAX_COVARIATES = 20
_SHOWN_SHARE = 0.01


def impact_figure(spec: BstsSpec, result: Result, *, outcome: str) -> Figure:
    """Observed and predicted series, the effect by period, and the effect so far."""
    table = _of(result.tables["series"], outcome)
    average, *rest = [effect for effect in result.effects if effect.metric == outcome]
    level = f"{average.confidence_level:.0%} credible interval"
    figure = Figure(figsize=(7.6, 8.4), layout="constrained")
    panels = list(figure.subplots(3, 1, sharex=True))
    for axes in panels:
        open_axes(axes, grid="y")
        _mark_start(axes, table)
    top, middle, bottom = panels
    x = table["period"]
    _band(top, x, table["predicted_lower"], table["predicted_upper"], label=level)
    top.plot(x, table["observed"], color="black", linewidth=1.3, label="observed")
    top.plot(
        x, table["predicted"], color=BLUE, linewidth=1.5, linestyle=(0, (5, 2)),
        label="predicted without the treatment",
    )  # fmt: skip
    top.set_ylabel(outcome)
    top.set_title("Observed and predicted", loc="left", fontsize=10)
    top.legend(frameon=False, fontsize=8, loc="best")
    _band(middle, x, table["effect_lower"], table["effect_upper"], label=level)
    middle.plot(x, table["effect"], color=BLUE, linewidth=1.5)
    middle.set_ylabel("difference")
    middle.set_title("Effect in each period (observed less predicted)", loc="left", fontsize=10)
    after = table[table["event_time"] >= -1]
    _band(
        bottom, after["period"], after["cumulative_lower"], after["cumulative_upper"], label=level
    )
    bottom.plot(after["period"], after["cumulative_effect"], color=BLUE, linewidth=1.8)
    bottom.set_ylabel("sum of differences")
    bottom.set_title("Cumulative effect since the start", loc="left", fontsize=10)
    for axes in (middle, bottom):
        axes.axhline(0.0, color="black", linewidth=0.8)
    bottom.set_xlabel(spec.options.period)
    period_ticks(bottom, x)
    figure.suptitle(_title(average, rest), x=0.01, ha="left", fontsize=11)
    return figure


def inclusion_figure(result: Result, *, outcome: str) -> Figure:
    """How likely each covariate matters, coloured by the sign of its coefficient."""
    table = _of(result.tables["inclusion"], outcome)
    shown = table[table["inclusion_probability"] >= _SHOWN_SHARE].head(_MAX_COVARIATES)
    figure, axes = canvas(height=max(2.2, 0.3 * len(shown) + 1.2), grid="x")
    rows = range(len(shown))
    is_positive = (shown["positive_probability"] >= 0.5).tolist()  # noqa: PLR2004 - a coin
    colours = [BLUE if positive else ORANGE for positive in is_positive]
    axes.barh(list(rows), shown["inclusion_probability"], color=colours, height=0.7)
    axes.set_yticks(list(rows), [str(name) for name in shown["covariate"]])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("posterior probability that the covariate matters")
    hidden = len(table) - len(shown)
    more = f" (and {hidden} less likely ones)" if hidden else ""
    axes.set_title(f"Covariates of {outcome}{more}", loc="left", fontsize=11)
    signs = {"raises the prediction": BLUE, "lowers it": ORANGE}
    if not all(is_positive):
        for label, colour in signs.items():
            axes.barh([0], [0.0], color=colour, label=label)
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def _title(average: Effect, rest: list[Effect]) -> str:
    text = f"{average.metric}: {average.estimate:+.4g} per period"
    relative = [effect for effect in rest if effect.scale == "relative"]
    if relative:
        text += f" ({relative[0].estimate:+.1%})"
    return (
        f"{text}, {average.confidence_level:.0%} interval {average.ci_lower:+.4g} to "
        f"{average.ci_upper:+.4g}"
    )


def _band(
    axes: Axes, x: "pd.Series[float]", low: "pd.Series[float]", high: "pd.Series[float]", *,
    label: str,
) -> None:  # fmt: skip
    axes.fill_between(x, low, high, color=BLUE, alpha=0.17, linewidth=0, label=label)


def _mark_start(axes: Axes, table: pd.DataFrame) -> None:
    last = table.loc[table["event_time"] == -1, "period"].iloc[0]
    first = table.loc[table["event_time"] == 0, "period"].iloc[0]
    axes.axvline(last + (first - last) / 2, color=GREY, linestyle="--", linewidth=0.9, zorder=1)


def _of(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    return table[table["metric"] == outcome]
