"""Where the test of a lift starts to reject, and the standard error that it has there.

A lift is divided by a standard error that is estimated at the lift itself, so both move together:
the statistic is skewed, and a noncentral t around the true standard error misses the power by
points when the lift is large or its error is. Seen from the levels, the test rejects when
`treatment - (1 + null) control` exceeds the critical value times an error that depends on the
quotient of the levels only; at the edge of rejection that quotient solves a quadratic equation.

Source: Fieller (1954), "Some problems in interval estimation", whose set has the same form with
the error taken at the null.
"""

import math
from collections.abc import Callable


def edge_errors(
    variance: Callable[[float], float], *, null: float, critical: float
) -> tuple[float, float]:
    """Standard errors of a lift at the two edges of rejection, above and below the null.

    Args:
        variance: Squared standard error of a lift, relative to the level squared: quadratic in
            the lift.
        null: The lift under the null.
        critical: Critical value of the test, positive.

    Returns:
        Upper and lower error. Both are infinite when the control level is so uncertain that no
        lift is large enough to be rejected for.
    """
    constant = variance(null)
    slope = (variance(null + 1.0) - variance(null - 1.0)) / 2.0
    curvature = (variance(null + 1.0) + variance(null - 1.0)) / 2.0 - constant
    leading = 1.0 - critical**2 * curvature
    if not leading > 0:
        return math.inf, math.inf
    half = critical**2 * slope / 2.0
    root = math.sqrt(half**2 + leading * critical**2 * constant)
    return (root + half) / leading / critical, (root - half) / leading / critical
