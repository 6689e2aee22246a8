"""How a comparison is going to be tested, and what its statistic does under an effect.

`suite` is the test that the method `ab` makes: Welch's t (or the pooled or cluster-robust one) of a
difference or of a delta-method lift. The others are definitions of well-known calculators, for
those who have to reproduce a figure; they know independent units and absolute differences only.

Sources: Cohen (1988), "Statistical power analysis for the behavioral sciences" (the arcsine
effect size); R Core Team, `stats::power.t.test`, `stats::power.prop.test`; statsmodels,
`stats.power.TTestIndPower`, `NormalIndPower`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from causal.core.errors import SpecError
from causal.core.result import Scale
from causal.experiments.comparison import Variance
from causal.experiments.levels import welch_satterthwaite
from causal.experiments.lift_edges import edge_errors
from causal.experiments.power_outcome import (
    ArmMoments,
    Outcome,
    arm_moments,
    estimate_variances,
)

Alternative = Literal["two_sided", "larger", "smaller"]
Distribution = Literal["t", "normal"]
Definition = Literal["suite", "TTestIndPower", "NormalIndPower", "power.t.test", "power.prop.test"]
_MEAN_DEFINITIONS = ("suite", "TTestIndPower", "NormalIndPower", "power.t.test")
_PROPORTION_DEFINITIONS = ("suite", "NormalIndPower", "power.prop.test")
_R_DEFINITIONS = frozenset({"power.t.test", "power.prop.test"})


@dataclass(frozen=True, kw_only=True)
class PlannedTest:
    """The test of one treatment against control.

    Attributes:
        alpha: Size of the test.
        alternative: `two_sided`, or the side on which the effect is expected.
        scale: Of the effect and of `null`.
        null: Effect under the null hypothesis; a non-inferiority test has minus the margin here
            (plus the margin where a decrease is good).
        ratio: Units in treatment per unit in control.
        distribution: Reference of the definition `suite`; the others have one of their own.
        variance: As in `ab`, of independent units under `suite`.
        definition: `suite`; statsmodels' `TTestIndPower` or `NormalIndPower` (a proportion by the
            arcsine effect size); R's `power.t.test` or `power.prop.test` with `strict = FALSE`
            (a two-sided test that rejects on the wrong side does not count).
        inflation: Largest sample of a sequential design over that of the fixed one.

    Raises:
        SpecError: No test is like this.
    """

    alpha: float = 0.05
    alternative: Alternative = "two_sided"
    scale: Scale = "absolute"
    null: float = 0.0
    ratio: float = 1.0
    distribution: Distribution = "t"
    variance: Variance = "welch"
    definition: Definition = "suite"
    inflation: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no test."""
        if not 0 < self.alpha < 1:
            raise SpecError("alpha must lie between 0 and 1", given=self.alpha)
        if not (self.ratio > 0 and math.isfinite(self.ratio)):
            raise SpecError("the ratio of treatment to control must be positive", given=self.ratio)
        if not (self.inflation >= 1 and math.isfinite(self.inflation)):
            raise SpecError("the inflation factor must be at least 1", given=self.inflation)
        if not math.isfinite(self.null):
            raise SpecError("the null effect must be a number", given=self.null)
        if self.definition in _R_DEFINITIONS and self.ratio != 1:
            raise SpecError(f"{self.definition} knows equal arms only", given=self.ratio)

    @property
    def control_share(self) -> float:
        """Control's share of the units of both arms."""
        return 1.0 / (1.0 + self.ratio)


@dataclass(frozen=True)
class Sampling:
    """Distribution of the test statistic's parts under an effect.

    Attributes:
        distance: Expected estimate less its value under the null.
        std_error: Standard error of that difference.
        upper: The standard error that the test divides by where it starts to reject upwards.
        lower: The same downwards.
        df: Degrees of freedom; `None`: normal.
    """

    distance: float
    std_error: float
    upper: float
    lower: float
    df: float | None


def critical_value(test: PlannedTest, df: float | None) -> float:
    """How many standard errors from the null the test rejects."""
    from scipy import stats

    tail = test.alpha / 2 if test.alternative == "two_sided" else test.alpha
    return float(stats.norm.isf(tail) if df is None else stats.t.isf(tail, df))


