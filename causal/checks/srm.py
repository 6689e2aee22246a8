"""Sample-ratio mismatch: do the arms hold the shares of units they were planned to hold?

A mismatch means that assignment, logging or filtering treats the arms differently, so that no
comparison of them can be trusted (Fabijan et al. 2019, "Diagnosing sample ratio mismatch in online
controlled experiments").
"""

from collections.abc import Mapping, Sequence

import numpy as np

from causal.core.errors import DataError, InferenceError
from causal.core.frames import Level
from causal.core.gram import Array
from causal.core.inference import wald
from causal.core.result import Diagnostic

NAME = "sample_ratio"
ASSUMED = "assumed_sample_ratio"
"""Name of the check against equal shares that nobody planned: worth a look, no reason to stop."""


def check(
    counts: Mapping[Level, int],
    *,
    shares: Sequence[float],
    alpha: float,
    is_assumed: bool = False,
) -> Diagnostic:
    """Pearson's chi-square test of the arms' unit counts.

    Args:
        counts: Units by variant.
        shares: Planned shares in the order of `counts`; they sum to one.
        alpha: The check fails when the p-value is below it.
        is_assumed: Whether nobody stated the shares; the detail then says so.
    """
    from scipy import stats

    expected = np.asarray(shares, dtype=np.float64) * sum(counts.values())
    statistic, pvalue = stats.chisquare(list(counts.values()), expected)
    detail = _detail(counts, float(pvalue), shares, alpha=alpha, is_assumed=is_assumed)
    return Diagnostic(
        name=ASSUMED if is_assumed else NAME,
        statistic=float(statistic),
        pvalue=float(pvalue),
        passed=bool(pvalue >= alpha),
        detail=detail,
    )


def check_clustered(
    counts: Mapping[Level, int],
    covariance: Array,
    *,
    shares: Sequence[float],
    alpha: float,
    is_assumed: bool = False,
) -> Diagnostic:
    """Wald test of the counts when whole clusters were assigned.

    Units of a cluster share their variant, so the counts vary more than the multinomial law of
    Pearson's test says, and that test would raise false alarms.

    Args:
        counts: Units by variant.
        covariance: Clustered covariance of `count - share * total` of every variant but the
            first, shape (k - 1, k - 1).
        shares: Planned shares in the order of `counts`; they sum to one.
        alpha: The check fails when the p-value is below it.
        is_assumed: Whether nobody stated the shares; the detail then says so.
    """
    total = sum(counts.values())
    excess = np.array([n - share * total for n, share in zip(counts.values(), shares, strict=True)])
    try:
        statistic, pvalue = wald(excess[1:], covariance)
    except InferenceError:
        return Diagnostic(
            name=ASSUMED if is_assumed else NAME,
            statistic=None,
            pvalue=None,
            passed=None,
            detail="clusters are too few, or hold fixed shares of the variants: nothing to test",
        )
    detail = _detail(counts, pvalue, shares, alpha=alpha, is_assumed=is_assumed)
    return Diagnostic(
        name=ASSUMED if is_assumed else NAME,
        statistic=statistic,
        pvalue=pvalue,
        passed=pvalue >= alpha,
        detail=detail,
    )


def planned_shares(
    levels: Sequence[Level], expected: Mapping[Level, float] | None
) -> tuple[float, ...]:
    """Planned shares of the arms that are compared, summing to one; equal when none are given.

    Variants are matched by their text, so that a spec that went through JSON means the same.

    Raises:
        DataError: An arm of the data has no planned share.
    """
    if expected is None:
        return (1.0 / len(levels),) * len(levels)
    by_text = {str(level): share for level, share in expected.items()}
    unplanned = [level for level in levels if str(level) not in by_text]
    if unplanned:
        raise DataError(
            "these variants have no expected share", given=unplanned, allowed=list(by_text)
        )
    shares = [by_text[str(level)] for level in levels]
    return tuple(share / sum(shares) for share in shares)


def check_present(levels: Sequence[Level], expected: Mapping[Level, float]) -> None:
    """Every variant that was planned has units.

    An arm that is absent as a whole is the worst mismatch of all, and no count would show it.

    Raises:
        DataError: A planned variant has no unit in the data.
    """
    found = {str(level) for level in levels}
    absent = [level for level in expected if str(level) not in found]
    if absent:
        raise DataError(
            "these variants have an expected share but no units", given=absent, allowed=list(levels)
        )


def _detail(
    counts: Mapping[Level, int],
    pvalue: float,
    shares: Sequence[float],
    *,
    alpha: float,
    is_assumed: bool,
) -> str:
    total = sum(counts.values())
    word = "assumed" if is_assumed else "planned"
    found = ", ".join(
        f"{level} {n:,} ({n / total:.2%}, {word} {share:.2%})"
        for (level, n), share in zip(counts.items(), shares, strict=True)
    )
    if pvalue >= alpha:
        verdict = "the split fits the plan"
    elif is_assumed:
        verdict = "the split is not equal: state expected_shares, or do not trust the effects"
    else:
        verdict = "the split does not fit the plan: do not trust the effects"
    return f"{verdict}; {found}; p = {pvalue:.3g}, alpha {alpha:g}"
