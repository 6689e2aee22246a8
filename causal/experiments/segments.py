"""The same comparisons within slices of the units: effects by segment, and whether they differ.

A segment must be known before the treatment. Its effect is what the analysis of its units alone
gives, digit by digit. Whether the effects of several segments differ is a joint test; two live
experiments interact if the effect of one differs between the arms of the other, so the arms of the
other are treated as segments and their effects subtracted.
"""

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.checks import few_clusters
from causal.core import inference
from causal.core.errors import DataError, InferenceError
from causal.core.frames import (
    Condition,
    Constant,
    FrameRequest,
    Indicator,
    Level,
    Product,
    Score,
    Term,
    linear,
)
from causal.core.gram import Array
from causal.core.result import Diagnostic, Effect
from causal.core.texts import listed
from causal.experiments.arms import MIN_UNITS, Arms, Design, ask_moments
from causal.experiments.cluster_sums import (
    Clusterings,
    Clusters,
    ask_cluster_rows,
    ask_clustering,
    ask_count_covariance,
    ask_score_covariance,
    compared,
)
from causal.experiments.comparison import (
    Comparison,
    Inference,
    adjusted_readout,
    comparisons,
    raw_readout,
)
from causal.experiments.levels import CONTROL, TREATMENT, is_constant
from causal.experiments.metrics import Metric
from causal.experiments.slice_covariance import (
    Slice,
    SliceCovariance,
    absolute,
    clustered_slices,
    independent_slices,
)

_MAX_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class SliceDesign:
    """An experiment that is read slice by slice.

    Attributes:
        design: Who was randomised to what.
        column: Column of the slices.
        clusters: What was randomised, if not units.
    """

    design: Design
    column: str
    clusters: Clusters | None = None

    def rows(self, slices: Sequence[Slice]) -> tuple[Condition, ...]:
        """Conditions on the rows of some slices of one comparison."""
        variants = slices[0].raw.comparison.variants
        return (
            *compared(self.design, variants),
            Condition(self.column, tuple(one.level for one in slices)),
        )


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """All comparisons in all segments of one column.

    Attributes:
        column: The column.
        arms: Moments by arm and segment.
        levels: The segments, without null.
        slices: By metric and treatment, one slice per segment that can carry the comparison.
        left_out: Why segments carry no comparison, by `metric, treatment - control, segment`.
    """

    column: str
    arms: Arms
    levels: tuple[Level, ...]
    slices: Mapping[tuple[str, Level], tuple[Slice, ...]]
    left_out: Mapping[str, str]

    @property
    def effects(self) -> list[Effect]:
        """Of every slice, the adjusted effects before the raw ones."""
        return [effect for one in self._all for effect in _slice_effects(one)]

    @property
    def n_null(self) -> int:
        """Rows of the compared arms without a segment."""
        return sum(count for (_, key), count in self.counts.items() if key is None)

    @property
    def counts(self) -> Mapping[tuple[Level, Level | None], int]:
        """Rows by variant and segment, whether or not a metric is missing."""
        cells = next(iter(self.arms.cells.values()))
        return {
            (variant, key[0]): item.n + item.n_missing
            for variant, by_segment in cells.items()
            for key, item in by_segment.items()
        }

    @property
    def n_plain(self) -> int:
        """Slices whose covariates do not vary, so that the raw effect stands alone."""
        return sum(
            bool(one.raw.comparison.metric.covariates) and one.best is one.raw for one in self._all
        )

    @property
    def n_few(self) -> int:
        """Slices in which an arm has too few clusters for a check to pass."""
        joints = [one.raw.comparison.joint for one in self._all]
        clusterings = [joint.clustering for joint in joints if joint is not None]
        return sum(
            min(count for way in item.one_ways for count in way.arm_clusters) < few_clusters.TOO_FEW
            for item in clusterings
            if item is not None
        )

    @property
    def _all(self) -> list[Slice]:
        return [one for group in self.slices.values() for one in group]


