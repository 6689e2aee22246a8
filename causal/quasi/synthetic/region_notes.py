"""What a reader must know of a panel of regions, whichever method reads it."""

import numpy as np

from causal.checks import donor_pool, panel_health
from causal.core.result import Diagnostic
from causal.quasi.synthetic.region_panel import RegionPanel

_FLAT = 1e-12


def region_notes(panel: RegionPanel) -> list[Diagnostic]:
    """What was left out, and donors that do not move."""
    found = [panel_health.missing_rows(panel.n_missing)]
    if panel.dropped:
        found.append(donor_pool.dropped_donors(panel.dropped))
    if panel.already_treated:
        found.append(panel_health.already_treated(len(panel.already_treated)))
    flat = [
        row
        for row in panel.donors
        if np.ptp(panel.values[row]) <= _FLAT * np.abs(panel.values[row]).max()
    ]
    if flat:
        found.append(donor_pool.constant_donors(panel.names(flat)))
    return found
