"""Randomised experiments: differences and lifts of means, proportions and ratios between arms.

Estimates the average effect of assignment under random assignment of units (or clusters) and no
interference between them. Each treatment is compared with control on the absolute scale and
relative to the control level, raw and, where a metric has covariates, adjusted (CUPED). The
adjusted effect of a comparison uses its two arms only, so that it does not change when another
arm joins the experiment.
"""

import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd

from causal.checks import srm
from causal.core.errors import CausalError
from causal.core.frames import FrameRequest
from causal.core.registry import Plan
from causal.core.result import Diagnostic, Effect, Result
from causal.experiments import ab_health, strata
from causal.experiments.ab_certificate import Subjects, ask_certificate
from causal.experiments.ab_checks import (
    arm_clusters,
    check_outcome,
    comparison_checks,
    few_clusters,
    row_counts,
)
from causal.experiments.ab_options import AbOptions, AbSpec
from causal.experiments.ab_slices import Slices, ask_slices
from causal.experiments.arms import (
    Arms,
    Clustering,
    Design,
    ask_arm_clusters,
    ask_clustering,
    ask_count_covariance,
    ask_moments,
    ask_units,
)
from causal.experiments.comparison import (
    Comparison,
    Inference,
    Readout,
    adjusted_readout,
    arm_rows,
    comparisons,
    raw_readout,
    thetas,
)
from causal.experiments.families import corrected, families_of, uncorrected
from causal.experiments.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = AbSpec


def estimate(spec: AbSpec) -> Plan:
    """Compare every treatment with control on every metric.

    Raises:
        DataError: The data cannot carry the comparison; the message names metric and variant.

    Example:
        >>> import pandas as pd
        >>> from causal.core.pandas_engine import PandasEngine
        >>> from causal.core.plan import run
        >>> from causal.core.spec import validate
        >>> users = pd.DataFrame(
        ...     {
        ...         "user_id": range(6),
        ...         "variant": ["control", "treatment"] * 3,
        ...         "revenue": [4.0, 7.0, 5.0, 8.0, 6.0, 9.0],
        ...     }
        ... )
        >>> spec = validate(
        ...     SPEC,
        ...     {
        ...         "name": "loyalty",
        ...         "source": {"table": "users"},
        ...         "method": "ab",
        ...         "options": {
        ...             "unit": "user_id",
        ...             "variant": "variant",
        ...             "control": "control",
        ...             "metrics": [{"name": "revenue", "type": "mean", "column": "revenue"}],
        ...         },
        ...     },
        ... )
        >>> effect = run(estimate(spec), PandasEngine(users)).effects[0]
        >>> effect.term, effect.estimate, round(effect.std_error, 3)
        ('treatment - control', 3.0, 0.816)
    """
    options = spec.options
    design = Design(
        unit=options.unit,
        variant=options.variant,
        control=options.control,
        treatments=options.treatments,
        where=spec.source.conditions,
        strata=options.strata or (),
    )
    yield from ask_units(design)
    arms = yield from ask_moments(design, options.metrics)
    checks = [
        (yield from _sample_ratio(options, design, arms)),
        *row_counts(options.metrics, arms),
        *ab_health.missingness(options.metrics, arms, is_clustered=options.cluster is not None),
    ]
    clusterings: Mapping[str, Clustering] = {}
    if options.cluster is not None:
        clusterings = yield from ask_clustering(
            design,
            options.metrics,
            arms,
            cluster=options.clusters,
            correction=options.cluster_correction,
        )
        checks += few_clusters(clusterings)
        checks += arm_clusters((yield from ask_arm_clusters(design, arms, options.clusters)))
    for position, metric in enumerate(options.metrics):
        with located(f"options.metrics.{position}"):
            check_outcome(metric, arms)
    how = _inference(spec)
    slices = yield from ask_slices(design, arms, options, how)
    result, best = _result(spec, arms, clusterings, checks, slices)
    certified = yield from ask_certificate(spec, design, Subjects(arms, tuple(best)), how)
    return dataclasses.replace(
        result,
        diagnostics=(*result.diagnostics, *certified.diagnostics),
        tables={**result.tables, **certified.tables},
    )


def figures(spec: AbSpec, result: Result) -> Mapping[str, "Figure"]:
    """Effects on both scales, arm levels, adjusted against raw effects, and the certificate."""
    from causal.checks import certificate_figures
    from causal.experiments import ab_figures

    metrics = [metric.name for metric in spec.options.metrics]
    drawn = ab_figures.figures(result, metrics=metrics)
    return {**drawn, **certificate_figures.figures(result.tables)}


def _inference(spec: AbSpec) -> Inference:
    options = spec.options
    sizes = options.population_sizes or {}
    return Inference(
        confidence_level=spec.confidence_level,
        variance=options.variance,
        theta=options.theta,
        relative_interval=options.relative_interval,
        population={str(level): size for level, size in sizes.items()},
    )


