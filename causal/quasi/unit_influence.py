r"""Effects whose influence is known unit by unit: weighting, double robustness, sampling weights.

With weights w_i, covariates x_i = (1, x_i1, ..), changes dy_i and a comparison group C,

    att = sum_g w e / sum_g w - sum_C w o e / sum_C w o,    e = dy - x'b,

where b is the weighted regression of the comparison units' changes on x (0 for weighting alone) and
o = p / (1 - p) the odds of being in the cohort g rather than in C (no second mean for regression
alone). These are `drdid_panel`, `std_ipw_did_panel` and `reg_did_panel` of Sant'Anna and Zhao
(2020), "Doubly robust difference-in-differences estimators", Journal of Econometrics 219. Both
models are estimated, which moves the effect too. With W_g and W_C the sums of w and of w o, and m_g
and m_C the two means, a unit's influence is

    in g:  w (e - m_g) / W_g - w (1 - p) x'r,
    in C:  -w o (e - m_C) / W_C - w e x'q + w p x'r,

    q = (sum_C w x x')^-1 (mean_g x - mean_C x),    means over C weighted by w o,
    r = (sum_g,C w p (1 - p) x x')^-1 sum_C w o (e - m_C) x / W_C.

Everything here is a term of a unit's values, which an engine sums, or arithmetic on such sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from causal.core.cross_products import redundant_columns
from causal.core.errors import DataError
from causal.core.frames import (
    Between,
    Constant,
    Linear,
    Product,
    StartsIn,
    Term,
    UnitValue,
    packed_indices,
    packed_size,
)
from causal.core.gram import Array, unpack
from causal.quasi.group_time import GroupTime
from causal.quasi.propensity import Pair, Propensity, augmented
from causal.quasi.treatment_timing import level

CERTAIN = 0.999
"""Units with such a propensity are counted: R's `did` gives no effect where there are any."""


@dataclass(frozen=True, kw_only=True)
class UnitTerms:
    """The values of a unit by name.

    Attributes:
        covariates: The p covariates.
        weight: The weight; 1 without.
        most: Odds from which on comparison units have no weight.
    """

    covariates: tuple[Term, ...]
    weight: Term
    most: float

    @property
    def x(self) -> tuple[Term, ...]:
        """Intercept and covariates."""
        return augmented(self.covariates)

    @property
    def moments(self) -> tuple[Term, ...]:
        """`w x x'`, packed."""
        pairs = packed_indices(len(self.x))
        return tuple(Product((self.weight, self.x[j], self.x[k])) for j, k in pairs)

    def products(self, n_periods: int) -> tuple[Term, ...]:
        """`w x y`, period by period."""
        return tuple(
            Product((self.weight, x, UnitValue(t))) for t in range(n_periods) for x in self.x
        )

    def left(self, cell: GroupTime, slope: Array) -> Term:
        """e, what the regression leaves of a unit's change."""
        used = [(x, -float(b)) for x, b in zip(self.x, slope, strict=True) if b != 0.0]
        parts = (UnitValue(cell.at), UnitValue(cell.base), *(x for x, _ in used))
        return Linear(parts, (1.0, -1.0, *(b for _, b in used)))

    def odds(self, score: Propensity) -> Term:
        """Weighted odds; zero where the propensity is too near 1."""
        has_weight = Between(score.log_odds, high=float(np.log(self.most)), is_closed=False)
        return Product((self.weight, has_weight, score.odds(most=self.most)))

    def of_score(self, score: Propensity) -> tuple[Term, ...]:
        """What `ScoreSums` holds, in its order."""
        odds = self.odds(score)
        return (
            *[Product((odds, x)) for x in self.x],
            *[Product((self.weight, part)) for part in score.information],
            Product((odds, odds)),
            Between(score.log_odds, low=float(np.log(self.most))),
            Between(score.log_odds, low=float(np.log(CERTAIN / (1.0 - CERTAIN)))),
        )

    def of_cell(self, cell: GroupTime, slope: Array, score: Propensity) -> tuple[Term, ...]:
        """`w o e x`, p + 1 values."""
        left, odds = self.left(cell, slope), self.odds(score)
        return tuple(Product((odds, left, x)) for x in self.x)


