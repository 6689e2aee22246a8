"""Structural time series against the summaries that R's CausalImpact prints.

Sources: the vignette of google/CausalImpact (seed 1), and the cases of WillianFuks/tfcausalimpact
with their R summaries. R's own figures are means over some 900 draws, rounded to two digits.
The stored summaries print the relative effect as R once defined it; what R prints now follows from
their predicted totals.
"""

from pathlib import Path

import pandas as pd
import pytest

from causal.core import registry
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate

CASES = {
    "ci_vignette_seed1.csv": {
        "options": {"period": "t", "covariates": ["x1"], "treatment_period": 71},
        "observed": (117.05, 3511.46), "average": (10.53, 0.37), "interval": (9.8, 11.3),
        "cumulative": (316.0, 11.03), "relative": (0.099, None), "totals": None,
        "old_relative": None,
    },
    "ci_google.csv": {
        "options": {
            "period": "date", "covariates": ["x1", "x2"], "treatment_period": "2020-03-02",
        },
        "observed": (156.2, 4687.0), "average": (26.8, 4.5), "interval": (18.0, 36.0),
        "cumulative": (804.0, 134.2), "relative": (0.21, 0.035), "totals": (3614.0, 4148.0),
        "old_relative": (0.14, 0.28),
    },
    "ci_arma.csv": {
        "options": {"period": "row", "covariates": ["X"], "treatment_period": 70},
        "observed": (121.2, 3637.0), "average": (0.89, 0.30), "interval": (0.27, 1.5),
        "cumulative": (26.67, 9.1), "relative": (0.0074, 0.0025), "totals": (3592.0, 3629.0),
        "old_relative": (0.0022, 0.012),
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, validation_data: Path) -> tuple[dict, Result]:
    frame = pd.read_csv(validation_data / request.param).reset_index(names="row")
    expected = CASES[request.param]
    module = registry.method("bsts")
    data = {
        "name": "golden", "source": {"table": "t"}, "method": "bsts", "seed": 1,
        "options": {"outcome": "y", "placebo": False, **expected["options"]},
    }  # fmt: skip
    spec = validate(module.SPEC, data)
    return expected, run(module.estimate(spec), PandasEngine(frame))


def test_effects_within_the_noise_of_the_draws(case: tuple[dict, Result]) -> None:
    expected, result = case
    average, cumulative, relative = result.effects
    estimate, deviation = expected["average"]

    assert average.estimate == pytest.approx(estimate, abs=0.15 * deviation)
    assert average.std_error == pytest.approx(deviation, rel=0.08)
    low, high = expected["interval"]
    assert average.ci_lower == pytest.approx(low, abs=0.35 * deviation)
    assert average.ci_upper == pytest.approx(high, abs=0.35 * deviation)
    estimate, deviation = expected["cumulative"]
    assert cumulative.estimate == pytest.approx(estimate, abs=0.15 * deviation)
    assert cumulative.std_error == pytest.approx(deviation, rel=0.08)
    estimate, _ = expected["relative"]
    assert relative.estimate == pytest.approx(estimate, abs=0.15 * relative.std_error + 5e-4)


def test_relative_effects_as_r_takes_them_now(case: tuple[dict, Result]) -> None:
    """In each draw, observed / predicted - 1: its quantiles follow from those of the prediction."""
    expected, result = case
    relative, total = result.effects[2], expected["observed"][1]
    estimate, deviation = expected["cumulative"]
    if expected["totals"] is not None:
        low, high = expected["totals"]
        near = 0.35 * deviation / (total - estimate)
        assert relative.ci_lower == pytest.approx(total / high - 1, abs=near)
        assert relative.ci_upper == pytest.approx(total / low - 1, abs=near)
    # To first order: the derivative of observed / predicted.
    slope = total / (total - estimate) ** 2
    assert relative.std_error == pytest.approx(deviation * slope, rel=0.10)


def test_relative_effects_as_r_took_them(case: tuple[dict, Result]) -> None:
    """The stored summaries divide effect, deviation and interval by the mean prediction."""
    expected, result = case
    average, predicted = result.effects[0], result.params["predicted_mean"]
    estimate, deviation = expected["relative"]
    assert average.estimate / predicted == pytest.approx(
        estimate, abs=0.15 * average.std_error / predicted + 5e-3 * estimate
    )
    if expected["old_relative"] is not None:
        low, high = expected["old_relative"]
        near = 0.35 * deviation
        assert average.std_error / predicted == pytest.approx(deviation, rel=0.08)
        assert average.ci_lower / predicted == pytest.approx(low, abs=near)
        assert average.ci_upper / predicted == pytest.approx(high, abs=near)


def test_what_was_observed(case: tuple[dict, Result]) -> None:
    expected, result = case
    after = result.tables["series"].query("is_post")["observed"]

    assert after.mean() == pytest.approx(expected["observed"][0], abs=0.05)
    assert after.sum() == pytest.approx(expected["observed"][1], abs=0.7)


def test_tail_probability(case: tuple[dict, Result]) -> None:
    expected, result = case
    ratio = expected["average"][0] / expected["average"][1]

    found = result.params["tail_probability"]
    if ratio > 5:
        assert found == pytest.approx(1 / 901)
        assert result.effects[0].pvalue == pytest.approx(2 / 901)
    else:  # R prints 0.003, which is two of its 996 draws and the observed total itself.
        assert 1 / 901 <= found <= 9 / 901
