"""Staggered adoption: group-time average treatment effects and their averages.

Estimates ATT(g,t), the effect in period t on the units that start in period g, and averages of
them by event time, cohort, period and overall, after Callaway and Sant'Anna (2021). Unlike two-way
fixed effects, treated units never serve as comparison, so that effects may differ between cohorts
and change over time. Assumes parallel trends between each cohort and its comparison group, no
anticipation beyond the stated one, and that treated units stay treated.

One pass: sizes, mean paths and T x T cross-products by cohort (and cluster). They give the exact
influence-function covariance of all effects at once; no unit row reaches the driver. With
covariates, parallel trends need to hold only among units with the same values of them; two passes.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import FrameRequest
from causal.core.gram import Array
from causal.core.readout import Readout, combined, covariance_table
from causal.core.registry import Plan
from causal.core.result import Diagnostic, Effect, Result
from causal.quasi import cross_sections, goodman_bacon, staggered_checks, staggered_readout
from causal.quasi.credibility.readout import Checks, Study, event_study_checks
from causal.quasi.credibility.stability_readout import stability_checks
from causal.quasi.effects_by_row import effects_by_row
from causal.quasi.effects_by_unit import Found, effects_by_unit
from causal.quasi.goodman_bacon import TwoByTwo
from causal.quasi.group_time import GroupTime, comparisons, effects
from causal.quasi.group_time_averages import Average, Effects, Shares, average
from causal.quasi.group_time_inference import Inference, infer, pre_trend
from causal.quasi.influence import Estimates, stacked
from causal.quasi.staggered_options import StaggeredOptions, StaggeredSpec
from causal.quasi.staggered_panel import Design, observe
from causal.quasi.staggered_readout import LABELS, Row, effect_rows, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = StaggeredSpec


@dataclass(frozen=True, kw_only=True)
class Section:
    """Estimates that share a table and a simultaneous band.

    Attributes:
        name: Name of the table.
        rows: What is said of each of the K estimates.
        found: The estimates with their covariance.
    """

    name: str
    rows: tuple[Row, ...]
    found: Inference


class Observed(NamedTuple):
    """What is known of one outcome.

    Attributes:
        design: The cohorts.
        cells: The comparisons.
        n_impossible: Comparisons that cannot be made.
        found: Their effects.
    """

    design: Design
    cells: tuple[GroupTime, ...]
    n_impossible: int
    found: Found


def estimate(spec: StaggeredSpec) -> Plan:
    """Estimate the effects on each outcome, in one pass each.

    Args:
        spec: The analysis.

    Returns:
        A plan that yields requests and returns the result.
    """
    readouts = {}
    for outcome in spec.options.outcomes:
        readouts[outcome] = yield from _of_outcome(spec, outcome=outcome)
    return combined(readouts)


def figures(spec: StaggeredSpec, result: Result) -> Mapping[str, "Figure"]:
    """The event study with both kinds of interval, and the effects of each cohort over time.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.quasi.credibility.figures import credibility_figures
    from causal.quasi.staggered_figures import cohort_figure, event_study_figure

    found: dict[str, Figure] = {}
    for outcome in spec.options.outcomes:
        if "event_study" in result.tables:
            found[f"event_study_{outcome}"] = event_study_figure(spec, result, outcome=outcome)
        found |= credibility_figures(result, outcome=outcome)
        found[f"group_time_{outcome}"] = cohort_figure(spec, result, outcome=outcome)
    return found


