"""What an experiment asks of the data: the moments of each metric in each arm."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Condition,
    Constant,
    FrameRequest,
    GramRequest,
    Indicator,
    KeyRequest,
    Level,
    MeatRequest,
    Score,
    Term,
    linear,
)
from causal.core.gram import Array, Gram, grams, meat
from causal.core.regression import cr1_factor
from causal.experiments.metrics import Metric

ClusterCorrection = Literal["cr1", "none"]

MIN_UNITS = 2
MAX_SCORES = 48
"""Scores of one meat request; more metrics than fit are asked for in further passes."""

_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Design:
    """Who was randomised to what.

    Attributes:
        unit: Column of the unit.
        variant: Column of the arm.
        control: The arm that the others are compared with.
        treatments: The arms to compare; `None`: all others.
        where: Conditions on the rows.
    """

    unit: str
    variant: str
    control: Level
    treatments: tuple[Level, ...] | None = None
    where: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Arms:
    """Moments of every metric in every arm that is compared.

    Attributes:
        levels: The arms, control first.
        counts: Rows by arm, whether or not their metrics are missing.
        n_other: Rows in arms that are not compared.
        moments: By metric name, one Gram per arm in the order of `levels`.
    """

    levels: tuple[Level, ...]
    counts: Mapping[Level, int]
    n_other: int
    moments: Mapping[str, tuple[Gram, ...]]

    @property
    def is_complete(self) -> bool:
        """Whether no row lacks a value of any metric."""
        return all(gram.n_missing == 0 for arms in self.moments.values() for gram in arms)


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """Joint covariance of the arms' mean vectors when clusters were randomised.

    Attributes:
        covariance: Shape (k p, k p): arm by arm, the p terms of the metric.
        n_terms: p.
        n_clusters: Clusters over all arms.
    """

    covariance: Array
    n_terms: int
    n_clusters: int

    def pair(self, arm: int) -> Array:
        """Covariance of the first (control) and another arm's mean vectors, shape (2p, 2p)."""
        size = self.n_terms
        at = [*range(size), *range(arm * size, (arm + 1) * size)]
        return self.covariance[np.ix_(at, at)]


def ask_units(design: Design) -> Generator[FrameRequest, pd.DataFrame, None]:
    """One row per unit, none without a unit.

    Raises:
        DataError: A unit is null or occurs twice.
    """
    frame = yield KeyRequest(key=(design.unit,), where=design.where)
    row = frame.to_dict("records")[0]
    if row["n_null"]:
        raise DataError(f"{design.unit} is null", given=f"{row['n_null']} of {row['n']} rows")
    if row["n_duplicated"]:
        examples = ", ".join(map(str, row["examples"]))
        raise DataError(
            f"{design.unit} must identify a row",
            given=f"{row['n_duplicated']} units occur more than once, such as {examples}",
        )


def ask_moments(
    design: Design, metrics: Sequence[Metric]
) -> Generator[FrameRequest, pd.DataFrame, Arms]:
    """The moments of every metric, on the rows that have all its columns.

    One pass serves all metrics when nothing is missing; otherwise each metric is asked for on its
    own, so that a null in one does not cost another a row.

    Raises:
        DataError: The variant is null somewhere, an arm is absent or has fewer than two units.
    """
    terms = tuple(dict.fromkeys(term for metric in metrics for term in metric.terms))
    found = yield from _by_arm(design, terms)
    levels, n_other = _levels(design, found)
    counts = {level: found[level].n + found[level].n_missing for level in levels}
    is_complete = all(found[level].n_missing == 0 for level in levels)
    answers: dict[tuple[Term, ...], Mapping[Level, Gram]] = {terms: found}
    moments = {}
    for metric in metrics:
        asked = terms if is_complete else metric.terms
        if asked not in answers:
            answers[asked] = yield from _by_arm(design, asked)
        grams_ = tuple(answers[asked][level].subset(metric.terms) for level in levels)
        _check_sizes(metric, dict(zip(levels, grams_, strict=True)))
        moments[metric.name] = grams_
    return Arms(levels=levels, counts=counts, n_other=n_other, moments=moments)


def ask_clustering(
    design: Design,
    metrics: Sequence[Metric],
    arms: Arms,
    *,
    cluster: str,
    correction: ClusterCorrection,
) -> Generator[FrameRequest, pd.DataFrame, dict[str, Clustering]]:
    """The clustered covariance of every metric's mean vectors, by metric name.

    The covariance is that of the regression of each term on the arms' indicators, so two arms
    give the digits of statsmodels' `cov_type="cluster"`.

    Raises:
        DataError: The cluster is null somewhere, or an arm is one single cluster.
    """
    out: dict[str, Clustering] = {}
    for batch in _batches(metrics, arms):
        keys = _score_keys(batch, arms)
        frame = yield MeatRequest(
            scores=_mean_scores(design, keys, arms, batch),
            cluster=(cluster,),
            where=_compared(design, arms),
        )
        matrix, n_clusters = meat(frame)
        n_used = sum(gram.n for gram in arms.moments[batch[0].name])
        _check_no_null(cluster, n_used - int(frame["n"].iloc[0]))
        for metric in batch:
            at = [keys.index((level, term)) for level in arms.levels for term in metric.terms]
            out[metric.name] = _clustering(
                metric, arms, matrix[np.ix_(at, at)], n_clusters=n_clusters, correction=correction
            )
    return out


