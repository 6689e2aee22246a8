"""Points that fill the unit cube evenly: what random numbers do, with less error and no seed."""

import numpy as np

from causal.core.gram import Array


def even_points(n: int, dimension: int) -> Array:
    """Richtmyer's lattice: multiples of square roots of primes modulo one, shape (n, dimension).

    Args:
        n: How many points.
        dimension: Of the cube.
    """
    roots = np.sqrt(np.array(_primes(dimension), dtype=np.float64))
    return np.asarray((np.arange(1, n + 1)[:, None] * roots + 0.5) % 1.0)


def _primes(n: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < n:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found
