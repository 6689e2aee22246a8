"""The surrogate index: its slopes and errors, its effect, the back-test, what is refused."""

import doctest
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from causal.core.errors import DataError, InferenceError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.experiments import surrogate_index
from causal.experiments.surrogate_index import (
    SurrogateIndex,
    back_test,
    estimate_long_term,
    fit_index,
)

NAMES = ("visits", "spend")
ARMS: dict[str, Any] = {"variant": "arm", "control": "control"}


def units(
    rng: np.random.Generator, n: int, *, direct: float = 0.0, noise: float = 1.0
) -> pd.DataFrame:
    """Treatment moves two surrogates; these, and directly the treatment, move the outcome."""
    treated = np.arange(n) % 2
    visits = rng.poisson(3 + 0.5 * treated).astype(float)
    spend = rng.gamma(2.0, 2.0, n) + 0.4 * treated
    rest = noise * rng.normal(size=n) * (1 + 0.2 * visits)
    year = 1e4 + 2.0 * visits + 1.5 * spend + direct * treated + rest
    return pd.DataFrame(
        {
            "arm": np.where(treated, "perk", "control"),
            "visits": visits,
            "spend": spend,
            "year": year,
            "home": np.arange(n) // 4,
        }
    )


TRUE_EFFECT = 2.0 * 0.5 + 1.5 * 0.4
HISTORY = units(np.random.default_rng(1), 1500)
EXPERIMENT = units(np.random.default_rng(2), 900)


def index(history: pd.DataFrame = HISTORY, **given: Any) -> SurrogateIndex:
    return run(fit_index(outcome="year", surrogates=NAMES, **given), PandasEngine(history))


@pytest.mark.parametrize("cluster", [None, "home"])
def test_slopes_and_covariance_are_those_of_statsmodels(cluster: str | None) -> None:
    found = index(cluster=cluster)
    model = sm.OLS(HISTORY["year"], sm.add_constant(HISTORY[list(NAMES)]))
    if cluster is None:
        fitted = model.fit(cov_type="HC1")
    else:
        fitted = model.fit(cov_type="cluster", cov_kwds={"groups": HISTORY["home"]})
    np.testing.assert_allclose(found.slopes, fitted.params[1:], rtol=1e-9)
    expected = fitted.cov_params().to_numpy()[1:, 1:]
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-7)
    assert found.r_squared == pytest.approx(fitted.rsquared, rel=1e-9)


def test_the_effect_is_that_of_the_definition() -> None:
    found = index()
    (effect,) = run(estimate_long_term(found, **ARMS), PandasEngine(EXPERIMENT)).effects
    value = EXPERIMENT[list(NAMES)].to_numpy() @ found.slopes
    parts = [value[EXPERIMENT["arm"] == arm] for arm in ("perk", "control")]
    means = [
        EXPERIMENT.loc[EXPERIMENT["arm"] == arm, list(NAMES)].mean() for arm in ("perk", "control")
    ]
    moved = (means[0] - means[1]).to_numpy()
    variance = sum(part.var(ddof=1) / len(part) for part in parts)
    variance += moved @ found.covariance @ moved
    assert effect.estimate == pytest.approx(parts[0].mean() - parts[1].mean(), rel=1e-9)
    assert effect.std_error == pytest.approx(variance**0.5, rel=1e-9)
    assert (effect.n_treated, effect.n_control, effect.metric) == (450, 450, "year")


def test_the_errors_of_the_index_are_the_derivative_by_its_slopes() -> None:
    """The delta method against a finite difference: d'b moves by d_k when slope k does."""
    found = index()
    engine = PandasEngine(EXPERIMENT)
    (effect,) = run(estimate_long_term(found, **ARMS), engine).effects
    gradient = np.empty(2)
    for at in range(2):
        slopes = found.slopes.copy()
        slopes[at] += 1e-6
        moved = SurrogateIndex(**{**found.__dict__, "slopes": slopes})
        (other,) = run(estimate_long_term(moved, **ARMS), engine).effects
        gradient[at] = (other.estimate - effect.estimate) / 1e-6
    sure = SurrogateIndex(**{**found.__dict__, "covariance": np.zeros((2, 2))})
    (without,) = run(estimate_long_term(sure, **ARMS), engine).effects
    added = gradient @ found.covariance @ gradient
    assert effect.std_error**2 - without.std_error**2 == pytest.approx(added, rel=1e-5)


