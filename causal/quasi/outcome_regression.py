r"""Group-time effects given covariates, by outcome regression on aggregates.

The change of each treated unit is compared with what a regression of the comparison units' changes
on the covariates predicts for it (Heckman, Ichimura and Todd 1997; `reg_did_panel` of Sant'Anna and
Zhao 2020):

    att = mean_g(dy) - mean_g(x)' b,    b = (sum_C x x')^-1 sum_C x dy,    x_i = (1, x_i1, ..).

A treated unit moves it by `(dy_i - x_i' b - att) / n_g`, a comparison unit by
`-mean_g(x)' (sum_C x x')^-1 x_i (dy_i - x_i' b)`. Both are affine in the unit's outcomes,
covariates and products of two of these, which is what a panel request with covariates sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.errors import DataError
from causal.core.frames import packed_indices
from causal.core.gram import Array, PanelGram

_NULL = 1e-10
"""Eigenvalues of the covariates' moments below this share of the largest are rounding."""


@dataclass(frozen=True)
class Layout:
    """Where the values of a panel request with covariates stand.

    Attributes:
        n_periods: T.
        n_covariates: p.
    """

    n_periods: int
    n_covariates: int

    @property
    def covariates(self) -> slice:
        """The p covariates."""
        return slice(self.n_periods, self.n_periods + self.n_covariates)

    def products(self, at: int) -> slice:
        """The p products of a covariate and the outcome of period number `at`."""
        start = self.n_periods + self.n_covariates + at
        return slice(start, start + self.n_periods * self.n_covariates, self.n_periods)

    @property
    def squares(self) -> slice:
        """The packed products of two covariates."""
        return slice(self.n_periods + self.n_covariates * (1 + self.n_periods), None)


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """One effect and how each unit moves it.

    Attributes:
        value: The effect.
        treated: Slope of a treated unit's S values, shape (S,).
        control: Slope of a comparison unit's S values, shape (S,).
        constant: What a comparison unit adds whatever its values.
    """

    value: float
    treated: Array
    control: Array
    constant: float


def adjusted(
    cohort: PanelGram, pool: Sequence[PanelGram], layout: Layout, *, at: int, base: int
) -> Adjusted:
    """The effect on a cohort between two periods.

    Args:
        cohort: Moments of the treated cohort.
        pool: Moments of the cohorts that it is compared with.
        layout: What the moments are of.
        at: Number of the period.
        base: Number of the period before.

    Raises:
        DataError: The comparison units are too few, or their covariates are collinear.
    """
    size = layout.n_covariates
    counts = np.array([part.n for part in pool], dtype=np.float64)
    if counts.sum() <= size + 1:
        raise DataError(
            "too few comparison units for the covariates",
            given=f"{int(counts.sum())} units, {size} covariates",
        )
    total = counts @ np.array([part.mean for part in pool])
    held = total[layout.covariates]
    moment = np.empty((size + 1, size + 1))
    moment[0, 0] = counts.sum()
    moment[0, 1:] = moment[1:, 0] = held
    for value, (j, k) in zip(total[layout.squares], packed_indices(size), strict=True):
        moment[1 + j, 1 + k] = moment[1 + k, 1 + j] = value
    _check_rank(moment, cohort)
    change = total[layout.products(at)] - total[layout.products(base)]
    slope = np.linalg.solve(moment, np.concatenate([[total[at] - total[base]], change]))
    mine = np.concatenate([[1.0], cohort.mean[layout.covariates]])
    reach = np.linalg.solve(moment, mine)
    treated = np.zeros(len(total))
    treated[at], treated[base] = 1.0, -1.0
    treated[layout.covariates] = -slope[1:]
    control = np.zeros(len(total))
    control[at], control[base] = -reach[0], reach[0]
    control[layout.covariates] = reach[0] * slope[1:] + reach[1:] * slope[0]
    control[layout.products(at)] -= reach[1:]
    control[layout.products(base)] += reach[1:]
    control[layout.squares] = [
        reach[1 + j] * slope[1 + k] + (reach[1 + k] * slope[1 + j] if j != k else 0.0)
        for j, k in packed_indices(size)
    ]
    return Adjusted(
        value=float(cohort.mean[at] - cohort.mean[base] - mine @ slope),
        treated=treated / cohort.n,
        control=control,
        constant=float(reach[0] * slope[0]),
    )


def _check_rank(moment: Array, cohort: PanelGram) -> None:
    scale = 1.0 / np.sqrt(np.maximum(np.diag(moment), np.finfo(float).tiny))
    values = np.linalg.eigvalsh(moment * np.outer(scale, scale))
    if values[0] <= _NULL * values[-1]:
        raise DataError(
            "the covariates are collinear (or one does not vary) among the comparison units",
            given=f"cohort {cohort.first_treated_period:g}",
        )
