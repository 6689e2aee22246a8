"""Posteriors of an effect, and what is read from them.

A posterior is anything that answers `Posterior`: the normal and Student posteriors of this module,
which need nothing but an estimate and its standard error and so serve every method of the suite;
the contrasts of two arms in `causal.experiments.arm_contrasts`; the profits of
`causal.experiments.roi`. `summarise` reads from any of them what a decision needs.

The prior of a normal posterior is stated, never estimated from the data that it meets. With a flat
prior the posterior repeats the likelihood: its equal-tailed interval is the confidence interval.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import Field, model_validator

from causal.core.errors import InferenceError, SpecError
from causal.core.gram import Array
from causal.core.result import Effect
from causal.core.spec import Part
from causal.experiments.double_exponential import unit_nodes


class NormalPrior(Part):
    """What was believed of an effect before the data, on the scale of the effect.

    Attributes:
        mean: Prior mean.
        sd: Prior standard deviation; left out, the prior is flat and has no mean.
    """

    mean: float = 0.0
    sd: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _flat_has_no_mean(self) -> "NormalPrior":
        if self.sd is None and self.mean != 0.0:
            raise ValueError("a prior mean needs a prior sd; a flat prior has none")
        return self


FLAT = NormalPrior()

_CLOSE = 1e-8
"""Relative error up to which an interval of highest density counts as found."""


class Distribution(Protocol):
    """What quantiles are found from."""

    def cdf(self, x: float) -> float:
        """Probability of at most `x`."""

    def sf(self, x: float) -> float:
        """Probability of more than `x`, accurate where it is small."""


class Posterior(Distribution, Protocol):
    """The distribution of an effect after the data."""

    @property
    def mean(self) -> float:
        """Expectation; infinite where it does not exist."""

    @property
    def sd(self) -> float:
        """Standard deviation; infinite where it does not exist."""

    def pdf(self, x: Array) -> Array:
        """Density, shape of `x`."""

    def quantile(self, p: float) -> float:
        """The value with probability `p` below it, 0 < p < 1."""

    def losses(self) -> tuple[float, float]:
        """Expected losses `E[max(-x, 0)]` of the treatment and `E[max(x, 0)]` of the control."""


@dataclass(frozen=True)
class NormalPosterior:
    """A normal posterior.

    Attributes:
        mean: Posterior mean.
        sd: Posterior standard deviation.
    """

    mean: float
    sd: float

    def pdf(self, x: Array) -> Array:
        """Density."""
        from scipy import stats

        return np.asarray(stats.norm.pdf(x, self.mean, self.sd))

    def cdf(self, x: float) -> float:
        """Probability of at most `x`."""
        from scipy import special

        return float(special.ndtr((x - self.mean) / self.sd))

    def sf(self, x: float) -> float:
        """Probability of more than `x`."""
        from scipy import special

        return float(special.ndtr((self.mean - x) / self.sd))

    def quantile(self, p: float) -> float:
        """The value with probability `p` below it."""
        from scipy import special

        return float(self.mean + self.sd * special.ndtri(p))

    def losses(self) -> tuple[float, float]:
        """Expected losses of the treatment and of the control."""
        both = _normal_loss(np.array([-self.mean, self.mean]), np.full(2, self.sd))
        return float(both[0]), float(both[1])


@dataclass(frozen=True)
class StudentPosterior:
    """A t posterior: an estimate whose standard error was itself estimated, under a flat prior.

    Attributes:
        mean: Centre (the expectation for more than one degree of freedom).
        scale: The standard error.
        df: Degrees of freedom.
    """

    mean: float
    scale: float
    df: float

    @property
    def sd(self) -> float:
        """Standard deviation, wider than the standard error; infinite up to two df."""
        return self.scale * math.sqrt(self.df / (self.df - 2)) if self.df > 2 else math.inf  # noqa: PLR2004

    def pdf(self, x: Array) -> Array:
        """Density."""
        from scipy import stats

        return np.asarray(stats.t.pdf(x, self.df, self.mean, self.scale))

    def cdf(self, x: float) -> float:
        """Probability of at most `x`."""
        from scipy import special

        return float(special.stdtr(self.df, (x - self.mean) / self.scale))

    def sf(self, x: float) -> float:
        """Probability of more than `x`."""
        from scipy import special

        return float(special.stdtr(self.df, (self.mean - x) / self.scale))

    def quantile(self, p: float) -> float:
        """The value with probability `p` below it."""
        from scipy import special

        return float(self.mean + self.scale * special.stdtrit(self.df, p))

    def losses(self) -> tuple[float, float]:
        """Expected losses of the treatment and of the control; infinite up to one df."""
        return self._loss(-self.mean), self._loss(self.mean)

    def _loss(self, mean: float) -> float:
        from scipy import special, stats

        if self.df <= 1:
            return math.inf
        z = -mean / self.scale
        tail = stats.t.pdf(z, self.df) * (self.df + z * z) / (self.df - 1)
        return float(self.scale * max(tail - z * special.stdtr(self.df, -z), 0.0))


@dataclass(frozen=True)
class NormalMixture:
    """A posterior that is normal given something that is integrated out numerically.

    Attributes:
        weights: Shape (k,), sum to one.
        means: Shape (k,).
        sds: Shape (k,), positive.
    """

    weights: Array
    means: Array
    sds: Array

    @property
    def mean(self) -> float:
        """Expectation."""
        return float(self.weights @ self.means)

    @property
    def sd(self) -> float:
        """Standard deviation: within the components and between them."""
        spread = self.means - self.mean
        return float(np.sqrt(self.weights @ (self.sds**2 + spread**2)))

    def pdf(self, x: Array) -> Array:
        """Density."""
        from scipy import stats

        points = np.asarray(x, dtype=np.float64)[..., None]
        return np.asarray(stats.norm.pdf(points, self.means, self.sds) @ self.weights)

    def cdf(self, x: float) -> float:
        """Probability of at most `x`."""
        from scipy import special

        return float(self.weights @ special.ndtr((x - self.means) / self.sds))

    def sf(self, x: float) -> float:
        """Probability of more than `x`."""
        from scipy import special

        return float(self.weights @ special.ndtr((self.means - x) / self.sds))

    def quantile(self, p: float) -> float:
        """The value with probability `p` below it."""
        return solve_quantile(self, p, start=self.mean, step=self.sd)

    def losses(self) -> tuple[float, float]:
        """Expected losses of the treatment and of the control."""
        treatment = self.weights @ _normal_loss(-self.means, self.sds)
        control = self.weights @ _normal_loss(self.means, self.sds)
        return float(treatment), float(control)


def normal_posterior(
    estimate: float, *, std_error: float, prior: NormalPrior = FLAT
) -> NormalPosterior:
    """Posterior of an effect whose estimate is normal with a known standard error.

    Precisions add: the posterior mean weighs estimate and prior mean by their inverse variances
    (Gelman et al. 2013, "Bayesian Data Analysis", section 2.5).

    Args:
        estimate: The estimate.
        std_error: Its standard error.
        prior: The prior, on the scale of the estimate.

    Raises:
        InferenceError: The estimate is not finite or the standard error not positive.

    Example:
        >>> posterior = normal_posterior(0.05, std_error=0.1, prior=NormalPrior(sd=0.1))
        >>> round(posterior.mean, 6), round(posterior.sd, 6)
        (0.025, 0.070711)
    """
    _check(estimate, std_error)
    if prior.sd is None:
        return NormalPosterior(float(estimate), float(std_error))
    share = prior.sd**2 / (prior.sd**2 + std_error**2)
    return NormalPosterior(
        float(share * estimate + (1 - share) * prior.mean), float(math.sqrt(share) * std_error)
    )


def effect_posterior(effect: Effect, *, prior: NormalPrior = FLAT) -> Posterior:
    """Posterior of an effect of any method.

    An effect with degrees of freedom has a t likelihood: with a flat prior the posterior is the t
    distribution around the estimate, so that probabilities agree with the interval and p-value
    that the reader sees; with a normal prior it is the product of both, a mixture of normals over
    the unknown variance.

    Args:
        effect: The effect.
        prior: The prior, on the effect's scale.

    Raises:
        InferenceError: The estimate is not finite or the standard error not positive.
    """
    if effect.df is None:
        return normal_posterior(effect.estimate, std_error=effect.std_error, prior=prior)
    return student_posterior(effect.estimate, std_error=effect.std_error, df=effect.df, prior=prior)


def student_posterior(
    estimate: float, *, std_error: float, df: float, prior: NormalPrior = FLAT
) -> Posterior:
    """Posterior of an effect whose standard error was estimated with `df` degrees of freedom.

    Args:
        estimate: The estimate.
        std_error: Its standard error.
        df: Degrees of freedom of the t reference.
        prior: The prior, on the scale of the estimate.

    Raises:
        InferenceError: The estimate is not finite, or standard error or df are not positive.
    """
    _check(estimate, std_error)
    if not df > 0:
        raise InferenceError("degrees of freedom must be positive", given=df)
    if math.isinf(df):
        return normal_posterior(estimate, std_error=std_error, prior=prior)
    if prior.sd is None:
        return StudentPosterior(float(estimate), float(std_error), float(df))
    precisions, weights = chi_square_nodes(df)
    variances = std_error**2 / precisions
    total = variances + prior.sd**2
    evidence = -0.5 * ((estimate - prior.mean) ** 2 / total + np.log(total))
    weights = weights * np.exp(evidence - evidence.max())
    share = prior.sd**2 / total
    return NormalMixture(
        weights=weights / weights.sum(),
        means=share * estimate + (1 - share) * prior.mean,
        sds=np.sqrt(share * variances),
    )


def chi_square_nodes(df: float) -> tuple[Array, Array]:
    """Nodes and weights of the mean of `df` squared normals: a t is a normal over its root.

    Returns:
        Positive nodes and weights that sum to one, both of shape (k,).
    """
    from scipy import special

    at, beyond, weights = unit_nodes()
    below = special.gammaincinv(df / 2, at)
    above = special.gammainccinv(df / 2, beyond)
    nodes = np.where(at < beyond, below, above) / (df / 2)
    keep = (nodes > np.finfo(np.float64).tiny) & np.isfinite(nodes)
    return nodes[keep], weights[keep] / weights[keep].sum()


@dataclass(frozen=True, kw_only=True)
class ArmLevel:
    """An arm's level of a metric: its mean (or proportion, or ratio) and standard error."""

    mean: float
    std_error: float


