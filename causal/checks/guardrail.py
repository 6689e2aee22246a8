"""Guardrails: has a metric that must not get worse stayed within its margin?

Non-inferiority as one side of the two-sided interval: the one-sided level is half of
`1 - confidence_level`, so the test agrees with the interval that the reader sees.
"""

from typing import Literal

from causal.core.result import Diagnostic, Effect

Direction = Literal["increase", "decrease"]


def check(
    effect: Effect,
    *,
    direction: Direction,
    margin: float | None,
    statistic: float | None = None,
) -> Diagnostic:
    """Non-inferiority of one effect.

    Passed is True when the whole interval lies on the good side of the margin, False when harm is
    certain (the whole interval is on the harmful side of zero) and the margin is not cleared, and
    None when the data cannot tell. Without a margin only harm can be shown, never its absence.

    Args:
        effect: The effect, on the margin's scale.
        direction: The change that is good.
        margin: How much worse it may get; a positive number, or `None`.
        statistic: Test statistic of "worse than the margin" that the effect's interval inverts,
            where it is not the distance in standard errors of the effect.
    """
    sign = 1.0 if direction == "increase" else -1.0
    gain = sign * effect.estimate
    worst, best = sorted((sign * effect.ci_lower, sign * effect.ci_upper))
    allowed = margin if margin is not None else 0.0
    if statistic is None:
        statistic = (gain + allowed) / effect.std_error
    pvalue = _upper_tail(statistic, effect.df)
    is_harmful = best < 0
    is_within = margin is not None and worst > -margin
    passed = True if is_within else False if is_harmful else None
    return Diagnostic(
        name=f"guardrail.{effect.metric}.{effect.term}",
        statistic=statistic,
        pvalue=pvalue,
        passed=passed,
        detail=_detail(effect, worst=worst, best=best, margin=margin, passed=passed),
    )


def _upper_tail(statistic: float, df: float | None) -> float:
    from scipy import special

    return float(special.ndtr(-statistic) if df is None else special.stdtr(df, -statistic))


def _detail(
    effect: Effect, *, worst: float, best: float, margin: float | None, passed: bool | None
) -> str:
    interval = f"change for the better between {worst:.4g} and {best:.4g} ({effect.scale})"
    if margin is None:
        verdict = "has got worse" if passed is False else "no harm shown; no margin given"
        return f"{effect.metric}: {verdict}; {interval}"
    verdict = {
        True: "no worse than the margin",
        False: "has got worse and may exceed the margin",
        None: "too uncertain to rule out harm beyond the margin",
    }[passed]
    return f"{effect.metric}: {verdict} of {margin:g}; {interval}"
