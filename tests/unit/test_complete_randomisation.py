"""Complete randomisations: all sets of the wanted size are equally likely, for every size."""

import math
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy import stats

from causal.core.gram import Array
from causal.experiments import complete_randomisation
from causal.experiments.complete_randomisation import assignments

N_DRAWS = 30_000
SURE = 1e-4
"""A right draw fails a test once in so many seeds; the seeds are fixed."""


def drawn(
    treated: list[int], *, n_buckets: int, replications: int = N_DRAWS, seed: int = 0
) -> dict[int, Array]:
    """All replicates by number of treated buckets."""
    rng = np.random.default_rng(seed)
    chunks = list(assignments(rng, n_buckets=n_buckets, replications=replications, treated=treated))
    return {count: np.concatenate([chunk[count] for chunk in chunks]) for count in set(treated)}


@pytest.mark.parametrize(
    ("n_buckets", "count"), [(2, 1), (6, 1), (6, 2), (6, 3), (6, 5), (9, 4), (9, 7)]
)
def test_every_set_of_the_size_is_as_likely(n_buckets: int, count: int) -> None:
    found = Counter(map(bytes, drawn([count], n_buckets=n_buckets)[count].astype(np.uint8)))
    n_sets = math.comb(n_buckets, count)
    assert {sum(one) for one in found} == {count}
    assert len(found) == n_sets
    assert stats.chisquare(list(found.values())).pvalue > SURE


@pytest.mark.parametrize("treated", [[2, 4], [2, 3], [1, 5], [1, 2, 4]], ids=str)
def test_every_chain_of_sets_is_as_likely(treated: list[int]) -> None:
    by_count = drawn(treated, n_buckets=6)
    for few, many in pairwise(treated):
        assert (by_count[few] <= by_count[many]).all()
    chains = Counter(map(bytes, sum(by_count.values()).astype(np.uint8)))
    steps = np.diff([0, *treated, 6])
    assert len(chains) == math.factorial(6) // math.prod(map(math.factorial, steps))
    assert stats.chisquare(list(chains.values())).pvalue > SURE


@pytest.mark.parametrize("count", [1, 39, 250, 497, 500, 503, 731, 999])
def test_buckets_are_treated_as_often_alone_and_in_pairs(count: int) -> None:
    n_buckets, replications = 1000, 4000
    mask = drawn([count], n_buckets=n_buckets, replications=replications)[count]
    assert (mask.sum(axis=1) == count).all()
    # With complete randomisation the counts of B buckets have the covariance of a sample without
    # replacement: Pearson's statistic, scaled by (B - 1) / B, is chi-squared with B - 1 degrees.
    share = count / n_buckets
    variance = replications * share * (1 - share) * n_buckets / (n_buckets - 1)
    statistic = ((mask.sum(axis=0) - replications * share) ** 2).sum() / variance
    tails = stats.chi2.sf(statistic, n_buckets - 1), stats.chi2.cdf(statistic, n_buckets - 1)
    assert min(tails) > SURE
    together = share * (count - 1) / (n_buckets - 1)
    pairs = [mask[:, i] @ mask[:, j] for i, j in combinations(range(0, n_buckets, 50), 2)]
    expected = len(pairs) * replications * together
    assert abs(sum(pairs) - expected) <= 5 * math.sqrt(max(expected, 1.0))


def test_the_seed_decides_and_the_size_of_a_chunk_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = drawn([20, 200], n_buckets=500, replications=40, seed=3)
    monkeypatch.setattr(complete_randomisation, "CHUNK_BYTES", 8 * 3 * 2 * 500)
    rng = np.random.default_rng(3)
    chunks = list(assignments(rng, n_buckets=500, replications=40, treated=[200, 20, 200]))
    assert [len(chunk[20]) for chunk in chunks] == [3] * 13 + [1]
    for count, mask in whole.items():
        np.testing.assert_array_equal(np.concatenate([chunk[count] for chunk in chunks]), mask)
    other = drawn([20, 200], n_buckets=500, replications=40, seed=4)
    assert (other[200] != whole[200]).any()
    assert len(np.unique(whole[200], axis=0)) == 40


def test_replicates_are_drawn_in_blocks_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete_randomisation, "MASK_BYTES", 7 * 6)
    found = Counter(map(bytes, drawn([3], n_buckets=6, replications=5000)[3].astype(np.uint8)))
    assert len(found) == 20
    assert stats.chisquare(list(found.values())).pvalue > SURE
