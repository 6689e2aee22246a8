"""Levels of categorical features as learners take them: known ones, and the code of each row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.errors import DataError
from causal.core.pandas_engine import label_text

MAX_LEVELS = 255
"""Levels of one categorical feature that trees can tell apart."""


def levels_of(column: "pd.Series[Any]", name: str) -> tuple[str, ...]:
    """The levels that occur, sorted.

    Args:
        column: Levels as text, null where missing.
        name: The feature, for the message.

    Raises:
        DataError: There are too many.
    """
    found = tuple(sorted(set(column.dropna())))
    if len(found) > MAX_LEVELS:
        raise DataError(
            "a categorical feature has too many levels",
            given=f"{name}: {len(found):,}",
            allowed=f"{MAX_LEVELS}; merge rare ones, or give a number in place of them",
        )
    return found


def codes_of(column: "pd.Series[Any]", levels: Sequence[str]) -> NDArray[np.int64]:
    """The place of each row's level, -1 where it is missing or not among them, shape (n,)."""
    places = {level: place for place, level in enumerate(levels)}
    distinct = {value: label_text(value) for value in column.dropna().unique()}
    known = {value: places.get(text, -1) for value, text in distinct.items()}
    found = [known.get(value, -1) if pd.notna(value) else -1 for value in column]
    return np.array(found, dtype=np.int64)
