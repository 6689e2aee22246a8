"""Requests for aggregated frames: what a method may ask of the data, declared as frozen values.

A request holds no SQL and no data. The Spark engine compiles it to column expressions, the pandas
engine evaluates it on rows, the stored-Gram engine answers it from a table that was aggregated
before. Because requests are plain values they hash, compare, print and travel as JSON.

Missing values: a row with a null in any term, weight or score of a request is not used and is
counted in `n_missing` of the answer.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pandas as pd

Level = str | int | float | bool


@dataclass(frozen=True)
class Column:
    """A numeric or boolean column, read as a double."""

    name: str


@dataclass(frozen=True)
class Constant:
    """The same value in every row; 1 is the intercept."""

    value: float = 1.0


@dataclass(frozen=True)
class Indicator:
    """1 where `column` equals `level`, 0 elsewhere, missing where the column is null."""

    column: str
    level: Level


@dataclass(frozen=True)
class EventTime:
    """1 where `low <= period - first_treated_period <= high`, 0 elsewhere and if never treated.

    A null `first_treated_period` means never treated, so the value is 0 and not missing. `None`
    leaves a side open: `EventTime(p, g, low=0)` is the treatment dummy of a staggered design.
    """

    period: str
    first_treated_period: str
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class Product:
    """The product of its factors; missing where any factor is."""

    factors: tuple["Term", ...]


@dataclass(frozen=True)
class Linear:
    """The sum of `coefficient * term`; missing where any term is."""

    terms: tuple["Term", ...]
    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class Mapped:
    """A function of one other term; missing where that is."""

    term: "Term"


@dataclass(frozen=True)
class Clipped(Mapped):
    """A term whose values below `low` are set to `low`, those above `high` to `high`.

    `None` leaves a side open; missing where the term is.
    """

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Logistic(Mapped):
    """`1 / (1 + exp(-term))`; missing where the term is."""


@dataclass(frozen=True)
class Exponential(Mapped):
    """`exp(term)`; missing where the term is."""


@dataclass(frozen=True)
class Reciprocal(Mapped):
    """`1 / term`; missing where the term is. The caller sees to it that the term is never 0."""


@dataclass(frozen=True)
class SquareRoot(Mapped):
    """`sqrt(term)`; missing where the term is, NaN where it is negative."""


@dataclass(frozen=True)
class Between(Mapped):
    """1 where `low <= term < high` (`<=` if `is_closed`), 0 elsewhere; missing where the term is.

    `None` leaves a side open.
    """

    low: float | None = None
    high: float | None = None
    is_closed: bool = True


@dataclass(frozen=True)
class HashBucket:
    """A random part of the rows: those whose `column` has the same hash, up to `n_buckets`.

    Rows with the same value lie in the same bucket; a null has none, which is a key of its own.
    Numbers are hashed by their value, whole ones alike whatever their type, text by its bytes.
    As a term it is the number of the row's bucket, missing where there is none.

    Attributes:
        column: What is hashed: a unit or a cluster, a column of numbers, flags or text.
        n_buckets: Buckets are numbered from 0 to `n_buckets - 1`.
        salt: Another salt is another, independent way to part the rows.
    """

    column: str
    n_buckets: int
    salt: int = 0


@dataclass(frozen=True)
class UnitValue:
    """A value of a unit: number `at` of its T outcomes and, after them, p covariates.

    Only in the `values` of a panel request, whose units it reads.
    """

    at: int


@dataclass(frozen=True)
class UnitSeen:
    """1 for units seen in period number `at`, 0 for others.

    Only in the `values` of a panel request, whose units it reads.
    """

    at: int


@dataclass(frozen=True)
class StartsIn:
    """1 for units whose first treated period is `start`, 0 for others and the never treated.

    Only in the `values` of a panel request, whose units it reads.
    """

    start: float


MappedTerm = Clipped | Logistic | Exponential | Reciprocal | SquareRoot | Between
"""The kinds of `Mapped`."""

Term = (
    Column
    | Constant
    | Indicator
    | EventTime
    | Product
    | Linear
    | MappedTerm
    | HashBucket
    | UnitValue
    | UnitSeen
    | StartsIn
)


@dataclass(frozen=True)
class Condition:
    """Keeps the rows in which `column` is one of `values`."""

    column: str
    values: tuple[Level, ...]


_SINCE_STORED = {"left out": "at its default"}
"""Marks fields younger than stored frames, whose requests keep the text they were stored under."""

BUCKET = "(bucket)"
"""Name of the key that a `HashBucket` adds to an answer; no column has brackets by accident."""


@dataclass(frozen=True, kw_only=True)
class GramRequest:
    """Count, means and centred cross-products of terms, by key.

    Answer, one row per combination of `by` (a null key is a key of its own):
        the key columns; `n` rows used; `n_missing` rows left out; `n_units` absorbed groups (0 when
        nothing is absorbed); `sum_weights`; `mean`, p weighted means; `cross`, the packed upper
        triangle (row by row, p(p+1)/2 values) of the weighted cross-product matrix, centred on
        `mean`, or on each absorbed unit's own mean when `absorb` is given.

    Attributes:
        terms: The p terms, in the order of the answer's arrays. May be empty: counts only.
        by: Key columns.
        weight: Weight of a row; `None` weighs every row 1.
        absorb: Column whose fixed effects are swept out. The keys must be constant within it.
        where: Conditions that all must hold.
        bucket: A further key, called `BUCKET`; not with `absorb`.
        summed_by: Columns whose combinations are clusters, each of which counts as one row: the
            weighted sums of its rows' terms. `n` and `sum_weights` then count clusters (with at
            least one row used); one that has rows under several keys counts under each. Sums of
            large values lose digits: take deviations from a constant near their mean. Not with
            `absorb`.
        crossed: Which terms have cross-products: `all`, or `none`: `cross` then has no entries.
            Not with `absorb`.
        near: Mean and spread of each term, roughly, where the caller knows them: the same answer,
            for which an engine need not look at the rows beforehand (with `summed_by` none does).
            A mean that is wrong by k spreads costs 2 log10(k) digits. Empty: nothing is known.
    """

    terms: tuple[Term, ...]
    by: tuple[str, ...] = ()
    weight: Term | None = None
    absorb: str | None = None
    where: tuple[Condition, ...] = ()
    bucket: HashBucket | None = None
    summed_by: tuple[str, ...] = ()
    crossed: Literal["all", "none"] = dataclasses.field(default="all", metadata=_SINCE_STORED)
    near: tuple[tuple[float, float], ...] = dataclasses.field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Absorbed units have an aggregation of their own; what is near belongs to terms."""
        if self.near and len(self.near) != len(self.terms):
            raise ValueError(f"{len(self.near)} rough means of {len(self.terms)} terms")
        if not all(math.isfinite(m) and 0 <= spread < math.inf for m, spread in self.near):
            raise ValueError(f"rough means and spreads must be finite: {self.near}")
        if self.absorb is not None and (self.bucket is not None or self.summed_by):
            raise ValueError("a request with absorb has neither bucket nor summed_by")
        if self.absorb is not None and self.crossed == "none":
            raise ValueError("a request with absorb is of cross-products")

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the key columns of the answer."""
        return self.by if self.bucket is None else (*self.by, BUCKET)


@dataclass(frozen=True)
class Score:
    """One component of the estimating equation: the product `left * right`.

    With an absorbed unit both factors are taken as deviations from the unit's weighted mean.
    """

    left: Term
    right: Term


@dataclass(frozen=True, kw_only=True)
class MeatRequest:
    """Sum over clusters of the outer product of cluster sums of scores.

    Answer, one row: `n`, `n_missing`, `n_clusters`, and `cross`, the packed upper triangle of
    `sum_g s_g s_g'` with `s_g = sum_{i in g} weight_i * left_i * right_i`.

    Attributes:
        scores: The p scores.
        cluster: Columns whose combinations are the clusters; empty: every row is its own cluster.
        weight: Weight of a row, applied once to each score.
        absorb: Column whose fixed effects are swept out; each unit must lie in one cluster.
        where: Conditions that all must hold.
    """

    scores: tuple[Score, ...]
    cluster: tuple[str, ...] = ()
    weight: Term | None = None
    absorb: str | None = None
    where: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PanelGramRequest:
    """Means and centred cross-products of the outcome paths of units observed in every period.

    Answer, one row per cohort and combination of `by`:
        `first_treated_period` (null: never treated); the key columns; `periods`, the T periods in
        ascending order; `n` units in the sums; `n_incomplete` units that lack some period, which
        are in the sums only if `units` says so; `n_missing` rows with a null outcome or covariate;
        `mean` (S); `cross`, the packed upper triangle of the S x S cross-product matrix centred on
        `mean` (see `crossed`).

    The S = T values of a unit are its outcomes. With p covariates there are, in this order, T
    outcomes, p covariates, p x T products of a covariate and an outcome (covariate by covariate),
    and p(p+1)/2 products of two covariates (packed). `values` asks for others instead.

    Attributes:
        unit: Column of the unit; one row per unit and period, or the engine raises `DataError`.
        period: Numeric column of the period.
        outcome: The outcome.
        first_treated_period: Column, constant within a unit; `None`: all units form one cohort.
        by: Further key columns, constant within a unit.
        covariates: Terms that are constant within a unit, near zero and of size one for the sake
            of their products; the engine raises `DataError` where they change.
        values: S terms made of `UnitValue`, `UnitSeen`, `StartsIn` and constants, in place of the
            products; none: the S values above. Their sums are taken as they stand: values far from
            zero for their spread lose digits.
        crossed: Which values have cross-products: `all`, the outcome `paths` (the first T values;
            not with `values`), or `none`: `cross` then has no entries.
        where: Conditions that all must hold.
        units: Which units are in the sums, counted by `n`: the `complete` ones, or all that are
            `seen` in some period, with outcome 0 where they are not (only with `values`).
    """

    unit: str
    period: str
    outcome: Term
    first_treated_period: str | None = None
    by: tuple[str, ...] = ()
    covariates: tuple[Term, ...] = ()
    values: tuple[Term, ...] = ()
    crossed: Literal["all", "paths", "none"] = "all"
    where: tuple[Condition, ...] = ()
    units: Literal["complete", "seen"] = dataclasses.field(
        default="complete", metadata=_SINCE_STORED
    )

    def __post_init__(self) -> None:
        """Values of the caller's own hold no path that could be told from the rest."""
        if self.values and self.crossed == "paths":
            raise ValueError("a panel request with values crosses all of them, or none")
        if self.units == "seen" and not self.values:
            raise ValueError("a panel request of all units seen needs values")

    def n_values(self, n_periods: int) -> int:
        """S, the values of a unit, where there are so many periods."""
        p = len(self.covariates)
        return len(self.values) or n_periods * (1 + p) + p + packed_size(p)

    def n_crossed(self, n_periods: int) -> int:
        """How many values, from the first on, have cross-products."""
        sizes = {"all": self.n_values(n_periods), "paths": n_periods, "none": 0}
        return sizes[self.crossed]


