"""Incremental ROAS, return and profit of geo results."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from causal.core import registry
from causal.core.errors import SpecError
from causal.core.inference import effect
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect, Result
from causal.core.spec import validate
from causal.quasi.geo.returns import Spend, returns
from causal.quasi.synthetic.control_options import ControlOptions


def cumulative(*, estimate: float = 3000.0, std_error: float = 500.0, **given: Any) -> Effect:
    return effect(
        estimator="sdid", estimand="att", metric="sales", term="cumulative", estimate=estimate,
        std_error=std_error, confidence_level=0.95, n_treated=3, n_control=40, **given,
    )  # fmt: skip


def test_a_known_spend_carries_the_interval_over() -> None:
    found, item = returns(cumulative(), Spend(spend=1000.0, margin=0.4)), cumulative()

    assert found.roas.estimate == pytest.approx(3.0, rel=1e-12)
    assert found.roas.ci_lower == pytest.approx(item.ci_lower / 1000, rel=1e-7)
    assert found.roas.ci_upper == pytest.approx(item.ci_upper / 1000, rel=1e-7)
    assert found.roi.ci_lower == pytest.approx(0.4 * item.ci_lower / 1000 - 1, rel=1e-6)
    assert found.profit.ci_upper == pytest.approx(0.4 * item.ci_upper - 1000, rel=1e-7)
    assert found.cost_per_unit == pytest.approx(1 / 3)
    assert found.prob_profit == pytest.approx(0.8413447461, abs=1e-7)  # Phi(200 / 200)


def test_an_uncertain_spend_gives_the_interval_of_fieller() -> None:
    """The ratio of two independent normals: the ends solve |b - r s| = z sqrt(vb + r^2 vs)."""
    item, spend = cumulative(), Spend(spend=1000.0, spend_std_error=120.0)
    found = returns(item, spend)
    z = 1.959963984540054
    a, b, c = 1000.0**2 - z**2 * 120.0**2, -2 * 3000.0 * 1000.0, 3000.0**2 - z**2 * 500.0**2
    ends = sorted(np.roots([a, b, c]).real)

    assert (found.roas.ci_lower, found.roas.ci_upper) == pytest.approx(tuple(ends), rel=1e-6)


def test_an_uncertain_margin_widens_the_return_and_leaves_the_roas() -> None:
    known = returns(cumulative(), Spend(spend=1000.0, margin=0.4))
    found = returns(cumulative(), Spend(spend=1000.0, margin=0.4, margin_std_error=0.05))
    draws = np.random.default_rng(0).normal(size=(2, 400_000))
    simulated = (3000 + 500 * draws[0]) * (0.4 + 0.05 * draws[1]) / 1000 - 1

    assert found.roas == known.roas
    assert found.roi.ci_upper - found.roi.ci_lower > known.roi.ci_upper - known.roi.ci_lower
    expected = np.quantile(simulated, [0.025, 0.975])
    assert (found.roi.ci_lower, found.roi.ci_upper) == pytest.approx(tuple(expected), abs=0.005)
    assert found.prob_profit == pytest.approx((simulated > 0).mean(), abs=0.004)


def test_an_average_is_multiplied_by_its_units() -> None:
    one = returns(cumulative(df=12.0), Spend(spend=1000.0, spend_std_error=50.0))
    other = returns(
        cumulative(estimate=30.0, std_error=5.0, df=12.0),
        Spend(spend=1000.0, spend_std_error=50.0),
        units=100.0,
    )

    for name in ("incremental", "roas", "roi", "profit"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left.estimate, left.ci_lower, left.ci_upper) == pytest.approx(
            (right.estimate, right.ci_lower, right.ci_upper), rel=1e-8
        )


def test_a_relative_effect_is_refused() -> None:
    with pytest.raises(SpecError, match="in the outcome's unit"):
        returns(cumulative(scale="relative"), Spend(spend=1.0))


def regions(*, n: int = 24) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    sales = 50 + rng.normal(size=20).cumsum() + rng.normal(size=(n, 20))
    sales[0, 14:] += 6
    return pd.DataFrame(
        {
            "city": [f"c{i:02d}" for i in np.arange(n).repeat(20)],
            "week": np.tile(np.arange(20), n), "sales": sales.ravel(),
        }
    )  # fmt: skip


def analyse(method: str, spend: dict[str, Any], **options: Any) -> Result:
    module = registry.method(method)
    data = {
        "name": "x", "source": {"table": "t"}, "method": method,
        "options": {
            "unit": "city", "period": "week", "outcome": "sales", "treated": "c00",
            "treatment_period": 14, "returns": spend, **options,
        },
    }  # fmt: skip
    return run(module.estimate(validate(module.SPEC, data)), PandasEngine(regions()))


@pytest.mark.parametrize("method", ["synthetic_control", "synthetic_did"])
def test_both_methods_give_the_return_of_their_cumulative_effect(method: str) -> None:
    result = analyse(method, {"spend": 12.0, "margin": 0.5})
    item = next(e for e in result.effects if e.term == "cumulative")
    table = result.tables["returns"].set_index("quantity")

    assert table.loc["iroas", "estimate"] == pytest.approx(item.estimate / 12)
    assert table.loc["iroas", "ci_lower"] == pytest.approx(item.ci_lower / 12, rel=1e-6)
    assert table.loc["roi", "ci_upper"] == pytest.approx(0.5 * item.ci_upper / 12 - 1, rel=1e-6)
    assert result.params["iroas"] == table.loc["iroas", "estimate"]


def test_an_unbounded_interval_stays_unbounded() -> None:
    result = analyse(
        "synthetic_control", {"spend": 12.0}, donors=[f"c{i:02d}" for i in range(1, 9)]
    )
    table = result.tables["returns"].set_index("quantity")

    assert table.loc["iroas", "ci_lower"] == -math.inf
    assert table.loc["roi", "ci_upper"] == math.inf


def test_a_rank_test_does_not_combine_with_an_uncertain_spend() -> None:
    for name in ("spend_std_error", "margin_std_error"):
        options = {"unit": "city", "period": "week", "outcome": "sales", "treated": "c00",
                   "treatment_period": 14, "returns": {"spend": 12.0, name: 0.1}}  # fmt: skip
        with pytest.raises(ValidationError, match="rank test"):  # before any data are read
            ControlOptions(**options)


@pytest.mark.parametrize(
    ("spend", "options", "says"),
    [
        ({"spend": 0.0}, {}, "greater than 0"),
        ({"spend": 1.0}, {"outcome": ["sales", "visits"]}, "must say which: sales, visits"),
        ({"spend": 1.0, "outcome": "visits"}, {}, "visits is no outcome"),
        ({"spend": 1.0, "margin": 0.1, "margin_std_error": 0.2}, {}, "leaves the sign"),
    ],
)
def test_returns_that_cannot_be_meant(
    spend: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        analyse("synthetic_did", spend, **options)
