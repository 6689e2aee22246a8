"""Errors of linear learners: what rows add to them, leverages, and clusters left out in turn.

Coefficients of independent rows: HC3 (MacKinnon and White 1985), which divides what a row adds by
one less its leverage in every regression that was fitted on it. Of clusters: CR3, every cluster
left out in turn and the learner fitted again, from its moments. Mean effects: sums of what rows or
clusters add, as they are.
"""

from collections.abc import Generator, Mapping, Sequence

import numpy as np
import pandas as pd

from causal.core.errors import InferenceError
from causal.core.frames import (
    Between,
    Constant,
    FrameRequest,
    GramRequest,
    Level,
    Linear,
    Product,
    Reciprocal,
    Term,
    same_level,
)
from causal.core.gram import Array, gram, grams
from causal.observational.logistic import LogisticFit
from causal.observational.study import Study
from causal.uplift.linear_learners import (
    ArmMoments,
    Learner,
    LearnerData,
    Leverage,
    LinearEffect,
    Part,
    Weighting,
    learn,
)

Corrections = Mapping[Leverage, Term]
"""1 / (1 - h) by leverage; none: what rows add is taken as it is."""
ClusterMoments = Mapping[Level, Mapping[Weighting, ArmMoments]]
MAX_LEVERAGE = 1.0 - 1e-6
"""From here on a row counts as one that determines its own fitted value."""


def weight_term(study: Study, fit: LogisticFit, weighting: Weighting) -> Term:
    """The weight of a row of either arm.

    Args:
        study: The rows.
        fit: The propensity.
        weighting: Which weight.
    """
    control, treated = study.is_arm
    one = Constant()
    pairs: Mapping[str, tuple[Term, Term]] = {
        "inverse": (
            Linear((one, fit.odds), (1.0, 1.0)), Linear((one, fit.inverse_odds), (1.0, 1.0)),
        ),
        "opposite": (fit.probability, fit.complement),
        "opposite_squared": (
            Product((fit.probability, fit.probability)), Product((fit.complement, fit.complement)),
        ),
    }  # fmt: skip
    of_control, of_treated = pairs[weighting]
    return Linear((Product((control, of_control)), Product((treated, of_treated))), (1.0, 1.0))


def influence_term(
    study: Study,
    effect: LinearEffect,
    contrast: Array,
    *,
    fit: LogisticFit | None,
    corrections: Corrections,
) -> Linear:
    """What a row adds to the error of a contrast of the coefficients in the basis of the study.

    Args:
        study: The rows.
        effect: The effect.
        contrast: Of the coefficients, shape (k + 1,).
        fit: The propensity, if weights differ from row to row.
        corrections: For leverage.
    """
    parts = []
    for part in effect.parts:
        left = contrast @ part.left
        if left.any():
            parts.append(_part_term(study, part, left, fit=fit, corrections=corrections))
    return Linear(tuple(parts), (1.0,) * len(parts))


def leverage_corrections(
    study: Study, effects: Sequence[LinearEffect], *, fit: LogisticFit | None
) -> Generator[FrameRequest, pd.DataFrame, Corrections]:
    """Asks whether all leverages behind some learners are below 1; the factors of HC3.

    Args:
        study: The rows.
        effects: What was learned.
        fit: The propensity, if weights differ from row to row.

    Raises:
        InferenceError: Some rows determine their own fitted values.
    """
    parts = [part for effect in effects for part in effect.parts]
    leverages = list(dict.fromkeys(own for part in parts for own in part.leverages))
    terms = [_leverage_term(study, own, fit) for own in leverages]
    too_large = (Between(term, low=MAX_LEVERAGE) for term in terms)
    request = GramRequest(terms=(*too_large, study.marker), where=study.where)
    found = gram((yield request), request)
    if found.mean.any():
        raise InferenceError(
            "some rows alone determine a coefficient, so that HC3 cannot be had",
            given=f"{found.n * float(found.mean.max()):.0f} rows or more with leverage 1",
            allowed="columns that vary in both arms, or covariance: HC1",
        )
    return {
        own: Reciprocal(Linear((Constant(), term), (1.0, -1.0)))
        for own, term in zip(leverages, terms, strict=True)
    }


