"""Maximum likelihood on cells with counts, for models with positive parameters.

Everything happens on the logarithms of the parameters: they are free of bounds, a change of the
unit of time is a shift, and intervals on that scale stay positive and are closer to normal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.core.inference import critical_value

LogLikelihood = Callable[[Array], tuple[Array, Array]]
"""Parameters (p,) to log-likelihood by cell (c,) and its gradient by cell (c, p)."""

_REACH = 14.0
"""How far, in logarithms, a parameter may move from its start before it counts as run away."""
_TOLERANCE = 1e-9
"""The last Newton step is the one that gains less log-likelihood than this."""
_MAX_STEPS = 50
_SINGULAR = 1e-11


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A model fitted by maximum likelihood.

    Attributes:
        model: Name of the model.
        names: Names of the p parameters.
        parameters: Estimates, shape (p,).
        covariance: Covariance of the *logarithms* of the estimates, the inverse of the observed
            information, shape (p, p).
        log_likelihood: Its maximum.
        n: Customers.
        n_cells: Distinct cells behind them.
        remaining: Log-likelihood that the last Newton step gained: the proof of convergence.
    """

    model: str
    names: tuple[str, ...]
    parameters: Array
    covariance: Array
    log_likelihood: float
    n: int
    n_cells: int
    remaining: float

    @property
    def std_errors(self) -> Array:
        """Standard errors of the parameters (delta method from the log scale), shape (p,)."""
        return np.asarray(self.parameters * np.sqrt(np.diag(self.covariance)), dtype=np.float64)

    def interval(self, confidence_level: float = 0.95) -> Array:
        """Ends of each parameter's interval, symmetric in logarithms, shape (p, 2)."""
        half = critical_value(confidence_level) * np.sqrt(np.diag(self.covariance))
        return np.asarray(
            self.parameters[:, None] * np.exp(np.column_stack([-half, half])), dtype=np.float64
        )

    @property
    def aic(self) -> float:
        """Akaike's criterion; smaller is better."""
        return 2 * len(self.names) - 2 * self.log_likelihood

    def value(self, name: str) -> float:
        """One parameter by name."""
        return float(self.parameters[self.names.index(name)])


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A quantity that follows from a fit, with its error from the parameters' covariance.

    The error is that of the expectation: customers scatter around it.

    Attributes:
        estimate: The quantity, shape (q,).
        std_error: Its standard error, shape (q,).
        ci_lower: Lower end of the interval, shape (q,).
        ci_upper: Upper end, shape (q,).
        confidence_level: Nominal coverage.
    """

    estimate: Array
    std_error: Array
    ci_lower: Array
    ci_upper: Array
    confidence_level: float


def maximise(
    function: LogLikelihood,
    *,
    count: Array,
    starts: Sequence[Array],
    model: str,
    names: Sequence[str],
) -> Fit:
    """The maximum of a log-likelihood over positive parameters.

    Quasi-Newton from each start, then Newton steps with the observed information from the best.

    Args:
        function: Log-likelihood and gradient (by the parameters' logarithms) of each cell.
        count: Customers per cell, shape (c,).
        starts: Starting parameters, each of shape (p,).
        model: Name of the model.
        names: Names of the parameters.

    Raises:
        InferenceError: There is no maximum at finite, positive parameters (they run away, or some
            combination of them is not identified), or the steps did not converge.
    """
    total = float(count.sum())

    def objective(logs: Array) -> tuple[float, Array]:
        value, gradient = _total(function, logs, count)
        return -value / total, -gradient / total

    best: tuple[float, Array, Array] | None = None
    for start in starts:
        centre = np.log(start)
        found = optimize.minimize(
            objective,
            centre,
            jac=True,
            method="L-BFGS-B",
            bounds=[(c - _REACH, c + _REACH) for c in centre],
            options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-10, "gtol": 1e-6},
        )
        if np.isfinite(found.fun) and (best is None or found.fun < best[0]):
            best = (float(found.fun), np.asarray(found.x, dtype=np.float64), centre)
    if best is None:
        raise InferenceError(f"{model}: the likelihood is not finite at any start")
    _check_inside(best[1], best[2], model=model, names=names)
    logs, remaining = _newton(function, best[1], count=count, model=model)
    _check_inside(logs, best[2], model=model, names=names)
    information = observed_information(function, logs, count=count)
    covariance = _inverse(information, model=model, names=names)
    value, _ = _total(function, logs, count)
    return Fit(
        model=model,
        names=tuple(names),
        parameters=np.exp(logs),
        covariance=covariance,
        log_likelihood=value,
        n=round(total),
        n_cells=len(count),
        remaining=remaining,
    )


def observed_information(function: LogLikelihood, logs: Array, *, count: Array) -> Array:
    """Minus the Hessian by the log-parameters, from central differences of the exact gradient.

    Args:
        function: Log-likelihood and gradient.
        logs: Logarithms of the parameters, shape (p,).
        count: Customers per cell.

    Returns:
        Shape (p, p); the error of the five-point rule is of fourth order in a step of 0.001.
    """
    step = 1e-3
    rows = []
    for direction in np.eye(len(logs)):
        near, far = step * direction, 2 * step * direction
        inner = _gradient(function, logs + near, count) - _gradient(function, logs - near, count)
        outer = _gradient(function, logs + far, count) - _gradient(function, logs - far, count)
        rows.append((8 * inner - outer) / (12 * step))
    hessian = np.array(rows)
    return np.asarray(-(hessian + hessian.T) / 2, dtype=np.float64)


def shift(fit: Fit, function: LogLikelihood, *, count: Array) -> Array:
    """How far other cells would move a fit's parameters, in standard errors, shape (p,).

    One Newton step from the fit on the score of the other (finer) cells.

    Args:
        fit: A fit on coarse cells.
        function: Log-likelihood and gradient on the finer cells.
        count: Their counts.
    """
    score = _gradient(function, np.log(fit.parameters), count)
    return np.asarray(fit.covariance @ score / np.sqrt(np.diag(fit.covariance)), dtype=np.float64)


def propagate(
    fits: Sequence[Fit],
    quantity: Callable[..., Array],
    *,
    confidence_level: float = 0.95,
) -> Estimate:
    """A function of the parameters of one or several fits, with its error by the delta method.

    Fits of separate models (purchases and spend per purchase) factor the likelihood, so their
    estimates are independent in large samples.

    Args:
        fits: The fits.
        quantity: Takes one parameter vector per fit and returns an array of shape (q,).
        confidence_level: Nominal coverage of the intervals.

    Returns:
        Estimates with symmetric intervals.
    """
    points = [np.log(fit.parameters) for fit in fits]

    def at(logs: Sequence[Array]) -> Array:
        return np.atleast_1d(
            np.asarray(quantity(*(np.exp(part) for part in logs)), dtype=np.float64)
        )

    estimate = at(points)
    variance = np.zeros_like(estimate)
    step = 1e-4
    for position, fit in enumerate(fits):
        rows = []
        for direction in np.eye(len(fit.parameters)):
            sides = [
                at([
                    part + sign * step * direction if index == position else part
                    for index, part in enumerate(points)
                ])
                for sign in (1.0, -1.0)
            ]  # fmt: skip
            rows.append((sides[0] - sides[1]) / (2 * step))
        gradient = np.array(rows)
        variance = variance + np.einsum("pq,ps,sq->q", gradient, fit.covariance, gradient)
    std_error = np.sqrt(variance)
    half = critical_value(confidence_level) * std_error
    return Estimate(
        estimate=estimate,
        std_error=std_error,
        ci_lower=estimate - half,
        ci_upper=estimate + half,
        confidence_level=confidence_level,
    )


def _total(function: LogLikelihood, logs: Array, count: Array) -> tuple[float, Array]:
    values, gradients = function(np.exp(logs))
    return float(count @ values), np.asarray(count @ gradients, dtype=np.float64)


def _gradient(function: LogLikelihood, logs: Array, count: Array) -> Array:
    return _total(function, logs, count)[1]


def _newton(
    function: LogLikelihood, logs: Array, *, count: Array, model: str
) -> tuple[Array, float]:
    """Newton steps, halved until they do not lose; returns the point and the remaining gain."""
    value, gradient = _total(function, logs, count)
    for _ in range(_MAX_STEPS):
        information = observed_information(function, logs, count=count)
        step = _ascent(information, gradient)
        gain = float(gradient @ step) / 2
        if gain < _TOLERANCE:
            # This near, the step squares what is missing.
            return logs + step, gain
        for halving in range(30):
            trial = logs + step / 2**halving
            trial_value, trial_gradient = _total(function, trial, count)
            # The last digits of a sum over customers are noise; a step may lose that much.
            if np.isfinite(trial_value) and trial_value >= value - 1e-12 * abs(value):
                break
        else:
            break
        logs, value, gradient = trial, trial_value, trial_gradient
    raise InferenceError(
        f"{model}: the fit did not converge", given=f"log-likelihood still to gain {gain:.3g}"
    )


def _ascent(information: Array, gradient: Array) -> Array:
    """The Newton step; where the surface is not concave, eigenvalues are taken as positive."""
    values, vectors = np.linalg.eigh(information)
    floor = 1e-10 * max(float(np.abs(values).max()), 1e-300)
    step = vectors @ ((vectors.T @ gradient) / np.abs(values).clip(min=floor))
    return np.asarray(step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300)))


def _check_inside(logs: Array, centre: Array, *, model: str, names: Sequence[str]) -> None:
    away = np.abs(logs - centre) > _REACH - 0.5
    if away.any():
        raise InferenceError(
            f"{model}: the likelihood has no maximum at positive, finite parameters;"
            " these run away",
            given=[
                f"{name} -> {np.exp(value):.3g}"
                for name, value, is_away in zip(names, logs, away, strict=True)
                if is_away
            ],
        )


def _inverse(information: Array, *, model: str, names: Sequence[str]) -> Array:
    diagonal = np.diag(information)
    if not (np.isfinite(information).all() and (diagonal > 0).all()):
        raise InferenceError(f"{model}: the parameters are not identified", given=list(names))
    scale = 1.0 / np.sqrt(diagonal)
    correlation = information * np.outer(scale, scale)
    if np.linalg.eigvalsh(correlation)[0] < _SINGULAR:
        raise InferenceError(
            f"{model}: some combination of the parameters is not identified", given=list(names)
        )
    inverse = np.linalg.inv(correlation) * np.outer(scale, scale)
    return np.asarray((inverse + inverse.T) / 2, dtype=np.float64)
