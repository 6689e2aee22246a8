"""Synthetic control on predictors: which predictors matter is found along with the weights.

Abadie and Gardeazabal (2003); Abadie, Diamond and Hainmueller (2010, 2015). For importances V the
donor weights minimise `(x1 - X0 w)' V (x1 - X0 w)` on the simplex; V minimises the squared outcome
gap that these weights leave. The outer problem is not convex and has many local minima.

`local` is the published recipe: descend from equal importances and from those of a regression of
outcomes on predictors, by quasi-Newton steps and then simplex search, and keep the better one. The
global minimum (`global`: also from each predictor alone) often puts all importance on lagged
outcomes and thereby ignores the other predictors (Malo, Eskelinen, Zhou and Kuosmanen 2024).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.quasi.synthetic.donor_fit import DonorFit, Task
from causal.quasi.synthetic.simplex_least_squares import simplex_weights

_FLOOR = 1e-8
_N_REFINED = 4
_STEPS_PER_PREDICTOR = 120
_TOLERANCE = 1e-9
_LOCAL_SEARCH = (("BFGS", {"maxiter": 100}), ("Nelder-Mead", {"maxiter": 1000}))

Search = Literal["local", "global"]


@dataclass(frozen=True, kw_only=True)
class Predictors:
    """Predictors on a common scale, of one region and its donors.

    Attributes:
        target: Shape (K,).
        donors: Shape (K, J).
    """

    target: Array
    donors: Array

    def weights(self, importance: Array) -> Array:
        """Donor weights under given importances, shape (J,)."""
        root = np.sqrt(importance)
        return simplex_weights(root[:, None] * self.donors, root * self.target)

    def of(self, is_kept: NDArray[np.bool_]) -> "Predictors":
        """Those of some of the donors, on the same scale; is_kept has shape (J,)."""
        return Predictors(target=self.target, donors=self.donors[:, is_kept])


def scaled_predictors(values: Array, task: Task, names: Sequence[str]) -> Predictors:
    """Predictors of a task, each divided by its standard deviation over region and donors.

    Args:
        values: One row per predictor, one column per region, shape (K, N).
        task: The region and its donors.
        names: Of the predictors.

    Raises:
        DataError: A predictor does not vary.
    """
    at = np.array([task.target, *task.donors])
    found = values[:, at]
    spread = found.std(axis=1, ddof=1)
    flat = [name for name, s, v in zip(names, spread, found, strict=True) if s <= _flat(v)]
    if flat:
        raise DataError("a predictor is the same in every region", given=flat)
    scaled = found / spread[:, None]
    return Predictors(target=scaled[:, 0], donors=scaled[:, 1:])


def equal_fit(task: Task, predictors: Predictors) -> DonorFit:
    """All predictors count the same."""
    size = len(predictors.target)
    return _fit(task, predictors, np.full(size, 1.0 / size))


def nested_fit(task: Task, predictors: Predictors, *, search: Search = "local") -> DonorFit:
    """Importances that leave the smallest outcome gap in the matched periods."""
    importance = best_importance(predictors, pool=task.pool, goal=task.goal, search=search)
    return _fit(task, predictors, importance)


def fixed_fit(task: Task, predictors: Predictors, *, importance: Array) -> DonorFit:
    """Importances that were found elsewhere."""
    return _fit(task, predictors, importance)


def cross_validated_fit(
    task: Task, *, training: Predictors, validation: Predictors, held_out: Task
) -> DonorFit:
    """Importances chosen on predictors of early periods by the gap they leave in later ones.

    Args:
        task: The region, matched over all periods before the start.
        training: Predictors of the training periods.
        validation: Predictors of the validation periods, on which the final weights are found.
        held_out: The same region, matched in the validation periods.
    """
    importance = best_importance(training, pool=held_out.pool, goal=held_out.goal)
    return _fit(task, validation, importance)


def best_importance(
    predictors: Predictors, *, pool: Array, goal: Array, search: Search = "local"
) -> Array:
    """Importances, sum one, whose donor weights leave a small squared outcome gap.

    Args:
        predictors: The predictors.
        pool: Outcomes of the donors, shape (M, J).
        goal: Outcomes of the region, shape (M,).
        search: How far to look.
    """
    scale = float(((pool - goal[:, None]) ** 2).mean()) or 1.0

    def loss(importance: Array) -> float:
        gap = goal - pool @ predictors.weights(importance)
        return float((gap**2).mean()) / scale

    size = len(predictors.target)
    if size == 1:
        return np.ones(1)
    starts = [np.full(size, 1.0 / size), _by_regression(predictors, pool=pool, goal=goal)]
    found = [_descended(start, loss) for start in starts]
    found.append(_descended(min(found, key=loss), loss))
    if search == "global":
        corners = [_normalised(np.where(np.arange(size) == k, 1.0, 1e-3)) for k in range(size)]
        ranked = sorted([*found, *corners], key=loss)[:_N_REFINED]
        found += [_refined(start, loss) for start in ranked]
    return min([*found, *starts], key=loss)


def _by_regression(predictors: Predictors, *, pool: Array, goal: Array) -> Array:
    """Importances from the slopes of outcomes on predictors over all regions."""
    regressors = np.column_stack([predictors.target, predictors.donors]).T
    design = np.column_stack([np.ones(len(regressors)), regressors])
    outcomes = np.column_stack([goal, pool]).T
    slopes = np.linalg.lstsq(design, outcomes, rcond=None)[0][1:]
    size = (slopes**2).sum(axis=1)
    return _normalised(size if size.sum() > 0 else np.ones(len(size)))


def _descended(start: Array, loss: Callable[[Array], float]) -> Array:
    """Quasi-Newton steps, then simplex search, on importances of any sign and sum."""
    from scipy.optimize import minimize

    point = start
    for method, options in _LOCAL_SEARCH:
        point = minimize(
            lambda raw: loss(_shares(raw)), point, method=method, options=dict(options)
        ).x
        point = _shares(point)
    return point


def _refined(start: Array, loss: Callable[[Array], float]) -> Array:
    """Simplex search on the logarithms of the importances, once more from where it stopped."""
    from scipy.optimize import minimize

    point = np.log(np.maximum(start, _FLOOR))
    for _ in range(2):
        corners = np.vstack([point, point + 1.5 * np.eye(len(point))])
        point = minimize(
            lambda logs: loss(_shares(np.exp(logs - logs.max()))), point, method="Nelder-Mead",
            options={
                "initial_simplex": corners, "xatol": 1e-6, "fatol": _TOLERANCE, "adaptive": True,
                "maxfev": _STEPS_PER_PREDICTOR * len(point),
            },
        ).x  # fmt: skip
    return _shares(np.exp(point - point.max()))


def _shares(raw: Array) -> Array:
    size = np.abs(raw)
    total = float(size.sum())
    return np.asarray(size / total if total > 0 else np.full(len(raw), 1.0 / len(raw)))


def _normalised(importance: Array) -> Array:
    floored = np.maximum(importance / importance.max(), _FLOOR)
    return np.asarray(floored / floored.sum(), dtype=np.float64)


def _fit(task: Task, predictors: Predictors, importance: Array) -> DonorFit:
    return DonorFit(
        task=task,
        weights=predictors.weights(importance),
        importance=tuple(float(value) for value in importance),
    )


def _flat(values: Array) -> float:
    return 1e-12 * float(np.abs(values).max())
