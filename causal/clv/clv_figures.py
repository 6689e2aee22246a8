"""Figures of a fitted purchase model: frequencies, later purchases, purchases over time."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from causal.core.canvas import canvas
from causal.core.gram import Array
from causal.core.inference import critical_value

_GROUPS = 20
_ACTUAL, _MODEL = "#1f3b5c", "#c8102e"


def frequency_figure(table: pd.DataFrame, *, model: str) -> Figure:
    """Customers by number of repeat purchases, actual beside expected.

    Args:
        table: What `causal.clv.calibration.frequency_table` returns.
        model: Name of the model, for the legend.
    """
    figure, axes = canvas()
    at = np.arange(len(table))
    axes.bar(at - 0.2, table["actual"], width=0.38, color=_ACTUAL, label="actual")
    axes.bar(at + 0.2, table["expected"], width=0.38, color=_MODEL, alpha=0.8, label=model)
    axes.set_xticks(at, _labels(table["frequency"]))
    axes.set_xlabel("repeat purchases")
    axes.set_ylabel("customers")
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.set_title("Customers by repeat purchases", loc="left")
    axes.legend(frameon=False)
    return figure


def holdout_figure(table: pd.DataFrame, *, model: str, confidence_level: float = 0.95) -> Figure:
    """Mean purchases in a later period by purchases before it, actual against expected.

    Args:
        table: What `causal.clv.calibration.holdout_table` returns.
        model: Name of the model, for the legend.
        confidence_level: Of the expectation's interval.
    """
    figure, axes = canvas()
    at = np.arange(len(table))
    half = critical_value(confidence_level) * table["std_error"].to_numpy()
    axes.plot(at, table["actual"], "-o", color=_ACTUAL, label="actual")
    axes.errorbar(
        at, table["expected"], yerr=half, fmt="--s", color=_MODEL, capsize=3, markersize=5,
        label=f"{model}, {confidence_level:.0%} interval of the expectation",
    )  # fmt: skip
    labels = [
        f"{name}\n({n:,.0f})"
        for name, n in zip(_labels(table["frequency"]), table["n"], strict=True)
    ]
    axes.set_xticks(at, labels)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("repeat purchases before (customers)")
    axes.set_ylabel("mean purchases in the later period")
    axes.set_title("Purchases after the fit, by purchases before", loc="left")
    axes.legend(frameon=False)
    return figure


def cumulative_figure(
    times: Array, *, actual: Array, expected: Array, fitted_until: float, model: str
) -> Figure:
    """Cumulative repeat purchases over calendar time, actual against expected.

    Args:
        times: Calendar times, shape (k,).
        actual: Repeat purchases until each, shape (k,).
        expected: What `causal.clv.calibration.cumulative_purchases` returns for them.
        fitted_until: End of the period that the model was fitted on.
        model: Name of the model, for the legend.
    """
    figure, axes = canvas()
    axes.plot(times, actual, color=_ACTUAL, linewidth=2, label="actual")
    axes.plot(times, expected, "--", color=_MODEL, linewidth=2, label=model)
    axes.axvline(fitted_until, color="grey", linestyle=":", linewidth=1)
    axes.annotate(
        " forecast", (fitted_until, 0.02), xycoords=("data", "axes fraction"), color="grey"
    )
    axes.set_xlim(0, float(times[-1]))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time")
    axes.set_ylabel("cumulative repeat purchases")
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.set_title("Repeat purchases over time", loc="left")
    axes.legend(frameon=False, loc="upper left")
    return figure


def decile_figure(table: pd.DataFrame, *, what: str, model: str) -> Figure:
    """Means of what came by groups of the prediction, beside the prediction.

    Args:
        table: Of a `causal.clv.deciles.Backtest`.
        what: What was predicted, with its unit.
        model: Name of the model, for the legend.
    """
    figure, axes = canvas()
    at = np.arange(len(table))
    bounds = np.abs(table[["ci_lower", "ci_upper"]].to_numpy().T - table["actual"].to_numpy())
    axes.bar(at, table["predicted"], width=0.7, color=_MODEL, alpha=0.35, label=model)
    axes.errorbar(
        at, table["actual"], yerr=bounds, fmt="o", color=_ACTUAL, capsize=3, markersize=5,
        label="actual, with interval of the mean",
    )  # fmt: skip
    axes.set_xticks(at, [f"{number}" for number in table["decile"]])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("group of customers, lowest prediction first")
    axes.set_ylabel(f"mean {what}")
    axes.set_title(f"Predicted and actual {what}", loc="left")
    axes.legend(frameon=False, loc="upper left")
    return figure


def candidate_figure(table: pd.DataFrame, *, n_max: int = 15) -> Figure:
    """Errors of candidates with their intervals, best on top.

    Args:
        table: Of a `causal.clv.early_spend.Search`.
        n_max: How many are shown.
    """
    shown = table.head(n_max)
    figure, axes = canvas()
    at = -np.arange(len(shown))
    bounds = np.abs(shown[["ci_lower", "ci_upper"]].to_numpy().T - shown["rmse"].to_numpy())
    colours = [_MODEL, *[_ACTUAL] * (len(shown) - 1)]
    for place, (y, colour) in enumerate(zip(at, colours, strict=True)):
        axes.errorbar(
            shown["rmse"].iloc[place], y, xerr=bounds[:, [place]], fmt="o", color=colour, capsize=3
        )
    axes.set_yticks(at, list(shown["candidate"]))
    axes.set_xlabel("root mean squared error out of fold, with its interval")
    axes.set_title("Candidates, best on top", loc="left")
    return figure


def residual_figure(held_out: pd.DataFrame, *, what: str, n_max: int = 4000) -> Figure:
    """What came less what was predicted, by prediction, with means of equal groups.

    Args:
        held_out: Columns `predicted` and `actual`.
        what: What was predicted.
        n_max: Points shown, the first ones; means are over all.
    """
    figure, axes = canvas()
    rows = held_out.assign(residual=held_out["actual"] - held_out["predicted"])
    _draw_by_prediction(axes, rows, "residual", n_max=n_max)
    low, high = np.quantile(rows["residual"], [0.005, 0.99])
    axes.set_ylim(min(1.2 * low, -1e-9), max(1.2 * high, 1e-9))
    axes.axhline(0.0, color="grey", linewidth=0.8)
    axes.set_xlabel(f"predicted {what}")
    axes.set_ylabel("actual less predicted")
    axes.set_title("Residuals of held-out customers", loc="left")
    axes.legend(frameon=False)
    return figure


def prediction_figure(held_out: pd.DataFrame, *, what: str, n_max: int = 4000) -> Figure:
    """What came by what was predicted, with means of equal groups beside the line of equality.

    Args:
        held_out: Columns `predicted` and `actual`.
        what: What was predicted.
        n_max: Points shown, the first ones; means are over all.
    """
    figure, axes = canvas()
    _draw_by_prediction(axes, held_out, "actual", n_max=n_max)
    low, high = min(0.0, float(held_out["predicted"].min())), float(held_out["predicted"].max())
    axes.plot([low, high], [low, high], "--", color="grey", linewidth=1, label="actual = predicted")
    axes.set_xlim(low, 1.02 * high)
    axes.set_ylim(0.0, max(1.2 * float(np.quantile(held_out["actual"], 0.99)), 1.02 * high))
    axes.set_xlabel(f"predicted {what}")
    axes.set_ylabel(f"actual {what}")
    axes.set_title("Held-out customers, actual and predicted", loc="left")
    axes.legend(frameon=False, loc="upper left")
    return figure


def _draw_by_prediction(axes: Axes, rows: pd.DataFrame, column: str, *, n_max: int) -> None:
    """Points, and means by twentieth of the prediction; equal predictions stay together."""
    shown = rows.head(n_max)
    axes.plot(shown["predicted"], shown[column], ".", color=_ACTUAL, alpha=0.15, markersize=4)
    rank = rows["predicted"].rank(method="average") * _GROUPS / (len(rows) + 1)
    means = rows.groupby(rank.astype(int))[["predicted", column]].mean()
    axes.plot(
        means["predicted"], means[column], "-o", color=_MODEL, markersize=4,
        label="means of twentieths of the prediction",
    )  # fmt: skip


def _labels(frequency: "pd.Series[int]") -> list[str]:
    names = [f"{value:.0f}" for value in frequency]
    return [*names[:-1], f"{names[-1]}+"]


def _thousands(value: float, _: int | None) -> str:
    return f"{value:,.0f}"
