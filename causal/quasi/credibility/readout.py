"""The checks of an event study as diagnostics and tables of its results."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from causal.core.errors import CausalError, InferenceError
from causal.core.gram import Array
from causal.core.inference import JointTest
from causal.core.result import Diagnostic
from causal.quasi.credibility.event_path import EventPath
from causal.quasi.credibility.pretest_power import (
    Pretest,
    Pretested,
    TrendPower,
    detectable_slope,
    pretested,
    trend_power,
)
from causal.quasi.credibility.sensitivity import Robustness, sensitivity
from causal.quasi.credibility.sensitivity_options import Sensitivity

_PRETESTS: tuple[Pretest, ...] = ("individual", "joint")
_POWERS = (0.5, 0.8)


@dataclass(frozen=True, kw_only=True)
class Study:
    """An event study as its method found it.

    Attributes:
        times: Event times of its estimates, ascending, shape (n,).
        estimates: Shape (n,).
        covariance: Shape (n, n).
        anticipation: Periods before the start that count as treated.
        reference: Event time that all are compared with; `None`: each period before the start is
            compared with the one before it.
        n_binned: Estimates left out because they stand for several event times.
        df: Degrees of freedom of the covariance; `None`: it counts as known.
        joint_test: Reference of the joint pre-test.
    """

    times: Array
    estimates: Array
    covariance: Array
    anticipation: int
    reference: int | None
    n_binned: int = 0
    df: float | None = None
    joint_test: JointTest = "hotelling"

    def path(self) -> EventPath:
        """The estimates around the one reference period.

        Raises:
            CausalError: They cannot be bounded; the message says why.
        """
        last = -1 - self.anticipation
        if self.reference != last:
            raise InferenceError(
                "sensitivity to trends needs all estimates compared with the last period before "
                "the treatment",
                given=f"reference {self.reference}", allowed=[last],
            )  # fmt: skip
        return EventPath(
            times=self.times, reference=last, estimates=self.estimates, covariance=self.covariance
        )

    def pretested(self) -> Pretested:
        """The estimates and what a straight difference in trends would do to each.

        Raises:
            CausalError: There is none before the treatment, or event times are missing.
        """
        if self.reference is not None:
            return pretested(self.path(), df=self.df, joint_test=self.joint_test)
        before = self.times < -self.anticipation
        if not before.any() or before.all() or (np.diff(self.times) != 1).any():
            raise InferenceError("event times are missing")
        # Periods before the start are compared with their neighbour, later ones with the base.
        line = np.where(self.times < 0, 1.0, self.times + 1.0 + self.anticipation)
        return Pretested(
            estimates=self.estimates, covariance=self.covariance, n_pre=int(before.sum()),
            line=line, df=self.df, joint_test=self.joint_test,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What is said beside an event study."""

    diagnostics: tuple[Diagnostic, ...] = ()
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def event_study_checks(
    study: Study, asked: Sensitivity | None, *, metric: str, confidence_level: float
) -> Checks:
    """The power of the pre-test, and the sensitivity analysis where one is asked for.

    Args:
        study: The event study.
        asked: The sensitivity analysis.
        metric: The outcome.
        confidence_level: Of the intervals; the pre-test has the complementary size.

    Raises:
        CausalError: A sensitivity analysis is asked for and impossible.
    """
    power = _power(study, metric=metric, level=1 - confidence_level)
    if asked is None:
        return power
    path = study.path()
    found = sensitivity(
        path,
        path.weights(asked.parameter),
        restriction=asked.type,
        values=asked.multiples,
        method=asked.interval,
        confidence_level=confidence_level,
    )
    said = Diagnostic(
        name="sensitivity",
        statistic=found.breakdown,
        pvalue=None,
        passed=None,
        detail=_sentence(found, asked, study, confidence_level=confidence_level),
    )
    return Checks(
        diagnostics=(*power.diagnostics, said),
        tables={**power.tables, "sensitivity": _sensitivity_table(found, asked, metric=metric)},
    )


