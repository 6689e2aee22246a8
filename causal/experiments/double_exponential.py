"""Double-exponential (tanh-sinh) quadrature on fixed nodes.

Integrands may have a peak, or a root or power at the ends of the interval, as the densities of a
beta distribution have; nodes crowd towards both ends, and each carries its distance to the far end
so that `1 - x` is never computed by subtraction (Takahasi and Mori 1974).
"""

from functools import cache

import numpy as np

from causal.core.gram import Array

_STEP = 1 / 24
"""At this spacing the rule errs by less than 1e-14 on the densities it is used for."""

REACH = 6.0
"""Nodes reach exp(-pi sinh(6)), about 1e-275, from either end."""


@cache
def unit_nodes(reach: float = REACH) -> tuple[Array, Array, Array]:
    """Nodes x on (0, 1), their complements 1 - x and weights, each of shape (k,).

    Args:
        reach: How far the nodes go towards the ends; 4 (about 1e-37) will do for integrands that
            grow no faster than an inverse root there.
    """
    count = round(reach / _STEP)
    t = np.arange(-count, count + 1) * _STEP
    exponent = np.pi * np.sinh(t)
    nodes, complements = 1 / (1 + np.exp(-exponent)), 1 / (1 + np.exp(exponent))
    weights = _STEP * np.pi * np.cosh(t) * nodes * complements
    for values in (nodes, complements, weights):
        values.setflags(write=False)
    return nodes, complements, weights


def panel_nodes(breaks: Array, *, reach: float = REACH) -> tuple[Array, Array, Array]:
    """Nodes of a rule on each interval between successive breaks.

    Args:
        breaks: Ends of the panels, rising, shape (m + 1,).
        reach: As in `unit_nodes`.

    Returns:
        Nodes, their distances to the last break, and weights, each of shape (m * k,).
    """
    nodes, complements, weights = unit_nodes(reach)
    widths = np.diff(breaks)
    wide = widths > 0
    starts, ends, widths = breaks[:-1][wide], breaks[1:][wide], widths[wide]
    at = starts[:, None] + widths[:, None] * nodes
    left = (breaks[-1] - ends)[:, None] + widths[:, None] * complements
    return at.ravel(), left.ravel(), (widths[:, None] * weights).ravel()
