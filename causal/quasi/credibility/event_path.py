"""What the checks of an event study start from: its estimates around one reference period."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.errors import DataError, InferenceError, SpecError
from causal.core.gram import Array

_FLAT = 1e-10
"""Eigenvalues of the correlation matrix below this share of the largest are rounding."""


@dataclass(frozen=True, kw_only=True)
class EventPath:
    """Estimates of an event study, the reference period (zero by definition) left out.

    Attributes:
        times: Event times in ascending order without a gap but the reference, shape (n,).
        reference: Event time of the reference period.
        estimates: Shape (n,).
        covariance: Shape (n, n).
    """

    times: Array
    reference: int
    estimates: Array
    covariance: Array

    def __post_init__(self) -> None:
        """Check shapes, spacing and the covariance.

        Raises:
            DataError: Event times are missing, or none lies on one side of the reference.
            InferenceError: The covariance is not symmetric and positive definite.
        """
        n = len(self.times)
        if self.estimates.shape != (n,) or self.covariance.shape != (n, n):
            raise InferenceError(
                "event times, estimates and covariance do not go together",
                given=f"shapes {(n,)}, {self.estimates.shape}, {self.covariance.shape}",
            )
        whole = np.append(self.times[self.times < self.reference], self.reference)
        whole = np.append(whole, self.times[self.times > self.reference])
        if len(whole) != n + 1 or (np.diff(whole) != 1).any():
            raise DataError(
                "sensitivity to trends needs every event time between the first and the last",
                given=f"event times {', '.join(f'{time:g}' for time in self.times)}, "
                f"reference {self.reference}",
            )
        if self.n_pre == 0 or self.n_post == 0:
            raise DataError(
                "sensitivity to trends needs an event time before the reference period and one "
                "after it",
                given=f"{self.n_pre} before, {self.n_post} after",
            )
        _check_covariance(self.covariance)

    @property
    def n_pre(self) -> int:
        """Event times before the reference."""
        return int((self.times < self.reference).sum())

    @property
    def n_post(self) -> int:
        """Event times after the reference."""
        return len(self.times) - self.n_pre

    @property
    def distance(self) -> Array:
        """Periods since the reference, shape (n,)."""
        return np.asarray(self.times - self.reference, dtype=np.float64)

    def weights(self, parameter: int | str) -> Array:
        """Weights of the estimates after the reference in a quantity of interest, shape (n_post,).

        Args:
            parameter: An event time, or `average`: the mean over event times from 0 on.

        Raises:
            SpecError: There is no such event time.
        """
        post = self.times[self.n_pre :]
        chosen = post >= 0 if parameter == "average" else post == parameter
        if not chosen.any():
            raise SpecError(
                "the parameter of a sensitivity analysis is an event time after the reference",
                given=parameter,
                allowed=["average", *(f"{time:g}" for time in post)],
            )
        return np.asarray(chosen / chosen.sum(), dtype=np.float64)


def event_path(
    betahat: Sequence[float] | Array, sigma: Array, *, n_pre: int, n_post: int
) -> EventPath:
    """A path from plain arrays: `n_pre` periods before the reference, then `n_post` after it.

    Event times are numbered so that the reference is -1 and the first period after it 0.

    Args:
        betahat: Estimates in order of time without the reference, shape (n_pre + n_post,).
        sigma: Their covariance.
        n_pre: Estimates before the reference.
        n_post: Estimates after it.
    """
    times = np.array([*range(-1 - n_pre, -1), *range(n_post)], dtype=np.float64)
    return EventPath(
        times=times,
        reference=-1,
        estimates=np.asarray(betahat, dtype=np.float64),
        covariance=np.asarray(sigma, dtype=np.float64),
    )


def _check_covariance(covariance: Array) -> None:
    variances = np.diag(covariance)
    if not np.isfinite(covariance).all() or (variances <= 0).any():
        raise InferenceError("an event time has no variance: trends cannot be bounded")
    scale = np.sqrt(np.outer(variances, variances))
    if np.abs(covariance - covariance.T).max() > 1e-8 * scale.max():
        raise InferenceError("the covariance of the event study is not symmetric")
    roots = np.linalg.eigvalsh(covariance / scale)
    if roots[0] <= _FLAT * roots[-1]:
        raise InferenceError(
            "the covariance of the event study is singular (more event times than clusters?): "
            "trends cannot be bounded",
            given=f"{len(covariance)} event times, smallest eigenvalue {roots[0]:.2g}",
        )