def lift_posterior(
    control: ArmLevel, treatment: ArmLevel, *, prior: NormalPrior = FLAT
) -> NormalPosterior:
    """Posterior of the relative effect by the delta method, as GrowthBook's Bayesian engine.

    The lift `treatment / control - 1` is taken as normal with the variance of a ratio of two
    independent means, `(s_t^2 + s_c^2 * (m_t / m_c)^2) / m_c^2`, and combined with the prior.

    Args:
        control: Level of the control.
        treatment: Level of the treatment.
        prior: The prior of the lift.

    Raises:
        InferenceError: The control level is not positive, where a lift has no meaning, or the
            standard error of the lift is zero.
    """
    if not control.mean > 0:
        raise InferenceError(
            "a relative effect needs a control level above zero", given=control.mean
        )
    ratio = treatment.mean / control.mean
    std_error = math.hypot(treatment.std_error, control.std_error * ratio) / control.mean
    return normal_posterior(
        (treatment.mean - control.mean) / control.mean, std_error=std_error, prior=prior
    )


@dataclass(frozen=True, kw_only=True)
class PosteriorSummary:
    """What is read from a posterior. Effects are in their own sign: positive is an increase.

    Attributes:
        mean: Posterior expectation.
        sd: Posterior standard deviation.
        median: Posterior median.
        confidence_level: Probability of both intervals.
        ci_lower: Lower end of the equal-tailed interval.
        ci_upper: Upper end of the equal-tailed interval.
        hdi_lower: Lower end of the shortest interval, of highest density.
        hdi_upper: Upper end of the shortest interval.
        prob_positive: P(effect > 0), the chance to win.
        worse_than: The loss `d` of `prob_worse`, a number not below zero.
        prob_worse: P(effect < -d).
        rope_lower: Lower end of the region of practical equivalence.
        rope_upper: Upper end of it.
        prob_rope: P(rope_lower < effect < rope_upper).
        loss_treatment: Expected loss of choosing the treatment, E[max(-effect, 0)].
        loss_control: Expected loss of choosing the control, E[max(effect, 0)].
    """

    mean: float
    sd: float
    median: float
    confidence_level: float
    ci_lower: float
    ci_upper: float
    hdi_lower: float
    hdi_upper: float
    prob_positive: float
    worse_than: float
    prob_worse: float
    rope_lower: float
    rope_upper: float
    prob_rope: float
    loss_treatment: float
    loss_control: float


