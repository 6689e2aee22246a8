"""Randomised experiments: differences and lifts of means, proportions and ratios between arms.

Estimates the average effect of assignment under random assignment of units (or clusters) and no
interference between them. Each treatment is compared with control on the absolute scale and
relative to the control level, raw and, where a metric has covariates, adjusted (CUPED). The
adjusted effect of a comparison uses its two arms only, so that it does not change when another
arm joins the experiment.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from causal.core.errors import CausalError
from causal.core.frames import FrameRequest
from causal.core.registry import Plan
from causal.core.result import Diagnostic, Effect, Result
from causal.experiments import ab_health, strata
from causal.experiments.ab_certificate import Subjects, ask_certificate
from causal.experiments.ab_checks import (
    check_outcome,
    cluster_checks,
    comparison_checks,
    row_counts,
)
from causal.experiments.ab_options import AbOptions, AbSpec
from causal.experiments.ab_slices import Slices, ask_slices, whole_arms_only
from causal.experiments.arms import Arms, Design, ask_moments, ask_units, with_moments
from causal.experiments.cluster_sums import (
    Clusterings,
    Clusters,
    ask_clustering,
    ask_clusters,
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
from causal.experiments.covariate_leverage import ask_leverages
from causal.experiments.families import corrected, families_of, uncorrected
from causal.experiments.metrics import Metric
from causal.experiments.novelty import ask_novelty
from causal.experiments.poisson_bootstrap import Bootstraps, Resampling, ask_bootstraps
from causal.experiments.quantiles import ask_quantiles
from causal.experiments.resampled_quantiles import ask_resampled_quantiles
from causal.experiments.retention import ask_retentions
from causal.experiments.winsorising import ask_bounds

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
        period=options.time_since_exposure,
    )
    yield from ask_units(design)
    spec, bounds = yield from _bounded(spec, design)
    options = spec.options
    arms = yield from ask_moments(design, options.moment_metrics)
    clusters = yield from _ask_clusters(options, design, arms)
    resampling = Resampling.of(
        options.bootstrap, column=(*options.clusters, options.unit)[0], seed=spec.seed
    )
    quantiles = yield from ask_quantiles(
        design, arms, _by_formula(options, options.quantile_metrics), clusters=clusters
    )
    resampled = yield from ask_resampled_quantiles(
        design, arms, _bootstrapped(options, options.quantile_metrics), resampling=resampling
    )
    retentions = yield from ask_retentions(
        design,
        arms,
        options.retention_metrics,
        clusters=clusters,
        confidence_level=spec.confidence_level,
    )
    moment_arms = arms
    arms = with_moments(arms, {**quantiles.moments, **resampled.moments, **retentions.moments})
    checks = [
        (
            yield from ab_health.ask_sample_ratio(
                design,
                arms,
                expected_shares=options.expected_shares,
                alpha=options.srm_alpha,
                cluster=options.clusters,
            )
        ),
        *row_counts(options.metrics, arms),
        *ab_health.missingness(options.metrics, arms, is_clustered=bool(options.clusters)),
    ]
    clusterings: Clusterings = {}
    if clusters is not None:
        clusterings = yield from ask_clustering(
            design, options.moment_metrics, moment_arms, clusters=clusters
        )
        clusterings = {**clusterings, **quantiles.clusterings, **retentions.clusterings}
    for position, metric in enumerate(options.metrics):
        with located(f"options.metrics.{position}"):
            check_outcome(metric, arms)
    how = _inference(spec)
    if clusters is not None:
        checks += cluster_checks(options.metrics, arms, clusterings, clusters)
    checks += [*bounds, *retentions.diagnostics, *whole_arms_only(options)]
    slices = yield from ask_slices(design, moment_arms, options, how, clusters=clusters)
    pairs = {
        metric.name: comparisons(metric, arms, clusterings.get(metric.name))
        for metric in options.moment_metrics
    }
    pairs |= {**quantiles.comparisons, **resampled.comparisons, **retentions.comparisons}
    draws = yield from ask_bootstraps(
        design,
        moment_arms,
        _bootstrapped(options, options.moment_metrics),
        how,
        resampling=resampling,
        stratification=options.stratification,
    )
    bootstraps = draws.joined(resampled.bootstraps)
    checks += bootstraps.diagnostics
    result, best = _result(spec, arms, pairs, checks, slices, bootstraps)
    leverages = yield from ask_leverages(design, arms, pairs, theta=options.theta)
    result = replace(result, diagnostics=(*result.diagnostics, *leverages))
    result = with_table(result, "retention", retentions.curves)
    certified = yield from ask_certificate(
        spec, design, Subjects(moment_arms, _of_moments(best)), how
    )
    result = replace(
        result,
        diagnostics=(*result.diagnostics, *certified.diagnostics),
        tables={**result.tables, **certified.tables},
    )
    if options.time_since_exposure is None or clusters is None:
        return result
    curve = yield from ask_novelty(
        design,
        options.moment_metrics,
        how,
        column=options.time_since_exposure,
        clusters=clusters,
        seed=spec.seed,
    )
    result = replace(
        result,
        effects=(*result.effects, *curve.effects),
        diagnostics=(*result.diagnostics, *curve.diagnostics),
    )
    return with_table(result, "novelty", curve.curves)


def with_table(result: Result, name: str, table: pd.DataFrame | None) -> Result:
    """The same result with one more table, if there is one."""
    return result if table is None else replace(result, tables={**result.tables, name: table})


def _bootstrapped(options: AbOptions, metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """Those whose intervals come from the bootstrap."""
    return tuple(metric for metric in metrics if options.is_bootstrapped(metric))


def _by_formula(options: AbOptions, metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """The others."""
    return tuple(metric for metric in metrics if not options.is_bootstrapped(metric))


def _of_moments(readouts: Sequence[Readout]) -> tuple[Readout, ...]:
    """Those of metrics that are functions of means."""
    return tuple(item for item in readouts if item.comparison.metric.is_moment)


def _bounded(
    spec: AbSpec, design: Design
) -> Generator[FrameRequest, pd.DataFrame, tuple[AbSpec, list[Diagnostic]]]:
    """The spec with numbers in place of the quantiles that metrics are winsorised at."""
    metrics, notes = yield from ask_bounds(design, spec.options.metrics)
    options = spec.options.model_copy(update={"metrics": metrics})
    return spec.model_copy(update={"options": options}), notes


def figures(spec: AbSpec, result: Result) -> Mapping[str, "Figure"]:
    """Effects on both scales, arm levels, adjusted against raw effects, curves, the certificate."""
    from causal.checks import certificate_figures
    from causal.experiments import ab_figures, curve_figures

    options = spec.options
    metrics = [metric.name for metric in options.metrics]
    period = options.time_since_exposure
    # Effects by period have a figure of their own.
    shown = tuple(e for e in result.effects if period is None or not _is_of(e, period))
    found = dict(ab_figures.figures(replace(result, effects=shown), metrics=metrics))
    if "retention" in result.tables:
        horizons = {item.name: item.horizon or 0 for item in options.retention_metrics}
        found |= curve_figures.retention(result.tables["retention"], horizons=horizons)
    if period is not None:
        found |= curve_figures.novelty(
            result.tables["novelty"], column=period, confidence_level=spec.confidence_level
        )
    return {**found, **certificate_figures.figures(result.tables)}


def _is_of(effect: Effect, column: str) -> bool:
    """Whether an effect is that of one value of a column."""
    return effect.term.partition(" | ")[2].startswith(f"{column}=")


def _ask_clusters(
    options: AbOptions, design: Design, arms: Arms
) -> Generator[FrameRequest, pd.DataFrame, Clusters | None]:
    if not options.clusters:
        return None
    return (
        yield from ask_clusters(
            design,
            arms,
            columns=options.clusters,
            correction=options.cluster_correction,
            degrees_of_freedom=options.degrees_of_freedom,
        )
    )


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
    pairs: Mapping[str, Sequence[Comparison]],
    checks: Sequence[Diagnostic],
    slices: Slices,
    bootstraps: Bootstraps,
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
            part, readouts = _metric_result(metric, arms, pairs[metric.name], spec, bootstraps)
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
    metric: Metric,
    arms: Arms,
    plain: Sequence[Comparison],
    spec: AbSpec,
    bootstraps: Bootstraps,
) -> tuple[Result, list[Readout]]:
    """Effects, checks and levels of one metric, and the best readout of each treatment."""
    how = _inference(spec)
    effects: list[Effect] = []
    diagnostics: list[Diagnostic] = []
    params: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    chosen: list[Readout] = []
    weighed = _weighed(metric, arms, spec.options) or plain
    for comparison, stratum in zip(plain, weighed, strict=True):
        raw = bootstraps.read(raw_readout(comparison, how), how)
        within = raw
        if stratum is not comparison:
            within = bootstraps.read(raw_readout(stratum, how), how)
        best = within
        if metric.covariates:
            best = bootstraps.read(adjusted_readout(stratum, how), how)
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
