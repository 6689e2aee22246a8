"""What an experiment asks of the data: the moments of each metric in each arm."""

import dataclasses
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
from causal.core.gram import Array, Gram, Key, grams, meat, pooled
from causal.core.inference import cr1_factor
from causal.experiments.metrics import Metric

ClusterCorrection = Literal["cr0", "cr1", "cr3", "none"]

MIN_UNITS = 2
MAX_SCORES = 48
"""Scores of one meat request; more metrics than fit are asked for in further passes."""

_ROUNDING = 1e-12
_SIGNS = (1.0, 1.0, -1.0)
"""Of two one-way meats and that of the combinations of both."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """Who was randomised to what.

    Attributes:
        unit: Column of the unit.
        variant: Column of the arm.
        control: The arm that the others are compared with.
        treatments: The arms to compare; `None`: all others.
        where: Conditions on the rows.
        strata: Columns by which the moments of each arm are told apart.
        period: Column of the period, where a unit has a row in each; `None`: one row per unit.
    """

    unit: str
    variant: str
    control: Level
    treatments: tuple[Level, ...] | None = None
    where: tuple[Condition, ...] = ()
    strata: tuple[str, ...] = ()
    period: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that identify a row."""
        return (self.unit,) if self.period is None else (self.unit, self.period)


Cells = Mapping[Level, Mapping[Key, Gram]]
"""Moments by arm and stratum; without strata the only stratum is `()`."""


@dataclass(frozen=True, kw_only=True)
class Arms:
    """Moments of every metric in every arm that is compared.

    Attributes:
        levels: The arms, control first.
        counts: Rows by arm, whether or not their metrics are missing.
        n_other: Rows in arms that are not compared.
        moments: By metric name, one Gram per arm in the order of `levels`.
        cells: By metric name, the moments by arm and stratum of which those are made.
    """

    levels: tuple[Level, ...]
    counts: Mapping[Level, int]
    n_other: int
    moments: Mapping[str, tuple[Gram, ...]]
    cells: Mapping[str, Cells]

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
    frame = yield KeyRequest(key=design.key, where=design.where)
    row = frame.to_dict("records")[0]
    if row["n_null"]:
        raise DataError(
            f"{' or '.join(design.key)} is null", given=f"{row['n_null']} of {row['n']} rows"
        )
    if row["n_duplicated"]:
        examples = ", ".join(map(str, row["examples"]))
        pairs = yield KeyRequest(key=(*design.key, design.variant), where=design.where)
        n_crossed = int(pairs["n_keys"].iloc[0]) - int(row["n_keys"])
        crossed = (
            f"{n_crossed} of them are in two variants" if n_crossed else "none changes variant"
        )
        raise DataError(
            f"{' and '.join(design.key)} must identify a row",
            given=(
                f"{row['n_duplicated']} units occur more than once, such as {examples}; {crossed}"
            ),
        )


def ask_arm_clusters(
    design: Design, arms: "Arms", columns: Sequence[str]
) -> Generator[FrameRequest, pd.DataFrame, dict[Level, int]]:
    """How many clusters each arm has; of the kind with more where there are two.

    The other kind is usually crossed with the arms, so that its total says enough.
    """
    counts: dict[Level, int] = {}
    for level in arms.levels:
        where = (*design.where, Condition(design.variant, (level,)))
        found = []
        for column in columns:
            frame = yield KeyRequest(key=(column,), where=where, n_examples=0)
            found.append(int(frame["n_keys"].iloc[0]))
        counts[level] = max(found)
    return counts


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
    answers: dict[tuple[Term, ...], Cells] = {terms: (yield from _by_arm(design, terms))}
    found = {level: pooled(strata.values()) for level, strata in answers[terms].items()}
    levels, n_other = _levels(design, found)
    counts = {level: found[level].n + found[level].n_missing for level in levels}
    is_complete = all(found[level].n_missing == 0 for level in levels)
    moments: dict[str, tuple[Gram, ...]] = {}
    cells: dict[str, Cells] = {}
    for metric in metrics:
        asked = terms if is_complete else metric.terms
        if asked not in answers:
            answers[asked] = yield from _by_arm(design, asked)
        cells[metric.name] = {
            level: {key: item.subset(metric.terms) for key, item in answers[asked][level].items()}
            for level in levels
        }
        moments[metric.name] = tuple(pooled(cells[metric.name][level].values()) for level in levels)
        _check_sizes(metric, dict(zip(levels, moments[metric.name], strict=True)))
    return Arms(levels=levels, counts=counts, n_other=n_other, moments=moments, cells=cells)


