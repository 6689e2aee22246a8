"""Moments of an experiment by random bucket: what re-randomisations of its units are made of.

Units (or whole clusters) are parted at random into buckets; each keeps a Gram per arm and stratum.
The estimated effect is taken out of the treated ones (the sharp hypothesis of one effect for all),
so that the two arms of a bucket can be put together and then be given to either arm.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.frames import (
    BUCKET,
    Condition,
    Constant,
    FrameRequest,
    GramRequest,
    HashBucket,
    Level,
    Term,
    linear,
)
from causal.core.gram import Array, Key, grams
from causal.experiments.arms import Arms, Design
from causal.experiments.levels import Quotient
from causal.experiments.metrics import Metric

Positions = NDArray[np.intp]

MAX_TERMS = 12
"""Terms of one request; more metrics than fit are asked for in further passes."""


@dataclass(frozen=True)
class Cell:
    """Moments of p terms by bucket, of one arm in one stratum.

    Attributes:
        n: Rows, shape (B,).
        mean: Shape (B, p).
        cross: Centred on the bucket's own mean, shape (B, p, p).
        n_missing: Rows without a value, shape (B,).
    """

    n: Array
    mean: Array
    cross: Array
    n_missing: Array

    def without(self, effect: float, quotient: Quotient) -> "Cell":
        """The same rows less an effect on a mean or a ratio: `numerator - effect * denominator`."""
        moved = self.transformed(shift_matrix(-effect, quotient, size=self.mean.shape[1]))
        if quotient.denominator is None:
            moved.mean[:, quotient.numerator] -= effect
        return moved

    def transformed(self, matrix: Array) -> "Cell":
        """The moments of `matrix @ terms`."""
        cross = matrix @ self.cross @ matrix.T
        return Cell(self.n, self.mean @ matrix.T, cross, self.n_missing)

    def subset(self, terms: Sequence[int]) -> "Cell":
        """Fewer terms."""
        at = list(terms)
        return Cell(self.n, self.mean[:, at], self.cross[:, at][:, :, at], self.n_missing)

    def within(self, buckets: Positions) -> "Cell":
        """Fewer buckets."""
        return Cell(
            self.n[buckets], self.mean[buckets], self.cross[buckets], self.n_missing[buckets]
        )


@dataclass(frozen=True)
class Pool:
    """Both arms of one stratum together, by bucket, as sums of deviations from one centre.

    Attributes:
        n: Rows, shape (B,).
        center: Mean over all buckets, shape (p,).
        first: Sums of deviations from it, shape (B, p).
        second: Sums of their products, shape (B, p, p).
    """

    n: Array
    center: Array
    first: Array
    second: Array

    @cached_property
    def moments(self) -> Array:
        """Everything that is summed over buckets, shape (B, 1 + p + p(p+1)/2)."""
        rows, columns = np.triu_indices(self.first.shape[1])
        return np.column_stack([self.n, self.first, self.second[:, rows, columns]])

    @cached_property
    def total(self) -> Array:
        """The same of all buckets together."""
        return np.asarray(self.moments.sum(axis=0), dtype=np.float64)


CellsByArm = Mapping[Level, Mapping[Key, Cell]]


def shift_matrix(effect: float, quotient: Quotient, *, size: int) -> Array:
    """How an effect on a ratio moves unit values: `numerator + effect * denominator`, (p, p).

    A mean's effect moves all values by a constant, which no matrix of unit values shows.
    """
    out = np.eye(size)
    if quotient.denominator is not None:
        out[quotient.numerator, quotient.denominator] += effect
    return out


def pooled(cells: Sequence[Cell]) -> Pool:
    """Cells of the same stratum put together."""
    n = np.sum([cell.n for cell in cells], axis=0)
    total = max(float(n.sum()), 1.0)
    rough = np.sum([cell.n @ cell.mean for cell in cells], axis=0) / total
    off = [cell.mean - rough for cell in cells]
    step = np.sum([cell.n @ part for cell, part in zip(cells, off, strict=True)], axis=0) / total
    first = np.zeros_like(cells[0].mean)
    second = np.zeros_like(cells[0].cross)
    for cell, part in zip(cells, off, strict=True):
        deviation = part - step
        first += cell.n[:, None] * deviation
        second += cell.cross + np.einsum("b,bi,bj->bij", cell.n, deviation, deviation)
    return Pool(n, rough + step, first, second)


def ask_cells(
    design: Design, metrics: Sequence[Metric], arms: Arms, *, bucket: HashBucket
) -> Generator[FrameRequest, pd.DataFrame, dict[str, CellsByArm]]:
    """Moments of every metric by arm, stratum and bucket, by metric name.

    Args:
        design: Who was randomised to what.
        metrics: The metrics.
        arms: Moments of all units.
        bucket: What is hashed to how many buckets.
    """
    out: dict[str, CellsByArm] = {}
    where = _compared(design, arms)
    for batch in _batches(metrics, is_complete=arms.is_complete):
        terms = tuple(dict.fromkeys(term for metric in batch for term in metric.terms))
        request = GramRequest(
            terms=terms, by=(design.variant, *design.strata), where=where, bucket=bucket
        )
        cells = cells_of((yield request), request, levels=arms.levels)
        out |= _by_metric(batch, terms, cells)
    return out


def ask_clusters(
    design: Design, metrics: Sequence[Metric], arms: Arms, *, cluster: str
) -> Generator[FrameRequest, pd.DataFrame, dict[str, CellsByArm]]:
    """Moments of every metric by arm and cluster, by metric name.

    Clusters have the same positions for all metrics; rows without one have the last.

    Args:
        design: Who was randomised to what.
        metrics: The metrics.
        arms: Moments of all units.
        cluster: Column of the clusters.
    """
    where = _compared(design, arms)
    answers: list[tuple[list[Metric], GramRequest, pd.DataFrame]] = []
    for batch in _batches(metrics, is_complete=arms.is_complete):
        terms = tuple(dict.fromkeys(term for metric in batch for term in metric.terms))
        request = GramRequest(terms=terms, by=(design.variant, cluster), where=where)
        answers.append((batch, request, (yield request)))
    every = pd.concat([frame[cluster] for _, _, frame in answers], ignore_index=True)
    codes, names = pd.factorize(every, sort=True)
    numbers = np.asarray(np.where(codes < 0, len(names), codes), dtype=np.int64)
    out: dict[str, CellsByArm] = {}
    start = 0
    for batch, request, frame in answers:
        own = numbers[start : start + len(frame)]
        start += len(frame)
        cells = _cells(
            frame, request, own, by=(design.variant,), size=len(names) + 1, levels=arms.levels
        )
        out |= _by_metric(batch, request.terms, cells)
    return out


def ask_cluster_sums(
    design: Design,
    metric: Metric,
    arms: Arms,
    *,
    bucket: HashBucket,
    cluster: str,
) -> Generator[FrameRequest, pd.DataFrame, CellsByArm]:
    """Moments over clusters of `(rows, sums of deviations from center)`, by arm and bucket.

    The centre is `center_of` the metric.

    Args:
        design: Who was randomised to what.
        metric: The metric with its p terms.
        arms: Moments of all units.
        bucket: What is hashed to how many buckets.
        cluster: Column of the clusters.
    """
    terms: list[Term] = [Constant()]
    terms += [
        linear([(term, 1.0), (Constant(), -float(value))])
        for term, value in zip(metric.terms, center_of(metric, arms), strict=True)
    ]
    request = GramRequest(
        terms=tuple(terms),
        by=(design.variant,),
        where=_compared(design, arms),
        bucket=bucket,
        summed_by=(cluster,),
    )
    return cells_of((yield request), request, levels=arms.levels)


def center_of(metric: Metric, arms: Arms) -> Array:
    """A constant close to the mean of each term, shape (p,): the mean over all arms."""
    moments = arms.moments[metric.name]
    counts = np.array([item.n for item in moments], dtype=np.float64)
    return np.asarray(
        counts @ np.array([item.mean for item in moments]) / counts.sum(), dtype=np.float64
    )


def cells_of(
    frame: pd.DataFrame, request: GramRequest, *, levels: Sequence[Level]
) -> dict[Level, dict[Key, Cell]]:
    """The answer of a request with buckets as arrays by arm and stratum.

    Rows without a value in the bucket's column have the last position, after all buckets.
    """
    if request.bucket is None:
        raise ValueError("the request has no bucket")
    size = request.bucket.n_buckets + 1
    found = frame[BUCKET].astype("Float64").fillna(size - 1)
    numbers = np.asarray(found.to_numpy(), dtype=np.int64)
    return _cells(frame, request, numbers, by=request.by, size=size, levels=levels)


def _cells(
    frame: pd.DataFrame,
    request: GramRequest,
    numbers: NDArray[np.int64],
    *,
    by: Sequence[str],
    size: int,
    levels: Sequence[Level],
) -> dict[Level, dict[Key, Cell]]:
    """Arrays of `size` positions by the keys but the position; `numbers` are those of the rows."""
    n_terms = len(request.terms)
    counts = frame["n"].to_numpy(dtype=np.float64)
    missing = frame["n_missing"].to_numpy(dtype=np.float64)
    means = np.array(frame["mean"].tolist(), dtype=np.float64).reshape(len(frame), n_terms)
    packed = np.array(frame["cross"].tolist(), dtype=np.float64)
    packed = packed.reshape(len(frame), n_terms * (n_terms + 1) // 2)
    _check_finite(frame, request, means, packed)
    rows, columns = np.triu_indices(n_terms)
    out: dict[Level, dict[Key, Cell]] = {level: {} for level in levels}
    for key, at in _positions(frame, by):
        where = numbers[at]
        n, n_missing = np.zeros(size), np.zeros(size)
        mean, cross = np.zeros((size, n_terms)), np.zeros((size, n_terms, n_terms))
        n[where], n_missing[where], mean[where] = counts[at], missing[at], means[at]
        cross[where[:, None], rows, columns] = packed[at]
        cross[where[:, None], columns, rows] = packed[at]
        out[_level(key[0], levels)][key[1:]] = Cell(n, mean, cross, n_missing)
    return out


def _by_metric(
    metrics: Sequence[Metric], terms: Sequence[Term], cells: CellsByArm
) -> dict[str, CellsByArm]:
    """The cells of each metric's own terms, by its name."""
    out: dict[str, CellsByArm] = {}
    for metric in metrics:
        at = [terms.index(term) for term in metric.terms]
        out[metric.name] = {
            level: {key: cell.subset(at) for key, cell in by_stratum.items()}
            for level, by_stratum in cells.items()
        }
    return out


