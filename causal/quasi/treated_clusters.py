"""How many clusters carry the treatment of a difference in differences, and how many do not."""

from collections.abc import Generator, Sequence

import pandas as pd

from causal.checks import few_clusters
from causal.core.frames import Condition, Constant, FrameRequest, GramRequest, KeyRequest
from causal.core.gram import grams
from causal.core.result import Diagnostic
from causal.quasi.did_options import DidOptions
from causal.quasi.panel import Panel
from causal.quasi.treatment_timing import EventWindow, level

NAME = "treated_clusters"
_MAX_SHOWN = 8


def ask_treated_clusters(
    options: DidOptions, panel: Panel, *, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, list[Diagnostic]]:
    """A check of the treated and the other clusters; nothing where both are many.

    Where units cluster by themselves, or moments by cluster are at hand, it takes no pass.

    Args:
        options: The analysis.
        panel: Its panel.
        where: Conditions on the rows.
    """
    if options.covariance != "cluster" or panel.timing is None:
        return []
    if options.clusters == options.unit:
        treated, others = panel.n_units()
        return _check(treated=treated, others=others, n_clusters=treated + others)
    sides = panel.sides()
    if sides is not None:
        return _check(
            treated=len(sides[0]), others=len(sides[1]), n_clusters=len(sides[0] | sides[1])
        )
    starts = tuple(level(start) for start in panel.starts if start <= panel.periods[-1])
    values = (1,) if options.group is not None else starts
    inside = (*where, Condition(panel.timing.cohort, values))
    counts = []
    for conditions in (where, inside):
        frame = yield KeyRequest(key=(options.clusters,), where=conditions, n_examples=0)
        counts.append(int(frame["n_keys"].iloc[0]))
    return _check(treated=counts[1], others=counts[0] - counts[1], n_clusters=counts[0])


def ask_lone_effects(
    options: DidOptions,
    panel: Panel,
    windows: Sequence[EventWindow],
    *,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, list[Diagnostic]]:
    """A check that no coefficient rests on one unit (cluster); nothing where none does.

    The residuals of that one add up to zero, so that nothing shows how far it may be from others.
    CR3 refuses such coefficients by itself.

    Args:
        options: The analysis.
        panel: Its panel.
        windows: The event times of the coefficients.
        where: Conditions on the rows.
    """
    if options.covariance != "cluster" or options.is_two_way or panel.timing is None:
        return []
    counts = yield from _clusters_by_cohort(options, panel, where=where)
    lone = [
        window.name
        for window in windows
        if sum(n for start, n in counts.items() if window.path(panel.periods, start).any()) == 1
    ]
    if not lone:
        return []
    more = f" and {len(lone) - _MAX_SHOWN} more" if len(lone) > _MAX_SHOWN else ""
    return [
        Diagnostic(
            name="lone_effects", statistic=float(len(lone)), pvalue=None, passed=False,
            detail=f"seen in one {options.clusters} only, so that their errors (and those of "
            f"averages with them) are too small: {', '.join(lone[:_MAX_SHOWN])}{more}",
        )
    ]  # fmt: skip


def _clusters_by_cohort(
    options: DidOptions, panel: Panel, *, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, dict[float, int]]:
    """Clusters (units) of each cohort that is ever treated."""
    if options.clusters == options.unit:
        counts = {c.first_treated_period: c.n + c.n_incomplete for c in panel.cohorts}
    elif panel.clusters is not None:
        keys: dict[float | None, set[object]] = {}
        for part in panel.clusters.parts:
            if part.n + part.n_incomplete > 0:
                keys.setdefault(part.first_treated_period, set()).add(part.key)
        counts = {start: len(found) for start, found in keys.items()}
    elif panel.timing is not None:
        request = GramRequest(
            terms=(Constant(),), by=(panel.timing.cohort,), summed_by=(options.clusters,),
            where=where,
        )  # fmt: skip
        found = grams((yield request), request)
        counts = {
            panel.timing.first_treated(None if key[0] is None else float(key[0])): item.n
            for key, item in found.items()
        }
    return {start: n for start, n in counts.items() if start is not None}


def _check(*, treated: int, others: int, n_clusters: int) -> list[Diagnostic]:
    """Clusters without treated units may be none: then there are no two sides."""
    if others == 0 or treated + others > n_clusters:
        counts = {"treated": treated, "all": n_clusters}
        return few_clusters.sides(counts, name=NAME, effective=(float(n_clusters),))
    return few_clusters.sides({"treated": treated, "others": others}, name=NAME)