def with_moments(arms: Arms, moments: Mapping[str, tuple[Gram, ...]]) -> Arms:
    """The same arms with moments of further metrics, by name."""
    return dataclasses.replace(arms, moments={**arms.moments, **moments})


def ask_clustering(
    design: Design,
    metrics: Sequence[Metric],
    arms: Arms,
    *,
    cluster: tuple[str, ...],
    correction: ClusterCorrection,
) -> Generator[FrameRequest, pd.DataFrame, dict[str, Clustering]]:
    """The clustered covariance of every metric's mean vectors, by metric name.

    The covariance is that of the regression of each term on the arms' indicators, so two arms
    give the digits of statsmodels' `cov_type="cluster"`. With two cluster columns it is the sum of
    both less that of their combinations (Cameron, Gelbach and Miller 2011, "Robust inference with
    multiway clustering"), each part with its own factor; the degrees of freedom are those of the
    fewer clusters.

    Raises:
        DataError: The cluster is null somewhere, or an arm is one single cluster.
    """
    if correction == "cr3":
        return (yield from ask_jackknife(design, metrics, arms, cluster=cluster[0]))
    out: dict[str, Clustering] = {}
    for batch in _batches(metrics, arms):
        keys = _score_keys(batch, arms)
        scores = _mean_scores(design, keys, arms, batch)
        n_used = sum(gram.n for gram in arms.moments[batch[0].name])
        parts = yield from _ask_meats(
            scores, cluster=cluster, where=_compared(design, arms), n_used=n_used
        )
        for metric in batch:
            at = [keys.index((level, term)) for level in arms.levels for term in metric.terms]
            pieces = [
                _clustering(
                    metric, arms, matrix[np.ix_(at, at)], n_clusters=n, correction=correction
                )
                for matrix, n in parts
            ]
            out[metric.name] = _two_way(pieces)
    return out


def ask_jackknife(
    design: Design, metrics: Sequence[Metric], arms: Arms, *, cluster: str
) -> Generator[FrameRequest, pd.DataFrame, dict[str, Clustering]]:
    """The cluster jackknife (CR3): every cluster left out once, exactly, from moments by cluster.

    `(G-1)/G sum_g (m_g - m)(m_g - m)'` with `m_g` the arms' mean vectors without cluster g (Bell
    and McCaffrey 2002; MacKinnon, Nielsen and Webb 2023, "Fast and reliable jackknife and
    bootstrap methods for cluster-robust inference"). The driver holds one row per arm and cluster.

    Raises:
        DataError: The cluster is null somewhere, or an arm is one single cluster.
    """
    out: dict[str, Clustering] = {}
    all_terms = tuple(dict.fromkeys(term for metric in metrics for term in metric.terms))
    answers: dict[tuple[Term, ...], Mapping[Key, Gram]] = {}
    for metric in metrics:
        terms = all_terms if arms.is_complete else metric.terms
        if terms not in answers:
            request = GramRequest(
                terms=terms, by=(design.variant, cluster), where=_compared(design, arms)
            )
            answers[terms] = grams((yield request), request)
        _check_no_null(
            cluster, sum(item.n for key, item in answers[terms].items() if key[1] is None)
        )
        by_cluster = {
            key: item.subset(metric.terms) for key, item in answers[terms].items() if item.n > 0
        }
        out[metric.name] = _jackknife(metric, arms, by_cluster)
    return out


def ask_count_covariance(
    design: Design, arms: Arms, *, cluster: tuple[str, ...], shares: Sequence[float]
) -> Generator[FrameRequest, pd.DataFrame, Array]:
    """Clustered covariance of `count - share * total` of every arm but the first.

    Raises:
        DataError: The cluster is null somewhere.
    """
    scores = tuple(
        Score(linear([(Indicator(design.variant, level), 1.0), (Constant(), -share)]), Constant())
        for level, share in zip(arms.levels[1:], shares[1:], strict=True)
    )
    parts = yield from _ask_meats(
        scores, cluster=cluster, where=_compared(design, arms), n_used=sum(arms.counts.values())
    )
    return np.asarray(
        sum(sign * matrix for sign, (matrix, _) in zip(_SIGNS, parts, strict=False)),
        dtype=np.float64,
    )