def summarise(
    posterior: Posterior,
    *,
    confidence_level: float = 0.95,
    worse_than: float = 0.0,
    rope: tuple[float, float] = (0.0, 0.0),
) -> PosteriorSummary:
    """Intervals, probabilities and expected losses of a posterior.

    Args:
        posterior: The posterior.
        confidence_level: Probability of the intervals.
        worse_than: A loss `d` of at least zero, on the posterior's scale: P(effect < -d).
        rope: Region of practical equivalence on the posterior's scale; empty by default.

    Raises:
        SpecError: A level, loss or region that has no meaning.
    """
    _check_questions(confidence_level, worse_than, rope)
    tail = (1 - confidence_level) / 2
    hdi_lower, hdi_upper = highest_density_interval(posterior, level=confidence_level)
    loss_treatment, loss_control = posterior.losses()
    return PosteriorSummary(
        mean=posterior.mean,
        sd=posterior.sd,
        median=posterior.quantile(0.5),
        confidence_level=confidence_level,
        ci_lower=posterior.quantile(tail),
        ci_upper=posterior.quantile(1 - tail),
        hdi_lower=hdi_lower,
        hdi_upper=hdi_upper,
        prob_positive=posterior.sf(0.0),
        worse_than=worse_than,
        prob_worse=posterior.cdf(-worse_than),
        rope_lower=rope[0],
        rope_upper=rope[1],
        prob_rope=probability_between(posterior, *rope),
        loss_treatment=loss_treatment,
        loss_control=loss_control,
    )


