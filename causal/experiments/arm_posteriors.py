"""Posteriors of one arm's level: beta for proportions, gamma for counts.

Both are conjugate: the prior's parameters grow by what was counted (Gelman et al. 2013, "Bayesian
Data Analysis", sections 2.4 and 2.6).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from pydantic import Field

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.core.spec import Part

SMALLEST_PARAMETER = 0.05
"""Below this the density at an end of the support is too steep for the quadrature."""

_BULK = 1e-30
"""Probability beyond either end of the interval that is integrated over."""


class BetaPrior(Part):
    """Prior of a proportion: as if `alpha` successes and `beta` failures had been seen.

    Attributes:
        alpha: 1 with `beta` 1 is uniform, 0.5 with 0.5 Jeffreys' prior, 0 with 0 improper.
        beta: See `alpha`.
    """

    alpha: float = Field(default=1.0, ge=0)
    beta: float = Field(default=1.0, ge=0)


class GammaPrior(Part):
    """Prior of a rate: as if `shape` events had been seen in an exposure of `rate`.

    Attributes:
        shape: Events; 0.5 with `rate` 0 is Jeffreys' prior.
        rate: Exposure.
    """

    shape: float = Field(default=0.5, ge=0)
    rate: float = Field(default=0.0, ge=0)


class Arm(Protocol):
    """Posterior of an arm's level, a positive number."""

    @property
    def mean(self) -> float:
        """Expectation."""

    @property
    def variance(self) -> float:
        """Variance."""

    @property
    def inverse_mean(self) -> float:
        """Expectation of one over the level; infinite where it does not exist."""

    @property
    def inverse_variance(self) -> float:
        """Variance of one over the level; infinite where it does not exist."""

    @property
    def edges(self) -> tuple[float, float, float]:
        """Lower end of the bulk, mean, upper end; the bulk leaves out 1e-30 on either side."""

    @property
    def steepness(self) -> float:
        """The smallest exponent of the density at an end of the support, plus one."""

    def shape_at(self, x: Array, beyond: Array) -> Array:
        """Density relative to that at the mean; `beyond` is the distance to the upper edge."""

    def density(self, x: Array) -> Array:
        """Density."""

    def cdf(self, x: Array) -> Array:
        """Probability of at most `x`; `x` may lie outside the support."""

    def sf(self, x: Array) -> Array:
        """Probability of more than `x`."""

    def over_level(self) -> "Arm":
        """The distribution with density proportional to `density(x) / x`."""


