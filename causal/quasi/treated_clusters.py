"""How many clusters carry the treatment of a difference in differences, and how many do not."""

from collections.abc import Generator

import pandas as pd

from causal.checks import few_clusters
from causal.core.frames import Condition, FrameRequest, KeyRequest
from causal.core.result import Diagnostic
from causal.quasi.did_options import DidOptions
from causal.quasi.panel import Panel
from causal.quasi.treatment_timing import level

NAME = "treated_clusters"


def ask_treated_clusters(
    options: DidOptions, panel: Panel, *, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, list[Diagnostic]]:
    """A check of the treated and the other clusters; nothing where both are many.

    Where units cluster by themselves, or moments by cluster are at hand, it takes no pass.

    Args:
        options: The analysis.
        panel: Its panel.
        where: Conditions on the rows.
    """
    if options.covariance != "cluster" or panel.timing is None:
        return []
    if options.clusters == options.unit:
        treated, others = panel.n_units()
        return _check(treated=treated, others=others, n_clusters=treated + others)
    sides = panel.sides()
    if sides is not None:
        return _check(
            treated=len(sides[0]), others=len(sides[1]), n_clusters=len(sides[0] | sides[1])
        )
    starts = tuple(level(start) for start in panel.starts if start <= panel.periods[-1])
    values = (1,) if options.group is not None else starts
    inside = (*where, Condition(panel.timing.cohort, values))
    counts = []
    for conditions in (where, inside):
        frame = yield KeyRequest(key=(options.clusters,), where=conditions, n_examples=0)
        counts.append(int(frame["n_keys"].iloc[0]))
    return _check(treated=counts[1], others=counts[0] - counts[1], n_clusters=counts[0])


def _check(*, treated: int, others: int, n_clusters: int) -> list[Diagnostic]:
    """Clusters without treated units may be none: then there are no two sides."""
    if others == 0 or treated + others > n_clusters:
        counts = {"treated": treated, "all": n_clusters}
        return few_clusters.sides(counts, name=NAME, effective=(float(n_clusters),))
    return few_clusters.sides({"treated": treated, "others": others}, name=NAME)
