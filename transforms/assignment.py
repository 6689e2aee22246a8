"""Random assignment by a salted hash: the same unit gets the same variant everywhere, for ever.

The draw of a unit is a public function that any language can repeat:

    uniform(salt, unit) = int(hex(sha256(utf8(salt + ":" + unit)))[0:13], 16) / 2**52

with the unit written as text (integers in decimal). The 13 hexadecimal digits are 52 bits, which a
double holds exactly, so Spark, Python and a service written in something else agree on every bit.
Variants are cut from [0, 1) at the running sums of their shares, in the order given. A new salt is
a new, independent randomisation.

Each rule is here twice: as a Spark column or transform, and as a function on plain values that
needs no Spark. Clustered assignment is the same hash of the cluster's id: all units of a cluster
share a draw.
"""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from causal.core.errors import SpecError
from transforms.columns import Transform, quoted

_HEX_DIGITS = 13
_SCALE = 2.0 ** -(4 * _HEX_DIGITS)
_SLICES = 1024
_TOLERANCE = 1e-9


def hash_uniform(unit: str | int, *, salt: str) -> float:
    """The draw of one unit, uniform on [0, 1).

    Args:
        unit: Id of the unit or cluster.
        salt: Salt of the randomisation.

    Example:
        >>> hash_uniform(42, salt="demo") == hash_uniform("42", salt="demo")
        True
    """
    digest = hashlib.sha256(f"{_checked_salt(salt)}:{unit}".encode()).hexdigest()
    return int(digest[:_HEX_DIGITS], 16) * _SCALE


def variant(unit: str | int, *, salt: str, variants: Sequence[str], shares: Sequence[float]) -> str:
    """The variant of one unit (or cluster); the plain twin of `variant_column`.

    Args:
        unit: Id of the unit or cluster.
        salt: Salt of the randomisation.
        variants: Names of the arms.
        shares: Share of each arm; they add to one.

    Raises:
        SpecError: Names repeat, shares are not positive, or they do not add to one.
    """
    cuts = _cuts(variants, shares)
    return _cut(hash_uniform(unit, salt=salt), variants, cuts)


def stratified_variants(
    strata: Mapping[str | int, str],
    *,
    salt: str,
    variants: Sequence[str],
    shares: Sequence[float],
) -> dict[str | int, str]:
    """The variant of each unit, balanced within strata; the plain twin of `assign_stratified`.

    Args:
        strata: Stratum of each unit.
        salt: Salt of the randomisation.
        variants: Names of the arms.
        shares: Share of each arm; they add to one.

    Raises:
        SpecError: Names repeat, shares are not positive, or they do not add to one.
    """
    cuts = _cuts(variants, shares)
    ordered = sorted(
        strata, key=lambda unit: (strata[unit], hash_uniform(unit, salt=salt), str(unit))
    )
    assigned: dict[str | int, str] = {}
    for stratum, group in itertools.groupby(ordered, key=lambda unit: strata[unit]):
        units = list(group)
        start = hash_uniform(f"stratum:{stratum}", salt=salt)
        for rank, unit in enumerate(units):
            assigned[unit] = _cut((rank + start) / len(units), variants, cuts)
    return assigned


def uniform_column(unit: Column, *, salt: str) -> Column:
    """The draw of each unit, uniform on [0, 1); null where the unit is null.

    Args:
        unit: Id of the unit or cluster, an integer or a string.
        salt: Salt of the randomisation.
    """
    text = F.concat(F.lit(f"{_checked_salt(salt)}:"), unit.cast("string"))
    digits = F.substring(F.sha2(text, 256), 1, _HEX_DIGITS)
    return F.conv(digits, 16, 10).cast("bigint").cast("double") * F.lit(_SCALE)


def variant_column(
    unit: Column, *, salt: str, variants: Sequence[str], shares: Sequence[float]
) -> Column:
    """The variant of each unit (or cluster), a function of its id and the salt alone.

    Args:
        unit: Id of the unit or cluster, an integer or a string; null gives null.
        salt: Salt of the randomisation.
        variants: Names of the arms.
        shares: Share of each arm; they add to one.

    Raises:
        SpecError: Names repeat, shares are not positive, or they do not add to one.
    """
    return _cut_column(uniform_column(unit, salt=salt), variants, _cuts(variants, shares))


