"""Draws of complete randomisations: which of B parts are treated, with a fixed number of them.

A fixed number of parts is drawn as one byte per part (one bit for a half) and a few corrections.
Parts whose byte lies below a threshold are about as many as wanted; those that are too many or too
few, some `sqrt(B)/2`, are taken out or put in one by one, each uniformly at random. Every step
treats all parts alike, so each set of the wanted size is as likely as any other, at a fraction of
the cost of ordering B numbers (which also would give equal numbers to two parts now and then).
"""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from causal.core.gram import Array
from causal.experiments.rerandomisation import CHUNK_BYTES

MASK_BYTES = 2**25
"""Parts that are drawn at a time, one byte each."""
_LEVELS = 256
_DOUBLE = 8

Mask = NDArray[np.bool_]


def assignments(
    rng: np.random.Generator, *, n_buckets: int, replications: int, treated: Iterable[int]
) -> Iterator[Mapping[int, Array]]:
    """Which buckets are treated, in chunks of replicates of bounded size.

    The buckets of a smaller number are among those of a larger one, so that strata with other
    shares keep what the same bucket is given.

    Args:
        rng: Source of randomness.
        n_buckets: B.
        replications: Replicates in all.
        treated: How many buckets are treated, between 1 and B - 1; several for strata with
            different shares.

    Yields:
        By number of treated buckets, zeros and ones of shape (r, B).
    """
    counts = sorted(set(treated))
    width = n_buckets * len(counts)
    n_drawn, chunk = max(1, MASK_BYTES // width), max(1, CHUNK_BYTES // (_DOUBLE * width))
    for start in range(0, replications, n_drawn):
        size = min(n_drawn, replications - start)
        masks = _nested(rng, (size, n_buckets), counts)
        for first in range(0, size, chunk):
            yield {
                count: mask[first : first + chunk].astype(np.float64)
                for count, mask in masks.items()
            }


def _nested(
    rng: np.random.Generator, shape: tuple[int, int], counts: Iterable[int]
) -> dict[int, Mask]:
    """By ascending count, a uniform choice of so many that holds the choice before."""
    chosen: Mask | None = None
    n_chosen = 0
    out = {}
    for count in counts:
        found = _chosen(rng, shape, _threshold(count - n_chosen, shape[1] - n_chosen))
        if chosen is not None:
            found |= chosen
        _correct(rng, found, fixed=chosen, count=count)
        chosen, n_chosen = found, count
        out[count] = found
    return out


def _threshold(wanted: int, left: int) -> int:
    """How many of 256 levels are chosen, so that about so many of those left are.

    A half costs a bit in place of a byte, so what is less than a level from it is drawn as one. On
    the side of the smaller group nothing is taken out of a handful: that takes many tries.
    """
    level = _LEVELS * wanted / left
    if abs(level - _LEVELS / 2) < 1:
        return _LEVELS // 2
    return math.floor(level) if 2 * wanted <= left else math.ceil(level)


def _correct(rng: np.random.Generator, chosen: Mask, *, fixed: Mask | None, count: int) -> None:
    """Puts in or takes out of each row of `chosen`, in place, until `count` are chosen.

    What is `fixed` stays. One try per row and round: a position that cannot change is drawn in
    vain, so those that change are uniform among those that can.
    """
    missing = count - np.array([np.count_nonzero(row) for row in chosen])
    is_short = missing > 0
    left = np.abs(missing)
    rows = np.flatnonzero(left)
    while len(rows):
        at = rng.integers(0, chosen.shape[1], size=len(rows))
        is_changed = chosen[rows, at] != is_short[rows]
        if fixed is not None:
            is_changed &= ~fixed[rows, at]
        changed = rows[is_changed]
        chosen[changed, at[is_changed]] = is_short[changed]
        left[changed] -= 1
        rows = rows[left[rows] > 0]


def _chosen(rng: np.random.Generator, shape: tuple[int, int], threshold: int) -> Mask:
    """Each part with the chance `threshold / 256`: a byte below it, or one bit for a half."""
    size = math.prod(shape)
    if 2 * threshold == _LEVELS:
        bits = np.unpackbits(_bytes(rng, -(-size // 8)), count=size)
        return bits.view(np.bool_).reshape(shape)
    return _bytes(rng, size).reshape(shape) < threshold


def _bytes(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Uniform bytes, drawn eight at a time, which takes half the time."""
    words = rng.integers(0, 2**64 - 1, size=-(-size // 8), dtype=np.uint64, endpoint=True)
    return words.view(np.uint8)[:size]
