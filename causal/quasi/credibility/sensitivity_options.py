"""Options of the sensitivity of an event study to trends that are not parallel."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.spec import Part

Method = Literal["c_lf", "conditional", "flci"]

_METHODS: dict[str, tuple[Method, ...]] = {
    "relative_magnitudes": ("c_lf", "conditional"),
    "smoothness": ("flci", "c_lf", "conditional"),
}
"""Intervals of each restriction, the default first."""
_MULTIPLES = (0.0, 0.5, 1.0, 1.5, 2.0)


class Sensitivity(Part):
    """How far trends may depart from parallel ones (Rambachan and Roth 2023).

    Attributes:
        type: `relative_magnitudes`: from one period to the next the trends part by at most a
            multiple of the worst such break before the reference period; `smoothness`: the slope
            of their difference changes by at most a number of the outcome's units.
        values: The multiples (Mbar), or the largest changes of slope (M). Left out: 0, 0.5, 1, 1.5
            and 2, or ten numbers from 0 to the upper confidence bound of the largest change of
            slope before the reference (its standard error where there is one period).
        parameter: The effect of interest: an event time, or `average` of those from 0 on.
        method: `c_lf` (conditional test with a least favourable first stage), `conditional`, or,
            for smoothness only and by default, `flci` (the shortest interval of fixed length).
    """

    type: Literal["relative_magnitudes", "smoothness"]
    values: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] | None = None
    parameter: int | Literal["average"] = 0
    method: Method | None = None

    @property
    def interval(self) -> Method:
        """The kind of interval with its default filled in."""
        return self.method or _METHODS[self.type][0]

    @property
    def multiples(self) -> tuple[float, ...] | None:
        """The values with the default of relative magnitudes filled in; `None`: ask the data."""
        if self.values is not None:
            return tuple(sorted(set(self.values)))
        return _MULTIPLES if self.type == "relative_magnitudes" else None

    @model_validator(mode="after")
    def _method_of_the_type(self) -> "Sensitivity":
        if self.interval not in _METHODS[self.type]:
            raise ValueError(
                f"method of {self.type}: one of {', '.join(_METHODS[self.type])}, "
                f"not {self.interval}"
            )
        return self