def cluster_moments(
    study: Study, data: LearnerData, *, cluster: str, fit: LogisticFit | None
) -> Generator[FrameRequest, pd.DataFrame, ClusterMoments]:
    """What learners are computed from, of every cluster by itself.

    Args:
        study: The rows.
        data: Moments of all rows.
        cluster: Column of the clusters.
        fit: The propensity, if weights differ from row to row.
    """
    nothing = np.zeros((data.size + 1, data.size + 1))
    found: dict[Level, dict[Weighting, ArmMoments]] = {}
    for weighting in data.moments:
        is_weighted = weighting != "unweighted" and fit is not None
        request = GramRequest(
            terms=(*study.terms, study.marker),
            by=(study.treatment, cluster),
            weight=weight_term(study, fit, weighting) if fit is not None and is_weighted else None,
            where=study.where,
        )
        for (arm, key), own in grams((yield request), request).items():
            if own.n == 0 or arm is None or key is None:
                continue
            whole = study.basis.moment(own.subset(study.terms))
            control, treated = found.setdefault(key, {}).get(weighting, (nothing, nothing))
            is_control = same_level(arm, study.levels[0])
            found[key][weighting] = (whole, treated) if is_control else (control, whole)
    return found


def left_out_covariance(
    effect: LinearEffect, learner: Learner, data: LearnerData, *, clusters: ClusterMoments
) -> Array:
    """CR3: summed squared changes of the coefficients as each cluster is left out in turn.

    Args:
        effect: What was learned of all rows.
        learner: The learner.
        data: Moments of all rows.
        clusters: Moments of every cluster.

    Returns:
        Shape (k + 1, k + 1).

    Raises:
        InferenceError: Without some cluster the learner cannot be fitted.
    """
    changes = []
    for key, own in clusters.items():
        try:
            again = learn(data.without(own), learner)
        except InferenceError as error:
            raise InferenceError(
                "CR3 leaves each cluster out in turn, and without one of them the learner cannot "
                f"be fitted: {error}",
                given=f"cluster {key}", allowed="covariance: CR1",
            ) from error  # fmt: skip
        changes.append(again.coefficients - effect.coefficients)
    moved = np.array(changes)
    return np.asarray(moved.T @ moved, dtype=np.float64)


def _part_term(
    study: Study, part: Part, left: Array, *, fit: LogisticFit | None, corrections: Corrections
) -> Term:
    factors: list[Term] = [] if part.arm is None else [study.is_arm[part.arm]]
    if part.weighting != "unweighted" and fit is not None:
        factors.append(weight_term(study, fit, part.weighting))
    factors += [corrections[own] for own in part.leverages if own in corrections]
    matrix = study.basis.matrix
    slopes = matrix @ part.slopes
    constant = part.outcome * study.basis.level + float(slopes[0])
    right = Linear(
        (study.outcome, Constant(), *study.covariates),
        (part.outcome, -constant, *(-float(value) for value in slopes[1:])),
    )
    return Product((*factors, study.combination(matrix @ left), right))


def _leverage_term(study: Study, own: Leverage, fit: LogisticFit | None) -> Term:
    """The leverage of a row, 0 for rows that had no part in the fit."""
    squares = []
    for column in range(next(iter(own.roots.values())).shape[1]):
        pieces: list[Term] = []
        for weighting, root in own.roots.items():
            piece: Term = study.combination(study.basis.matrix @ root[:, column])
            if weighting != "unweighted" and fit is not None:
                piece = Product((weight_term(study, fit, weighting), piece))
            pieces.append(piece)
        whole = pieces[0] if len(pieces) == 1 else Linear(tuple(pieces), (1.0,) * len(pieces))
        squares.append(Product((whole, whole)))
    total = Linear(tuple(squares), (1.0,) * len(squares))
    return total if own.arm is None else Product((study.is_arm[own.arm], total))
