"""Looking at an experiment while it runs, with error rates that stay true.

Works on any estimate with a standard error: each look is one row, kept from the day it was made,
and the data are not needed again. Two families:

- group sequential (`spending`, `obrien_fleming`, `pocock`, `wang_tsiatis`): a planned maximum of
  information, few to some dozens of looks, boundaries that spend the error between them, optional
  stops for futility, and an adjusted p-value, median-unbiased estimate and interval at the stop;
- always valid (`confidence_sequence`, `msprt`): any number of looks, no planned end, wider
  intervals.

Assumes estimates that are jointly normal with independent increments in information, which holds
for means, ratios, regression coefficients and their covariate-adjusted forms in large samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.errors import DataError
from causal.core.gram import Array
from causal.experiments.confidence_sequence import (
    always_valid_pvalues,
    log_evalue,
    radius,
    tuning,
)
from causal.experiments.group_sequential import (
    Boundaries,
    FutilityPlan,
    boundaries,
    planned_error,
)
from causal.experiments.sequential_looks import Look, LookArrays, look_arrays
from causal.experiments.sequential_options import (
    ALWAYS_VALID,
    SequentialOptions,
    planned_drift,
)
from causal.experiments.spending import Spending, checked_fractions, spent
from causal.experiments.stage_wise import repeated_pvalues, stage_wise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Decision = Literal["continue", "stop_efficacy", "stop_futility", "stop_end", "after_stop"]

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class LookReadout:
    """What a look means.

    Attributes:
        look: Number of the look, from 1.
        name: Its label.
        information: Information.
        fraction: Information over the planned maximum; `None` where nothing is planned.
        estimate: The estimate.
        std_error: Its standard error.
        statistic: Estimate less the null value, in standard errors.
        efficacy_lower: Stop for an effect at or below this statistic; `-inf`: never.
        efficacy_upper: Stop for an effect at or above this statistic; `inf`: never.
        futility: Stop for futility at a statistic no farther in the direction of the alternative
            (two-sided: at an absolute statistic at or below this); `None`: not at this look.
        alpha_spent: Cumulative error spent, of all sides; `None` for always-valid methods.
        ci_lower: Lower end of the interval that holds at all looks together.
        ci_upper: Its upper end.
        pvalue: p-value that holds at every look: the smallest so far of the levels at which the
            test would have rejected.
        decision: What to do at this look.
    """

    look: int
    name: str
    information: float
    fraction: float | None
    estimate: float
    std_error: float
    statistic: float
    efficacy_lower: float
    efficacy_upper: float
    futility: float | None
    alpha_spent: float | None
    ci_lower: float
    ci_upper: float
    pvalue: float
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """Inference that allows for having stopped when the test said so.

    Attributes:
        estimate: Group sequential: median-unbiased. Always valid: the plain estimate.
        ci_lower: Lower end of the interval.
        ci_upper: Upper end of the interval.
        confidence_level: Its coverage.
        pvalue: Two-sided, or of the one side that the alternative has.
        kind: `stage_wise` or `always_valid`.
    """

    estimate: float
    ci_lower: float
    ci_upper: float
    confidence_level: float
    pvalue: float
    kind: Literal["stage_wise", "always_valid"]


@dataclass(frozen=True, kw_only=True)
class SequentialResult:
    """Everything the looks say so far.

    Attributes:
        options: How the experiment is looked at.
        looks: The looks in order.
        decision: What to do now.
        stopped_at: Number of the look at which the test stopped, from 1; `None` while it runs.
        adjusted: Inference at the stop; `None` while it runs.
    """

    options: SequentialOptions
    looks: tuple[LookReadout, ...]
    decision: Decision
    stopped_at: int | None
    adjusted: Adjusted | None

    def to_frame(self) -> pd.DataFrame:
        """One row per look, columns as the fields of `LookReadout`."""
        names = list(LookReadout.__dataclass_fields__)
        rows = [{name: getattr(look, name) for name in names} for look in self.looks]
        return pd.DataFrame(rows, columns=names)


@dataclass(frozen=True, kw_only=True)
class _Bands:
    """What a method says at each look, all shape (K,); in the direction of `LookArrays.sign`."""

    fraction: Array | None
    efficacy: Array
    futility: Array | None
    alpha_spent: Array | None
    pvalue: Array
    is_over: bool
    radius: Array
    """Half-widths of the repeated intervals in standard errors: a boundary that a binding futility
    stop has lowered holds for no effect only, and would not cover one worth having."""


def evaluate(looks: Sequence[Look], options: SequentialOptions) -> SequentialResult:
    """Read an experiment's looks: boundaries, intervals, decisions, and inference at the stop.

    A group sequential test is over at the first look at or beyond the planned maximum of
    information (the last planned look of a classic test), or at one marked final: the error that is
    left is spent there, and further looks are refused. A non-binding futility stop that was
    followed by further looks counts as overruled.

    Args:
        looks: The looks in order of time.
        options: How the experiment is looked at.

    Raises:
        DataError: No look; an estimate or standard error that is no number; information that does
            not grow; a look after the end.

    Example:
        >>> options = SequentialOptions(method="spending", maximum_information=100.0)
        >>> looks = [
        ...     Look(name="week 1", estimate=0.31, std_error=0.16),
        ...     Look(name="week 2", estimate=0.37, std_error=0.12),
        ... ]
        >>> result = evaluate(looks, options)
        >>> [round(look.efficacy_upper, 3) for look in result.looks]
        [3.401, 2.455]
        >>> result.decision, result.stopped_at
        ('stop_efficacy', 2)
    """
    sign = -1.0 if options.alternative == "decrease" else 1.0
    seen = look_arrays(looks, null_value=options.null_value, sign=sign)
    limits: Boundaries | None = None
    if options.method in ALWAYS_VALID:
        bands = _always_valid(seen, options)
    else:
        limits, bands = _group_sequential(seen, options)
    decisions = _decisions(seen, bands, options)
    stops = [at for at, found in enumerate(decisions) if found.startswith("stop_")]
    at = stops[0] if stops else None
    return SequentialResult(
        options=options,
        looks=tuple(
            _readout(looks[row].name, row, seen, bands, decision=decisions[row], options=options)
            for row in range(len(looks))
        ),
        decision=decisions[-1 if at is None else at],
        stopped_at=None if at is None else at + 1,
        adjusted=None if at is None else _adjusted(at, seen, bands, limits, options=options),
    )


def figure(result: SequentialResult) -> "Figure":
    """Path of z against its boundaries, and the intervals at every look."""
    from causal.experiments import sequential_figures

    return sequential_figures.figure(result)


def _always_valid(seen: LookArrays, options: SequentialOptions) -> _Bands:
    is_two_sided = options.is_two_sided
    fraction = None
    if options.maximum_information is not None:
        fraction = seen.information / options.maximum_information
        ratio = tuning(alpha=options.alpha, is_two_sided=is_two_sided) * fraction
    else:
        ratio = (cast(float, options.effect_spread) / seen.std_error) ** 2
    return _Bands(
        fraction=fraction,
        efficacy=radius(ratio, alpha=options.alpha, is_two_sided=is_two_sided),
        futility=None,
        alpha_spent=None,
        pvalue=always_valid_pvalues(log_evalue(seen.z, ratio, is_two_sided=is_two_sided)),
        is_over=seen.is_final,
        radius=radius(ratio, alpha=options.alpha, is_two_sided=is_two_sided),
    )


def _group_sequential(seen: LookArrays, options: SequentialOptions) -> tuple[Boundaries, _Bands]:
    fractions = _fractions(seen, options)
    is_over = _is_over(fractions, seen, options)

    def error_at(side_alpha: float) -> Array:
        return _error(fractions, side_alpha, options=options, is_over=is_over)

    error = error_at(options.side_alpha)
    limits = _limits(fractions, error, options=options, is_over=is_over)
    sizes = np.abs(seen.z) if options.is_two_sided else seen.z
    pvalue = repeated_pvalues(sizes, limits, error_at=error_at)
    if options.is_two_sided:
        pvalue = np.minimum(2 * pvalue, 1.0)
    bands = _Bands(
        fraction=fractions,
        efficacy=limits.efficacy,
        futility=limits.futility,
        alpha_spent=error * (options.alpha / options.side_alpha),
        pvalue=pvalue,
        is_over=is_over,
        radius=boundaries(fractions, error, is_two_sided=options.is_two_sided).efficacy,
    )
    return limits, bands


def _fractions(seen: LookArrays, options: SequentialOptions) -> Array:
    """Observed information fractions; a classic test may take its scale from the plan."""
    n_looks = len(seen.information)
    planned = options.planned_fractions
    if options.method != "spending" and planned is not None and n_looks > len(planned):
        raise DataError("there are more looks than planned", given=n_looks, allowed=len(planned))
    if options.maximum_information is not None:
        scale = options.maximum_information
    else:
        last = cast(tuple[float, ...], planned)[n_looks - 1]
        scale = float(seen.information[-1]) / last
    fractions = seen.information / scale
    # One over a squared standard error hits the planned maximum only up to rounding.
    fractions = np.where(np.abs(fractions - 1.0) < _ROUNDING, 1.0, fractions)
    try:
        return checked_fractions(fractions)
    except DataError as error:
        raise DataError(
            error.message,
            given=error.given,
            allowed="information of each look in another unit, such as units enrolled",
        ) from error


def _is_over(fractions: Array, seen: LookArrays, options: SequentialOptions) -> bool:
    if options.method != "spending":
        n_planned = len(cast(tuple[float, ...], options.planned_fractions))
        return seen.is_final or len(fractions) == n_planned
    reached = np.flatnonzero(fractions >= 1.0)
    if len(reached) and reached[0] < len(fractions) - 1:
        raise DataError(
            "looks come after the planned end: no error is left to spend",
            given=f"look {reached[0] + 1} has information fraction {fractions[reached[0]]:.4g}",
            allowed="looks up to the first one at fraction 1",
        )
    return seen.is_final or bool(len(reached))


def _error(
    fractions: Array, side_alpha: float, *, options: SequentialOptions, is_over: bool
) -> Array:
    """Cumulative error of one side at the observed looks."""
    rule = options.rule
    if isinstance(rule, Spending):
        error = spent(fractions, total=side_alpha, spending=rule)
    else:
        plan = cast(tuple[float, ...], options.planned_fractions)
        planned = planned_error(rule, plan, alpha=side_alpha, is_two_sided=options.is_two_sided)
        error = planned[: len(fractions)].copy()
    if is_over:
        error[-1] = side_alpha
    return error


def _limits(
    fractions: Array, error: Array, *, options: SequentialOptions, is_over: bool
) -> Boundaries:
    is_two_sided, futility = options.is_two_sided, options.futility
    if futility is None:
        return boundaries(fractions, error, is_two_sided=is_two_sided)
    beta = spent(fractions, total=1 - futility.power, spending=futility.spending)
    plan = FutilityPlan(spent=beta, drift=planned_drift(options), is_binding=futility.is_binding)
    limits = boundaries(fractions, error, is_two_sided=is_two_sided, futility=plan)
    if not is_over:
        return limits
    # At the end there is nothing to wait for: whoever does not reject stops.
    idle = np.append(cast(Array, limits.futility)[:-1], limits.efficacy[-1])
    return Boundaries(
        fractions=fractions,
        efficacy=limits.efficacy,
        futility=idle,
        is_two_sided=is_two_sided,
        is_binding=futility.is_binding,
    )


def _decisions(seen: LookArrays, bands: _Bands, options: SequentialOptions) -> list[Decision]:
    n_looks = len(seen.z)
    size = np.abs(seen.z) if options.is_two_sided else seen.z
    is_effect = size >= bands.efficacy
    is_idle = np.zeros(n_looks, dtype=bool) if bands.futility is None else size <= bands.futility
    if options.futility is not None and not options.futility.is_binding:
        # Whoever looked again has overruled the stop.
        is_idle[:-1] = False
    stops = np.flatnonzero(is_effect | is_idle)
    out: list[Decision] = ["continue"] * n_looks
    if len(stops):
        first = int(stops[0])
        _check_obeyed(first, n_looks, is_idle, options)
        out[first] = "stop_efficacy" if is_effect[first] else "stop_futility"
        out[first + 1 :] = ["after_stop"] * (n_looks - first - 1)
    if bands.is_over and out[-1] in ("continue", "stop_futility"):
        out[-1] = "stop_end"
    return out


def _check_obeyed(
    first: int, n_looks: int, is_idle: NDArray[np.bool_], options: SequentialOptions
) -> None:
    """The level of a test with binding futility rests on its stops being obeyed."""
    if first + 1 < n_looks and is_idle[first] and options.futility is not None:
        raise DataError(
            "looks come after a binding futility stop, on whose being obeyed the level rests",
            given=f"a stop at look {first + 1} of {n_looks}",
            allowed="no further looks, or is_binding: false from the start",
        )


def _readout(
    name: str,
    row: int,
    seen: LookArrays,
    bands: _Bands,
    *,
    decision: Decision,
    options: SequentialOptions,
) -> LookReadout:
    efficacy, sign = float(bands.efficacy[row]), seen.sign
    lower = -efficacy if options.is_two_sided or sign < 0 else -np.inf
    upper = efficacy if options.is_two_sided or sign > 0 else np.inf
    half = float(bands.radius[row]) * seen.std_error[row]
    return LookReadout(
        look=row + 1,
        name=name,
        information=float(seen.information[row]),
        fraction=None if bands.fraction is None else float(bands.fraction[row]),
        estimate=float(seen.estimate[row]),
        std_error=float(seen.std_error[row]),
        statistic=float(sign * seen.z[row]),
        efficacy_lower=float(lower),
        efficacy_upper=float(upper),
        futility=_futility_value(row, seen, bands, options),
        alpha_spent=None if bands.alpha_spent is None else float(bands.alpha_spent[row]),
        ci_lower=float(seen.estimate[row] - half),
        ci_upper=float(seen.estimate[row] + half),
        pvalue=float(bands.pvalue[row]),
        decision=decision,
    )


def _futility_value(
    row: int, seen: LookArrays, bands: _Bands, options: SequentialOptions
) -> float | None:
    if bands.futility is None:
        return None
    value = float(bands.futility[row])
    if options.is_two_sided:
        return value if value > 0 else None
    return seen.sign * value if np.isfinite(value) else None


def _adjusted(
    at: int,
    seen: LookArrays,
    bands: _Bands,
    limits: Boundaries | None,
    *,
    options: SequentialOptions,
) -> Adjusted:
    estimate, std_error = float(seen.estimate[at]), float(seen.std_error[at])
    if limits is None:
        half = float(bands.efficacy[at]) * std_error
        return Adjusted(
            estimate=estimate,
            ci_lower=estimate - half,
            ci_upper=estimate + half,
            confidence_level=options.confidence_level,
            pvalue=float(bands.pvalue[at]),
            kind="always_valid",
        )
    found = stage_wise(limits, float(seen.z[at]), look=at, alpha=options.side_alpha)
    unit = seen.sign * float(np.sqrt(limits.fractions[at])) * std_error
    ends = sorted(options.null_value + unit * end for end in (found.ci_lower, found.ci_upper))
    above = found.pvalue_above
    return Adjusted(
        estimate=options.null_value + unit * found.median,
        ci_lower=ends[0],
        ci_upper=ends[1],
        confidence_level=options.confidence_level,
        pvalue=2 * min(above, 1 - above) if options.is_two_sided else above,
        kind="stage_wise",
    )
