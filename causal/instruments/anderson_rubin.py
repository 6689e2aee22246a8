"""The Anderson-Rubin test and the set of effects that it does not reject.

The test asks whether the instruments explain `y - X b`; its size is right however weak they are
(Anderson and Rubin 1949). With one treatment the effects that are not rejected are where a matrix
polynomial of second degree in `b` is positive definite, so that the ends of the set are
eigenvalues: nothing is searched, and sets that are unbounded, disjoint or empty come out as they
are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import linalg, optimize

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.instruments.first_stage import Stage, solved, stage_block

Interval = tuple[float, float]
_IMAGINARY = 1e-6
_WIDE = 1e3
_FAR = 1e8
"""Eigenvalues beyond this many steps are the infinite ones of the pencil, in rounding."""


@dataclass(frozen=True, kw_only=True)
class AndersonRubin:
    """The test for one or more treatments.

    Attributes:
        stage: First stage and reduced form.
        covariance: Covariance of (Z'v_y, Z'v_x).
        df: Denominator degrees of freedom; `None`: chi-square.
    """

    stage: Stage
    covariance: Array
    df: float | None

    def statistic(self, value: Array) -> float:
        """F (or chi-square without `df`) that the effect is `value`, shape (m,)."""
        weights = np.concatenate([[1.0], -value])
        moment = self.stage.on_outcome - self.stage.on_treatments @ value
        spread = sum(
            (
                weights[a] * weights[b] * stage_block(self.stage, self.covariance, a, b)
                for a in range(len(weights))
                for b in range(len(weights))
            ),
            np.zeros_like(self.stage.cross),
        )
        chi2 = float(moment @ solved((spread + spread.T) / 2, moment))
        return chi2 if self.df is None else chi2 / self.stage.q

    def pvalue(self, statistic: float) -> float:
        """The p-value of a statistic."""
        from scipy import stats

        if self.df is None:
            return float(stats.chi2.sf(statistic, self.stage.q))
        return float(stats.f.sf(statistic, self.stage.q, self.df))

    def critical(self, confidence_level: float) -> float:
        """The value of the statistic beyond which an effect is rejected."""
        from scipy import stats

        if self.df is None:
            return float(stats.chi2.ppf(confidence_level, self.stage.q))
        return float(stats.f.ppf(confidence_level, self.stage.q, self.df))


def confidence_set(
    test: AndersonRubin, *, confidence_level: float, centre: float, scale: float
) -> tuple[Interval, ...]:
    """The effects of a single treatment that the test does not reject, as disjoint intervals.

    Args:
        test: The test.
        confidence_level: Coverage of the set.
        centre: A value near which the set is expected, for conditioning only.
        scale: A width of the set that is expected, for conditioning only.

    Returns:
        Intervals in ascending order; infinite ends where the set is unbounded; none if it is empty.
    """
    critical = test.critical(confidence_level)

    def excess(step: float) -> float:
        return test.statistic(np.array([centre + scale * step])) - critical

    ends = sorted(
        _refined(excess, root) for root in _candidates(test, critical, centre=centre, scale=scale)
    )
    points = [-math.inf, *ends, math.inf]
    kept: list[Interval] = []
    for low, high in pairwise(points):
        if low == high or excess(_inside(low, high)) > 0:
            continue
        if kept and kept[-1][1] == low:
            kept[-1] = (kept[-1][0], high)
        else:
            kept.append((low, high))
    return tuple((centre + scale * low, centre + scale * high) for low, high in kept)


def in_words(intervals: tuple[Interval, ...]) -> str:
    """A confidence set as a reader understands it."""
    if not intervals:
        return (
            "empty: every effect is rejected, so the instruments contradict each other or the model"
        )
    if intervals == ((-math.inf, math.inf),):
        return "the whole line: the data say nothing about the effect"
    text = " or ".join(f"[{low:.4g}, {high:.4g}]" for low, high in intervals)
    text = text.replace("[-inf", "(-inf").replace("inf]", "inf)")
    if any(math.isinf(end) for interval in intervals for end in interval):
        return f"unbounded, {text}: the instruments are too weak to rule out very large effects"
    if len(intervals) > 1:
        return f"in {len(intervals)} pieces, {text}"
    return text


def curve(
    test: AndersonRubin, *, low: float, high: float, n_points: int = 201
) -> tuple[Array, Array, Array]:
    """Values of the effect, the statistic and its p-value on a grid."""
    values = np.linspace(low, high, n_points)
    statistics = np.array([test.statistic(np.array([value])) for value in values])
    return values, statistics, np.array([test.pvalue(float(item)) for item in statistics])


def _candidates(
    test: AndersonRubin, critical: float, *, centre: float, scale: float
) -> list[float]:
    """Real eigenvalues of the polynomial `[[c, g'], [g, Omega]]`, in steps from the centre."""
    stage, omega = test.stage, test.covariance
    c = critical * (1 if test.df is None else stage.q)
    x = scale * stage.on_treatments[:, 0]
    moment = stage.on_outcome - centre * stage.on_treatments[:, 0]
    yx = stage_block(stage, omega, 0, 1)
    xx = stage_block(stage, omega, 1, 1)
    own = stage_block(stage, omega, 0, 0) - centre * (yx + yx.T) + centre**2 * xx
    size = stage.q + 1
    parts = np.zeros((3, size, size))
    parts[0, 0, 0] = c
    parts[0, 0, 1:] = parts[0, 1:, 0] = moment
    parts[0, 1:, 1:] = own
    parts[1, 0, 1:] = parts[1, 1:, 0] = -x
    parts[1, 1:, 1:] = -scale * (yx + yx.T) + 2 * scale * centre * xx
    parts[2, 1:, 1:] = scale**2 * xx
    diagonal = np.diag(parts[0])
    if (diagonal <= 0).any():
        raise InferenceError("the covariance of the instruments' moments is not positive")
    balance = 1.0 / np.sqrt(diagonal)
    parts = parts * np.outer(balance, balance)
    identity, nothing = np.eye(size), np.zeros((size, size))
    left = np.block([[nothing, identity], [-parts[0], -parts[1]]])
    right = np.block([[identity, nothing], [nothing, parts[2]]])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = linalg.eigvals(left, right)
    return [
        float(root.real)
        for root in found
        if abs(root) < _FAR and abs(root.imag) <= _IMAGINARY * (1.0 + abs(root.real))
    ]


def _refined(excess: Callable[[float], float], root: float) -> float:
    """The crossing next to an eigenvalue, to full precision; the eigenvalue if there is none."""
    step = 1e-6 * (1.0 + abs(root))
    low, high = root - step, root + step
    if excess(low) * excess(high) >= 0:
        return root
    return float(optimize.brentq(excess, low, high, xtol=1e-15 * (1.0 + abs(root)), rtol=1e-14))


def _inside(low: float, high: float) -> float:
    if math.isinf(low) and math.isinf(high):
        return 0.0
    if math.isinf(low):
        return high - _WIDE * (1.0 + abs(high))
    if math.isinf(high):
        return low + _WIDE * (1.0 + abs(low))
    return (low + high) / 2
