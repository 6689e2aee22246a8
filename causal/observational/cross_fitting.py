"""Models that no row had a part in that they score, from aggregates by hash fold.

Folds are hash buckets of the unit, or of the cluster, so that no cluster lies in two. Least squares
for all folds comes from one pass of moments by arm and fold: those of the other folds add up. A
logistic regression takes its passes for each fold. What comes out are terms: in the rows of each
fold the prediction of the model of the others (Chernozhukov et al. 2018, "Double/debiased machine
learning", algorithm DML2).
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from causal.core.cross_products import inverse
from causal.core.errors import DataError, InferenceError
from causal.core.frames import (
    Between,
    Constant,
    Exponential,
    FrameRequest,
    GramRequest,
    HashBucket,
    Linear,
    Logistic,
    Product,
    Term,
)
from causal.core.gram import Array, Gram, grams, pooled
from causal.observational.logistic import fit_logistic
from causal.observational.study import CONTROL, TREATED, Arms, Study

PropensityModel = Literal["logistic", "linear", "share"] | float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The rows of a study that an estimate is made from.

    Attributes:
        study: The study.
        folds: The folds.
        keep: 1 in the rows that are used, 0 in others; `None`: all.
    """

    study: Study
    folds: HashBucket
    keep: Term | None = None

    @property
    def kept(self) -> tuple[Term, ...]:
        """Factors of weights."""
        return () if self.keep is None else (self.keep,)

    def inside(self, fold: int) -> Term:
        """1 in the rows of a fold."""
        return Between(self.folds, low=float(fold), high=float(fold))

    def outside(self, fold: int) -> Term:
        """1 in the rows of the other folds."""
        return Linear((Constant(), self.inside(fold)), (1.0, -1.0))

    def each(self, terms: Sequence[Term]) -> Term:
        """In the rows of each fold the value of its own term.

        Args:
            terms: One per fold.
        """
        parts = [Product((self.inside(at), term)) for at, term in enumerate(terms)]
        return Linear(tuple(parts), (1.0,) * len(parts))


@dataclass(frozen=True, kw_only=True)
class FoldMoments:
    """Moments of the columns and the outcome by fold and arm.

    Attributes:
        folds: Control and treated rows of each fold.
    """

    folds: tuple[Arms, ...]

    def others(self, fold: int) -> Arms:
        """Both arms of all other folds."""
        rest = [arms for at, arms in enumerate(self.folds) if at != fold]
        return pooled(arms[CONTROL] for arms in rest), pooled(arms[TREATED] for arms in rest)

    @property
    def arms(self) -> Arms:
        """Both arms of all folds."""
        parts = self.folds
        return pooled(arms[CONTROL] for arms in parts), pooled(arms[TREATED] for arms in parts)


@dataclass(frozen=True, kw_only=True)
class CrossFittedPropensity:
    """Probabilities of treatment as terms; those of a model that had no part of the row.

    Attributes:
        log_odds: The linear predictor.
    """

    log_odds: Term

    @property
    def _negative(self) -> Term:
        return Linear((self.log_odds,), (-1.0,))

    @property
    def probability(self) -> Term:
        """The propensity p."""
        return Logistic(self.log_odds)

    @property
    def complement(self) -> Term:
        """1 - p, with all its digits where p is near 1."""
        return Logistic(self._negative)

    @property
    def odds(self) -> Term:
        """P / (1 - p)."""
        return Exponential(self.log_odds)

    @property
    def inverse_odds(self) -> Term:
        """(1 - p) / p."""
        return Exponential(self._negative)


def fold_moments(sample: Sample) -> Generator[FrameRequest, pd.DataFrame, FoldMoments]:
    """Moments by arm and fold, in two passes.

    Args:
        sample: The rows.

    Raises:
        DataError: A row has no fold, or a fold has no row.
    """
    study = sample.study
    by_arm = []
    for arm in (CONTROL, TREATED):
        request = GramRequest(
            terms=study.terms,
            weight=Product((study.is_arm[arm], *sample.kept)),
            where=study.where,
            bucket=sample.folds,
        )
        by_arm.append(grams((yield request), request))
    lost = sum(part.n for key, part in by_arm[CONTROL].items() if key[0] is None)
    if lost:
        raise DataError(
            f"{sample.folds.column} is null in some rows of the analysis", given=f"{lost:,} rows"
        )
    folds: list[Arms] = []
    for at in range(sample.folds.n_buckets):
        control, treated = (_counted(found.get((at,))) for found in by_arm)
        if control is None or treated is None:
            raise DataError(
                "a fold has no row of one arm",
                given=f"{sample.folds.n_buckets} folds of {sample.folds.column}",
                allowed="fewer folds, or more rows",
            )
        folds.append((control, treated))
    return FoldMoments(folds=tuple(folds))


