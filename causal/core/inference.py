"""Intervals, p-values and joint tests from estimates and their covariance."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.core.result import Effect, Estimand, Scale

JointTest = Literal["hotelling", "wald", "exact"]
"""Reference of a joint test: F(q, df - q + 1) of Hotelling's T squared, or F(q, df); `exact` where
the covariance is known up to one factor, so that F(q, df) is its distribution."""


def effect(  # noqa: PLR0913 - one argument per field of an effect
    *,
    estimator: str,
    estimand: Estimand,
    metric: str,
    term: str,
    estimate: float,
    std_error: float,
    confidence_level: float,
    n_treated: int,
    n_control: int,
    scale: Scale = "absolute",
    df: float | None = None,
    n_clusters: int | None = None,
) -> Effect:
    """An `Effect` with the interval and p-value of a t (or, without `df`, a normal) reference.

    Raises:
        InferenceError: The standard error is zero or not finite: there is no inference to report.
    """
    if not (math.isfinite(estimate) and math.isfinite(std_error) and std_error > 0):
        raise InferenceError(
            f"{metric}: the standard error of {term} is not a positive number",
            given=f"estimate {estimate}, standard error {std_error}",
        )
    half = critical_value(confidence_level, df=df) * std_error
    statistic = estimate / std_error
    return Effect(
        estimator=estimator,
        estimand=estimand,
        metric=metric,
        term=term,
        scale=scale,
        estimate=float(estimate),
        std_error=float(std_error),
        statistic=float(statistic),
        df=None if df is None else float(df),
        ci_lower=float(estimate - half),
        ci_upper=float(estimate + half),
        confidence_level=confidence_level,
        pvalue=two_sided_pvalue(statistic, df=df),
        n_treated=n_treated,
        n_control=n_control,
        n_clusters=n_clusters,
    )


def as_ratio(found: Effect) -> Effect:
    """The effect of a coefficient b on a logarithm: exp(b) - 1 as a share of the control level.

    The interval is that of b, transformed; test and p-value are those of b; the error is that of
    the delta method.

    Args:
        found: The coefficient as an effect.
    """
    ratio = math.exp(found.estimate)
    return replace(
        found, scale="relative", estimate=math.expm1(found.estimate),
        std_error=ratio * found.std_error,
        ci_lower=math.expm1(found.ci_lower), ci_upper=math.expm1(found.ci_upper),
    )  # fmt: skip


def critical_value(confidence_level: float, *, df: float | None = None) -> float:
    """Half-width of a two-sided interval in standard errors."""
    # The special functions are what scipy.stats calls, without its overhead per number.
    from scipy import special

    upper = 0.5 + confidence_level / 2
    return float(special.ndtri(upper) if df is None else special.stdtrit(df, upper))


def fieller(
    over: float, under: float, covariance: Array, *, critical: float
) -> tuple[float, float] | None:
    """Fieller's interval of a quotient: all values q for which `over - q under = 0` stands.

    No expansion is made: with normal parts and known variances the coverage is exact, however
    noisy the denominator.

    Args:
        over: The numerator.
        under: The denominator.
        covariance: Of (over, under), shape (2, 2).
        critical: Critical value of the test of `over - q under`.

    Returns:
        The ends, or `None` if the denominator is not significantly different from zero: then the
        set is unbounded.

    Source: Fieller (1954), "Some problems in interval estimation".

    Example:
        >>> fieller(2.0, 4.0, np.diag([0.25, 0.0]), critical=2.0)
        (0.25, 0.75)
    """
    noise = critical**2 * covariance
    a = under**2 - float(noise[1, 1])
    if not a > 0:
        return None
    middle = under * over - float(noise[0, 1])
    # As a sum of variances: the difference of squares cancels where the numerator is certain.
    spread = np.array([under, -over]) @ noise @ np.array([under, -over])
    determinant = float(noise[0, 0] * noise[1, 1] - noise[0, 1] * noise[1, 0])
    half = math.sqrt(max(float(spread) - determinant, 0.0))
    return (middle - half) / a, (middle + half) / a


def two_sided_pvalue(statistic: float, *, df: float | None = None) -> float:
    """Two-sided p-value of a t (or normal) statistic."""
    from scipy import special

    tail = special.ndtr(-abs(statistic)) if df is None else special.stdtr(df, -abs(statistic))
    return float(2 * tail)


def wald(estimates: Array, covariance: Array, *, df: float | None = None) -> tuple[float, float]:
    """Joint test that all estimates are zero.

    Args:
        estimates: Shape (q,).
        covariance: Their covariance, shape (q, q).
        df: Denominator degrees of freedom; `None` gives the chi-square form.

    Returns:
        The statistic (F with (q, df) degrees of freedom, or chi-square with q) and its p-value.

    Raises:
        InferenceError: The covariance is singular (more restrictions than clusters, say).
    """
    from scipy import stats

    size = len(estimates)
    variances = np.diag(covariance)
    # On a common scale, or the rank would say that a small unit next to a large one is no variance.
    scale = 1.0 / np.sqrt(np.where(variances > 0, variances, 1.0))
    correlation = covariance * np.outer(scale, scale)
    if np.linalg.matrix_rank(correlation, hermitian=True) < size:
        raise InferenceError("the covariance of the tested coefficients is singular", given=size)
    scaled = estimates * scale
    chi2 = float(scaled @ np.linalg.solve(correlation, scaled))
    if df is None:
        return chi2, float(stats.chi2.sf(chi2, size))
    return chi2 / size, float(stats.f.sf(chi2 / size, size, df))


def hc1_factor(*, n: int, k: int) -> float:
    """Small-sample factor of HC1: `n / (n - k)`."""
    return n / (n - k)


def cr1_factor(*, n: int, k: int, n_clusters: int) -> float:
    """Small-sample factor of CR1: `G/(G-1) * (n-1)/(n-k)`.

    Raises:
        InferenceError: There are fewer than two clusters.
    """
    if n_clusters < 2:  # noqa: PLR2004
        raise InferenceError("clustered errors need two or more clusters", given=n_clusters)
    return n_clusters / (n_clusters - 1) * (n - 1) / (n - k)


def hotelling(estimates: Array, covariance: Array, *, df: float) -> tuple[float, float]:
    """Joint test that all estimates are zero, with an estimated covariance (Hotelling's T squared).

    `F = (df - q + 1) / (df q) * chi2` has (q, df - q + 1) degrees of freedom if the covariance is
    Wishart with df; for one estimate it is the squared t. Pustejovsky and Tipton (2018) use it for
    clustered covariances with df found by matching moments.

    Args:
        estimates: Shape (q,).
        covariance: Their covariance, shape (q, q).
        df: Its degrees of freedom.

    Returns:
        F and its p-value.

    Raises:
        InferenceError: The covariance is singular, or df is below q.
    """
    from scipy import stats

    chi2, _ = wald(estimates, covariance)
    statistic, rest = referred(chi2, size=len(estimates), df=df, kind="hotelling")
    return statistic, float(stats.f.sf(statistic, len(estimates), rest))


def referred(chi2: float, *, size: int, df: float, kind: JointTest) -> tuple[float, float]:
    """The F statistic of a quadratic form in an estimated covariance, and its second df.

    Args:
        chi2: `b' V^-1 b`.
        size: Restrictions (or the rank of V).
        df: Degrees of freedom of V.
        kind: The reference.

    Raises:
        InferenceError: df is below the number of restrictions.
    """
    rest = df - size + 1 if kind == "hotelling" else df
    if not rest > 0:
        raise InferenceError(
            "too few degrees of freedom for a joint test", given=f"{df:.1f} for {size} restrictions"
        )
    return rest / (df * size) * chi2, rest


def welch_test(estimates: Array, variances: Array, *, dfs: Array) -> tuple[float, float, float]:
    """Test that k independent estimates have one expectation (Welch 1951).

    The weighted sum of squares around the weighted mean, with the F reference that allows for
    weights that are estimates themselves. For two estimates it is the squared Welch t.

    Args:
        estimates: Shape (k,).
        variances: Their estimated variances, shape (k,).
        dfs: Degrees of freedom of these, shape (k,).

    Returns:
        F, its denominator degrees of freedom (those of the numerator are k - 1), and the p-value.

    Raises:
        InferenceError: A variance is zero, or there is one estimate only.
    """
    from scipy import stats

    size = len(estimates)
    if size < 2 or not (variances > 0).all():  # noqa: PLR2004
        raise InferenceError("Welch's test takes two or more estimates with positive variances")
    # Shares first: variances of any unit have a sum of weights that is a number.
    weights = variances.min() / variances
    shares = weights / weights.sum()
    spread = float(shares @ (estimates - shares @ estimates) ** 2)
    between = spread * float(weights.sum() / variances.min()) / (size - 1)
    lost = float(((1.0 - shares) ** 2 / dfs).sum())
    statistic = between / (1.0 + 2.0 * (size - 2) / (size**2 - 1) * lost)
    df = (size**2 - 1) / (3.0 * lost)
    return statistic, df, float(stats.f.sf(statistic, size - 1, df))
