"""Effects on a surrogate index, with the error of the index in theirs, and the back-test.

With slopes b and the arms' difference in mean surrogates d, the effect is d'b. Historical and
experimental units are different ones, so the two are independent and, by the delta method,

    Var(d'b) = b' Var(d) b + d' Var(b) d.

The first part is the squared error of a difference in means of the index, clustered where clusters
were randomised; the second the error of the index itself, which no number of experimental units
removes. Covariates (CUPED) replace the surrogates' means by adjusted ones in both parts.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import FrameRequest
from causal.core.gram import Array, Gram, pooled
from causal.core.inference import effect
from causal.core.result import Diagnostic, Effect, Result
from causal.experiments.ab_checks import cluster_checks, row_counts
from causal.experiments.ab_health import ask_sample_ratio, missingness
from causal.experiments.arms import Arms, Design, ask_moments
from causal.experiments.cluster_sums import ask_clustering, ask_clusters
from causal.experiments.comparison import Comparison, comparisons
from causal.experiments.levels import (
    ROUNDING,
    Quotient,
    Theta,
    covariate_thetas,
    welch_satterthwaite,
)
from causal.experiments.metrics import Metric
from causal.experiments.surrogate_fit import SurrogateIndex
from causal.experiments.surrogate_options import SurrogateOptions

INDEX = "surrogate_index"
UNEXPLAINED = "unexplained_by_index"
_FAR = 1.0
"""Standard deviations from the historical mean that make the comparison of populations fail."""


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A treatment beside control, read by an index.

    Attributes:
        index: The index; its q surrogates come first among the p terms of the moments.
        comparison: Moments of both arms, and what clusters make of them.
        adjusted: Differences of means are these times the mean vectors', shape (p, p): the
            covariates' part is taken off the other terms'; the identity for raw ones.
        confidence_level: Nominal coverage.
    """

    index: SurrogateIndex
    comparison: Comparison
    adjusted: Array
    confidence_level: float

    @property
    def moved(self) -> Array:
        """Differences of the (adjusted) means, shape (p,)."""
        control, treatment = self.comparison.moments
        return np.asarray(self.adjusted @ (treatment.mean - control.mean), dtype=np.float64)

    @property
    def index_weights(self) -> Array:
        """The index as a combination of the terms, shape (p,)."""
        out = np.zeros(len(self.moved))
        out[: len(self.index.slopes)] = self.index.slopes
        return out

    @property
    def index_variance(self) -> float:
        """The index's part in the variance of its effect."""
        moved = self.moved[: len(self.index.slopes)]
        return float(moved @ self.index.covariance @ moved)

    def effect(
        self, estimator: str, weights: Array, *, with_index: bool, metric: str | None = None
    ) -> Effect:
        """The effect on a combination of the terms.

        Args:
            estimator: Its name.
            weights: The combination, shape (p,).
            with_index: Whether the weights hold the index's slopes and so their error.
            metric: What the combination is; the long-term outcome if left out.

        Raises:
            InferenceError: It has no variance.
        """
        variance, df = self._of_means(np.asarray(weights @ self.adjusted))
        own = self.index_variance if with_index else 0.0
        if own > 0.0:
            df = welch_satterthwaite([variance, own], [df, self.index.df])
        control, treatment = self.comparison.moments
        return effect(
            estimator=estimator,
            estimand="ate",
            metric=self.index.outcome if metric is None else metric,
            term=self.comparison.term,
            estimate=float(weights @ self.moved),
            std_error=float(np.sqrt(max(variance + own, 0.0))),
            df=df,
            confidence_level=self.confidence_level,
            n_treated=treatment.n,
            n_control=control.n,
            n_clusters=self.comparison.n_clusters,
        )

    def _of_means(self, weights: Array) -> tuple[float, float]:
        """Variance of a difference in means of a combination, and its degrees of freedom."""
        joint, moments = self.comparison.joint, self.comparison.moments
        if joint is not None:
            gradient = np.hstack([-weights, weights])
            variance = sum(float(gradient @ part @ gradient) for part in joint.parts)
            return variance, joint.df(gradient, moments)
        variances = [float(weights @ gram.covariance @ weights) / gram.n for gram in moments]
        return sum(variances), welch_satterthwaite(variances, [gram.n - 1.0 for gram in moments])


