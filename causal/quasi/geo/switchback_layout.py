"""Regions, periods and blocks of a switchback, and which cells an assignment leaves to be used.

A cell is a region in a period. A span is a block of a region; its treatment is that of the unit
that was randomised. The past of a cell is looked up in the spans, so a period without rows has a
treatment too. Bojinov, Simchi-Levi and Zhao (2023), "Design and analysis of switchback
experiments": where effects carry over for k periods at most, a cell shows the effect of lasting
treatment if the treatment was the same in the k periods before.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.buckets import value_hashes
from causal.core.errors import DataError, SpecError
from causal.core.frames import Level
from causal.core.gram import Array
from causal.quasi.synthetic.region_panel import Indices

MAX_PLACES = 50_000_000
"""Regions times periods from the first to the last."""

_HASHES = 2.0**64


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the n cells lie.

    Attributes:
        region: Number of the region of each cell, shape (n,).
        period: Whole numbers, shape (n,).
        span: Number of the span of each cell, shape (n,).
        span_region: Region of each span, shape (s,).
        span_low: First period of each span, shape (s,).
        span_high: Last period, shape (s,).
        span_unit: Number of the randomised unit of each span, shape (s,).
        unit_region: Region of each randomised unit, shape (u,); zero where all share it.
    """

    region: Indices
    period: NDArray[np.int64]
    span: Indices
    span_region: Indices
    span_low: NDArray[np.int64]
    span_high: NDArray[np.int64]
    span_unit: Indices
    unit_region: Indices

    @property
    def unit(self) -> Indices:
        """Randomised unit of each cell, shape (n,)."""
        return self.span_unit[self.span]

    @property
    def position(self) -> NDArray[np.int64]:
        """Periods since the block began, shape (n,)."""
        return self.period - self.span_low[self.span]

    @property
    def longest(self) -> int:
        """Periods of the longest block."""
        return int((self.span_high - self.span_low).max()) + 1

    @cached_property
    def _spans_by_place(self) -> Indices:
        """Span of each region and period from the first one on; -1 where none is known."""
        first = int(self.span_low.min())
        width = int(self.span_high.max()) - first + 1
        n_regions = int(self.span_region.max()) + 1
        if width * n_regions > MAX_PLACES:
            raise DataError(
                "periods must be counted without large gaps: hours since a date, say",
                given=f"{n_regions} regions x {width:,} periods",
            )
        places = np.full((n_regions, width), -1, dtype=np.intp)
        for number, (region, low, high) in enumerate(
            zip(self.span_region, self.span_low - first, self.span_high - first, strict=True)
        ):
            places[region, low : high + 1] = number
        return places

    def span_before(self, lag: int) -> Indices:
        """Span in which the cell's region was `lag` periods before, shape (n,); -1: not known."""
        return self._at(self.period - lag)

    @property
    def previous_span(self) -> Indices:
        """The block before that of each cell, shape (n,); -1: not known."""
        return self._at(self.span_low[self.span] - 1)

    def neighbours(self, wash_out: int) -> NDArray[np.intp]:
        """Pairs of randomised units of which one lies within so many periods before the other.

        Shape (pairs, 2); each pair once.
        """
        first, pairs = int(self.span_low.min()), []
        for lag in range(1, max(wash_out, 1) + 1):
            column = self.span_low - lag - first
            before = np.where(
                column >= 0, self._spans_by_place[self.span_region, np.maximum(column, 0)], -1
            )
            known = before >= 0
            pairs.append(np.column_stack([self.span_unit[before[known]], self.span_unit[known]]))
        return np.unique(np.concatenate(pairs), axis=0)

    def _at(self, period: NDArray[np.int64]) -> Indices:
        column = period - int(self.span_low.min())
        found = self._spans_by_place[self.region, np.maximum(column, 0)]
        return np.where(column >= 0, found, -1)

    def has_past(self, wash_out: int) -> NDArray[np.bool_]:
        """Whether the treatment of so many periods before is known, shape (n,)."""
        known = np.ones(len(self.region), dtype=np.bool_)
        for lag in range(1, wash_out + 1):
            known &= self.span_before(lag) >= 0
        return known

    def is_settled(self, assignment: Array, *, wash_out: int) -> NDArray[np.bool_]:
        """Whether the treatment was the same in so many periods before, shape (n,).

        Args:
            assignment: Treatment of each randomised unit, shape (u,).
            wash_out: Periods.
        """
        by_span = assignment[self.span_unit]
        own = by_span[self.span]
        settled = np.ones(len(own), dtype=np.bool_)
        for lag in range(1, wash_out + 1):
            before = self.span_before(lag)
            settled &= (before >= 0) & (by_span[before] == own)
        return settled


