"""Effects by time since exposure: does an effect wear off, or grow?

Each period's effect compares the rows of that period. The same units come back in several periods,
so the effects are correlated; their joint covariance sums linearised effects within clusters. Bands
hold over all periods at once, and one contrast tests whether effects move in one direction.

Who is still there late may differ from who was there early, and between arms if the treatment keeps
units: a trend in effects per row present is then a trend in who is present as well.

Sources: Hohnhold, O'Brien and Tang (2015), "Focusing on the long-term: it's good for users and
business"; Montiel Olea and Plagborg-Moller (2019), "Simultaneous confidence bands: theory,
implementation, and an application to SVARs".
"""

import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.checks.panel_health import note
from causal.core import inference
from causal.core.errors import DataError
from causal.core.frames import FrameRequest, Level
from causal.core.gram import Array, Gram, Key
from causal.core.result import Diagnostic, Effect
from causal.core.simultaneous import gaussian_critical_value
from causal.experiments.arms import MIN_UNITS, Arms, Design, ask_moments
from causal.experiments.cluster_sums import Clusters
from causal.experiments.comparison import (
    Comparison,
    Inference,
    adjusted_readout,
    raw_readout,
)
from causal.experiments.levels import is_constant
from causal.experiments.metrics import Metric
from causal.experiments.segments import SliceDesign, ask_effect_covariance
from causal.experiments.slice_covariance import Slice, SliceCovariance

MAX_PERIODS = 40
MIN_PERIODS = 3
"""Two periods always lie on a line."""

_N_DRAWS = 20_000

CURVE_COLUMNS = (
    "metric", "term", "estimator", "period", "n_treated", "n_control", "estimate", "std_error",
    "ci_lower", "ci_upper", "band_lower", "band_upper", "trend",
)  # fmt: skip


@dataclass(frozen=True)
class Trend:
    """A straight line through effects by period.

    Attributes:
        slope: Change of the effect per period.
        std_error: Of the slope, from the effects' joint covariance.
        line: The line at the periods, shape (s,).
        contrast: What the slope makes of the effects, shape (s,).
    """

    slope: float
    std_error: float
    line: Array
    contrast: Array


@dataclass(frozen=True, kw_only=True)
class Novelty:
    """Effects by period, bands and trends.

    Attributes:
        effects: By period, then the trend of each comparison.
        diagnostics: The test of each trend; periods and rows that are left out.
        curves: One row per comparison and period, with columns `CURVE_COLUMNS`.
    """

    effects: tuple[Effect, ...]
    diagnostics: tuple[Diagnostic, ...]
    curves: pd.DataFrame


def trend(periods: Array, estimates: Array, covariance: Array) -> Trend:
    """Least squares line, weighed by the effects' variances, with the error of their covariance.

    Args:
        periods: Shape (s,), at least two of them different.
        estimates: Effects, shape (s,).
        covariance: Their joint covariance, shape (s, s).
    """
    weights = 1.0 / np.diag(covariance)
    centre = float(weights @ periods / weights.sum())
    off = periods - centre
    contrast = weights * off / float(weights @ off**2)
    slope = float(contrast @ estimates)
    level = float(weights @ estimates / weights.sum())
    std_error = math.sqrt(max(float(contrast @ covariance @ contrast), 0.0))
    return Trend(slope=slope, std_error=std_error, line=level + slope * off, contrast=contrast)


