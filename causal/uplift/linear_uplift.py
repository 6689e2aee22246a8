"""Uplift: who benefits, as a linear function of covariates, learned from aggregates alone.

S-, T-, X-, DR- and R-learners whose models are least squares: one pass for the moments by arm, two
or three more where treatment was not randomised, one per learner for errors and one for the
distribution of its scores. See `docs/methods/uplift.md`.
"""

from collections.abc import Generator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from causal.core.errors import DataError, InferenceError
from causal.core.frames import (
    Constant,
    FrameRequest,
    GramRequest,
    HistogramRequest,
    Indicator,
    Level,
    Linear,
    MeatRequest,
    Product,
    Score,
    Term,
)
from causal.core.gram import Array, Gram, grams, meat
from causal.core.readout import Readout, combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.core.unit_keys import check_units
from causal.observational.balance import overlap_table
from causal.observational.logistic import LogisticFit, fit_logistic
from causal.observational.study import CONTROL, TREATED, Study, check_rows, observe
from causal.regression.columns import level_order
from causal.uplift import uplift_readout as readout
from causal.uplift.linear_learners import (
    ArmMoments,
    LearnerData,
    LinearEffect,
    Part,
    Weighting,
    learn,
    share_constants,
)
from causal.uplift.uplift_options import UpliftOptions, UpliftSpec
from causal.uplift.uplift_readout import Distribution, Fitted, Segment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = UpliftSpec

N_BINS = 80
MAX_SEGMENTS = 200
"""Segments of all columns together; each is a score of one request."""
_SPAN = 4.0
"""Standard deviations on both sides of the mean that the bins of scores cover."""


def estimate(spec: UpliftSpec) -> Plan:
    """Learn the effect on each outcome.

    Args:
        spec: The analysis.

    Returns:
        A plan that yields requests and returns the result.
    """
    options, where = spec.options, spec.source.conditions
    yield from check_units(options.units, where)
    readouts = {}
    for outcome in options.outcomes:
        study = yield from observe(options, outcome=outcome, where=where)
        readouts[outcome] = yield from _outcome(spec, study)
    return combined(readouts)


