"""Draws of the series had there been no treatment."""

from dataclasses import dataclass

import numpy as np

from causal.core.gram import Array
from causal.quasi.structural.gibbs import Draws
from causal.quasi.structural.state_model import Components, matrices


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """By draw and period, shape (S, T): `mean` without, `path` with the residual's noise."""

    mean: Array
    path: Array


def forecast(
    draws: Draws, components: Components, covariates: Array, *, rng: np.random.Generator
) -> Forecast:
    """The posterior predictive distribution from the first period to the last.

    Up to the start the states are those drawn given the series; from there on they move on by
    themselves, with steps of the drawn size.

    Args:
        draws: Draws from the posterior, of n periods.
        components: The parts of the state.
        covariates: Those of the periods after these, standardised alike, shape (h, K).
        rng: Source of the draws.
    """
    system = matrices(components)
    n, state = draws.fitted.shape[1], draws.last_state
    means = [draws.fitted]
    for number, row in enumerate(covariates):
        at = n - 1 + number
        noise = rng.standard_normal(draws.steps.shape) * draws.steps * system.moves(at)
        state = state @ system.transition_at(at).T + noise @ system.selection.T
        means.append((state @ system.design + draws.coefficients @ row)[:, None])
    mean = np.concatenate(means, axis=1)
    noise = rng.standard_normal(mean.shape) * draws.sigma[:, None]
    return Forecast(mean=mean, path=mean + noise)
