"""The surrogate index: a long-term outcome as it follows from short-term ones.

On historical units, whose long-term outcome is known, it is regressed on short-term outcomes (the
surrogates) and what else is known of a unit; the fitted value is the index.
"""

from collections.abc import Generator
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
from causal.core.gram import Array, Gram, grams, meat, pooled
from causal.core.inference import cr1_factor, hc1_factor
from causal.experiments.levels import ROUNDING

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
        n_missing: Further ones, left out for a missing value.
        n_clusters: Groups behind the covariance; `None`: it is not clustered.
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
    n_clusters: int | None
    r_squared: float

    @property
    def df(self) -> float:
        """Degrees of freedom of the covariance."""
        if self.n_clusters is not None:
            return float(self.n_clusters - 1)
        return float(self.n - len(self.surrogates) - 1)


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
        DataError: Too few units, a group that is null, or a column that does not vary.
        InferenceError: Predictors that are combinations of others.

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
    found = grams((yield request), request)
    if not found:
        raise DataError("there are no historical units after the filters")
    gram = pooled(found.values())
    p = len(surrogates)
    if gram.n <= p + 1:
        raise DataError(
            "too few historical units with all values", given=gram.n, allowed=f"more than {p + 1}"
        )
    inner, cross = gram.cross[:p, :p], gram.cross[:p, p]
    _check_outcome(gram, outcome)
    _check_inner(inner, surrogates)
    slopes = np.asarray(np.linalg.solve(inner, cross), dtype=np.float64)
    residual = _residual(gram, slopes, terms)
    centred = [Linear((terms[at], Constant()), (1.0, -float(gram.mean[at]))) for at in range(p)]
    answer = yield MeatRequest(
        scores=tuple(Score(term, residual) for term in centred),
        cluster=() if cluster is None else (cluster,),
        where=where,
    )
    middle, n_clusters = meat(answer)
    factor = hc1_factor(n=gram.n, k=p + 1)
    if cluster is not None:
        _check_clusters(cluster, gram, n_used=int(answer["n"].iloc[0]), n_clusters=n_clusters)
        factor = cr1_factor(n=gram.n, k=p + 1, n_clusters=n_clusters)
    inverse = np.linalg.inv(inner)
    return SurrogateIndex(
        outcome=outcome,
        surrogates=surrogates,
        slopes=slopes,
        covariance=factor * inverse @ middle @ inverse,
        means=gram.mean[:p],
        level=float(gram.mean[p]),
        n=gram.n,
        n_missing=gram.n_missing,
        n_clusters=None if cluster is None else n_clusters,
        r_squared=float(slopes @ cross) / float(gram.cross[p, p]),
    )


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


def _check_outcome(gram: Gram, outcome: str) -> None:
    spread = np.sqrt(gram.cross[-1, -1] / gram.n)
    if not spread > ROUNDING * abs(gram.mean[-1]):
        raise DataError(
            "the long-term outcome has zero variance among historical units", given=outcome
        )


def _check_clusters(cluster: str, gram: Gram, *, n_used: int, n_clusters: int) -> None:
    if n_used < gram.n:
        raise DataError(f"{cluster} is null", given=f"{gram.n - n_used} historical units")
    if n_clusters < 2:  # noqa: PLR2004
        raise DataError("clustered errors of the index take two clusters or more", given=n_clusters)
