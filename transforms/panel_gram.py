"""Outcome paths of units as cohort means and period x period cross-products, on Spark.

One unit's path becomes one row (a conditional sum per period), then cohorts sum over their units.
Each period is shifted by its own mean, which the pass that finds the periods gives, so the
cross-products keep their digits without Spark's slower centred merge.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add, and_

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.errors import DataError
from causal.core.frames import (
    PanelGramRequest,
    Term,
    UnitSeen,
    UnitValue,
    columns_of,
    packed_indices,
    starts_of,
)
from transforms.bounded import collect_bounded
from transforms.moments import centred, crossed, n_products, products_of, sums_of
from transforms.shared_terms import given_numbers, with_shared
from transforms.terms import any_changing, compiled, keys_of, or_zero, quoted

_MAX_PERIODS = 400

Collect = Callable[[DataFrame, Sequence[str], int], pd.DataFrame]
"""Brings an aggregate, its key names and how many products it holds to the driver."""
Periods = tuple[np.ndarray, np.ndarray]
"""The periods in order and the outcome's mean in each."""


def answer(
    df: DataFrame,
    request: PanelGramRequest,
    columns: Mapping[str, str],
    collect: Collect,
    *,
    known: MutableMapping[PanelGramRequest, Periods],
) -> pd.DataFrame:
    """The frame that a panel request describes.

    Args:
        df: Panel rows, filtered.
        request: The request.
        columns: Kinds of the source's columns.
        collect: Brings an aggregate to the driver.
        known: The periods of rows that were asked for before, which the answer adds to.

    Raises:
        DataError: No usable rows, repeated (unit, period) rows, or keys that change within a unit.
    """
    keys = tuple(
        dict.fromkeys(name for name in (request.first_treated_period, *request.by) if name)
    )
    rows = _rows(df, request, columns, keys)
    same_rows = replace(request, by=(), values=(), crossed="all", units="complete")
    if same_rows not in known:
        known[same_rows] = _periods(rows, request.period)
    periods, means = known[same_rows]
    n_held = len(request.covariates)
    paths = _paths(rows, keys, periods, means, n_held=n_held)
    units = _units(paths, keys, request, means)
    sums = _cohort_sums(units, keys, request, n_periods=len(periods))
    frame = collect(sums, keys, n_products(request.n_crossed(len(periods))))
    _check(frame, request)
    return _frame(frame, request, periods, means)


def _rows(
    df: DataFrame, request: PanelGramRequest, columns: Mapping[str, str], keys: Sequence[str]
) -> DataFrame:
    outcome = compiled(request.outcome, columns)
    held = [compiled(term, columns) for term in request.covariates]
    unit, period = quoted(request.unit), quoted(request.period).cast("double")
    used = reduce(and_, [item.isNotNull() for item in (outcome, unit, period, *held)])
    return df.select(
        *keys_of(keys), unit.alias("unit"), used.alias("is_used"),
        F.when(used, period).alias("period"), F.when(used, outcome).alias("y"),
        *[F.when(used, item).alias(f"x{j}") for j, item in enumerate(held)],
    )  # fmt: skip


def _periods(rows: DataFrame, name: str) -> Periods:
    """The periods in order and the outcome's mean in each."""
    means = rows.where("is_used").groupBy("period").agg(F.avg("y").alias("mean"))
    frame = collect_bounded(means, max_rows=_MAX_PERIODS, what=f"the list of periods in {name}")
    if frame.empty:
        raise DataError("no row has an outcome, a unit and a period")
    ordered = frame.sort_values("period")
    values = ordered["mean"].to_numpy(dtype=np.float64)
    return ordered["period"].to_numpy(dtype=np.float64), values


