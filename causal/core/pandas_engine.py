"""Answers requests on a pandas frame: the reference the Spark engine is compared with.

It serves small data in notebooks, and certificates on bucket frames. In pandas a NaN is a missing
value, so rows with NaN are left out and counted, as rows with nulls are in Spark.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types
from scipy import special

from causal.core.buckets import bucket_numbers
from causal.core.errors import DataError
from causal.core.frames import (
    BUCKET,
    Between,
    Clipped,
    Column,
    ColumnKind,
    Condition,
    Constant,
    EventTime,
    Exponential,
    FrameRequest,
    GramRequest,
    HashBucket,
    HistogramRequest,
    Indicator,
    KeyRequest,
    Level,
    Linear,
    Logistic,
    Mapped,
    MappedTerm,
    MeatRequest,
    PanelGramRequest,
    Product,
    Reciprocal,
    SampleRequest,
    SquareRoot,
    StartsIn,
    Term,
    UnitSeen,
    UnitValue,
    columns_of,
    packed_indices,
    starts_of,
)
from causal.core.gram import HISTOGRAM_COLUMNS, Array, pack

_Rows = NDArray[np.bool_]


class PandasEngine:
    """An engine on a frame of rows; the frame is not changed.

    Args:
        frame: Unit rows or panel rows.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self._columns: Mapping[str, ColumnKind] = {
            str(name): _kind(frame[name]) for name in frame.columns
        }

    @property
    def columns(self) -> Mapping[str, str]:
        """Column names and kinds."""
        return self._columns

    def __call__(self, request: FrameRequest) -> pd.DataFrame:
        """The frame that the request describes."""
        rows = _filtered(self._frame, request.where)
        # Infinite values make the sums NaN, which whoever reads the answer refuses by name.
        with np.errstate(invalid="ignore", over="ignore"):
            return _answer(rows, request)


def _answer(rows: pd.DataFrame, request: FrameRequest) -> pd.DataFrame:
    match request:
        case GramRequest():
            return _gram(rows, request)
        case MeatRequest():
            return _meat(rows, request)
        case PanelGramRequest():
            return _panel_gram(rows, request)
        case KeyRequest():
            return _key(rows, request)
        case HistogramRequest():
            return _histogram(rows, request)
        case SampleRequest():
            return _sample(rows, request)


def evaluate(frame: pd.DataFrame, term: Term, *, known: dict[Term, Array] | None = None) -> Array:
    """Values of a term, one per row; NaN where missing.

    Args:
        frame: The rows.
        term: The term.
        known: Values found so far on the same rows; combinations share their parts.
    """
    known = {} if known is None else known
    if term not in known:
        known[term] = _evaluate(frame, term, known)
    return known[term]


def _evaluate(  # noqa: C901, PLR0911 - one per kind of term
    frame: pd.DataFrame, term: Term, known: dict[Term, Array]
) -> Array:
    match term:
        case Column(name):
            return np.asarray(frame[name].astype("float64"), dtype=np.float64)
        case Constant(value):
            return np.full(len(frame), value)
        case Indicator(column, level):
            column_ = frame[column]
            return np.where(column_.isna(), np.nan, _among(column_, (level,)).astype(np.float64))
        case EventTime():
            return _event_time(frame, term)
        case HashBucket(column):
            numbers = bucket_numbers(frame[column], term)
            return np.where(numbers < 0, np.nan, numbers.astype(np.float64))
        case Mapped(inner):
            return _mapped(term, evaluate(frame, inner, known=known))
        case Product(factors):
            values = [evaluate(frame, factor, known=known) for factor in factors]
            return _infinite_kept(np.prod(values, axis=0), values)
        case Linear(terms, coefficients):
            values = [evaluate(frame, part, known=known) for part in terms]
            parts = [c * value for value, c in zip(values, coefficients, strict=True)]
            return _infinite_kept(np.sum(parts, axis=0), values)
        case UnitValue() | UnitSeen() | StartsIn():
            raise TypeError(f"{term} is a value of a unit, not of a row")


