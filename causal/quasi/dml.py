"""Double machine learning: effects from models that never saw the rows they score.

The interactive model (AIPW) and the partially linear one, cross-fitted by hash folds, from
aggregates alone. Outcome models are least squares, propensities logistic regressions: two passes
for the moments by fold, some four per fold for its propensity, one for estimates and errors. See
`docs/methods/dml.md`.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from causal.core.errors import InferenceError
from causal.core.frames import FrameRequest, GramRequest, HashBucket, Product, Term
from causal.core.gram import Gram, Key, grams
from causal.core.readout import Readout, combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.core.unit_keys import check_units
from causal.observational import dml_readout as readout
from causal.observational.balance import overlap_table
from causal.observational.cross_fitting import (
    CrossFittedPropensity,
    FoldMoments,
    Sample,
    arm_predictions,
    cross_fitted_propensity,
    fold_moments,
    linear_propensity,
    pooled_prediction,
)
from causal.observational.dml_readout import Found, SegmentEstimates
from causal.observational.orthogonal_moments import (
    Ratio,
    RatioEstimate,
    aipw_ratio,
    asked_terms,
    classical_error,
    median,
    plr_ratio,
    solve,
)
from causal.observational.refuters import Refutation, refuting_sample
from causal.observational.study import CONTROL, TREATED, Study, observe
from causal.observational.trimming import bounds, keep_term
from causal.observational.weighting_readout import check_kept
from causal.quasi.dml_options import DmlOptions, DmlSpec
from causal.regression.columns import level_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = DmlSpec

_FEW = 2


def estimate(spec: DmlSpec) -> Plan:
    """Estimate the effect on each outcome.

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


