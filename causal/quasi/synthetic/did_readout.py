"""Effects, checks and tables of synthetic difference in differences."""

import math
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from causal.checks import donor_pool, panel_health
from causal.core.inference import effect
from causal.core.readout import Readout
from causal.core.result import Diagnostic, Effect
from causal.core.spec import Spec
from causal.quasi.synthetic.did_errors import Replicates
from causal.quasi.synthetic.did_weights import Rule
from causal.quasi.synthetic.region_effects import with_cumulative_and_relative
from causal.quasi.synthetic.region_notes import region_notes
from causal.quasi.synthetic.region_options import ColumnName, RegionOptions
from causal.quasi.synthetic.region_panel import RegionPanel
from causal.quasi.synthetic.staggered_blocks import DidFit, event_time_effects
from causal.quasi.time_axis import shown


class SyntheticDidOptions(RegionOptions):
    """Options of a synthetic difference in differences.

    Attributes:
        estimator: `sdid` (unit and time weights), `sc` (synthetic control), `difp` (de-meaned
            synthetic control) or `did` (uniform weights).
        solver: `exact`, or `frank_wolfe` with the stopping rule of the R package `synthdid`, for
            figures that were published with it.
        standard_errors: `placebo` (needs more donors than treated regions), `jackknife` (two or
            more treated regions per start) or `bootstrap` (two or more treated regions).
        n_replications: Draws of placebo and bootstrap; where there are fewer placebos than these,
            all are taken and no seed matters.
        covariates: Time-varying numeric columns whose part in the outcome is taken out first.
    """

    estimator: Literal["sdid", "sc", "difp", "did"] = "sdid"
    solver: Literal["exact", "frank_wolfe"] = "exact"
    standard_errors: Literal["placebo", "jackknife", "bootstrap"] = "placebo"
    n_replications: int = Field(default=200, ge=50, le=100_000)
    covariates: list[ColumnName] = Field(default_factory=list)

    @property
    def rule(self) -> Rule:
        """Which weights are fitted, and how."""
        return Rule(estimator=self.estimator, solver=self.solver)

    @model_validator(mode="after")
    def _covariates_differ(self) -> "SyntheticDidOptions":
        roles = [*self.outcomes, self.unit, self.period, self.first_treated_period]
        repeated = [
            name for name in self.covariates if name in roles or self.covariates.count(name) > 1
        ]
        if repeated:
            raise ValueError(f"column used in two roles: {', '.join(sorted(set(repeated)))}")
        return self


class SyntheticDidSpec(Spec):
    """A synthetic difference-in-differences analysis."""

    method: Literal["synthetic_did"]
    options: SyntheticDidOptions


def readout(
    spec: SyntheticDidSpec,
    panel: RegionPanel,
    fitted: DidFit,
    replicates: Replicates,
    *,
    outcome: str,
) -> Readout:
    """What one outcome says."""
    tables = {
        "paths": _paths_table(panel, fitted),
        "unit_weights": _unit_weights_table(panel, fitted),
        "time_weights": _time_weights_table(panel, fitted),
        "event_times": _event_time_table(fitted),
        "replicates": pd.DataFrame({"effect": replicates.effects}),
    }
    return Readout(
        effects=_effects(spec, panel, fitted, replicates.std_error, outcome=outcome),
        diagnostics=(
            *region_notes(panel),
            *_fit_notes(spec, fitted),
            *_replicate_notes(replicates, n_treated=len(panel.treated)),
        ),
        params=_params(spec, panel, fitted, replicates),
        tables={
            name: table.assign(metric=outcome)[["metric", *table.columns]]
            for name, table in tables.items()
        },
    )


def _effects(
    spec: SyntheticDidSpec, panel: RegionPanel, fitted: DidFit, std_error: float, *, outcome: str
) -> tuple[Effect, ...]:
    average = effect(
        estimator=spec.options.estimator,
        estimand="att",
        metric=outcome,
        term="average",
        estimate=fitted.effect,
        std_error=std_error,
        confidence_level=spec.confidence_level,
        n_treated=len(panel.treated),
        n_control=len(panel.donors),
    )
    return with_cumulative_and_relative(average, panel)