def probability_between(posterior: Posterior, lower: float, upper: float) -> float:
    """P(lower < effect < upper), from the tail in which both differ most."""
    if upper <= lower:
        return 0.0
    below, above = posterior.cdf(lower), posterior.sf(upper)
    inside = posterior.sf(lower) - above if below > above else posterior.cdf(upper) - below
    return max(inside, 0.0)


def highest_density_interval(posterior: Posterior, *, level: float) -> tuple[float, float]:
    """The shortest interval with probability `level` of a posterior with one peak.

    Its ends have equal density; where the density falls from one end of the support on, the
    interval starts there.
    """
    from scipy import optimize

    tail = 1 - level
    lower, upper = posterior.quantile(tail / 2), posterior.quantile(1 - tail / 2)
    if isinstance(posterior, NormalPosterior | StudentPosterior):
        return lower, upper
    width = upper - lower

    def misfit(ends: Array) -> Array:
        below, above = lower + width * ends
        densities = posterior.pdf(np.array([below, above]))
        outside = posterior.cdf(float(below)) + posterior.sf(float(above))
        total = densities.sum() or 1.0
        return np.array([outside / tail - 1, (densities[1] - densities[0]) / total])

    found = optimize.root(misfit, np.array([0.0, 1.0]), tol=1e-10)
    if found.success and np.abs(found.fun).max() < _CLOSE:
        below, above = lower + width * found.x
        return float(below), float(above)
    return _shortest_by_bisection(posterior, level=level)


def _shortest_by_bisection(posterior: Posterior, *, level: float) -> tuple[float, float]:
    """The same for densities that are steep or highest at an end of the support."""
    from scipy import optimize

    tail = 1 - level

    def excess(below: float) -> float:
        ends = np.array([posterior.quantile(below), posterior.quantile(below + level)])
        lower, upper = posterior.pdf(ends)
        return float((upper - lower) / (upper + lower))

    first, last = tail * 1e-9, tail * (1 - 1e-9)
    if excess(first) <= 0:
        below = first
    elif excess(last) >= 0:
        below = last
    else:
        below = float(optimize.brentq(excess, first, last, xtol=tail * 1e-9, rtol=1e-9))
    return posterior.quantile(below), posterior.quantile(below + level)


def solve_quantile(found: Distribution, p: float, *, start: float, step: float) -> float:
    """Quantile by bracketing and Brent's method, on the tail in which the probability is small.

    Args:
        found: The distribution.
        p: Probability below the quantile.
        start: A value inside the support.
        step: About one standard deviation; the first step of the search for a bracket.
    """
    from scipy import optimize

    if not 0 < p < 1:
        raise SpecError("a quantile needs a probability between 0 and 1", given=p)

    def excess(x: float) -> float:
        return found.cdf(x) - p if p <= 0.5 else (1 - p) - found.sf(x)  # noqa: PLR2004

    lower = upper = start
    width = step
    while excess(lower) > 0:
        lower, upper, width = lower - width, lower, 2 * width
    width = step
    while excess(upper) < 0:
        lower, upper, width = upper, upper + width, 2 * width
    if lower == upper:
        return start
    return float(optimize.brentq(excess, lower, upper, xtol=step * 1e-11, rtol=1e-14))


def _normal_loss(mean: Array, sd: Array) -> Array:
    """E[max(x, 0)] of a normal x."""
    from scipy import special

    z = mean / sd
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return np.asarray(np.maximum(sd * (density + z * special.ndtr(z)), 0.0))


def _check(estimate: float, std_error: float) -> None:
    if not (math.isfinite(estimate) and math.isfinite(std_error) and std_error > 0):
        raise InferenceError(
            "a posterior needs a finite estimate and a positive standard error",
            given=f"estimate {estimate}, standard error {std_error}",
        )


def _check_questions(confidence_level: float, worse_than: float, rope: tuple[float, float]) -> None:
    if not 0 < confidence_level < 1:
        raise SpecError(
            "the level of an interval is a share",
            given=confidence_level,
            allowed="above 0, below 1",
            key="confidence_level",
        )
    if not (math.isfinite(worse_than) and worse_than >= 0):
        raise SpecError(
            "a loss is stated as a positive number",
            given=worse_than,
            allowed="0 or more: 0.005 asks for P(effect < -0.005)",
            key="worse_than",
        )
    if not (math.isfinite(rope[0]) and math.isfinite(rope[1]) and rope[0] <= rope[1]):
        raise SpecError(
            "the region of practical equivalence has a lower and an upper end",
            given=rope,
            allowed="two finite numbers, the lower one first",
            key="rope",
        )