@dataclass(frozen=True)
class Beta:
    """Posterior of a proportion.

    Attributes:
        alpha: Prior alpha plus successes.
        beta: Prior beta plus failures.
    """

    alpha: float
    beta: float

    @property
    def mean(self) -> float:
        """Expectation."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def variance(self) -> float:
        """Variance."""
        total = self.alpha + self.beta
        return self.alpha / total * (self.beta / total) / (total + 1)

    @property
    def inverse_mean(self) -> float:
        """Expectation of one over the proportion."""
        if self.alpha <= 1:
            return math.inf
        return (self.alpha + self.beta - 1) / (self.alpha - 1)

    @property
    def inverse_variance(self) -> float:
        """Variance of one over the proportion, that of a beta prime."""
        if self.alpha <= 2:  # noqa: PLR2004 - order of the moment
            return math.inf
        return self.inverse_mean * self.beta / ((self.alpha - 1) * (self.alpha - 2))

    @cached_property
    def edges(self) -> tuple[float, float, float]:
        """Lower end of the bulk, mean, upper end."""
        from scipy import special

        lower = float(special.betaincinv(self.alpha, self.beta, _BULK))
        return lower, self.mean, 1 - self._beyond_bulk

    @cached_property
    def _beyond_bulk(self) -> float:
        from scipy import special

        return float(special.betaincinv(self.beta, self.alpha, _BULK))

    @property
    def steepness(self) -> float:
        """The smaller parameter."""
        return min(self.alpha, self.beta)

    def shape_at(self, x: Array, beyond: Array) -> Array:
        """Density relative to that at the mean."""
        log_x = _log_ratio(x, self.mean)
        log_rest = _log_ratio(beyond + self._beyond_bulk, self.beta / (self.alpha + self.beta))
        return np.exp((self.alpha - 1) * log_x + (self.beta - 1) * log_rest)

    def density(self, x: Array) -> Array:
        """Density."""
        from scipy import stats

        inside = (x > 0) & (x < 1)
        return np.where(inside, stats.beta.pdf(np.where(inside, x, 0.5), self.alpha, self.beta), 0)

    def cdf(self, x: Array) -> Array:
        """Probability of at most `x`."""
        from scipy import special

        return np.asarray(special.betainc(self.alpha, self.beta, np.clip(x, 0.0, 1.0)))

    def sf(self, x: Array) -> Array:
        """Probability of more than `x`."""
        from scipy import special

        return np.asarray(special.betaincc(self.alpha, self.beta, np.clip(x, 0.0, 1.0)))

    def over_level(self) -> "Beta":
        """A beta with one success less."""
        return Beta(self.alpha - 1, self.beta)


@dataclass(frozen=True)
class Gamma:
    """Posterior of a rate of events.

    Attributes:
        shape: Prior shape plus events.
        rate: Prior rate plus exposure.
    """

    shape: float
    rate: float

    @property
    def mean(self) -> float:
        """Expectation."""
        return self.shape / self.rate

    @property
    def variance(self) -> float:
        """Variance."""
        return self.shape / self.rate**2

    @property
    def inverse_mean(self) -> float:
        """Expectation of one over the rate."""
        return self.rate / (self.shape - 1) if self.shape > 1 else math.inf

    @property
    def inverse_variance(self) -> float:
        """Variance of one over the rate."""
        if self.shape <= 2:  # noqa: PLR2004 - order of the moment
            return math.inf
        return self.inverse_mean**2 / (self.shape - 2)

    @cached_property
    def edges(self) -> tuple[float, float, float]:
        """Lower end of the bulk, mean, upper end."""
        from scipy import special

        lower = float(special.gammaincinv(self.shape, _BULK)) / self.rate
        return lower, self.mean, float(special.gammainccinv(self.shape, _BULK)) / self.rate

    @property
    def steepness(self) -> float:
        """The shape."""
        return self.shape

    def shape_at(self, x: Array, beyond: Array) -> Array:  # noqa: ARG002 - no upper end
        """Density relative to that at the mean."""
        return np.exp((self.shape - 1) * _log_ratio(x, self.mean) - self.rate * (x - self.mean))

    def density(self, x: Array) -> Array:
        """Density."""
        from scipy import stats

        inside = x > 0
        safe = np.where(inside, x, self.mean)
        return np.where(inside, stats.gamma.pdf(safe, self.shape, scale=1 / self.rate), 0)

    def cdf(self, x: Array) -> Array:
        """Probability of at most `x`."""
        from scipy import special

        return np.asarray(special.gammainc(self.shape, self.rate * np.maximum(x, 0.0)))

    def sf(self, x: Array) -> Array:
        """Probability of more than `x`."""
        from scipy import special

        return np.asarray(special.gammaincc(self.shape, self.rate * np.maximum(x, 0.0)))

    def over_level(self) -> "Gamma":
        """A gamma with one event less."""
        return Gamma(self.shape - 1, self.rate)


UNIFORM = BetaPrior()
JEFFREYS_RATE = GammaPrior()


def beta_posterior(successes: float, *, n: float, prior: BetaPrior = UNIFORM) -> Beta:
    """Posterior of an arm's proportion.

    Args:
        successes: Units that converted.
        n: Units of the arm.
        prior: The prior.

    Raises:
        DataError: Successes are not between 0 and n, or the posterior is not proper.
    """
    if not (math.isfinite(n) and n > 0 and 0 <= successes <= n):
        raise DataError(
            "a proportion needs units, and successes among them",
            given=f"{successes} of {n}",
            allowed="successes from 0 to n, n above 0",
        )
    found = Beta(float(prior.alpha + successes), float(prior.beta + (n - successes)))
    if found.steepness < SMALLEST_PARAMETER:
        raise DataError(
            "nothing but one outcome was seen, and the prior does not allow for the other",
            given=f"{successes} of {n}, Beta({prior.alpha:g}, {prior.beta:g})",
            allowed=f"a prior of at least {SMALLEST_PARAMETER:g} on both sides",
        )
    return found


def gamma_posterior(events: float, *, exposure: float, prior: GammaPrior = JEFFREYS_RATE) -> Gamma:
    """Posterior of an arm's rate of Poisson events.

    Poisson counts vary as much as their mean; counts per unit that vary more (orders per user, as
    a rule) need the normal posterior of their difference, whose error is estimated.

    Args:
        events: Events of the arm.
        exposure: Units, or unit-days, over which they were counted.
        prior: The prior.

    Raises:
        DataError: Events or exposure are negative, or the posterior is not proper.
    """
    if not (math.isfinite(events) and math.isfinite(exposure) and events >= 0 and exposure > 0):
        raise DataError(
            "a rate needs a positive exposure and events",
            given=f"{events} events in {exposure}",
            allowed="events from 0, exposure above 0",
        )
    found = Gamma(float(prior.shape + events), float(prior.rate + exposure))
    if found.shape < SMALLEST_PARAMETER:
        raise DataError(
            "no event was seen, and the prior has none either",
            given=f"{events} events, prior shape {prior.shape:g}",
            allowed=f"a prior shape of at least {SMALLEST_PARAMETER:g}",
        )
    return found


def _log_ratio(x: Array, reference: float) -> Array:
    """log(x / reference), exact to the last digits where both are close."""
    is_small = x < reference / 2
    with np.errstate(divide="ignore"):
        far = np.log(np.where(is_small, x, reference) / reference)
    return np.where(
        is_small, far, np.log1p((np.where(is_small, reference, x) - reference) / reference)
    )
