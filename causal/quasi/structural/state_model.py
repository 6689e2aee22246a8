"""The state: a level, its slope and seasonal effects, and draws of them given the rest.

The filter, the smoother and the simulation smoother (Durbin and Koopman 2002) are those of
statsmodels; here stand the matrices. The series is in units of its own standard deviation before
the start, so that priors need no others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causal.core.gram import Array
from causal.quasi.structural.variance import VariancePrior

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Components:
    """The parts of the state and the priors of their steps.

    Attributes:
        has_slope: Whether the level has a slope.
        seasons: Seasons of each cycle and the periods that a season lasts.
        level: Prior of the steps of the level.
        slope: Prior of the steps of the slope.
        seasonal: Prior of the steps of each cycle.
    """

    has_slope: bool
    seasons: tuple[tuple[int, int], ...]
    level: VariancePrior
    slope: VariancePrior
    seasonal: VariancePrior

    @property
    def step_priors(self) -> tuple[VariancePrior, ...]:
        """One prior per kind of step, in the order of the columns of `selection`."""
        trend = (self.level, self.slope) if self.has_slope else (self.level,)
        return trend + (self.seasonal,) * len(self.seasons)

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the kinds of steps."""
        trend = ("level", "slope") if self.has_slope else ("level",)
        return trend + tuple(f"seasonal_{n}_{lasting}" for n, lasting in self.seasons)


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """`state[t+1] = transition state[t] + selection steps[t]`; observed: `design state[t]`.

    Attributes:
        design: Shape (p,).
        transition: Where every cycle moves on to its next season, shape (p, p).
        selection: Shape (p, q).
        cycle: Which cycle each part of the state belongs to, -1 for the trend, shape (p,).
        durations: Periods that a season lasts, per cycle.
    """

    design: Array
    transition: Array
    selection: Array
    cycle: NDArray[np.intp]
    durations: tuple[int, ...]

    def moves(self, position: int) -> Flags:
        """Which kinds of steps happen from this period to the next, shape (q,)."""
        n_trend = self.selection.shape[1] - len(self.durations)
        return np.array([True] * n_trend + self._turns(position), dtype=np.bool_)

    def transition_at(self, position: int) -> Array:
        """The transition from this period to the next: a season that lasts on stays."""
        held = [number for number, turns in enumerate(self._turns(position)) if not turns]
        if not held:
            return self.transition
        stays = np.isin(self.cycle, held)
        return np.where(stays[:, None], np.eye(len(self.cycle)), self.transition)

    def _turns(self, position: int) -> list[bool]:
        return [(position + 1) % lasting == 0 for lasting in self.durations]


def matrices(components: Components) -> Matrices:
    """The system of a level, its slope and dummy seasonal effects (Harvey 1989)."""
    n_trend = 2 if components.has_slope else 1
    sizes = [n - 1 for n, _ in components.seasons]
    n_states, n_steps = n_trend + sum(sizes), n_trend + len(sizes)
    design, transition = np.zeros(n_states), np.zeros((n_states, n_states))
    selection, cycle = np.zeros((n_states, n_steps)), np.full(n_states, -1, dtype=np.intp)
    design[0] = 1.0
    transition[:n_trend, :n_trend] = np.triu(np.ones((n_trend, n_trend)))
    selection[:n_trend, :n_trend] = np.eye(n_trend)
    first = n_trend
    for number, size in enumerate(sizes):
        block = slice(first, first + size)
        design[first] = 1.0
        # The new season is minus the sum of the others of its cycle; the rest move down.
        transition[first, block] = -1.0
        transition[block, block][1:, :-1] = np.eye(size - 1)
        selection[first, n_trend + number] = 1.0
        cycle[block] = number
        first += size
    return Matrices(
        design=design, transition=transition, selection=selection, cycle=cycle,
        durations=tuple(lasting for _, lasting in components.seasons),
    )  # fmt: skip