@dataclass(frozen=True, kw_only=True)
class KeyRequest:
    """Are these columns a key? Nulls in a key count as violations.

    Answer, one row: `n` rows; `n_null` rows with a null in a key column; `n_keys` key values;
    `n_duplicated` those that occur more than once; `examples`, some of these as text.

    Attributes:
        key: The columns.
        where: Conditions that all must hold.
        n_examples: How many examples to give at most.
    """

    key: tuple[str, ...]
    where: tuple[Condition, ...] = ()
    n_examples: int = 5


@dataclass(frozen=True, kw_only=True)
class HistogramRequest:
    """How many rows have a value between edges, by key: what quantiles are found from.

    Bin k holds the values with exactly k edges below them, so those in
    `(edges[k - 1], edges[k]]`. Histograms of disjoint rows with the same edges add up.

    Answer, one row per combination of the keys:
        the key columns; `n` rows with a value; `n_missing` rows without; `bins`, the numbers of the
        b bins that hold rows, ascending; `counts`, their rows; `lowest` and `highest`, the smallest
        and largest value in each of them.

    Attributes:
        term: The values.
        edges: Ascending, no two equal; none: one bin.
        by: Key columns.
        where: Conditions that all must hold.
        bucket: A further key, called `BUCKET`.
    """

    term: Term
    edges: tuple[float, ...] = ()
    by: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    bucket: HashBucket | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the key columns of the answer."""
        return self.by if self.bucket is None else (*self.by, BUCKET)


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """Some rows themselves, for learners whose fit no aggregate gives.

    The `max_rows` rows whose hashed `unit` is smallest: the same ones on every engine, in every
    order of rows and however they are spread, and a simple random sample as far as anything else
    is concerned. Rows with a null in `unit` or `known` are not drawn.

    Answer, one row per row drawn, by ascending hash:
        the columns `numbers` as doubles (NaN where missing), then `labels` as text (null where
        missing), and the key of `bucket`, if there is one.

    Attributes:
        unit: Column whose values identify a row.
        max_rows: Most rows that are drawn; the engine's own limit holds besides.
        numbers: Columns of numbers or flags.
        labels: Columns of levels.
        known: Columns that a row must have a value of.
        salt: Another salt is another sample.
        bucket: A further column of the answer, called `BUCKET`: the part that a row lies in.
        where: Conditions that all must hold.
    """

    unit: str
    max_rows: int
    numbers: tuple[str, ...]
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    salt: int = 0
    bucket: HashBucket | None = None
    where: tuple[Condition, ...] = ()

    @property
    def order(self) -> HashBucket:
        """The hash that rows are drawn by."""
        return HashBucket(self.unit, _ALL_HASHES, salt=self.salt)


_ALL_HASHES = 2**62

FrameRequest = (
    GramRequest | MeatRequest | PanelGramRequest | KeyRequest | HistogramRequest | SampleRequest
)


@dataclass(frozen=True)
class FromSource:
    """A request to another table than that of the analysis.

    Attributes:
        source: The option of the spec that names the table, such as `history`.
        request: What is asked of it.
    """

    source: str
    request: FrameRequest


class Engine(Protocol):
    """Answers requests on one data source."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Column names and kinds: "number", "boolean", "string", "date" or "other"."""

    def __call__(self, request: FrameRequest) -> pd.DataFrame:
        """The frame that the request describes."""


