"""Rows for a learner: a bounded sample that does not depend on how the rows are spread.

Every row has a hash of its unit; those with the smallest are drawn. A bound on the hash, from the
number of rows, lets only a few more through than are wanted, so the sort that makes the number
exact sees few rows.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.errors import DataError
from causal.core.frames import BUCKET, SampleRequest
from transforms.bounded import collect_bounded
from transforms.terms import all_known, bucketed, quoted

_ORDER = "(order)"
_MARGIN = 10.0
"""Standard errors by which the rows that the bound lets through exceed those wanted."""


def answer(df: DataFrame, request: SampleRequest, *, max_bytes: int) -> pd.DataFrame:
    """The rows that the request describes.

    Args:
        df: The rows that fulfil its conditions.
        request: The request.
        max_bytes: Most bytes of numbers that may arrive.

    Raises:
        DataError: The sample is larger than that.
    """
    n_columns = len(request.numbers) + len(request.labels) + 1
    if 8 * n_columns * request.max_rows > max_bytes:
        raise DataError(
            "the sample is larger than may leave Spark",
            given=f"{request.max_rows:,} rows of {n_columns} columns",
            allowed=f"{max_bytes // (8 * n_columns):,} rows, or fewer columns",
        )
    rows = df.where(all_known([request.unit, *request.known]))
    counted = rows.agg(F.count(F.lit(1)).alias("n"))
    n = int(collect_bounded(counted, max_rows=1, what="a count")["n"].iloc[0])
    # Each hash makes a column of the same name, so the order is renamed before the bucket comes.
    rows = bucketed(rows, request.order).withColumnRenamed(BUCKET, _ORDER)
    most = request.max_rows + _MARGIN * (math.sqrt(request.max_rows) + _MARGIN)
    if most < n:
        rows = rows.where(quoted(_ORDER) < F.lit(int(most / n * request.order.n_buckets)))
    rows = bucketed(rows, request.bucket)
    parts = [quoted(_ORDER), *[quoted(name).cast("double").alias(name) for name in request.numbers]]
    parts += [label(df, name).alias(name) for name in request.labels]
    parts += [] if request.bucket is None else [quoted(BUCKET)]
    drawn = rows.select(*parts).orderBy(quoted(_ORDER)).limit(request.max_rows)
    frame = collect_bounded(drawn, max_rows=request.max_rows, what="a sample of rows")
    frame = frame.sort_values(_ORDER, kind="stable").drop(columns=_ORDER)
    for name in request.labels:
        frame[name] = frame[name].astype(object).map(_known)
    return frame.astype(dict.fromkeys(request.numbers, np.float64)).reset_index(drop=True)


def label(df: DataFrame, name: str) -> Column:
    """A level as text: the same for a whole number of any type.

    Args:
        df: Where the column is from.
        name: The column.
    """
    column = quoted(name)
    if df.schema[name].dataType.simpleString() not in {"double", "float"}:
        return column.cast("string")
    text = F.when(column == F.floor(column), column.cast("bigint").cast("string"))
    return F.when(~F.isnan(column), text.otherwise(column.cast("string")))


def _known(value: Any) -> Any:
    return None if pd.isna(value) else value