def assign(*, unit: str, salt: str, variants: Sequence[str], shares: Sequence[float]) -> Transform:
    """Add `variant`, drawn by the hash of `unit`; name a cluster's column to randomise clusters.

    Args:
        unit: Column of the unit or cluster.
        salt: Salt of the randomisation.
        variants: Names of the arms.
        shares: Share of each arm; they add to one.
    """
    chosen = variant_column(F.col(quoted(unit)), salt=salt, variants=variants, shares=shares)

    def transform(df: DataFrame) -> DataFrame:
        return df.select(*map(quoted, df.columns), chosen.alias("variant"))

    return transform


def assign_stratified(
    *, unit: str, stratum: str, salt: str, variants: Sequence[str], shares: Sequence[float]
) -> Transform:
    """Add `variant`, balanced within strata: each arm's count is within one of its share.

    The units of a stratum are put in the order of their hash and cut at the shares, from a start
    that is itself hashed (systematic sampling with a random start, Madow and Madow 1944), so that
    each unit has exactly the planned probability of each arm even in a stratum of one. The result
    depends on the set of units: assign once and store, where `assign` may be repeated for ever.

    No task sorts a whole stratum: units are ranked within slices of the hash, and the counts
    of the slices before are added.

    Args:
        unit: Column of the unit, unique in the frame; a null unit gets no variant.
        stratum: Column of the stratum; rows without one form a stratum of their own.
        salt: Salt of the randomisation.
        variants: Names of the arms.
        shares: Share of each arm; they add to one.
    """
    cuts = _cuts(variants, shares)
    draw = uniform_column(F.col(quoted(unit)), salt=salt)
    start = uniform_column(F.concat(F.lit("stratum:"), F.col("_stratum")), salt=salt)
    before = Window.partitionBy("_stratum").orderBy("_slice")
    within = Window.partitionBy("_stratum", "_slice").orderBy(
        "_draw", F.col(quoted(unit)).cast("string")
    )

    def transform(df: DataFrame) -> DataFrame:
        drawn = df.select(
            *map(quoted, df.columns),
            F.coalesce(F.col(quoted(stratum)).cast("string"), F.lit("")).alias("_stratum"),
            draw.alias("_draw"),
            F.coalesce(F.floor(draw * F.lit(float(_SLICES))), F.lit(-1)).alias("_slice"),
        )
        sizes = drawn.groupBy("_stratum", "_slice").agg(F.count("_draw").alias("_n"))
        offsets = sizes.select(
            "_stratum",
            "_slice",
            F.sum("_n").over(before.rowsBetween(Window.unboundedPreceding, -1)).alias("_before"),
            F.sum("_n").over(Window.partitionBy("_stratum")).alias("_size"),
        )
        rank = F.row_number().over(within) - F.lit(1) + F.coalesce(F.col("_before"), F.lit(0))
        position = F.when(F.col("_draw").isNotNull(), (rank + start) / F.col("_size"))
        return drawn.join(offsets, on=["_stratum", "_slice"], how="inner").select(
            *map(quoted, df.columns), _cut_column(position, variants, cuts).alias("variant")
        )

    return transform


def _checked_salt(salt: str) -> str:
    if not salt:
        raise SpecError("an assignment needs a salt", given=repr(salt), allowed="a text of its own")
    return salt


def _cuts(variants: Sequence[str], shares: Sequence[float]) -> tuple[float, ...]:
    """Upper ends of all arms but the last, as running sums from the left."""
    if not variants or len(set(variants)) < len(variants):
        raise SpecError("variants must be named, each once", given=list(variants))
    if len(shares) != len(variants):
        raise SpecError(
            "each variant needs a share", given=list(shares), allowed=f"{len(variants)} shares"
        )
    if min(shares) <= 0.0 or not math.isclose(math.fsum(shares), 1.0, abs_tol=_TOLERANCE):
        raise SpecError("shares must be positive and add to one", given=list(shares))
    return tuple(itertools.accumulate(shares[:-1]))


def _cut(position: float, variants: Sequence[str], cuts: Sequence[float]) -> str:
    below = (name for name, cut in zip(variants, cuts, strict=False) if position < cut)
    return next(below, variants[-1])


def _cut_column(position: Column, variants: Sequence[str], cuts: Sequence[float]) -> Column:
    chosen = F.lit(variants[-1])
    for name, cut in reversed(list(zip(variants, cuts, strict=False))):
        chosen = F.when(position < F.lit(float(cut)), F.lit(name)).otherwise(chosen)
    return F.when(position.isNotNull(), chosen)
