"""Customers drawn from the purchase models' own processes."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
History = tuple[Array, Array, Array]
Rng = np.random.Generator


def bg_nbd(rng: Rng, theta: Array, age: Array) -> History:
    """Poisson purchases; after each one a customer may leave."""
    r, alpha, a, b = theta
    n = len(age)
    rate, leave = rng.gamma(r, 1 / alpha, n), rng.beta(a, b, n)
    frequency, recency, time = np.zeros(n), np.zeros(n), np.zeros(n)
    here = np.ones(n, dtype=bool)
    while here.any():
        time = time + rng.exponential(1 / rate.clip(1e-300))
        here &= time <= age
        recency = np.where(here, time, recency)
        frequency += here
        here &= rng.random(n) > leave
    return frequency, recency, age


def pareto_nbd(rng: Rng, theta: Array, age: Array) -> History:
    """Poisson purchases until an exponential time of leaving."""
    r, alpha, s, beta = theta
    n = len(age)
    rate, leave = rng.gamma(r, 1 / alpha, n), rng.gamma(s, 1 / beta, n)
    lived = np.minimum(rng.exponential(1 / leave.clip(1e-300)), age)
    frequency = rng.poisson(rate * lived).astype(np.float64)
    # The last of x uniform times.
    last = lived * rng.random(n) ** (1 / frequency.clip(1))
    return frequency, np.where(frequency > 0, last, 0.0), age


def bg_bb(rng: Rng, theta: Array, age: Array) -> History:
    """At each opportunity a customer may have left, and otherwise may buy."""
    alpha, beta, gamma, delta = theta
    n = len(age)
    buy, leave = rng.beta(alpha, beta, n), rng.beta(gamma, delta, n)
    frequency, recency = np.zeros(n), np.zeros(n)
    here = np.ones(n, dtype=bool)
    for k in range(1, int(age.max()) + 1):
        here &= (rng.random(n) > leave) & (k <= age)
        buys = here & (rng.random(n) < buy)
        frequency += buys
        recency = np.where(buys, float(k), recency)
    return frequency, recency, age


def spend(rng: Rng, theta: Array, frequency: Array) -> Array:
    """Mean spend over each customer's purchases."""
    p, q, gamma = theta
    return rng.gamma(p * frequency) / frequency / rng.gamma(q, 1 / gamma, len(frequency))


WORLDS: Mapping[str, Callable[[Rng, Array, Array], History]] = {
    "bg_nbd": bg_nbd,
    "pareto_nbd": pareto_nbd,
    "bg_bb": bg_bb,
}