def _mapped(term: MappedTerm, values: Array) -> Array:  # noqa: C901 - one per kind of term
    """A term that is a function of one other; NaN stays NaN."""
    match term:
        case Clipped(_, low, high):
            return values if low is None and high is None else np.clip(values, low, high)
        case Logistic():
            return np.asarray(special.expit(values), dtype=np.float64)
        case Exponential():
            return np.exp(values)
        case Reciprocal():
            with np.errstate(divide="ignore"):  # zeros are in rows that are not used
                return np.asarray(1.0 / values, dtype=np.float64)
        case SquareRoot():
            return np.sqrt(values)
        case Between(_, low, high, is_closed):
            inside = np.ones(len(values), dtype=np.bool_)
            if low is not None:
                inside &= values >= low
            if high is not None:
                inside &= (values <= high) if is_closed else (values < high)
            return np.where(np.isnan(values), np.nan, inside.astype(np.float64))


def _infinite_kept(result: Array, values: Sequence[Array]) -> Array:
    """Zero times infinity is no missing value: it stays infinite, to be refused by name."""
    made = np.isnan(result) & ~np.isnan(np.array(values)).any(axis=0)
    return np.where(made, np.inf, result)


def _event_time(frame: pd.DataFrame, term: EventTime) -> Array:
    period, first = frame[term.period], frame[term.first_treated_period]
    elapsed = np.asarray(period.astype("float64")) - np.asarray(first.astype("float64"))
    inside = np.ones(len(frame), dtype=np.bool_)
    if term.low is not None:
        inside &= elapsed >= term.low
    if term.high is not None:
        inside &= elapsed <= term.high
    known = np.where(np.asarray(first.isna()), 0.0, inside.astype(np.float64))
    return np.where(np.asarray(period.isna()), np.nan, known)


def _gram(frame: pd.DataFrame, request: GramRequest) -> pd.DataFrame:
    if request.absorb is None and (request.keys or request.summed_by):
        return _grouped_gram(frame, request)
    values, weights, used = _values(frame, request.terms, request.weight)
    if request.absorb is not None:
        used &= np.asarray(frame[request.absorb].notna())
    out = []
    for key, rows in _groups(frame, request.by):
        at = rows[used[rows]]
        x, w = values[at], weights[at]
        total = float(w.sum())
        mean = _mean(x, w)
        n_units = 0
        if request.absorb is None:
            deviations = x - mean if request.crossed == "all" else x[:, :0]
        else:
            units = pd.factorize(frame[request.absorb].iloc[at])[0]
            deviations = _within(x, w, units)
            n_units = int(units.max()) + 1 if len(units) else 0
        cross = pack((deviations * w[:, None]).T @ deviations)
        row = {
            **key, "n": len(at), "n_missing": len(rows) - len(at), "n_units": n_units,
            "sum_weights": total, "mean": mean, "cross": cross,
        }  # fmt: skip
        out.append(row)
    return _frame(out, request.by, ("n", "n_missing", "n_units", "sum_weights", "mean", "cross"))