def _counted(found: Gram | None) -> Gram | None:
    """Rows of weight zero belong to the other arm and do not count."""
    if found is None or found.sum_weights <= 0:
        return None
    return replace(found, n=round(found.sum_weights))


def arm_predictions(sample: Sample, moments: FoldMoments) -> tuple[Term, Term]:
    """Least-squares predictions of the outcome in the control and in the treated arm.

    Args:
        sample: The rows.
        moments: Moments by fold.

    Raises:
        InferenceError: Columns are collinear among the other folds' rows of an arm.
    """
    control, treated = (
        sample.each(
            [
                _prediction(sample.study, [moments.others(fold)[arm]], fold=fold)
                for fold in range(len(moments.folds))
            ]
        )
        for arm in (CONTROL, TREATED)
    )
    return control, treated


def pooled_prediction(sample: Sample, moments: FoldMoments) -> Term:
    """Least-squares prediction of the outcome whatever the arm.

    Args:
        sample: The rows.
        moments: Moments by fold.
    """
    return sample.each(
        [
            _prediction(sample.study, moments.others(fold), fold=fold)
            for fold in range(len(moments.folds))
        ]
    )


def linear_propensity(sample: Sample, moments: FoldMoments) -> Term:
    """Least-squares prediction of the treatment, which may leave (0, 1).

    Args:
        sample: The rows.
        moments: Moments by fold.
    """
    found = []
    for fold in range(len(moments.folds)):
        sums = [sample.study.basis.moment(arm) for arm in moments.others(fold)]
        cross = (sums[CONTROL] + sums[TREATED])[:-1, :-1]
        slopes = _solved(sample.study, cross, sums[TREATED][:-1, 0], fold=fold)
        found.append(sample.study.combination(sample.study.basis.matrix @ slopes))
    return sample.each(found)


def cross_fitted_propensity(
    sample: Sample, moments: FoldMoments, *, model: PropensityModel
) -> Generator[FrameRequest, pd.DataFrame, CrossFittedPropensity]:
    """The probability of treatment.

    Args:
        sample: The rows.
        moments: Moments by fold.
        model: `logistic`, `share` of treated rows, or a known number.

    Raises:
        InferenceError: Columns separate the arms.
    """
    if isinstance(model, float):
        return CrossFittedPropensity(log_odds=Constant(_logit(model)))
    found: list[Term] = []
    for fold in range(len(moments.folds)):
        arms = moments.others(fold)
        if model == "share":
            n_control, n_treated = (arm.sum_weights for arm in arms)
            found.append(Constant(_logit(n_treated / (n_control + n_treated))))
            continue
        keep = Product((sample.outside(fold), *sample.kept))
        fit = yield from fit_logistic(sample.study, keep=keep, arms=arms, is_point_estimate=True)
        found.append(fit.log_odds)
    return CrossFittedPropensity(log_odds=sample.each(found))


def _prediction(study: Study, parts: Sequence[Gram], *, fold: int) -> Term:
    sums = sum((study.basis.moment(part) for part in parts), np.zeros(()))
    slopes = _solved(study, sums[:-1, :-1], sums[:-1, -1], fold=fold)
    raw = study.basis.matrix @ slopes
    raw[0] += study.basis.level
    return study.combination(raw)


def _solved(study: Study, cross: Array, right: Array, *, fold: int) -> Array:
    if cross[0, 0] <= len(cross):
        raise InferenceError(
            "too few rows for the models of a fold",
            given=f"{cross[0, 0]:.0f} rows, {len(cross)} coefficients without fold {fold}",
        )
    return np.asarray(inverse(cross, [Constant(), *study.covariates]) @ right, dtype=np.float64)


def _logit(p: float) -> float:
    return float(np.log(p / (1.0 - p)))
