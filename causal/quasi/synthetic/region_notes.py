"""What a reader must know of a panel of regions, whichever method reads it."""

import numpy as np
from numpy.typing import NDArray

from causal.checks import donor_pool, panel_health
from causal.core.gram import Array
from causal.core.result import Diagnostic
from causal.quasi.synthetic.region_panel import RegionPanel

_FLAT = 1e-12


def region_notes(panel: RegionPanel) -> list[Diagnostic]:
    """What was left out, and regions that do not move."""
    found = [panel_health.missing_rows(panel.n_missing)]
    if panel.dropped:
        found.append(donor_pool.dropped_donors(panel.dropped))
    if panel.already_treated:
        found.append(panel_health.already_treated(len(panel.already_treated)))
    if panel.between_periods:
        found.append(panel_health.between_periods(panel.between_periods))
    is_still = never_moves(panel.values)
    if is_still[panel.donors].any():
        names = panel.names(panel.donors[is_still[panel.donors]])
        found.append(donor_pool.constant_donors(names))
    if is_still[panel.treated].any():
        names = panel.names(panel.treated[is_still[panel.treated]])
        found.append(donor_pool.constant_treated(names))
    return found


def never_moves(values: Array) -> NDArray[np.bool_]:
    """Which regions have the same outcome in every period; values have shape (N, T)."""
    return np.asarray(np.ptp(values, axis=1) <= _FLAT * np.abs(values).max(axis=1))
