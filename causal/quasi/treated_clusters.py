"""How many clusters carry the treatment of a difference in differences, and how many do not."""

from collections.abc import Generator, Iterable, Mapping, Sequence

import pandas as pd

from causal.checks import few_clusters
from causal.core.frames import Condition, Constant, FrameRequest, GramRequest, KeyRequest
from causal.core.gram import grams
from causal.core.result import Diagnostic
from causal.core.texts import listed
from causal.quasi.did_options import DidOptions
from causal.quasi.panel import Panel, UnitCount
from causal.quasi.treatment_timing import EventWindow, Timing, level

NAME = "treated_clusters"

Cohorts = frozenset[float]
"""First treated periods."""


def ask_treated_clusters(
    options: DidOptions,
    panel: Panel,
    *,
    units: Sequence[UnitCount],
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, list[Diagnostic]]:
    """A check of the treated and the other clusters; nothing where both are many.

    Where units cluster by themselves, or moments by cluster are at hand, it takes no pass.

    Args:
        options: The analysis.
        panel: Its panel.
        units: The units used.
        where: Conditions on the rows.
    """
    if options.covariance != "cluster" or panel.timing is None:
        return []
    if options.clusters == options.unit:
        treated, others = panel.n_units(units)
        return _check(treated=treated, others=others, n_clusters=treated + others)
    if panel.clusters is not None:
        inside = {part.key for part in units if panel.is_treated(part)}
        outside = {part.key for part in units if not panel.is_treated(part)}
        return _check(treated=len(inside), others=len(outside), n_clusters=len(inside | outside))
    starts = [start for start in panel.starts if start <= panel.periods[-1]]
    n_clusters = yield from _n_keys(options, where)
    n_treated = yield from _n_keys(options, (*where, _of_cohorts(panel.timing, starts)))
    return _check(treated=n_treated, others=n_clusters - n_treated, n_clusters=n_clusters)


def ask_lone_effects(
    options: DidOptions,
    panel: Panel,
    windows: Mapping[EventWindow, int],
    *,
    units: Sequence[UnitCount],
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, list[Diagnostic]]:
    """A check that no coefficient rests on one unit (cluster); nothing where none does.

    The residuals of that one add up to zero, so that nothing shows how far it may be from others.
    CR3 refuses such coefficients by itself.

    Args:
        options: The analysis.
        panel: Its panel.
        windows: The event times of the coefficients, and the rows in each.
        units: The units used.
        where: Conditions on the rows.
    """
    if options.covariance != "cluster" or options.is_two_way or panel.timing is None:
        return []
    starts = {s for part in units if (s := part.first_treated_period) is not None}
    cohorts = {
        window: frozenset(start for start in starts if window.path(panel.periods, start).any())
        for window in windows
    }
    counts = yield from _n_clusters(options, panel, set(cohorts.values()), units=units, where=where)
    lone = [w.name for w, n_rows in windows.items() if n_rows == 1 or counts[cohorts[w]] == 1]
    if not lone:
        return []
    return [
        Diagnostic(
            name="lone_effects", statistic=float(len(lone)), pvalue=None, passed=False,
            detail=f"seen in one {options.clusters} only, so that their errors (and those of "
            f"averages with them) are too small: {listed(lone)}",
        )
    ]  # fmt: skip


def _n_clusters(
    options: DidOptions,
    panel: Panel,
    cohorts: Iterable[Cohorts],
    *,
    units: Sequence[UnitCount],
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, dict[Cohorts, int]]:
    """Clusters (units) with units in some of several cohorts.

    Where no moments by cluster are at hand those of each cohort are counted in one pass, and where
    each of several has a single one, whether it is the same in another.
    """
    held = {some: [part for part in units if part.first_treated_period in some] for some in cohorts}
    if options.clusters == options.unit:
        return {some: sum(part.n for part in parts) for some, parts in held.items()}
    if panel.clusters is not None or panel.timing is None:
        return {some: len({part.key for part in parts}) for some, parts in held.items()}
    timing = panel.timing
    request = GramRequest(
        terms=(Constant(),), by=(timing.cohort,), summed_by=(options.clusters,), where=where
    )
    by_cohort = {
        timing.first_treated(None if key[0] is None else float(key[0])): item.n
        for key, item in grams((yield request), request).items()
    }
    counts = {some: sum(by_cohort[start] for start in some) for some in held}
    for some in held:
        if counts[some] == len(some) > 1:
            counts[some] = yield from _n_keys(options, (*where, _of_cohorts(timing, sorted(some))))
    return counts


def _of_cohorts(timing: Timing, starts: Sequence[float]) -> Condition:
    """Keeps the rows of some treated cohorts."""
    return Condition(timing.cohort, tuple(level(timing.raw(start)) for start in starts))


def _n_keys(
    options: DidOptions, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, int]:
    frame = yield KeyRequest(key=(options.clusters,), where=where, n_examples=0)
    return int(frame["n_keys"].iloc[0])


def _check(*, treated: int, others: int, n_clusters: int) -> list[Diagnostic]:
    """Clusters without treated units may be none: then there are no two sides."""
    if others == 0 or treated + others > n_clusters:
        counts = {"treated": treated, "all": n_clusters}
        return few_clusters.sides(counts, name=NAME, effective=(float(n_clusters),))
    return few_clusters.sides({"treated": treated, "others": others}, name=NAME)
