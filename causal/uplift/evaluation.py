"""How well scores rank units by their effect: Qini, AUUC, uplift at k and RATE, with intervals.

Everything is computed from a score histogram (`causal.uplift.score_histogram`), for treatments that
were randomised; RATE with pseudo-outcomes also serves treatments that were not, provided the
pseudo-outcomes are doubly robust scores whose nuisance models did not see their own unit. Scores
must come from models that were trained on other units, or the figures flatter them.

`definition` says whose figure it is, digit for digit: `scikit-uplift` (0.5.1), `causalml` (0.18.0)
or `grf`. See `causal.uplift.curves` for how they differ and for ties.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from causal.core.errors import DataError, SpecError
from causal.core.gram import Array
from causal.core.inference import critical_value
from causal.uplift import curves
from causal.uplift.curves import Weighting
from causal.uplift.resampling import (
    Quotient,
    Resampling,
    Sample,
    Score,
    Statistic,
    draws,
    observed,
    scored,
)
from causal.uplift.score_histogram import ScoreHistogram

Definition = Literal["scikit-uplift", "causalml"]
RateDefinition = Literal["grf", "causalml"]
Strategy = Literal["overall", "by_group"]


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """How intervals are made.

    Attributes:
        resampling: Draws; `None`: estimates only.
        confidence_level: Nominal coverage.
    """

    resampling: Resampling | None = field(default_factory=Resampling)
    confidence_level: float = 0.95


DEFAULT = Intervals()


def qini(
    histogram: ScoreHistogram,
    *,
    definition: Definition = "scikit-uplift",
    negative_effect: bool = True,
    intervals: Intervals = DEFAULT,
) -> Score:
    """The Qini coefficient.

    `scikit-uplift`: area of the Qini curve over random, as a share of that of a ranking that knows
    the 0/1 outcomes (`qini_auc_score`). `causalml`: mean over units of the Qini curve less the
    random line, divided by the end of the curve (`qini_score`).

    Args:
        histogram: The data.
        definition: Whose figure.
        negative_effect: Whether the perfect ranking knows whom treatment harms (scikit-uplift).
        intervals: How the interval is made.

    Raises:
        DataError: scikit-uplift's share needs outcomes 0 and 1.
        InferenceError: It is not defined on these data (no effect to divide by).

    Example:
        >>> from causal.uplift.score_histogram import histogram_of
        >>> units = histogram_of(score=[0.1, 0.3], treated=[1, 0], outcome=[0, 1])
        >>> qini(units, intervals=Intervals(resampling=None)).estimate
        1.0
    """
    if definition == "scikit-uplift":
        _need_binary(histogram, "qini")

    def statistic(sample: Sample) -> Quotient:
        if definition == "causalml":
            curve = curves.unit_qini_curve(sample.bins)
            end = np.asarray(curve.value[..., -1])
            n_points = curve.n[..., -1] + 1
            area = np.asarray(curves.unit_sum(curve) / n_points - end / 2)
            return Quotient(over=area, under=end, by_size=True)
        perfect = curves.perfect_qini_curve(sample.bins, negative_effect=negative_effect)
        return Quotient(
            over=curves.area_over_random(curves.qini_curve(sample.bins)),
            under=curves.area_over_random(perfect),
        )

    return _scored(histogram, statistic, ("qini", definition), intervals)


def qini_area(histogram: ScoreHistogram, *, intervals: Intervals = DEFAULT) -> Score:
    """Area between the Qini curve and random, in extra outcomes times units; any outcome."""

    def statistic(sample: Sample) -> Array:
        return curves.area_over_random(curves.qini_curve(sample.bins))

    return _scored(histogram, statistic, ("qini_area", "scikit-uplift"), intervals)


def auuc(
    histogram: ScoreHistogram,
    *,
    definition: Definition = "scikit-uplift",
    intervals: Intervals = DEFAULT,
) -> Score:
    """Area under the uplift curve.

    `scikit-uplift`: over random, as a share of a perfect ranking's (`uplift_auc_score`).
    `causalml`: mean over units of the cumulative gain divided by its end (`auuc_score`); random
    scores have about 0.5.

    Raises:
        DataError: scikit-uplift's share needs outcomes 0 and 1.
        InferenceError: It is not defined on these data.
    """
    if definition == "scikit-uplift":
        _need_binary(histogram, "auuc")

    def statistic(sample: Sample) -> Quotient:
        if definition == "causalml":
            curve = curves.unit_gain_curve(sample.bins)
            mean = np.asarray(curves.unit_sum(curve) / (curve.n[..., -1] + 1))
            return Quotient(over=mean, under=np.asarray(curve.value[..., -1]), by_size=True)
        return Quotient(
            over=curves.area_over_random(curves.uplift_curve(sample.bins)),
            under=curves.area_over_random(curves.perfect_uplift_curve(sample.bins)),
        )

    return _scored(histogram, statistic, ("auuc", definition), intervals)


def uplift_at(
    histogram: ScoreHistogram,
    *,
    k: float,
    strategy: Strategy = "overall",
    intervals: Intervals = DEFAULT,
) -> Score:
    """Difference in means among the units with the highest scores (scikit-uplift's `uplift_at_k`).

    Args:
        histogram: The data.
        k: Share of the units, between 0 and 1; the number of units is rounded down.
        strategy: The top of all units together (`overall`), or of each arm (`by_group`).
        intervals: How the interval is made.

    Raises:
        SpecError: k is not a share.
        InferenceError: An arm has no unit among them.
    """
    if not 0 < k < 1:
        raise SpecError("k is a share of the units", given=k, allowed="between 0 and 1")

    def statistic(sample: Sample) -> Array:
        bins = sample.bins
        arms = ((bins.n_treated, bins.treated), (bins.n_control, bins.control))
        means = []
        for n, total in arms:
            ranked = bins.n if strategy == "overall" else n
            share = _top(ranked, k)
            means.append(_share((share * total).sum(axis=-1), (share * n).sum(axis=-1)))
        return np.asarray(means[0] - means[1])

    return _scored(histogram, statistic, (f"uplift_at_{k:g}", "scikit-uplift"), intervals)


def rate(
    histogram: ScoreHistogram,
    *,
    weighting: Weighting = "autoc",
    definition: RateDefinition = "grf",
    propensity: float | None = None,
    intervals: Intervals = DEFAULT,
) -> Score:
    """Rank-weighted average treatment effect.

    `grf`: TOC of effect scores, averaged over units (`autoc`) or times the share targeted (`qini`).
    The effect scores are the histogram's pseudo-outcomes (AIPW), or without them inverse
    probability weighted outcomes with the given propensity or, without one, the share of treated
    units. `causalml`: TOC of differences in means, averaged with weights 1/q or q (`rate_score`).

    Args:
        histogram: The data.
        weighting: `autoc` or `qini`.
        definition: Whose figure.
        propensity: Probability of treatment in a randomised design (`grf` without
            pseudo-outcomes); estimated, resampled with the rest, if left out.
        intervals: How the interval is made.

    Raises:
        SpecError: A propensity that would not be used, or is not a probability.
    """
    uses_propensity = definition == "grf" and histogram.pseudo is None
    if propensity is not None and not uses_propensity:
        raise SpecError("a propensity is used by definition grf without pseudo-outcomes only")
    if propensity is not None and not 0 < propensity < 1:
        raise SpecError("a propensity lies between 0 and 1", given=propensity)

    def statistic(sample: Sample) -> Array:
        if definition == "causalml":
            curve = curves.unit_toc_curve(sample.bins)
            return curves.unit_average_toc(curve, weighting)
        n, total = effect_scores(sample, propensity=propensity)
        return curves.rate(n, total, weighting=weighting)

    name = "autoc" if weighting == "autoc" else "rate_qini"
    return _scored(histogram, statistic, (name, definition), intervals)


def effect_scores(sample: Sample, *, propensity: float | None = None) -> tuple[Array, Array]:
    """Units and sums of effect scores by bin: pseudo-outcomes, or weighted outcomes.

    Args:
        sample: Sums by bin.
        propensity: Probability of treatment; the share of treated units if left out.
    """
    if sample.pseudo is not None and sample.n_pseudo is not None:
        return sample.n_pseudo, sample.pseudo
    bins = sample.bins
    share: Array | float
    if propensity is None:
        share = (bins.n_treated.sum(axis=-1) / bins.n.sum(axis=-1))[..., None]
    else:
        share = propensity
    return bins.n, np.asarray(bins.treated / share - bins.control / (1 - share))


def qini_band(
    histogram: ScoreHistogram, *, n_points: int = 101, intervals: Intervals = DEFAULT
) -> pd.DataFrame:
    """The Qini curve per treated unit, with pointwise intervals.

    Args:
        histogram: The data.
        n_points: Points along the share of units targeted.
        intervals: How the intervals are made; resampling is needed.

    Returns:
        Columns `share` (of units targeted), `estimate` (extra outcomes among the treated of the
        top, per treated unit), `random`, `std_error`, `ci_lower`, `ci_upper`.

    Raises:
        SpecError: No resampling was given.
    """
    shares = np.linspace(0, 1, n_points)

    def statistic(sample: Sample) -> Array:
        scale = np.asarray(sample.bins.n_treated.sum(axis=-1))
        reached = curves.at_shares(curves.qini_curve(sample.bins), shares)
        return np.asarray(reached / scale[..., None])

    band = _band(histogram, statistic, shares=shares, intervals=intervals)
    band.insert(2, "random", shares * band["estimate"].iloc[-1])
    return band


def toc_band(
    histogram: ScoreHistogram,
    *,
    first: float = 0.05,
    n_points: int = 96,
    intervals: Intervals = DEFAULT,
) -> pd.DataFrame:
    """The targeting operator characteristic, with pointwise intervals.

    TOC(q) is the mean effect on the share q with the highest scores less that on all units
    (Yadlowsky et al. 2025); its average over q is AUTOC. Effects are means of effect scores, as in
    `rate`, so this serves treatments that were not randomised if the histogram has pseudo-outcomes.

    Args:
        histogram: The data.
        first: Smallest share: fewer units say little.
        n_points: Points from there to 1.
        intervals: How the intervals are made; resampling is needed.

    Returns:
        Columns `share`, `estimate`, `std_error`, `ci_lower`, `ci_upper`.

    Raises:
        SpecError: No resampling was given, or a share that is not between 0 and 1.
    """
    if not 0 < first < 1:
        raise SpecError("the smallest share lies between 0 and 1", given=first)
    shares = np.linspace(first, 1, n_points)

    def statistic(sample: Sample) -> Array:
        n, total = effect_scores(sample)
        mean = total.sum(axis=-1) / n.sum(axis=-1)
        reached = curves.at_shares(curves.effect_curve(n, total), shares)
        return np.asarray(reached / (shares * n.sum(axis=-1)[..., None]) - mean[..., None])

    return _band(histogram, statistic, shares=shares, intervals=intervals)


def _band(
    histogram: ScoreHistogram, statistic: Statistic, *, shares: Array, intervals: Intervals
) -> pd.DataFrame:
    """A curve with its pointwise interval.

    Raises:
        SpecError: No resampling was given.
    """
    if intervals.resampling is None:
        raise SpecError("a band needs resampling")
    estimate = statistic(observed(histogram))
    std_error = draws(histogram, statistic, intervals.resampling).std(axis=0, ddof=1)
    half = critical_value(intervals.confidence_level) * std_error
    return pd.DataFrame(
        {
            "share": shares,
            "estimate": estimate,
            "std_error": std_error,
            "ci_lower": estimate - half,
            "ci_upper": estimate + half,
        }
    )


def evaluate(
    histogram: ScoreHistogram, *, ks: Sequence[float] = (0.1, 0.3), intervals: Intervals = DEFAULT
) -> pd.DataFrame:
    """Every figure that the data allow, one row each.

    Args:
        histogram: The data.
        ks: Shares for uplift at k.
        intervals: How intervals are made.

    Returns:
        Columns of `Score`. Shares of a perfect ranking are given for 0/1 outcomes only.
    """
    scores = [qini_area(histogram, intervals=intervals)]
    definitions: tuple[Definition, ...] = ("scikit-uplift", "causalml")
    for definition in definitions if histogram.is_binary else definitions[1:]:
        scores.append(qini(histogram, definition=definition, intervals=intervals))
        scores.append(auuc(histogram, definition=definition, intervals=intervals))
    weightings: tuple[Weighting, ...] = ("autoc", "qini")
    scores += [rate(histogram, weighting=item, intervals=intervals) for item in weightings]
    scores += [uplift_at(histogram, k=k, intervals=intervals) for k in ks]
    return pd.DataFrame([vars(score) for score in scores])


def _scored(
    histogram: ScoreHistogram,
    statistic: Callable[[Sample], Array | Quotient],
    label: tuple[str, str],
    intervals: Intervals,
) -> Score:
    return scored(
        histogram,
        statistic,
        label=label,
        resampling=intervals.resampling,
        confidence_level=intervals.confidence_level,
    )


def _need_binary(histogram: ScoreHistogram, name: str) -> None:
    if not histogram.is_binary:
        raise DataError(
            f"{name} of scikit-uplift compares with a perfect ranking of outcomes 0 and 1",
            given="other outcomes",
            allowed="qini_area, or definition causalml",
        )


def _top(n: Array, k: float) -> Array:
    """Share of each bin that lies among the top share k of the units, shape (..., b)."""
    size = np.floor(n.sum(axis=-1, keepdims=True) * k)
    ahead = np.cumsum(n, axis=-1) - n
    inside = np.clip(size - ahead, 0.0, n)
    return np.asarray(np.divide(inside, n, out=np.zeros_like(inside), where=n > 0))


def _share(over: Array, under: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.asarray(over) / np.asarray(under))
