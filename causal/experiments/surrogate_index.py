"""Long-term effects from short-term outcomes: the surrogate index as an experiment's outcome.

On historical units, whose long-term outcome Y is known, Y is regressed on short-term outcomes (the
surrogates) and what else is known of a unit; the fitted value is the surrogate index. In an
experiment that is too young for Y, the effect on the index is the effect on Y if three things hold:
the treatment was randomised; Y is independent of the treatment given the surrogates (surrogacy);
and the relation of Y to the surrogates is that of the historical units (comparability). See Athey,
Chetty, Imbens and Kang (2019), "The Surrogate Index: Combining Short-Term Proxies to Estimate
Long-Term Treatment Effects More Rapidly and Precisely", NBER working paper 26463.

With slopes b and the arms' difference in mean surrogates d, the effect is d'b. Historical and
experimental units are different ones, so the two are independent and, by the delta method,

    Var(d'b) = b' Var(d) b + d' Var(b) d.

The first part is the squared error of a difference in means of the index, the second the error of
the index itself, which no number of experimental units removes.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError, InferenceError
from causal.core.frames import (
    Column,
    Condition,
    Constant,
    FrameRequest,
    GramRequest,
    Linear,
    MeatRequest,
    Score,
)
from causal.core.gram import Array, Gram, Key, grams, pooled, unpack
from causal.core.inference import effect, hc1_factor
from causal.core.result import Diagnostic, Effect, Result

_SINGULAR = 1e-10


@dataclass(frozen=True, kw_only=True)
class SurrogateIndex:
    """A linear prediction of the long-term outcome.

    Attributes:
        outcome: Column of the long-term outcome.
        surrogates: Columns of the p predictors.
        slopes: Shape (p,).
        covariance: Of the slopes, robust (HC1) or clustered, shape (p, p).
        means: Of the predictors among historical units, shape (p,).
        level: Mean of the outcome among these.
        n: Historical units.
        n_missing: Of these, left out for a missing value.
        r_squared: Share of the outcome's variance that the index explains among them.
    """

    outcome: str
    surrogates: tuple[str, ...]
    slopes: Array
    covariance: Array
    means: Array
    level: float
    n: int
    n_missing: int
    r_squared: float


def fit_index(
    *,
    outcome: str,
    surrogates: tuple[str, ...],
    cluster: str | None = None,
    where: tuple[Condition, ...] = (),
) -> Generator[FrameRequest, pd.DataFrame, SurrogateIndex]:
    """A plan that fits the index on historical units.

    Args:
        outcome: Column of the long-term outcome.
        surrogates: Columns of short-term outcomes, and of what else is known of a unit.
        cluster: Column of groups of units whose outcomes hang together.
        where: Conditions that rows must meet.

    Raises:
        DataError: Too few units, or predictors that are combinations of others.

    Example:
        >>> from causal.core.pandas_engine import PandasEngine
        >>> from causal.core.plan import run
        >>> rng = np.random.default_rng(0)
        >>> s = rng.normal(size=500)
        >>> history = pd.DataFrame({"week": s, "year": 10 + 3 * s + rng.normal(size=500)})
        >>> index = run(fit_index(outcome="year", surrogates=("week",)), PandasEngine(history))
        >>> bool(abs(index.slopes[0] - 3) < 0.2)
        True
    """
    terms = tuple(Column(name) for name in (*surrogates, outcome))
    request = GramRequest(terms=terms, where=where)
    gram = pooled(grams((yield request), request).values())
    p = len(surrogates)
    if gram.n <= p + 1:
        raise DataError(
            "too few historical units with all values", given=gram.n, allowed=f"more than {p + 1}"
        )
    inner, cross = gram.cross[:p, :p], gram.cross[:p, p]
    _check_inner(inner, surrogates)
    slopes = np.asarray(np.linalg.solve(inner, cross), dtype=np.float64)
    residual = _residual(gram, slopes, terms)
    centred = [Linear((terms[at], Constant()), (1.0, -float(gram.mean[at]))) for at in range(p)]
    meat = yield MeatRequest(
        scores=tuple(Score(term, residual) for term in centred),
        cluster=() if cluster is None else (cluster,),
        where=where,
    )
    middle = unpack(np.asarray(meat["cross"].iloc[0], dtype=np.float64), p)
    factor = hc1_factor(n=gram.n, k=p + 1)
    if cluster is not None:
        n_clusters = int(meat["n_clusters"].iloc[0])
        if n_clusters < 2:  # noqa: PLR2004
            raise DataError("clustered errors take two clusters or more", given=n_clusters)
        factor = n_clusters / (n_clusters - 1) * (gram.n - 1) / (gram.n - p - 1)
    inverse = np.linalg.inv(inner)
    total = float(gram.cross[p, p])
    return SurrogateIndex(
        outcome=outcome,
        surrogates=surrogates,
        slopes=slopes,
        covariance=factor * inverse @ middle @ inverse,
        means=gram.mean[:p],
        level=float(gram.mean[p]),
        n=gram.n,
        n_missing=gram.n_missing,
        r_squared=float(slopes @ cross) / total if total > 0 else 0.0,
    )


def estimate_long_term(
    index: SurrogateIndex,
    *,
    variant: str,
    control: str,
    confidence_level: float = 0.95,
    where: tuple[Condition, ...] = (),
) -> Generator[FrameRequest, pd.DataFrame, Result]:
    """A plan: effects of every variant on the long-term outcome, by way of the index.

    Args:
        index: Fitted on other units than those of the experiment.
        variant: Column of the arm.
        control: Its level without treatment.
        confidence_level: Nominal coverage.
        where: Conditions that rows must meet.

    Returns:
        An effect per variant, and diagnostics: which share of its variance is the index's error,
        and whether the experiment's surrogates lie where the historical ones do.

    Raises:
        DataError: An arm lacks, or has fewer than two units.
        InferenceError: The index or its effect has no variance.
    """
    terms = tuple(Column(name) for name in index.surrogates)
    request = GramRequest(terms=terms, by=(variant,), where=where)
    arms = _arms(grams((yield request), request), control=control, column=variant)
    base = arms[control]
    effects: list[Effect] = []
    checks = [_fit_note(index), _missing_note(arms)]
    for name, arm in arms.items():
        if name == control:
            continue
        found, share = _index_effect(
            index, arm, base, term=f"{name} - {control}", confidence_level=confidence_level
        )
        effects.append(found)
        checks.append(
            Diagnostic(
                name=f"index_error.{name}",
                statistic=share,
                pvalue=None,
                passed=None,
                detail=f"{share:.0%} of the variance of {found.term} is the error of the index",
            )
        )
    return Result(effects=tuple(effects), diagnostics=(*checks, _support_note(index, arms)))


def back_test(
    index: SurrogateIndex,
    *,
    variant: str,
    control: str,
    confidence_level: float = 0.95,
    where: tuple[Condition, ...] = (),
) -> Generator[FrameRequest, pd.DataFrame, Result]:
    """A plan: an experiment whose long-term outcome is known, judged as if it were not.

    For every variant it gives the effect by way of the index, the effect on the outcome itself, and
    the second less the first: what the treatment does that the surrogates do not carry. Its error
    is that of a difference in means of what the index leaves unexplained, and the index's.

    Args:
        index: Fitted on other units than those of the experiment.
        variant: Column of the arm.
        control: Its level without treatment.
        confidence_level: Nominal coverage.
        where: Conditions that rows must meet.

    Raises:
        DataError: An arm lacks, or has fewer than two units.
        InferenceError: An effect has no variance.
    """
    terms = tuple(Column(name) for name in (*index.surrogates, index.outcome))
    request = GramRequest(terms=terms, by=(variant,), where=where)
    arms = _arms(grams((yield request), request), control=control, column=variant)
    base, p = arms[control], len(index.surrogates)
    effects: list[Effect] = []
    checks = [_fit_note(index), _missing_note(arms)]
    long_term = np.append(np.zeros(p), 1.0)
    unexplained = np.append(-index.slopes, 1.0)
    for name, arm in arms.items():
        if name == control:
            continue
        term = f"{name} - {control}"
        short = terms[:p]
        by_index, _ = _index_effect(
            index, arm.subset(short), base.subset(short),
            term=term, confidence_level=confidence_level,
        )  # fmt: skip
        actual = _contrast(
            "welch", long_term, arm, base, index=index, with_index=False, term=term,
            confidence_level=confidence_level,
        )  # fmt: skip
        rest = _contrast(
            "unexplained_by_index", unexplained, arm, base, index=index, with_index=True, term=term,
            confidence_level=confidence_level,
        )  # fmt: skip
        effects += [by_index, actual, rest]
        checks.append(
            Diagnostic(
                name=f"surrogacy.{name}",
                statistic=rest.statistic,
                pvalue=rest.pvalue,
                passed=bool(rest.pvalue >= 1.0 - confidence_level),
                detail=(
                    f"the index says {by_index.estimate:+.4g}, the outcome itself "
                    f"{actual.estimate:+.4g}; the difference is {rest.estimate:+.4g} "
                    f"[{rest.ci_lower:+.4g}, {rest.ci_upper:+.4g}]"
                ),
            )
        )
    return Result(effects=tuple(effects), diagnostics=tuple(checks))


def _index_effect(
    index: SurrogateIndex, arm: Gram, base: Gram, *, term: str, confidence_level: float
) -> tuple[Effect, float]:
    """The effect on the index, and the share of its variance that is the index's own error."""
    found = _contrast(
        "surrogate_index", index.slopes, arm, base, index=index, with_index=True, term=term,
        confidence_level=confidence_level,
    )  # fmt: skip
    moved = arm.mean - base.mean
    return found, float(moved @ index.covariance @ moved) / found.std_error**2


