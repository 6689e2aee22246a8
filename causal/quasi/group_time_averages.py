r"""Averages of group-time effects: overall, by event time, by cohort and by period.

Weights are the cohorts' shares among the units, and these are estimated too. With
`theta = sum_k n_k att_k / sum_k n_k` over comparisons k of cohorts of n_k units, a unit of cohort c
moves the weights, and through them theta, by

    sum_{k of cohort c} (att_k - theta) / sum_k n_k,

the same for all units of the cohort. With sampling weights n_k is their sum and a unit moves theta
by its weight times that. Callaway and Sant'Anna (2021), section 3 and corollary 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.quasi.group_time import GroupTime
from causal.quasi.influence import Estimates, stacked
from causal.quasi.staggered_options import Kind, StaggeredOptions


@dataclass(frozen=True, kw_only=True)
class Average:
    """Averages of one kind.

    Attributes:
        kind: What they are by.
        labels: Event time, cohort or period of each average; empty for `simple`.
        members: Of each average, the positions of the comparisons in it.
        overall_members: The positions of the comparisons in the overall average.
        estimates: The averages; last, the overall one.
    """

    kind: Kind
    labels: tuple[float, ...]
    members: tuple[tuple[int, ...], ...]
    overall_members: tuple[int, ...]
    estimates: Estimates

    @property
    def overall(self) -> Estimates:
        """The overall average."""
        return self.estimates.chosen([len(self.labels)])

    @property
    def parts(self) -> Estimates:
        """The averages but the overall one."""
        return self.estimates.chosen(range(len(self.labels)))


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Sizes of the cohorts, by which effects are averaged.

    Attributes:
        sizes: Units, or their weights summed, by cohort, shape (C,).
        means: Mean weight of a unit, shape (C,); 1 without weights.
        at: Which of a unit's values sum to its weight; `None` without weights.
    """

    sizes: Array
    means: Array
    at: tuple[int, ...] | None = None

    @classmethod
    def of_units(cls, counts: Array) -> "Shares":
        """Each unit counts as one."""
        return cls(sizes=counts, means=np.ones(len(counts)))


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Group-time effects to average.

    Attributes:
        cells: The K comparisons.
        estimates: Their effects.
        shares: Sizes of the cohorts.
        periods: The T periods, shape (T,).
    """

    cells: tuple[GroupTime, ...]
    estimates: Estimates
    shares: Shares
    periods: Array

    def where(self, condition: Callable[[GroupTime], bool]) -> tuple[int, ...]:
        """Positions of the comparisons that fulfil a condition."""
        return tuple(k for k, cell in enumerate(self.cells) if condition(cell))


def average(effects: Effects, kind: Kind, options: StaggeredOptions) -> Average:
    """Averages of one kind.

    Args:
        effects: Group-time effects.
        kind: `simple`: all effects after the start, weighted by cohort size; `dynamic`: by event
            time, overall the mean over event times from 0 on; `group`: mean over the periods of
            each cohort, overall weighted by cohort size; `calendar`: by period, overall the mean
            over periods.
        options: The window of event times.

    Raises:
        DataError: Nothing lies in the window.
    """
    return _KINDS[kind](effects, options)


def _simple(effects: Effects, options: StaggeredOptions) -> Average:
    post = _post(effects, options)
    overall = _by_share(effects.estimates, post, _cohorts(effects, post), effects.shares)
    return Average(kind="simple", labels=(), members=(), overall_members=post, estimates=overall)


def _dynamic(effects: Effects, options: StaggeredOptions) -> Average:
    allowed = _event_window(effects, options)
    times = sorted({effects.cells[k].event_time for k in allowed})
    members = tuple(
        tuple(k for k in allowed if effects.cells[k].event_time == time) for time in times
    )
    if not times or times[-1] < 0:
        raise DataError(
            "the event study has no event time from 0 on: widen min_event_time, max_event_time or "
            "balanced_event_time"
        )
    parts = [
        _by_share(effects.estimates, which, _cohorts(effects, which), effects.shares)
        for which in members
    ]
    after = [j for j, time in enumerate(times) if time >= 0]
    labels = tuple(float(time) for time in times)
    return _with_mean("dynamic", labels, members, stacked(parts), over=after)


def _group(effects: Effects, options: StaggeredOptions) -> Average:
    post = _post(effects, options)
    cohorts = sorted({effects.cells[k].cohort for k in post})
    members = tuple(tuple(k for k in post if effects.cells[k].cohort == c) for c in cohorts)
    weights = np.zeros((len(cohorts), len(effects.cells)))
    for j, which in enumerate(members):
        weights[j, list(which)] = 1.0 / len(which)
    parts = effects.estimates.combined(weights)
    overall = _by_share(parts, range(len(cohorts)), cohorts, effects.shares)
    labels = tuple(effects.cells[which[0]].start for which in members)
    return Average(
        kind="group",
        labels=labels,
        members=members,
        overall_members=post,
        estimates=stacked([parts, overall]),
    )


def _calendar(effects: Effects, options: StaggeredOptions) -> Average:
    del options  # the window of event times does not cut calendar time
    post = effects.where(lambda cell: cell.event_time >= 0)
    periods = sorted({effects.cells[k].period for k in post})
    members = tuple(tuple(k for k in post if effects.cells[k].period == t) for t in periods)
    parts = [
        _by_share(effects.estimates, which, _cohorts(effects, which), effects.shares)
        for which in members
    ]
    return _with_mean("calendar", tuple(periods), members, stacked(parts), over=range(len(periods)))


_KINDS = {"simple": _simple, "dynamic": _dynamic, "group": _group, "calendar": _calendar}


def _post(effects: Effects, options: StaggeredOptions) -> tuple[int, ...]:
    high = options.max_event_time
    return effects.where(
        lambda cell: cell.event_time >= 0 and (high is None or cell.event_time <= high)
    )


def _event_window(effects: Effects, options: StaggeredOptions) -> tuple[int, ...]:
    """Comparisons of the event study.

    Balanced up to event time e: cohorts that are seen e periods after their start, in the event
    times from `e - (T - 1)` to e, which all of them could have.
    """
    first, last = effects.periods[0], max(cell.period for cell in effects.cells)
    low = -np.inf if options.min_event_time is None else options.min_event_time
    high = np.inf if options.max_event_time is None else options.max_event_time
    balance = options.balanced_event_time
    if balance is not None:
        low, high = max(low, balance - (last - first)), min(high, balance)
    return effects.where(
        lambda cell: (
            low <= cell.event_time <= high and (balance is None or last - cell.start >= balance)
        )
    )


def _cohorts(effects: Effects, which: Sequence[int]) -> list[int]:
    return [effects.cells[k].cohort for k in which]


def _by_share(
    estimates: Estimates, which: Sequence[int], cohorts: Sequence[int], shares: Shares
) -> Estimates:
    """Average of estimates weighted by the size of their cohorts, the sizes being random too."""
    at, of, sizes = list(which), list(cohorts), shares.sizes
    weights = np.zeros((1, len(estimates.values)))
    weights[0, at] = sizes[of] / sizes[of].sum()
    off = estimates.values[at] - float(weights[0] @ estimates.values)
    offsets = np.zeros((1, len(sizes)))
    np.add.at(offsets[0], of, off / sizes[of].sum())
    if shares.at is None:
        return estimates.combined(weights, offsets)
    slopes = np.zeros((1, *estimates.slopes.shape[1:]))
    slopes[0][:, list(shares.at)] = offsets[0][:, None]
    return estimates.combined(weights, offsets * shares.means, slopes)


def _with_mean(
    kind: Kind,
    labels: tuple[float, ...],
    members: tuple[tuple[int, ...], ...],
    parts: Estimates,
    *,
    over: Sequence[int],
) -> Average:
    weights = np.zeros((1, len(labels)))
    weights[0, list(over)] = 1.0 / len(over)
    return Average(
        kind=kind, labels=labels, members=members,
        overall_members=tuple(k for j in over for k in members[j]),
        estimates=stacked([parts, parts.combined(weights)]),
    )  # fmt: skip
