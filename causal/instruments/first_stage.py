"""First stage and reduced form: what the instruments do to treatments and outcome.

With `Z` the q instruments net of the covariates, `v` the residuals of outcome and treatments on
all instruments, everything about identification follows from `Z'Z`, `Z'y`, `Z'X` and the covariance
of `(Z'v_y, Z'v_x)`: first-stage F, the effective F of Montiel Olea and Pflueger (2013, "A robust
test for weak instruments"), and the test of Anderson and Rubin (1949).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from causal.core.cross_products import inverse
from causal.core.errors import InferenceError
from causal.core.frames import Score, Term
from causal.core.gram import Array
from causal.regression.equation import Moments

WEAKEST = 1e-10
"""Share of the treatments' variation (in the worst direction) below which nothing is identified."""
BIASES = (0.05, 0.10, 0.20)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Net instruments and what they explain.

    Attributes:
        instruments: The q instruments.
        treatments: The m treatments.
        cross: `Z'Z` of the instruments net of the covariates, shape (q, q).
        on_outcome: `Z'y`, shape (q,).
        on_treatments: `Z'X`, shape (q, m).
        residual: Cross-products of the residuals of (outcome, treatments), shape (1 + m, 1 + m).
        net: Cross-products of the treatments net of the covariates, shape (m, m).
        k: Coefficients of one equation of the stage, absorbed effects not counted.
    """

    instruments: tuple[Term, ...]
    treatments: tuple[Term, ...]
    cross: Array
    on_outcome: Array
    on_treatments: Array
    residual: Array
    net: Array
    k: int

    @property
    def q(self) -> int:
        """Number of instruments."""
        return len(self.instruments)

    @property
    def m(self) -> int:
        """Number of treatments."""
        return len(self.treatments)

    def coefficients(self, column: int) -> Array:
        """Coefficients of the instruments: column 0 is the reduced form, then the treatments."""
        right = self.on_outcome if column == 0 else self.on_treatments[:, column - 1]
        return np.asarray(np.linalg.solve(self.cross, right), dtype=np.float64)

    def classical(self, *, divisor: float) -> Array:
        """Covariance of (Z'v_y, Z'v_x) under independent errors of equal variance."""
        return np.asarray(np.kron(self.residual / divisor, self.cross), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Strength:
    """The strength of the instruments for one treatment.

    Attributes:
        effective_f: The effective F.
        critical_values: Its critical values at 5 % size by the share of the worst-case bias that
            is tolerated.
    """

    effective_f: float
    critical_values: dict[float, float]


def stage_of(
    moments: Moments,
    *,
    outcome: Term,
    treatments: Sequence[Term],
    controls: Sequence[Term],
    instruments: Sequence[Term],
) -> Stage:
    """First stage and reduced form from moments.

    Raises:
        InferenceError: The instruments do not identify the treatments.
    """
    names = [*instruments, outcome, *treatments]
    net = moments.net(names, controls)
    q, m = len(instruments), len(treatments)
    cross = net[:q, :q]
    explained = net[q:, :q] @ inverse(cross, instruments) @ net[:q, q:]
    own = net[q + 1 :, q + 1 :]
    scale = 1.0 / np.sqrt(np.diag(own))
    shares = linalg.eigh(
        explained[1:, 1:] * np.outer(scale, scale), own * np.outer(scale, scale), eigvals_only=True
    )
    if shares[0] < WEAKEST:
        raise InferenceError(
            "not identified: the instruments do not move the treatment"
            + ("" if m == 1 else "s separately"),
            given=f"share of variation explained {max(float(shares[0]), 0.0):.2g}",
        )
    return Stage(
        instruments=tuple(instruments), treatments=tuple(treatments), cross=cross,
        on_outcome=net[:q, q], on_treatments=net[:q, q + 1 :], residual=net[q:, q:] - explained,
        net=own, k=(1 if moments.has_intercept else 0) + len(controls) + q,
    )  # fmt: skip


def stage_scores(
    moments: Moments,
    stage: Stage,
    *,
    outcome: Term,
    controls: Sequence[Term],
) -> tuple[Score, ...]:
    """Scores of (Z'v_y, Z'v_x), the outcome's first, shape (q (1 + m),)."""
    every = (*stage.instruments, *controls)
    on_controls = moments.regression(stage.instruments, controls)
    lefts = [
        moments.combined(every, np.concatenate([np.eye(stage.q)[j], -on_controls[:, j]]))
        for j in range(stage.q)
    ]
    explained = (outcome, *stage.treatments)
    slopes = moments.regression(explained, every)
    rights = [
        moments.combined((target, *every), np.concatenate([[1.0], -slopes[:, j]]))
        for j, target in enumerate(explained)
    ]
    return tuple(Score(left, right) for right in rights for left in lefts)