def indicator_terms(column: str, levels: Iterable[Level]) -> tuple[Indicator, ...]:
    """One indicator per level."""
    return tuple(Indicator(column, level) for level in levels)


def same_level(one: Level | None, other: Level | None) -> bool:
    """Whether two levels are one value: 1, 1.0, true and '1' are."""
    if one is None or other is None:
        return one is other
    return _plain(one) == _plain(other)


def _plain(level: Level) -> str | float:
    text = str(level).lower()
    if text in {"true", "false"}:
        return float(text == "true")
    try:
        number = float(text)
    except ValueError:
        return str(level)
    return text if math.isnan(number) else number


def linear(pairs: Iterable[tuple[Term, float]]) -> Linear:
    """A linear combination from (term, coefficient) pairs."""
    items = tuple(pairs)
    return Linear(tuple(term for term, _ in items), tuple(float(c) for _, c in items))


def packed_size(n_terms: int) -> int:
    """Length of a packed upper triangle."""
    return n_terms * (n_terms + 1) // 2


def packed_indices(n_terms: int) -> Iterator[tuple[int, int]]:
    """The (row, column) pairs of a packed upper triangle, in order."""
    return ((i, j) for i in range(n_terms) for j in range(i, n_terms))


def columns_of(item: object) -> frozenset[str]:
    """The names of all columns that a term, condition or request reads."""
    return frozenset(_columns(item))


