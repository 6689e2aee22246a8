"""Whether an experiment may be read at all: lost values, shares by segment, covariates, power."""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.checks import srm
from causal.checks.panel_health import note
from causal.core.frames import FrameRequest, Level
from causal.core.gram import Array
from causal.core.inference import two_sided_pvalue
from causal.core.result import Diagnostic
from causal.experiments.arms import Arms, Design
from causal.experiments.cluster_sums import ask_count_covariance
from causal.experiments.comparison import Comparison, Readout
from causal.experiments.levels import CONTROL, TREATMENT, welch_satterthwaite
from causal.experiments.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class ShareTest:
    """What the arms' shares in segments are held against.

    Attributes:
        alpha: The check fails when the corrected p-value is below it.
        is_planned: Whether the shares were planned; otherwise they are those of all units.
    """

    alpha: float
    is_planned: bool


AGREEMENT_ALPHA = 0.001
MIN_EXPECTED = 5.0
"""Units that the smallest arm of a segment must be due for the chi-square law to hold."""
MISSING_ALPHA = 0.001


def ask_sample_ratio(
    design: Design,
    arms: Arms,
    *,
    expected_shares: Mapping[Level, float] | None,
    alpha: float,
    cluster: tuple[str, ...],
) -> Generator[FrameRequest, pd.DataFrame, Diagnostic]:
    """Do the arms hold the shares of units that were planned?

    Args:
        design: Who was randomised to what.
        arms: The arms that are compared.
        expected_shares: Planned share of each variant; `None`: equal ones, for information.
        alpha: The check fails below it.
        cluster: Columns of what was randomised; empty: units.

    Raises:
        DataError: A planned variant has no unit, or a variant of the data no planned share.
    """
    if design.treatments is None and expected_shares is not None:
        srm.check_present(arms.levels, expected_shares)
    shares = srm.planned_shares(arms.levels, expected_shares)
    is_assumed = expected_shares is None
    if not cluster:
        return srm.check(arms.counts, shares=shares, alpha=alpha, is_assumed=is_assumed)
    covariance = yield from ask_count_covariance(design, arms, cluster=cluster, shares=shares)
    return srm.check_clustered(
        arms.counts, covariance, shares=shares, alpha=alpha, is_assumed=is_assumed
    )


def missingness(metrics: Sequence[Metric], arms: Arms, *, is_clustered: bool) -> list[Diagnostic]:
    """Are values lost at the same rate in every arm? Pearson's test of each metric that lacks some.

    Loss that depends on the arm compares different kinds of units, whatever the effect. The test
    takes units as independent: where clusters were randomised the rates are shown without it.
    """
    from scipy import stats

    found = []
    for metric in metrics:
        moments = arms.moments[metric.name]
        table = np.array([[gram.n_missing, gram.n] for gram in moments], dtype=np.float64)
        if not table[:, 0].any():
            continue
        test = stats.chi2_contingency(table, correction=False)
        rates = ", ".join(
            f"{level} {rate:.2%}"
            for level, rate in zip(arms.levels, table[:, 0] / table.sum(axis=1), strict=True)
        )
        if is_clustered:
            detail = (
                f"{metric.name}: values are missing ({rates}); no test, for units share clusters"
            )
            found.append(note(f"missingness.{metric.name}", None, detail))
            continue
        passed = bool(test.pvalue >= MISSING_ALPHA)
        verdict = "values are missing alike in all arms" if passed else "loss depends on the arm"
        found.append(
            Diagnostic(
                name=f"missingness.{metric.name}",
                statistic=float(test.statistic),
                pvalue=float(test.pvalue),
                passed=passed,
                detail=f"{metric.name}: {verdict} ({rates}); p = {test.pvalue:.3g}",
            )
        )
    return found


def segment_ratio(
    counts: Mapping[tuple[Level, Level | None], int],
    *,
    column: str,
    shares: Mapping[Level, float],
    covariances: Mapping[Level, Array] | None,
    plan: ShareTest,
) -> Diagnostic:
    """Do the arms hold their shares in every segment? The worst p-value times their number.

    Args:
        counts: Rows by variant and segment; rows without a segment are not tested, nor segments
            in which an arm is due fewer than `MIN_EXPECTED` units.
        column: Column of the segments.
        shares: Share of each arm that is compared.
        covariances: Of clustered counts, by segment; `None`: independent units.
        plan: Whether the shares were planned, and the level of the test.
    """
    segments = sorted({key for _, key in counts if key is not None}, key=str)
    checks = {}
    for segment in segments:
        found = {level: counts.get((level, segment), 0) for level in shares}
        if sum(found.values()) * min(shares.values()) < MIN_EXPECTED:
            continue
        checks[segment] = (
            srm.check(found, shares=tuple(shares.values()), alpha=plan.alpha)
            if covariances is None
            else srm.check_clustered(
                found, covariances[segment], shares=tuple(shares.values()), alpha=plan.alpha
            )
        )
    pvalues = {key: item.pvalue for key, item in checks.items() if item.pvalue is not None}
    name = f"{srm.NAME if plan.is_planned else srm.ASSUMED}.{column}"
    if not pvalues:
        detail = f"no segment of {column} has counts that can be tested"
        return Diagnostic(name=name, statistic=None, pvalue=None, passed=None, detail=detail)
    worst = min(pvalues, key=lambda segment: (pvalues[segment], str(segment)))
    pvalue = min(1.0, len(pvalues) * pvalues[worst])
    passed = pvalue >= plan.alpha
    listed = ", ".join(
        f"{level} {counts.get((level, worst), 0):,} (share {share:.2%})"
        for level, share in shares.items()
    )
    verdict = "the split fits in every segment" if passed else "the split does not fit everywhere"
    return Diagnostic(
        name=name,
        statistic=checks[worst].statistic,
        pvalue=pvalue,
        passed=passed,
        detail=(
            f"{verdict}; worst of {len(pvalues)}: {column}={worst}: {listed}; "
            f"p times {len(pvalues)} = {pvalue:.3g}, alpha {plan.alpha:g}"
        ),
    )


