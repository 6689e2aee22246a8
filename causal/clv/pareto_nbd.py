"""The Pareto/NBD model: purchases are Poisson until a customer leaves at an exponential time.

Purchase rates differ between customers as Gamma(r, alpha), rates of leaving as Gamma(s, beta),
independently (Schmittlein, Morrison and Colombo 1987, "Counting Your Customers: Who Are They and
What Will They Do Next?", Management Science 33; formulas as in Fader and Hardie 2005, "A Note on
Deriving the Pareto/NBD Model and Related Expressions").

The likelihood holds an integral over the unseen time of leaving,

    int_recency^age (alpha + u)^-(r + x) (beta + u)^-(s + 1) du,

which is usually written as a difference of two Gaussian hypergeometric functions. That difference
cancels, overflows for heavy buyers and has no derivative by its parameters. Here the integral is
taken by Gauss-Legendre quadrature in log(c + u), c = min(alpha, beta): the integrand is positive
and log-concave there and its nearest singularity is pi away from the line, so the quadrature is
exact to rounding, and the gradient follows under the integral.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from causal.clv.cells import Cells
from causal.core.gram import Array

NAME = "pareto_nbd"
PARAMETERS = ("r", "alpha", "s", "beta")
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_NEGLIGIBLE = 60.0
"""The integrand is left out where it has fallen by this many powers of e."""
_CHUNK = 20_000


def starts(cells: Cells) -> tuple[Array, ...]:
    """Starting parameters on the scale of the data."""
    age = max(float(np.average(cells.age, weights=cells.count)), 1e-12)
    rate = max(float(np.average(cells.frequency, weights=cells.count)), 0.1)
    return (
        np.array([1.0, age / rate, 1.0, age]),
        np.array([0.5, 0.5 * age / rate, 0.5, 0.3 * age]),
        np.array([2.0, 2 * age / rate, 1.0, 3 * age]),
    )


def log_likelihood(parameters: Array, cells: Cells) -> tuple[Array, Array]:
    """Log-likelihood of each cell and its gradient.

    Args:
        parameters: r, alpha, s, beta.
        cells: The c cells.

    Returns:
        Shapes (c,) and (c, 4); the gradient is by the logarithms of the parameters.
    """
    r, alpha, s, beta = parameters
    x, age = cells.frequency, cells.age
    there = -(r + x) * np.log(alpha + age) - s * np.log(beta + age)
    leaving = _leaving(parameters, cells)
    gone = special.expit(leaving.log_value - there)
    value = (
        special.gammaln(r + x) - special.gammaln(r) + r * np.log(alpha) + s * np.log(beta)
        + np.logaddexp(there, leaving.log_value)
    )  # fmt: skip
    here = 1 - gone
    slopes = (
        special.digamma(r + x) - special.digamma(r) + np.log(alpha)
        - here * np.log(alpha + age) - gone * leaving.log_alpha,
        r / alpha - (r + x) * (here / (alpha + age) + gone * leaving.per_alpha),
        np.log(beta) - here * np.log(beta + age) + gone * (1 / s - leaving.log_beta),
        s / beta - here * s / (beta + age) - gone * (s + 1) * leaving.per_beta,
    )  # fmt: skip
    return value, np.column_stack(slopes) * parameters


def alive(parameters: Array, cells: Cells) -> Array:
    """Probability that a customer of each cell has not left by the end of observation."""
    r, alpha, s, beta = parameters
    there = -(r + cells.frequency) * np.log(alpha + cells.age) - s * np.log(beta + cells.age)
    return np.asarray(
        special.expit(there - _leaving(parameters, cells).log_value), dtype=np.float64
    )


def expected_purchases(parameters: Array, t: Array) -> Array:
    """Expected repeat purchases of a new customer by time t.

    Args:
        parameters: r, alpha, s, beta.
        t: Times since the first purchase, any shape.
    """
    r, alpha, s, beta = parameters
    times = np.asarray(t, dtype=np.float64)
    return np.asarray(r * beta / alpha * _lasting(s, np.log(beta / (beta + times))))


def conditional_purchases(parameters: Array, cells: Cells, t: float) -> Array:
    """Expected purchases of each cell's customers in the next t units of time."""
    r, alpha, s, beta = parameters
    rate = (r + cells.frequency) * (beta + cells.age) / (alpha + cells.age)
    share = np.log((beta + cells.age) / (beta + cells.age + t))
    return np.asarray(alive(parameters, cells) * rate * _lasting(s, share), dtype=np.float64)


