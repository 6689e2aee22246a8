"""Effects that are linear in covariates, from moments by arm: S-, T-, X-, DR- and R-learners.

Every learner ends in coefficients of (1, columns), and in what a row adds to their errors: a sum of
parts, each a weight times two linear functions of the row. Nothing is trained on rows, so learners
cost the same for ten thousand rows or a billion (Kuenzel, Sekhon, Bickel and Yu 2019; Kennedy 2023;
Nie and Wager 2021).

Arrays are in the basis of the study: an intercept and k standardised columns, the outcome less a
constant; its moments M of one arm are sums of products of (1, columns, outcome).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np

from causal.core.cross_products import inverse
from causal.core.frames import Constant, Term
from causal.core.gram import Array

Learner = Literal["s", "t", "x", "dr", "r"]
Weighting = Literal["unweighted", "inverse", "opposite", "opposite_squared"]
"""Weights of a row with probability p of the arm that it is in: 1, 1 / p, 1 - p, (1 - p)^2."""
ArmMoments = tuple[Array, Array]
"""Moments of the control and of the treated rows."""

CONTROL, TREATED = 0, 1
_SIGNS = (-1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What rows add to the coefficients' errors: weight * left'z * (outcome * y - slopes'z).

    Attributes:
        arm: The rows: control, treated, or `None` for both.
        left: By coefficient, shape (k + 1, k + 1).
        outcome: 1 or 0.
        slopes: Shape (k + 1,).
        weighting: The weight.
    """

    arm: int | None
    left: Array
    outcome: float
    slopes: Array
    weighting: Weighting = "unweighted"


@dataclass(frozen=True, kw_only=True)
class LinearEffect:
    """An effect that is a linear function of the columns.

    Attributes:
        coefficients: Of (1, columns), shape (k + 1,); zero where the effect does not depend on a
            column.
        parts: What rows add to the errors of the coefficients.
        n_coefficients: Coefficients that were fitted for it.
    """

    coefficients: Array
    parts: tuple[Part, ...]
    n_coefficients: int


@dataclass(frozen=True, kw_only=True)
class LearnerData:
    """What the learners are computed from.

    Attributes:
        moments: By weighting; `unweighted` always, the others for learners that need them. Shape
            (k + 2, k + 2) each.
        share: Share of treated rows, or their known probability.
        is_share_known: Whether the share is known and not estimated.
        terms: Names of (1, columns), for messages.
        varying: Positions among (1, columns) along which the effect varies; 0 comes first.
        constants: By weighting, the weight of a control and of a treated row where it is the same
            for all of them; weightings that are not among them differ from row to row.
    """

    moments: Mapping[Weighting, ArmMoments]
    share: float
    is_share_known: bool
    terms: tuple[Term, ...]
    varying: tuple[int, ...]
    constants: Mapping[Weighting, tuple[float, float]] = field(
        default_factory=lambda: MappingProxyType({"unweighted": (1.0, 1.0)})
    )

    @property
    def size(self) -> int:
        """Columns and the intercept."""
        return len(self.terms)

    def weighted(self, weighting: Weighting) -> ArmMoments:
        """Moments with a weight; of constant weights from those without."""
        if weighting in self.moments:
            return self.moments[weighting]
        control, treated = self.moments["unweighted"]
        weights = self.constants[weighting]
        return weights[CONTROL] * control, weights[TREATED] * treated

    def part(
        self,
        arm: int,
        left: Array,
        *,
        slopes: Array,
        weighting: Weighting = "unweighted",
        outcome: float = 1.0,
    ) -> Part:
        """A part of one arm; a constant weight becomes a factor."""
        if weighting in self.constants:
            left = left * self.constants[weighting][arm]
            weighting = "unweighted"
        return Part(arm=arm, left=left, outcome=outcome, slopes=slopes, weighting=weighting)


