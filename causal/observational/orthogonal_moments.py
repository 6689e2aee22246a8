"""Effects as ratios of two sums of scores that small errors of the models do not move.

An effect is `sum a / sum b`, and a row's influence on it is `(a - effect b) / sum b`; so one pass
gives estimates and errors, clustered ones from sums by cluster. The scores are

    aipw, ate: g_1 - g_0 + t (y - g_1) / p - (1 - t) (y - g_0) / (1 - p), over 1
    aipw, att: (t - (1 - t) p / (1 - p)) (y - g_0), over t
    aipw, atc: (t (1 - p) / p - (1 - t)) (y - g_1), over 1 - t
    plr:       (t - p) (y - l), over (t - p)^2

with predictions g_0, g_1 of the outcome in both arms, l whatever the arm, and the propensity p
(Robins, Rotnitzky and Zhao 1994; Robinson 1988; Chernozhukov et al. 2018).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from causal.core.frames import Constant, Linear, Product, Term
from causal.core.gram import Array, Gram
from causal.observational.cross_fitting import CrossFittedPropensity
from causal.observational.study import CONTROL, TREATED, Study

ONE = Constant()


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """The two scores of an effect, and the squared residual of the outcome for `plr`.

    Attributes:
        top: What is summed over the line.
        bottom: What is summed below it.
        square: The squared residual of the outcome; `None` for `aipw`.
    """

    top: Term
    bottom: Term
    square: Term | None = None

    @property
    def terms(self) -> tuple[Term, ...]:
        """All of them."""
        return (self.top, self.bottom, *(() if self.square is None else (self.square,)))


@dataclass(frozen=True, kw_only=True)
class RatioEstimate:
    """An effect.

    Attributes:
        estimate: The effect.
        std_error: Its standard error, with the factor.
        n_treated: Treated rows.
        n_control: Control rows.
        n_clusters: Clusters; `None`: rows are independent.
        classical_error: Standard error of `plr` under errors of equal variance; NaN for `aipw`.
    """

    estimate: float
    std_error: float
    n_treated: int
    n_control: int
    n_clusters: int | None
    classical_error: float = float("nan")


def aipw_ratio(
    study: Study, propensity: CrossFittedPropensity, predictions: tuple[Term, Term], *, of: str
) -> Ratio:
    """Scores of the interactive model.

    Args:
        study: The rows.
        propensity: The propensity.
        predictions: Of the outcome in the control and in the treated arm.
        of: `ate`, `att` or `atc`.
    """
    control, treated = study.is_arm
    rest = [Linear((study.outcome, term), (1.0, -1.0)) for term in predictions]
    odds, inverse_odds = propensity.odds, propensity.inverse_odds
    if of == "att":
        weight = Linear((treated, Product((control, odds))), (1.0, -1.0))
        return Ratio(top=Product((weight, rest[CONTROL])), bottom=treated)
    if of == "atc":
        weight = Linear((Product((treated, inverse_odds)), control), (1.0, -1.0))
        return Ratio(top=Product((weight, rest[TREATED])), bottom=control)
    parts = (
        predictions[TREATED],
        predictions[CONTROL],
        Product((treated, Linear((ONE, inverse_odds), (1.0, 1.0)), rest[TREATED])),
        Product((control, Linear((ONE, odds), (1.0, 1.0)), rest[CONTROL])),
    )
    return Ratio(top=Linear(parts, (1.0, -1.0, 1.0, -1.0)), bottom=ONE)


def plr_ratio(study: Study, probability: Term, prediction: Term) -> Ratio:
    """Scores of the partially linear model.

    Args:
        study: The rows.
        probability: Prediction of the treatment.
        prediction: Prediction of the outcome, whatever the arm.
    """
    outcome = Linear((study.outcome, prediction), (1.0, -1.0))
    treatment = Linear((study.is_arm[TREATED], probability), (1.0, -1.0))
    return Ratio(
        top=Product((treatment, outcome)),
        bottom=Product((treatment, treatment)),
        square=Product((outcome, outcome)),
    )


def asked_terms(study: Study, ratios: Mapping[str, Ratio]) -> tuple[Term, ...]:
    """What the final pass sums, each once; 1 and the treatment first, for counts.

    Args:
        study: The rows.
        ratios: The scores by estimator.
    """
    own = [term for ratio in ratios.values() for term in ratio.terms]
    return tuple(dict.fromkeys((ONE, study.is_arm[TREATED], *own)))


def solve(
    moments: Gram, ratio: Ratio, *, treated: Term, factor: str, is_clustered: bool
) -> RatioEstimate:
    """The effect and its error from the sums of the scores.

    Args:
        moments: Of rows, or of the sums by cluster; 1 and the treatment among the terms.
        ratio: The scores.
        treated: The treatment.
        factor: `none` or `n-1`.
        is_clustered: Whether the moments are those of sums by cluster.
    """
    at = moments.positions((ratio.top, ratio.bottom))
    total = moments.sum_weights * moments.mean
    estimate = float(total[at[0]] / total[at[1]])
    contrast = np.array([1.0, -estimate])
    # The mean of a - effect b is zero, so centred products lose nothing and keep the digits.
    square = float(contrast @ moments.cross[np.ix_(at, at)] @ contrast)
    count = moments.n if is_clustered else moments.sum_weights
    scale = count / (count - 1.0) if factor == "n-1" else 1.0
    n, n_treated = (round(float(total[moments.index(term)])) for term in (ONE, treated))
    return RatioEstimate(
        estimate=estimate,
        std_error=float(np.sqrt(scale * square) / abs(total[at[1]])),
        n_treated=n_treated,
        n_control=n - n_treated,
        n_clusters=moments.n if is_clustered else None,
    )


def classical_error(moments: Gram, ratio: Ratio, *, df: float) -> float:
    """Standard error of `plr` under independent errors of equal variance.

    Args:
        moments: Of rows, or of the sums by cluster.
        ratio: The scores.
        df: Residual degrees of freedom.
    """
    if ratio.square is None:
        return float("nan")
    total: Array = moments.sum_weights * moments.mean
    top, bottom, square = (float(total[moments.index(term)]) for term in ratio.terms)
    return float(np.sqrt((square - top**2 / bottom) / df / bottom))


def median(parts: tuple[RatioEstimate, ...]) -> RatioEstimate:
    """The median over ways to part the rows, its error widened by their spread.

    Chernozhukov et al. 2018, definition 3.3: the variance is the median of the variance plus the
    squared distance to the median estimate.

    Args:
        parts: One per way.
    """
    estimates = np.array([part.estimate for part in parts])
    middle = float(np.median(estimates))
    errors = np.array([part.std_error for part in parts])
    spread = np.median(errors**2 + (estimates - middle) ** 2)
    first = parts[0]
    return RatioEstimate(
        estimate=middle,
        std_error=float(np.sqrt(spread)),
        n_treated=first.n_treated,
        n_control=first.n_control,
        n_clusters=first.n_clusters,
        classical_error=float(np.median([part.classical_error for part in parts])),
    )
