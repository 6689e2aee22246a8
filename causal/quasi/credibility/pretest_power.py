r"""What a test for parallel trends before the treatment can see, and what it lets through.

Two tests: `individual`, no estimate before the reference is significant on its own, and `joint`,
the Wald test that all are zero. For each: the slope of a straight difference in trends that it
detects with a given probability, and what the estimates are expected to be where it did not. The
estimates that pass are a selected sample; on average they are off by other than the trend itself.
Roth (2022), "Pretest with caution: event-study estimates after testing for parallel trends",
American Economic Review: Insights 4.

Roth takes the covariance for known. Where it has degrees of freedom of its own, it is a Wishart
matrix that is independent of the estimates: the tests are then those of the t and of the F, which
find less (Anderson 2003, "An introduction to multivariate statistical analysis", 5.2 and 7.2).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np

from causal.core.errors import InferenceError, SpecError
from causal.core.gram import Array
from causal.core.inference import JointTest, critical_value, referred
from causal.quasi.credibility.event_path import EventPath
from causal.quasi.credibility.normal_points import even_points

Pretest = Literal["individual", "joint"]

_N_POINTS = 2**13
_CLIP = 1e-16


@dataclass(frozen=True, kw_only=True)
class Pretested:
    """Estimates of an event study, those before the treatment first.

    Attributes:
        estimates: Shape (n,).
        covariance: Shape (n, n).
        n_pre: How many of them are tested.
        line: What each is expected to be where the trends part by one unit per period, shape (n,):
            the periods since the reference, or one where neighbouring periods are compared.
        df: Degrees of freedom of the covariance; `None`: known, as in Roth (2022).
        joint_test: Reference of the joint test.
    """

    estimates: Array
    covariance: Array
    n_pre: int
    line: Array
    df: float | None = None
    joint_test: JointTest = "hotelling"

    @cached_property
    def error_ratios(self) -> Array:
        """Estimated over true standard errors of what is tested, shape (n points, n_pre)."""
        if self.df is None:
            return np.ones((_N_POINTS, self.n_pre))
        if self.joint_test == "exact":
            return _common_ratios(self.n_pre, self.df)
        return wishart_ratios(self.covariance[: self.n_pre, : self.n_pre], self.df)

    def passing(self, mean: Array, test: Pretest, level: float) -> tuple[float, Array]:
        """Probability that the pre-test does not reject, and the mean of what it tests then.

        Args:
            mean: Expectation of the estimates that are tested, shape (n_pre,).
            test: The pre-test.
            level: Its size (of each estimate for `individual`).

        Raises:
            InferenceError: There are too few degrees of freedom.
        """
        covariance = self.covariance[: self.n_pre, : self.n_pre]
        return _PRETESTS[test](self, mean, covariance, level)


def pretested(
    path: EventPath, *, df: float | None = None, joint_test: JointTest = "hotelling"
) -> Pretested:
    """The estimates of an event study with one reference period."""
    return Pretested(
        estimates=path.estimates, covariance=path.covariance, n_pre=path.n_pre,
        line=path.distance, df=df, joint_test=joint_test,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrendPower:
    """What a pre-test does where the trends part in a stated way.

    Attributes:
        test: The pre-test.
        trend: The difference in trends, shape (n,).
        power: Probability that the pre-test rejects.
        mean_if_passed: Expected estimates where it does not reject and no effect is there, (n,).
        bayes_factor: Probability of passing over that under parallel trends.
        likelihood_ratio: Likelihood of the estimates before the reference over that under parallel
            trends.
    """

    test: Pretest
    trend: Array
    power: float
    mean_if_passed: Array
    bayes_factor: float
    likelihood_ratio: float


def trend_power(
    study: Pretested, trend: Array, *, test: Pretest = "individual", level: float = 0.05
) -> TrendPower:
    """Power of a pre-test against a trend, and what is expected where it passes.

    Args:
        study: The estimates.
        trend: The difference in trends at each event time, shape (n,); zero in the reference.
        test: The pre-test.
        level: Its size (of each estimate for `individual`).

    Raises:
        SpecError: The trend has another length.
    """
    trend = np.asarray(trend, dtype=np.float64)
    if trend.shape != study.estimates.shape:
        raise SpecError(
            "the trend needs one number for each event time but the reference",
            given=trend.shape, allowed=[study.estimates.shape],
        )  # fmt: skip
    at = study.n_pre
    pre = study.covariance[:at, :at]
    passing, mean = study.passing(trend[:at], test, level)
    null, _ = study.passing(np.zeros(at), test, level)
    moved = study.covariance[at:, :at] @ np.linalg.solve(pre, mean - trend[:at])
    estimates = study.estimates[:at]
    distance = np.linalg.solve(pre, np.column_stack([estimates, estimates - trend[:at]]))
    logs = estimates @ distance[:, 0] - (estimates - trend[:at]) @ distance[:, 1]
    return TrendPower(
        test=test, trend=trend, power=1.0 - passing,
        mean_if_passed=np.concatenate([mean, trend[at:] + moved]),
        bayes_factor=passing / null, likelihood_ratio=float(np.exp(logs / 2)),
    )  # fmt: skip


def detectable_slope(
    study: Pretested, *, power: float, test: Pretest = "individual", level: float = 0.05
) -> float:
    """Slope per period of a straight difference in trends that a pre-test detects.

    Args:
        study: The estimates.
        power: Probability of detection, above the test's size under parallel trends.
        test: The pre-test.
        level: Its size (of each estimate for `individual`).

    Raises:
        InferenceError: Parallel trends are rejected with that probability already.
    """
    from scipy import optimize

    at = study.n_pre
    pre, line = study.covariance[:at, :at], study.line[:at]

    def missing(slope: float) -> float:
        return 1.0 - study.passing(slope * line, test, level)[0] - power

    size = missing(0.0) + power
    if size >= power:
        raise InferenceError(
            "the pre-test rejects parallel trends with more than the power asked for",
            given=f"power {power:g}", allowed=f"above {size:.3g}",
        )  # fmt: skip
    high = float(np.sqrt(np.diag(pre)).max())
    while missing(high) < 0:
        high *= 2.0
    return float(optimize.brentq(missing, 0.0, high, xtol=1e-8 * high, rtol=1e-8))


def _individual(
    study: Pretested, mean: Array, covariance: Array, level: float
) -> tuple[float, Array]:
    errors = np.sqrt(np.diag(covariance))
    half = critical_value(1.0 - level, df=study.df) * errors
    return normal_in_box(mean, covariance, half * study.error_ratios)


def _joint(study: Pretested, mean: Array, covariance: Array, level: float) -> tuple[float, Array]:
    """The estimates lie inside the ellipse; whitened, only the part along the mean is moved."""
    from scipy import special

    k, df = len(mean), study.df
    moved = float(mean @ np.linalg.solve(covariance, mean))
    if df is None:
        critical = float(special.chdtri(k, level))
        passing = float(special.chndtr(critical, k, moved))
        # E[x; |x|^2 <= c] = mean * P(chi2 with two more degrees of freedom <= c).
        return passing, mean * _share(float(special.chndtr(critical, k + 2, moved)), passing)
    scale, second = referred(1.0, size=k, df=df, kind=study.joint_test)
    critical = float(special.fdtri(k, second, 1.0 - level)) / scale
    # T^2 / df is a noncentral chi2 over an independent chi2 with df - k + 1 degrees of freedom, or
    # with df where one factor of the covariance is estimated.
    kind: JointTest = "exact" if study.joint_test == "exact" else "hotelling"
    exact, rest = referred(critical, size=k, df=df, kind=kind)
    passing = float(special.ncfdtr(k, rest, moved, exact))
    inside = float(special.ncfdtr(k + 2, rest, moved, exact * k / (k + 2)))
    return passing, mean * _share(inside, passing)


def _share(inside: float, passing: float) -> float:
    """NaN where the bias is so large that no sample passes."""
    return inside / passing if passing > 0 else math.nan


_PRETESTS: Mapping[str, Callable[[Pretested, Array, Array, float], tuple[float, Array]]] = (
    MappingProxyType({"individual": _individual, "joint": _joint})
)


def normal_in_box(mean: Array, covariance: Array, half: Array) -> tuple[float, Array]:
    """Probability that a normal vector lies in a box around zero, and its mean given that it does.

    Genz (1992), "Numerical computation of multivariate normal probabilities": the box is walked
    through one coordinate after the other, each drawn from its truncated normal given the ones
    before, with points of a lattice in place of random numbers; the product of the shares is the
    weight of a point. The error is some 1e-4 in the dimensions of an event study.

    Args:
        mean: Shape (k,).
        covariance: Positive definite, shape (k, k).
        half: Half-widths of the box, shape (k,), or of one box per point, shape (n points, k).
    """
    from scipy import special

    k = len(mean)
    root = np.linalg.cholesky(covariance)
    points = np.abs(2.0 * even_points(_N_POINTS, max(k, 1)) - 1.0)
    widths = np.broadcast_to(half, (_N_POINTS, k))
    drawn, weights = np.zeros((_N_POINTS, k)), np.ones(_N_POINTS)
    for i in range(k):
        given = mean[i] + drawn[:, :i] @ root[i, :i]
        low = special.ndtr((-widths[:, i] - given) / root[i, i])
        high = special.ndtr((widths[:, i] - given) / root[i, i])
        weights = weights * (high - low)
        share = np.clip(low + points[:, i] * (high - low), _CLIP, 1.0 - _CLIP)
        drawn[:, i] = special.ndtri(share)
    total = float(weights.mean())
    inside = mean + drawn @ root.T
    if not total > 0:
        return 0.0, np.full(k, np.nan)
    return total, np.asarray(weights @ inside / weights.sum(), dtype=np.float64)


def _common_ratios(k: int, df: float) -> Array:
    """The same where one factor of the covariance is estimated: all errors are off alike."""
    from scipy import special

    point = even_points(_N_POINTS, k + 1)[:, k:]
    return np.broadcast_to(np.sqrt(special.chdtri(df, point) / df), (_N_POINTS, k))


def wishart_ratios(covariance: Array, df: float) -> Array:
    """Estimated over true standard errors, at even points, shape (n points, k).

    Roots of the diagonal of a Wishart matrix over df, by Bartlett's decomposition, over that of its
    expectation. The points are those of the box walk in further dimensions.

    Raises:
        InferenceError: There are fewer degrees of freedom than estimates.
    """
    from scipy import special

    k = len(covariance)
    if df < k:
        raise InferenceError(
            "more estimates before the treatment than degrees of freedom", given=f"{k} and {df:g}"
        )
    errors = np.sqrt(np.diag(covariance))
    root = np.linalg.cholesky(covariance / np.outer(errors, errors))
    points = even_points(_N_POINTS, k + k * (k + 1) // 2)[:, k:]
    factor = np.zeros((_N_POINTS, k, k))
    rows, columns = np.tril_indices(k, -1)
    factor[:, rows, columns] = special.ndtri(points[:, k:])
    at = np.arange(k)
    factor[:, at, at] = np.sqrt(special.chdtri(df - at, points[:, :k]))
    return np.asarray(np.sqrt(((root @ factor) ** 2).sum(axis=2) / df), dtype=np.float64)
