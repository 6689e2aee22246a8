"""Terms over columns that hold their parts: what several terms share is evaluated once.

Written out in full, a few functions of one propensity, itself a sum of five models of twenty
columns each, compile for half a minute.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.frames import Between, Clipped, Constant, Linear, Mapped, Term, parts_of
from transforms.given_numbers import WRITTEN_OUT, GivenNumbers
from transforms.terms import compiled, or_zero


def given_numbers(terms: Iterable[Term], shifts: Iterable[float]) -> GivenNumbers:
    """The numbers in terms, and others that are estimates like coefficients.

    Args:
        terms: The terms.
        shifts: The others.
    """
    coefficients, bounds = list(shifts), []
    for term in _each_once(terms):
        match term:
            case Linear(_, values):
                coefficients += values
            case Between(_, low, high) | Clipped(_, low, high):
                bounds += [bound for bound in (low, high) if bound is not None]
    return GivenNumbers(coefficients, bounds)


def leaves(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The columns, indicators, event-time dummies and buckets that terms are made of, each once."""
    return tuple(
        term for term in _each_once(terms) if not parts_of(term) and not isinstance(term, Constant)
    )


def n_parts(terms: Iterable[Term]) -> int:
    """How many parts different terms have, those of their parts among them."""
    return sum(len(parts_of(term)) for term in _each_once(terms))


def with_shared(
    rows: DataFrame,
    terms: Sequence[Term],
    held: Mapping[Term, Column],
    *,
    where: Column,
    given: GivenNumbers = WRITTEN_OUT,
) -> tuple[DataFrame, Mapping[Term, Column]]:
    """Rows with columns `b*` of what terms share and of all functions; and what holds which term.

    Args:
        rows: The rows.
        terms: Terms that are to be evaluated.
        held: The columns that hold what the terms are made of.
        where: Elsewhere the columns are 0, whatever the function.
        given: Numbers that lie beside the rows.
    """
    columns = dict(held)
    n_held = 0
    for layer in _layers(terms, frozenset(held)):
        names = [f"b{n_held + at}" for at in range(len(layer))]
        values = [or_zero(where, compiled(part, {}, columns, given)) for part in layer]
        rows = rows.select("*", *map(Column.alias, values, names))
        columns |= dict(zip(layer, map(F.col, names), strict=True))
        n_held += len(layer)
    return rows, columns


def _layers(terms: Sequence[Term], held: frozenset[Term]) -> list[list[Term]]:
    """What is worth a column; each layer is made of the layers before it."""
    uses: dict[Term, int] = dict.fromkeys(_each_once(terms), 0)
    for part in (*terms, *(inner for term in uses for inner in parts_of(term))):
        uses[part] += 1
    depths: dict[Term, int] = {}
    layers: list[list[Term]] = []
    for term, n_uses in uses.items():
        parts = parts_of(term)
        if term in held or not parts:
            depths[term] = 0
            continue
        depths[term] = max(depths[part] for part in parts)
        if n_uses > 1 or isinstance(term, Mapped):
            if depths[term] == len(layers):
                layers.append([])
            layers[depths[term]].append(term)
            depths[term] += 1
    return layers


def _each_once(terms: Iterable[Term]) -> Iterator[Term]:
    """Terms and their parts, each once, parts before what is made of them."""
    seen: set[Term] = set()

    def visit(term: Term) -> Iterator[Term]:
        if term in seen:
            return
        seen.add(term)
        for part in parts_of(term):
            yield from visit(part)
        yield term

    for term in terms:
        yield from visit(term)
