"""Standardised mean differences before and after adjustment, and effective sample sizes.

Differences are divided by a standard deviation of the unadjusted data, so that weighting cannot
look better by making groups noisier: that of the treated for att, of the controls for atc, and the
root of the mean of both variances otherwise. For 0/1 columns the variance is m (1 - m), for others
that with divisor n - 1; weighted variances take the divisor of reliability weights (Stuart 2010;
the definitions of MatchIt's summary).
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.frames import Between, FrameRequest, Term
from causal.core.gram import Array
from causal.core.result import Diagnostic
from causal.observational.logistic import Propensity
from causal.observational.study import CONTROL, TREATED, Arms, Study
from causal.observational.weights import Target

PROPENSITY = "propensity"
N_BINS = 20
BALANCE_COLUMNS = (
    "covariate", "stage", "mean_treated", "mean_control", "smd", "variance_ratio",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Means and variances of q columns in one arm.

    Attributes:
        mean: Shape (q,).
        variance: Shape (q,); 0/1 columns have m (1 - m).
    """

    mean: Array
    variance: Array


def spread(
    mean: Array, cross: Array, *, is_binary: Array, sum_weights: float, sum_squares: float
) -> Spread:
    """Means and variances of one arm's columns.

    Args:
        mean: Weighted means, shape (q,).
        cross: Weighted sums of squared deviations, shape (q,).
        is_binary: Which columns are 0 or 1, shape (q,).
        sum_weights: Sum of the weights.
        sum_squares: Sum of their squares.
    """
    divisor = sum_weights - sum_squares / sum_weights
    variance = cross / divisor if divisor > 0 else np.full(len(mean), np.nan)
    return Spread(mean=mean, variance=np.where(is_binary, mean * (1.0 - mean), variance))


def effective_size(sum_weights: float, sum_squares: float) -> float:
    """Kish's effective sample size: that of equal weights with the same variance of a mean."""
    return sum_weights**2 / sum_squares if sum_squares > 0 else 0.0


def standardiser(treated: Spread, control: Spread, *, target: Target) -> Array:
    """The standard deviations that differences are divided by, shape (q,)."""
    variances = {
        "att": treated.variance,
        "atc": control.variance,
    }.get(target, (treated.variance + control.variance) / 2.0)
    return np.sqrt(variances)


def balance_rows(
    names: Sequence[str], treated: Spread, control: Spread, *, scale: Array, stage: str
) -> pd.DataFrame:
    """One row per column: means, standardised difference, ratio of variances.

    Args:
        names: The q columns.
        treated: The treated.
        control: The controls.
        scale: Standard deviations, shape (q,); where one is 0 there is no difference to scale.
        stage: `before` or `after`.
    """
    gap = treated.mean - control.mean
    with np.errstate(divide="ignore", invalid="ignore"):
        smd = np.where(scale > 0, gap / scale, np.where(gap == 0, 0.0, np.nan))
        ratio = np.where(control.variance > 0, treated.variance / control.variance, np.nan)
    return pd.DataFrame(
        {
            "covariate": list(names), "stage": stage, "mean_treated": treated.mean,
            "mean_control": control.mean, "smd": smd, "variance_ratio": ratio,
        }
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a balance table as combinations of the study's: reference levels included.

    Attributes:
        names: The q names.
        matrix: Shape (q, k).
        constants: Shape (q,).
        is_binary: Shape (q,).
    """

    names: tuple[str, ...]
    matrix: Array
    constants: Array
    is_binary: Array

    def spread(self, arm_mean: Array, arm_cross: Array, weights: tuple[float, float]) -> Spread:
        """Means and variances in one arm from those of the study's columns.

        Args:
            arm_mean: Shape (k,).
            arm_cross: Shape (k, k).
            weights: Their sum and the sum of their squares.
        """
        return spread(
            self.constants + self.matrix @ arm_mean,
            np.einsum("qi,ij,qj->q", self.matrix, arm_cross, self.matrix),
            is_binary=self.is_binary,
            sum_weights=weights[0],
            sum_squares=weights[1],
        )


def table_columns(study: Study) -> Columns:
    """Every column of the study, and each category's reference level as 1 less the others.

    Args:
        study: The rows.
    """
    references = study.references
    k = len(study.columns)
    total = study.arms[CONTROL].merge(study.arms[TREATED])
    names, rows, constants, binary = list[str](), [], [], []
    for at, column in enumerate(study.columns):
        if column.group in references and column.is_category and column.group not in {
            name.partition("=")[0] for name in names
        }:  # fmt: skip
            own = [j for j, item in enumerate(study.columns) if item.group == column.group]
            names.append(f"{column.group}={references[column.group]}")
            rows.append(-np.isin(np.arange(k), own).astype(np.float64))
            constants.append(1.0)
            binary.append(True)
        names.append(column.name)
        rows.append(np.eye(k)[at])
        constants.append(0.0)
        mean = float(total.mean[at])
        square = float(total.cross[at, at]) / total.sum_weights + mean**2
        binary.append(abs(square - mean) <= 1e-9 * square)
    return Columns(
        names=tuple(names),
        matrix=np.array(rows),
        constants=np.array(constants),
        is_binary=np.array(binary),
    )


def balance_note(table: pd.DataFrame, *, threshold: float) -> Diagnostic:
    """The largest difference that is left; fails above the threshold."""
    after = table[table["stage"] == "after"]
    after = after[after["smd"].notna()]
    before = table.loc[(table["stage"] == "before") & table["smd"].notna(), "smd"].abs().max()
    worst = after.loc[after["smd"].abs().idxmax()]
    largest = abs(float(worst["smd"]))
    return Diagnostic(
        name="balance",
        statistic=largest,
        pvalue=None,
        passed=largest <= threshold,
        detail=f"largest standardised difference {largest:.3f} ({worst['covariate']}), "
        f"{before:.3f} before; {threshold:g} is allowed",
    )


def overlap_table(
    study: Study, fit: Propensity
) -> Generator[FrameRequest, pd.DataFrame, tuple[pd.DataFrame, Arms]]:
    """Units by arm and twentieth of the propensity, and the moments of the propensity by arm."""
    edges = np.linspace(0.0, 1.0, N_BINS + 1)
    inner = [float(np.log(edge / (1.0 - edge))) for edge in edges[1:-1]]
    lows, highs = [None, *inner], [*inner, None]
    bins: tuple[Term, ...] = tuple(
        Between(fit.log_odds, low=low, high=high, is_closed=False)
        for low, high in zip(lows, highs, strict=True)
    )
    arms = yield from study.by_arm((fit.probability, *bins))
    parts = []
    for name, arm in (("control", arms[CONTROL]), ("treated", arms[TREATED])):
        counts = np.rint(arm.n * arm.mean[1:]).astype(np.int64)
        parts.append(pd.DataFrame({"arm": name, "low": edges[:-1], "high": edges[1:], "n": counts}))
    return pd.concat(parts, ignore_index=True), (
        arms[CONTROL].subset((fit.probability,)),
        arms[TREATED].subset((fit.probability,)),
    )
