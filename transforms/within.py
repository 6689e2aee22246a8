"""Cross-products within units where most terms are dummies, from sums by unit and cell.

A *cell* is a combination of levels that the dummies of a request tell apart: a period, or a region
and period. Within a key a dummy has one value in a cell, whatever the row, so that its products
need only how the weights of each unit spread over the cells. With `e_ij` the weight of unit i in
cell j, `W_i` its whole weight and `a_j` the dummies there,

    sum_i sum_t w (a - mean_i a)(a - mean_i a)' = sum_{j<k} L_jk (a_j - a_k)(a_j - a_k)',
    L_jk = sum_i e_ij e_ik / W_i,

and products of dummies with other terms z take `sum_i (sum of w z in j - e_ij mean_i z)`. Both are
exact: no large numbers cancel. A unit is a row of some cells, in place of all products of terms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.frames import (
    EventTime,
    GramRequest,
    Indicator,
    Term,
    columns_of,
    packed_indices,
    packed_size,
    required_columns,
)
from causal.core.gram import Key, key_of, pack, unpack
from transforms.moments import Array, arrays_of, covariation, crossed, products_of, sums_of
from transforms.terms import atoms

MIN_PRODUCTS = 150
"""As many products as this are written out, though they are shuffled with each unit: cells take a
look at the rows of their own."""
MAX_CELLS = 50_000
"""More cells (by key) than these are not looked up."""


@dataclass(frozen=True)
class Split:
    """Terms of a request: dummies, and the others.

    Attributes:
        request: The request, with p terms.
        dummies: Positions of the d dummies.
        others: Positions of the q other terms.
        columns: The columns that tell cells apart within a key.
    """

    request: GramRequest
    dummies: tuple[int, ...]
    others: tuple[int, ...]
    columns: tuple[str, ...]

    @staticmethod
    def of(request: GramRequest) -> "Split":
        """Which terms are dummies."""
        is_dummy = [
            _is_dummy(term) and request.absorb not in columns_of(term) for term in request.terms
        ]
        dummies = tuple(at for at, yes in enumerate(is_dummy) if yes)
        told = frozenset().union(*(columns_of(request.terms[at]) for at in dummies))
        return Split(
            request=request,
            dummies=dummies,
            others=tuple(at for at, yes in enumerate(is_dummy) if not yes),
            columns=tuple(sorted(told - {*request.by})),
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """The unit, and the keys of the request."""
        return tuple(dict.fromkeys((str(self.request.absorb), *self.request.by)))

    @property
    def required(self) -> tuple[str, ...]:
        """The columns without whose value a row is not used."""
        every = (required_columns(term) for term in self.request.terms)
        return (str(self.request.absorb), *sorted(frozenset().union(*every)))

    def terms(self, at: Sequence[int]) -> tuple[Term, ...]:
        """The terms at some positions."""
        return tuple(self.request.terms[position] for position in at)


@dataclass(frozen=True)
class Cells:
    """The m cells.

    Attributes:
        levels: Of the columns that tell them apart, in the order of these.
        dummies: By key, the dummies' values in each cell, shape (m, d); 0 where a key has no rows.
    """

    levels: tuple[Key, ...]
    dummies: Mapping[Key, Array]

    def n_sums(self, split: Split) -> int:
        """Sums by unit."""
        q = len(split.others)
        return len(self.levels) * (1 + q) + q + packed_size(q)


def cells_in(rows: DataFrame, split: Split, columns: Mapping[str, str]) -> DataFrame:
    """The values of the dummies by key and cell.

    Args:
        rows: Keys (those of the request and the columns of the split) and dummies `t*`.
        split: The terms.
        columns: Kinds of the source's columns.
    """
    levels = [_level(name, columns).alias(f"l{at}") for at, name in enumerate(split.columns)]
    keys = [F.col(f"`k_{name}`") for name in split.request.by]
    values = [F.max(f"t{at}").alias(f"t{at}") for at in range(len(split.dummies))]
    return rows.where("n_used > 0").groupBy(*keys, *levels).agg(*values)


def found_cells(frame: pd.DataFrame, split: Split) -> Cells:
    """What was collected of `cells_in`."""
    by = tuple(f"k_{name}" for name in split.request.by)
    names = tuple(f"l{at}" for at in range(len(split.columns)))
    values = frame[[f"t{at}" for at in range(len(split.dummies))]].to_numpy(dtype=np.float64)
    rows = frame.to_dict("records")
    cells = [key_of(row, names) for row in rows]
    levels = tuple(sorted(set(cells), key=str))
    at = {cell: position for position, cell in enumerate(levels)}
    dummies: dict[Key, Array] = {}
    for row, cell, value in zip(rows, cells, values, strict=True):
        key = key_of(row, by)
        held = dummies.setdefault(key, np.zeros((len(levels), values.shape[1])))
        held[at[cell]] = value
    return Cells(levels=levels, dummies=dummies)


def sums(rows: DataFrame, split: Split, cells: Cells, columns: Mapping[str, str]) -> DataFrame:
    """Sums by unit and cell, then over units by key, for `moments` to read.

    Args:
        rows: Keys (units, those of the request, the columns of the split), `n_used`, `w` and the
            other terms `t*`, less a constant near their mean.
        split: The terms.
        cells: The cells.
        columns: Kinds of the source's columns.
    """
    m, q = len(cells.levels), len(split.others)
    keys = [F.col(f"`k_{name}`") for name in split.request.by]
    own = [F.col(f"`k_{name}`") for name in split.keys]
    pairs = list(packed_indices(q))
    units = rows.withColumn("cell", _numbered(split, cells, columns)).groupBy(*own).agg(
        F.count(F.lit(1)).alias("n_all"),
        F.sum("n_used").alias("n_used"),
        F.sum("w").alias("w"),
        F.min("w").alias("w_min"),
        *[F.expr(f"sum(if(cell = {j}, w, 0D)) AS e{j}") for j in range(m)],
        *[F.expr(f"sum(w * t{a}) AS s{a}") for a in range(q)],
        *[
            F.expr(f"sum(if(cell = {j}, w * t{a}, 0D)) AS e{j}_{a}")
            for j in range(m)
            for a in range(q)
        ],
        *[F.expr(f"sum(w * t{a} * t{b}) AS c{a}_{b}") for a, b in pairs],
    )  # fmt: skip
    by_cell = {f"v{j}": F.expr(f"if(w > 0, e{j} / sqrt(w), 0D)") for j in range(m)} | {
        f"g{j}_{a}": F.expr(covariation(f"e{j}_{a}", f"e{j}", f"s{a}"))
        for j in range(m)
        for a in range(q)
    }
    others = [
        *[F.sum(name).alias(name) for name in ("n_all", "n_used", "w")],
        F.min("w_min").alias("w_min"),
        F.count_if(F.col("n_used") > 0).alias("n_units"),
        *[F.sum(f"s{a}").alias(f"s{a}") for a in range(q)],
        *[F.expr(f"sum({covariation(f'c{a}_{b}', f's{a}', f's{b}')}) AS c{a}_{b}")
          for a, b in pairs],
    ]  # fmt: skip
    return crossed(
        units.withColumns(by_cell), keys, others, values=[f"v{j}" for j in range(m)],
        beside={"mass": [f"e{j}" for j in range(m)]}
        | {f"across{a}": [f"g{j}_{a}" for j in range(m)] for a in range(q)},
    )  # fmt: skip


def moments(frame: pd.DataFrame, split: Split, cells: Cells, shift: Array) -> tuple[Array, Array]:
    """Means and packed cross-products within units of all p terms, by key.

    Shapes (r, p) and (r, p(p+1)/2).

    Args:
        frame: What was collected of `sums`.
        split: The terms.
        cells: The cells.
        shift: What the other terms are less, shape (q,).
    """
    m, q, p = len(cells.levels), len(split.others), len(split.request.terms)
    own, given = list(split.dummies), list(split.others)
    links = products_of(frame, m)
    weights = frame["w"].to_numpy(dtype=np.float64)
    mass = arrays_of(frame, "mass", m)
    across = np.zeros((len(frame), m, q))
    for a in range(q):
        across[:, :, a] = arrays_of(frame, f"across{a}", m)
    squares = frame[[f"c{a}_{b}" for a, b in packed_indices(q)]].to_numpy(dtype=np.float64)
    totals = sums_of(frame, q)
    by = tuple(f"k_{name}" for name in split.request.by)
    one, other = np.triu_indices(m, k=1)
    off_diagonal = np.flatnonzero(np.not_equal(*np.triu_indices(m)))
    nothing = np.zeros((m, len(own)))
    means, products = np.zeros((len(frame), p)), np.zeros((len(frame), packed_size(p)))
    for at, row in enumerate(frame.to_dict("records")):
        values = cells.dummies.get(key_of(row, by), nothing)
        steps = values[one] - values[other]
        cross = np.zeros((p, p))
        cross[np.ix_(own, own)] = (steps * links[at, off_diagonal, None]).T @ steps
        cross[np.ix_(own, given)] = values.T @ across[at]
        cross[np.ix_(given, own)] = cross[np.ix_(own, given)].T
        cross[np.ix_(given, given)] = unpack(squares[at], q)
        if weights[at] > 0:
            means[at, own] = mass[at] @ values / weights[at]
            means[at, given] = shift + totals[at] / weights[at]
        products[at] = pack(cross)
    return means, products


def _is_dummy(term: Term) -> bool:
    """Whether a term is made of marks of levels only."""
    return all(isinstance(part, Indicator | EventTime) for part in atoms([term]))


def _level(name: str, columns: Mapping[str, str]) -> Column:
    """The level of a column as a text of its own; a number that is none is missing.

    Whole numbers beyond 2^53 are one double with their neighbours, and the text of a point in time
    stands for two of them when clocks are set back.
    """
    held = F.col(f"`k_{name}`")
    text = held.cast("string")
    match columns[name]:
        case "number":
            return F.when(~F.isnan(held.cast("double")), text)
        case "date":
            return F.when(held.isNotNull(), F.concat_ws(" ", text, F.xxhash64(held)))
        case _:
            return text


def _numbered(split: Split, cells: Cells, columns: Mapping[str, str]) -> Column:
    """The number of a row's cell."""
    numbered = F.when(F.lit(False), -1)
    for number, levels in enumerate(cells.levels):
        condition = F.lit(True)
        for name, level in zip(split.columns, levels, strict=True):
            condition = condition & _level(name, columns).eqNullSafe(F.lit(level))
        numbered = numbered.when(condition, number)
    return numbered