def ask_segmentation(
    ask: SliceDesign, metrics: Sequence[Metric], how: Inference
) -> Generator[FrameRequest, pd.DataFrame, Segmentation]:
    """Every comparison in every segment.

    Args:
        ask: The experiment and the column of the segments.
        metrics: The metrics.
        how: How effects are estimated.
    """
    design, column = ask.design, ask.column
    arms = yield from ask_moments(dataclasses.replace(design, strata=(column,)), metrics)
    levels = _levels(arms)
    slices: list[Slice] = []
    left_out: dict[str, str] = {}
    for level in levels:
        where = (*design.where, Condition(column, (level,)))
        inside = dataclasses.replace(design, where=where, strata=())
        for group, part in _parts(metrics, arms, level, left_out, column=column):
            try:
                clusterings = yield from _ask_clusterings(inside, group, part, ask.clusters)
            except DataError as error:
                left_out |= {f"{metric.name}, {column}={level}": error.message for metric in group}
                continue
            for metric in group:
                pairs = comparisons(metric, part, clusterings.get(metric.name))
                slices += _slices(pairs, how, level, left_out, column=column)
    groups: dict[tuple[str, Level], list[Slice]] = {}
    for one in slices:
        comparison = one.raw.comparison
        groups.setdefault((comparison.metric.name, comparison.variants[TREATMENT]), []).append(one)
    return Segmentation(
        column=column,
        arms=arms,
        levels=levels,
        slices={key: tuple(group) for key, group in groups.items()},
        left_out=left_out,
    )


def ask_count_covariances(
    design: Design,
    segmentation: Segmentation,
    *,
    cluster: tuple[str, ...],
    shares: Sequence[float],
) -> Generator[FrameRequest, pd.DataFrame, dict[Level, Array]]:
    """By segment, the clustered covariance of `count - share * total` of all arms but the first."""
    covariances = {}
    for level in segmentation.levels:
        counts = {
            variant: segmentation.counts.get((variant, level), 0)
            for variant in segmentation.arms.levels
        }
        inside = dataclasses.replace(
            design, where=(*design.where, Condition(segmentation.column, (level,)))
        )
        part = dataclasses.replace(segmentation.arms, counts=counts)
        covariances[level] = yield from ask_count_covariance(
            inside, part, cluster=cluster, shares=shares
        )
    return covariances


def ask_effect_covariance(
    ask: SliceDesign, slices: Sequence[Slice]
) -> Generator[FrameRequest, pd.DataFrame, SliceCovariance]:
    """Joint covariance of the slices' effects, and the degrees of freedom of their contrasts.

    Segments share no unit, so without clusters their effects are independent. A cluster may have
    units in several segments: its contributions to the effects then go together.

    Args:
        ask: The experiment and the column of the segments.
        slices: Slices of one comparison, one per segment.
    """
    if ask.clusters is None:
        return independent_slices(slices)
    if ask.clusters.held == (True,):
        return (yield from _ask_held_covariance(ask, slices, ask.clusters))
    covariance, n_clusters = yield from ask_score_covariance(
        tuple(_effect_score(ask.design, one, column=ask.column) for one in slices),
        clusters=ask.clusters,
        where=ask.rows(slices),
        n_used=sum(item.n for one in slices for item in one.raw.comparison.moments),
        n_means=2 * len(slices),
    )
    if ask.clusters.degrees_of_freedom == "clusters_minus_one":
        return SliceCovariance(covariance, fixed_df=n_clusters - 1.0, n_clusters=n_clusters)
    least = min(df for one in slices if (df := absolute(one.best).df) is not None)
    return SliceCovariance(covariance, moment_df=lambda _: least, n_clusters=n_clusters)


def _ask_held_covariance(
    ask: SliceDesign, slices: Sequence[Slice], clusters: Clusters
) -> Generator[FrameRequest, pd.DataFrame, SliceCovariance]:
    metric = slices[0].best.comparison.metric
    rows = yield from ask_cluster_rows(
        ask.design,
        metric.terms,
        by=(ask.column,),
        cluster=clusters.columns[0],
        where=ask.rows(slices),
    )
    return clustered_slices(slices, rows, clusters)


