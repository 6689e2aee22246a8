"""The posterior of a structural time series by Gibbs sampling, as R's `bsts` does it.

In turn: the regression on covariates given the states, the states given the regression, and the
standard deviations of the states' steps given the states (Scott and Varian 2014).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.gram import Array
from causal.quasi.structural.spike_slab import CoefficientPrior, SpikeSlab
from causal.quasi.structural.state_model import Components, StateModel
from causal.quasi.structural.variance import VariancePrior

RESIDUAL_UPPER = 1.2
_JITTER = 0.5


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is sampled.

    Attributes:
        components: The parts of the state.
        coefficients: Prior of the regression.
        residual: Prior of the residual's standard deviation.
        max_flips: How many covariates a draw may take in or out; `None`: all.
    """

    components: Components
    coefficients: CoefficientPrior
    residual: VariancePrior
    max_flips: int | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """How long is sampled.

    Attributes:
        n_draws: Draws of each chain.
        n_burnt: The first of them, thrown away.
        n_chains: Independent chains.
        seed: Seed of all.
    """

    n_draws: int
    n_burnt: int
    n_chains: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Draws from the posterior, S of them over C chains of equal length, one after the other.

    Attributes:
        coefficients: Shape (S, K); zero where a covariate is not included.
        sigma: Standard deviation of the residual, shape (S,).
        steps: Those of the states' steps, shape (S, q).
        fitted: States' contribution plus regression, by period before the start, shape (S, n).
        last_state: State of the last of these periods, shape (S, p).
        n_chains: C.
    """

    coefficients: Array
    sigma: Array
    steps: Array
    fitted: Array
    last_state: Array
    n_chains: int


def sample(series: Array, covariates: Array, *, model: Model, run: Run) -> Draws:
    """Draw from the posterior given the periods before the start.

    Args:
        series: In units of its standard deviation around its mean, shape (n,).
        covariates: Likewise, shape (n, K); K may be 0.
        model: Model and priors.
        run: Chains and their lengths.
    """
    streams = np.random.SeedSequence(run.seed).spawn(run.n_chains)
    chains = [
        _chain(series, covariates, model, run, np.random.default_rng(stream)) for stream in streams
    ]
    return _joined(chains)


def _chain(
    series: Array, covariates: Array, model: Model, run: Run, rng: np.random.Generator
) -> Draws:
    states = StateModel(series, model.components)
    regression = SpikeSlab(
        covariates, prior=model.coefficients, residual=model.residual, max_flips=model.max_flips
    )
    priors = model.components.step_priors
    n_kept, (p, q) = run.n_draws - run.n_burnt, states.matrices.selection.shape
    kept = Draws(
        coefficients=np.empty((n_kept, covariates.shape[1])), sigma=np.empty(n_kept),
        steps=np.empty((n_kept, q)), fitted=np.empty((n_kept, len(series))),
        last_state=np.empty((n_kept, p)), n_chains=1,
    )  # fmt: skip
    steps = [min(prior.guess * np.exp(_JITTER * rng.normal()), prior.upper) for prior in priors]
    flags, level = regression.first_flags(), np.zeros(len(series))
    for number in range(-run.n_burnt, n_kept):
        flags, drawn = regression.draw(series - level, flags, rng)
        explained = covariates @ drawn.values
        path = states.draw(explained, sigma=drawn.sigma, steps=steps, rng=rng)
        level = path @ states.matrices.design
        steps = _draw_steps(states, path, priors, rng)
        if number >= 0:
            kept.coefficients[number], kept.sigma[number] = drawn.values, drawn.sigma
            kept.steps[number], kept.last_state[number] = steps, path[-1]
            kept.fitted[number] = level + explained
    return kept


def _draw_steps(
    states: StateModel, path: Array, priors: Sequence[VariancePrior], rng: np.random.Generator
) -> list[float]:
    sums, counts = states.steps(path)
    return [
        prior.draw(rng, n=count, sum_of_squares=total)
        for prior, total, count in zip(priors, sums, counts, strict=True)
    ]


def _joined(chains: Sequence[Draws]) -> Draws:
    return Draws(
        coefficients=np.concatenate([chain.coefficients for chain in chains]),
        sigma=np.concatenate([chain.sigma for chain in chains]),
        steps=np.concatenate([chain.steps for chain in chains]),
        fitted=np.concatenate([chain.fitted for chain in chains]),
        last_state=np.concatenate([chain.last_state for chain in chains]),
        n_chains=len(chains),
    )