def test_little_history_is_told_in_the_error() -> None:
    """With 40 historical units the index is most of the error; with many it is little."""
    shares = []
    for n in (40, 40_000):
        found = index(units(np.random.default_rng(5), n))
        result = run(estimate_long_term(found, **ARMS), PandasEngine(EXPERIMENT))
        (share,) = [d.statistic for d in result.diagnostics if d.name == "index_error.perk"]
        assert share is not None
        shares.append(share)
    assert shares[0] > 20 * shares[1] > 0


def test_the_back_test_sees_what_the_surrogates_do_not_carry() -> None:
    found = index()
    fair = run(back_test(found, **ARMS), PandasEngine(EXPERIMENT))
    assert [effect.estimator for effect in fair.effects] == [
        "surrogate_index", "welch", "unexplained_by_index",
    ]  # fmt: skip
    by_index, actual, rest = fair.effects
    assert rest.estimate == pytest.approx(actual.estimate - by_index.estimate, rel=1e-9)
    means = EXPERIMENT.groupby("arm")["year"].mean()
    assert actual.estimate == pytest.approx(means["perk"] - means["control"], rel=1e-9)
    left = EXPERIMENT["year"] - EXPERIMENT[list(NAMES)].to_numpy() @ found.slopes
    variances = left.groupby(EXPERIMENT["arm"]).var() / 450
    moved = EXPERIMENT.groupby("arm")[list(NAMES)].mean()
    step = (moved.loc["perk"] - moved.loc["control"]).to_numpy()
    expected = variances.sum() + step @ found.covariance @ step
    assert rest.std_error == pytest.approx(expected**0.5, rel=1e-6)
    direct = units(np.random.default_rng(2), 900, direct=1.0)
    broken = run(back_test(found, **ARMS), PandasEngine(direct))
    assert [check.passed for check in fair.diagnostics if check.name == "surrogacy.perk"] == [True]
    assert [check.passed for check in broken.diagnostics if check.name == "surrogacy.perk"] == [
        False
    ]


def test_what_cannot_be_right_is_refused() -> None:
    twice = HISTORY.assign(spend=2 * HISTORY["visits"])
    with pytest.raises(InferenceError, match="combinations of others"):
        index(twice)
    with pytest.raises(DataError, match="does not vary among historical units; given: spend"):
        index(HISTORY.assign(spend=1.0))
    with pytest.raises(DataError, match="too few historical units"):
        index(HISTORY.head(3))
    with pytest.raises(DataError, match="two clusters or more"):
        index(HISTORY.assign(home=1), cluster="home")
    found = index()
    for bad, text in (
        (EXPERIMENT.assign(arm="perk"), "must hold the control and another arm"),
        (EXPERIMENT.assign(arm=[None, *EXPERIMENT["arm"][1:]]), "arm is null in some rows"),
        (EXPERIMENT.iloc[[0, 1, 3]], "two units or more"),
    ):
        with pytest.raises(DataError, match=text):
            run(estimate_long_term(found, **ARMS), PandasEngine(bad))


def test_missing_rows_are_counted_and_other_populations_told() -> None:
    found = index()
    holed = EXPERIMENT.assign(visits=EXPERIMENT["visits"].mask(EXPERIMENT.index < 7))
    result = run(estimate_long_term(found, **ARMS), PandasEngine(holed))
    checks = {check.name: check for check in result.diagnostics}
    assert checks["missing_rows"].statistic == 7
    assert checks["comparability"].passed
    other = EXPERIMENT.assign(spend=EXPERIMENT["spend"] + 50)
    result = run(estimate_long_term(found, **ARMS), PandasEngine(other))
    (check,) = [check for check in result.diagnostics if check.name == "comparability"]
    assert not check.passed
    assert check.detail.startswith("spend lies +")


def test_the_example_runs() -> None:
    assert doctest.testmod(surrogate_index).failed == 0
