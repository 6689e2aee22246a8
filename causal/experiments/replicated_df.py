"""Degrees of freedom of clustered differences in thousands of re-randomised experiments at once.

The formulas of `cluster_df` over a first axis, for arms that share no cluster: then the matrix M is
one block per arm, a diagonal and a rank of two. With `v_g = rho n_g^2 + (1 - rho) n_g`, the
variance of a cluster's sum under the working model, `tr(M)` and `tr(M^2)` are polynomials in the
correlation rho, and their coefficients are sums over an arm's clusters of powers of its units n_g,
its weight w_g and its correction. Those are matrix products with the assignment, found once.

Sources: as for `cluster_df`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal.core.gram import Array

ROUNDING = 1e-12
"""An arm whose other clusters have no larger share than this is one cluster."""


@dataclass(frozen=True)
class Sizes:
    """Clusters of two arms, as they are whichever arm they are given to.

    Attributes:
        units: Units, shape (G,).
        weights: What a cluster's share in an arm's mean is of, shape (G,): its units, or the
            denominator of a ratio.
    """

    units: Array
    weights: Array


@dataclass(frozen=True)
class SizeSums:
    """What the degrees of freedom need of one arm in every replicate.

    Attributes:
        totals: Sums over the arm's clusters of `n, n^2, w`, shape (r, 3).
        squared: Sums of `n, n^2, n^3, n^4, w n, w n^2, w^2` times the squared correction,
            shape (r, 7).
        fourth: Sums of `n^2, n^3, n^4, w n^2, w n^3, w n^4, w^2 n, w^2 n^2` times its square,
            shape (r, 8).
    """

    totals: Array
    squared: Array
    fourth: Array

    @property
    def units(self) -> Array:
        """Units of the arm, shape (r,)."""
        return np.asarray(self.totals[:, 0], dtype=np.float64)

    @property
    def n_pairs(self) -> Array:
        """Ordered pairs of units of one cluster, shape (r,)."""
        return np.asarray(self.totals[:, 1] - self.totals[:, 0], dtype=np.float64)


def squared_corrections(in_arm: Array, sizes: Sizes, *, power: float) -> Array:
    """`(1 - p)^(-2 power)` of the clusters in an arm, zero for the others, shape (r, G).

    Args:
        in_arm: Which clusters the arm has, zeros and ones of shape (r, G).
        sizes: The clusters.
        power: Of `cluster_df.leverage_scale`.

    Returns:
        NaN in replicates where one cluster is the whole arm, which leaves nothing to compare.
    """
    left = in_arm * sizes.weights
    total = left.sum(axis=1)
    left /= -np.where(total > 0, total, np.nan)[:, None]
    left += 1.0
    left[left.min(axis=1) < ROUNDING] = np.nan
    if power == 0:
        return np.where(np.isfinite(left), in_arm, np.nan)
    return np.asarray(in_arm / left ** (2.0 * power), dtype=np.float64)


def size_sums(in_arm: Array, corrections: Array, sizes: Sizes) -> SizeSums:
    """The sums over an arm's clusters.

    Args:
        in_arm: Which clusters the arm has, zeros and ones of shape (r, G).
        corrections: Their squared corrections, zero elsewhere, shape (r, G).
        sizes: The clusters.
    """
    n, w = sizes.units, sizes.weights
    by_squared = [n, n**2, n**3, n**4, w * n, w * n**2, w**2]
    by_fourth = [n**2, n**3, n**4, w * n**2, w * n**3, w * n**4, w**2 * n, w**2 * n**2]
    return SizeSums(
        totals=in_arm @ np.column_stack([n, n**2, w]),
        squared=corrections @ np.column_stack(by_squared),
        fourth=corrections**2 @ np.column_stack(by_fourth),
    )


def stacked_sizes(parts: Sequence[SizeSums]) -> SizeSums:
    """Chunks of replicates put together."""
    return SizeSums(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in SizeSums.__annotations__
        )
    )


def intraclass_correlations(
    between: Array, within: Array, arms: tuple[SizeSums, SizeSums]
) -> Array:
    """As `cluster_df.intraclass_correlation`, in every replicate, shape (r,).

    Args:
        between: Sum over clusters of the squared sums of residuals, shape (r,).
        within: Sum of squared residuals, shape (r,).
        arms: Sums over each arm's clusters.
    """
    n_pairs, units = (sum(getattr(arm, name) for arm in arms) for name in ("n_pairs", "units"))
    is_known: NDArray[np.bool_] = (n_pairs > 0) & (within > 0)
    product = (between - within) / np.where(is_known, n_pairs, 1.0)
    found = np.clip(product * units / np.where(is_known, within, 1.0), 0.0, 1.0)
    return np.asarray(np.where(is_known, found, 0.0), dtype=np.float64)


def working_moments(arm: SizeSums, icc: Array) -> tuple[Array, Array]:
    """`tr(M)` and `tr(M^2)` of one arm, as `cluster_df.working_moments`, each of shape (r,).

    Args:
        arm: Sums over its clusters.
        icc: Correlation of two units of one cluster, shape (r,).
    """
    n, n2, w = arm.totals.T
    squared, fourth = arm.squared.T, arm.fourth.T
    apart = 1.0 - icc

    def line(of_units: Array, of_squares: Array) -> Array:
        """A sum of products with `v`."""
        return np.asarray((apart * of_units + icc * of_squares) / n**2, dtype=np.float64)

    def curve(of_squares: Array, of_cubes: Array, of_fourths: Array) -> Array:
        """A sum of products with `v^2`."""
        mixed = apart**2 * of_squares + 2 * apart * icc * of_cubes + icc**2 * of_fourths
        return np.asarray(mixed / n**4, dtype=np.float64)

    whole = line(n, n2)
    left = squared[6] / w**2
    crossed = line(squared[4], squared[5]) / w
    right = curve(*squared[1:4])
    trace = line(squared[0], squared[1]) + whole * left - 2 * crossed
    of_diagonal = whole * line(fourth[6], fourth[7]) / w**2 - 2 * curve(*fourth[3:6]) / w
    of_sides = (whole * left - crossed) ** 2 + crossed**2 - 2 * left * (whole * crossed - right)
    return trace, curve(*fourth[:3]) + 2 * of_diagonal + of_sides


def satterthwaite_dfs(arms: Sequence[SizeSums], icc: Array) -> Array:
    """`tr(M)^2 / tr(M^2)` of one arm, or of the difference of two, shape (r,).

    Args:
        arms: Sums over the clusters of each.
        icc: Correlation of two units of one cluster, shape (r,).
    """
    traces, squares = (
        np.sum(item, axis=0)
        for item in zip(*(working_moments(arm, icc) for arm in arms), strict=True)
    )
    return np.asarray(traces**2 / squares, dtype=np.float64)
