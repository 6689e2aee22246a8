"""Quantiles whose uncertainty comes from the Poisson bootstrap on histograms by bucket.

The quantile of every replicate is that of the rows with their buckets' weights. It is found in a
histogram of the rows around the quantile, by bucket: fine steps over a window of several standard
errors on either side, in which steps that hold one value are exact and others are read linearly.

No density is needed, and so no row beyond the quantile beside those that are there, and no
resolution where values are rounded: then the replicates are among the values themselves.
"""

import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import PrivateAttr

from causal.core.errors import InferenceError
from causal.core.frames import BUCKET, Between, Column, FrameRequest, HistogramRequest, Level, Term
from causal.core.gram import Array, Gram
from causal.experiments.arms import Arms, Design
from causal.experiments.bootstrap_intervals import Draws
from causal.experiments.bucket_moments import CellsByArm, ask_cells
from causal.experiments.comparison import Comparison, Joint
from causal.experiments.influence import moments_of
from causal.experiments.metrics import Metric
from causal.experiments.poisson_bootstrap import Bootstraps, Kind, Resampling, check_parts
from causal.experiments.quantiles import ESTIMATOR, Position, QuantileSearch

MAX_COUNTS = 4_000_000
"""Arms x buckets x steps that may be asked for."""
_REACH = 8.0
"""Standard errors of the share below the quantile to which the window reaches on either side."""
_MAX_OUTSIDE = 1e-3
_RUNGS = 33
_MAX_STEPS = 800
_FUZZ = 1e-12


@dataclass(frozen=True, kw_only=True)
class ResampledQuantiles:
    """What bootstrapped quantiles add to an experiment.

    Attributes:
        moments: By metric, one Gram per arm: its mean is the quantile, its covariance that of one
            row's share in the bootstrapped variance.
        comparisons: By metric, every treatment against control.
        bootstraps: The replicates.
    """

    moments: Mapping[str, tuple[Gram, ...]]
    comparisons: Mapping[str, list[Comparison]]
    bootstraps: Bootstraps


@dataclass(frozen=True)
class Steps:
    """Rows of one arm by bucket and step of their value.

    Attributes:
        counts: Rows, shape (B + 1, k); no step is empty.
        lowest: Smallest value of each step, shape (k,).
        highest: Largest value of each step, shape (k,).
        is_inside: Whether the step lies in the window that was looked at closely, shape (k,).
    """

    counts: Array
    lowest: Array
    highest: Array
    is_inside: NDArray[np.bool_]


def ask_resampled_quantiles(
    design: Design, arms: Arms, metrics: Sequence[Metric], *, resampling: Resampling
) -> Generator[FrameRequest, pd.DataFrame, ResampledQuantiles]:
    """The quantiles of every arm and their replicates.

    Args:
        design: Who was randomised to what.
        arms: The arms that are compared.
        metrics: The quantile metrics.
        resampling: What is resampled.

    Raises:
        DataError: An arm has too few rows, units or clusters.
        InferenceError: A replicate lies far outside of what was looked at.
    """
    moments: dict[str, tuple[Gram, ...]] = {}
    pairs: dict[str, list[Comparison]] = {}
    bootstraps = Bootstraps()
    for metric in metrics:
        found = yield from _ask(QuantileSearch(design, arms, metric), resampling)
        moments[metric.name], pairs[metric.name] = found.moments, found.comparisons
        bootstraps = bootstraps.joined(found.bootstraps)
    return ResampledQuantiles(moments=moments, comparisons=pairs, bootstraps=bootstraps)


@dataclass(frozen=True, kw_only=True)
class _Found:
    moments: tuple[Gram, ...]
    comparisons: list[Comparison]
    bootstraps: Bootstraps