def share_constants(share: float) -> Mapping[Weighting, tuple[float, float]]:
    """The weights of control and treated rows where all have one probability of treatment.

    Args:
        share: The probability.
    """
    p = (1.0 - share, share)
    return MappingProxyType(
        {
            "unweighted": (1.0, 1.0),
            "inverse": (1.0 / p[0], 1.0 / p[1]),
            "opposite": (1.0 - p[0], 1.0 - p[1]),
            "opposite_squared": ((1.0 - p[0]) ** 2, (1.0 - p[1]) ** 2),
        }
    )


def learn(data: LearnerData, learner: Learner) -> LinearEffect:
    """Fit one learner.

    Args:
        data: Moments.
        learner: Which one.

    Raises:
        InferenceError: Columns are collinear within an arm, or rows are too few.
    """
    return _LEARNERS[learner](data)


def t_learner(data: LearnerData) -> LinearEffect:
    """A regression in each arm; the effect is their difference."""
    fits = _arm_fits(data)
    parts = tuple(
        data.part(arm, _SIGNS[arm] * fits[arm].bread, slopes=fits[arm].slopes)
        for arm in (CONTROL, TREATED)
    )
    return LinearEffect(
        coefficients=fits[TREATED].slopes - fits[CONTROL].slopes,
        parts=parts,
        n_coefficients=2 * data.size,
    )


def s_learner(data: LearnerData) -> LinearEffect:
    """One regression on the columns and the treatment: an effect that is the same for all."""
    size = data.size
    control, treated = data.moments["unweighted"]
    cross = np.zeros((size + 1, size + 1))
    cross[:size, :size] = (control + treated)[:size, :size]
    cross[size, :size] = cross[:size, size] = treated[:size, 0]
    cross[size, size] = treated[0, 0]
    right = np.append((control + treated)[:size, size], treated[0, size])
    bread = inverse(cross, [*data.terms, Constant()])
    beta = bread @ right
    effect = np.zeros(size)
    effect[0] = beta[size]
    parts = []
    for arm, slopes in ((CONTROL, beta[:size]), (TREATED, beta[:size] + effect)):
        left = np.zeros((size, size))
        left[0] = bread[size, :size]
        left[0, 0] += arm * bread[size, size]
        parts.append(data.part(arm, left, slopes=slopes))
    return LinearEffect(coefficients=effect, parts=tuple(parts), n_coefficients=size + 1)


def x_learner(data: LearnerData) -> LinearEffect:
    """Imputed effects of both arms, each regressed on what the effect varies along.

    The effect is `e g_0 + (1 - e) g_1` with e the share of treated rows, g_1 the regression of
    y - x'b_0 among the treated, g_0 that of x'b_1 - y among the controls.
    """
    size = data.size
    fits = _arm_fits(data)
    moments = data.moments["unweighted"]
    mixed = np.zeros(size)
    effects, parts = [], []
    for arm in (CONTROL, TREATED):
        other, weight = 1 - arm, 1.0 - data.share if arm == TREATED else data.share
        own = _varying_inverse(data, moments[arm])
        gap = moments[arm][:size, size] - moments[arm][:size, :size] @ fits[other].slopes
        effect = _SIGNS[arm] * own @ gap
        effects.append(effect)
        mixed += weight * effect
        parts += [
            data.part(
                arm, weight * _SIGNS[arm] * own, slopes=fits[other].slopes + _SIGNS[arm] * effect
            ),
            data.part(
                other,
                -weight * _SIGNS[arm] * own @ moments[arm][:size, :size] @ fits[other].bread,
                slopes=fits[other].slopes,
            ),
        ]
    if not data.is_share_known:
        parts += _share_parts(data, effects[CONTROL] - effects[TREATED])
    return LinearEffect(coefficients=mixed, parts=tuple(parts), n_coefficients=2 * size)