def _paths(
    rows: DataFrame, keys: Sequence[str], periods: np.ndarray, means: np.ndarray, *, n_held: int
) -> DataFrame:
    """One row per unit: keys, counts, and `y0..` its path less the period means, null if absent.

    With covariates `x0..`, and `v0..`, whether they change within the unit.
    """
    names = [f"k_{name}" for name in keys]
    values = [
        F.sum(F.when(F.col("period") == float(t), F.col("y") - F.lit(float(m)))).alias(f"y{i}")
        for i, (t, m) in enumerate(zip(periods, means, strict=True))
    ]
    return rows.groupBy("unit").agg(
        F.count(F.lit(1)).alias("n_all"),
        F.count_if("is_used").alias("n_used"),
        *[F.min(quoted(name)).alias(name) for name in names],
        # Rows without a unit are not one unit, whatever their keys.
        or_zero(F.col("unit").isNotNull(), any_changing(names)).alias("n_changing"),
        *values,
        *[F.min(f"x{j}").alias(f"x{j}") for j in range(n_held)],
        *[(F.min(f"x{j}") < F.max(f"x{j}")).cast("long").alias(f"v{j}") for j in range(n_held)],
    )


def _products(means: np.ndarray, n_held: int) -> list[str]:
    """SQL of the values of a unit beside its path, by `s0..`, the path less the period means."""
    held = [f"x{j}" for j in range(n_held)]
    outcomes = [f"(s{i} + {float(mean)!r}D)" for i, mean in enumerate(means)]
    return [
        *held,
        *[f"{x} * {y}" for x in held for y in outcomes],
        *[f"{held[j]} * {held[k]}" for j, k in packed_indices(n_held)],
    ]


def _units(
    paths: DataFrame, keys: Sequence[str], request: PanelGramRequest, means: np.ndarray
) -> DataFrame:
    """One row per unit with counts, whether it counts, and its values `s0..`, else 0."""
    names = [f"k_{name}" for name in keys]
    size, n_held = len(means), len(request.covariates)
    observed = reduce(add, [F.col(f"y{i}").isNotNull().cast("long") for i in range(size)])
    is_counted = observed == size if request.units == "complete" else observed > 0
    units = paths.select(
        *map(quoted, names), "n_all", "n_used", "n_changing",
        (F.col("n_used") - observed).alias("n_repeated"),
        is_counted.alias("is_counted"), (observed < size).alias("is_incomplete"),
        # Where units are complete the inner default is never taken: it tells Spark that no product
        # of these can be null.
        *[
            or_zero(is_counted, F.coalesce(F.col(f"y{i}"), F.lit(0.0))).alias(f"s{i}")
            for i in range(size)
        ],
        *[F.col(f"y{i}").isNotNull().cast("double").alias(f"o{i}") for i in range(size)],
        *[F.coalesce(F.col(f"x{j}"), F.lit(0.0)).alias(f"x{j}") for j in range(n_held)],
        *[F.coalesce(F.col(f"v{j}"), F.lit(0)).alias(f"v{j}") for j in range(n_held)],
    )  # fmt: skip
    if request.values:
        return _with_values(units, request, means)
    products = _products(means, n_held)
    if not products:
        return units
    kept = [name for name in units.columns if not name.startswith("x")]
    return units.select(
        *map(quoted, kept),
        *[
            or_zero(F.col("is_counted"), F.expr(text)).alias(f"s{size + i}")
            for i, text in enumerate(products)
        ],
    )


def _with_values(units: DataFrame, request: PanelGramRequest, means: np.ndarray) -> DataFrame:
    """The units with the values that the request names in place of paths and covariates."""
    size = len(means)
    values = [F.col(f"s{i}") + F.lit(float(mean)) for i, mean in enumerate(means)]
    if request.units == "seen":
        values = [value * F.col(f"o{i}") for i, value in enumerate(values)]
    values += [F.col(f"x{j}") for j in range(len(request.covariates))]
    first = request.first_treated_period
    start = F.lit(None) if first is None else quoted(f"k_{first}").cast("double")
    starts = {
        part: F.coalesce((start == float(part.start)).cast("double"), F.lit(0.0))
        for part in starts_of(request)
    }
    kept = [name for name in units.columns if name[0] not in "sxo"]
    given = given_numbers(request.values, ())
    rows = given.beside(
        units.select(
            *map(quoted, kept),
            *[f"o{at}" for at in range(size)],
            *[value.alias(f"u{at}") for at, value in enumerate(values)],
            *[value.alias(f"a{i}") for i, value in enumerate(starts.values())],
        )
    )
    held: Mapping[Term, Column] = {
        **{UnitValue(at): F.col(f"u{at}") for at in range(len(values))},
        **{UnitSeen(at): F.col(f"o{at}") for at in range(size)},
        **{part: F.col(f"a{i}") for i, part in enumerate(starts)},
    }
    is_counted = F.col("is_counted")
    rows, held = with_shared(rows, request.values, held, where=is_counted, given=given)
    return rows.select(
        *map(quoted, kept),
        *[
            or_zero(is_counted, compiled(term, {}, held, given)).alias(f"s{i}")
            for i, term in enumerate(request.values)
        ],
    )