def _ask(
    search: QuantileSearch, resampling: Resampling
) -> Generator[FrameRequest, pd.DataFrame, _Found]:
    metric, levels, share = search.metric, search.arms.levels, search.share
    start = yield from search.ask_start()
    points = yield from search.ask(start, {level: [share] for level in levels})
    at = {level: points[level][0] for level in levels}
    below = BelowAny.of(metric, list(at.values()))
    plain = dataclasses.replace(search.design, strata=())
    cells = (yield from ask_cells(plain, [below], search.arms, bucket=resampling.bucket))[
        metric.name
    ]
    n_parts = check_parts(
        metric.name,
        {level: int(np.count_nonzero(cells[level][()].n[:-1])) for level in levels},
        resampling,
    )
    shares = {
        level: _window(share, _error(cells, level, below.terms.index(_below(metric, at[level]))))
        for level in levels
    }
    outer = yield from search.ask(start, shares)
    ladders = {level: np.unique([point.held for point in outer[level]]) for level in levels}
    steps = yield from _ask_steps(search, ladders, resampling)
    replicates = np.concatenate(
        [
            np.column_stack(
                [
                    _quantiles(steps[level], weights, share=share, resolution=metric.resolution)
                    for level in levels
                ]
            )
            for weights in resampling.weights()
        ]
    )
    _check_inside(metric, replicates, steps, levels)
    grams = tuple(
        moments_of(
            metric,
            at[level].value,
            variance=float(np.var(replicates[:, place], ddof=1)),
            n=start[level,].n,
            n_missing=start[level,].n_missing,
        )
        for place, level in enumerate(levels)
    )
    draws = {
        Kind(metric.name, treatment): resampling.draws(replicates[:, [0, place]], metric.name)
        for place, treatment in enumerate(levels[1:], start=1)
    }
    return _Found(
        moments=grams,
        comparisons=[
            _compared(metric, (levels[0], treatment), (grams[0], grams[place]), draws)
            for place, treatment in enumerate(levels[1:], start=1)
        ],
        bootstraps=Bootstraps(draws=draws, diagnostics=(resampling.said(metric.name, n_parts),)),
    )


def _compared(
    metric: Metric,
    variants: tuple[Level, Level],
    moments: tuple[Gram, Gram],
    draws: Mapping[Kind, Draws],
) -> Comparison:
    covariance = draws[Kind(metric.name, variants[1])].covariance
    joint = Joint(estimator=ESTIMATOR, parts=(covariance,), dfs=(math.inf,))
    return Comparison(metric=metric, variants=variants, moments=moments, joint=joint)


class BelowAny(Metric):
    """Shares of rows up to some values, as a metric of moments."""

    _indicators: tuple[Term, ...] = PrivateAttr(default=())

    @property
    def terms(self) -> tuple[Term, ...]:
        """The indicators."""
        return self._indicators

    @classmethod
    def of(cls, metric: Metric, points: Sequence[Position]) -> "BelowAny":
        """The indicators of arms' quantiles."""
        out = cls(name=metric.name, type="mean", column=metric.column)
        out._indicators = tuple(dict.fromkeys(_below(metric, point) for point in points))
        return out


def _below(metric: Metric, point: Position) -> Between:
    return Between(Column(str(metric.column)), high=point.held)


def _error(cells: CellsByArm, level: Level, at: int) -> float:
    """Standard error of an arm's share below its quantile, from the buckets' sums."""
    cell = cells[level][()]
    n = float(cell.n.sum())
    share = float(cell.n @ cell.mean[:, at]) / n
    sums = cell.n * (cell.mean[:, at] - share)
    return max(float(np.sqrt(sums @ sums)) / n, 1.0 / n)


def _window(share: float, std_error: float) -> list[float]:
    """Shares around which values are looked at closely, half an error apart."""
    floor = float(np.finfo(np.float64).tiny)
    shares = share + std_error * np.linspace(-_REACH, _REACH, _RUNGS)
    return [float(one) for one in np.clip(shares, floor, 1.0)]