def _grouped_gram(frame: pd.DataFrame, request: GramRequest) -> pd.DataFrame:
    """By keys or of sums by cluster: all groups at once, for there may be many of them."""
    x, w, used = _values(frame, request.terms, request.weight)
    for name in request.summed_by:
        used &= np.asarray(frame[name].notna())
    frame = _bucketed(frame, request.bucket)
    codes = _codes(frame, request.keys) if request.keys else np.zeros(len(frame), dtype=np.intp)
    _, first = np.unique(codes, return_index=True)
    size = len(first)
    n_missing = np.bincount(codes[~used], minlength=size)
    x, w, codes = x[used], w[used], codes[used]
    if request.summed_by:
        clusters = _codes(frame[used].assign(group_=codes), ("group_", *request.summed_by))
        # A cluster whose rows all weigh nothing was left out: it is not one that errors count.
        held = np.bincount(clusters, w > 0) > 0
        x, codes = _group_sums(x * w[:, None], clusters)[held], _firsts(codes, clusters)[held]
        w = np.ones(len(codes))
    n, total = np.bincount(codes, minlength=size), np.bincount(codes, w, size)
    safe = np.where(total > 0, total, 1.0)[:, None]
    mean = _group_sums(x * w[:, None], codes, size) / safe
    # A second step, so that a large mean does not cost the deviations digits.
    mean += _group_sums((x - mean[codes]) * w[:, None], codes, size) / safe
    deviations = x - mean[codes]
    rows, columns = np.triu_indices(x.shape[1] if request.crossed == "all" else 0)
    cross = _group_sums(deviations[:, rows] * deviations[:, columns] * w[:, None], codes, size)
    keys = {name: [_null(value) for value in frame[name].iloc[first]] for name in request.keys}
    answer = {
        "n": n, "n_missing": n_missing, "n_units": 0, "sum_weights": total,
        "mean": list(np.where(total[:, None] > 0, mean, 0.0)), "cross": list(cross),
    }  # fmt: skip
    return pd.DataFrame(keys | answer, index=range(size))


def _group_sums(x: Array, groups: NDArray[np.intp], size: int | None = None) -> Array:
    """Column sums by group, shape (groups, p)."""
    size = (int(groups.max()) + 1 if len(groups) else 0) if size is None else size
    sums = [np.bincount(groups, column, size) for column in x.T]
    stacked = np.array(sums, dtype=np.float64).reshape(x.shape[1], size)
    return np.asarray(stacked.T, dtype=np.float64)


