"""The figure of a sequential experiment: the path of z among its boundaries, and its intervals."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal.core.canvas import open_axes
from causal.core.gram import Array
from causal.experiments.group_sequential import boundaries, planned_error
from causal.experiments.sequential_options import ALWAYS_VALID, SequentialOptions
from causal.experiments.spending import Spending, spent

if TYPE_CHECKING:
    from causal.experiments.sequential import SequentialResult

_INK, _EFFECT, _IDLE, _GREY = "#1f3b5c", "#2a7f9e", "#c98a2b", "#b0b7bf"
_TINT = "#d9ebf1"
_IDLE_TINT = "#f6ead7"
_HEADROOM = 1.6
_MIN_TOP = 3.2
_MAX_LABELS = 12
_APART = 0.01
"""Planned looks nearer than this share of information to one that was made count as made."""

_METHODS = {
    "spending": "error spending ({family})",
    "obrien_fleming": "O'Brien-Fleming",
    "pocock": "Pocock",
    "wang_tsiatis": "Wang-Tsiatis",
    "confidence_sequence": "confidence sequence",
    "msprt": "mixture SPRT",
}
_FAMILIES = {
    "obrien_fleming": "O'Brien-Fleming type",
    "pocock": "Pocock type",
    "hwang_shih_decani": "Hwang-Shih-DeCani",
    "power": "power family",
}
_DECISIONS = {
    "continue": "goes on",
    "stop_efficacy": "stops: an effect is shown",
    "stop_futility": "stops for futility",
    "stop_end": "ends: no effect shown",
}


def figure(result: "SequentialResult") -> Figure:
    """Left: z at every look against the boundaries. Right: estimates with repeated intervals.

    Args:
        result: The result.
    """
    out = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = out.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
    _boundaries(left, result)
    _intervals(right, result)
    for axes in (left, right):
        open_axes(axes)
        axes.tick_params(labelsize=9)
    return out


def _boundaries(axes: Axes, result: "SequentialResult") -> None:
    at, label = _positions(result)
    z = np.array([look.statistic for look in result.looks])
    upper = np.array([look.efficacy_upper for look in result.looks])
    lower = np.array([look.efficacy_lower for look in result.looks])
    finite = np.concatenate([upper[np.isfinite(upper)], -lower[np.isfinite(lower)]])
    narrowest = float(finite.min()) if len(finite) else 0.0
    top = max(_MIN_TOP, _HEADROOM * float(np.abs(z).max()), _HEADROOM * narrowest)
    # An early boundary may lie far outside: it is drawn up to the edge, not to its end.
    _region(axes, at, np.minimum(upper, 2 * top), edge=2 * top, colour=_EFFECT, tint=_TINT)
    _region(axes, at, np.maximum(lower, -2 * top), edge=-2 * top, colour=_EFFECT, tint=_TINT)
    _futility(axes, at, result, edge=2 * top)
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    _still_to_come(axes, result)
    ran = len(at) if result.stopped_at is None else result.stopped_at
    axes.plot(at[ran - 1 :], z[ran - 1 :], "o-", color="#8795a5", linewidth=1.2, markersize=4)
    axes.plot(at[:ran], z[:ran], "o-", color=_INK, linewidth=1.6, markersize=5, zorder=3)
    bottom = -top if np.isfinite(lower).any() or z.min() < 0 else -0.35 * top
    ceiling = top if np.isfinite(upper).any() or z.max() > 0 else 0.35 * top
    axes.set_ylim(bottom, ceiling)
    axes.set_xlim(0.0, 1.06 * max(float(at[-1]), 0.0 if _is_open(result.options) else 1.0))
    _mark_stop(axes, at, z, result)
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("z statistic", fontsize=9)
    options = result.options
    axes.set_title(
        f"{_method(options)}, {options.alternative.replace('_', '-')}, alpha {options.alpha:g}",
        loc="left",
        fontsize=10,
    )


def _region(axes: Axes, at: Array, bound: Array, *, edge: float, colour: str, tint: str) -> None:
    """A boundary with the region behind it shaded."""
    if not (np.abs(bound) < abs(edge)).any():
        return
    axes.fill_between(at, bound, edge, color=tint, linewidth=0)
    axes.plot(at, bound, ".-", color=colour, linewidth=1.4, markersize=6)


def _futility(axes: Axes, at: Array, result: "SequentialResult", *, edge: float) -> None:
    given = [look.futility for look in result.looks]
    if all(value is None for value in given):
        return
    options = result.options
    if options.is_two_sided:
        half = np.array([value or 0.0 for value in given])
        axes.fill_between(at, -half, half, color=_IDLE_TINT, linewidth=0)
        axes.plot(at, half, ".--", at, -half, ".--", color=_IDLE, linewidth=1.2, markersize=5)
        return
    side = 1.0 if options.alternative == "increase" else -1.0
    bound = np.array([-side * edge if value is None else value for value in given])
    axes.fill_between(at, bound, -side * edge, color=_IDLE_TINT, linewidth=0)
    axes.plot(at, bound, ".--", color=_IDLE, linewidth=1.2, markersize=5)


def _mark_stop(axes: Axes, at: Array, z: Array, result: "SequentialResult") -> None:
    row = len(z) - 1 if result.stopped_at is None else result.stopped_at - 1
    is_right = at[row] > np.mean(axes.get_xlim())
    text = _DECISIONS[result.decision]
    if result.adjusted is not None:
        text = f"look {row + 1} {text}\nadjusted p = {result.adjusted.pvalue:.2g}"
        axes.plot(at[row], z[row], "o", color=_EFFECT, markersize=10, zorder=4, fillstyle="none")
    is_high = z[row] > 0
    axes.annotate(
        text,
        (at[row], z[row]),
        xytext=(-10 if is_right else 10, -26 if is_high else 26),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="top" if is_high else "bottom",
        fontsize=9,
        color=_INK,
        bbox={
            "boxstyle": "round,pad=0.25",
            "facecolor": "white",
            "edgecolor": "none",
            "alpha": 0.85,
        },
        zorder=5,
    )


def _intervals(axes: Axes, result: "SequentialResult") -> None:
    rows = np.arange(len(result.looks))
    estimate = np.array([look.estimate for look in result.looks])
    lower = np.array([look.ci_lower for look in result.looks])
    upper = np.array([look.ci_upper for look in result.looks])
    reach = _reach(estimate, lower, upper, result.options.null_value)
    axes.vlines(
        rows, np.maximum(lower, reach[0]), np.minimum(upper, reach[1]), color=_GREY, linewidth=2.5
    )
    axes.plot(
        rows, estimate, "o", color=_INK, markersize=5, label="estimate, interval at all looks"
    )
    if result.adjusted is not None and result.stopped_at is not None:
        found = result.adjusted
        at = result.stopped_at - 1 + 0.28
        axes.plot([at, at], [found.ci_lower, found.ci_upper], color=_EFFECT, linewidth=2.5)
        name = "stage-wise" if found.kind == "stage_wise" else "always valid"
        axes.plot([at], [found.estimate], "D", color=_EFFECT, markersize=5, label=f"stop, {name}")
    axes.axhline(result.options.null_value, color="#555555", linewidth=0.8, linestyle=":")
    axes.set_ylim(*reach)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    step = -(-len(rows) // _MAX_LABELS)
    names = [look.name for look in result.looks]
    axes.set_xticks(rows[::step], names[::step])
    if max(len(name) for name in names) * len(rows[::step]) > _MAX_LABELS * 4:
        axes.tick_params(axis="x", rotation=35)
    axes.set_ylabel("effect", fontsize=9)
    axes.set_title(
        f"{result.options.confidence_level:.0%} intervals, allowing for the looks",
        loc="left",
        fontsize=10,
    )
    axes.legend(fontsize=8, frameon=False)


def _reach(estimate: Array, lower: Array, upper: Array, null: float) -> tuple[float, float]:
    """Limits that show the last interval in full; the first ones may be many times as wide."""
    half = 0.5 * (upper - lower)
    finite = half[np.isfinite(half)]
    width = min(3.0 * float(finite.min()), float(finite.max())) if len(finite) else 1.0
    low = min(float(estimate.min()), null) - width
    high = max(float(estimate.max()), null) + width
    return low, high


def _positions(result: "SequentialResult") -> tuple[Array, str]:
    """Where looks stand on the horizontal axis, and what the axis shows."""
    options: SequentialOptions = result.options
    fractions = [look.fraction for look in result.looks]
    if options.method not in ALWAYS_VALID:
        return np.array(fractions, dtype=np.float64), "information fraction"
    information = np.array([look.information for look in result.looks])
    if options.method == "confidence_sequence":
        return np.array(fractions, dtype=np.float64), "information, target = 1"
    return information, "information"


def _method(options: SequentialOptions) -> str:
    family = (options.spending or Spending()).family
    return _METHODS[options.method].format(family=_FAMILIES[family])


def _is_open(options: SequentialOptions) -> bool:
    """Whether nothing is planned that the axis should show."""
    return options.method == "msprt"


def _still_to_come(axes: Axes, result: "SequentialResult") -> None:
    """The boundary at the planned looks that are left, while the test runs."""
    options = result.options
    if result.decision != "continue" or options.method in ALWAYS_VALID:
        return
    at, efficacy = _efficacy_ahead(result)
    sides = [efficacy, -efficacy] if options.is_two_sided else [efficacy]
    if options.alternative == "decrease":
        sides = [-efficacy]
    for side in sides:
        axes.plot(at, side, ".:", color=_EFFECT, linewidth=1.2, markersize=6)


def _efficacy_ahead(result: "SequentialResult") -> tuple[Array, Array]:
    """From the last look on: fractions, and critical values if the plan is kept from now on."""
    options = result.options
    done = [float(look.fraction) for look in result.looks if look.fraction is not None]
    plan = options.planned_fractions or (1.0,)
    if isinstance(options.rule, Spending):
        left = [at for at in plan if at > done[-1] * (1 + _APART)]
        at = np.array([*done, *left])
        error = spent(at, total=options.side_alpha, spending=options.rule)
    else:
        left = [
            max(at, done[-1] * (1 + _APART * row)) for row, at in enumerate(plan[len(done) :], 1)
        ]
        at = np.array([*done, *left])
        error = planned_error(
            options.rule, plan, alpha=options.side_alpha, is_two_sided=options.is_two_sided
        )
    limits = boundaries(at, error, is_two_sided=options.is_two_sided)
    return at[len(done) - 1 :], limits.efficacy[len(done) - 1 :]
