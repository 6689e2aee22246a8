r"""A treatment of which units get different doses from one period on.

Callaway, Goodman-Bacon and Sant'Anna (2024), "Difference-in-differences with a continuous
treatment". With the change of the outcome less that of units without treatment,

    ATT(d|d) = E[change | dose d] - E[change | dose 0]

is the effect of dose d on the units that got it, under parallel trends of each dose and none. Means
over a bin of doses average it over the units of the bin. How it changes from dose to dose mixes
what more of the treatment does with who gets more of it: slopes are average causal responses on the
treated (ACRT) under *strong* parallel trends only, by which units of all doses would have gained
alike from each dose.

All of it is one regression with unit and period effects on functions of the dose from the start on:
dummies of bins, or a jump and slopes between knots, each 0 for dose 0. In a complete panel that is
the regression of each unit's mean afterwards less its mean before.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.checks import few_clusters, panel_health
from causal.core.errors import DataError
from causal.core.frames import (
    Between,
    Clipped,
    Column,
    Condition,
    Constant,
    FrameRequest,
    GramRequest,
    PanelGramRequest,
    Product,
    Term,
    UnitValue,
    linear,
)
from causal.core.gram import gram, panel_grams
from causal.core.readout import Readout, covariance_table
from causal.core.result import Diagnostic, Effect
from causal.quasi.did_options import DidOptions, DidSpec
from causal.quasi.effects_regression import Regressions, observed_terms, regress
from causal.quasi.panel import Panel, cohort_means, observe
from causal.quasi.readout import MAX_WINDOW, panel_diagnostics, pre_trend, regression_effect
from causal.quasi.treated_clusters import NAME
from causal.quasi.treatment_timing import EventWindow, period_sum
from causal.quasi.within_fit import Regressor

ANY = "any dose"
_LEAST = 1.5
"""Units or clusters, counted by their sizes, below which a bin rests on one of them."""


@dataclass(frozen=True)
class Range:
    """Doses above `low` up to `high`; `None`: no end.

    Attributes:
        low: Below the smallest dose of the range.
        high: Its largest dose.
    """

    low: float
    high: float | None

    @property
    def name(self) -> str:
        """As an interval."""
        return f"above {self.low:g}" if self.high is None else f"({self.low:g}, {self.high:g}]"

    def dummy(self, dose: Term) -> Term:
        """1 for doses of the range."""
        below = (Between(dose, high=self.low), -1.0)
        up_to: Term = Constant() if self.high is None else Between(dose, high=self.high)
        return linear([(up_to, 1.0), below])

    def length(self, dose: Term) -> Term:
        """How much of the range lies below a dose."""
        return linear([(Clipped(dose, low=self.low, high=self.high), 1.0), (Constant(), -self.low)])


@dataclass(frozen=True, kw_only=True)
class Doses:
    """Units by dose: those with rows before and after the start, which alone tell a change.

    Attributes:
        ranges: The M ranges.
        counts: Units of each, shape (M,).
        means: Mean dose of each, shape (M,).
        n_control: Units without a dose.
    """

    ranges: tuple[Range, ...]
    counts: tuple[int, ...]
    means: tuple[float, ...]
    n_control: int

    @property
    def n_treated(self) -> int:
        """Units with a dose."""
        return sum(self.counts)


def estimate(spec: DidSpec, *, outcome: str) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    """The effects of doses on the units that got them, for one outcome.

    Raises:
        DataError: Doses that change within a unit or are negative, nobody with or without one, or
            a range of doses with (nearly) one unit or cluster.
    """
    options, where = spec.options, spec.source.conditions
    panel = yield from observe(options, outcome=outcome, where=where)
    observed = yield from observed_terms(options, panel, outcome=outcome, where=where)
    doses = yield from _observe_doses(options, observed, where=where)
    whole = _after(options, panel, {ANY: Range(0.0, None).dummy(Column(str(options.dose)))})
    shape = _after(options, panel, _functions(options, doses.ranges))
    clusters = yield from _ask_clusters(options, panel, doses, observed, where=where)
    plain = yield from regress(options, whole, leads=(), outcome=outcome, panel=panel, where=where)
    found = yield from regress(
        options, shape, leads=_leads(options, panel, shape), outcome=outcome, panel=panel,
        where=where,
    )  # fmt: skip
    plain, found = (
        replace(item, n_treated=doses.n_treated, n_control=doses.n_control)
        for item in (plain, found)
    )
    each = [
        _effect(spec, found, doses, metric=outcome, regressor=regressor) for regressor in shape
    ]  # fmt: skip
    estimates = found.main
    return Readout(
        effects=(regression_effect(spec, plain, metric=outcome, term=ANY), *each),
        diagnostics=(
            pre_trend(options, found.leads, alpha=1 - spec.confidence_level),
            *panel_diagnostics(options, panel, found),
            *clusters,
            _said(options),
        ),
        params={"n_rows": estimates.fit.n, "n_units": estimates.fit.n_units},
        tables={
            "cohort_means": cohort_means(found.cells, metric=outcome),
            "dose_response": _levels(spec, found, doses, metric=outcome),
            "covariance": covariance_table(estimates.names, estimates.covariance, metric=outcome),
        },
    )


def _ranges(options: DidOptions) -> tuple[Range, ...]:
    cuts = options.dose_bins if options.dose_knots is None else options.dose_knots
    ends = [0.0, *(cuts or [])]
    return tuple(Range(low, high) for low, high in zip(ends, [*ends[1:], None], strict=True))


def _functions(options: DidOptions, ranges: Sequence[Range]) -> Mapping[str, Term]:
    """Functions of the dose by the name of their coefficient, 0 for dose 0."""
    dose = Column(str(options.dose))
    if options.dose_knots is None:
        return {f"dose {item.name}": item.dummy(dose) for item in ranges}
    jump = {"jump at 0": Range(0.0, None).dummy(dose)}
    return jump | {f"slope {item.name}": item.length(dose) for item in ranges}


def _after(
    options: DidOptions, panel: Panel, functions: Mapping[str, Term]
) -> tuple[Regressor, ...]:
    """The functions from the start of the treatment on."""
    post = panel.periods[panel.periods >= _start(options)]
    if len(post) in {0, len(panel.periods)}:
        raise DataError(
            "treatment_period leaves no period before or after it", given=options.treatment_period
        )
    after = period_sum(options.period, post)
    return tuple(Regressor(name, Product((after, term))) for name, term in functions.items())


def _start(options: DidOptions) -> float:
    if options.treatment_period is None:
        raise ValueError("a dose starts in some period")
    return options.treatment_period - options.anticipation


def _leads(options: DidOptions, panel: Panel, shape: Sequence[Regressor]) -> tuple[Regressor, ...]:
    """The functions in each period before the last one without treatment, and after the start.

    Periods long before are taken together. Empty where there is one period before.
    """
    before = panel.periods[panel.periods < _start(options)][:-1]
    groups = [before[:-MAX_WINDOW], *np.split(before[-MAX_WINDOW:], len(before[-MAX_WINDOW:]))]
    found = list(shape)
    for group in groups:
        if len(group):
            time = int(np.floor(group[-1] - (_start(options) + options.anticipation)))
            inside = period_sum(options.period, group)
            for regressor in shape:
                term = Product((inside, *_function_of(regressor)))
                name = f"{regressor.name}, event_time={time}"
                found.append(Regressor(name, term, EventWindow(name, time, time)))
    return tuple(found) if len(before) else ()


def _function_of(regressor: Regressor) -> tuple[Term, ...]:
    """The function of the dose in a regressor of `_after`."""
    if not isinstance(regressor.term, Product):
        raise TypeError("a regressor of the dose is a product")
    return regressor.term.factors[1:]


def _observe_doses(
    options: DidOptions, observed: Sequence[Term], *, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Doses]:
    """Units and mean doses of each range, in one pass.

    A unit counts if it has a row before the start and one after, each with every column of the
    regression and a weight above 0: the others tell nothing of the effects.

    Args:
        options: The analysis.
        observed: Terms that are null in rows that cannot be used.
        where: Conditions on the rows.

    Raises:
        DataError: Doses change within a unit or are negative, or fewer than two units have none, or
            one of a range.
    """
    first = PanelGramRequest(
        unit=options.unit, period=options.period, outcome=_counts(options, observed), where=where,
        covariates=(Column(str(options.dose)),), values=(Constant(),), crossed="none",
    )  # fmt: skip
    periods = panel_grams((yield first), first)[0].periods
    dose, ranges = UnitValue(len(periods)), _ranges(options)
    sides = (periods < _start(options), periods >= _start(options))
    tells = tuple(_is_seen(side) for side in sides)
    dummies = [Product((item.dummy(dose), *tells)) for item in ranges]
    values: list[Term] = [
        *dummies, *[Product((dummy, dose)) for dummy in dummies],
        Product((Between(dose, high=0.0), *tells)), Between(dose, high=0.0, is_closed=False),
    ]  # fmt: skip
    request = replace(first, values=tuple(values), units="seen")
    (found,) = panel_grams((yield request), request)
    sums = found.n * found.mean
    counts = [round(float(n)) for n in sums[: len(ranges)]]
    n_control, n_negative = (round(float(n)) for n in sums[-2:])
    _check_doses(options, ranges, counts, n_control=n_control, n_negative=n_negative)
    totals = sums[len(ranges) : 2 * len(ranges)]
    return Doses(
        ranges=ranges, counts=tuple(counts), n_control=n_control,
        means=tuple(float(total) / n for total, n in zip(totals, counts, strict=True)),
    )  # fmt: skip


def _counts(options: DidOptions, observed: Sequence[Term]) -> Term:
    """1 for rows with a weight above 0, 0 for those without; missing where a term is."""
    known: list[Term] = [Between(term) for term in observed]
    if options.weight is not None:
        none = Between(Column(options.weight), high=0.0)
        known.append(linear([(Constant(), 1.0), (none, -1.0)]))
    return Product(tuple(known))


def _is_seen(side: NDArray[np.bool_]) -> Term:
    """1 for units with a row that counts in one of these periods, marked in shape (T,)."""
    values = [(UnitValue(int(at)), 1.0) for at in np.flatnonzero(side)]
    return Between(linear(values), low=0.5) if values else Constant(0.0)


def _check_doses(
    options: DidOptions,
    ranges: Sequence[Range],
    counts: Sequence[int],
    *,
    n_control: int,
    n_negative: int,
) -> None:
    if n_negative:
        raise DataError(f"{options.dose} is negative", given=f"{n_negative:,} units")
    if n_control <= 1:
        raise DataError(
            f"{'one' if n_control else 'no'} unit has {options.dose} 0 and usable rows before and "
            "after treatment_period: there is no comparison group"
        )
    few = [f"{n} {item.name}" for item, n in zip(ranges, counts, strict=True) if n <= 1]
    if few:
        raise DataError(
            "every range of doses needs two units or more with usable rows before and after "
            "treatment_period",
            given=", ".join(few), allowed="other dose_bins or dose_knots",
        )  # fmt: skip


def _ask_clusters(
    options: DidOptions,
    panel: Panel,
    doses: Doses,
    observed: Sequence[Term],
    *,
    where: tuple[Condition, ...],
) -> Generator[FrameRequest, pd.DataFrame, list[Diagnostic]]:
    """A check of the clusters of each range of doses and of dose 0; nothing where all are many.

    They count by the weights of their rows, before the start or after it, whichever is worse (of
    two columns of clusters, which may split units, by all rows; the one with fewer is told).

    Args:
        options: The analysis.
        panel: Its panel.
        doses: The ranges and their units.
        observed: Terms that are null in rows that cannot be used.
        where: Conditions on the rows.

    Raises:
        DataError: One of them lies in one cluster, or nearly, or in none that is known: its errors
            could not be seen.
    """
    names = ["dose 0", *[f"dose {item.name}" for item in doses.ranges]]
    dose = Column(str(options.dose))
    dummies = [Between(dose, high=0.0), *[item.dummy(dose) for item in doses.ranges]]
    is_after = panel.periods >= _start(options)
    times = (slice(None),) if options.is_two_way else (~is_after, is_after)
    terms = [
        Product((period_sum(options.period, panel.periods[inside]), dummy))
        for inside in times
        for dummy in dummies
    ]
    found: list[Diagnostic] = []
    for column in (name for name in options.cluster_columns if name != options.period):
        request = GramRequest(
            terms=(*terms, *map(Between, observed)), summed_by=(column,), where=where,
            weight=None if options.weight is None else Column(options.weight),
        )  # fmt: skip
        sums = gram((yield request), request)
        squares = np.diag(sums.moment())[: len(terms)]
        if not squares.all():
            raise DataError(f"{column} is null in every row of a range of doses")
        worths = (sums.n * sums.mean[: len(terms)]) ** 2 / squares
        worth = worths.reshape(len(times), -1).min(axis=0)
        alone = [name for name, n in zip(names, worth, strict=True) if n < _LEAST]
        if alone:
            raise DataError(
                f"units of a range of doses need two clusters or more: one {column} holds (nearly) "
                "all of them",
                given=alone, allowed="other dose_bins or dose_knots",
            )  # fmt: skip
        found += _few(options, doses, column, worth=dict(zip(names, worth, strict=True)), n=sums.n)
    return sorted(found, key=lambda item: item.statistic or 0.0)[:1]


def _few(
    options: DidOptions, doses: Doses, column: str, *, worth: Mapping[str, float], n: int
) -> list[Diagnostic]:
    """Whether clusters are few for some doses, of which there are n in all."""
    n_units = (doses.n_control, *doses.counts)
    counts = n_units if column == options.unit else [round(float(each)) for each in worth.values()]
    effective = [float(each) for each in worth.values()]
    if sum(effective) > n + 0.5:  # clusters hold units of several doses
        effective = [min(effective)]
    sides = {f"{name}:": count for name, count in zip(worth, counts, strict=True)}
    return few_clusters.sides(sides, name=NAME, effective=effective)


def _effect(
    spec: DidSpec, found: Regressions, doses: Doses, *, metric: str, regressor: Regressor
) -> Effect:
    effect = regression_effect(spec, found, metric=metric, term=regressor.name)
    if regressor.name.startswith("slope"):
        return replace(effect, estimand="acrt")
    counts = {f"dose {item.name}": n for item, n in zip(doses.ranges, doses.counts, strict=True)}
    return replace(effect, n_treated=counts.get(regressor.name, effect.n_treated))


def _levels(spec: DidSpec, found: Regressions, doses: Doses, *, metric: str) -> pd.DataFrame:
    """Effects on the units with a dose, by bin or at the knots and the mean dose of the last range.

    Columns: metric, low and high (the bin; NaN of a curve or without end), mean_dose, estimate,
    std_error, ci_lower, ci_upper, n (units).
    """
    rows = []
    is_curve = spec.options.dose_knots is not None
    for at, (item, n, mean) in enumerate(zip(doses.ranges, doses.counts, doses.means, strict=True)):
        weights, dose = {f"dose {item.name}": 1.0}, mean
        if is_curve:
            dose = mean if item.high is None else item.high
            weights = {"jump at 0": 1.0} | {
                f"slope {other.name}": (dose if other == item else float(other.high or dose))
                - other.low
                for other in doses.ranges[: at + 1]
            }
        effect = regression_effect(spec, found, metric=metric, term="level", weights=weights)
        rows.append(
            {
                "metric": metric, "low": np.nan if is_curve else item.low,
                "high": np.nan if is_curve or item.high is None else item.high,
                "mean_dose": dose, "estimate": effect.estimate, "std_error": effect.std_error,
                "ci_lower": effect.ci_lower, "ci_upper": effect.ci_upper, "n": n,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _said(options: DidOptions) -> Diagnostic:
    """What the numbers are, and what they rest on."""
    if options.dose_knots is None:
        detail = (
            "each is the effect of the doses of a bin on the units that got them; differences "
            "between bins are effects of more treatment under strong parallel trends only"
        )
        return panel_health.note("dose_response", None, detail)
    detail = (
        "slopes are effects of more treatment under strong parallel trends only: units of all "
        "doses would have gained alike from each dose"
    )
    return panel_health.note("dose_response", None, detail)
