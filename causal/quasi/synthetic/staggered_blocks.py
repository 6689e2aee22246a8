"""Synthetic difference in differences over cohorts of starts, with covariates.

Each cohort is a block of its own beside the same donors; the effect is the average over treated
region-periods (Arkhangelsky et al. 2021, appendix A; Clarke, Pailanir, Athey and Imbens 2024).
Covariates are projected out first: slopes come from the donors with region and period effects, and
`outcome - covariates' slopes` takes the place of the outcome (Kranz 2022).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.quasi.synthetic.did_weights import (
    Block,
    BlockFit,
    Rule,
    Scale,
    fit,
    with_weights,
)
from causal.quasi.synthetic.region_panel import Indices

_RANK_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Design:
    """Outcomes, covariates and starts.

    Attributes:
        values: Outcomes, shape (N, T).
        starts: Position of the first treated period; T for donors, shape (N,).
        covariates: Shape (K, N, T); K may be 0.
    """

    values: Array
    starts: Indices
    covariates: Array

    @property
    def n_periods(self) -> int:
        """Periods."""
        return int(self.values.shape[1])

    @property
    def donors(self) -> Indices:
        """Rows of the donors."""
        return np.flatnonzero(self.starts == self.n_periods)

    @property
    def treated(self) -> Indices:
        """Rows of the treated regions."""
        return np.flatnonzero(self.starts < self.n_periods)

    @property
    def cohorts(self) -> tuple[int, ...]:
        """Starts that occur, ascending."""
        return tuple(int(start) for start in np.unique(self.starts[self.treated]))

    def rows(self, at: Indices, *, starts: Indices | None = None) -> "Design":
        """Some rows, perhaps repeated, perhaps with other starts."""
        return Design(
            values=self.values[at],
            starts=self.starts[at] if starts is None else starts,
            covariates=self.covariates[:, at],
        )

    def slopes(self) -> Array:
        """Slopes of the outcome on the covariates over the donors, shape (K,).

        Raises:
            DataError: Region and period effects leave nothing of a covariate.
        """
        if len(self.covariates) == 0:
            return np.zeros(0)
        within = _twice_centred(self.covariates[:, self.donors])
        size = np.abs(_centred(self.covariates[:, self.donors])).max(axis=(1, 2))
        columns = (within / np.where(size > 0, size, 1.0)[:, None, None]).reshape(len(size), -1).T
        if np.linalg.matrix_rank(columns, tol=_RANK_TOLERANCE * len(columns)) < len(size):
            raise DataError(
                "the covariates do not vary beyond region and period effects among the donors"
            )
        outcome = _twice_centred(self.values[self.donors]).ravel()
        scaled = np.linalg.lstsq(columns, outcome, rcond=None)[0]
        return np.asarray(scaled / size, dtype=np.float64)

    def adjusted(self) -> Array:
        """Outcomes less what the covariates explain, shape (N, T)."""
        return self.values - np.tensordot(self.slopes(), self.covariates, axes=1)


@dataclass(frozen=True, kw_only=True)
class CohortFit:
    """The fit of the regions that start together.

    Attributes:
        start: Position of their first treated period.
        n_treated: How many they are.
        fit: Weights and gaps.
        treated: Their mean path, adjusted for covariates, shape (T,).
        synthetic: The donors' weighted path, shape (T,).
    """

    start: int
    n_treated: int
    fit: BlockFit
    treated: Array
    synthetic: Array

    @property
    def n_cells(self) -> int:
        """Treated region-periods."""
        return self.n_treated * (len(self.treated) - self.start)


@dataclass(frozen=True, kw_only=True)
class DidFit:
    """The fits of all cohorts.

    Attributes:
        cohorts: Ascending by start.
        slopes: Of the covariates, shape (K,).
    """

    cohorts: tuple[CohortFit, ...]
    slopes: Array

    @property
    def n_cells(self) -> int:
        """Treated region-periods."""
        return sum(cohort.n_cells for cohort in self.cohorts)

    @property
    def effect(self) -> float:
        """Average effect over treated region-periods."""
        total = sum(cohort.n_cells * cohort.fit.effect for cohort in self.cohorts)
        return float(total / self.n_cells)

    @property
    def scales(self) -> dict[int, Scale]:
        """The ridges of each cohort."""
        return {cohort.start: cohort.fit.scale for cohort in self.cohorts}


def fit_all(design: Design, rule: Rule, *, scales: dict[int, Scale] | None = None) -> DidFit:
    """Fit each cohort beside the donors.

    Args:
        design: The data.
        rule: Which weights, and how.
        scales: Ridges to use instead of the data's own, by start.
    """
    slopes = design.slopes()
    values = design.adjusted() if len(slopes) else design.values
    cohorts = [
        _cohort(block, fit(block, rule, scale=None if scales is None else scales[block.n_pre]))
        for block in _blocks(design, values)
    ]
    return DidFit(cohorts=tuple(cohorts), slopes=slopes)


def refit_with_weights(design: Design, weights: dict[int, tuple[Array, Array, Scale]]) -> DidFit:
    """The effect under given unit and time weights, by start (the jackknife of fixed weights)."""
    slopes = design.slopes()
    values = design.adjusted() if len(slopes) else design.values
    cohorts = []
    for block in _blocks(design, values):
        unit, time, scale = weights[block.n_pre]
        fitted = with_weights(block, unit_weights=unit, time_weights=time, scale=scale)
        cohorts.append(_cohort(block, fitted))
    return DidFit(cohorts=tuple(cohorts), slopes=slopes)


def event_time_effects(fitted: DidFit) -> dict[int, float]:
    """Average gap by periods since the start, over the regions observed then."""
    times = _event_times(fitted.cohorts)
    return {time: _gap_at(fitted.cohorts, time) for time in times}


def _blocks(design: Design, values: Array) -> Iterator[Block]:
    for start in design.cohorts:
        members = design.starts == start
        yield Block(
            donors=values[design.donors],
            treated=values[members].mean(axis=0),
            n_treated=int(members.sum()),
            n_pre=start,
        )


def _cohort(block: Block, fitted: BlockFit) -> CohortFit:
    return CohortFit(
        start=block.n_pre,
        n_treated=block.n_treated,
        fit=fitted,
        treated=block.treated,
        synthetic=fitted.unit_weights @ block.donors,
    )


def _event_times(cohorts: Sequence[CohortFit]) -> range:
    low = -max(cohort.start for cohort in cohorts)
    high = max(len(cohort.treated) - cohort.start for cohort in cohorts)
    return range(low, high)


def _gap_at(cohorts: Sequence[CohortFit], time: int) -> float:
    there = [c for c in cohorts if 0 <= c.start + time < len(c.treated)]
    total = sum(c.n_treated * float(c.fit.gaps[c.start + time]) for c in there)
    return total / sum(c.n_treated for c in there)


def _centred(values: Array) -> Array:
    return np.asarray(values - values.mean(axis=(1, 2), keepdims=True), dtype=np.float64)


def _twice_centred(values: Array) -> Array:
    """Deviations from region and period means of a complete panel, over the last two axes."""
    rows = values.mean(axis=-1, keepdims=True)
    columns = values.mean(axis=-2, keepdims=True)
    return np.asarray(
        values - rows - columns + values.mean(axis=(-2, -1), keepdims=True), dtype=np.float64
    )
