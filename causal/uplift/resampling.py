"""Resampled score histograms: intervals without going back to the units.

Resampling units with Poisson(1) weights makes the count of a cell Poisson(n), and its sum of 0/1
outcomes Poisson(sum): from the histogram these are drawn directly, so a thousand draws of a hundred
million units cost what the bins cost. For other outcomes the sum given the count is drawn as normal
with the cell's mean and variance, which is exact to the second moment, and exact outright where
every unit has its own bin. Units that are correlated (several rows of a household) need folds: with
a hash of the cluster as the fold, whole folds are resampled.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal.core.errors import DataError, InferenceError, SpecError
from causal.core.gram import Array
from causal.core.inference import critical_value, fieller
from causal.uplift.curves import Bins
from causal.uplift.score_histogram import Arm, ScoreHistogram

_MIN_FOLDS = 20
_MIN_DRAWS = 50
_BLOCK = 400_000


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals are made.

    Attributes:
        by: `units`: independent units; `folds`: whole folds, for units that are correlated.
        n_draws: Number of resampled histograms.
        seed: Seed of the draws.
    """

    by: Literal["units", "folds"] = "units"
    n_draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse too few draws."""
        if self.n_draws < _MIN_DRAWS:
            raise SpecError(
                "too few draws for a standard error", given=self.n_draws, allowed=">= 50"
            )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Sums by bin of the data or of resampled data.

    Attributes:
        bins: Counts and outcomes by variant, each of shape (..., b).
        n_pseudo: Units with a pseudo-outcome by bin, shape (..., b); `None` without them.
        pseudo: Their sums.
    """

    bins: Bins
    n_pseudo: Array | None = None
    pseudo: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Quotient:
    """A statistic that is divided by another one, each of shape (...): draws of the two.

    Attributes:
        over: The numerator.
        under: The denominator.
        by_size: Whether it is divided by the denominator's absolute value.
    """

    over: Array
    under: Array
    by_size: bool = False