def figures(spec: UpliftSpec, result: Result) -> Mapping[str, "Figure"]:
    """The distribution of the scores, and mean effects of all and by segment.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.observational.figures import interval_figure
    from causal.uplift.uplift_figures import score_figure

    found: dict[str, Figure] = {}
    for outcome in spec.options.outcomes:
        bins = result.tables["score_bins"]
        scores = result.tables["scores"]
        found[f"scores_{outcome}"] = score_figure(
            bins[bins["metric"] == outcome], scores[scores["metric"] == outcome]
        )
        effects = [effect for effect in result.effects if effect.metric == outcome]
        found[f"effects_{outcome}"] = interval_figure(effects, title="Mean effects")
    return found


def _outcome(spec: UpliftSpec, study: Study) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    options = spec.options
    fit = None
    overlap = None
    if options.needs_propensity:
        fit = yield from fit_logistic(study)
        overlap, _ = yield from overlap_table(study, fit)
    data = yield from _learner_data(options, study, fit)
    segments = yield from _segments(options.segments, study)
    fitted: dict[str, Fitted] = {}
    for learner in options.learners:
        effect = learn(data, learner)
        fitted[learner] = yield from _fitted(options, study, effect, fit=fit, segments=segments)
    return readout.read(spec, study, fitted=fitted, segments=segments, overlap=overlap)


def _learner_data(
    options: UpliftOptions, study: Study, fit: LogisticFit | None
) -> Generator[FrameRequest, pd.DataFrame, LearnerData]:
    basis = study.basis
    moments: dict[Weighting, ArmMoments] = {
        "unweighted": (basis.moment(study.arms[CONTROL]), basis.moment(study.arms[TREATED]))
    }
    share = study.arms[TREATED].n / study.n
    if isinstance(options.propensity, float):
        share = options.propensity
    constants = share_constants(share)
    if fit is not None:
        needed: dict[str, tuple[Weighting, ...]] = {
            "dr": ("inverse",), "r": ("opposite", "opposite_squared"),
        }  # fmt: skip
        for learner in options.learners:
            for weighting in needed.get(learner, ()):
                arms = yield from study.by_arm(
                    study.terms, weight=weight_term(study, fit, weighting)
                )
                moments[weighting] = (basis.moment(arms[CONTROL]), basis.moment(arms[TREATED]))
        constants = MappingProxyType({"unweighted": (1.0, 1.0)})
    return LearnerData(
        moments=moments,
        share=share,
        is_share_known=isinstance(options.propensity, float),
        terms=(Constant(), *study.covariates),
        varying=_varying(options, study),
        constants=constants,
    )


def _varying(options: UpliftOptions, study: Study) -> tuple[int, ...]:
    """Positions among (1, columns) of the effect's columns.

    Raises:
        DataError: One of them is no column to adjust for.
    """
    if options.effect_columns is None:
        return tuple(range(len(study.columns) + 1))
    found = {0}
    for name in options.effect_columns:
        at = [j for j, column in enumerate(study.columns) if name in {column.name, column.group}]
        if not at:
            raise DataError(
                "effect_columns names no column that is adjusted for",
                given=name, allowed=study.names,
            )  # fmt: skip
        found |= {j + 1 for j in at}
    return tuple(sorted(found))


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


def _segments(
    names: Sequence[str], study: Study
) -> Generator[FrameRequest, pd.DataFrame, tuple[Segment, ...]]:
    """Counts by arm and means of the columns in every segment.

    Raises:
        DataError: A row has no segment, or there are too many segments.
    """
    found = []
    for name in names:
        terms = (*study.terms, study.is_arm[TREATED])
        request = GramRequest(terms=terms, by=(name,), where=study.where)
        own_level = []
        for key, own in grams((yield request), request).items():
            if own.n == 0:
                continue
            if key[0] is None:
                raise DataError(
                    f"{name} is null in some rows of the analysis", given=f"{own.n:,} rows",
                    allowed="a segment for every row, or where: to leave them out",
                )  # fmt: skip
            own_level.append(_segment(name, key[0], study, own))
        found += sorted(own_level, key=lambda item: level_order(item.level))
    if len(found) > MAX_SEGMENTS:
        raise DataError("too many segments", given=len(found), allowed=f"at most {MAX_SEGMENTS}")
    return tuple(found)


def _segment(column: str, level: Level, study: Study, own: Gram) -> Segment:
    basis = study.basis
    n_treated = round(own.n * float(own.mean[-1]))
    k = len(study.columns)
    return Segment(
        column=column,
        level=level,
        n_treated=n_treated,
        n_control=own.n - n_treated,
        mean=np.append(1.0, (own.mean[:k] - basis.centre) / basis.spread),
    )


def _fitted(
    options: UpliftOptions,
    study: Study,
    effect: LinearEffect,
    *,
    fit: LogisticFit | None,
    segments: Sequence[Segment],
) -> Generator[FrameRequest, pd.DataFrame, Fitted]:
    """Errors of the coefficients and of mean effects, and the distribution of the scores."""
    active = [j for j in range(len(effect.coefficients)) if _moves(effect, j)]
    terms: list[Term] = [influence_term(study, effect, j, fit=fit) for j in active]
    nobody: Array = np.zeros(len(effect.coefficients))
    deviations: list[tuple[Segment | None, Array, int]] = [(None, nobody, study.n)]
    deviations += [(item, item.mean, item.n) for item in segments]
    has_slopes = bool(effect.coefficients[1:].any())
    if has_slopes:
        terms += [
            _deviation(study, effect, mean, n=n, segment=item) for item, mean, n in deviations
        ]
    scores = [Score(Constant(), term) for term in terms]
    marked = Linear((terms[0], study.marker), (1.0, 0.0))
    frame = yield MeatRequest(
        scores=(Score(Constant(), marked), *scores[1:]),
        cluster=() if options.cluster is None else (options.cluster,),
        where=study.where,
    )
    matrix, n_clusters = meat(frame)
    check_rows(
        study, cluster=options.cluster, n_used=int(frame["n"].iloc[0]), n_clusters=n_clusters
    )
    if study.n <= effect.n_coefficients:
        raise InferenceError("too few rows for the learner", given=study.n)
    distribution = yield from _distribution(study, effect)
    return Fitted(
        effect=effect,
        active=tuple(active),
        covariance=matrix,
        has_slopes=has_slopes,
        distribution=distribution,
        n_clusters=None if options.cluster is None else n_clusters,
    )


def _moves(effect: LinearEffect, j: int) -> bool:
    return any(part.left[j].any() for part in effect.parts)


def influence_term(
    study: Study, effect: LinearEffect, j: int, *, fit: LogisticFit | None
) -> Linear:
    """What a row adds to the error of one coefficient in the basis of the study.

    Args:
        study: The rows.
        effect: The effect.
        j: Position among (1, columns).
        fit: The propensity, if weights differ from row to row.
    """
    parts = [_part_term(study, part, j, fit=fit) for part in effect.parts if part.left[j].any()]
    return Linear(tuple(parts), (1.0,) * len(parts))


def _part_term(study: Study, part: Part, j: int, *, fit: LogisticFit | None) -> Term:
    factors: list[Term] = [] if part.arm is None else [study.is_arm[part.arm]]
    if part.weighting != "unweighted" and fit is not None:
        factors.append(weight_term(study, fit, part.weighting))
    matrix = study.basis.matrix
    slopes = matrix @ part.slopes
    constant = part.outcome * study.basis.level + float(slopes[0])
    right = Linear(
        (study.outcome, Constant(), *study.covariates),
        (part.outcome, -constant, *(-float(value) for value in slopes[1:])),
    )
    return Product((*factors, study.combination(matrix @ part.left[j]), right))


def _deviation(
    study: Study, effect: LinearEffect, mean: Array, *, n: int, segment: Segment | None
) -> Term:
    """What a row's own effect adds to the error of a mean effect."""
    slopes = effect.coefficients.copy()
    slopes[0] = -float(mean[1:] @ slopes[1:])
    combination = study.combination(study.basis.matrix @ slopes / n)
    if segment is None:
        return combination
    return Product((Indicator(segment.column, segment.level), combination))


