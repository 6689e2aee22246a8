"""What a clustered comparison asks of the data: sums by cluster, or only their squares.

Up to `MAX_CLUSTERS` clusters of the arms come to the driver, one row each, so that every correction
and the degrees of freedom can look at them. Beyond that the squares are summed where the rows are
(`cr0` and `cr1` only), and the number of clusters says how many degrees of freedom there are.
"""

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Condition,
    Constant,
    FrameRequest,
    GramRequest,
    Indicator,
    Level,
    MeatRequest,
    Score,
    Term,
    linear,
)
from causal.core.gram import Array, Gram, Key, grams, meat
from causal.experiments.arms import Arms, Design
from causal.experiments.cluster_df import ClusterSizes
from causal.experiments.clustering import (
    ClusterCorrection,
    Clustering,
    ClusterSums,
    DegreesOfFreedom,
    Way,
    cluster_factor,
    one_way,
)
from causal.experiments.metrics import Metric

MAX_CLUSTERS = 20_000
"""Clusters, counted in each arm, that may come to the driver."""
MAX_SCORES = 48
"""Scores of one meat request; more metrics than fit are asked for in further passes."""

_ROUNDING = 1e-12
_SIGNS = (1.0, 1.0, -1.0)
_TWO = 2

_Counted = tuple[tuple[str, ...], tuple[Condition, ...]]