def _of_outcome(
    spec: StaggeredSpec, *, outcome: str
) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    options = spec.options
    design, cells, n_impossible, found = yield from _observed(spec, outcome=outcome)
    base = Effects(
        cells=cells, estimates=found.estimates, shares=found.shares, periods=design.periods
    )  # fmt: skip
    averages = [average(base, kind, options) for kind in options.aggregations]
    design = replace(design, influence=found.moments)
    overall = _overall(spec, design, base, averages)
    sections = _sections(spec, design, base, averages)
    group_time = sections[-1]
    two_way = _two_way(options, found)
    _check_varies([overall, *sections], outcome)
    checks = _event_study_checks(spec, sections, outcome=outcome)
    stable = stability_checks(
        design, options, lambda found: _section(spec, design, "stability", rows=(), estimates=found)
        .found, metric=outcome, alpha=1 - spec.confidence_level,
    )  # fmt: skip
    return Readout(
        effects=_effects(spec, design, [overall, *sections], outcome=outcome),
        diagnostics=(
            pre_trend(
                cells, group_time.found, anticipation=options.anticipation,
                n_independent=design.moments.n_independent, alpha=1 - spec.confidence_level,
            ),
            *staggered_checks.design_diagnostics(design, options, n_impossible=n_impossible),
            *staggered_checks.overlap(found.overlaps, options),
            *([staggered_checks.two_way(two_way)] if options.panel else []),
            *checks.diagnostics,
            *stable.diagnostics,
            *_inference_notes(spec, [overall, *sections]),
        ),
        params={
            "n_units": design.n_units(range(len(design.starts))),
            "n_periods": len(design.periods),
            "n_cohorts": len(design.treated),
            **{f"critical_value_{s.name}": s.found.simultaneous for s in sections},
        },
        tables={
            "overall": table(overall.rows, overall.found, metric=outcome).drop(
                columns=["band_lower", "band_upper"]
            ),
            **{s.name: table(s.rows, s.found, metric=outcome) for s in sections},
            **_covariance(sections, outcome=outcome),
            **checks.tables,
            **stable.tables,
            **(
                {"twfe_decomposition": goodman_bacon.table(two_way, metric=outcome)}
                if options.panel
                else {}
            ),
            "cohort_means": staggered_readout.cohort_means(found.paths, metric=outcome),
        },
    )  # fmt: skip


def _observed(
    spec: StaggeredSpec, *, outcome: str
) -> Generator[FrameRequest, pd.DataFrame, Observed]:
    """The design and its group-time effects."""
    options, where = spec.options, spec.source.conditions
    if options.panel:
        design = yield from observe(options, outcome=outcome, where=where)
        cells, n_impossible = comparisons(design, options)
        found = yield from _effects_of(design, cells, options)
        return Observed(design, cells, n_impossible, found)
    rows = yield from cross_sections.observe_rows(options, outcome=outcome, where=where)
    design = rows.design
    cells, n_impossible = comparisons(
        design, options,
        is_seen=lambda cell: cross_sections.is_seen(design, cell, least=options.min_cohort_size),
    )  # fmt: skip
    if options.covariates:
        found = yield from effects_by_row(rows, cells, options)
        return Observed(design, cells, n_impossible, found)
    found = Found(
        estimates=cross_sections.row_effects(design, cells),
        moments=design.moments,
        shares=cross_sections.shares_of_rows(design, options),
        paths=cross_sections.mean_paths(design, rows.level),
    )
    return Observed(design, cells, n_impossible, found)


def _two_way(options: StaggeredOptions, found: Found) -> tuple[TwoByTwo, ...]:
    """Two-way fixed effects need whole paths."""
    if not options.panel:
        return ()
    return goodman_bacon.decompose(found.paths, sizes=found.shares.sizes.tolist())


def _effects_of(
    design: Design, cells: tuple[GroupTime, ...], options: StaggeredOptions
) -> Generator[FrameRequest, pd.DataFrame, Found]:
    """The group-time effects and how units move them."""
    if options.has_unit_influence:
        return (yield from effects_by_unit(design, cells, options))
    return Found(
        estimates=effects(design, cells),
        moments=design.moments,
        shares=Shares.of_units(design.moments.counts),
        paths=design.paths,
    )


def _overall(
    spec: StaggeredSpec, design: Design, base: Effects, averages: Sequence[Average]
) -> Section:
    """The overall averages. Each is a number of its own: no band over them is reported."""
    rows = tuple(staggered_readout.overall_row(item, base.cells, design) for item in averages)
    estimates = stacked([item.overall for item in averages])
    return _section(spec, design, "overall", rows=rows, estimates=estimates)


