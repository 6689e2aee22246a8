"""Which covariates matter, and how much: regression under a spike-and-slab prior.

A coefficient is zero (the spike) or normal (the slab). Given which are not zero, everything has a
closed form, so indicators are drawn one by one with coefficients and residual variance integrated
out (George and McCulloch 1997; Brodersen et al. 2015, section 2.2).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal.core.gram import Array
from causal.quasi.structural.variance import VariancePrior, log_mass_below

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class CoefficientPrior:
    """`beta | included, sigma ~ N(0, sigma^2 A^-1)` with `A = information * mixed(X'X / n)`.

    Attributes:
        expected_size: Covariates expected to be included.
        information: Observations that the prior mean is worth.
        diagonal_shrinkage: Weight of the diagonal of `X'X / n` in the mixture with itself.
    """

    expected_size: float
    information: float
    diagonal_shrinkage: float

    def inclusion_probability(self, n_covariates: int) -> float:
        """Prior probability of one covariate; the intercept counts as one, as in R's `bsts`."""
        return min(1.0, self.expected_size / (n_covariates + 1))

    def precision(self, X: Array) -> Array:  # noqa: N803 - a design matrix
        """The matrix A, shape (K, K)."""
        cross = X.T @ X / len(X)
        kept = 1.0 - self.diagonal_shrinkage
        mixed = kept * cross + self.diagonal_shrinkage * np.diag(np.diag(cross))
        return np.asarray(self.information * mixed)


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """A draw: coefficients, zero where not included, shape (K,), and the residual's deviation."""

    values: Array
    sigma: float


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Moments of the included coefficients given the data, and the log probability of the set."""

    log_probability: float
    mean: Array
    root: Array
    residual: float


class SpikeSlab:
    """Draws of the regression of a target on fixed covariates.

    Args:
        X: Covariates, shape (n, K).
        prior: Prior of the coefficients.
        residual: Prior of the residual standard deviation.
        max_flips: How many indicators are drawn each time; `None`: all.
    """

    def __init__(
        self, X: Array, *, prior: CoefficientPrior, residual: VariancePrior, max_flips: int | None
    ) -> None:  # fmt: skip
        self._X = X
        self._cross = X.T @ X
        self._prior_precision = prior.precision(X)
        self._precision = self._cross + self._prior_precision
        self._residual = residual
        self._max_flips = max_flips
        share = prior.inclusion_probability(X.shape[1])
        self._is_certain = share >= 1.0
        self._log_odds = 0.0 if self._is_certain else math.log(share / (1.0 - share))

    @property
    def n_covariates(self) -> int:
        """K."""
        return self._X.shape[1]

    def first_flags(self) -> Flags:
        """All included where that is certain, none elsewhere."""
        return np.full(self.n_covariates, self._is_certain)

    def draw(
        self, target: Array, flags: Flags, rng: np.random.Generator
    ) -> tuple[Flags, Coefficients]:
        """One step: indicators, then the residual variance, then the coefficients.

        Args:
            target: What is regressed, shape (n,).
            flags: Which covariates are included so far, shape (K,).
            rng: Source of the draws.

        Returns:
            The new indicators and the draw.
        """
        product, total = self._X.T @ target, float(target @ target)
        flags, fit = self._draw_flags(flags, product, total, rng)
        sigma = self._residual.draw(rng, n=len(target), sum_of_squares=fit.residual)
        values = np.zeros(self.n_covariates)
        noise = rng.standard_normal(len(fit.mean))
        values[flags] = fit.mean + sigma * np.linalg.solve(fit.root.T, noise)
        return flags, Coefficients(values=values, sigma=sigma)

    def log_probability(self, target: Array, flags: Flags) -> float:
        """Log posterior probability of a set of covariates, up to a constant."""
        return self._fit(flags, self._X.T @ target, float(target @ target)).log_probability

    def _draw_flags(
        self, flags: Flags, product: Array, total: float, rng: np.random.Generator
    ) -> tuple[Flags, _Fit]:
        current = self._fit(flags, product, total)
        if self._is_certain:
            return flags, current
        order = rng.permutation(self.n_covariates)[: self._max_flips]
        for at, uniform in zip(order, rng.random(len(order)), strict=True):
            flipped = flags.copy()
            flipped[at] = not flags[at]
            other = self._fit(flipped, product, total)
            if uniform < _share(other.log_probability, current.log_probability):
                flags, current = flipped, other
        return flags, current

    def _fit(self, flags: Flags, product: Array, total: float) -> _Fit:
        inside = np.flatnonzero(flags)
        block = np.ix_(inside, inside)
        root = np.linalg.cholesky(self._precision[block])
        prior_root = np.linalg.cholesky(self._prior_precision[block])
        whitened = np.linalg.solve(root, product[inside])
        residual = max(total - float(whitened @ whitened), 0.0)
        prior = self._residual
        shape = (prior.df + len(self._X)) / 2
        rate = (prior.df * prior.guess**2 + residual) / 2
        log_probability = (
            len(inside) * self._log_odds
            + float(np.log(np.diag(prior_root)).sum() - np.log(np.diag(root)).sum())
            - shape * math.log(rate)
            + log_mass_below(prior.upper, shape=shape, rate=rate)
        )
        mean = np.linalg.solve(root.T, whitened)
        return _Fit(log_probability=log_probability, mean=mean, root=root, residual=residual)


def _share(one: float, other: float) -> float:
    """Probability of `one` of two, given their logs up to a constant."""
    return 1.0 / (1.0 + math.exp(min(other - one, 700.0)))