def ask_effects(
    index: SurrogateIndex, design: Design, options: SurrogateOptions, *, confidence_level: float
) -> Generator[FrameRequest, pd.DataFrame, Result]:
    """Effects of every treatment on the long-term outcome, by way of the index.

    Args:
        index: Fitted on other units than those of the experiment.
        design: Who was randomised to what.
        options: The options of the method.
        confidence_level: Nominal coverage.

    Returns:
        An effect per treatment (raw, and adjusted where there are covariates) and, of a back-test,
        those on the outcome itself and on what the index leaves of it; diagnostics say which share
        of its variance is the index's error, and whether the experiment's surrogates lie where the
        historical ones do.

    Raises:
        DataError: An arm lacks or has fewer than two units or clusters; a covariate is constant.
        InferenceError: An effect has no variance.
    """
    # The moments of a metric are those of its outcome and covariates together: all that is needed.
    metric = Metric(
        name=INDEX, type="mean", column=options.columns[0], covariates=options.columns[1:]
    )
    arms = yield from ask_moments(design, [metric])
    ratio = yield from ask_sample_ratio(
        design, arms, expected_shares=options.expected_shares, alpha=options.srm_alpha,
        cluster=options.clusters,
    )  # fmt: skip
    checks = [
        _fit_note(index),
        ratio,
        *row_counts([metric], arms),
        *missingness([metric], arms, is_clustered=bool(options.clusters)),
    ]
    _check_index(index, arms)
    clusterings = None
    if options.clusters:
        clusters = yield from ask_clusters(
            design, arms, columns=options.clusters, correction=None,
            degrees_of_freedom="satterthwaite",
        )  # fmt: skip
        found = yield from ask_clustering(design, [metric], arms, clusters=clusters)
        checks += cluster_checks([metric], arms, found, clusters)
        clusterings = found[INDEX]
    effects: list[Effect] = []
    for comparison in comparisons(metric, arms, clusterings):
        more, notes = _compared(index, comparison, options, confidence_level=confidence_level)
        effects += more
        checks += notes
    return Result(
        effects=tuple(effects),
        diagnostics=(*checks, _support_note(index, arms)),
        params={
            "n_history": index.n,
            "r_squared": index.r_squared,
            **{f"n.{level}": n for level, n in arms.counts.items()},
        },
        tables={"index": _index_table(index), "arms": _arm_table(index, arms)},
    )


def _compared(
    index: SurrogateIndex,
    comparison: Comparison,
    options: SurrogateOptions,
    *,
    confidence_level: float,
) -> tuple[list[Effect], list[Diagnostic]]:
    """Effects of one treatment, the adjusted ones first, and what is to be said of them."""
    raw = np.eye(len(options.columns))
    ways = {"": raw}
    if options.covariates:
        ways = {"_cuped": _adjusting(comparison, options, theta=options.theta), "": raw}
    effects: list[Effect] = []
    checks: list[Diagnostic] = []
    for suffix, adjusted in ways.items():
        pair = _Pair(
            index=index, comparison=comparison, adjusted=adjusted,
            confidence_level=confidence_level,
        )  # fmt: skip
        by_index = pair.effect(f"{INDEX}{suffix}", pair.index_weights, with_index=True)
        effects.append(by_index)
        is_first = len(effects) == 1
        if is_first:
            checks.append(_error_note(pair, by_index))
        if options.back_test:
            actual, rest = _tested(pair, suffix)
            effects += [actual, rest]
            checks += [_surrogacy(pair, by_index, actual, rest)] if is_first else []
    return effects, checks


def _tested(pair: _Pair, suffix: str) -> tuple[Effect, Effect]:
    """The effect on the outcome itself, which comes last, and on what the index leaves of it."""
    outcome = np.zeros(len(pair.moved))
    outcome[-1] = 1.0
    joint = pair.comparison.joint
    plain = "welch" if joint is None else joint.estimator
    return (
        pair.effect(suffix.removeprefix("_") or plain, outcome, with_index=False),
        pair.effect(
            f"{UNEXPLAINED}{suffix}",
            outcome - pair.index_weights,
            with_index=True,
            metric=f"{pair.index.outcome} - {INDEX}",
        ),
    )


