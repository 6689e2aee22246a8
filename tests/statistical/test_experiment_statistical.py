"""Error rates of experiments as they are run: looks joined, tested and decided in turn."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from causal.core.inference import effect
from causal.core.result import Result, Scale
from causal.scorecard import experiment_readout, looks
from causal.scorecard.experiment_readout import ExperimentReadout
from causal.scorecard.experiment_spec import ExperimentSpec
from tests import experiment_worlds as worlds

UNITS = (2_000, 4_000, 6_000)
LEVEL, SPREAD = 10.0, 10.0


def found(estimate: float, n: int) -> Result:
    """A result of `ab` with a given estimate: profit on both scales, guardrails far from harm."""

    def made(metric: str, scale: Scale, value: float, std_error: float) -> object:
        return effect(
            estimator="welch",
            estimand="ate",
            metric=metric,
            term=worlds.TERM,
            scale=scale,
            estimate=value,
            std_error=std_error,
            confidence_level=0.95,
            n_treated=n // 2,
            n_control=n // 2,
        )

    std_error = SPREAD * np.sqrt(4 / n)
    effects = (
        made("profit", "absolute", estimate, std_error),
        made("profit", "relative", estimate / LEVEL, std_error / LEVEL),
        made("refund_rate", "absolute", 0.0, 1e-4),
        made("kept", "absolute", 0.0, 1e-4),
    )
    return Result(
        effects=effects,  # type: ignore[arg-type]
        params={"n.control": n // 2, "n.perk": n // 2},
    )


def path(
    spec: ExperimentSpec, rng: np.random.Generator, *, truth: float
) -> list[ExperimentReadout]:
    """The looks of one experiment until its test stops."""
    steps = np.diff((0, *UNITS))
    sums = np.cumsum(rng.normal(truth * steps, SPREAD * 2 * np.sqrt(steps)))
    earlier = pd.DataFrame(columns=list(looks.LOOK_COLUMNS))
    out: list[ExperimentReadout] = []
    for number, (total, n) in enumerate(zip(sums, UNITS, strict=True)):
        readout = experiment_readout.read(
            spec,
            found(float(total / n), n),
            earlier=earlier,
            as_of=dt.date(2026, 11, 1) + dt.timedelta(weeks=number),
        )
        earlier = readout.looks
        out.append(readout)
        if readout.sequential[worlds.TERM].stopped_at is not None:
            break
    return out


def paths(n_paths: int, *, truth: float) -> list[list[ExperimentReadout]]:
    spec = worlds.spec(roi=None)
    rng = np.random.default_rng(11)
    return [path(spec, rng, truth=truth) for _ in range(n_paths)]


def check_null(n_paths: int) -> None:
    done = paths(n_paths, truth=0.0)
    stops = [run[-1].sequential[worlds.TERM].decision == "stop_efficacy" for run in done]
    shipped_early = [
        readout.decisions.decisions[0].verdict == "ship"
        for run in done
        for readout in run[-1:]
        if readout.sequential[worlds.TERM].looks[-1].fraction != 1.0
    ]
    slack = 3 * np.sqrt(0.05 * 0.95 / n_paths)
    assert abs(np.mean(stops) - 0.05) < slack
    assert sum(shipped_early) / n_paths < 0.025 + slack
    assert all(
        readout.decisions.decisions[0].verdict != "ship" for run in done for readout in run[:-1]
    )


def check_coverage(n_paths: int) -> None:
    truth = 0.6
    done = paths(n_paths, truth=truth)
    covered = [
        all(
            item.ci_lower <= truth <= item.ci_upper
            for readout in run
            for item in readout.result.effects
            if item.estimator == "welch_sequential"
        )
        for run in done
    ]
    at_stop = [
        item.ci_lower <= truth <= item.ci_upper
        for run in done
        for item in run[-1].result.effects
        if item.estimator == "welch_stage_wise"
    ]
    slack = 3 * np.sqrt(0.05 * 0.95 / n_paths)
    assert np.mean(covered) > 0.95 - slack
    assert len(at_stop) == n_paths
    assert abs(np.mean(at_stop) - 0.95) < slack


def test_the_level_holds_over_the_looks() -> None:
    check_null(120)


def test_intervals_over_the_looks_cover() -> None:
    check_coverage(120)


@pytest.mark.validation
def test_the_level_holds_over_the_looks_at_length() -> None:
    check_null(4000)


@pytest.mark.validation
def test_intervals_over_the_looks_cover_at_length() -> None:
    check_coverage(4000)
