"""Error spending: how much of an error rate may be used up at a given share of the information.

A spending function replaces the fixed number of looks of a classic design: the boundary at a look
follows from the information actually there, so looks may come at any time that does not depend on
the estimates (Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials").
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.core.spec import Part

Family = Literal["obrien_fleming", "pocock", "hwang_shih_decani", "power"]

_NEEDS_PARAMETER = ("hwang_shih_decani", "power")
_NO_CURVATURE = 1e-9
MIN_INCREMENT = 1e-4
"""Smallest growth of the information between two looks, as a share of it."""


class Spending(Part):
    """A spending function.

    Attributes:
        family: `obrien_fleming` spends almost nothing early (Lan and DeMets 1983), `pocock` about
            evenly, `hwang_shih_decani` (1990) by its parameter gamma (-4 is close to
            O'Brien-Fleming, 1 close to Pocock, 0 linear), `power` in proportion to the fraction
            to the power of its parameter rho (Kim and DeMets 1987; 3 is close to O'Brien-Fleming).
        parameter: gamma or rho; the other families have none.
    """

    family: Family = "obrien_fleming"
    parameter: float | None = Field(default=None, ge=-40, le=50)

    @model_validator(mode="after")
    def _parameter_fits(self) -> "Spending":
        if self.family not in _NEEDS_PARAMETER and self.parameter is not None:
            raise ValueError(f"spending family {self.family} has no parameter")
        if self.family in _NEEDS_PARAMETER and self.parameter is None:
            raise ValueError(f"spending family {self.family} needs its parameter")
        if self.family == "power" and not (self.parameter or 0.0) > 0:
            raise ValueError("the parameter of spending family power must be positive")
        return self


def spent(fractions: Sequence[float] | Array, *, total: float, spending: Spending) -> Array:
    """Cumulative error spent at information fractions.

    Args:
        fractions: Information fractions, shape (K,); above 1 all is spent.
        total: The error to spend, of one side.
        spending: The function.

    Returns:
        Shape (K,), non-decreasing, `total` from fraction 1 on.
    """
    at = np.minimum(np.asarray(fractions, dtype=np.float64), 1.0)
    shares = _SHAPES[spending.family](at, total, spending.parameter or 0.0)
    return np.asarray(np.where(at >= 1.0, total, shares), dtype=np.float64)


def checked_fractions(fractions: Sequence[float] | Array) -> Array:
    """Information fractions as an array, positive and growing.

    Raises:
        DataError: A fraction is not positive, or does not exceed the one before it.
    """
    out = np.asarray(fractions, dtype=np.float64)
    if out.ndim != 1 or not len(out) or not np.isfinite(out).all() or out[0] <= 0:
        raise DataError(
            "information fractions must be positive numbers, one per look", given=list(fractions)
        )
    growth = np.diff(out) / out[1:]
    if (growth < MIN_INCREMENT).any():
        at = int(np.argmax(growth < MIN_INCREMENT)) + 1
        raise DataError(
            f"information must grow by {MIN_INCREMENT:g} of itself from one look to the next",
            given=f"{out[at - 1]:g} at look {at}, {out[at]:g} at look {at + 1}",
        )
    return out


def _obrien_fleming(at: Array, total: float, _: float) -> Array:
    from scipy import special

    return np.asarray(2 * special.ndtr(special.ndtri(total / 2) / np.sqrt(at)))


def _pocock(at: Array, total: float, _: float) -> Array:
    return np.asarray(total * np.log1p((np.e - 1) * at))


def _hwang_shih_decani(at: Array, total: float, gamma: float) -> Array:
    if abs(gamma) < _NO_CURVATURE:
        return total * at
    return np.asarray(total * np.expm1(-gamma * at) / np.expm1(-gamma))


def _power(at: Array, total: float, rho: float) -> Array:
    return np.asarray(total * at**rho)


_SHAPES = {
    "obrien_fleming": _obrien_fleming,
    "pocock": _pocock,
    "hwang_shih_decani": _hwang_shih_decani,
    "power": _power,
}