def _cohort_sums(
    units: DataFrame, keys: Sequence[str], request: PanelGramRequest, *, n_periods: int
) -> DataFrame:
    counts = ("n_all", "n_used", "n_changing", "n_repeated")
    varying = [f"v{j}" for j in range(len(request.covariates))]
    n_crossed = request.n_crossed(n_periods)
    others = [
        *[F.sum(name).alias(name) for name in (*counts, *varying)],
        F.count_if("is_counted").alias("n"),
        F.count_if(F.col("is_incomplete") & (F.col("n_used") > 0)).alias("n_incomplete"),
        *[F.sum(f"s{i}").alias(f"s{i}") for i in range(n_crossed, request.n_values(n_periods))],
    ]
    values = [f"s{i}" for i in range(n_crossed)]
    return crossed(units, [quoted(f"k_{name}") for name in keys], others, values=values)


def _check(frame: pd.DataFrame, request: PanelGramRequest) -> None:
    n_changing, n_repeated = int(frame["n_changing"].sum()), int(frame["n_repeated"].sum())
    if n_changing:
        names = ", ".join(filter(None, (request.first_treated_period, *request.by)))
        raise DataError(
            f"{names} must not change within {request.unit}",
            given=f"{n_changing} units where it does",
        )
    if n_repeated:
        raise DataError(
            f"more than one row for the same {request.unit} and {request.period}",
            given=f"{n_repeated} rows too many",
        )
    for j, term in enumerate(request.covariates):
        if n_varying := int(frame[f"v{j}"].sum()):
            raise DataError(
                f"{', '.join(sorted(columns_of(term)))} must not change within {request.unit}",
                given=f"{n_varying} units where it does",
            )


def _frame(
    frame: pd.DataFrame, request: PanelGramRequest, periods: np.ndarray, means: np.ndarray
) -> pd.DataFrame:
    size, n_crossed = request.n_values(len(periods)), request.n_crossed(len(periods))
    shift = np.zeros(size)
    if not request.values:
        shift[: len(means)] = means
    n = frame["n"].to_numpy(dtype=np.float64)
    sums = sums_of(frame, size, n_crossed=n_crossed)
    products = products_of(frame, n_crossed)
    mean, cross = centred(sums[:, :n_crossed], products, n, shift[:n_crossed])
    with np.errstate(invalid="ignore", over="ignore"):
        rest = sums[:, n_crossed:] / np.maximum(n, 1.0)[:, None]
        more = shift[n_crossed:] * (n[:, None] > 0) + rest
    mean = np.column_stack([mean, more])
    first = request.first_treated_period
    cohort = [None] * len(frame) if first is None else list(frame[f"k_{first}"])
    answer_ = pd.DataFrame({"first_treated_period": pd.Series(cohort, index=frame.index)})
    for name in request.by:
        answer_[name] = frame[f"k_{name}"]
    return answer_.assign(
        periods=pd.Series([periods] * len(frame), index=frame.index, dtype=object),
        n=frame["n"].astype("int64"),
        n_incomplete=frame["n_incomplete"].astype("int64"),
        n_missing=(frame["n_all"] - frame["n_used"]).astype("int64"),
        mean=list(mean),
        cross=list(cross),
    )
