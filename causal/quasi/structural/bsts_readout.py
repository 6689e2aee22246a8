"""Effects, checks and tables of a Bayesian structural time series."""

import math
from typing import Any

import numpy as np
import pandas as pd

from causal.checks import forecast_fit, panel_health
from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.core.readout import Readout
from causal.core.result import Diagnostic, Effect, Scale
from causal.quasi.structural.bsts_options import BstsOptions, BstsSpec
from causal.quasi.structural.bsts_report import report
from causal.quasi.structural.convergence import effective_size, split_rhat
from causal.quasi.structural.impact import Impact, impact
from causal.quasi.structural.placebo_start import placebo_position
from causal.quasi.time_axis import shown

_MAX_SHOWN = 8
_PLACEBO_SEED = 1


def readout(spec: BstsSpec, found: Impact, *, outcome: str) -> Readout:
    """What one outcome says."""
    effects = _effects(spec, found, outcome=outcome)
    series = found.series
    shares = _outside(found)
    diagnostics = [
        *series.notes,
        forecast_fit.one_step_error(found.one_step_errors, series.outcome[: series.n_pre]),
        forecast_fit.one_step_coverage(
            found.one_step_errors, found.one_step_sd, confidence_level=spec.confidence_level
        ),
        forecast_fit.residual_autocorrelation(found.one_step_errors / found.one_step_sd),
        *_placebo_check(spec, found),
        _convergence_check(found),
        *_covariate_notes(found, shares),
    ]
    if len(effects) < 3:  # noqa: PLR2004 - average, cumulative, relative
        detail = "no relative effect: the outcome or its prediction is not positive"
        diagnostics.append(panel_health.note("relative_effect", None, detail))
    tables = {
        "series": _series_table(found, confidence_level=spec.confidence_level),
        "parameters": _parameter_table(spec.options, found),
    }
    if series.names:
        tables["inclusion"] = _inclusion_table(found)
    text = report(effects, tail_probability=found.tail_probability(), series=series)
    tables["report"] = pd.DataFrame({"text": text})
    return Readout(
        effects=effects,
        diagnostics=tuple(diagnostics),
        params=_params(found),
        tables={name: _of_metric(table, outcome) for name, table in tables.items()},
    )


def _effects(spec: BstsSpec, found: Impact, *, outcome: str) -> tuple[Effect, ...]:
    """Average, cumulative and relative effect with posterior deviations and credible intervals."""
    series = found.series
    factor = series.n_post * series.n_regions
    wanted: list[tuple[str, Scale, float, Array]] = [
        ("average", "absolute", found.estimate, found.average),
        ("cumulative", "absolute", factor * found.estimate, factor * found.average),
    ]
    relative = found.relative
    if relative is not None:
        wanted.append(("average", "relative", float(relative.mean()), relative))
    pvalue = found.tail_probability()
    if spec.options.tail == "two_sided":
        pvalue = min(1.0, 2.0 * pvalue)
    tail = (1.0 - spec.confidence_level) / 2
    effects = []
    for term, scale, estimate, draws in wanted:
        std_error = float(draws.std(ddof=1))
        if not (math.isfinite(std_error) and std_error > 0):
            raise InferenceError(f"{outcome}: the draws of the effect do not vary", given=std_error)
        lower, upper = np.quantile(draws, [tail, 1.0 - tail])
        effects.append(
            Effect(
                estimator="bsts", estimand="att", metric=outcome, term=term, scale=scale,
                estimate=estimate, std_error=std_error, statistic=estimate / std_error, df=None,
                ci_lower=float(lower), ci_upper=float(upper),
                confidence_level=spec.confidence_level, pvalue=pvalue,
                n_treated=series.n_post if series.n_donors is None else series.n_regions,
                n_control=series.n_pre if series.n_donors is None else series.n_donors,
            )
        )  # fmt: skip
    return tuple(effects)


def _params(found: Impact) -> dict[str, Any]:
    series = found.series
    return {
        "tail_probability": found.tail_probability(),
        "observed_mean": found.observed,
        "predicted_mean": found.observed - found.estimate,
        "predicted_sd": float(found.average.std(ddof=1)),
        "n_periods_before": series.n_pre,
        "n_periods_after": series.n_post,
        "n_covariates": len(series.names),
        "n_draws": len(found.draws.sigma),
        "residual_sd": float(found.scale * found.draws.sigma.mean()),
        "level_sd": float(found.scale * found.draws.steps[:, 0].mean()),
    }


def _placebo_check(spec: BstsSpec, found: Impact) -> list[Diagnostic]:
    """The same model on the periods before the start, cut earlier: there should be no effect."""
    options = spec.options
    if not options.placebo:
        return []
    position = placebo_position(options, found.series)
    early = None if position is None else found.series.pretending(position)
    if early is None or early.flat_covariates() or np.ptp(early.outcome[: early.n_pre]) == 0:
        detail = "too few periods before the start for a pretended one"
        return [panel_health.note("in_time_placebo", None, detail)]
    placebo = impact(early, options, seed=spec.seed + _PLACEBO_SEED)
    pvalue = min(1.0, 2.0 * placebo.tail_probability())
    tail = (1.0 - spec.confidence_level) / 2
    lower, upper = np.quantile(placebo.average, [tail, 1.0 - tail])
    detail = (
        f"pretending a start in {shown(early.labels[early.n_pre])} gives {placebo.estimate:+.4g}, "
        f"{spec.confidence_level:.0%} interval [{lower:+.4g}, {upper:+.4g}] over {early.n_post} "
        "periods before the true start; there should be no effect"
    )
    return [
        Diagnostic(
            name="in_time_placebo", statistic=placebo.estimate, pvalue=pvalue,
            passed=bool(lower <= 0 <= upper), detail=detail,
        )
    ]  # fmt: skip


