"""Unit and time weights of synthetic difference in differences, and the effect they give.

Arkhangelsky, Athey, Hirshberg, Imbens and Wager (2021), "Synthetic difference-in-differences". For
a block of donors and the mean path of regions that start together:

    effect = (y1_post - y1_pre' lambda) - omega' (Y0_post - Y0_pre lambda)

`sdid` fits both weights, `sc` has unit weights only and no time differencing, `did` has uniform
weights, `difp` (de-meaned synthetic control) fits unit weights with an intercept and differences
out the mean of all periods before the start.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal.core.gram import Array
from causal.quasi.synthetic.frank_wolfe import frank_wolfe_weights
from causal.quasi.synthetic.simplex_least_squares import simplex_weights

Estimator = Literal["sdid", "sc", "difp", "did"]
Solver = Literal["exact", "frank_wolfe"]

_TINY_RIDGE = 1e-6
_MIN_DECREASE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which weights are fitted, and how.

    Attributes:
        estimator: `sdid`, `sc`, `difp` or `did`.
        solver: `exact`, or `frank_wolfe` as in the R package `synthdid`.
    """

    estimator: Estimator = "sdid"
    solver: Solver = "exact"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What sets the size of the ridges.

    Attributes:
        noise: Standard deviation of first differences of the donors before the start.
        zeta: Ridge of the unit weights, in the unit of the outcome.
    """

    noise: float
    zeta: float


@dataclass(frozen=True, kw_only=True)
class Block:
    """Donors and the regions of one start.

    Attributes:
        donors: Outcomes of the donors, shape (J, T).
        treated: Mean path of the treated regions, shape (T,).
        n_treated: How many they are.
        n_pre: Periods before the start.
    """

    donors: Array
    treated: Array
    n_treated: int
    n_pre: int


@dataclass(frozen=True, kw_only=True)
class BlockFit:
    """Weights of a block and the effect in each period.

    Attributes:
        unit_weights: Shape (J,), sum one.
        time_weights: Shape (n_pre,), sum one; zero for `sc`.
        scale: The ridges used.
        gaps: Treated less synthetic path, less the weighted gap before the start, shape (T,).
        n_pre: Periods before the start.
    """

    unit_weights: Array
    time_weights: Array
    scale: Scale
    gaps: Array
    n_pre: int

    @property
    def effect(self) -> float:
        """Mean gap from the start on."""
        return float(self.gaps[self.n_pre :].mean())


def fit(block: Block, rule: Rule, *, scale: Scale | None = None) -> BlockFit:
    """Fit the weights of a block.

    Args:
        block: The data.
        rule: Which weights, and how.
        scale: Ridges to use instead of the block's own (replicates keep those of the data).
    """
    scale = own_scale(block, rule) if scale is None else scale
    return with_weights(
        block,
        unit_weights=_unit_weights(block, rule, scale),
        time_weights=_time_weights(block, rule, scale),
        scale=scale,
    )


def with_weights(
    block: Block, *, unit_weights: Array, time_weights: Array, scale: Scale
) -> BlockFit:
    """The effect that given weights make."""
    path = block.treated - unit_weights @ block.donors
    return BlockFit(
        unit_weights=unit_weights,
        time_weights=time_weights,
        scale=scale,
        gaps=path - time_weights @ path[: block.n_pre],
        n_pre=block.n_pre,
    )


def own_scale(block: Block, rule: Rule) -> Scale:
    """The ridges of the paper: `zeta = (n_treated n_post)^(1/4) noise`, next to none elsewhere."""
    differences = np.diff(block.donors[:, : block.n_pre], axis=1)
    noise = float(np.std(differences, ddof=1)) if differences.size > 1 else 0.0
    n_post = block.donors.shape[1] - block.n_pre
    factor = (block.n_treated * n_post) ** 0.25 if rule.estimator == "sdid" else _TINY_RIDGE
    return Scale(noise=noise, zeta=factor * noise)


def _unit_weights(block: Block, rule: Rule, scale: Scale) -> Array:
    n_donors = len(block.donors)
    if rule.estimator == "did":
        return np.full(n_donors, 1.0 / n_donors)
    before = slice(None, block.n_pre)
    return _solve(
        block.donors[:, before].T, block.treated[before], rule=rule, noise=scale.noise,
        zeta=scale.zeta, has_intercept=rule.estimator != "sc",
    )  # fmt: skip


def _time_weights(block: Block, rule: Rule, scale: Scale) -> Array:
    if rule.estimator == "sc":
        return np.zeros(block.n_pre)
    if rule.estimator != "sdid":
        return np.full(block.n_pre, 1.0 / block.n_pre)
    before, after = block.donors[:, : block.n_pre], block.donors[:, block.n_pre :].mean(axis=1)
    return _solve(
        before, after, rule=rule, noise=scale.noise, zeta=_TINY_RIDGE * scale.noise,
        has_intercept=True,
    )  # fmt: skip


def _solve(
    columns: Array, target: Array, *, rule: Rule, noise: float, zeta: float, has_intercept: bool
) -> Array:
    if rule.solver == "exact":
        ridge = len(target) * zeta**2
        return simplex_weights(columns, target, ridge=ridge, has_intercept=has_intercept)
    return frank_wolfe_weights(
        columns, target, zeta=zeta, min_decrease=_MIN_DECREASE * noise, has_intercept=has_intercept
    )
