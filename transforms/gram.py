"""Answers requests with Spark SQL aggregates: unit rows stay on the executors.

Sums are taken of values shifted by a constant near their mean and centred on the driver: as exact
as Spark's own centred merge at half its cost. Everything is a column expression, so a request costs
one scan (and a look at a few rows for the shift, see `SparkEngine`) and runs under Spark Connect.
Only aggregated rows are collected, through the bounded collector.

Names inside the aggregations: `k_*` keys, `t*` shifted terms, `w` weight, `s*` sums, `c*_*` sums of
products, `n_all` rows seen, `n_used` rows without a missing value.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from causal.core.errors import DataError
from causal.core.frames import (
    Condition,
    FrameRequest,
    GramRequest,
    HistogramRequest,
    KeyRequest,
    MeatRequest,
    PanelGramRequest,
    SampleRequest,
    Term,
    packed_indices,
    packed_size,
    parts_of,
    required_columns,
)
from transforms import histogram, panel_gram, sampling, within
from transforms.bounded import collect_bounded, collect_if_few
from transforms.given_numbers import WRITTEN_OUT, GivenNumbers
from transforms.moments import (
    centred,
    covariation,
    crossed,
    n_products,
    products_of,
    sums_of,
)
from transforms.shared_terms import (
    given_numbers,
    leaves,
    n_parts,
    with_shared,
)
from transforms.terms import (
    all_known,
    any_changing,
    atoms,
    bucketed,
    compiled,
    filtered,
    is_heavy_tailed,
    is_zero_one,
    keys_of,
    kinds,
    or_zero,
    quoted,
    value_at,
)

_Moments = list[tuple[float, float]]
_SAMPLE_ROWS = 4096
_SHIFT_STEPS = 4
_MAX_PARTS = 6_000
_MAX_CENTRED = 8
"""Terms whose moments Spark may centre itself: each of their products keeps four numbers a key."""


@dataclass(frozen=True)
class Limits:
    """How large a frame may be that reaches the driver.

    Attributes:
        max_rows: Rows of one answer.
        max_bytes: Bytes of one answer's numbers.
    """

    max_rows: int = 500_000
    max_bytes: int = 512 * 2**20

    def rows(self, n_columns: int) -> int:
        """Rows that an answer with so many numeric columns may have."""
        return min(self.max_rows, max(1, self.max_bytes // (8 * max(1, n_columns))))


class SparkEngine:
    """An engine on a Spark DataFrame.

    Args:
        df: Unit rows or panel rows.
        limits: Bounds on what is collected.
        is_derived: Whether rows must be computed before even a few can be read, as those of a
            join of aggregates that is not persisted. Moments of up to eight terms without weights
            then need no look at some rows beforehand: Spark centres them itself, key by key, which
            costs more per row and, with a mean of 1e8 standard deviations, half of the digits. No
            other request is answered otherwise.
    """

    def __init__(
        self, df: DataFrame, *, limits: Limits | None = None, is_derived: bool = False
    ) -> None:
        self._df = df
        self._limits = limits or Limits()
        self._is_derived = is_derived
        self._columns = kinds(df)
        self._rough: dict[
            tuple[tuple[Term, ...], tuple[Condition, ...], frozenset[str]], _Moments
        ] = {}
        self._periods: dict[PanelGramRequest, panel_gram.Periods] = {}

    @property
    def columns(self) -> Mapping[str, str]:
        """Column names and kinds."""
        return self._columns

    def __call__(  # noqa: C901, PLR0911 - one per kind
        self, request: FrameRequest
    ) -> pd.DataFrame:
        """The frame that the request describes.

        Raises:
            DataError: The answer is too large for the driver, or the rows cannot carry the request.
        """
        df = filtered(self._df, request.where, self._columns)
        match request:
            case GramRequest(absorb=None):
                return self._gram(df, request)
            case GramRequest():
                return self._gram_within(df, request)
            case MeatRequest() if (n := n_parts(_sides(request))) > _MAX_PARTS:
                raise DataError(
                    "these errors need too long an expression for Spark to compile",
                    given=f"{n:,} terms within terms",
                    allowed="covariance HC1 or clusters, or fewer regressors",
                )
            case MeatRequest(absorb=None):
                return self._meat(df, request)
            case MeatRequest():
                return self._meat_within(df, request)
            case PanelGramRequest():
                return panel_gram.answer(
                    df, request, self._columns, self._collect, known=self._periods
                )
            case KeyRequest():
                return self._key(df, request)
            case HistogramRequest():
                return histogram.answer(df, request, self._columns, self._collect)
            case SampleRequest():
                return sampling.answer(df, request, max_bytes=self._limits.max_bytes)

    def _gram(self, df: DataFrame, request: GramRequest) -> pd.DataFrame:
        df = bucketed(df, request.bucket)
        if request.summed_by:
            return self._gram_of_sums(df, request)
        if self._is_derived and not request.near and _is_centred_by_spark(request):
            return self._gram_centred(df, request)
        shift = self._preliminary_means(df, request.terms, request)
        rows = self._terms(
            df, request.terms, request.weight, keys=request.keys, shift=shift, required=()
        )
        sums = crossed(
            rows, _grouping(request.keys), [*_row_sums(), *_uncrossed_sums(request)],
            values=_crossed(request), weight="w",
        )  # fmt: skip
        return self._moments(sums, request, shift)

    def _gram_centred(self, df: DataFrame, request: GramRequest) -> pd.DataFrame:
        """In one pass over rows that are looked at for the first time."""
        size = len(request.terms)
        nothing = np.zeros(size)
        rows = self._terms(df, request.terms, None, keys=request.keys, shift=nothing, required=())
        known = rows.withColumns(
            {f"t{i}": F.expr(f"if(n_used = 1, t{i}, CAST(NULL AS DOUBLE))") for i in range(size)}
        )
        moments = {
            "sums": [f"avg(t{i})" for i in range(size)],
            "products": [f"covar_pop(t{i}, t{j})" for i, j in packed_indices(size)],
        }
        found = known.groupBy(*_grouping(request.keys)).agg(
            *_row_sums(),
            *[
                F.expr(f"array({', '.join(f'coalesce({text}, 0D)' for text in of)}) AS {name}")
                for name, of in moments.items()
            ],
        )
        frame = self._collect(found, request.keys, packed_size(size))
        cross = products_of(frame, size) * _weights(frame)[:, None]
        return _gram_frame(frame, request, sums_of(frame, size, n_crossed=size), cross)

    def _gram_of_sums(self, df: DataFrame, request: GramRequest) -> pd.DataFrame:
        """Two levels: sums per cluster, each of which is then a row of weight 1."""
        size = len(request.terms)
        shift = np.zeros(size)
        keys = tuple(dict.fromkeys((*request.keys, *request.summed_by)))
        rows = self._terms(
            df, request.terms, request.weight, keys=keys, shift=shift, required=request.summed_by
        )
        clusters = rows.groupBy(*_grouping(keys)).agg(
            F.count(F.lit(1)).alias("n_rows"),
            F.sum("n_used").alias("n_used_rows"),
            F.min("w").alias("w_min"),
            F.max("w").alias("w_max"),
            *[F.expr(f"sum(w * t{i}) AS t{i}") for i in range(size)],
        )
        # A cluster whose rows all weigh nothing was left out: it is not one that errors count.
        has_rows = (F.col("n_used_rows") > 0) & (F.coalesce(F.col("w_max"), F.lit(0.0)) > 0)
        flagged = clusters.withColumn("w", has_rows.cast("double"))
        others = [
            (F.sum(F.col("n_rows") - F.col("n_used_rows")) + F.count_if(has_rows)).alias("n_all"),
            F.count_if(has_rows).alias("n_used"),
            F.sum("w").alias("w"),
            F.min("w_min").alias("w_min"),
            *_uncrossed_sums(request),
        ]
        sums = crossed(
            flagged, _grouping(request.keys), others, values=_crossed(request), weight="w"
        )
        return self._moments(sums, request, shift)

    def _gram_within(self, df: DataFrame, request: GramRequest) -> pd.DataFrame:
        """Two levels: cross-products per unit less its own mean, then sums over units.

        Many terms that are mostly dummies are summed by cell; see `transforms.within`.
        """
        split = within.Split.of(request)
        cells = self._cells(df, split)
        if cells is not None:
            return self._gram_of_cells(df, split, cells)
        size, keys = len(request.terms), split.keys
        shift = self._preliminary_means(df, request.terms, request)
        rows = self._terms(
            df, request.terms, request.weight, keys=keys, shift=shift, required=keys[:1]
        )
        pairs = list(packed_indices(size))
        units = rows.groupBy(*_grouping(keys)).agg(
            *_row_sums(), *_side_sums(size), *[_side_product(i, j) for i, j in pairs]
        )
        products = [F.expr(f"sum({covariation(f'c{i}_{j}', f's{i}', f's{j}')})") for i, j in pairs]
        sums = units.groupBy(*_grouping(request.by)).agg(
            *[F.sum(name).alias(name) for name in ("n_all", "n_used", "w")],
            F.min("w_min").alias("w_min"),
            F.count_if(F.col("n_used") > 0).alias("n_units"),
            *[F.sum(f"s{i}").alias(f"s{i}") for i in range(size)],
            F.array(*products).cast("array<double>").alias("products"),
        )
        frame = self._collect(sums, request.by, packed_size(size))
        nothing = np.zeros((len(frame), 0))
        mean, _ = centred(sums_of(frame, size), nothing, _weights(frame), shift)
        return _gram_frame(frame, request, mean, products_of(frame, size))

    def _cells(self, df: DataFrame, split: within.Split) -> within.Cells | None:
        """The cells of a split where these make it cheaper; else nothing."""
        size = len(split.request.terms)
        if packed_size(size) <= within.MIN_PRODUCTS or len(split.others) > len(split.dummies):
            return None
        dummies = split.terms(split.dummies)
        keys = (*split.request.by, *split.columns)
        shift = np.zeros(len(dummies))
        rows = self._terms(df, dummies, None, keys=keys, shift=shift, required=split.required)
        frame = collect_if_few(
            within.cells_in(rows, split, self._columns), max_rows=within.MAX_CELLS
        )
        if frame is None:
            return None
        cells = within.found_cells(frame, split)
        return cells if cells.n_sums(split) < packed_size(size) else None

    def _gram_of_cells(
        self, df: DataFrame, split: within.Split, cells: within.Cells
    ) -> pd.DataFrame:
        request, others = split.request, split.terms(split.others)
        shift = self._preliminary_means(df, others, request)
        keys = (*split.keys, *split.columns)
        rows = self._terms(
            df, others, request.weight, keys=keys, shift=shift, required=split.required
        )
        sums = within.sums(rows, split, cells, self._columns)
        frame = self._collect(sums, request.by, n_products(len(cells.levels)))
        return _gram_frame(frame, request, *within.moments(frame, split, cells, shift))

    def _meat(self, df: DataFrame, request: MeatRequest) -> pd.DataFrame:
        size = len(request.scores)
        rows, values = self._valued(df, _sides(request), request.weight, keys=request.cluster)
        pairs = zip(values[::2], values[1::2], strict=True)
        scores = rows.select(
            *_grouping(request.cluster),
            F.lit(1).cast("long").alias("n_all"),
            "n_used",
            *[(F.col("w") * left * right).alias(f"s{i}") for i, (left, right) in enumerate(pairs)],
        )
        if request.cluster:
            scores = _summed(scores, request.cluster, size, counts=("n_all", "n_used"))
        return _meat_frame(self._collect(_outer(scores, size), ()), size)

    def _meat_within(self, df: DataFrame, request: MeatRequest) -> pd.DataFrame:
        """Per unit, the weighted covariation of both sides of each score; then sums by cluster.

        Clusters named by text go by their 64-bit hash: the smallest text of a group cannot be held
        in a hash aggregation, and the sort that would replace it costs ten times as much.
        """
        unit = str(request.absorb)
        if not request.cluster:
            raise DataError("scores within a unit need clusters", allowed=f"cluster: {unit}")
        sides = tuple(dict.fromkeys(_sides(request)))
        at = {side: position for position, side in enumerate(sides)}
        pairs = [(at[score.left], at[score.right]) for score in request.scores]
        keys = tuple(dict.fromkeys((unit, *request.cluster)))
        shift = self._preliminary_means(df, sides, request)
        rows = self._terms(df, sides, request.weight, keys=keys, shift=shift)
        outer = [f"k_{name}" for name in request.cluster if name != unit]
        rows = rows.withColumns(
            {
                f"k_{name}": F.xxhash64(F.col(f"`k_{name}`"))
                for name in request.cluster
                if name != unit and self._columns[name] != "number"
            }
        )
        units = rows.groupBy(*_grouping((unit,))).agg(
            *_row_sums(),
            *[F.min(quoted(name)).alias(name) for name in outer],
            any_changing(outer).alias("n_split"),
            *_side_sums(len(sides)),
            *[_side_product(i, j) for i, j in dict.fromkeys(pairs)],
        )
        counts = ("n_all", "n_used", "n_split")
        scores = units.select(
            *_grouping(request.cluster), *counts,
            *[
                F.expr(f"{covariation(f'c{i}_{j}', f's{i}', f's{j}')} AS p{number}")
                for number, (i, j) in enumerate(pairs)
            ],
        )  # fmt: skip
        scores = scores.withColumnsRenamed({f"p{i}": f"s{i}" for i in range(len(pairs))})
        if outer:
            scores = _summed(scores, request.cluster, len(pairs), counts=counts)
        sums = _outer(scores, len(pairs), extra=(F.sum("n_split").alias("n_split"),))
        frame = self._collect(sums, ())
        n_split = _whole(frame["n_split"].iloc[0])
        if n_split:
            raise DataError(f"a {unit} must lie in one cluster", given=f"{n_split} lie in several")
        return _meat_frame(frame, len(pairs))

    def _key(self, df: DataFrame, request: KeyRequest) -> pd.DataFrame:
        known = all_known(request.key)
        names = _grouping(request.key)
        keyed = df.select(*keys_of(request.key), known.alias("is_known"))
        counted = keyed.groupBy("is_known", *names).agg(F.count(F.lit(1)).alias("n"))
        repeated = F.col("is_known") & (F.col("n") > 1)
        totals = counted.agg(
            F.sum("n").alias("n"),
            F.sum(F.when(~F.col("is_known"), F.col("n"))).alias("n_null"),
            F.count_if("is_known").alias("n_keys"),
            F.count_if(repeated).alias("n_duplicated"),
        )
        row = self._collect(totals, ()).iloc[0]
        examples: list[str] = []
        if row["n_duplicated"] and request.n_examples:
            text = F.concat_ws(", ", *[name.cast("string") for name in names])
            shown = counted.where(repeated).select(text.alias("shown")).orderBy("shown")
            examples = list(self._collect(shown.limit(request.n_examples), ())["shown"])
        answer = {
            "n": _whole(row["n"]), "n_null": _whole(row["n_null"]), "n_keys": _whole(row["n_keys"]),
            "n_duplicated": _whole(row["n_duplicated"]), "examples": examples,
        }  # fmt: skip
        return pd.DataFrame([answer])

    def _terms(
        self,
        df: DataFrame,
        terms: Sequence[Term],
        weight: Term | None,
        *,
        keys: tuple[str, ...],
        shift: np.ndarray,
        required: tuple[str, ...] | None = None,
    ) -> DataFrame:
        """Keys, `n_used`, weights `w` and terms less their shift `t*`."""
        moved = [s for s, term in zip(shift, terms, strict=True) if parts_of(term)]
        given = given_numbers((*terms, *_optional(weight)), moved)
        rows, values = self._valued(df, terms, weight, keys=keys, required=required, given=given)
        shifted = [
            value - given.coefficient(s) if s else value
            for value, s in zip(values, shift, strict=True)
        ]
        named = [value.alias(f"t{i}") for i, value in enumerate(shifted)]
        return rows.select(*_grouping(keys), "n_used", "w", *named)

    def _valued(
        self,
        df: DataFrame,
        terms: Sequence[Term],
        weight: Term | None,
        *,
        keys: tuple[str, ...],
        required: tuple[str, ...] | None = None,
        given: GivenNumbers = WRITTEN_OUT,
    ) -> tuple[DataFrame, list[SparkColumn]]:
        """Rows with what the terms are made of, and the terms over these rows.

        Each column, indicator and event-time dummy is evaluated once, and so is what terms share. A
        row that lacks something has weight 0, and its parts are 0; so is a part without a value,
        such as whether a number is a date.

        Args:
            df: The source's rows.
            terms: The terms.
            weight: Weight of a row.
            keys: Columns to keep.
            required: Keys without which a row is not used; all of them if left out.
            given: Numbers that lie beside the rows.
        """
        asked = (*terms, *_optional(weight))
        needed = frozenset().union(*map(required_columns, asked))
        used = all_known([*needed, *(keys if required is None else required)])
        parts = leaves(asked)
        named = df.select(
            *keys_of(keys),
            used.cast("long").alias("n_used"),
            *[
                or_zero(used, F.coalesce(compiled(part, self._columns), F.lit(0.0))).alias(f"a{i}")
                for i, part in enumerate(parts)
            ],
        )
        rows = given.beside(named)
        is_used = F.col("n_used") == 1
        held: Mapping[Term, SparkColumn] = {part: F.col(f"a{i}") for i, part in enumerate(parts)}
        rows, held = with_shared(rows, asked, held, where=is_used, given=given)
        weights = F.lit(1.0) if weight is None else compiled(weight, {}, held, given)
        w = or_zero(is_used, F.coalesce(weights, F.lit(0.0)))
        values = [compiled(term, {}, held, given) for term in terms]
        return rows.withColumn("w", w), values

    def _preliminary_means(
        self, df: DataFrame, terms: Sequence[Term], request: GramRequest | MeatRequest
    ) -> np.ndarray:
        """Rough means from a few rows, rounded so that shifted whole numbers stay exact.

        Means and spreads of the parts are carried through the terms: near enough, and a pass over
        parts compiles in a fraction of the time. Parts of the same rows are looked at once; what
        the request knows is not looked at.
        """
        if isinstance(request, GramRequest) and request.near and terms == request.terms:
            held = {term: spread for term, (_, spread) in zip(terms, request.near, strict=True)}
            return _shifts(terms, [mean for mean, _ in request.near], held)
        found = atoms(term for term in terms if not is_zero_one(term))
        parts = tuple(part for part in found if not is_heavy_tailed(part))
        if not parts:
            return np.zeros(len(terms))
        # Where something else is missing a function may have no value, such as 1 / 0.
        needed = frozenset().union(*map(required_columns, (*terms, *_optional(request.weight))))
        asked = (parts, request.where, needed)
        if asked not in self._rough:
            self._rough[asked] = self._rough_moments(df, parts, used=all_known(needed))
        moments = self._rough[asked]
        means = dict.fromkeys(found, 0.0)
        means |= {part: mean for part, (mean, _) in zip(parts, moments, strict=True)}
        # Terms of zeros and ones have parts that were not looked at.
        values = [0.0 if is_zero_one(term) else value_at(term, means) for term in terms]
        spreads = {part: spread for part, (_, spread) in zip(parts, moments, strict=True)}
        return _shifts(terms, values, spreads)

    def _rough_moments(
        self, df: DataFrame, parts: Sequence[Term], *, used: SparkColumn
    ) -> _Moments:
        values = [
            F.when(used, compiled(part, self._columns)).alias(f"t{i}")
            for i, part in enumerate(parts)
        ]
        sample = df.select(*values).limit(_SAMPLE_ROWS)
        moments = [
            moment(f"t{i}").alias(f"{name}{i}")
            for i in range(len(parts))
            for name, moment in (("mean", F.avg), ("spread", F.stddev_pop))
        ]
        row = self._collect(sample.agg(*moments), ()).iloc[0]
        return [(_finite(row[f"mean{i}"]), _finite(row[f"spread{i}"])) for i in range(len(parts))]

    def _moments(self, sums: DataFrame, request: GramRequest, shift: np.ndarray) -> pd.DataFrame:
        """The answer to a request from sums of shifted terms and of their products."""
        size = len(_crossed(request))
        frame = self._collect(sums, request.keys, n_products(size))
        sums_ = sums_of(frame, len(request.terms), n_crossed=size)
        mean, cross = centred(sums_, products_of(frame, size), _weights(frame), shift)
        return _gram_frame(frame, request, mean, cross)

    def _collect(self, df: DataFrame, keys: Sequence[str], n_products: int = 0) -> pd.DataFrame:
        return collect_bounded(
            df,
            max_rows=self._limits.rows(len(df.columns) + n_products),
            what=f"an aggregate by {', '.join(keys)}" if keys else "an aggregate",
            keys=[f"k_{name}" for name in keys],
        )


def _sides(request: MeatRequest) -> tuple[Term, ...]:
    return tuple(side for score in request.scores for side in (score.left, score.right))


def _optional(weight: Term | None) -> tuple[Term, ...]:
    return () if weight is None else (weight,)


def _grouping(names: Sequence[str]) -> list[SparkColumn]:
    return [F.col(f"`k_{name}`") for name in names]


def _row_sums() -> list[SparkColumn]:
    return [
        F.count(F.lit(1)).alias("n_all"),
        F.sum("n_used").alias("n_used"),
        F.sum("w").alias("w"),
        F.min("w").alias("w_min"),
    ]


# The many sums are SQL text over the names above: each is one call to the JVM in place of ten.


def _side_sums(size: int) -> list[SparkColumn]:
    return [F.expr(f"sum(w * t{i}) AS s{i}") for i in range(size)]


def _side_product(i: int, j: int) -> SparkColumn:
    return F.expr(f"sum(w * t{i} * t{j}) AS c{i}_{j}")


def _uncrossed_sums(request: GramRequest) -> list[SparkColumn]:
    """Sums of the terms where no cross-products bring them."""
    return _side_sums(len(request.terms)) if request.crossed == "none" else []


def _is_centred_by_spark(request: GramRequest) -> bool:
    few = 0 < len(request.terms) <= _MAX_CENTRED
    return few and request.weight is None and request.crossed == "all"


def _crossed(request: GramRequest) -> list[str]:
    """Names of the terms that have cross-products."""
    return [f"t{i}" for i in range(len(request.terms))] if request.crossed == "all" else []


def _summed(
    scores: DataFrame, cluster: Sequence[str], size: int, *, counts: Sequence[str]
) -> DataFrame:
    names = [*counts, *[f"s{i}" for i in range(size)]]
    return scores.groupBy(*_grouping(cluster)).agg(*[F.sum(name).alias(name) for name in names])


def _outer(scores: DataFrame, size: int, *, extra: tuple[SparkColumn, ...] = ()) -> DataFrame:
    """Sums over clusters of outer products of their score sums."""
    others = [
        F.sum("n_all").alias("n_all"),
        F.sum("n_used").alias("n_used"),
        F.count_if(F.col("n_used") > 0).alias("n_clusters"),
        *extra,
    ]
    return crossed(scores, [], others, values=[f"s{i}" for i in range(size)])


def _meat_frame(frame: pd.DataFrame, size: int) -> pd.DataFrame:
    row = frame.iloc[0]
    n = _whole(row["n_used"])
    answer = {
        "n": n, "n_missing": _whole(row["n_all"]) - n, "n_clusters": _whole(row["n_clusters"]),
        "cross": products_of(frame, size)[0] if n else np.zeros(packed_size(size)),
    }  # fmt: skip
    return pd.DataFrame([answer])


def _gram_frame(
    frame: pd.DataFrame,
    request: GramRequest,
    mean: np.ndarray,
    cross: np.ndarray,
) -> pd.DataFrame:
    """The answer to a Gram request from collected counts and moments of each key."""
    answer = pd.DataFrame({name: frame[f"k_{name}"] for name in request.keys}, index=frame.index)
    answer = answer.assign(
        n=frame["n_used"], n_missing=frame["n_all"] - frame["n_used"],
        n_units=frame["n_units"] if request.absorb else 0,
        sum_weights=_weights(frame), mean=list(mean), cross=list(cross),
    )  # fmt: skip
    held = frame["n_all"] > 0
    lowest = frame.loc[held, "w_min"]
    if (lowest < 0).any():
        raise DataError("weights must not be negative", given=f"{lowest.min():g}")
    counts = dict.fromkeys(("n", "n_missing", "n_units"), "int64")
    return answer[held].astype(counts).reset_index(drop=True)


def _weights(frame: pd.DataFrame) -> np.ndarray:
    return frame["w"].to_numpy(dtype=np.float64)


def _finite(value: float | None) -> float:
    """The value; 0 where there is none or it is not finite."""
    return float(value) if value is not None and math.isfinite(value) else 0.0


def _shifts(
    terms: Sequence[Term], means: Iterable[float], spreads: Mapping[Term, float]
) -> np.ndarray:
    """What is taken off each term: its rough mean, in steps that suit the narrowest of `spreads`.

    A key may be narrower than all keys together, so steps are not those of a term's own spread. A
    term without any is shifted by its mean: nothing remains of it.
    """
    narrowest = min((spread for spread in spreads.values() if spread > 0), default=0.0)
    return np.array(
        [
            0.0 if is_zero_one(term) else _near(mean, narrowest if spreads.get(term, 1.0) else 0.0)
            for term, mean in zip(terms, means, strict=True)
        ]
    )


def _near(mean: float, spread: float) -> float:
    """The mean rounded to a quarter of the spread; itself if there is none, or next to none.

    The step is a power of two, so whole numbers shifted by it keep exact sums.
    """
    if spread == 0:
        return mean
    step = 2.0 ** math.frexp(spread)[1] / _SHIFT_STEPS
    n_steps = mean / step
    return round(n_steps) * step if math.isfinite(n_steps) else mean


def _whole(value: object) -> int:
    """A count from an aggregate; an aggregate of no rows is null, which counts nothing."""
    return 0 if pd.isna(value) else int(value)  # type: ignore[call-overload]
