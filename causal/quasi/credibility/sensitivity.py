r"""Intervals of an effect that hold although trends are not parallel, and where they reach zero.

Two ways to say how far trends may depart: `relative_magnitudes`, by a multiple Mbar of the worst
break before the reference period, and `smoothness`, by bends of at most M. Each gives an interval
that covers the effect at the stated level whichever trend of the set is true. The break-down value
is the smallest Mbar or M at which the interval holds zero. Rambachan and Roth (2023), "A more
credible approach to parallel trends", Review of Economic Studies 90.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal.core.errors import SpecError
from causal.core.gram import Array
from causal.core.inference import critical_value
from causal.quasi.credibility import conditional_sets, restrictions
from causal.quasi.credibility.event_path import EventPath
from causal.quasi.credibility.fixed_length import fixed_length, frontier

Restriction = Literal["relative_magnitudes", "smoothness"]
Method = Literal["c_lf", "conditional", "flci"]

_DEFAULT_VALUES = 10
_LARGEST = 1e4
_PRECISION = 1e-3
_REFERENCE = 0.05
"""Level of the bound that sets the default values of smoothness, as in R's `HonestDiD`."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An interval at one value of the restriction.

    Attributes:
        value: Mbar or M; NaN for the interval under parallel trends.
        ci_lower: Lower end; NaN where every effect is rejected.
        ci_upper: Upper end.
    """

    value: float
    ci_lower: float
    ci_upper: float

    @property
    def holds_zero(self) -> bool:
        """Whether an effect of zero lies inside."""
        return self.ci_lower <= 0 <= self.ci_upper


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """A sensitivity analysis.

    Attributes:
        original: The interval under parallel trends.
        intervals: One for each value.
        breakdown: Smallest value whose interval holds zero; 0 where that of value 0 does, infinite
            where none up to `10000` times the unit does.
    """

    original: Interval
    intervals: tuple[Interval, ...]
    breakdown: float


def sensitivity(
    path: EventPath,
    weights: Array,
    *,
    restriction: Restriction,
    values: Sequence[float] | None = None,
    method: Method | None = None,
    confidence_level: float = 0.95,
) -> Robustness:
    """Intervals under a restriction of the trend, and its break-down value.

    Args:
        path: The event study.
        weights: Weights of the quantity of interest, shape (n_post,); see `EventPath.weights`.
        restriction: Of the trend.
        values: Mbar or M; left out: 0 to 2, or 0 to what the periods before suggest.
        method: `c_lf` (default of relative magnitudes), `conditional` or `flci` (default of
            smoothness, for which alone it exists).
        confidence_level: Of every interval.

    Raises:
        SpecError: A value below zero, weights of a wrong length or all zero, or a method that the
            restriction does not have.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (path.n_post,) or not weights.any():
        raise SpecError(
            "the weights of the effect of interest need one number for each event time after the "
            "reference, not all zero",
            given=weights.tolist(),
        )
    if values is None:
        values = default_values(path, restriction)
    if any(not value >= 0 for value in values):
        raise SpecError("the values of a sensitivity analysis are not negative", given=values)
    at = _intervals(path, weights, restriction, method, confidence_level)
    unit = 1.0 if restriction == "relative_magnitudes" else _error(path, weights)
    return Robustness(
        original=original(path, weights, confidence_level=confidence_level),
        intervals=tuple(at(value) for value in values),
        breakdown=_breakdown(at, unit),
    )


def original(path: EventPath, weights: Array, *, confidence_level: float) -> Interval:
    """The interval under parallel trends, from a normal distribution as all others here."""
    middle = float(weights @ path.estimates[path.n_pre :])
    half = critical_value(confidence_level) * _error(path, weights)
    return Interval(value=float("nan"), ci_lower=middle - half, ci_upper=middle + half)


def default_values(path: EventPath, restriction: Restriction) -> tuple[float, ...]:
    """The values that are looked at where none are asked for.

    Args:
        path: The event study.
        restriction: Of the trend.
    """
    if restriction == "relative_magnitudes":
        return (0.0, 0.5, 1.0, 1.5, 2.0)
    pre = path.covariance[: path.n_pre, : path.n_pre]
    if path.n_pre == 1:
        largest = float(np.sqrt(pre[0, 0]))
    else:
        bends = restrictions.differences(path, order=2)[: path.n_pre - 1, : path.n_pre]
        errors = np.sqrt(np.einsum("ij,jk,ik->i", bends, pre, bends))
        sizes = np.abs(bends @ path.estimates[: path.n_pre])
        largest = float((sizes + critical_value(1 - 2 * _REFERENCE) * errors).max())
    return tuple(float(value) for value in np.linspace(0.0, largest, _DEFAULT_VALUES))


def _intervals(
    path: EventPath,
    weights: Array,
    restriction: Restriction,
    method: Method | None,
    confidence_level: float,
) -> Callable[[float], Interval]:
    """The interval as a function of Mbar or M."""
    if method == "flci" or (method is None and restriction == "smoothness"):
        if restriction != "smoothness":
            raise SpecError(
                "an interval of fixed length exists for smoothness only",
                given=restriction, allowed=["c_lf", "conditional"],
            )  # fmt: skip
        choices = frontier(path, weights)

        def shortest(value: float) -> Interval:
            found = fixed_length(choices, value, confidence_level=confidence_level)
            return Interval(value=value, ci_lower=found.ci_lower, ci_upper=found.ci_upper)

        return shortest
    kind: conditional_sets.Kind = "c_lf" if method is None else method
    members = (
        restrictions.relative_magnitudes
        if restriction == "relative_magnitudes"
        else restrictions.smoothness
    )

    def conditional(value: float) -> Interval:
        tests = conditional_sets.prepared(
            path, members(path, weights, value), alpha=1 - confidence_level, kind=kind
        )
        lower, upper = conditional_sets.confidence_set(path, weights, tests)
        return Interval(value=value, ci_lower=lower, ci_upper=upper)

    return conditional


def _breakdown(at: Callable[[float], Interval], unit: float) -> float:
    """The smallest value whose interval holds zero: steps that grow, then bisection."""
    if at(0.0).holds_zero:
        return 0.0
    low, high = 0.0, 0.1 * unit
    while not at(high).holds_zero:
        low, high = high, 1.5 * high
        if high > _LARGEST * unit:
            return float("inf")
    while high - low > _PRECISION * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if at(middle).holds_zero else (middle, high)
    return high


def _error(path: EventPath, weights: Array) -> float:
    after = path.covariance[path.n_pre :, path.n_pre :]
    return float(np.sqrt(weights @ after @ weights))
