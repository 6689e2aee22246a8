"""Amounts of money: doubles that are whole cents."""

from pyspark.sql import Column
from pyspark.sql import functions as F


def to_cents(amount: Column) -> Column:
    """The amount rounded to cents, halves up (DOUBLE, the double nearest to the two decimals).

    Spark's `round` on doubles goes through decimals and costs several times as much.
    """
    return F.floor(amount * 100.0 + 0.5) / F.lit(100.0)