def initial_mean(components: Components, series: Array, *, n_states: int) -> Array:
    """Prior mean of the first state, as in R's `bsts`; its variance is one.

    Args:
        components: The parts of the state.
        series: The series before the start, shape (n,).
        n_states: Size of the state.
    """
    mean = np.zeros(n_states)
    mean[0] = series[0]
    if components.has_slope:
        mean[1] = (series[-1] - series[0]) / len(series)
    return mean


class StateModel:
    """Draws of the states of a series, and its one-step predictions.

    Args:
        series: The series before the start, shape (n,).
        components: The parts of the state.
    """

    def __init__(self, series: Array, components: Components) -> None:
        from statsmodels.tsa.statespace.simulation_smoother import (
            SIMULATION_STATE,
            SimulationSmoother,
        )

        self.components = components
        self.matrices = matrices(components)
        p, q = self.matrices.selection.shape
        n = len(series)
        self._n = n
        happened = [self.matrices.moves(at) for at in range(n - 1)]
        self._happened = np.array(happened, dtype=np.float64)
        space = SimulationSmoother(k_endog=1, k_states=p, k_posdef=q)
        space.bind(np.ascontiguousarray(series, dtype=np.float64).reshape(-1, 1))
        space["design"] = self.matrices.design.reshape(1, -1)
        space["transition"] = self._transitions()
        space["selection"] = self._selections()
        space["obs_intercept"] = np.zeros((1, n))
        space["obs_cov"] = np.eye(1)
        space["state_cov"] = np.eye(q)
        space.initialize_known(initial_mean(components, series, n_states=p), np.eye(p))
        self._space: Any = space
        self._smoother: Any = space.simulation_smoother(simulation_output=SIMULATION_STATE)

    def draw(
        self, explained: Array, *, sigma: float, steps: Sequence[float], rng: np.random.Generator
    ) -> Array:
        """A draw of the states given everything else, shape (n, p).

        Args:
            explained: The part of the series that the covariates explain, shape (n,).
            sigma: Standard deviation of the residual.
            steps: Those of the kinds of steps.
            rng: Source of the draw.
        """
        self._set(explained, sigma=sigma, steps=steps)
        p, q = self.matrices.selection.shape
        self._smoother.simulate(
            measurement_disturbance_variates=rng.standard_normal((self._n, 1)),
            state_disturbance_variates=rng.standard_normal((self._n, q)),
            initial_state_variates=rng.standard_normal(p),
        )
        return np.array(self._smoother.simulated_state.T)

    def smoothed(self, explained: Array, *, sigma: float, steps: Sequence[float]) -> Array:
        """Means of the states given everything else, shape (n, p)."""
        self._set(explained, sigma=sigma, steps=steps)
        return np.array(self._space.smooth().smoothed_state.T)

    def one_step(
        self, explained: Array, *, sigma: float, steps: Sequence[float]
    ) -> tuple[Array, Array]:
        """Errors of the predictions from the periods before, and their variances, shape (n,)."""
        self._set(explained, sigma=sigma, steps=steps)
        found = self._space.filter()
        return np.array(found.forecasts_error[0]), np.array(found.forecasts_error_cov[0, 0])

    def steps(self, states: Array) -> tuple[Array, Array]:
        """Sums of squares of the steps in drawn states, by kind, and how many there are.

        Args:
            states: Shape (n, p).
        """
        moved = states[1:] - states[:-1] @ self.matrices.transition.T
        steps = moved @ self.matrices.selection
        return (steps**2 * self._happened).sum(axis=0), self._happened.sum(axis=0)

    def _set(self, explained: Array, *, sigma: float, steps: Sequence[float]) -> None:
        self._space["obs_intercept"] = explained.reshape(1, -1)
        self._space["obs_cov", 0, 0] = sigma**2
        for at, step in enumerate(steps):
            self._space["state_cov", at, at] = step**2

    def _transitions(self) -> Array:
        if all(lasting == 1 for lasting in self.matrices.durations):
            return self.matrices.transition
        return np.dstack([self.matrices.transition_at(at) for at in range(self._n)])

    def _selections(self) -> Array:
        if all(lasting == 1 for lasting in self.matrices.durations):
            return self.matrices.selection
        return np.dstack(
            [self.matrices.selection * self.matrices.moves(at) for at in range(self._n)]
        )