def ask_score_covariance(
    scores: tuple[Score, ...],
    *,
    cluster: tuple[str, ...],
    where: tuple[Condition, ...],
    n_used: int,
    n_means: int,
) -> Generator[FrameRequest, pd.DataFrame, tuple[Array, int]]:
    """CR1 covariance of sums of scores, one-way or two-way, and the clusters behind it.

    Args:
        scores: The q scores; each sums to zero.
        cluster: One or two cluster columns.
        where: Conditions on the rows.
        n_used: Rows that the scores are to be found on.
        n_means: Means that were estimated to make them, k of the factor.

    Raises:
        DataError: The cluster is null somewhere.
    """
    parts = yield from _ask_meats(scores, cluster=cluster, where=where, n_used=n_used)
    pieces = [
        sign * cr1_factor(n=n_used, k=n_means, n_clusters=n_clusters) * matrix
        for sign, (matrix, n_clusters) in zip(_SIGNS, parts, strict=False)
    ]
    return np.asarray(sum(pieces), dtype=np.float64), min(n for _, n in parts[:2])


def _ask_meats(
    scores: tuple[Score, ...],
    *,
    cluster: tuple[str, ...],
    where: tuple[Condition, ...],
    n_used: int,
) -> Generator[FrameRequest, pd.DataFrame, list[tuple[Array, int]]]:
    """The meat and the number of clusters by each column, then by their combinations."""
    groupings = [(name,) for name in cluster] + ([cluster] if len(cluster) > 1 else [])
    out = []
    for grouping in groupings:
        frame = yield MeatRequest(scores=scores, cluster=grouping, where=where)
        _check_no_null(" or ".join(grouping), n_used - int(frame["n"].iloc[0]))
        out.append(meat(frame))
    return out


def _two_way(pieces: Sequence[Clustering]) -> Clustering:
    """One-way covariances summed, that of the combinations subtracted."""
    if len(pieces) == 1:
        return pieces[0]
    covariance = sum(sign * piece.covariance for sign, piece in zip(_SIGNS, pieces, strict=True))
    return Clustering(
        covariance=np.asarray(covariance, dtype=np.float64),
        n_terms=pieces[0].n_terms,
        n_clusters=min(piece.n_clusters for piece in pieces[:2]),
    )


def _jackknife(metric: Metric, arms: Arms, by_cluster: Mapping[Key, Gram]) -> Clustering:
    moments = dict(zip(arms.levels, arms.moments[metric.name], strict=True))
    size = len(metric.terms)
    rows: dict[Level | None, Array] = {}
    for (level, name), item in by_cluster.items():
        arm = arms.levels.index(_known(level))
        whole = moments[arms.levels[arm]]
        if item.n == whole.n:
            raise _one_cluster(metric, arms.levels[arm])
        row = rows.setdefault(name, np.zeros(len(moments) * size))
        shift = item.n / (whole.n - item.n) * (whole.mean - item.mean)
        row[arm * size : (arm + 1) * size] = shift
    changes = np.array(list(rows.values()))
    n_clusters = len(changes)
    covariance = (n_clusters - 1) / n_clusters * changes.T @ changes
    return Clustering(covariance=covariance, n_terms=size, n_clusters=n_clusters)


def _known(level: Level | None) -> Level:
    if level is None:
        raise DataError("a variant is null")
    return level


def _by_arm(
    design: Design, terms: tuple[Term, ...]
) -> Generator[FrameRequest, pd.DataFrame, dict[Level, dict[Key, Gram]]]:
    request = GramRequest(terms=terms, by=(design.variant, *design.strata), where=design.where)
    found = grams((yield request), request)
    nulls = sum(item.n + item.n_missing for key, item in found.items() if key[0] is None)
    if nulls:
        raise DataError(f"{design.variant} is null", given=f"{nulls} rows")
    out: dict[Level, dict[Key, Gram]] = {}
    for key, item in sorted(found.items(), key=lambda pair: str(pair[0][1:])):
        if key[0] is not None:
            out.setdefault(key[0], {})[key[1:]] = item
    return out


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
            raise _one_cluster(metric, level)


def _one_cluster(metric: Metric, level: Level) -> DataError:
    return DataError(
        f"{metric.name}: all units of variant {level} lie in one cluster, which leaves "
        "no clusters to compare"
    )


def _compared(design: Design, arms: Arms) -> tuple[Condition, ...]:
    return (*design.where, Condition(design.variant, arms.levels))
