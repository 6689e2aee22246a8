"""Segments and a second experiment in a readout: which passes they take and what they report."""

import dataclasses
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from causal.checks import srm
from causal.checks.panel_health import note
from causal.core.errors import DataError
from causal.core.frames import FrameRequest, Level
from causal.core.gram import Array
from causal.core.result import Diagnostic, Effect
from causal.experiments import ab_health, segments
from causal.experiments.ab_options import AbOptions, OtherExperiment
from causal.experiments.arms import Arms, Design
from causal.experiments.cluster_sums import Clusters
from causal.experiments.comparison import Inference, Readout
from causal.experiments.segments import Segmentation, SliceDesign, ask_segmentation

_TWO = 2


@dataclass(frozen=True, kw_only=True)
class Slices:
    """What segments and another experiment add to a result.

    Attributes:
        effects: Effects by segment, then interactions.
        diagnostics: Their checks.
        readouts: The best readout of every slice, by column of segments.
    """

    effects: tuple[Effect, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    readouts: Mapping[str, tuple[Readout, ...]] = field(default_factory=dict)


def ask_slices(
    design: Design, arms: Arms, options: AbOptions, how: Inference, *, clusters: Clusters | None
) -> Generator[FrameRequest, pd.DataFrame, Slices]:
    """Effects by segment and interactions, one or more passes for each column.

    Args:
        design: Who was randomised to what.
        arms: Moments of all units.
        options: Options of the method.
        how: How effects are estimated.
        clusters: What was randomised, if not units.
    """
    out = Slices()
    for column in options.segments or ():
        ask = SliceDesign(design=design, column=column, clusters=clusters)
        out = _joined(out, (yield from _ask_segment(ask, arms, options, how)))
    if options.interaction is not None:
        other = options.interaction
        ask = SliceDesign(design=design, column=other.variant, clusters=clusters)
        out = _joined(out, (yield from _ask_interaction(ask, options, how, other)))
    return out


def whole_arms_only(options: AbOptions) -> list[Diagnostic]:
    """Which metrics have no effects by segment."""
    others = [metric.name for metric in options.metrics if not metric.is_moment]
    slices = (options.segments, options.interaction, options.time_since_exposure)
    if not others or not any(slices):
        return []
    detail = f"{', '.join(others)}: estimated for whole arms, not by segment or period"
    return [note("whole_arms_only", float(len(others)), detail)]


def _ask_segment(
    ask: SliceDesign, arms: Arms, options: AbOptions, how: Inference
) -> Generator[FrameRequest, pd.DataFrame, Slices]:
    found = yield from ask_segmentation(ask, options.moment_metrics, how)
    diagnostics = [
        (yield from _ask_ratio(ask.design, arms, options, found)),
        *segments.notes(found),
    ]
    for group in found.slices.values():
        if len(group) >= _TWO:
            joint = yield from segments.ask_effect_covariance(ask, group)
            diagnostics.append(segments.heterogeneity(group, joint, column=ask.column))
    return Slices(
        effects=tuple(found.effects),
        diagnostics=tuple(diagnostics),
        readouts={ask.column: tuple(one.best for group in found.slices.values() for one in group)},
    )


def _ask_ratio(
    design: Design, arms: Arms, options: AbOptions, found: Segmentation
) -> Generator[FrameRequest, pd.DataFrame, Diagnostic]:
    """Without planned shares the segments are held against those of all units."""
    is_planned = options.expected_shares is not None
    plan = options.expected_shares if is_planned else arms.counts
    shares = dict(zip(arms.levels, srm.planned_shares(arms.levels, plan), strict=True))
    covariances: Mapping[Level, Array] | None = None
    if options.clusters:
        covariances = yield from segments.ask_count_covariances(
            design, found, cluster=options.clusters, shares=tuple(shares.values())
        )
    return ab_health.segment_ratio(
        found.counts,
        column=found.column,
        shares=shares,
        covariances=covariances,
        plan=ab_health.ShareTest(alpha=options.srm_alpha, is_planned=is_planned),
    )


def _ask_interaction(
    ask: SliceDesign, options: AbOptions, how: Inference, other: OtherExperiment
) -> Generator[FrameRequest, pd.DataFrame, Slices]:
    """The effect of this experiment in each arm of the other, less that in its control.

    Raises:
        DataError: The other experiment lacks its control or has one arm only.
    """
    column = ask.column
    found = yield from ask_segmentation(ask, options.moment_metrics, how)
    if other.control not in found.levels:
        raise DataError(f"{column} has no such variant", given=other.control, allowed=found.levels)
    if len(found.levels) < _TWO:
        raise DataError(f"{column} has one arm only: nothing interacts", given=other.control)
    effects: list[Effect] = []
    diagnostics = list(segments.notes(found))
    diagnostics.append(
        ab_health.layers_untested(column=column)
        if options.clusters
        else ab_health.layers(found.counts, found.arms, column=column, alpha=options.srm_alpha)
    )
    for group in found.slices.values():
        joint = yield from segments.ask_effect_covariance(ask, group)
        effects += segments.interactions(group, joint, how, control=other.control, column=column)
    return Slices(effects=tuple(effects), diagnostics=tuple(diagnostics))


def _joined(left: Slices, right: Slices) -> Slices:
    return dataclasses.replace(
        left,
        effects=(*left.effects, *right.effects),
        diagnostics=(*left.diagnostics, *right.diagnostics),
        readouts={**left.readouts, **right.readouts},
    )
