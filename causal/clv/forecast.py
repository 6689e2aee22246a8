"""What each customer is predicted to do: the numbers of a table of customers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causal.clv import gamma_gamma
from causal.clv.cells import rows_of
from causal.clv.lifetime_value import Horizon, discounted_purchases
from causal.clv.maximum_likelihood import Fit
from causal.clv.models import MODELS
from causal.core.errors import DataError
from causal.core.gram import Array

INPUTS = ("frequency", "recency", "age", "monetary_value")
PURCHASE_OUTPUTS = ("alive_probability", "expected_purchases", "discounted_purchases")
SPEND_OUTPUTS = ("expected_amount", "expected_spend", "lifetime_value")


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Fitted models and a horizon: a function of customers' histories that travels to them.

    Attributes:
        purchases: The purchase model.
        spend: The Gamma-Gamma model, if there is spend.
        horizon: How far ahead.
    """

    purchases: Fit
    spend: Fit | None
    horizon: Horizon

    @property
    def names(self) -> tuple[str, ...]:
        """What is predicted, in the order of `score`."""
        return PURCHASE_OUTPUTS if self.spend is None else (*PURCHASE_OUTPUTS, *SPEND_OUTPUTS)

    def score(self, columns: Sequence["pd.Series[Any]"]) -> Array:
        """Predictions of customers, shape (n, len(names)).

        Args:
            columns: `INPUTS`; the mean spend is not read of those who did not buy again.

        Raises:
            DataError: A history is impossible or lacks a part: no customer is scored by half.
            InferenceError: Mean spend is infinite.
        """
        frequency, recency, age, money = (
            pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan) for column in columns
        )
        if not len(frequency):
            return np.empty((0, len(self.names)))
        cells = rows_of(frequency, recency, age)
        model = MODELS[self.purchases.model]
        parameters, ahead = self.purchases.parameters, self.horizon
        made = [
            model.alive(parameters, cells),
            model.conditional_purchases(parameters, cells, ahead.n_periods * ahead.period),
            discounted_purchases(self.purchases, cells, ahead),
        ]
        if self.spend is not None:
            bought_again = frequency > 0
            is_wrong = bought_again & ~(money > 0)
            if is_wrong.any():
                raise DataError(
                    "customers who bought again must have a positive mean spend",
                    given=f"{int(is_wrong.sum()):,} who have not",
                )
            amount = gamma_gamma.conditional_value(self.spend.parameters, frequency, money)
            made += [amount, amount * made[1], amount * made[2]]
        return np.column_stack(made)
