"""Degrees of freedom and corrections of clustered variances against dense matrices."""

import numpy as np
import pytest
from numpy.typing import NDArray

from causal.experiments.cluster_df import (
    ClusterSizes,
    intraclass_correlation,
    leverage_scale,
    satterthwaite_df,
    working_moments,
)
from causal.experiments.cluster_sums import count_covariance

Array = NDArray[np.float64]

NESTED = np.array([[4, 9, 2, 7, 0, 0, 0], [0, 0, 0, 0, 3, 12, 5]])
CROSSED = np.array([[4, 9, 2, 7, 1], [3, 1, 6, 2, 8]])
PARTLY = np.array([[4, 9, 2, 7, 0, 0], [0, 0, 3, 0, 6, 2]])
FOUR = np.array([[4, 3, 0, 0, 2], [0, 0, 5, 2, 0], [1, 6, 0, 0, 3], [0, 0, 2, 7, 0]])


def sizes_of(units: NDArray[np.int64]) -> ClusterSizes:
    numbers = units.astype(float)
    return ClusterSizes(numbers, numbers / numbers.sum(axis=1, keepdims=True))


def dense(units: NDArray[np.int64], signs: Array, *, power: float, icc: float) -> Array:
    """M from the regression on one dummy per cell: units, hat matrix and working covariance.

    Pustejovsky and Tipton (2018), equations 4 and 10: `A_g = (I - H_gg)^-power`, and the
    contribution of cluster g is `c' (X'X)^-1 X_g' A_g (I - H)_g e`.
    """
    cells, clusters = np.nonzero(units)
    counts = units[cells, clusters]
    cell, cluster = np.repeat(cells, counts), np.repeat(clusters, counts)
    x = (cell[:, None] == np.arange(len(units))).astype(float)
    bread = np.linalg.inv(x.T @ x)
    hat = x @ bread @ x.T
    rest = np.eye(len(x)) - hat
    omega = np.where(cluster[:, None] == cluster, icc, 0.0)
    np.fill_diagonal(omega, 1.0)
    rows = []
    for g in range(units.shape[1]):
        at = np.flatnonzero(cluster == g)
        values, vectors = np.linalg.eigh(rest[np.ix_(at, at)])
        adjustment = vectors @ np.diag(values**-power) @ vectors.T
        rows.append(signs @ bread @ x[at].T @ adjustment @ rest[at])
    together = np.array(rows)
    return together @ omega @ together.T


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("icc", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("units", [NESTED, CROSSED, PARTLY, FOUR], ids=str)
def test_working_moments_are_those_of_the_dense_matrix(
    units: NDArray[np.int64], power: float, icc: float
) -> None:
    signs = np.array([-1.0, 1.0, 1.0, -1.0])[: len(units)]
    matrix = dense(units, signs, power=power, icc=icc)
    trace, square = working_moments(sizes_of(units), signs=signs, power=power, icc=icc)
    assert trace == pytest.approx(np.trace(matrix), rel=1e-9)
    assert square == pytest.approx(np.sum(matrix**2), rel=1e-9)
    values = np.linalg.eigvalsh(matrix)
    df = satterthwaite_df(sizes_of(units), signs=signs, power=power, icc=icc)
    assert df == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-9)


