"""Random draws that are functions of (seed, stream, ids) and of nothing else.

A draw hashes its ids with Spark's ``xxhash64`` under a key made from the seed and the name of the
stream. It does not depend on partitions, cores or the order of execution, and adding a stream
leaves every other stream as it was. The same hash is written once more in numpy, for draws of which
there are few (a region, a region and week) and which are wanted as plain numbers.
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
_SEPARATOR = ";"
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

    def bits(self, stream: str, *ids: str) -> Column:
        """A BIGINT column of 64 random bits, a function of the integer columns named by `ids`."""
        return F.expr(self._bits(stream, ids))

    def uniform(self, stream: str, *ids: str) -> Column:
        """A DOUBLE column, uniform on the open interval (0, 1)."""
        return F.expr(self._uniform(stream, ids))

    def normal(self, stream: str, *ids: str) -> Column:
        """A DOUBLE column, standard normal (Box and Muller 1958)."""
        radius = f"sqrt(-2.0D * ln({self._uniform(f'{stream}:radius', ids)}))"
        angle = f"{2.0 * math.pi!r}D * {self._uniform(f'{stream}:angle', ids)}"
        return F.expr(f"{radius} * cos({angle})")

    def exponential(self, stream: str, *ids: str) -> Column:
        """A DOUBLE column, exponential with mean one."""
        return F.expr(f"-ln({self._uniform(stream, ids)})")

    def uniforms(self, stream: str, *ids: str, n: str) -> Column:
        """An ARRAY<DOUBLE> column of `n` (a column or expression) draws, uniform on (0, 1)."""
        one = self._uniform(stream, (*ids, "number_"))
        drawn = f"transform(sequence(1, CAST({n} AS INT)), number_ -> {one})"
        return F.expr(f"CASE WHEN {n} > 0 THEN {drawn} ELSE CAST(array() AS ARRAY<DOUBLE>) END")

    def _bits(self, stream: str, ids: tuple[str, ...]) -> str:
        columns = ", ".join(f"CAST({name} AS BIGINT)" for name in ids)
        return f"xxhash64(BIGINT('{self.key(stream)}'), {columns})"

    def _uniform(self, stream: str, ids: tuple[str, ...]) -> str:
        bits = f"shiftrightunsigned({self._bits(stream, ids)}, {64 - _BITS})"
        return f"((CAST({bits} AS DOUBLE) + 0.5D) * {2.0**-_BITS!r}D)"

    def index(self, stream: str, weights: Sequence[float], *ids: str) -> Column:
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


def lookup(values: Sequence[float] | Sequence[bool] | Sequence[str], index: Column) -> Column:
    """The element of `values` at the zero-based integer column `index`; null beyond the end.

    The values travel as one text literal, which the optimiser folds into an array: an array of
    hundreds of literals would have to be walked by every rule of the analyser.
    """
    kind = {bool: "boolean", str: "string"}.get(type(values[0]), "double")
    texts = [value if isinstance(value, str) else repr(value).lower() for value in values]
    folded = F.split(F.lit(_SEPARATOR.join(texts)), _SEPARATOR).cast(f"array<{kind}>")
    return F.get(folded, index.cast("int"))


def position(uniform: Column, weights: Sequence[float]) -> Column:
    """The zero-based position whose share of the cumulated `weights` holds `uniform` (INT)."""
    limits = np.cumsum(np.asarray(weights, dtype=np.float64)) / float(np.sum(weights))
    chosen = F.when(uniform < F.lit(float(limits[0])), F.lit(0))
    for place in range(1, len(weights) - 1):
        chosen = chosen.when(uniform < F.lit(float(limits[place])), F.lit(place))
    return chosen.otherwise(F.lit(len(weights) - 1))


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
