"""Sums of products of many values, and from sums to means and centred cross-products.

p values have p(p+1)/2 products. Written out they are as many columns of a query, and some hundreds
take longer to plan and to compile than millions of rows take to sum. So where there are many, each
row is repeated for each of its values, which is multiplied with all of them: the query then has p
sums, and a repeated row adds to one row of the matrix.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.frames import packed_indices, packed_size

Array = NDArray[np.float64]

_NOTHING: Mapping[str, Sequence[str]] = MappingProxyType({})
MAX_WRITTEN = 351
"""As many products as this (26 values) are written out, more are not: with their sums and counts
they stay below `spark.sql.codegen.maxFields` of `conf/spark`, beyond which nothing is compiled."""


def crossed(
    rows: DataFrame,
    keys: Sequence[Column],
    others: Sequence[Column],
    *,
    values: Sequence[str],
    weight: str = "1D",
    beside: Mapping[str, Sequence[str]] = _NOTHING,
) -> DataFrame:
    """Aggregates by key: `others`, and sums of values and of their products.

    Args:
        rows: The rows.
        keys: Key columns.
        others: Further aggregates, each with a name.
        values: Names of the p columns.
        weight: Name of a column that weighs the values and products.
        beside: Further columns, p of them under each name, that are summed as they are.

    Returns:
        The keys, the other aggregates, and arrays: `sums` and `products` for `sums_of` and
        `products_of` to read, and the sums `beside`.
    """
    p = len(values)
    if packed_size(p) <= MAX_WRITTEN:
        written = {
            "sums": [f"{weight} * {value}" for value in values],
            "products": [f"{weight} * {values[i]} * {values[j]}" for i, j in packed_indices(p)],
            **beside,
        }
        return rows.groupBy(*keys).agg(*others, *[_array(n, of) for n, of in written.items()])
    numbers = [*values, *[name for names in beside.values() for name in names]]
    # What is read of a repeated row is read from the array, which is made once a row.
    held = rows.withColumn("numbers", F.array(*numbers))
    value = F.posexplode_outer(F.slice("numbers", 1, p)).alias("part", "value")
    products = [f"sum({weight} * value * get(numbers, {j}))" for j in range(p)]
    sums = {
        "sums": f"sum({weight} * value)",
        "products": f"array({', '.join(products)})",
        **{name: f"sum(get(numbers, part + {(1 + k) * p}))" for k, name in enumerate(beside)},
    }
    # Every part holds every row once, so the other aggregates are the same in each.
    parts = (
        held.select("*", value)
        .groupBy(*keys, "part")
        .agg(*others, *[F.expr(text).alias(name) for name, text in sums.items()])
    )
    same = [name for name in parts.columns[len(keys) :] if name not in {"part", *sums}]
    listed = f"array_sort(collect_list(struct(part, {', '.join(sums)}))) AS parts"
    folded = parts.groupBy(*keys).agg(*[F.first(name).alias(name) for name in same], F.expr(listed))
    texts = {name: f"parts.{name}" for name in sums} | {"products": "flatten(parts.products)"}
    return folded.select(
        *[f"`{name}`" for name in folded.columns if name != "parts"],
        *[F.expr(_or_nulls(text, p * p if name == "products" else p)).alias(name)
          for name, text in texts.items()],
    )  # fmt: skip


def _or_nulls(text: str, size: int) -> str:
    """Sums over no rows are nulls, here as elsewhere."""
    return f"if(size(parts) = 0, array_repeat(CAST(NULL AS DOUBLE), {size}), {text})"


def _array(name: str, summed: Sequence[str]) -> Column:
    sums = [F.expr(f"sum({text})") for text in summed]
    return F.array(*sums).cast("array<double>").alias(name)


def n_products(n_values: int) -> int:
    """How many numbers the arrays of `crossed` hold, more or less."""
    size = packed_size(n_values)
    return size if size <= MAX_WRITTEN else n_values**2


def products_of(frame: pd.DataFrame, n_values: int) -> Array:
    """The array `products` of aggregated rows, packed if it is not, shape (r, p(p+1)/2).

    Args:
        frame: What was collected of `crossed`.
        n_values: p.
    """
    if frame.empty:
        return np.zeros((0, packed_size(n_values)))
    found = np.array(list(frame["products"]), dtype=np.float64)
    if found.shape[1] == packed_size(n_values):
        return found
    rows, columns = np.triu_indices(n_values)
    return found[:, rows * n_values + columns]


def sums_of(frame: pd.DataFrame, size: int, *, n_crossed: int = 0) -> Array:
    """Sums of aggregated rows: the array `sums` of crossed values, then `s*`; shape (r, p).

    Args:
        frame: The rows.
        size: p.
        n_crossed: How many values are crossed.
    """
    rest = frame[[f"s{i}" for i in range(n_crossed, size)]].to_numpy(dtype=np.float64)
    return np.hstack([arrays_of(frame, "sums", n_crossed), rest]) if n_crossed else rest


def arrays_of(frame: pd.DataFrame, name: str, size: int) -> Array:
    """A column of arrays, shape (r, size)."""
    return np.array(list(frame[name]), dtype=np.float64).reshape(len(frame), size)


def centred(sums: Array, products: Array, weights: Array, shift: Array) -> tuple[Array, Array]:
    """Means and packed centred cross-products of each row; zeros where the weights sum to zero.

    Args:
        sums: `sum w (x - shift)`, shape (r, p).
        products: Packed `sum w (x - shift)(x - shift)'`, shape (r, p(p+1)/2), or (r, 0).
        weights: Sum of the weights, shape (r,).
        shift: A constant close to the mean, shape (p,).
    """
    rows, columns = np.triu_indices(sums.shape[1] if products.shape[1] else 0)
    safe = np.where(weights > 0, weights, 1.0)[:, None]
    # Infinite values make the sums NaN, which whoever reads the answer refuses by name.
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.where(weights[:, None] > 0, shift + sums / safe, 0.0)
        return mean, products - sums[:, rows] * sums[:, columns] / safe


def covariation(products: str, left: str, right: str) -> str:
    """SQL of a group's sum of products less what its own means explain."""
    return f"if(w > 0, {products} - {left} * {right} / w, 0D)"
