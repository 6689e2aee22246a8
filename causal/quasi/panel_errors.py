"""Covariances of regressions with unit and period effects, by what they have to know.

Clusters of whole units: one pass of summed scores, or none where the moments tell. Leaving
clusters out (CR3) and the wild bootstrap: moments by cluster. Two-way clusters, Driscoll and Kraay:
scores by row of a panel of regions.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError, InferenceError
from causal.core.frames import Column, Condition, FrameRequest, KeyRequest, MeatRequest
from causal.core.gram import Array, Gram, meat
from causal.core.inference import cr1_factor
from causal.quasi.did_options import DidOptions
from causal.quasi.row_scores import driscoll_kraay, observe_row_scores, two_way
from causal.quasi.within_fit import WithinFit
from causal.regression.leverage import (
    ClusterMoments,
    cluster_covariance,
    cluster_moments,
    leave_out_covariance,
)

MAX_CLUSTERS = 1_000
"""Clusters whose moments may come to the driver one by one."""


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """Coefficients of interest with their covariance.

    Attributes:
        fit: The regression.
        covariance: Shape (K, K).
        df: Degrees of freedom of the t reference.
        n_clusters: Clusters behind the covariance; `None`: not clustered.
        clusters: Moments by cluster, for the wild bootstrap.
    """

    fit: WithinFit
    covariance: Array
    df: float
    n_clusters: int | None
    clusters: ClusterMoments | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients."""
        return tuple(regressor.name for regressor in self.fit.regressors)

    @property
    def std_errors(self) -> Array:
        """Standard errors, shape (K,)."""
        return np.sqrt(np.diag(self.covariance))

    def positions(self, names: Sequence[str]) -> list[int]:
        """Indices of coefficients."""
        return [self.names.index(name) for name in names]


def check_blocks(
    options: DidOptions, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, None]:
    """Clusters are few enough to be held one by one, and hold whole units.

    Raises:
        DataError: They are not.
    """
    if not options.needs_blocks:
        return
    column = options.clusters
    frame = yield KeyRequest(key=(column,), n_examples=0, where=where)
    n_clusters = int(frame["n_keys"].iloc[0])
    if n_clusters > MAX_CLUSTERS:
        raise DataError(
            f"CR3 and the wild bootstrap take each {column} on its own: too many of them",
            given=f"{n_clusters:,}",
            allowed=f"at most {MAX_CLUSTERS:,}; with so many, covariance: cluster needs neither",
        )
    if column == options.unit:
        return
    units = yield KeyRequest(key=(options.unit,), n_examples=0, where=where)
    pairs = yield KeyRequest(key=(options.unit, column), n_examples=0, where=where)
    n_split = int(pairs["n_keys"].iloc[0]) - int(units["n_keys"].iloc[0])
    if n_split > 0:
        raise DataError(f"a {options.unit} must lie in one cluster", given=f"{n_split} too many")


def covariances(
    options: DidOptions,
    fits: Sequence[WithinFit],
    *,
    where: tuple[Condition, ...],
    blocks: Sequence[Gram] = (),
) -> Generator[FrameRequest, pd.DataFrame, tuple[Estimates, ...]]:
    """Covariances of several fits on the same rows, with at most one more pass.

    A fit beside the first one is left out where it has no such errors (leads that one cluster
    alone identifies).

    Args:
        options: The analysis.
        fits: The fits, that of the analysis first.
        where: Conditions on the rows.
        blocks: Within-unit moments by cluster, where the covariance needs them.
    """
    if not fits:
        return ()
    if options.needs_blocks:
        return _each(fits, lambda at: _from_blocks(options, fits[at], blocks))
    if options.needs_row_scores:
        return (yield from _from_rows(options, fits, where=where))
    if options.covariance == "classical":
        return tuple(
            Estimates(
                fit=fit, covariance=fit.bread * fit.residual_variance, df=fit.df_resid,
                n_clusters=None,
            )
            for fit in fits
        )  # fmt: skip
    known = [fit.known[options.clusters] for fit in fits if options.clusters in fit.known]
    if len(known) == len(fits):
        return tuple(
            _clustered(options, fit, matrix, n_clusters=n_clusters)
            for fit, (matrix, n_clusters) in zip(fits, known, strict=True)
        )
    return (yield from _from_meat(options, fits, where=where))


