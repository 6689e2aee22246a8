"""Random draws that are functions of (seed, stream, ids) and of nothing else.

A draw hashes its ids with Spark's ``xxhash64`` under a key made from the seed and the name of the
stream. It does not depend on partitions, cores or the order of execution, and adding a stream leaves
every other stream as it was. The same hash is written once more in numpy, for draws of which there
are few (a region, a region and week) and which are wanted as plain numbers.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column
from pyspark.sql import functions as F

_SPARK_HASH_SEED = 42
_PRIMES = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_BITS = 52  # of the 64: a half added to 52 bits is exact in a double, so draws lie inside (0, 1)


@dataclass(frozen=True)
class Draws:
    """The source of all randomness of one world.

    Attributes:
        seed: The seed that the user gave.
        world: Name of the world, so that two worlds with one seed share nothing.
    """

    seed: int
    world: str

    def key(self, stream: str) -> int:
        """The signed 64-bit hash key of a stream."""
        digest = hashlib.sha256(f"{self.seed}/{self.world}/{stream}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    def bits(self, stream: str, *ids: Column) -> Column:
        """A BIGINT column of 64 random bits, a function of the integer columns `ids`."""
        return F.xxhash64(F.lit(self.key(stream)), *[column.cast("bigint") for column in ids])

    def uniform(self, stream: str, *ids: Column) -> Column:
        """A DOUBLE column, uniform on the open interval (0, 1)."""
        bits = F.shiftrightunsigned(self.bits(stream, *ids), 64 - _BITS)
        return (bits.cast("double") + F.lit(0.5)) * F.lit(2.0**-_BITS)

    def normal(self, stream: str, *ids: Column) -> Column:
        """A DOUBLE column, standard normal (Box and Muller 1958)."""
        radius = F.sqrt(F.lit(-2.0) * F.log(self.uniform(f"{stream}:radius", *ids)))
        angle = F.lit(2.0 * math.pi) * self.uniform(f"{stream}:angle", *ids)
        return radius * F.cos(angle)

    def exponential(self, stream: str, *ids: Column) -> Column:
        """A DOUBLE column, exponential with mean one."""
        return -F.log(self.uniform(stream, *ids))

    def index(self, stream: str, weights: Sequence[float], *ids: Column) -> Column:
        """An INT column: a position in `weights`, drawn in proportion to them."""
        return position(self.uniform(stream, *ids), weights)

    def few_uniforms(self, stream: str, *ids: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The values of `uniform` for integer arrays `ids`, which are broadcast together."""
        hashed = np.asarray(_SPARK_HASH_SEED, dtype=np.uint64)
        for column in (self.key(stream), *ids):
            hashed = _hash_long(np.asarray(column, dtype=np.int64).view(np.uint64), hashed)
        bits = (hashed >> np.uint64(64 - _BITS)).astype(np.float64)
        return np.asarray((bits + 0.5) * 2.0**-_BITS, dtype=np.float64)

    def few_normals(self, stream: str, *ids: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The values of `normal` for integer arrays `ids`, which are broadcast together."""
        radius = np.sqrt(-2.0 * np.log(self.few_uniforms(f"{stream}:radius", *ids)))
        angle = 2.0 * math.pi * self.few_uniforms(f"{stream}:angle", *ids)
        return np.asarray(radius * np.cos(angle), dtype=np.float64)


def lookup(values: Sequence[float] | Sequence[str], index: Column) -> Column:
    """The element of `values` at the zero-based integer column `index`."""
    return F.get(F.array(*[F.lit(value) for value in values]), index.cast("int"))


def position(uniform: Column, weights: Sequence[float]) -> Column:
    """The zero-based position whose share of the cumulated `weights` holds `uniform` (INT)."""
    cumulated = np.cumsum(np.asarray(weights, dtype=np.float64)) / float(np.sum(weights))
    chosen = F.lit(len(weights) - 1)
    for place in reversed(range(len(weights) - 1)):
        chosen = F.when(uniform < F.lit(float(cumulated[place])), F.lit(place)).otherwise(chosen)
    return chosen


def _hash_long(
    values: npt.NDArray[np.uint64], seed: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """XXH64 of eight bytes, as Spark's ``XXH64.hashLong``; arithmetic wraps at 64 bits."""
    first, second, third, fourth, fifth = (np.uint64(prime) for prime in _PRIMES)
    with np.errstate(over="ignore"):
        hashed = seed + fifth + np.uint64(8)
        hashed = hashed ^ (_rotate(values * second, 31) * first)
        hashed = _rotate(hashed, 27) * first + fourth
        hashed = (hashed ^ (hashed >> np.uint64(33))) * second
        hashed = (hashed ^ (hashed >> np.uint64(29))) * third
        return np.asarray(hashed ^ (hashed >> np.uint64(32)), dtype=np.uint64)


def _rotate(values: npt.NDArray[np.uint64], n_bits: int) -> npt.NDArray[np.uint64]:
    left = values << np.uint64(n_bits)
    return np.asarray(left | (values >> np.uint64(64 - n_bits)), dtype=np.uint64)
