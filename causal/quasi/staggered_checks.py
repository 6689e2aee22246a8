"""Plain statements about a staggered design that a reader of its effects must know."""

from collections.abc import Iterator, Sequence

from causal.checks import few_clusters, panel_health
from causal.checks.panel_health import note
from causal.core.result import Diagnostic
from causal.core.texts import listed
from causal.quasi.effects_by_unit import Overlap
from causal.quasi.goodman_bacon import TwoByTwo
from causal.quasi.staggered_options import StaggeredOptions
from causal.quasi.staggered_panel import Design, LeftOut
from causal.quasi.unit_influence import CERTAIN

FEW_UNITS = 10
"""Cohorts smaller than this have intervals that hold the truth less often than they say."""


def design_diagnostics(
    design: Design, options: StaggeredOptions, *, n_impossible: int
) -> tuple[Diagnostic, ...]:
    """Counts and notes about the units, cohorts and periods.

    Args:
        design: The cohorts.
        options: The analysis.
        n_impossible: Comparisons without a comparison group.
    """
    left_out = design.left_out
    found = [
        panel_health.missing_rows(left_out.n_missing),
        panel_health.incomplete_units(
            left_out.n_incomplete, n_units=left_out.n_units, is_dropped=True
        )
        if options.panel
        else _rows(design),
        *_cohort_notes(left_out, options),
        *_thin_cohorts(design),
    ]
    if design.clusters:
        found.append(few_clusters.total(design.moments.n_independent))
    found += _treated_clusters(design)
    gaps = panel_health.period_gaps(design.periods)
    if gaps is not None:
        found.append(gaps)
    if n_impossible:
        detail = (
            f"{n_impossible} effects have no comparison group, or too small a one: not estimated"
        )
        found.append(note("no_comparison", n_impossible, detail))
    return tuple(found)


def _rows(design: Design) -> Diagnostic:
    """How many rows count, where each counts in its own period."""
    size = len(design.periods)
    n_rows = sum(round(c.n * float(c.mean[-size:].sum())) for c in design.moments.cohorts)
    detail = f"{n_rows:,} rows in {size} periods, each of which counts in its own period"
    return note("n_rows", n_rows, detail)


def _treated_clusters(design: Design) -> list[Diagnostic]:
    """The treated and the never-treated clusters, or units, each on their own."""
    starts = enumerate(design.starts)
    never = [at for at, start in starts if start is None or start > design.periods[-1]]
    counts = {
        "treated": design.n_independent(design.treated),
        "never treated": design.n_independent(never),
    }
    named = {side: count for side, count in counts.items() if count}
    return few_clusters.sides(
        named, name="treated_clusters", effective=tuple(map(float, named.values()))
    )


def overlap(found: Sequence[Overlap], options: StaggeredOptions) -> list[Diagnostic]:
    """How far weighted comparison units stand for each cohort; none without a propensity.

    Red where some unit is treated with near certainty, so that nobody can be compared with it, or
    where few comparison units carry all the weight.

    Args:
        found: Of each cohort and comparison group.
        options: The analysis.
    """
    if not found:
        return []
    worst = min(found, key=lambda item: item.n_effective)
    n_certain = max(item.n_certain for item in found)
    n_without = max(item.n_without_weight for item in found)
    detail = (
        f"the weighted comparison units of {worst.pair.named} count for {worst.n_effective:,.1f}, "
        f"the fewest; at most {n_without:,} comparison units have a propensity of "
        f"{options.max_propensity:g} or more and no weight; at most {n_certain:,} units have one "
        f"of {CERTAIN:g} or more"
    )
    return [
        Diagnostic(
            name="overlap", statistic=worst.n_effective, pvalue=None,
            passed=worst.n_effective >= FEW_UNITS and n_certain == 0, detail=detail,
        )
    ]  # fmt: skip


def two_way(found: Sequence[TwoByTwo]) -> Diagnostic:
    """What two-way fixed effects would have given on the same units."""
    estimate = sum(item.weight * item.estimate for item in found)
    share = sum(item.weight for item in found if item.kind == "already treated")
    detail = (
        f"two-way fixed effects would give {estimate:+.4g}, with a weight of {share:.0%} on "
        "comparisons with units that are treated already"
    )
    return note("twfe", share, detail)


def no_variance(names: Sequence[str]) -> Diagnostic:
    """Estimates without a standard error."""
    detail = f"no variance, so no standard error, and not among the effects: {listed(names)}"
    return note("no_variance", len(names), detail)


def bands(critical_values: dict[str, float], options: StaggeredOptions, *, seed: int) -> Diagnostic:
    """How the simultaneous bands were found.

    Args:
        critical_values: Of each table.
        options: The analysis.
        seed: The spec's seed.
    """
    kind = {
        "gaussian": "normal draws from the covariance",
        "multiplier": "random signs of clusters",
    }
    values = ", ".join(f"{name} {value:.3f}" for name, value in critical_values.items())
    detail = (
        f"critical values of the bands ({options.n_draws:,} {kind[options.bands]}, seed {seed})"
    )
    return note("simultaneous_bands", None, f"{detail}: {values}")


def _cohort_notes(left_out: LeftOut, options: StaggeredOptions) -> Iterator[Diagnostic]:
    if left_out.n_already_treated:
        detail = (
            f"{left_out.n_already_treated:,} units are treated in the first period already: left "
            "out, they have no before"
        )
        yield note("already_treated", left_out.n_already_treated, detail)
    if left_out.n_late:
        detail = f"{left_out.n_late:,} units start after the data end: they count as never treated"
        yield note("late_starters", left_out.n_late, detail)
    if left_out.last is not None:
        detail = (
            "no never-treated units: comparison with not-yet-treated ones only, up to the last "
            f"start; the cohort of {left_out.last:g} has no effects of its own"
        )
        yield note("never_treated", 0, detail)
    if left_out.empty:
        starts = listed([f"{start:g}" for start in left_out.empty])
        yield note(
            "empty_cohorts", len(left_out.empty), f"cohorts without a complete unit: {starts}"
        )
    if left_out.small:
        kind = "units" if options.cluster_column is None else "clusters"
        starts = listed([f"{start:g}" for start in left_out.small])
        detail = (
            f"cohorts of fewer than {options.min_cohort_size} {kind} have no variance that could "
            f"be seen, and are not estimated: {starts}"
        )
        yield note("small_cohorts", len(left_out.small), detail)


def _thin_cohorts(design: Design) -> Iterator[Diagnostic]:
    """Cohorts so small that the normal approximation is doubtful, or without own variance."""
    sizes = {c: design.n_independent([c]) for c in design.treated}
    names = {c: f"{design.starts[c]:g}" for c in sizes}
    alone = [names[c] for c, size in sizes.items() if size == 1]
    if alone:
        yield Diagnostic(
            name="single_cohorts", statistic=len(alone), pvalue=None, passed=False,
            detail="cohorts of one unit or cluster: their standard errors hold only the comparison "
            f"group's variance and are too small: {listed(alone)}",
        )  # fmt: skip
    thin = [names[c] for c, size in sizes.items() if 1 < size < FEW_UNITS]
    if thin:
        detail = (
            f"cohorts of fewer than {FEW_UNITS} units or clusters: their intervals are rough: "
            f"{listed(thin)}"
        )
        yield note("thin_cohorts", len(thin), detail)
