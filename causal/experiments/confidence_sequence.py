"""Always-valid inference: intervals and p-values that hold at every look, however many there are.

The evidence against a null value is a likelihood ratio of normal estimates mixed over possible
effects, `effect ~ N(null, m)`; without an effect it is a non-negative martingale that starts at
one, so it ever reaches 1/alpha with probability at most alpha (Ville 1939). It is one and the same
test under two names: the mixture sequential probability ratio test (Johari, Koomen, Pekelis and
Walsh 2022, "Always valid inference"), where `m` is the variance of effects one expects, and the
asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform
central limit theory and asymptotic confidence sequences"; Howard, Ramdas, McAuliffe and Sekhon
2021), where `m` makes the interval narrowest at a chosen amount of information.

Everything depends on the look's z statistic and on `ratio`, the mixing variance over the variance
of the estimate. Validity is that of the central limit theorem at the first look.
"""

import numpy as np

from causal.core.gram import Array

_TOLERANCE = 1e-12
_MAX_Z = 1e3


def tuning(*, alpha: float, is_two_sided: bool) -> float:
    """`ratio` at the look where the interval is to be narrowest, relative to its fixed one.

    The mixing variance is this number times the variance of the estimate at that look; the closed
    form is by the branch -1 of Lambert's W (Howard et al. 2021). A one-sided
    boundary is tuned as a two-sided one of twice the level.

    Args:
        alpha: Level of the test.
        is_two_sided: Whether effects of both signs count.
    """
    from scipy import special

    level = alpha if is_two_sided else min(2 * alpha, 1.0 - 1e-9)
    return float(-special.lambertw(-(level**2) / np.e, k=-1).real - 1.0)


def log_evalue(z: Array, ratio: Array, *, is_two_sided: bool) -> Array:
    """Logarithm of the mixture likelihood ratio, an e-process.

    Args:
        z: Estimates less the null value, in standard errors, shape (K,).
        ratio: Mixing variance over the variance of each estimate, shape (K,).
        is_two_sided: `False` mixes over positive effects only, against all effects up to zero.
    """
    from scipy import special

    weight = ratio / (1.0 + ratio)
    both = 0.5 * (z * z * weight - np.log1p(ratio))
    if is_two_sided:
        return np.asarray(both)
    return np.asarray(both + np.log(2.0) + special.log_ndtr(z * np.sqrt(weight)))


def always_valid_pvalues(log_evalues: Array) -> Array:
    """p-values by look: the smallest reciprocal e-value so far, at most 1; shape (K,)."""
    return np.asarray(np.exp(-np.maximum(np.maximum.accumulate(log_evalues), 0.0)))


def radius(ratio: Array, *, alpha: float, is_two_sided: bool) -> Array:
    """Half-width of the confidence sequence, in standard errors of each look, shape (K,).

    Two-sided: `sqrt((1 + 1/r) log((1 + r) / alpha^2))` with r the ratio (Waudby-Smith et
    al. 2024). One-sided: the z at which the e-value is `1 / alpha`.
    """
    if is_two_sided:
        return np.asarray(np.sqrt((1.0 + 1.0 / ratio) * (np.log1p(ratio) - 2.0 * np.log(alpha))))
    return np.array([_one_sided_radius(float(r), alpha) for r in np.atleast_1d(ratio)])


def _one_sided_radius(ratio: float, alpha: float) -> float:
    from scipy import optimize

    wanted = -float(np.log(alpha))

    def excess(z: float) -> float:
        found = log_evalue(np.array(z), np.array(ratio), is_two_sided=False)
        return float(found) - wanted

    high = float(radius(np.array(ratio), alpha=alpha / 2, is_two_sided=True)) + 1.0
    return float(optimize.brentq(excess, -_MAX_Z, high, xtol=_TOLERANCE))
