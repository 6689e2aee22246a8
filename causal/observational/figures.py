"""Love plots, propensity distributions and intervals of several effects."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from causal.core.canvas import canvas
from causal.core.result import Effect, Result

BLUE, ORANGE, GREY = "#1f5a93", "#c8622d", "#7a7a7a"
_MAX_SHOWN = 40
_COLOURS = (BLUE, "#3f8f5b", "#8c5aa8")
_ESTIMATOR_COLOURS = (BLUE, ORANGE, "#3f8f5b", "#8c5aa8", GREY)


def balance_figures(
    result: Result, outcomes: Sequence[str], *, threshold: float
) -> Mapping[str, Figure]:
    """A love plot of each outcome and, where there is a propensity, its distribution by arm.

    Args:
        result: With the table `balance`.
        outcomes: Their names.
        threshold: Largest standardised difference that passes.
    """
    balance = result.tables["balance"]
    found: dict[str, Figure] = {}
    for outcome in outcomes:
        own = balance[balance["metric"] == outcome]
        found[f"balance_{outcome}"] = love_plot(own, threshold=threshold)
        found |= overlap_figures(result, outcome=outcome)
    return found


def overlap_figures(result: Result, *, outcome: str) -> Mapping[str, Figure]:
    """The distribution of the propensity by arm, if the result has one.

    Args:
        result: What the method returned.
        outcome: Of which outcome.
    """
    if "overlap" not in result.tables:
        return {}
    overlap = result.tables["overlap"]
    ends = {
        name.removesuffix(f":{outcome}").removeprefix("propensity_"): value
        for name, value in result.params.items()
        if name.removesuffix(f":{outcome}") in {"propensity_low", "propensity_high"}
    }
    return {f"overlap_{outcome}": overlap_figure(overlap[overlap["metric"] == outcome], **ends)}


def love_plot(balance: pd.DataFrame, *, threshold: float) -> Figure:
    """Absolute standardised differences by covariate, before and after.

    Args:
        balance: Columns covariate, stage, source and smd.
        threshold: Where the dashed line stands.
    """
    table = balance[balance["smd"].notna()].assign(size=lambda rows: rows["smd"].abs())
    before = table[table["stage"] == "before"].sort_values("size")
    shown = before.iloc[-_MAX_SHOWN:]
    at = {name: float(position) for position, name in enumerate(shown["covariate"])}
    figure, axes = canvas(height=1.6 + 0.24 * len(at))
    axes.plot(
        shown["size"], list(at.values()), "o", markerfacecolor="white", markeredgecolor=ORANGE,
        markersize=6, label="before",
    )  # fmt: skip
    after = table[(table["stage"] == "after") & table["covariate"].isin(list(at))]
    sources = list(dict.fromkeys(after["source"]))
    for colour, source in zip(_COLOURS, sources, strict=False):
        rows = after[after["source"] == source]
        label = "after" if len(sources) == 1 else f"after: {source.replace('_', ' ')}"
        axes.plot(
            rows["size"], [at[name] for name in rows["covariate"]], "o", color=colour,
            markersize=5, label=label,
        )  # fmt: skip
    axes.axvline(threshold, color=GREY, linestyle="--", linewidth=0.9)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(list(at.values()), list(at))
    axes.set_ylim(-0.7, len(at) - 0.3)
    axes.set_xlabel("absolute standardised mean difference")
    more = f" (the {_MAX_SHOWN} largest of {len(before)})" if len(before) > len(shown) else ""
    axes.set_title(f"Balance of treated and control{more}", loc="left")
    axes.legend(frameon=False, loc="lower right")
    return figure


def overlap_figure(overlap: pd.DataFrame, *, low: float = 0.0, high: float = 1.0) -> Figure:
    """Shares of each arm by propensity, treated above and control below the line.

    Args:
        overlap: Columns arm, low, high and n.
        low: Smallest propensity kept.
        high: Largest propensity kept.
    """
    figure, axes = canvas()
    for arm, colour, sign in (("treated", BLUE, 1.0), ("control", ORANGE, -1.0)):
        rows = overlap[overlap["arm"] == arm]
        total = int(rows["n"].sum())
        axes.bar(
            rows["low"], sign * rows["n"] / total, width=rows["high"] - rows["low"], align="edge",
            color=colour, edgecolor="white", linewidth=0.5, label=f"{arm} ({total:,})",
        )  # fmt: skip
    axes.axhline(0.0, color="black", linewidth=0.8)
    for edge in (low, high):
        if 0.0 < edge < 1.0:
            axes.axvline(edge, color=GREY, linestyle="--", linewidth=0.9)
    axes.set_xlim(0.0, 1.0)
    ticks = axes.get_yticks()
    axes.set_yticks(ticks, [f"{100 * abs(tick):g}%" for tick in ticks])
    top = float(np.abs(axes.get_ylim()).max())
    axes.set_ylim(-top, top)
    axes.set_xlabel("propensity")
    axes.set_ylabel("share of the arm")
    axes.set_title("Overlap of the propensities", loc="left")
    axes.legend(frameon=False, loc="best")
    return figure


def interval_figure(effects: Sequence[Effect], *, title: str) -> Figure:
    """Effects with intervals, one line per term, one colour per estimator.

    Args:
        effects: Of one outcome.
        title: What they are.
    """
    estimators = list(dict.fromkeys(item.estimator for item in effects))
    terms = list(dict.fromkeys(item.term for item in effects))
    shown = terms[:_MAX_SHOWN]
    figure, axes = canvas(height=1.7 + 0.34 * len(shown), grid="x")
    step = 0.6 / len(estimators)
    for position, (name, colour) in enumerate(zip(estimators, _ESTIMATOR_COLOURS, strict=False)):
        own = [item for item in effects if item.estimator == name and item.term in shown]
        at = np.array([shown.index(item.term) for item in own], dtype=np.float64)
        at += step * (position - (len(estimators) - 1) / 2)
        lows, highs = [item.ci_lower for item in own], [item.ci_upper for item in own]
        axes.hlines(at, lows, highs, color=colour, linewidth=1.6)
        axes.plot(
            [item.estimate for item in own], at, "o", color=colour, markersize=5,
            label=name.replace("_", " "),
        )  # fmt: skip
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("effect")
    more = f" (the first {len(shown)} of {len(terms)})" if len(terms) > len(shown) else ""
    axes.set_title(f"{title}{more}", loc="left")
    figure.legend(frameon=False, loc="outside lower center", ncols=len(estimators))
    return figure
