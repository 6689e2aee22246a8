"""How strong an unmeasured common cause would have to be to explain an effect away.

Functions on numbers that an analysis has printed, and the tables that analyses print of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from causal.core.errors import InferenceError
from causal.core.gram import Array, Gram
from causal.core.result import Effect


@dataclass(frozen=True)
class EValue:
    """E-values of an estimate and of the end of its interval nearer to no effect.

    Attributes:
        estimate: Of the estimate.
        interval: Of the interval; 1 where it holds no effect; `None` without an interval.
    """

    estimate: float
    interval: float | None


def e_value(
    risk_ratio: float, *, ci_lower: float | None = None, ci_upper: float | None = None
) -> EValue:
    """The smallest risk ratio of a common cause with treatment and outcome that explains it all.

    VanderWeele and Ding 2017, "Sensitivity analysis in observational research": RR + sqrt(RR (RR -
    1)), for ratios below 1 of their inverse.

    Args:
        risk_ratio: The estimate.
        ci_lower: Lower end of its interval.
        ci_upper: Upper end of its interval.

    Raises:
        InferenceError: A ratio is not positive, or the interval does not hold the estimate.

    Example:
        >>> found = e_value(3.9, ci_lower=1.8, ci_upper=8.7)
        >>> round(found.estimate, 2), round(found.interval, 2)
        (7.26, 3.0)
    """
    ends = [end for end in (ci_lower, ci_upper) if end is not None]
    if min(risk_ratio, *ends) <= 0 if ends else risk_ratio <= 0:
        raise InferenceError("a risk ratio is positive", given=[risk_ratio, *ends])
    if (ci_lower is not None and ci_lower > risk_ratio) or (
        ci_upper is not None and ci_upper < risk_ratio
    ):
        raise InferenceError("the interval does not hold the estimate", given=[risk_ratio, *ends])
    near = ci_lower if risk_ratio >= 1 else ci_upper
    interval = None
    if near is not None:
        holds_one = near <= 1 if risk_ratio >= 1 else near >= 1
        interval = 1.0 if holds_one else _e_value(near)
    return EValue(_e_value(risk_ratio), interval)


def standardised_risk_ratio(effect: float, *, standard_deviation: float) -> float:
    """The risk ratio that a difference of means stands for: exp(0.91 d) (Chinn 2000).

    Args:
        effect: The difference.
        standard_deviation: Of the outcome.
    """
    if not standard_deviation > 0:
        raise InferenceError("a standard deviation is positive", given=standard_deviation)
    return float(np.exp(0.91 * effect / standard_deviation))


def _e_value(ratio: float) -> float:
    ratio = max(ratio, 1.0 / ratio)
    return float(ratio + np.sqrt(ratio * (ratio - 1.0)))


def partial_r_squared(statistic: float, *, df: float) -> float:
    """Share of the residual variance that a coefficient explains: t^2 / (t^2 + df).

    Args:
        statistic: Its t statistic, with classical errors.
        df: Residual degrees of freedom.
    """
    _check_df(df)
    return float(statistic**2 / (statistic**2 + df))


def robustness_value(
    statistic: float, *, df: float, share: float = 1.0, alpha: float | None = None
) -> float:
    """Partial R2 that a common cause needs with treatment and outcome to explain an effect away.

    Cinelli and Hazlett 2020, "Making sense of sensitivity", equation 20; with `alpha` the strength
    that makes the effect insignificant at that level. Where a cause that explains all of the rest
    of the outcome binds, it is its partial R2 with the treatment.

    Args:
        statistic: t statistic of the effect, with classical errors.
        df: Residual degrees of freedom of its regression.
        share: Share of the estimate that is to be explained away.
        alpha: Level of the two-sided test; `None`: the estimate itself.

    Example:
        >>> round(robustness_value(4.18, df=783), 3)
        0.139
        >>> round(robustness_value(4.18, df=783, alpha=0.05), 3)
        0.076
    """
    from scipy import special

    _check_df(df - 1)
    if not 0 < share <= 1:
        raise InferenceError("share must be above 0 and at most 1", given=share)
    f = share * abs(statistic) / np.sqrt(df)
    f_critical = 0.0
    if alpha is not None:
        if not 0 < alpha < 1:
            raise InferenceError("alpha must be between 0 and 1", given=alpha)
        f_critical = abs(float(special.stdtrit(df - 1, alpha / 2))) / np.sqrt(df - 1)
    gap = f - f_critical
    if gap <= 0:
        return 0.0
    if f_critical > 0 and f > 1.0 / f_critical:
        return float((f**2 - f_critical**2) / (1.0 + f**2))
    return float(0.5 * (np.sqrt(gap**4 + 4.0 * gap**2) - gap**2))


def bias(
    *, treatment_r_squared: float, outcome_r_squared: float, std_error: float, df: float
) -> float:
    """Size of the bias of an omitted variable of the given strength (Cinelli and Hazlett 2020).

    Args:
        treatment_r_squared: Its partial R2 with the treatment.
        outcome_r_squared: Its partial R2 with the outcome, given the treatment.
        std_error: Standard error of the effect, classical.
        df: Residual degrees of freedom.
    """
    _check_df(df)
    if not (0 <= treatment_r_squared < 1 and 0 <= outcome_r_squared <= 1):
        raise InferenceError(
            "partial R2 lie between 0 and 1", given=[treatment_r_squared, outcome_r_squared]
        )
    ratio = outcome_r_squared * treatment_r_squared / (1.0 - treatment_r_squared)
    return float(std_error * np.sqrt(df * ratio))


@dataclass(frozen=True)
class RosenbaumBounds:
    """Bounds on the one-sided p-value of the signed-rank test.

    Attributes:
        gamma: Odds ratios of treatment within a pair, shape (m,).
        pvalue_lower: Shape (m,).
        pvalue_upper: Shape (m,).
    """

    gamma: Array
    pvalue_lower: Array
    pvalue_upper: Array


def rosenbaum_bounds(differences: ArrayLike, *, gamma: ArrayLike) -> RosenbaumBounds:
    """Wilcoxon's signed-rank test where partners may differ in their odds of treatment by gamma.

    Large-sample bounds without correction for continuity (Rosenbaum 2002, section 4.3.3), with mean
    ranks for ties; pairs without a difference are ranked and add nothing (Pratt 1959). One-sided:
    treated have more.

    Args:
        differences: Treated less control of each pair, shape (n,).
        gamma: Odds ratios, 1 or more.

    Raises:
        InferenceError: No pair differs, or a gamma is below 1.
    """
    from scipy import special, stats

    values = np.asarray(differences, dtype=np.float64)
    odds = np.atleast_1d(np.asarray(gamma, dtype=np.float64))
    if not values.any():
        raise InferenceError("no pair differs in its outcome")
    if (odds < 1).any():
        raise InferenceError("gamma is an odds ratio of 1 or more", given=float(odds.min()))
    ranks = np.where(values == 0, 0.0, stats.rankdata(np.abs(values)))
    statistic = float(ranks[values > 0].sum())
    tails = []
    for share in (1.0 / (1.0 + odds), odds / (1.0 + odds)):
        spread = np.sqrt(share * (1.0 - share) * (ranks**2).sum())
        tails.append(special.ndtr(-(statistic - share * ranks.sum()) / spread))
    return RosenbaumBounds(gamma=odds, pvalue_lower=tails[0], pvalue_upper=tails[1])


def rosenbaum_gamma(differences: ArrayLike, *, alpha: float) -> float:
    """The odds ratio within pairs up to which the signed-rank test rejects in spite of it.

    Of large samples, as the bounds: five pairs that agree give 1.51 at 0.05, the exact test 1.22.

    Args:
        differences: Treated less control of each pair, in the direction of the effect, shape (n,).
        alpha: One-sided level.

    Returns:
        The largest gamma whose upper p-value is `alpha` at most; 1 where it is above at gamma = 1.

    Raises:
        InferenceError: No pair differs.
    """
    from scipy import optimize

    values = np.asarray(differences, dtype=np.float64)

    def excess(log_gamma: float) -> float:
        upper = rosenbaum_bounds(values, gamma=np.exp(log_gamma)).pvalue_upper
        return float(upper[0]) - alpha

    if excess(0.0) > 0:
        return 1.0
    # n pairs that all agree are 1 standard deviation away at gamma = n at most, 0.001 at 1e6 n.
    return float(np.exp(optimize.brentq(excess, 0.0, np.log(1e6 * len(values)))))


def outcome_spread(arms: tuple[Gram, Gram]) -> float:
    """Standard deviation of the outcome, the last term of the moments, over both arms."""
    total = arms[0].merge(arms[1])
    return float(np.sqrt(total.cross[-1, -1] / (total.sum_weights - 1.0)))


def standardised_e_values(item: Effect, *, standard_deviation: float) -> dict[str, float | None]:
    """E-values of a difference in means, by quantity.

    Args:
        item: The difference and its interval.
        standard_deviation: Of the outcome.
    """
    ratios = [
        standardised_risk_ratio(value, standard_deviation=standard_deviation)
        for value in (item.estimate, item.ci_lower, item.ci_upper)
    ]
    found = e_value(ratios[0], ci_lower=ratios[1], ci_upper=ratios[2])
    return {"e_value": found.estimate, "e_value_interval": found.interval}


def sensitivity_table(found: Mapping[str, Mapping[str, float | None]]) -> pd.DataFrame:
    """A row per estimator and quantity.

    Args:
        found: Quantities by estimator.
    """
    return pd.DataFrame(
        [
            {"estimator": estimator, "quantity": name, "value": value}
            for estimator, own in found.items()
            for name, value in own.items()
        ]
    )


def _check_df(df: float) -> None:
    if not df > 0:
        raise InferenceError("degrees of freedom must be positive", given=df)