@pytest.mark.parametrize("icc", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_clusters_of_one_size_have_the_textbook_degrees(icc: float, power: float) -> None:
    one_arm = np.full((1, 8), 5)
    assert satterthwaite_df(
        sizes_of(one_arm), signs=np.ones(1), power=power, icc=icc
    ) == pytest.approx(7)
    paired = np.full((2, 8), 5)
    signs = np.array([-1.0, 1.0])
    assert satterthwaite_df(sizes_of(paired), signs=signs, power=power, icc=0.0) == pytest.approx(7)
    arms = np.zeros((2, 20), dtype=int)
    arms[0, :10], arms[1, 10:] = 4, 4
    assert satterthwaite_df(sizes_of(arms), signs=signs, power=power, icc=icc) == pytest.approx(18)


def test_cr2_is_unbiased_under_independent_errors() -> None:
    """`tr(M)` is the variance of the difference: no error of the standard error is left."""
    for units in (NESTED, CROSSED, FOUR):
        signs = np.array([-1.0, 1.0, 1.0, -1.0])[: len(units)]
        trace, _ = working_moments(sizes_of(units), signs=signs, power=0.5, icc=0.0)
        assert trace == pytest.approx((1.0 / units.sum(axis=1)).sum(), rel=1e-12)


def test_one_large_cluster_leaves_one_degree_of_freedom() -> None:
    units = np.array([[10_000, *(50 * [2])]])
    df = satterthwaite_df(sizes_of(units), signs=np.ones(1), power=0.5, icc=0.3)
    assert 1.0 <= df < 2.5


def test_cells_that_share_clusters_go_together() -> None:
    assert sizes_of(NESTED).cells == ((0,), (1,))
    assert sizes_of(CROSSED).cells == ((0, 1),)
    assert sizes_of(FOUR).cells == ((0, 2), (1, 3))
    alone = sizes_of(NESTED).of((1,))
    assert alone.units.tolist() == [[3, 12, 5]]


def test_intraclass_correlation_of_known_errors() -> None:
    rng = np.random.default_rng(3)
    units = rng.integers(2, 30, 4000)
    cluster = np.repeat(np.arange(len(units)), units)
    errors = np.sqrt(0.3) * rng.normal(size=len(units))[cluster]
    errors += np.sqrt(0.7) * rng.normal(size=len(cluster))
    errors -= errors.mean()
    sums = np.bincount(cluster, errors)
    found = intraclass_correlation(
        float(sums @ sums), float(errors @ errors), sizes=sizes_of(units[None, :])
    )
    assert found == pytest.approx(0.3, abs=0.03)
    single = sizes_of(np.ones((1, 9), dtype=int))
    assert intraclass_correlation(3.0, 3.0, sizes=single) == 0.0
    assert intraclass_correlation(1.0, 5.0, sizes=sizes_of(units[None, :])) == 0.0


def test_leverage_scale() -> None:
    shares = np.array([0.5, 0.75])
    assert leverage_scale(shares, power=0.0).tolist() == [1, 1]
    assert leverage_scale(shares, power=0.5) == pytest.approx([np.sqrt(2), 2])
    assert leverage_scale(shares, power=1.0) == pytest.approx([2, 4])


def test_counts_of_whole_clusters_vary_as_assignment_makes_them() -> None:
    """By all assignments of six clusters to three arms, weighed by their probability."""
    sizes, shares = np.array([9, 1, 4, 2, 2, 7]), np.array([0.5, 0.3, 0.2])
    total = np.zeros((2, 2))
    for code in range(3**6):
        arms = np.array([code // 3**k % 3 for k in range(6)])
        counts = np.bincount(arms, sizes, minlength=3)
        excess = (counts - shares * sizes.sum())[1:]
        total += np.prod(shares[arms]) * np.outer(excess, excess)
    nested = np.diag([81.0, 1 + 16 + 4, 4 + 49])
    assert count_covariance(nested, n_units=25, shares=shares) == pytest.approx(total, rel=1e-9)


def test_counts_within_clusters_vary_as_they_are_seen_to() -> None:
    rng = np.random.default_rng(7)
    held = rng.multinomial(50, [0.5, 0.5], 300).T.astype(float)
    excess = (held[1] - held[0]) / 2
    found = count_covariance(held @ held.T, n_units=15_000, shares=(0.5, 0.5))
    assert found[0, 0] == pytest.approx(float(excess @ excess), rel=0.5)
    equal = np.full((2, 8), 5.0)
    fixed = count_covariance(equal @ equal.T, n_units=80, shares=(0.5, 0.5))
    assert fixed == pytest.approx(0.0, abs=1e-9)
