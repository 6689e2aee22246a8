"""Effects that are linear in covariates, from moments by arm: S-, T-, X-, DR- and R-learners.

Every learner ends in coefficients of (1, columns), and in what a row adds to their errors: a sum of
parts, each a weight times two linear functions of the row. Nothing is trained on rows, so learners
cost the same for ten thousand rows or a billion (Kuenzel, Sekhon, Bickel and Yu 2019; Kennedy 2023;
Nie and Wager 2021).

Arrays are in the basis of the study: an intercept and k standardised columns, the outcome less a
constant; its moments M of one arm are sums of products of (1, columns, outcome).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np

from causal.core.cross_products import inverse
from causal.core.errors import InferenceError
from causal.core.frames import Constant, Term
from causal.core.gram import Array

Learner = Literal["s", "t", "x", "dr", "r"]
Weighting = Literal["unweighted", "inverse", "opposite", "opposite_squared"]
"""Weights of a row with probability p of the arm that it is in: 1, 1 / p, 1 - p, (1 - p)^2."""
ArmMoments = tuple[Array, Array]
"""Moments of the control and of the treated rows."""

CONTROL, TREATED = 0, 1
_SIGNS = (-1.0, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage:
    """How much a row decides about its own fitted value: the squared length of `sum w roots'z`.

    Attributes:
        arm: The rows that were fitted: control, treated, or `None` for both.
        roots: By weighting, what is multiplied by the weight, shape (k + 1, m).
    """

    arm: int | None
    roots: Mapping[Weighting, Array]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What rows add to the coefficients' errors: weight * left'z * (outcome * y - slopes'z).

    Attributes:
        arm: The rows: control, treated, or `None` for both.
        left: By coefficient, shape (k + 1, k + 1).
        outcome: 1 or 0.
        slopes: Shape (k + 1,).
        weighting: The weight.
        leverages: Of the fits that took up some of what the row adds: without the row it would be
            larger by 1 / (1 - h) for each of them.
    """

    arm: int | None
    left: Array
    outcome: float
    slopes: Array
    weighting: Weighting = "unweighted"
    leverages: tuple[Leverage, ...] = ()


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

    @cached_property
    def arm_fits(self) -> "tuple[_Fit, _Fit]":
        """A regression in each arm.

        Raises:
            InferenceError: Columns are collinear within an arm.
        """
        fits = []
        for arm, moment in enumerate(self.moments["unweighted"]):
            bread = inverse(moment[: self.size, : self.size], self.terms)
            own = Leverage(arm=arm, roots={"unweighted": _root(bread)})
            fits.append(_Fit(bread @ moment[: self.size, self.size], bread, own))
        return fits[CONTROL], fits[TREATED]

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
        leverages: tuple[Leverage, ...] = (),
    ) -> Part:
        """A part of one arm; a constant weight becomes a factor."""
        if weighting in self.constants:
            left = left * self.constants[weighting][arm]
            weighting = "unweighted"
        return Part(
            arm=arm, left=left, outcome=outcome, slopes=slopes, weighting=weighting,
            leverages=leverages,
        )  # fmt: skip

    def leverage(self, arm: int, roots: Mapping[Weighting, Array]) -> Leverage:
        """The leverage of rows of one arm; roots of constant weights become one."""
        whole: dict[Weighting, Array] = {}
        for weighting, root in roots.items():
            if weighting in self.constants:
                own = root * self.constants[weighting][arm]
                whole["unweighted"] = own + whole.get("unweighted", 0.0)
            else:
                whole[weighting] = root
        return Leverage(arm=arm, roots=whole)

    def without(self, own: "Mapping[Weighting, ArmMoments]") -> "LearnerData":
        """What is left when rows are taken away.

        Args:
            own: The moments of these rows, by weighting.
        """
        moments: dict[Weighting, ArmMoments] = {
            name: (whole[CONTROL] - own[name][CONTROL], whole[TREATED] - own[name][TREATED])
            for name, whole in self.moments.items()
        }
        control, treated = (float(moment[0, 0]) for moment in moments["unweighted"])
        if self.is_share_known or control + treated <= 0:
            return replace(self, moments=moments)
        share = treated / (control + treated)
        if not 0.0 < share < 1.0:
            raise InferenceError("an arm has no rows left", given=f"treated share {share:g}")
        is_constant = "inverse" in self.constants
        constants = share_constants(share) if is_constant else self.constants
        return replace(self, moments=moments, share=share, constants=constants)


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
    fits = data.arm_fits
    parts = tuple(
        data.part(
            arm, _SIGNS[arm] * fits[arm].bread, slopes=fits[arm].slopes,
            leverages=(fits[arm].leverage,),
        )
        for arm in (CONTROL, TREATED)
    )  # fmt: skip
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
    whole = _root(bread)
    parts = []
    for arm, slopes in ((CONTROL, beta[:size]), (TREATED, beta[:size] + effect)):
        left = np.zeros((size, size))
        left[0] = bread[size, :size]
        left[0, 0] += arm * bread[size, size]
        root = whole[:size].copy()
        root[0] += arm * whole[size]
        own = Leverage(arm=arm, roots={"unweighted": root})
        parts.append(data.part(arm, left, slopes=slopes, leverages=(own,)))
    return LinearEffect(coefficients=effect, parts=tuple(parts), n_coefficients=size + 1)


