"""Switchback experiments: regions whose treatment is drawn anew for each block of periods.

The effect is a regression of the outcome by region and period on the treatment, with effects of
regions and of the season, on the periods that a wash-out leaves (Bojinov, Simchi-Levi and Zhao
2023). Assumes that blocks were randomised, that effects carry over for no more than the wash-out,
and that regions do not affect each other. See `docs/methods/switchback.md`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from causal.core.readout import combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.quasi.geo.switchback_cells import observe
from causal.quasi.geo.switchback_options import SwitchbackSpec
from causal.quasi.geo.switchback_readout import readout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = SwitchbackSpec


def estimate(spec: SwitchbackSpec) -> Plan:
    """Estimate the effect on each outcome.

    Args:
        spec: The analysis.

    Returns:
        A plan that yields one request per outcome and returns the result.
    """
    readouts = {}
    for outcome in spec.options.outcomes:
        cells = yield from observe(spec.options, spec.source.conditions, outcome=outcome)
        readouts[outcome] = readout(spec, cells, outcome=outcome)
    return combined(readouts)


def figures(spec: SwitchbackSpec, result: Result) -> Mapping[str, "Figure"]:
    """Figures of a result by file name: the effect by wash-out and by period of the block.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.quasi.geo.switchback_figures import position_figure, wash_out_figure

    found: dict[str, Figure] = {}
    for outcome in spec.options.outcomes:
        found[f"wash_out_{outcome}"] = wash_out_figure(result, outcome=outcome)
        found[f"positions_{outcome}"] = position_figure(spec, result, outcome=outcome)
    return found
