"""The three effects that a panel of regions gives: average, cumulative, and as a share.

The share is `effect / (observed - effect)`, what the treatment changed relative to what would have
been. It grows with the effect, so the ends of the interval are carried over and the p-value is the
same; its standard error is that of the delta method.
"""

import math
from dataclasses import replace

import numpy as np

from causal.core.result import Effect
from causal.quasi.synthetic.region_panel import RegionPanel


def with_cumulative_and_relative(average: Effect, panel: RegionPanel) -> tuple[Effect, ...]:
    """The average effect over treated region-periods, and what follows from it.

    The relative effect is left out where the outcome, observed or without the treatment, is not
    positive.
    """
    after = [panel.values[row, panel.starts[row] :] for row in panel.treated]
    cells = np.concatenate(after)
    rows = [average, _scaled(average, len(cells))]
    observed = float(cells.mean())
    if observed > 0 and observed > average.estimate:
        rows.append(_relative(average, observed))
    return tuple(rows)


def _scaled(average: Effect, factor: int) -> Effect:
    return replace(
        average,
        term="cumulative",
        estimate=factor * average.estimate,
        std_error=factor * average.std_error,
        ci_lower=factor * average.ci_lower,
        ci_upper=factor * average.ci_upper,
    )


def _relative(average: Effect, observed: float) -> Effect:
    estimate = _share(average.estimate, observed)
    std_error = average.std_error * observed / (observed - average.estimate) ** 2
    return replace(
        average,
        scale="relative",
        estimate=estimate,
        std_error=std_error,
        statistic=estimate / std_error,
        ci_lower=_share(average.ci_lower, observed),
        ci_upper=_share(average.ci_upper, observed),
    )


def _share(effect: float, observed: float) -> float:
    if effect == -math.inf:
        return -1.0
    return effect / (observed - effect) if effect < observed else math.inf
