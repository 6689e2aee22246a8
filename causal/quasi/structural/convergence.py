"""Whether chains have forgotten where they started, and how many independent draws they are worth.

Split R-hat and effective sample size as in Gelman et al. (2013), section 11.4 and 11.5.
"""

import numpy as np

from causal.core.gram import Array

_MIN_DRAWS = 4


def split_rhat(draws: Array) -> float:
    """Potential scale reduction over the halves of the chains; 1 where they agree.

    Args:
        draws: Shape (C, S).
    """
    halves = _halves(draws)
    n = halves.shape[1]
    within = float(halves.var(axis=1, ddof=1).mean())
    between = float(halves.mean(axis=1).var(ddof=1))
    if within == 0.0:
        return 1.0 if between == 0.0 else float("inf")
    return float(np.sqrt((n - 1) / n + between / within))


def effective_size(draws: Array) -> float:
    """Independent draws that give the mean as exactly, at most the number of draws.

    Autocorrelations are summed while those of neighbouring lags are positive together (Geyer 1992).

    Args:
        draws: Shape (C, S).
    """
    halves = _halves(draws)
    n_chains, n = halves.shape
    within = float(halves.var(axis=1, ddof=1).mean())
    between = float(halves.mean(axis=1).var(ddof=1))
    total = within * (n - 1) / n + between
    if total == 0.0:
        return float(n_chains * n)
    covariances = np.mean([_autocovariances(chain) for chain in halves], axis=0)
    correlations = 1.0 - (within - covariances * n / (n - 1)) / total
    correlations[0] = 1.0
    pairs = correlations[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    pairs = np.minimum.accumulate(pairs[: negative[0] if len(negative) else len(pairs)])
    time = max(2.0 * float(pairs.sum()) - 1.0, 1.0)
    return float(n_chains * n / time)


def _halves(draws: Array) -> Array:
    n_chains, n = draws.shape
    if n < _MIN_DRAWS:
        raise ValueError(f"{n} draws are too few")
    half = n // 2
    return draws[:, : 2 * half].reshape(2 * n_chains, half)


def _autocovariances(chain: Array) -> Array:
    """By lag, shape (S,), with the divisor S."""
    n = len(chain)
    spectrum = np.fft.rfft(chain - chain.mean(), 2 * n)
    return np.asarray(np.fft.irfft(spectrum * np.conj(spectrum), 2 * n)[:n] / n)
