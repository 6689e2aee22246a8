"""Features as a learner was trained on them, and which rows it can score.

A feature that was missing in training rows has a fill-in (the median) and a column that says so. A
row is scored only if nothing about it is new: a level that no training row had, or a missing value
of a feature that never was, gives a status in place of a score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.core.levels import codes_of, levels_of

Missing = Literal["refuse", "model"]

STATUSES: tuple[str, ...] = ("scored", "unseen_category", "missing_value")
"""What can be said of a row, by the number that stands for it."""
SCORED, UNSEEN, MISSING = range(len(STATUSES))


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is recorded of the features of a model.

    Attributes:
        numbers: Columns of numbers.
        levels: Known levels of each categorical column.
        fills: Medians of the numbers that were missing in some training rows.
        may_miss: Categorical columns that were missing in some training rows.
    """

    numbers: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    fills: Mapping[str, float]
    may_miss: tuple[str, ...]

    @classmethod
    def of(
        cls,
        sample: pd.DataFrame,
        *,
        numbers: Sequence[str],
        labels: Sequence[str],
        missing: Missing,
    ) -> "Inputs":
        """What training rows hold.

        Args:
            sample: The rows: numbers as doubles, levels as text.
            numbers: Columns of numbers.
            labels: Columns of levels.
            missing: Whether missing values are refused, or are something to learn from.

        Raises:
            DataError: A value is infinite, missing where that is refused, or always missing; a
                feature has too many levels.
        """
        names = [*numbers, *labels]
        counts = {name: int(sample[name].isna().sum()) for name in names}
        lacking = {name: n for name, n in counts.items() if n}
        if lacking and missing == "refuse":
            raise DataError(
                "features are missing in some training rows",
                given=[f"{name} ({n:,} of {len(sample):,})" for name, n in lacking.items()],
                allowed="none with missing: refuse; missing: model learns from them",
            )
        empty = [name for name, n in counts.items() if n == len(sample)]
        if empty:
            raise DataError("a feature has no value in the training rows", given=empty[0])
        infinite = [name for name in numbers if np.isinf(sample[name].to_numpy()).any()]
        if infinite:
            raise DataError("a feature holds infinite values", given=infinite[0])
        return cls(
            numbers=tuple(numbers),
            levels={name: levels_of(sample[name], name) for name in labels},
            fills={name: float(sample[name].median()) for name in numbers if counts[name]},
            may_miss=tuple(name for name in labels if counts[name]),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, numbers first."""
        return (*self.numbers, *self.levels)

    def read(self, columns: Sequence["pd.Series[Any]"]) -> tuple[Array, NDArray[np.int64]]:
        """Rows as a learner takes them, and the status of each.

        Args:
            columns: The features in the order of `columns`.

        Returns:
            The matrix, shape (n, p), whose rows mean nothing unless their status is `SCORED`; the
            statuses, shape (n,).
        """
        status = np.full(len(columns[0]), SCORED, dtype=np.int64)
        out: list[Array] = []
        for name, column in zip(self.columns, columns, strict=True):
            if name in self.levels:
                out += self._indicators(name, column, status)
            else:
                out += self._numbers(name, column, status)
        return np.column_stack(out), status

    def _numbers(
        self, name: str, column: "pd.Series[Any]", status: NDArray[np.int64]
    ) -> list[Array]:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        is_missing = ~np.isfinite(values)
        if name not in self.fills:
            status[is_missing] = MISSING
            return [np.where(is_missing, 0.0, values)]
        status[np.isinf(values)] = MISSING
        return [np.where(is_missing, self.fills[name], values), is_missing.astype(np.float64)]

    def _indicators(
        self, name: str, column: "pd.Series[Any]", status: NDArray[np.int64]
    ) -> list[Array]:
        levels = self.levels[name]
        codes, is_missing = codes_of(column, levels), column.isna().to_numpy()
        status[(codes < 0) & ~is_missing] = UNSEEN
        # The first level is the one with no indicator on.
        found = [(codes == code).astype(np.float64) for code in range(1, len(levels))]
        if name in self.may_miss:
            return [*found, is_missing.astype(np.float64)]
        status[is_missing] = MISSING
        return found
