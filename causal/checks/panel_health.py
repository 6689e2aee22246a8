"""Plain statements about a panel that a reader of a difference-in-differences must know."""

from collections.abc import Sequence

from causal.core.result import Diagnostic

_MAX_SHOWN = 8


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


def dropped_columns(names: Sequence[str]) -> Diagnostic:
    """Controls that the other columns explain."""
    more = len(names) - _MAX_SHOWN
    shown = ", ".join(names[:_MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return note("dropped_columns", len(names), f"redundant or empty columns left out: {shown}")


def already_treated(n_units: int) -> Diagnostic:
    """Units treated in every period have no before."""
    detail = f"{n_units:,} units are treated in the first period already: they have no before"
    return note("already_treated", n_units, detail)


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
