"""Purchase histories as cells with counts: what the probability models of purchases are fitted on.

The likelihood of a customer depends on three numbers only: how many repeat purchases (frequency),
when the last one was (recency) and how long the customer has been watched (age). Customers who
share them share a cell, so a fit costs what the distinct cells cost and is the same, to the digit,
as one on rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from causal.core.errors import DataError
from causal.core.gram import Array


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Distinct purchase histories and how many customers have each.

    Attributes:
        frequency: Repeat purchases, the first one not counted, shape (c,).
        recency: Time from the first to the last purchase, 0 without repeat purchases, shape (c,).
        age: Time from the first purchase to the end of observation (for the BG/BB model: number
            of purchase opportunities), in the same unit as recency, shape (c,).
        count: Customers per cell, shape (c,).
        spread: Covariance of (recency, age) inside each cell, shape (c, 2, 2), where cells were
            made coarser than the data and hold means; `None` where they are exact.
    """

    frequency: Array
    recency: Array
    age: Array
    count: Array
    spread: Array | None = None

    @property
    def n(self) -> int:
        """Customers."""
        return round(float(self.count.sum()))

    @property
    def n_cells(self) -> int:
        """Distinct cells."""
        return len(self.count)

    def finer(self) -> "Cells":
        """Four points per cell that have the cell's means and its covariance of recency and age.

        A likelihood summed over them differs from the one at the means by the second-order effect
        of making cells coarse.
        """
        if self.spread is None:
            return self
        roots = 2**0.5 * np.array([_root(matrix) for matrix in self.spread])
        steps = np.concatenate([roots, -roots], axis=2)
        age = (self.age[:, None] + steps[:, 1]).clip(min=0.0)
        recency = np.minimum((self.recency[:, None] + steps[:, 0]).clip(min=0.0), age)
        recency = np.where(self.frequency[:, None] > 0, recency, 0.0)
        return Cells(
            frequency=np.repeat(self.frequency, 4),
            recency=recency.ravel(),
            age=age.ravel(),
            count=np.repeat(self.count / 4, 4),
        )

    def rounded(self, step: float) -> "Cells":
        """Recency and age rounded to multiples of a step; cells that coincide are merged.

        Each merged cell keeps the mean recency and age of its customers and remembers their spread,
        so that the effect of rounding on a fit can be counted.

        Args:
            step: Width of the rounding grid, in units of time.
        """
        keys = np.column_stack(
            [self.frequency, np.round(self.recency / step), np.round(self.age / step)]
        )
        _, at = np.unique(keys, axis=0, return_inverse=True)
        at = at.ravel()
        total = np.bincount(at, self.count).astype(np.float64)
        history = np.column_stack([self.recency, self.age])
        mean = np.column_stack(
            [np.bincount(at, self.count * column) / total for column in history.T]
        )
        off = history - mean[at]
        spread = np.zeros((len(total), 2, 2))
        np.add.at(spread, at, self.count[:, None, None] * off[:, :, None] * off[:, None, :])
        frequency = np.bincount(at, self.count * self.frequency) / total
        return Cells(
            frequency=np.round(frequency),
            recency=np.minimum(mean[:, 0], mean[:, 1]),
            age=mean[:, 1],
            count=total,
            spread=spread / total[:, None, None],
        )


def rows_of(frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Cells:
    """Customers one by one, in their order, for predictions that must line up with them.

    Raises:
        DataError: A history is impossible; see `check`.
    """
    x, last, watched = (np.asarray(part, dtype=np.float64) for part in (frequency, recency, age))
    rows = Cells(frequency=x, recency=last, age=watched, count=np.ones(len(x)))
    check(rows)
    return rows


def cells_of(
    frequency: ArrayLike, recency: ArrayLike, age: ArrayLike, count: ArrayLike | None = None
) -> Cells:
    """The distinct cells of customers given as arrays, sorted (not in the order of the customers).

    Args:
        frequency: Repeat purchases, shape (n,).
        recency: Time of the last purchase, shape (n,).
        age: Time watched, shape (n,).
        count: Customers per row; 1 each if left out.

    Raises:
        DataError: A history is impossible; see `check`.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (frequency, recency, age)]
    weights = np.ones(len(columns[0])) if count is None else np.asarray(count, dtype=np.float64)
    distinct, at = np.unique(np.column_stack(columns), axis=0, return_inverse=True)
    cells = Cells(
        frequency=distinct[:, 0],
        recency=distinct[:, 1],
        age=distinct[:, 2],
        count=np.bincount(at.ravel(), weights, minlength=len(distinct)).astype(np.float64),
    )
    check(cells)
    return cells


def check(cells: Cells) -> None:
    """Every history is possible.

    Raises:
        DataError: Names the rule and counts the customers that break it.
    """
    if cells.n_cells == 0 or not cells.count.sum() > 0:
        raise DataError("there is no customer with a complete purchase history")
    x, recency, age = cells.frequency, cells.recency, cells.age
    with np.errstate(invalid="ignore"):
        rules: Mapping[str, NDArray[np.bool_]] = {
            "frequency, recency and age must be finite": ~np.isfinite(x + recency + age),
            "counts of customers must be positive": ~(cells.count > 0),
            "frequency must be a whole number, 0 or more": (x < 0) | (x != np.round(x)),
            "recency and age must not be negative": (recency < 0) | (age < 0),
            "recency must not exceed age": recency > age,
            "recency must be 0 without repeat purchases": (x == 0) & (recency != 0),
            "recency must be positive after a repeat purchase": (x > 0) & (recency <= 0),
        }
    for rule, is_broken in rules.items():
        if is_broken.any():
            n_broken = float(cells.count[is_broken].sum())
            raise DataError(rule, given=f"{n_broken:,.0f} customers who break it")


def numbers(column: "pd.Series[float]") -> Array:
    """A key column as numbers; NaN where the key is null.

    Raises:
        DataError: The column holds text.
    """
    try:
        return np.asarray(pd.to_numeric(column), dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DataError("this column must hold numbers", given=str(column.name)) from error


def _root(matrix: Array) -> Array:
    """A square root of a 2 x 2 covariance that may be singular."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(values.clip(min=0.0)), dtype=np.float64)
