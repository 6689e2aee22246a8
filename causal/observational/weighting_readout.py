"""Effects, checks and tables of an analysis by weighting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Term
from causal.core.gram import Array
from causal.core.inference import effect, two_sided_pvalue
from causal.core.readout import Readout
from causal.core.result import Diagnostic, Effect
from causal.observational.balance import (
    BALANCE_COLUMNS,
    PROPENSITY,
    Spread,
    balance_note,
    balance_rows,
    effective_size,
    spread,
    standardiser,
    table_columns,
)
from causal.observational.influence import Sums
from causal.observational.logistic import LogisticFit
from causal.observational.sensitivity import (
    outcome_spread,
    sensitivity_table,
    standardised_e_values,
)
from causal.observational.study import CONTROL, TREATED, Arms, Study, columns_note, left_out
from causal.observational.weights import Target, Weights

if TYPE_CHECKING:
    from causal.quasi.weighting_options import WeightingOptions, WeightingSpec

INTERCEPT = "intercept"
_FEW = 2
_ARMS = ("control", "treated")


@dataclass(frozen=True, kw_only=True)
class Propensity:
    """The propensity and the rows that it keeps.

    Attributes:
        fit: The fit that weights come from.
        keep: 1 in the rows kept; `None`: all.
        limits: The smallest and the largest propensity kept.
        plain: Moments by arm of the rows kept.
        overlap: Units by arm and bin of the propensity.
        moments: Moments by arm of the propensity, of all rows.
        is_refitted: Whether trimmed rows had no part in the fit.
    """

    fit: LogisticFit
    keep: Term | None
    limits: tuple[float, float]
    plain: Arms
    overlap: pd.DataFrame
    moments: Arms
    is_refitted: bool


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """Weights and what they give.

    Attributes:
        weights: The weights.
        sums: Moments by arm.
        squares: Sums of the squared weights by arm.
    """

    weights: Weights
    sums: Sums
    squares: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Both arms' means.

    Attributes:
        means: Control, treated.
        covariance: Shape (2, 2).
        n_clusters: Clusters; `None`: rows are independent.
    """

    means: tuple[float, float]
    covariance: Array
    n_clusters: int | None

    @property
    def value(self) -> float:
        """The effect."""
        return self.means[TREATED] - self.means[CONTROL]

    @property
    def std_error(self) -> float:
        """Its standard error."""
        contrast = np.array([-1.0, 1.0])
        return float(np.sqrt(max(contrast @ self.covariance @ contrast, 0.0)))


def check_kept(arms: Arms, limits: tuple[float, float]) -> None:
    """Both arms have units left.

    Raises:
        DataError: One has fewer than two.
    """
    for name, arm in zip(_ARMS, arms, strict=True):
        if round(arm.sum_weights) < _FEW:
            raise DataError(
                f"almost no {name} rows are left after trimming",
                given=f"{round(arm.sum_weights)} with a propensity in "
                f"[{limits[0]:.4g}, {limits[1]:.4g}]",
            )


def read(
    spec: "WeightingSpec",
    study: Study,
    *,
    propensity: Propensity | None,
    weightings: Mapping[str, Weighting],
    estimates: Mapping[Any, Estimate],
) -> Readout:
    """Everything that is said of one outcome.

    Args:
        spec: The analysis.
        study: The rows.
        propensity: The propensity, if there is one.
        weightings: Weights by what they come from.
        estimates: Arm means by estimator.
    """
    metric = study.outcome.name
    plain = study.arms if propensity is None else propensity.plain
    balance = _balance(spec.options.estimand, study, propensity, weightings)
    tables = {
        "means": _means(metric, estimates),
        "balance": balance.assign(metric=metric)[["metric", "source", *BALANCE_COLUMNS]],
        "weights": _weights(study, plain, weightings).assign(metric=metric),
    }
    if propensity is not None:
        tables["propensity"] = propensity_table(propensity.fit).assign(metric=metric)
        tables["overlap"] = propensity.overlap.assign(metric=metric)
    effects = _effects(spec, metric, plain, estimates)
    if spec.options.sensitivity:
        spread = outcome_spread(plain)
        values = {
            item.estimator: standardised_e_values(item, standard_deviation=spread)
            for item in effects
        }
        tables["sensitivity"] = sensitivity_table(values).assign(metric=metric)
    return Readout(
        effects=tuple(effects),
        diagnostics=tuple(_diagnostics(spec.options, study, propensity, weightings, balance)),
        params=_params(spec.options, study, propensity, weightings),
        tables=tables,
    )