def agreement(comparison: Comparison, raw: Readout, adjusted: Readout) -> Diagnostic | None:
    """Do the adjusted and the raw effect tell the same story?

    Their difference is the covariates' imbalance times their coefficients, so under randomisation
    it has mean zero and the variance that the same levels without the outcome have.

    Returns:
        The test; `None` where the adjustment has no covariate.
    """
    if not len(adjusted.levels.thetas):
        return None
    gap = adjusted.effects[0].estimate - raw.effects[0].estimate
    std_error = math.sqrt(_gap_variance(comparison, raw, adjusted))
    name = f"cuped_agreement.{comparison.metric.name}.{comparison.term}"
    if not std_error > 0:
        detail = f"{comparison.metric.name}: the covariates cannot move the effect"
        return Diagnostic(name=name, statistic=None, pvalue=None, passed=None, detail=detail)
    statistic = gap / std_error
    pvalue = two_sided_pvalue(statistic, df=_gap_df(comparison, raw, adjusted))
    passed = pvalue >= AGREEMENT_ALPHA
    verdict = "as chance moves it" if passed else "more than chance does: look at the covariates"
    return Diagnostic(
        name=name,
        statistic=statistic,
        pvalue=pvalue,
        passed=passed,
        detail=(
            f"{comparison.metric.name}: the covariates move the effect by {gap:+.4g}, {verdict}; "
            f"p = {pvalue:.3g}"
        ),
    )


def power_reached(readout: Readout, *, power: float) -> Diagnostic:
    """The smallest effect that this experiment finds with the power asked for.

    `(t_(1 - alpha/2) + t_power) * std_error`, from the standard error that was reached.
    """
    from scipy import stats

    effect = readout.effects[0]
    alpha = 1.0 - effect.confidence_level
    shares = np.array([1 - alpha / 2, power])
    steps = stats.norm.ppf(shares) if effect.df is None else stats.t.ppf(shares, effect.df)
    mde = float(steps.sum()) * effect.std_error
    level = abs(float(readout.levels.value[CONTROL]))
    relative = f", {mde / level:.2%} of the control level" if level > 0 else ""
    return Diagnostic(
        name=f"mde.{effect.metric}.{effect.term}",
        statistic=mde,
        pvalue=None,
        passed=None,
        detail=(
            f"{effect.metric}: an effect of {mde:.4g}{relative} is found with power {power:.0%} at "
            f"alpha {alpha:.3g}"
        ),
    )


def layers(
    counts: Mapping[tuple[Level, Level | None], int], arms: Arms, *, column: str, alpha: float
) -> Diagnostic:
    """Were two experiments assigned independently of each other? Pearson's test of their counts."""
    from scipy import stats

    name = f"independent_assignment.{column}"
    others = sorted({key for _, key in counts if key is not None}, key=str)
    table = np.array([[counts.get((level, other), 0) for other in others] for level in arms.levels])
    if not (table.sum(axis=1) > 0).all():
        detail = f"an arm has no unit with a value of {column}: independence is not tested"
        return Diagnostic(name=name, statistic=None, pvalue=None, passed=None, detail=detail)
    test = stats.chi2_contingency(table, correction=False)
    passed = bool(test.pvalue >= alpha)
    verdict = "independent of" if passed else "not independent of"
    return Diagnostic(
        name=name,
        statistic=float(test.statistic),
        pvalue=float(test.pvalue),
        passed=passed,
        detail=f"the assignment is {verdict} {column}; p = {test.pvalue:.3g}, alpha {alpha:g}",
    )


def layers_untested(*, column: str) -> Diagnostic:
    """Pearson's test of two assignments counts units as independent, which clusters make them not.

    Args:
        column: Column of the other experiment's arm.
    """
    detail = f"whether {column} was assigned independently is not tested: units share clusters"
    return note(f"independent_assignment.{column}", None, detail)


def _gap_gradients(raw: Readout, adjusted: Readout) -> tuple[Array, Array]:
    """The adjusted less the raw effect as a linear combination of each arm's mean vector."""
    steps = [
        adjusted.levels.gradient(arm) - raw.levels.gradient(arm) for arm in (CONTROL, TREATMENT)
    ]
    first, second = (step[TREATMENT] - step[CONTROL] for step in steps)
    return first, second


def _gap_df(comparison: Comparison, raw: Readout, adjusted: Readout) -> float:
    gradients = _gap_gradients(raw, adjusted)
    if comparison.joint is not None:
        return comparison.joint.df(np.hstack(gradients), comparison.moments)
    moments = comparison.moments
    variances = [
        float(g @ gram.covariance @ g) / gram.n for g, gram in zip(gradients, moments, strict=True)
    ]
    return welch_satterthwaite(variances, [gram.n - 1.0 for gram in moments])


def _gap_variance(comparison: Comparison, raw: Readout, adjusted: Readout) -> float:
    """Variance of the adjusted less the raw effect: linear in the same mean vectors."""
    gradients = _gap_gradients(raw, adjusted)
    if comparison.joint is not None:
        whole = np.hstack(gradients)
        return max(sum(float(whole @ part @ whole) for part in comparison.joint.parts), 0.0)
    total = 0.0
    for gradient, gram in zip(gradients, comparison.moments, strict=True):
        total += float(gradient @ gram.covariance @ gradient) / gram.n
    return max(total, 0.0)
