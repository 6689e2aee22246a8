"""Nearest-neighbour matching on one score, greedily or with replacement, and its errors.

Without replacement each treated unit in turn takes the nearest control that is left; with several
matches all units get their first before any gets its second (Stuart 2010; the order of MatchIt).
Ties go to the unit that comes first. The score is sorted once, and used controls are jumped over,
so that n units cost about n log n, also where many scores are equal or groups are many.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from causal.core.errors import InferenceError
from causal.core.gram import Array

Order = Literal["largest", "smallest", "unit"]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Matches of focal units.

    Attributes:
        focal: Position of the focal unit of each match, shape (m,).
        match: Position of its partner in the other arm, shape (m,).
    """

    focal: Positions
    match: Positions


@dataclass(frozen=True, kw_only=True)
class MatchingRule:
    """How partners are found.

    Attributes:
        ratio: Partners of each unit.
        is_replaced: Whether a unit may be a partner several times.
        order: Who chooses first without replacement: the largest score, the smallest, or the first.
        caliper: Largest distance of partners, in units of the score; `None`: any.
    """

    ratio: int = 1
    is_replaced: bool = False
    order: Order = "largest"
    caliper: float | None = None


def match(focal: Array, pool: Array, *, rule: MatchingRule, groups: tuple[Any, Any]) -> Pairs:
    """Partners in the pool for every focal unit that has one.

    Args:
        focal: Scores of the focal units, shape (n,).
        pool: Scores of the possible partners, shape (m,).
        rule: How they are found.
        groups: Codes of the group of each focal and each pool unit; partners share the group.
    """
    found_focal: list[int] = []
    found_match: list[int] = []
    pools = dict(_by_group(groups[1]))
    for group, own in _by_group(groups[0]):
        others = pools.get(group)
        if others is None:
            continue
        pairs = (_with if rule.is_replaced else _without)(focal[own], pool[others], rule)
        for at, partner in pairs:
            found_focal.append(int(own[at]))
            found_match.append(int(others[partner]))
    return Pairs(np.array(found_focal, dtype=np.int64), np.array(found_match, dtype=np.int64))


def _by_group(groups: Any) -> list[tuple[Any, Positions]]:
    """Positions of the units of each group, in one pass however many groups there are."""
    codes = np.asarray(groups)
    order = np.argsort(codes, kind="stable")
    values, starts = np.unique(codes[order], return_index=True)
    return list(zip(values.tolist(), np.split(order, starts[1:]), strict=True))


class _Available:
    """Positions of a sorted list that are still free; the next free one is found in a few steps."""

    def __init__(self, size: int) -> None:
        self._next = list(range(size + 1))
        self._last = list(range(size + 1))

    def at_or_after(self, position: int) -> int:
        """The first free position from here on; the size of the list if there is none."""
        return self._root(self._next, position)

    def at_or_before(self, position: int) -> int:
        """The last free position up to here; -1 if there is none."""
        return self._root(self._last, position + 1) - 1

    def remove(self, position: int) -> None:
        self._next[position] = position + 1
        self._last[position + 1] = position

    @staticmethod
    def _root(parents: list[int], position: int) -> int:
        root = position
        while parents[root] != root:
            root = parents[root]
        while parents[position] != root:
            parents[position], position = root, parents[position]
        return root


def _without(focal: Array, pool: Array, rule: MatchingRule) -> Iterator[tuple[int, int]]:
    order = np.argsort(pool, kind="stable")
    scores = pool[order]
    first = np.searchsorted(scores, scores, side="left")
    starts = np.searchsorted(scores, focal, side="left")
    free = _Available(len(pool))
    turns = {
        "largest": np.argsort(-focal, kind="stable"),
        "smallest": np.argsort(focal, kind="stable"),
        "unit": np.arange(len(focal)),
    }[rule.order]
    for _ in range(rule.ratio):
        for at in turns:
            candidates = []
            above = free.at_or_after(int(starts[at]))
            if above < len(pool):
                candidates.append(above)
            below = free.at_or_before(int(starts[at]) - 1)
            if below >= 0:
                candidates.append(free.at_or_after(int(first[below])))
            if not candidates:
                return
            gaps = [(abs(scores[c] - focal[at]), int(order[c]), c) for c in candidates]
            chosen = min(gaps)[-1]
            if rule.caliper is None or abs(scores[chosen] - focal[at]) <= rule.caliper:
                free.remove(chosen)
                yield int(at), int(order[chosen])