def _sections(
    spec: StaggeredSpec, design: Design, base: Effects, averages: Sequence[Average]
) -> list[Section]:
    """The averages of each kind; last, the group-time effects themselves."""
    found = [
        _section(
            spec,
            design,
            LABELS[item.kind][0],
            rows=tuple(staggered_readout.average_rows(item, base.cells, design)),
            estimates=item.parts,
        )
        for item in averages
        if item.kind in LABELS
    ]
    rows = tuple(staggered_readout.cell_rows(base.cells))
    return [
        *found, _section(spec, design, "group_time", rows=rows, estimates=base.estimates)
    ]  # fmt: skip


def _section(
    spec: StaggeredSpec, design: Design, name: str, *, rows: tuple[Row, ...], estimates: Estimates
) -> Section:
    # Each table draws from a stream of its own: leaving one out does not change the others.
    stream = [*name.encode(), spec.seed]
    found = infer(
        estimates,
        design.moments if design.influence is None else design.influence,
        spec.options,
        confidence_level=spec.confidence_level,
        rng=np.random.default_rng(stream),
        scale=_mean_square(design),
    )
    return Section(name=name, rows=rows, found=found)


def _mean_square(design: Design) -> float:
    """Mean square of the outcome over units and periods."""
    counts: Array = design.moments.counts
    squares = [np.trace(c.cross) + c.n * float(c.mean @ c.mean) for c in design.paths]
    return float(sum(squares) / (counts.sum() * len(design.periods)))


def _effects(
    spec: StaggeredSpec, design: Design, sections: Sequence[Section], *, outcome: str
) -> tuple[Effect, ...]:
    n_clusters = design.moments.n_independent
    return tuple(
        item
        for section in sections
        for item in effect_rows(
            spec, section.rows, section.found, metric=outcome, n_clusters=n_clusters
        )
    )


def _check_varies(sections: Sequence[Section], outcome: str) -> None:
    if not any(section.found.is_known.any() for section in sections):
        raise DataError(f"{outcome} does not vary over time: there is nothing to explain")


def _inference_notes(spec: StaggeredSpec, sections: Sequence[Section]) -> list[Diagnostic]:
    """How the bands were found, and what has no variance although it is no reference."""
    silent = [
        row.term
        for section in sections
        for k, row in enumerate(section.rows)
        if not section.found.is_known[k] and not row.is_reference
    ]
    values = {s.name: s.found.simultaneous for s in sections if s.name != "overall"}
    note = staggered_checks.bands(values, spec.options, seed=spec.seed)
    return [note, *([staggered_checks.no_variance(silent)] if silent else [])]


def _covariance(sections: Sequence[Section], *, outcome: str) -> dict[str, pd.DataFrame]:
    """The covariance of the event study, for whoever wants to test or bound it further."""
    shown = next((s for s in sections if s.name == "event_study"), None)
    if shown is None:
        return {}
    # An estimate without variance has no covariances either.
    at = np.flatnonzero(shown.found.is_known)
    names = [shown.rows[k].term for k in at]
    known = shown.found.covariance[np.ix_(at, at)]
    return {"covariance": covariance_table(names, known, metric=outcome)}


def _event_study_checks(
    spec: StaggeredSpec, sections: Sequence[Section], *, outcome: str
) -> Checks:
    """Power of the pre-test and sensitivity of the event study to trends that part."""
    shown = next((s for s in sections if s.name == "event_study"), None)
    if shown is None:
        return Checks()
    options, found = spec.options, shown.found
    at = [k for k, row in enumerate(shown.rows) if found.is_known[k] and not row.is_reference]
    study = Study(
        times=np.array([shown.rows[k].labels["event_time"] for k in at], dtype=np.float64),
        estimates=found.values[at], covariance=found.covariance[np.ix_(at, at)],
        anticipation=options.anticipation,
        reference=-1 - options.anticipation if options.base_period == "universal" else None,
        df=found.df,
    )  # fmt: skip
    return event_study_checks(
        study, options.sensitivity, metric=outcome, confidence_level=spec.confidence_level
    )
