"""Effects, checks and tables of an analysis by double machine learning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from causal.core.frames import Term
from causal.core.gram import Gram
from causal.core.inference import effect
from causal.core.readout import Readout
from causal.core.result import Diagnostic, Effect, Estimand
from causal.core.texts import listed
from causal.observational.orthogonal_moments import ONE, RatioEstimate, median
from causal.observational.refuters import Refutation, refutation_table
from causal.observational.sensitivity import (
    outcome_spread,
    partial_r_squared,
    robustness_value,
    sensitivity_table,
    standardised_e_values,
)
from causal.observational.study import CONTROL, TREATED, Arms, Study, columns_note, left_out
from causal.observational.weighting_readout import overlap_note

if TYPE_CHECKING:
    from causal.quasi.dml_options import DmlOptions, DmlSpec

_MAX_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class SegmentEstimates:
    """Effects by segment.

    Attributes:
        estimates: By column and level, then by estimator.
        left_out: Why segments have none.
    """

    estimates: Mapping[tuple[str, str], Mapping[str, RatioEstimate]]
    left_out: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was estimated of one outcome.

    Attributes:
        effects: By estimator.
        segments: By segment.
        folds: Moments by fold and arm.
        limits: The smallest and the largest propensity kept.
        overlap: Rows by arm and twentieth of the propensity; `None` where it is not logistic.
        refutations: Analyses whose answer is known.
    """

    effects: Mapping[str, RatioEstimate]
    segments: SegmentEstimates
    folds: Sequence[Arms]
    limits: tuple[float, float]
    overlap: pd.DataFrame | None
    refutations: tuple[Refutation, ...]


def counts(moments: Gram, treated: Term) -> tuple[int, int]:
    """Rows and treated rows behind the moments of scores.

    Args:
        moments: Of rows, or of sums by cluster.
        treated: The treatment.
    """
    total = moments.sum_weights * moments.mean
    return round(float(total[moments.index(ONE)])), round(float(total[moments.index(treated)]))


def medians(parts: Sequence[SegmentEstimates]) -> SegmentEstimates:
    """Medians over ways to part the rows of the segments that all of them have.

    Args:
        parts: One per way.
    """
    shared = [key for key in parts[0].estimates if all(key in part.estimates for part in parts)]
    return SegmentEstimates(
        estimates={
            key: {
                name: median(tuple(part.estimates[key][name] for part in parts))
                for name in parts[0].estimates[key]
            }
            for key in shared
        },
        left_out={name: why for part in parts for name, why in part.left_out.items()},
    )


def read(spec: "DmlSpec", study: Study, found: Found) -> Readout:
    """Everything that is said of one outcome.

    Args:
        spec: The analysis.
        study: The rows.
        found: What was estimated.
    """
    options = spec.options
    tables = {"folds": _folds(found.folds)}
    if found.overlap is not None:
        tables["overlap"] = found.overlap
    if options.sensitivity:
        tables["sensitivity"] = _sensitivity(spec, study, found)
    if found.refutations:
        tables["refutations"] = refutation_table(list(found.refutations))
    return Readout(
        effects=tuple(_effects(spec, study, found)),
        diagnostics=tuple(_diagnostics(options, study, found)),
        params=_params(study, found),
        tables={name: table.assign(metric=study.outcome.name) for name, table in tables.items()},
    )


def _effects(spec: "DmlSpec", study: Study, found: Found) -> list[Effect]:
    rows: list[tuple[str, str, bool, RatioEstimate]] = [
        (name, spec.options.treatment, True, own) for name, own in found.effects.items()
    ]
    rows += [
        (name, f"{column}={level}", False, own)
        for (column, level), estimates in found.segments.estimates.items()
        for name, own in estimates.items()
    ]
    return [
        effect(
            estimator=name,
            estimand=_estimand(spec.options, name, is_whole=is_whole),
            metric=study.outcome.name,
            term=term,
            estimate=own.estimate,
            std_error=own.std_error,
            df=None if own.n_clusters is None else own.n_clusters - 1,
            confidence_level=spec.confidence_level,
            n_treated=own.n_treated,
            n_control=own.n_control,
            n_clusters=own.n_clusters,
        )
        for name, term, is_whole, own in rows
    ]


def _estimand(options: "DmlOptions", name: str, *, is_whole: bool) -> Estimand:
    """The mean effect within a segment is a conditional one if it is that of all its rows."""
    if name == "plr":
        return "overlap"
    return "cate" if options.estimand == "ate" and not is_whole else options.estimand


def _folds(folds: Sequence[Arms]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"fold": at, "n_control": arms[CONTROL].n, "n_treated": arms[TREATED].n}
            for at, arms in enumerate(folds)
        ]
    )


def _sensitivity(spec: "DmlSpec", study: Study, found: Found) -> pd.DataFrame:
    """How strong a hidden common cause would have to be, by estimator."""
    spread = outcome_spread(study.arms)
    values: dict[str, dict[str, float | None]] = {}
    for item in _effects(spec, study, found)[: len(found.effects)]:
        own = standardised_e_values(item, standard_deviation=spread)
        estimate = found.effects[item.estimator]
        if item.estimator == "plr":
            df = estimate.n_treated + estimate.n_control - len(study.columns) - 2
            statistic = estimate.estimate / estimate.classical_error
            own["partial_r_squared"] = partial_r_squared(statistic, df=df)
            own["robustness_value"] = robustness_value(statistic, df=df)
            own["robustness_value_significance"] = robustness_value(
                statistic, df=df, alpha=1.0 - spec.confidence_level
            )
        values[item.estimator] = own
    return sensitivity_table(values)


def _diagnostics(options: "DmlOptions", study: Study, found: Found) -> list[Diagnostic]:
    notes = [*left_out(study), columns_note(study)]
    if found.overlap is not None:
        notes.append(overlap_note(options.estimand, found.overlap, limits=found.limits))
    if options.trim is not None:
        notes.append(_trimmed(study, found))
    if found.segments.left_out:
        notes.append(_segments_left_out(found.segments.left_out))
    notes += [item.note() for item in found.refutations]
    return notes


def _trimmed(study: Study, found: Found) -> Diagnostic:
    own = next(iter(found.effects.values()))
    lost = (study.arms[TREATED].n - own.n_treated, study.arms[CONTROL].n - own.n_control)
    low, high = found.limits
    return Diagnostic(
        name="trimmed_rows",
        statistic=float(sum(lost)),
        pvalue=None,
        passed=None,
        detail=f"{lost[0]:,} treated and {lost[1]:,} control rows have a propensity outside "
        f"[{low:.4g}, {high:.4g}] and are left out: the effect is that of the others",
    )


def _segments_left_out(items: Mapping[str, str]) -> Diagnostic:
    shown = listed((f"{name} ({why})" for name, why in items.items()), most=_MAX_SHOWN)
    return Diagnostic(
        name="segments_left_out",
        statistic=float(len(items)),
        pvalue=None,
        passed=None,
        detail=f"segments without an effect: {shown}",
    )


def _params(study: Study, found: Found) -> dict[str, Any]:
    control, treated = study.arms
    own = next(iter(found.effects.values()))
    return {
        "n": study.n,
        "n_columns": len(study.columns),
        "n_kept": own.n_treated + own.n_control,
        "n_folds": len(found.folds),
        "propensity_low": found.limits[0],
        "propensity_high": found.limits[1],
        "unadjusted_difference": float(treated.mean[-1] - control.mean[-1]),
    }
