"""Pictures of many fits: every region's effect on an outcome, in the order of their size."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from causal.core.canvas import canvas
from causal.core.result import Result
from causal.fits.fits_spec import FitsSpec
from causal.observational.figures import BLUE, GREY, ORANGE
from causal.quasi.time_axis import shown

_MAX_OUTCOMES = 12
_MAX_NAMED = 60
_MARGIN = 0.35


def figures(spec: FitsSpec, result: Result) -> Mapping[str, Figure]:
    """Effects by region for each of the first outcomes, and p-values of placebos if there are any.

    Args:
        spec: The spec of all fits.
        result: What `readout` returned.
    """
    table = result.tables["fits"]
    found = {
        f"effects_{outcome}": effects_figure(spec, table, outcome=outcome)
        for outcome in spec.fits.over.outcomes[:_MAX_OUTCOMES]
        if not _of(table, outcome).empty
    }
    placebos = table.loc[table["is_placebo"], "pvalue"].dropna()
    if len(placebos):
        found["placebo_pvalues"] = pvalue_figure(spec, placebos)
    return found


def effects_figure(spec: FitsSpec, table: pd.DataFrame, *, outcome: str) -> Figure:
    """Estimates with intervals by region, sorted; those that stay after the correction stand out.

    Args:
        spec: The spec of all fits.
        table: The table `fits`.
        outcome: The outcome.
    """
    rows = _of(table, outcome).sort_values("estimate", ascending=False, kind="stable")
    is_named = len(rows) <= _MAX_NAMED
    figure = Figure(figsize=(7.2, 1.8 + min(0.22 * len(rows), 8.0)), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#d9dde2", linewidth=0.6)
    axes.set_axisbelow(True)
    alpha = 1.0 - spec.confidence_level
    is_found = (rows["pvalue_adjusted"] <= alpha).to_numpy()
    said = spec.fits.correction.replace("_", " ")
    low, high = _span(rows)
    for chosen, colour, label in (
        (is_found, BLUE, f"adjusted p ≤ {alpha:.2g} ({said})"),
        (~is_found, GREY, f"above {alpha:.2g}"),
    ):
        if chosen.any():
            # An infinite interval is drawn to the edge of the figure.
            lower, upper = (
                rows.loc[chosen, end].clip(low, high) for end in ("ci_lower", "ci_upper")
            )
            at, size = np.flatnonzero(chosen), 5.0 if is_named else 2.5
            axes.hlines(at, lower, upper, color=colour, linewidth=size / 3.5)
            axes.plot(rows.loc[chosen, "estimate"], at, "o", color=colour, markersize=size,
                      label=label)  # fmt: skip
    axes.set_xlim(low, high)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if is_named:
        axes.set_yticks(range(len(rows)), list(_names(rows)))
        axes.tick_params(axis="y", labelsize=8)
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(rows)} regions")
    axes.set_xlabel(f"effect on {outcome}, {spec.confidence_level:.0%} intervals")
    axes.set_title(f"{outcome}: effect by region", loc="left")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def pvalue_figure(spec: FitsSpec, pvalues: "pd.Series[float]") -> Figure:
    """Shares of placebo fits below each level, beside the line on which they ought to lie.

    Args:
        spec: The spec of all fits.
        pvalues: Of the placebo fits.
    """
    figure, axes = canvas()
    ordered = np.sort(pvalues.to_numpy())
    shares = np.arange(1, len(ordered) + 1) / len(ordered)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.0, label="exact test")
    axes.step([0.0, *ordered, 1.0], [0.0, *shares, 1.0], where="post", color=BLUE, linewidth=1.8,
              label=f"{len(ordered)} placebo fits")  # fmt: skip
    alpha = 1.0 - spec.confidence_level
    axes.axvline(alpha, color=ORANGE, linestyle=":", linewidth=1.2, label=f"level {alpha:.2g}")
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    axes.set_xlabel("p-value")
    axes.set_ylabel("share of placebo fits with a smaller one")
    axes.set_title("Placebos: regions to which nothing was done", loc="left")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _span(rows: pd.DataFrame) -> tuple[float, float]:
    """What the axis shows: zero, all estimates, and all finite ends."""
    values = rows[["estimate", "ci_lower", "ci_upper"]].to_numpy().ravel()
    kept = np.array([0.0, *values[np.isfinite(values)]])
    margin = 0.04 if np.isfinite(values).all() else _MARGIN
    pad = margin * (float(np.ptp(kept)) or 1.0)
    return float(kept.min()) - pad, float(kept.max()) + pad


def _of(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    own = table[(table["metric"] == outcome) & ~table["is_placebo"]]
    return own[own["estimate"].notna()]


def _names(rows: pd.DataFrame) -> Iterator[str]:
    for unit, start in zip(rows["unit"], rows["start"], strict=True):
        yield f"{unit} (from {shown(start)})"
