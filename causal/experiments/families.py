"""Families of effects that are judged together, and the rows that carry their corrected answers.

A corrected effect is a row of its own beside the plain one: the same estimate and standard error,
the adjusted p-value, and an interval that holds for the family. Its estimator says so, such as
`welch_holm`. Absolute and relative effects answer the same question twice, so each scale is
corrected on its own.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field, model_validator

from causal.core.multiplicity import (
    FALSE_DISCOVERY,
    Correction,
    adjusted_pvalues,
    interval_levels,
)
from causal.core.result import Diagnostic, Effect, Scale
from causal.core.spec import Part
from causal.experiments.comparison import Inference, Readout, effects_of
from causal.experiments.metrics import Metric, MetricName

_SCALES: tuple[Scale, ...] = ("absolute", "relative")


class Multiplicity(Part):
    """Which effects are judged together, and how.

    Attributes:
        correction: The procedure.
        families: Metric names by the name of their family; every treatment's effect on them
            belongs to it. Left out: one family of the primary and one of the secondary metrics.
            Guardrails then stand outside, because each of them must hold on its own: a change
            ships only if all do, and that needs no correction (Berger 1982, intersection-union).
            Metrics in no family are not corrected.
    """

    correction: Correction = "holm"
    families: dict[MetricName, tuple[MetricName, ...]] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _members_are_unique(self) -> "Multiplicity":
        members = [name for family in (self.families or {}).values() for name in family]
        repeated = sorted({name for name in members if members.count(name) > 1})
        if repeated:
            raise ValueError(f"metric {repeated[0]} is in two families, or twice in one")
        empty = [name for name, family in (self.families or {}).items() if not family]
        if empty:
            raise ValueError(f"family {empty[0]} has no metrics")
        return self


def families_of(metrics: Sequence[Metric], how: Multiplicity) -> Mapping[str, tuple[str, ...]]:
    """Metric names by family."""
    if how.families is not None:
        return how.families
    by_role = {
        role: tuple(metric.name for metric in metrics if metric.role == role)
        for role in ("primary", "secondary")
    }
    return {role: names for role, names in by_role.items() if names}


def corrected(
    readouts: Sequence[Readout], how: Inference, *, family: str, correction: Correction
) -> tuple[list[Effect], Diagnostic]:
    """The corrected effects of one family, and how many of them are rejected.

    Args:
        readouts: One per hypothesis, each the best there is.
        how: How intervals are made; `1 - confidence_level` is the family's error rate.
        family: Its name.
        correction: The procedure.
    """
    found = [
        row
        for scale in _SCALES
        for row in _corrected_on(readouts, how, scale=scale, correction=correction)
    ]
    alpha = 1.0 - how.confidence_level
    tests = [row for row in found if row.scale == "absolute"]
    n_rejected = sum(row.pvalue <= alpha for row in tests)
    metrics = list(dict.fromkeys(row.metric for row in tests))
    rate = "false discovery rate" if correction in FALSE_DISCOVERY else "family-wise error rate"
    return found, Diagnostic(
        name=f"multiplicity.{family}",
        statistic=float(n_rejected),
        pvalue=None,
        passed=None,
        detail=(
            f"{n_rejected} of {len(tests)} effects on {', '.join(metrics)} differ from zero at a "
            f"{rate} of {alpha:.3g} ({correction})"
        ),
    )


def uncorrected(metrics: Sequence[Metric], families: Mapping[str, tuple[str, ...]]) -> Diagnostic:
    """Which metrics stand outside every family."""
    inside = {name for names in families.values() for name in names}
    outside = [metric.name for metric in metrics if metric.name not in inside]
    listed = ", ".join(outside) if outside else "none"
    return Diagnostic(
        name="multiplicity",
        statistic=float(len(outside)),
        pvalue=None,
        passed=None,
        detail=f"families: {', '.join(families) or 'none'}; metrics without correction: {listed}",
    )


def _corrected_on(
    readouts: Sequence[Readout], how: Inference, *, scale: Scale, correction: Correction
) -> list[Effect]:
    members = [
        (readout, effect)
        for readout in readouts
        for effect in readout.effects
        if effect.scale == scale
    ]
    if not members:
        return []
    pvalues = np.array([effect.pvalue for _, effect in members])
    adjusted = adjusted_pvalues(pvalues, correction=correction)
    levels = interval_levels(pvalues, correction=correction, alpha=1.0 - how.confidence_level)
    rows = []
    for (readout, _), pvalue, level in zip(members, adjusted, levels, strict=True):
        # A Fieller set may be bounded at the plain level and unbounded at this one: then no row.
        rows += [
            dataclasses.replace(
                effect,
                estimator=f"{effect.estimator}_{correction}",
                pvalue=float(pvalue),
                confidence_level=how.confidence_level,
            )
            for effect in effects_of(readout, how, confidence_level=float(level))
            if effect.scale == scale
        ]
    return rows
