"""The BG/NBD model: purchases are Poisson; after each one a customer may leave for good.

Purchase rates differ between customers as Gamma(r, alpha), the chances of leaving after a purchase
as Beta(a, b), independently (Fader, Hardie and Lee 2005, "Counting Your Customers the Easy Way: An
Alternative to the Pareto/NBD Model", Marketing Science 24). All functions are vectorised; `alpha`
is in the unit of time of recency and age.
"""

from collections.abc import Callable

import numpy as np
from scipy import special

from causal.clv.cells import Cells
from causal.core.errors import InferenceError
from causal.core.gram import Array

NAME = "bg_nbd"
PARAMETERS = ("r", "alpha", "a", "b")
_NEAR_POLE = 1e-5


def starts(cells: Cells) -> tuple[Array, ...]:
    """Starting parameters on the scale of the data."""
    age = max(float(np.average(cells.age, weights=cells.count)), 1e-12)
    rate = max(float(np.average(cells.frequency, weights=cells.count)), 0.1)
    return (
        np.array([1.0, age / rate, 1.0, 1.0]),
        np.array([0.3, 0.3 * age / rate, 0.5, 2.0]),
        np.array([2.0, 2 * age / rate, 0.2, 5.0]),
    )


def log_likelihood(parameters: Array, cells: Cells) -> tuple[Array, Array]:
    """Log-likelihood of each cell and its gradient (equation 6 of the paper, in logarithms).

    Args:
        parameters: r, alpha, a, b.
        cells: The c cells.

    Returns:
        Shapes (c,) and (c, 4); the gradient is by the logarithms of the parameters.
    """
    r, alpha, a, b = parameters
    x, age = cells.frequency, cells.age
    stayed, left = _parts(parameters, cells)
    gone = special.expit(left - stayed)
    value = (
        special.gammaln(r + x) - special.gammaln(r) + r * np.log(alpha)
        + special.betaln(a, b + x) - special.betaln(a, b)
        + np.logaddexp(stayed, left)
    )  # fmt: skip
    both = special.digamma(a + b) - special.digamma(a + b + x)
    slopes = (
        special.digamma(r + x) - special.digamma(r) + np.log(alpha)
        - (1 - gone) * np.log(alpha + age) - gone * np.log(alpha + cells.recency),
        r / alpha - (r + x) * ((1 - gone) / (alpha + age) + gone / (alpha + cells.recency)),
        both + gone / a,
        both + special.digamma(b + x) - special.digamma(b)
        - np.where(x > 0, gone / (b + x.clip(min=1) - 1), 0.0),
    )  # fmt: skip
    return value, np.column_stack(slopes) * parameters


def alive(parameters: Array, cells: Cells) -> Array:
    """Probability that a customer of each cell has not left yet; 1 without repeat purchases."""
    stayed, left = _parts(parameters, cells)
    return np.asarray(special.expit(stayed - left), dtype=np.float64)


def expected_purchases(parameters: Array, t: Array) -> Array:
    """Expected repeat purchases of a new customer by time t (equation 9).

    Args:
        parameters: r, alpha, a, b.
        t: Times since the first purchase, any shape.
    """
    times = np.asarray(t, dtype=np.float64)
    return _expected(parameters, np.zeros_like(times), np.zeros_like(times), times)


def conditional_purchases(parameters: Array, cells: Cells, t: float) -> Array:
    """Expected purchases of each cell's customers in the next t units of time (equation 10).

    Args:
        parameters: r, alpha, a, b.
        cells: The c cells.
        t: Length of the period ahead.

    Raises:
        InferenceError: The hypergeometric series did not converge.
    """
    ahead = np.full(cells.n_cells, float(t))
    return alive(parameters, cells) * _expected(parameters, cells.frequency, cells.age, ahead)


def purchase_probabilities(parameters: Array, t: float, n_max: int) -> Array:
    """Probability of 0, 1, ..., `n_max` repeat purchases by time t (equation 8)."""
    r, alpha, a, b = parameters
    n = np.arange(n_max + 1, dtype=np.float64)
    share = t / (alpha + t)
    count = np.exp(
        special.gammaln(r + n) - special.gammaln(r) - special.gammaln(n + 1)
        + r * np.log1p(-share) + special.xlogy(n, share)
    )  # fmt: skip
    base = special.betaln(a, b)
    out = np.exp(special.betaln(a, b + n) - base) * count
    at_least = special.betainc(n[1:], r, share)
    out[1:] += np.exp(special.betaln(a + 1, b + n[1:] - 1) - base) * at_least
    return np.asarray(out, dtype=np.float64)


def _parts(parameters: Array, cells: Cells) -> tuple[Array, Array]:
    """Logarithms of the two terms of the likelihood: still there, and left at the last purchase."""
    r, alpha, a, b = parameters
    x = cells.frequency
    stayed = -(r + x) * np.log(alpha + cells.age)
    left = np.log(a) - np.log(b + x.clip(min=1) - 1) - (r + x) * np.log(alpha + cells.recency)
    return stayed, np.where(x > 0, left, -np.inf)


def _expected(parameters: Array, x: Array, age: Array, t: Array) -> Array:
    """Purchases in the next t of a customer who is there, after x purchases by `age`.

    Euler's transformation turns the paper's 2F1(r + x, b + x; a + b + x - 1; z) into one whose
    numerator parameters do not grow with x, so nothing overflows for heavy buyers. The formula has
    removable poles at a = 1 and, for x = 0, a + b = 1; next to them values are interpolated.
    """
    r, alpha, a, b = (float(value) for value in parameters)
    z = t / (alpha + age + t)

    def formula(a_: float) -> Array:
        c = a_ + b + x - 1
        series = special.hyp2f1(a_ + b - 1 - r, a_ - 1, c, z)
        return np.asarray(c / (a_ - 1) * (1 - np.exp((a_ - 1) * np.log1p(-z)) * series))

    out = _beside_poles(formula, a, poles=(1.0, 1.0 - b))
    out = np.where(t > 0, out, 0.0)
    if not np.isfinite(out).all():
        raise InferenceError(
            "bg_nbd: expected purchases are not finite at these parameters",
            given=[
                f"{name} {value:.4g}" for name, value in zip(PARAMETERS, parameters, strict=True)
            ],
        )
    return out


def _beside_poles(
    formula: Callable[[float], Array], at: float, *, poles: tuple[float, ...]
) -> Array:
    for pole in poles:
        if abs(at - pole) < _NEAR_POLE and pole > _NEAR_POLE:
            share = (at - pole) / (2 * _NEAR_POLE) + 0.5
            return (1 - share) * formula(pole - _NEAR_POLE) + share * formula(pole + _NEAR_POLE)
    return formula(at)
