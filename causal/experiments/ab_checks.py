"""The checks that stand beside the effects of an experiment."""

import math
from collections.abc import Sequence

import numpy as np

from causal.checks import covariate_balance, few_clusters, guardrail
from causal.checks.panel_health import note
from causal.core.errors import DataError
from causal.core.frames import Level
from causal.core.gram import Gram
from causal.core.result import Diagnostic
from causal.experiments.arms import Arms
from causal.experiments.cluster_sums import MAX_CLUSTERS, Clusterings, Clusters
from causal.experiments.clustering import Clustering
from causal.experiments.comparison import Comparison, Inference, Readout
from causal.experiments.levels import (
    CONTROL,
    TREATMENT,
    is_binary,
    is_constant,
    lift_distance,
)
from causal.experiments.metrics import Metric

BALANCE_ALPHA = 0.001
SAFE_CONTROL_LEVEL = 4.0
"""Standard errors by which the control level must clear zero for a delta-method lift."""


def check_outcome(metric: Metric, arms: Arms) -> None:
    """The outcome varies, and a proportion is a 0/1 column.

    Raises:
        DataError: It does not, or it is not.
    """
    moments = arms.moments[metric.name]
    outcome = metric.quotients[0]
    if all(is_constant(gram, outcome) for gram in moments):
        raise DataError(
            f"{metric.name}: zero variance, every unit of an arm has the same value",
            given=[
                f"{level}: {outcome.value(gram.mean):g}"
                for level, gram in zip(arms.levels, moments, strict=True)
            ],
        )
    if metric.type == "count":
        _check_count(metric, arms)
    if metric.type != "proportion":
        return
    for level, gram in zip(arms.levels, moments, strict=True):
        if not is_binary(gram, outcome.numerator):
            raise DataError(
                f"{metric.name}: a proportion needs a column of zeros and ones",
                given=f"{metric.column} of variant {level}, mean {gram.mean[outcome.numerator]:g}",
            )


def _check_count(metric: Metric, arms: Arms) -> None:
    for level, gram in zip(arms.levels, arms.moments[metric.name], strict=True):
        mean = float(gram.mean[metric.quotients[0].numerator])
        if mean < 0:
            raise DataError(
                f"{metric.name}: a count is never negative",
                given=f"{metric.column} of variant {level}, mean {mean:g}",
            )


def row_counts(metrics: Sequence[Metric], arms: Arms) -> list[Diagnostic]:
    """Every row that is not in an estimate is counted here."""
    found = []
    if arms.n_other:
        found.append(
            Diagnostic(
                name="other_variants",
                statistic=float(arms.n_other),
                pvalue=None,
                passed=None,
                detail=f"{arms.n_other:,} rows of variants that are not compared are left out",
            )
        )
    for metric in metrics:
        moments = zip(arms.levels, arms.moments[metric.name], strict=True)
        missing = {level: gram.n_missing for level, gram in moments}
        total = sum(missing.values())
        by_arm = ", ".join(f"{level} {count:,}" for level, count in missing.items())
        found.append(
            Diagnostic(
                name=f"missing_rows.{metric.name}",
                statistic=float(total),
                pvalue=None,
                passed=True if total == 0 else None,
                detail=f"{metric.name}: {total:,} rows left out for missing values ({by_arm})",
            )
        )
    return found


def cluster_checks(
    metrics: Sequence[Metric], arms: Arms, clusterings: Clusterings, clusters: Clusters
) -> list[Diagnostic]:
    """How the errors were clustered, and whether the clusters and those of each arm are enough.

    The check is that of the worst comparison; each counts the clusters of its own two arms.
    """
    found = [_cluster_errors(clusters)]
    metrics = [metric for metric in metrics if metric.name in clusterings]
    if not metrics:
        return found
    fewest = min(item.n_clusters for items in clusterings.values() for item in items)
    if fewest < few_clusters.FEW:
        found.append(
            few_clusters.total(fewest, name="few_clusters", is_corrected=_is_corrected(clusters))
        )
    sides: list[Diagnostic] = []
    for metric in metrics:
        moments = arms.moments[metric.name]
        for treatment, clustering in enumerate(clusterings[metric.name], start=1):
            levels = (arms.levels[0], arms.levels[treatment])
            pair = (moments[0], moments[treatment])
            sides += _arm_clusters(metric, levels, pair, clustering)
    if sides:
        found.append(min(sides, key=lambda item: (item.passed is None, item.statistic)))
    return found


