"""The options of the method `synthetic_control`, and which of them go together."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.spec import Part, Spec
from causal.quasi.synthetic.region_options import ColumnName, RegionOptions
from causal.quasi.time_axis import (
    GivenPeriod,
    Label,
    between,
    given_label,
    label_of,
    lies_after,
    shown,
)

Holds = Callable[[Label], bool]
Window = tuple[GivenPeriod, GivenPeriod]
_KEY = "special_predictors"


class SpecialPredictor(Part):
    """A predictor with periods of its own: the mean of a column over them.

    Attributes:
        column: The column; it may be the outcome.
        periods: The periods, or
        first_period: the first and
        last_period: the last of a range.
    """

    column: ColumnName
    periods: Annotated[list[GivenPeriod], Field(min_length=1)] | None = None
    first_period: GivenPeriod | None = None
    last_period: GivenPeriod | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "SpecialPredictor":
        first, last = self.first_period, self.last_period
        has_end = first is not None or last is not None
        is_range = first is not None and last is not None
        if (self.periods is None) != is_range or (self.periods is not None and has_end):
            raise ValueError("give either periods, or first_period and last_period")
        if first is not None and last is not None and lies_after(first, last):
            raise ValueError(
                f"first_period {shown(label_of(first))} lies after last_period "
                f"{shown(label_of(last))}"
            )
        return self

    def holds(self, *, like: Label) -> Holds:
        """Whether a period is one of these.

        Args:
            like: A period of the data.

        Raises:
            DataError: The data hold dates and the spec numbers, or the reverse.
        """
        if self.periods is None:
            return between(self.first_period, self.last_period, like=like, keys=(_KEY, _KEY))
        chosen = {given_label(period, like=like, key=_KEY) for period in self.periods}
        return lambda period: period in chosen

    @property
    def name(self) -> str:
        """Column and periods, for tables."""
        given = (self.first_period, self.last_period) if self.periods is None else self.periods
        texts = [shown(label_of(period)) for period in given if period is not None]
        if self.periods is not None:
            return f"{self.column} {', '.join(texts)}"
        return f"{self.column} {('-' if isinstance(given[0], float) else ' to ').join(texts)}"


class ControlOptions(RegionOptions):
    """Options of a synthetic control.

    Attributes:
        variant: `standard` (weights on the simplex), `demeaned` (with an intercept),
            `ridge_augmented` (bias-corrected, weights may be negative) or `penalised` (donors far
            from the region count against the fit).
        penalty: How much, as a multiple of squared distances; if left out, `penalised` takes what
            fits the last quarter of the matched periods best, for each region anew.
        match_window: First and last period whose outcomes are matched; all before the start if
            left out.
        predictors: Columns whose means before the start are matched as well.
        predictor_window: First and last period of these means; all before the start if left out.
        special_predictors: Predictors with periods of their own.
        importance: How much each predictor counts: `nested` (the smallest outcome gap, searched
            from equal and regression-based importances), `global` (searched further),
            `cross_validated` (chosen on early periods, judged on later ones) or `equal`.
        validation_start: First validation period of `cross_validated`; the middle if left out.
        placebo_importance: `refit` searches importances for every placebo, `fixed` uses those of
            the treated region.
        n_placebos: Sets of donors drawn where several treated regions allow more than these.
        max_placebo_mspe: Placebos whose squared gap before the start exceeds this multiple of the
            treated region's are left out of the comparison.
        placebo_period: An earlier period in which to pretend that the treatment started.
        leave_one_out: Whether to fit again without each donor that has weight.
        conformal: Whether to add intervals by period from permuted periods.
    """

    variant: Literal["standard", "demeaned", "ridge_augmented", "penalised"] = "standard"
    penalty: float | None = Field(default=None, ge=0, le=1e6)
    match_window: Window | None = None
    predictors: list[ColumnName] = Field(default_factory=list)
    predictor_window: Window | None = None
    special_predictors: list[SpecialPredictor] = Field(default_factory=list)
    importance: Literal["nested", "global", "cross_validated", "equal"] = "nested"
    validation_start: GivenPeriod | None = None
    placebo_importance: Literal["refit", "fixed"] = "refit"
    n_placebos: int = Field(default=1000, ge=100, le=100_000)
    max_placebo_mspe: float | None = Field(default=None, gt=0)
    placebo_period: GivenPeriod | None = None
    leave_one_out: bool = True
    conformal: bool = False

    @property
    def has_predictors(self) -> bool:
        """Whether anything beside the outcome path is matched."""
        return bool(self.predictors or self.special_predictors)

    @model_validator(mode="after")
    def _options_of_the_variant(self) -> "ControlOptions":
        if self.has_predictors and self.variant != "standard":
            raise ValueError(f"predictors go with variant standard, not {self.variant}")
        if self.penalty is not None and self.variant != "penalised":
            raise ValueError(f"penalty goes with variant penalised, not {self.variant}")
        if self.has_predictors and self.conformal:
            raise ValueError("conformal intervals match outcomes only: leave out the predictors")
        for name, default in (
            ("predictor_window", None), ("importance", "nested"), ("placebo_importance", "refit"),
        ):  # fmt: skip
            if not self.has_predictors and getattr(self, name) != default:
                raise ValueError(f"{name} needs predictors or special_predictors")
        if self.validation_start is not None and self.importance != "cross_validated":
            raise ValueError("validation_start goes with importance: cross_validated")
        return self

    @model_validator(mode="after")
    def _spend_is_known(self) -> "ControlOptions":
        if self.returns is not None and not self.returns.is_known:
            raise ValueError(
                "returns: the interval of a rank test does not combine with spend_std_error or "
                "margin_std_error; leave them out, or use method synthetic_did"
            )
        return self

    @model_validator(mode="after")
    def _predictors_differ(self) -> "ControlOptions":
        repeated = sorted({name for name in self.predictors if self.predictors.count(name) > 1})
        if repeated:
            raise ValueError(f"predictors listed twice: {', '.join(repeated)}")
        special = [item.model_dump_json() for item in self.special_predictors]
        if len(set(special)) < len(special):
            raise ValueError("the same special predictor is listed twice")
        return self

    @model_validator(mode="after")
    def _windows_are_ordered(self) -> "ControlOptions":
        for name in ("match_window", "predictor_window"):
            window = getattr(self, name)
            if window is not None and lies_after(*window):
                raise ValueError(f"{name} ends before it begins")
        return self


class SyntheticControlSpec(Spec):
    """A synthetic control analysis."""

    method: Literal["synthetic_control"]
    options: ControlOptions