def _params(
    spec: SyntheticDidSpec, panel: RegionPanel, fitted: DidFit, replicates: Replicates
) -> dict[str, Any]:
    params: dict[str, Any] = {
        "n_replicates": len(replicates.effects),
        "pre_rmse": _pre_rmse(fitted),
    }
    for cohort in fitted.cohorts:
        start = shown(panel.periods[cohort.start])
        params[f"zeta_{start}"] = cohort.fit.scale.zeta
        params[f"effect_{start}"] = cohort.fit.effect
    for name, slope in zip(spec.options.covariates, fitted.slopes, strict=True):
        params[f"slope_{name}"] = float(slope)
    return params


def _fit_notes(spec: SyntheticDidSpec, fitted: DidFit) -> list[Diagnostic]:
    rmse = _pre_rmse(fitted)
    notes = [
        panel_health.note(
            "pre_rmse", rmse,
            f"root mean squared gap before the start {rmse:.4g}, around its time-weighted mean",
        )
    ]  # fmt: skip
    if spec.options.estimator != "did":
        weights = np.mean([cohort.fit.unit_weights for cohort in fitted.cohorts], axis=0)
        notes.append(donor_pool.effective_donors(weights, subject="the comparison"))
    if len(fitted.cohorts) > 1:
        detail = (
            f"{len(fitted.cohorts)} starts, each compared with never-treated regions; the effect "
            "is the average over treated region-periods"
        )
        notes.append(panel_health.note("staggered_adoption", len(fitted.cohorts), detail))
    return notes


def _replicate_notes(replicates: Replicates, *, n_treated: int) -> list[Diagnostic]:
    n = len(replicates.effects)
    how = {
        "placebo": f"{'all' if replicates.is_exhaustive else 'random'} sets of donors in place of "
        "the treated regions; assumes that both vary alike",
        "jackknife": "each region left out in turn, weights kept",
        "bootstrap": "regions drawn with replacement, weights fitted anew",
    }[replicates.kind]
    notes = [panel_health.note("replicates", n, f"{replicates.kind} errors from {n}: {how}")]
    if replicates.kind == "placebo" and n < donor_pool.FEW_PLACEBOS:
        notes.append(donor_pool.few_placebos(n, is_normal=True))
    if replicates.kind != "placebo" and n_treated < donor_pool.FEW_TREATED:
        notes.append(donor_pool.few_treated(n_treated))
    return notes


def _pre_rmse(fitted: DidFit) -> float:
    gaps = [cohort.fit.gaps[: cohort.start] for cohort in fitted.cohorts]
    return math.sqrt(float((np.concatenate(gaps) ** 2).mean()))


def _paths_table(panel: RegionPanel, fitted: DidFit) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "start": panel.periods[cohort.start], "period": panel.periods,
                "event_time": np.arange(len(panel.periods)) - cohort.start,
                "treated": cohort.treated, "synthetic": cohort.synthetic, "gap": cohort.fit.gaps,
                "is_post": np.arange(len(panel.periods)) >= cohort.start,
            }
        )
        for cohort in fitted.cohorts
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _unit_weights_table(panel: RegionPanel, fitted: DidFit) -> pd.DataFrame:
    donors = [str(name) for name in panel.names(panel.donors)]
    parts = [
        pd.DataFrame(
            {
                "start": panel.periods[cohort.start], "donor": donors,
                "weight": cohort.fit.unit_weights,
            }
        )
        for cohort in fitted.cohorts
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _time_weights_table(panel: RegionPanel, fitted: DidFit) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "start": panel.periods[cohort.start],
                "period": panel.periods[: cohort.start], "weight": cohort.fit.time_weights,
            }
        )
        for cohort in fitted.cohorts
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _event_time_table(fitted: DidFit) -> pd.DataFrame:
    found = event_time_effects(fitted)
    return pd.DataFrame({"event_time": list(found), "gap": list(found.values())})
