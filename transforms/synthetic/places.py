"""Regions and cities: sizes, weekly shocks common to their units, and the staggered rollout.

There are few of them, so they are drawn as plain numbers on the driver, with the same hash as
everything else, and reach the rows as constants.
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column

from transforms.synthetic.parameters import Fault, World
from transforms.synthetic.randomness import Draws, lookup


@dataclass(frozen=True, kw_only=True)
class PlacePlan:
    """All places of a world, in a fixed order; a row refers to a place by its position.

    Attributes:
        names: Name of each place, such as `US-03`.
        groups: Country or market of each place.
        weights: Expected share of units of each place; they add to one.
        first_treated_periods: Week in which the rollout reaches each place; None is never.
        factors: (n_places, n_weeks) factor on the usage of every unit of the place in the week.
        intensities: (n_places, n_weeks) size of the rollout's effect relative to its parameters;
            zero before the rollout and where it never comes.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    weights: tuple[float, ...]
    first_treated_periods: tuple[int | None, ...]
    factors: npt.NDArray[np.float64]
    intensities: npt.NDArray[np.float64]

    @property
    def n_weeks(self) -> int:
        """Weeks of the world."""
        return int(self.factors.shape[1])

    def name(self, place: Column) -> Column:
        """Name of the place at a position."""
        return lookup(self.names, place)

    def group(self, place: Column) -> Column:
        """Country or market of the place at a position."""
        return lookup(self.groups, place)

    def factor(self, place: Column, week: Column) -> Column:
        """Usage factor of a place in a week."""
        return lookup(_flat(self.factors), place * self.n_weeks + week)

    def intensity(self, place: Column, week: Column) -> Column:
        """Relative size of the rollout's effect in a place and week."""
        return lookup(_flat(self.intensities), place * self.n_weeks + week)


def plan_places(world: World, draws: Draws, *, n_weeks: int, faults: frozenset[Fault]) -> PlacePlan:
    """Draw the places of a world.

    The weekly log shock of a place is a stationary first-order autoregression, so errors of a place
    are correlated over its units and over weeks: inference on the rollout has to cluster by place.
    The places of each rollout cohort are a simple random sample, which makes trends parallel by
    design unless `trend_violation` is on.
    """
    groups = world.places.groups
    names = [
        f"{group}-{k + 1:02d}" for group, block in groups.items() for k in range(block.n_places)
    ]
    first = _first_treated_periods(world, draws, n_places=len(names))
    return PlacePlan(
        names=tuple(names),
        groups=tuple(name.rsplit("-", 1)[0] for name in names),
        weights=_weights(world),
        first_treated_periods=first,
        factors=_factors(world, draws, first, n_weeks=n_weeks, faults=faults),
        intensities=_intensities(world, first, n_weeks=n_weeks, faults=faults),
    )


def autoregression(
    noise: npt.NDArray[np.float64], *, persistence: float
) -> npt.NDArray[np.float64]:
    """A stationary first-order autoregression of unit variance along the last axis.

    Args:
        noise: Independent standard normal draws, shape (places, periods).
        persistence: Correlation of one period with the next.
    """
    shocks = noise.copy()
    for period in range(1, noise.shape[1]):
        shocks[:, period] = (
            persistence * shocks[:, period - 1] + np.sqrt(1.0 - persistence**2) * noise[:, period]
        )
    return shocks


def _weights(world: World) -> tuple[float, ...]:
    weights: list[float] = []
    for block in world.places.groups.values():
        sizes = np.arange(1.0, block.n_places + 1.0) ** -world.places.size_exponent
        weights.extend(float(weight) for weight in block.share * sizes / sizes.sum())
    return tuple(weights)


def _first_treated_periods(world: World, draws: Draws, *, n_places: int) -> tuple[int | None, ...]:
    order = np.argsort(draws.few_uniforms("rollout", np.arange(n_places)), kind="stable")
    starts: list[int | None] = [None] * n_places
    counts = [world.rollout.cohorts[period] for period in sorted(world.rollout.cohorts)]
    ends = list(accumulate(counts))
    for period, start, end in zip(
        sorted(world.rollout.cohorts), [0, *ends[:-1]], ends, strict=True
    ):
        for place in order[start:end]:
            starts[int(place)] = period
    return tuple(starts)


def _factors(
    world: World,
    draws: Draws,
    first: tuple[int | None, ...],
    *,
    n_weeks: int,
    faults: frozenset[Fault],
) -> npt.NDArray[np.float64]:
    places = np.arange(len(first))
    noise = draws.few_normals("place-week", places[:, None], np.arange(n_weeks)[None, :])
    shocks = autoregression(noise, persistence=world.places.shock_persistence)
    log_factor = (
        world.places.level_sd * draws.few_normals("place", places)[:, None]
        + world.places.shock_sd * shocks
    )
    if "trend_violation" in faults:
        is_treated = np.array([period is not None for period in first])
        log_factor += world.faults.trend_violation * is_treated[:, None] * np.arange(n_weeks)
    return np.asarray(np.exp(log_factor), dtype=np.float64)


def _intensities(
    world: World, first: tuple[int | None, ...], *, n_weeks: int, faults: frozenset[Fault]
) -> npt.NDArray[np.float64]:
    intensities = np.zeros((len(first), n_weeks))
    periods = sorted(world.rollout.cohorts)
    for place, period in enumerate(first):
        if period is None:
            continue
        event_time = np.arange(n_weeks - period) if period < n_weeks else np.arange(0)
        size = np.ones(len(event_time))
        if "dynamic_rollout" in faults:
            size += world.faults.dynamic_rollout * event_time
        if "heterogeneous_rollout" in faults:
            rank = periods.index(period) / max(len(periods) - 1, 1)
            size *= world.faults.heterogeneous_rollout ** (1.0 - rank)
        intensities[place, period:] = size
    return intensities


def _flat(values: npt.NDArray[np.float64]) -> list[float]:
    return [float(value) for value in values.ravel()]
