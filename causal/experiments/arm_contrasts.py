"""Exact posteriors of the difference and the lift of two independent arms, without simulation.

With the arms independent, P(treatment <= f(control)) is an integral over one arm of the other's
distribution function. It is taken by quadrature, split where either arm has its bulk, so that a
million units an arm, or arms of very different size, cost and err as little as a hundred. Errors
are near 1e-14; above a million units the incomplete beta function itself limits them, to about
1e-11 (1e-9 at a thousand million).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.errors import SpecError
from causal.core.gram import Array
from causal.experiments.arm_posteriors import Arm, Beta, Gamma
from causal.experiments.bayes import PosteriorSummary, solve_quantile, summarise
from causal.experiments.double_exponential import REACH, panel_nodes, unit_nodes

_LONGEST_SUM = 1000
_LARGEST_SECOND = 10_000
"""Bounds within which the closed form is at least as exact as the quadrature."""

_MODERATE = 0.5
_SHORT_REACH = 4.0
"""Reach of the nodes that is enough for parameters of at least `_MODERATE`."""

_TWO_ARMS = 2

_STIRLING_FROM = 100.0
"""From here four terms of Stirling's series are exact to 1e-20."""


@dataclass(frozen=True)
class Difference:
    """Posterior of treatment less control.

    Attributes:
        control: Posterior of the control's level.
        treatment: Posterior of the treatment's level.
    """

    control: Arm
    treatment: Arm

    @property
    def mean(self) -> float:
        """Expectation."""
        return self.treatment.mean - self.control.mean

    @property
    def sd(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.treatment.variance + self.control.variance)

    def pdf(self, x: Array) -> Array:
        """Density, by quadrature for each value."""
        return np.array([self._density(float(value)) for value in np.ravel(x)]).reshape(np.shape(x))

    def cdf(self, x: float) -> float:
        """Probability of at most `x`."""
        at, weights = self._over_control(x)
        return float(weights @ self.treatment.cdf(at + x))

    def sf(self, x: float) -> float:
        """Probability of more than `x`."""
        at, weights = self._over_control(x)
        return float(weights @ self.treatment.sf(at + x))

    def quantile(self, p: float) -> float:
        """The value with probability `p` below it."""
        return solve_quantile(self, p, start=self.mean, step=self.sd)

    def losses(self) -> tuple[float, float]:
        """Expected losses of the treatment and of the control, on the level's scale."""
        return shortfall(self.treatment, self.control), shortfall(self.control, self.treatment)

    def _density(self, x: float) -> float:
        at, weights = self._over_control(x)
        return float(weights @ self.treatment.density(at + x))

    def _over_control(self, x: float) -> tuple[Array, Array]:
        return bulk_nodes(self.control, [edge - x for edge in self.treatment.edges])


@dataclass(frozen=True)
class Lift:
    """Posterior of treatment over control, less one.

    Its mean is infinite when zero is not out of the control's reach (a first parameter of at most
    one), its standard deviation up to two; probabilities and intervals always exist.

    Attributes:
        control: Posterior of the control's level.
        treatment: Posterior of the treatment's level.
    """

    control: Arm
    treatment: Arm

    @property
    def mean(self) -> float:
        """Expectation."""
        return self.treatment.mean * self.control.inverse_mean - 1

    @property
    def sd(self) -> float:
        """Standard deviation."""
        inverse = self.control.inverse_variance
        if math.isinf(inverse):
            return math.inf
        second_moment = inverse + self.control.inverse_mean**2
        return math.sqrt(self.treatment.variance * second_moment + self.treatment.mean**2 * inverse)

    def pdf(self, x: Array) -> Array:
        """Density, by quadrature for each value."""
        return np.array([self._density(float(value)) for value in np.ravel(x)]).reshape(np.shape(x))

    def cdf(self, x: float) -> float:
        """Probability of at most `x`."""
        if x <= -1:
            return 0.0
        at, weights = self._over_control(1 + x)
        return float(weights @ self.treatment.cdf(at * (1 + x)))

    def sf(self, x: float) -> float:
        """Probability of more than `x`."""
        if x <= -1:
            return 1.0
        at, weights = self._over_control(1 + x)
        return float(weights @ self.treatment.sf(at * (1 + x)))

    def quantile(self, p: float) -> float:
        """The value with probability `p` below it."""
        arms = (self.treatment, self.control)
        start = math.log(self.treatment.mean / self.control.mean)
        step = math.sqrt(sum(arm.variance / arm.mean**2 for arm in arms))
        return math.expm1(solve_quantile(_LogRatio(self), p, start=start, step=step))

    def losses(self) -> tuple[float, float]:
        """Expected losses of the treatment and of the control, as shares of the control level.

        The weight 1 / control turns the control's distribution into one of the same family, so
        that both are integrals of products of probabilities, without cancellation.
        """
        factor = self.control.inverse_mean
        if math.isinf(factor):
            return self._loss_by_probabilities(), math.inf
        tilted = self.control.over_level()
        return (
            factor * shortfall(self.treatment, tilted),
            factor * shortfall(tilted, self.treatment),
        )

    def _loss_by_probabilities(self) -> float:
        """Integral of P(lift <= x) from -1 to 0."""
        nodes, _, weights = unit_nodes(_SHORT_REACH)
        return float(weights @ np.array([self.cdf(-float(x)) for x in nodes]))

    def _density(self, x: float) -> float:
        if x <= -1:
            return 0.0
        at, weights = self._over_control(1 + x)
        return float(weights @ (at * self.treatment.density(at * (1 + x))))

    def _over_control(self, ratio: float) -> tuple[Array, Array]:
        return bulk_nodes(self.control, [edge / ratio for edge in self.treatment.edges])


