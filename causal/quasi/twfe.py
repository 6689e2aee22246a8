"""Two-way fixed effects: one treatment coefficient beside unit and period effects.

Assumes parallel trends and, when units start at different times, effects that are the same for
all cohorts and at all times since the start; otherwise the coefficient is a weighted average of
effects in which some weights are negative (Goodman-Bacon 2021; de Chaisemartin and
D'Haultfoeuille 2020).
"""

from collections.abc import Generator

import pandas as pd

from causal.core.frames import Column, FrameRequest
from causal.core.readout import Readout
from causal.quasi.did_options import DidOptions, DidSpec
from causal.quasi.effects_regression import regress
from causal.quasi.panel import Panel, cohort_means, observe
from causal.quasi.readout import (
    coefficient_table,
    lead_regressors,
    panel_diagnostics,
    pre_trend,
    regression_effect,
)
from causal.quasi.treated_clusters import ask_treated_clusters
from causal.quasi.treatment_timing import treated_post
from causal.quasi.within_fit import Regressor


def estimate(spec: DidSpec, *, outcome: str) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    """The two-way fixed effects estimate for one outcome."""
    options, where = spec.options, spec.source.conditions
    panel = yield from observe(options, outcome=outcome, where=where, by_cluster=True)
    treatment = _treatment(options, panel)
    found = yield from regress(
        options,
        (treatment,),
        leads=lead_regressors(options, panel),
        outcome=outcome,
        panel=panel,
        where=where,
    )
    sides = yield from ask_treated_clusters(options, panel, units=found.units, where=where)
    return Readout(
        effects=(regression_effect(spec, found, metric=outcome, term=treatment.name),),
        diagnostics=(
            pre_trend(options, found.leads, alpha=1 - spec.confidence_level),
            *panel_diagnostics(options, panel, found),
            *sides,
        ),
        params={"n_rows": found.main.fit.n, "n_units": found.main.fit.n_units},
        tables={
            "cohort_means": cohort_means(found.cells, metric=outcome),
            "coefficients": coefficient_table(
                found.main, metric=outcome, confidence_level=spec.confidence_level
            ),
        },
    )


def _treatment(options: DidOptions, panel: Panel) -> Regressor:
    if panel.timing is None:
        name = str(options.treatment)
        return Regressor(name, Column(name))
    window = treated_post(options.anticipation)
    return Regressor(window.name, panel.timing.term(window, panel.periods), window)