def _cluster_errors(clusters: Clusters) -> Diagnostic:
    """Which correction and which degrees of freedom were used; the first may follow the data."""
    by = " and ".join(clusters.columns)
    detail = f"clustered by {by}: {clusters.correction}, {clusters.degrees_of_freedom}"
    if clusters.degrees_of_freedom == "satterthwaite" and not all(clusters.held):
        detail += (
            f"; more than {MAX_CLUSTERS:,} clusters, so the degrees of freedom count them and do "
            "not look at their sizes"
        )
    return note("cluster_errors", None, detail)


def _arm_clusters(
    metric: Metric, levels: tuple[Level, Level], moments: tuple[Gram, Gram], clustering: Clustering
) -> list[Diagnostic]:
    """Clusters of each arm, of the column that has more of them.

    The other usually crosses the arms; its total, and the degrees of freedom, say enough.
    """
    outcome = metric.quotients[0]
    gradient = np.hstack(
        [-outcome.gradient(moments[CONTROL].mean), outcome.gradient(moments[TREATMENT].mean)]
    )
    way = max(clustering.one_ways, key=lambda item: item.n_clusters)
    return few_clusters.sides(
        dict(zip(map(str, levels), way.arm_clusters, strict=True)),
        name="arm_clusters",
        effective=way.effective_clusters(gradient, moments, correction=clustering.correction),
        is_corrected=_is_corrected(clustering),
    )


def _is_corrected(how: Clusters | Clustering) -> bool:
    """Whether variance and reference look at each arm's clusters."""
    return how.correction in {"cr2", "cr3"} and how.degrees_of_freedom == "satterthwaite"


def comparison_checks(
    comparison: Comparison, raw: Readout, adjusted: Readout | None, how: Inference
) -> list[Diagnostic]:
    """Scale of the lift, gain of the adjustment, balance of the covariates, guardrail."""
    found = _relative_scale(comparison, adjusted or raw, how)
    if adjusted is not None:
        found.append(_variance_reduction(comparison, raw, adjusted))
    if comparison.metric.covariates:
        found.append(_balance(comparison))
    if comparison.metric.role == "guardrail":
        found.append(_guardrail(comparison, adjusted or raw, how))
    return found


def _guardrail(comparison: Comparison, readout: Readout, how: Inference) -> Diagnostic:
    metric = comparison.metric
    is_relative = metric.margin_scale == "relative"
    effects = [effect for effect in readout.effects if effect.scale == metric.margin_scale]
    if not effects or (is_relative and not readout.levels.value[CONTROL] > 0):
        needed = "a treatment" if _is_exactly_nothing(readout) else "a control level clearly"
        return Diagnostic(
            name=f"guardrail.{metric.name}.{comparison.term}",
            statistic=None,
            pvalue=None,
            passed=None,
            detail=f"{metric.name}: a relative margin needs {needed} above zero",
        )
    statistic = None
    if is_relative and metric.margin is not None and how.relative_interval == "fieller":
        sign = 1.0 if metric.direction == "increase" else -1.0
        limit = -sign * metric.margin
        statistic = sign * lift_distance(readout.levels, readout.spread, lift_=limit)
    return guardrail.check(
        effects[0], direction=metric.direction, margin=metric.margin, statistic=statistic
    )


