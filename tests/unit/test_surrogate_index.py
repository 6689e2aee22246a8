"""The surrogate index: its slopes and errors, its effect, the back-test, what is refused."""

import doctest
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from causal.core.errors import CausalError, DataError, InferenceError, SpecError
from causal.core.gram import Array
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect, Result
from causal.core.spec import validate
from causal.experiments import ab, surrogate_fit, surrogate_index
from causal.experiments.levels import welch_satterthwaite
from causal.experiments.surrogate_fit import SurrogateIndex, fit_index

NAMES = ("visits", "spend")


def units(
    rng: np.random.Generator, n: int, *, direct: float = 0.0, noise: float = 1.0, first: int = 0
) -> pd.DataFrame:
    """Treatment moves two surrogates; these, and directly the treatment, move the outcome."""
    treated = np.arange(n) // 4 % 2
    before = rng.normal(size=n)
    visits = rng.poisson(3 + 0.5 * treated).astype(float)
    spend = rng.gamma(2.0, 2.0, n) + 0.4 * treated + 1.5 * before
    rest = noise * rng.normal(size=n) * (1 + 0.2 * visits)
    year = 1e4 + 2.0 * visits + 1.5 * spend + direct * treated + rest
    return pd.DataFrame(
        {
            "id": first + np.arange(n),
            "arm": np.where(treated, "perk", "control"),
            "visits": visits,
            "spend": spend,
            "before": before,
            "year": year,
            "home": np.arange(n) // 4,
        }
    )


TRUE_EFFECT = 2.0 * 0.5 + 1.5 * 0.4
HISTORY = units(np.random.default_rng(1), 1500)
EXPERIMENT = units(np.random.default_rng(2), 900, first=10_000)


def index(history: pd.DataFrame = HISTORY, **given: Any) -> SurrogateIndex:
    return run(fit_index(outcome="year", surrogates=NAMES, **given), PandasEngine(history))


def data(**options: Any) -> dict[str, Any]:
    return {
        "name": "perk", "source": {"table": "new"}, "method": "surrogate_index",
        "options": {
            "unit": "id", "variant": "arm", "control": "control", "outcome": "year",
            "surrogates": list(NAMES), "history": {"table": "past"},
        } | options,
    }  # fmt: skip


def analysed(
    experiment: pd.DataFrame = EXPERIMENT, history: pd.DataFrame = HISTORY, **options: Any
) -> Result:
    spec = validate(surrogate_index.SPEC, data(**options))
    others = {"history": PandasEngine(history)}
    return run(surrogate_index.estimate(spec), PandasEngine(experiment), others=others)


def first(result: Result, estimator: str = "surrogate_index") -> Effect:
    return next(item for item in result.effects if item.estimator == estimator)


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
    assert found.n_clusters == (None if cluster is None else 375)


def stacked(history: pd.DataFrame, experiment: pd.DataFrame) -> tuple[float, float]:
    """Effect and error of the stacked equations of both samples, their Jacobian by differences.

    theta: constant and slopes of the index, mean surrogates of control, of the treated. Each
    sample's part of the middle has its own factor: n/(n - k), and n/(n - 1) of every arm.
    """
    x = np.column_stack([np.ones(len(history)), history[list(NAMES)]])
    y = history["year"].to_numpy()
    s = experiment[list(NAMES)].to_numpy()
    arms = [(experiment["arm"] == arm).to_numpy() for arm in ("control", "perk")]
    n_h, k = x.shape

    def psi(theta: Array) -> Array:
        """Rows: historical ones, then those of the experiment."""
        out = np.zeros((n_h + len(s), 7))
        out[:n_h, :3] = x * (y - x @ theta[:3])[:, None]
        for at, arm in enumerate(arms):
            out[n_h:, 3 + 2 * at : 5 + 2 * at] = arm[:, None] * (s - theta[3 + 2 * at : 5 + 2 * at])
        return out

    theta = np.concatenate(
        [np.linalg.lstsq(x, y, rcond=None)[0], *(s[arm].mean(axis=0) for arm in arms)]
    )
    bread = np.column_stack(
        [
            (psi(theta + step).sum(axis=0) - psi(theta - step).sum(axis=0)) / 2e-4
            for step in 1e-4 * np.eye(7)
        ]
    )
    factors = np.repeat(
        [n_h / (n_h - k), *(arm.sum() / (arm.sum() - 1) for arm in arms)], [3, 2, 2]
    )
    scores = psi(theta) * np.sqrt(factors)
    inverse = np.linalg.inv(bread)
    covariance = inverse @ scores.T @ scores @ inverse.T

    def effect(theta: Array) -> float:
        return float(theta[1:3] @ (theta[5:] - theta[3:5]))

    gradient = np.array(
        [(effect(theta + step) - effect(theta - step)) / 2e-4 for step in 1e-4 * np.eye(7)]
    )
    return effect(theta), float(np.sqrt(gradient @ covariance @ gradient))