def buckets_of(item: object) -> frozenset[HashBucket]:
    """All hash buckets of a term or request."""
    own = frozenset((item,)) if isinstance(item, HashBucket) else frozenset[HashBucket]()
    return own.union(*(buckets_of(part) for part in _parts(item)))


def starts_of(item: object) -> frozenset[StartsIn]:
    """The cohorts that a term or request names."""
    own = frozenset((item,)) if isinstance(item, StartsIn) else frozenset[StartsIn]()
    return own.union(*(starts_of(part) for part in _parts(item)))


def numeric_columns_of(item: object) -> frozenset[str]:
    """The names of the columns that must hold numbers (or booleans)."""
    return frozenset(_numeric_columns(item))


def required_columns(term: Term) -> frozenset[str]:
    """The columns without whose value a term is missing."""
    match term:
        case EventTime(period, _, _, _):
            return frozenset({period})
        case Product(parts) | Linear(parts, _):
            return frozenset().union(*(required_columns(part) for part in parts))
        case Mapped(inner):
            return required_columns(inner)
        case _:
            return columns_of(term)


def _columns(item: object) -> Iterator[str]:
    yield from _own_columns(item)
    for part in _parts(item):
        yield from _columns(part)


def _own_columns(item: object) -> Iterator[str]:  # noqa: C901 - one per kind
    match item:
        case Column(name) | Indicator(name, _) | Condition(name, _):
            yield name
        case EventTime(period, first, _, _):
            yield from (period, first)
        case GramRequest(by=by, absorb=absorb, summed_by=summed_by):
            yield from (*by, *summed_by)
            yield from _optional(absorb)
        case MeatRequest(cluster=cluster, absorb=absorb):
            yield from cluster
            yield from _optional(absorb)
        case HashBucket(column=column):
            yield column
        case PanelGramRequest(unit=unit, period=period, first_treated_period=first, by=by):
            yield from (unit, period, *by)
            yield from _optional(first)
        case KeyRequest(key=key):
            yield from key
        case HistogramRequest(by=by):
            yield from by
        case SampleRequest(unit=unit, numbers=numbers, labels=labels, known=known):
            yield from (unit, *numbers, *labels, *known)