@dataclass(frozen=True)
class _LogRatio:
    """The lift on the log scale, where its quantiles are found."""

    lift: Lift

    def cdf(self, x: float) -> float:
        return self.lift.cdf(math.expm1(x))

    def sf(self, x: float) -> float:
        return self.lift.sf(math.expm1(x))


def bulk_nodes(arm: Arm, breaks: Sequence[float]) -> tuple[Array, Array]:
    """Nodes and weights for expectations over an arm's posterior.

    Args:
        arm: The arm.
        breaks: Where what is averaged changes abruptly.

    Returns:
        Nodes and weights that sum to one, of shape (k,).
    """
    lower, mean, upper = arm.edges
    ends = np.sort(np.clip([lower, mean, upper, *breaks], lower, upper))
    reach = _SHORT_REACH if arm.steepness >= _MODERATE else REACH
    at, beyond, weights = panel_nodes(ends, reach=reach)
    mass = weights * arm.shape_at(at, beyond)
    mass = np.where(np.isfinite(mass), mass, 0.0)
    return at, mass / mass.sum()


def shortfall(below: Arm, above: Arm) -> float:
    """E[max(above - below, 0)], the integral of P(below <= x) P(above > x)."""
    ends = np.unique([*below.edges, *above.edges])
    at, _, weights = panel_nodes(ends)
    return float(weights @ (below.cdf(at) * above.sf(at)))


def probability_greater(treatment: Arm, control: Arm) -> float:
    """P(treatment > control).

    Gamma arms have a closed form (their ratio is a beta prime). Beta arms with a whole parameter
    of at most 1,000 are a finite sum (Miller 2015, "Formulas for Bayesian A/B testing"); the rest
    is quadrature.
    """
    from scipy import special

    if isinstance(treatment, Gamma) and isinstance(control, Gamma):
        share = treatment.rate / (treatment.rate + control.rate)
        return float(special.betaincc(treatment.shape, control.shape, share))
    if isinstance(treatment, Beta) and isinstance(control, Beta):
        closed = closed_form(treatment, control)
        if closed is not None:
            return closed
    return Difference(control, treatment).sf(0.0)


def closed_form(treatment: Beta, control: Beta) -> float | None:
    """P(treatment > control) as a finite sum over the smallest whole parameter.

    Returns:
        The probability, or `None` when no parameter is whole and at most 1,000, or rounding of
        the other counts would make the sum less exact than the quadrature.
    """
    not_treatment, not_control = _complement(treatment), _complement(control)
    ways = (
        (treatment, control, False),
        (control, treatment, True),
        (not_control, not_treatment, False),
        (not_treatment, not_control, True),
    )
    usable = [way for way in ways if _is_short_sum(way[0], way[1])]
    if not usable:
        return None
    first, second, is_complement = min(usable, key=lambda way: way[0].alpha)
    found = _finite_sum(first, second)
    return 1 - found if is_complement else found


def _complement(arm: Beta) -> Beta:
    return Beta(arm.beta, arm.alpha)


