"""Uplift: who benefits, as a linear function of covariates, learned from aggregates alone.

S-, T-, X-, DR- and R-learners whose models are least squares: one pass for the moments by arm, two
or three more where treatment was not randomised, one per learner for errors and one for the
distribution of its scores. See `docs/methods/uplift.md`.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
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
from causal.core.inference import cr1_factor, hc1_factor
from causal.core.readout import Readout, combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.core.unit_keys import check_units
from causal.observational.balance import overlap_table
from causal.observational.logistic import LogisticFit, fit_logistic
from causal.observational.study import CONTROL, TREATED, Study, check_rows, observe
from causal.regression.columns import level_order
from causal.uplift import uplift_readout as readout
from causal.uplift.linear_errors import (
    ClusterMoments,
    Corrections,
    cluster_moments,
    influence_term,
    left_out_covariance,
    leverage_corrections,
    weight_term,
)
from causal.uplift.linear_learners import (
    ArmMoments,
    Learner,
    LearnerData,
    LinearEffect,
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


@dataclass(kw_only=True)
class _Learned:
    """What was learned of one outcome.

    Attributes:
        study: The rows.
        data: What learners are computed from.
        fit: The propensity; `None`: the same for all rows.
        effects: By learner.
        corrections: For leverage; empty where errors make nothing of it.
    """

    study: Study
    data: LearnerData
    fit: LogisticFit | None
    effects: Mapping[Learner, LinearEffect]
    corrections: Corrections
    _clusters: ClusterMoments | None = None

    def by_cluster(self, cluster: str) -> Generator[FrameRequest, pd.DataFrame, ClusterMoments]:
        """Moments of every cluster, asked for once."""
        if self._clusters is None:
            self._clusters = yield from cluster_moments(
                self.study, self.data, cluster=cluster, fit=self.fit
            )
        return self._clusters


def _outcome(spec: UpliftSpec, study: Study) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    options = spec.options
    fit = None
    overlap = None
    if options.needs_propensity:
        fit = yield from fit_logistic(study)
        overlap, _ = yield from overlap_table(study, fit)
    data = yield from _learner_data(options, study, fit)
    segments = yield from _segments(options.segments, study)
    effects = {learner: learn(data, learner) for learner in options.learners}
    corrections: Corrections = {}
    if options.kind(None) == "HC3":
        corrections = yield from leverage_corrections(study, list(effects.values()), fit=fit)
    learned = _Learned(study=study, data=data, fit=fit, effects=effects, corrections=corrections)
    fitted: dict[str, Fitted] = {}
    for learner in options.learners:
        fitted[learner] = yield from _fitted(spec, learned, learner, segments=segments)
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
    spec: UpliftSpec, learned: _Learned, learner: Learner, *, segments: Sequence[Segment]
) -> Generator[FrameRequest, pd.DataFrame, Fitted]:
    """Errors of the coefficients and of mean effects, and the distribution of the scores."""
    options, study, effect = spec.options, learned.study, learned.effects[learner]
    size = len(effect.coefficients)
    active = [j for j in range(size) if any(part.left[j].any() for part in effect.parts)]
    terms: list[Term] = [
        influence_term(
            study, effect, np.eye(size)[j], fit=learned.fit, corrections=learned.corrections
        )
        for j in active
    ]
    has_slopes = bool(effect.coefficients[1:].any())
    terms += _means(learned, effect, segments=segments if has_slopes else ())
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
    kind = options.kind(n_clusters)
    covariance = matrix[: len(active), : len(active)]
    if kind == "CR3":
        clusters = yield from learned.by_cluster(str(options.cluster))
        whole = left_out_covariance(effect, learner, learned.data, clusters=clusters)
        covariance = whole[np.ix_(active, active)]
    elif kind == "CR1":
        covariance *= cr1_factor(n=study.n, k=effect.n_coefficients, n_clusters=n_clusters)
    elif kind == "HC1":
        covariance *= hc1_factor(n=study.n, k=effect.n_coefficients)
    distribution = yield from _distribution(study, effect)
    return Fitted(
        effect=effect,
        active=tuple(active),
        kind=kind,
        covariance=covariance,
        mean_variances=np.diag(matrix)[len(active) :],
        has_slopes=has_slopes,
        distribution=distribution,
        n_clusters=None if options.cluster is None else n_clusters,
    )


def _means(learned: _Learned, effect: LinearEffect, *, segments: Sequence[Segment]) -> list[Term]:
    """What a row adds to the error of the mean effect of all rows and of those by segment."""
    study, size = learned.study, len(effect.coefficients)
    places: list[tuple[Segment | None, Array, int]] = [(None, np.eye(size)[0], study.n)]
    places += [(item, item.mean, item.n) for item in segments]
    found: list[Term] = []
    for segment, mean, n in places:
        own = influence_term(study, effect, mean, fit=learned.fit, corrections={})
        rest = _deviation(study, effect, mean, n=n, segment=segment)
        found.append(Linear((*own.terms, rest), (*own.coefficients, 1.0)))
    return found


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
