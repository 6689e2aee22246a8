"""Effects, checks and tables of an analysis by linear learners."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causal.core.errors import InferenceError
from causal.core.frames import Level
from causal.core.gram import Array
from causal.core.inference import (
    critical_value,
    effect,
    hotelling,
    two_sided_pvalue,
    wald,
)
from causal.core.readout import Readout
from causal.core.result import Diagnostic, Effect
from causal.observational.study import CONTROL, TREATED, Study, columns_note, left_out
from causal.uplift.linear_learners import LinearEffect
from causal.uplift.scoring import sql_expression

if TYPE_CHECKING:
    from causal.uplift.uplift_options import UpliftSpec

INTERCEPT = "intercept"
RANDOMISED_ALPHA = 0.001
"""A randomised treatment fails its check once in a thousand analyses."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One level of a segment column.

    Attributes:
        column: The column.
        level: The level.
        n_treated: Its treated rows.
        n_control: Its control rows.
        mean: Means of (1, columns) in the basis of the study, shape (k + 1,).
    """

    column: str
    level: Level
    n_treated: int
    n_control: int
    mean: Array

    @property
    def n(self) -> int:
        """Its rows."""
        return self.n_treated + self.n_control


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The scores of all rows.

    Attributes:
        mean: Their mean.
        sd: Their standard deviation, with the divisor n.
        lowest: The lowest score.
        highest: The highest score.
        edges: Edges of bins, shape (b + 1,); empty where all scores are equal.
        counts: Rows below, in and above the bins, shape (b + 2,).
    """

    mean: float
    sd: float
    lowest: float
    highest: float
    edges: Array
    counts: Array


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A learner with its errors.

    Attributes:
        effect: The effect.
        active: Positions among (1, columns) of coefficients that were estimated.
        kind: Covariance of the coefficients.
        covariance: Of these, in the basis of the study.
        mean_variances: Of mean effects over all rows, then by segment, without factor.
        has_slopes: Whether the effect depends on any column.
        distribution: The scores.
        n_clusters: Clusters; `None`: rows are independent.
    """

    effect: LinearEffect
    active: tuple[int, ...]
    kind: str
    covariance: Array
    mean_variances: Array
    has_slopes: bool
    distribution: Distribution
    n_clusters: int | None

    def coefficient_covariance(self, *, matrix: Array) -> Array:
        """Covariance of the columns' own coefficients, shape (k + 1, k + 1).

        Args:
            matrix: From coefficients of the basis to those of the columns.
        """
        size = len(self.effect.coefficients)
        full = np.zeros((size, size))
        full[np.ix_(self.active, self.active)] = self.covariance
        return np.asarray(matrix @ full @ matrix.T, dtype=np.float64)

    def mean_factor(self, n: int) -> float:
        """Small-sample factor of mean effects: n/(n - 1), or G/(G - 1)."""
        count = n if self.n_clusters is None else self.n_clusters
        return count / (count - 1)

    @property
    def df(self) -> float | None:
        """Degrees of freedom of the t reference."""
        return None if self.n_clusters is None else self.n_clusters - 1


def read(
    spec: "UpliftSpec",
    study: Study,
    *,
    fitted: Mapping[str, Fitted],
    segments: Sequence[Segment],
    overlap: pd.DataFrame | None,
) -> Readout:
    """Everything that is said of one outcome.

    Args:
        spec: The analysis.
        study: The rows.
        fitted: Learners by name.
        segments: The segments.
        overlap: Rows by arm and twentieth of the propensity, if one was fitted.
    """
    metric = study.outcome.name
    tables = {
        "scores": _scores(study, fitted),
        "coefficients": _coefficients(study, fitted, confidence_level=spec.confidence_level),
        "score_bins": _score_bins(fitted),
    }
    if overlap is not None:
        tables["overlap"] = overlap
    diagnostics = left_out(study)
    if spec.options.propensity != "logistic":
        diagnostics.append(randomised_note(study))
    diagnostics.append(columns_note(study))
    return Readout(
        effects=tuple(_effects(spec, study, fitted, segments)),
        diagnostics=tuple(diagnostics + _heterogeneity(fitted)),
        params=_params(study, fitted),
        tables={name: table.assign(metric=metric) for name, table in tables.items()},
    )


def randomised_note(study: Study) -> Diagnostic:
    """Whether the columns predict the treatment, which they cannot if it was randomised.

    n R^2 of the regression of the treatment on the columns is chi-square with k degrees of freedom
    under randomisation (the score test of a logistic regression).
    """
    from scipy import special

    control, treated = study.arms
    k = len(study.columns)
    total = control.merge(treated)
    share = treated.n / study.n
    gap = study.n * share * (1.0 - share) * (treated.mean[:k] - control.mean[:k])
    scale = np.sqrt(np.diag(total.cross)[:k])
    solved = np.linalg.solve(total.cross[:k, :k] / np.outer(scale, scale), gap / scale)
    statistic = float((gap / scale) @ solved) / (share * (1.0 - share))
    pvalue = float(special.chdtrc(k, statistic))
    passed = pvalue >= RANDOMISED_ALPHA
    verdict = (
        "the columns do not predict who is treated"
        if passed
        else "the columns predict who is treated, so it was not randomised alike for all: "
        "propensity: logistic"
    )
    return Diagnostic(
        name="randomised",
        statistic=statistic,
        pvalue=pvalue,
        passed=passed,
        detail=f"{verdict}; chi-square with {k} degrees of freedom, p = {pvalue:.3g}",
    )


def _effects(
    spec: "UpliftSpec", study: Study, fitted: Mapping[str, Fitted], segments: Sequence[Segment]
) -> list[Effect]:
    everyone = np.zeros(len(study.columns) + 1)
    everyone[0] = 1.0
    counts = (study.arms[TREATED].n, study.arms[CONTROL].n)
    found = []
    for name, own in fitted.items():
        means = [("ate", spec.options.treatment, everyone, counts)]
        means += [
            ("cate", f"{item.column}={item.level}", item.mean, (item.n_treated, item.n_control))
            for item in segments
            if own.has_slopes
        ]
        factor = own.mean_factor(study.n)
        for position, (estimand, term, mean, (n_treated, n_control)) in enumerate(means):
            variance = factor * own.mean_variances[position]
            found.append(
                effect(
                    estimator=f"{name}_learner",
                    estimand="ate" if estimand == "ate" else "cate",
                    metric=study.outcome.name,
                    term=term,
                    estimate=float(mean @ own.effect.coefficients),
                    std_error=float(np.sqrt(max(variance, 0.0))),
                    df=own.df,
                    confidence_level=spec.confidence_level,
                    n_treated=n_treated,
                    n_control=n_control,
                    n_clusters=own.n_clusters,
                )
            )
    return found


def _scores(study: Study, fitted: Mapping[str, Fitted]) -> pd.DataFrame:
    """Mean, spread, ends and the expression of each learner's scores."""
    rows = []
    for name, own in fitted.items():
        raw = study.basis.matrix @ own.effect.coefficients
        rows.append(
            {
                "learner": name, "n": study.n, "mean": own.distribution.mean,
                "sd": own.distribution.sd, "lowest": own.distribution.lowest,
                "highest": own.distribution.highest,
                "expression": sql_expression(study.combination(raw)),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _coefficients(
    study: Study, fitted: Mapping[str, Fitted], *, confidence_level: float
) -> pd.DataFrame:
    """Coefficients of the columns, with their errors; zeros that are no estimates are left out."""
    matrix = study.basis.matrix
    rows = []
    for name, own in fitted.items():
        raw = matrix @ own.effect.coefficients
        covariance = own.coefficient_covariance(matrix=matrix)
        critical = critical_value(confidence_level, df=own.df)
        for j in own.active:
            error = float(np.sqrt(covariance[j, j]))
            statistic = float(raw[j]) / error if error > 0 else float("nan")
            rows.append(
                {
                    "learner": name, "term": (INTERCEPT, *study.names)[j],
                    "estimate": float(raw[j]), "std_error": error, "statistic": statistic,
                    "pvalue": two_sided_pvalue(statistic, df=own.df),
                    "ci_lower": float(raw[j]) - critical * error,
                    "ci_upper": float(raw[j]) + critical * error, "covariance": own.kind,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _score_bins(fitted: Mapping[str, Fitted]) -> pd.DataFrame:
    """Rows by learner and bin of the score; the first and the last bin end where scores do."""
    parts = []
    for name, own in fitted.items():
        found = own.distribution
        lows = np.append(found.lowest, found.edges)
        highs = np.append(found.edges, found.highest)
        table = pd.DataFrame({"learner": name, "low": lows, "high": highs, "n": found.counts})
        parts.append(table[table["n"] > 0])
    return pd.concat(parts, ignore_index=True)


def _heterogeneity(fitted: Mapping[str, Fitted]) -> list[Diagnostic]:
    """Joint test that the effect depends on no column, by learner."""
    found = []
    for name, own in fitted.items():
        at = [position for position, j in enumerate(own.active) if j > 0]
        if not at:
            continue
        slopes = own.effect.coefficients[[own.active[position] for position in at]]
        covariance = own.covariance[np.ix_(at, at)]
        try:
            statistic, pvalue = (
                wald(slopes, covariance)
                if own.df is None
                else hotelling(slopes, covariance, df=own.df)
            )
        except InferenceError as error:
            found.append(_note(f"heterogeneity.{name}", None, None, f"cannot be tested: {error}"))
            continue
        kind = "chi-square" if own.df is None else "F"
        detail = f"{kind} test that the effect depends on no column: p = {pvalue:.3g}"
        found.append(_note(f"heterogeneity.{name}", statistic, pvalue, detail))
    return found


def _note(name: str, statistic: float | None, pvalue: float | None, detail: str) -> Diagnostic:
    return Diagnostic(name=name, statistic=statistic, pvalue=pvalue, passed=None, detail=detail)


def _params(study: Study, fitted: Mapping[str, Fitted]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "n": study.n,
        "n_columns": len(study.columns),
        "treated_share": study.arms[TREATED].n / study.n,
    }
    for name, own in fitted.items():
        found[f"score_mean_{name}"] = own.distribution.mean
        found[f"score_sd_{name}"] = own.distribution.sd
    return found