def test_effect_and_error_are_those_of_the_stacked_equations() -> None:
    for n in (60, 1500):
        found = first(analysed(history=HISTORY.head(n)))
        estimate, std_error = stacked(HISTORY.head(n), EXPERIMENT)
        assert found.estimate == pytest.approx(estimate, rel=1e-9)
        assert found.std_error == pytest.approx(std_error, rel=1e-6)
    assert (found.n_treated, found.n_control, found.metric) == (448, 452, "year")


def test_the_error_is_that_of_resampled_rows() -> None:
    rng = np.random.default_rng(8)
    history, experiment = HISTORY.head(200), EXPERIMENT.head(600)
    draws = []
    for _ in range(1000):
        past = history.iloc[rng.integers(0, len(history), len(history))]
        new = experiment.iloc[rng.integers(0, len(experiment), len(experiment))]
        x = np.column_stack([np.ones(len(past)), past[list(NAMES)]])
        slopes = np.linalg.lstsq(x, past["year"].to_numpy(), rcond=None)[0][1:]
        means = new.groupby("arm")[list(NAMES)].mean()
        draws.append(float((means.loc["perk"] - means.loc["control"]).to_numpy() @ slopes))
    found = first(analysed(experiment, history))
    assert found.std_error == pytest.approx(np.std(draws), rel=0.08)


@pytest.mark.parametrize("options", [{}, {"cluster": "home"}])
def test_an_index_that_is_known_is_a_metric_of_ab(options: dict[str, Any]) -> None:
    """Without the index's error: estimates, errors and degrees of freedom of the method `ab`."""
    found = analysed(covariates=["before"], back_test=True, **options)
    known = EXPERIMENT.assign(index=EXPERIMENT[list(NAMES)].to_numpy() @ index().slopes)
    metrics = [
        {"name": name, "type": "mean", "column": name, "covariates": ["before"]}
        for name in ("index", "year")
    ]
    design = {"unit": "id", "variant": "arm", "control": "control", "metrics": metrics}
    spec = validate(
        ab.SPEC,
        {"name": "known", "source": {"table": "new"}, "method": "ab", "options": design | options},
    )
    result = run(ab.estimate(spec), PandasEngine(known))
    plain = "welch" if not options else "cluster_robust"
    table = result.to_frame().query("scale == 'absolute'").set_index(["metric", "estimator"])
    for own, theirs, suffix in (
        ("surrogate_index_cuped", "cuped", 0),
        ("surrogate_index", plain, 1),
    ):
        reference = table.loc["index", theirs]
        effect = first(found, own)
        moved = _moved(covariate="before" if suffix == 0 else None)
        part = float(moved @ index().covariance @ moved)
        assert effect.estimate == pytest.approx(reference["estimate"], rel=1e-8)
        assert effect.std_error**2 - part == pytest.approx(reference["std_error"] ** 2, rel=1e-7)
        df = welch_satterthwaite(
            [reference["std_error"] ** 2, part], [reference["df"], len(HISTORY) - 3.0]
        )
        assert effect.df == pytest.approx(df, rel=1e-7)
        assert effect.n_clusters == (225 if options else None)
    for name in ("cuped", plain):
        reference, effect = table.loc["year", name], first(found, name)
        assert effect.estimate == pytest.approx(reference["estimate"], rel=1e-7)
        assert effect.std_error == pytest.approx(reference["std_error"], rel=1e-7)
        assert effect.df == pytest.approx(reference["df"], rel=1e-7)


