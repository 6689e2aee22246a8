r"""Confidence sets for a restricted trend that condition on which restriction looks worst.

The statistic is the largest of a few studentised violations. Given which one is the largest and
the part of the estimates independent of it, it is a truncated normal; its conditional p-value is
the test (`conditional`). The hybrid (`c_lf`) first rejects where the statistic passes the critical
value of the least favourable case, all violations zero, at a tenth of the level, and conditions on
not having done so. Andrews, Roth and Pakes (2023); Rambachan and Roth (2023), section 3; `C-LF` is
the default of R's `HonestDiD` for relative magnitudes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from causal.core.gram import Array
from causal.quasi.credibility.event_path import EventPath
from causal.quasi.credibility.normal_points import even_points
from causal.quasi.credibility.restrictions import Violations

Kind = Literal["c_lf", "conditional"]

_FIRST_STAGE = 0.1
"""Share of the level that the first stage of the hybrid uses."""
_N_POINTS = 2**14
"""Points for the least favourable critical value; its error is some thousandths."""
_GRID = 1_000
_WIDTH = 20.0
"""Half-width of the first grid in standard errors."""
_ROUNDS = 4
_SAME = 1e-10


@dataclass(frozen=True, kw_only=True)
class Test:
    """A test of values of the quantity of interest against one set of restrictions.

    Attributes:
        violations: The linear functions.
        values: Their values at zero, shape (V,).
        covariance: Their covariance, shape (V, V).
        level: Size of the second stage.
        first_critical: Critical value of the first stage; infinite where there is none.
    """

    violations: Violations
    values: Array
    covariance: Array
    level: float
    first_critical: float


def prepared(
    path: EventPath, members: Sequence[Violations], *, alpha: float, kind: Kind
) -> list[Test]:
    """Tests of each member of a union of restrictions.

    Args:
        path: The event study.
        members: The restrictions.
        alpha: Size of each test.
        kind: `c_lf` or `conditional`.
    """
    tests = []
    for found in members:
        covariance = found.slopes @ path.covariance @ found.slopes.T
        first = np.inf
        if kind == "c_lf":
            first = least_favourable(covariance, alpha=_FIRST_STAGE * alpha)
        kept = _FIRST_STAGE * alpha if kind == "c_lf" else 0.0
        tests.append(
            Test(
                violations=found, values=found.slopes @ path.estimates - found.constants,
                covariance=covariance, level=(alpha - kept) / (1 - kept), first_critical=first,
            )
        )  # fmt: skip
    return tests


def least_favourable(covariance: Array, *, alpha: float) -> float:
    """Quantile of the largest of the violations when all are zero in expectation.

    Args:
        covariance: Shape (V, V); may be singular.
        alpha: Probability above it.
    """
    # The members of a union mirror each other: the order of the violations must not matter.
    size = np.diag(covariance).max()
    order = np.lexsort(np.round([covariance.sum(axis=1) / size, np.diag(covariance) / size], 9))
    values, vectors = np.linalg.eigh(covariance[np.ix_(order, order)])
    vectors = vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    kept = values > _SAME * values[-1]
    largest = (_normal_points(int(kept.sum())) @ root[:, kept].T).max(axis=1)
    return float(np.quantile(largest, 1 - alpha))


@cache
def _normal_points(dimension: int) -> Array:
    """Standard normal points, shape (_N_POINTS, dimension); the search for a bound asks often."""
    from scipy import special

    return np.asarray(special.ndtri(even_points(_N_POINTS, dimension)), dtype=np.float64)


def accepted(tests: Sequence[Test], thetas: Array) -> Array:
    """Which values at least one member does not reject, shape of `thetas`."""
    found = np.zeros(len(thetas), dtype=bool)
    for test in tests:
        open_ = np.flatnonzero(np.logical_not(found))
        if len(open_) == 0:
            break
        found[open_] = np.logical_not(_rejects(test, thetas[open_]))
    return found


def confidence_set(path: EventPath, weights: Array, tests: Sequence[Test]) -> tuple[float, float]:
    """Lower and upper end of the values that are not rejected; NaN where all are.

    The set may have holes; its hull is reported, as by R's `HonestDiD`, but with its ends found
    between the points of the grid instead of at the last accepted ones.

    Args:
        path: The event study.
        weights: Weights of the quantity of interest, shape (n_post,).
        tests: The tests of the union.
    """
    after = path.covariance[path.n_pre :, path.n_pre :]
    middle = float(weights @ path.estimates[path.n_pre :])
    error = float(np.sqrt(weights @ after @ weights))
    width = _WIDTH * error
    while True:
        grid = np.linspace(middle - width, middle + width, _GRID)
        inside = accepted(tests, grid)
        if not (inside[0] or inside[-1]) or width > 1e9 * error:
            break
        width *= 4.0
    if not inside.any():
        return float("nan"), float("nan")
    at = np.flatnonzero(inside)
    lower = -np.inf if inside[0] else _edge(tests, grid[at[0]], grid[at[0] - 1])
    upper = np.inf if inside[-1] else _edge(tests, grid[at[-1]], grid[at[-1] + 1])
    return float(lower), float(upper)


def _edge(tests: Sequence[Test], inner: float, outer: float) -> float:
    """Where acceptance ends between an accepted and a rejected value."""
    for _ in range(_ROUNDS):
        between = np.linspace(inner, outer, 34)
        inside = accepted(tests, between)
        last = int(np.flatnonzero(inside)[-1])
        inner, outer = float(between[last]), float(between[min(last + 1, len(between) - 1)])
    return inner


def _rejects(test: Test, thetas: Array) -> Array:
    """Whether each value is rejected, shape of `thetas`."""
    statistics = test.values - thetas[:, None] * test.violations.shifts
    worst = statistics.argmax(axis=1)
    largest = statistics.max(axis=1)
    variances = np.diag(test.covariance)[worst]
    is_random = variances > _SAME * np.diag(test.covariance).max()
    # A violation without variance is certain: it speaks for itself.
    rejected = (largest > test.first_critical) | (~is_random & (largest > 0))
    at = np.flatnonzero(~rejected & is_random & (largest > 0))
    if len(at):
        error = np.sqrt(variances[at])
        low, high = _truncation(test, statistics[at], worst[at], variances[at])
        if test.violations.has_nuisance:
            # R's `HonestDiD` does so too; with one period after the reference it does not, which
            # errs on the safe side, and neither does this.
            high = np.minimum(high, test.first_critical)
        pvalues = _truncated_pvalue(largest[at] / error, low / error, high / error)
        rejected[at] = pvalues < test.level
    return np.asarray(rejected)


def _truncation(
    test: Test, statistics: Array, worst: Array, variances: Array
) -> tuple[Array, Array]:
    """Between which values the largest violation stays the largest, the rest given."""
    largest = statistics.max(axis=1, keepdims=True)
    shares = test.covariance[worst] / variances[:, None]
    rest = statistics - shares * largest
    gap = 1.0 - shares
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = rest / gap
    low = np.where(gap > _SAME, crossing, -np.inf).max(axis=1)
    high = np.where(gap < -_SAME, crossing, np.inf).min(axis=1)
    return low, high


def _truncated_pvalue(z: Array, low: Array, high: Array) -> Array:
    """Probability above z of a standard normal kept between low and high, far tails included."""
    above, whole = _log_mass(z, high), _log_mass(np.minimum(low, z), high)
    return np.asarray(np.exp(above - whole))


def _log_mass(a: Array, b: Array) -> Array:
    """Logarithm of the normal probability between a and b, a <= b."""
    from scipy import special

    # Both in the upper tail are mirrored, where the distribution function has its digits.
    flip = a > 0
    left, right = np.where(flip, -b, a), np.where(flip, -a, b)
    log_right, log_left = special.log_ndtr(right), special.log_ndtr(left)
    with np.errstate(divide="ignore"):
        return np.asarray(log_right + np.log1p(-np.exp(np.minimum(log_left - log_right, 0.0))))
