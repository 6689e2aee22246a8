"""Probabilities that a sequence of z statistics leaves a region at a given look.

With information fractions t and drift d (the mean of z at fraction 1), the scores x = z sqrt(t) are
a Brownian motion with drift d looked at in t (Scharfstein, Tsiatis and Robins 1997). The
sub-density of the score among experiments still running is carried from look to look by numerical
integration (Armitage, McPherson and Rowe 1969; Jennison and Turnbull 2000, chapter 19), here with
Gauss-Legendre panels narrower than the increments, so that probabilities are right to about 1e-10.
"""

from dataclasses import dataclass

import numpy as np

from causal.core.gram import Array

Interval = tuple[float, float]

_REACH = 9.0
_PANEL = 1.5
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_MAX_CELLS = 1_000_000
_NARROW = 0.3
_SQRT_2PI = float(np.sqrt(2 * np.pi))


@dataclass(frozen=True)
class Running:
    """Experiments that still run after a look, by their score.

    Attributes:
        fraction: Information fraction of the look.
        scores: Grid of scores, shape (m,).
        masses: Probability carried by each grid point, shape (m,).
    """

    fraction: float
    scores: Array
    masses: Array

    @property
    def probability(self) -> float:
        """Probability that the experiment still runs."""
        return float(self.masses.sum())


START = Running(0.0, np.zeros(1), np.ones(1))
"""Before the first look: score zero, no information."""


def above(running: Running, z: Array | float, *, fraction: float, drift: float) -> Array:
    """Probability to run until the look at `fraction` and to find a statistic above z there.

    Args:
        running: The experiments that ran on after the look before.
        z: Critical values, any shape.
        fraction: Information fraction of the look.
        drift: Mean of z at fraction 1.

    Returns:
        The shape of `z`.
    """
    return _tail(running, z, fraction=fraction, drift=drift, sign=1.0)


def below(running: Running, z: Array | float, *, fraction: float, drift: float) -> Array:
    """Probability to run until the look at `fraction` and to find a statistic below z there."""
    return _tail(running, z, fraction=fraction, drift=drift, sign=-1.0)


def advance(
    running: Running,
    go_on: tuple[Interval, ...],
    *,
    fraction: float,
    next_fraction: float,
    drift: float,
) -> Running:
    """The experiments that run on after one more look.

    Args:
        running: Those that ran on after the look before.
        go_on: Intervals of z in which they go on.
        fraction: Information fraction of this look.
        next_fraction: Information fraction of the next one; it sets the width of the panels.
        drift: Mean of z at fraction 1.
    """
    step = fraction - running.fraction
    width = _PANEL * np.sqrt(min(step, next_fraction - fraction))
    root = np.sqrt(fraction)
    reach = (drift * fraction - _REACH * root, drift * fraction + _REACH * root)
    parts = [
        _panels(max(low * root, reach[0]), min(high * root, reach[1]), width) for low, high in go_on
    ]
    scores = np.concatenate([points for points, _ in parts])
    weights = np.concatenate([weight for _, weight in parts])
    density = _density(running, scores - drift * step, np.sqrt(step))
    return Running(fraction, scores, density * weights)


def _density(running: Running, scores: Array, spread: float) -> Array:
    """Density of the next score at given points, in blocks so that memory stays bounded.

    Only scores within reach of a point count for it; when looks are close together that is a
    narrow band of them.
    """
    size = len(running.scores)
    first = np.searchsorted(running.scores, scores - _REACH * spread)
    end = np.searchsorted(running.scores, scores + _REACH * spread)
    band = np.arange(max(1, int((end - first).max(initial=0))))
    if len(band) > _NARROW * size:
        first, band = np.zeros_like(first), np.arange(size)
    padded = np.concatenate([running.scores, np.full(len(band), np.inf)])
    masses = np.concatenate([running.masses, np.zeros(len(band))])
    out = np.empty(len(scores))
    block = max(1, _MAX_CELLS // max(1, len(band)))
    for low in range(0, len(scores), block):
        rows = slice(low, low + block)
        if len(band) == size:
            away = (scores[rows, None] - running.scores[None, :]) / spread
            out[rows] = np.exp(-0.5 * away * away) @ running.masses
        else:
            at = first[rows, None] + band
            away = (scores[rows, None] - padded[at]) / spread
            out[rows] = (np.exp(-0.5 * away * away) * masses[at]).sum(axis=1)
    return out / (_SQRT_2PI * spread)


def _tail(
    running: Running, z: Array | float, *, fraction: float, drift: float, sign: float
) -> Array:
    from scipy import special

    step = fraction - running.fraction
    limits = np.asarray(z, dtype=np.float64) * np.sqrt(fraction)
    away = (limits[..., None] - running.scores - drift * step) / np.sqrt(step)
    return np.asarray(special.ndtr(-sign * away) @ running.masses)


def _panels(low: float, high: float, width: float) -> tuple[Array, Array]:
    """Gauss-Legendre points and weights on panels of at most `width`."""
    if not high > low:
        return np.zeros(0), np.zeros(0)
    edges = np.linspace(low, high, int(np.ceil((high - low) / width)) + 1)
    half = (edges[1] - edges[0]) / 2
    points = (edges[:-1, None] + half + half * _NODES[None, :]).ravel()
    return points, np.tile(half * _WEIGHTS, len(edges) - 1)
