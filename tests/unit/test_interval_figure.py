"""Estimates beside the truth, as a picture."""

import numpy as np
import pandas as pd

from causal.core.inference import effect
from causal.core.interval_figure import interval_figure
from causal.core.result import Effect, Result
from causal.uplift import policy_readout

TABLE = pd.DataFrame(
    {
        "term": ["naive", "weighted"],
        "estimate": [5.0, 1.0],
        "ci_lower": [4.0, -np.inf],
        "ci_upper": [6.0, 2.0],
    }
)


def test_intervals_points_and_one_truth_for_all() -> None:
    figure = interval_figure(TABLE.assign(truth=1.5), title="Effects", quantity="minutes")
    figure.canvas.draw()
    (axes,) = figure.axes
    points, truth = axes.lines[:2]
    assert list(points.get_xdata()) == [5.0, 1.0]
    assert list(truth.get_xdata()) == [1.5, 1.5]
    low, high = axes.get_xlim()
    assert np.isfinite([low, high]).all()
    assert low < 0
    assert high > 6
    (first, second) = axes.collections[0].get_segments()
    assert list(first[:, 0]) == [4.0, 6.0]
    assert list(second[:, 0]) == [low, 2.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["naive", "weighted"]


def test_truths_that_differ_are_points_and_unknown_ones_are_left_out() -> None:
    table = TABLE.assign(truth=[2.0, np.nan])
    points = interval_figure(table, title="Effects", quantity="minutes").axes[0].lines[1]
    np.testing.assert_array_equal(points.get_xdata(), [2.0, np.nan])
    bare = interval_figure(TABLE, title="Effects", quantity="minutes").axes[0]
    assert [line.get_label() for line in bare.lines][:1] == ["estimate and interval"]
    assert "truth" not in {line.get_label() for line in bare.lines}


def _value(term: str, estimate: float) -> Effect:
    return effect(
        estimator="aipw", estimand="policy_value", metric="value of hours", term=term,
        estimate=estimate, std_error=1.0, confidence_level=0.95, n_treated=60, n_control=40,
    )  # fmt: skip


def test_a_policy_is_drawn_by_what_it_is_worth_more_than_others() -> None:
    values = (_value("policy", 102.0), _value("none", 100.0), _value("policy - none", 2.0))
    told = policy_readout.beside_truth(
        Result(effects=values, diagnostics=()), {"policy": 101.5, "none": 100.0}, optimum=104.0
    )
    checks = {item.name: item.statistic for item in told.diagnostics}
    assert checks["truth.policy_less_none"] == 1.5
    assert checks["truth.optimum"] == 104.0
    known = told.tables["true_values"].set_index("policy")["value"]
    assert dict(known) == {"policy": 101.5, "none": 100.0, "best": 104.0}
    (axes,) = policy_readout.figures(told)["policy_gains"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["than none"]
    assert list(axes.lines[0].get_xdata()) == [2.0]
    assert list(axes.lines[1].get_xdata()) == [1.5, 1.5]
    assert "than none: 4" in axes.get_title(loc="left")
    alone = Result(effects=values[:2], diagnostics=())
    assert policy_readout.figures(alone) == {}
