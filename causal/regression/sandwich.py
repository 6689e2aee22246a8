"""Heteroskedasticity-robust and clustered middles of sandwich covariances, one or two ways.

Two-way clustering adds the middles of both columns and subtracts that of their combinations
(Cameron, Gelbach and Miller 2011). The factors follow Stata (`G/(G-1) (n-1)/(n-k)` for each part),
or use the smallest G for all parts, as fixest and reghdfe do.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from causal.core.errors import DataError, InferenceError
from causal.core.frames import Condition, FrameRequest, Linear, MeatRequest, Score, Term
from causal.core.gram import Array, meat
from causal.core.inference import hotelling, wald
from causal.regression.error_options import ErrorOptions

MIN_CLUSTERS = 2
EIGEN_FLOOR = -1e-10
"""Smallest eigenvalue of a correlation matrix that counts as not negative."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which rows a regression uses.

    Attributes:
        n: Rows.
        n_weightless: Rows among those the engine sees whose weight is zero.
        weight: Weight of a row.
        absorb: Column whose effects the engine sweeps out.
        where: Conditions.
        terms: Everything that must not be null in a row.
    """

    n: int
    n_weightless: int = 0
    weight: Term | None = None
    absorb: str | None = None
    where: tuple[Condition, ...] = ()
    terms: tuple[Term, ...] = ()

    @property
    def marker(self) -> tuple[Term, ...]:
        """A term that is 0 in the rows used and missing in the others."""
        return (Linear(self.terms, (0.0,) * len(self.terms)),) if self.terms else ()

    def marked(self, score: Score) -> Score:
        """A score that is missing in every row that is not used."""
        right = Linear((score.right, *self.marker), (1.0, *(0.0 for _ in self.marker)))
        return Score(score.left, right)


@dataclass(frozen=True, kw_only=True)
class Middle:
    """Summed outer products of scores, with the factors of the clusters in them.

    Attributes:
        matrix: Shape (p, p).
        plain: The same without factors, shape (p, p).
        counts: Clusters of each column; empty when rows are independent.
    """

    matrix: Array
    plain: Array
    counts: tuple[int, ...] = ()

    @property
    def n_clusters(self) -> int | None:
        """The smallest number of clusters."""
        return min(self.counts) if self.counts else None


@dataclass(frozen=True, kw_only=True)
class Errors:
    """A covariance and what its t and F references are.

    Attributes:
        covariance: Shape (p, p).
        df: Degrees of freedom; `None`: the normal and chi-square references.
        n_clusters: The smallest number of clusters; `None`: not clustered.
        dfs: Degrees of freedom of each coefficient where they are not `df`, shape (p,); NaN for
            those in `alone`.
        alone: Positions of coefficients that one cluster alone identifies, so that CR2 cannot tell
            their error.
    """

    covariance: Array
    df: float | None
    n_clusters: int | None
    dfs: Array | None = None
    alone: tuple[int, ...] = ()

    def df_of(self, positions: Sequence[int]) -> float | None:
        """Degrees of freedom of a test of some coefficients: the fewest that one of them has."""
        return self.df if self.dfs is None else float(self.dfs[list(positions)].min())

    @property
    def std_errors(self) -> Array:
        """Standard errors, shape (p,); NaN where the variance is negative."""
        variances = np.diag(self.covariance)
        return np.sqrt(np.where(variances > 0, variances, np.nan))

    def wald(self, estimates: Array, positions: Sequence[int]) -> tuple[float, float]:
        """Joint test that some coefficients are zero: F (or chi-square) and p-value.

        With degrees of freedom of each coefficient it is Hotelling's, with the fewest of them.

        Raises:
            InferenceError: The covariance of these coefficients is singular or indefinite, or its
                degrees of freedom are fewer than the coefficients, or unknown.
        """
        at = list(positions)
        block = self.covariance[np.ix_(at, at)]
        if not is_positive(block):
            raise InferenceError("the covariance of the tested coefficients is not positive")
        if set(at) & set(self.alone):
            raise InferenceError("one cluster alone identifies one of the tested coefficients")
        df = self.df_of(at)
        if self.dfs is None or df is None:
            return wald(estimates[at], block, df=df)
        return hotelling(estimates[at], block, df=df)


def middle(
    scores: Sequence[Score], *, errors: ErrorOptions, rows: Rows
) -> Generator[FrameRequest, pd.DataFrame, Middle]:
    """The middle of the sandwich: one pass, or three for two-way clusters.

    Args:
        scores: The p scores.
        errors: Which covariance.
        rows: The rows.

    Raises:
        DataError: A cluster column has nulls in rows of the regression.
        InferenceError: Fewer than two clusters.
    """
    if errors.clusters and rows.n_weightless:
        raise DataError(
            "with clusters every weight must be positive: leave these rows out",
            given=f"{rows.n_weightless} rows with weight 0",
        )
    parts: list[tuple[float, Array, int]] = []
    for size in range(min(1, len(errors.clusters)), len(errors.clusters) + 1):
        for columns in combinations(errors.clusters, size):
            frame = yield MeatRequest(
                scores=(rows.marked(scores[0]), *scores[1:]),
                cluster=columns, weight=rows.weight, absorb=rows.absorb, where=rows.where,
            )  # fmt: skip
            _check_rows(frame, columns, rows)
            matrix, count = meat(frame)
            parts.append((1.0 if size < MIN_CLUSTERS else -1.0, matrix, count))
    counts = tuple(count for _, _, count in parts[: len(errors.clusters)])
    if counts and min(counts) < MIN_CLUSTERS:
        raise InferenceError("clustered errors need two or more clusters", given=min(counts))
    total, plain = np.zeros((2, len(scores), len(scores)))
    for sign, matrix, count in parts:
        plain += sign * matrix
        total += sign * cluster_factor(errors, count, smallest=min(counts, default=0)) * matrix
    return Middle(matrix=total, plain=plain, counts=counts)


def cluster_factor(errors: ErrorOptions, count: int, *, smallest: int) -> float:
    """The factor of one part that depends on its number of clusters."""
    if errors.kind != "CR1" or errors.factor not in {"stata", "min"}:
        return 1.0
    g = smallest if errors.factor == "min" else count
    return g / (g - 1)


def row_factor(errors: ErrorOptions, *, n: int, k: int) -> float:
    """The factor that depends on rows and coefficients."""
    if n <= k:
        raise InferenceError("too few rows for this model", given=f"{n} rows, {k} coefficients")
    if errors.kind == "HC1" or (errors.kind == "CR1" and errors.factor == "n-k"):
        return n / (n - k)
    if errors.kind == "CR1" and errors.factor in {"stata", "min"}:
        return (n - 1) / (n - k)
    return 1.0


def reference_df(errors: ErrorOptions, *, n_clusters: int | None, df_resid: float) -> float | None:
    """Degrees of freedom of the t reference; `None`: normal."""
    if errors.reference == "normal":
        return None
    return df_resid if n_clusters is None else float(n_clusters - 1)


def check_variances(errors: Errors, names: Sequence[str], *, options: ErrorOptions) -> None:
    """Two-way clustering can give negative variances, which are no errors at all.

    Raises:
        InferenceError: It does here.
    """
    if not options.is_two_way:
        return
    negative = [name for name, v in zip(names, np.diag(errors.covariance), strict=True) if v <= 0]
    if negative:
        raise InferenceError(
            "the two-way clustered variance is negative: too few clusters for two ways",
            given=negative,
            allowed="one column of clusters, that with the fewer clusters",
        )


def is_positive(covariance: Array) -> bool:
    """Whether a covariance has no negative variance in any direction, beyond rounding."""
    variances = np.diag(covariance)
    if (variances <= 0).any():
        return False
    scale = 1.0 / np.sqrt(variances)
    return bool(np.linalg.eigvalsh(covariance * np.outer(scale, scale))[0] > EIGEN_FLOOR)


def _check_rows(frame: pd.DataFrame, columns: Sequence[str], rows: Rows) -> None:
    used, expected = int(frame["n"].iloc[0]), rows.n + rows.n_weightless
    if used < expected and columns:
        raise DataError(
            f"{' or '.join(columns)} is null in some rows of the regression",
            given=f"{expected - used} rows",
        )
    if used != expected:
        raise InferenceError("the passes saw different rows", given=f"{used} and {expected}")
