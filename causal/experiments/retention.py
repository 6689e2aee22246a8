"""Retention of units, aware of those that have not been followed long enough.

Two forms. With a 0/1 column of who was there on the horizon's day, units whose window is not yet
complete are left out and counted. With the day on which a unit left, every unit counts for as long
as it was followed: the Kaplan-Meier estimate, whose error is Greenwood's. Both assume that when a
unit entered (which decides how long it can be followed) says nothing of how long it stays.

Sources: Kaplan and Meier (1958), "Nonparametric estimation from incomplete observations";
Greenwood (1926), "The natural duration of cancer"; Kalbfleisch and Prentice (2002), "The
statistical analysis of failure time data", for intervals on the complementary log-log scale.
"""

import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.checks.panel_health import note
from causal.core.errors import DataError
from causal.core.frames import Condition, FrameRequest, GramRequest, Level
from causal.core.gram import Array, Gram, grams
from causal.core.inference import critical_value
from causal.core.result import Diagnostic
from causal.experiments.ab_checks import check_outcome
from causal.experiments.arms import Arms, Design, ask_moments
from causal.experiments.cluster_sums import Clusterings, Clusters, ask_clustering
from causal.experiments.clustering import Clustering
from causal.experiments.comparison import Comparison, comparisons
from causal.experiments.influence import moments_of, named
from causal.experiments.metrics import Metric

COMPLETE, KAPLAN_MEIER = "complete_windows", "kaplan_meier"
MAX_DAYS = 2000
"""Different numbers of observed days that a column may hold."""

CURVE_COLUMNS = (
    "metric", "variant", "day", "n_at_risk", "n_events", "n_censored", "survival", "std_error",
    "ci_lower", "ci_upper",
)  # fmt: skip


@dataclass(frozen=True)
class Survival:
    """A Kaplan-Meier curve at the days on which someone left or was last seen.

    Attributes:
        day: The days, ascending, shape (d,).
        n_at_risk: Units followed up to the day and still there before it.
        n_events: Units that left on the day.
        n_censored: Units last seen on the day; they are at risk on it.
        survival: Share still there after the day.
        std_error: Greenwood's; NaN from the day on which the last unit leaves.
    """

    day: Array
    n_at_risk: Array
    n_events: Array
    n_censored: Array
    survival: Array
    std_error: Array

    def at(self, day: float) -> tuple[float, float]:
        """Share still there after a day, and its error."""
        before = int(np.searchsorted(self.day, day, side="right"))
        if before == 0:
            return 1.0, 0.0
        return float(self.survival[before - 1]), float(self.std_error[before - 1])


