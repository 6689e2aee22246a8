"""Degrees of freedom over replicates are those of `cluster_df` in each of them."""

import numpy as np
import pytest

from causal.core.gram import Array
from causal.experiments.cluster_df import (
    ClusterSizes,
    intraclass_correlation,
    satterthwaite_df,
    working_moments,
)
from causal.experiments.replicated_df import (
    Sizes,
    SizeSums,
    intraclass_correlations,
    satterthwaite_dfs,
    size_sums,
    squared_corrections,
    stacked_sizes,
)
from causal.experiments.replicated_df import working_moments as replicated_moments

N_CLUSTERS, REPLICATIONS = 23, 6
POWERS = (0.0, 0.5, 1.0)


def drawn(*, is_ratio: bool) -> tuple[Sizes, Array]:
    """Clusters of 1 to 100,000 units and who is treated."""
    rng = np.random.default_rng(3)
    units = np.floor(np.exp(rng.uniform(0.0, 11.5, N_CLUSTERS)))
    weights = units * rng.gamma(2.0, 3.0, N_CLUSTERS) if is_ratio else units
    assigned = np.argsort(rng.random((REPLICATIONS, N_CLUSTERS)), axis=1) < 9
    return Sizes(units, weights), assigned.astype(np.float64)


def sums_of(in_arm: Array, sizes: Sizes, power: float) -> SizeSums:
    return size_sums(in_arm, squared_corrections(in_arm, sizes, power=power), sizes)


def both_arms(assigned: Array, sizes: Sizes) -> ClusterSizes:
    """One replicate as two cells."""
    in_arm = np.array([1.0 - assigned, assigned])
    weights = in_arm * sizes.weights
    return ClusterSizes(in_arm * sizes.units, weights / weights.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("is_ratio", [False, True])
@pytest.mark.parametrize("icc", [0.0, 0.03, 0.7, 1.0])
def test_every_replicate_has_its_degrees_of_freedom(
    power: float, *, is_ratio: bool, icc: float
) -> None:
    sizes, assigned = drawn(is_ratio=is_ratio)
    pair = sums_of(1.0 - assigned, sizes, power), sums_of(assigned, sizes, power)
    correlations = np.full(REPLICATIONS, icc)
    for at in range(REPLICATIONS):
        cells = both_arms(assigned[at], sizes)
        for arm, sums in enumerate(pair):
            moments = replicated_moments(sums, correlations)
            expected = working_moments(cells.of((arm,)), signs=np.ones(1), power=power, icc=icc)
            assert [item[at] for item in moments] == pytest.approx(expected, rel=1e-10)
            found = satterthwaite_dfs([sums], correlations)[at]
            assert found == pytest.approx(expected[0] ** 2 / expected[1], rel=1e-10)
        joint = satterthwaite_df(cells, signs=np.array([-1.0, 1.0]), power=power, icc=icc)
        assert satterthwaite_dfs(pair, correlations)[at] == pytest.approx(joint, rel=1e-10)


def test_the_correlation_is_that_of_each_replicate() -> None:
    sizes, assigned = drawn(is_ratio=False)
    pair = sums_of(1.0 - assigned, sizes, 0.5), sums_of(assigned, sizes, 0.5)
    within = np.full(REPLICATIONS, 2.0 * sizes.units.sum())
    for share in (-0.1, 0.02, 0.4, 3.0):
        between = within + share * 2.0 * float((sizes.units * (sizes.units - 1.0)).sum())
        found = intraclass_correlations(between, within, pair)
        for at in range(REPLICATIONS):
            expected = intraclass_correlation(
                between[at], within[at], sizes=both_arms(assigned[at], sizes)
            )
            assert found[at] == pytest.approx(expected, rel=1e-12)
        assert found == pytest.approx(min(max(share, 0.0), 1.0))
    assert (intraclass_correlations(within, np.zeros(REPLICATIONS), pair) == 0).all()


def test_clusters_of_one_size_have_one_degree_less_than_their_number() -> None:
    assigned = drawn(is_ratio=False)[1]
    sizes = Sizes(np.full(N_CLUSTERS, 7.0), np.full(N_CLUSTERS, 7.0))
    for power in POWERS:
        found = satterthwaite_dfs([sums_of(assigned, sizes, power)], np.full(REPLICATIONS, 0.2))
        np.testing.assert_allclose(found, 9 - 1, rtol=1e-10)


@pytest.mark.parametrize("power", POWERS)
def test_an_arm_of_one_cluster_has_no_correction(power: float) -> None:
    """Other clusters may be in the arm, without a unit that has the metric."""
    units = np.array([5.0, 0.0, 0.0, 4.0, 6.0])
    in_arm = np.array([[1.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0, 0.0]])
    found = squared_corrections(in_arm, Sizes(units, units), power=power)
    assert np.isnan(found[0]).all()
    shares = units / 9.0
    expected = np.where(in_arm[1] > 0, (1.0 - shares) ** (-2.0 * power), 0.0)
    np.testing.assert_allclose(found[1], expected, rtol=1e-14)


def test_chunks_are_put_together() -> None:
    sizes, assigned = drawn(is_ratio=True)
    whole = sums_of(assigned, sizes, 0.5)
    parts = [sums_of(assigned[at], sizes, 0.5) for at in (slice(0, 2), slice(2, None))]
    for name in SizeSums.__annotations__:
        np.testing.assert_allclose(
            getattr(stacked_sizes(parts), name), getattr(whole, name), rtol=1e-13
        )
