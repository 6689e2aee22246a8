"""Amounts that are whole hundredths: money, and everything coarser (minutes, quarters of hours)."""

from pyspark.sql import Column
from pyspark.sql import functions as F


def to_cents(amount: Column) -> Column:
    """The amount rounded to cents, halves up (DOUBLE, the double nearest to the two decimals).

    Spark's `round` on doubles goes through decimals and costs several times as much.
    """
    return F.floor(amount * 100.0 + 0.5) / F.lit(100.0)


def exact_sum(name: str) -> Column:
    """Sum of a column of whole hundredths (DOUBLE), the same in whatever order the rows come.

    Doubles are added as integers, since the rounding of a sum of doubles depends on its order.
    """
    return F.sum(F.floor(F.col(name) * 100.0 + 0.5)) / F.lit(100.0)