def lift_of(outcome: Outcome, effect: float, scale: Scale) -> float:
    """An effect as a relative change of the level."""
    if scale == "relative":
        return effect
    return effect / outcome.level if outcome.level != 0 else 0.0


def check_fits(outcome: Outcome, test: PlannedTest) -> None:
    """The test can be made with this outcome.

    Raises:
        SpecError: It cannot.
    """
    if test.scale == "relative" and not outcome.level > 0:
        raise SpecError("a lift needs a control level above zero", given=outcome.level)
    if outcome.response == "multiplicative" and outcome.level == 0:
        raise SpecError("a multiplicative response needs a level that is not zero")
    if test.definition == "suite":
        return
    if outcome.units_per_cluster is not None:
        raise SpecError(f"{test.definition} knows independent units only", allowed="suite")
    allowed = _PROPORTION_DEFINITIONS if outcome.is_proportion else _MEAN_DEFINITIONS
    if test.definition not in allowed:
        kind = "no proportion" if outcome.is_proportion else "proportions only"
        raise SpecError(f"{test.definition} takes {kind}", allowed=allowed)
    if outcome.is_proportion and (outcome.is_adjusted or test.null != 0):
        what = "covariates" if outcome.is_adjusted else "margin"
        raise SpecError(f"{test.definition} knows no {what} of a proportion", allowed="suite")


def sampling(outcome: Outcome, test: PlannedTest, *, effect: float, n_control: float) -> Sampling:
    """What the test statistic does under an effect.

    Args:
        outcome: The outcome under control.
        test: The test.
        effect: The true effect, on the test's scale.
        n_control: Units in control, not necessarily whole.

    Raises:
        SpecError: Test and outcome do not go together, or the effect leaves a proportion's range.
    """
    check_fits(outcome, test)
    treated = outcome.level * (1.0 + lift_of(outcome, effect, test.scale))
    if outcome.is_proportion and not 0 < treated < 1:
        raise SpecError(
            "the effect takes a proportion out of its range",
            given=f"{outcome.level:g} to {treated:g}",
        )
    return _SAMPLINGS[test.definition](outcome, test, effect, n_control / test.inflation)


def overlap(outcome: Outcome, test: PlannedTest, *, effect: float, n_control: float) -> float:
    """Control's share of the effect's variance: the correlation of effects that share a control.

    Args:
        outcome: The outcome under control.
        test: The test.
        effect: The true effect, on the test's scale.
        n_control: Units in control; clusters that few of them make vary more.
    """
    lift = lift_of(outcome, effect, test.scale)
    size = n_control / test.inflation
    sizes = (size, test.ratio * size)
    control, treatment = _parts(outcome, test, lift, arm_moments(outcome, lift), sizes)
    return control / (control + treatment)


def _suite(outcome: Outcome, test: PlannedTest, effect: float, n_control: float) -> Sampling:
    lift = lift_of(outcome, effect, test.scale)
    moments = arm_moments(outcome, lift)
    sizes = (n_control, test.ratio * n_control)
    tested = moments
    if test.variance == "pooled" and outcome.units_per_cluster is None:
        shared = _pooled(moments, (sizes[0] - 1.0, sizes[1] - 1.0))
        tested = (shared, shared)
    df = _df(outcome, test, _parts(outcome, test, lift, moments, sizes), sizes)
    distance = effect - test.null
    if test.scale == "absolute":
        own = math.sqrt(sum(_parts(outcome, test, lift, moments, sizes)))
        divisor = math.sqrt(sum(_parts(outcome, test, lift, tested, sizes)))
        return Sampling(distance, own, divisor, divisor, df)
    own = math.sqrt(sum(_parts(outcome, test, test.null, moments, sizes)))
    upper, lower = edge_errors(
        lambda at: sum(_parts(outcome, test, at, tested, sizes)),
        null=test.null,
        critical=critical_value(test, df),
    )
    return Sampling(distance, own, upper, lower, df)


def _parts(
    outcome: Outcome,
    test: PlannedTest,
    lift: float,
    moments: tuple[ArmMoments, ArmMoments],
    sizes: tuple[float, float],
) -> tuple[float, float]:
    """What control and treatment add to the variance of the effect."""
    found = _variances(outcome, test, lift, moments)
    a, b = (
        variance / size * outcome.clusters_of(size).factor
        for variance, size in zip(found, sizes, strict=True)
    )
    return a, b