def _effects(
    spec: "WeightingSpec", metric: str, plain: Arms, estimates: Mapping[Any, Estimate]
) -> list[Effect]:
    n_control, n_treated = (round(arm.sum_weights) for arm in plain)
    return [
        effect(
            estimator=name,
            estimand=spec.options.estimand,
            metric=metric,
            term=spec.options.treatment,
            estimate=found.value,
            std_error=found.std_error,
            df=None if found.n_clusters is None else found.n_clusters - 1,
            confidence_level=spec.confidence_level,
            n_treated=n_treated,
            n_control=n_control,
            n_clusters=found.n_clusters,
        )
        for name, found in estimates.items()
    ]


def _means(metric: str, estimates: Mapping[Any, Estimate]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "metric": metric, "estimator": name, "arm": arm, "mean": found.means[at],
                "std_error": float(np.sqrt(max(found.covariance[at, at], 0.0))),
            }
            for name, found in estimates.items()
            for at, arm in enumerate(_ARMS)
        ]
    )  # fmt: skip


def propensity_table(fit: LogisticFit) -> pd.DataFrame:
    """Coefficients of the propensity with their errors."""
    errors = np.sqrt(np.diag(fit.covariance))
    statistic = fit.coefficients / errors
    return pd.DataFrame(
        {
            "term": [INTERCEPT, *fit.names],
            "estimate": fit.coefficients,
            "std_error": errors,
            "statistic": statistic,
            "pvalue": [two_sided_pvalue(float(value)) for value in statistic],
        }
    )


