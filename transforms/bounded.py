"""The one place where rows leave Spark, and the limit on how many may."""

from collections.abc import Sequence

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from causal.core.errors import DataError


def collect_bounded(
    df: DataFrame, *, max_rows: int, what: str, keys: Sequence[str] = ()
) -> pd.DataFrame:
    """Bring a small frame to the driver, or fail before it gets large.

    At most `max_rows + 1` rows are fetched, whatever the size of `df`.

    Args:
        df: An aggregated frame.
        max_rows: Most rows that may arrive.
        what: What the frame is, for the message: "the gram of loyalty_rewards".
        keys: Key columns of the frame; when it is too large the message gives how many values
            each takes, so that the reader sees which key made it large.

    Returns:
        All rows of `df`.

    Raises:
        DataError: `df` has more than `max_rows` rows.
    """
    frame = collect_if_few(df, max_rows=max_rows)
    if frame is None:
        raise DataError(
            f"{what} has more rows than may leave Spark",
            given=_sizes(df, keys) if keys else f"more than {max_rows:,} rows",
            allowed=f"{max_rows:,} rows",
        )
    return frame


def collect_if_few(df: DataFrame, *, max_rows: int) -> pd.DataFrame | None:
    """Bring a small frame to the driver; nothing if it has more than `max_rows` rows."""
    frame = df.limit(max_rows + 1).toPandas()
    return None if len(frame) > max_rows else frame


def _sizes(df: DataFrame, keys: Sequence[str]) -> str:
    counts = [F.approx_count_distinct(F.col(f"`{key}`")).alias(key) for key in keys]
    sizes = df.agg(*counts).toPandas().iloc[0]
    largest_first = sorted(keys, key=lambda key: -int(sizes[key]))
    # Aggregations name the column x of a key k_x.
    return ", ".join(
        f"about {int(sizes[key]):,} values of {key.removeprefix('k_')}" for key in largest_first
    )
