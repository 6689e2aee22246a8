"""Standard errors, bands and the pre-trend test of group-time effects and their averages."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal.checks import parallel_trends
from causal.core.gram import Array
from causal.core.inference import critical_value
from causal.core.result import Diagnostic
from causal.core.simultaneous import gaussian_critical_value, multiplier_critical_value
from causal.quasi.group_time import GroupTime
from causal.quasi.influence import Estimates, Moments, cluster_sums, covariance
from causal.quasi.staggered_options import StaggeredOptions

_FLAT = 1e-20
"""A variance per unit below this share of the outcome's squared size is rounding."""
_NULL = 1e-10
"""Eigenvalues of a correlation matrix below this share of the largest are rounding."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How sure K estimates are.

    Attributes:
        values: The estimates, shape (K,).
        covariance: Their covariance, shape (K, K).
        is_known: Which have a variance; not the reference of a universal base, shape (K,).
        df: Degrees of freedom of the t reference; `None`: normal.
        pointwise: Half-width of an interval in standard errors.
        simultaneous: The same for the band over all known ones.
    """

    values: Array
    covariance: Array
    is_known: Array
    df: float | None
    pointwise: float
    simultaneous: float

    @property
    def std_errors(self) -> Array:
        """Standard errors, NaN where there is no variance, shape (K,)."""
        variances = np.where(self.is_known, np.diag(self.covariance), np.nan)
        return np.asarray(np.sqrt(variances), dtype=np.float64)


def infer(
    estimates: Estimates,
    moments: Moments,
    options: StaggeredOptions,
    *,
    confidence_level: float,
    rng: np.random.Generator,
    scale: float,
) -> Inference:
    """Covariance and critical values.

    Args:
        estimates: K estimates.
        moments: The units.
        options: Small-sample rule and kind of band.
        confidence_level: Of the intervals and the band.
        rng: Source of the draws for the band.
        scale: Mean square of the outcome, to tell variance from rounding.
    """
    n = moments.n_independent
    is_small = options.small_sample == "clusters"
    df = float(n - 1) if is_small else None
    matrix = covariance(estimates, moments) * (n / (n - 1) if is_small else 1.0)
    is_known = np.diag(matrix) * moments.counts.sum() > _FLAT * scale
    pointwise = critical_value(confidence_level, df=df)
    at = np.flatnonzero(is_known)
    band = pointwise
    if len(at) > 1 and options.bands == "multiplier":
        sums = cluster_sums(estimates.chosen(at.tolist()), moments)
        band = multiplier_critical_value(
            sums, confidence_level=confidence_level, rng=rng, n_draws=options.n_draws
        )
    elif len(at) > 1:
        band = gaussian_critical_value(
            matrix[np.ix_(at, at)], confidence_level=confidence_level, rng=rng,
            n_draws=options.n_draws, df=df,
        )  # fmt: skip
    return Inference(
        values=estimates.values, covariance=matrix, is_known=is_known, df=df,
        pointwise=pointwise, simultaneous=max(band, pointwise),
    )  # fmt: skip


def pre_trend(
    cells: Sequence[GroupTime],
    found: Inference,
    *,
    anticipation: int,
    n_independent: int,
    alpha: float,
) -> Diagnostic:
    """Wald test that all effects before the (anticipated) start are zero.

    Chi-square with as many degrees of freedom as the covariance has rank, its pseudo-inverse taking
    the place of the inverse where it is singular; Hotelling's F where a small-sample rule is asked
    for.

    Args:
        cells: The K comparisons.
        found: Their effects.
        anticipation: Time before the start that counts as treated.
        n_independent: Clusters or units.
        alpha: The check fails where the p-value is below this level.
    """
    at = [
        k
        for k, cell in enumerate(cells)
        if cell.event_time < -anticipation and found.is_known[k] and not cell.is_reference
    ]
    if not at:
        return parallel_trends.untested("no test: no effect before the start can be estimated")
    if len(at) >= n_independent:
        return parallel_trends.untested(
            f"no joint test: {len(at)} effects before the start are too many for {n_independent} "
            "clusters"
        )
    chi2, rank = wald(found.values[at], found.covariance[np.ix_(at, at)])
    less = "" if rank == len(at) else f", whose covariance has rank {rank}"
    return parallel_trends.tested(
        chi2, rank, df=found.df, kind="hotelling", alpha=alpha,
        what=f"{len(at)} effects before the start are zero{less}",
    )  # fmt: skip


def wald(estimates: Array, matrix: Array) -> tuple[float, int]:
    """Quadratic form in the pseudo-inverse of the covariance, and its rank.

    Args:
        estimates: Shape (q,).
        matrix: Their covariance, shape (q, q), positive on the diagonal.
    """
    scale = 1.0 / np.sqrt(np.diag(matrix))
    values, vectors = np.linalg.eigh(matrix * np.outer(scale, scale))
    kept = values > _NULL * values[-1]
    rotated = vectors[:, kept].T @ (estimates * scale)
    return float((rotated**2 / values[kept]).sum()), int(kept.sum())