def _numeric_columns(item: object) -> Iterator[str]:
    match item:
        case Column(name):
            yield name
        case EventTime(period, first, _, _):
            yield from (period, first)
        case PanelGramRequest(period=period, first_treated_period=first):
            yield period
            yield from _optional(first)
        case SampleRequest(numbers=numbers):
            yield from numbers
    for part in _parts(item):
        yield from _numeric_columns(part)


def _optional(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def parts_of(term: Term | Mapped) -> tuple[Term, ...]:
    """The terms that a term is a product, sum or function of."""
    match term:
        case Product(parts) | Linear(parts, _):
            return parts
        case Mapped(inner):
            return (inner,)
        case _:
            return ()


def _parts(item: object) -> tuple[object, ...]:  # noqa: PLR0911 - one per kind
    match item:
        case Product() | Linear() | Mapped():
            return parts_of(item)
        case Score(left, right):
            return (left, right)
        case (
            GramRequest(terms=parts, weight=weight, where=where)
            | MeatRequest(scores=parts, weight=weight, where=where)
        ):
            return (*parts, weight, *where, getattr(item, "bucket", None))
        case PanelGramRequest(outcome=outcome, covariates=held, values=values, where=where):
            return (outcome, *held, *values, *where)
        case HistogramRequest(term=term, where=where, bucket=bucket):
            return (term, *where, bucket)
        case KeyRequest(where=where):
            return where
        case SampleRequest(where=where, bucket=bucket):
            return (*where, bucket)
        case _:
            return ()


def label(term: Term) -> str:  # noqa: C901, PLR0911 - one per kind
    """A short text for messages and progress lines."""
    match term:
        case Column(name):
            return name
        case Constant(value):
            return f"{value:g}"
        case Indicator(column, level):
            return f"[{column}={level}]"
        case HashBucket(column, n_buckets):
            return f"[bucket of {column}, 1 of {n_buckets:,}]"
        case EventTime(_, first, low, high):
            return f"[{'' if low is None else low}..{'' if high is None else high} from {first}]"
        case Product(factors):
            return "*".join(label(factor) for factor in factors)
        case Linear(terms, _):
            return f"({' + '.join(label(part) for part in terms)})"
        case UnitValue(at):
            return f"[value {at}]"
        case UnitSeen(at):
            return f"[seen {at}]"
        case StartsIn(start):
            return f"[starts in {start:g}]"
        case _:
            return _mapped_label(term)


def _mapped_label(term: MappedTerm) -> str:
    inner = label(term.term)
    match term:
        case Clipped(_, low, high):
            return f"{inner} within {_ends(low, high)}"
        case Logistic():
            return f"logistic {inner}"
        case Exponential():
            return f"exp {inner}"
        case Reciprocal():
            return f"1 / {inner}"
        case SquareRoot():
            return f"root {inner}"
        case Between(_, low, high):
            return f"[{inner} in {_ends(low, high)}]"


def _ends(low: float | None, high: float | None) -> str:
    return f"{'' if low is None else f'{low:g}'}..{'' if high is None else f'{high:g}'}"


def describe(request: FrameRequest) -> str:
    """One line for progress, such as `meat, 12 scores by region`."""
    match request:
        case GramRequest(terms=terms, by=by, absorb=absorb, bucket=bucket, summed_by=summed_by):
            within = f" within {absorb}" if absorb else ""
            sums = f", sums{_by(summed_by)}" if summed_by else ""
            name = "gram" if request.crossed == "all" else "means"
            return f"{name}, {len(terms)} terms{within}{_by(by)}{_in_buckets(bucket)}{sums}"
        case MeatRequest(scores=scores, cluster=cluster, absorb=absorb):
            within = f" within {absorb}" if absorb else ""
            return f"meat, {len(scores)} scores{within}{_by(cluster)}"
        case PanelGramRequest(unit=unit, period=period, outcome=outcome, by=by, covariates=held):
            given = f" and {len(held)} covariates" if held else ""
            shown = f"panel gram of {label(outcome)}{given}"
            if request.values:
                shown = f"{len(request.values)} values of paths of {label(outcome)}"
            return f"{shown}, {unit} x {period}{_by(by)}"
        case KeyRequest(key=key):
            return f"key check of {', '.join(key)}"
        case SampleRequest(max_rows=max_rows, numbers=numbers, labels=labels):
            return f"sample of {max_rows:,} rows, {len(numbers) + len(labels)} columns"
        case HistogramRequest(term=term, edges=edges, by=by, bucket=bucket):
            bins = f"{len(edges) + 1} bins{_by(by)}{_in_buckets(bucket)}"
            return f"histogram of {label(term)}, {bins}"


def _by(keys: tuple[str, ...]) -> str:
    return f" by {', '.join(keys)}" if keys else ""


def _in_buckets(bucket: HashBucket | None) -> str:
    return f" in {bucket.n_buckets:,} buckets of {bucket.column}" if bucket else ""


_TYPES: Mapping[str, Callable[..., Any]] = {
    kind.__name__: kind
    for kind in (
        Column, Constant, Indicator, EventTime, Product, Linear, Clipped, Logistic, Exponential,
        Reciprocal, SquareRoot, Between, UnitValue, UnitSeen, StartsIn, Condition, Score,
        HashBucket, GramRequest, MeatRequest, PanelGramRequest, KeyRequest, HistogramRequest,
        SampleRequest,
    )
}  # fmt: skip


def encode(item: object) -> Any:
    """Terms and requests as JSON-ready values; `decode` is the inverse."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        # What does not tell requests apart is no part of them.
        values = [(f, getattr(item, f.name)) for f in dataclasses.fields(item) if f.compare]
        fields = {f.name: encode(v) for f, v in values if not f.metadata or v != f.default}
        return {"kind": type(item).__name__, **fields}
    if isinstance(item, tuple):
        return [encode(part) for part in item]
    if isinstance(item, float) and not math.isfinite(item):
        raise ValueError(f"a request cannot hold {item}")
    return item


def decode(value: Any) -> Any:
    """The term or request that `encode` wrote."""
    if isinstance(value, list):
        return tuple(decode(part) for part in value)
    if isinstance(value, dict):
        fields = {name: decode(part) for name, part in value.items() if name != "kind"}
        return _TYPES[value["kind"]](**fields)
    return value


def fingerprint(request: FrameRequest) -> str:
    """Content hash of a request: equal requests have equal fingerprints."""
    text = json.dumps(encode(request), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


ColumnKind = Literal["number", "boolean", "string", "date", "other"]