def _moved(*, covariate: str | None) -> Array:
    """Differences in mean surrogates; given a covariate, less its part in them."""
    means = EXPERIMENT.groupby("arm")[[*NAMES, "before"]].mean()
    step = means.loc["perk"] - means.loc["control"]
    moved = step[list(NAMES)].to_numpy()
    if covariate is None:
        return np.asarray(moved)
    whole = EXPERIMENT[[*NAMES, covariate]].cov()
    return np.asarray(
        moved - whole.loc[list(NAMES), covariate].to_numpy() / whole.loc[covariate, covariate]
        * step[covariate]
    )  # fmt: skip


def test_covariates_narrow_the_interval() -> None:
    found = analysed(covariates=["before"])
    assert first(found, "surrogate_index_cuped").std_error < 0.95 * first(found).std_error


def test_one_table_may_hold_both_samples() -> None:
    both = pd.concat([HISTORY.assign(sample="past", arm=None), EXPERIMENT.assign(sample="new")])
    own = {"table": "units", "where": {"sample": "new"}}
    spec = validate(
        surrogate_index.SPEC,
        data(history={"table": "units", "where": {"sample": "past"}}) | {"source": own},
    )
    found = run(surrogate_index.estimate(spec), PandasEngine(both))
    assert first(found) == first(analysed())
    for where in ({}, {"sample": ["past", "new"]}, {"home": 3}):
        with pytest.raises(SpecError, match="tells their rows apart by one column"):
            validate(
                surrogate_index.SPEC,
                data(history={"table": "units", "where": where}) | {"source": own},
            )


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ([1], [1.0]), ([True], [1]), ([0], [False]), (["1"], [1.0]), ([True], ["true"]),
        ([2, 1], [3, 1.0]), (["nan"], ["nan"]), ([0], [-0.0]),
    ],
)  # fmt: skip
def test_one_value_written_in_two_ways_keeps_no_rows_apart(own: Any, other: Any) -> None:
    with pytest.raises(SpecError, match="tells their rows apart by one column"):
        validate(surrogate_index.SPEC, one_table(own, other))


@pytest.mark.parametrize(
    ("own", "other"), [([1], [0]), ([True], [False]), ([1.5], [1]), (["a"], ["b"]), ([1, 2], [3])]
)
def test_two_values_keep_rows_apart(own: Any, other: Any) -> None:
    spec = validate(surrogate_index.SPEC, one_table(own, other))
    assert spec.other_sources == {}


def one_table(own: Any, other: Any) -> dict[str, Any]:
    """A spec whose samples are rows of one table, by the column `sample`."""
    history = {"table": "units", "where": {"sample": other}}
    return data(history=history) | {"source": {"table": "units", "where": {"sample": own}}}


def test_little_history_is_told_in_the_error() -> None:
    """With 40 historical units the index is most of the error; with many it is little."""
    shares = []
    for n in (40, 40_000):
        result = analysed(history=units(np.random.default_rng(5), n))
        (share,) = [d.statistic for d in result.diagnostics if d.name.startswith("index_error")]
        assert share is not None
        shares.append(share)
    assert shares[0] > 20 * shares[1] > 0


def test_the_back_test_sees_what_the_surrogates_do_not_carry() -> None:
    found = index()
    fair = analysed(back_test=True)
    assert [effect.estimator for effect in fair.effects] == [
        "surrogate_index", "welch", "unexplained_by_index",
    ]  # fmt: skip
    by_index, actual, rest = fair.effects
    assert [effect.metric for effect in fair.effects] == ["year", "year", "year - surrogate_index"]
    assert rest.estimate == pytest.approx(actual.estimate - by_index.estimate, rel=1e-9)
    means = EXPERIMENT.groupby("arm")["year"].mean()
    assert actual.estimate == pytest.approx(means["perk"] - means["control"], rel=1e-9)
    left = EXPERIMENT["year"] - EXPERIMENT[list(NAMES)].to_numpy() @ found.slopes
    by_arm = left.groupby(EXPERIMENT["arm"])
    step = _moved(covariate=None)
    expected = (by_arm.var() / by_arm.size()).sum() + step @ found.covariance @ step
    assert rest.std_error == pytest.approx(expected**0.5, rel=1e-6)
    direct = units(np.random.default_rng(2), 900, direct=1.0, first=10_000)
    verdicts = [
        check.passed
        for result in (fair, analysed(direct, back_test=True))
        for check in result.diagnostics
        if check.name == "surrogacy.perk - control"
    ]
    assert verdicts == [True, False]