def layout(
    region: Indices, period: NDArray[np.int64], block: Indices, *, bounds: "Bounds", is_joint: bool
) -> Layout:
    """The layout of cells.

    Args:
        region: Numbers of the regions, shape (n,).
        period: Shape (n,).
        block: Numbers of the blocks: in time, the same for all regions, shape (n,).
        bounds: First and last period of a block; observed ones where they are not given.
        is_joint: Whether all regions of a block are randomised together.

    Raises:
        DataError: The blocks of a region overlap.
    """
    keys = pd.DataFrame({"region": region, "block": block, "period": period})
    spans = keys.groupby(["region", "block"], sort=True)["period"].agg(["min", "max"]).reset_index()
    span = keys.merge(spans.assign(span=np.arange(len(spans))), on=["region", "block"], how="left")[
        "span"
    ].to_numpy(dtype=np.intp)
    low, high = spans["min"].to_numpy(dtype=np.int64), spans["max"].to_numpy(dtype=np.int64)
    names = spans["block"].to_numpy(dtype=np.int64)
    if bounds.length is not None:
        low = bounds.origin + names * bounds.length
        high = low + bounds.length - 1
    span_region = spans["region"].to_numpy(dtype=np.intp)
    _check_apart(span_region, low, high)
    unit = pd.factorize(names)[0] if is_joint else np.arange(len(spans))
    unit_region = np.zeros(int(unit.max()) + 1, dtype=np.intp)
    if not is_joint:
        unit_region = span_region
    return Layout(
        region=region, period=period, span=span, span_region=span_region, span_low=low,
        span_high=high, span_unit=np.asarray(unit, dtype=np.intp), unit_region=unit_region,
    )  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """Blocks of one length, from an origin; `None`: as observed."""

    length: int | None = None
    origin: int = 0


def assign_blocks(
    regions: list[Level], *, n_blocks: int, block_length: int, salt: int, treated_share: float = 0.5
) -> pd.DataFrame:
    """Draw the treatment of each region's blocks by a salted hash: the design of a switchback.

    Every machine that knows region, time and salt draws the same, without a table.

    Args:
        regions: Names of the regions.
        n_blocks: Blocks, from zero.
        block_length: Periods of each.
        salt: Another salt is another, independent experiment.
        treated_share: Probability of the treatment.

    Returns:
        Columns region, block, first_period, last_period, treatment (0 or 1).

    Raises:
        SpecError: No regions or blocks, a region twice, or a share that is no probability.

    Example:
        >>> plan = assign_blocks(["Lyon", "Nice"], n_blocks=4, block_length=6, salt=7)
        >>> plan["treatment"].tolist()
        [0, 0, 0, 0, 0, 0, 0, 1]
    """
    if not regions or n_blocks < 1 or block_length < 1:
        raise SpecError(
            "a switchback needs regions, blocks and periods",
            given=f"{len(regions)} regions, {n_blocks} blocks of {block_length} periods",
        )
    if len({str(region) for region in regions}) < len(regions):
        raise SpecError("a region is listed twice", given=", ".join(map(str, regions)))
    if not 0.0 < treated_share < 1.0:
        raise SpecError("treated_share must be a probability", given=treated_share)
    names = np.repeat(np.array([str(region) for region in regions], dtype=object), n_blocks)
    block = np.tile(np.arange(n_blocks), len(regions))
    keys = pd.Series([f"{name}|{number}" for name, number in zip(names, block, strict=True)])
    share = value_hashes(keys, salt=salt).astype(np.float64) / _HASHES
    return pd.DataFrame(
        {
            "region": np.repeat(np.array(regions, dtype=object), n_blocks),
            "block": block,
            "first_period": block * block_length,
            "last_period": (block + 1) * block_length - 1,
            "treatment": (share < treated_share).astype(np.int64),
        }
    )


def _check_apart(region: Indices, low: NDArray[np.int64], high: NDArray[np.int64]) -> None:
    order = np.lexsort((low, region))
    same = region[order][1:] == region[order][:-1]
    overlap = same & (low[order][1:] <= high[order][:-1])
    if overlap.any():
        raise DataError(
            "the blocks of a region overlap", given=f"{int(overlap.sum())} blocks",
            allowed="blocks that follow each other",
        )  # fmt: skip
