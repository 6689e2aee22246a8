"""Compliers: how many they are, what they are like, and how they fare with and without treatment.

With a 0/1 treatment D and a 0/1 instrument Z that never keeps anyone from the treatment, two-stage
least squares of `X D` on D is the mean of X among those whom the instrument moves, and of `Y D` and
`Y (1 - D)` on D and 1 - D their mean outcomes with and without treatment (Imbens and Rubin 1997;
Abadie 2003). Covariates enter as in the main regression, so that compliers are weighted as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import InferenceError
from causal.core.frames import Column, Linear, Product, Score, Term
from causal.core.inference import critical_value
from causal.regression.equation import Equation, Moments, k_class
from causal.regression.sandwich import Errors


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Kinds of units by how they answer the instrument; the shares sum to one.

    Attributes:
        compliers: Treated only when the instrument says so.
        always_takers: Treated whatever it says.
        never_takers: Treated in no case.
        is_reversed: Whether the instrument lowers the treatment.
    """

    compliers: float
    always_takers: float
    never_takers: float
    is_reversed: bool


@dataclass(frozen=True, kw_only=True)
class ComplierMean:
    """A mean among compliers.

    Attributes:
        name: What of.
        fit: The equation whose coefficient it is.
        position: Where in the equation.
        population: The mean over all rows; NaN for outcomes under one arm only.
        sign: -1 where the coefficient is that of 1 - D.
    """

    name: str
    fit: Equation
    position: int
    population: float
    sign: float = 1.0

    @property
    def estimate(self) -> float:
        """The mean among compliers."""
        return self.sign * float(self.fit.coefficients[self.position])

    def score(self) -> Score:
        """The score whose summed squares are the variance."""
        return self.fit.scores([self.position])[0]


def products(outcome: Term, treatment: Term, characteristics: Sequence[str]) -> tuple[Term, ...]:
    """Terms that the moments must hold: characteristics, and products with the treatment."""
    own = tuple(Column(name) for name in characteristics)
    return (
        _untreated(outcome, treatment),
        *own,
        *(Product((term, treatment)) for term in (outcome, *own)),
    )


def shares(first_stage: float, *, mean_treatment: float, mean_instrument: float) -> Shares:
    """Shares of the kinds at the mean of the covariates.

    Args:
        first_stage: Coefficient of the instrument in the first stage.
        mean_treatment: Share of treated rows.
        mean_instrument: Share of rows with the instrument.
    """
    without = mean_treatment - first_stage * mean_instrument
    with_it = mean_treatment + first_stage * (1 - mean_instrument)
    return Shares(
        compliers=abs(first_stage),
        always_takers=min(without, with_it),
        never_takers=1 - max(without, with_it),
        is_reversed=first_stage < 0,
    )


def complier_means(
    moments: Moments,
    *,
    outcome: Term,
    treatment: Term,
    controls: Sequence[Term],
    instrument: Term,
    characteristics: Sequence[str],
) -> tuple[ComplierMean, ...]:
    """Mean outcomes with and without treatment and mean characteristics among compliers.

    Args:
        moments: Hold the terms of `products` beside the others.
        outcome: The outcome.
        treatment: The 0/1 treatment.
        controls: Regressors that are their own instruments.
        instrument: The 0/1 instrument.
        characteristics: Columns.
    """
    position = len(controls) + (1 if moments.has_intercept else 0)
    wanted: list[tuple[str, Term, float, float]] = [
        ("outcome with treatment", Product((outcome, treatment)), np.nan, 1.0),
        ("outcome without treatment", _untreated(outcome, treatment), np.nan, -1.0),
    ]
    for name in characteristics:
        mean = float(moments.means([Column(name)])[0])
        wanted.append((name, Product((Column(name), treatment)), mean, 1.0))
    found = []
    for name, term, population, sign in wanted:
        try:
            fit = k_class(
                moments, outcome=term,
                regressors=(*controls, treatment), instruments=(*controls, instrument),
            )  # fmt: skip
        except InferenceError as error:
            raise InferenceError(f"compliers, {name}: {error.message}") from error
        found.append(
            ComplierMean(name=name, fit=fit, position=position, population=population, sign=sign)
        )
    return tuple(found)


def complier_table(
    means: Sequence[ComplierMean],
    errors: Sequence[Errors],
    *,
    metric: str,
    confidence_level: float,
) -> pd.DataFrame:
    """Means among compliers beside those of all rows."""
    rows = []
    for item, error in zip(means, errors, strict=True):
        std_error = float(error.std_errors[0])
        half = critical_value(confidence_level, df=error.df) * std_error
        rows.append(
            {
                "metric": metric, "quantity": item.name, "compliers": item.estimate,
                "std_error": std_error, "ci_lower": item.estimate - half,
                "ci_upper": item.estimate + half, "all_rows": item.population,
                "ratio": item.estimate / item.population if item.population else np.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _untreated(outcome: Term, treatment: Term) -> Term:
    """The outcome of untreated rows, 0 in the others."""
    return Linear((outcome, Product((outcome, treatment))), (1.0, -1.0))
