"""From a spec's columns to moments: levels, absorbed effects, counts, and what was left out."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import pandas as pd

from causal.core.errors import DataError, InferenceError
from causal.core.frames import (
    Column,
    Condition,
    FrameRequest,
    GramRequest,
    Indicator,
    KeyRequest,
    Term,
)
from causal.core.gram import Gram, gram, grams, pooled, summed
from causal.regression.columns import DesignColumn, dummies, expand, known, observe_levels
from causal.regression.equation import Moments, redundant_names
from causal.regression.options import RegressionOptions
from causal.regression.sandwich import Rows

MAX_EFFECTS = 200
"""Absorbed effects that may become columns where scores are summed within absorbed groups."""

Asks = Generator[FrameRequest, pd.DataFrame, "RegressionData"]


@dataclass(frozen=True, kw_only=True)
class RegressionData:
    """What a regression is computed from.

    Attributes:
        moments: Cross-products of all terms.
        columns: Regressors that are their own instruments, redundant ones left out.
        effects: Absorbed effects as columns; empty where the engine sweeps them out.
        counted: Unweighted moments of the same terms over the same rows, for counts.
        rows: The rows.
        n_missing: Rows left out because a column was null.
        dropped: Names of columns left out as empty or redundant.
        clusters: Moments by cluster, where the covariance needs them.
        is_nested: Whether absorbed groups lie in one cluster each.
    """

    moments: Moments
    columns: tuple[DesignColumn, ...]
    effects: tuple[DesignColumn, ...]
    counted: Gram
    rows: Rows
    n_missing: int
    dropped: tuple[str, ...]
    clusters: tuple[Gram, ...] = ()
    is_nested: bool = False

    @property
    def controls(self) -> tuple[Term, ...]:
        """All regressors that are their own instruments, absorbed effects first."""
        return tuple(column.term for column in (*self.effects, *self.columns))

    def n_counted(self, k: int) -> int:
        """Coefficients that small-sample factors count, given those of the equation.

        Absorbed effects that are nested in clusters count as one constant.
        """
        n_absorbed = self.moments.gram.n_units
        if self.is_nested:
            return k - len(self.effects) + (1 if n_absorbed else 0)
        return k + n_absorbed

    def sides(self, term: Term) -> tuple[int, int]:
        """Rows with 1 and with 0 for a 0/1 term; all rows twice for any other."""
        n = self.counted.n
        if not self.is_binary(term):
            return n, n
        ones = round(n * float(self.counted.mean[self.counted.index(term)]))
        return ones, n - ones

    def is_binary(self, term: Term) -> bool:
        """Whether a term is 0 or 1 in every row: its sum is its sum of squares."""
        at = self.counted.index(term)
        total = self.counted.n * float(self.counted.mean[at])
        squares = float(self.counted.moment()[at, at])
        return total > 0 and abs(squares - total) <= 1e-9 * squares


def observe(
    options: RegressionOptions,
    terms: Sequence[Term],
    *,
    where: tuple[Condition, ...],
) -> Asks:
    """Everything that the passes before the covariance find out.

    Args:
        options: The analysis.
        terms: The outcome, instruments and whatever else the moments must hold.
        where: Conditions on the rows.

    Raises:
        DataError: No rows, levels that do not occur, weights that are not positive.
        InferenceError: Collinear columns, or too many of them.
    """
    numeric = options.numeric_columns
    is_explicit = options.absorb is not None and options.needs_rows
    weight = None if options.weight is None else Column(options.weight)
    categories = [*options.categorical, *([str(options.absorb)] if is_explicit else [])]
    used = [*terms, *map(Column, numeric), *([] if weight is None else [weight])]
    levels = yield from observe_levels(categories, used=used, where=where)
    columns = expand(numeric, options.categorical, options.interactions, levels=levels)
    effects = _effects(options, levels[str(options.absorb)]) if is_explicit else ()
    swept = None if is_explicit else options.absorb
    every = tuple(dict.fromkeys([*terms, *(column.term for column in (*effects, *columns))]))
    counted, n_weightless = None, 0
    if weight is not None or swept is not None:
        counted, n_weightless = yield from _count(every, weight=weight, swept=swept, where=where)
    request = GramRequest(
        terms=every, weight=weight, absorb=swept, where=where,
        by=options.clusters if options.kind in {"CR2", "CR3"} else (),
    )  # fmt: skip
    total, clusters = _total((yield request), request)
    if counted is not None and counted.n != total.n:
        raise InferenceError("the passes saw different rows", given=f"{counted.n} and {total.n}")
    is_nested = yield from _is_nested(options, where)
    spread = None
    if counted is not None:
        spread = dict(zip(counted.terms, counted.cross.diagonal(), strict=True))
    moments = Moments.of(
        total, intercept=options.has_constant, spread=spread, n_weightless=n_weightless
    )
    kept, dropped = _identified(options, moments, columns, effects)
    return RegressionData(
        moments=moments, columns=kept, effects=effects,
        counted=(total if counted is None else counted).subset(every),
        rows=Rows(
            n=moments.n, n_weightless=n_weightless, weight=weight, absorb=swept, where=where,
            terms=every,
        ),
        n_missing=total.n_missing, dropped=dropped, clusters=clusters, is_nested=is_nested,
    )  # fmt: skip


def _effects(options: RegressionOptions, levels: Sequence[object]) -> tuple[DesignColumn, ...]:
    if len(levels) > MAX_EFFECTS:
        raise InferenceError(
            f"these errors cannot be had with so many absorbed effects of {options.absorb}",
            given=f"{options.kind} by {', '.join(options.clusters) or 'row'}, {len(levels)} levels",
            allowed=f"one column of clusters that holds whole groups of {options.absorb}, or at "
            f"most {MAX_EFFECTS} levels",
        )
    return dummies(str(options.absorb), levels)  # type: ignore[arg-type]


def _count(
    terms: tuple[Term, ...],
    *,
    weight: Term | None,
    swept: str | None,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, tuple[Gram, int]]:
    """Unweighted moments over the rows of the regression, and how many have weight zero."""
    extra: list[Term] = []
    if isinstance(weight, Column):
        extra += [Indicator(weight.name, 0), weight]
    if swept is not None:
        extra.append(known(swept))
    request = GramRequest(terms=tuple(dict.fromkeys([*terms, *extra])), where=where)
    found = gram((yield request), request)
    if not isinstance(weight, Column):
        return found, 0
    n_weightless = round(found.n * float(found.mean[found.index(extra[0])]))
    if n_weightless == found.n:
        raise DataError(f"{weight.name} is 0 in every row that can be used: no row counts")
    return found, n_weightless


def _total(frame: pd.DataFrame, request: GramRequest) -> tuple[Gram, tuple[Gram, ...]]:
    if not request.by:
        return gram(frame, request), ()
    parts = grams(frame, request)
    lost = sum(part.n for key, part in parts.items() if None in key)
    if lost:
        raise DataError(
            f"{request.by[0]} is null in some rows of the regression", given=f"{lost} rows"
        )
    found = tuple(part for part in parts.values() if part.n > 0)
    if not found:
        raise DataError("no row has a value for every column of the analysis")
    if len(found) == 1:
        raise InferenceError("clustered errors need two or more clusters", given=1)
    total = summed(found) if request.absorb else pooled(parts.values())
    return total, found


def _is_nested(
    options: RegressionOptions, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, bool]:
    """Whether every absorbed group lies in one cluster (of one of the columns of clusters).

    One-way CR0 and CR1 need no look: their engine refuses groups that are split.
    """
    if options.absorb is None or not options.clusters:
        return False
    if options.absorb in options.clusters:
        return True
    if not options.is_two_way and options.kind in {"CR0", "CR1"}:
        return True
    n_groups = int((yield KeyRequest(key=(options.absorb,), where=where))["n_keys"].iloc[0])
    for column in options.clusters:
        frame = yield KeyRequest(key=(options.absorb, column), where=where)
        if int(frame["n_keys"].iloc[0]) == n_groups:
            return True
    if not options.is_two_way:
        raise DataError(f"a {options.absorb} must lie in one cluster of {options.clusters[0]}")
    return False


def _identified(
    options: RegressionOptions,
    moments: Moments,
    columns: Sequence[DesignColumn],
    effects: Sequence[DesignColumn],
) -> tuple[tuple[DesignColumn, ...], tuple[str, ...]]:
    """The columns that the data identify, and the names of the others.

    An interaction of levels that no row has is left out whatever the spec says: it has no
    coefficient.
    """
    both = (*effects, *columns)
    empty, redundant = redundant_names(
        moments, [column.term for column in both], [column.name for column in both]
    )
    unused = [column.name for column in columns if column.name in empty and column.is_category]
    lost = [name for name in (*empty, *redundant) if name not in unused]
    if lost and options.collinear == "refuse":
        constant = " or constant" if moments.has_intercept else ""
        within = f" within {options.absorb}" if options.absorb else ""
        raise InferenceError(
            f"these columns are collinear with the ones before them{constant}{within}",
            given=lost,
            allowed="leave them out, or collinear: drop",
        )
    dropped = (*unused, *lost)
    return tuple(column for column in columns if column.name not in dropped), dropped