def dr_learner(data: LearnerData) -> LinearEffect:
    """Doubly robust scores, regressed on what the effect varies along.

    The score of a row is x'(b_1 - b_0) + t (y - x'b_1) / p - (1 - t) (y - x'b_0) / (1 - p). Its
    errors take b and p as known: they move the coefficients only in the second order.
    """
    size = data.size
    fits = _arm_fits(data)
    control, treated = data.moments["unweighted"]
    weighted = data.weighted("inverse")
    total = (control + treated)[:size, :size]
    bread = _varying_inverse(data, total)
    gap = fits[TREATED].slopes - fits[CONTROL].slopes
    right = total @ gap
    for arm in (CONTROL, TREATED):
        residuals = weighted[arm][:size, size] - weighted[arm][:size, :size] @ fits[arm].slopes
        right = right + _SIGNS[arm] * residuals
    effect = bread @ right
    parts = [Part(arm=None, left=bread, outcome=0.0, slopes=effect - gap)] + [
        data.part(arm, _SIGNS[arm] * bread, slopes=fits[arm].slopes, weighting="inverse")
        for arm in (CONTROL, TREATED)
    ]
    return LinearEffect(coefficients=effect, parts=tuple(parts), n_coefficients=len(data.varying))


def r_learner(data: LearnerData) -> LinearEffect:
    """Residuals of the outcome on those of the treatment times what the effect varies along.

    The residual of the outcome is that of one regression of both arms, the residual of the
    treatment t - p. Errors take both as known.
    """
    size = data.size
    control, treated = data.moments["unweighted"]
    total = control + treated
    slopes = inverse(total[:size, :size], data.terms) @ total[:size, size]
    once, twice = data.weighted("opposite"), data.weighted("opposite_squared")
    bread = _varying_inverse(data, (twice[CONTROL] + twice[TREATED])[:size, :size])
    right = np.zeros(size)
    for arm in (CONTROL, TREATED):
        right += _SIGNS[arm] * (once[arm][:size, size] - once[arm][:size, :size] @ slopes)
    effect = bread @ right
    parts = []
    for arm in (CONTROL, TREATED):
        parts += [
            data.part(arm, _SIGNS[arm] * bread, slopes=slopes, weighting="opposite"),
            data.part(arm, bread, slopes=effect, weighting="opposite_squared", outcome=0.0),
        ]
    return LinearEffect(coefficients=effect, parts=tuple(parts), n_coefficients=len(data.varying))


_LEARNERS: Mapping[str, Callable[[LearnerData], LinearEffect]] = MappingProxyType(
    {"s": s_learner, "t": t_learner, "x": x_learner, "dr": dr_learner, "r": r_learner}
)


@dataclass(frozen=True)
class _Fit:
    """A regression of one arm: coefficients (k + 1,) and the inverse of its cross-products."""

    slopes: Array
    bread: Array


def _arm_fits(data: LearnerData) -> tuple[_Fit, _Fit]:
    size = data.size
    fits = []
    for moment in data.moments["unweighted"]:
        bread = inverse(moment[:size, :size], data.terms)
        fits.append(_Fit(bread @ moment[:size, size], bread))
    return fits[CONTROL], fits[TREATED]


def _varying_inverse(data: LearnerData, moments: Array) -> Array:
    """Inverse of the cross-products of what the effect varies along, zero elsewhere."""
    at = list(data.varying)
    out = np.zeros((data.size, data.size))
    out[np.ix_(at, at)] = inverse(moments[np.ix_(at, at)], [data.terms[j] for j in at])
    return out


def _share_parts(data: LearnerData, slope: Array) -> list[Part]:
    """What the estimated share adds: its derivative times (t - share) / n."""
    n = float(sum(moment[0, 0] for moment in data.moments["unweighted"]))
    parts = []
    for arm, residual in ((CONTROL, -data.share), (TREATED, 1.0 - data.share)):
        left = np.zeros((data.size, data.size))
        left[:, 0] = slope * residual / n
        constant = np.zeros(data.size)
        constant[0] = -1.0
        parts.append(data.part(arm, left, slopes=constant, outcome=0.0))
    return parts
