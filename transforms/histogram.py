"""Counts of values between edges: the answer to a histogram request.

The bin of a value is found by bisection over an array of edges, ten comparisons for a thousand
edges, so the expression stays short however many there are.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from causal.core.frames import HistogramRequest
from causal.core.gram import HISTOGRAM_COLUMNS
from transforms.terms import bucketed, compiled, keys_of

Collect = Callable[[DataFrame, Sequence[str]], pd.DataFrame]


def answer(
    df: DataFrame, request: HistogramRequest, columns: Mapping[str, str], collect: Collect
) -> pd.DataFrame:
    """The frame that the request describes.

    Args:
        df: The rows.
        request: The request.
        columns: Kinds of the source's columns.
        collect: Brings aggregated rows to the driver, or refuses.
    """
    value = compiled(request.term, columns)
    keys = [F.col(f"`k_{name}`") for name in request.keys]
    rows = bucketed(df, request.bucket).select(*keys_of(request.keys), value.alias("v"))
    counted = (
        rows.select(*keys, "v", F.expr(_bin(request.edges)).alias("bin"))
        .groupBy(*keys, "bin")
        .agg(
            F.count(F.lit(1)).alias("n"),
            F.min("v").alias("lowest"),
            F.max("v").alias("highest"),
        )
    )
    if request.bucket is not None:
        return _by_bucket(counted, request, collect)
    frame = collect(counted, request.by).sort_values("bin", kind="stable")
    names = [f"k_{name}" for name in request.by]
    found = [_row(part, request.by) for part in _parts(frame, names)]
    return pd.DataFrame(found, columns=[*request.by, *HISTOGRAM_COLUMNS])


def _by_bucket(counted: DataFrame, request: HistogramRequest, collect: Collect) -> pd.DataFrame:
    """One row per key with its bins in arrays: buckets times bins are too many for a row each."""
    names = {"bins": "bin", "counts": "n", "lowest": "lowest", "highest": "highest"}
    bins = F.sort_array(F.collect_list(F.when(F.col("bin") >= 0, F.struct(*names.values()))))
    keys = [F.col(f"`k_{name}`") for name in request.keys]
    held = counted.groupBy(*keys).agg(
        F.sum(F.when(F.col("bin") < 0, F.col("n")).otherwise(0)).alias("n_missing"),
        F.sum(F.when(F.col("bin") >= 0, F.col("n")).otherwise(0)).alias("n"),
        bins.alias("held"),
    )
    arrays = [
        F.expr(f"transform(held, x -> double(x.{column})) AS {name}")
        for name, column in names.items()
    ]
    frame = collect(held.select(*keys, "n", "n_missing", *arrays), request.keys)
    found = frame.rename(columns={f"k_{name}": name for name in request.keys})
    for name in names:
        found[name] = frame[name].map(lambda value: np.asarray(value, dtype=np.float64))
    return found[[*request.keys, *HISTOGRAM_COLUMNS]]


def _bin(edges: Sequence[float]) -> str:
    """SQL: how many edges lie below `v`; -1 where it is null."""
    if not edges:
        return "IF(v IS NULL, -1, 0)"
    n_steps = len(edges).bit_length()
    padding = ["DOUBLE('Infinity')"] * (2**n_steps - 1 - len(edges))
    array = f"array({', '.join([f'{float(edge)!r}D' for edge in edges] + padding)})"
    steps = ", ".join(str(2**power) for power in reversed(range(n_steps)))
    search = (
        f"aggregate(array({steps}), 0, "
        f"(at, step) -> at + IF(element_at({array}, at + step) < v, step, 0))"
    )
    # NaN is above infinity in Spark: it must not count the padding.
    return f"IF(v IS NULL, -1, least({search}, {len(edges)}))"


def _parts(frame: pd.DataFrame, names: list[str]) -> list[pd.DataFrame]:
    if not names:
        return [frame]
    return [part for _, part in frame.groupby(names, dropna=False, sort=True)]


def _row(part: pd.DataFrame, by: Sequence[str]) -> dict[str, object]:
    key = {name: part[f"k_{name}"].iloc[0] for name in by}
    is_missing = part["bin"] < 0
    held = part[~is_missing]
    arrays = {
        name: np.asarray(held[column], dtype=np.float64)
        for name, column in (
            ("bins", "bin"), ("counts", "n"), ("lowest", "lowest"), ("highest", "highest"),
        )
    }  # fmt: skip
    missing = int(part.loc[is_missing, "n"].sum())
    return {**key, "n": int(held["n"].sum()), "n_missing": missing, **arrays}