def _with(focal: Array, pool: Array, rule: MatchingRule) -> Iterator[tuple[int, int]]:
    order = np.argsort(pool, kind="stable")
    scores = pool[order]
    first = np.searchsorted(scores, scores, side="left")
    starts = np.searchsorted(scores, focal, side="left")
    for at, start in enumerate(starts):
        window = _window(first, int(start), rule.ratio)
        gaps = ((abs(float(scores[c] - focal[at])), int(order[c]), c) for c in window)
        for gap, partner, _ in heapq.nsmallest(rule.ratio, gaps):
            if rule.caliper is None or gap <= rule.caliper:
                yield at, partner


def _window(first: Positions, start: int, count: int) -> list[int]:
    """Sorted positions among which the `count` nearest lie, with ties to who comes first.

    Equal scores lie in the order of their units: of each run of them the first `count` will do.

    Args:
        first: Position of the first of the scores that are equal to each, shape (m,).
        start: Position of the first score that is not smaller than the value.
        count: How many are looked for.
    """
    window = list(range(start, min(start + count, len(first))))
    end, left = start, count
    while end > 0 and left > 0:
        run = int(first[end - 1])
        taken = range(run, min(run + count, end))
        window += taken
        left -= len(taken)
        end = run
    return window


def set_differences(pairs: Pairs, focal: Array, pool: Array) -> tuple[Positions, Array]:
    """Matched focal units, and each one's outcome less the mean of its partners."""
    units, at, counts = np.unique(pairs.focal, return_inverse=True, return_counts=True)
    partners = np.bincount(at, pool[pairs.match], len(units)) / counts
    return units, focal[units] - partners


def paired_error(differences: Array, *, factor: float = 1.0) -> float:
    """Standard error clustered by matched set (Abadie and Spiess 2022).

    Args:
        differences: One per set, shape (g,).
        factor: Small-sample factor on the variance.
    """
    g = len(differences)
    return float(np.sqrt(factor * ((differences - differences.mean()) ** 2).sum()) / g)


def replaced_error(pairs: Pairs, outcomes: tuple[Array, Array], variances: Array) -> float:
    """Standard error of matching with replacement (Abadie and Imbens 2006, theorem 7).

    Args:
        pairs: The matches.
        outcomes: Of focal and of pool units.
        variances: Conditional variance of each pool unit's outcome, shape (m,).
    """
    _, differences = set_differences(pairs, *outcomes)
    n, m = len(differences), len(variances)
    share = 1.0 / np.bincount(pairs.focal)[pairs.focal]
    uses = np.bincount(pairs.match, share, m) ** 2 - np.bincount(pairs.match, share**2, m)
    between = ((differences - differences.mean()) ** 2).sum()
    within = (uses * variances).sum()
    return float(np.sqrt(between + within) / n)


def conditional_variances(scores: Array, outcomes: Array, groups: Any) -> Array:
    """Each unit's conditional variance from the nearest unit of its own arm and group.

    Half the squared difference of the two outcomes (Abadie and Imbens 2006, equation 14, J = 1).

    Raises:
        InferenceError: A unit is alone in its arm and group.
    """
    found = np.empty(len(scores))
    for _, at in _by_group(groups):
        if len(at) < 2:  # noqa: PLR2004
            raise InferenceError(
                "errors with replacement need two units of each arm in every exact group",
                given=f"{len(at)} in one of them",
            )
        order = np.argsort(scores[at], kind="stable")
        own = at[order]
        value = scores[own]
        for position, unit in enumerate(own):
            others = [other for other in (position - 1, position + 1) if 0 <= other < len(own)]
            gaps = [(abs(value[other] - value[position]), int(own[other])) for other in others]
            found[unit] = (outcomes[unit] - outcomes[min(gaps)[-1]]) ** 2 / 2.0
    return found