Clusterings = Mapping[str, tuple[Clustering, ...]]
"""By metric name, one for each treatment in the order of the arms."""


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """What was randomised, if not units.

    Attributes:
        columns: One or two columns of clusters.
        correction: Small-sample correction of the covariance.
        degrees_of_freedom: How they are found.
        held: For each column, whether its clusters come to the driver.
        counts: By the columns and the conditions on the rows, the clusters of each arm as far as
            they were counted.
    """

    columns: tuple[str, ...]
    correction: ClusterCorrection
    degrees_of_freedom: DegreesOfFreedom
    held: tuple[bool, ...]
    counts: Mapping[_Counted, Mapping[Level, int]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class ClusterRows:
    """Moments of terms by cell (an arm, or an arm of a segment) and cluster, one row each.

    Attributes:
        terms: The p terms.
        cells: Cell of each row.
        clusters: Cluster of each row, a number from 0.
        n: Units, shape (r,).
        means: Means, shape (r, p).
    """

    terms: tuple[Term, ...]
    cells: tuple[Key, ...]
    clusters: Array
    n: Array
    means: Array

    def sums(self, metric: Metric, moments: Mapping[Key, Gram]) -> ClusterSums:
        """What each cluster adds to the mean vectors of some cells.

        Args:
            metric: The metric.
            moments: Moments of its terms by cell, in the order that is wanted.

        Raises:
            DataError: A cell is one single cluster.
        """
        order = {cell: at for at, cell in enumerate(moments)}
        rows = [at for at, cell in enumerate(self.cells) if cell in order]
        cell = np.array([order[self.cells[at]] for at in rows])
        names, cluster = np.unique(self.clusters[rows], return_inverse=True)
        means = self.means[rows][:, [self.terms.index(term) for term in metric.terms]]
        whole = np.array([gram.mean for gram in moments.values()])
        totals = np.array([float(gram.n) for gram in moments.values()])
        units = np.zeros((len(order), len(names)))
        units[cell, cluster] = self.n[rows]
        contributions = np.zeros((*units.shape, means.shape[1]))
        contributions[cell, cluster] = (self.n[rows] / totals[cell])[:, None] * (
            means - whole[cell]
        )
        weights = units.copy()
        if metric.quotients[0].denominator is not None:
            weights[cell, cluster] *= means[:, metric.quotients[0].denominator]
        shares = _shares(units, weights)
        alone = np.flatnonzero(shares.max(axis=1) > 1.0 - _ROUNDING)
        if len(alone):
            raise _one_cluster(metric, list(moments)[alone[0]][0])
        return ClusterSums(ClusterSizes(units, shares), contributions)


def ask_clusters(
    design: Design,
    arms: Arms,
    *,
    columns: tuple[str, ...],
    correction: ClusterCorrection | None,
    degrees_of_freedom: DegreesOfFreedom,
) -> Generator[FrameRequest, pd.DataFrame, Clusters]:
    """How the clusters are going to be read.

    Args:
        design: Who was randomised to what.
        arms: The arms that are compared.
        columns: One or two columns of clusters.
        correction: `None`: `cr2` for one column of clusters that come to the driver, else `cr1`.
        degrees_of_freedom: How they are found.

    Raises:
        DataError: The correction or the degrees of freedom need more clusters than may come.
    """
    held, most = [], 0
    counts: dict[_Counted, Mapping[Level, int]] = {}
    for column in columns:
        found = yield from _ask_arm_counts(design, arms, (column,))
        counts[(column,), compared(design, arms.levels)] = found
        count = sum(found.values())
        held.append(count <= MAX_CLUSTERS)
        most = max(most, count)
    asked = [] if correction not in {"cr2", "cr3"} else [f"cluster_correction {correction}"]
    asked += ["degrees_of_freedom bell_mccaffrey"] * (degrees_of_freedom == "bell_mccaffrey")
    if asked and not all(held):
        raise DataError(
            f"{asked[0]} looks at every cluster and there are too many; leave it out",
            given=f"{most:,} clusters",
            allowed=f"{MAX_CLUSTERS:,}",
        )
    default: ClusterCorrection = "cr2" if held == [True] else "cr1"
    return Clusters(
        columns=columns,
        correction=correction or default,
        degrees_of_freedom=degrees_of_freedom,
        held=tuple(held),
        counts=counts,
    )


def ask_clustering(
    design: Design, metrics: Sequence[Metric], arms: Arms, *, clusters: Clusters
) -> Generator[FrameRequest, pd.DataFrame, Clusterings]:
    """The clustered uncertainty of every comparison of every metric.

    A comparison uses its own two arms: two arms and `cr0` or `cr1` give the standard errors of
    statsmodels' `cov_type="cluster"` on their rows. With two cluster columns the covariance is the
    sum of both less that of their combinations, each with its own factor; the degrees of freedom
    are the fewer of both.

    Raises:
        DataError: The cluster is null somewhere, or an arm is one single cluster.
    """
    ways: dict[str, list[list[Way]]] = {metric.name: [] for metric in metrics}
    for column, is_held in zip(clusters.columns, clusters.held, strict=True):
        ask = _ask_held if is_held else _ask_squares
        found = yield from ask(design, metrics, arms, (column,), clusters)
        for name, items in found.items():
            ways[name].append(items)
    if len(clusters.columns) > 1:
        found = yield from _ask_squares(design, metrics, arms, clusters.columns, clusters)
        for name, items in found.items():
            ways[name].append(items)
    return {
        metric.name: tuple(
            Clustering(
                ways=tuple(items[arm - 1] for items in ways[metric.name]),
                correction=clusters.correction,
                degrees_of_freedom=clusters.degrees_of_freedom,
                n_units=(arms.moments[metric.name][0].n, arms.moments[metric.name][arm].n),
            )
            for arm in range(1, len(arms.levels))
        )
        for metric in metrics
    }


def ask_cluster_rows(
    design: Design,
    terms: tuple[Term, ...],
    *,
    by: tuple[str, ...],
    cluster: str,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, ClusterRows]:
    """Moments by cell and cluster.

    Args:
        design: Who was randomised to what.
        terms: The terms; a row that lacks one is left out.
        by: Further columns whose combinations with the variant are the cells.
        cluster: Column of the clusters.
        where: Conditions on the rows.

    Raises:
        DataError: The cluster is null somewhere.
    """
    request = GramRequest(terms=terms, by=(design.variant, *by, cluster), where=where)
    found = grams((yield request), request)
    used = sorted(
        ((key, item) for key, item in found.items() if item.n > 0), key=lambda pair: str(pair[0])
    )
    check_no_null(cluster, sum(item.n for key, item in used if key[-1] is None))
    numbers = {name: at for at, name in enumerate(dict.fromkeys(key[-1] for key, _ in used))}
    return ClusterRows(
        terms=terms,
        cells=tuple(key[:-1] for key, _ in used),
        clusters=np.array([numbers[key[-1]] for key, _ in used]),
        n=np.array([float(item.n) for _, item in used]),
        means=np.array([item.mean for _, item in used]).reshape(len(used), len(terms)),
    )


def ask_count_covariance(
    design: Design, arms: Arms, *, cluster: tuple[str, ...], shares: Sequence[float]
) -> Generator[FrameRequest, pd.DataFrame, Array]:
    """Clustered covariance of `count - share * total` of every arm but the first.

    Raises:
        DataError: The cluster is null somewhere.
    """
    scores = tuple(Score(Indicator(design.variant, level), Constant()) for level in arms.levels)
    where = compared(design, arms.levels)
    parts = yield from _ask_meats(
        scores, cluster=cluster, where=where, n_used=sum(arms.counts.values())
    )
    products = [matrix for matrix, _ in parts]
    if len(products) == 1:
        return count_covariance(products[0], n_units=sum(arms.counts.values()), shares=shares)
    step = _excess(len(arms.levels), shares)
    found = [step @ matrix @ step.T for matrix in products]
    return np.asarray(
        sum(sign * item for sign, item in zip(_SIGNS, found, strict=True)), dtype=np.float64
    )


def count_covariance(products: Array, *, n_units: int, shares: Sequence[float]) -> Array:
    """Covariance of `count - share * total` of every arm but the first, one way of clustering.

    Where each cluster lies in one arm it is that of clusters assigned one by one,
    `sum n_g^2 (diag(share) - share share')`: it does not depend on which clusters the arms got,
    whereas the observed squares are too small when a large one missed a small arm. Where units
    were assigned within clusters it is the observed squares. In between the two are weighed by the
    pairs of units of one cluster in different arms, over those that assignment unit by unit makes.

    Args:
        products: `sum_g n_g n_g'`, n_g the units of a cluster by arm, shape (k, k).
        n_units: Units of all arms.
        shares: Planned shares, shape (k,).
    """
    planned = np.asarray(shares, dtype=np.float64)
    step = _excess(len(planned), planned)
    observed = step @ products @ step.T
    squares = float(products.sum())
    nested = squares * (np.diag(planned) - np.outer(planned, planned))[1:, 1:]
    apart = squares - float(np.trace(products))
    by_unit = (1.0 - float(planned @ planned)) * (squares - n_units)
    crossed = min(apart / by_unit, 1.0) if by_unit > 0 else 0.0
    if crossed > 1.0 - _ROUNDING:
        return np.asarray(observed, dtype=np.float64)
    return np.asarray(crossed * observed + (1.0 - crossed) * nested, dtype=np.float64)


def _excess(n_arms: int, shares: Sequence[float] | Array) -> Array:
    """Maps counts to those of every arm but the first less their shares of all."""
    out = np.eye(n_arms) - np.outer(np.asarray(shares, dtype=np.float64), np.ones(n_arms))
    return np.asarray(out[1:], dtype=np.float64)


def ask_score_covariance(
    scores: tuple[Score, ...],
    *,
    clusters: Clusters,
    where: tuple[Condition, ...],
    n_used: int,
    n_means: int,
) -> Generator[FrameRequest, pd.DataFrame, tuple[Array, int]]:
    """Covariance of sums of scores, one-way or two-way, and the clusters behind it.

    Args:
        scores: The q scores; each sums to zero.
        clusters: The clusters, with a correction that needs their squares only.
        where: Conditions on the rows.
        n_used: Rows that the scores are to be found on.
        n_means: Means that were estimated to make them, k of the factor.

    Raises:
        DataError: The cluster is null somewhere.
    """
    parts = yield from _ask_meats(scores, cluster=clusters.columns, where=where, n_used=n_used)
    pieces = [
        sign
        * cluster_factor(clusters.correction, n=n_used, k=n_means, n_clusters=n_clusters)
        * matrix
        for sign, (matrix, n_clusters) in zip(_SIGNS, parts, strict=False)
    ]
    return np.asarray(sum(pieces), dtype=np.float64), min(n for _, n in parts[:_TWO])


def compared(design: Design, levels: Sequence[Level]) -> tuple[Condition, ...]:
    """Conditions on the rows of some arms."""
    return (*design.where, Condition(design.variant, tuple(levels)))


def check_no_null(cluster: str, n_null: int) -> None:
    """Every row has a cluster.

    Raises:
        DataError: Some have none.
    """
    if n_null:
        raise DataError(f"{cluster} is null", given=f"{n_null} rows")


def _ask_held(
    design: Design,
    metrics: Sequence[Metric],
    arms: Arms,
    columns: tuple[str, ...],
    clusters: Clusters,
) -> Generator[FrameRequest, pd.DataFrame, dict[str, list[Way]]]:
    """Every comparison from the moments by arm and cluster; one pass where nothing is missing."""
    all_terms = tuple(dict.fromkeys(term for metric in metrics for term in metric.terms))
    answers: dict[tuple[Term, ...], ClusterRows] = {}
    out = {}
    for metric in metrics:
        terms = all_terms if arms.is_complete else metric.terms
        if terms not in answers:
            answers[terms] = yield from ask_cluster_rows(
                design, terms, by=(), cluster=columns[0], where=compared(design, arms.levels)
            )
        moments = dict(zip(arms.levels, arms.moments[metric.name], strict=True))
        out[metric.name] = [
            one_way(
                answers[terms].sums(metric, {(a,): moments[a] for a in (arms.levels[0], level)}),
                clusters.correction,
            )
            for level in arms.levels[1:]
        ]
    return out


def _ask_squares(
    design: Design,
    metrics: Sequence[Metric],
    arms: Arms,
    columns: tuple[str, ...],
    clusters: Clusters,
) -> Generator[FrameRequest, pd.DataFrame, dict[str, list[Way]]]:
    """Every comparison from summed squares, its two arms at a time.

    The corrections that go with it (cr0, cr1) leave the squares of single clusters as they are.
    """
    out: dict[str, list[Way]] = {metric.name: [] for metric in metrics}
    counts = clusters.counts.get((columns, compared(design, arms.levels)))
    if counts is None:
        counts = yield from _ask_arm_counts(design, arms, columns)
    for position, level in enumerate(arms.levels[1:], start=1):
        pair = _pair(arms, position)
        for batch in _batches(metrics, pair):
            keys = _score_keys(batch, pair)
            scores = _mean_scores(design, keys, pair, batch)
            n_used = sum(gram.n for gram in pair.moments[batch[0].name])
            frame = yield MeatRequest(
                scores=scores, cluster=columns, where=compared(design, pair.levels)
            )
            check_no_null(" or ".join(columns), n_used - int(frame["n"].iloc[0]))
            matrix, n_clusters = meat(frame)
            for metric in batch:
                at = [keys.index((a, term)) for a in pair.levels for term in metric.terms]
                out[metric.name].append(
                    _summed_way(
                        metric,
                        pair,
                        matrix[np.ix_(at, at)],
                        n_clusters=n_clusters,
                        arm_clusters=(counts[arms.levels[0]], counts[level]),
                    )
                )
    return out


def _ask_arm_counts(
    design: Design, arms: Arms, columns: tuple[str, ...]
) -> Generator[FrameRequest, pd.DataFrame, dict[Level, int]]:
    """Clusters with units in each arm, in one pass."""
    request = GramRequest(
        terms=(), by=(design.variant,), where=compared(design, arms.levels), summed_by=columns
    )
    found = grams((yield request), request)
    return {level: found[(level,)].n if (level,) in found else 0 for level in arms.levels}


def _pair(arms: Arms, position: int) -> Arms:
    """Control and one treatment."""
    moments = {name: (items[0], items[position]) for name, items in arms.moments.items()}
    return dataclasses.replace(
        arms, levels=(arms.levels[0], arms.levels[position]), moments=moments
    )


def _summed_way(
    metric: Metric,
    pair: Arms,
    matrix: Array,
    *,
    n_clusters: int,
    arm_clusters: tuple[int, int],
) -> Way:
    moments = pair.moments[metric.name]
    size = len(metric.terms)
    sums = np.diag(matrix).reshape(len(moments), size)
    for level, gram, between in zip(pair.levels, moments, sums, strict=True):
        within = np.diag(gram.cross)
        # Deviations from an arm's mean add up to nothing over an arm that is one cluster.
        if (between <= _ROUNDING * within).all() and (within > 0).any():
            raise _one_cluster(metric, level)
    n_units = np.repeat([float(gram.n) for gram in moments], size)
    scaled = matrix / np.outer(n_units, n_units)
    return Way(matrix=scaled, between=scaled, n_clusters=n_clusters, arm_clusters=arm_clusters)


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
        check_no_null(" or ".join(grouping), n_used - int(frame["n"].iloc[0]))
        out.append(meat(frame))
    return out


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


def _shares(units: Array, weights: Array) -> Array:
    """Shares of the weights; of the units where a denominator is negative in some cluster."""
    totals = weights.sum(axis=1, keepdims=True)
    if (weights < 0).any() or not (totals > 0).all():
        weights, totals = units, units.sum(axis=1, keepdims=True)
    return np.asarray(weights / totals, dtype=np.float64)


def _one_cluster(metric: Metric, level: Level | None) -> DataError:
    return DataError(
        f"{metric.name}: all units of variant {level} lie in one cluster, which leaves "
        "no clusters to compare"
    )
