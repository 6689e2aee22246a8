"""Numbers of a query that lie beside its rows in place of being written into it.

Spark compiles a query anew for each number that is written into it, and the virtual machine then
starts over as well. The iterations of a fit, the folds of a cross-fitted one and the same analysis
of other outcomes differ in numbers alone: with these in one row that is joined to all others they
share one compiled query.
"""

from collections.abc import Iterable, Mapping
from math import isfinite

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

MAX_GIVEN = 128
"""So many numbers of a request lie beside the rows; more are written into the query."""
_STRUCTURAL = frozenset({-1.0, 0.0, 1.0})
"""Coefficients that say what a term is; whatever was estimated is another number."""


class GivenNumbers:
    """The numbers of a query as columns of one row, or written out where these are too many.

    Args:
        coefficients: Coefficients and other estimates; -1, 0 and 1 are written out.
        bounds: Bounds of intervals.
    """

    def __init__(self, coefficients: Iterable[float] = (), bounds: Iterable[float] = ()) -> None:
        # Kept apart: a bound that happens to equal a coefficient would make another query.
        names = _named("c", [number for number in coefficients if number not in _STRUCTURAL])
        limits = _named("b", bounds)
        is_few = len(names) + len(limits) <= MAX_GIVEN
        self._coefficients = names if is_few else {}
        self._bounds = limits if is_few else {}

    @property
    def names(self) -> list[str]:
        """Names of the columns that hold the numbers."""
        return [*self._coefficients.values(), *self._bounds.values()]

    def coefficient(self, number: float) -> Column:
        """A coefficient as a column."""
        return _column(number, self._coefficients)

    def bound(self, number: float) -> Column:
        """A bound as a column."""
        return _column(number, self._bounds)

    def beside(self, df: DataFrame) -> DataFrame:
        """The rows with the numbers as further columns."""
        if not self.names:
            return df
        values = ", ".join(f"{number!r}D" for number in (*self._coefficients, *self._bounds))
        row = df.sparkSession.sql(
            f"SELECT * FROM VALUES ({values}) AS given({', '.join(self.names)})"
        )
        return df.crossJoin(F.broadcast(row))


def _named(kind: str, numbers: Iterable[float]) -> dict[float, str]:
    """Names of numbers by their place; the negative of one before it has none of its own.

    Whether a number is negative must not change the query: it may do so from step to step.
    """
    names: dict[float, str] = {}
    for number in map(float, numbers):
        if isfinite(number) and number not in names and -number not in names:
            names[number] = f"given_{kind}{len(names)}"
    return names


def _column(number: float, names: Mapping[float, str]) -> Column:
    if number in names:
        return F.col(names[number])
    if -number in names:
        return -F.col(names[-number])
    return F.lit(float(number))


WRITTEN_OUT = GivenNumbers()
