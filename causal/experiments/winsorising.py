"""Bounds of winsorised metrics that are quantiles of the data.

The quantile is taken over all compared arms together, so that every arm has the same bound and the
bound tells nothing of who was treated. That makes its error harmless: the effect's derivative in
the bound is the difference of the arms' shares beyond it.
"""

from collections.abc import Generator, Sequence

import pandas as pd

from causal.checks.panel_health import note
from causal.core.errors import DataError
from causal.core.frames import Column, Condition, FrameRequest
from causal.core.result import Diagnostic
from causal.experiments.arms import Design
from causal.experiments.metrics import Metric, Winsorise
from causal.experiments.order_statistics import (
    OrderStatistic,
    Values,
    ask_histogram,
    ask_order_statistics,
    rank_of,
)


def ask_bounds(
    design: Design, metrics: Sequence[Metric]
) -> Generator[FrameRequest, pd.DataFrame, tuple[tuple[Metric, ...], list[Diagnostic]]]:
    """The metrics with numbers for bounds, and what they were.

    Args:
        design: Who was randomised to what.
        metrics: All metrics.

    Raises:
        DataError: A column has no value, or both bounds of a metric are the same number.
    """
    found: list[Metric] = []
    notes: list[Diagnostic] = []
    for metric in metrics:
        if metric.winsorise is None or not metric.winsorise.quantiles:
            found.append(metric)
            continue
        bounded, said = yield from _ask(design, metric, metric.winsorise)
        found.append(bounded)
        notes.append(said)
    return tuple(found), notes


def _ask(
    design: Design, metric: Metric, wanted: Winsorise
) -> Generator[FrameRequest, pd.DataFrame, tuple[Metric, Diagnostic]]:
    values = Values(term=Column(str(metric.column)), where=_compared(design))
    start = yield from ask_histogram(values)
    rows = start.get(())
    if rows is None or rows.n == 0:
        raise DataError(f"{metric.name}: no row has a value")
    ranks = [rank_of(share, rows.n) for share in wanted.quantiles]
    known = yield from ask_order_statistics(values, {(): ranks}, start=start)
    sides = {
        name: None if share is None else known[(), rank_of(share, rows.n)]
        for name, share in (("lower", wanted.lower_quantile), ("upper", wanted.upper_quantile))
    }
    lower = wanted.lower if sides["lower"] is None else sides["lower"].value
    upper = wanted.upper if sides["upper"] is None else sides["upper"].value
    if lower is not None and upper is not None and not lower < upper:
        raise DataError(
            f"{metric.name}: winsorise leaves one value only", given=f"{lower:g} to {upper:g}"
        )
    bounded = metric.model_copy(update={"winsorise": Winsorise(lower=lower, upper=upper)})
    return bounded, _said(metric, wanted, sides, n=rows.n)


def _compared(design: Design) -> tuple[Condition, ...]:
    if design.treatments is None:
        return design.where
    arms = Condition(design.variant, (design.control, *design.treatments))
    return (*design.where, arms)


def _said(
    metric: Metric, wanted: Winsorise, sides: dict[str, OrderStatistic | None], *, n: int
) -> Diagnostic:
    parts, moved = [], 0
    for name, share in (("lower", wanted.lower_quantile), ("upper", wanted.upper_quantile)):
        side = sides[name]
        if side is None:
            continue
        beyond = side.n_below if name == "lower" else n - side.n_below - side.n_equal
        moved += beyond
        parts.append(f"{name} {side.value:.6g}, the quantile {share:g}")
    detail = (
        f"{metric.name}: bounds from all arms together: {'; '.join(parts)}; {moved:,} of {n:,} "
        "values lie beyond and are set to them"
    )
    return note(f"winsorised.{metric.name}", float(moved), detail)