def heterogeneity(slices: Sequence[Slice], joint: SliceCovariance, *, column: str) -> Diagnostic:
    """Joint test that a comparison has the same effect in all segments.

    Independent effects: Welch's (1951) test of their weighted spread, which knows that small
    segments have weights that are estimates themselves; a chi-square would be too sure. Effects
    that share clusters: Hotelling's T squared, with the fewest degrees of freedom of the contrasts.

    Args:
        slices: Slices of one comparison, one per segment.
        joint: Joint covariance of their absolute effects.
        column: Column of the segments.
    """
    whole = dataclasses.replace(slices[0].raw.comparison, segment="")
    name = f"heterogeneity.{column}.{whole.metric.name}.{whole.term}"
    estimates = np.array([absolute(one.best).estimate for one in slices])
    try:
        statistic, pvalue, reference = joint.equality(estimates)
    except InferenceError as error:
        detail = f"whether the effect differs by {column} cannot be tested: {error}"
        return Diagnostic(name=name, statistic=None, pvalue=None, passed=None, detail=detail)
    low = slices[int(estimates.argmin())].level
    high = slices[int(estimates.argmax())].level
    return Diagnostic(
        name=name,
        statistic=statistic,
        pvalue=pvalue,
        passed=None,
        detail=(
            f"{whole.metric.name}: effects by {column} from {estimates.min():+.4g} ({low}) to "
            f"{estimates.max():+.4g} ({high}); p = {pvalue:.3g} that all {len(slices)} are equal "
            f"({reference})"
        ),
    )


def interactions(
    slices: Sequence[Slice],
    joint: SliceCovariance,
    how: Inference,
    *,
    control: Level,
    column: str,
) -> list[Effect]:
    """Effect in each arm of another experiment less that in its control arm.

    Args:
        slices: Slices of one comparison, one per arm of the other experiment.
        joint: Joint covariance of their absolute effects.
        how: Holds the confidence level.
        control: Control arm of the other experiment.
        column: Its column.
    """
    base = next((at for at, one in enumerate(slices) if one.level == control), None)
    if base is None:
        return []
    out = []
    for at, one in enumerate(slices):
        if at == base:
            continue
        contrast = np.zeros(len(slices))
        contrast[at], contrast[base] = 1.0, -1.0
        spread = (joint.variance(contrast), joint.df(contrast))
        other = f"{column}: {one.level} - {control}"
        out.append(_interaction((slices[base], one), spread, how, other=other))
    return out


def notes(segmentation: Segmentation) -> list[Diagnostic]:
    """Units and segments that are not in the slices, and why."""
    column, left_out = segmentation.column, segmentation.left_out
    found = []
    if segmentation.n_null:
        n_null = segmentation.n_null
        found.append(
            _note(f"segment_missing.{column}", n_null, f"{n_null:,} rows have no {column}")
        )
    if left_out:
        reasons = (f"{where}: {why}" for where, why in left_out.items())
        shown = listed(reasons, most=_MAX_SHOWN, separator="; ")
        found.append(
            _note(
                f"segments_left_out.{column}",
                len(left_out),
                f"{len(left_out)} comparisons by {column} are left out: {shown}",
            )
        )
    if segmentation.n_few:
        detail = (
            f"{segmentation.n_few} comparisons by {column} rest on fewer than "
            f"{few_clusters.TOO_FEW} clusters in an arm: their intervals hold for normal cluster "
            "means only"
        )
        found.append(_note(f"segments_few_clusters.{column}", segmentation.n_few, detail))
    if segmentation.n_plain:
        detail = f"{segmentation.n_plain} comparisons by {column} have no covariate that varies"
        found.append(_note(f"segments_unadjusted.{column}", segmentation.n_plain, detail))
    return found


def _note(name: str, count: int, detail: str) -> Diagnostic:
    return Diagnostic(name=name, statistic=float(count), pvalue=None, passed=None, detail=detail)


def _levels(arms: Arms) -> tuple[Level, ...]:
    """The segments that occur in a compared arm: numbers by value, text by text."""
    found = {
        key[0]
        for cells in arms.cells.values()
        for by_segment in cells.values()
        for key in by_segment
        if key[0] is not None
    }
    numbers = sorted(level for level in found if not isinstance(level, str))
    return (*numbers, *sorted(level for level in found if isinstance(level, str)))


def _parts(
    metrics: Sequence[Metric],
    arms: Arms,
    level: Level,
    left_out: dict[str, str],
    *,
    column: str,
) -> list[tuple[list[Metric], Arms]]:
    """Metrics that have the same arms in a segment, with the segment's moments of these arms."""
    groups: dict[tuple[Level, ...], list[Metric]] = {}
    for metric in metrics:
        kept = tuple(variant for variant in arms.levels if _has_units(arms, metric, variant, level))
        if arms.levels[CONTROL] in kept and len(kept) > 1:
            groups.setdefault(kept, []).append(metric)
        lost = [variant for variant in arms.levels if variant not in kept]
        if lost:
            why = f"fewer than {MIN_UNITS} units of {', '.join(map(str, lost))}"
            left_out[f"{metric.name}, {column}={level}"] = why
    return [(group, _sliced(group, arms, kept, level)) for kept, group in groups.items()]


