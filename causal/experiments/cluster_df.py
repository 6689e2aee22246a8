"""On how many clusters a difference rests: degrees of freedom of its clustered variance.

A clustered variance is a sum over clusters of squared contributions `u_g = a_g (e_g - p_g E)`: what
cluster g adds to a mean less its share of the whole, `a_g` the correction. Under a working model of
the errors `u` has a covariance M, and the variance is like `tr(M) chi2(df) / df` with
`df = tr(M)^2 / tr(M^2)` (Satterthwaite). For k clusters of one size in one arm that is k - 1; a
cluster that holds half of an arm leaves it little more than one, however many the others are.

The working model is that of Imbens and Kolesar (2016): equal variance, and one correlation of two
units of a cluster. Bell and McCaffrey (2002) take the correlation to be zero.

Sources: Satterthwaite (1946); Bell and McCaffrey (2002), "Bias reduction in standard errors for
linear regression with multi-stage samples"; Imbens and Kolesar (2016), "Robust standard errors in
small samples: some practical advice"; Pustejovsky and Tipton (2018), "Small-sample methods for
cluster-robust variance estimation and hypothesis testing in fixed effects models".
"""

import functools
from dataclasses import dataclass

import numpy as np

from causal.core.gram import Array

_N_DRAWS = 200


@dataclass(frozen=True)
class ClusterSizes:
    """How the units of c cells (an arm, or an arm of a segment) spread over G clusters.

    Attributes:
        units: Units, shape (c, G); a cluster may hold units of several cells.
        shares: Share of each cluster in a cell's mean, shape (c, G), rows that sum to one: of its
            units, or of the denominator of a ratio.
    """

    units: Array
    shares: Array

    @property
    def cells(self) -> tuple[tuple[int, ...], ...]:
        """Groups of cells that share clusters; cells of different groups are independent."""
        groups: list[set[int]] = []
        for holders in {tuple(np.flatnonzero(column)) for column in self.units.T > 0}:
            touched = [group for group in groups if group.intersection(holders)]
            groups = [group for group in groups if group not in touched]
            groups.append(set(map(int, holders)).union(*touched))
        return tuple(sorted(tuple(sorted(group)) for group in groups if group))

    def of(self, cells: tuple[int, ...]) -> "ClusterSizes":
        """Some of the cells, with the clusters that have units in them."""
        at = list(cells)
        held = self.units[at].any(axis=0)
        return ClusterSizes(self.units[at][:, held], self.shares[at][:, held])


def leverage_scale(shares: Array, *, power: float) -> Array:
    """`(1 - p)^-power`: 0 for CR0 and CR1, 1/2 for CR2, 1 for CR3."""
    return np.asarray((1.0 - shares) ** -power, dtype=np.float64)


def intraclass_correlation(between: float, within: float, *, sizes: ClusterSizes) -> float:
    """Correlation of two units of one cluster, by the residuals' products; from 0 to 1.

    Args:
        between: Sum over cells and clusters of the squared sums of residuals.
        within: Sum of squared residuals.
        sizes: The cells.
    """
    n_pairs = float((sizes.units * (sizes.units - 1.0)).sum())
    if not (n_pairs > 0 and within > 0):
        return 0.0
    product, variance = (between - within) / n_pairs, within / float(sizes.units.sum())
    return float(np.clip(product / variance, 0.0, 1.0))


def working_moments(
    sizes: ClusterSizes, *, signs: Array, power: float, icc: float
) -> tuple[float, float]:
    """`tr(M)` and `tr(M^2)` of the clusters' contributions to a sum of cell means.

    M is diagonal plus a matrix of rank 2c, so neither it nor its square is ever made.

    Args:
        sizes: The c cells.
        signs: What multiplies each cell's mean in the difference, shape (c,).
        power: Of `leverage_scale`.
        icc: Correlation of two units of one cluster.
    """
    scale = signs[:, None] * leverage_scale(sizes.shares, power=power)
    covariances = _contribution_covariances(sizes, icc)
    diagonal = np.einsum("cg,dg,cdg->g", scale, scale, covariances)
    sides = np.vstack([scale * sizes.shares, np.einsum("dg,cdg->cg", scale, covariances)])
    n_cells = len(signs)
    middle = np.zeros((2 * n_cells, 2 * n_cells))
    middle[:n_cells, :n_cells] = covariances.sum(axis=2)
    middle[:n_cells, n_cells:] = middle[n_cells:, :n_cells] = -np.eye(n_cells)
    product = middle @ (sides @ sides.T)
    crossed = middle @ ((sides * diagonal) @ sides.T)
    trace = float(diagonal.sum() + np.trace(product))
    square = float((diagonal**2).sum() + 2 * np.trace(crossed) + np.trace(product @ product))
    return trace, square


def satterthwaite_df(sizes: ClusterSizes, *, signs: Array, power: float, icc: float) -> float:
    """`tr(M)^2 / tr(M^2)` of the working model, at least 1; arguments as for `working_moments`."""
    trace, square = working_moments(sizes, signs=signs, power=power, icc=icc)
    # Where one cluster is all but a ten-thousandth of a cell the traces may be lost in rounding.
    return max(trace**2 / square, 1.0) if trace > 0 and square > 0 else 1.0


def expected_df(number: float, *, mean_size: float, size_cv: float, icc: float) -> float:
    """Degrees of freedom of an arm's mean (CR2) that are expected before its clusters are known.

    The mean over sizes drawn from a gamma distribution, always the same draws; between whole
    numbers of clusters a line.

    Args:
        number: Clusters in the arm, from 2.
        mean_size: Units per cluster.
        size_cv: Standard deviation of the sizes over their mean.
        icc: Correlation of two units of one cluster.
    """
    below = int(number)
    ends = [_drawn_df(at, mean_size, size_cv, icc) for at in (below, below + 1)]
    return ends[0] + (number - below) * (ends[1] - ends[0])


@functools.lru_cache(maxsize=4096)
def _drawn_df(number: int, mean_size: float, size_cv: float, icc: float) -> float:
    if size_cv == 0:
        return number - 1.0
    shape = size_cv**-2
    total = 0.0
    for seed in range(_N_DRAWS):
        # A seed for each draw, so that one cluster more leaves those before it as they are.
        rng = np.random.default_rng(seed)
        units = np.maximum(rng.gamma(shape, mean_size / shape, (1, number)), 1.0)
        sizes = ClusterSizes(units, units / units.sum())
        total += satterthwaite_df(sizes, signs=np.ones(1), power=0.5, icc=icc)
    return total / _N_DRAWS


def _contribution_covariances(sizes: ClusterSizes, icc: float) -> Array:
    """Covariance of what a cluster adds to the means of two cells, shape (c, c, G)."""
    means = sizes.units / sizes.units.sum(axis=1, keepdims=True)
    out = icc * means[:, None, :] * means[None, :, :]
    own = means / sizes.units.sum(axis=1, keepdims=True)
    cells = np.arange(len(means))
    out[cells, cells] += (1.0 - icc) * own
    return np.asarray(out, dtype=np.float64)
