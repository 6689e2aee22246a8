"""Coarsened exact matching from cells: units are alike that fall into the same cell.

Only cells with treated and control units are used; controls of a cell are weighted to the number of
its treated (att), treated to its controls (atc), or both to all its units (ate). Everything follows
from counts, means and sums of squares by cell and arm, so rows cost nothing (Iacus, King and Porro
2012).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causal.core.errors import DataError, InferenceError
from causal.core.gram import Array, Gram
from causal.observational.study import CONTROL, TREATED
from causal.observational.weights import Target

Cutpoints = Mapping[str, list[float] | int]
Cells = dict[tuple[Any, ...], list[Gram | None]]


@dataclass(frozen=True, kw_only=True)
class CellEffect:
    """The effect in matched cells.

    Attributes:
        means: Weighted mean outcomes, control and treated.
        variances: Their variances with weights taken as given, one for each (robust).
        differences: Each cell's share times its difference less the effect, shape (s,).
        n_matched: Matched units, control and treated.
        n_units: Units, control and treated.
        n_cells: Matched cells.
        n_all_cells: All cells.
        arms: Weighted moments by arm.
        squares: Sums of squared weights by arm.
    """

    means: tuple[float, float]
    variances: tuple[float, float]
    differences: Array
    n_matched: tuple[int, int]
    n_units: tuple[int, int]
    n_cells: int
    n_all_cells: int
    arms: tuple[Gram, Gram]
    squares: tuple[float, float]

    @property
    def estimate(self) -> float:
        """The effect."""
        return self.means[TREATED] - self.means[CONTROL]


def bin_codes(values: Sequence[Any], cuts: list[float] | int, *, name: str) -> list[int]:
    """The bin of each value: bins hold their lower end, the last one both ends.

    Args:
        values: Numbers.
        cuts: Inner cut points, or the number of bins of equal width from least to greatest.
        name: The column, for messages.

    Raises:
        DataError: A value is not a number.
    """
    try:
        numbers = np.array([float(value) for value in values])
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must hold numbers to be cut into bins") from error
    if isinstance(cuts, int):
        inner = np.linspace(numbers.min(), numbers.max(), cuts + 1)[1:-1]
    else:
        inner = np.array(cuts, dtype=np.float64)
    return [int(code) for code in np.searchsorted(inner, numbers, side="right")]


def coarsen(keys: Sequence[tuple[Any, ...]], names: Sequence[str], cuts: Cutpoints) -> list[Any]:
    """Keys with the values of cut columns replaced by their bins."""
    table = pd.DataFrame(keys, columns=list(names), dtype=object)
    for name, own in cuts.items():
        table[name] = pd.Series(bin_codes(list(table[name]), own, name=name), dtype=object)
    return [tuple(row) for row in table.itertuples(index=False, name=None)]


def match_cells(cells: Cells, *, target: Target) -> CellEffect:
    """Weights and effect from the moments of every cell and arm; the outcome is the last term.

    Args:
        cells: Moments of control and treated units by cell; `None`: no units.
        target: `att`, `atc` or `ate`, of the matched units.

    Raises:
        InferenceError: No cell has units of both arms.
    """
    matched = [
        (control, treated)
        for control, treated in cells.values()
        if control is not None and treated is not None
    ]
    if not matched:
        raise InferenceError("no cell has treated and control units: coarsen further")
    sizes = np.array([[pair[CONTROL].n, pair[TREATED].n] for pair in matched], dtype=np.float64)
    goal = {"att": sizes[:, TREATED], "atc": sizes[:, CONTROL]}.get(target, sizes.sum(axis=1))
    weights = goal[:, None] / sizes
    arms = tuple(
        _merged([_scaled(pair[at], w) for pair, w in zip(matched, weights[:, at], strict=True)])
        for at in (CONTROL, TREATED)
    )
    means = np.array([[arm.mean[-1] for arm in pair] for pair in matched])
    within = np.array([[arm.cross[-1, -1] for arm in pair] for pair in matched])
    overall = np.array([arm.mean[-1] for arm in arms])
    squares = (weights**2 * (within + sizes * (means - overall) ** 2)).sum(axis=0)
    total = goal.sum()
    gaps = means[:, TREATED] - means[:, CONTROL] - (overall[TREATED] - overall[CONTROL])
    everyone = [
        sum(0 if part is None else part.n for part in (pair[at] for pair in cells.values()))
        for at in (CONTROL, TREATED)
    ]
    return CellEffect(
        means=(float(overall[CONTROL]), float(overall[TREATED])),
        variances=(float(squares[CONTROL] / total**2), float(squares[TREATED] / total**2)),
        differences=goal / total * gaps,
        n_matched=(int(sizes[:, CONTROL].sum()), int(sizes[:, TREATED].sum())),
        n_units=(everyone[CONTROL], everyone[TREATED]),
        n_cells=len(matched),
        n_all_cells=len(cells),
        arms=(arms[CONTROL], arms[TREATED]),
        squares=(
            float((weights[:, CONTROL] ** 2 * sizes[:, CONTROL]).sum()),
            float((weights[:, TREATED] ** 2 * sizes[:, TREATED]).sum()),
        ),
    )


def _scaled(gram: Gram, weight: float) -> Gram:
    return Gram(
        gram.terms, gram.n, gram.n_missing, 0, gram.sum_weights * weight, gram.mean,
        gram.cross * weight,
    )  # fmt: skip


def _merged(parts: Sequence[Gram]) -> Gram:
    found = parts[0]
    for part in parts[1:]:
        found = found.merge(part)
    return found
