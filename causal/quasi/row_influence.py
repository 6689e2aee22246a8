r"""Effects given covariates where each row counts in its own period, and the rows' influence.

With weights w, covariates x = (1, x_1, ..), means over the rows of a cohort g or its comparison
group C in period s, sign +1 for the period and -1 for the base period,

    att = sum_s sign_s (mean_g(x)' (c_s - b_s) - m_s).

Here mean_g(x) is over the cohort's rows of both periods, c_s and b_s are coefficients of the
cohort's and of the comparison group's outcomes on x in period s, and m_s is the mean of
`y - x' b_s` over comparison rows weighted by the odds o = p / (1 - p) of being in the cohort, p
from one logistic regression on the rows of both periods:

    regression       c_s the mean outcome, b_s least squares, no m_s      (`reg_did_rc`)
    weighting        c_s the mean outcome, no b_s                         (`std_ipw_did_rc`)
    doubly robust    c_s and b_s least squares                            (`drdid_rc`)

of Sant'Anna and Zhao (2020), "Doubly robust difference-in-differences estimators", Journal of
Econometrics 219; `drdid_rc` is their locally efficient one. All assume that who is in a cohort and
its covariates have the same distribution in both periods. A row of period s moves the effect by

    in g:  sign_s w (y - x'c_s) x'a_s + w (x - mean_g(x))'d / W_g - w (1 - p) x'r,
    in C:  -sign_s w (y - x'b_s) x'q_s - sign_s w o (y - x'b_s - m_s) / V_s + w p x'r,

    a_s = Q_gs^-1 mean_g(x) (or 1 / W_gs for a mean),  Q the sums of w x x',
    d = sum_s sign_s (c_s - b_s),
    q_s = Q_Cs^-1 (mean_g(x) - mean_Cs(x)),  the last weighted by w o, none for regression,
    r = (sum w p (1 - p) x x')^-1 sum_s sign_s sum_Cs w o (y - x'b_s - m_s) x / V_s,

W and V being sums of w and of w o. These are DRDID's influence functions, put together by row.
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
    EventTime,
    Indicator,
    Linear,
    Product,
    Term,
    packed_indices,
    packed_size,
)
from causal.core.gram import Array, unpack
from causal.quasi.group_time import GroupTime
from causal.quasi.propensity import Pair, Propensity
from causal.quasi.staggered_options import Adjustment
from causal.quasi.treatment_timing import level
from causal.quasi.unit_influence import CERTAIN, UnitTerms, check_weight, named


@dataclass(frozen=True, kw_only=True)
class RowTerms:
    """The values of a row by name.

    Attributes:
        held: Its covariates and its weight, which is missing where anything of the row is.
        outcome: The outcome.
        period: Column of the period.
        first_treated_period: Column of the first treated period.
    """

    held: UnitTerms
    outcome: Term
    period: str
    first_treated_period: str

    def left(self, coefficients: Array) -> Term:
        """What a regression leaves of the outcome."""
        used = [(x, -float(b)) for x, b in zip(self.held.x, coefficients, strict=True) if b != 0.0]
        return Linear((self.outcome, *(x for x, _ in used)), (1.0, *(b for _, b in used)))

    def along(self, direction: Array) -> Term:
        """`x' direction`."""
        return Linear(self.held.x, tuple(float(value) for value in direction))

    def of_score(self, score: Propensity) -> tuple[Term, ...]:
        """What `OddsSums` holds, in its order."""
        odds, x = self.held.odds(score), self.held.x
        return (
            *[Product((odds, x[j], x[k])) for j, k in packed_indices(len(x))],
            *[Product((odds, part, self.outcome)) for part in x],
            *[Product((self.held.weight, part)) for part in score.information],
            Product((odds, odds)),
            Between(score.log_odds, low=float(np.log(self.held.most))),
            Between(score.log_odds, low=float(np.log(CERTAIN / (1.0 - CERTAIN)))),
        )


@dataclass(frozen=True)
class RowSums:
    """Weighted sums over the rows of each cohort and period.

    Attributes:
        squares: Of `x x'`, shape (C, T, k, k).
        products: Of `x y`, shape (C, T, k).
        counts: Rows, shape (C, T).
    """

    squares: Array
    products: Array
    counts: Array

    @property
    def flat(self) -> Array:
        """`squares` with cohorts and periods as one axis."""
        return self.squares.reshape(-1, *self.squares.shape[2:])

    def cell(self, cohorts: Sequence[int], at: int) -> "Cell":
        """The sums of some cohorts in one period."""
        rows = list(cohorts)
        return Cell(
            self.squares[rows, at].sum(axis=0), self.products[rows, at].sum(axis=0),
            int(self.counts[rows, at].sum()),
        )  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """Sums of one side of a comparison in one period.

    Attributes:
        squares: Of `x x'`, shape (k, k).
        products: Of `x y`, shape (k,).
        n: Rows.
    """

    squares: Array
    products: Array
    n: int

    @property
    def level(self) -> Array:
        """The mean outcome as coefficients of x, shape (k,)."""
        return _intercept(float(self.products[0] / self.squares[0, 0]), len(self.products))


@dataclass(frozen=True)
class OddsSums:
    """Sums that belong to one propensity.

    Attributes:
        cells: Of comparison rows weighted by w o, in the period and the base period.
        information: Of the logistic regression, shape (k, k).
        n_effective: Effective number of weighted comparison rows, the smaller of the periods'.
        n_without_weight: Comparison rows whose propensity is too near 1.
        n_certain: Rows of either side whose propensity is 0.999 or more.
    """

    cells: tuple[Cell, Cell]
    information: Array
    n_effective: float
    n_without_weight: int
    n_certain: int

    @classmethod
    def of(cls, sums: Array, pair: Pair, *, size: int) -> "OddsSums":
        """From sums of `RowTerms.of_score`.

        Args:
            sums: By cohort and period, shape (C T, width).
            pair: Its first half of comparison groups is of the period, the rest of the base period.
            size: Coefficients.
        """
        halves = np.split(np.array(pair.controls), 2)
        pools = [sums[half].sum(axis=0) for half in halves]
        n_packed = packed_size(size)
        first, last = (
            Cell(unpack(pool[:n_packed], size), pool[n_packed : n_packed + size], 0)
            for pool in pools
        )
        both = sums[pair.members].sum(axis=0)
        return cls(
            cells=(first, last),
            information=unpack(both[n_packed + size : -3], size),
            n_effective=min(
                float(pool[0]) ** 2 / float(pool[-3]) if pool[-3] > 0 else 0.0 for pool in pools
            ),
            n_without_weight=round(sum(pool[-2] for pool in pools)),
            n_certain=round(both[-1]),
        )


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one of the two periods adds to an effect.

    Attributes:
        sign: +1 in the period, -1 in the base period.
        period: Its value.
        treated_slope: c_s, shape (k,).
        treated_reach: a_s, shape (k,).
        control_slope: b_s, shape (k,); zeros for weighting.
        control_reach: q_s, shape (k,); zeros for weighting.
        control_mean: m_s; 0 without a propensity.
        control_weight: V_s; 1 without a propensity.
        moved: `sum_C w o (y - x'b_s - m_s) x / V_s`, shape (k,); zeros without a propensity.
    """

    sign: float
    period: float
    treated_slope: Array
    treated_reach: Array
    control_slope: Array
    control_reach: Array
    control_mean: float = 0.0
    control_weight: float = 1.0
    moved: Array

    @property
    def drift(self) -> Array:
        """c_s - b_s."""
        return np.asarray(self.treated_slope - self.control_slope, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class RowComparison:
    """One effect and the parts of its influence.

    Attributes:
        cell: What is compared.
        sides: The period and the base period.
        mean: mean_g(x), shape (k,).
        weight: W_g.
        pull: r, shape (k,); zeros without a propensity.
        score: The propensity.
    """

    cell: GroupTime
    sides: tuple[Side, Side]
    mean: Array
    weight: float
    pull: Array
    score: Propensity | None

    @property
    def value(self) -> float:
        """The effect."""
        parts = [s.sign * (float(self.mean @ s.drift) - s.control_mean) for s in self.sides]
        return sum(parts)

    @property
    def drift(self) -> Array:
        """d, shape (k,), less its mean over the cohort in the intercept."""
        drift = sum((s.sign * s.drift for s in self.sides), np.zeros(len(self.mean)))
        drift[0] -= self.mean @ drift
        return np.asarray(drift, dtype=np.float64)


def compare(
    cell: GroupTime,
    sums: RowSums,
    adjustment: Adjustment,
    *,
    score: Propensity | None = None,
    odds: OddsSums | None = None,
) -> RowComparison:
    """One effect.

    Args:
        cell: What is compared.
        sums: By cohort and period.
        adjustment: How covariates are held equal.
        score: The propensity; none for regression.
        odds: Its sums.

    Raises:
        DataError: Too few rows for the covariates, or these are collinear, or nobody has weight.
    """
    whole = sums.squares[cell.cohort, [cell.at, cell.base]].sum(axis=0)
    weight = float(whole[0, 0])
    check_weight(weight, cell, "rows of the cohort")
    mean = np.asarray(whole[0] / weight, dtype=np.float64)
    weighted = (None, None) if odds is None else odds.cells
    first, last = (
        _side(cell, sums, adjustment, sign=sign, mean=mean, weighted=part)
        for sign, part in zip((1.0, -1.0), weighted, strict=True)
    )
    pull = np.zeros(len(mean))
    if odds is not None:
        moved = first.moved - last.moved
        pull = np.asarray(linalg.solve(odds.information, moved, assume_a="pos"))
    return RowComparison(
        cell=cell, sides=(first, last), mean=mean, weight=weight, pull=pull, score=score
    )


def influence(terms: RowTerms, item: RowComparison) -> Term:
    """A row's influence on one effect, as a term of its values; for rows of either side."""
    parts = [_of_period(terms, item, side) for side in item.sides]
    return Linear(tuple(parts), (1.0,) * len(parts))


def _of_period(terms: RowTerms, item: RowComparison, side: Side) -> Term:
    held, sign = terms.held, side.sign
    treated: list[Term] = [
        Product((terms.left(side.treated_slope), terms.along(sign * side.treated_reach))),
        terms.along(item.drift / item.weight),
    ]
    control: list[Term] = []
    left = terms.left(side.control_slope)
    if side.control_reach.any():
        control.append(Product((held.weight, left, terms.along(-sign * side.control_reach))))
    if item.score is not None:
        treated.append(Product((item.score.complement, terms.along(-item.pull))))
        control.append(Product((held.weight, item.score.probability, terms.along(item.pull))))
        share = -sign / side.control_weight
        off = Linear((left, Constant()), (share, -side.control_mean * share))
        control.append(Product((held.odds(item.score), off)))
    # Within a period, units of a cohort are those at one event time: a null start is at none.
    time = round(side.period - item.cell.start)
    is_treated = EventTime(terms.period, terms.first_treated_period, time, time)
    is_control = Linear((Constant(), is_treated), (1.0, -1.0))
    sides = (
        Product((is_treated, held.weight, _sum(treated))), Product((is_control, _sum(control)))
    )  # fmt: skip
    return Product((Indicator(terms.period, level(side.period)), _sum(sides)))


def _side(
    cell: GroupTime,
    sums: RowSums,
    adjustment: Adjustment,
    *,
    sign: float,
    mean: Array,
    weighted: Cell | None,
) -> Side:
    at, period = (cell.at, cell.period) if sign > 0 else (cell.base, cell.base_period)
    own, pool = sums.cell([cell.cohort], at), sums.cell(cell.controls, at)
    zeros = np.zeros(len(mean))
    check_weight(float(own.squares[0, 0]), cell, "rows of the cohort")
    check_weight(float(pool.squares[0, 0]), cell, "comparison rows")
    treated, reach = own.level, _intercept(1.0 / float(own.squares[0, 0]), len(mean))
    if adjustment == "doubly_robust":
        treated, reach = _fitted(own, cell, period, mean=mean, who="rows of the cohort")
    slope, lean = zeros, zeros
    if adjustment != "weighting":
        slope, lean = _fitted(pool, cell, period, mean=mean, who="comparison rows")
    if weighted is None:
        return Side(
            sign=sign, period=period, treated_slope=treated, treated_reach=reach,
            control_slope=slope, control_reach=lean, moved=zeros,
        )  # fmt: skip
    total = float(weighted.squares[0, 0])
    check_weight(total, cell, "comparison rows below max_propensity")
    left = weighted.products - weighted.squares @ slope
    level_ = float(left[0]) / total
    if adjustment == "doubly_robust":
        gap = mean - weighted.squares[0] / total
        lean = np.asarray(linalg.solve(pool.squares, gap, assume_a="pos"), dtype=np.float64)
    return Side(
        sign=sign, period=period, treated_slope=treated, treated_reach=reach, control_slope=slope,
        control_reach=lean, control_mean=level_, control_weight=total,
        moved=(left - level_ * weighted.squares[0]) / total,
    )  # fmt: skip


def _fitted(
    cell: Cell, comparison: GroupTime, period: float, *, mean: Array, who: str
) -> tuple[Array, Array]:
    """Least squares on the rows of a cell, and what its inverse makes of the cohort's mean."""
    size = len(mean)
    where = f"period {period:g} for {named(comparison)}"
    if cell.n <= size:
        raise DataError(
            f"too few {who} in {where}", given=f"{cell.n} rows, {size - 1} covariates"
        )  # fmt: skip
    if redundant_columns(cell.squares):
        raise DataError(
            f"the covariates are collinear (or one does not vary) among the {who} in {where}"
        )
    found = linalg.solve(
        cell.squares, np.column_stack([cell.products, mean]), assume_a="pos"
    )  # fmt: skip
    return np.asarray(found[:, 0], dtype=np.float64), np.asarray(found[:, 1], dtype=np.float64)


def _intercept(value: float, size: int) -> Array:
    found = np.zeros(size)
    found[0] = value
    return found


def _sum(parts: Sequence[Term]) -> Term:
    return Linear(tuple(parts), (1.0,) * len(parts))
