"""Order statistics from histograms are those of the sorted rows, whatever the values."""

from collections.abc import Callable, Generator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal.core.errors import DataError
from causal.core.frames import Between, Column, FrameRequest, HistogramRequest, label
from causal.core.gram import Key
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.experiments.order_statistics import (
    OrderStatistic,
    Values,
    ask_histogram,
    ask_order_statistics,
    rank_of,
)

Y = Values(term=Column("y"), by=("v",))


def search(
    frame: pd.DataFrame, shares: list[float]
) -> tuple[dict[tuple[Key, int], OrderStatistic], int]:
    """Order statistics by (variant, share), and the passes that they took."""
    passes: list[FrameRequest] = []

    def plan() -> Generator[FrameRequest, pd.DataFrame, dict[tuple[Key, int], OrderStatistic]]:
        start = yield from ask_histogram(Y)
        ranks = {key: [rank_of(share, arm.n) for share in shares] for key, arm in start.items()}
        return (yield from ask_order_statistics(Y, ranks, start=start))

    found = run(plan(), PandasEngine(frame), on_request=lambda _, asked: passes.append(asked))
    return found, len(passes)


def assert_exact(frame: pd.DataFrame, shares: list[float]) -> int:
    found, n_passes = search(frame, shares)
    for name, rows in frame.groupby("v"):
        values = np.sort(rows["y"].dropna().to_numpy())
        for share in shares:
            rank = rank_of(share, len(values))
            one = found[(name,), rank]
            assert one.value == values[rank - 1]
            assert one.n_below == (values < one.value).sum()
            assert one.n_equal == (values == one.value).sum()
    return n_passes


SHARES = [0.001, 0.05, 0.5, 0.95, 0.99, 0.9999]


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("normal", lambda rng, n: rng.normal(size=n)),
        ("lognormal", lambda rng, n: np.exp(2 * rng.normal(size=n))),
        ("pareto", lambda rng, n: 1e-3 * rng.uniform(size=n) ** -2),
        ("negative tail", lambda rng, n: -np.exp(3 * rng.normal(size=n))),
        ("whole", lambda rng, n: rng.poisson(40, n).astype(float)),
        ("zeros and a tail", lambda rng, n: np.where(rng.random(n) < 0.7, 0, rng.gamma(1, 9, n))),
        ("all decades", lambda rng, n: rng.choice([-1, 1], n) * 10 ** rng.uniform(-290, 290, n)),
        ("close", lambda rng, n: 1e15 + rng.integers(0, 3, n)),
    ],
)
def test_order_statistics_are_exact(
    name: str, draw: Callable[[np.random.Generator, int], np.ndarray]
) -> None:
    rng = np.random.default_rng(len(name))
    n = 20_000
    frame = pd.DataFrame({"v": rng.choice(["a", "b", "c"], n), "y": draw(rng, n)})
    frame.loc[rng.random(n) < 0.02, "y"] = np.nan

    assert assert_exact(frame, SHARES) <= 12


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, 2.0]),
        min_size=1,
        max_size=40,
    ),
    st.lists(st.floats(0.001, 0.999), min_size=1, max_size=4),
)
def test_any_values_and_shares(values: list[float], shares: list[float]) -> None:
    assert_exact(pd.DataFrame({"v": "a", "y": values}), shares)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 500), st.floats(0.001, 0.999))
def test_the_rank_is_that_of_the_inverse_distribution_function(n: int, share: float) -> None:
    values = np.arange(1.0, n + 1)

    assert rank_of(share, n) == np.quantile(values, share, method="inverted_cdf")


def test_a_whole_product_is_whole() -> None:
    assert rank_of(0.07, 100) == 7
    assert rank_of(0.29, 100) == 29
    assert rank_of(0.5, 10**12) == 5 * 10**11


def test_infinite_values_are_named() -> None:
    frame = pd.DataFrame({"v": "a", "y": [1.0, np.inf]})

    with pytest.raises(DataError, match="infinite values; given: y"):
        search(frame, [0.5])


def test_rows_that_change_between_passes_are_noticed() -> None:
    first = pd.DataFrame({"v": "a", "y": np.arange(1e5)})
    engines = [PandasEngine(first), PandasEngine(first[:-1])]

    class Changing:
        columns = engines[0].columns

        def __call__(self, request: FrameRequest) -> pd.DataFrame:
            return engines[bool(getattr(request, "edges", ()))](request)

    def plan() -> Generator[FrameRequest, pd.DataFrame, dict[tuple[Key, int], OrderStatistic]]:
        start = yield from ask_histogram(Y)
        return (yield from ask_order_statistics(Y, {("a",): [500]}, start=start))

    with pytest.raises(DataError, match="y change from one pass to the next"):
        run(plan(), Changing())


def test_bins_and_thresholds_share_their_edges() -> None:
    """Rows in bins up to k are those at most the edge k."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"y": rng.integers(0, 9, 300).astype(float)})
    engine = PandasEngine(frame)
    edges = (0.0, 2.0, 2.5, 7.0)
    row = engine(HistogramRequest(term=Column("y"), edges=edges)).iloc[0]

    for at, edge in enumerate(edges):
        below = row["counts"][row["bins"] <= at].sum()
        assert below == (frame["y"] <= edge).sum()
    assert label(Between(Column("y"), high=2.0)) == "[y in ..2]"
