"""Sample-ratio mismatch watched continuously: an always-valid test of the arms' unit counts.

The counts so far are multinomial with the planned shares, against shares drawn from a Dirichlet law
around the plan. Their Bayes factor is a martingale when the plan holds, so it ever exceeds
`1 / alpha` with probability at most alpha, at any number of looks (Lindon and Malek 2022,
"Anytime-valid inference for multinomial count data"). Units must be assigned independently of each
other; counts of clustered units vary more than the test allows for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError, SpecError
from causal.core.frames import Level
from causal.core.gram import Array
from causal.core.result import Diagnostic
from causal.experiments.confidence_sequence import always_valid_pvalues

NAME = "sequential_sample_ratio"

CONCENTRATION = 10_000.0
"""Weight of the Dirichlet law: shares half a point off an even split are what it looks for."""

_MIN_ARMS = 2
_SHARE_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class SequentialRatio:
    """The test at every look.

    Attributes:
        levels: The arms.
        shares: Planned shares, shape (k,).
        counts: Cumulative units, shape (K, k).
        log_evalues: Logarithm of the Bayes factor against the plan, shape (K,).
        pvalues: Always-valid p-values, shape (K,).
        alpha: Level of the alarm.
    """

    levels: tuple[Level, ...]
    shares: Array
    counts: Array
    log_evalues: Array
    pvalues: Array
    alpha: float

    @property
    def first_alarm(self) -> int | None:
        """The first look with a p-value of at most alpha, counted from 1."""
        alarms = np.flatnonzero(self.pvalues <= self.alpha)
        return int(alarms[0]) + 1 if len(alarms) else None

    def to_frame(self) -> pd.DataFrame:
        """One row per look: counts of each arm, e-value on the log scale, p-value, alarm."""
        frame = pd.DataFrame(self.counts, columns=[f"n_{level}" for level in self.levels])
        frame.insert(0, "look", np.arange(1, len(frame) + 1))
        frame["log_evalue"] = self.log_evalues
        frame["pvalue"] = self.pvalues
        frame["is_alarm"] = self.pvalues <= self.alpha
        return frame

    def diagnostic(self) -> Diagnostic:
        """The state after the last look as a health check."""
        total = self.counts[-1].sum()
        found = ", ".join(
            f"{level} {n:,.0f} ({n / total:.2%}, planned {share:.2%})"
            for level, n, share in zip(self.levels, self.counts[-1], self.shares, strict=True)
        )
        alarm = self.first_alarm
        if alarm is None:
            verdict = f"no mismatch at any of {len(self.counts)} looks"
        else:
            verdict = f"mismatch since look {alarm}: do not trust the effects"
        pvalue = float(self.pvalues[-1])
        return Diagnostic(
            name=NAME,
            statistic=float(self.log_evalues[-1]),
            pvalue=pvalue,
            passed=alarm is None,
            detail=f"{verdict}; {found}; always-valid p = {pvalue:.3g}, alpha {self.alpha:g}",
        )


def sequential_ratio(
    counts: Mapping[Level, Sequence[int]],
    *,
    shares: Sequence[float],
    alpha: float,
    concentration: float = CONCENTRATION,
) -> SequentialRatio:
    """Test the arms' unit counts at every look.

    Args:
        counts: Cumulative units by variant, one number per look.
        shares: Planned shares in the order of `counts`; they sum to one.
        alpha: Level of the alarm over all looks together.
        concentration: Sum of the parameters of the Dirichlet law around the planned shares.

    Raises:
        SpecError: Shares or concentration are no such numbers.
        DataError: Counts fall from one look to the next, or looks differ between arms.

    Example:
        >>> found = sequential_ratio(
        ...     {"control": [500, 5000, 50000], "treatment": [505, 5100, 51500]},
        ...     shares=(0.5, 0.5),
        ...     alpha=0.001,
        ... )
        >>> found.first_alarm
        3
    """
    levels = tuple(counts)
    planned = _checked_shares(shares, levels)
    if not concentration > 0:
        raise SpecError("concentration must be positive", given=concentration)
    found = _checked_counts(counts)
    log_evalues = log_bayes_factor(found, planned, concentration=concentration)
    return SequentialRatio(
        levels=levels,
        shares=planned,
        counts=found,
        log_evalues=log_evalues,
        pvalues=always_valid_pvalues(log_evalues),
        alpha=alpha,
    )


def log_bayes_factor(counts: Array, shares: Array, *, concentration: float) -> Array:
    """Logarithm of the Dirichlet-multinomial over the multinomial likelihood.

    Args:
        counts: Cumulative units, shape (..., k).
        shares: Planned shares, shape (k,).
        concentration: Sum of the Dirichlet parameters.

    Returns:
        Shape (...).
    """
    from scipy import special

    prior = concentration * shares
    total = counts.sum(axis=-1)
    posterior = special.gammaln(prior + counts) - special.gammaln(prior) - counts * np.log(shares)
    whole = special.gammaln(concentration) - special.gammaln(concentration + total)
    return np.asarray(posterior.sum(axis=-1) + whole)


def _checked_shares(shares: Sequence[float], levels: tuple[Level, ...]) -> Array:
    planned = np.asarray(shares, dtype=np.float64)
    if len(levels) < _MIN_ARMS or planned.shape != (len(levels),):
        raise SpecError(
            "give one planned share for each of two or more arms", given=shares, allowed=levels
        )
    if not (planned > 0).all() or abs(planned.sum() - 1.0) > _SHARE_TOLERANCE:
        raise SpecError("planned shares must be positive and sum to 1", given=shares)
    return planned


def _checked_counts(counts: Mapping[Level, Sequence[int]]) -> Array:
    lengths = {level: len(looks) for level, looks in counts.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        raise DataError("every variant needs a count at every look", given=str(lengths))
    found = np.array([counts[level] for level in counts], dtype=np.float64).T
    falls = np.diff(found, axis=0, prepend=np.zeros((1, found.shape[1]))) < 0
    if falls.any() or not np.isfinite(found).all():
        look = int(np.argmax(falls.any(axis=1)))
        raise DataError(
            "counts are cumulative: they cannot fall or be missing",
            given=f"look {look + 1}: {found[look].tolist()}",
        )
    return found
