"""Leaving out units without counterparts: propensities near 0 or 1.

`fixed` keeps propensities between two bounds. `crump` keeps [a, 1 - a] with the a that makes the
variance of the effect smallest when outcomes are equally noisy: 1 / (a (1 - a)) is twice the mean
of 1 / (p (1 - p)) over the units kept (Crump, Hotz, Imbens and Mitnik 2009, corollary 1). Starting
with all units, the bound that the kept ones imply falls until no further unit leaves; each round is
one pass over the data.
"""

from collections.abc import Generator
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from causal.core.errors import InferenceError
from causal.core.frames import Between, Constant, FrameRequest, GramRequest, Linear, Term
from causal.core.gram import gram
from causal.core.spec import Part
from causal.observational.logistic import Propensity
from causal.observational.study import Study

_MAX_ROUNDS = 100
_SETTLED = 1e-12


class Trim(Part):
    """Which propensities are kept.

    Attributes:
        rule: `fixed` or `crump`.
        low: Smallest propensity kept by the rule `fixed`.
        high: Largest propensity kept by it.
        refit: Whether the propensity is estimated again from the units kept.
    """

    rule: Literal["fixed", "crump"] = "crump"
    low: float | None = Field(default=None, gt=0.0, lt=1.0)
    high: float | None = Field(default=None, gt=0.0, lt=1.0)
    refit: bool = False

    @model_validator(mode="after")
    def _bounds(self) -> "Trim":
        given = (self.low is not None, self.high is not None)
        if self.rule == "crump" and any(given):
            raise ValueError("low and high go with rule: fixed")
        if self.rule == "fixed":
            if not all(given):
                raise ValueError("rule fixed needs low and high")
            if self.low is not None and self.high is not None and self.low >= self.high:
                raise ValueError("low must be below high")
        return self


def bounds(
    study: Study, fit: Propensity, trim: Trim
) -> Generator[FrameRequest, pd.DataFrame, tuple[float, float]]:
    """The smallest and the largest propensity that is kept.

    Args:
        study: The rows.
        fit: The propensity.
        trim: The rule.
    """
    if trim.low is not None and trim.high is not None:
        return trim.low, trim.high
    alpha = yield from crump_bound(study, fit)
    return alpha, 1.0 - alpha


def keep_term(fit: Propensity, *, low: float, high: float) -> Term:
    """1 where the propensity lies between the bounds, the bounds included."""
    return Between(fit.log_odds, low=_logit(low), high=_logit(high))


def crump_bound(study: Study, fit: Propensity) -> Generator[FrameRequest, pd.DataFrame, float]:
    """The optimal smallest propensity; 0 where no unit should be left out.

    Raises:
        InferenceError: The rounds do not settle.
    """
    # 1 / (p (1 - p)) = 2 + odds + 1 / odds
    inverse_variance = Linear(
        (Constant(), fit.odds, fit.inverse_odds, study.marker), (2.0, 1.0, 1.0, 0.0)
    )
    bound, n_kept = np.inf, -1
    for _ in range(_MAX_ROUNDS):
        keep = None
        if np.isfinite(bound):
            half = np.sqrt(0.25 - 1.0 / bound)
            edge = float(np.log((0.5 + half) / (0.5 - half)))
            keep = Between(fit.log_odds, low=-edge, high=edge)
        request = GramRequest(terms=(inverse_variance,), weight=keep, where=study.where)
        kept = gram((yield request), request)
        next_bound = 2.0 * float(kept.mean[0])
        if round(kept.sum_weights) == n_kept or abs(next_bound - bound) < _SETTLED * next_bound:
            return 0.0 if n_kept == study.n else float(0.5 - np.sqrt(0.25 - 1.0 / next_bound))
        bound, n_kept = next_bound, round(kept.sum_weights)
    raise InferenceError("the bound of the propensity does not settle", given=f"{bound:g}")


def _logit(p: float) -> float | None:
    if p <= 0.0 or p >= 1.0:
        return None
    return float(np.log(p / (1.0 - p)))
