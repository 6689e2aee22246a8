"""The restricted wild cluster bootstrap (WCR), from moments by cluster.

For the hypothesis `r'b = c` the model is fitted under it, and each cluster's residuals are
multiplied by one random weight. With `A_g` the cross-products of cluster g, `M` the inverse of
their sum and `s_g` its score under the hypothesis, a draw v has

    numerator    sum_g v_g r'M s_g,
    variance     sum_g (v_g r'M s_g - r'M A_g M sum_h v_h s_h)^2,

so that rows are not needed again (Roodman, Nielsen, MacKinnon and Webb 2019; MacKinnon, Nielsen and
Webb 2023, "Fast and reliable jackknife and bootstrap methods for cluster-robust inference"). Scores
under the hypothesis are linear in c, which makes intervals by inversion of the test cheap.

A p-value counts draws whose |t| reaches the observed one, the sample itself among them: the number
of draws plus one where draws are random, all `2^G` where every draw of signs is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.regression.leverage import ClusterMoments

Weights = Literal["rademacher", "webb"]

WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])
"""The six points of Webb (2023), for few clusters."""
_TIE = 1e-9
"""Share of the observed statistic within which another counts as equal."""
_FARTHEST = 2.0**40
"""Standard errors from the estimate beyond which an interval counts as unbounded."""
_BISECTIONS = 100
_PRECISION = 1e-10
"""Width, in standard errors, to which the end of an interval is found."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Weights of the clusters.

    Attributes:
        values: Shape (B, G).
        is_complete: Whether these are all `2^G` draws of signs.
    """

    values: Array
    is_complete: bool

    @property
    def n_counted(self) -> int:
        """What a p-value divides by."""
        return len(self.values) + (0 if self.is_complete else 1)


@dataclass(frozen=True, kw_only=True)
class BootstrapTest:
    """A test of one combination of coefficients, and the interval that inverts it.

    Attributes:
        pvalue: Two-sided p-value of zero.
        ci_lower: Lower end; minus infinity where no value is rejected.
        ci_upper: Upper end; infinity where no value is rejected.
    """

    pvalue: float
    ci_lower: float
    ci_upper: float


def draw_weights(n_clusters: int, *, kind: Weights, n_draws: int, seed: int) -> Draws:
    """Weights of clusters: signs, or Webb's six points.

    Where there are no more draws of signs than asked for, each is taken once.

    Args:
        n_clusters: The G clusters.
        kind: The distribution.
        n_draws: How many draws.
        seed: Seed of the random ones.
    """
    if kind == "rademacher" and 2.0**n_clusters <= n_draws:
        bits = np.arange(2**n_clusters)[:, None] >> np.arange(n_clusters)
        signs = np.asarray(1.0 - 2.0 * (bits & 1), dtype=np.float64)
        return Draws(values=signs, is_complete=True)
    points = WEBB if kind == "webb" else np.array([-1.0, 1.0])
    rng = np.random.default_rng(seed)
    values = np.asarray(rng.choice(points, size=(n_draws, n_clusters)), dtype=np.float64)
    return Draws(values=values, is_complete=False)


def bootstrap_test(
    moments: ClusterMoments, contrast: Array, *, estimate: float, draws: Draws, level: float
) -> BootstrapTest:
    """The test that a combination of coefficients is zero, and its interval.

    Args:
        moments: Moments by cluster; their coordinates are the coefficients themselves.
        contrast: The combination r, shape (k,).
        estimate: Its estimate `r'b`.
        draws: Weights of the clusters.
        level: Coverage of the interval.

    Raises:
        InferenceError: The combination has no clustered variance.
    """
    share = _pvalues(moments, contrast, estimate=estimate, draws=draws)
    scale = _std_error(moments, contrast)
    lower, upper = (
        _end(share, estimate=estimate, scale=sign * scale, alpha=1.0 - level) for sign in (-1, 1)
    )
    return BootstrapTest(pvalue=share(0.0), ci_lower=lower, ci_upper=upper)


def _std_error(moments: ClusterMoments, contrast: Array) -> float:
    error = float(np.sqrt(np.sum((moments.scores @ (moments.bread @ contrast)) ** 2)))
    if not error > 0:
        raise InferenceError("the clustered variance is zero: there is nothing to bootstrap")
    return error


def _pvalues(
    moments: ClusterMoments, contrast: Array, *, estimate: float, draws: Draws
) -> Callable[[float], float]:
    """The p-value as a function of the hypothesised value."""
    v = draws.values
    left = moments.bread @ contrast
    moved = moments.designs @ left
    step = moved / float(contrast @ left)
    back = moved @ moments.bread
    fixed = _numbers(v, moments.scores, left, back)
    per_unit = _numbers(v, step, left, back)
    std_error = _std_error(moments, contrast)

    parts = (fixed[1] ** 2, 2.0 * fixed[1] * per_unit[1], per_unit[1] ** 2)
    squares, crosses, growth = (part.sum(axis=1) for part in parts)

    # One weight for all clusters gives the sample's own statistic: a tie, whatever the rounding.
    is_sample = (v == v[:, :1]).all(axis=1)

    def pvalue(value: float) -> float:
        distance = estimate - value
        numerator = fixed[0] + distance * per_unit[0]
        variance = np.maximum(squares + distance * crosses + distance**2 * growth, 0.0)
        observed = abs(distance) / std_error
        reached = np.abs(numerator) >= observed * (1.0 - _TIE) * np.sqrt(variance)
        reached |= is_sample
        extra = 0 if draws.is_complete else 1
        return float((np.count_nonzero(reached) + extra) / draws.n_counted)

    return pvalue


def _numbers(v: Array, scores: Array, left: Array, back: Array) -> tuple[Array, Array]:
    """Numerators, shape (B,), and the parts whose squares are the variances, shape (B, G)."""
    own = scores @ left
    return v @ own, v * own - (v @ scores) @ back.T


def _end(pvalue: Callable[[float], float], *, estimate: float, scale: float, alpha: float) -> float:
    """Where the p-value falls to alpha, going from the estimate in steps of `scale`."""
    inside, outside = 0.0, 2.0
    while pvalue(estimate + outside * scale) > alpha:
        inside, outside = outside, 2.0 * outside
        if outside > _FARTHEST:
            return float(np.copysign(np.inf, scale))
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if pvalue(estimate + middle * scale) > alpha:
            inside = middle
        else:
            outside = middle
        if outside - inside < _PRECISION:
            break
    return estimate + outside * scale