def _weights(study: Study, plain: Arms, weightings: Mapping[str, Weighting]) -> pd.DataFrame:
    """Units, kept units, sums of weights and effective sample sizes by arm."""
    rows = []
    for source, found in weightings.items():
        for at, name in enumerate(_ARMS):
            arm = found.sums.weighted[at] if found.sums.weighted is not None else plain[at]
            rows.append(
                {
                    "source": source, "arm": name, "n": study.arms[at].n,
                    "n_kept": round(plain[at].sum_weights), "sum_weights": arm.sum_weights,
                    "mean_weight": arm.sum_weights / plain[at].sum_weights,
                    "effective_sample_size": effective_size(arm.sum_weights, found.squares[at]),
                }
            )  # fmt: skip
    columns = [
        "source", "arm", "n", "n_kept", "sum_weights", "mean_weight", "effective_sample_size",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _balance(
    target: Target,
    study: Study,
    propensity: Propensity | None,
    weightings: Mapping[str, Weighting],
) -> pd.DataFrame:
    columns = table_columns(study)
    k = len(study.columns)

    def spreads(arms: Arms, squares: Sequence[float]) -> tuple[Spread, Spread]:
        found = [
            columns.spread(arm.mean[:k], arm.cross[:k, :k], (arm.sum_weights, square))
            for arm, square in zip(arms, squares, strict=True)
        ]
        return found[CONTROL], found[TREATED]

    control, treated = spreads(study.arms, [arm.sum_weights for arm in study.arms])
    scale = standardiser(treated, control, target=target)
    names = columns.names
    tables = [balance_rows(names, treated, control, scale=scale, stage="before")]
    sources = [""]
    if propensity is not None:
        sides = [
            spread(
                arm.mean, np.diag(arm.cross), is_binary=np.array([False]),
                sum_weights=arm.sum_weights, sum_squares=arm.sum_weights,
            )
            for arm in propensity.moments
        ]  # fmt: skip
        own = standardiser(sides[TREATED], sides[CONTROL], target=target)
        tables.append(
            balance_rows([PROPENSITY], sides[TREATED], sides[CONTROL], scale=own, stage="before")
        )
        sources.append("")
    for source, found in weightings.items():
        if found.sums.weighted is not None:
            control, treated = spreads(found.sums.weighted, found.squares)
            tables.append(balance_rows(names, treated, control, scale=scale, stage="after"))
            sources.append(source)
    return pd.concat(
        [table.assign(source=source) for table, source in zip(tables, sources, strict=True)],
        ignore_index=True,
    )


def _diagnostics(
    options: "WeightingOptions",
    study: Study,
    propensity: Propensity | None,
    weightings: Mapping[str, Weighting],
    balance: pd.DataFrame,
) -> list[Diagnostic]:
    found = [*left_out(study), columns_note(study)]
    if propensity is not None:
        found += _propensity_notes(options, study, propensity)
    for source, weighting in weightings.items():
        own = balance[balance["source"].isin(["", source])]
        note = balance_note(own, threshold=options.balance_threshold)
        found.append(_named(note, source, weightings))
        found.append(_named(_size_note(weighting), source, weightings))
    return found


def _propensity_notes(
    options: "WeightingOptions", study: Study, propensity: Propensity
) -> list[Diagnostic]:
    fit = propensity.fit
    found = [
        Diagnostic(
            name="propensity_fit",
            statistic=float(fit.n_iterations),
            pvalue=None,
            passed=None,
            detail=f"logistic regression on {len(fit.names)} columns settled after "
            f"{fit.n_iterations} iterations, score {fit.score_norm:.1e}",
        ),
        overlap_note(options.estimand, propensity.overlap, limits=propensity.limits),
    ]
    if options.trim is not None:
        lost = [
            arm.n - round(kept.sum_weights)
            for arm, kept in zip(study.arms, propensity.plain, strict=True)
        ]
        low, high = propensity.limits
        found.append(
            Diagnostic(
                name="trimmed_rows",
                statistic=float(sum(lost)),
                pvalue=None,
                passed=None,
                detail=f"{lost[TREATED]:,} treated and {lost[CONTROL]:,} control rows have a "
                f"propensity outside [{low:.4g}, {high:.4g}] and are left out: the effect is that "
                "of the others",
            )
        )
    return found


def overlap_note(target: Target, table: pd.DataFrame, *, limits: tuple[float, float]) -> Diagnostic:
    """The share of the rows that matter whose propensity is in the outermost bin.

    Args:
        target: The population.
        table: Rows by arm and bin of the propensity.
        limits: The smallest and the largest propensity kept.
    """
    is_low, is_high = table["low"] == 0.0, table["high"] == 1.0
    outer = {"ate": is_low | is_high, "att": is_high, "atc": is_low}.get(target, is_low & is_high)
    lost = (table["low"] >= limits[1]) | (table["high"] <= limits[0])
    n_outer, n = int(table.loc[outer & ~lost, "n"].sum()), int(table["n"].sum())
    return Diagnostic(
        name="overlap",
        statistic=n_outer / n,
        pvalue=None,
        passed=None,
        detail=f"{n_outer / n:.1%} of the rows have a propensity within 0.05 of where weights "
        "have no bound",
    )


def _size_note(weighting: Weighting) -> Diagnostic:
    weighted, plain = weighting.sums.weighted, weighting.sums.plain
    sizes = [
        effective_size(arm.sum_weights, square)
        for arm, square in zip(weighted or plain, weighting.squares, strict=True)
    ]
    return Diagnostic(
        name="effective_sample_size",
        statistic=min(sizes),
        pvalue=None,
        passed=None,
        detail=f"the weights leave what {sizes[TREATED]:,.0f} treated and {sizes[CONTROL]:,.0f} "
        f"control rows of equal weight would (of {round(plain[TREATED].sum_weights):,} and "
        f"{round(plain[CONTROL].sum_weights):,})",
    )


def _named(item: Diagnostic, source: str, weightings: Mapping[str, Weighting]) -> Diagnostic:
    name = item.name if len(weightings) == 1 else f"{item.name}.{source}"
    return Diagnostic(
        name=name, statistic=item.statistic, pvalue=None, passed=item.passed, detail=item.detail
    )


def _params(
    options: "WeightingOptions",
    study: Study,
    propensity: Propensity | None,
    weightings: Mapping[str, Weighting],
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "n": study.n,
        "n_columns": len(study.columns),
        "covariance": options.covariance,
        "small_sample": options.factor,
    }
    if propensity is not None:
        kept = [round(arm.sum_weights) for arm in propensity.plain]
        found["n_kept"] = sum(kept)
        found["propensity_low"], found["propensity_high"] = propensity.limits
        own = weightings.get("propensity")
        if own is not None and own.sums.weighted is not None and options.estimand == "ate":
            shares = [count / sum(kept) for count in kept]
            totals = [arm.sum_weights for arm in own.sums.weighted]
            stable = sum(share * total for share, total in zip(shares, totals, strict=True))
            found["stabilised_weight_mean"] = stable / sum(kept)
    return found