def _distribution(
    study: Study, effect: LinearEffect
) -> Generator[FrameRequest, pd.DataFrame, Distribution]:
    """Mean, spread, ends and bins of the scores."""
    total = study.arms[CONTROL].merge(study.arms[TREATED])
    k = len(study.columns)
    raw = study.basis.matrix @ effect.coefficients
    variance = float(raw[1:] @ total.cross[:k, :k] @ raw[1:]) / total.sum_weights
    mean, sd = float(effect.coefficients[0]), float(np.sqrt(max(variance, 0.0)))
    if sd == 0:
        return Distribution(
            mean=mean, sd=0.0, lowest=mean, highest=mean, edges=np.zeros(0),
            counts=np.array([study.n], dtype=np.float64),
        )  # fmt: skip
    edges = mean + sd * np.linspace(-_SPAN, _SPAN, N_BINS + 1)
    score = Linear((study.combination(raw), study.marker), (1.0, 0.0))
    request = HistogramRequest(
        term=score, edges=tuple(float(edge) for edge in edges), where=study.where
    )
    row = (yield request).iloc[0]
    counts = np.zeros(N_BINS + 2)
    counts[np.asarray(row["bins"], dtype=np.intp)] = np.asarray(row["counts"])
    return Distribution(
        mean=mean,
        sd=sd,
        lowest=float(np.min(row["lowest"])),
        highest=float(np.max(row["highest"])),
        edges=edges,
        counts=counts,
    )
