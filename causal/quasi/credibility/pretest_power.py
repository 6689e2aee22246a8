r"""What a test for parallel trends before the treatment can see, and what it lets through.

Two tests: `individual`, no estimate before the reference is significant on its own, and `joint`,
the Wald test that all are zero. For each: the slope of a straight difference in trends that it
detects with a given probability, and what the estimates are expected to be where it did not. The
estimates that pass are a selected sample; on average they are off by other than the trend itself.
Roth (2022), "Pretest with caution: event-study estimates after testing for parallel trends",
American Economic Review: Insights 4.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from causal.core.errors import InferenceError, SpecError
from causal.core.gram import Array
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
    """

    estimates: Array
    covariance: Array
    n_pre: int
    line: Array


def pretested(path: EventPath) -> Pretested:
    """The estimates of an event study with one reference period."""
    return Pretested(
        estimates=path.estimates, covariance=path.covariance, n_pre=path.n_pre, line=path.distance
    )


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
    passing, mean = _passing(trend[:at], pre, test, level)
    null, _ = _passing(np.zeros(at), pre, test, level)
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
        return 1.0 - _passing(slope * line, pre, test, level)[0] - power

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


def _passing(mean: Array, covariance: Array, test: Pretest, level: float) -> tuple[float, Array]:
    return _PRETESTS[test](mean, covariance, level)


def _individual(mean: Array, covariance: Array, level: float) -> tuple[float, Array]:
    from scipy import special

    half = float(special.ndtri(1 - level / 2)) * np.sqrt(np.diag(covariance))
    return normal_in_box(mean, covariance, half)


def _joint(mean: Array, covariance: Array, level: float) -> tuple[float, Array]:
    """The estimates lie inside the ellipse; whitened, only the part along the mean is moved."""
    from scipy import special

    k = len(mean)
    critical = float(special.chdtri(k, level))
    moved = float(mean @ np.linalg.solve(covariance, mean))
    passing = float(special.chndtr(critical, k, moved))
    # E[x; |x|^2 <= c] = mean * P(chi2 with two more degrees of freedom <= c).
    return passing, mean * float(special.chndtr(critical, k + 2, moved)) / passing


_PRETESTS: Mapping[str, Callable[[Array, Array, float], tuple[float, Array]]] = MappingProxyType(
    {"individual": _individual, "joint": _joint}
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
        half: Half-widths of the box, shape (k,).
    """
    from scipy import special

    k = len(mean)
    root = np.linalg.cholesky(covariance)
    points = np.abs(2.0 * even_points(_N_POINTS, max(k, 1)) - 1.0)
    drawn, weights = np.zeros((_N_POINTS, k)), np.ones(_N_POINTS)
    for i in range(k):
        given = mean[i] + drawn[:, :i] @ root[i, :i]
        low = special.ndtr((-half[i] - given) / root[i, i])
        high = special.ndtr((half[i] - given) / root[i, i])
        weights = weights * (high - low)
        share = np.clip(low + points[:, i] * (high - low), _CLIP, 1.0 - _CLIP)
        drawn[:, i] = special.ndtri(share)
    total = float(weights.mean())
    inside = mean + drawn @ root.T
    return total, np.asarray(weights @ inside / weights.sum(), dtype=np.float64)
