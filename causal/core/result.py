"""What an estimator returns: one row schema for every method of the suite."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd

Scale = Literal["absolute", "relative"]
Estimand = Literal[
    "ate",
    "att",
    "atc",
    "overlap",
    "cate",
    "itt",
    "late",
    "coefficient",
    "acrt",
    "rate",
    "policy_value",
]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One estimated quantity; a row of the Delta table `effects`.

    Attributes:
        estimator: How it was estimated, such as `welch`, `cuped`, `twfe`.
        estimand: What is estimated: ate, att, cate, itt, late, a regression coefficient, what a
            little more of a dose would do to the treated (acrt), how well scores rank (rate), or
            what a policy is worth (policy_value).
        metric: The outcome measured.
        term: Which comparison or coefficient, such as `treatment - control` or `event_time=2`.
        scale: `absolute` in the metric's unit, `relative` as a share of the control level.
        estimate: The estimate.
        std_error: Its standard error.
        statistic: `estimate / std_error`; of a lift with a Fieller interval the difference's, of a
            Poisson regression the logarithm's.
        df: Degrees of freedom of the t reference distribution; `None`: standard normal.
        ci_lower: Lower end of the two-sided interval.
        ci_upper: Upper end of the two-sided interval.
        confidence_level: Nominal coverage of the interval, such as 0.95.
        pvalue: Two-sided p-value of a zero effect; adjusted for its family in the rows whose
            estimator ends with the name of a correction, such as `welch_holm`. Rows of `bsts` hold
            twice the posterior's tail probability, or the tail itself if its option `tail` says so.
        n_treated: Units (or rows where the design has no units) behind the treated side.
        n_control: Units behind the comparison side.
        n_clusters: Clusters behind the standard error; `None` when it is not clustered.
    """

    estimator: str
    estimand: Estimand
    metric: str
    term: str
    scale: Scale
    estimate: float
    std_error: float
    statistic: float
    df: float | None
    ci_lower: float
    ci_upper: float
    confidence_level: float
    pvalue: float
    n_treated: int
    n_control: int
    n_clusters: int | None = None


EFFECT_COLUMNS: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(Effect))


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """A check beside the estimates.

    Attributes:
        name: Stable name, such as `sample_ratio` or `pre_trend`.
        statistic: Its test statistic or count; `None` where there is none.
        pvalue: Its p-value; `None` where it is not a test.
        passed: True, False, or `None` for information only.
        detail: One plain sentence.
    """

    name: str
    statistic: float | None
    pvalue: float | None
    passed: bool | None
    detail: str


DIAGNOSTIC_COLUMNS: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(Diagnostic))


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything an analysis says. Complete and unrounded; formatting is a separate step.

    Attributes:
        effects: The estimates, in the order in which a reader wants them.
        diagnostics: The checks.
        params: Scalars that document how the estimate was made (thetas, counts, reference period).
        tables: Small frames for tables and figures (arm summaries, cohort means by period).
    """

    effects: tuple[Effect, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through the constructor: read-only mappings do not pickle."""
        return _rebuild, (self.effects, self.diagnostics, dict(self.params), dict(self.tables))

    def __post_init__(self) -> None:
        """Make the mappings read-only."""
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        object.__setattr__(self, "tables", MappingProxyType(dict(self.tables)))

    def to_frame(self) -> pd.DataFrame:
        """The effects as a frame with columns `EFFECT_COLUMNS`."""
        rows = [dataclasses.asdict(effect) for effect in self.effects]
        return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))

    def diagnostics_frame(self) -> pd.DataFrame:
        """The diagnostics as a frame with columns `DIAGNOSTIC_COLUMNS`."""
        rows = [dataclasses.asdict(diagnostic) for diagnostic in self.diagnostics]
        return pd.DataFrame(rows, columns=list(DIAGNOSTIC_COLUMNS))

    def effects_json(self) -> str:
        """The effects as a JSON list of rows, full precision."""
        return _json([dataclasses.asdict(effect) for effect in self.effects])

    def diagnostics_json(self) -> str:
        """The diagnostics as a JSON list of rows."""
        return _json([dataclasses.asdict(item) for item in self.diagnostics])

    def summary(self) -> str:
        """The effects and checks in plain words, one line each."""
        lines = [sentence(effect) for effect in self.effects]
        lines += [_check_line(item) for item in self.diagnostics]
        return "\n".join(lines)

    @property
    def failed_checks(self) -> tuple[Diagnostic, ...]:
        """The diagnostics that did not pass."""
        return tuple(item for item in self.diagnostics if item.passed is False)


def sentence(effect: Effect) -> str:
    """One effect as a line a reader understands."""
    shown = _percent if effect.scale == "relative" else _number
    interval = f"[{shown(effect.ci_lower)}, {shown(effect.ci_upper)}]"
    return (
        f"{effect.metric} | {effect.term} | {effect.estimand} ({effect.estimator}): "
        f"{shown(effect.estimate)}, {effect.confidence_level:.0%} interval {interval}, "
        f"p = {effect.pvalue:.3g}, n = {effect.n_treated:,} / {effect.n_control:,}"
    )


def _check_line(item: Diagnostic) -> str:
    mark = {True: "ok", False: "FAILED", None: "note"}[item.passed]
    return f"{mark}: {item.name}: {item.detail}"


def _number(value: float) -> str:
    return f"{value:+.4g}"


def _percent(value: float) -> str:
    return f"{value:+.2%}"


def _rebuild(
    effects: tuple[Effect, ...],
    diagnostics: tuple[Diagnostic, ...],
    params: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
) -> Result:
    return Result(effects=effects, diagnostics=diagnostics, params=params, tables=tables)


def _json(rows: list[dict[str, Any]]) -> str:
    clean = [{name: _plain(value) for name, value in row.items()} for row in rows]
    return json.dumps(clean, indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Infinite ends of an interval have no JSON number; they are written as text."""
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
