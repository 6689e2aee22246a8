"""Uplift by decile of the score, and whether scores are calibrated."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from causal.core.errors import DataError, InferenceError
from causal.core.gram import Array
from causal.core.inference import critical_value, hotelling
from causal.uplift.resampling import Resampling, Sample, draws
from causal.uplift.score_histogram import Arm, ScoreHistogram

_MIN_UNITS = 2
Measured = Literal["arms", "pseudo"]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A line through observed uplift by group against mean score; right scores give 0 and 1.

    Attributes:
        intercept: Intercept of the weighted least-squares line.
        intercept_std_error: Its standard error.
        slope: Slope of the line.
        slope_std_error: Its standard error.
        statistic: Quadratic form of observed less predicted over the groups.
        df: Its degrees of freedom: groups.
        pvalue: P-value of scores being right in every group.
        mean_error: Mean absolute difference of observed and predicted, weighted by units; noise
            alone makes it positive.
    """

    intercept: float
    intercept_std_error: float
    slope: float
    slope_std_error: float
    statistic: float
    df: int
    pvalue: float
    mean_error: float


def uplift_by_group(
    histogram: ScoreHistogram,
    *,
    n_groups: int = 10,
    confidence_level: float = 0.95,
    measured: Measured = "arms",
    resampling: Resampling | None = None,
) -> pd.DataFrame:
    """Observed uplift in groups of equal size, highest scores first.

    Groups hold as many units as those of numpy's `array_split` (and scikit-uplift's
    `uplift_by_percentile`, strategy `overall`). A bin that lies across a border is divided evenly.
    Standard errors are Welch's, with sample variances; the interval is normal.

    Args:
        histogram: The data.
        n_groups: Number of groups; 10 gives deciles.
        confidence_level: Nominal coverage.
        measured: `arms`: difference in means of treated and control units; `pseudo`: mean of the
            pseudo-outcomes, for treatments that were not randomised.
        resampling: Gives the standard errors, for units that are correlated.

    Returns:
        One row per group: `group` (1 has the highest scores), `score` (mean), `n_treated`,
        `n_control`, `mean_treated`, `mean_control`, `uplift`, `std_error`, `ci_lower`, `ci_upper`.

    Raises:
        DataError: A group has fewer than two units of an arm, or there are no pseudo-outcomes.
    """
    return grouped_uplift(
        histogram, n_groups=n_groups, confidence_level=confidence_level, measured=measured,
        resampling=resampling,
    ).table  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Uplift by group with the covariance of the groups.

    Attributes:
        table: As of `uplift_by_group`.
        covariance: Of the observed uplifts, shape (g, g); `None`: they are independent.
        df: Degrees of freedom of that covariance.
    """

    table: pd.DataFrame
    covariance: Array | None = None
    df: float | None = None


def grouped_uplift(
    histogram: ScoreHistogram,
    *,
    n_groups: int = 10,
    confidence_level: float = 0.95,
    measured: Measured = "arms",
    resampling: Resampling | None = None,
) -> Groups:
    """As `uplift_by_group`, with the covariance of groups whose units are correlated.

    Groups of `pseudo` count the units that have pseudo-outcomes, of whatever arm.
    """
    n = histogram.n
    if measured == "pseudo":
        if histogram.pseudo is None:
            raise DataError("the histogram has no pseudo-outcomes")
        n = histogram.pseudo.n.sum(axis=1)
    total = float(n.sum())
    sizes = np.full(n_groups, np.floor(total / n_groups))
    sizes[: round(total - sizes.sum())] += 1
    ends = np.cumsum(sizes)
    taken = _shares(n, ends - sizes, ends)
    treated, control = (_moments(arm, taken) for arm in (histogram.treated, histogram.control))
    few = np.minimum(treated[0], control[0]) < _MIN_UNITS
    if few.any():
        raise DataError(
            "a group of scores has fewer than two units of an arm: take fewer groups",
            given=f"group {int(few.argmax()) + 1} of {n_groups}",
        )
    uplift = treated[1] - control[1]
    std_error = np.sqrt(treated[2] / treated[0] + control[2] / control[0])
    if measured == "pseudo" and histogram.pseudo is not None:
        size, uplift, variance = _moments(histogram.pseudo, taken)
        std_error = np.sqrt(variance / size)
    covariance = df = None
    if resampling is not None:

        def statistic(sample: Sample) -> Array:
            return _uplift(sample, taken, measured)

        covariance = np.cov(draws(histogram, statistic, resampling), rowvar=False)
        covariance = np.atleast_2d(covariance)
        std_error = np.sqrt(np.diag(covariance))
        n_folds = histogram.treated.n.shape[1]
        df = float(n_folds - 1) if resampling.by == "folds" else None
    half = critical_value(confidence_level) * std_error
    table = pd.DataFrame(
        {
            "group": np.arange(1, n_groups + 1),
            "score": taken @ (n * histogram.score) / (taken @ n),
            "n_treated": treated[0],
            "n_control": control[0],
            "mean_treated": treated[1],
            "mean_control": control[1],
            "uplift": uplift,
            "std_error": std_error,
            "ci_lower": uplift - half,
            "ci_upper": uplift + half,
        }
    )
    return Groups(table=table, covariance=covariance, df=df)


def calibration(histogram: ScoreHistogram, *, n_groups: int = 10) -> Calibration:
    """Observed uplift against mean score over groups of equal size, weighted by precision.

    Raises:
        DataError: A group has fewer than two units of an arm.
        InferenceError: Scores or errors do not differ between groups.
    """
    return calibration_of(grouped_uplift(histogram, n_groups=n_groups))


def calibration_of(groups: Groups) -> Calibration:
    """The same of groups at hand; where they are correlated the test is Hotelling's.

    Raises:
        InferenceError: Scores or errors do not differ between groups.
    """
    from scipy import stats

    table = groups.table
    score, uplift, std_error = (
        table[name].to_numpy(dtype=np.float64) for name in ("score", "uplift", "std_error")
    )
    if not (std_error > 0).all():
        raise InferenceError("outcomes do not vary in some group of scores")
    weight = std_error**-2
    centre = float(weight @ score / weight.sum())
    spread = float(weight @ (score - centre) ** 2)
    if not spread > 0:
        raise InferenceError("all groups have the same mean score")
    slope = float(weight @ ((score - centre) * uplift) / spread)
    level = float(weight @ uplift / weight.sum())
    covariance = np.diag(std_error**2) if groups.covariance is None else groups.covariance
    on_slope = weight * (score - centre) / spread
    on_intercept = weight / weight.sum() - centre * on_slope
    off = uplift - score
    statistic = float(off @ np.linalg.solve(covariance, off))
    pvalue = float(stats.chi2.sf(statistic, len(table)))
    if groups.df is not None:
        _, pvalue = hotelling(off, covariance, df=groups.df)
    n = table["n_treated"].to_numpy() + table["n_control"].to_numpy()
    return Calibration(
        intercept=level - slope * centre,
        intercept_std_error=float(np.sqrt(on_intercept @ covariance @ on_intercept)),
        slope=slope,
        slope_std_error=float(np.sqrt(on_slope @ covariance @ on_slope)),
        statistic=statistic,
        df=len(table),
        pvalue=pvalue,
        mean_error=float(np.average(np.abs(uplift - score), weights=n)),
    )


def _shares(n: Array, start: Array, end: Array) -> Array:
    """Share of each bin that lies between ranks, shape (g, b)."""
    last = np.cumsum(n)
    first = last - n
    inside = np.minimum(last, end[:, None]) - np.maximum(first, start[:, None])
    return np.asarray(np.divide(inside.clip(min=0.0), n, out=np.zeros_like(inside), where=n > 0))


def _uplift(sample: Sample, taken: Array, measured: Measured) -> Array:
    """Uplift by group of resampled data, shape (..., g)."""
    bins = sample.bins
    if measured == "pseudo" and sample.pseudo is not None and sample.n_pseudo is not None:
        return np.asarray((sample.pseudo @ taken.T) / (sample.n_pseudo @ taken.T))
    treated = (bins.treated @ taken.T) / (bins.n_treated @ taken.T)
    return np.asarray(treated - (bins.control @ taken.T) / (bins.n_control @ taken.T))


def _moments(arm: Arm, taken: Array) -> tuple[Array, Array, Array]:
    """Units, mean and sample variance of an arm's outcomes by group."""
    n, total, squares = (taken @ part.sum(axis=1) for part in (arm.n, arm.total, arm.squares))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n
        variance = (squares - n * mean**2) / (n - 1)
    return n, mean, variance.clip(min=0.0)