def _df(
    outcome: Outcome, test: PlannedTest, parts: tuple[float, float], sizes: tuple[float, float]
) -> float | None:
    if test.distribution == "normal":
        return None
    if outcome.units_per_cluster is not None:
        return _clustered_df(outcome, parts, sizes)
    if test.variance == "pooled":
        return sum(sizes) - 2.0
    return welch_satterthwaite(parts, (sizes[0] - 1.0, sizes[1] - 1.0))


def _clustered_df(
    outcome: Outcome, parts: tuple[float, float], sizes: tuple[float, float]
) -> float:
    """As `ab` does it: from the arms' own variances, at most those of arms that vary alike.

    An arm's clusters count by their sizes; two clusters leave one degree of freedom at least. The
    analysis estimates an arm's share w of the variance, so `w^2` has the expectation of a squared
    share of two chi-squares (a beta distribution where the arms are alike).
    """
    dfs = [max(outcome.clusters_of(size).worth - 1.0, 1.0) for size in sizes]
    alike = [1.0 / size for size in sizes]
    share = parts[0] / sum(parts)
    product = share * (1.0 - share)
    noise = product / (1.0 + 1.0 / (product * sum(2.0 / df for df in dfs)))
    squares = (share**2 + noise, (1.0 - share) ** 2 + noise)
    estimated = 1.0 / sum(square / df for square, df in zip(squares, dfs, strict=True))
    return min(estimated, welch_satterthwaite(alike, dfs))


def _variances(
    outcome: Outcome, test: PlannedTest, lift: float, moments: tuple[ArmMoments, ArmMoments]
) -> tuple[float, float]:
    return estimate_variances(
        moments,
        level=outcome.level,
        lift=lift,
        scale=test.scale,
        control_share=test.control_share,
    )


def _pooled(moments: tuple[ArmMoments, ArmMoments], dfs: tuple[float, float]) -> ArmMoments:
    """Moments averaged over the arms as the pooled variance does."""
    control, treatment = moments
    share = dfs[1] / sum(dfs)
    return ArmMoments(
        (1 - share) * control.variance + share * treatment.variance,
        (1 - share) * control.covariance + share * treatment.covariance,
        (1 - share) * control.predicted + share * treatment.predicted,
    )


def _ttest(outcome: Outcome, test: PlannedTest, effect: float, n_control: float) -> Sampling:
    """Pooled t test with one standard deviation in both arms."""
    found = _ztest(outcome, test, effect, n_control)
    df = n_control * (1.0 + test.ratio) - 2.0
    return Sampling(found.distance, found.std_error, found.upper, found.lower, df)


def _ztest(outcome: Outcome, test: PlannedTest, effect: float, n_control: float) -> Sampling:
    """The same with a normal reference; a proportion by its arcsine effect size."""
    if outcome.is_proportion:
        treated = outcome.level * (1.0 + lift_of(outcome, effect, test.scale))
        distance, variance = _arcsine(treated) - _arcsine(outcome.level), 1.0
    else:
        unit = outcome.level if test.scale == "relative" else 1.0
        distance, variance = (effect - test.null) * unit, outcome.residual
    std_error = math.sqrt(variance * (1.0 + 1.0 / test.ratio) / n_control)
    return Sampling(distance, std_error, std_error, std_error, None)


def _proptest(outcome: Outcome, test: PlannedTest, effect: float, n_control: float) -> Sampling:
    """The test's error is that of equal shares, the estimate's own that of the two shares."""
    control = outcome.level
    treated = control * (1.0 + lift_of(outcome, effect, test.scale))
    middle = (control + treated) / 2.0
    own = control * (1.0 - control) + treated * (1.0 - treated)
    tested = 2.0 * middle * (1.0 - middle)
    own, tested = math.sqrt(own / n_control), math.sqrt(tested / n_control)
    return Sampling(treated - control, own, tested, tested, None)


def _arcsine(share: float) -> float:
    return 2.0 * math.asin(math.sqrt(share))


_SAMPLINGS: Mapping[Definition, Callable[[Outcome, PlannedTest, float, float], Sampling]] = (
    MappingProxyType(
        {
            "suite": _suite,
            "TTestIndPower": _ttest,
            "NormalIndPower": _ztest,
            "power.t.test": _ttest,
            "power.prop.test": _proptest,
        }
    )
)