def ask_novelty(
    design: Design,
    metrics: Sequence[Metric],
    how: Inference,
    *,
    column: str,
    clusters: Clusters,
    seed: int,
) -> Generator[FrameRequest, pd.DataFrame, Novelty]:
    """Effects of every treatment by period: a pass for the moments, one more per comparison.

    Args:
        design: Who was randomised to what.
        metrics: Metrics that are functions of means.
        how: How effects are estimated.
        column: Column of the period since exposure, a number.
        clusters: What was randomised: units, or groups of them.
        seed: Of the draws that find the bands' width.

    Raises:
        DataError: The column holds no numbers, too many or too few different ones.
    """
    arms = yield from ask_moments(dataclasses.replace(design, strata=(column,)), metrics)
    periods = _periods(column, arms)
    effects: list[Effect] = []
    checks = _left_out(column, arms, metrics, periods)
    curves = []
    for metric in metrics:
        for variant in arms.levels[1:]:
            slices = _slices(metric, arms, how, column=column, variant=variant, periods=periods)
            if len(slices) < MIN_PERIODS:
                raise DataError(
                    f"{metric.name}: fewer than {MIN_PERIODS} periods of {column} have both arms",
                    given=f"{len(slices)}",
                )
            ask = SliceDesign(design=design, column=column, clusters=clusters)
            joint = yield from ask_effect_covariance(ask, slices)
            found = _curve(slices, joint, how, column=column)
            rng = np.random.default_rng(seed)
            effects += found.effects
            checks.append(_check(found, how))
            curves.append(_rows(found, joint, how, rng=rng))
    return Novelty(
        effects=tuple(effects),
        diagnostics=tuple(checks),
        curves=pd.concat(curves, ignore_index=True),
    )


@dataclass(frozen=True)
class _Curve:
    """Effects of one comparison."""

    column: str
    periods: Array
    by_period: tuple[Effect, ...]
    trend: Trend
    slope: Effect

    @property
    def effects(self) -> tuple[Effect, ...]:
        return (*self.by_period, self.slope)


def _curve(
    slices: Sequence[Slice], joint: SliceCovariance, how: Inference, *, column: str
) -> _Curve:
    """Effects by period with errors from their joint covariance, and their trend."""
    errors = np.sqrt(np.diag(joint.matrix))
    name = "cuped" if slices[0].best is not slices[0].raw else "cluster_robust"
    by_period = []
    for one, error, chosen in zip(slices, errors, np.eye(len(slices)), strict=True):
        plain = one.best.effects[0]
        by_period.append(
            inference.effect(
                estimator=f"{name}_by_period",
                estimand="cate",
                metric=plain.metric,
                term=plain.term,
                estimate=plain.estimate,
                std_error=float(error),
                confidence_level=how.confidence_level,
                n_treated=plain.n_treated,
                n_control=plain.n_control,
                df=joint.df(chosen),
                n_clusters=joint.n_clusters,
            )
        )
    periods = np.array([float(one.level) for one in slices])
    line = trend(periods, np.array([item.estimate for item in by_period]), joint.matrix)
    whole = dataclasses.replace(slices[0].best.comparison, segment="")
    slope = inference.effect(
        estimator="trend",
        estimand="coefficient",
        metric=whole.metric.name,
        term=f"{whole.term} | per {column}",
        estimate=line.slope,
        std_error=line.std_error,
        confidence_level=how.confidence_level,
        n_treated=sum(item.n_treated for item in by_period),
        n_control=sum(item.n_control for item in by_period),
        df=joint.df(line.contrast),
        n_clusters=joint.n_clusters,
    )
    return _Curve(column, periods, tuple(by_period), line, slope)


def _check(found: _Curve, how: Inference) -> Diagnostic:
    """Which way the effect moves, and whether that is more than chance."""
    slope, line = found.slope, found.trend.line
    comparison = slope.term.partition(" | ")[0]
    is_clear = slope.pvalue < 1.0 - how.confidence_level
    fades = abs(line[-1]) < abs(line[0]) or line[0] * line[-1] < 0
    verdict = "no trend beyond chance"
    if is_clear:
        verdict = "it wears off" if fades else "it grows"
    return Diagnostic(
        name=f"novelty.{slope.metric}.{comparison}",
        statistic=slope.statistic,
        pvalue=slope.pvalue,
        passed=None,
        detail=(
            f"{slope.metric}: the effect moves by {slope.estimate:+.4g} per {found.column}, from "
            f"{line[0]:+.4g} at {found.periods[0]:g} to {line[-1]:+.4g} at {found.periods[-1]:g}: "
            f"{verdict}; p = {slope.pvalue:.3g}"
        ),
    )


