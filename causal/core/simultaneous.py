"""Bands that hold all of several estimates at once with the stated confidence (sup-t bands).

The critical value is a quantile of the largest absolute t statistic over all estimates. Montiel
Olea and Plagborg-Moller (2019), "Simultaneous confidence bands: theory, implementation, and an
application to SVARs", show that no other factor on the standard errors gives a narrower band.
"""

import numpy as np

from causal.core.gram import Array
from causal.core.inference import critical_value

_CHUNK = 1_000_000
"""Normal numbers drawn at a time."""


def gaussian_critical_value(
    covariance: Array,
    *,
    confidence_level: float,
    rng: np.random.Generator,
    n_draws: int,
    df: float | None = None,
) -> float:
    """Quantile of the largest |t| when the estimates are jointly normal.

    This is also the multiplier bootstrap with normal multipliers: given the data, sums of influence
    times independent normals are exactly normal with the estimated covariance. No unit is needed.

    Args:
        covariance: Shape (q, q), positive on the diagonal; may be singular.
        confidence_level: Probability that the band holds all q truths.
        rng: Source of the draws.
        n_draws: How many draws.
        df: Degrees of freedom of a joint t reference; `None`: normal.
    """
    size = len(covariance)
    pointwise = critical_value(confidence_level, df=df)
    if size == 1:
        return pointwise
    root = _symmetric_root(_correlation(covariance))
    largest = np.empty(n_draws)
    step = max(1, _CHUNK // size)
    for start in range(0, n_draws, step):
        count = min(step, n_draws - start)
        draws = rng.standard_normal((count, size)) @ root
        largest[start : start + count] = np.abs(draws).max(axis=1)
    if df is not None:
        largest = largest / np.sqrt(rng.chisquare(df, n_draws) / df)
    return max(pointwise, float(np.quantile(largest, confidence_level)))


def multiplier_critical_value(
    sums: Array, *, confidence_level: float, rng: np.random.Generator, n_draws: int
) -> float:
    """Quantile of the largest |t| over random signs of the clusters (Rademacher multipliers).

    Args:
        sums: Influence of each cluster on each estimate, shape (G, q).
        confidence_level: Probability that the band holds all q truths.
        rng: Source of the draws.
        n_draws: How many draws.
    """
    scaled = sums / np.sqrt((sums**2).sum(axis=0))
    n_clusters = len(sums)
    largest = np.empty(n_draws)
    step = max(1, _CHUNK // max(sums.shape))
    for start in range(0, n_draws, step):
        count = min(step, n_draws - start)
        signs = rng.integers(0, 2, (count, n_clusters)) * 2.0 - 1.0
        largest[start : start + count] = np.abs(signs @ scaled).max(axis=1)
    return max(critical_value(confidence_level), float(np.quantile(largest, confidence_level)))


def _correlation(covariance: Array) -> Array:
    scale = 1.0 / np.sqrt(np.diag(covariance))
    return np.asarray(covariance * np.outer(scale, scale), dtype=np.float64)


def _symmetric_root(matrix: Array) -> Array:
    """The positive root.

    Unlike a Cholesky or eigenvector factor it is continuous in the matrix, so that rounding does
    not change the draws.
    """
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T, dtype=np.float64)
