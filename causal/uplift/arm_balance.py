"""Do the features tell the arms apart? In a randomised trial they cannot; elsewhere only a little.

A feature that knows the treatment (a flag that is set with it, a date that only the treated have)
trains learners on rows that have no counterpart in the other arms, and their scores extrapolate.
"""

import numpy as np

from causal.core.gram import Array
from causal.core.result import Diagnostic
from causal.uplift.learners import Codes

ALPHA = 0.001
_RANK = 1e-9
_MAX_WITHOUT = 0.05


def check_randomised(features: Array, arms: Codes) -> Diagnostic:
    """Pillai's trace of the features' means by arm, in large samples: chi-square.

    n tr(T^-1 B), with T the features' cross-products around their mean and B those of the arms'
    means, has p (a - 1) degrees of freedom if every row had the same chances of the a arms.

    Args:
        features: Shape (n, p); p is counted without what is constant or collinear.
        arms: Arm of each row, shape (n,); clusters were not assigned.
    """
    from scipy import special

    centred = features - features.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    scaled = centred[:, spread > _RANK * np.abs(features).max(axis=0)]
    scaled = scaled / np.sqrt((scaled**2).mean(axis=0))
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    kept = values > _RANK * max(values.max(initial=0.0), 1.0)
    white = scaled @ vectors[:, kept] / np.sqrt(values[kept])
    counts = np.bincount(arms)
    means = np.array([white[arms == arm].mean(axis=0) for arm in range(len(counts))])
    statistic = float((counts[:, None] * means**2).sum())
    df = int(kept.sum()) * (len(counts) - 1)
    pvalue = float(special.chdtrc(df, statistic)) if df else 1.0
    passed = pvalue >= ALPHA
    verdict = (
        "the features do not predict the arm"
        if passed
        else "the features predict the arm, so it was not randomised alike for all, or one of them "
        "comes after it: leave that feature out, or propensity: learned"
    )
    return Diagnostic(
        name="randomised",
        statistic=statistic,
        pvalue=pvalue,
        passed=passed,
        detail=f"{verdict}; chi-square with {df} degrees of freedom, p = {pvalue:.3g}",
    )


def check_overlap(chances: Array, *, least: float) -> Diagnostic:
    """Share of rows that could hardly have been in some arm, by the learned chances.

    Args:
        chances: Of every arm in every row, shape (n, a).
        least: Chances below it count as it.
    """
    share = float((chances.min(axis=1) < least).mean())
    passed = share <= _MAX_WITHOUT
    verdict = "" if passed else ": their effects are guessed from other rows"
    return Diagnostic(
        name="overlap",
        statistic=share,
        pvalue=None,
        passed=passed,
        detail=f"{share:.1%} of the training rows have a chance below {least:g} of some arm"
        f"{verdict}",
    )