def test_a_history_that_cannot_carry_an_index_is_refused() -> None:
    with pytest.raises(InferenceError, match="combinations of others"):
        analysed(history=HISTORY.assign(spend=2 * HISTORY["visits"]))
    for bad, options, text in (
        (HISTORY.assign(spend=1.0), {}, "does not vary among historical units; given: spend"),
        (HISTORY.assign(year=7.3), {}, "zero variance among historical units; given: year"),
        (HISTORY.head(3), {}, "too few historical units with all values; given: 3"),
        (HISTORY.head(1), {}, "too few historical units with all values; given: 1"),
        (HISTORY.head(0), {}, "history: the source has no rows|no historical units|too few"),
        (HISTORY.assign(home=1), {"history_cluster": "home"}, "two clusters or more"),
        (HISTORY.assign(home=np.nan), {"history_cluster": "home"}, "home is null"),
        (pd.concat([HISTORY, HISTORY.head(2)]), {}, "id must identify the rows: 2 values repeat"),
    ):
        with pytest.raises(DataError, match=text) as caught:
            analysed(history=bad, **options)
        assert "\n" not in str(caught.value)


def test_an_experiment_that_cannot_be_read_is_refused() -> None:
    for bad, text in (
        (EXPERIMENT.assign(arm="perk"), "arm has no such variant; given: control"),
        (EXPERIMENT.assign(arm=[None, *EXPERIMENT["arm"][1:]]), "arm is null"),
        (EXPERIMENT.iloc[[0, 1, 4]], "variant perk has fewer than 2 units"),
        (EXPERIMENT.assign(visits=2.0, spend=3.3), "zero variance: the surrogates do not vary"),
        (pd.concat([EXPERIMENT, EXPERIMENT.head(1)]), "id must identify a row"),
    ):
        with pytest.raises(DataError, match=text):
            analysed(bad)


def test_columns_that_one_table_lacks_are_named_with_the_table() -> None:
    with pytest.raises(SpecError, match="history: the source has no such column; given: spend"):
        analysed(history=HISTORY.drop(columns="spend"))
    with pytest.raises(SpecError, match=r"^the source has no such column; given: spend"):
        analysed(EXPERIMENT.drop(columns="spend"))
    with pytest.raises(SpecError, match="history: this column must hold numbers; given: visits"):
        analysed(history=HISTORY.assign(visits="many"))
    assert analysed(EXPERIMENT.drop(columns="year")).effects == analysed().effects
    spec = validate(surrogate_index.SPEC, data())
    with pytest.raises(CausalError, match="a table that it was not given; given: history"):
        run(surrogate_index.estimate(spec), PandasEngine(EXPERIMENT))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"surrogates": []}, "options.surrogates: "),
        ({"surrogates": ["visits", "visits"]}, "visits stands twice"),
        ({"surrogates": ["visits", "year"]}, "year stands twice"),
        ({"covariates": ["visits"]}, "visits stands twice"),
        ({"history": None}, "options.history: "),
        ({"history": {}}, "options.history: give exactly one of table and path"),
        ({"historry": {"table": "past"}}, "unknown key, did you mean 'history'"),
    ],
)
def test_specs_that_do_not_fit_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        validate(surrogate_index.SPEC, data(**options))


def test_missing_rows_are_counted_and_other_populations_told() -> None:
    holed = EXPERIMENT.assign(visits=EXPERIMENT["visits"].mask(EXPERIMENT.index < 7))
    past = HISTORY.assign(year=HISTORY["year"].mask(HISTORY.index < 5))
    checks = {check.name: check for check in analysed(holed, past).diagnostics}
    assert checks["missing_rows.surrogate_index"].statistic == 7
    assert "(5 left out for a missing value)" in checks["index_fit"].detail
    assert checks["comparability"].passed
    other = EXPERIMENT.assign(spend=EXPERIMENT["spend"] + 50)
    (check,) = [item for item in analysed(other).diagnostics if item.name == "comparability"]
    assert not check.passed
    assert check.detail.startswith("spend lies +")


def test_a_split_that_was_not_planned_stops() -> None:
    result = analysed(expected_shares={"control": 0.8, "perk": 0.2})
    (check,) = [item for item in result.diagnostics if item.name == "sample_ratio"]
    assert check.passed is False


def test_the_examples_run() -> None:
    assert doctest.testmod(surrogate_index).failed == 0
    assert doctest.testmod(surrogate_fit).failed == 0
