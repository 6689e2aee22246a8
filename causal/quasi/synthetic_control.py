"""Synthetic control: a weighted average of donors stands in for a region had it not been treated.

Weights are not negative, sum to one and match the region before its treatment; the effect is the
gap afterwards (Abadie and Gardeazabal 2003; Abadie, Diamond and Hainmueller 2010). Assumes that
what moves the region moves its donors in the same proportions, that donors are not affected by the
treatment, and that nobody anticipates it. Inference ranks the gap among those of placebo donors.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from causal.core.readout import combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.quasi.geo.returns import with_returns
from causal.quasi.synthetic.control_options import SyntheticControlSpec
from causal.quasi.synthetic.control_readout import readout
from causal.quasi.synthetic.control_study import study
from causal.quasi.synthetic.predictor_table import observe_predictors
from causal.quasi.synthetic.region_panel import observe, observe_starts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = SyntheticControlSpec


def estimate(spec: SyntheticControlSpec) -> Plan:
    """Estimate the effect on each outcome.

    Args:
        spec: The analysis.

    Returns:
        A plan that yields requests and returns the result.
    """
    options, where = spec.options, spec.source.conditions
    starts = yield from observe_starts(options, where)
    readouts = {}
    for outcome in options.outcomes:
        panel = yield from observe(options, where, outcome=outcome, starts=starts)
        predictors = yield from observe_predictors(options, where, panel=panel)
        found = readout(spec, study(spec, panel, predictors), predictors, outcome=outcome)
        readouts[outcome] = with_returns(found, options.returns, outcome=outcome)
    return combined(readouts)


def figures(spec: SyntheticControlSpec, result: Result) -> Mapping[str, "Figure"]:
    """Figures of a result by file name: paths, gaps beside placebos, and weights.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.quasi.synthetic.control_figures import gap_figure, path_figure
    from causal.quasi.synthetic.region_figures import weight_figure

    found: dict[str, Figure] = {}
    for outcome in spec.options.outcomes:
        found[f"paths_{outcome}"] = path_figure(spec, result, outcome=outcome)
        found[f"gaps_{outcome}"] = gap_figure(spec, result, outcome=outcome)
        found[f"weights_{outcome}"] = weight_figure(
            result.tables["weights"], outcome=outcome, group="unit"
        )
    return found
