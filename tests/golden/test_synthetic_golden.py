"""Synthetic control and synthetic difference in differences against published figures.

Sources: Abadie, Diamond and Hainmueller (2010), Proposition 99; Abadie and Gardeazabal (2003), the
Basque Country; Arkhangelsky et al. (2021), Table 1, and the R package `synthdid`, whose digits are
those of its stopped Frank-Wolfe algorithm.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causal.core import registry
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect, Result
from causal.core.spec import validate
from tests.convex_programs import simplex_program

CALIFORNIA = {
    "unit": "State", "period": "Year", "outcome": "PacksPerCapita", "treated": "California",
    "treatment_period": 1989,
}  # fmt: skip
BASQUE = {
    "unit": "regionname", "period": "year", "outcome": "gdpcap",
    "treated": "Basque Country (Pais Vasco)", "treatment_period": 1975,
    "excluded": ["Spain (Espana)"],
}  # fmt: skip
SECTORS = (
    "agriculture",
    "energy",
    "industry",
    "construction",
    "services.venta",
    "services.nonventa",
)
BASQUE_PREDICTORS = {
    "match_window": [1960, 1969],
    "predictor_window": [1964, 1969],
    "predictors": [
        "school.illit", "school.prim", "school.med", "school.high", "school.post.high", "invest",
    ],
    "special_predictors": [
        {"column": "gdpcap", "first_period": 1960, "last_period": 1969},
        *({"column": f"sec.{name}", "periods": list(range(1961, 1970, 2))} for name in SECTORS),
        {"column": "popdens", "periods": [1969]},
    ],
    "placebo_importance": "fixed",
    "leave_one_out": False,
}  # fmt: skip
CIGARETTES = {
    "unit": "state", "period": "year", "outcome": "cigsale", "treated": "California",
    "treatment_period": 1989, "predictors": ["lnincome", "retprice", "age15to24"],
    "predictor_window": [1980, 1988], "placebo_importance": "fixed", "leave_one_out": False,
    "special_predictors": [
        {"column": "beer", "first_period": 1984, "last_period": 1988},
        *({"column": "cigsale", "periods": [year]} for year in (1975, 1980, 1988)),
    ],
}  # fmt: skip


def analyse(method: str, frame: pd.DataFrame, **options: object) -> Result:
    module = registry.method(method)
    data = {"name": "golden", "source": {"table": "t"}, "method": method, "options": options}
    return run(module.estimate(validate(module.SPEC, data)), PandasEngine(frame))


def average(result: Result) -> Effect:
    return next(e for e in result.effects if e.term == "average" and e.scale == "absolute")


def donor_weights(result: Result) -> pd.Series:
    return result.tables["weights"].set_index("donor")["weight"]


@pytest.fixture(scope="module")
def cigarettes(validation_data: Path) -> pd.DataFrame:
    return pd.read_csv(validation_data / "california_prop99.csv", sep=";")


@pytest.fixture(scope="module")
def basque(validation_data: Path) -> pd.DataFrame:
    return pd.read_csv(validation_data / "basque.csv")


@pytest.fixture(scope="module")
def smoking(validation_data: Path) -> pd.DataFrame:
    frame = pd.read_stata(validation_data / "smoking_mixtape.dta")
    return frame.assign(state=frame["state"].astype(str))


@pytest.mark.parametrize(
    ("estimator", "solver", "target", "tolerance"),
    [
        ("did", "frank_wolfe", -27.34911, 1e-4),
        ("sc", "frank_wolfe", -19.61966, 1e-4),
        ("sdid", "frank_wolfe", -15.60383, 1e-4),
        ("difp", "frank_wolfe", -11.10464, 1e-4),
        ("did", "exact", -27.34911, 1e-4),
        ("sc", "exact", -19.51363, 1e-4),
        ("sdid", "exact", -15.60540, 1e-4),
        ("difp", "exact", -11.10904, 1e-4),
    ],
)
def test_proposition_99_by_estimator(
    cigarettes: pd.DataFrame, estimator: str, solver: str, target: float, tolerance: float
) -> None:
    from causal.quasi.synthetic.did_weights import Block, Rule, fit

    table = cigarettes.pivot(index="State", columns="Year", values="PacksPerCapita")
    block = Block(
        donors=table.drop("California").to_numpy(),
        treated=table.loc["California"].to_numpy(), n_treated=1, n_pre=19,
    )  # fmt: skip
    found = fit(block, Rule(estimator=estimator, solver=solver))

    assert found.effect == pytest.approx(target, abs=tolerance)


def test_proposition_99_weights_and_placebo_error(cigarettes: pd.DataFrame) -> None:
    result = analyse("synthetic_did", cigarettes, **CALIFORNIA)
    units = result.tables["unit_weights"].set_index("donor")["weight"]
    times = result.tables["time_weights"].set_index("period")["weight"]

    assert average(result).estimate == pytest.approx(-15.6054, abs=1e-3)
    assert average(result).std_error == pytest.approx(9.37, abs=0.15)
    for name, weight in {
        "Nevada": 0.124, "New Hampshire": 0.105, "Connecticut": 0.078, "Delaware": 0.070,
        "Colorado": 0.058, "Illinois": 0.053,
    }.items():  # fmt: skip
        assert units[name] == pytest.approx(weight, abs=1e-3)
    for year, weight in {1986: 0.366, 1987: 0.206, 1988: 0.427}.items():
        assert times[year] == pytest.approx(weight, abs=1e-3)


def test_proposition_99_weights_solve_the_programs_of_the_papers(cigarettes: pd.DataFrame) -> None:
    table = cigarettes.pivot(index="State", columns="Year", values="PacksPerCapita")
    donors, treated = table.drop("California"), table.loc["California"]
    before, after = donors.loc[:, :1988], donors.loc[:, 1989:]
    noise = np.diff(before, axis=1).std(ddof=1)
    units = simplex_program(
        before.to_numpy().T, treated.loc[:1988].to_numpy(),
        ridge=19 * np.sqrt(after.shape[1]) * noise**2, has_intercept=True,
    )  # fmt: skip
    times = simplex_program(before.to_numpy(), after.mean(axis=1).to_numpy(), has_intercept=True)
    control = simplex_program(before.to_numpy().T, treated.loc[:1988].to_numpy())

    found = analyse("synthetic_did", cigarettes, **CALIFORNIA).tables
    outcomes = analyse("synthetic_control", cigarettes, **CALIFORNIA)

    np.testing.assert_allclose(
        found["unit_weights"].set_index("donor")["weight"][before.index], units, atol=1e-6
    )
    np.testing.assert_allclose(
        found["time_weights"].set_index("period")["weight"][before.columns], times, atol=1e-6
    )
    np.testing.assert_allclose(
        donor_weights(outcomes).reindex(before.index).fillna(0.0), control, atol=1e-6
    )


def test_proposition_99_on_outcomes(cigarettes: pd.DataFrame) -> None:
    result = analyse("synthetic_control", cigarettes, **CALIFORNIA)
    weights = donor_weights(result)
    gaps = result.tables["paths"].set_index("period")["gap"]

    for name, weight in {
        "Utah": 0.394, "Montana": 0.232, "Nevada": 0.205, "Connecticut": 0.109,
        "New Hampshire": 0.045, "Colorado": 0.015,
    }.items():  # fmt: skip
        assert weights[name] == pytest.approx(weight, abs=1e-3)
    assert average(result).estimate == pytest.approx(-19.5136, abs=1e-3)
    assert gaps[2000] == pytest.approx(-26.60, abs=0.01)
    assert result.params["rmspe_ratio_pvalue"] == pytest.approx(3 / 39)


def test_proposition_99_with_predictors(smoking: pd.DataFrame) -> None:
    result = analyse("synthetic_control", smoking, **CIGARETTES)
    weights = donor_weights(result)

    for name, weight in {
        "Utah": 0.334, "Nevada": 0.234, "Montana": 0.199, "Colorado": 0.164, "Connecticut": 0.069,
    }.items():  # fmt: skip
        assert weights[name] == pytest.approx(weight, abs=0.01)
    assert average(result).estimate == pytest.approx(-18.97, abs=0.1)
    assert result.params["pre_mspe"] <= 3.089


def test_basque_country_with_predictors(basque: pd.DataFrame) -> None:
    result = analyse("synthetic_control", basque, **BASQUE, **BASQUE_PREDICTORS)
    weights = donor_weights(result)

    assert weights["Cataluna"] == pytest.approx(0.8508163, abs=1e-3)
    assert weights["Madrid (Comunidad De)"] == pytest.approx(0.1491837, abs=1e-3)
    assert average(result).estimate == pytest.approx(-0.69956, abs=1e-4)
    assert result.params["pre_mspe"] == pytest.approx(0.0088645, abs=1e-6)


def test_a_global_search_matches_the_basque_outcomes_as_closely_as_outcomes_alone(
    basque: pd.DataFrame,
) -> None:
    bound = analyse("synthetic_control", basque, **BASQUE, match_window=[1960, 1969])
    result = analyse(
        "synthetic_control", basque, **BASQUE, **BASQUE_PREDICTORS, importance="global"
    )

    assert result.params["pre_mspe"] < 0.0088
    assert result.params["pre_mspe"] >= bound.params["pre_mspe"] - 1e-12


def test_basque_country_on_outcomes(basque: pd.DataFrame) -> None:
    result = analyse("synthetic_control", basque, **BASQUE)
    weights = donor_weights(result)

    assert weights["Cataluna"] == pytest.approx(0.8264, abs=1e-3)
    assert weights["Madrid (Comunidad De)"] == pytest.approx(0.1684, abs=1e-3)
    assert average(result).estimate == pytest.approx(-0.69153, abs=1e-4)


def test_sixteen_donors_cannot_reject_at_five_percent(basque: pd.DataFrame) -> None:
    found = average(analyse("synthetic_control", basque, **BASQUE))

    assert (found.ci_lower, found.ci_upper) == (-np.inf, np.inf)
    assert found.pvalue >= 1 / 17
