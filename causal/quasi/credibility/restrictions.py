r"""Sets of trends, as moment inequalities whose largest violation has a closed form.

A restriction says of each period after the reference that a difference D_t of the trend is at most
a bound, `|D_t' delta| <= r' delta + d`. Relative magnitudes: first differences, at most Mbar times
the one between two given periods before the reference (the union over all such pairs and signs is
the set). Smoothness: second differences, at most M.

With delta = b - (0, tau) and `l' tau = theta` the smallest studentised violation over the other
effects is the largest of a few linear functions of the estimates, one for each corner of the dual
linear programme. As many differences as periods after the reference make that programme solvable
by hand: the multipliers of the upper and lower bounds differ by a multiple of w, where
`D_post' w = l`, so that the corners are that multiple positive, negative, or zero with both bounds
of one period. Andrews, Roth and Pakes (2023), "Inference for linear conditional moment
inequalities", Review of Economic Studies 90; Rambachan and Roth (2023), section 3.
"""

from dataclasses import dataclass

import numpy as np

from causal.core.gram import Array
from causal.quasi.credibility.event_path import EventPath


@dataclass(frozen=True, kw_only=True)
class Violations:
    """Linear functions `slopes @ b - constants - theta * shifts` whose largest is the statistic.

    None is above zero in expectation where theta is possible.

    Attributes:
        slopes: Shape (V, n).
        constants: Shape (V,).
        shifts: Shape (V,).
        has_nuisance: Whether effects other than theta were eliminated.
    """

    slopes: Array
    constants: Array
    shifts: Array
    has_nuisance: bool


def relative_magnitudes(path: EventPath, weights: Array, bound: float) -> list[Violations]:
    """Breaks after the reference at most `bound` times the largest one before it.

    Args:
        path: The event study.
        weights: Weights of the quantity of interest, shape (n_post,).
        bound: Mbar, not negative.

    Returns:
        One member of the union for each pair of periods before the reference and each sign.
    """
    breaks = differences(path, order=1)
    before, after = breaks[: path.n_pre], breaks[path.n_pre :]
    return [
        _violations(path, weights, after, bound * sign * largest, 0.0)
        for largest in before
        for sign in (1.0, -1.0)
    ]


def smoothness(path: EventPath, weights: Array, bound: float) -> list[Violations]:
    """Changes of slope at most `bound`, before the reference as after it.

    As in R's `HonestDiD`, bends that lie before the reference wholly are used as moments only where
    there is one period after it.

    Args:
        path: The event study.
        weights: Weights of the quantity of interest, shape (n_post,).
        bound: M, not negative.
    """
    bends = differences(path, order=2)
    before, after = bends[: path.n_pre - 1], bends[path.n_pre - 1 :]
    found = _violations(path, weights, after, np.zeros(after.shape[1]), bound)
    if path.n_post > 1 or len(before) == 0:
        return [found]
    errors = np.sqrt(np.einsum("ij,jk,ik->i", before, path.covariance, before))
    rows = before / errors[:, None]
    return [
        Violations(
            slopes=np.vstack([found.slopes, rows, -rows]),
            constants=np.concatenate([found.constants, np.tile(bound / errors, 2)]),
            shifts=np.concatenate([found.shifts, np.zeros(2 * len(rows))]),
            has_nuisance=False,
        )
    ]


def differences(path: EventPath, *, order: int) -> Array:
    """Differences of neighbouring periods in order of time, the reference counting as zero."""
    rows = np.diff(np.eye(len(path.times) + 1), n=order, axis=0)
    return np.asarray(np.delete(rows, path.n_pre, axis=1), dtype=np.float64)


def _violations(
    path: EventPath, weights: Array, after: Array, largest: Array, constant: float
) -> Violations:
    """The corners for bounds `|after @ delta| <= largest @ delta + constant`.

    Args:
        path: The event study.
        weights: Weights of the quantity of interest, shape (n_post,).
        after: Differences, shape (n_post, n).
        largest: What bounds them, shape (n,).
        constant: What is added to the bound.
    """
    mixed = np.linalg.solve(after[:, path.n_pre :].T, weights)
    above, below = _errors(after - largest, path), _errors(-after - largest, path)
    corners = []
    for sign in (1.0, -1.0):
        up, down = np.clip(sign * mixed, 0.0, None), np.clip(-sign * mixed, 0.0, None)
        size = float(up @ above + down @ below)
        total = float((up + down).sum())
        slope = sign * (mixed @ after) - total * largest
        corners.append((slope / size, total * constant / size, sign / size))
    if path.n_post > 1:
        sizes = above + below
        corners += [(-2.0 * largest / size, 2.0 * constant / size, 0.0) for size in sizes]
    slopes, constants, shifts = zip(*corners, strict=True)
    return Violations(
        slopes=np.array(slopes), constants=np.array(constants), shifts=np.array(shifts),
        has_nuisance=path.n_post > 1,
    )  # fmt: skip


def _errors(rows: Array, path: EventPath) -> Array:
    return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", rows, path.covariance, rows)))
