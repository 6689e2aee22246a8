"""What a group sequential design costs and buys: power, inflation and expected information.

The drift is the mean of z at information fraction 1. A test without looks needs the drift
`z(1 - alpha) + z(power)`, with alpha of one side; a design with looks needs a larger one, and the
ratio of their squares is the inflation factor: how much more information to plan for (Jennison and
Turnbull 2000, "Group Sequential Methods with Applications to Clinical Trials", chapters 2 and 4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import Field

from causal.core.errors import DataError, InferenceError, SpecError
from causal.core.gram import Array
from causal.core.spec import Part
from causal.experiments.group_sequential import (
    Boundaries,
    FutilityPlan,
    Rule,
    Stopping,
    boundaries,
    planned_error,
    stopping,
)
from causal.experiments.spending import Spending, checked_fractions, spent

_MAX_DRIFT = 40.0
_STEP = 1.04
_TOLERANCE = 1e-11


class Futility(Part):
    """When to stop for lack of an effect.

    Attributes:
        spending: How the type II error is spent.
        power: Power against the effect that the design is made for; its complement is spent.
        is_binding: Whether a futility stop must be obeyed. Binding stops lower the efficacy
            boundary; non-binding ones may be overruled without harm to the level.
    """

    spending: Spending = Spending()
    power: float = Field(default=0.8, ge=0.5, lt=1)
    is_binding: bool = False


@dataclass(frozen=True, kw_only=True)
class Design:
    """A planned test and its operating characteristics.

    Attributes:
        limits: Critical values at the planned looks.
        alpha: Level of one side.
        power: Probability to reject upwards under the alternative.
        drift: Mean of z at fraction 1 under the alternative.
        inflation_factor: Maximum information over that of a test with one look.
        under_null: Probabilities to stop at each look without an effect.
        under_alternative: The same under the alternative.
    """

    limits: Boundaries
    alpha: float
    power: float
    drift: float
    inflation_factor: float
    under_null: Stopping
    under_alternative: Stopping

    def expected_information(self, stops: Stopping) -> float:
        """Mean information at the stop, in units of that of a test with one look."""
        return self.inflation_factor * expected_fraction(self.limits.fractions, stops)


def design(
    fractions: Sequence[float] | Array,
    *,
    rule: Rule,
    alpha: float,
    is_two_sided: bool,
    power: float,
    futility: Futility | None = None,
) -> Design:
    """The design with given looks, level and power.

    Args:
        fractions: Planned information fractions, shape (K,), the last one 1.
        rule: How the error is spent.
        alpha: Level of one side.
        is_two_sided: Whether the test is symmetric, with `alpha` on each side.
        power: Probability to reject upwards under the alternative.
        futility: Stops for lack of an effect; its power must be `power`.

    Raises:
        DataError: The fractions do not grow or do not end at 1.
        SpecError: Futility is planned for another power.
        InferenceError: No drift reaches the power.

    Example:
        >>> from causal.experiments.group_sequential import WangTsiatis
        >>> looks = [0.2, 0.4, 0.6, 0.8, 1.0]
        >>> pocock = WangTsiatis(delta=0.5)
        >>> found = design(looks, rule=pocock, alpha=0.025, is_two_sided=True, power=0.9)
        >>> round(float(found.limits.efficacy[0]), 3), round(found.inflation_factor, 3)
        (2.413, 1.207)
    """
    at = planned_fractions(fractions)
    if futility is not None and futility.power != power:
        raise SpecError("futility has another power", given=futility.power, allowed=power)
    error = planned_error(rule, at, alpha=alpha, is_two_sided=is_two_sided)
    limits_at = _limits_by_drift(at, error, futility, is_two_sided=is_two_sided)
    drift = _drift(limits_at, power=power, single=fixed_drift(alpha=alpha, power=power))
    limits = limits_at(drift)
    heeds = futility is not None
    return Design(
        limits=limits,
        alpha=alpha,
        power=power,
        drift=drift,
        inflation_factor=(drift / fixed_drift(alpha=alpha, power=power)) ** 2,
        under_null=stopping(limits, drift=0.0, heeds_futility=heeds),
        under_alternative=stopping(limits, drift=drift, heeds_futility=heeds),
    )


def power_at(limits: Boundaries, *, drift: float) -> float:
    """Probability to reject upwards when futility stops are obeyed.

    A rejection with the wrong sign is no success, so a two-sided test has its upper side counted
    only, for a positive drift.
    """
    return float(stopping(limits, drift=drift).upper.sum())


def fixed_drift(*, alpha: float, power: float) -> float:
    """Drift that a test with one look at level `alpha` per side needs for a power."""
    from scipy import special

    return float(special.ndtri(1 - alpha) + special.ndtri(power))


def expected_fraction(fractions: Array, stops: Stopping) -> float:
    """Mean information fraction at the stop; who stops nowhere else stops at the last look."""
    early = (stops.rejection + stops.futility)[:-1]
    return float(early @ fractions[:-1] + (1 - early.sum()) * fractions[-1])


def planned_fractions(fractions: Sequence[float] | Array) -> Array:
    """Planned information fractions as an array.

    Raises:
        DataError: They do not grow, or do not end at 1.
    """
    at = checked_fractions(fractions)
    if at[-1] != 1.0:
        raise DataError("planned information fractions must end at 1", given=float(at[-1]))
    return at


def _limits_by_drift(
    at: Array, error: Array, futility: Futility | None, *, is_two_sided: bool
) -> Callable[[float], Boundaries]:
    """The boundaries as a function of the drift; without futility they do not depend on it."""
    if futility is None:
        fixed = boundaries(at, error, is_two_sided=is_two_sided)
        return lambda _: fixed
    beta = spent(at, total=1 - futility.power, spending=futility.spending)
    is_binding = futility.is_binding

    def limits(drift: float) -> Boundaries:
        plan = FutilityPlan(spent=beta, drift=drift, is_binding=is_binding)
        return boundaries(at, error, is_two_sided=is_two_sided, futility=plan)

    return limits


def _drift(limits_at: Callable[[float], Boundaries], *, power: float, single: float) -> float:
    from scipy import optimize

    def excess(drift: float) -> float:
        return power_at(limits_at(drift), drift=drift) - power

    # In small steps upwards: far above the answer, binding futility leaves nothing to go on with.
    low, high = 0.5 * single, 1.005 * single
    while excess(high) < 0:
        low, high = high, high * _STEP
        if high > _MAX_DRIFT:
            raise InferenceError("no drift reaches the power with these boundaries", given=power)
    return float(optimize.brentq(excess, low, high, xtol=_TOLERANCE))
