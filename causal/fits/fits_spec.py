"""The spec of many fits: an analysis of a panel of regions, and what it is repeated over."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from causal.core import registry
from causal.core.errors import SpecError
from causal.core.frames import Level
from causal.core.multiplicity import Correction
from causal.core.spec import Part, Spec, validate
from causal.quasi.synthetic.region_options import ColumnName, Levels
from causal.quasi.time_axis import GivenPeriod

_SET_BY_EACH_FIT = ("outcome", "treated", "first_treated_period")
_PERIOD: TypeAdapter[GivenPeriod] = TypeAdapter(GivenPeriod)
_NEEDED = frozenset(
    {"unit", "period", "outcome", "treated", "treatment_period", "donors", "excluded"}
)


class Over(Part):
    """What the analysis is repeated over: each treated region by itself, for each outcome.

    Attributes:
        treated: Column of the first treated period (null: never treated); a list of regions that
            start in `options.treatment_period`; or a mapping of each to its first treated period.
        outcomes: The outcome columns.
        placebos: Whether each never-treated region is fitted too, as if it had been treated. Starts
            are those of the treated regions, in turn.
    """

    treated: ColumnName | Levels | Annotated[dict[Level, GivenPeriod], Field(min_length=1)]
    outcomes: Annotated[list[ColumnName], Field(min_length=1)]
    placebos: bool = False

    @property
    def column(self) -> str | None:
        """The column of the first treated period, where there is one."""
        return self.treated if isinstance(self.treated, str) else None

    @model_validator(mode="after")
    def _lists_do_not_repeat(self) -> "Over":
        named = [] if isinstance(self.treated, str) else [str(name) for name in self.treated]
        for name, values in (("treated", named), ("outcomes", self.outcomes)):
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                raise ValueError(f"{name} names {repeated[0]} twice")
        return self


class Fits(Part):
    """How the fits are made and judged together.

    Attributes:
        over: What the analysis is repeated over.
        correction: How p-values are adjusted over all fits of treated regions.
        fits_per_task: Fits that one task of the cluster makes, one after the other.
        tracked_fits: Fits that get a run of their own in MLflow, nested in that of the spec: those
            with the largest statistics.
    """

    over: Over
    correction: Correction = "benjamini_hochberg"
    fits_per_task: int = Field(default=25, ge=1, le=10_000, strict=True)
    tracked_fits: int = Field(default=20, ge=0, le=200, strict=True)


class FitsSpec(Spec):
    """An analysis of a panel of regions, repeated.

    `options` are those of the method without what each fit sets: `outcome`, `treated` and
    `first_treated_period`.
    """

    options: dict[str, Any]
    fits: Fits

    @property
    def unit(self) -> str:
        """Column of the region."""
        return str(self.options["unit"])

    @property
    def columns(self) -> frozenset[str]:
        """Every text among options and filters: the names of all columns that are read, and more.

        A method names the columns it reads in its options, each in a way of its own.
        """
        return frozenset(_texts(self.options)) | frozenset(self.source.where)

    @model_validator(mode="after")
    def _options_of_one_fit(self) -> "FitsSpec":
        for name in (*_SET_BY_EACH_FIT, "returns"):
            if name in self.options:
                where = "fits.over says it" if name != "returns" else "it is that of one analysis"
                raise ValueError(f"options.{name} must not be given: {where}")
        for name in ("excluded", "donors"):
            if not isinstance(self.options.get(name, []), list):
                raise ValueError(f"options.{name} must be a list of regions")  # noqa: TRY004
        for name in ("unit", "period"):
            if not isinstance(self.options.get(name), str):
                raise ValueError(f"options.{name} is required: the name of a column")  # noqa: TRY004
        needs_period = isinstance(self.fits.over.treated, list)
        if needs_period != ("treatment_period" in self.options):
            raise ValueError(
                "options.treatment_period goes with a list of regions in fits.over.treated; a "
                "mapping of regions to periods and a column say it themselves"
            )
        return self

    @model_validator(mode="after")
    def _start_is_a_period(self) -> "FitsSpec":
        try:
            _PERIOD.validate_python(self.options.get("treatment_period", 0.0))
        except ValidationError:
            raise ValueError("options.treatment_period must be a number or a date") from None
        return self


def one_fit(
    spec: FitsSpec, *, unit: Level, outcome: str, start: GivenPeriod, excluded: tuple[Level, ...]
) -> Spec:
    """The spec of a single fit, as `analyze` would run it.

    Args:
        spec: The spec of all fits.
        unit: The treated region.
        outcome: The outcome column.
        start: First treated period.
        excluded: Regions that take no part: the other treated ones.

    Raises:
        SpecError: The method does not take these options, or does not take regions at all.
    """
    given = spec.options.get("excluded") or []
    named = {str(name) for name in given}
    own = {
        "outcome": outcome,
        "treated": unit,
        "treatment_period": start,
        "excluded": [*given, *(name for name in excluded if str(name) not in named)],
    }
    if "donors" in spec.options:  # a donor that is a placebo does not stand in for itself
        own["donors"] = [name for name in spec.options["donors"] if str(name) != str(unit)]
    document = spec.model_dump(exclude={"fits", "options"})
    return validate(
        registry.method(spec.method).SPEC, document | {"options": {**spec.options, **own}}
    )


def check(spec: FitsSpec) -> None:
    """The method takes regions, and the options of one fit.

    Raises:
        SpecError: It does not; names the key.
    """
    if not takes_regions(spec.method):
        raise SpecError(
            "fits are of methods that compare a treated region with donors", given=spec.method,
            allowed=[name for name in registry.names() if takes_regions(name)], key="method",
        )  # fmt: skip
    over = spec.fits.over
    named = [0] if isinstance(over.treated, str) else list(over.treated)
    for outcome in over.outcomes:
        one_fit(
            spec, unit=named[0], outcome=outcome, start=start_of(spec, named[0]),
            excluded=tuple(named[1:]),
        )  # fmt: skip


def start_of(spec: FitsSpec, unit: Level) -> GivenPeriod:
    """First treated period of a region that the spec names; 0 where a column says it."""
    treated = spec.fits.over.treated
    if isinstance(treated, dict):
        return treated[unit]
    return _PERIOD.validate_python(spec.options.get("treatment_period", 0.0))


def takes_regions(method: str) -> bool:
    """Whether a method's options are those of a panel of regions with donors."""
    options = registry.method(method).SPEC.model_fields["options"].annotation
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        return False
    return set(options.model_fields) >= _NEEDED


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _texts(inner)]
    return []
