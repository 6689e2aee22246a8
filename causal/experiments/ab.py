"""Randomised experiments: differences and lifts of means, proportions and ratios between arms.

Estimates the average effect of assignment under random assignment of units (or clusters) and no
interference between them. Each treatment is compared with control on the absolute scale and
relative to the control level, raw and, where a metric has covariates, adjusted (CUPED). The
adjusted effect of a comparison uses its two arms only, so that it does not change when another
arm joins the experiment.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import pandas as pd
from pydantic import Field, model_validator

from causal.checks import srm
from causal.core.errors import CausalError
from causal.core.frames import FrameRequest, Level
from causal.core.registry import Plan
from causal.core.result import Diagnostic, Effect, Result
from causal.core.spec import Part, Spec
from causal.experiments.ab_checks import (
    check_outcome,
    comparison_checks,
    few_clusters,
    row_counts,
)
from causal.experiments.arms import (
    Arms,
    ClusterCorrection,
    Clustering,
    Design,
    ask_clustering,
    ask_count_covariance,
    ask_moments,
    ask_units,
)
from causal.experiments.comparison import (
    Inference,
    Variance,
    adjusted_readout,
    arm_rows,
    comparisons,
    raw_readout,
    thetas,
)
from causal.experiments.levels import Theta
from causal.experiments.metrics import ColumnName, Metric, columns_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class AbOptions(Part):
    """Options of the method `ab`.

    Attributes:
        unit: Column of the unit; it must identify a row.
        variant: Column of the arm.
        control: The arm that the others are compared with.
        treatments: The arms to compare; all others if left out.
        cluster: Column of the clusters that were randomised, such as a household.
        metrics: The outcomes.
        variance: `welch`: each arm its own; `pooled`: one for all (not with `cluster`).
        cluster_correction: `cr1`: `G/(G-1) * (N-1)/(N-k)` with k arms; `none`: 1.
        theta: CUPED coefficients from the covariance over both arms together (`total`, as Deng et
            al. 2013 and tea-tasting) or around each arm's mean (`within`, as the regression on
            treatment and covariates). They differ by a term that randomisation makes small.
        relative_interval: How the interval of a lift is made.
        expected_shares: Planned share of each variant, as shares or weights. Without it the arms
            are compared with equal shares for information (`assumed_sample_ratio`); stated, a
            mismatch stops the decision.
        srm_alpha: The sample-ratio check fails below this p-value.
    """

    unit: ColumnName
    variant: ColumnName
    control: Level
    treatments: tuple[Level, ...] | None = Field(default=None, min_length=1)
    cluster: ColumnName | None = None
    metrics: tuple[Metric, ...] = Field(min_length=1)
    variance: Variance = "welch"
    cluster_correction: ClusterCorrection = "cr1"
    theta: Theta = "total"
    relative_interval: Literal["delta"] = "delta"
    expected_shares: dict[Level, float] | None = None
    srm_alpha: float = Field(default=0.0005, gt=0, lt=1)

    @model_validator(mode="after")
    def _roles_differ(self) -> "AbOptions":
        roles = [self.unit, self.variant, *([] if self.cluster is None else [self.cluster])]
        if len(set(roles)) < len(roles):
            raise ValueError("unit, variant and cluster must be different columns")
        for metric in self.metrics:
            shared = columns_of(metric).intersection(roles)
            if shared:
                raise ValueError(
                    f"metric {metric.name}: {min(shared)} is the unit, variant or cluster"
                )
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> "AbOptions":
        names = [metric.name for metric in self.metrics]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two metrics are called {repeated[0]}")
        treatments = self.treatments or ()
        if len(set(treatments)) < len(treatments):
            raise ValueError("a treatment is listed twice")
        if self.control in treatments:
            raise ValueError(f"control {self.control} is listed as a treatment")
        return self

    @model_validator(mode="after")
    def _shares_fit_arms(self) -> "AbOptions":
        if self.expected_shares is None:
            return self
        bad = [level for level, share in self.expected_shares.items() if not share > 0]
        if bad:
            raise ValueError(f"the expected share of {bad[0]} must be positive")
        arms = (self.control, *(self.treatments or ()))
        named = {str(level) for level in self.expected_shares}
        without = [level for level in arms if str(level) not in named]
        if without:
            raise ValueError(f"variant {without[0]} has no expected share")
        return self

    @model_validator(mode="after")
    def _variance_fits_cluster(self) -> "AbOptions":
        if self.cluster is not None and "variance" in self.model_fields_set:
            raise ValueError("variance applies to independent units; with cluster leave it out")
        if self.cluster is None and "cluster_correction" in self.model_fields_set:
            raise ValueError("cluster_correction needs cluster")
        return self


class AbSpec(Spec):
    """An analysis by the method `ab`."""

    method: Literal["ab"]
    options: AbOptions


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
    )
    yield from ask_units(design)
    arms = yield from ask_moments(design, options.metrics)
    checks = [(yield from _sample_ratio(options, design, arms)), *row_counts(options.metrics, arms)]
    clusterings: Mapping[str, Clustering] = {}
    if options.cluster is not None:
        clusterings = yield from ask_clustering(
            design,
            options.metrics,
            arms,
            cluster=options.cluster,
            correction=options.cluster_correction,
        )
        checks += few_clusters(clusterings)
    return _result(spec, arms, clusterings, checks)


def figures(spec: AbSpec, result: Result) -> Mapping[str, "Figure"]:
    """Effects with intervals on both scales, arm levels, and adjusted against raw effects."""
    from causal.experiments import ab_figures

    metrics = [metric.name for metric in spec.options.metrics]
    return ab_figures.figures(result, metrics=metrics)


def _result(
    spec: AbSpec,
    arms: Arms,
    clusterings: Mapping[str, Clustering],
    checks: Sequence[Diagnostic],
) -> Result:
    effects: list[Effect] = []
    diagnostics = [*checks]
    params: dict[str, float | int] = {f"n.{level}": n for level, n in arms.counts.items()}
    tables: list[pd.DataFrame] = []
    for position, metric in enumerate(spec.options.metrics):
        try:
            part = _metric_result(metric, arms, clusterings.get(metric.name), spec)
        except CausalError as error:
            raise error.located(key=f"options.metrics.{position}") from error
        effects += part.effects
        diagnostics += part.diagnostics
        params |= part.params
        tables.append(part.tables["arms"])
    return Result(
        effects=tuple(effects),
        diagnostics=tuple(diagnostics),
        params=params,
        tables={"arms": pd.concat(tables, ignore_index=True)},
    )


def _metric_result(
    metric: Metric, arms: Arms, clustering: Clustering | None, spec: AbSpec
) -> Result:
    check_outcome(metric, arms)
    how = Inference(
        confidence_level=spec.confidence_level,
        variance=spec.options.variance,
        theta=spec.options.theta,
    )
    effects: list[Effect] = []
    diagnostics: list[Diagnostic] = []
    params: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    for comparison in comparisons(metric, arms, clustering):
        raw = raw_readout(comparison, how)
        adjusted = adjusted_readout(comparison, how) if metric.covariates else None
        effects += [*(adjusted.effects if adjusted else ()), *raw.effects]
        diagnostics += comparison_checks(comparison, raw, adjusted)
        rows += arm_rows(comparison, raw, adjusted)
        params |= thetas(comparison, adjusted or raw)
    return Result(
        effects=tuple(effects),
        diagnostics=tuple(diagnostics),
        params=params,
        tables={"arms": pd.DataFrame(rows)},
    )


def _sample_ratio(
    options: AbOptions, design: Design, arms: Arms
) -> Generator[FrameRequest, pd.DataFrame, Diagnostic]:
    if options.treatments is None and options.expected_shares is not None:
        srm.check_present(arms.levels, options.expected_shares)
    shares = srm.planned_shares(arms.levels, options.expected_shares)
    is_assumed = options.expected_shares is None
    alpha = options.srm_alpha
    if options.cluster is None:
        return srm.check(arms.counts, shares=shares, alpha=alpha, is_assumed=is_assumed)
    covariance = yield from ask_count_covariance(
        design, arms, cluster=options.cluster, shares=shares
    )
    return srm.check_clustered(
        arms.counts, covariance, shares=shares, alpha=alpha, is_assumed=is_assumed
    )
