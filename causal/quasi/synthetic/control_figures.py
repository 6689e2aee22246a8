"""Pictures of a synthetic control, drawn from its tables."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal.core.result import Effect, Result
from causal.quasi.synthetic.control_options import SyntheticControlSpec
from causal.quasi.synthetic.region_figures import (
    BLUE,
    GREY,
    LIGHT,
    ORANGE,
    on_axis,
    period_ticks,
    stacked,
    start_line,
)

_MAX_PLACEBO_RATIO = 5.0


def path_figure(spec: SyntheticControlSpec, result: Result, *, outcome: str) -> Figure:
    """Observed and synthetic path; the mean over regions by event time if starts differ."""
    table, axis = _on_one_axis(_of(result.tables["paths"], outcome))
    figure, (axes,) = stacked()
    mean = table.groupby("x")[["observed", "synthetic"]].mean()
    who = _who(table)
    axes.fill_between(
        mean.index, mean["observed"], mean["synthetic"], where=mean.index >= axis.first,
        color=BLUE, alpha=0.10, linewidth=0,
    )  # fmt: skip
    axes.plot(mean.index, mean["observed"], color=BLUE, linewidth=2.0, label=who)
    axes.plot(
        mean.index, mean["synthetic"], color=ORANGE, linewidth=1.8, linestyle=(0, (5, 2)),
        label=f"synthetic {who}",
    )  # fmt: skip
    axis.label(axes, spec)
    axes.set_ylabel(outcome)
    axes.set_title(f"{outcome}: {who} and its synthetic control", loc="left")
    axes.legend(frameon=False, fontsize=9)
    return figure


def gap_figure(spec: SyntheticControlSpec, result: Result, *, outcome: str) -> Figure:
    """The gap of the treated region beside the gaps of the placebos."""
    table, axis = _on_one_axis(_of(result.tables["paths"], outcome))
    placebos = _of(result.tables["placebo_gaps"], outcome)
    placebos = placebos.assign(x=axis.of(placebos))
    shown, n_hidden = _comparable(placebos, _of(result.tables["placebos"], outcome))
    figure, (axes,) = stacked()
    for number, (_, rows) in enumerate(shown.groupby(["unit", "start"])):
        axes.plot(
            rows["x"], rows["gap"], color=LIGHT, linewidth=0.8, zorder=1,
            label="placebo donors" if number == 0 else None,
        )  # fmt: skip
    mean = table.groupby("x")["gap"].mean()
    axes.plot(mean.index, mean, color=BLUE, linewidth=2.2, label=_who(table), zorder=3)
    _intervals(axes, result, outcome, is_relative=axis.is_relative)
    axes.axhline(0.0, color="black", linewidth=0.8)
    axis.label(axes, spec)
    axes.set_ylabel(f"gap in {outcome} (observed less synthetic)")
    found = _average(result, outcome)
    axes.set_title(
        f"{outcome}: {found.estimate:+.4g} on average, placebo p = {found.pvalue:.3g}", loc="left"
    )
    if n_hidden:
        axes.annotate(
            f"{n_hidden} placebos that fit more than {_MAX_PLACEBO_RATIO:g} times worse before the "
            "start are not drawn",
            xy=(0.01, 0.01), xycoords="axes fraction", fontsize=7, color=GREY,
        )  # fmt: skip
    axes.legend(frameon=False, fontsize=9)
    return figure


class _Axis:
    """Calendar periods where all start together, event time elsewhere."""

    def __init__(self, table: pd.DataFrame) -> None:
        is_first = table["event_time"] == 0
        self._table = table
        self.is_relative = table.loc[is_first, "period"].nunique() > 1
        self.first = float(self.of(table[is_first]).iloc[0])

    def of(self, table: pd.DataFrame) -> "pd.Series[float]":
        """Where the rows of a table lie."""
        return table["event_time"] if self.is_relative else on_axis(table["period"])

    def label(self, axes: Axes, spec: SyntheticControlSpec) -> None:
        """Name the axis and mark the start."""
        period_ticks(axes, self._table["event_time" if self.is_relative else "period"])
        start_line(axes, self.of(self._table), start=self.first)
        name = "periods since the start" if self.is_relative else spec.options.period
        axes.set_xlabel(name)


def _on_one_axis(table: pd.DataFrame) -> tuple[pd.DataFrame, _Axis]:
    axis = _Axis(table)
    return table.assign(x=axis.of(table)), axis


def _comparable(placebos: pd.DataFrame, fits: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Placebos whose gap before the start is not out of scale, and how many are."""
    limit = _MAX_PLACEBO_RATIO * float(fits.loc[fits["is_treated"], "pre_rmspe"].max())
    donors = fits[~fits["is_treated"]]
    kept = donors.loc[donors["pre_rmspe"] <= limit, ["unit", "start"]]
    return placebos.merge(kept, on=["unit", "start"]), len(donors) - len(kept)


def _intervals(axes: Axes, result: Result, outcome: str, *, is_relative: bool) -> None:
    if "conformal_intervals" not in result.tables or is_relative:
        return
    table = _of(result.tables["conformal_intervals"], outcome)
    if table["unit"].nunique() > 1 or not np.isfinite(table[["ci_lower", "ci_upper"]]).all(
        axis=None
    ):
        return
    axes.fill_between(
        on_axis(table["period"]), table["ci_lower"], table["ci_upper"], color=BLUE, alpha=0.18,
        linewidth=0, label="conformal interval", zorder=2,
    )  # fmt: skip


def _average(result: Result, outcome: str) -> Effect:
    return next(e for e in result.effects if e.metric == outcome and e.term == "average")


def _who(table: pd.DataFrame) -> str:
    names = list(table["unit"].unique())
    return str(names[0]) if len(names) == 1 else f"mean of {len(names)} treated regions"


def _of(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    return table[table["metric"] == outcome]
