"""The BG/BB model: at each opportunity a customer who is still there buys, or not.

The chance of buying differs between customers as Beta(alpha, beta), the chance of leaving before
an opportunity as Beta(gamma, delta), independently (Fader, Hardie and Shang 2010, "Customer-Base
Analysis in a Discrete-Time Noncontractual Setting", Marketing Science 29). `age` counts
opportunities and `recency` is the number of the last one that was used.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from causal.clv.cells import Cells
from causal.core.errors import DataError
from causal.core.gram import Array

NAME = "bg_bb"
PARAMETERS = ("alpha", "beta", "gamma", "delta")
_NEAR_POLE = 1e-6
_Index = NDArray[np.int64]
_Flags = NDArray[np.bool_]


def starts(cells: Cells) -> tuple[Array, ...]:
    """Starting parameters; opportunities have no unit, so the data do not move them."""
    del cells
    return (np.ones(4), np.array([1.0, 1.0, 0.5, 3.0]), np.array([0.5, 1.0, 0.2, 0.5]))


def check(cells: Cells) -> None:
    """Opportunities are counted in whole numbers and each is used at most once.

    Raises:
        DataError: They are not.
    """
    whole = (cells.recency == np.round(cells.recency)) & (cells.age == np.round(cells.age))
    if not whole.all():
        raise DataError(
            "bg_bb counts purchase opportunities: recency and age must be whole numbers",
            given=f"{cells.count[~whole].sum():,.0f} customers with parts of one",
        )
    crowded = cells.frequency > cells.recency
    if crowded.any():
        raise DataError(
            "bg_bb: frequency must not exceed recency, for an opportunity is used at most once",
            given=f"{cells.count[crowded].sum():,.0f} customers",
        )


def log_likelihood(parameters: Array, cells: Cells) -> tuple[Array, Array]:
    """Log-likelihood of each cell and its gradient (equation 5 of the paper).

    Args:
        parameters: alpha, beta, gamma, delta.
        cells: The c cells.

    Returns:
        Shapes (c,) and (c, 4); the gradient is by the logarithms of the parameters.
    """
    alpha, beta, gamma, delta = parameters
    owner, used, is_last = _histories(cells)
    x = cells.frequency[owner]
    died = np.where(is_last, 0.0, 1.0)
    # Having lived through `used` opportunities; the last entry of a customer is "still there".
    first = (alpha + x, beta + used - x)
    second = (gamma + died, delta + used)
    logs = special.betaln(*first) + special.betaln(*second)
    top = np.full(cells.n_cells, -np.inf)
    np.maximum.at(top, owner, logs)
    weights = np.exp(logs - top[owner])
    total = np.bincount(owner, weights)
    weights = weights / total[owner]
    value = top + np.log(total) - special.betaln(alpha, beta) - special.betaln(gamma, delta)
    slopes = [
        np.bincount(owner, weights * (special.digamma(one) - special.digamma(one + other))) - (
            special.digamma(prior) - special.digamma(prior + rest)
        )
        for one, other, prior, rest in (
            (*first, alpha, beta), (*first[::-1], beta, alpha),
            (*second, gamma, delta), (*second[::-1], delta, gamma),
        )
    ]  # fmt: skip
    return value, np.column_stack(slopes) * parameters


def alive(parameters: Array, cells: Cells) -> Array:
    """Probability that a customer of each cell is still there at the next opportunity."""
    alpha, beta, gamma, delta = parameters
    x, n = cells.frequency, cells.age
    logs = (
        special.betaln(alpha + x, beta + n - x) - special.betaln(alpha, beta)
        + special.betaln(gamma, delta + n + 1) - special.betaln(gamma, delta)
    )  # fmt: skip
    return np.asarray(np.exp(logs - log_likelihood(parameters, cells)[0]), dtype=np.float64)


def expected_purchases(parameters: Array, t: Array) -> Array:
    """Expected purchases of a new customer in the first t opportunities (equation 7)."""
    alpha, beta, gamma, delta = (float(value) for value in parameters)
    times = np.asarray(t, dtype=np.float64)
    return alpha / (alpha + beta) * _survivals(gamma, delta, np.zeros_like(times), times)


def conditional_purchases(parameters: Array, cells: Cells, t: float) -> Array:
    """Expected purchases of each cell's customers in the next t opportunities (equation 13)."""
    alpha, beta, gamma, delta = (float(value) for value in parameters)
    x, n = cells.frequency, cells.age
    logs = special.betaln(alpha + x + 1, beta + n - x) - special.betaln(alpha, beta)
    chance = np.exp(logs - log_likelihood(parameters, cells)[0])
    ahead = np.full(cells.n_cells, float(t))
    return np.asarray(chance * _survivals(gamma, delta, n, ahead), dtype=np.float64)


def purchase_probabilities(parameters: Array, t: float, n_max: int) -> Array:
    """Probability of 0, 1, ..., `n_max` purchases in the first t opportunities."""
    alpha, beta, gamma, delta = parameters
    x = np.arange(n_max + 1, dtype=np.float64)[:, None]
    lived = np.arange(int(t) + 1, dtype=np.float64)
    died = np.where(lived < int(t), 1.0, 0.0)
    with np.errstate(invalid="ignore"):
        logs = (
            special.gammaln(lived + 1) - special.gammaln(x + 1) - special.gammaln(lived - x + 1)
            + special.betaln(alpha + x, beta + lived - x) - special.betaln(alpha, beta)
            + special.betaln(gamma + died, delta + lived) - special.betaln(gamma, delta)
        )  # fmt: skip
    return np.asarray(np.where(lived >= x, np.exp(logs), 0.0).sum(axis=1), dtype=np.float64)


def _histories(cells: Cells) -> tuple[_Index, Array, _Flags]:
    """Every way in which a customer can have ended: cell, opportunities lived, still there."""
    n_ways = (cells.age - cells.recency).astype(np.int64) + 1
    owner = np.repeat(np.arange(cells.n_cells, dtype=np.int64), n_ways)
    first = np.repeat(np.cumsum(n_ways) - n_ways, n_ways)
    lived = cells.recency[owner] + (np.arange(len(owner)) - first)
    return owner, lived, np.asarray(lived == cells.age[owner])


def _survivals(gamma: float, delta: float, n: Array, t: Array) -> Array:
    """Sum over k = 1..t of B(gamma, delta + n + k) / B(gamma, delta).

    The closed form has a removable pole at gamma = 1; next to it, values are interpolated.
    """

    def formula(g: float) -> Array:
        now = special.gammaln(1 + delta + n) - special.gammaln(g + delta + n)
        change = special.gammaln(1 + delta + n + t) - special.gammaln(g + delta + n + t) - now
        scale = special.gammaln(g + delta) - special.gammaln(delta)
        return np.asarray(-np.exp(scale + now) * np.expm1(change) / (g - 1), dtype=np.float64)

    if abs(gamma - 1) < _NEAR_POLE:
        share = (gamma - 1) / (2 * _NEAR_POLE) + 0.5
        return (1 - share) * formula(1 - _NEAR_POLE) + share * formula(1 + _NEAR_POLE)
    return formula(gamma)