def _from_meat(
    options: DidOptions, fits: Sequence[WithinFit], *, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, tuple[Estimates, ...]]:
    request = MeatRequest(
        scores=tuple(score for fit in fits for score in fit.scores),
        cluster=(options.clusters,),
        weight=None if options.weight is None else Column(options.weight),
        absorb=options.unit,
        where=where,
    )
    frame = yield request
    matrix, n_clusters = meat(frame)
    _check_same_rows(frame, fits[0], options)
    ends = np.cumsum([len(fit.regressors) for fit in fits])
    return tuple(
        _clustered(
            options, fit, matrix[end - len(fit.regressors) : end, end - len(fit.regressors) : end],
            n_clusters=n_clusters,
        )
        for fit, end in zip(fits, ends, strict=True)
    )  # fmt: skip


def _from_rows(
    options: DidOptions, fits: Sequence[WithinFit], *, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, tuple[Estimates, ...]]:
    rows = yield from observe_row_scores(options, fits, where=where)
    errors = driscoll_kraay if options.covariance == "driscoll_kraay" else two_way

    def estimates(at: int) -> Estimates:
        found = errors(options, fits[at], rows[at])
        return Estimates(
            fit=fits[at], covariance=found.matrix, df=found.df, n_clusters=found.n_clusters
        )

    return _each(fits, estimates)


def _each(
    fits: Sequence[WithinFit], estimates: Callable[[int], Estimates]
) -> tuple[Estimates, ...]:
    """The estimates of the first fit, and those of the others that have errors."""
    found = [estimates(0)]
    for at in range(1, len(fits)):
        try:
            found.append(estimates(at))
        except InferenceError:
            continue
    return tuple(found)


def _from_blocks(options: DidOptions, fit: WithinFit, blocks: Sequence[Gram]) -> Estimates:
    equation = fit.equation
    if equation is None:
        raise ValueError("moments by cluster go with an equation")
    terms = equation.moments.gram.terms
    moments = cluster_moments(equation, [block.subset(terms) for block in blocks])
    g, at = len(blocks), np.ix_(fit.positions, fit.positions)
    if options.covariance == "CR3":
        covariance = leave_out_covariance(moments, kind="CR3", wanted=fit.positions)[at]
        factor = (g - 1) / g if options.factor == "jackknife" else 1.0
        return Estimates(fit=fit, covariance=factor * covariance, df=g - 1, n_clusters=g)
    found = _clustered(options, fit, cluster_covariance(moments)[at], n_clusters=g)
    return Estimates(
        fit=fit, covariance=found.covariance, df=found.df, n_clusters=g, clusters=moments
    )


def _clustered(
    options: DidOptions, fit: WithinFit, covariance: Array, *, n_clusters: int
) -> Estimates:
    """Estimates with the clustered covariance and the small-sample factor asked for."""
    factor = cr1_factor(n=fit.n, k=fit.k, n_clusters=n_clusters)
    if options.factor == "none":
        factor = 1.0
    return Estimates(
        fit=fit, covariance=factor * (covariance + covariance.T) / 2, df=n_clusters - 1,
        n_clusters=n_clusters,
    )  # fmt: skip


def _check_same_rows(frame: pd.DataFrame, fit: WithinFit, options: DidOptions) -> None:
    n_used = int(frame["n"].iloc[0])
    if n_used < fit.n:
        raise DataError(f"{options.clusters} is null in some rows", given=f"{fit.n - n_used} rows")
    if n_used != fit.n:
        raise InferenceError("the passes saw different rows", given=f"{n_used} and {fit.n}")
