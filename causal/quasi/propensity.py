r"""Propensities of being in a cohort rather than in its comparison group, from sums over cohorts.

Each cohort and comparison group has a logistic regression of its own,

    P(unit of the cohort | x) = p(x' c),    x = (1, x_1, ..),

fitted by maximum likelihood. All of them take their Newton steps together: one pass over the units
asks for the sums behind every step, `sum p x` and `sum p (1 - p) x x'` by cohort.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import linalg

from causal.core.cross_products import redundant_columns
from causal.core.errors import DataError, InferenceError
from causal.core.frames import (
    Clipped,
    Constant,
    Exponential,
    FrameRequest,
    Linear,
    Logistic,
    Product,
    Term,
    packed_indices,
    packed_size,
)
from causal.core.gram import Array, unpack
from causal.observational.logistic import MAX_ITERATIONS, is_done, is_escaping

_FAR = 300.0
"""Linear predictors are cut off here: beyond it a probability is 0 or 1 to 130 digits."""
_HALVINGS = 20
_SINGULAR = 1e-14

Sums = Generator[tuple[Term, ...], Array, "list[Propensity]"]
"""Asks for sums of terms by group, receives them and returns the fits."""


@dataclass(frozen=True)
class Pair:
    """A cohort and those it is compared with, as positions of groups of units or rows.

    Attributes:
        treated: Positions of the groups that are of the cohort.
        start: Its first treated period.
        controls: Positions of the groups of comparison units.
        periods: The periods in which they are compared, for messages.
    """

    treated: tuple[int, ...]
    start: float
    controls: tuple[int, ...]
    periods: tuple[float, ...]

    @property
    def named(self) -> str:
        """What a message calls it."""
        shown = ", ".join(f"{period:g}" for period in self.periods)
        return f"cohort {self.start:g} and its comparison units of period {shown}"

    @property
    def members(self) -> list[int]:
        """Positions of the groups of both sides."""
        return [*self.treated, *self.controls]


@dataclass(frozen=True)
class Propensity:
    """A fitted logistic regression.

    Attributes:
        covariates: The p covariates.
        coefficients: Intercept first, shape (p + 1,).
    """

    covariates: tuple[Term, ...]
    coefficients: Array

    @property
    def log_odds(self) -> Term:
        """The linear predictor."""
        return self._predictor(1.0)

    @property
    def probability(self) -> Term:
        """The propensity p."""
        return Logistic(self._predictor(1.0))

    @property
    def complement(self) -> Term:
        """1 - p, with all its digits where p is near 1."""
        return Logistic(self._predictor(-1.0))

    def odds(self, *, most: float) -> Term:
        """Odds of being in the cohort, p / (1 - p), no larger than `most`."""
        return Exponential(Clipped(self.log_odds, high=float(np.log(most))))

    @property
    def scores(self) -> tuple[Term, ...]:
        """`p x`, p + 1 values."""
        return tuple(Product((self.probability, x)) for x in augmented(self.covariates))

    @property
    def information(self) -> tuple[Term, ...]:
        """`p (1 - p) x x'`, packed."""
        x = augmented(self.covariates)
        variance = (self.probability, self.complement)
        return tuple(Product((*variance, x[j], x[k])) for j, k in packed_indices(len(x)))

    def _predictor(self, sign: float) -> Term:
        coefficients = tuple(float(sign * value) for value in self.coefficients)
        return Clipped(Linear(augmented(self.covariates), coefficients), low=-_FAR, high=_FAR)


def augmented(covariates: Sequence[Term]) -> tuple[Term, ...]:
    """The covariates after the intercept."""
    return (Constant(), *covariates)


def fit(pairs: Sequence[Pair], covariates: tuple[Term, ...], weight: Term, *, first: Array) -> Sums:
    """Maximum likelihood for all pairs.

    Args:
        pairs: The M pairs.
        covariates: p terms of a unit, near mean zero and variance one.
        weight: Weight of a unit.
        first: Weighted sums of `(1, x)(1, x)'` by group, shape (C, p + 1, p + 1).

    Yields:
        Terms whose sums over the units of each group are to be sent, shape (C, S).

    Raises:
        DataError: A cohort has no more units than covariates.
        InferenceError: The covariates separate a cohort from its comparison units.
    """
    climbs = [_Climb.start(pair, first) for pair in pairs]
    for _ in range(MAX_ITERATIONS * 2):
        active = [climb for climb in climbs if not climb.is_done]
        if not active:
            return [Propensity(covariates, climb.found) for climb in climbs]
        trials = [Propensity(covariates, climb.trial) for climb in active]
        sums = yield tuple(
            Product((weight, term))
            for trial in trials
            for term in (*trial.scores, *trial.information)
        )
        k = len(covariates) + 1
        size = k + packed_size(k)
        for at, climb in enumerate(active):
            climb.receive(sums[:, at * size : (at + 1) * size])
    raise separated(next(climb.pair for climb in climbs if not climb.is_done))


def answered(
    steps: Sums, sums_of: Callable[[Sequence[Term]], Generator[FrameRequest, pd.DataFrame, Array]]
) -> Generator[FrameRequest, pd.DataFrame, list[Propensity]]:
    """Answers what the steps of a fit ask for.

    Args:
        steps: What `fit` returns.
        sums_of: Asks for the sums of terms over the units of each group.
    """
    sums: Array | None = None
    while True:
        try:
            asked = next(steps) if sums is None else steps.send(sums)
        except StopIteration as stop:
            answer: list[Propensity] = stop.value
            return answer
        sums = yield from sums_of(asked)


def separated(pair: Pair) -> InferenceError:
    """Units that are in the cohort, or not, with certainty."""
    return InferenceError(
        f"the covariates separate {pair.named}: the propensity has no maximum of the likelihood",
        given=f"att({pair.start:g},{pair.periods[0]:g})",
        allowed="fewer covariates, adjustment: regression, or rows that overlap",
    )


@dataclass(kw_only=True)
class _Climb:
    """Newton's method for one pair; it learns the sums of a trial and makes the next one.

    Attributes:
        pair: Whose likelihood it is.
        treated: Sums of `x` over the cohort, shape (k,).
        point: The coefficients reached.
        score: There, shape (k,).
        information: There, shape (k, k).
        reference: The information at the start, in which scores are measured.
        history: The steps taken.
        change: The step that is tried.
        n_halvings: How often it was halved.
    """

    pair: Pair
    treated: Array
    point: Array
    score: Array
    information: Array
    reference: Array
    history: list[Array] = field(default_factory=list)
    change: Array = field(default_factory=lambda: np.zeros(0))
    n_halvings: int = 0

    @classmethod
    def start(cls, pair: Pair, first: Array) -> "_Climb":
        """At the share of the cohort, where all weights are equal."""
        cohort, pool = (first[list(at)].sum(axis=0) for at in (pair.treated, pair.controls))
        _check_design(pair, cohort, pool)
        share = cohort[0, 0] / (cohort[0, 0] + pool[0, 0])
        point = np.zeros(len(cohort))
        point[0] = np.log(share / (1.0 - share))
        information = share * (1.0 - share) * (cohort + pool)
        climb = cls(
            pair=pair, treated=cohort[0], point=point,
            score=(1.0 - share) * cohort[0] - share * pool[0],
            information=information, reference=information,
        )  # fmt: skip
        climb._step()
        return climb

    @property
    def is_done(self) -> bool:
        return is_done(self.history)

    @property
    def trial(self) -> Array:
        return np.asarray(self.point + self.change, dtype=np.float64)

    found = trial

    def receive(self, sums: Array) -> None:
        """Take the step if it lessens the score, halve it if not.

        Args:
            sums: Of the scores and the packed information at the trial, by group.
        """
        k = len(self.point)
        total = sums[self.pair.members].sum(axis=0)
        score = self.treated - total[:k]
        information = unpack(total[k:], k)
        is_regular = np.isfinite(total).all() and not redundant_columns(
            information, tolerance=_SINGULAR
        )
        if is_regular and self._merit(score) < self._merit(self.score):
            self.point, self.score, self.information = self.trial, score, information
            self.n_halvings = 0
            self._step()
            return
        self.change, self.n_halvings = self.change / 2, self.n_halvings + 1
        if self.n_halvings > _HALVINGS:
            raise separated(self.pair)

    def _step(self) -> None:
        self.change = np.asarray(linalg.solve(self.information, self.score, assume_a="sym"))
        self.history.append(self.change)
        if is_escaping(self.history) or len(self.history) > MAX_ITERATIONS:
            raise separated(self.pair)

    def _merit(self, score: Array) -> float:
        return float(score @ linalg.solve(self.reference, score, assume_a="pos"))


def _check_design(pair: Pair, cohort: Array, pool: Array) -> None:
    if redundant_columns(cohort + pool):
        raise DataError(
            f"the covariates are collinear (or one does not vary) in {pair.named}",
            given=f"att({pair.start:g},{pair.periods[0]:g})",
        )