def _relative_scale(comparison: Comparison, readout: Readout, how: Inference) -> list[Diagnostic]:
    """Says when a level is zero, or the control's negative or too close to zero for a lift."""
    name = f"relative_scale.{comparison.metric.name}.{comparison.term}"
    if _is_exactly_nothing(readout):
        detail = (
            f"{comparison.metric.name} is zero throughout the treatment: its lift of -100 % has no "
            "standard error and is not reported"
        )
        return [Diagnostic(name=name, statistic=None, pvalue=None, passed=None, detail=detail)]
    is_unbounded = readout.levels.value[CONTROL] != 0 and len(readout.effects) == 1
    control = float(readout.levels.value[CONTROL])
    std_error = float(np.sqrt(readout.spread.covariance[CONTROL, CONTROL]))
    ratio = _in_std_errors(control, std_error)
    if how.relative_interval == "fieller" and ratio > 0 and not is_unbounded:
        return []
    if ratio >= SAFE_CONTROL_LEVEL:
        return []
    level = f"the control level of {comparison.metric.name} is {control:.4g} (± {std_error:.2g})"
    if control == 0:
        detail = f"{level}: a lift has no meaning and is not reported"
    elif is_unbounded:
        detail = (
            f"{level}: not different from zero, so no finite interval holds the lift at "
            f"{how.confidence_level:.0%} and none is reported"
        )
    elif ratio <= -SAFE_CONTROL_LEVEL:
        detail = f"{level}: the lift of a negative level has the opposite sign of the difference"
    else:
        detail = f"{level}: too close to zero for the interval of the lift to be trusted"
    statistic = ratio if math.isfinite(ratio) else None
    return [Diagnostic(name=name, statistic=statistic, pvalue=None, passed=None, detail=detail)]


def _is_exactly_nothing(readout: Readout) -> bool:
    """Whether the treatment is zero without any spread, beside a control that is not."""
    is_zero = readout.levels.value[TREATMENT] == 0 and readout.levels.value[CONTROL] != 0
    return bool(is_zero and len(readout.effects) == 1)


def _in_std_errors(level: float, std_error: float) -> float:
    if std_error > 0:
        return level / std_error
    return math.copysign(math.inf, level) if level else 0.0


def _variance_reduction(comparison: Comparison, raw: Readout, adjusted: Readout) -> Diagnostic:
    before, after = raw.effects[0], adjusted.effects[0]
    share = 1.0 - after.std_error**2 / before.std_error**2
    is_significant = after.ci_lower > 0 or after.ci_upper < 0
    agree = np.sign(before.estimate) == np.sign(after.estimate)
    signs = "the same sign" if agree else "opposite signs"
    what = "strata and covariates" if len(adjusted.levels.thetas) else "strata"
    if adjusted.comparison.joint is raw.comparison.joint:
        what = "covariates"
    gain = f"remove {share:.1%} of" if share >= 0 else f"add {-share:.1%} to"
    return Diagnostic(
        name=f"variance_reduction.{comparison.metric.name}.{comparison.term}",
        statistic=share,
        pvalue=None,
        passed=bool(agree or not is_significant),
        detail=(
            f"the {what} {gain} the variance of {comparison.metric.name}; "
            f"adjusted {after.estimate:+.4g} and raw {before.estimate:+.4g} have {signs}"
        ),
    )


def _balance(comparison: Comparison) -> Diagnostic:
    """Joint test of the covariates' own differences between the two arms."""
    covariates = comparison.metric.quotients[1:]
    control, treatment = (gram.mean for gram in comparison.moments)
    differences = np.array([x.value(treatment) - x.value(control) for x in covariates])
    gradients = [np.array([x.gradient(mean) for x in covariates]) for mean in (control, treatment)]
    if comparison.joint is not None:
        whole = np.hstack([-gradients[CONTROL], gradients[TREATMENT]])
        covariance = np.sum([whole @ part @ whole.T for part in comparison.joint.parts], axis=0)
        joint, moments = comparison.joint, comparison.moments
        df: float | None = min(joint.df(row, moments) for row in whole)
    else:
        parts = [
            gradient @ gram.covariance @ gradient.T / gram.n
            for gradient, gram in zip(gradients, comparison.moments, strict=True)
        ]
        covariance, df = np.sum(parts, axis=0), None
    return covariate_balance.check(
        differences,
        covariance,
        covariates=[x.name for x in covariates],
        subject=f"{comparison.metric.name}.{comparison.term}",
        alpha=BALANCE_ALPHA,
        df=df,
    )
