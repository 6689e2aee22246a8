"""Metrics of an experiment as a spec declares them, and the terms each of them is made of."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from causal.core.errors import SpecError
from causal.core.frames import Clipped, Column, Term
from causal.core.spec import COLUMN_PATTERN, Part
from causal.experiments.bootstrap_intervals import InferenceKind
from causal.experiments.levels import Quotient

ColumnName = Annotated[str, Field(pattern=COLUMN_PATTERN)]
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")]
MetricType = Literal["mean", "proportion", "count", "ratio", "quantile", "retention"]
_OTHER_TYPES = ("quantile", "retention")
_RETENTION_KEYS = ("churn_day", "observed_days", "horizon")
Role = Literal["primary", "secondary", "guardrail"]
Direction = Literal["increase", "decrease"]
MarginScale = Literal["absolute", "relative"]


class ColumnRatio(Part):
    """A ratio of sums of two columns, such as orders per session.

    Attributes:
        numerator: Column of the numerator.
        denominator: Column of the denominator.
    """

    numerator: ColumnName
    denominator: ColumnName

    @model_validator(mode="after")
    def _two_columns(self) -> "ColumnRatio":
        if self.numerator == self.denominator:
            raise ValueError("numerator and denominator must be different columns")
        return self


class Winsorise(Part):
    """Bounds to which values beyond them are set.

    A bound is a number, or a quantile of the outcome over all arms together. A quantile is an
    estimate; because it is the same for all arms its error moves an effect only as far as the arms
    differ in how many of their units lie beyond it, and standard errors take it as given.

    Attributes:
        lower: Smaller values become this one; open if left out.
        upper: Larger values become this one; open if left out.
        lower_quantile: The same, as a quantile: 0.01 moves the smallest hundredth.
        upper_quantile: The same, as a quantile: 0.99 moves the largest hundredth.
    """

    lower: float | None = None
    upper: float | None = None
    lower_quantile: float | None = Field(default=None, gt=0, lt=1)
    upper_quantile: float | None = Field(default=None, gt=0, lt=1)

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The quantiles that are to be found."""
        return tuple(q for q in (self.lower_quantile, self.upper_quantile) if q is not None)

    @model_validator(mode="after")
    def _quantiles_stand_alone(self) -> "Winsorise":
        for side in ("lower", "upper"):
            if getattr(self, side) is not None and getattr(self, f"{side}_quantile") is not None:
                raise ValueError(f"winsorise: give {side} or {side}_quantile, not both")
        low, high = self.lower_quantile, self.upper_quantile
        if low is not None and high is not None and not low < high:
            raise ValueError("winsorise: lower_quantile must be below upper_quantile")
        return self

    @model_validator(mode="after")
    def _bounds(self) -> "Winsorise":
        if self.lower is None and self.upper is None and not self.quantiles:
            raise ValueError("winsorise needs lower or upper, or a quantile for one of them")
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError("winsorise: lower must be below upper")
        return self


def _covariate_kind(value: object) -> str:
    return "(column)" if isinstance(value, str) else "(ratio)"


Covariate = Annotated[
    Annotated[ColumnName, Tag("(column)")] | Annotated[ColumnRatio, Tag("(ratio)")],
    Discriminator(_covariate_kind),
]


