"""How far a budget goes: the price of money at which what is spent just stays within it.

Spending falls as the price rises, by steps: each unit drops a treatment at a price of its own. What
is spent at many prices is one aggregate of the units, so the price of a table of any size takes a
few passes. Units that drop at the same price are told apart by a hash.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from causal.core.errors import DataError
from causal.core.gram import Array

Spending = Callable[[Array], Array]
"""From positions, ascending, to what is spent at each: it does not rise. Shape (k,)."""

_POINTS = 31
_MAX_ROUNDS = 80
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """The ends between which spending passes the budget.

    Attributes:
        low: Here more is spent than the budget, unless it equals `high`.
        high: Here it is not.
        spent_low: What is spent at `low`.
        spent_high: What is spent at `high`.
    """

    low: float
    high: float
    spent_low: float
    spent_high: float

    @property
    def is_met(self) -> bool:
        """Whether spending is within the budget from the lowest position on."""
        return self.low == self.high


def bracket(spending: Spending, *, low: float, high: float, budget: float, slack: float) -> Bracket:
    """Where spending passes the budget.

    Args:
        spending: What is spent.
        low: The lowest position.
        high: A position at which spending is within the budget.
        budget: The budget.
        slack: The search ends when the ends differ in spending by no more.

    Raises:
        DataError: Spending exceeds the budget even at `high`.

    Example:
        >>> found = bracket(
        ...     lambda at: 10.0 * np.ceil(8 - at), low=0.0, high=8.0, budget=35.0, slack=10.0
        ... )
        >>> found.spent_low, found.spent_high
        (40.0, 30.0)
    """
    limit = budget * (1.0 + _ROUNDING)
    first, last = spending(np.array([low, high]))
    if first <= limit:
        return Bracket(low=low, high=low, spent_low=float(first), spent_high=float(first))
    if last > limit:
        raise DataError("no policy stays within the budget", given=budget, allowed=float(last))
    found = Bracket(low=low, high=high, spent_low=float(first), spent_high=float(last))
    for _ in range(_MAX_ROUNDS):
        if found.spent_low - found.spent_high <= slack:
            break
        points = np.linspace(found.low, found.high, _POINTS + 2)
        inner = np.unique(points[(points > found.low) & (points < found.high)])
        if inner.size == 0:
            break
        found = _narrowed(found, inner, spending(inner), limit)
    return found


def _narrowed(found: Bracket, points: Array, spent: Array, limit: float) -> Bracket:
    at = [found.low, *points.tolist(), found.high]
    values = [found.spent_low, *spent.tolist(), found.spent_high]
    place = next(i for i, value in enumerate(values) if i and value <= limit)
    return Bracket(
        low=at[place - 1], high=at[place],
        spent_low=values[place - 1], spent_high=values[place],
    )  # fmt: skip
