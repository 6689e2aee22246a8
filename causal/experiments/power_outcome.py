"""What a plan knows of an outcome before the experiment, and the variance that follows for an arm.

An outcome is described by its level and by second moments per unit: of the (linearised) outcome,
of its prediction from covariates, and between the two. Everything that a planned estimate needs
follows from these, whether the metric is a mean, a proportion or a ratio, on either scale, with
covariates or without, for units or for clusters.

Sources: Deng, Knoblich and Lu (2018), "Applying the delta method in metric analytics"; Deng, Xu,
Kohavi and Walker (2013), "Improving the sensitivity of online controlled experiments by utilizing
pre-experiment data"; Eldridge, Ashby and Kerry (2006), "Sample size for cluster randomized trials:
effect of coefficient of variation of cluster size and analysis method".
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from causal.core.errors import SpecError
from causal.core.result import Scale
from causal.experiments.cluster_df import expected_df

Response = Literal["additive", "multiplicative"]

_MIN_CLUSTERS = 2
_FEW_CLUSTERS = 1000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Level and unit-level second moments of an outcome under control.

    Attributes:
        level: Its mean, share or ratio.
        variance: Variance of the outcome over units, linearised for a ratio. With clusters: the
            variance of a cluster's sum of deviations, per unit, so that `variance / n` is the
            variance of the level from n units.
        covariance: Covariance of the outcome with its prediction from covariates (CUPED).
        predicted: Variance of that prediction.
        is_proportion: Whether the outcome is 0/1, so that its variance follows from its level.
        response: How the treatment moves units: by the same amount (`additive`: the variance
            stays), or by the same factor (`multiplicative`: it grows with the squared level).
            Ignored for the variance of a proportion.
        units_per_cluster: Mean size of a cluster; `None`: units are independent.
        evenness: Clusters of one size that a cluster is worth on average where there are many, at
            most 1.
        size_cv: Standard deviation of the clusters' sizes over their mean.
        shared: Share of the variance that is due to what the units of a cluster share.

    Raises:
        SpecError: The moments are impossible.
    """

    level: float
    variance: float
    covariance: float = 0.0
    predicted: float = 0.0
    is_proportion: bool = False
    response: Response = "additive"
    units_per_cluster: float | None = None
    evenness: float = 1.0
    size_cv: float = 0.0
    shared: float = 0.0

    def __post_init__(self) -> None:
        """Refuse moments that no outcome has."""
        if not math.isfinite(self.level):
            raise SpecError("the level of an outcome must be a number", given=self.level)
        if not (self.variance > 0 and math.isfinite(self.variance)):
            raise SpecError("the variance of an outcome must be positive", given=self.variance)
        if self.is_proportion and not 0 < self.level < 1:
            raise SpecError("a proportion must lie between 0 and 1", given=self.level)
        if not self.residual > 0:
            raise SpecError("the covariates leave the outcome no variance", given=self.residual)
        self._check_clusters()

    def _check_clusters(self) -> None:
        size = self.units_per_cluster
        if size is not None and not (size >= 1 and math.isfinite(size)):
            raise SpecError("a cluster has at least one unit", given=size)
        if not 0 < self.evenness <= 1:
            raise SpecError("evenness must be above 0 and at most 1", given=self.evenness)
        if not (self.size_cv >= 0 and math.isfinite(self.size_cv)):
            raise SpecError("size_cv must not be negative", given=self.size_cv)
        if not 0 <= self.shared <= 1:
            raise SpecError("a share lies between 0 and 1", given=self.shared)

    @property
    def residual(self) -> float:
        """Variance that the covariates leave."""
        return self.variance - 2 * self.covariance + self.predicted

    @property
    def is_adjusted(self) -> bool:
        """Whether covariates are used."""
        return self.predicted != 0.0 or self.covariance != 0.0

    def clusters_of(self, n: float) -> "ArmClusters":
        """What the clusters of an arm of n units are worth; units are clusters without them."""
        return ArmClusters(n / (self.units_per_cluster or 1.0), self)

    def adjusted(self, r_squared: float) -> "Outcome":
        """The outcome with covariates that explain a share of its variance.

        Args:
            r_squared: Squared (multiple) correlation of outcome and covariates, from 0 to below 1.

        Raises:
            SpecError: The share is out of range.
        """
        if not 0 <= r_squared < 1:
            raise SpecError("r_squared must be at least 0 and below 1", given=r_squared)
        shared = r_squared * self.variance
        return dataclasses.replace(self, covariance=shared, predicted=shared)

    def clustered(self, *, icc: float, mean_size: float, size_cv: float = 0.0) -> "Outcome":
        """The outcome of units that are randomised by cluster.

        Args:
            icc: Correlation of two units of one cluster.
            mean_size: Units per cluster.
            size_cv: Standard deviation of the clusters' sizes over their mean.

        Raises:
            SpecError: The outcome has clusters already, or no clusters are like this.
        """
        if self.units_per_cluster is not None:
            raise SpecError("the outcome is clustered already", given=self.units_per_cluster)
        effect = design_effect(icc=icc, mean_size=mean_size, size_cv=size_cv)
        return dataclasses.replace(
            self,
            variance=self.variance * effect,
            covariance=self.covariance * effect,
            predicted=self.predicted * effect,
            units_per_cluster=mean_size,
            evenness=planned_evenness(icc=icc, mean_size=mean_size, size_cv=size_cv),
            size_cv=size_cv,
            shared=min(icc * (1.0 + size_cv**2) * mean_size / effect, 1.0),
        )


