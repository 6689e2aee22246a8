"""Predictions beside what happened, by groups of equal size of the prediction."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Column, GramRequest
from causal.core.gram import grams, pooled
from causal.core.inference import critical_value, two_sided_pvalue
from causal.core.result import Diagnostic

GROUP = "decile"
_OFF = np.array([-1.0, 1.0, 0.0])
_TOLERATED = 3.0
"""Standard errors by which predicted and actual totals may differ."""


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """What was predicted for units and what they did.

    Attributes:
        what: What was predicted, such as `purchases`.
        table: One row per group of the prediction, lowest first: `decile`, `n`, `predicted` and
            `actual` means, `std_error` of the mean of their difference, `ci_lower`, `ci_upper` of
            the actual mean, given the prediction.
        n: Units.
        predicted: Total.
        actual: Total.
        std_error: Of the difference of the totals: how units scatter around their expectation, and
            what is uncertain about the parameters.
        rmse: Root of the mean squared error of a unit.
        mae: Mean absolute error of a unit.
        correlation: Of predictions and actual values.
    """

    what: str
    table: pd.DataFrame
    n: int
    predicted: float
    actual: float
    std_error: float
    rmse: float
    mae: float
    correlation: float

    @property
    def sentence(self) -> str:
        """The comparison in plain words."""
        return (
            f"{self.check.detail}; correlation {self.correlation:.2f}, mean absolute error "
            f"{self.mae:.3g} a customer"
        )

    @property
    def check(self) -> Diagnostic:
        """Whether the totals agree."""
        statistic = (self.actual - self.predicted) / self.std_error
        return Diagnostic(
            name=f"backtest.{self.what}",
            statistic=statistic,
            pvalue=two_sided_pvalue(statistic),
            passed=bool(abs(statistic) <= _TOLERATED),
            detail=(
                f"{self.what}: {self.actual:,.0f} came, {self.predicted:,.0f} were predicted "
                f"({self.actual / self.predicted - 1.0:+.1%}, {statistic:+.1f} standard errors)"
            ),
        )


def request(*, predicted: str, actual: str, error: str) -> GramRequest:
    """What `backtest` needs of rows with a column `decile`.

    Args:
        predicted: Column of predictions.
        actual: Column of what happened.
        error: Column of the absolute difference.
    """
    return GramRequest(terms=(Column(predicted), Column(actual), Column(error)), by=(GROUP,))


def backtest(
    frame: pd.DataFrame,
    asked: GramRequest,
    *,
    what: str,
    relative_error: float = 0.0,
    confidence_level: float = 0.95,
) -> Backtest:
    """Compare predictions with what happened.

    Args:
        frame: The answer to the request.
        asked: The request.
        what: What was predicted.
        relative_error: Standard error of the predicted total from the parameters, as a share of it.
        confidence_level: Of the groups' intervals.

    Raises:
        DataError: Units lack a prediction or an outcome, or nothing was predicted.
    """
    groups = sorted(grams(frame, asked).items(), key=lambda item: float(str(item[0][0])))
    parts = [gram for _, gram in groups]
    n_missing = sum(part.n_missing for part in parts)
    if n_missing:
        raise DataError(f"some units have no {what} to compare", given=f"{n_missing:,} units")
    n = np.array([part.n for part in parts], dtype=np.float64)
    mean = np.array([part.mean for part in parts])
    # Within groups, so that a prediction that is off does not widen what it is compared with.
    scatter = np.array([_OFF @ part.cross @ _OFF for part in parts]) * n / (n - 1).clip(min=1.0)
    errors = np.sqrt(scatter) / n
    half = critical_value(confidence_level) * errors
    table = pd.DataFrame(
        {
            GROUP: np.arange(1, len(parts) + 1),
            "n": n.astype(np.int64),
            "predicted": mean[:, 0],
            "actual": mean[:, 1],
            "std_error": errors,
            "ci_lower": mean[:, 1] - half,
            "ci_upper": mean[:, 1] + half,
        }
    )
    whole = pooled(parts)
    totals = whole.n * whole.mean
    if not totals[0] > 0:
        raise DataError(f"no {what} are predicted", given=f"a total of {totals[0]:.3g}")
    spread = np.sqrt(whole.cross[0, 0] * whole.cross[1, 1])
    return Backtest(
        what=what,
        table=table,
        n=whole.n,
        predicted=float(totals[0]),
        actual=float(totals[1]),
        std_error=float(np.sqrt(scatter.sum() + (relative_error * totals[0]) ** 2)),
        rmse=float(np.sqrt(_OFF @ whole.moment() @ _OFF / whole.n)),
        mae=float(whole.mean[2]),
        correlation=float(whole.cross[0, 1] / spread) if spread > 0 else 0.0,
    )