def _ask_steps(
    search: QuantileSearch, ladders: Mapping[Level, Array], resampling: Resampling
) -> Generator[FrameRequest, pd.DataFrame, dict[Level, Steps]]:
    """Counts by bucket and step, with edges inside every arm's window."""
    most = MAX_COUNTS // (len(ladders) * resampling.bucket.n_buckets)
    n_steps = max(1, min(most, _MAX_STEPS) // (_RUNGS * len(ladders)))
    edges = np.concatenate([_edges(ladder, n_steps=n_steps) for ladder in ladders.values()])
    request = HistogramRequest(
        term=search.values.term,
        edges=tuple(map(float, np.unique(edges))),
        by=search.values.by,
        where=search.values.where,
        bucket=resampling.bucket,
    )
    frame = yield request
    return {
        level: _steps(
            frame, request, level, (ladder[0], ladder[-1]), size=resampling.bucket.n_buckets + 1
        )
        for level, ladder in ladders.items()
    }


def _edges(ladder: Array, *, n_steps: int) -> Array:
    """Edges that part every two neighbours of some values evenly, and the values themselves.

    They move and stretch as the values do, so that the unit of measurement does not matter.
    """
    shares = np.arange(1, n_steps + 1) / n_steps
    inner = ladder[:-1, None] + np.diff(ladder)[:, None] * shares
    inner[:, -1] = ladder[1:]
    return np.concatenate([[np.nextafter(ladder[0], -np.inf), ladder[0]], inner.ravel()])


def _steps(
    frame: pd.DataFrame,
    request: HistogramRequest,
    level: Level,
    window: tuple[float, float],
    *,
    size: int,
) -> Steps:
    """The rows of one arm; those without a bucket have the last position."""
    rows = frame[frame[request.by[0]] == level]
    numbers = rows[BUCKET].astype("Float64").fillna(size - 1).to_numpy(dtype=np.float64)
    parts = {
        name: np.concatenate([np.asarray(part, dtype=np.float64) for part in rows[name]])
        for name in ("bins", "counts", "lowest", "highest")
    }
    at = np.repeat(numbers.astype(np.intp), [len(part) for part in rows["bins"]])
    bins, n_bins = parts["bins"].astype(np.intp), len(request.edges) + 1
    counts = np.zeros((size, n_bins))
    counts[at, bins] = parts["counts"]
    lowest, highest = np.full(n_bins, np.inf), np.full(n_bins, -np.inf)
    np.minimum.at(lowest, bins, parts["lowest"])
    np.maximum.at(highest, bins, parts["highest"])
    held = np.flatnonzero(counts.any(axis=0))
    low, high = lowest[held], highest[held]
    is_inside = (low >= window[0]) & (high <= window[1])
    return Steps(counts[:, held], low, high, is_inside)


def _quantiles(steps: Steps, weights: Array, *, share: float, resolution: float | None) -> Array:
    """The quantile of every replicate, shape (r,).

    Args:
        steps: Rows by bucket and step.
        weights: Weights of the buckets, shape (r, B + 1).
        share: Which quantile.
        resolution: Step to which values were rounded: a value then stands for those half a step
            around it, evenly spread.
    """
    held = weights @ steps.counts
    cumulative = np.cumsum(held, axis=1)
    target = share * cumulative[:, -1:]
    # The first step that reaches the target; a product that is whole up to rounding counts so.
    at = np.argmax(cumulative >= target * (1.0 - _FUZZ), axis=1)
    row = np.arange(len(at))
    inside = held[row, at]
    before = cumulative[row, at] - inside
    part = np.clip((target[:, 0] - before) / inside, 0.0, 1.0)
    low, high = steps.lowest[at], steps.highest[at]
    if resolution is not None:
        return np.asarray(low - resolution / 2 + part * (high - low + resolution))
    n_rows = steps.counts.sum(axis=0)[at]
    rank = np.maximum(np.ceil(part * n_rows * (1.0 - _FUZZ)), 1.0)
    return np.asarray(low + (rank - 1.0) / np.maximum(n_rows - 1.0, 1.0) * (high - low))


def _check_inside(
    metric: Metric, replicates: Array, steps: Mapping[Level, Steps], levels: Sequence[Level]
) -> None:
    """Replicates are read from fine steps, but for a few.

    Raises:
        InferenceError: They are not.
    """
    half = (metric.resolution or 0.0) / 2.0
    for place, level in enumerate(levels):
        fine = steps[level].is_inside
        low = steps[level].lowest[fine].min(initial=np.inf) - half
        high = steps[level].highest[fine].max(initial=-np.inf) + half
        outside = (replicates[:, place] < low) | (replicates[:, place] > high)
        if outside.mean() > _MAX_OUTSIDE:
            raise InferenceError(
                f"{metric.name}: a few units of variant {level} move its quantile too far for a "
                "bootstrap",
                given=f"{outside.mean():.1%} of the replicates beyond {_REACH:g} standard errors",
                allowed="more units or clusters in the arm",
            )
