"""Mixing distributions in steps, and Poisson counts: draws that are functions of uniforms.

A distribution is parted into steps of equal chance, and each step is replaced by its own mean, so
a draw is the lookup of a uniform and the mean over all draws is that of the distribution.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import Column
from pyspark.sql.pandas.functions import pandas_udf

N_STEPS = 1000
Steps = list[float]


def gamma_steps(shape: float, *, rate: float = 1.0) -> Steps:
    """Means of the steps of Gamma(shape, rate)."""
    from scipy import stats

    edges = stats.gamma.ppf(_levels(), shape)
    return _means(stats.gamma.cdf(edges, shape + 1), shape / rate)


def inverse_gamma_steps(shape: float, *, rate: float) -> Steps:
    """Means of the steps of 1 / X, X being Gamma(shape, rate) with a shape above one; falling."""
    from scipy import stats

    edges = stats.gamma.ppf(_levels(), shape)
    return _means(stats.gamma.cdf(edges, shape - 1), rate / (shape - 1))


def beta_steps(a: float, b: float) -> Steps:
    """Means of the steps of Beta(a, b)."""
    from scipy import stats

    edges = stats.beta.ppf(_levels(), a, b)
    return _means(stats.beta.cdf(edges, a + 1, b), a / (a + b))


def poisson(uniform: Column, mean: Column) -> Column:
    """An INT column, Poisson with the given means: the quantiles of uniforms.

    SQL has no loop that ends when the cumulated probabilities pass a uniform, so Python looks.
    """

    def quantiles(*columns: pd.Series) -> pd.Series:
        from scipy import special

        uniforms, means = (column.to_numpy() for column in columns)
        above = np.ceil(special.pdtrik(uniforms, means)).clip(min=0.0)
        below = (above - 1.0).clip(min=0.0)
        # The inverse of the smooth distribution function may be a rounding error too high.
        is_enough = special.pdtr(below, means) >= uniforms
        return pd.Series(np.where(is_enough, below, above).astype(np.int32))

    # The stubs know functions of a few named columns.
    drawn: Column = pandas_udf(quantiles, "int")(uniform, mean)  # type: ignore[call-overload]
    return drawn


def _levels() -> NDArray[np.float64]:
    return np.linspace(0.0, 1.0, N_STEPS + 1)


def _means(shares: NDArray[np.float64], mean: float) -> Steps:
    """Means of the steps from the share of the total mean that lies below each edge."""
    return [float(value) for value in np.diff(shares) * N_STEPS * mean]
