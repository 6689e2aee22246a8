"""What two-way fixed effects would average: the Goodman-Bacon decomposition.

On a complete panel the coefficient of the treatment dummy in a regression with unit and period
effects is a weighted average of all two-by-two comparisons of cohorts, in which one starts and the
other does not. Where the other is treated already, its change holds its own growing effect, which
is subtracted. Goodman-Bacon (2021), "Difference-in-differences with variation in treatment timing",
Journal of Econometrics 225, theorem 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
import pandas as pd

from causal.core.gram import Array, PanelGram

Kind = Literal["never treated", "not yet treated", "already treated"]


@dataclass(frozen=True, kw_only=True)
class TwoByTwo:
    """One comparison of two cohorts.

    Attributes:
        kind: What the comparison cohort is while the other one starts.
        treated: Start of the cohort that starts.
        control: Start of the comparison cohort; `None`: never treated within the data.
        estimate: Its difference in differences.
        weight: Its weight in the regression; all weights sum to 1.
    """

    kind: Kind
    treated: float
    control: float | None
    estimate: float
    weight: float


def decompose(
    cohorts: Sequence[PanelGram], *, sizes: Sequence[float] | None = None
) -> tuple[TwoByTwo, ...]:
    """All comparisons behind two-way fixed effects on these cohorts.

    Args:
        cohorts: Moments of the cohorts. Starts after the last period count as never.
        sizes: Their weights summed, where units are weighted; the units if left out.

    Returns:
        The comparisons; none where no cohort starts within the data.
    """
    periods = cohorts[0].periods
    counts = [float(cohort.n) for cohort in cohorts] if sizes is None else list(sizes)
    units = sum(counts)
    groups = _groups(cohorts, counts, last=float(periods[-1]))
    found = [
        item
        for k, other in permutations(sorted(groups, key=_order), 2)
        for item in _comparison(groups, periods, k, other, units)
    ]
    total = sum(item.weight for item in found)
    return tuple(
        TwoByTwo(
            kind=item.kind, treated=item.treated, control=item.control,
            estimate=item.estimate, weight=item.weight / total,
        )
        for item in found
    )  # fmt: skip


def table(found: Sequence[TwoByTwo], *, metric: str) -> pd.DataFrame:
    """The comparisons as a table, heaviest first.

    Columns: metric, kind, treated, control (NaN: never treated), estimate, weight.
    """
    rows = [
        {
            "metric": metric,
            "kind": item.kind,
            "treated": item.treated,
            "control": np.nan if item.control is None else item.control,
            "estimate": item.estimate,
            "weight": item.weight,
        }
        for item in sorted(found, key=lambda item: -item.weight)
    ]
    return pd.DataFrame(
        rows, columns=["metric", "kind", "treated", "control", "estimate", "weight"]
    )


def _groups(
    cohorts: Sequence[PanelGram], sizes: Sequence[float], *, last: float
) -> dict[float | None, tuple[float, Array]]:
    """Size and mean path by start within the data."""
    groups: dict[float | None, tuple[float, Array]] = {}
    for cohort, size in zip(cohorts, sizes, strict=True):
        first = cohort.first_treated_period
        start = None if first is None or first > last else first
        n, mean = groups.get(start, (0.0, np.zeros_like(cohort.mean)))
        total = n + size
        groups[start] = (total, (n * mean + size * cohort.mean) / total)
    return groups


def _order(start: float | None) -> float:
    return np.inf if start is None else start


def _comparison(
    groups: dict[float | None, tuple[float, Array]],
    periods: Array,
    k: float | None,
    other: float | None,
    units: float,
) -> Iterator[TwoByTwo]:
    """The comparison in which cohort k starts, over the periods in which the other does not."""
    if k is None:
        return
    before = periods < k
    if other is None or other > k:
        window = np.ones(len(periods), dtype=bool) if other is None else periods < other
        kind: Kind = "never treated" if other is None else "not yet treated"
    else:
        window, kind = periods >= other, "already treated"
    early, late = window & before, window & ~before
    if not early.any() or not late.any():
        return
    (n_k, path_k), (n_other, path_other) = groups[k], groups[other]
    gap = path_k - path_other
    share = n_k / (n_k + n_other)
    treated_share = late.sum() / window.sum()
    variance = share * (1 - share) * treated_share * (1 - treated_share)
    sample = (n_k + n_other) / units * window.mean()
    yield TwoByTwo(
        kind=kind, treated=k, control=other,
        estimate=float(gap[late].mean() - gap[early].mean()), weight=float(sample**2 * variance),
    )  # fmt: skip
