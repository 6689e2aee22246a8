"""Metrics that are winsorised at quantiles of the data."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core.errors import CausalError, DataError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.experiments import ab

CONTROL, TREATMENT = "control", "treatment"
SPEND = {"name": "spend", "type": "mean", "column": "spend"}


@pytest.fixture(scope="module")
def units() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    n = 2500
    variant = rng.choice([CONTROL, TREATMENT, "other"], n)
    spend = np.exp(2 + 1.5 * rng.normal(size=n)) * np.where(variant == "other", 50, 1)
    frame = pd.DataFrame(
        {"unit": np.arange(n), "variant": variant, "spend": spend, "gold": np.arange(n) % 2}
    )
    frame.loc[frame["unit"] < 20, "spend"] = np.nan
    return frame


def analyse(frame: pd.DataFrame, metric: dict[str, Any], **options: Any) -> Result:
    base = {"unit": "unit", "variant": "variant", "control": CONTROL, "metrics": [metric]}
    data = {"name": "w", "source": {"table": "t"}, "method": "ab", "options": {**base, **options}}
    return run(ab.estimate(validate(ab.SPEC, data)), PandasEngine(frame))


@pytest.mark.parametrize("treatments", [None, [TREATMENT]])
def test_the_bound_is_the_quantile_of_the_compared_arms_together(
    units: pd.DataFrame, treatments: list[str] | None
) -> None:
    options = {} if treatments is None else {"treatments": treatments}
    both = units if treatments is None else units[units["variant"] != "other"]
    low, high = (
        float(np.quantile(both["spend"].dropna(), share, method="inverted_cdf"))
        for share in (0.02, 0.99)
    )
    wanted = {"lower_quantile": 0.02, "upper_quantile": 0.99}
    found = analyse(units, SPEND | {"winsorise": wanted}, **options)
    fixed = analyse(units, SPEND | {"winsorise": {"lower": low, "upper": high}}, **options)
    (note,) = [item for item in found.diagnostics if item.name == "winsorised.spend"]

    assert found.effects == fixed.effects
    assert note.statistic == ((both["spend"] < low) | (both["spend"] > high)).sum()
    assert f"{high:.6g}" in note.detail


def test_one_side_and_a_number_on_the_other(units: pd.DataFrame) -> None:
    frame = units[units["variant"] != "other"]
    found = analyse(frame, SPEND | {"winsorise": {"lower": 1.0, "upper_quantile": 0.95}})
    high = np.quantile(frame["spend"].dropna(), 0.95, method="inverted_cdf")
    arms = [
        frame.loc[frame["variant"] == name, "spend"].dropna().clip(1.0, high)
        for name in (TREATMENT, CONTROL)
    ]
    test = stats.ttest_ind(*arms, equal_var=False)

    assert found.effects[0].estimate == pytest.approx(arms[0].mean() - arms[1].mean())
    assert found.effects[0].pvalue == pytest.approx(test.pvalue, rel=1e-9)


def test_segments_have_the_bounds_of_all_units(units: pd.DataFrame) -> None:
    wanted = SPEND | {"winsorise": {"upper_quantile": 0.9}}
    found = analyse(units, wanted, segments=["gold"])
    high = float(np.quantile(units["spend"].dropna(), 0.9, method="inverted_cdf"))
    fixed = analyse(units, SPEND | {"winsorise": {"upper": high}}, segments=["gold"])

    assert found.effects == fixed.effects


def test_bounds_that_meet_are_refused(units: pd.DataFrame) -> None:
    frame = units.assign(spend=(units["unit"] % 100 == 0).astype(float))

    with pytest.raises(DataError, match="leaves one value only"):
        analyse(frame, SPEND | {"winsorise": {"lower_quantile": 0.1, "upper_quantile": 0.9}})


def test_a_column_without_values_is_refused(units: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="no row has a value"):
        analyse(units.assign(spend=np.nan), SPEND | {"winsorise": {"upper_quantile": 0.9}})


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({}, "needs lower or upper"),
        ({"upper": 3, "upper_quantile": 0.9}, "upper or upper_quantile, not both"),
        ({"lower": 3, "lower_quantile": 0.1}, "lower or lower_quantile, not both"),
        ({"lower_quantile": 0.9, "upper_quantile": 0.1}, "must be below upper_quantile"),
        ({"upper_quantile": 1.0}, "less than 1"),
    ],
)
def test_bounds_that_are_refused(units: pd.DataFrame, wanted: dict[str, float], says: str) -> None:
    with pytest.raises(CausalError, match=says):
        analyse(units, SPEND | {"winsorise": wanted})


def test_a_plan_wants_numbers() -> None:
    from causal.experiments.power_options import PlannedMetric

    for wanted in (
        SPEND | {"winsorise": {"upper_quantile": 0.9}},
        {"name": "p95", "type": "quantile", "column": "ms", "quantile": 0.95},
    ):
        with pytest.raises(CausalError, match="plan"):
            validate(PlannedMetric, wanted)
