"""Weights that make one arm look like the population of the estimand, and how they are estimated.

With propensity p the weights are h / p for treated and h / (1 - p) for control units, where h is 1
(ate), the treated (att), the controls (atc), or p (1 - p), the overlap population (overlap), whose
weights are 1 - p and p (Li, Morgan and Zaslavsky 2018).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal.core.frames import Constant, Linear, Product, Term
from causal.core.gram import Array
from causal.observational.logistic import LogisticFit
from causal.observational.study import CONTROL, TREATED, Study

Target = Literal["ate", "att", "atc", "overlap"]

ONE = Constant()
NONE = Constant(0.0)
_ARMS_OF: dict[str, tuple[int, ...]] = {
    "ate": (CONTROL, TREATED),
    "att": (TREATED,),
    "atc": (CONTROL,),
    "overlap": (),
}


@dataclass(frozen=True, kw_only=True)
class ArmWeights:
    """Weights of the units of one arm and the equation that their parameters solve.

    The parameters b (coefficients of the columns) solve `sum residual * x = 0`; their estimate is
    off by about `covariance @ sum residual * x`.

    Attributes:
        weight: Weight of a unit.
        slope: Size of the weight's derivative along `x'b`.
        sign: Sign of that derivative: 1, -1, or 0 where the weights hold no parameter.
        residual: The residual of the equation.
        covariance: In the basis of the study, shape (k + 1, k + 1).
    """

    weight: Term
    slope: Term
    sign: float
    residual: Term
    covariance: Array


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of both arms, control first.

    Attributes:
        target: The population.
        arms: The weights.
        is_of_all_rows: Whether the parameters were fitted to all rows, also to trimmed ones.
    """

    target: Target
    arms: tuple[ArmWeights, ArmWeights]
    is_of_all_rows: bool

    def weight(self, study: Study) -> Term:
        """The weight of a row of either arm."""
        return _either(study, self.arms[CONTROL].weight, self.arms[TREATED].weight)

    def slope(self, study: Study) -> Term:
        """The size of the weight's derivative in a row of either arm."""
        return _either(study, self.arms[CONTROL].slope, self.arms[TREATED].slope)

    @property
    def has_slopes(self) -> bool:
        """Whether any weight holds a parameter."""
        return any(arm.sign != 0 for arm in self.arms)


def target_arms(target: Target) -> tuple[int, ...]:
    """The arms whose units make up the population; none for the overlap population."""
    return _ARMS_OF[target]


def target_term(study: Study, target: Target) -> Term:
    """1 in the rows of the population, 0 elsewhere."""
    arms = target_arms(target)
    return study.is_arm[arms[0]] if len(arms) == 1 else ONE


def propensity_weights(
    study: Study, fit: LogisticFit, *, target: Target, is_of_all_rows: bool
) -> Weights:
    """Inverse-propensity or overlap weights.

    Args:
        study: The rows.
        fit: The propensity.
        target: The population.
        is_of_all_rows: Whether the propensity was fitted to trimmed rows as well.
    """
    p, q = fit.probability, fit.complement
    weights: dict[str, tuple[Term, Term]] = {
        "ate": (_sum(ONE, fit.odds), _sum(ONE, fit.inverse_odds)),
        "att": (fit.odds, ONE),
        "atc": (ONE, fit.inverse_odds),
        "overlap": (p, q),
    }
    slopes: dict[str, tuple[Term, Term]] = {
        "ate": (fit.odds, fit.inverse_odds),
        "att": (fit.odds, NONE),
        "atc": (NONE, fit.inverse_odds),
        "overlap": (Product((p, q)), Product((p, q))),
    }
    control, treated = study.is_arm
    residual = Linear((Product((treated, q)), Product((control, p))), (1.0, -1.0))
    arms = [
        ArmWeights(
            weight=weights[target][arm],
            slope=slopes[target][arm],
            sign=0.0 if slopes[target][arm] == NONE else sign,
            residual=residual,
            covariance=fit.standard_covariance,
        )
        for arm, sign in ((CONTROL, 1.0), (TREATED, -1.0))
    ]
    return Weights(target=target, arms=(arms[0], arms[1]), is_of_all_rows=is_of_all_rows)


def constant_weights(study: Study) -> ArmWeights:
    """Weight 1 for every unit of an arm that is the population itself."""
    size = len(study.columns) + 1
    return ArmWeights(
        weight=ONE, slope=NONE, sign=0.0, residual=NONE, covariance=np.zeros((size, size))
    )


def _either(study: Study, control: Term, treated: Term) -> Term:
    return Linear(
        (Product((study.is_arm[CONTROL], control)), Product((study.is_arm[TREATED], treated))),
        (1.0, 1.0),
    )


def _sum(one: Term, other: Term) -> Term:
    return Linear((one, other), (1.0, 1.0))
