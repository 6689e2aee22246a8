"""What customers will buy and be worth: discounted lifetime value, and sums with errors."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from causal.clv import gamma_gamma
from causal.clv.cells import Cells
from causal.clv.maximum_likelihood import Estimate, Fit, propagate
from causal.clv.models import MODELS
from causal.core.errors import DataError, SpecError
from causal.core.gram import Array


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """How far ahead value counts, and what later money is worth.

    Attributes:
        n_periods: Number of periods ahead.
        period: Length of a period in the unit of time of recency and age (4.345 for months where
            time is in weeks).
        discount_rate: Rate per period; purchases of period k count 1 / (1 + rate)^k.
    """

    n_periods: int
    period: float = 1.0
    discount_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse horizons that mean nothing."""
        if not (self.n_periods >= 1 and self.period > 0 and self.discount_rate > -1):
            raise SpecError(
                "a horizon needs one period or more, of positive length, and a rate above -1",
                given=f"{self.n_periods} periods of {self.period}, rate {self.discount_rate}",
            )


def discounted_purchases(fit: Fit, cells: Cells, horizon: Horizon) -> Array:
    """Expected discounted purchases of each cell's customers, shape (c,).

    The purchases expected in each period, discounted from its end.
    """
    return _discounted(fit.model, fit.parameters, cells, horizon)


def lifetime_value(
    purchases: Fit, spend: Fit, cells: Cells, monetary_value: ArrayLike, *, horizon: Horizon
) -> Array:
    """Expected discounted value of each cell's customers.

    Args:
        purchases: A fitted purchase model.
        spend: A fitted Gamma-Gamma model.
        cells: The c histories to value, such as `causal.clv.cells.rows_of` gives for customers in
            their order; the counts are not used.
        monetary_value: Mean spend per repeat purchase of each, shape (c,); not read where the
            frequency is 0.
        horizon: How far ahead, and the rate.

    Returns:
        Shape (c,), in units of money.

    Raises:
        DataError: There is not one value per history.
        InferenceError: Mean spend is infinite for some of them.
    """
    _check_aligned(cells, monetary_value)
    each = gamma_gamma.conditional_value(spend.parameters, cells.frequency, monetary_value)
    return each * discounted_purchases(purchases, cells, horizon)


def total_purchases(
    fit: Fit, cells: Cells, *, t: float, confidence_level: float = 0.95
) -> Estimate:
    """Purchases that all customers together are expected to make in the next t units of time.

    The interval is that of the expectation (uncertain parameters); what happens scatters around it.
    """
    model = MODELS[fit.model]
    return propagate(
        [fit],
        lambda theta: cells.count @ model.conditional_purchases(theta, cells, t),
        confidence_level=confidence_level,
    )


def total_value(
    purchases: Fit,
    spend: Fit,
    cells: Cells,
    monetary_value: ArrayLike,
    *,
    horizon: Horizon,
    confidence_level: float = 0.95,
) -> Estimate:
    """Discounted value of all customers together, counts included, with its standard error."""
    values = np.asarray(monetary_value, dtype=np.float64)
    _check_aligned(cells, values)

    def total(first: Array, second: Array) -> Array:
        each = gamma_gamma.conditional_value(second, cells.frequency, values)
        return np.asarray(
            cells.count @ (each * _discounted(purchases.model, first, cells, horizon))
        )

    return propagate([purchases, spend], total, confidence_level=confidence_level)


def _check_aligned(cells: Cells, monetary_value: ArrayLike) -> None:
    shape = np.shape(monetary_value)
    if shape != (cells.n_cells,):
        raise DataError(
            "one monetary value per history is needed",
            given=f"shape {shape}",
            allowed=f"({cells.n_cells},)",
        )


def _discounted(name: str, parameters: Array, cells: Cells, horizon: Horizon) -> Array:
    model = MODELS[name]
    total = np.zeros(cells.n_cells)
    before = np.zeros(cells.n_cells)
    for k in range(1, horizon.n_periods + 1):
        until = model.conditional_purchases(parameters, cells, k * horizon.period)
        total += (until - before) / (1 + horizon.discount_rate) ** k
        before = until
    return total