def ask_count_covariance(
    design: Design, arms: Arms, *, cluster: str, shares: Sequence[float]
) -> Generator[FrameRequest, pd.DataFrame, Array]:
    """Clustered covariance of `count - share * total` of every arm but the first.

    Raises:
        DataError: The cluster is null somewhere.
    """
    scores = tuple(
        Score(linear([(Indicator(design.variant, level), 1.0), (Constant(), -share)]), Constant())
        for level, share in zip(arms.levels[1:], shares[1:], strict=True)
    )
    frame = yield MeatRequest(scores=scores, cluster=(cluster,), where=_compared(design, arms))
    _check_no_null(cluster, sum(arms.counts.values()) - int(frame["n"].iloc[0]))
    return meat(frame)[0]


def _by_arm(
    design: Design, terms: tuple[Term, ...]
) -> Generator[FrameRequest, pd.DataFrame, dict[Level, Gram]]:
    request = GramRequest(terms=terms, by=(design.variant,), where=design.where)
    frame = yield request
    found = {key[0]: gram for key, gram in grams(frame, request).items()}
    nulls = found.pop(None, None)
    if nulls is not None:
        raise DataError(f"{design.variant} is null", given=f"{nulls.n + nulls.n_missing} rows")
    return {level: gram for level, gram in found.items() if level is not None}


def _levels(design: Design, found: Mapping[Level, Gram]) -> tuple[tuple[Level, ...], int]:
    """The arms to compare, control first, and the number of rows in the others."""
    if not found:
        raise DataError("the source has no rows after the filters")
    wanted = (design.control, *(design.treatments or ()))
    absent = [level for level in wanted if level not in found]
    if absent:
        raise DataError(
            f"{design.variant} has no such variant", given=absent, allowed=sorted(found, key=str)
        )
    others = sorted((level for level in found if level != design.control), key=_order)
    treatments = design.treatments or tuple(others)
    if not treatments:
        raise DataError(
            f"{design.variant} has one arm only: there is nothing to compare", given=design.control
        )
    left_out = [found[level] for level in others if level not in treatments]
    return (design.control, *treatments), sum(gram.n + gram.n_missing for gram in left_out)


def _order(level: Level) -> tuple[bool, float, str]:
    """Numbers by value, text by text."""
    is_text = isinstance(level, str)
    return is_text, 0.0 if is_text else float(level), str(level)


def _check_sizes(metric: Metric, moments: Mapping[Level, Gram]) -> None:
    for level, gram in moments.items():
        if gram.n < MIN_UNITS:
            raise DataError(
                f"{metric.name}: variant {level} has fewer than {MIN_UNITS} units with a value",
                given=f"{gram.n} used, {gram.n_missing} missing",
            )


def _check_no_null(cluster: str, n_null: int) -> None:
    if n_null:
        raise DataError(f"{cluster} is null", given=f"{n_null} rows")


def _batches(metrics: Sequence[Metric], arms: Arms) -> list[list[Metric]]:
    """Metrics that share a pass: all rows complete, and few enough scores together."""
    batches: list[list[Metric]] = []
    for metric in metrics:
        is_first = not batches or not arms.is_complete
        if is_first or len(_score_keys([*batches[-1], metric], arms)) > MAX_SCORES:
            batches.append([])
        batches[-1].append(metric)
    return batches


def _score_keys(metrics: Sequence[Metric], arms: Arms) -> list[tuple[Level, Term]]:
    terms = dict.fromkeys(term for metric in metrics for term in metric.terms)
    return [(level, term) for level in arms.levels for term in terms]


def _mean_scores(
    design: Design,
    keys: Sequence[tuple[Level, Term]],
    arms: Arms,
    metrics: Sequence[Metric],
) -> tuple[Score, ...]:
    """Deviations from the arm's mean, inside the arm only."""
    means = {
        (level, term): float(gram.mean[gram.index(term)])
        for metric in metrics
        for level, gram in zip(arms.levels, arms.moments[metric.name], strict=True)
        for term in metric.terms
    }
    return tuple(
        Score(
            Indicator(design.variant, level),
            linear([(term, 1.0), (Constant(), -means[level, term])]),
        )
        for level, term in keys
    )


def _clustering(
    metric: Metric,
    arms: Arms,
    matrix: Array,
    *,
    n_clusters: int,
    correction: ClusterCorrection,
) -> Clustering:
    moments = arms.moments[metric.name]
    size = len(metric.terms)
    _check_several_clusters(metric, arms, np.diag(matrix).reshape(len(moments), size))
    n_units = np.repeat([float(gram.n) for gram in moments], size)
    factor = cr1_factor(n=sum(gram.n for gram in moments), k=len(moments), n_clusters=n_clusters)
    return Clustering(
        covariance=(factor if correction == "cr1" else 1.0) * matrix / np.outer(n_units, n_units),
        n_terms=size,
        n_clusters=n_clusters,
    )


def _check_several_clusters(metric: Metric, arms: Arms, sums: Array) -> None:
    """Deviations from an arm's mean add up to nothing over an arm that is one cluster."""
    for level, gram, between in zip(arms.levels, arms.moments[metric.name], sums, strict=True):
        within = np.diag(gram.cross)
        if (between <= _ROUNDING * within).all() and (within > 0).any():
            raise DataError(
                f"{metric.name}: all units of variant {level} lie in one cluster, which leaves "
                "no clusters to compare"
            )


def _compared(design: Design, arms: Arms) -> tuple[Condition, ...]:
    return (*design.where, Condition(design.variant, arms.levels))
