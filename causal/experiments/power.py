"""Power, sample size and smallest detectable effect or margin of one treatment against control.

The statistic of a planned test has a noncentral t (or shifted normal) distribution whose
noncentrality is the expected distance from the null in standard errors; everything here is its
tail, or a root of it. Sizes are counted in units of the control arm and are not rounded.

Sources: Cohen (1988), "Statistical power analysis for the behavioral sciences"; Julious (2004),
"Sample sizes for clinical trials with normal data" (non-inferiority).
"""

import dataclasses
import math
from collections.abc import Callable

from causal.core.errors import InferenceError, SpecError
from causal.experiments.metrics import Direction
from causal.experiments.planned_test import (
    PlannedTest,
    Sampling,
    check_fits,
    critical_value,
    sampling,
)
from causal.experiments.power_outcome import Outcome

MAX_UNITS = 1e13
_MIN_UNITS = 2.0
_MAX_STEPS = 200
_PRECISION = 1e-13
_EDGE = 1e-9


def power(outcome: Outcome, test: PlannedTest, *, effect: float, n_control: float) -> float:
    """Probability that the test rejects its null when the effect is true.

    Args:
        outcome: The outcome under control.
        test: The test; its `ratio` gives the units of treatment.
        effect: The true effect, on the test's scale.
        n_control: Units in control.

    Raises:
        SpecError: Test, outcome and effect do not go together, or there are too few units.

    Example:
        >>> from causal.experiments.power_outcome import mean_outcome
        >>> spent = mean_outcome(mean=10.0, std=4.0)
        >>> round(power(spent, PlannedTest(scale="relative"), effect=0.03, n_control=3000), 3)
        0.816
    """
    least = smallest_size(outcome, test)
    if not n_control >= least:
        raise SpecError("too few units in control", given=n_control, allowed=f"from {least:g}")
    return rejection(sampling(outcome, test, effect=effect, n_control=n_control), test)


def rejection(statistic: Sampling, test: PlannedTest) -> float:
    """Probability of a rejection from the distribution of the statistic's parts.

    Raises:
        InferenceError: The tail has no value (noncentrality beyond what can be computed).
    """
    shift, df = statistic.distance / statistic.std_error, statistic.df
    critical = critical_value(test, df)
    up = _upper(critical * statistic.upper / statistic.std_error, shift, df)
    down = _upper(critical * statistic.lower / statistic.std_error, -shift, df)
    found = {"larger": up, "smaller": down, "two_sided": up + down}[test.alternative]
    if test.alternative == "two_sided" and test.definition.startswith("power."):
        found = up if shift >= 0 else down
    if not math.isfinite(found):
        raise InferenceError("the power cannot be computed", given=f"noncentrality {shift:g}")
    return min(found, 1.0)


def sample_size(outcome: Outcome, test: PlannedTest, *, effect: float, power: float = 0.8) -> float:
    """Units in control from which the test has the power, not rounded.

    Args:
        outcome: The outcome under control.
        test: The test; treatment takes `ratio` times as many.
        effect: The true effect, on the test's scale.
        power: Wanted probability to reject.

    Raises:
        SpecError: The power is out of range, or the effect lies on the null's side.
        InferenceError: No size up to `MAX_UNITS` has the power.
    """
    _check_power(power, test)
    _check_side(outcome, test, effect)

    def gap(log_size: float) -> float:
        found = sampling(outcome, test, effect=effect, n_control=math.exp(log_size))
        return rejection(found, test) - power

    least = smallest_size(outcome, test)
    low = math.log(least)
    if gap(low) >= 0:
        return least
    high = math.log(MAX_UNITS)
    if gap(high) < 0:
        raise InferenceError(
            "no sample is large enough for this effect and power", given=f"effect {effect:g}"
        )
    return math.exp(_root(gap, low, high))


def mde(
    outcome: Outcome,
    test: PlannedTest,
    *,
    n_control: float,
    power: float = 0.8,
    direction: Direction = "increase",
) -> float:
    """Smallest effect that the test finds with the power, signed, on the test's scale.

    Args:
        outcome: The outcome under control.
        test: The test.
        n_control: Units in control.
        power: Wanted probability to reject.
        direction: Side of the effect for a two-sided test; a one-sided test has its own.

    Raises:
        SpecError: The power is out of range, or there are too few units.
        InferenceError: No effect on that side is found with this power: a proportion ends at 0
            or 1, a lift cannot lose more than everything, and the uncertainty of a lift grows
            with it.
    """
    _check_power(power, test)
    _check_size(outcome, test, n_control)
    side = -1.0 if _is_downward(test, direction) else 1.0
    end = _furthest(outcome, test, side)

    def gap(distance: float) -> float:
        effect = test.null + side * distance
        return rejection(sampling(outcome, test, effect=effect, n_control=n_control), test) - power

    start = sampling(outcome, test, effect=0.0, n_control=n_control).std_error
    found = _first_root(gap, start=min(start, end / 2), end=end)
    if found is None:
        raise InferenceError(
            "no effect is found with this power: the sample is too small",
            given=f"{n_control:g} units in control, level {outcome.level:g}",
        )
    return test.null + side * found


