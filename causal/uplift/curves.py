"""Uplift, Qini, gain and TOC curves of a score histogram, and the areas that summarise them.

Definitions have names, because libraries differ:

- `scikit-uplift` (0.5.1): points at distinct scores, trapezoids between them, areas relative to
  those of a perfect ranking.
- `causalml` (0.18.0): a point at every unit, plain averages over points, the curve divided by its
  end.
- `grf`: rank-weighted average treatment effects (RATE) of scores, averaged over units.

All functions take arrays of shape (..., b): leading axes hold resampled histograms. Bins are
ordered from the highest score. Where a definition has a point at every unit, units of one bin are
taken as mixed evenly (the expectation over the order of ties); libraries let the order of rows
decide.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from causal.core.gram import Array

_MAX_PIECES = 16

Weighting = Literal["autoc", "qini"]


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Sums by score bin, highest score first; each of shape (..., b).

    Attributes:
        n_treated: Treated units.
        n_control: Control units.
        treated: Sum of the treated units' outcomes.
        control: Sum of the control units' outcomes.
    """

    n_treated: Array
    n_control: Array
    treated: Array
    control: Array

    @property
    def n(self) -> Array:
        """Units by bin."""
        return self.n_treated + self.n_control

    def cumulated(self) -> "Bins":
        """Sums over all bins down to each, with a zero in front, shape (..., b + 1)."""
        return Bins(
            n_treated=_cumulated(self.n_treated),
            n_control=_cumulated(self.n_control),
            treated=_cumulated(self.treated),
            control=_cumulated(self.control),
        )

    def pieces(self) -> "Bins":
        """Every bin cut into even pieces, one per unit but at most 16."""
        size = self.n.reshape(-1, self.n.shape[-1]).max(axis=0)
        n_pieces = np.clip(size, 1, _MAX_PIECES).astype(np.int64)

        def cut(values: Array) -> Array:
            return np.asarray(np.repeat(values / n_pieces, n_pieces, axis=-1))

        return Bins(
            n_treated=cut(self.n_treated),
            n_control=cut(self.n_control),
            treated=cut(self.treated),
            control=cut(self.control),
        )


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A piecewise linear curve over the number of units targeted.

    Attributes:
        n: Units targeted, from 0 to all, shape (..., k).
        value: The curve there, shape (..., k).
    """

    n: Array
    value: Array


def qini_curve(bins: Bins) -> Curve:
    """Extra outcomes among the treated of the top n: treated sum less scaled control sum.

    Radcliffe (2007), "Using Control Groups to Target on Predicted Lift". Without controls so far
    nothing is taken off, as scikit-uplift does.
    """
    sums = bins.cumulated()
    value = sums.treated - sums.control * _ratio(sums.n_treated, sums.n_control)
    return Curve(n=sums.n, value=value)


def uplift_curve(bins: Bins) -> Curve:
    """Difference in means among the top n, times n (Devriendt, Guns and Verbeke 2020)."""
    sums = bins.cumulated()
    lift = _ratio(sums.treated, sums.n_treated) - _ratio(sums.control, sums.n_control)
    return Curve(n=sums.n, value=lift * sums.n)


def perfect_qini_curve(bins: Bins, *, negative_effect: bool = True) -> Curve:
    """The Qini curve of a ranking that knows the 0/1 outcomes.

    Treated responders come first and control responders last; without `negative_effect` the curve
    rises to its end and stays there.
    """
    n_t, n_c, y_t, y_c = _totals(bins)
    end = y_t - y_c * _ratio(n_t, n_c)
    if not negative_effect:
        extra = y_t - n_t * _ratio(y_c, n_c)
        return _points(
            [(np.zeros_like(end), np.zeros_like(end)), (extra, extra), (n_t + n_c, extra)]
        )
    return _points(
        [
            (np.zeros_like(end), np.zeros_like(end)),
            (y_t, y_t),
            (n_t + n_c - y_c, y_t),
            (n_t + n_c, end),
        ]
    )


def perfect_uplift_curve(bins: Bins) -> Curve:
    """The uplift curve of a ranking that knows the 0/1 outcomes, as scikit-uplift orders it."""
    n_t, n_c, y_t, y_c = _totals(bins)
    # Which group comes before the last depends on its size, as in scikit-uplift.
    controls_first = y_c > n_t - y_t
    middle = Bins(
        n_treated=np.where(controls_first, 0.0, n_t - y_t),
        n_control=np.where(controls_first, y_c, 0.0),
        treated=np.zeros_like(y_t),
        control=np.where(controls_first, y_c, 0.0),
    )
    zero = np.zeros_like(y_t)
    ranked = Bins(
        n_treated=_stack(y_t, zero, middle.n_treated, n_t - y_t - middle.n_treated),
        n_control=_stack(zero, n_c - y_c, middle.n_control, y_c - middle.n_control),
        treated=_stack(y_t, zero, zero, zero),
        control=_stack(zero, zero, middle.control, y_c - middle.control),
    )
    return uplift_curve(ranked)


def unit_qini_curve(bins: Bins) -> Curve:
    """The Qini curve with a point at every unit, as causalml draws it."""
    sums = bins.pieces().cumulated()
    value = sums.treated - sums.control * _ratio(sums.n_treated, sums.n_control)
    return _filled(Curve(n=sums.n, value=value), (sums.n_control > 0))


def unit_gain_curve(bins: Bins) -> Curve:
    """The cumulative gain (uplift) curve with a point at every unit, as causalml draws it.

    causalml interpolates the lift where an arm is still missing, and multiplies by n afterwards.
    """
    sums = bins.pieces().cumulated()
    lift = _ratio(sums.treated, sums.n_treated) - _ratio(sums.control, sums.n_control)
    is_known = (sums.n_treated > 0) & (sums.n_control > 0)
    filled = _filled(Curve(n=sums.n, value=lift), is_known)
    return Curve(n=filled.n, value=filled.value * filled.n)


def unit_toc_curve(bins: Bins) -> Curve:
    """Difference in means of the top n less that of all, as causalml draws it.

    Where an arm is still missing, and at n = 0, the curve is 0.
    """
    sums = bins.pieces().cumulated()
    lift = _ratio(sums.treated, sums.n_treated) - _ratio(sums.control, sums.n_control)
    is_known = (sums.n_treated > 0) & (sums.n_control > 0)
    return Curve(n=sums.n, value=np.where(is_known, lift - lift[..., -1:], 0.0))


def effect_curve(n: Array, total: Array) -> Curve:
    """Running sums of effect scores, highest scores first; units of a bin are evenly mixed.

    Args:
        n: Units by bin, shape (..., b).
        total: Sum of their effect scores, shape (..., b).
    """
    return Curve(n=_cumulated(n), value=_cumulated(total))


def at_shares(curve: Curve, shares: Array) -> Array:
    """The curve where so much of its units are reached, linear in between, shape (..., m).

    Args:
        curve: One curve, or one for each draw.
        shares: Between 0 and 1, shape (m,).
    """
    n, value = np.atleast_2d(curve.n), np.atleast_2d(curve.value)
    rows = [np.interp(shares * a[-1], a, b) for a, b in zip(n, value, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(*curve.n.shape[:-1], len(shares))


def area(curve: Curve) -> Array:
    """Area under a curve by trapezoids, shape (...)."""
    width = np.diff(curve.n, axis=-1)
    return np.asarray((width * (curve.value[..., 1:] + curve.value[..., :-1]) / 2).sum(axis=-1))


def area_over_random(curve: Curve) -> Array:
    """Area between a curve and the straight line from 0 to its end, shape (...)."""
    return np.asarray(area(curve) - curve.n[..., -1] * curve.value[..., -1] / 2)


def unit_sum(curve: Curve) -> Array:
    """Sum of the curve over n = 1, 2, ..., all units, shape (...)."""
    return np.asarray(area(curve) + (curve.value[..., -1] - curve.value[..., 0]) / 2)


def unit_average_toc(curve: Curve, weighting: Weighting) -> Array:
    """RATE as causalml: midpoints of the TOC curve averaged with weights 1/q or q, shape (...)."""
    low, high = curve.n[..., :-1], curve.n[..., 1:]
    width = high - low
    slope = _ratio(np.diff(curve.value, axis=-1), width)
    level = curve.value[..., :-1] - slope * low
    # Sums over the units' midpoints j - 1/2 of level + slope (j - 1/2), times 1/(j - 1/2) or it.
    if weighting == "autoc":
        inverse = special.digamma(high + 0.5) - special.digamma(low + 0.5)
        inverse = np.where(width > 0, inverse, 0.0)
        return np.asarray((level * inverse + slope * width).sum(axis=-1) / inverse.sum(axis=-1))
    first = (high**2 - low**2) / 2
    second = (high**3 - low**3) / 3 - width / 12
    return np.asarray((level * first + slope * second).sum(axis=-1) / first.sum(axis=-1))


def rate(n: Array, total: Array, *, weighting: Weighting) -> Array:
    """Rank-weighted average treatment effect of effect scores, as grf computes it.

    Yadlowsky, Fleming, Shah, Brunskill and Wager (2025), "Evaluating Treatment Prioritization Rules
    via Rank-Weighted Average Treatment Effects", JASA 120. Averages TOC(q) (`autoc`) or q TOC(q)
    (`qini`) over units; ties share their mean score.

    Args:
        n: Units by bin, highest first, shape (..., b).
        total: Sum of their effect scores, shape (..., b).
        weighting: Which average.

    Returns:
        Shape (...).
    """
    ahead, whole = _cumulated(n)[..., :-1], n.sum(axis=-1)
    reached = _cumulated(total)[..., :-1]
    mean = _ratio(total, n)
    ate = total.sum(axis=-1) / whole
    rest = reached - ahead * mean
    if weighting == "autoc":
        harmonic = special.digamma(ahead + n + 1) - special.digamma(ahead + 1)
        return np.asarray((n * mean + rest * harmonic).sum(axis=-1) / whole - ate)
    ranks = n * ahead + n * (n + 1) / 2
    return np.asarray(((rest * n + (mean - ate[..., None]) * ranks).sum(axis=-1)) / whole**2)


def _totals(bins: Bins) -> tuple[Array, Array, Array, Array]:
    return (
        bins.n_treated.sum(axis=-1), bins.n_control.sum(axis=-1),
        bins.treated.sum(axis=-1), bins.control.sum(axis=-1),
    )  # fmt: skip


def _points(points: list[tuple[Array, Array]]) -> Curve:
    return Curve(n=_stack(*(n for n, _ in points)), value=_stack(*(value for _, value in points)))


def _stack(*values: Array) -> Array:
    return np.stack(values, axis=-1)


def _cumulated(values: Array) -> Array:
    start = np.zeros((*values.shape[:-1], 1))
    return np.concatenate([start, np.cumsum(values, axis=-1)], axis=-1)


def _ratio(over: Array, under: Array) -> Array:
    """The quotient, 0 where the divisor is."""
    return np.asarray(
        np.divide(over, under, out=np.zeros(np.broadcast(over, under).shape), where=under != 0)
    )


def _filled(curve: Curve, is_known: NDArray[np.bool_]) -> Curve:
    """Unknown values interpolated between 0 at n = 0 and the first known one."""
    first = is_known.argmax(axis=-1)[..., None]
    start = np.take_along_axis(curve.value, first, axis=-1)
    reach = np.take_along_axis(curve.n, first, axis=-1)
    line = start * _ratio(curve.n, np.broadcast_to(reach, curve.n.shape))
    at = np.arange(curve.n.shape[-1])
    return Curve(n=curve.n, value=np.where(at < first, line, curve.value))
