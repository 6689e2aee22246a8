"""Intervals and tests from bootstrapped estimates.

Three intervals of a statistic `t` with replicates `t*` (Efron and Tibshirani 1993, chapters 13 and
14; Davison and Hinkley 1997, chapter 5), each with the test that it inverts: the p-value is the
smallest level at which the interval leaves zero out.

- `percentile`: the quantiles of `t*`; it follows any monotone transformation.
- `basic`: `2 t` less these quantiles; it reverses the error `t* - t`.
- `bias_corrected`: the quantiles at levels shifted by how many replicates lie below `t` (Efron
  1981, "Nonparametric standard errors and confidence intervals").
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.core.spec import Part

BootstrapInterval = Literal["percentile", "basic", "bias_corrected"]
InferenceKind = Literal["formula", "bootstrap"]


class BootstrapOptions(Part):
    """How the Poisson bootstrap is made.

    Attributes:
        replications: Replicates. A standard error from R of them is off by about
            `1 / sqrt(2 R)` of itself.
        buckets: Random parts of the units (or clusters) that are weighed as wholes. A variance
            from B of them is off by about `sqrt(2 / B)` of itself, a standard error by half that.
        interval: `percentile`, `basic` or `bias_corrected`.
        seed: Of buckets and weights; that of the spec if left out.
    """

    replications: int = Field(default=2000, ge=500, le=100_000, strict=True)
    buckets: int = Field(default=4000, ge=500, le=100_000, strict=True)
    interval: BootstrapInterval = "percentile"
    seed: int | None = Field(default=None, ge=0, lt=2**63, strict=True)


@dataclass(frozen=True)
class Draws:
    """Bootstrapped levels of two arms.

    Attributes:
        levels: Control and treatment in every replicate, shape (r, 2).
        interval: Which interval is made of them.
    """

    levels: Array
    interval: BootstrapInterval

    @property
    def difference(self) -> Array:
        """Treatment less control, shape (r,)."""
        return np.asarray(self.levels[:, 1] - self.levels[:, 0], dtype=np.float64)

    @property
    def lift(self) -> Array:
        """Treatment over control, less one, shape (r,); no control level may be zero."""
        return np.asarray(self.levels[:, 1] / self.levels[:, 0] - 1.0, dtype=np.float64)

    @property
    def covariance(self) -> Array:
        """Covariance of the two levels, shape (2, 2)."""
        return np.asarray(np.cov(self.levels.T), dtype=np.float64)

    @property
    def has_variance(self) -> bool:
        """Whether the difference is not the same in all replicates."""
        return bool(np.ptp(self.difference) > 0)

    def has_lift(self, control: float) -> bool:
        """Whether the control level keeps the sign of its estimate, and the lift varies.

        Args:
            control: The estimate.
        """
        keeps_sign = bool((self.levels[:, 0] * control > 0).all())
        return keeps_sign and bool(np.ptp(self.lift) > 0)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the replicates of a statistic say of its uncertainty.

    Attributes:
        std_error: Standard deviation of the replicates.
        ci_lower: Lower end of the interval.
        ci_upper: Upper end of the interval.
        pvalue: Two-sided, of the hypothesis that the statistic's true value is zero.
    """

    std_error: float
    ci_lower: float
    ci_upper: float
    pvalue: float


def summarise(
    replicates: Array,
    estimate: float,
    *,
    confidence_level: float,
    interval: BootstrapInterval = "percentile",
) -> Summary:
    """Standard error, interval and p-value of one statistic.

    Quantiles are those at `(R + 1) p`, so that an interval leaves zero out just when the p-value is
    below its level.

    Args:
        replicates: Shape (R,).
        estimate: The statistic on the data.
        confidence_level: Coverage of the interval.
        interval: Which one.

    Raises:
        InferenceError: There are too few replicates for tails so small.
    """
    from scipy import special

    alpha, size = 1.0 - confidence_level, len(replicates)
    shift = 0.0
    if interval == "bias_corrected":
        below = np.sum(replicates < estimate) + 0.5 * np.sum(replicates == estimate)
        shift = 2.0 * float(special.ndtri(np.clip(below / size, 0.5 / size, 1.0 - 0.5 / size)))
    tails = special.ndtr(special.ndtri(np.array([alpha / 2, 1.0 - alpha / 2])) + shift)
    if not (min(tails[0], 1.0 - tails[1]) * (size + 1) >= 1.0):
        raise InferenceError(
            f"too few replications for an interval at {confidence_level:.5g}",
            given=f"{size:,}",
            allowed=f"at least {int(np.ceil(1.0 / min(tails[0], 1.0 - tails[1]))):,}",
            key="options.bootstrap.replications",
        )
    ends = np.quantile(replicates, tails, method="weibull")
    if interval == "basic":
        ends = 2.0 * estimate - ends[::-1]
    return Summary(
        std_error=float(np.std(replicates, ddof=1)),
        ci_lower=float(ends[0]),
        ci_upper=float(ends[1]),
        pvalue=_pvalue(replicates, 2.0 * estimate if interval == "basic" else 0.0, shift=shift),
    )


def _pvalue(replicates: Array, null: float, *, shift: float) -> float:
    """Two-sided, from the shares of replicates on either side of where the null puts them."""
    from scipy import special

    size = len(replicates)
    sides = (np.sum(replicates <= null), np.sum(replicates >= null))
    shares = np.minimum((np.array(sides, dtype=np.float64) + 1.0) / (size + 1.0), 1.0)
    # The level whose shifted quantile is the null.
    signs = np.array([-shift, shift])
    with np.errstate(invalid="ignore"):
        levels = special.ndtr(special.ndtri(shares) + signs)
    return float(min(1.0, 2.0 * levels.min()))