def _firsts(values: NDArray[np.intp], groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """The value of the first row of each group."""
    return values[np.unique(groups, return_index=True)[1]]


def _meat(frame: pd.DataFrame, request: MeatRequest) -> pd.DataFrame:
    sides = [score.left for score in request.scores] + [score.right for score in request.scores]
    values, weights, used = _values(frame, sides, request.weight)
    for name in (*request.cluster, *_optional(request.absorb)):
        used &= np.asarray(frame[name].notna())
    x, w = values[used], weights[used]
    kept = frame[used]
    groups = _codes(kept, request.cluster) if request.cluster else np.arange(len(kept))
    if request.absorb is not None:
        units = pd.factorize(kept[request.absorb])[0]
        _check_nested(units, groups, request.absorb)
        x = _within(x, w, units)
    size = len(request.scores)
    scores = x[:, :size] * x[:, size:] * w[:, None]
    n_clusters = int(groups.max()) + 1 if len(groups) else 0
    sums = np.zeros((n_clusters, size))
    np.add.at(sums, groups, scores)
    row = {
        "n": len(kept), "n_missing": len(frame) - len(kept), "n_clusters": n_clusters,
        "cross": pack(sums.T @ sums),
    }  # fmt: skip
    return pd.DataFrame([row])


def _panel_gram(frame: pd.DataFrame, request: PanelGramRequest) -> pd.DataFrame:
    outcome = evaluate(frame, request.outcome)
    covariates = [evaluate(frame, term) for term in request.covariates]
    used = ~np.isnan([outcome, *covariates]).any(axis=0)
    used &= np.asarray(frame[[request.unit, request.period]].notna().all(axis=1))
    keys = [*_optional(request.first_treated_period), *request.by]
    long = frame.loc[used, list(dict.fromkeys([request.unit, request.period, *keys]))].copy()
    held = [f"covariate_{j}_" for j in range(len(covariates))]
    long = long.assign(
        outcome_=outcome[used],
        **{name: x[used] for name, x in zip(held, covariates, strict=True)},
    )
    repeated = int(long.duplicated([request.unit, request.period]).sum())
    if repeated:
        raise DataError(
            f"more than one row for the same {request.unit} and {request.period}",
            given=f"{repeated} rows too many",
        )
    changing = _changing(long, request.unit, keys)
    if changing:
        raise DataError(f"{changing} must not change within {request.unit}", given=changing)
    for name, term in zip(held, request.covariates, strict=True):
        n_varying = int((long.groupby(request.unit)[name].nunique() > 1).sum())
        if n_varying:
            raise DataError(
                f"{', '.join(sorted(columns_of(term)))} must not change within {request.unit}",
                given=f"{n_varying} units where it does",
            )
    paths = long.pivot(index=request.unit, columns=request.period, values="outcome_")
    periods = np.asarray(paths.columns, dtype=np.float64)
    complete = np.asarray(paths.notna().all(axis=1))
    counted = complete | (request.units == "seen")
    units = long.drop_duplicates(request.unit).set_index(request.unit).loc[paths.index]
    missing = frame.loc[~used, keys]
    values = _unit_values(
        request, paths.to_numpy(dtype=np.float64), units[held].to_numpy(dtype=np.float64), units
    )
    out = []
    for key, rows in _groups(units.reset_index(), tuple(keys)):
        at = rows[counted[rows]]
        y = values[at]
        mean = _mean(y, np.ones(len(at)))
        off = (y - mean)[:, : request.n_crossed(len(periods))]
        row = {
            "first_treated_period": None, **key, "periods": periods, "n": len(at),
            "n_incomplete": int((~complete[rows]).sum()), "n_missing": _matching(missing, key),
            "mean": mean, "cross": pack(off.T @ off),
        }  # fmt: skip
        out.append(row)
    answer = ("periods", "n", "n_incomplete", "n_missing", "mean", "cross")
    if request.first_treated_period is not None:
        for row in out:
            row["first_treated_period"] = row.pop(request.first_treated_period)
    return _frame(out, ("first_treated_period", *request.by), answer)


def _with_products(paths: Array, covariates: Array) -> Array:
    """The values of a panel request: paths, covariates and their products, shape (n, S)."""
    products = [x[:, None] * paths for x in covariates.T]
    squares = [
        covariates[:, [j]] * covariates[:, [k]] for j, k in packed_indices(covariates.shape[1])
    ]
    return np.column_stack([paths, covariates, *products, *squares])


def _unit_values(
    request: PanelGramRequest, paths: Array, covariates: Array, units: pd.DataFrame
) -> Array:
    """The S values of each unit, shape (n, S).

    Args:
        request: What is asked for.
        paths: Outcomes, NaN where a unit is not seen, shape (n, T).
        covariates: Shape (n, p).
        units: One row per unit with its first treated period.
    """
    if not request.values:
        return _with_products(paths, covariates)
    columns = np.column_stack([np.nan_to_num(paths, nan=0.0, posinf=np.inf), covariates]).T
    known: dict[Term, Array] = {UnitValue(at): column for at, column in enumerate(columns)}
    known |= {UnitSeen(at): seen.astype(float) for at, seen in enumerate(~np.isnan(paths.T))}
    first = np.full(len(paths), np.nan)
    if request.first_treated_period is not None:
        first = np.asarray(units[request.first_treated_period].astype("float64"))
    known |= {part: (first == part.start).astype(float) for part in starts_of(request)}
    return np.column_stack([evaluate(units, term, known=known) for term in request.values])


def _key(frame: pd.DataFrame, request: KeyRequest) -> pd.DataFrame:
    key = list(request.key)
    nulls = np.asarray(frame[key].isna().any(axis=1))
    counts = frame.loc[~nulls].groupby(key, sort=True).size()
    repeated = counts[counts > 1]
    examples = sorted(_text(value) for value in repeated.index)[: request.n_examples]
    row = {
        "n": len(frame), "n_null": int(nulls.sum()), "n_keys": len(counts),
        "n_duplicated": len(repeated), "examples": examples,
    }  # fmt: skip
    return pd.DataFrame([row])


def _histogram(frame: pd.DataFrame, request: HistogramRequest) -> pd.DataFrame:
    """All keys at once: with buckets there are many of them."""
    values = evaluate(frame, request.term)
    frame = _bucketed(frame, request.bucket)
    codes = _codes(frame, request.keys) if request.keys else np.zeros(len(frame), dtype=np.intp)
    _, first = np.unique(codes, return_index=True)
    size, is_known = max(len(first), 0 if request.keys else 1), ~np.isnan(values)
    held, groups = values[is_known], codes[is_known]
    bins = np.searchsorted(np.array(request.edges, dtype=np.float64), held, side="left")
    order = np.lexsort((held, bins, groups))
    held, groups, bins = held[order], groups[order], bins[order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1) | np.diff(bins, prepend=-1))
    ends = np.append(starts[1:], len(held)) - 1 if len(starts) else starts
    cuts = np.searchsorted(groups[starts], np.arange(1, size))
    parts = {
        "bins": bins[starts], "counts": ends - starts + 1, "lowest": held[starts],
        "highest": held[ends],
    }  # fmt: skip
    keys = {name: [_null(value) for value in frame[name].iloc[first]] for name in request.keys}
    answer = {
        "n": np.bincount(groups, minlength=size),
        "n_missing": np.bincount(codes[~is_known], minlength=size),
        **{name: np.split(part.astype(np.float64), cuts) for name, part in parts.items()},
    }
    found = pd.DataFrame(keys | answer, index=range(size))
    return found[[*request.keys, *HISTOGRAM_COLUMNS]]


