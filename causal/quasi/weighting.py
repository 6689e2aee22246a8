"""Weighting: the effect of a treatment that depends on what is known of the units.

Inverse-propensity and overlap weights, entropy balancing, regression adjustment and the doubly
robust combination, all from aggregates: one pass per iteration of the propensity, one for the
weighted means, one for their derivatives and one for the errors. See `docs/methods/weighting.md`.
"""

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from causal.core.frames import (
    Condition,
    Constant,
    FrameRequest,
    GramRequest,
    Linear,
    MeatRequest,
    Product,
    Score,
    Term,
)
from causal.core.gram import gram, meat
from causal.core.readout import Readout, combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.core.unit_keys import check_units
from causal.observational import weighting_readout as readout
from causal.observational.balance import overlap_table
from causal.observational.entropy_balancing import entropy_weights
from causal.observational.influence import ArmMean, Estimator, Sums, arm_mean
from causal.observational.logistic import fit_logistic
from causal.observational.outcome_model import OutcomeModel, fit_outcome
from causal.observational.study import CONTROL, TREATED, Arms, Study, check_rows, observe
from causal.observational.trimming import bounds, keep_term
from causal.observational.weighting_readout import Estimate, Propensity, Weighting
from causal.observational.weights import Weights, propensity_weights
from causal.quasi.weighting_options import EstimatorName, WeightingOptions, WeightingSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = WeightingSpec


def estimate(spec: WeightingSpec) -> Plan:
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
        readouts[outcome] = yield from _outcome(spec, outcome=outcome, where=where)
    return combined(readouts)


def figures(spec: WeightingSpec, result: Result) -> Mapping[str, "Figure"]:
    """A love plot and, where there is a propensity, its distribution by arm.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.observational.figures import balance_figures

    threshold = spec.options.balance_threshold
    return balance_figures(result, spec.options.outcomes, threshold=threshold)


def _outcome(
    spec: WeightingSpec, *, outcome: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    options = spec.options
    study = yield from observe(options, outcome=outcome, where=where)
    propensity = None
    if options.needs_propensity:
        propensity = yield from _propensity(options, study)
    plain = study.arms if propensity is None else propensity.plain
    model = None
    if {"regression", "aipw"} & set(options.estimators):
        model = fit_outcome(study, plain, interactions=options.outcome_interactions)
    weightings: dict[str, Weighting] = {}
    if propensity is not None and {"ipw", "aipw"} & set(options.estimators):
        weights = propensity_weights(
            study, propensity.fit, target=options.estimand,
            is_of_all_rows=not propensity.is_refitted,
        )  # fmt: skip
        weightings["propensity"] = yield from _weighting(
            study, weights, plain=plain, keep=propensity.keep
        )
    if "entropy_balancing" in options.estimators:
        weights = yield from entropy_weights(study, target=options.estimand)
        weightings["entropy_balancing"] = yield from _weighting(
            study, weights, plain=plain, keep=None
        )
    keep = None if propensity is None else propensity.keep
    estimates = yield from _estimates(
        options, study, model=model, weightings=weightings, plain=Sums(plain=plain, keep=keep)
    )
    return readout.read(
        spec, study, propensity=propensity, weightings=weightings, estimates=estimates
    )


def _propensity(
    options: WeightingOptions, study: Study
) -> Generator[FrameRequest, pd.DataFrame, Propensity]:
    fit = yield from fit_logistic(study)
    keep: Term | None = None
    plain, limits = study.arms, (0.0, 1.0)
    if options.trim is not None:
        limits = yield from bounds(study, fit, options.trim)
        keep = keep_term(fit, low=limits[0], high=limits[1])
        plain = yield from study.by_arm(study.terms, weight=keep)
        readout.check_kept(plain, limits)
        if options.trim.refit:
            fit = yield from fit_logistic(study, keep=keep, arms=plain)
    table, moments = yield from overlap_table(study, fit)
    return Propensity(
        fit=fit, keep=keep, limits=limits, plain=plain, overlap=table, moments=moments,
        is_refitted=options.trim is not None and options.trim.refit,
    )  # fmt: skip


def _weighting(
    study: Study, weights: Weights, *, plain: Arms, keep: Term | None
) -> Generator[FrameRequest, pd.DataFrame, Weighting]:
    """Weighted moments by arm, and those of the weights' derivatives."""
    factors = () if keep is None else (keep,)
    weight = weights.weight(study)
    arms = yield from study.by_arm((*study.terms, weight), weight=Product((*factors, weight)))
    sloped = None
    if weights.has_slopes:
        slope = Product((*factors, weights.slope(study)))
        sloped = yield from study.by_arm(study.terms, weight=slope)
    sums = Sums(
        plain=plain,
        weighted=(arms[CONTROL].subset(study.terms), arms[TREATED].subset(study.terms)),
        sloped=sloped,
        keep=keep,
    )
    squares = [arm.sum_weights * float(arm.mean[arm.index(weight)]) for arm in arms]
    return Weighting(weights=weights, sums=sums, squares=(squares[CONTROL], squares[TREATED]))


def _estimates(
    options: WeightingOptions,
    study: Study,
    *,
    model: OutcomeModel | None,
    weightings: Mapping[str, Weighting],
    plain: Sums,
) -> Generator[FrameRequest, pd.DataFrame, dict[EstimatorName, Estimate]]:
    """Arm means of every estimator, and their covariances from one pass."""
    means: dict[EstimatorName, list[ArmMean]] = {}
    for name in options.estimators:
        source = "entropy_balancing" if name == "entropy_balancing" else "propensity"
        own = None if name == "regression" else weightings[source]
        estimator = Estimator(
            target=options.estimand,
            weights=None if own is None else own.weights,
            model=model if name in {"regression", "aipw"} else None,
            is_normalised=options.is_normalised(name),
            is_robust=options.covariance == "robust",
        )
        sums = plain if own is None else own.sums
        means[name] = [arm_mean(study, estimator, sums, arm) for arm in (CONTROL, TREATED)]
    scores = [Score(Constant(), mean.influence) for pair in means.values() for mean in pair]
    marked = Linear((scores[0].right, study.marker), (1.0, 0.0))
    request = MeatRequest(
        scores=(Score(Constant(), marked), *scores[1:]),
        cluster=() if options.cluster is None else (options.cluster,),
        where=study.where,
    )
    frame = yield request
    matrix, n_clusters = meat(frame)
    if options.cluster is not None and plain.keep is not None:
        n_clusters = yield from _clusters_kept(study, options.cluster, plain.keep)
    check_rows(
        study, cluster=options.cluster, n_used=int(frame["n"].iloc[0]), n_clusters=n_clusters
    )
    n = n_clusters if options.cluster else sum(arm.sum_weights for arm in plain.plain)
    factor = n / (n - 1) if options.factor == "n-1" else 1.0
    found: dict[EstimatorName, Estimate] = {}
    for at, (name, pair) in enumerate(means.items()):
        block = slice(2 * at, 2 * at + 2)
        found[name] = Estimate(
            means=(pair[CONTROL].value, pair[TREATED].value),
            covariance=factor * matrix[block, block],
            n_clusters=n_clusters if options.cluster else None,
        )
    return found


def _clusters_kept(
    study: Study, cluster: str, keep: Term
) -> Generator[FrameRequest, pd.DataFrame, int]:
    """Clusters of which trimming keeps a row; the mean is over these, and so is its error."""
    request = GramRequest(
        terms=(study.marker,), summed_by=(cluster,), weight=keep, where=study.where
    )
    return gram((yield request), request).n