def figures(spec: DmlSpec, result: Result) -> Mapping[str, "Figure"]:
    """The effects with intervals and, where there is a logistic propensity, its distribution.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.observational.figures import interval_figure, overlap_figures

    found: dict[str, Figure] = {}
    for outcome in spec.options.outcomes:
        effects = [effect for effect in result.effects if effect.metric == outcome]
        found[f"effects_{outcome}"] = interval_figure(effects, title="Mean effects")
        found |= overlap_figures(result, outcome=outcome)
    return found


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """The scores of one way to part the rows.

    Attributes:
        sample: The rows.
        ratios: Scores by estimator.
        moments: Moments by fold.
        propensity: The propensity; `None` where it is linear.
        keep: 1 in the rows that are kept; `None`: all.
        limits: The smallest and the largest propensity kept.
    """

    sample: Sample
    ratios: Mapping[str, Ratio]
    moments: FoldMoments
    propensity: CrossFittedPropensity | None
    keep: Term | None
    limits: tuple[float, float]


def _outcome(spec: DmlSpec, study: Study) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    options = spec.options
    overall: list[Mapping[str, RatioEstimate]] = []
    by_segment: list[SegmentEstimates] = []
    first: _Scores | None = None
    for repetition in range(options.repetitions):
        folds = _folds(options, salt=(spec.seed + repetition) % 2**62)
        scores = yield from _scores(options, Sample(study=study, folds=folds))
        first = scores if first is None else first
        overall.append((yield from _whole(options, scores)))
        by_segment.append((yield from _segments(options, scores)))
    if first is None:
        raise InferenceError("no repetition", given=options.repetitions)
    effects: dict[str, RatioEstimate] = {
        name: median(tuple(found[name] for found in overall)) for name in options.estimators
    }
    overlap = None
    if options.propensity == "logistic" and first.propensity is not None:
        overlap, _ = yield from overlap_table(study, first.propensity)
    refutations = yield from _refutations(options, first, effects)
    return readout.read(
        spec,
        study,
        Found(
            effects=effects,
            segments=readout.medians(by_segment),
            folds=first.moments.folds,
            limits=first.limits,
            overlap=overlap,
            refutations=tuple(refutations),
        ),
    )


def _folds(options: DmlOptions, *, salt: int) -> HashBucket:
    column = options.unit if options.cluster is None else options.cluster
    return HashBucket(column, options.folds, salt)


def _scores(options: DmlOptions, sample: Sample) -> Generator[FrameRequest, pd.DataFrame, _Scores]:
    """The models of every fold, and the scores that are made of them."""
    study = sample.study
    moments = yield from fold_moments(sample)
    propensity = None
    if options.propensity != "linear":
        propensity = yield from cross_fitted_propensity(sample, moments, model=options.propensity)
    keep, limits = sample.keep, (0.0, 1.0)
    if options.trim is not None and propensity is not None:
        limits = yield from bounds(study, propensity, options.trim)
        keep = Product((*sample.kept, keep_term(propensity, low=limits[0], high=limits[1])))
    ratios: dict[str, Ratio] = {}
    for name in options.estimators:
        if name == "plr":
            treatment = (
                linear_propensity(sample, moments) if propensity is None else propensity.probability
            )
            ratios[name] = plr_ratio(study, treatment, pooled_prediction(sample, moments))
        elif propensity is not None:
            predictions = arm_predictions(sample, moments)
            ratios[name] = aipw_ratio(study, propensity, predictions, of=options.estimand)
    return _Scores(
        sample=sample, ratios=ratios, moments=moments, propensity=propensity, keep=keep,
        limits=limits,
    )  # fmt: skip


def _summed(
    options: DmlOptions, scores: _Scores, *, by: tuple[str, ...]
) -> Generator[FrameRequest, pd.DataFrame, dict[Key, Gram]]:
    """The final pass: moments of the scores, of rows or of clusters."""
    study = scores.sample.study
    request = GramRequest(
        terms=asked_terms(study, scores.ratios),
        by=by,
        weight=scores.keep,
        where=study.where,
        summed_by=() if options.cluster is None else (options.cluster,),
    )
    return grams((yield request), request)


def _solved(options: DmlOptions, scores: _Scores, moments: Gram) -> dict[str, RatioEstimate]:
    study = scores.sample.study
    found = {}
    for name, ratio in scores.ratios.items():
        own = solve(
            moments, ratio, treated=study.is_arm[TREATED], factor=options.factor,
            is_clustered=options.cluster is not None,
        )  # fmt: skip
        df = own.n_treated + own.n_control - len(study.columns) - 2
        if ratio.square is not None and df > 0:
            own = replace(own, classical_error=classical_error(moments, ratio, df=df))
        found[name] = own
    return found


def _whole(
    options: DmlOptions, scores: _Scores
) -> Generator[FrameRequest, pd.DataFrame, dict[str, RatioEstimate]]:
    """Effects on all rows that are kept.

    Raises:
        DataError: An arm has almost no rows left after trimming.
        InferenceError: There are fewer than two clusters.
    """
    if options.trim is not None:
        kept = yield from scores.sample.study.by_arm(scores.sample.study.terms, weight=scores.keep)
        check_kept(kept, scores.limits)
    found = yield from _summed(options, scores, by=())
    (moments,) = found.values()
    if options.cluster is not None and moments.n < _FEW:
        raise InferenceError("clustered errors need two or more clusters", given=moments.n)
    return _solved(options, scores, moments)


def _segments(
    options: DmlOptions, scores: _Scores
) -> Generator[FrameRequest, pd.DataFrame, SegmentEstimates]:
    """Effects by segment, and what is left out of them."""
    estimates: dict[tuple[str, str], Mapping[str, RatioEstimate]] = {}
    left_out: dict[str, str] = {}
    treated = scores.sample.study.is_arm[TREATED]
    for column in options.segments:
        found = yield from _summed(options, scores, by=(column,))
        levels = sorted((key[0] for key in found if key[0] is not None), key=level_order)
        for level in levels:
            moments = found[level,]
            n, n_treated = readout.counts(moments, treated)
            if min(n_treated, n - n_treated, moments.n) < _FEW:
                left_out[f"{column}={level}"] = f"{n_treated:,} treated of {n:,} rows"
            else:
                estimates[column, str(level)] = _solved(options, scores, moments)
        if (None,) in found:
            n, _ = readout.counts(found[None,], treated)
            left_out[f"{column} is null"] = f"{n:,} rows"
    return SegmentEstimates(estimates=estimates, left_out=left_out)


def _refutations(
    options: DmlOptions, scores: _Scores, base: Mapping[str, RatioEstimate]
) -> Generator[FrameRequest, pd.DataFrame, Sequence[Refutation]]:
    """The analysis again where its answer is known."""
    arms = scores.moments.arms
    share = arms[TREATED].sum_weights / (arms[CONTROL].sum_weights + arms[TREATED].sum_weights)
    if isinstance(options.propensity, float):
        share = options.propensity
    plain = options.model_copy(update={"segments": [], "trim": options.trim})
    found = []
    for name in options.refute:
        sample = yield from refuting_sample(
            scores.sample, name, unit=options.unit, probability=share
        )
        again = yield from _scores(plain, sample)
        moments = yield from _summed(plain, again, by=())
        (whole,) = moments.values()
        for estimator, own in _solved(plain, again, whole).items():
            found.append(
                Refutation(name=name, estimator=estimator, found=own, base=base[estimator])
            )
    return found
