r"""Covariances of many estimates at once from cohort moments.

Every estimate of a staggered design moves with unit i of cohort c by an amount that is affine in
the unit's outcome path, and by the same rule for all units of the cohort:

    psi_ik = a_kc' (y_i - mean_c) + h_kc,      estimate_k - truth_k ~ sum_i psi_ik.

So the sum over units of psi psi' needs no unit: it is `sum_c A_c S_c A_c' + n_c h_c h_c'` with the
T x T cross-products S_c, and the sums over clusters need the mean path of each cluster and cohort
only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.gram import Array, Key, PanelGram


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """K estimates and how each unit moves them.

    Attributes:
        values: The estimates, shape (K,).
        slopes: `a_kc`, shape (K, C, T), for C cohorts and T periods.
        offsets: `h_kc`, shape (K, C).
    """

    values: Array
    slopes: Array
    offsets: Array

    def combined(
        self, weights: Array, offsets: Array | float = 0.0, slopes: Array | float = 0.0
    ) -> "Estimates":
        """Linear combinations.

        Args:
            weights: Shape (J, K).
            offsets: What the estimation of the weights adds, shape (J, C).
            slopes: The same, shape (J, C, T).
        """
        return Estimates(
            values=weights @ self.values,
            slopes=np.tensordot(weights, self.slopes, axes=1) + slopes,
            offsets=weights @ self.offsets + offsets,
        )

    def chosen(self, at: Sequence[int]) -> "Estimates":
        """Some of them."""
        rows = list(at)
        return Estimates(
            values=self.values[rows], slopes=self.slopes[rows], offsets=self.offsets[rows]
        )


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What is known of the units.

    Attributes:
        cohorts: Moments of the C cohorts.
        parts: The same by cluster, `key` holding the cluster; empty: units are independent.
    """

    cohorts: tuple[PanelGram, ...]
    parts: tuple[PanelGram, ...] = ()

    @property
    def counts(self) -> Array:
        """Units by cohort, shape (C,)."""
        return np.array([cohort.n for cohort in self.cohorts], dtype=np.float64)

    @property
    def n_independent(self) -> int:
        """Clusters, or units where there are no clusters."""
        if not self.parts:
            return int(self.counts.sum())
        return len({part.key for part in self.parts})


def stacked(items: Sequence[Estimates]) -> Estimates:
    """Several sets of estimates of the same units below each other."""
    return Estimates(
        values=np.concatenate([item.values for item in items]),
        slopes=np.concatenate([item.slopes for item in items]),
        offsets=np.concatenate([item.offsets for item in items]),
    )


def covariance(estimates: Estimates, moments: Moments) -> Array:
    """Covariance of the estimates without a small-sample factor, shape (K, K).

    The sum of squared influences over independent units, or over clusters of units.
    """
    if moments.parts:
        sums = cluster_sums(estimates, moments)
        return np.asarray(sums.T @ sums, dtype=np.float64)
    total = np.zeros((len(estimates.values),) * 2)
    for c, cohort in enumerate(moments.cohorts):
        slopes, offsets = estimates.slopes[:, c], estimates.offsets[:, c]
        total += slopes @ cohort.cross @ slopes.T + cohort.n * np.outer(offsets, offsets)
    return total


def cluster_sums(estimates: Estimates, moments: Moments) -> Array:
    """Influence of each cluster on each estimate, shape (G, K)."""
    clusters: dict[Key, int] = {}
    at = {cohort.first_treated_period: c for c, cohort in enumerate(moments.cohorts)}
    members: dict[int, list[PanelGram]] = {}
    for part in moments.parts:
        clusters.setdefault(part.key, len(clusters))
        members.setdefault(at[part.first_treated_period], []).append(part)
    sums = np.zeros((len(clusters), len(estimates.values)))
    for c, parts in members.items():
        counts = np.array([part.n for part in parts], dtype=np.float64)
        off = np.array([part.mean for part in parts]) - moments.cohorts[c].mean
        moved = off @ estimates.slopes[:, c].T + estimates.offsets[:, c]
        np.add.at(sums, [clusters[part.key] for part in parts], counts[:, None] * moved)
    return sums
