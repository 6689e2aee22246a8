"""Stored looks at an experiment: an estimate with its standard error each, as rows and arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.gram import Array


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look found, on all data up to then.

    Attributes:
        name: Its label, such as a date.
        estimate: The estimate.
        std_error: Its standard error.
        information: Information in a unit of the user's choice, such as units enrolled; `None`:
            one over the squared standard error.
        is_final: Whether the experiment ends here for reasons that have nothing to do with its
            estimates; all error left is then spent.
    """

    name: str
    estimate: float
    std_error: float
    information: float | None = None
    is_final: bool = False


@dataclass(frozen=True, kw_only=True)
class LookArrays:
    """The looks as arrays, all shape (K,).

    Attributes:
        sign: 1, or -1 where effects downwards are what the test looks for.
        estimate: Estimates.
        std_error: Standard errors.
        z: Estimates less the null value in standard errors, times `sign`.
        information: Information.
        is_final: Whether the last look is marked final.
    """

    sign: float
    estimate: Array
    std_error: Array
    z: Array
    information: Array
    is_final: bool


def looks_of(frame: pd.DataFrame) -> tuple[Look, ...]:
    """Looks from stored rows, in the order of the rows.

    Args:
        frame: Columns `name`, `estimate` and `std_error`, optionally `information` and `is_final`.

    Raises:
        DataError: A column is missing.
    """
    absent = [name for name in ("name", "estimate", "std_error") if name not in frame.columns]
    if absent:
        raise DataError("stored looks lack columns", given=absent, allowed=list(frame.columns))
    has_information, has_final = "information" in frame.columns, "is_final" in frame.columns
    return tuple(
        Look(
            name=str(row["name"]),
            estimate=float(row["estimate"]),
            std_error=float(row["std_error"]),
            information=float(row["information"]) if has_information else None,
            is_final=bool(row["is_final"]) if has_final else False,
        )
        for row in frame.to_dict("records")
    )


def look_arrays(looks: Sequence[Look], *, null_value: float, sign: float) -> LookArrays:
    """The looks as arrays.

    Args:
        looks: The looks in order of time.
        null_value: The effect under the null hypothesis.
        sign: 1, or -1 to turn effects downwards into positive statistics.

    Raises:
        DataError: No look, a number that is none, or looks after the final one.
    """
    if not looks:
        raise DataError("there is no look to evaluate", allowed="one or more looks")
    if len({look.information is None for look in looks}) > 1:
        raise DataError("give the information of every look, or of none")
    estimate = np.array([look.estimate for look in looks], dtype=np.float64)
    std_error = np.array([look.std_error for look in looks], dtype=np.float64)
    usable = np.isfinite(estimate) & np.isfinite(std_error) & (std_error > 0)
    if not usable.all():
        bad = looks[int(np.argmin(usable))]
        raise DataError(
            f"look {bad.name}: estimate and standard error must be numbers, the latter positive",
            given=f"estimate {bad.estimate}, standard error {bad.std_error}",
        )
    given = [look.information for look in looks if look.information is not None]
    information = np.array(given, dtype=np.float64) if given else std_error**-2.0
    if not (np.isfinite(information) & (information > 0)).all():
        raise DataError("information must be positive numbers", given=information.tolist())
    early = [look.name for look in looks[:-1] if look.is_final]
    if early:
        raise DataError("looks come after one that is marked final", given=early[0])
    return LookArrays(
        sign=sign,
        estimate=estimate,
        std_error=std_error,
        z=sign * (estimate - null_value) / std_error,
        information=information,
        is_final=looks[-1].is_final,
    )