def smallest_margin(
    outcome: Outcome, test: PlannedTest, *, n_control: float, power: float = 0.8, effect: float = 0
) -> float:
    """Smallest margin for which non-inferiority is shown with the power; positive.

    Args:
        outcome: The outcome under control.
        test: One-sided: `larger` where an increase is good, `smaller` where a decrease is. Its
            `null` is not used.
        n_control: Units in control.
        power: Wanted probability to show it.
        effect: The true effect.

    Raises:
        SpecError: The test is two-sided, the power is out of range, or there are too few units.
        InferenceError: No margin is shown with this power.
    """
    if test.alternative == "two_sided":
        raise SpecError("non-inferiority is tested on one side", allowed=("larger", "smaller"))
    _check_power(power, test)
    _check_size(outcome, test, n_control)
    worse = -1.0 if test.alternative == "larger" else 1.0

    def gap(margin: float) -> float:
        moved = dataclasses.replace(test, null=worse * margin)
        return (
            rejection(sampling(outcome, moved, effect=effect, n_control=n_control), moved) - power
        )

    start = sampling(outcome, test, effect=effect, n_control=n_control).std_error
    found = _first_root(gap, start=start + max(worse * effect, 0.0), end=math.inf)
    if found is None:
        raise InferenceError("no margin is shown with this power", given=f"{n_control:g} units")
    return found


def smallest_size(outcome: Outcome, test: PlannedTest) -> float:
    """Units in control below which there is no test: two units, or two clusters, in each arm."""
    per_arm = _MIN_UNITS * (outcome.units_per_cluster or 1.0)
    return per_arm * max(1.0, 1.0 / test.ratio) * test.inflation


def _upper(cut: float, shift: float, df: float | None) -> float:
    from scipy import stats

    if math.isinf(cut):
        return 0.0
    return float(stats.norm.sf(cut - shift) if df is None else stats.nct.sf(cut, df, shift))


def _check_power(power: float, test: PlannedTest) -> None:
    if not test.alpha < power < 1:
        raise SpecError(
            "power must be above alpha and below 1", given=power, allowed=f"{test.alpha:g} to 1"
        )


def _check_size(outcome: Outcome, test: PlannedTest, n_control: float) -> None:
    check_fits(outcome, test)
    least = smallest_size(outcome, test)
    if not n_control >= least:
        raise SpecError("too few units in control", given=n_control, allowed=f"from {least:g}")


def _check_side(outcome: Outcome, test: PlannedTest, effect: float) -> None:
    distance = sampling(
        outcome, test, effect=effect, n_control=smallest_size(outcome, test)
    ).distance
    is_wrong = {
        "two_sided": distance == 0,
        "larger": distance <= 0,
        "smaller": distance >= 0,
    }[test.alternative]
    if is_wrong:
        raise SpecError(
            "the effect lies on the side of the null hypothesis: no sample shows it",
            given=f"effect {effect:g}, null {test.null:g}, alternative {test.alternative}",
        )


def _is_downward(test: PlannedTest, direction: Direction) -> bool:
    if test.alternative == "two_sided":
        return direction == "decrease"
    return test.alternative == "smaller"


def _furthest(outcome: Outcome, test: PlannedTest, side: float) -> float:
    """Distance from the null to the last effect that makes sense on that side."""
    level = outcome.level
    last = math.inf
    if outcome.is_proportion:
        last = (1.0 - level if side > 0 else level) / (level if test.scale == "relative" else 1.0)
    elif test.scale == "relative" and side < 0:
        last = 1.0
    return (last - side * test.null) * (1.0 - _EDGE)


def _first_root(gap: Callable[[float], float], *, start: float, end: float) -> float | None:
    """Where a rising function becomes positive; `None` if it does not before `end`."""
    low, high = 0.0, start
    for _ in range(_MAX_STEPS):
        high = min(high, end)
        if gap(high) >= 0:
            return _root(gap, low, high)
        if high >= end:
            return None
        low, high = high, 2 * high
    return None


def _root(gap: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(gap, low, high, xtol=_PRECISION * abs(high), rtol=_PRECISION))
