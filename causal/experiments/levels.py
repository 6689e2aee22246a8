"""Two arms' metric levels from their moments, their joint uncertainty, and what follows from it.

A level is a smooth function of the mean vectors of both arms: a mean or a quotient of means,
less `theta' (x_arm - x_pooled)` for covariates x. Every number here carries the full gradient in
both mean vectors. That matters on the relative scale: the pooled covariate level drops out of the
difference of two levels but not out of their quotient, and a variance that forgets it undercovers.

Sources: Deng, Xu, Kohavi and Walker (2013), "Improving the sensitivity of online controlled
experiments by utilizing pre-experiment data" (CUPED); Deng, Knoblich and Lu (2018), "Applying the
delta method in metric analytics"; Satterthwaite (1946), "An approximate distribution of estimates
of variance components"; Fieller (1954), "Some problems in interval estimation".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal.core.cross_products import redundant_columns
from causal.core.errors import DataError
from causal.core.gram import Array, Gram
from causal.core.inference import critical_value, fieller

Theta = Literal["total", "within"]
CONTROL, TREATMENT = 0, 1

ROUNDING = 1e-12
"""A standard deviation below this share of the level is rounding, not variation."""


@dataclass(frozen=True)
class Quotient:
    """A mean, or a quotient of two means, as a function of a mean vector.

    Attributes:
        name: For messages and parameters.
        numerator: Position of the numerator in the mean vector.
        denominator: Position of the denominator; `None` for a plain mean.
    """

    name: str
    numerator: int
    denominator: int | None = None

    def value(self, mean: Array) -> float:
        """Its value at a mean vector of shape (p,).

        Raises:
            DataError: The denominator's mean is zero.
        """
        return float(mean[self.numerator]) / self._divisor(mean)

    def gradient(self, mean: Array) -> Array:
        """Its derivative with respect to the mean vector, shape (p,)."""
        divisor = self._divisor(mean)
        out = np.zeros(len(mean))
        out[self.numerator] = 1.0 / divisor
        if self.denominator is not None:
            out[self.denominator] = -self.value(mean) / divisor
        return out

    def _divisor(self, mean: Array) -> float:
        divisor = 1.0 if self.denominator is None else float(mean[self.denominator])
        if divisor == 0.0:
            raise DataError(f"{self.name}: the denominator's mean is zero")
        return divisor


@dataclass(frozen=True)
class Levels:
    """Levels of a metric in control and treatment (in this order), with their gradients.

    Attributes:
        value: The levels, shape (2,).
        own: Derivative of each level in its own arm's mean, the pooled covariate level held
            fixed, shape (2, p).
        shared: Derivative of `theta' x_pooled` in the pooled mean, shape (p,).
        shares: Share of each arm in the pooled mean, shape (2,).
        thetas: Coefficients of the covariates, shape (q,); empty for raw levels.
    """

    value: Array
    own: Array
    shared: Array
    shares: Array
    thetas: Array

    def gradient(self, arm: int) -> Array:
        """Derivative of both levels in the mean vector of one arm, shape (2, p)."""
        inner = np.vstack([self.own[arm], self.shared])
        return np.asarray(_mixing(self, arm) @ inner, dtype=np.float64)


@dataclass(frozen=True)
class Spread:
    """Joint uncertainty of the two levels: independent parts that add up to their covariance.

    Attributes:
        parts: Matrices of shape (2, 2).
        dfs: Degrees of freedom of each part.
        ceiling: Degrees of freedom that the parts together do not exceed.
    """

    parts: tuple[Array, ...]
    dfs: tuple[float, ...]
    ceiling: float = math.inf

    @property
    def covariance(self) -> Array:
        """Covariance of the two levels, shape (2, 2)."""
        return np.asarray(np.sum(self.parts, axis=0), dtype=np.float64)

    def variance(self, gradient: Array) -> float:
        """Variance of `gradient' levels`."""
        return float(gradient @ self.covariance @ gradient)

    def df(self, gradient: Array) -> float:
        """Welch-Satterthwaite degrees of freedom of `gradient' levels`."""
        pieces = [float(gradient @ part @ gradient) for part in self.parts]
        return min(welch_satterthwaite(pieces, self.dfs), self.ceiling)


def welch_satterthwaite(variances: Sequence[float], dfs: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent estimated variances (Satterthwaite 1946).

    Args:
        variances: The parts.
        dfs: Degrees of freedom of each; those of a single part are returned as they are.
    """
    if len(dfs) == 1:
        return dfs[0]
    largest = max(variances)
    if not largest > 0:
        return min(dfs)
    # From shares, so that small variances do not underflow.
    scaled = [variance / largest for variance in variances]
    squares = sum(share**2 / df for share, df in zip(scaled, dfs, strict=True))
    return sum(scaled) ** 2 / squares


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error and degrees of freedom."""

    value: float
    std_error: float
    df: float


def covariate_thetas(
    control: Gram, treatment: Gram, *, quotients: Sequence[Quotient], theta: Theta = "total"
) -> Array:
    """CUPED coefficients: the regression of the outcome on the covariates, shape (q,).

    Quotients enter linearised at the means of the rows that the covariance is taken over.

    Args:
        control: Moments of the control arm.
        treatment: Moments of the treatment arm, the same p terms.
        quotients: The outcome, then q covariates.
        theta: `total` takes the covariance over both arms together, as Deng et al. (2013) and
            tea-tasting do; `within` takes it around each arm's own mean, which makes the
            difference of adjusted means equal to the treatment coefficient of the regression on
            treatment and covariates.

    Raises:
        DataError: A covariate is constant, or collinear with the ones before it.
    """
    if len(quotients) == 1:
        return np.zeros(0)
    groups = (control.merge(treatment),) if theta == "total" else (control, treatment)
    constant = [
        quotient.name
        for quotient in quotients[1:]
        if all(is_constant(group, quotient) for group in groups)
    ]
    cross = np.sum([_linearised(group, quotients) for group in groups], axis=0)
    names = [quotient.name for quotient in quotients[1:]]
    inner, right = cross[1:, 1:], cross[1:, 0]
    redundant = [names[j] for j in redundant_columns(inner)]
    if constant or redundant:
        raise DataError(
            f"{quotients[0].name}: covariates that are constant or collinear with the others",
            given=constant or redundant,
        )
    scale = 1.0 / np.sqrt(np.diag(inner))
    solved = np.linalg.solve(inner * np.outer(scale, scale), right * scale)
    return np.asarray(solved * scale, dtype=np.float64)


def metric_levels(
    control: Gram, treatment: Gram, *, quotients: Sequence[Quotient], thetas: Array
) -> Levels:
    """Levels of both arms, adjusted by `thetas' (x_arm - x_pooled)`.

    The coefficients are treated as known: their estimation error is of second order (Deng et al.
    2013, appendix), whatever the scale.

    Args:
        control: Moments of the control arm.
        treatment: Moments of the treatment arm, the same p terms.
        quotients: The outcome, then q covariates (more are ignored when `thetas` is empty).
        thetas: Coefficients, shape (q,); empty gives raw levels.
    """
    outcome, covariates = quotients[0], quotients[1 : 1 + len(thetas)]
    total = control.n + treatment.n
    shares = np.array([control.n / total, treatment.n / total])
    pooled = shares[CONTROL] * control.mean + shares[TREATMENT] * treatment.mean
    means = (control.mean, treatment.mean)
    values, own = [], []
    for mean in means:
        parts = [theta * (x.value(mean) - x.value(pooled)) for theta, x in _zip(thetas, covariates)]
        slopes = [theta * x.gradient(mean) for theta, x in _zip(thetas, covariates)]
        values.append(outcome.value(mean) - sum(parts))
        own.append(outcome.gradient(mean) - np.sum([np.zeros(len(mean)), *slopes], axis=0))
    shared = np.zeros(len(pooled))
    for theta, x in _zip(thetas, covariates):
        shared = shared + theta * x.gradient(pooled)
    return Levels(np.array(values), np.array(own), shared, shares, thetas)


def welch_spread(
    levels: Levels, control: Gram, treatment: Gram, *, unseen: tuple[float, float] = (1.0, 1.0)
) -> Spread:
    """Independent units, each arm with its own variance (Welch 1947).

    Args:
        levels: The levels.
        control: Moments of the control arm.
        treatment: Moments of the treatment arm.
        unseen: Share of each arm's finite population that was not observed, `1 - n/N`: the factor
            of its variance (Cochran 1977, section 2.6); 1 without a finite population.
    """
    parts = []
    for arm, gram in enumerate((control, treatment)):
        gradient = levels.gradient(arm)
        parts.append(unseen[arm] * (gradient @ gram.covariance @ gradient.T) / gram.n)
    return Spread(tuple(parts), (control.n - 1.0, treatment.n - 1.0))


def pooled_spread(
    levels: Levels, control: Gram, treatment: Gram, *, unseen: tuple[float, float] = (1.0, 1.0)
) -> Spread:
    """Independent units with one variance: that of the linearised metric, pooled over the arms.

    Arguments as for `welch_spread`.
    """
    grams = (control, treatment)
    df = control.n + treatment.n - 2
    influence = np.zeros((2, 2))
    for arm, gram in enumerate(grams):
        rows = np.vstack([levels.own[arm], levels.shared])
        influence += rows @ gram.cross @ rows.T / df
    whole = np.zeros((2, 2))
    for arm, gram in enumerate(grams):
        mixing = _mixing(levels, arm)
        whole += unseen[arm] * (mixing @ influence @ mixing.T) / gram.n
    return Spread((whole,), (float(df),))


def joint_spread(
    levels: Levels, parts: Sequence[Array], dfs: Sequence[float], *, ceiling: float = math.inf
) -> Spread:
    """Whatever the design: from independent parts of the joint covariance of the mean vectors.

    Args:
        levels: The levels.
        parts: Parts of the covariance of control's and treatment's mean vectors, each (2p, 2p).
        dfs: Degrees of freedom of each part.
        ceiling: Degrees of freedom that the parts together do not exceed.
    """
    gradient = np.hstack([levels.gradient(CONTROL), levels.gradient(TREATMENT)])
    return Spread(tuple(gradient @ part @ gradient.T for part in parts), tuple(dfs), ceiling)


def difference(levels: Levels, spread: Spread) -> Estimate:
    """Treatment level less control level."""
    gradient = np.array([-1.0, 1.0])
    value = float(levels.value[TREATMENT] - levels.value[CONTROL])
    return Estimate(value, math.sqrt(max(spread.variance(gradient), 0.0)), spread.df(gradient))


def lift(levels: Levels, spread: Spread) -> Estimate:
    """Treatment level over control level, less one; delta method, the difference's df.

    The control level must not be zero.
    """
    control, treatment = float(levels.value[CONTROL]), float(levels.value[TREATMENT])
    gradient = np.array([-treatment / control**2, 1.0 / control])
    std_error = math.sqrt(max(spread.variance(gradient), 0.0))
    df = spread.df(np.array([-1.0, 1.0]))
    return Estimate((treatment - control) / control, std_error, df)


def lift_interval(
    levels: Levels, spread: Spread, *, confidence_level: float
) -> tuple[float, float] | None:
    """Fieller's interval of the lift: all lifts `r - 1` for which `treatment = r control` stands.

    The t test of `treatment - r control` with the difference's degrees of freedom is inverted in r,
    so the interval excludes zero just when the difference is significant.

    Returns:
        The ends, or `None` if the control level is not significantly different from zero: then
        the set is unbounded.
    """
    quotient = [TREATMENT, CONTROL]
    ends = fieller(
        float(levels.value[TREATMENT]),
        float(levels.value[CONTROL]),
        spread.covariance[np.ix_(quotient, quotient)],
        critical=critical_value(confidence_level, df=spread.df(np.array([-1.0, 1.0]))),
    )
    return None if ends is None else (ends[0] - 1.0, ends[1] - 1.0)


def lift_distance(levels: Levels, spread: Spread, *, lift_: float) -> float:
    """Signed distance of the lift from a value in standard errors, without an expansion.

    The statistic of `treatment - (1 + lift_) control = 0`, positive if treatment lies above.
    """
    gradient = np.array([-(1.0 + lift_), 1.0])
    std_error = math.sqrt(max(spread.variance(gradient), 0.0))
    return float(gradient @ levels.value) / std_error


def unit_std(gram: Gram, quotient: Quotient) -> float:
    """Standard deviation over units of the (linearised) quotient."""
    gradient = quotient.gradient(gram.mean)
    return math.sqrt(max(float(gradient @ gram.covariance @ gradient), 0.0))


def is_constant(gram: Gram, quotient: Quotient) -> bool:
    """Whether all units have the same value, up to rounding."""
    return unit_std(gram, quotient) <= ROUNDING * abs(quotient.value(gram.mean))


def is_binary(gram: Gram, position: int) -> bool:
    """Whether a term can be a 0/1 column: its sum of squares must equal its sum.

    For values in {0, 1} the centred cross-product is `n p (1 - p)`; a column with fractions or
    other numbers has a different one, unless it is made up to cheat.
    """
    share = float(gram.mean[position])
    expected = gram.n * share * (1.0 - share)
    found = float(gram.cross[position, position])
    slack = 1e-9 * gram.n
    return -slack <= share <= 1.0 + slack and abs(found - expected) <= slack


def _linearised(gram: Gram, quotients: Sequence[Quotient]) -> Array:
    """Cross-products of the quotients' linearised unit values, shape (1 + q, 1 + q)."""
    gradients = np.array([quotient.gradient(gram.mean) for quotient in quotients])
    return np.asarray(gradients @ gram.cross @ gradients.T, dtype=np.float64)


def _mixing(levels: Levels, arm: int) -> Array:
    """How both levels depend on (own part, pooled covariate part) of one arm, shape (2, 2)."""
    out = np.zeros((2, 2))
    out[arm, 0] = 1.0
    out[:, 1] = levels.shares[arm]
    return out


def _zip(thetas: Array, covariates: Sequence[Quotient]) -> list[tuple[float, Quotient]]:
    return list(zip(map(float, thetas), covariates, strict=True))
