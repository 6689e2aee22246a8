"""Bayesian structural time series: what a treated series would have been, from its own past.

The series before the start is a level that wanders (with a slope and seasons if asked for) plus a
regression on covariates under a spike-and-slab prior; its prediction after the start, with all
uncertainty, is compared with what was observed (Brodersen, Gallusser, Koehler, Remy and Scott
2015). Assumes that the treatment does not move the covariates and that their relation to the
outcome goes on as it was. Defaults are those of R's CausalImpact.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from causal.core.readout import combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.quasi.structural.bsts_options import BstsSpec
from causal.quasi.structural.bsts_readout import readout
from causal.quasi.structural.impact import impact
from causal.quasi.structural.time_series import (
    observe_columns,
    observe_regions,
    series_of_table,
)
from causal.quasi.synthetic.region_panel import observe_starts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = BstsSpec


def estimate(spec: BstsSpec) -> Plan:
    """Estimate the effect on each outcome.

    Args:
        spec: The analysis.

    Returns:
        A plan that yields requests and returns the result.
    """
    options, where = spec.options, spec.source.conditions
    if options.unit is None:
        table = yield from observe_columns(options, where)
        found = {name: series_of_table(options, table, outcome=name) for name in options.outcomes}
    else:
        starts = yield from observe_starts(options.regions, where)
        found = {}
        for name in options.outcomes:
            found[name] = yield from observe_regions(options, where, outcome=name, starts=starts)
    return combined(
        {
            name: readout(spec, impact(series, options, seed=spec.seed), outcome=name)
            for name, series in found.items()
        }
    )


def figures(spec: BstsSpec, result: Result) -> Mapping[str, "Figure"]:
    """Figures of a result by file name: the three panels, and the covariates.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.quasi.structural.bsts_figures import impact_figure, inclusion_figure

    found: dict[str, Figure] = {}
    for outcome in spec.options.outcomes:
        found[f"impact_{outcome}"] = impact_figure(spec, result, outcome=outcome)
        if "inclusion" in result.tables:
            found[f"inclusion_{outcome}"] = inclusion_figure(result, outcome=outcome)
    return found
