"""Plain statements about donors and the fit before the start that a reader must know."""

from collections.abc import Sequence

import numpy as np

from causal.checks.panel_health import note
from causal.core.gram import Array
from causal.core.result import Diagnostic
from causal.core.texts import listed

FEW_PLACEBOS = 10
FEW_TREATED = 10
_POOR_HOLD_OUT = 10.0
"""Gaps held out are larger than fitted ones in any case; beyond this the fit says little."""
_MUCH_OUTSIDE = 0.25
"""A region at the edge of the donors' range is outside now and then by chance."""


def dropped_donors(names: Sequence[object]) -> Diagnostic:
    """Donors that lack a period."""
    return note("n_dropped_donors", len(names), f"{len(names)} donors left out: {listed(names)}")


def constant_donors(names: Sequence[object]) -> Diagnostic:
    """Donors whose outcome never changes: often a coding of missing data."""
    detail = (
        f"{len(names)} donors have the same outcome in every period: {listed(names)}; if that "
        "stands for missing data, name them in excluded: each is a placebo too"
    )
    return note("constant_donors", len(names), detail)


def constant_treated(names: Sequence[object]) -> Diagnostic:
    """Treated regions whose outcome never changes, before the start nor after it."""
    return Diagnostic(
        name="constant_treated", statistic=float(len(names)), pvalue=None, passed=False,
        detail=f"{len(names)} treated regions have the same outcome in every period, as if it had "
        f"not been recorded: {listed(names)}",
    )  # fmt: skip


def effective_donors(weights: Array, *, subject: str) -> Diagnostic:
    """How many donors carry the weight: one over the sum of squared shares."""
    shares = np.abs(weights) / np.abs(weights).sum()
    count = float(1.0 / (shares**2).sum())
    return note(
        "effective_donors", count,
        f"{subject} rests on {count:.1f} donors in effect, the largest with "
        f"{shares.max():.0%} of the weight",
    )  # fmt: skip


def convex_hull(n_outside: int, *, n_periods: int, is_needed: bool) -> Diagnostic:
    """Weights on the simplex cannot reach beyond the donors' range."""
    if n_outside == 0:
        detail = "the treated regions lie within the donors' range before the start"
        return Diagnostic(
            name="convex_hull", statistic=0.0, pvalue=None, passed=True, detail=detail
        )
    detail = (
        f"in {n_outside} of {n_periods} matched periods a treated region lies outside the donors' "
        "range, where no weights can match it; try variant demeaned or ridge_augmented, or "
        "synthetic_did"
    )
    return Diagnostic(
        name="convex_hull", statistic=float(n_outside), pvalue=None,
        passed=False if is_needed and n_outside > _MUCH_OUTSIDE * n_periods else None,
        detail=detail,
    )  # fmt: skip


def over_fit(*, held_out: float, fitted: float, n_donors: int, n_periods: int) -> Diagnostic:
    """More donors than periods can follow noise; then periods held out are matched worse.

    Args:
        held_out: Root mean squared gap in matched periods left out of the fit.
        fitted: The same in those of the fit.
        n_donors: Donors.
        n_periods: Matched periods.
    """
    ratio = held_out / fitted if fitted > 0 else float("inf")
    is_poor = n_donors >= n_periods and ratio > _POOR_HOLD_OUT
    size = f"{ratio:.1f} times" if np.isfinite(ratio) else "infinitely many times"
    detail = (
        f"the gap in held-out periods before the start is {size} the one in fitted periods; "
        f"{n_donors} donors, {n_periods} matched periods"
    )
    if is_poor:
        detail += ": the fit follows noise; use fewer donors or more periods"
    return Diagnostic(
        name="over_fit", statistic=ratio if np.isfinite(ratio) else None, pvalue=None,
        passed=not is_poor, detail=detail,
    )  # fmt: skip


def weights_not_unique(*, subject: str) -> Diagnostic:
    """Several weights fit equally well."""
    return note(
        "unique_weights", None,
        f"other weights match {subject} just as well: the effect depends on which are taken",
    )  # fmt: skip


def few_placebos(count: int, *, is_normal: bool) -> Diagnostic:
    """A spread estimated from few donors.

    Args:
        count: Placebos.
        is_normal: Whether interval and p-value rest on this spread, as if it were known.
    """
    detail = f"the standard error is the spread of only {count} placebos: it is itself uncertain"
    if is_normal:
        detail += ", and with it interval and p-value; synthetic_control ranks the placebos instead"
    return Diagnostic(
        name="few_placebos", statistic=float(count), pvalue=None,
        passed=False if is_normal else None, detail=detail,
    )  # fmt: skip


def few_treated(count: int) -> Diagnostic:
    """Resampling needs several treated regions to see how much they vary."""
    detail = (
        f"errors by resampling {count} treated regions tend to be too small below {FEW_TREATED}"
    )
    return note("few_treated", count, detail)
