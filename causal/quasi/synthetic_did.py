"""Synthetic difference in differences: difference in differences with fitted weights.

Donors are weighted so that they move in parallel with the treated regions before the start,
periods so that the time before resembles the time after (Arkhangelsky, Athey, Hirshberg, Imbens and
Wager 2021). A lasting difference in level needs not be matched. Regions may start at different
times.
"""

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Condition, FrameRequest
from causal.core.gram import Array
from causal.core.readout import combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.quasi.geo.returns import with_returns
from causal.quasi.synthetic.did_errors import replicate
from causal.quasi.synthetic.did_readout import SyntheticDidOptions, SyntheticDidSpec, readout
from causal.quasi.synthetic.region_panel import (
    RegionPanel,
    observe,
    observe_starts,
    observe_table,
)
from causal.quasi.synthetic.staggered_blocks import Design, fit_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = SyntheticDidSpec


def estimate(spec: SyntheticDidSpec) -> Plan:
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
        covariates = yield from _observe_covariates(options, where, panel=panel)
        design = Design(values=panel.values, starts=panel.starts, covariates=covariates)
        fitted = fit_all(design, options.rule)
        replicates = replicate(
            design, options.rule, fitted, kind=options.standard_errors,
            n_replications=options.n_replications, seed=spec.seed,
        )  # fmt: skip
        found = readout(spec, panel, fitted, replicates, outcome=outcome)
        readouts[outcome] = with_returns(found, options.returns, outcome=outcome)
    return combined(readouts)


def figures(spec: SyntheticDidSpec, result: Result) -> Mapping[str, "Figure"]:
    """Figures of a result by file name: the comparison as in the paper, and unit weights.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.quasi.synthetic.did_comparison_figure import comparison_figure
    from causal.quasi.synthetic.region_figures import weight_figure

    found: dict[str, Figure] = {}
    for outcome in spec.options.outcomes:
        found[f"comparison_{outcome}"] = comparison_figure(spec, result, outcome=outcome)
        found[f"unit_weights_{outcome}"] = weight_figure(
            result.tables["unit_weights"], outcome=outcome, group="start"
        )
    return found


def _observe_covariates(
    options: SyntheticDidOptions, where: tuple[Condition, ...], *, panel: RegionPanel
) -> Generator[FrameRequest, pd.DataFrame, Array]:
    """Covariates by region and period in the order of the panel, shape (K, N, T).

    Raises:
        DataError: A covariate lacks a value.
    """
    found = []
    for name in options.covariates:
        table, _ = yield from observe_table(options, where, column=name)
        whole = table.reindex(index=list(panel.units), columns=list(panel.periods))
        values = whole.to_numpy(dtype=np.float64)
        if np.isnan(values).any():
            raise DataError(
                f"covariate {name} lacks values in some region and period",
                given=f"{int(np.isnan(values).sum())} cells",
            )
        found.append(values)
    return np.array(found).reshape(len(found), *panel.values.shape)