@dataclass(frozen=True)
class ArmClusters:
    """The clusters of one arm, which may be few.

    Of G clusters with gamma-distributed sizes the shares p of the units have a Dirichlet
    distribution, so `sum(p^2)` is expected to be `(1 + cv^2) / (G + cv^2)`, and not
    `(1 + cv^2) / G` as for many: one cluster alone holds all units whatever its size. How many
    units there are is as uncertain: `1 / N` is expected to be `1 / (m (G - cv^2))`.

    Attributes:
        number: Clusters in the arm, not necessarily whole.
        outcome: The outcome.
    """

    number: float
    outcome: Outcome

    @property
    def worth(self) -> float:
        """Clusters of one size that leave the same degrees of freedom.

        Of few clusters what the analysis is expected to find; of many by matching the moments of
        what clusters add to the variance.
        """
        outcome = self.outcome
        if not _MIN_CLUSTERS <= self.number <= _FEW_CLUSTERS:
            spread = 1.0 / outcome.evenness - 1.0
            return (self.number + spread) / (1.0 + spread)
        size = outcome.units_per_cluster or 1.0
        times = (1.0 + outcome.size_cv**2) * size
        icc = outcome.shared / (times - (times - 1.0) * outcome.shared)
        return 1.0 + expected_df(
            self.number, mean_size=size, size_cv=outcome.size_cv, icc=min(icc, 1.0)
        )

    @property
    def factor(self) -> float:
        """Expected variance of the level over that of many clusters, per cluster."""
        spread, shared = self.outcome.size_cv**2, self.outcome.shared
        few = self.number / (self.number + spread)
        uncertain = self.number / max(self.number - spread, self.number / 2.0)
        return shared * few + (1.0 - shared) * uncertain


def mean_outcome(*, mean: float, std: float, response: Response = "additive") -> Outcome:
    """A mean per unit with its standard deviation over units."""
    return Outcome(level=mean, variance=std**2, response=response)


def proportion_outcome(*, share: float) -> Outcome:
    """A share of units."""
    if not 0 < share < 1:
        raise SpecError("a proportion must lie between 0 and 1", given=share)
    return Outcome(level=share, variance=share * (1 - share), is_proportion=True)


def ratio_outcome(
    *,
    numerator_mean: float,
    denominator_mean: float,
    numerator_variance: float,
    denominator_variance: float,
    covariance: float,
    response: Response = "additive",
) -> Outcome:
    """A ratio of two sums over units, linearised at its level (delta method).

    Raises:
        SpecError: The denominator's mean is zero.
    """
    if denominator_mean == 0:
        raise SpecError("the denominator's mean is zero", given=denominator_mean)
    level = numerator_mean / denominator_mean
    spread = numerator_variance - 2 * level * covariance + level**2 * denominator_variance
    return Outcome(level=level, variance=spread / denominator_mean**2, response=response)


def design_effect(*, icc: float, mean_size: float, size_cv: float = 0.0) -> float:
    """Factor by which clustering multiplies the variance of a mean: `1 + ((1 + cv^2) m - 1) icc`.

    Eldridge, Ashby and Kerry (2006) for an analysis that weighs units equally; with equal sizes
    it is Kish's `1 + (m - 1) icc`.

    Raises:
        SpecError: No clusters are like this.
    """
    if not 0 <= icc <= 1:
        raise SpecError("icc must lie between 0 and 1", given=icc)
    if not mean_size >= 1:
        raise SpecError("a cluster has at least one unit", given=mean_size)
    if not size_cv >= 0:
        raise SpecError("size_cv must not be negative", given=size_cv)
    return 1.0 + ((1.0 + size_cv**2) * mean_size - 1.0) * icc


def planned_evenness(*, icc: float, mean_size: float, size_cv: float) -> float:
    """Clusters of one size that a cluster of gamma-distributed size is worth on average.

    A cluster of n units adds `n (1 + (n - 1) icc)` to the variance of a mean; its squared mean over
    its mean square is the share of clusters that count (Satterthwaite's matching of moments).
    """
    spread = size_cv**2
    first = mean_size
    second = mean_size**2 * (1.0 + spread)
    third = mean_size**3 * (1.0 + spread) * (1.0 + 2.0 * spread)
    fourth = mean_size**4 * (1.0 + spread) * (1.0 + 2.0 * spread) * (1.0 + 3.0 * spread)
    mean = (1.0 - icc) * first + icc * second
    square = (1.0 - icc) ** 2 * second + 2.0 * icc * (1.0 - icc) * third + icc**2 * fourth
    return min(mean**2 / square, 1.0)


@dataclass(frozen=True)
class ArmMoments:
    """Second moments of one arm's units: outcome, outcome with prediction, prediction."""

    variance: float
    covariance: float
    predicted: float

    def form(self, own: float, prediction: float) -> float:
        """Variance of `own * outcome - prediction * predicted` per unit."""
        return (
            own**2 * self.variance
            - 2 * own * prediction * self.covariance
            + prediction**2 * self.predicted
        )


def arm_moments(outcome: Outcome, lift: float) -> tuple[ArmMoments, ArmMoments]:
    """Moments of control's and treatment's units when treatment lifts the level.

    Args:
        outcome: The outcome under control.
        lift: Relative change of the level.
    """
    control = ArmMoments(outcome.variance, outcome.covariance, outcome.predicted)
    factor = 1.0 + lift if outcome.response == "multiplicative" else 1.0
    growth = factor**2
    if outcome.is_proportion:
        treated = outcome.level * (1.0 + lift)
        growth = treated * (1.0 - treated) / (outcome.level * (1.0 - outcome.level))
    return control, ArmMoments(
        outcome.variance * growth, outcome.covariance * factor, outcome.predicted
    )


def estimate_variances(
    moments: tuple[ArmMoments, ArmMoments],
    *,
    level: float,
    lift: float,
    scale: Scale,
    control_share: float,
) -> tuple[float, float]:
    """The two numbers (a, b) for which the effect's variance is `a / n_control + b / n_treated`.

    On the relative scale the mean of the covariates over both arms does not cancel, because the
    levels are divided, so it takes its part in both numbers.

    Args:
        moments: Of control and treatment.
        level: Control's level.
        lift: Relative change of the level.
        scale: Of the effect.
        control_share: Control's share of the units of both arms.
    """
    control, treatment = moments
    if scale == "absolute":
        return control.form(1.0, 1.0), treatment.form(1.0, 1.0)
    grown = 1.0 + lift
    a = control.form(grown, grown - lift * control_share)
    b = treatment.form(1.0, 1.0 + lift * (1.0 - control_share))
    return a / level**2, b / level**2