def _is_short_sum(summed: Beta, other: Beta) -> bool:
    is_whole = float(summed.alpha).is_integer() and summed.alpha <= _LONGEST_SUM
    return is_whole and min(other.alpha, summed.beta) <= _LARGEST_SECOND


def _finite_sum(treatment: Beta, control: Beta) -> float:
    """Sum over i < alpha of B(a + i, b + d) / ((d + i) B(1 + i, d) B(a, b)), all terms positive."""
    a, b, d = control.alpha, control.beta, treatment.beta
    i = np.arange(int(treatment.alpha) - 1, dtype=np.float64)
    # From term to term by a ratio: differences of log gammas of large counts would cancel.
    ratios = np.log((a + i) / (i + 1)) + np.log((d + i) / (a + b + d + i))
    few, many = sorted((a, d))
    first = _log_rising(b, few) - _log_rising(b + many, few)
    terms = first + np.concatenate([[0.0], np.cumsum(ratios)])
    return float(min(np.exp(terms).sum(), 1.0))


def _log_rising(x: float, step: float) -> float:
    """log(gamma(x + step) / gamma(x)) without the cancellation of two large log gammas."""
    from scipy import special

    if x < _STIRLING_FROM:
        return float(special.gammaln(x + step) - special.gammaln(x))
    leading = (x - 0.5) * math.log1p(step / x) + step * (math.log(x + step) - 1)
    return leading + _stirling_remainder(x + step) - _stirling_remainder(x)


def _stirling_remainder(x: float) -> float:
    """What Stirling's formula leaves out of log gamma (Abramowitz and Stegun 6.1.41)."""
    return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * x * x)) / (x * x)) / (x * x)) / x


def probability_best(arms: Sequence[Arm]) -> tuple[float, ...]:
    """Probability of each arm to have the highest level.

    Args:
        arms: Independent posteriors of two or more arms.

    Raises:
        SpecError: Fewer than two arms.
    """
    if len(arms) < _TWO_ARMS:
        raise SpecError("the best of at least two arms", given=len(arms))
    found = []
    for position, arm in enumerate(arms):
        others = [other for at, other in enumerate(arms) if at != position]
        breaks = [edge for other in others for edge in other.edges]
        at, weights = bulk_nodes(arm, breaks)
        found.append(float(weights @ np.prod([other.cdf(at) for other in others], axis=0)))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class ArmReadout:
    """Treatment against control.

    Attributes:
        control: Posterior of the control's level.
        treatment: Posterior of the treatment's level.
        prob_greater: P(treatment > control).
        absolute: The difference.
        relative: The lift.
    """

    control: Arm
    treatment: Arm
    prob_greater: float
    absolute: PosteriorSummary
    relative: PosteriorSummary


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked of a posterior on one scale.

    Attributes:
        worse_than: A loss `d`: P(effect < -d).
        rope: Region of practical equivalence.
    """

    worse_than: float = 0.0
    rope: tuple[float, float] = (0.0, 0.0)


def compare(
    treatment: Arm,
    control: Arm,
    *,
    confidence_level: float = 0.95,
    absolute: Questions | None = None,
    relative: Questions | None = None,
) -> ArmReadout:
    """Read the posteriors of the difference and the lift of two independent arms.

    Args:
        treatment: Posterior of the treatment's level.
        control: Posterior of the control's level.
        confidence_level: Probability of the intervals.
        absolute: Loss and region of equivalence in the level's own unit.
        relative: Loss and region as shares of the control level.

    Raises:
        SpecError: A level, loss or region that has no meaning.

    Example:
        >>> from causal.experiments.arm_posteriors import beta_posterior
        >>> found = compare(beta_posterior(51, n=100), beta_posterior(49, n=100))
        >>> round(found.prob_greater, 7)
        0.6107705
    """
    on_difference, on_lift = absolute or Questions(), relative or Questions()
    return ArmReadout(
        control=control,
        treatment=treatment,
        prob_greater=probability_greater(treatment, control),
        absolute=summarise(
            Difference(control, treatment),
            confidence_level=confidence_level,
            worse_than=on_difference.worse_than,
            rope=on_difference.rope,
        ),
        relative=summarise(
            Lift(control, treatment),
            confidence_level=confidence_level,
            worse_than=on_lift.worse_than,
            rope=on_lift.rope,
        ),
    )
