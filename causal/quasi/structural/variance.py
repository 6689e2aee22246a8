"""Standard deviations with an inverse gamma prior on the variance and an upper limit."""

import math
from dataclasses import dataclass

import numpy as np

from causal.core.gram import Array

_TINY = 1e-290


@dataclass(frozen=True, kw_only=True)
class VariancePrior:
    """`1 / sigma^2 ~ Gamma(df / 2, df guess^2 / 2)`, cut where `sigma` exceeds `upper`.

    Attributes:
        guess: Guess at the standard deviation.
        df: Observations that the guess is worth.
        upper: Largest standard deviation.
    """

    guess: float
    df: float
    upper: float

    def draw(self, rng: np.random.Generator, *, n: float, sum_of_squares: float) -> float:
        """A standard deviation given `n` independent errors around zero.

        Args:
            rng: Source of the draw.
            n: Number of errors.
            sum_of_squares: Their sum of squares.
        """
        shape = (self.df + n) / 2
        rate = (self.df * self.guess**2 + sum_of_squares) / 2
        return 1.0 / math.sqrt(_precision(rng, shape=shape, rate=rate, lower=self.upper**-2))


def log_mass_below(upper: float, *, shape: float, rates: Array) -> Array:
    """Log probability that `1 / Gamma(shape, rate)` lies below `upper` squared, by rate."""
    from scipy import special

    at = rates * upper**-2
    mass = special.gammaincc(shape, at)
    # The tail of a gamma beyond x is about x^(shape-1) e^-x / gamma(shape).
    tail = (shape - 1) * np.log(at) - at - math.lgamma(shape)
    return np.where(mass > _TINY, np.log(np.maximum(mass, _TINY)), tail)


def _precision(rng: np.random.Generator, *, shape: float, rate: float, lower: float) -> float:
    """A draw of Gamma(shape, rate) above `lower`, by inversion of its upper tail."""
    from scipy import special

    uniform = 1.0 - rng.random()
    mass = float(special.gammaincc(shape, rate * lower))
    if mass > _TINY:
        return float(special.gammainccinv(shape, uniform * mass)) / rate
    # So far out the excess over the limit is exponential.
    return lower - math.log(uniform) / (rate - (shape - 1) / lower)