def survival(days: Array, events: Array, counts: Array) -> Survival:
    """The Kaplan-Meier curve of counted units.

    Args:
        days: Day on which units left or were last seen, shape (r,).
        events: 1 where they left, 0 where they were last seen, shape (r,).
        counts: Units, shape (r,).
    """
    day, at = np.unique(days, return_inverse=True)
    left = np.bincount(at, counts * events, len(day)).astype(np.float64)
    censored = np.bincount(at, counts * (1.0 - events), len(day)).astype(np.float64)
    gone = np.cumsum(left + censored)
    at_risk = counts.sum() - np.concatenate([[0.0], gone[:-1]])
    share = np.cumprod(1.0 - left / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(np.cumsum(left / (at_risk * (at_risk - left))))
        std_error = share * spread
    return Survival(day, at_risk, left, censored, share, std_error)


def log_log_interval(
    share: float, std_error: float, *, confidence_level: float
) -> tuple[float, float]:
    """Interval of a survival share on the scale `log(-log(share))`, which stays within 0 and 1."""
    if not (0.0 < share < 1.0 and math.isfinite(std_error)):
        return math.nan, math.nan
    spread = std_error / (share * abs(math.log(share)))
    factor = math.exp(critical_value(confidence_level) * spread)
    return share**factor, share ** (1.0 / factor)


@dataclass(frozen=True, kw_only=True)
class Retentions:
    """What the retention metrics add to an experiment.

    Attributes:
        moments: By metric, one Gram per arm: its mean is the retention, its covariance that of a
            unit's influence on it.
        comparisons: By metric, every treatment against control.
        clusterings: By metric, the clustered uncertainty of every comparison.
        diagnostics: Units that were not followed long enough.
        curves: The Kaplan-Meier curves with columns `CURVE_COLUMNS`; `None` without such metrics.
    """

    moments: Mapping[str, tuple[Gram, ...]]
    comparisons: Mapping[str, list[Comparison]]
    clusterings: Clusterings
    diagnostics: tuple[Diagnostic, ...]
    curves: pd.DataFrame | None


@dataclass(frozen=True, kw_only=True)
class _One:
    """One metric's share of `Retentions`."""

    moments: tuple[Gram, ...]
    comparisons: list[Comparison]
    diagnostic: Diagnostic
    clusterings: tuple[Clustering, ...] | None = None
    curves: tuple[pd.DataFrame, ...] = ()


def ask_retentions(
    design: Design,
    arms: Arms,
    metrics: Sequence[Metric],
    *,
    clusters: Clusters | None,
    confidence_level: float,
) -> Generator[FrameRequest, pd.DataFrame, Retentions]:
    """The retentions of every arm and their covariance.

    Args:
        design: Who was randomised to what.
        arms: The arms that are compared.
        metrics: The retention metrics.
        clusters: What was randomised, if not units.
        confidence_level: Of the curves' intervals.

    Raises:
        DataError: The columns are no days, a day contradicts the follow-up, or an arm has no unit
            that was followed long enough.
    """
    found: dict[str, _One] = {}
    compared = dataclasses.replace(design, treatments=arms.levels[1:], strata=())
    for metric in metrics:
        if metric.churn_day is None:
            found[metric.name] = yield from _ask_complete(compared, metric, clusters=clusters)
        else:
            found[metric.name] = yield from _ask_survival(
                compared, arms, metric, confidence_level=confidence_level
            )
    curves = [curve for one in found.values() for curve in one.curves]
    return Retentions(
        moments={name: one.moments for name, one in found.items()},
        comparisons={name: one.comparisons for name, one in found.items()},
        clusterings={
            name: one.clusterings for name, one in found.items() if one.clusterings is not None
        },
        diagnostics=tuple(one.diagnostic for one in found.values()),
        curves=pd.concat(curves, ignore_index=True) if curves else None,
    )


def _ask_complete(
    design: Design, metric: Metric, *, clusters: Clusters | None
) -> Generator[FrameRequest, pd.DataFrame, _One]:
    """The proportion of units that were followed up to the horizon."""
    observed = str(metric.observed_days)
    arms = (design.control, *(design.treatments or ()))
    where = (*design.where, Condition(design.variant, arms))
    request = GramRequest(terms=(), by=(design.variant, observed), where=where)
    counts = {key: item.n for key, item in grams((yield request), request).items()}
    days = _days(observed, [key[1] for key in counts])
    horizon = _horizon(metric)
    complete = tuple(level for level, day in days.items() if level is not None and day >= horizon)
    short = {
        level: sum(n for key, n in counts.items() if key[0] == level and key[1] not in complete)
        for level in arms
    }
    followed = {level: sum(n for key, n in counts.items() if key[0] == level) for level in arms}
    for level in arms:
        if followed[level] == short[level]:
            raise _not_followed(metric, level)
    inside = dataclasses.replace(design, where=(*where, Condition(observed, complete)))
    share = Metric(name=metric.name, type="proportion", column=metric.column)
    moments = yield from ask_moments(inside, [share])
    check_outcome(share, moments)
    clusterings: tuple[Clustering, ...] | None = None
    if clusters is not None:
        found = yield from ask_clustering(inside, [share], moments, clusters=clusters)
        clusterings = found[metric.name]
    pairs = [
        named(dataclasses.replace(item, metric=metric), COMPLETE)
        for item in comparisons(share, moments, clusterings)
    ]
    n_short = sum(short.values())
    detail = (
        f"{metric.name}: {n_short:,} units were followed for less than {horizon} days and are left "
        f"out ({_listed(short)})"
    )
    return _One(
        moments=moments.moments[metric.name],
        comparisons=pairs,
        clusterings=clusterings,
        diagnostic=_count(metric, n_short, detail),
    )


def _ask_survival(
    design: Design, arms: Arms, metric: Metric, *, confidence_level: float
) -> Generator[FrameRequest, pd.DataFrame, _One]:
    """The Kaplan-Meier estimate at the horizon."""
    columns = (str(metric.churn_day), str(metric.observed_days))
    where = (*design.where, Condition(design.variant, arms.levels))
    request = GramRequest(terms=(), by=(design.variant, *columns), where=where)
    counts = {key: item.n for key, item in grams((yield request), request).items()}
    gone = _days(columns[0], [key[1] for key in counts])
    followed = _days(columns[1], [key[2] for key in counts])
    units = {
        level: [
            _Units(left=gone.get(key[1]), observed=followed.get(key[2]), n=n)
            for key, n in counts.items()
            if key[0] == level
        ]
        for level in arms.levels
    }
    horizon = _horizon(metric)
    curves = {level: _curve(metric, level, some) for level, some in units.items()}
    moments = tuple(_moments(metric, level, curve, units[level]) for level, curve in curves.items())
    pairs = comparisons(metric, dataclasses.replace(arms, moments={metric.name: moments}), None)
    short = {level: _short(some, horizon) for level, some in units.items()}
    detail = (
        f"{metric.name}: {sum(short.values()):,} units are still there but were followed for less "
        f"than {horizon} days; they count for as long as they were ({_listed(short)})"
    )
    return _One(
        moments=moments,
        comparisons=[named(item, KAPLAN_MEIER) for item in pairs],
        diagnostic=_count(metric, sum(short.values()), detail),
        curves=tuple(
            _curve_rows(metric, level, curve, confidence_level) for level, curve in curves.items()
        ),
    )


@dataclass(frozen=True)
class _Units:
    """Units of one arm with the same days; `None`: null."""

    left: float | None
    observed: float | None
    n: int


def _curve(metric: Metric, level: Level, units: Sequence[_Units]) -> Survival:
    """The curve of one arm's units.

    Raises:
        DataError: A unit leaves after it was last seen, or none was followed to the horizon.
    """
    days, events, counts = [], [], []
    for some in units:
        if some.observed is None:
            continue
        if some.left is not None and some.left > some.observed:
            raise DataError(
                f"{metric.name}: units of variant {level} leave after they were last seen",
                given=f"{metric.churn_day} {some.left:g}, {metric.observed_days} {some.observed:g}",
            )
        days.append(some.observed if some.left is None else some.left)
        events.append(float(some.left is not None))
        counts.append(float(some.n))
    if not any(some.observed is not None and some.observed >= _horizon(metric) for some in units):
        raise _not_followed(metric, level)
    return survival(np.array(days), np.array(events), np.array(counts))


def _moments(metric: Metric, level: Level, curve: Survival, units: Sequence[_Units]) -> Gram:
    share, std_error = curve.at(_horizon(metric))
    n = sum(some.n for some in units if some.observed is not None)
    n_missing = sum(some.n for some in units if some.observed is None)
    if not (math.isfinite(std_error) and std_error > 0):
        raise DataError(
            f"{metric.name}: the retention of variant {level} has no error, for all of its units "
            "left or none did",
            given=f"{share:.3g} of {n:,} units",
        )
    return moments_of(metric, share, variance=std_error**2, n=n, n_missing=n_missing)


def _short(units: Sequence[_Units], horizon: int) -> int:
    """Units that are still there but were not followed to the horizon."""
    return sum(
        some.n
        for some in units
        if some.left is None and some.observed is not None and some.observed < horizon
    )


def _curve_rows(
    metric: Metric, level: Level, curve: Survival, confidence_level: float
) -> pd.DataFrame:
    ends = [
        log_log_interval(share, error, confidence_level=confidence_level)
        for share, error in zip(curve.survival, curve.std_error, strict=True)
    ]
    frame = pd.DataFrame(
        {
            "metric": metric.name, "variant": str(level), "day": curve.day,
            "n_at_risk": curve.n_at_risk.astype(np.int64),
            "n_events": curve.n_events.astype(np.int64),
            "n_censored": curve.n_censored.astype(np.int64),
            "survival": curve.survival, "std_error": curve.std_error,
            "ci_lower": [low for low, _ in ends], "ci_upper": [high for _, high in ends],
        }
    )  # fmt: skip
    return frame[list(CURVE_COLUMNS)]


def _days(column: str, levels: Sequence[Level | None]) -> dict[Level | None, float]:
    """Days by the level that stands for them; nulls are left out."""
    known = list(dict.fromkeys(level for level in levels if level is not None))
    if len(known) > MAX_DAYS:
        raise DataError(
            f"{column} holds too many different values to be a number of days",
            given=f"{len(known):,}",
            allowed=f"{MAX_DAYS:,}",
        )
    wrong = [level for level in known if isinstance(level, str | bool) or not float(level) >= 0]
    if wrong:
        raise DataError(f"{column} must hold days from 0 on", given=wrong[0])
    return {level: float(level) for level in known}


def _horizon(metric: Metric) -> int:
    return int(metric.horizon or 0)


def _not_followed(metric: Metric, level: Level) -> DataError:
    return DataError(
        f"{metric.name}: no unit of variant {level} was followed for {_horizon(metric)} days",
        allowed="a shorter horizon, or a later end of the data",
    )


def _listed(counts: Mapping[Level, int]) -> str:
    return ", ".join(f"{level} {count:,}" for level, count in counts.items())


def _count(metric: Metric, count: int, detail: str) -> Diagnostic:
    return note(f"incomplete_windows.{metric.name}", float(count), detail)
