"""The Gamma-Gamma model of spend per purchase.

A customer's purchases are Gamma(p, nu) and nu differs between customers as Gamma(q, gamma), so a
mean of few purchases is pulled towards the mean of all (Fader, Hardie and Lee 2005, "RFM and CLV:
Using Iso-Value Curves for Customer Base Analysis", Journal of Marketing Research 42; Fader and
Hardie 2013, "The Gamma-Gamma Model of Monetary Value"). Assumes that spend per purchase is
independent of how often a customer buys. Only customers with repeat purchases and positive spend
carry information.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from causal.core.errors import DataError, InferenceError
from causal.core.gram import Array

NAME = "gamma_gamma"
PARAMETERS = ("p", "q", "gamma")


@dataclass(frozen=True, kw_only=True)
class SpendCells:
    """Distinct pairs of frequency and mean spend, and how many customers have each.

    Attributes:
        frequency: Purchases behind the mean, 1 or more, shape (c,).
        monetary_value: Mean spend per purchase, positive, shape (c,).
        count: Customers per cell, shape (c,).
        spread: Variance of the mean spend inside each cell where cells hold means of several
            values, shape (c,); `None` where they are exact.
    """

    frequency: Array
    monetary_value: Array
    count: Array
    spread: Array | None = None

    @property
    def n(self) -> int:
        """Customers."""
        return round(float(self.count.sum()))

    @property
    def n_cells(self) -> int:
        """Distinct cells."""
        return len(self.count)

    def finer(self) -> "SpendCells":
        """Two points per cell that have its mean and variance."""
        if self.spread is None:
            return self
        step = np.minimum(np.sqrt(self.spread.clip(min=0.0)), 0.999 * self.monetary_value)
        return SpendCells(
            frequency=np.repeat(self.frequency, 2),
            monetary_value=np.column_stack(
                [self.monetary_value - step, self.monetary_value + step]
            ).ravel(),
            count=np.repeat(self.count / 2, 2),
        )


def spend_cells(
    frequency: ArrayLike, monetary_value: ArrayLike, count: ArrayLike | None = None
) -> SpendCells:
    """The distinct cells of customers given as arrays.

    Args:
        frequency: Purchases behind each customer's mean, shape (n,).
        monetary_value: Mean spend per purchase, shape (n,).
        count: Customers per row; 1 each if left out.

    Raises:
        DataError: A frequency below 1, or spend that is not positive and finite.
    """
    x = np.asarray(frequency, dtype=np.float64)
    spend = np.asarray(monetary_value, dtype=np.float64)
    weights = np.ones(len(x)) if count is None else np.asarray(count, dtype=np.float64)
    distinct, at = np.unique(np.column_stack([x, spend]), axis=0, return_inverse=True)
    cells = SpendCells(
        frequency=distinct[:, 0],
        monetary_value=distinct[:, 1],
        count=np.bincount(at.ravel(), weights, minlength=len(distinct)).astype(np.float64),
    )
    check(cells)
    return cells


def check(cells: SpendCells) -> None:
    """Spend and frequency are such as the model can have made.

    Raises:
        DataError: Names the rule and counts the customers that break it.
    """
    if cells.n_cells == 0:
        raise DataError("no customer has a repeat purchase with positive spend")
    x, spend = cells.frequency, cells.monetary_value
    rules = {
        "frequency must be a whole number, 1 or more": ~((x >= 1) & (x == np.round(x))),
        "monetary_value must be positive and finite": ~((spend > 0) & np.isfinite(spend)),
        "counts of customers must be positive": ~(cells.count > 0),
    }
    for rule, is_broken in rules.items():
        if is_broken.any():
            raise DataError(rule, given=f"{cells.count[is_broken].sum():,.0f} customers")


def starts(cells: SpendCells) -> tuple[Array, ...]:
    """Starting parameters on the scale of the data."""
    mean = float(np.average(cells.monetary_value, weights=cells.count))
    return (
        np.array([2.0, 3.0, mean]),
        np.array([6.0, 4.0, mean / 2]),
        np.array([0.5, 6.0, 10 * mean]),
    )


def log_likelihood(parameters: Array, cells: SpendCells) -> tuple[Array, Array]:
    """Log-likelihood of each cell's mean spend and its gradient (equation 1a of the 2013 note).

    Args:
        parameters: p, q, gamma.
        cells: The c cells.

    Returns:
        Shapes (c,) and (c, 3); the gradient is by the logarithms of the parameters.
    """
    p, q, gamma = parameters
    x, spend = cells.frequency, cells.monetary_value
    shape, whole = p * x, np.log(gamma + x * spend)
    value = (
        -special.betaln(shape, q) + q * np.log(gamma) - np.log(spend)
        + shape * (np.log(x * spend) - whole) - q * whole
    )  # fmt: skip
    common = special.digamma(shape + q)
    slopes = (
        x * (common - special.digamma(shape) + np.log(x * spend) - whole),
        common - special.digamma(q) + np.log(gamma) - whole,
        q / gamma - (shape + q) / (gamma + x * spend),
    )
    return value, np.column_stack(slopes) * parameters


def population_mean(parameters: Array) -> float:
    """Mean spend per purchase over all customers, p gamma / (q - 1).

    Raises:
        InferenceError: q is 1 or less: the mean is infinite.
    """
    p, q, gamma = parameters
    if q <= 1:
        raise InferenceError(
            "gamma_gamma: with q <= 1 mean spend is infinite", given=f"q = {q:.4g}"
        )
    return float(p * gamma / (q - 1))


def conditional_value(parameters: Array, frequency: ArrayLike, monetary_value: ArrayLike) -> Array:
    """Expected spend per purchase of customers with the given history (equation 5).

    A weighted mean of the customer's own mean and the population's; customers without repeat
    purchases get the population's.

    Args:
        parameters: p, q, gamma.
        frequency: Purchases behind each mean, shape (n,).
        monetary_value: Mean spend per purchase, shape (n,); not read where frequency is 0.

    Raises:
        InferenceError: The mean is infinite for some of them (p x + q <= 1).
    """
    p, q, gamma = parameters
    x = np.asarray(frequency, dtype=np.float64)
    spend = np.where(x > 0, np.asarray(monetary_value, dtype=np.float64), 0.0)
    below = p * x + q - 1
    if (below <= 0).any():
        population_mean(parameters)
    return np.asarray(p * (gamma + x * spend) / below, dtype=np.float64)
