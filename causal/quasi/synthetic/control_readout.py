"""Effects, checks and tables of a synthetic control."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causal.checks import donor_pool, panel_health
from causal.core.errors import InferenceError
from causal.core.readout import Readout
from causal.core.result import Diagnostic, Effect
from causal.quasi.synthetic.conformal import conformal_intervals
from causal.quasi.synthetic.control_options import SyntheticControlSpec
from causal.quasi.synthetic.control_rules import fit_rule
from causal.quasi.synthetic.control_study import (
    LeftOut,
    Study,
    held_out_gap,
    in_time_placebo,
    leave_one_out,
)
from causal.quasi.synthetic.donor_fit import DonorFit
from causal.quasi.synthetic.predictor_table import PredictorTable
from causal.quasi.synthetic.region_effects import with_cumulative_and_relative
from causal.quasi.synthetic.region_notes import region_notes
from causal.quasi.synthetic.region_panel import RegionPanel
from causal.quasi.synthetic.simplex_least_squares import is_unique
from causal.quasi.time_axis import label_of, shown

_ESTIMATORS = {
    "standard": "synthetic_control",
    "demeaned": "demeaned_synthetic_control",
    "ridge_augmented": "augmented_synthetic_control",
    "penalised": "penalised_synthetic_control",
}


def readout(
    spec: SyntheticControlSpec, found: Study, predictors: PredictorTable | None, *, outcome: str
) -> Readout:
    """What one outcome says."""
    rule = fit_rule(spec.options, predictors)
    left_out = leave_one_out(found, rule) if spec.options.leave_one_out else ()
    tables = {
        "paths": paths_table(found.fits, found.panel),
        "weights": _weights_table(found),
        "placebos": _placebo_table(found),
        "placebo_gaps": _placebo_gaps_table(found),
    }
    diagnostics = [
        *region_notes(found.panel),
        *_fit_checks(spec, found),
        *_placebo_checks(spec, found),
        *_in_time_check(spec, found.panel, predictors),
    ]
    if left_out:
        tables["leave_one_out"] = _left_out_table(left_out, found.panel)
        diagnostics.append(_left_out_note(left_out, found))
    if predictors is not None:
        tables["predictors"] = _predictor_table(found, predictors)
    if spec.options.conformal:
        tables["conformal_intervals"], note = _conformal(spec, found)
        diagnostics.append(note)
    return Readout(
        effects=_effects(spec, found, outcome=outcome),
        diagnostics=tuple(diagnostics),
        params=_params(found),
        tables={name: _of_metric(table, outcome) for name, table in tables.items()},
    )


def paths_table(fits: Sequence[DonorFit], panel: RegionPanel) -> pd.DataFrame:
    """Observed and synthetic path of each treated region."""
    parts = []
    for item in fits:
        positions = np.arange(len(panel.periods)) - item.task.n_pre
        parts.append(
            pd.DataFrame(
                {
                    "unit": str(panel.units[item.task.target]), "period": panel.periods,
                    "event_time": positions, "observed": panel.values[item.task.target],
                    "synthetic": item.synthetic, "gap": item.gaps, "is_post": positions >= 0,
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _effects(spec: SyntheticControlSpec, found: Study, *, outcome: str) -> tuple[Effect, ...]:
    """The average effect with the spread of the placebos, their ranks and the inverted test."""
    test, estimate = found.test, found.observed.effect
    if not (math.isfinite(test.std_error) and test.std_error > 0):
        raise InferenceError("the placebo effects do not vary", given=f"{test.std_error}")
    average = Effect(
        estimator=_ESTIMATORS[spec.options.variant],
        estimand="att",
        metric=outcome,
        term="average",
        scale="absolute",
        estimate=estimate,
        std_error=test.std_error,
        statistic=estimate / test.std_error,
        df=None,
        ci_lower=test.ci_lower,
        ci_upper=test.ci_upper,
        confidence_level=spec.confidence_level,
        pvalue=test.pvalue,
        n_treated=len(found.fits),
        n_control=len(found.panel.donors),
    )
    return with_cumulative_and_relative(average, found.panel)


def _params(found: Study) -> dict[str, Any]:
    observed = found.observed
    params: dict[str, Any] = {
        "pre_rmspe": math.sqrt(observed.pre_mspe),
        "pre_mspe": observed.pre_mspe,
        "post_rmspe": math.sqrt(observed.post_mspe),
        "rmspe_ratio": observed.rmspe_ratio,
        "rmspe_ratio_pvalue": found.test.rmspe_pvalue,
        "n_placebos": len(found.placebos.averages),
        "n_periods_before": max(item.task.n_pre for item in found.fits),
    }
    ridges = [item.ridge for item in found.fits if item.ridge is not None]
    penalties = [item.penalty for item in found.fits if item.penalty is not None]
    return (
        params
        | ({"ridge": ridges[0]} if ridges else {})
        | ({"penalty": float(np.median(penalties))} if penalties else {})
    )


def _fit_checks(spec: SyntheticControlSpec, found: Study) -> list[Diagnostic]:
    observed, fits = found.observed, found.fits
    spread = np.concatenate([item.task.goal for item in fits]).std()
    later, earlier = held_out_gap(fits)
    n_periods = min(len(item.task.matched) for item in fits)
    outside = sum(_n_outside(item) for item in fits)
    size = f", {math.sqrt(observed.pre_mspe) / spread:.1%} of its spread" if spread > 0 else ""
    checks = [
        panel_health.note(
            "pre_rmspe", math.sqrt(observed.pre_mspe),
            f"root mean squared gap before the start {math.sqrt(observed.pre_mspe):.4g}{size}",
        ),
        donor_pool.convex_hull(
            outside, n_periods=sum(len(item.task.matched) for item in fits),
            is_needed=spec.options.variant in {"standard", "penalised"},
        ),
        donor_pool.over_fit(
            held_out=later, fitted=earlier, n_donors=len(found.panel.donors), n_periods=n_periods
        ),
        donor_pool.effective_donors(
            np.mean([item.weights for item in fits], axis=0), subject="the synthetic region"
        ),
    ]  # fmt: skip
    if not all(_has_unique_weights(spec, item) for item in fits):
        checks.append(donor_pool.weights_not_unique(subject="the treated region"))
    return checks


def _n_outside(item: DonorFit) -> int:
    pool, goal = item.task.pool, item.task.goal
    return int(((goal < pool.min(axis=1)) | (goal > pool.max(axis=1))).sum())


def _has_unique_weights(spec: SyntheticControlSpec, item: DonorFit) -> bool:
    is_strict = spec.options.variant == "ridge_augmented" or bool(item.penalty)
    if is_strict or spec.options.has_predictors:
        return True
    return is_unique(
        item.weights, item.task.pool, item.task.goal,
        has_intercept=spec.options.variant == "demeaned",
    )  # fmt: skip


def _placebo_checks(spec: SyntheticControlSpec, found: Study) -> list[Diagnostic]:
    n, placebos = len(found.placebos.averages), found.placebos
    kind = "every" if placebos.is_exhaustive else "a random"
    sets = "donor" if len(found.fits) == 1 else f"set of {len(found.fits)} donors"
    rank = round(found.test.rmspe_pvalue * (n + 1))
    checks = [
        Diagnostic(
            name="rmspe_ratio", statistic=found.observed.rmspe_ratio,
            pvalue=found.test.rmspe_pvalue, passed=None,
            detail=f"the gap after the start is {found.observed.rmspe_ratio:.3g} times the one "
            f"before, rank {rank} of {n + 1} among placebos",
        ),
        panel_health.note(
            "placebos", n,
            f"std_error is the standard deviation of {n} placebo effects, {kind} {sets} in place "
            "of the treated; pvalue and interval rank the effect in units of the fit before",
        ),
    ]  # fmt: skip
    if placebos.n_left_out:
        detail = f"{placebos.n_left_out} placebos left out for their poor fit before the start"
        checks.append(panel_health.note("n_placebos_left_out", placebos.n_left_out, detail))
    if not math.isfinite(found.test.ci_upper):
        detail = (
            f"with {n} placebos the smallest p-value is {1 / (n + 1):.3g}: no effect can be "
            f"rejected at level {1 - spec.confidence_level:.3g} and the interval is unbounded"
        )
        checks.append(panel_health.note("resolution", 1 / (n + 1), detail))
    if n < donor_pool.FEW_PLACEBOS:
        checks.append(donor_pool.few_placebos(n, is_normal=False))
    return checks


def _in_time_check(
    spec: SyntheticControlSpec, panel: RegionPanel, predictors: PredictorTable | None
) -> list[Diagnostic]:
    placebo = in_time_placebo(spec, panel, predictors)
    period = spec.options.placebo_period
    if placebo is None or period is None:
        return []
    observed, test = placebo
    detail = (
        f"pretending a start in {shown(label_of(period))} gives {observed.effect:+.4g}, "
        f"p = {test.pvalue:.3g}; there should be no effect"
    )
    return [
        Diagnostic(
            name="in_time_placebo", statistic=observed.effect, pvalue=test.pvalue,
            passed=test.pvalue > 1 - spec.confidence_level, detail=detail,
        )
    ]  # fmt: skip


def _left_out_note(left_out: Sequence[LeftOut], found: Study) -> Diagnostic:
    effects = [item.average.effect for item in left_out]
    low, high = min(effects), max(effects)
    detail = (
        f"without one donor at a time the effect lies between {low:+.4g} and {high:+.4g} "
        f"({found.observed.effect:+.4g} with all)"
    )
    return panel_health.note("leave_one_out", high - low, detail)


def _conformal(spec: SyntheticControlSpec, found: Study) -> tuple[pd.DataFrame, Diagnostic]:
    rule, parts, pvalues = fit_rule(spec.options, None), [], []
    for item in found.fits:
        ends = conformal_intervals(item.task, rule, confidence_level=spec.confidence_level)
        pvalues.append(ends.pvalue)
        parts.append(
            pd.DataFrame(
                {
                    "unit": str(found.panel.units[item.task.target]),
                    "period": found.panel.periods[item.task.n_pre :], "gap": item.after,
                    "ci_lower": ends.lower, "ci_upper": ends.upper,
                }
            )
        )  # fmt: skip
    worst = max(pvalues)
    detail = f"no effect in any period: conformal p = {worst:.3g} by cyclic shifts of time" + (
        " (the largest over treated regions)" if len(pvalues) > 1 else ""
    )
    check = Diagnostic(name="conformal", statistic=None, pvalue=worst, passed=None, detail=detail)
    return pd.concat(parts, ignore_index=True), check


def _weights_table(found: Study) -> pd.DataFrame:
    rows = [
        (str(found.panel.units[item.task.target]), str(found.panel.units[donor]), float(weight))
        for item in found.fits
        for donor, weight in zip(item.task.donors, item.weights, strict=True)
    ]
    return pd.DataFrame(rows, columns=["unit", "donor", "weight"])


def _placebo_table(found: Study) -> pd.DataFrame:
    rows = [_placebo_row(found, item, is_treated=False) for item in found.placebos.fits.values()]
    rows += [_placebo_row(found, item, is_treated=True) for item in found.fits]
    return pd.DataFrame(rows)


def _placebo_row(found: Study, item: DonorFit, *, is_treated: bool) -> Mapping[str, Any]:
    pre, post = math.sqrt(item.pre_mspe), math.sqrt(item.post_mspe)
    return {
        "unit": str(found.panel.units[item.task.target]),
        "start": found.panel.periods[item.task.n_pre],
        "is_treated": is_treated,
        "effect": item.effect,
        "pre_rmspe": pre,
        "post_rmspe": post,
        "rmspe_ratio": post / pre if pre > 0 else math.inf,
    }


def _placebo_gaps_table(found: Study) -> pd.DataFrame:
    """One row per placebo and period; made of whole columns, for there may be thousands of each."""
    fits, periods = found.placebos.fits, found.panel.periods
    n_pre = np.repeat([n for _, n in fits], len(periods))
    return pd.DataFrame(
        {
            "unit": np.repeat(
                np.array([str(unit) for unit in found.panel.names(at for at, _ in fits)], object),
                len(periods),
            ),
            "start": periods[n_pre],
            "period": np.tile(periods, len(fits)),
            "event_time": np.tile(np.arange(len(periods)), len(fits)) - n_pre,
            "gap": np.concatenate([item.gaps for item in fits.values()]),
        }
    )


def _left_out_table(left_out: Sequence[LeftOut], panel: RegionPanel) -> pd.DataFrame:
    rows = [
        (str(panel.units[item.donor]), item.average.effect, math.sqrt(item.average.pre_mspe))
        for item in left_out
    ]
    return pd.DataFrame(rows, columns=["donor", "effect", "pre_rmspe"])


def _predictor_table(found: Study, predictors: PredictorTable) -> pd.DataFrame:
    parts = []
    for item in found.fits:
        values = predictors.matrix(start=found.panel.periods[item.task.n_pre])
        parts.append(
            pd.DataFrame(
                {
                    "unit": str(found.panel.units[item.task.target]),
                    "predictor": list(predictors.names), "treated": values[:, item.task.target],
                    "synthetic": values[:, item.task.donors] @ item.weights,
                    "donor_mean": values[:, item.task.donors].mean(axis=1),
                    "importance": list(item.importance),
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _of_metric(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    return table.assign(metric=outcome)[["metric", *table.columns]]