def _contrast(  # noqa: PLR0913 - one per part of the contrast
    estimator: str,
    weights: Array,
    arm: Gram,
    base: Gram,
    *,
    index: SurrogateIndex,
    with_index: bool,
    term: str,
    confidence_level: float,
) -> Effect:
    """Difference in means of a combination of the terms, with the index's error or without."""
    p = len(index.surrogates)
    moved = arm.mean - base.mean
    variance = sum(float(weights @ gram.covariance @ weights) / gram.n for gram in (arm, base))
    if with_index:
        variance += float(moved[:p] @ index.covariance @ moved[:p])
    return effect(
        estimator=estimator,
        estimand="ate",
        metric=index.outcome,
        term=term,
        estimate=float(weights @ moved),
        std_error=float(np.sqrt(variance)),
        confidence_level=confidence_level,
        n_treated=arm.n,
        n_control=base.n,
    )


def _arms(found: Mapping[Key, Gram], *, control: str, column: str) -> dict[str, Gram]:
    """Arms by name, the control first."""
    if (None,) in found:
        raise DataError(f"{column} is null in some rows", given=f"{found[(None,)].n} rows")
    arms = {str(key[0]): gram for key, gram in found.items()}
    if control not in arms or len(arms) < 2:  # noqa: PLR2004
        raise DataError(
            f"{column} must hold the control and another arm", given=sorted(arms), allowed=control
        )
    small = [name for name, gram in arms.items() if gram.n < 2]  # noqa: PLR2004
    if small:
        raise DataError("an arm needs two units or more with all values", given=small)
    return {control: arms[control], **{name: arms[name] for name in sorted(arms)}}