def stage_block(stage: Stage, covariance: Array, row: int, column: int) -> Array:
    """The (q, q) block of two equations in the covariance of (Z'v_y, Z'v_x)."""
    q = stage.q
    return covariance[row * q : (row + 1) * q, column * q : (column + 1) * q]


def coefficient_covariance(stage: Stage, covariance: Array, column: int) -> Array:
    """Covariance of the coefficients of one equation, shape (q, q)."""
    inner = np.linalg.inv(stage.cross)
    return np.asarray(
        inner @ stage_block(stage, covariance, column, column) @ inner, dtype=np.float64
    )


def wald_f(stage: Stage, covariance: Array, column: int) -> float:
    """F statistic that no instrument enters one equation.

    Raises:
        InferenceError: The covariance is singular: fewer clusters than instruments, say.
    """
    right = stage.on_outcome if column == 0 else stage.on_treatments[:, column - 1]
    block = stage_block(stage, covariance, column, column)
    return float(right @ solved(block, right)) / stage.q


def strength(stage: Stage, covariance: Array, *, size: float = 0.05) -> Strength:
    """The effective F of one treatment and its critical values.

    The critical values are the simplified ones, which bound the bias whatever the other errors
    are: with `W` the covariance of the first stage in instruments of unit cross-product and a
    tolerance tau, `x = 1 / tau`, they are the upper `size` quantile of a noncentral chi-square with
    `K = tr(W)^2 (1 + 2x) / (tr(W'W) + 2 x tr(W) max eig(W))` degrees of freedom and noncentrality
    `K x`, over `K` (Montiel Olea and Pflueger 2013, section 3.1.2).

    Args:
        stage: A stage with one treatment.
        covariance: Covariance of (Z'v_y, Z'v_x).
        size: Size of the test.
    """
    from scipy import stats

    lower = np.linalg.cholesky(stage.cross)
    half = linalg.solve_triangular(lower, stage_block(stage, covariance, 1, 1), lower=True)
    w = linalg.solve_triangular(lower, half.T, lower=True)
    w = (w + w.T) / 2
    reached = linalg.solve_triangular(lower, stage.on_treatments[:, 0], lower=True)
    trace, top = float(np.trace(w)), float(np.linalg.eigvalsh(w)[-1])
    if trace <= 0:
        raise InferenceError("the covariance of the first stage is not positive")
    values = {}
    for bias in BIASES:
        x = 1.0 / bias
        k = trace**2 * (1 + 2 * x) / (float(np.sum(w * w)) + 2 * x * trace * top)
        values[bias] = float(stats.ncx2.ppf(1 - size, k, k * x) / k)
    return Strength(effective_f=float(reached @ reached) / trace, critical_values=values)


def canonical_shares(stage: Stage) -> Array:
    """Squared canonical correlations of net treatments and instruments, ascending, shape (m,)."""
    explained = stage.on_treatments.T @ np.linalg.solve(stage.cross, stage.on_treatments)
    scale = 1.0 / np.sqrt(np.diag(stage.net))
    found = linalg.eigh(
        explained * np.outer(scale, scale), stage.net * np.outer(scale, scale), eigvals_only=True
    )
    return np.asarray(np.clip(found, 0.0, 1.0), dtype=np.float64)


def solved(matrix: Array, right: Array) -> Array:
    """`matrix^-1 right` for a positive definite matrix on any scale.

    Raises:
        InferenceError: It is not positive definite.
    """
    diagonal = np.diag(matrix)
    if (diagonal <= 0).any():
        raise InferenceError("the covariance of the instruments' moments is not positive")
    scale = 1.0 / np.sqrt(diagonal)
    scaled = matrix * np.outer(scale, scale)
    values = np.linalg.eigvalsh(scaled)
    if values[0] <= len(values) * 1e-12 * values[-1]:
        raise InferenceError(
            "the covariance of the instruments' moments is singular: more instruments than "
            "clusters, say"
        )
    return np.asarray(scale * np.linalg.solve(scaled, scale * right), dtype=np.float64)