def _rows(
    found: _Curve, joint: SliceCovariance, how: Inference, *, rng: np.random.Generator
) -> pd.DataFrame:
    level = how.confidence_level
    df = min(item.df for item in found.by_period if item.df is not None)
    width = gaussian_critical_value(
        joint.matrix, confidence_level=level, rng=rng, n_draws=_N_DRAWS, df=df
    )
    frame = pd.DataFrame([dataclasses.asdict(item) for item in found.by_period])
    band = width * frame["std_error"]
    return frame.assign(
        term=found.slope.term.partition(" | ")[0],
        period=found.periods,
        band_lower=frame["estimate"] - band,
        band_upper=frame["estimate"] + band,
        trend=found.trend.line,
    )[list(CURVE_COLUMNS)]


def _slices(
    metric: Metric,
    arms: Arms,
    how: Inference,
    *,
    column: str,
    variant: Level,
    periods: Sequence[Level],
) -> list[Slice]:
    """One comparison per period that both arms have varying rows in."""
    found = []
    for level in periods:
        pair = _pair(metric, arms, variant, level)
        if pair is None:
            continue
        comparison = Comparison(
            metric=metric,
            variants=(arms.levels[0], variant),
            moments=pair,
            segment=f"{column}={level}",
        )
        raw = raw_readout(comparison, how)
        best = adjusted_readout(comparison, how) if metric.covariates else raw
        found.append(Slice(level=level, raw=raw, best=best))
    return found


def _pair(metric: Metric, arms: Arms, variant: Level, level: Level) -> tuple[Gram, Gram] | None:
    """Moments of control and a treatment in a period; `None` if they cannot be compared."""
    cells = arms.cells[metric.name]
    control, treatment = (cells[arm].get((level,)) for arm in (arms.levels[0], variant))
    if control is None or treatment is None or min(control.n, treatment.n) < MIN_UNITS:
        return None
    outcome = metric.quotients[0]
    is_flat = is_constant(control, outcome) and is_constant(treatment, outcome)
    return None if is_flat else (control, treatment)


def _periods(column: str, arms: Arms) -> list[Level]:
    """The periods in order.

    Raises:
        DataError: They are no numbers, or too many.
    """
    found = {
        key[0]
        for cells in arms.cells.values()
        for by_period in cells.values()
        for key in by_period
        if key[0] is not None
    }
    texts = [level for level in found if isinstance(level, str | bool)]
    if texts:
        raise DataError(f"{column} must hold numbers", given=str(min(map(str, texts))))
    if len(found) > MAX_PERIODS:
        raise DataError(
            f"{column} has too many periods for one curve",
            given=f"{len(found):,}",
            allowed=f"at most {MAX_PERIODS}: weeks in place of days, or fewer of them",
        )
    return sorted(found, key=float)


def _left_out(
    column: str, arms: Arms, metrics: Sequence[Metric], periods: Sequence[Level]
) -> list[Diagnostic]:
    """Rows without a period, and periods that a comparison lacks."""
    cells = arms.cells[metrics[0].name]
    out = []
    missing = sum(_rows_of(by_period, (None,)) for by_period in cells.values())
    if missing:
        out.append(note(f"period_missing.{column}", float(missing), f"{missing:,} rows have none"))
    thin = [
        f"{metric.name}, {variant} at {level}"
        for metric in metrics
        for variant in arms.levels[1:]
        for level in periods
        if _pair(metric, arms, variant, level) is None
    ]
    if thin:
        detail = f"periods without two rows that differ in both arms are left out: {thin[0]}"
        more = f" and {len(thin) - 1} more" if len(thin) > 1 else ""
        out.append(note(f"periods_left_out.{column}", float(len(thin)), f"{detail}{more}"))
    return out


def _rows_of(cells: Mapping[Key, Gram], key: Key) -> int:
    gram = cells.get(key)
    return 0 if gram is None else gram.n + gram.n_missing