def _residual(gram: Gram, slopes: Array, terms: tuple[Column, ...]) -> Linear:
    """The outcome less the index."""
    level = float(gram.mean[-1] - slopes @ gram.mean[:-1])
    return Linear(
        (terms[-1], Constant(), *terms[:-1]), (1.0, -level, *(-float(slope) for slope in slopes))
    )


def _check_inner(inner: Array, surrogates: tuple[str, ...]) -> None:
    scale = np.sqrt(np.diag(inner))
    constant = [name for name, size in zip(surrogates, scale, strict=True) if not size > 0]
    if constant:
        raise DataError("a surrogate does not vary among historical units", given=constant)
    if np.linalg.eigvalsh(inner / np.outer(scale, scale))[0] < _SINGULAR:
        raise InferenceError("surrogates are combinations of others", given=list(surrogates))


def _fit_note(index: SurrogateIndex) -> Diagnostic:
    return Diagnostic(
        name="index_fit",
        statistic=index.r_squared,
        pvalue=None,
        passed=None,
        detail=f"the index explains {index.r_squared:.1%} of the variance of {index.outcome} among "
        f"{index.n:,} historical units ({index.n_missing:,} left out for a missing value)",
    )


def _missing_note(arms: dict[str, Gram]) -> Diagnostic:
    n_missing = sum(gram.n_missing for gram in arms.values())
    return Diagnostic(
        name="missing_rows",
        statistic=float(n_missing),
        pvalue=None,
        passed=None,
        detail=f"{n_missing:,} units of the experiment lack a value and are left out",
    )


def _support_note(index: SurrogateIndex, arms: dict[str, Gram]) -> Diagnostic:
    """How far the experiment's mean surrogates lie from the historical ones."""
    whole = pooled(arms.values())
    spread = np.sqrt(np.diag(whole.covariance))
    away = (whole.mean - index.means) / np.where(spread > 0, spread, 1.0)
    worst = int(np.abs(away).argmax())
    return Diagnostic(
        name="comparability",
        statistic=float(away[worst]),
        pvalue=None,
        passed=bool(abs(away[worst]) < 1.0),
        detail=f"{index.surrogates[worst]} lies {away[worst]:+.2f} standard deviations from its "
        "historical mean, the others less",
    )
