"""What the series would have been without the treatment, and the draws of the effect."""

import math
from dataclasses import dataclass

import numpy as np

from causal.core.gram import Array
from causal.quasi.structural.bsts_options import BstsOptions
from causal.quasi.structural.forecast import forecast
from causal.quasi.structural.gibbs import RESIDUAL_UPPER, Draws, Model, Run, sample
from causal.quasi.structural.state_model import StateModel
from causal.quasi.structural.time_series import TimeSeries
from causal.quasi.structural.variance import VariancePrior

_LONE_DF = 0.01


@dataclass(frozen=True, kw_only=True)
class Impact:
    """The posterior of one series, in its own units.

    Attributes:
        series: The series.
        draws: Draws of the parameters, of the standardised series.
        means: Prediction without the residual's noise by draw and period, shape (S, T).
        paths: The same with noise, shape (S, T).
        scale: Standard deviation of the series before the start.
        covariate_scales: Those of the covariates, shape (K,).
        one_step_errors: Errors of the predictions from the periods before, with the parameters at
            their posterior means, shape (n,).
        one_step_sd: Their standard deviations, shape (n,).
    """

    series: TimeSeries
    draws: Draws
    means: Array
    paths: Array
    scale: float
    covariate_scales: Array
    one_step_errors: Array
    one_step_sd: Array

    @property
    def after(self) -> slice:
        """The periods from the start on."""
        return slice(self.series.n_pre, None)

    @property
    def observed(self) -> float:
        """Mean of the outcome from the start on."""
        return float(self.series.outcome[self.after].mean())

    @property
    def estimate(self) -> float:
        """Average effect: observed less mean prediction."""
        return self.observed - float(self.means[:, self.after].mean())

    @property
    def average(self) -> Array:
        """Draws of the average effect, shape (S,)."""
        return np.asarray(self.observed - self.paths[:, self.after].mean(axis=1))

    @property
    def relative(self) -> Array | None:
        """Draws of the effect as a share of the prediction; `None` where one is not positive."""
        predicted = self.paths[:, self.after].mean(axis=1)
        if self.observed <= 0 or predicted.min() <= 0:
            return None
        return np.asarray(self.observed / predicted - 1.0)

    def tail_probability(self) -> float:
        """Posterior probability of an effect of the other sign, never zero (as R's CausalImpact).

        The observed total counts as one draw of itself.
        """
        draws = self.average
        above, below = int((draws <= 0).sum()) + 1, int((draws >= 0).sum()) + 1
        return min(above, below) / (len(draws) + 1)


def impact(series: TimeSeries, options: BstsOptions, *, seed: int) -> Impact:
    """Fit the periods before the start and predict those after it.

    Args:
        series: The series.
        options: Model, priors and sampler.
        seed: Seed of all draws.
    """
    before = slice(0, series.n_pre)
    centre, scale = series.outcome[before].mean(), float(series.outcome[before].std(ddof=1))
    shifts = series.covariates[before].mean(axis=0)
    scales = series.covariates[before].std(axis=0, ddof=1)
    outcome, covariates = (series.outcome - centre) / scale, (series.covariates - shifts) / scales
    run = Run(
        n_draws=options.n_draws, n_burnt=math.ceil(options.burn_in * options.n_draws),
        n_chains=options.n_chains, seed=seed,
    )  # fmt: skip
    draws = sample(outcome[before], covariates[before], model=model_of(options, series), run=run)
    stream = np.random.SeedSequence(seed).spawn(options.n_chains + 1)[-1]
    predicted = forecast(
        draws, options.components, covariates[series.n_pre :], rng=np.random.default_rng(stream)
    )
    errors, variances = StateModel(outcome[before], options.components).one_step(
        covariates[before] @ draws.coefficients.mean(axis=0),
        sigma=float(np.sqrt((draws.sigma**2).mean())),
        steps=list(np.sqrt((draws.steps**2).mean(axis=0))),
    )
    return Impact(
        series=series, draws=draws, means=centre + scale * predicted.mean,
        paths=centre + scale * predicted.path, scale=scale, covariate_scales=scales,
        one_step_errors=scale * errors, one_step_sd=scale * np.sqrt(variances),
    )  # fmt: skip


def model_of(options: BstsOptions, series: TimeSeries) -> Model:
    """Model and priors; the defaults are those of R's CausalImpact."""
    priors = options.priors
    if series.names:
        guess, df = math.sqrt(1.0 - priors.expected_r2), priors.residual_df
    else:
        guess, df = 1.0, _LONE_DF
    return Model(
        components=options.components,
        coefficients=priors.coefficients,
        residual=VariancePrior(guess=guess, df=df, upper=RESIDUAL_UPPER),
        max_flips=options.max_flips,
    )
