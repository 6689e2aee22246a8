"""Order statistics of a column from histograms: exact values, a few passes, no row on the driver.

Each pass counts the values between edges and gives the smallest and largest value of each bin. The
bin that holds a wanted rank is the next range to look into, so ranges shrink to what the data hold
and a search ends with the value itself, not with an approximation. Histograms add up over rows, so
the passes may run anywhere; the answer does not depend on how rows are spread over machines.
"""

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Condition, FrameRequest, HistogramRequest, Term, label
from causal.core.gram import Array, Key, key_of

MAX_EDGES = 1023
"""Edges of one pass: ten comparisons per row."""

_FEWEST_EDGES = 8
_BESIDES = 2
"""Edges at the smallest value of a range."""

_MAX_PASSES = 64
_FUZZ = 4 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Values of one key.

    Attributes:
        n: Rows with a value.
        n_missing: Rows without.
        cumulative: Rows up to and including each of the b bins that hold rows, shape (b,).
        lowest: Smallest value of each of these bins, shape (b,).
        highest: Largest value of each of them, shape (b,).
    """

    n: int
    n_missing: int
    cumulative: Array
    lowest: Array
    highest: Array


@dataclass(frozen=True, kw_only=True)
class OrderStatistic:
    """The value of a rank, and how many rows lie at and below it.

    Attributes:
        value: The value.
        n_below: Rows with a smaller value.
        n_equal: Rows with this value.
    """

    value: float
    n_below: int
    n_equal: int


@dataclass(frozen=True, kw_only=True)
class Values:
    """The values that ranks are looked for in.

    Attributes:
        term: The values.
        by: Key columns; each key has ranks of its own.
        where: Conditions on the rows.
    """

    term: Term
    by: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()


def rank_of(share: float, n: int) -> int:
    """Rank of the inverse distribution function: the smallest k with `k/n >= share`.

    This is definition 1 of Hyndman and Fan (1996), "Sample quantiles in statistical packages":
    `numpy.quantile(method="inverted_cdf")`. A product that is whole up to rounding counts as whole.
    """
    return min(max(math.ceil(n * share * (1.0 - _FUZZ)), 1), n)


def ask_histogram(
    values: Values, *, edges: Sequence[float] = ()
) -> Generator[FrameRequest, pd.DataFrame, dict[Key, Histogram]]:
    """Counts between edges by key.

    Raises:
        DataError: A value is infinite or NaN.
    """
    request = HistogramRequest(
        term=values.term, edges=tuple(edges), by=values.by, where=values.where
    )
    frame = yield request
    out = {}
    for row in frame.to_dict("records"):
        arrays = {
            name: np.asarray(row[name], dtype=np.float64)
            for name in ("counts", "lowest", "highest")
        }
        if not (np.isfinite(arrays["lowest"]).all() and np.isfinite(arrays["highest"]).all()):
            raise DataError("some rows hold NaN or infinite values", given=label(values.term))
        out[key_of(row, values.by)] = Histogram(
            n=int(row["n"]),
            n_missing=int(row["n_missing"]),
            cumulative=np.cumsum(arrays["counts"]),
            lowest=arrays["lowest"],
            highest=arrays["highest"],
        )
    return out


def ask_order_statistics(
    values: Values, ranks: Mapping[Key, Iterable[int]], *, start: Mapping[Key, Histogram]
) -> Generator[FrameRequest, pd.DataFrame, dict[tuple[Key, int], OrderStatistic]]:
    """The values of ranks, exactly.

    Args:
        values: What is ranked.
        ranks: By key, ranks from 1 to the key's n.
        start: Histograms that are known already, such as those without edges.

    Raises:
        DataError: A value is infinite or NaN, or the rows change from pass to pass.
    """
    found: dict[tuple[Key, int], OrderStatistic] = {}
    wanted = [(key, rank) for key, some in ranks.items() for rank in dict.fromkeys(some)]
    known = start
    for _ in range(_MAX_PASSES):
        ranges = []
        for key, rank in wanted:
            low, high, below, count = _bin(known[key], rank)
            if low == high:
                found[key, rank] = OrderStatistic(value=low, n_below=below, n_equal=count)
            else:
                ranges.append((low, high))
        wanted = [one for one in wanted if one not in found]
        if not wanted:
            return found
        known = yield from ask_histogram(values, edges=_edges(ranges))
        if any(known[key].n != start[key].n for key in ranks):
            break
    raise DataError(f"the rows of {label(values.term)} change from one pass to the next")


def _bin(histogram: Histogram, rank: int) -> tuple[float, float, int, int]:
    """Smallest and largest value of the bin that holds a rank, rows below it and in it."""
    at = int(np.searchsorted(histogram.cumulative, rank, side="left"))
    below = int(histogram.cumulative[at - 1]) if at else 0
    count = int(histogram.cumulative[at]) - below
    return float(histogram.lowest[at]), float(histogram.highest[at]), below, count


def _edges(ranges: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Edges inside the ranges, half of them evenly and half of them geometrically spaced.

    Each range's smallest value has an edge on either side, so that no bin reaches out of the range
    and every pass sets at least one value apart. Geometric steps save passes where the tail is
    long.
    """
    distinct = sorted(set(ranges))
    share = max(MAX_EDGES // len(distinct) - _BESIDES, _FEWEST_EDGES)
    parts = [_inside(low, high, n_edges=share) for low, high in distinct]
    edges = np.unique(np.concatenate(parts))
    return tuple(map(float, edges))


def _inside(low: float, high: float, *, n_edges: int) -> Array:
    half = (n_edges - 1) // 2
    steps = np.arange(1, half + 1) / (half + 1)
    # Ends of opposite sign have no geometric steps; zero makes the next range one-sided.
    even = low * (1.0 - steps) + high * steps
    if low > 0 or high < 0:
        sign = math.copysign(1.0, low)
        logs = np.log(abs(low)) * (1.0 - steps) + np.log(abs(high)) * steps
        other = sign * np.exp(logs)
    else:
        other = np.zeros(1)
    inside = np.concatenate([[low], even, other])
    inside = inside[(inside >= low) & (inside < high)]
    return np.concatenate([[np.nextafter(low, -np.inf)], inside])
