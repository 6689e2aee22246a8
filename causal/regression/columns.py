"""Columns of a regression from the plain lists of a spec: numbers, categories, interactions.

A categorical column becomes one 0/1 column per level but its reference level; an interaction is
the product of the columns of its parts. Names in results: `wage`, `region=south`,
`age:region=south`, `age:age`.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated

import pandas as pd
from pydantic import Field

from causal.core.errors import DataError, InferenceError
from causal.core.frames import (
    Column,
    Condition,
    FrameRequest,
    GramRequest,
    Indicator,
    Level,
    Linear,
    Product,
    Term,
)
from causal.core.gram import grams
from causal.core.spec import COLUMN_PATTERN

ColumnName = Annotated[str, Field(pattern=COLUMN_PATTERN)]
Categories = dict[ColumnName, Level | None]
"""Categorical columns and their reference levels; `None`: the first level in order."""
Interaction = Annotated[list[ColumnName], Field(min_length=2, max_length=4)]

MAX_COLUMNS = 300
"""Columns of one regression; the cross-products grow with the square of it."""

Levels = Mapping[str, tuple[Level, ...]]
Receives = Generator[FrameRequest, pd.DataFrame, Levels]


@dataclass(frozen=True)
class DesignColumn:
    """One column of a regression.

    Attributes:
        name: Its name in the results.
        term: Its values.
        group: The item of the spec that it stands for, such as `region` or `age:region`.
        is_category: Whether it is a level of a category, or an interaction with one.
    """

    name: str
    term: Term
    group: str
    is_category: bool = False


def check_design(
    numeric: Sequence[str], categorical: Mapping[str, object], interactions: Sequence[Sequence[str]]
) -> None:
    """The parts of a design go together.

    Raises:
        ValueError: A column has two roles, or an interaction lacks the main effect of a part.
    """
    named = [*numeric, *categorical]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise ValueError(f"column used in two roles: {', '.join(repeated)}")
    for parts in interactions:
        for name in parts:
            if name not in named:
                raise ValueError(
                    f"the interaction {':'.join(parts)} needs {name} among the regressors as well"
                )
            if name in categorical and list(parts).count(name) > 1:
                raise ValueError(f"{name} is a category: it cannot be interacted with itself")
    keys = [tuple(sorted(parts)) for parts in interactions]
    if len(keys) != len(set(keys)):
        raise ValueError("the same interaction stands twice")


def observe_levels(
    categories: Sequence[str],
    *,
    used: Sequence[Term],
    where: tuple[Condition, ...],
) -> Receives:
    """The levels of categorical columns over the rows that can be used, in one pass.

    Args:
        categories: The columns; none of them: no pass.
        used: Terms without whose value a row is not used.
        where: Conditions on the rows.

    Raises:
        DataError: A column is null in every row that could be used.
    """
    if not categories:
        return {}
    marker = (Linear(tuple(used), (0.0,) * len(used)),) if used else ()
    request = GramRequest(terms=marker, by=tuple(categories), where=where)
    seen: dict[str, set[Level]] = {name: set() for name in categories}
    cells = grams((yield request), request)
    for key, cell in cells.items():
        if cell.n > 0 and None not in key:
            for name, value in zip(categories, key, strict=True):
                seen[name].update(() if value is None else (value,))
    for name, levels in seen.items():
        if not levels:
            n_missing = sum(cell.n_missing for cell in cells.values())
            raise DataError(
                f"{name} has no level in the rows that can be used",
                given=f"{n_missing} rows lack a value of a number, {name} is null in the others",
            )
    return {name: tuple(sorted(levels, key=level_order)) for name, levels in seen.items()}


def expand(
    numeric: Sequence[str],
    categorical: Mapping[str, Level | None],
    interactions: Sequence[Sequence[str]],
    *,
    levels: Levels,
) -> tuple[DesignColumn, ...]:
    """All columns of the design, main effects before interactions.

    Raises:
        DataError: A reference level does not occur.
        InferenceError: The design has more columns than `MAX_COLUMNS`.
    """
    main: dict[str, tuple[DesignColumn, ...]] = {
        name: (DesignColumn(name, Column(name), name),) for name in numeric
    }
    for name, reference in categorical.items():
        main[name] = dummies(name, levels[name], reference=reference)
    columns = [column for parts in main.values() for column in parts]
    for parts in interactions:
        columns += [_crossed(group) for group in product(*(main[name] for name in parts))]
    if len(columns) > MAX_COLUMNS:
        raise InferenceError(
            "the design has too many columns: absorb the column with the most levels",
            given=f"{len(columns)} columns",
            allowed=f"at most {MAX_COLUMNS}",
        )
    return tuple(columns)


def dummies(
    name: str, levels: Sequence[Level], *, reference: Level | None = None
) -> tuple[DesignColumn, ...]:
    """One 0/1 column per level but the reference.

    Raises:
        DataError: The reference level does not occur.
    """
    by_text = {str(level): level for level in levels}
    if reference is not None and str(reference) not in by_text:
        raise DataError(
            f"the reference level of {name} does not occur", given=reference, allowed=list(by_text)
        )
    base = str(levels[0] if reference is None else reference)
    return tuple(
        DesignColumn(f"{name}={text}", Indicator(name, level), name, is_category=True)
        for text, level in by_text.items()
        if text != base
    )


def known(name: str) -> Term:
    """A term that is 0 in every row and missing where a column of any kind is null."""
    return Linear((Indicator(name, "1900-01-01"),), (0.0,))


def level_order(level: Level) -> tuple[int, float, str]:
    """What levels are sorted by: numbers by value, then texts."""
    if isinstance(level, str):
        return 1, 0.0, level
    return 0, float(level), ""


def _crossed(parts: Sequence[DesignColumn]) -> DesignColumn:
    return DesignColumn(
        name=":".join(part.name for part in parts),
        term=Product(tuple(part.term for part in parts)),
        group=":".join(part.group for part in parts),
        is_category=any(part.is_category for part in parts),
    )
