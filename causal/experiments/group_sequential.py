"""Boundaries of group sequential tests: when to stop for an effect, when for lack of one.

All rules come down to error spent by look. A spending function gives it by information fraction; a
classic test (O'Brien and Fleming 1979, Pocock 1977, Wang and Tsiatis 1987) spends at each of its
planned looks what its constant boundary spends there, and keeps to that when the information
turns out otherwise (Slud and Wei 1982), so its level is exact at any information.

Levels are of one side throughout: a symmetric two-sided test at 5 % spends 2.5 % on each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pydantic import Field

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.core.spec import Part
from causal.experiments.crossing import START, Interval, Running, above, advance, below
from causal.experiments.spending import Spending, checked_fractions, spent

_TOLERANCE = 1e-12
_LOWEST = -9.0


class WangTsiatis(Part):
    """Critical values in proportion to `fraction ** (delta - 0.5)`.

    Attributes:
        delta: 0 is O'Brien and Fleming's test, 0.5 Pocock's.
    """

    delta: float = Field(ge=-0.5, le=0.75)


Rule = Spending | WangTsiatis


@dataclass(frozen=True, kw_only=True)
class Boundaries:
    """Critical values of z at each look.

    Attributes:
        fractions: Information fractions, shape (K,).
        efficacy: Stop for an effect at z at or above this (two-sided: also at or below minus
            this); `inf` where nothing may be spent.
        futility: Stop for lack of an effect at z at or below this (two-sided: absolute z); `None`
            without futility looks, `-inf` (two-sided: 0) at looks that do not stop for it.
        is_two_sided: Whether both signs of z stop the experiment.
        is_binding: Whether the efficacy values rely on the futility stops being obeyed.
    """

    fractions: Array
    efficacy: Array
    futility: Array | None
    is_two_sided: bool
    is_binding: bool = False

    def go_on(self, look: int, *, heeds_futility: bool) -> tuple[Interval, ...]:
        """The intervals of z in which the experiment goes on after a look (counted from 0)."""
        futility = -np.inf
        if heeds_futility and self.futility is not None:
            futility = float(self.futility[look])
        return _go_on(float(self.efficacy[look]), futility, is_two_sided=self.is_two_sided)


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """Probabilities to stop at each look, all shape (K,).

    Attributes:
        upper: For an effect, upwards.
        lower: For an effect, downwards; zeros in a one-sided test.
        futility: For futility at that look.
    """

    upper: Array
    lower: Array
    futility: Array

    @property
    def rejection(self) -> Array:
        """Probability to stop at each look for an effect of either sign, shape (K,)."""
        return self.upper + self.lower


@dataclass(frozen=True, kw_only=True)
class FutilityPlan:
    """Which part of the type II error to spend at each look, and against which drift.

    Attributes:
        spent: Cumulative type II error, shape (K,).
        drift: Mean of z at fraction 1 under the alternative.
        is_binding: Whether the efficacy boundary may count on futility stops.
    """

    spent: Array
    drift: float
    is_binding: bool


def planned_error(
    rule: Rule, fractions: Sequence[float] | Array, *, alpha: float, is_two_sided: bool
) -> Array:
    """Cumulative error of one side that a rule spends at planned looks.

    Args:
        rule: A spending function, or a classic test with these looks.
        fractions: Planned information fractions, shape (K,).
        alpha: Level of one side.
        is_two_sided: Whether the test is symmetric.
    """
    at = checked_fractions(fractions)
    if isinstance(rule, Spending):
        return spent(at, total=alpha, spending=rule)
    classic = classic_boundaries(at, delta=rule.delta, alpha=alpha, is_two_sided=is_two_sided)
    return np.cumsum(stopping(classic, drift=0.0).upper)


def classic_boundaries(
    fractions: Sequence[float] | Array, *, delta: float, alpha: float, is_two_sided: bool
) -> Boundaries:
    """Critical values `c * (t / t_K) ** (delta - 0.5)` whose total error is `alpha` per side.

    Wang and Tsiatis (1987), "Approximately optimal one-parameter boundaries for group sequential
    trials".

    Args:
        fractions: Information fractions, shape (K,); only their ratios count.
        delta: 0 for O'Brien and Fleming, 0.5 for Pocock.
        alpha: Level of one side.
        is_two_sided: Whether the test is symmetric.
    """
    at = checked_fractions(fractions)
    at = at / at[-1]
    constant = _classic_constant(
        tuple(at.tolist()), delta=delta, alpha=alpha, is_two_sided=is_two_sided
    )
    return Boundaries(
        fractions=at,
        efficacy=constant * at ** (delta - 0.5),
        futility=None,
        is_two_sided=is_two_sided,
    )


def boundaries(
    fractions: Sequence[float] | Array,
    error: Array,
    *,
    is_two_sided: bool,
    futility: FutilityPlan | None = None,
    floor: Array | None = None,
) -> Boundaries:
    """Critical values that spend given errors at given looks.

    Args:
        fractions: Information fractions, shape (K,).
        error: Cumulative error of one side to spend, shape (K,).
        is_two_sided: Whether the test is symmetric, with half of its level on each side.
        futility: Type II error to spend on stopping for futility.
        floor: Known binding futility values, shape (K,), in place of `futility`.

    Raises:
        DataError: The fractions do not grow.
        InferenceError: A binding futility boundary leaves no error to spend.
    """
    at = checked_fractions(fractions)
    n_looks = len(at)
    if floor is None and futility is not None:
        return _with_futility(at, error, futility, is_two_sided=is_two_sided)
    lower = np.full(n_looks, -np.inf) if floor is None else floor
    efficacy = np.empty(n_looks)
    running, before = START, 0.0
    for look, fraction in enumerate(at):
        efficacy[look] = _critical(running, float(error[look]) - before, fraction)
        before = float(error[look])
        if look + 1 < n_looks:
            go_on = _go_on(efficacy[look], float(lower[look]), is_two_sided=is_two_sided)
            running = advance(
                running, go_on, fraction=fraction, next_fraction=at[look + 1], drift=0.0
            )
    return Boundaries(
        fractions=at,
        efficacy=efficacy,
        futility=floor,
        is_two_sided=is_two_sided,
        is_binding=floor is not None,
    )


def stopping(limits: Boundaries, *, drift: float, heeds_futility: bool = True) -> Stopping:
    """Probabilities to stop at each look.

    Args:
        limits: The boundaries.
        drift: Mean of z at fraction 1.
        heeds_futility: Whether futility stops are obeyed; a non-binding test keeps its level
            either way.
    """
    at = limits.fractions
    out = np.zeros((3, len(at)))
    running = START
    for look, fraction in enumerate(at):
        efficacy = float(limits.efficacy[look])
        out[0, look] = above(running, efficacy, fraction=fraction, drift=drift)
        if limits.is_two_sided:
            out[1, look] = below(running, -efficacy, fraction=fraction, drift=drift)
        if heeds_futility and limits.futility is not None:
            out[2, look] = _idle(
                running,
                min(float(limits.futility[look]), efficacy),
                fraction=fraction,
                drift=drift,
                is_two_sided=limits.is_two_sided,
            )
        if look + 1 < len(at):
            go_on = limits.go_on(look, heeds_futility=heeds_futility)
            running = advance(
                running, go_on, fraction=fraction, next_fraction=at[look + 1], drift=drift
            )
    return Stopping(upper=out[0], lower=out[1], futility=out[2])


def _with_futility(
    at: Array, error: Array, futility: FutilityPlan, *, is_two_sided: bool
) -> Boundaries:
    """Efficacy and futility values look by look: each needs the other up to the look before."""
    n_looks = len(at)
    efficacy, idle = np.empty(n_looks), np.empty(n_looks)
    null, alternative = START, START
    increments = np.diff(error, prepend=0.0)
    idle_increments = np.diff(futility.spent, prepend=0.0)
    for look, fraction in enumerate(at):
        efficacy[look] = _critical(null, increments[look], fraction)
        idle[look] = _idle_critical(
            alternative,
            idle_increments[look],
            fraction=fraction,
            drift=futility.drift,
            ceiling=efficacy[look],
            is_two_sided=is_two_sided,
        )
        if look + 1 == n_looks:
            break
        heeded = _go_on(efficacy[look], idle[look], is_two_sided=is_two_sided)
        counted = _go_on(efficacy[look], -np.inf, is_two_sided=is_two_sided)
        null = advance(
            null,
            heeded if futility.is_binding else counted,
            fraction=fraction,
            next_fraction=at[look + 1],
            drift=0.0,
        )
        alternative = advance(
            alternative,
            heeded,
            fraction=fraction,
            next_fraction=at[look + 1],
            drift=futility.drift,
        )
    return Boundaries(
        fractions=at,
        efficacy=efficacy,
        futility=idle,
        is_two_sided=is_two_sided,
        is_binding=futility.is_binding,
    )


def _go_on(efficacy: float, futility: float, *, is_two_sided: bool) -> tuple[Interval, ...]:
    if not is_two_sided:
        return ((futility, efficacy),)
    if futility <= 0:
        return ((-efficacy, efficacy),)
    return ((-efficacy, -futility), (futility, efficacy))


def _critical(running: Running, increment: float, fraction: float) -> float:
    """The z above which the given probability lies, without drift."""
    from scipy import optimize, special

    if increment <= 0:
        return float(np.inf)
    # What ran on is no more than everything, so the unconditional quantile bounds the root.
    highest = float(-special.ndtri(increment)) + 1e-3
    wanted = np.log(increment)

    def excess(z: float) -> float:
        tail = float(above(running, z, fraction=fraction, drift=0.0))
        return float(np.log(max(tail, 1e-320)) - wanted)

    if excess(_LOWEST) <= 0:
        raise InferenceError(
            "the binding futility boundary leaves no error to spend at this look",
            given=f"information fraction {fraction:.4g}",
            allowed="non-binding futility, or fewer looks",
        )
    return float(optimize.brentq(excess, _LOWEST, highest, xtol=_TOLERANCE, rtol=_TOLERANCE))


def _idle(
    running: Running, z: float, *, fraction: float, drift: float, is_two_sided: bool
) -> float:
    """Probability to stop for futility at a look."""
    if is_two_sided:
        z = max(z, 0.0)
        inside = below(running, np.array([-z, z]), fraction=fraction, drift=drift)
        return float(inside[1] - inside[0])
    return float(below(running, z, fraction=fraction, drift=drift))


def _idle_critical(
    running: Running,
    increment: float,
    *,
    fraction: float,
    drift: float,
    ceiling: float,
    is_two_sided: bool,
) -> float:
    """The futility value at a look, at most the efficacy value."""
    from scipy import optimize, special

    if increment <= 0:
        return 0.0 if is_two_sided else -np.inf

    def excess(z: float) -> float:
        found = _idle(running, z, fraction=fraction, drift=drift, is_two_sided=is_two_sided)
        return found - increment

    finite = min(ceiling, drift * float(np.sqrt(fraction)) - _LOWEST)
    if excess(finite) <= 0:
        return ceiling
    lowest = 0.0
    if not is_two_sided:
        lowest = float(special.ndtri(increment)) + drift * float(np.sqrt(fraction)) - 1e-3
    return float(optimize.brentq(excess, lowest, finite, xtol=_TOLERANCE, rtol=_TOLERANCE))


@lru_cache(maxsize=512)
def _classic_constant(
    fractions: tuple[float, ...], *, delta: float, alpha: float, is_two_sided: bool
) -> float:
    from scipy import optimize, special

    at = np.array(fractions)
    shape = at ** (delta - 0.5)

    def excess(constant: float) -> float:
        limits = Boundaries(
            fractions=at, efficacy=constant * shape, futility=None, is_two_sided=is_two_sided
        )
        return float(stopping(limits, drift=0.0).upper.sum() - alpha)

    single = float(-special.ndtri(alpha))
    if len(at) == 1:
        return single
    highest = float(-special.ndtri(alpha / len(at))) / float(shape.min()) + 1e-3
    return float(optimize.brentq(excess, single - 1e-9, highest, xtol=_TOLERANCE))