@dataclass(frozen=True)
class Sums:
    """Weighted sums by cohort.

    Attributes:
        squares: Of `x x'`, shape (C, p + 1, p + 1).
        products: Of `x y`, shape (C, p + 1, T).
    """

    squares: Array
    products: Array

    def change(self, cohorts: Sequence[int], cell: GroupTime) -> Array:
        """Sum over cohorts of `x dy`, shape (p + 1,)."""
        total = self.products[list(cohorts)].sum(axis=0)
        return np.asarray(total[:, cell.at] - total[:, cell.base], dtype=np.float64)


@dataclass(frozen=True)
class ScoreSums:
    """Sums that belong to one propensity.

    Attributes:
        odds: Of weighted odds times `x` over the comparison units, shape (p + 1,).
        information: Of the logistic regression, shape (p + 1, p + 1).
        squares: Of squared weighted odds over the comparison units.
        n_without_weight: Comparison units whose propensity is too near 1.
        n_certain: Units of either side whose propensity is 0.999 or more.
    """

    odds: Array
    information: Array
    squares: float
    n_without_weight: int
    n_certain: int

    @staticmethod
    def width(size: int) -> int:
        """How many values belong to one propensity of so many coefficients."""
        return size + packed_size(size) + 3

    @classmethod
    def of(cls, sums: Array, pair: Pair, *, size: int) -> "ScoreSums":
        """From sums of `UnitTerms.of_score` by cohort, shape (C, width)."""
        pool = sums[list(pair.controls)].sum(axis=0)
        both = sums[pair.members].sum(axis=0)
        return cls(
            odds=pool[:size],
            information=unpack(both[size:-3], size),
            squares=float(pool[-3]),
            n_without_weight=round(pool[-2]),
            n_certain=round(both[-1]),
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One effect and the parts of its influence.

    Attributes:
        cell: What is compared.
        slope: b, shape (p + 1,).
        treated_mean: m_g.
        control_mean: m_C; 0 without a propensity.
        treated_weight: W_g.
        control_weight: W_C; 1 without a propensity.
        lean: q, shape (p + 1,); zeros without a regression.
        pull: r, shape (p + 1,); zeros without a propensity.
        score: The propensity.
    """

    cell: GroupTime
    slope: Array
    treated_mean: float
    control_mean: float
    treated_weight: float
    control_weight: float
    lean: Array
    pull: Array
    score: Propensity | None

    @property
    def value(self) -> float:
        """The effect."""
        return self.treated_mean - self.control_mean


def named(cell: GroupTime) -> str:
    """What messages call a comparison."""
    return f"att({level(cell.start)},{level(cell.period)})"


def slope(cell: GroupTime, sums: Sums) -> Array:
    """Regression of the comparison units' changes on the covariates, shape (p + 1,).

    Raises:
        DataError: The comparison units are too few, or their covariates are collinear.
    """
    moment = sums.squares[list(cell.controls)].sum(axis=0)
    size = len(moment)
    if size > 1 and cell.n_control <= size:
        raise DataError(
            f"too few comparison units for the covariates of {named(cell)}",
            given=f"{cell.n_control} units, {size - 1} covariates",
        )
    check_weight(float(moment[0, 0]), cell, "comparison units")
    if redundant_columns(moment):
        raise DataError(
            "the covariates are collinear (or one does not vary) among the comparison units of "
            f"{named(cell)}"
        )
    found = linalg.solve(moment, sums.change(cell.controls, cell), assume_a="pos")
    return np.asarray(found, dtype=np.float64)


def by_regression(cell: GroupTime, b: Array, sums: Sums) -> Comparison:
    """The effect from the regression alone.

    Args:
        cell: What is compared.
        b: The regression's coefficients, shape (p + 1,).
        sums: Weighted sums by cohort.
    """
    mean, reach, total = _treated(cell, b, sums)
    return Comparison(
        cell=cell, slope=b, treated_mean=mean, control_mean=0.0, treated_weight=total,
        control_weight=1.0, lean=_solved(cell, reach, sums), pull=np.zeros(len(b)), score=None,
    )  # fmt: skip


def by_odds(
    cell: GroupTime, b: Array | None, sums: Sums, *, score: Propensity, of_score: ScoreSums,
    left: Array,
) -> Comparison:  # fmt: skip
    """The effect from weighted comparison units, less what a regression explains.

    Args:
        cell: What is compared.
        b: The regression's coefficients, shape (p + 1,); `None`: no regression.
        sums: Weighted sums by cohort.
        score: The propensity.
        of_score: Its sums.
        left: Sum of `w o e x` over the comparison units, shape (p + 1,).

    Raises:
        DataError: No comparison unit has a propensity that gives it weight.
    """
    zeros = np.zeros(len(left))
    mean, reach, total = _treated(cell, zeros if b is None else b, sums)
    weight = float(of_score.odds[0])
    check_weight(weight, cell, "comparison units below max_propensity")
    control_mean = float(left[0]) / weight
    moved = left - control_mean * of_score.odds
    gap = reach - of_score.odds / weight
    return Comparison(
        cell=cell, slope=zeros if b is None else b, treated_mean=mean, control_mean=control_mean,
        treated_weight=total, control_weight=weight,
        lean=zeros if b is None else _solved(cell, gap, sums),
        pull=np.asarray(linalg.solve(of_score.information, moved, assume_a="pos")) / weight,
        score=score,
    )  # fmt: skip


def influence(terms: UnitTerms, item: Comparison) -> Term:
    """A unit's influence on one effect, as a term of its values."""
    left, one = terms.left(item.cell, item.slope), Constant()
    is_treated = StartsIn(item.cell.start)
    is_control = Linear((one, is_treated), (1.0, -1.0))
    share = 1.0 / item.treated_weight
    treated: list[tuple[Term, float]] = [(left, share), (one, -item.treated_mean * share)]
    control: list[tuple[Term, float]] = []
    if item.lean.any():
        control.append((Product((terms.weight, left, _along(terms, item.lean))), -1.0))
    if item.score is not None:
        pull, share = _along(terms, item.pull), 1.0 / item.control_weight
        treated.append((Product((item.score.complement, pull)), -1.0))
        control.append((Product((terms.weight, item.score.probability, pull)), 1.0))
        off = Linear((left, one), (share, -item.control_mean * share))
        control.append((Product((terms.odds(item.score), off)), -1.0))
    sides = (
        Product((is_treated, terms.weight, _sum(treated))),
        Product((is_control, _sum(control))),
    )
    return Linear(sides, (1.0, 1.0))


def _treated(cell: GroupTime, b: Array, sums: Sums) -> tuple[float, Array, float]:
    """m_g, the mean of `x` over the cohort, and W_g."""
    moment = sums.squares[cell.cohort][0]
    total = float(moment[0])
    check_weight(total, cell, "units of the cohort")
    reach = np.asarray(moment / total, dtype=np.float64)
    change = float(sums.change([cell.cohort], cell)[0])
    return change / total - float(reach @ b), reach, total


def _solved(cell: GroupTime, gap: Array, sums: Sums) -> Array:
    moment = sums.squares[list(cell.controls)].sum(axis=0)
    return np.asarray(linalg.solve(moment, gap, assume_a="pos"), dtype=np.float64)


def check_weight(total: float, cell: GroupTime, what: str) -> None:
    """Somebody on a side of a comparison counts.

    Raises:
        DataError: The weights sum to zero.
    """
    if not total > 0.0:
        raise DataError(f"the {what} have no weight in {named(cell)}", given=total)


def _along(terms: UnitTerms, direction: Array) -> Term:
    return Linear(terms.x, tuple(float(value) for value in direction))


def _sum(pairs: Sequence[tuple[Term, float]]) -> Term:
    return Linear(tuple(term for term, _ in pairs), tuple(float(c) for _, c in pairs))