class Metric(Part):
    """One outcome of an experiment.

    Attributes:
        name: Name in the results.
        type: `mean` per unit; `proportion` of units, a 0/1 column; `count` of events per unit,
            which is never negative; `ratio` of two sums, such as refunds per order, whose units of
            randomisation are not its units of analysis; `quantile` of the rows;
            `retention`: the share of units that are still there after some days.
        column: The outcome; a ratio has two columns in its place.
        numerator: Numerator of a ratio.
        denominator: Denominator of a ratio.
        role: What the metric is for; a guardrail must not get worse.
        direction: The change that is good.
        margin: How much worse a guardrail may get: a positive number.
        margin_scale: Whether `margin` is in the metric's unit or a share of the control level.
        covariates: Predictors measured before the experiment, for CUPED.
        winsorise: Bounds for the outcome of a mean or a count. The estimand is then the effect on
            the bounded outcome; covariates are taken as they are.
        quantile: Which quantile, such as 0.95: the smallest value that at least this share of the
            rows do not exceed.
        resolution: Step to which a quantile's values are rounded, such as 1 for whole milliseconds;
            the quantile is then interpolated within the step.
        churn_day: Of a retention: the day, counted from the unit's start, on which it left; null:
            it had not left when it was last seen. In place of `column`, which is 1 if the unit was
            there on the horizon's day and 0 if not.
        observed_days: Of a retention: the days from the unit's start to the end of the data.
        horizon: Of a retention: the days, such as 1, 7 or 28.
        inference: How intervals and tests are made, if not as the experiment's other metrics:
            `formula` or `bootstrap`.
    """

    name: MetricName
    type: MetricType
    column: ColumnName | None = None
    numerator: ColumnName | None = None
    denominator: ColumnName | None = None
    role: Role = "secondary"
    direction: Direction = "increase"
    margin: float | None = Field(default=None, gt=0)
    margin_scale: MarginScale = "absolute"
    covariates: tuple[Covariate, ...] = ()
    winsorise: Winsorise | None = None
    quantile: float | None = Field(default=None, gt=0, lt=1)
    resolution: float | None = Field(default=None, gt=0)
    churn_day: ColumnName | None = None
    observed_days: ColumnName | None = None
    horizon: int | None = Field(default=None, ge=0, strict=True)
    inference: InferenceKind | None = None

    @model_validator(mode="after")
    def _quantile_fits_type(self) -> "Metric":
        if (self.quantile is not None) != (self.type == "quantile"):
            raise ValueError(f"metric {self.name}: type quantile, and no other, takes quantile")
        if self.resolution is not None and self.type != "quantile":
            raise ValueError(f"metric {self.name}: only a quantile has a resolution")
        if self.covariates and self.type in _OTHER_TYPES:
            raise ValueError(f"metric {self.name}: a {self.type} has no covariates")
        return self

    @model_validator(mode="after")
    def _retention_fits_type(self) -> "Metric":
        given = [name for name in _RETENTION_KEYS if getattr(self, name) is not None]
        if self.type != "retention":
            if given:
                raise ValueError(f"metric {self.name}: only a retention has {given[0]}")
            return self
        missing = [name for name in ("observed_days", "horizon") if name not in given]
        if missing:
            raise ValueError(f"metric {self.name}: a retention needs {' and '.join(missing)}")
        columns = (self.column, self.churn_day, self.observed_days)
        if len({name for name in columns if name is not None}) != 2:  # noqa: PLR2004 - a pair
            raise ValueError(
                f"metric {self.name}: a retention takes column or churn_day, and another column "
                "for observed_days"
            )
        return self

    @model_validator(mode="after")
    def _columns_fit_type(self) -> "Metric":
        needed = {"numerator", "denominator"} if self.type == "ratio" else {"column"}
        if self.churn_day is not None:
            needed = set()
        columns = {"column", "numerator", "denominator"}
        given = {name for name in columns if getattr(self, name) is not None}
        if given != needed:
            raise ValueError(
                f"metric {self.name}: type {self.type} takes {' and '.join(sorted(needed))}"
            )
        if self.type == "ratio" and self.numerator == self.denominator:
            raise ValueError(f"metric {self.name}: numerator and denominator are the same column")
        return self

    @model_validator(mode="after")
    def _bounds_fit_type(self) -> "Metric":
        if self.winsorise is not None and self.type not in {"mean", "count"}:
            raise ValueError(f"metric {self.name}: only a mean or a count can be winsorised")
        return self

    @model_validator(mode="after")
    def _margin_fits_role(self) -> "Metric":
        if self.margin is not None and self.role != "guardrail":
            raise ValueError(f"metric {self.name}: only a guardrail has a margin")
        if "margin_scale" in self.model_fields_set and self.margin is None:
            raise ValueError(f"metric {self.name}: margin_scale needs a margin")
        return self

    @model_validator(mode="after")
    def _covariates_are_predictors(self) -> "Metric":
        outcomes = set(_columns_of(self.outcome))
        for covariate in self.covariates:
            shared = outcomes.intersection(_columns_of(covariate))
            if shared:
                raise ValueError(
                    f"metric {self.name}: covariate {covariate_name(covariate)} is made of the "
                    f"outcome ({', '.join(sorted(shared))}); a covariate is measured before it"
                )
        names = [covariate_name(covariate) for covariate in self.covariates]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"metric {self.name}: covariate {repeated[0]} is listed twice")
        return self

    @property
    def is_moment(self) -> bool:
        """Whether the metric is a function of means over rows."""
        return self.type not in _OTHER_TYPES

    @property
    def outcome(self) -> str | ColumnRatio:
        """The outcome in the form that covariates have: a column, or a ratio of two."""
        if self.numerator is not None and self.denominator is not None:
            return ColumnRatio(numerator=self.numerator, denominator=self.denominator)
        return str(self.column if self.churn_day is None else self.churn_day)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The columns of the outcome, then those of the covariates, each once."""
        covariates = (Column(name) for part in self.covariates for name in _columns_of(part))
        return tuple(dict.fromkeys((*self._outcome_terms, *covariates)))

    @property
    def quotients(self) -> tuple[Quotient, ...]:
        """The outcome, then the covariates, as quotients of means of `terms`."""
        covariates = (
            self._quotient(covariate_name(item), tuple(map(Column, _columns_of(item))))
            for item in self.covariates
        )
        return (self._quotient(self.name, self._outcome_terms), *covariates)

    @property
    def _outcome_terms(self) -> tuple[Term, ...]:
        columns = tuple(map(Column, _columns_of(self.outcome)))
        if self.winsorise is None:
            return columns
        if self.winsorise.quantiles:
            raise SpecError(f"metric {self.name}: the quantiles of winsorise are not known yet")
        return tuple(
            Clipped(column, self.winsorise.lower, self.winsorise.upper) for column in columns
        )

    def _quotient(self, name: str, terms: tuple[Term, ...]) -> Quotient:
        at = [self.terms.index(term) for term in terms]
        return Quotient(name, at[0], at[1] if len(at) > 1 else None)


def covariate_name(covariate: str | ColumnRatio) -> str:
    """A covariate as text: `sessions`, or `orders/sessions`."""
    return "/".join(_columns_of(covariate))


def columns_of(metric: Metric) -> frozenset[str]:
    """The columns that a metric reads."""
    parts = (metric.outcome, *metric.covariates)
    observed = () if metric.observed_days is None else (metric.observed_days,)
    return frozenset((*(name for part in parts for name in _columns_of(part)), *observed))


def outcome_columns(metric: Metric) -> tuple[str, ...]:
    """The columns of a metric's outcome."""
    return _columns_of(metric.outcome)


def _columns_of(part: str | ColumnRatio) -> tuple[str, ...]:
    return (part,) if isinstance(part, str) else (part.numerator, part.denominator)