def _convergence_check(found: Impact) -> Diagnostic:
    watched = [_by_chain(found, draws) for draws in (found.average, found.draws.sigma)]
    return forecast_fit.convergence(
        rhat=max(split_rhat(draws) for draws in watched),
        effective=min(effective_size(draws) for draws in watched),
        n_draws=len(found.draws.sigma),
    )


def _by_chain(found: Impact, draws: Array) -> Array:
    return draws.reshape(found.draws.n_chains, -1)


def _covariate_notes(found: Impact, shares: dict[str, float]) -> list[Diagnostic]:
    names = found.series.names
    notes = [forecast_fit.untouched_covariates(len(names))]
    if names:
        table = _inclusion_table(found).head(_MAX_SHOWN)
        listed = ", ".join(
            f"{name} {share:.0%}"
            for name, share in zip(table["covariate"], table["inclusion_probability"], strict=True)
        )
        size = float((found.draws.coefficients != 0).sum(axis=1).mean())
        notes += [
            panel_health.note(
                "inclusion", size,
                f"{size:.1f} of {len(names)} covariates matter on average, by probability: "
                f"{listed}",
            ),
            forecast_fit.outside_range(shares),
        ]  # fmt: skip
    return notes


def _outside(found: Impact) -> dict[str, float]:
    series = found.series
    before, after = series.covariates[: series.n_pre], series.covariates[series.n_pre :]
    outside = (after < before.min(axis=0)) | (after > before.max(axis=0))
    return dict(zip(series.names, outside.mean(axis=0).tolist(), strict=True))


def _series_table(found: Impact, *, confidence_level: float) -> pd.DataFrame:
    """Observed, predicted and the effects by period, with credible intervals."""
    series, tail = found.series, (1.0 - confidence_level) / 2
    predicted = found.means.mean(axis=0)
    lower, upper = np.quantile(found.paths, [tail, 1.0 - tail], axis=0)
    is_post = np.arange(len(series.labels)) >= series.n_pre
    effects = np.where(is_post, series.outcome - predicted, 0.0)
    gaps = series.n_regions * np.where(is_post, series.outcome - found.paths, 0.0)
    cumulative_lower, cumulative_upper = np.quantile(
        np.cumsum(gaps, axis=1), [tail, 1.0 - tail], axis=0
    )
    return pd.DataFrame(
        {
            "period": list(series.labels),
            "event_time": np.arange(len(series.labels)) - series.n_pre,
            "is_post": is_post,
            "observed": series.outcome,
            "predicted": predicted,
            "predicted_lower": lower,
            "predicted_upper": upper,
            "effect": series.outcome - predicted,
            "effect_lower": series.outcome - upper,
            "effect_upper": series.outcome - lower,
            "cumulative_effect": series.n_regions * np.cumsum(effects),
            "cumulative_lower": cumulative_lower,
            "cumulative_upper": cumulative_upper,
        }
    )


def _inclusion_table(found: Impact) -> pd.DataFrame:
    """How often each covariate is included, and its coefficient where it is; likeliest first."""
    draws = found.draws.coefficients
    inside = draws != 0
    counts = inside.sum(axis=0)
    scaled = draws * (found.scale / found.covariate_scales)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = scaled.sum(axis=0) / counts
        squares = (np.where(inside, scaled - means, 0.0) ** 2).sum(axis=0)
        table = pd.DataFrame(
            {
                "covariate": list(found.series.names),
                "inclusion_probability": inside.mean(axis=0),
                "coefficient": means,
                "coefficient_sd": np.sqrt(squares / (counts - 1)),
                "positive_probability": (draws > 0).sum(axis=0) / counts,
            }
        )
    return table.sort_values(
        "inclusion_probability", ascending=False, kind="stable", ignore_index=True
    )


def _parameter_table(options: BstsOptions, found: Impact) -> pd.DataFrame:
    draws = found.draws
    named: list[tuple[str, Array]] = [
        ("average_effect", found.average),
        ("residual_sd", found.scale * draws.sigma),
    ]
    named += [
        (f"{name}_sd", found.scale * steps)
        for name, steps in zip(options.components.step_names, draws.steps.T, strict=True)
    ]
    rows = []
    for name, values in named:
        chains = _by_chain(found, values)
        low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
        rows.append(
            {
                "parameter": name, "mean": float(values.mean()), "sd": float(values.std(ddof=1)),
                "q025": low, "median": middle, "q975": high,
                "rhat": split_rhat(chains), "effective_draws": effective_size(chains),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _of_metric(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    return table.assign(metric=outcome)[["metric", *table.columns]]
