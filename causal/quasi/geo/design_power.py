"""From pretended experiments to an A/A rate, power at lifts and the smallest detectable lift."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal.checks.certificate import binomial_interval
from causal.core.gram import Array
from causal.quasi.geo.placebo_windows import Trial

_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of windows with its interval.

    Attributes:
        share: Of the windows in which the test rejects.
        lower: Lower end of the exact binomial interval (Clopper and Pearson 1934).
        upper: Upper end.
    """

    share: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Trials:
    """All windows of one candidate and duration.

    Attributes:
        items: One per window.
        n_independent: Windows that share no period with each other: what an interval counts.
    """

    items: tuple[Trial, ...]
    n_independent: int

    @property
    def level(self) -> float:
        """Mean outcome of the treated regions over the windows."""
        return float(np.mean([item.level for item in self.items]))

    @property
    def bias(self) -> float:
        """Mean placebo effect as a share of the level."""
        return float(np.mean([item.effect for item in self.items])) / self.level

    @property
    def rmse(self) -> float:
        """Root mean squared placebo effect as a share of the level."""
        return float(np.sqrt(np.mean([item.effect**2 for item in self.items]))) / self.level

    @property
    def pre_error(self) -> float:
        """Root mean squared gap before the windows as a share of the level."""
        return float(np.sqrt(np.mean([item.pre_error**2 for item in self.items]))) / self.level

    @property
    def n_refused(self) -> int:
        """Windows that the method would refuse."""
        return sum(item.is_refused for item in self.items)


def power_at(found: Trials, lift: float, *, confidence_level: float) -> Rate:
    """Share of windows in which the test rejects when the lift is true; at zero the A/A rate.

    Overlapping windows repeat what they share, so the interval counts those that do not overlap.

    Args:
        found: The windows.
        lift: The true effect as a share of the treated regions' outcome.
        confidence_level: Coverage of the interval.
    """
    moved = np.array([item.effect + lift * item.level for item in found.items])
    half = np.array([item.half_width for item in found.items])
    share = float((np.abs(moved) > half).mean())
    lower, upper = binomial_interval(
        share * found.n_independent, found.n_independent, confidence_level=confidence_level
    )
    return Rate(share=share, lower=lower, upper=upper)


def smallest_lift(found: Trials, *, power: float, side: float) -> float | None:
    """Smallest lift from which the test rejects on its side in the wanted share of windows.

    Args:
        found: The windows.
        power: The wanted share.
        side: 1 for an increase, -1 for a decrease.

    Returns:
        The size of the lift, not negative; `None` where no lift has the power.
    """
    needed = needed_lifts(found.items, side=side)
    at = math.ceil(power * len(needed) - _EPSILON) - 1
    lift = float(needed[at])
    return lift if math.isfinite(lift) else None


def needed_lifts(items: Sequence[Trial], *, side: float) -> Array:
    """The lift from which each window's test rejects on the given side, ascending."""
    effects = np.array([item.effect for item in items])
    half = np.array([item.half_width for item in items])
    levels = np.array([item.level for item in items])
    return np.sort(np.maximum((half - side * effects) / levels, 0.0))
