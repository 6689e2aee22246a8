"""What a plan asks of the user's own history: moments, cluster sums and arrivals, no unit rows."""

import dataclasses
import datetime as dt
import math
from collections import defaultdict
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
    KeyRequest,
    Level,
    MeatRequest,
    Score,
    Term,
    linear,
)
from causal.core.gram import Array, Gram, gram, grams, meat
from causal.experiments.cluster_df import ClusterSizes, intraclass_correlation
from causal.experiments.cluster_sums import MAX_CLUSTERS
from causal.experiments.duration import Arrivals
from causal.experiments.levels import covariate_thetas, is_binary, is_constant
from causal.experiments.metrics import Metric
from causal.experiments.power_outcome import Outcome, Response

_MIN_UNITS = 2
_MIN_CLUSTERS = 2
_MAX_DAYS = 3660

Asks = Generator[FrameRequest, pd.DataFrame, "History"]


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Outer products of the clusters' sums of deviations of the outcome and its q covariates.

    Attributes:
        sums: Summed over clusters, shape (1 + q, 1 + q).
        n_clusters: Clusters.
        sizes: Units of each cluster; empty: there are too many to look at.
    """

    sums: Array
    n_clusters: int
    sizes: tuple[int, ...] = ()

    def many(self, *, slopes: Array, within: float) -> "ManyClusters":
        """What many clusters like these would do to a metric.

        A cluster of n units is taken to add `n (1 + (n - 1) icc)` to the variance of a sum. By this
        the squared sums of deviations from an estimated level are less than those from the true
        one, and few sizes differ less than many would (`ArmClusters` has the expectations).

        Args:
            slopes: What multiplies outcome and covariates in the deviations, shape (1 + q,).
            within: Sum of the units' squared deviations.
        """
        size = self.n_clusters
        if not self.sizes:
            return ManyClusters(scale=size / (size - 1))
        units = np.array(self.sizes, dtype=np.float64)
        shares = units / units.sum()
        icc = intraclass_correlation(
            float(slopes @ self.sums @ slopes),
            within,
            sizes=ClusterSizes(units[None, :], shares[None, :]),
        )
        added = units * (1.0 + (units - 1.0) * icc)
        left = 1.0 - 2.0 * shares + shares @ shares
        shared = icc * (units @ units) / added.sum()
        spread = _spread_of_many(units)
        grown = 1.0 + shared * spread / size
        return ManyClusters(
            scale=float(added.sum() / (added @ left) * grown),
            evenness=1.0 / (1.0 + _spread_of_many(added)),
            size_cv=math.sqrt(spread),
            shared=min(float(shared * (1.0 + spread / size) / grown), 1.0),
        )


@dataclass(frozen=True, kw_only=True)
class ManyClusters:
    """What many clusters do to a metric, from the few of a history.

    Attributes:
        scale: Variance from many clusters over mean square of the history's sums.
        evenness: As of an `Outcome`, like the rest.
        size_cv: Of the clusters' sizes.
        shared: Share of the variance.
    """

    scale: float
    evenness: float = 1.0
    size_cv: float = 0.0
    shared: float = 0.0


def _spread_of_many(values: Array) -> float:
    """Squared coefficient of variation that gamma-distributed values have, from a few of them.

    That of G values, whose shares have a Dirichlet distribution, is expected to be
    `cv^2 (G - 1) / (G + cv^2)`.
    """
    size = values.size
    found = float(values.var() / values.mean() ** 2)
    return found * size / max(size - 1.0 - found, 1.0)


@dataclass(frozen=True, kw_only=True)
class History:
    """Moments of every metric in the history.

    Attributes:
        n: Rows, whether or not a metric is missing.
        moments: By metric name.
        clusters: By metric name; empty without clusters.
    """

    n: int
    moments: Mapping[str, Gram]
    clusters: Mapping[str, Clusters]


@dataclass(frozen=True)
class ArrivalHistory:
    """Arrivals by day, and the rows without a day."""

    arrivals: Arrivals
    n_without_day: int


def ask_history(
    metrics: Sequence[Metric], *, unit: str, cluster: str | None, where: tuple[Condition, ...]
) -> Asks:
    """The moments of every metric on the rows that have its columns; clustered ones with them.

    Raises:
        DataError: A unit or cluster is null, a unit occurs twice, or a metric has no variance.
    """
    yield from _ask_units(unit, where)
    terms = tuple(dict.fromkeys(term for metric in metrics for term in metric.terms))
    everything = yield from _ask_gram(terms, where)
    moments = {}
    for metric in metrics:
        found = everything
        if everything.n_missing and set(metric.terms) != set(terms):
            found = yield from _ask_gram(metric.terms, where)
        moments[metric.name] = found.subset(metric.terms)
        _check_outcome(metric, moments[metric.name])
    clusters = {}
    if cluster is not None:
        for metric in metrics:
            clusters[metric.name] = yield from _ask_clusters(
                metric, moments[metric.name], cluster=cluster, where=where
            )
    return History(n=everything.n + everything.n_missing, moments=moments, clusters=clusters)


def ask_arrivals(
    *, day: str, is_new: str | None, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, ArrivalHistory]:
    """Units by the day on which they first appeared.

    Raises:
        DataError: A day is no date or whole number, `is_new` is not 0/1, or there are no days.
    """
    request = GramRequest(terms=(), by=(day,) if is_new is None else (day, is_new), where=where)
    frame = yield request
    new: dict[int, int] = defaultdict(int)
    returning: dict[int, int] = defaultdict(int)
    n_without_day = 0
    for key, found in grams(frame, request).items():
        count = found.n + found.n_missing
        if key[0] is None:
            n_without_day += count
            continue
        is_first = is_new is None or _flag(key[1], is_new)
        (new if is_first else returning)[_day_number(key[0], day)] += count
    days = sorted({*new, *returning})
    if not days:
        raise DataError(f"{day} is null in every row")
    if days[-1] - days[0] >= _MAX_DAYS:
        raise DataError(f"{day} spans too many days", given=days[-1] - days[0] + 1)
    stretch = range(days[0], days[-1] + 1)
    arrivals = Arrivals(
        new=np.array([float(new[number]) for number in stretch]),
        returning=np.array([float(returning[number]) for number in stretch]),
    )
    return ArrivalHistory(arrivals, n_without_day)


def outcome_of(
    metric: Metric,
    history: History,
    *,
    response: Response = "additive",
    is_adjusted: bool = True,
) -> Outcome:
    """The metric as a planned outcome, adjusted for its covariates or raw.

    The coefficients are those of CUPED over the history's units; with clusters the moments are
    those of the clusters' sums, scaled up to those of many such clusters.

    Args:
        metric: The metric.
        history: What was asked.
        response: How the treatment moves units.
        is_adjusted: Whether the metric's covariates are used.

    Raises:
        DataError: A covariate is constant or collinear, or explains the metric exactly.
    """
    moments = history.moments[metric.name]
    thetas = np.zeros(len(metric.covariates))
    if is_adjusted and metric.covariates:
        thetas = covariate_thetas(moments, moments, quotients=metric.quotients, theta="within")
    clusters, slopes = history.clusters.get(metric.name), np.concatenate([[1.0], -thetas])
    found, many = _linearised(metric, moments), None
    if clusters is not None:
        many = clusters.many(slopes=slopes, within=float(slopes @ found @ slopes) * (moments.n - 1))
        found = clusters.sums / moments.n * many.scale
    variance, across, within = found[0, 0], found[1:, 0], found[1:, 1:]
    covariance, predicted = float(thetas @ across), float(thetas @ within @ thetas)
    if not variance - 2 * covariance + predicted > 1e-12 * variance:
        raise DataError(f"{metric.name}: the covariates explain it exactly")
    outcome = Outcome(
        level=metric.quotients[0].value(moments.mean),
        variance=float(variance),
        covariance=covariance,
        predicted=predicted,
        is_proportion=metric.type == "proportion",
        response=response,
    )
    if clusters is None or many is None:
        return outcome
    return dataclasses.replace(
        outcome,
        units_per_cluster=moments.n / clusters.n_clusters,
        evenness=many.evenness,
        size_cv=many.size_cv,
        shared=many.shared,
    )


def unit_variance(metric: Metric, history: History) -> float:
    """Variance of the (linearised) outcome over units, clusters aside."""
    moments = history.moments[metric.name]
    return float(_linearised(metric, moments)[0, 0])


def _linearised(metric: Metric, moments: Gram) -> Array:
    """Covariance of outcome and covariates over units, shape (1 + q, 1 + q)."""
    gradients = np.array([quotient.gradient(moments.mean) for quotient in metric.quotients])
    return np.asarray(gradients @ moments.covariance @ gradients.T, dtype=np.float64)


def _ask_units(
    unit: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, None]:
    frame = yield KeyRequest(key=(unit,), where=where)
    row = frame.to_dict("records")[0]
    if row["n_null"]:
        raise DataError(f"{unit} is null", given=f"{row['n_null']} of {row['n']} rows")
    if row["n_duplicated"]:
        examples = ", ".join(map(str, row["examples"]))
        raise DataError(
            f"{unit} must identify a row",
            given=f"{row['n_duplicated']} units occur more than once, such as {examples}",
        )


def _ask_gram(
    terms: tuple[Term, ...], where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Gram]:
    request = GramRequest(terms=terms, where=where)
    frame = yield request
    return gram(frame, request)


def _ask_clusters(
    metric: Metric, moments: Gram, *, cluster: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Clusters]:
    scores = tuple(
        _deviation(moments, quotient.gradient(moments.mean)) for quotient in metric.quotients
    )
    frame = yield MeatRequest(scores=scores, cluster=(cluster,), where=where)
    n_null = moments.n - int(frame["n"].iloc[0])
    if n_null:
        raise DataError(f"{cluster} is null", given=f"{n_null} rows")
    sums, n_clusters = meat(frame)
    if n_clusters < _MIN_CLUSTERS:
        raise DataError(f"{cluster}: a plan needs several clusters", given=n_clusters)
    if n_clusters == moments.n:
        raise DataError(f"{cluster}: every unit is a cluster of its own; leave cluster out")
    if not sums[0, 0] > 0:
        raise DataError(f"{metric.name}: zero variance between clusters")
    sizes: tuple[int, ...] = ()
    if n_clusters <= MAX_CLUSTERS:
        request = GramRequest(terms=metric.terms, by=(cluster,), where=where)
        found = grams((yield request), request)
        sizes = tuple(sorted(item.n for item in found.values() if item.n > 0))
    return Clusters(sums=sums, n_clusters=n_clusters, sizes=sizes)


def _deviation(moments: Gram, gradient: Array) -> Score:
    """A linearised metric's deviation from its level, per row."""
    parts = [
        (term, float(slope))
        for term, slope in zip(moments.terms, gradient, strict=True)
        if slope != 0.0
    ]
    centre = -float(gradient @ moments.mean)
    return Score(linear([*parts, (Constant(), centre)]), Constant())


def _check_outcome(metric: Metric, moments: Gram) -> None:
    if moments.n < _MIN_UNITS:
        raise DataError(f"{metric.name}: fewer than {_MIN_UNITS} units", given=moments.n)
    outcome = metric.quotients[0]
    if is_constant(moments, outcome):
        raise DataError(
            f"{metric.name}: zero variance, every unit has the same value",
            given=outcome.value(moments.mean),
        )
    if metric.type == "proportion" and not is_binary(moments, outcome.numerator):
        raise DataError(
            f"{metric.name}: a proportion needs a column of zeros and ones", given=metric.column
        )


def _flag(value: Level | None, column: str) -> bool:
    if value is None or isinstance(value, str) or value not in {0, 1}:
        raise DataError(f"{column} must be 0 or 1, or true or false", given=value)
    return bool(value)


def _day_number(value: Level, column: str) -> int:
    """Days since an epoch: a date as its ordinal, a whole number as it is."""
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value[:10]).toordinal()
        except ValueError:
            pass
    elif not isinstance(value, bool) and float(value).is_integer():
        return int(value)
    raise DataError(f"{column} must hold dates or whole numbers of days", given=value)
