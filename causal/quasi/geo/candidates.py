"""Sets of regions that might be treated: by correlation, at random, by strata, by matched pairs.

Market selection by correlation follows GeoLift (Meta 2022); pairs of regions with like histories,
one of each treated at random, are those of matched markets (Au 2018, "A time-based regression
matched markets approach for designing geo experiments"; Vaver and Koehler 2011).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.quasi.geo.design_options import GeoDesignOptions, Selection
from causal.quasi.synthetic.region_panel import Indices

_FLAT = 1e-12


@dataclass(frozen=True, kw_only=True)
class Market:
    """The history that sets are chosen on.

    Attributes:
        values: Outcomes, shape (N, T).
        included: Rows that are treated in any case.
        free: Rows that may be treated.
        volume: Each region's share of the outcome, shape (N,).
    """

    values: Array
    included: Indices
    free: Indices
    volume: Array

    def correlations(self) -> Array:
        """Of the regions' outcomes over time, shape (N, N); zero where one does not move."""
        centred = self.values - self.values.mean(axis=1, keepdims=True)
        size = np.sqrt((centred**2).sum(axis=1))
        is_flat = size <= _FLAT * np.abs(self.values).max() * np.sqrt(self.values.shape[1])
        scaled = np.where(is_flat[:, None], 0.0, centred / np.where(is_flat, 1.0, size)[:, None])
        return np.asarray(scaled @ scaled.T, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A set of regions to be treated.

    Attributes:
        rows: Ascending.
        selection: How it was found.
        pairs: Treated and control row of each pair, where there are pairs.
    """

    rows: tuple[int, ...]
    selection: Selection
    pairs: tuple[tuple[int, int], ...] = ()


def candidates(
    options: GeoDesignOptions, market: Market, *, seed: int
) -> tuple[list[Candidate], int]:
    """The sets to be screened, and how many more there were.

    A set that several selections find counts once, for the first. Where there are more sets than
    may be screened, each size and selection gives its first ones in turn.

    Raises:
        DataError: There are fewer regions than a size asks for.
    """
    found: dict[tuple[int, ...], Candidate] = {}
    streams = []
    for number, size in enumerate(options.sizes):
        _check_size(options, market, size)
        for selection in options.selection:
            rng = np.random.default_rng([seed, number, _SELECTIONS.index(selection)])
            streams.append(list(_sets(options, market, selection, size=size, rng=rng)))
    for rank in range(max(len(stream) for stream in streams)):
        for stream in streams:
            if rank < len(stream):
                found.setdefault(stream[rank].rows, stream[rank])
    allowed = [item for item in found.values() if _is_allowed(options, market, item)]
    if not allowed:
        raise DataError(
            "no set of regions has a share of the volume within min_treated_share and "
            "max_treated_share",
            given=f"{len(found)} sets", allowed="other sizes, or wider bounds",
        )  # fmt: skip
    return allowed[: options.max_candidates], max(0, len(allowed) - options.max_candidates)


def greedy_pairs(closeness: Array, rows: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of rows, the closest first, each row in one pair at most.

    Args:
        closeness: Shape (N, N).
        rows: The rows to be paired.
    """
    left = list(rows)
    order = sorted(
        ((float(closeness[a, b]), a, b) for i, a in enumerate(left) for b in left[i + 1 :]),
        key=lambda item: (-item[0], item[1], item[2]),
    )
    used: set[int] = set()
    pairs = []
    for _, one, other in order:
        if one not in used and other not in used:
            used |= {one, other}
            pairs.append((one, other))
    return pairs


def _check_size(options: GeoDesignOptions, market: Market, size: int) -> None:
    """Enough regions may be treated, and enough are left for placebos."""
    n = len(market.values)
    most = (n - 1) // 2 if options.estimator != "synthetic_control" else min(n // 2, n - 2)
    most = min(most, len(market.included) + len(market.free))
    if size > most:
        raise DataError(
            "there are too few regions for this size: placebos need as many others as are treated, "
            "and some to compare with",
            given=f"size {size}, {n} regions, of which "
            f"{len(market.included) + len(market.free)} may be treated",
            allowed=f"at most {most}", key="options.sizes",
        )  # fmt: skip


def _is_allowed(options: GeoDesignOptions, market: Market, item: Candidate) -> bool:
    share = float(market.volume[list(item.rows)].sum())
    low = 0.0 if options.min_treated_share is None else options.min_treated_share
    high = 1.0 if options.max_treated_share is None else options.max_treated_share
    return low <= share <= high


def _sets(
    options: GeoDesignOptions,
    market: Market,
    selection: Selection,
    *,
    size: int,
    rng: np.random.Generator,
) -> Iterator[Candidate]:
    n_free = size - len(market.included)
    if n_free == 0:
        yield _candidate(market, (), selection)
        return
    if selection == "matched_pairs":
        yield from _by_pairs(options, market, n_free, rng=rng)
        return
    finders: Mapping[str, Callable[[], Iterator[Sequence[int]]]] = {
        "correlation": lambda: _by_correlation(market, n_free),
        "random": lambda: _at_random(options, market, n_free, rng=rng),
        "stratified": lambda: _by_strata(options, market, n_free, rng=rng),
    }
    for chosen in finders[selection]():
        yield _candidate(market, chosen, selection)


def _candidate(market: Market, chosen: Sequence[int], selection: Selection) -> Candidate:
    rows = (*(int(row) for row in market.included), *(int(row) for row in chosen))
    return Candidate(rows=tuple(sorted(rows)), selection=selection)


def _by_correlation(market: Market, n_free: int) -> Iterator[Sequence[int]]:
    """Each region with those that move with it most (with the included ones, if there are any)."""
    closeness = market.correlations()
    for row in market.free:
        anchor = np.append(market.included, row)
        near = closeness[np.ix_(anchor, market.free)].mean(axis=0)
        near = np.where(market.free == row, np.inf, near)
        order = np.argsort(-near, kind="stable")
        yield [int(other) for other in market.free[order[:n_free]]]


def _at_random(
    options: GeoDesignOptions, market: Market, n_free: int, *, rng: np.random.Generator
) -> Iterator[Sequence[int]]:
    for _ in range(options.n_draws):
        yield [int(row) for row in rng.permutation(market.free)[:n_free]]


def _by_strata(
    options: GeoDesignOptions, market: Market, n_free: int, *, rng: np.random.Generator
) -> Iterator[Sequence[int]]:
    """As even a number from each stratum of volume as the size allows."""
    by_volume = market.free[np.argsort(market.volume[market.free], kind="stable")]
    strata = [part for part in np.array_split(by_volume, options.n_strata) if len(part)]
    for _ in range(options.n_draws):
        # One region of each stratum in turn, the strata in random order: shares differ by one.
        mixed = [rng.permutation(part) for part in strata]
        order = rng.permutation(len(strata))
        depth = max(len(part) for part in mixed)
        turns = [int(mixed[k][at]) for at in range(depth) for k in order if at < len(mixed[k])]
        yield turns[:n_free]


def _by_pairs(
    options: GeoDesignOptions, market: Market, n_free: int, *, rng: np.random.Generator
) -> Iterator[Candidate]:
    """One of each of the closest pairs, by the toss of a coin."""
    pairs = greedy_pairs(market.correlations(), [int(row) for row in market.free])[:n_free]
    if len(pairs) < n_free:
        raise DataError(
            "there are too few regions to pair", given=f"{n_free} pairs of {len(market.free)}",
            allowed=f"at most {len(pairs)} pairs", key="options.sizes",
        )  # fmt: skip
    for _ in range(options.n_draws):
        heads = rng.integers(0, 2, n_free)
        tossed = tuple(
            (pair[head], pair[1 - head]) for pair, head in zip(pairs, heads, strict=True)
        )
        rows = tuple(sorted([*(int(r) for r in market.included), *(one for one, _ in tossed)]))
        yield Candidate(rows=rows, selection="matched_pairs", pairs=tossed)


_SELECTIONS: tuple[Selection, ...] = ("correlation", "random", "stratified", "matched_pairs")
