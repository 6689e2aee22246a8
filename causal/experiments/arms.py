"""What an experiment asks of the data: the moments of each metric in each arm."""

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Condition,
    FrameRequest,
    GramRequest,
    KeyRequest,
    Level,
    Term,
)
from causal.core.gram import Gram, Key, grams, pooled
from causal.experiments.metrics import Metric

MIN_UNITS = 2


@dataclass(frozen=True, kw_only=True)
class Design:
    """Who was randomised to what.

    Attributes:
        unit: Column of the unit.
        variant: Column of the arm.
        control: The arm that the others are compared with.
        treatments: The arms to compare; `None`: all others.
        where: Conditions on the rows.
        strata: Columns by which the moments of each arm are told apart.
        period: Column of the period, where a unit has a row in each; `None`: one row per unit.
    """

    unit: str
    variant: str
    control: Level
    treatments: tuple[Level, ...] | None = None
    where: tuple[Condition, ...] = ()
    strata: tuple[str, ...] = ()
    period: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that identify a row."""
        return (self.unit,) if self.period is None else (self.unit, self.period)


Cells = Mapping[Level, Mapping[Key, Gram]]
"""Moments by arm and stratum; without strata the only stratum is `()`."""


@dataclass(frozen=True, kw_only=True)
class Arms:
    """Moments of every metric in every arm that is compared.

    Attributes:
        levels: The arms, control first.
        counts: Rows by arm, whether or not their metrics are missing.
        n_other: Rows in arms that are not compared.
        moments: By metric name, one Gram per arm in the order of `levels`.
        cells: By metric name, the moments by arm and stratum of which those are made.
    """

    levels: tuple[Level, ...]
    counts: Mapping[Level, int]
    n_other: int
    moments: Mapping[str, tuple[Gram, ...]]
    cells: Mapping[str, Cells]

    @property
    def is_complete(self) -> bool:
        """Whether no row lacks a value of any metric."""
        return all(gram.n_missing == 0 for arms in self.moments.values() for gram in arms)


def ask_units(design: Design) -> Generator[FrameRequest, pd.DataFrame, None]:
    """One row per unit, none without a unit.

    Raises:
        DataError: A unit is null or occurs twice.
    """
    frame = yield KeyRequest(key=design.key, where=design.where)
    row = frame.to_dict("records")[0]
    if row["n_null"]:
        raise DataError(
            f"{' or '.join(design.key)} is null", given=f"{row['n_null']} of {row['n']} rows"
        )
    if row["n_duplicated"]:
        examples = ", ".join(map(str, row["examples"]))
        pairs = yield KeyRequest(key=(*design.key, design.variant), where=design.where)
        n_crossed = int(pairs["n_keys"].iloc[0]) - int(row["n_keys"])
        crossed = (
            f"{n_crossed} of them are in two variants" if n_crossed else "none changes variant"
        )
        raise DataError(
            f"{' and '.join(design.key)} must identify a row",
            given=(
                f"{row['n_duplicated']} units occur more than once, such as {examples}; {crossed}"
            ),
        )


def ask_moments(
    design: Design, metrics: Sequence[Metric]
) -> Generator[FrameRequest, pd.DataFrame, Arms]:
    """The moments of every metric, on the rows that have all its columns.

    One pass serves all metrics when nothing is missing; otherwise each metric is asked for on its
    own, so that a null in one does not cost another a row.

    Raises:
        DataError: The variant is null somewhere, an arm is absent or has fewer than two units.
    """
    terms = tuple(dict.fromkeys(term for metric in metrics for term in metric.terms))
    answers: dict[tuple[Term, ...], Cells] = {terms: (yield from _by_arm(design, terms))}
    found = {level: pooled(strata.values()) for level, strata in answers[terms].items()}
    levels, n_other = _levels(design, found)
    counts = {level: found[level].n + found[level].n_missing for level in levels}
    is_complete = all(found[level].n_missing == 0 for level in levels)
    moments: dict[str, tuple[Gram, ...]] = {}
    cells: dict[str, Cells] = {}
    for metric in metrics:
        asked = terms if is_complete else metric.terms
        if asked not in answers:
            answers[asked] = yield from _by_arm(design, asked)
        cells[metric.name] = {
            level: {key: item.subset(metric.terms) for key, item in answers[asked][level].items()}
            for level in levels
        }
        moments[metric.name] = tuple(pooled(cells[metric.name][level].values()) for level in levels)
        _check_sizes(metric, dict(zip(levels, moments[metric.name], strict=True)))
    return Arms(levels=levels, counts=counts, n_other=n_other, moments=moments, cells=cells)


def with_moments(arms: Arms, moments: Mapping[str, tuple[Gram, ...]]) -> Arms:
    """The same arms with moments of further metrics, by name."""
    return dataclasses.replace(arms, moments={**arms.moments, **moments})


def _by_arm(
    design: Design, terms: tuple[Term, ...]
) -> Generator[FrameRequest, pd.DataFrame, dict[Level, dict[Key, Gram]]]:
    request = GramRequest(terms=terms, by=(design.variant, *design.strata), where=design.where)
    found = grams((yield request), request)
    nulls = sum(item.n + item.n_missing for key, item in found.items() if key[0] is None)
    if nulls:
        raise DataError(f"{design.variant} is null", given=f"{nulls} rows")
    out: dict[Level, dict[Key, Gram]] = {}
    for key, item in sorted(found.items(), key=lambda pair: str(pair[0][1:])):
        if key[0] is not None:
            out.setdefault(key[0], {})[key[1:]] = item
    return out


def _levels(design: Design, found: Mapping[Level, Gram]) -> tuple[tuple[Level, ...], int]:
    """The arms to compare, control first, and the number of rows in the others."""
    if not found:
        raise DataError("the source has no rows after the filters")
    wanted = (design.control, *(design.treatments or ()))
    absent = [level for level in wanted if level not in found]
    if absent:
        raise DataError(
            f"{design.variant} has no such variant", given=absent, allowed=sorted(found, key=str)
        )
    others = sorted((level for level in found if level != design.control), key=_order)
    treatments = design.treatments or tuple(others)
    if not treatments:
        raise DataError(
            f"{design.variant} has one arm only: there is nothing to compare", given=design.control
        )
    left_out = [found[level] for level in others if level not in treatments]
    return (design.control, *treatments), sum(gram.n + gram.n_missing for gram in left_out)


def _order(level: Level) -> tuple[bool, float, str]:
    """Numbers by value, text by text."""
    is_text = isinstance(level, str)
    return is_text, 0.0 if is_text else float(level), str(level)


def _check_sizes(metric: Metric, moments: Mapping[Level, Gram]) -> None:
    for level, gram in moments.items():
        if gram.n < MIN_UNITS:
            raise DataError(
                f"{metric.name}: variant {level} has fewer than {MIN_UNITS} units with a value",
                given=f"{gram.n} used, {gram.n_missing} missing",
            )