def _check_finite(frame: pd.DataFrame, request: GramRequest, means: Array, packed: Array) -> None:
    """Values that are not finite are refused by name, as everywhere."""
    bad = ~(np.isfinite(means).all(axis=1) & np.isfinite(packed).all(axis=1))
    if bad.any():
        grams(frame.iloc[np.flatnonzero(bad)], request)


def _positions(frame: pd.DataFrame, by: Sequence[str]) -> list[tuple[Key, Positions]]:
    """Key values and positions of the rows of each combination of the keys but the bucket."""
    codes = frame.groupby(list(by), dropna=False, sort=True).ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    groups = np.split(order, starts[1:])
    return [(tuple(_plain(frame[name].iloc[at[0]]) for name in by), at) for at in groups]


def _plain(value: object) -> Level | None:
    if pd.isna(value):  # type: ignore[call-overload]
        return None
    item = value.item() if isinstance(value, np.generic) else value
    return item if isinstance(item, str | int | float | bool) else str(item)


def _level(found: Level | None, levels: Sequence[Level]) -> Level:
    return next(level for level in levels if level == found)


def _compared(design: Design, arms: Arms) -> tuple[Condition, ...]:
    """Rows of the arms that are compared, without a condition where those are all."""
    if arms.n_other == 0:
        return design.where
    return (*design.where, Condition(design.variant, arms.levels))


def _batches(metrics: Sequence[Metric], *, is_complete: bool) -> list[list[Metric]]:
    """Metrics that share a pass: all rows complete, and few enough terms together."""
    batches: list[list[Metric]] = []
    for metric in metrics:
        held = {term for other in (batches[-1] if batches else []) for term in other.terms}
        fits = len(held.union(metric.terms)) <= MAX_TERMS
        if not (batches and is_complete and fits):
            batches.append([])
        batches[-1].append(metric)
    return batches
