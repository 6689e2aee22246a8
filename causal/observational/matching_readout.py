"""Effects, checks and tables of an analysis by matching."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causal.core.gram import Array
from causal.core.inference import effect
from causal.core.readout import Readout
from causal.core.result import Diagnostic, Effect
from causal.observational.balance import (
    BALANCE_COLUMNS,
    PROPENSITY,
    Columns,
    Spread,
    balance_note,
    balance_rows,
    effective_size,
    spread,
    standardiser,
    table_columns,
)
from causal.observational.coarsened import CellEffect
from causal.observational.logistic import LogisticFit
from causal.observational.matched_units import MatchedUnits, Units
from causal.observational.sensitivity import (
    outcome_spread,
    rosenbaum_bounds,
    rosenbaum_gamma,
    sensitivity_table,
    standardised_e_values,
)
from causal.observational.study import CONTROL, TREATED, Study, left_out
from causal.observational.weighting_readout import propensity_table

if TYPE_CHECKING:
    from causal.quasi.matching_options import MatchingOptions, MatchingSpec

_ARMS = ("control", "treated")
_MIN_PAIRS = 20
"""Pairs that differ in their outcome below which the bounds, of large samples, are not given."""
_GAMMAS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)


def nearest(
    spec: "MatchingSpec",
    study: Study,
    *,
    fit: LogisticFit,
    overlap: pd.DataFrame,
    units: Units,
    matched: MatchedUnits,
) -> Readout:
    """Everything that nearest-neighbour matching says of one outcome."""
    options, metric = spec.options, study.outcome.name
    counts = [int((matched.weights[units.is_treated == bool(arm)] > 0).sum()) for arm in range(2)]
    balance = _unit_balance(options, study, units, matched)
    lost = matched.n_focal - matched.n_sets
    sizes = [
        effective_size(float(own.sum()), float((own**2).sum()))
        for own in (matched.weights[~units.is_treated], matched.weights[units.is_treated])
    ]
    differences = _pair_differences(options, units, matched)
    notes = [
        *left_out(study),
        _note(
            "unmatched_units", lost,
            f"{lost:,} of {matched.n_focal:,} units have no partner and are left out",
        ),
        _note(
            "effective_sample_size", min(sizes),
            f"matches are worth {sizes[TREATED]:,.0f} treated and {sizes[CONTROL]:,.0f} control "
            "units of equal weight",
        ),
        balance_note(balance, threshold=options.balance_threshold),
        *_few_pairs(differences),
    ]  # fmt: skip
    found = _effect(spec, metric, matched.estimate, matched.std_error, counts)
    return Readout(
        effects=(found,),
        diagnostics=tuple(notes),
        params={
            "n": study.n, "n_sets": matched.n_sets, "n_matches": len(matched.pairs.match),
            "caliper": matched.caliper, "distance": options.distance,
            "errors": "abadie_imbens" if options.replace else "matched_sets",
        },
        tables={
            "means": _means(metric, matched.means),
            "balance": balance.assign(metric=metric)[["metric", "source", *BALANCE_COLUMNS]],
            "propensity": propensity_table(fit).assign(metric=metric),
            "overlap": overlap.assign(metric=metric),
            **_sensitivity(options, study, found, differences),
        },
    )  # fmt: skip


def coarsened(spec: "MatchingSpec", study: Study, matched: CellEffect) -> Readout:
    """Everything that coarsened exact matching says of one outcome."""
    options, metric = spec.options, study.outcome.name
    lost = [matched.n_units[arm] - matched.n_matched[arm] for arm in range(2)]
    balance = _cell_balance(options, study, matched)
    std_error, n_clusters = cell_error(matched, options)
    notes = [
        *left_out(study),
        _note(
            "unmatched_units", sum(lost),
            f"{lost[TREATED]:,} treated and {lost[CONTROL]:,} control rows have no counterpart in "
            "their cell and are left out: the effect is that of the others",
        ),
        _note(
            "matched_cells", matched.n_cells,
            f"{matched.n_cells:,} of {matched.n_all_cells:,} cells have rows of both arms",
        ),
        balance_note(balance, threshold=options.balance_threshold),
    ]  # fmt: skip
    counts = list(matched.n_matched)
    found = _effect(spec, metric, matched.estimate, std_error, counts, n_clusters=n_clusters)
    return Readout(
        effects=(found,),
        diagnostics=tuple(notes),
        params={
            "n": study.n, "n_matched": sum(matched.n_matched), "n_cells": matched.n_cells,
            "errors": options.covariance, "small_sample": options.small_sample,
        },
        tables={
            "means": _means(metric, matched.means),
            "balance": balance.assign(metric=metric)[["metric", "source", *BALANCE_COLUMNS]],
            **_sensitivity(options, study, found, None),
        },
    )  # fmt: skip


def cell_error(matched: CellEffect, options: "MatchingOptions") -> tuple[float, int | None]:
    """The standard error of weighted least squares, robust or clustered by cell."""
    n, g = sum(matched.n_matched), matched.n_cells
    if options.covariance == "robust":
        factor = {"stata": n / (n - 2), "n-1": n / (n - 1)}.get(options.small_sample, 1.0)
        return float(np.sqrt(factor * sum(matched.variances))), None
    clusters = g / (g - 1) if g > 1 else np.nan
    factor = {"stata": clusters * (n - 1) / (n - 2), "n-1": clusters}.get(options.small_sample, 1.0)
    return float(np.sqrt(factor * (matched.differences**2).sum())), g


def _effect(
    spec: "MatchingSpec",
    metric: str,
    estimate: float,
    std_error: float,
    counts: list[int],
    *,
    n_clusters: int | None = None,
) -> Effect:
    return effect(
        estimator="cem" if spec.options.matching == "coarsened" else "nearest_neighbour",
        estimand=spec.options.estimand,
        metric=metric,
        term=spec.options.treatment,
        estimate=estimate,
        std_error=std_error,
        confidence_level=spec.confidence_level,
        n_treated=counts[TREATED],
        n_control=counts[CONTROL],
        n_clusters=n_clusters,
    )


def _means(metric: str, means: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"metric": metric, "arm": arm, "mean": means[at]} for at, arm in enumerate(_ARMS)]
    )


def _note(name: str, statistic: float, detail: str) -> Diagnostic:
    return Diagnostic(
        name=name, statistic=float(statistic), pvalue=None, passed=None, detail=detail
    )


def _sensitivity(
    options: "MatchingOptions", study: Study, found: Effect, differences: Array | None
) -> dict[str, pd.DataFrame]:
    """How strong a hidden common cause would have to be, with the signed-rank test of pairs."""
    if not options.sensitivity:
        return {}
    own = standardised_e_values(found, standard_deviation=outcome_spread(study.arms))
    tables: dict[str, pd.DataFrame] = {}
    if differences is not None and np.count_nonzero(differences) >= _MIN_PAIRS:
        towards = np.copysign(1.0, found.estimate) * differences
        alpha = (1.0 - found.confidence_level) / 2.0
        own["rosenbaum_gamma"] = rosenbaum_gamma(towards, alpha=alpha)
        bounds = rosenbaum_bounds(towards, gamma=_GAMMAS)
        tables["rosenbaum_bounds"] = pd.DataFrame(dataclasses.asdict(bounds))
    tables["sensitivity"] = sensitivity_table({found.estimator: own})
    return {name: table.assign(metric=found.metric) for name, table in tables.items()}


def _pair_differences(
    options: "MatchingOptions", units: Units, matched: MatchedUnits
) -> Array | None:
    """Treated less control of each pair; `None` if nobody asks, or a unit may be in several."""
    if not options.sensitivity or options.replace or options.ratio > 1:
        return None
    gaps = units.outcome[matched.pairs.focal] - units.outcome[matched.pairs.match]
    return np.asarray(gaps if options.estimand == "att" else -gaps, dtype=np.float64)


def _few_pairs(differences: Array | None) -> list[Diagnostic]:
    """A note where too few pairs differ for Rosenbaum's bounds."""
    n_pairs = _MIN_PAIRS if differences is None else int(np.count_nonzero(differences))
    if n_pairs >= _MIN_PAIRS:
        return []
    detail = (
        f"{n_pairs} pairs differ in their outcome, fewer than {_MIN_PAIRS}: Rosenbaum's bounds, "
        "which are of large samples, are left out"
    )
    return [_note("few_pairs", n_pairs, detail)]


