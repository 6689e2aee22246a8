"""Figures of a certificate: realised rates against promised ones, power curves, p-values."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from causal.checks.certificate import COVERAGE, NAME, POWER, TYPE_ONE
from causal.core.canvas import open_axes

_INK, _GOOD, _BAD, _RAW, _BAND = "#1f3b5c", "#2a7f9e", "#b3362c", "#9aa3ad", "#e4edf1"
_SAFE = "#c98a1b"
_ROW_HEIGHT = 0.36
_MAX_ROWS, _MAX_PANELS, _COLUMNS = 60, 24, 3
_KOLMOGOROV = 1.358
"""Half-width of the 95 % band of an empirical distribution, times the root of the count."""


def figures(tables: Mapping[str, pd.DataFrame]) -> Mapping[str, Figure]:
    """All figures of a certificate, by file name without ending; none without replicates.

    Args:
        tables: The tables `certificate` and `certificate_pvalues` of a result.
    """
    rates, pvalues = tables.get(NAME), tables.get(f"{NAME}_pvalues")
    if rates is None or pvalues is None or rates.empty:
        return {}
    return {
        NAME: promised_rates(rates),
        f"{NAME}_power": power_curves(rates[rates["quantity"] == POWER]),
        f"{NAME}_pvalues": uniformity(pvalues),
    }


def promised_rates(rates: pd.DataFrame) -> Figure:
    """Type I error and coverage of every estimator, with binomial intervals and tolerated bands."""
    kept = rates[rates["quantity"].isin([TYPE_ONE, COVERAGE])]
    keys = ["metric", "term", "estimator", "scale"]
    labels = kept[keys].drop_duplicates().head(_MAX_ROWS)
    figure = Figure(figsize=(9.0, 1.5 + _ROW_HEIGHT * len(labels)), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    n = int(kept["n_replications"].max())
    for axes, quantity, title in zip(
        both, (TYPE_ONE, COVERAGE), ("type I error", "coverage of the interval"), strict=True
    ):
        rows = labels.merge(kept[kept["quantity"] == quantity], on=keys, how="left")
        _rate_rows(axes, rows)
        axes.set_title(title, loc="left", fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    names = [
        f"{row.metric}: {row.term} ({row.estimator}{', lift' if row.scale == 'relative' else ''})"
        for row in labels.itertuples()
    ]
    both[0].set_yticks(range(len(labels)), names)
    both[0].set_ylim(len(labels) - 0.4, -0.6)
    figure.supxlabel(
        f"share of {n:,} re-randomisations, 95% binomial interval; shaded: tolerated", fontsize=9
    )
    return figure


def _rate_rows(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axvspan(rows["band_lower"].min(), rows["band_upper"].max(), color=_BAND, zorder=0)
    axes.axvline(rows["nominal"].iloc[0], color=_INK, linewidth=0.8, linestyle="--")
    for at, row in enumerate(rows.to_dict("records")):
        colour = _GOOD if row["is_headline"] else _RAW
        colour = {False: _BAD, None: _SAFE}.get(row["passed"], colour)
        axes.plot([row["ci_lower"], row["ci_upper"]], [at, at], color=colour, linewidth=2.2)
        axes.plot([row["rate"]], [at], "o", color=colour, markersize=5)
    open_axes(axes, label_size=8)


def power_curves(power: pd.DataFrame) -> Figure:
    """Realised power of every estimator beside what its standard errors foretell."""
    panels = list(_panels(power))
    figure, grid = _grid(len(panels))
    for axes, (title, found) in zip(grid, panels, strict=False):
        is_share = bool(np.isfinite(found["effect_share"]).all())
        rows = found.assign(x=found["effect_share" if is_share else "effect"]).sort_values("x")
        for estimator, part in _in_order(rows):
            colour = _GOOD if part["is_headline"].iloc[0] else _RAW
            errors = [part["rate"] - part["ci_lower"], part["ci_upper"] - part["rate"]]
            axes.plot(part["x"], part["nominal"], color=colour, linewidth=1.2)
            axes.errorbar(
                part["x"], part["rate"], yerr=errors, fmt="o", color=colour, markersize=4,
                capsize=2, label=estimator,
            )  # fmt: skip
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if is_share:
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        axes.set_title(title, loc="left", fontsize=9)
        axes.legend(frameon=False, fontsize=7, loc="lower right")
        open_axes(axes, label_size=8)
    figure.supylabel("found", fontsize=9)
    figure.supxlabel(
        "effect put in, share of the control level where there is one; "
        "line: foretold by the standard error",
        fontsize=9,
    )
    return figure


def uniformity(pvalues: pd.DataFrame) -> Figure:
    """How far the p-values' distribution is from uniform when there is no effect."""
    panels = list(_panels(pvalues))
    figure, grid = _grid(len(panels))
    for axes, (title, rows) in zip(grid, panels, strict=False):
        half = _KOLMOGOROV / math.sqrt(rows["n_replications"].iloc[0])
        axes.axhspan(-half, half, color=_BAND, zorder=0)
        axes.axhline(0.0, color=_INK, linewidth=0.8, linestyle="--")
        for estimator, part in _in_order(rows):
            colour = _GOOD if part["is_headline"].iloc[0] else _RAW
            gap = part["share"] - part["pvalue"]
            axes.plot(part["pvalue"], gap, color=colour, linewidth=1.3, label=estimator)
        reach = max(2 * half, 1.1 * float((rows["share"] - rows["pvalue"]).abs().max()))
        axes.set_ylim(-reach, reach)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        axes.set_title(title, loc="left", fontsize=9)
        axes.legend(frameon=False, fontsize=7, loc="upper right")
        open_axes(axes, label_size=8)
    figure.supylabel("share of p-values below p, less p", fontsize=9)
    figure.supxlabel("p, with no effect; shaded: 95% band of uniform p-values", fontsize=9)
    return figure


def _panels(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    groups = frame.groupby(["metric", "term"], sort=False)
    for position, ((metric, term), rows) in enumerate(groups):
        if position < _MAX_PANELS:
            yield f"{metric}: {term}", rows


def _in_order(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """By estimator, the headline last so that it is drawn on top."""
    parts = [(str(name), part) for name, part in rows.groupby("estimator", sort=False)]
    return sorted(parts, key=lambda item: bool(item[1]["is_headline"].iloc[0]))


def _grid(n_panels: int) -> tuple[Figure, Sequence[Axes]]:
    n_columns = min(n_panels, _COLUMNS)
    n_rows = -(-n_panels // n_columns)
    size = (1.2 + 3.1 * n_columns, 0.9 + 2.4 * n_rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in grid[n_panels:]:
        axes.set_visible(False)
    return figure, list(grid)