def x_learner(data: LearnerData) -> LinearEffect:
    """Imputed effects of both arms, each regressed on what the effect varies along.

    The effect is `e g_0 + (1 - e) g_1` with e the share of treated rows, g_1 the regression of
    y - x'b_0 among the treated, g_0 that of x'b_1 - y among the controls.
    """
    size = data.size
    fits = data.arm_fits
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
                arm,
                weight * _SIGNS[arm] * own,
                slopes=fits[other].slopes + _SIGNS[arm] * effect,
                leverages=(_leverage(data, own, arm),),
            ),
            data.part(
                other,
                -weight * _SIGNS[arm] * own @ moments[arm][:size, :size] @ fits[other].bread,
                slopes=fits[other].slopes,
                leverages=(fits[other].leverage,),
            ),
        ]
    if not data.is_share_known:
        parts += _share_parts(data, effects[CONTROL] - effects[TREATED])
    return LinearEffect(coefficients=mixed, parts=tuple(parts), n_coefficients=2 * size)


def dr_learner(data: LearnerData) -> LinearEffect:
    """Doubly robust scores, regressed on what the effect varies along.

    The score of a row is x'(b_1 - b_0) + t (y - x'b_1) / p - (1 - t) (y - x'b_0) / (1 - p). Its
    errors take b and p as known: they move the coefficients only in the second order. What does
    move errors of few rows is that b was fitted on the row itself, so its leverage there counts.
    """
    size = data.size
    fits = data.arm_fits
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
    last = _leverage(data, bread, None)
    parts = [
        Part(arm=None, left=bread, outcome=0.0, slopes=effect - gap, leverages=(last,))
    ] + [
        data.part(
            arm, _SIGNS[arm] * bread, slopes=fits[arm].slopes, weighting="inverse",
            leverages=(fits[arm].leverage, last),
        )
        for arm in (CONTROL, TREATED)
    ]  # fmt: skip
    return LinearEffect(coefficients=effect, parts=tuple(parts), n_coefficients=len(data.varying))


def r_learner(data: LearnerData) -> LinearEffect:
    """What minimises `(y - x'm - (t - p) v'effect)^2` over m and the effect along v together.

    This is the loss of Nie and Wager. Fitting m first, on the same rows and without the effect,
    would take up part of it: residuals of y are then orthogonal to x, while (t - p) v is so in
    expectation only, and the effect shrinks by (k + 1) / n. The p is taken as known.
    """
    size, at = data.size, list(data.varying)
    control, treated = data.moments["unweighted"]
    once, twice = data.weighted("opposite"), data.weighted("opposite_squared")
    signed = once[TREATED] - once[CONTROL]
    cross = np.block(
        [
            [(control + treated)[:size, :size], signed[:size, at]],
            [signed[at, :size], (twice[CONTROL] + twice[TREATED])[np.ix_(at, at)]],
        ]
    )
    right = np.append((control + treated)[:size, size], signed[at, size])
    bread = inverse(cross, [*data.terms, *(data.terms[j] for j in at)])
    fitted = bread @ right
    slopes, effect = fitted[:size], np.zeros(size)
    effect[at] = fitted[size:]
    plain, times = np.zeros((2, size, size))
    plain[at] = bread[size:, :size]
    times[np.ix_(at, at)] = bread[size:, size:]
    whole = _root(bread)
    root = np.zeros((size, len(bread)))
    root[at] = whole[size:]
    parts = []
    for arm in (CONTROL, TREATED):
        sign = _SIGNS[arm]
        own = (data.leverage(arm, {"unweighted": whole[:size], "opposite": sign * root}),)
        parts += [
            data.part(arm, plain, slopes=slopes, leverages=own),
            data.part(arm, sign * times, slopes=slopes, weighting="opposite", leverages=own),
            data.part(
                arm, sign * plain, slopes=effect, weighting="opposite", outcome=0.0, leverages=own
            ),
            data.part(
                arm, times, slopes=effect, weighting="opposite_squared", outcome=0.0, leverages=own
            ),
        ]
    return LinearEffect(coefficients=effect, parts=tuple(parts), n_coefficients=len(bread))


_LEARNERS: Mapping[str, Callable[[LearnerData], LinearEffect]] = MappingProxyType(
    {"s": s_learner, "t": t_learner, "x": x_learner, "dr": dr_learner, "r": r_learner}
)


@dataclass(frozen=True)
class _Fit:
    """A regression of one arm: coefficients (k + 1,) and the inverse of its cross-products."""

    slopes: Array
    bread: Array
    leverage: Leverage


def _varying_inverse(data: LearnerData, moments: Array) -> Array:
    """Inverse of the cross-products of what the effect varies along, zero elsewhere."""
    at = list(data.varying)
    out = np.zeros((data.size, data.size))
    out[np.ix_(at, at)] = inverse(moments[np.ix_(at, at)], [data.terms[j] for j in at])
    return out


def _root(bread: Array) -> Array:
    return np.asarray(np.linalg.cholesky(bread), dtype=np.float64)


def _leverage(data: LearnerData, bread: Array, arm: int | None) -> Leverage:
    """The leverage of a regression on what the effect varies along."""
    at = list(data.varying)
    root = np.zeros((data.size, len(at)))
    root[at] = _root(bread[np.ix_(at, at)])
    return Leverage(arm=arm, roots={"unweighted": root})


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