def _unit_balance(
    options: "MatchingOptions", study: Study, units: Units, matched: MatchedUnits
) -> pd.DataFrame:
    columns = table_columns(study)
    values = np.column_stack([units.columns @ columns.matrix.T + columns.constants])
    binary = columns.is_binary
    names = [*columns.names, PROPENSITY]
    values = np.column_stack([values, units.propensity])
    binary = np.append(binary, np.array([False]))

    def side(arm: int, weights: Array) -> Spread:
        rows = units.is_treated == bool(arm)
        x, w = values[rows], weights[rows]
        mean = np.average(x, axis=0, weights=w)
        return spread(
            mean, w @ (x - mean) ** 2, is_binary=binary, sum_weights=float(w.sum()),
            sum_squares=float((w**2).sum()),
        )  # fmt: skip

    ones = np.ones(len(units.outcome))
    treated, control = side(TREATED, ones), side(CONTROL, ones)
    scale = standardiser(treated, control, target=options.estimand)
    before = balance_rows(names, treated, control, scale=scale, stage="before").assign(source="")
    treated, control = side(TREATED, matched.weights), side(CONTROL, matched.weights)
    after = balance_rows(names, treated, control, scale=scale, stage="after")
    return pd.concat([before, after.assign(source="matching")], ignore_index=True)


def _cell_balance(options: "MatchingOptions", study: Study, matched: CellEffect) -> pd.DataFrame:
    columns: Columns = table_columns(study)
    k = len(study.columns)

    def side(arms: Any, arm: int, square: float) -> Spread:
        own = arms[arm]
        return columns.spread(own.mean[:k], own.cross[:k, :k], (own.sum_weights, square))

    control, treated = (side(study.arms, arm, study.arms[arm].sum_weights) for arm in range(2))
    scale = standardiser(treated, control, target=options.estimand)
    before = balance_rows(columns.names, treated, control, scale=scale, stage="before")
    control, treated = (side(matched.arms, arm, matched.squares[arm]) for arm in range(2))
    after = balance_rows(columns.names, treated, control, scale=scale, stage="after")
    return pd.concat([before.assign(source=""), after.assign(source="matching")], ignore_index=True)
