"""Does one unit decide what a covariate's adjustment does? The largest leverage behind CUPED.

The coefficients of an adjustment are those of the regression of the outcome on the covariates. The
leverage of a unit, `h = 1/n + (x - m)' S^-1 (x - m)` with m the covariates' mean and S their
centred cross-products, is the weight of its own outcome in its own fitted value: with h near 1 the
regression runs through that unit, whatever the others say. Errors of adjusted effects take the
coefficients as known and are normal for large samples only where the largest leverage vanishes.

The leverage is a quadratic form of columns, so its maximum is one aggregate: the largest value of a
term. It is exact, and one number per comparison reaches the driver.

Sources: Huber (1981), "Robust statistics", section 7.2, who calls leverages up to 0.2 safe, up to
0.5 risky, and would avoid those above; Lei and Ding (2021), "Regression adjustment in completely
randomized experiments with a diverging number of covariates", Biometrika 108(4), whose condition
for the adjusted effect is that the largest leverage tends to zero.
"""

from collections.abc import Generator, Mapping, Sequence

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Condition,
    Constant,
    FrameRequest,
    HistogramRequest,
    Linear,
    Product,
    Term,
    linear,
)
from causal.core.gram import Array, Gram
from causal.core.result import Diagnostic
from causal.experiments.arms import Arms, Design
from causal.experiments.comparison import Comparison
from causal.experiments.levels import Theta
from causal.experiments.metrics import Metric

NAME = "max_leverage"
SAFE = 0.2
"""Up to this largest leverage the adjustment is that of many units."""
TOO_LARGE = 0.5
"""Above it one unit has more say in its fitted value than all others together."""


def ask_leverages(
    design: Design,
    arms: Arms,
    pairs: Mapping[str, Sequence[Comparison]],
    *,
    theta: Theta,
) -> Generator[FrameRequest, pd.DataFrame, list[Diagnostic]]:
    """The largest leverage behind every adjusted comparison.

    Comparisons with the same covariates on the same rows share a pass.

    Args:
        design: Who was randomised to what.
        arms: Moments of all arms.
        pairs: Every treatment against control, by metric.
        theta: Where the coefficients come from; leverages are those of the same regression.

    Raises:
        DataError: A covariate is infinite or NaN somewhere.
    """
    known: dict[HistogramRequest, float] = {}
    found = []
    for comparison in (item for items in pairs.values() for item in items):
        if not comparison.metric.covariates:
            continue
        largest = 0.0
        for request in _requests(design, arms, comparison, theta=theta):
            if request not in known:
                known[request] = _highest((yield request), comparison.metric)
            largest = max(largest, known[request])
        found.append(check(comparison, largest))
    return found


def check(comparison: Comparison, largest: float) -> Diagnostic:
    """Whether the adjustment is that of many units.

    Args:
        comparison: What is compared.
        largest: The largest leverage of a unit.
    """
    n = sum(gram.n for gram in comparison.moments)
    mean = (1 + len(comparison.metric.covariates)) / n
    if largest <= SAFE:
        passed, verdict = True, "no unit decides the adjustment"
    elif largest <= TOO_LARGE:
        passed, verdict = None, "one unit has much say in the adjustment: bound the covariate"
    else:
        passed, verdict = False, "one unit decides the adjustment: bound the covariate, or omit it"
    return Diagnostic(
        name=f"{NAME}.{comparison.metric.name}.{comparison.term}",
        statistic=largest,
        pvalue=None,
        passed=passed,
        detail=(
            f"{comparison.metric.name}: {verdict}; the largest leverage of the covariates' "
            f"regression is {largest:.3g} (mean {mean:.2g}, safe up to {SAFE:g}, at most "
            f"{TOO_LARGE:g})"
        ),
    )


def leverage_term(groups: Sequence[Gram], at: int, metric: Metric) -> Term:
    """The leverage of a row of one group, as a term.

    Args:
        groups: Moments of the metric's p terms in the groups that have a mean of their own each:
            both arms together, or each arm.
        at: Which group the row is in.
        metric: The metric.
    """
    own, slopes, inner = groups[at], [], np.zeros((0, 0))
    for position, group in enumerate(groups):
        gradients = np.array([item.gradient(group.mean) for item in metric.quotients[1:]])
        cross = gradients @ group.cross @ gradients.T
        inner = cross if position == 0 else inner + cross
        slopes.append(gradients)
    combined = _root(inner).T @ slopes[at]
    squares: list[tuple[Term, float]] = [
        (Product((part, part)), 1.0) for part in (_deviation(own, row) for row in combined)
    ]
    # Rows without an outcome are not in the regression: times zero they are missing here too.
    used = [(term, 0.0) for term in own.terms if term not in _terms(squares)]
    return linear([(Constant(), 1.0 / own.n), *squares, *used])


def _deviation(gram: Gram, row: Array) -> Linear:
    """A linear combination of terms less its mean."""
    pairs: list[tuple[Term, float]] = [
        (term, float(value)) for term, value in zip(gram.terms, row, strict=True) if value != 0
    ]
    return linear([*pairs, (Constant(), -float(row @ gram.mean))])


def _terms(squares: Sequence[tuple[Term, float]]) -> set[Term]:
    """The terms that the squares are made of."""
    return {
        term
        for square, _ in squares
        if isinstance(square, Product) and isinstance(square.factors[0], Linear)
        for term in square.factors[0].terms
    }


def _root(inner: Array) -> Array:
    """A matrix R with R R' the inverse, from standardised columns."""
    scale = 1.0 / np.sqrt(np.diag(inner))
    standardised = np.linalg.inv(inner * np.outer(scale, scale))
    root = np.linalg.cholesky((standardised + standardised.T) / 2)
    return np.asarray(scale[:, None] * root, dtype=np.float64)


def _requests(
    design: Design, arms: Arms, comparison: Comparison, *, theta: Theta
) -> list[HistogramRequest]:
    metric = comparison.metric
    together = (comparison.moments[0].merge(comparison.moments[1]),)
    groups = together if theta == "total" else comparison.moments
    rows = [comparison.variants] if theta == "total" else [(v,) for v in comparison.variants]
    is_all = arms.n_other == 0 and len(arms.levels) == len(comparison.variants)
    return [
        HistogramRequest(
            term=leverage_term(groups, at, metric),
            where=design.where
            if is_all and len(groups) == 1
            else (*design.where, Condition(design.variant, variants)),
        )
        for at, variants in enumerate(rows)
    ]


def _highest(frame: pd.DataFrame, metric: Metric) -> float:
    found = float(np.max(np.asarray(frame["highest"].iloc[0], dtype=np.float64)))
    if not np.isfinite(found):
        raise DataError(f"{metric.name}: a covariate holds NaN or infinite values")
    return found
