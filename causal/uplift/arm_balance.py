"""Do the features tell the arms apart? In a randomised trial they cannot; elsewhere only a little.

A feature that knows the treatment (a flag that is set with it, a date that only the treated have)
trains learners on rows that have no counterpart in the other arms, and their scores extrapolate.
"""

import numpy as np

from causal.core.gram import Array
from causal.core.result import Diagnostic
from causal.uplift.learners import Codes

ALPHA = 0.001
DRAWS = 4999
_CELLS = 4_000_000
"""Rows times permutations that are worked on at once."""
_RANK = 1e-9
_TIE = 1e-9
_MAX_WITHOUT = 0.05
_FOLDS = 5
_PENALTIES = (1e-4, 1e-2, 1.0, 1e2)
"""Prior variances of the coefficients of standardised features."""


def check_randomised(features: Array, arms: Codes, *, seed: int) -> Diagnostic:
    """Pillai's trace of the features' means by arm: chi-square, confirmed by permutations.

    n tr(T^-1 B), with T the features' cross-products around their mean and B those of the arms'
    means, has in large samples p (a - 1) degrees of freedom if every row had the same chances of
    the a arms. With skewed features and a small arm it exceeds them too often, so a p-value below
    `ALPHA` is replaced by that of permuted arms, which is exact.

    Args:
        features: Shape (n, p); p is counted without what is constant or collinear.
        arms: Arm of each row, shape (n,); clusters were not assigned.
        seed: Of the permutations.
    """
    from scipy import special

    white = whitened(features)
    statistic = float(_distances(white, arms[None, :])[0])
    df = white.shape[1] * int(arms.max())
    pvalue = float(special.chdtrc(df, statistic)) if df else 1.0
    detail = f"chi-square with {df} degrees of freedom, p = {pvalue:.3g}"
    if pvalue < ALPHA:
        pvalue = permuted_pvalue(white, arms, seed=seed)
        detail += f"; of {DRAWS:,} permutations of the arms, p = {pvalue:.3g}"
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
        detail=f"{verdict}; {detail}",
    )


def whitened(features: Array) -> Array:
    """Features with mean 0, variance 1 and no correlation, shape (n, rank).

    Args:
        features: Shape (n, p); what is constant or collinear is left out.
    """
    centred = features - features.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    scaled = centred[:, spread > _RANK * np.abs(features).max(axis=0)]
    scaled = scaled / np.sqrt((scaled**2).mean(axis=0))
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    kept = values > _RANK * max(values.max(initial=0.0), 1.0)
    return np.asarray(scaled @ vectors[:, kept] / np.sqrt(values[kept]))


def permuted_pvalue(white: Array, arms: Codes, *, seed: int) -> float:
    """Share of permuted arms that are as far apart as the arms are: (1 + those) / (1 + draws).

    Args:
        white: Whitened features, shape (n, q).
        arms: Arm of each row, shape (n,).
        seed: Of the permutations.
    """
    rng = np.random.default_rng(seed)
    least = (1.0 - _TIE) * _distances(white, arms[None, :])[0]
    at_once = max(1, _CELLS // len(arms))
    n_as_far = 0
    for start in range(0, DRAWS, at_once):
        rows = np.tile(arms, (min(at_once, DRAWS - start), 1))
        n_as_far += int((_distances(white, rng.permuted(rows, axis=1)) >= least).sum())
    return (1 + n_as_far) / (1 + DRAWS)


def _distances(white: Array, arms: Codes) -> Array:
    """Pillai's trace times n for each row of `arms`, shape (m, n), all with the same counts."""
    counts = np.bincount(arms[0])
    treated = [(arms == arm).astype(np.float64) @ white for arm in range(1, len(counts))]
    control = -np.sum(treated, axis=0)  # all sums are 0
    squares = [(sums**2).sum(axis=1) for sums in (control, *treated)]
    return np.asarray(np.column_stack(squares) @ (1.0 / counts))


def check_overlap(
    features: Array, arms: Codes, *, weights: Array, least: float, seed: int
) -> Diagnostic:
    """Share of rows that could hardly have been in some arm.

    Their chances are those of a logistic regression on the other folds, with the ridge penalty
    whose held-out likelihood is largest: a flexible classifier finds chances near 0 in noise, on
    the rows that it was trained on and on others. What only curves and interactions of the
    features tell is not seen.

    Args:
        features: Shape (n, p).
        arms: Arm of each row, shape (n,); every arm has at least as many rows as there are folds.
        weights: Rows of the population that a row of each arm stands for, shape (a,).
        least: Chances below it count as it.
        seed: Of the folds.
    """
    share = float((_held_out_chances(features, arms, weights, seed).min(axis=1) < least).mean())
    passed = share <= _MAX_WITHOUT
    verdict = "" if passed else ": their effects are guessed from other rows"
    return Diagnostic(
        name="overlap",
        statistic=share,
        pvalue=None,
        passed=passed,
        detail=f"{share:.1%} of the training rows have a chance below {least:g} of some arm, by a "
        f"logistic regression on other rows{verdict}",
    )


def _held_out_chances(features: Array, arms: Codes, weights: Array, seed: int) -> Array:
    """Chance of every arm in every row, by fits on the other folds, shape (n, a)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    by_arm = weights / weights[arms].mean()
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)

    def chances(penalty: float) -> Array:
        model = LogisticRegression(C=penalty, class_weight=dict(enumerate(by_arm)), max_iter=1000)
        scaled = make_pipeline(StandardScaler(), model)
        found = cross_val_predict(scaled, features, arms, cv=folds, method="predict_proba")
        return np.asarray(found, dtype=np.float64)

    return min(
        map(chances, _PENALTIES),
        key=lambda found: float(log_loss(arms, found, sample_weight=by_arm[arms])),
    )