def _bucketed(frame: pd.DataFrame, bucket: HashBucket | None) -> pd.DataFrame:
    """The rows with the number of their bucket, null where there is no value."""
    if bucket is None:
        return frame
    numbers = bucket_numbers(frame[bucket.column], bucket)
    frame = frame.assign(**{BUCKET: pd.array(numbers, dtype="Int64")})
    frame[BUCKET] = frame[BUCKET].mask(numbers < 0)
    return frame


def _sample(frame: pd.DataFrame, request: SampleRequest) -> pd.DataFrame:
    used = frame[[request.unit, *request.known]].notna().all(axis=1)
    rows = _bucketed(frame[used], request.bucket)
    drawn = np.argsort(bucket_numbers(rows[request.unit], request.order), kind="stable")
    rows = rows.iloc[drawn[: request.max_rows]]
    answer = {name: rows[name].astype("float64") for name in request.numbers}
    answer |= {name: _labels(rows[name]) for name in request.labels}
    if request.bucket is not None:
        answer[BUCKET] = rows[BUCKET]
    return pd.DataFrame(answer).reset_index(drop=True)


def _labels(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Levels as the text that Spark writes; whole numbers without decimals."""
    texts = [None if pd.isna(value) else label_text(value) for value in column]
    return pd.Series(texts, index=column.index, dtype=object)


def label_text(value: object) -> str:
    """A level as text: the same for a whole number of any type, flags in lower case."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return _text(value)


def _values(
    frame: pd.DataFrame, terms: Sequence[Term], weight: Term | None
) -> tuple[Array, Array, _Rows]:
    """Term values (n, p), weights (n,), and which rows are complete."""
    known: dict[Term, Array] = {}
    columns = [evaluate(frame, term, known=known) for term in terms]
    values = np.column_stack(columns) if columns else np.zeros((len(frame), 0))
    weights = np.ones(len(frame)) if weight is None else evaluate(frame, weight)
    used = ~(np.isnan(values).any(axis=1) | np.isnan(weights))
    if (weights[used] < 0).any():
        raise DataError(
            "weights must not be negative", given=f"{int((weights[used] < 0).sum())} rows"
        )
    return values, weights, used


def _mean(x: Array, weights: Array) -> Array:
    """Weighted mean in two steps, so that a large mean does not cost the deviations digits."""
    total = weights.sum()
    if total == 0:
        return np.zeros(x.shape[1])
    rough = weights @ x / total
    return np.asarray(rough + weights @ (x - rough) / total, dtype=np.float64)


def _within(x: Array, weights: Array, units: NDArray[np.intp]) -> Array:
    """Deviations from each unit's weighted mean."""
    size = int(units.max()) + 1 if len(units) else 0
    totals = np.bincount(units, weights, size)
    safe = np.where(totals > 0, totals, 1.0)
    deviations = x - _mean(x, weights)
    means = [np.bincount(units, weights * column, size) / safe for column in deviations.T]
    return np.asarray(deviations - np.reshape(means, (x.shape[1], size)).T[units], dtype=np.float64)


def _check_nested(units: NDArray[np.intp], groups: NDArray[np.intp], name: str) -> None:
    pairs = pd.DataFrame({"unit": units, "group": groups}).drop_duplicates()
    n_split = int((pairs.groupby("unit").size() > 1).sum())
    if n_split:
        raise DataError(f"a {name} must lie in one cluster", given=f"{n_split} lie in several")


def _changing(frame: pd.DataFrame, unit: str, names: Sequence[str]) -> str | None:
    for name in names:
        if (frame.groupby(unit)[name].nunique(dropna=False) > 1).any():
            return name
    return None


def _groups(
    frame: pd.DataFrame, by: tuple[str, ...]
) -> list[tuple[dict[str, object], NDArray[np.intp]]]:
    """Key values and row positions of each group; a null key is a group of its own."""
    if not by:
        return [({}, np.arange(len(frame)))]
    codes = _codes(frame, by)
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []
    return [({name: _null(frame[name].iloc[int(rows[0])]) for name in by}, rows) for rows in parts]


def _codes(frame: pd.DataFrame, by: tuple[str, ...]) -> NDArray[np.intp]:
    return np.asarray(frame.groupby(list(by), dropna=False, sort=True).ngroup(), dtype=np.intp)


def _matching(frame: pd.DataFrame, key: Mapping[str, object]) -> int:
    hit = np.ones(len(frame), dtype=bool)
    for name, value in key.items():
        column = frame[name]
        hit &= np.asarray(column.isna() if value is None else column == value)
    return int(hit.sum())


def _filtered(frame: pd.DataFrame, where: tuple[Condition, ...]) -> pd.DataFrame:
    for condition in where:
        frame = frame[_among(frame[condition.column], condition.values)]
    return frame


def _among(column: "pd.Series[Any]", levels: Sequence[Level]) -> _Rows:
    """Which rows hold one of the levels; a YAML 1 finds the text '1' and the reverse."""
    match _kind(column):
        case "string":
            return np.asarray(column.isin([str(level) for level in levels]), dtype=np.bool_)
        case "date":
            dates = pd.to_datetime([str(level) for level in levels], errors="coerce")
            return np.asarray(pd.to_datetime(column).isin(dates.dropna()), dtype=np.bool_)
        case _:
            numbers = [number for level in levels for number in _numbers(level)]
            return np.asarray(column.isin(numbers), dtype=np.bool_)


def _numbers(level: Level) -> tuple[Level, ...]:
    """The level as a number; none if it is a text that is not one."""
    if not isinstance(level, str):
        return (level,)
    try:
        return (float(level),)
    except ValueError:
        return ()


def _frame(
    rows: list[dict[str, object]], by: tuple[str, ...], columns: tuple[str, ...]
) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[*by, *columns])


def _optional(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _null(value: object) -> object:
    return None if pd.isna(value) else value  # type: ignore[call-overload]


def _text(value: object) -> str:
    """A key as Spark writes it."""
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


_KINDS: Mapping[str, ColumnKind] = {
    "boolean": "boolean",
    **dict.fromkeys(("integer", "floating", "decimal", "mixed-integer-float"), "number"),
    **dict.fromkeys(("date", "datetime", "datetime64"), "date"),
    **dict.fromkeys(("string", "empty"), "string"),
}


def _kind(column: "pd.Series[Any]") -> ColumnKind:
    """What a column holds, by its values where its type is `object`."""
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    return _KINDS.get(types.infer_dtype(values, skipna=True), "other")