def purchase_probabilities(parameters: Array, t: float, n_max: int) -> Array:
    """Probability of 0, 1, ..., `n_max` repeat purchases by time t."""
    r, alpha, s, beta = parameters
    n = np.arange(n_max + 1, dtype=np.float64)[:, None]
    base = min(alpha, beta)
    reach = np.log1p(t / base)
    # Two panels: many purchases gather the integrand at the end of the interval.
    log_u = np.concatenate([(_NODES + 1) / 4, (_NODES + 3) / 4]) * reach
    weight = np.concatenate([_WEIGHTS, _WEIGHTS]) / 4 * reach
    u = base * np.expm1(log_u)
    leaving = s * np.exp(s * np.log(beta) - (s + 1) * np.log(beta + u)) * (base + u)
    inside = (_counts(r, alpha, n, u) * leaving * weight).sum(axis=1)
    stays = np.exp(s * np.log(beta / (beta + t)))
    return np.asarray(inside + stays * _counts(r, alpha, n, np.array([t]))[:, 0])


def _counts(r: float, alpha: float, n: Array, u: Array) -> Array:
    """Negative binomial probability of n purchases in u units of time."""
    return np.asarray(
        np.exp(
            special.gammaln(r + n) - special.gammaln(r) - special.gammaln(n + 1)
            + r * np.log(alpha / (alpha + u)) + special.xlogy(n, u / (alpha + u))
        ),
        dtype=np.float64,
    )  # fmt: skip


def _lasting(s: float, log_share: Array) -> Array:
    """(1 - share^(s - 1)) / (s - 1), also at s = 1."""
    if s == 1.0:
        return np.asarray(-log_share)
    return np.asarray(-np.expm1((s - 1) * log_share) / (s - 1), dtype=np.float64)


@dataclass(frozen=True)
class _Leaving:
    """The part of the likelihood in which the customer left, and means under its integrand.

    Attributes:
        log_value: Logarithm of s times the integral, shape (c,).
        log_alpha: Mean of log(alpha + u).
        per_alpha: Mean of 1 / (alpha + u).
        log_beta: Mean of log(beta + u).
        per_beta: Mean of 1 / (beta + u).
    """

    log_value: Array
    log_alpha: Array
    per_alpha: Array
    log_beta: Array
    per_beta: Array


def _leaving(parameters: Array, cells: Cells) -> _Leaving:
    parts = [
        _leaving_part(
            parameters,
            cells.frequency[at : at + _CHUNK],
            cells.recency[at : at + _CHUNK],
            cells.age[at : at + _CHUNK],
        )
        for at in range(0, cells.n_cells, _CHUNK)
    ]
    return _Leaving(*np.concatenate(parts, axis=1))


def _leaving_part(parameters: Array, x: Array, recency: Array, age: Array) -> Array:
    r, alpha, s, beta = parameters
    base = min(alpha, beta)
    start = np.log(base + recency)
    reach = _reach(parameters, x, recency, np.log(base + age) - start)
    log_u = start[:, None] + reach[:, None] * (_NODES + 1) / 2
    u = np.exp(log_u) - base
    log_alpha, log_beta = np.log(alpha + u), np.log(beta + u)
    logs = log_u - (r + x)[:, None] * log_alpha - (s + 1) * log_beta
    top = logs.max(axis=1)
    weights = np.exp(logs - top[:, None]) * _WEIGHTS
    total = weights.sum(axis=1)
    with np.errstate(divide="ignore"):
        # A purchase on the last day leaves no time to have left in: the logarithm of zero.
        log_value = np.log(s) + top + np.log(total) + np.log(reach / 2)

    def mean(values: Array) -> Array:
        return np.asarray((weights * values).sum(axis=1) / total, dtype=np.float64)

    return np.array([
        log_value, mean(log_alpha), mean(1 / (alpha + u)), mean(log_beta), mean(1 / (beta + u)),
    ])  # fmt: skip


def _reach(parameters: Array, x: Array, recency: Array, whole: Array) -> Array:
    """Length of the interval, in log(c + u), outside which the integrand is negligible."""
    r, alpha, s, beta = parameters
    base = min(alpha, beta)
    start = np.log(base + recency)

    def fallen(width: Array) -> Array:
        u = np.exp(start + width) - base
        return np.asarray(
            (r + x) * np.log((alpha + u) / (alpha + recency))
            + (s + 1) * np.log((beta + u) / (beta + recency))
            - width
        )

    low, high = np.zeros_like(whole), whole.copy()
    if not (fallen(high) > _NEGLIGIBLE).any():
        return whole
    # The integrand is log-concave, so once it has fallen it stays down: bisection finds where.
    for _ in range(24):
        middle = (low + high) / 2
        is_far = fallen(middle) > _NEGLIGIBLE
        low, high = np.where(is_far, low, middle), np.where(is_far, middle, high)
    return np.where(fallen(whole) > _NEGLIGIBLE, high, whole)
