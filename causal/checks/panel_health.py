"""Plain statements about a panel that a reader of a difference-in-differences must know."""

from collections.abc import Sequence

import numpy as np

from causal.core.gram import Array
from causal.core.result import Diagnostic
from causal.core.texts import listed


def note(name: str, count: float | None, detail: str) -> Diagnostic:
    """A diagnostic for information: a count and a sentence."""
    return Diagnostic(name=name, statistic=count, pvalue=None, passed=None, detail=detail)


def missing_rows(n_missing: int) -> Diagnostic:
    """Rows left out because a column of the analysis was null."""
    return note("n_missing", n_missing, f"{n_missing:,} rows left out: a column was null")


def incomplete_units(n_incomplete: int, *, n_units: int, is_dropped: bool = False) -> Diagnostic:
    """Units not observed in every period, and what became of them."""
    fate = "left out" if is_dropped else "kept with the periods they have"
    detail = f"{n_incomplete:,} of {n_units:,} units lack some period: {fate}"
    return note("n_incomplete", n_incomplete, detail)


def only_treated(n_units: int) -> Diagnostic:
    """Units without an untreated row have no effect of their own to compare with."""
    detail = f"{n_units:,} units are seen under treatment only: left out"
    return note("only_treated", n_units, detail)


def silent(n_units: int) -> Diagnostic:
    """Units without an outcome other than 0, or with one row, in a regression of ratios."""
    detail = f"{n_units:,} units hold nothing but 0, or one row: they tell nothing, not counted"
    return note("silent_units", n_units, detail)


def dropped_columns(names: Sequence[str]) -> Diagnostic:
    """Controls that the other columns explain."""
    detail = f"redundant or empty columns left out: {listed(names)}"
    return note("dropped_columns", len(names), detail)


def period_gaps(periods: Array) -> Diagnostic | None:
    """Steps between periods that are wider than the smallest one; `None`: there are none.

    Args:
        periods: Ascending, shape (T,).
    """
    steps = np.diff(periods)
    wide = np.flatnonzero(steps > steps.min() * (1 + 1e-9))
    if len(wide) == 0:
        return None
    shown = listed(f"{periods[j]:g} to {periods[j + 1]:g}" for j in wide)
    detail = f"gaps between the periods; the period before is the last one in the data: {shown}"
    return note("period_gaps", len(wide), detail)


def few_clusters_for(n_clusters: int, *, k: int) -> Diagnostic | None:
    """Coefficients that are as many as the clusters; `None`: they are fewer."""
    if n_clusters > k:
        return None
    detail = (
        f"{k} coefficients and only {n_clusters} clusters: their covariance has rank "
        f"{n_clusters - 1} at most, so they cannot all be tested together"
    )
    return note("clusters_against_coefficients", n_clusters, detail)


def already_treated(n_units: int) -> Diagnostic:
    """Units treated in every period have no before."""
    detail = f"{n_units:,} units are treated in the first period already: they have no before"
    return note("already_treated", n_units, detail)


def between_periods(starts: Sequence[str]) -> Diagnostic:
    """A treatment that starts within a period makes the end of that period look like before."""
    return Diagnostic(
        name="start_between_periods",
        statistic=float(len(starts)),
        pvalue=None,
        passed=False,
        detail="treated regions that start between two periods: what the period before holds of "
        f"the treatment counts as untreated ({listed(starts)})",
    )


def no_never_treated() -> Diagnostic:
    """Without never-treated units the not-yet-treated are the only comparison."""
    return note(
        "never_treated", 0, "no never-treated units: comparison with not-yet-treated ones only"
    )


def staggered(n_cohorts: int) -> Diagnostic:
    """Treated units serve as controls of later ones (Goodman-Bacon 2021; Sun and Abraham 2021)."""
    detail = (
        f"{n_cohorts} cohorts start at different times: if effects differ between cohorts or grow "
        "over time, this regression is a biased average of them"
    )
    return note("staggered_adoption", n_cohorts, detail)
