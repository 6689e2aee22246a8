"""What a reader must know of a panel of regions, whichever method reads it."""

import numpy as np

from causal.checks import donor_pool, panel_health
from causal.core.frames import Level
from causal.core.result import Diagnostic
from causal.quasi.synthetic.region_panel import Indices, RegionPanel

_FLAT = 1e-12


def region_notes(panel: RegionPanel) -> list[Diagnostic]:
    """What was left out, and regions that do not move."""
    found = [panel_health.missing_rows(panel.n_missing)]
    if panel.dropped:
        found.append(donor_pool.dropped_donors(panel.dropped))
    if panel.already_treated:
        found.append(panel_health.already_treated(len(panel.already_treated)))
    if flat := _flat(panel, panel.donors):
        found.append(donor_pool.constant_donors(flat))
    if flat := _flat(panel, panel.treated):
        found.append(donor_pool.constant_treated(flat))
    return found


def _flat(panel: RegionPanel, rows: Indices) -> list[Level]:
    """Regions whose outcome never changes."""
    values = panel.values[rows]
    is_flat = np.ptp(values, axis=1) <= _FLAT * np.abs(values).max(axis=1)
    return panel.names(rows[is_flat])