def _result(
    spec: AbSpec,
    arms: Arms,
    clusterings: Mapping[str, Clustering],
    checks: Sequence[Diagnostic],
    slices: Slices,
) -> tuple[Result, list[Readout]]:
    """The result, and the best readout of each metric and treatment."""
    how = _inference(spec)
    effects: list[Effect] = []
    diagnostics = [*checks]
    params: dict[str, float | int] = {f"n.{level}": n for level, n in arms.counts.items()}
    tables: list[pd.DataFrame] = []
    best: list[Readout] = []
    for position, metric in enumerate(spec.options.metrics):
        with located(f"options.metrics.{position}"):
            part, readouts = _metric_result(metric, arms, clusterings.get(metric.name), spec)
        effects += part.effects
        diagnostics += part.diagnostics
        params |= part.params
        tables.append(part.tables["arms"])
        best += readouts
    families, notes = _families(spec.options, best, slices, how)
    if spec.options.strata is not None:
        diagnostics.append(
            strata.composition(arms, spec.options.metrics[0], strata=spec.options.strata)
        )
    result = Result(
        effects=(*effects, *slices.effects, *families),
        diagnostics=(*diagnostics, *slices.diagnostics, *notes),
        params=params,
        tables={"arms": pd.concat(tables, ignore_index=True)},
    )
    return result, best


def _families(
    options: AbOptions, best: Sequence[Readout], slices: Slices, how: Inference
) -> tuple[list[Effect], list[Diagnostic]]:
    """Corrected effects of every family: all units first, then each column of segments."""
    if options.multiplicity is None:
        return [], []
    correction = options.multiplicity.correction
    families = families_of(options.metrics, options.multiplicity)
    effects: list[Effect] = []
    notes = [uncorrected(options.metrics, families)]
    for suffix, readouts in (("", best), *((f".{k}", v) for k, v in slices.readouts.items())):
        for family, names in families.items():
            members = [item for item in readouts if item.comparison.metric.name in names]
            if not members:
                continue
            rows, note = corrected(members, how, family=f"{family}{suffix}", correction=correction)
            effects += rows
            notes.append(note)
    return effects, notes


def _metric_result(
    metric: Metric, arms: Arms, clustering: Clustering | None, spec: AbSpec
) -> tuple[Result, list[Readout]]:
    """Effects, checks and levels of one metric, and the best readout of each treatment."""
    how = _inference(spec)
    effects: list[Effect] = []
    diagnostics: list[Diagnostic] = []
    params: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    chosen: list[Readout] = []
    plain = comparisons(metric, arms, clustering)
    weighed = _weighed(metric, arms, spec.options) or plain
    for comparison, stratum in zip(plain, weighed, strict=True):
        raw = raw_readout(comparison, how)
        within = raw_readout(stratum, how) if stratum is not comparison else raw
        best = adjusted_readout(stratum, how) if metric.covariates else within
        found = [best, *([within] if within is not best else [])]
        found += [raw] if raw is not within else []
        effects += [effect for readout in found for effect in readout.effects]
        adjusted = best if best is not raw else None
        diagnostics += comparison_checks(comparison, raw, adjusted, how)
        agreement = ab_health.agreement(stratum, within, best)
        diagnostics += [agreement] if agreement is not None else []
        if metric.role != "guardrail":
            diagnostics.append(ab_health.power_reached(best, power=spec.options.power))
        rows += arm_rows(comparison, raw, adjusted)
        params |= thetas(comparison, best)
        chosen.append(best)
    result = Result(
        effects=tuple(effects),
        diagnostics=tuple(diagnostics),
        params=params,
        tables={"arms": pd.DataFrame(rows)},
    )
    return result, chosen


def _weighed(metric: Metric, arms: Arms, options: AbOptions) -> list[Comparison]:
    """The comparisons with strata of equal shares in both arms, if there are strata."""
    if options.strata is None:
        return []
    return strata.stratified(
        metric, arms, stratification=options.stratification, strata=options.strata
    )


@contextmanager
def located(key: str) -> Iterator[None]:
    """Errors of the data get the key of the spec that asked for them."""
    try:
        yield
    except CausalError as error:
        raise error.located(key=key) from error


def _sample_ratio(
    options: AbOptions, design: Design, arms: Arms
) -> Generator[FrameRequest, pd.DataFrame, Diagnostic]:
    if options.treatments is None and options.expected_shares is not None:
        srm.check_present(arms.levels, options.expected_shares)
    shares = srm.planned_shares(arms.levels, options.expected_shares)
    is_assumed = options.expected_shares is None
    alpha = options.srm_alpha
    if not options.clusters:
        return srm.check(arms.counts, shares=shares, alpha=alpha, is_assumed=is_assumed)
    covariance = yield from ask_count_covariance(
        design, arms, cluster=options.clusters, shares=shares
    )
    return srm.check_clustered(
        arms.counts, covariance, shares=shares, alpha=alpha, is_assumed=is_assumed
    )