def _sensitivity_table(found: Robustness, asked: Sensitivity, *, metric: str) -> pd.DataFrame:
    """Intervals by value; the first row, whose value is NaN, is the one under parallel trends.

    Columns: metric, type, method, parameter, value, ci_lower, ci_upper, holds_zero, breakdown.
    """
    rows = [found.original, *found.intervals]
    return pd.DataFrame(
        {
            "metric": metric,
            "type": asked.type,
            "method": ["original", *[asked.interval] * len(found.intervals)],
            "parameter": str(asked.parameter),
            "value": [row.value for row in rows],
            "ci_lower": [row.ci_lower for row in rows],
            "ci_upper": [row.ci_upper for row in rows],
            "holds_zero": [row.holds_zero for row in rows],
            "breakdown": found.breakdown,
        }
    )


def _sentence(
    found: Robustness, asked: Sensitivity, study: Study, *, confidence_level: float
) -> str:
    effect = (
        "the average effect from event time 0 on"
        if asked.parameter == "average"
        else f"the effect at event time {asked.parameter}"
    )
    differs = f"{effect} differs from zero at {confidence_level:.0%}"
    binned = f" ({study.n_binned} binned event times are not used)" if study.n_binned else ""
    if found.original.holds_zero:
        return f"{differs.replace('differs', 'does not differ')}, even if trends are parallel"
    if found.breakdown == 0:
        held = {
            "relative_magnitudes": "were the trends exactly parallel after the reference period",
            "smoothness": "if the trends part along a straight line",
        }
        return f"{differs} under parallel trends, but not {held[asked.type]}{binned}"
    if np.isinf(found.breakdown):
        return f"{differs} however far trends depart, within what was looked at{binned}"
    size = f"{found.breakdown:.3g}"
    limit = {
        "relative_magnitudes": "the trends part, from one period to the next, by more than "
        f"{size} times their worst break before the treatment",
        "smoothness": f"the slope of the difference in trends changes by more than {size} from "
        "one period to the next",
    }
    return f"{differs} unless {limit[asked.type]}{binned}"


def _power(study: Study, *, metric: str, level: float) -> Checks:
    try:
        estimates = study.pretested()
        found = list(_trends(estimates, level=level))
    except (CausalError, np.linalg.LinAlgError) as error:
        reason = str(error) if isinstance(error, CausalError) else "the covariance is singular"
        return Checks(diagnostics=(_said(None, f"not known: {reason}"),))
    if not found:
        return Checks(diagnostics=(_said(None, "not known: the pre-test rejects too often"),))
    frames = [
        pd.DataFrame(
            {
                "metric": metric, "test": item.test, "power": power, "slope": slope,
                "event_time": study.times.astype(int), "trend": item.trend,
                "mean_if_passed": item.mean_if_passed,
            }
        )
        for power, slope, item in found
    ]  # fmt: skip
    table = pd.concat(frames, ignore_index=True)
    return Checks(
        diagnostics=(_said(found[0][1], _power_sentence(study, found)),),
        tables={"pre_trend_power": table},
    )


def _trends(study: Pretested, *, level: float) -> Iterator[tuple[float, float, TrendPower]]:
    """Power, slope and consequences of the straight lines that each pre-test detects."""
    for test in _PRETESTS:
        for power in _POWERS:
            try:
                slope = detectable_slope(study, power=power, test=test, level=level)
            except InferenceError:
                continue  # so many estimates that one of them is often significant
            yield power, slope, trend_power(study, slope * study.line, test=test, level=level)


def _power_sentence(study: Study, found: list[tuple[float, float, TrendPower]]) -> str:
    power, slope, item = found[0]
    post = study.times >= 0
    off = float(item.mean_if_passed[post].mean())
    other = [f"; {p:.0%}: {s:.3g}" for p, s, x in found[1:] if x.test == item.test]
    test = {
        "individual": "looking for one significant estimate before the start",
        "joint": "the joint test of the estimates before the start",
    }[item.test]
    return (
        f"trends that part by {slope:.3g} per period are missed by {test} with "
        f"{1 - power:.0%} probability (slope for {power:.0%} power: {slope:.3g}{''.join(other)}); "
        f"where they are, the effects from the start on are off by {off:.3g} on average"
    )


def _said(statistic: float | None, detail: str) -> Diagnostic:
    return Diagnostic(
        name="pre_trend_power", statistic=statistic, pvalue=None, passed=None, detail=detail
    )