def _adjusting(comparison: Comparison, options: SurrogateOptions, *, theta: Theta) -> Array:
    """What takes the covariates' part off every other term, shape (p, p)."""
    first = len(options.surrogates)
    covariates = [
        Quotient(name, first + at) for at, name in enumerate(options.covariates)
    ]  # fmt: skip
    columns = [item.numerator for item in covariates]
    out = np.eye(len(options.columns))
    for at, name in enumerate(options.columns):
        if at in columns:
            continue
        out[at, columns] = -covariate_thetas(
            *comparison.moments, quotients=[Quotient(name, at), *covariates], theta=theta
        )
    return out


def _check_index(index: SurrogateIndex, arms: Arms) -> None:
    """The index varies in the experiment."""
    q = len(index.slopes)
    for gram in arms.moments[INDEX]:
        spread = np.sqrt(max(float(index.slopes @ gram.covariance[:q, :q] @ index.slopes), 0.0))
        if spread > ROUNDING * float(np.abs(index.slopes) @ np.abs(gram.mean[:q])):
            return
    raise DataError(
        "zero variance: the surrogates do not vary within an arm", given=list(index.surrogates)
    )


def _fit_note(index: SurrogateIndex) -> Diagnostic:
    return Diagnostic(
        name="index_fit",
        statistic=index.r_squared,
        pvalue=None,
        passed=None,
        detail=f"the index explains {index.r_squared:.1%} of the variance of {index.outcome} among "
        f"{index.n:,} historical units ({index.n_missing:,} left out for a missing value)",
    )


def _error_note(pair: _Pair, found: Effect) -> Diagnostic:
    share = pair.index_variance / found.std_error**2
    return Diagnostic(
        name=f"index_error.{found.term}",
        statistic=share,
        pvalue=None,
        passed=None,
        detail=f"{share:.0%} of the variance of {found.term} is the error of the index",
    )


def _surrogacy(pair: _Pair, by_index: Effect, actual: Effect, rest: Effect) -> Diagnostic:
    return Diagnostic(
        name=f"surrogacy.{rest.term}",
        statistic=rest.statistic,
        pvalue=rest.pvalue,
        passed=bool(rest.pvalue >= 1.0 - pair.confidence_level),
        detail=(
            f"the index says {by_index.estimate:+.4g}, the outcome itself "
            f"{actual.estimate:+.4g}; the difference is {rest.estimate:+.4g} "
            f"[{rest.ci_lower:+.4g}, {rest.ci_upper:+.4g}]"
        ),
    )


def _support_note(index: SurrogateIndex, arms: Arms) -> Diagnostic:
    """How far the experiment's mean surrogates lie from the historical ones."""
    q = len(index.surrogates)
    whole = pooled(arms.moments[INDEX])
    spread = np.sqrt(np.diag(whole.covariance))[:q]
    away = (whole.mean[:q] - index.means) / np.where(spread > 0, spread, 1.0)
    worst = int(np.abs(away).argmax())
    return Diagnostic(
        name="comparability",
        statistic=float(away[worst]),
        pvalue=None,
        passed=bool(abs(away[worst]) < _FAR),
        detail=f"{index.surrogates[worst]} lies {away[worst]:+.2f} standard deviations from its "
        "historical mean, the others less",
    )


def _index_table(index: SurrogateIndex) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "surrogate": index.surrogates,
            "slope": index.slopes,
            "std_error": np.sqrt(np.diag(index.covariance)),
            "historical_mean": index.means,
        }
    )


def _arm_table(index: SurrogateIndex, arms: Arms) -> pd.DataFrame:
    """Mean of the index in every arm."""
    return pd.DataFrame(
        [
            {
                "metric": index.outcome,
                "variant": str(level),
                "n": gram.n,
                "mean": _predicted(index, gram),
            }
            for level, gram in zip(arms.levels, arms.moments[INDEX], strict=True)
        ]
    )


def _predicted(index: SurrogateIndex, gram: Gram) -> float:
    return index.level + float(index.slopes @ (gram.mean[: len(index.slopes)] - index.means))