Statistic = Callable[[Sample], Array]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number that says how well scores rank units.

    Attributes:
        name: What it is, such as `qini` or `autoc`.
        definition: Whose definition.
        estimate: Its value.
        std_error: Standard error over the draws (of a quotient: linearised); `None` without
            resampling.
        ci_lower: Lower end of the normal interval, of a quotient of Fieller's; minus infinity if
            the denominator is not significantly different from zero.
        ci_upper: Upper end.
        confidence_level: Nominal coverage.
    """

    name: str
    definition: str
    estimate: float
    std_error: float | None
    ci_lower: float | None
    ci_upper: float | None
    confidence_level: float


def observed(histogram: ScoreHistogram) -> Sample:
    """The data themselves, folds added up."""
    treated, control, pseudo = histogram.treated, histogram.control, histogram.pseudo
    return Sample(
        bins=Bins(
            n_treated=treated.n.sum(axis=1),
            n_control=control.n.sum(axis=1),
            treated=treated.total.sum(axis=1),
            control=control.total.sum(axis=1),
        ),
        n_pseudo=None if pseudo is None else pseudo.n.sum(axis=1),
        pseudo=None if pseudo is None else pseudo.total.sum(axis=1),
    )


def resampled(histogram: ScoreHistogram, resampling: Resampling) -> Iterator[Sample]:
    """Resampled data in blocks; leading axes of all blocks together hold `n_draws`.

    Raises:
        DataError: There are too few folds to resample them.
    """
    rng = np.random.default_rng(resampling.seed)
    block = max(1, _BLOCK // histogram.n_bins)
    draw = _by_units
    if resampling.by == "folds":
        draw = _by_folds
        if histogram.n_folds < _MIN_FOLDS:
            raise DataError(
                "too few folds to resample them",
                given=histogram.n_folds,
                allowed=f"{_MIN_FOLDS} or more, a few hundred are better",
            )
    for at in range(0, resampling.n_draws, block):
        yield draw(histogram, min(block, resampling.n_draws - at), rng)


def draws(histogram: ScoreHistogram, statistic: Statistic, resampling: Resampling) -> Array:
    """A statistic of resampled data, shape (n_draws, ...)."""
    return np.concatenate([statistic(sample) for sample in resampled(histogram, resampling)])


def scored(
    histogram: ScoreHistogram,
    statistic: Callable[[Sample], Array | Quotient],
    *,
    label: tuple[str, str],
    resampling: Resampling | None,
    confidence_level: float,
) -> Score:
    """A statistic with its standard error and interval.

    Draws of a quotient have long tails where its denominator is only some standard errors from
    zero, so that their spread makes intervals too wide; numerator and denominator themselves have
    none. Intervals of quotients are therefore Fieller's, from the draws' covariance of the two.

    Args:
        histogram: The data.
        statistic: What to compute; a number, or a quotient of two.
        label: Its name and definition.
        resampling: How to make the interval; `None`: no interval.
        confidence_level: Nominal coverage.

    Raises:
        InferenceError: The statistic is not defined on these data, or on resampled ones.
    """
    name, definition = label
    found = _quotient(statistic(observed(histogram)))
    sign = -1.0 if found.by_size and found.under < 0 else 1.0
    over, under = float(found.over), sign * float(found.under)
    estimate = over / under if under != 0 else math.nan
    if not np.isfinite(estimate):
        raise InferenceError(f"{name} ({definition}) is not defined on these data", given=estimate)
    if resampling is None:
        return Score(
            name=name, definition=definition, estimate=estimate, std_error=None,
            ci_lower=None, ci_upper=None, confidence_level=confidence_level,
        )  # fmt: skip

    def pair(sample: Sample) -> Array:
        drawn = _quotient(statistic(sample))
        return np.stack([drawn.over, sign * drawn.under], axis=-1)

    covariance = np.cov(draws(histogram, pair, resampling), rowvar=False)
    linear = np.array([1.0, -estimate]) / under
    std_error = math.sqrt(max(float(linear @ covariance @ linear), 0.0))
    if not (np.isfinite(std_error) and std_error > 0):
        raise InferenceError(
            f"{name} ({definition}): the data are too few for an interval", given=std_error
        )
    ends = fieller(over, under, covariance, critical=critical_value(confidence_level))
    lower, upper = (-math.inf, math.inf) if ends is None else ends
    return Score(
        name=name, definition=definition, estimate=estimate, std_error=std_error,
        ci_lower=lower, ci_upper=upper, confidence_level=confidence_level,
    )  # fmt: skip


def _quotient(statistic: Array | Quotient) -> Quotient:
    if isinstance(statistic, Quotient):
        return statistic
    return Quotient(over=statistic, under=np.ones_like(statistic))


def _by_units(histogram: ScoreHistogram, n_draws: int, rng: np.random.Generator) -> Sample:
    is_binary = histogram.is_binary
    n_t, y_t = _arm_by_units(histogram.treated, n_draws, rng, is_binary=is_binary)
    n_c, y_c = _arm_by_units(histogram.control, n_draws, rng, is_binary=is_binary)
    bins = Bins(n_treated=n_t, n_control=n_c, treated=y_t, control=y_c)
    if histogram.pseudo is None:
        return Sample(bins=bins)
    n, total = _arm_by_units(histogram.pseudo, n_draws, rng, is_binary=False)
    return Sample(bins=bins, n_pseudo=n, pseudo=total)


def _arm_by_units(
    arm: Arm, n_draws: int, rng: np.random.Generator, *, is_binary: bool
) -> tuple[Array, Array]:
    n, total, squares = (part.sum(axis=1) for part in (arm.n, arm.total, arm.squares))
    size = (n_draws, len(n))
    if is_binary:
        ones = rng.poisson(total.clip(min=0.0), size).astype(np.float64)
        return ones + rng.poisson((n - total).clip(min=0.0), size), ones
    drawn = rng.poisson(n, size).astype(np.float64)
    mean = np.divide(total, n, out=np.zeros_like(n), where=n > 0)
    variance = np.divide(squares, n, out=np.zeros_like(n), where=n > 0) - mean**2
    # A variance below the rounding of the squares is none.
    variance = np.where(variance > 1e-12 * mean**2, variance, 0.0)
    return drawn, drawn * mean + np.sqrt(drawn * variance) * rng.normal(size=size)


def _by_folds(histogram: ScoreHistogram, n_draws: int, rng: np.random.Generator) -> Sample:
    n_folds = histogram.n_folds
    weights = rng.multinomial(n_folds, np.full(n_folds, 1 / n_folds), n_draws).astype(np.float64)
    treated, control, pseudo = histogram.treated, histogram.control, histogram.pseudo
    return Sample(
        bins=Bins(
            n_treated=weights @ treated.n.T,
            n_control=weights @ control.n.T,
            treated=weights @ treated.total.T,
            control=weights @ control.total.T,
        ),
        n_pseudo=None if pseudo is None else weights @ pseudo.n.T,
        pseudo=None if pseudo is None else weights @ pseudo.total.T,
    )