def _has_units(arms: Arms, metric: Metric, variant: Level, level: Level) -> bool:
    cell = arms.cells[metric.name][variant].get((level,))
    return cell is not None and cell.n >= MIN_UNITS


def _sliced(metrics: Sequence[Metric], arms: Arms, kept: tuple[Level, ...], level: Level) -> Arms:
    moments = {
        metric.name: tuple(arms.cells[metric.name][variant][level,] for variant in kept)
        for metric in metrics
    }
    first = moments[metrics[0].name]
    counts = {item: gram.n + gram.n_missing for item, gram in zip(kept, first, strict=True)}
    return Arms(levels=kept, counts=counts, n_other=0, moments=moments, cells={})


def _ask_clusterings(
    design: Design, metrics: Sequence[Metric], arms: Arms, clusters: Clusters | None
) -> Generator[FrameRequest, pd.DataFrame, Clusterings]:
    if clusters is None:
        return {}
    return (yield from ask_clustering(design, metrics, arms, clusters=clusters))


def _slices(
    pairs: Sequence[Comparison],
    how: Inference,
    level: Level,
    left_out: dict[str, str],
    *,
    column: str,
) -> list[Slice]:
    """The comparisons of one metric in one segment; those that cannot be made are left out."""
    found = []
    for plain in pairs:
        comparison = dataclasses.replace(plain, segment=f"{column}={level}")
        try:
            found.append(_slice(comparison, how, level))
        except DataError as error:
            left_out[f"{comparison.metric.name}, {comparison.term}"] = error.message
    return found


def _slice(comparison: Comparison, how: Inference, level: Level) -> Slice:
    outcome = comparison.metric.quotients[0]
    if all(is_constant(item, outcome) for item in comparison.moments):
        raise DataError("zero variance, every unit of an arm has the same value")
    raw = raw_readout(comparison, how)
    if not comparison.metric.covariates:
        return Slice(level=level, raw=raw, best=raw)
    try:
        return Slice(level=level, raw=raw, best=adjusted_readout(comparison, how))
    except DataError:
        # A covariate may be constant in a segment, such as the past of new units: raw stands then.
        return Slice(level=level, raw=raw, best=raw)


def _slice_effects(one: Slice) -> tuple[Effect, ...]:
    return one.raw.effects if one.best is one.raw else (*one.best.effects, *one.raw.effects)


def _effect_score(design: Design, one: Slice, *, column: str) -> Score:
    """Linearised contribution of a row to a slice's absolute effect."""
    comparison, levels = one.best.comparison, one.best.levels
    pairs: list[tuple[Term, float]] = []
    for arm, (variant, item) in enumerate(
        zip(comparison.variants, comparison.moments, strict=True)
    ):
        both = levels.gradient(arm)
        gradient = (both[TREATMENT] - both[CONTROL]) / item.n
        centred = linear(
            [
                *zip(item.terms, map(float, gradient), strict=True),
                (Constant(), -float(gradient @ item.mean)),
            ]
        )
        inside = (Indicator(design.variant, variant), Indicator(column, one.level))
        pairs.append((Product((*inside, centred)), 1.0))
    return Score(linear(pairs), Constant())


def _interaction(
    pair: tuple[Slice, Slice], spread: tuple[float, float], how: Inference, *, other: str
) -> Effect:
    base, one = (absolute(item.best) for item in pair)
    comparison = dataclasses.replace(pair[0].raw.comparison, segment="")
    names = {base.estimator, one.estimator}
    variance, df = spread
    return inference.effect(
        estimator=one.estimator if len(names) == 1 else "mixed",
        estimand="coefficient",
        metric=comparison.metric.name,
        term=f"{comparison.term} | {other}",
        estimate=one.estimate - base.estimate,
        std_error=float(np.sqrt(max(variance, 0.0))),
        df=df,
        confidence_level=how.confidence_level,
        n_treated=base.n_treated + one.n_treated,
        n_control=base.n_control + one.n_control,
        n_clusters=comparison.n_clusters,
    )
