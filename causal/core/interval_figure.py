"""Estimates with intervals, one line each, beside the truth where it is known."""

import pandas as pd
from matplotlib.figure import Figure

from causal.core.canvas import canvas

_INK, _BAND, _TRUTH, _GREY = "#1f3b5c", "#2a7f9e", "#c8622d", "#7a7a7a"
_MARGIN = 0.12


def interval_figure(
    table: pd.DataFrame, *, title: str, quantity: str, label: str = "term", reference: float = 0.0
) -> Figure:
    """Estimates from top to bottom; an end that is not finite runs out of the picture.

    One truth for all is a line across, different ones are points.

    Args:
        table: Columns `estimate`, `ci_lower`, `ci_upper`, the label, and `truth` if it is known,
            null where it is not.
        title: What they are.
        quantity: Name and unit of the estimates, for the axis.
        label: Column of the labels.
        reference: Where a dotted line stands.
    """
    figure, axes = canvas(height=1.5 + 0.36 * len(table), grid="x")
    at = list(range(len(table)))
    truths = table.get("truth", pd.Series(float("nan"), index=table.index)).astype(float)
    shown = pd.concat([table[["estimate", "ci_lower", "ci_upper"]].stack(), truths])
    finite = [value for value in [*shown, reference] if abs(value) < float("inf")]
    low, high = min(finite), max(finite)
    margin = _MARGIN * ((high - low) or 1.0)
    low, high = low - margin, high + margin
    axes.hlines(
        at, table["ci_lower"].clip(low, high), table["ci_upper"].clip(low, high),
        color=_BAND, linewidth=2.5,
    )  # fmt: skip
    axes.plot(table["estimate"], at, "o", color=_INK, label="estimate and interval")
    if truths.nunique() == 1 and truths.notna().all():
        axes.axvline(truths.iloc[0], color=_TRUTH, linewidth=1.5, label="truth")
    elif truths.notna().any():
        axes.plot(truths, at, "|", color=_TRUTH, markersize=15, markeredgewidth=2, label="truth")
    axes.axvline(reference, color=_GREY, linewidth=0.9, linestyle=":")
    axes.set_yticks(at, table[label])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlim(low, high)
    axes.set_xlabel(quantity)
    axes.set_title(title, loc="left")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure
