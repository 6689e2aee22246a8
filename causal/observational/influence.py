"""Weighted, regression and doubly robust means of each arm, with their influence functions.

Every estimator solves stacked estimating equations: those of the propensity (or of the balancing
weights), of the outcome model and of the mean. The influence of a row on the mean is a term like
any other, so its summed squares (or those of its sums over clusters) are one aggregation, and the
standard error allows for everything that was estimated (Lunceford and Davidian 2004; Stefanski and
Boos 2002). With `robust` errors the nuisances count as known.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from causal.core.frames import Constant, Linear, Product, Term
from causal.core.gram import Array
from causal.observational.outcome_model import OutcomeModel
from causal.observational.study import Arms, Basis, Study
from causal.observational.weights import Target, Weights, target_arms, target_term


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What the means are computed from.

    Attributes:
        plain: Moments by arm of the rows that are kept.
        weighted: The same, weighted; `None` without weights.
        sloped: The same, weighted by the size of the weights' derivatives.
        keep: 1 in the rows that are kept; `None`: all.
    """

    plain: Arms
    weighted: Arms | None = None
    sloped: Arms | None = None
    keep: Term | None = None


@dataclass(frozen=True, kw_only=True)
class ArmMean:
    """The mean outcome of the population had all its units been in one arm.

    Attributes:
        value: The mean.
        influence: A row's influence on it; sums to zero over the rows.
    """

    value: float
    influence: Linear


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """How means are computed.

    Attributes:
        target: The population.
        weights: Weights of residuals (or of outcomes without a model); `None`: regression alone.
        model: The outcome model; `None`: weighting alone.
        is_normalised: Whether weights are divided by their sum (Hajek) or by the population's size.
        is_robust: Whether weights and model count as known.
    """

    target: Target
    weights: Weights | None
    model: OutcomeModel | None
    is_normalised: bool
    is_robust: bool


def arm_mean(study: Study, estimator: Estimator, sums: Sums, arm: int) -> ArmMean:
    """The mean of one arm and its influence function.

    Args:
        study: The rows.
        estimator: What is computed.
        sums: The moments that it needs.
        arm: 0 for control, 1 for treated.
    """
    basis = study.basis
    if estimator.model is None and not estimator.is_normalised:
        # An outcome less its mean would be another estimate where weights do not sum to n.
        basis = replace(basis, level=0.0)
    mean = _Mean(study=study, basis=basis, estimator=estimator, sums=sums, arm=arm)
    parts = [*mean.of_predictions(), *mean.of_residuals()]
    if not estimator.is_robust:
        parts += [*mean.of_weights(), *mean.of_model()]
    return ArmMean(value=mean.value, influence=Linear(tuple(parts), (1.0,) * len(parts)))


@dataclass(frozen=True, kw_only=True)
class _Mean:
    """The parts of the mean of one arm: predictions, weighted residuals, and their estimation."""

    study: Study
    basis: Basis
    estimator: Estimator
    sums: Sums
    arm: int

    @property
    def value(self) -> float:
        return float(self.basis.level + self.predicted + self.rest)

    @cached_property
    def slopes(self) -> Array:
        """What (1, columns) are multiplied with; zeros without a model."""
        model = self.estimator.model
        if model is None:
            return np.zeros(len(self.study.columns) + 1)
        return model.coefficients[self.arm]

    @cached_property
    def population(self) -> Array:
        """Sums of (1, columns) over the population, shape (k + 1,)."""
        parts = [
            self.basis.moment(self.sums.plain[at])[:-1, 0]
            for at in target_arms(self.estimator.target)
        ]
        return sum(parts, np.zeros(len(self.study.columns) + 1))

    @cached_property
    def weighted(self) -> Array | None:
        """Weighted sums of (1, columns, outcome), shape (k + 2,)."""
        if self.estimator.weights is None or self.sums.weighted is None:
            return None
        return self.basis.moment(self.sums.weighted[self.arm])[:, 0]

    @property
    def predicted(self) -> float:
        """Mean prediction over the population."""
        if self.estimator.model is None:
            return 0.0
        return float(self.slopes @ self.population / self.population[0])

    @property
    def divisor(self) -> float:
        """What weighted sums are divided by."""
        if self.weighted is not None and self.estimator.is_normalised:
            return float(self.weighted[0])
        return float(self.population[0])

    @property
    def rest(self) -> float:
        """Weighted mean of the residuals."""
        if self.weighted is None:
            return 0.0
        return float(self.weighted[-1] - self.slopes @ self.weighted[:-1]) / self.divisor

    @property
    def centre(self) -> float:
        """What is taken off the residuals."""
        return self.rest if self.estimator.is_normalised else 0.0

    @property
    def keep(self) -> tuple[Term, ...]:
        return () if self.sums.keep is None else (self.sums.keep,)

    def of_predictions(self) -> list[Term]:
        if self.estimator.model is None:
            return []
        raw = self.basis.matrix @ self.slopes
        raw[0] -= self.predicted
        deviation = self.study.combination(raw / self.population[0])
        return [Product((*self.keep, target_term(self.study, self.estimator.target), deviation))]

    def of_residuals(self) -> list[Term]:
        if self.estimator.weights is None:
            return []
        own = self.estimator.weights.arms[self.arm]
        scaled = Linear((self.residual(self.slopes, self.centre),), (1.0 / self.divisor,))
        parts: list[Term] = [Product((*self.keep, self.study.is_arm[self.arm], own.weight, scaled))]
        if not self.estimator.is_normalised:
            target = target_term(self.study, self.estimator.target)
            parts.append(Product((*self.keep, target, Constant(-self.rest / self.divisor))))
        return parts

    def of_weights(self) -> list[Term]:
        """What the estimated weights add to the influence."""
        weights, sloped = self.estimator.weights, self.sums.sloped
        if weights is None or sloped is None or weights.arms[self.arm].sign == 0:
            return []
        own = weights.arms[self.arm]
        moment = self.basis.moment(sloped[self.arm])
        gradient = moment[:-1, -1] - moment[:-1, :-1] @ self.slopes - self.centre * moment[:-1, 0]
        direction = self.basis.matrix @ (own.covariance @ gradient) * (own.sign / self.divisor)
        keep = () if weights.is_of_all_rows else self.keep
        return [Product((*keep, own.residual, self.study.combination(direction)))]

    def of_model(self) -> list[Term]:
        """What the estimated outcome model adds to the influence."""
        model = self.estimator.model
        if model is None:
            return []
        pull = self.population / self.population[0]
        if self.weighted is not None:
            pull = pull - self.weighted[:-1] / self.divisor
        direction = model.bread @ (model.designs[self.arm] @ pull)
        parts: list[Term] = []
        for at, design in enumerate(model.designs):
            slopes = design.T @ direction
            if np.any(slopes):
                residual = self.residual(model.coefficients[at], 0.0)
                combination = self.study.combination(self.basis.matrix @ slopes)
                parts.append(Product((*self.keep, self.study.is_arm[at], residual, combination)))
        return parts

    def residual(self, slopes: Array, centre: float) -> Linear:
        """The outcome less its prediction and a constant."""
        raw = self.basis.matrix @ slopes
        constant = self.basis.level + centre + float(raw[0])
        return Linear(
            (self.study.outcome, Constant(), *self.study.covariates),
            (1.0, -constant, *(-float(b) for b in raw[1:])),
        )
