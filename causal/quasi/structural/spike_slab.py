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
    """The included coefficients given the data.

    Attributes:
        inside: Positions of the k included covariates.
        mean: Posterior mean of their coefficients, shape (k,).
        inverse: Inverse of their posterior precision, over the residual variance, shape (k, k).
        prior_inverse: The same of the prior precision.
        residual: Sum of squares left, including the prior's penalty.
    """

    inside: NDArray[np.intp]
    mean: Array
    inverse: Array
    prior_inverse: Array
    residual: float


class SpikeSlab:
    """Draws of the regression of a target on fixed covariates.

    Args:
        covariates: Shape (n, K).
        prior: Prior of the coefficients.
        residual: Prior of the residual standard deviation.
        max_flips: How many indicators are drawn each time; `None`: all.
    """

    def __init__(
        self,
        covariates: Array,
        *,
        prior: CoefficientPrior,
        residual: VariancePrior,
        max_flips: int | None,
    ) -> None:
        self._covariates = covariates
        self.n_covariates = int(covariates.shape[1])
        self._prior_precision = prior.precision(covariates)
        self._precision = covariates.T @ covariates + self._prior_precision
        self._residual = residual
        self._max_flips = max_flips
        share = prior.inclusion_probability(self.n_covariates)
        self._is_certain = share >= 1.0
        self._log_odds = 0.0 if self._is_certain else math.log(share / (1.0 - share))

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
        product, total = self._covariates.T @ target, float(target @ target)
        flags, fit = self._draw_flags(flags, product, total, rng)
        sigma = self._residual.draw(rng, n=len(target), sum_of_squares=fit.residual)
        values = np.zeros(self.n_covariates)
        noise = np.linalg.cholesky(fit.inverse) @ rng.standard_normal(len(fit.inside))
        values[fit.inside] = fit.mean + sigma * noise
        return flags, Coefficients(values=values, sigma=sigma)

    def log_probability(self, target: Array, flags: Flags) -> float:
        """Log posterior probability of a set of covariates, up to a constant."""
        fit = self._fit(flags, self._covariates.T @ target, float(target @ target))
        log_ratio = np.linalg.slogdet(fit.inverse)[1] - np.linalg.slogdet(fit.prior_inverse)[1]
        return float(
            len(fit.inside) * self._log_odds
            + 0.5 * log_ratio
            + self._log_likelihood(np.array([fit.residual]))[0]
        )

    def log_odds_of_flips(self, target: Array, flags: Flags) -> Array:
        """Log posterior odds of each flip of one indicator against none, shape (K,)."""
        product = self._covariates.T @ target
        fit = self._fit(flags, product, float(target @ target))
        return self._log_odds_of_flips(flags, fit, product)

    def _draw_flags(
        self, flags: Flags, product: Array, total: float, rng: np.random.Generator
    ) -> tuple[Flags, _Fit]:
        """Each indicator given all others, in random order."""
        fit = self._fit(flags, product, total)
        if self._is_certain:
            return flags, fit
        order = rng.permutation(self.n_covariates)[: self._max_flips]
        # A flip is accepted where the logit of a uniform is below its log odds.
        uniform = rng.random(len(order)) + np.finfo(float).tiny
        thresholds = np.log(uniform) - np.log1p(-uniform)
        first = 0
        while first < len(order):
            # All flips from here are known at once; only an accepted one changes the others.
            odds = self._log_odds_of_flips(flags, fit, product)[order[first:]]
            accepted = np.flatnonzero(thresholds[first:] < odds)
            if len(accepted) == 0:
                break
            at = order[first + accepted[0]]
            flags = flags.copy()
            flags[at] = not flags[at]
            fit = self._fit(flags, product, total)
            first += int(accepted[0]) + 1
        return flags, fit

    def _fit(self, flags: Flags, product: Array, total: float) -> _Fit:
        inside = np.flatnonzero(flags)
        block = np.ix_(inside, inside)
        inverse = np.asarray(np.linalg.inv(self._precision[block]), dtype=np.float64)
        prior_inverse = np.linalg.inv(self._prior_precision[block])
        mean = inverse @ product[inside]
        return _Fit(
            inside=inside, mean=mean, inverse=inverse,
            prior_inverse=np.asarray(prior_inverse, dtype=np.float64),
            residual=max(total - float(mean @ product[inside]), 0.0),
        )  # fmt: skip

    def _log_odds_of_flips(self, flags: Flags, fit: _Fit, product: Array) -> Array:
        """By bordering: a covariate more or less is a rank-one change of precision and residual."""
        rows = self._precision[fit.inside]
        spread = np.diag(self._precision) - np.einsum("ij,ij->j", rows, fit.inverse @ rows)
        prior_rows = self._prior_precision[fit.inside]
        prior_spread = np.diag(self._prior_precision) - np.einsum(
            "ij,ij->j", prior_rows, fit.prior_inverse @ prior_rows
        )
        gain = -((product - fit.mean @ rows) ** 2) / np.where(flags, 1.0, spread)
        kept, prior_kept = np.diag(fit.inverse), np.diag(fit.prior_inverse)
        spread[fit.inside], prior_spread[fit.inside] = kept, prior_kept
        gain[fit.inside] = fit.mean**2 / kept
        log_prior_odds = np.where(flags, -self._log_odds, self._log_odds)
        # Adding divides the determinants' ratio by the spread, taking out multiplies by `kept`;
        # both are one over the remaining variance, on the side where the covariate is in.
        log_ratio = 0.5 * (np.log(prior_spread) - np.log(spread))
        residuals = np.maximum(fit.residual + gain, 0.0)
        change = self._log_likelihood(residuals) - self._log_likelihood(np.array([fit.residual]))
        return np.asarray(log_prior_odds + log_ratio + change)

    def _log_likelihood(self, residuals: Array) -> Array:
        """The part that depends on the residual sum of squares, shape (m,)."""
        prior = self._residual
        shape = (prior.df + len(self._covariates)) / 2
        rates = (prior.df * prior.guess**2 + residuals) / 2
        below = log_mass_below(prior.upper, shape=shape, rates=rates)
        return np.asarray(below - shape * np.log(rates))
