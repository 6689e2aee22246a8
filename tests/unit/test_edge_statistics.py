"""Cases in which a plausible formula gives a wrong number: each once failed."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from causal.core.errors import DataError
from causal.core.frames import (
    Column,
    Condition,
    Constant,
    GramRequest,
    MeatRequest,
    Score,
    linear,
)
from causal.core.inference import wald
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.core.stored_gram import StoredGramEngine
from causal.experiments import ab
from causal.quasi import did

N_UNITS, N_PERIODS = 40, 6


@pytest.fixture(scope="module")
def panel() -> pd.DataFrame:
    """Staggered panel; a fifth of the units change their zone in period 3."""
    rng = np.random.default_rng(7)
    unit = np.repeat(np.arange(N_UNITS), N_PERIODS)
    t = np.tile(np.arange(N_PERIODS), N_UNITS)
    first = np.array([np.nan, 2.0, 4.0])[unit % 3]
    zone = (unit + ((unit % 5 == 0) & (t >= 3))) % 4
    treated = t >= first
    y = 2.0 * zone + rng.normal(size=(4, N_PERIODS))[zone, t] + treated + rng.normal(size=len(t))
    return pd.DataFrame(
        {"unit": unit, "t": t, "first": first, "zone": zone, "d": treated.astype(float), "y": y}
    )


@pytest.fixture(scope="module")
def users() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 400
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "variant": np.array(["control", "treatment"])[np.arange(n) % 2],
            "balance": rng.normal(-10, 1, n) - 2 * (np.arange(n) % 2),
            "large": rng.normal(1e6, 1e6, n),
            "small": rng.normal(0, 1e-6, n),
        }
    )


def analyse_panel(frame: pd.DataFrame, **options: object) -> Result:
    columns = {"unit": "unit", "period": "t", "outcome": "y", "first_treated_period": "first"}
    data = {"name": "x", "source": {"table": "t"}, "method": "did", "options": columns | options}
    return run(did.estimate(validate(did.SPEC, data)), PandasEngine(frame))


def analyse_users(frame: pd.DataFrame, metric: dict[str, object], **options: object) -> Result:
    base = {"unit": "user", "variant": "variant", "control": "control"}
    metrics = [{"name": "balance", "type": "mean", "column": "balance"} | metric]
    data = {
        "name": "x", "source": {"table": "t"}, "method": "ab",
        "options": base | options | {"metrics": metrics},
    }  # fmt: skip
    return run(ab.estimate(validate(ab.SPEC, data)), PandasEngine(frame))


def test_units_may_change_the_column_that_period_effects_differ_by(panel: pd.DataFrame) -> None:
    """Unit effects then do not hold the levels of its values in the first period."""
    cells = panel["zone"].astype(str) + "|" + panel["t"].astype(str)
    units = pd.get_dummies(panel["unit"], dtype=float)
    effects = pd.get_dummies(cells, dtype=float, drop_first=True)
    design = pd.concat([panel["d"], units, effects], axis=1).to_numpy()
    reference = sm.OLS(panel["y"].to_numpy(), design).fit()

    effect = analyse_panel(
        panel, estimator="twfe", period_effects_by="zone", covariance="classical"
    ).effects[0]
    assert effect.estimate == pytest.approx(reference.params[0], rel=1e-9)
    assert effect.std_error == pytest.approx(reference.bse[0], rel=1e-9)
    assert effect.df == reference.df_resid


def test_rows_of_no_weight_do_not_move_the_estimate(panel: pd.DataFrame) -> None:
    for estimator, frame in (("twfe", panel), ("two_by_two", panel[panel["first"] != 4])):
        weighted = frame.assign(w=np.where(frame["t"] < 1, 0.0, 1.0))
        effect = analyse_panel(weighted, estimator=estimator, weight="w").effects[0]
        without = analyse_panel(frame[frame["t"] >= 1], estimator=estimator).effects[0]
        assert effect.estimate == pytest.approx(without.estimate, rel=1e-9)


def test_an_infinite_start_is_named(panel: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="never treated is a null"):
        analyse_panel(panel.fillna({"first": np.inf}), estimator="event_study")


def test_an_event_time_without_rows_does_not_cost_the_pre_trend_test(panel: pd.DataFrame) -> None:
    gone = panel[~((panel["first"] == 2) & (panel["t"] == 5))]
    result = analyse_panel(gone, estimator="twfe")
    assert result.diagnostics[0].name == "pre_trend"
    assert result.diagnostics[0].pvalue is not None


def test_joint_tests_do_not_depend_on_the_units_of_measurement(users: pd.DataFrame) -> None:
    assert wald(np.array([1e6, 1e-6]), np.diag([1e12, 1e-12]))[0] == pytest.approx(2.0)

    result = analyse_users(users, {"covariates": ["large", "small"]})
    rescaled = users.assign(large=users["large"] / 1e6, small=users["small"] * 1e6)
    other = analyse_users(rescaled, {"covariates": ["large", "small"]})
    found = [
        next(d.pvalue for d in each.diagnostics if d.name.startswith("covariate_balance"))
        for each in (result, other)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_relative_margin_says_nothing_about_a_negative_level(users: pd.DataFrame) -> None:
    """A fall from -10 to -12 is a lift of 20 %, which is no proof that all is well."""
    guardrail = {"role": "guardrail", "margin": 0.05, "margin_scale": "relative"}
    result = analyse_users(users, guardrail)
    found = next(d for d in result.diagnostics if d.name.startswith("guardrail"))
    assert found.passed is None
    assert "above zero" in found.detail

    absolute = analyse_users(users, guardrail | {"margin_scale": "absolute"})
    assert next(d for d in absolute.diagnostics if d.name == found.name).passed is False


def test_a_planned_arm_without_units_is_no_split_that_fits(users: pd.DataFrame) -> None:
    shares = {"control": 1, "treatment": 1, "lost": 1}
    with pytest.raises(DataError, match="no units; given: lost"):
        analyse_users(users, {}, expected_shares=shares)
    chosen = analyse_users(users, {}, expected_shares=shares, treatments=["treatment"])
    assert chosen.diagnostics[0].passed is True


def stored_engine(frame: pd.DataFrame) -> tuple[PandasEngine, StoredGramEngine]:
    engine = PandasEngine(frame)
    stored = GramRequest(terms=(Column("x"), Column("y")), by=("day", "arm"))
    return engine, StoredGramEngine([(stored, engine(stored))], otherwise=engine)


@pytest.fixture(scope="module")
def large() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "day": pd.to_datetime(["2026-01-05", "2026-01-12"] * 50),
            "arm": ["1", "1", "2", "2"] * 25,
            "x": 1e8 + rng.normal(size=100),
            "y": 1e8 + rng.normal(size=100),
        }
    )


@pytest.mark.parametrize(
    "condition", [Condition("day", ("2026-01-05",)), Condition("arm", (1,)), Condition("arm", (2,))]
)
def test_stored_frames_know_values_in_their_own_spelling_only(
    large: pd.DataFrame, condition: Condition
) -> None:
    engine, stored = stored_engine(large)
    request = GramRequest(terms=(Column("y"),), where=(condition,))
    assert stored.stored_answer(request) is None
    assert int(stored(request)["n"].iloc[0]) == int(engine(request)["n"].iloc[0]) == 50


def test_stored_scores_keep_their_digits_at_large_means(large: pd.DataFrame) -> None:
    engine, stored = stored_engine(large)
    sides = [linear([(Column(name), 1.0), (Constant(), -1e8)]) for name in ("x", "y")]
    request = MeatRequest(scores=(Score(*sides),), cluster=("arm",))
    answer = stored.stored_answer(request)
    assert answer is not None
    assert answer["cross"][0][0] == pytest.approx(engine(request)["cross"][0][0], rel=1e-6)
