"""Fits of purchase models: rows and cells, units, errors, what is refused, what is counted."""

import doctest

import numpy as np
import pandas as pd
import pytest

from causal.clv import bg_nbd, calibration, clv_figures, fitting, gamma_gamma, models
from causal.clv.cells import Cells, cells_of, rows_of
from causal.clv.fitting import ClvFit, ClvOptions, fit, fit_spend
from causal.clv.gamma_gamma import spend_cells
from causal.clv.lifetime_value import (
    Horizon,
    discounted_purchases,
    lifetime_value,
    total_purchases,
    total_value,
)
from causal.clv.maximum_likelihood import Fit, maximise, observed_information, propagate
from causal.clv.models import MODELS, fit_purchases
from causal.core.errors import CausalError, DataError, InferenceError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from tests import purchase_worlds

NAMES = {"frequency": "x", "recency": "t_x", "age": "T"}


def customers(n: int = 4000, seed: int = 3) -> pd.DataFrame:
    """Customers of a BG/NBD world whose purchases fall on days, time in weeks."""
    rng = np.random.default_rng(seed)
    days = rng.integers(190, 270, n)
    theta = np.array([0.6, 6.0, 0.9, 2.0])
    frequency, recency, age = purchase_worlds.bg_nbd(rng, theta, days / 7)
    recency = np.minimum(np.ceil(recency * 7) / 7, age)
    spend = purchase_worlds.spend(rng, np.array([5.0, 4.0, 20.0]), frequency.clip(1))
    later = rng.poisson(0.3 * frequency)
    frame = pd.DataFrame({"x": frequency, "t_x": recency, "T": age, "later": later})
    return frame.assign(spend=np.where(frequency > 0, spend.round(0) + 1, np.nan))


CUSTOMERS = customers()


def world(name: str, n: int) -> Cells:
    """Histories of a model's own world; purchases fall on days, time in weeks."""
    rng = np.random.default_rng(8)
    theta = {"bg_nbd": [0.6, 6.0, 0.9, 2.0], "pareto_nbd": [0.8, 6.0, 0.7, 9.0]}[name]
    age = rng.integers(190, 270, n) / 7
    frequency, recency, age = purchase_worlds.WORLDS[name](rng, np.array(theta), age)
    return rows_of(frequency, np.minimum(np.ceil(recency * 7) / 7, age), age)


@pytest.fixture(scope="module")
def fitted() -> ClvFit:
    options = ClvOptions(**NAMES, monetary_value="spend", holdout="later", holdout_length=30.0)
    return run(fit(options), PandasEngine(CUSTOMERS))


def diagnostic(found: ClvFit, name: str) -> float:
    (item,) = (item for item in found.diagnostics if item.name == name)
    assert item.statistic is not None
    return item.statistic


@pytest.mark.parametrize("name", ["bg_nbd", "pareto_nbd"])
def test_cells_are_rows(name: models.ModelName) -> None:
    each = world(name, 1500)
    cells = cells_of(each.frequency, each.recency, each.age)
    assert cells.n_cells < each.n_cells
    by_row, by_cell = fit_purchases(name, each), fit_purchases(name, cells)
    assert by_cell.log_likelihood == pytest.approx(by_row.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(by_cell.parameters, by_row.parameters, rtol=1e-6)
    np.testing.assert_allclose(by_cell.covariance, by_row.covariance, rtol=1e-5)
    assert by_cell.n == by_row.n == 1500


def test_counts_are_copies(fitted: ClvFit) -> None:
    twice = Cells(
        frequency=fitted.cells.frequency,
        recency=fitted.cells.recency,
        age=fitted.cells.age,
        count=2 * fitted.cells.count,
    )
    found = fit_purchases("bg_nbd", twice)
    np.testing.assert_allclose(found.parameters, fitted.purchases.parameters, rtol=1e-6)
    np.testing.assert_allclose(2 * found.covariance, fitted.purchases.covariance, rtol=1e-5)


@pytest.mark.parametrize("name", ["bg_nbd", "pareto_nbd"])
def test_the_unit_of_time_moves_only_what_has_one(name: models.ModelName) -> None:
    rows = world(name, 1500)
    weeks = fit_purchases(name, cells_of(rows.frequency, rows.recency, rows.age))
    days = fit_purchases(name, cells_of(rows.frequency, rows.recency * 7, rows.age * 7))
    timed = {"bg_nbd": [1, 7, 1, 1], "pareto_nbd": [1, 7, 1, 7]}[name]
    np.testing.assert_allclose(days.parameters, weeks.parameters * timed, rtol=1e-5)
    np.testing.assert_allclose(days.std_errors, weeks.std_errors * timed, rtol=1e-4)


def test_the_errors_are_those_of_the_hessian_by_differences_of_the_likelihood(
    fitted: ClvFit,
) -> None:
    cells, theta = fitted.cells, fitted.purchases.parameters
    step = 1e-3

    def value(logs: np.ndarray) -> float:
        return float(cells.count @ bg_nbd.log_likelihood(np.exp(logs), cells)[0])

    at, eye = np.log(theta), np.eye(4) * step
    hessian = np.array([
        [
            value(at + a + b) - value(at + a - b) - value(at - a + b) + value(at - a - b)
            for b in eye
        ]
        for a in eye
    ]) / (4 * step**2)  # fmt: skip
    covariance = np.linalg.inv(-hessian)
    np.testing.assert_allclose(fitted.purchases.covariance, covariance, rtol=1e-3)
    np.testing.assert_allclose(
        fitted.purchases.std_errors, theta * np.sqrt(np.diag(covariance)), rtol=1e-3
    )


def test_intervals_are_symmetric_in_logarithms(fitted: ClvFit) -> None:
    ends = fitted.purchases.interval(0.9)
    np.testing.assert_allclose(np.sqrt(ends.prod(axis=1)), fitted.purchases.parameters)
    assert (ends > 0).all()
    frame = fitted.to_frame()
    assert frame["parameter"].tolist() == ["r", "alpha", "a", "b", "p", "q", "gamma"]
    assert (frame["ci_lower"] < frame["estimate"]).all()
    assert fitted.purchases.value("alpha") == fitted.purchases.parameters[1]
    assert fitted.purchases.aic == pytest.approx(8 - 2 * fitted.purchases.log_likelihood)


def test_a_fit_is_at_a_stationary_point(fitted: ClvFit) -> None:
    _, gradient = bg_nbd.log_likelihood(fitted.purchases.parameters, fitted.cells)
    assert np.abs(fitted.cells.count @ gradient).max() < 1e-3
    assert fitted.purchases.remaining < 1e-9


def test_a_total_has_the_error_of_its_gradient(fitted: ClvFit) -> None:
    def total(logs: np.ndarray) -> float:
        later = bg_nbd.conditional_purchases(np.exp(logs), fitted.cells, 13.0)
        return float(fitted.cells.count @ later)

    logs = np.log(fitted.purchases.parameters)
    gradient = np.array([(total(logs + e) - total(logs - e)) / 2e-5 for e in np.eye(4) * 1e-5])
    found = total_purchases(fitted.purchases, fitted.cells, t=13.0)
    assert found.estimate[0] == pytest.approx(total(logs))
    error = np.sqrt(gradient @ fitted.purchases.covariance @ gradient)
    assert found.std_error[0] == pytest.approx(error, rel=1e-5)
    assert found.ci_upper[0] - found.estimate[0] == pytest.approx(1.959964 * error, rel=1e-5)


def test_value_is_spend_times_purchases_period_by_period(fitted: ClvFit) -> None:
    assert fitted.spend is not None
    cells = rows_of([5, 0, 2], [30, 0, 10], [37, 35, 36])
    spend = np.array([14.0, np.nan, 25.0])
    horizon = Horizon(n_periods=3, period=4.0, discount_rate=0.02)
    theta = fitted.purchases.parameters
    until = [bg_nbd.conditional_purchases(theta, cells, t) for t in (0.0, 4.0, 8.0, 12.0)]
    expected = sum((until[k] - until[k - 1]) / 1.02**k for k in (1, 2, 3))
    np.testing.assert_allclose(discounted_purchases(fitted.purchases, cells, horizon), expected)
    each = gamma_gamma.conditional_value(fitted.spend.parameters, cells.frequency, spend)
    values = lifetime_value(fitted.purchases, fitted.spend, cells, spend, horizon=horizon)
    np.testing.assert_allclose(values, each * expected)
    total = total_value(fitted.purchases, fitted.spend, cells, spend, horizon=horizon)
    assert total.estimate[0] == pytest.approx(values.sum())

    def known_spend(first: np.ndarray) -> np.ndarray:
        later = [bg_nbd.conditional_purchases(first, cells, t) for t in (0.0, 4.0, 8.0, 12.0)]
        return np.asarray(each @ sum((later[k] - later[k - 1]) / 1.02**k for k in (1, 2, 3)))

    def known_purchases(second: np.ndarray) -> np.ndarray:
        value = gamma_gamma.conditional_value(second, cells.frequency, spend)
        return np.asarray(value @ expected)

    parts = [
        propagate([fitted.purchases], known_spend).std_error[0],
        propagate([fitted.spend], known_purchases).std_error[0],
    ]
    assert total.std_error[0] == pytest.approx(np.hypot(*parts), rel=1e-8)


def test_values_that_do_not_line_up_are_refused(fitted: ClvFit) -> None:
    assert fitted.spend is not None
    cells = rows_of([2, 0], [3, 0], [9, 9])
    for call in (lifetime_value, total_value):
        with pytest.raises(DataError, match="one monetary value"):
            call(fitted.purchases, fitted.spend, cells, [3.0], horizon=Horizon(n_periods=2))


@pytest.mark.parametrize("bad", [{"n_periods": 0}, {"n_periods": 1, "period": 0.0},
                                 {"n_periods": 1, "discount_rate": -1.0}])  # fmt: skip
def test_a_horizon_means_something(bad: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="horizon"):
        Horizon(**bad)  # type: ignore[arg-type]


def test_the_plan_gives_what_arrays_give(fitted: ClvFit) -> None:
    rows = CUSTOMERS
    found = fit_purchases("bg_nbd", cells_of(rows["x"], rows["t_x"], rows["T"]))
    np.testing.assert_allclose(fitted.purchases.parameters, found.parameters, rtol=1e-6)
    repeat = rows[rows["x"] > 0]
    spend = fit_spend(spend_cells(repeat["x"], repeat["spend"]))
    assert fitted.spend is not None
    np.testing.assert_allclose(fitted.spend.parameters, spend.parameters, rtol=1e-6)
    assert fitted.spend.n == len(repeat)
    assert fitted.purchases.n == len(rows)


def test_rows_without_a_history_are_counted() -> None:
    holes = CUSTOMERS.head(1200).copy()
    holes.loc[holes.index[:7], "t_x"] = np.nan
    repeat = holes.index[(holes["x"] > 0) & (holes.index > 10)][:4]
    holes.loc[repeat, "spend"] = np.nan
    found = run(fit(ClvOptions(**NAMES, monetary_value="spend")), PandasEngine(holes))
    assert diagnostic(found, "missing_rows") == 7
    assert diagnostic(found, "missing_spend") == 4
    assert found.purchases.n == 1193


def test_coarse_cells_say_how_far_they_move_the_fit(fitted: ClvFit) -> None:
    assert fitted.spend is not None
    coarse = CUSTOMERS.assign(
        t_cell=np.ceil(CUSTOMERS["t_x"] / 2),
        T_cell=np.ceil(CUSTOMERS["T"] / 2),
        m_cell=np.round(CUSTOMERS["spend"] / 4),
    )
    options = ClvOptions(
        **NAMES, monetary_value="spend", recency_cell="t_cell", age_cell="T_cell",
        monetary_cell="m_cell", holdout="later", holdout_length=30.0,
    )  # fmt: skip
    found = run(fit(options), PandasEngine(coarse))
    assert found.spend is not None
    assert found.purchases.n_cells < fitted.purchases.n_cells / 4
    assert found.purchases.n == fitted.purchases.n
    for rough, exact in ((found.purchases, fitted.purchases), (found.spend, fitted.spend)):
        moved = np.log(rough.parameters / exact.parameters) / np.sqrt(np.diag(exact.covariance))
        said = diagnostic(found, f"{exact.model}.rounding")
        # One Newton step, so right to first order.
        assert said == pytest.approx(moved[np.abs(moved).argmax()], abs=0.1)
        assert 0.01 < abs(said) < 1
    assert found.holdout is not None
    assert found.holdout.purchases @ found.cells.count == pytest.approx(CUSTOMERS["later"].sum())


def test_rounding_on_the_driver_keeps_means_and_counts(fitted: ClvFit) -> None:
    rough = fitted.cells.rounded(2.0)
    assert rough.n_cells < fitted.cells.n_cells / 3
    assert rough.n == fitted.cells.n
    assert rough.count @ rough.age == pytest.approx(fitted.cells.count @ fitted.cells.age)
    finer = rough.finer()
    assert finer.count.sum() == pytest.approx(rough.count.sum())
    spread = (finer.count @ finer.age**2) / (fitted.cells.count @ fitted.cells.age**2)
    assert spread == pytest.approx(1, abs=1e-4)
    assert fitted.cells.finer() is fitted.cells


@pytest.mark.parametrize("name", ["bg_nbd", "pareto_nbd"])
def test_customers_who_tell_nothing_are_refused(name: models.ModelName) -> None:
    nobody = cells_of([0, 0], [0, 0], [10, 20], [500, 700])
    with pytest.raises(InferenceError) as caught:
        fit_purchases(name, nobody)
    assert "\n" not in str(caught.value)


def test_customers_who_never_leave_are_refused() -> None:
    rng = np.random.default_rng(5)
    age = rng.uniform(40, 60, 3000)
    frequency = rng.poisson(rng.gamma(3, 1 / 6, 3000) * age)
    last = np.where(frequency > 0, age * rng.random(3000) ** (1 / frequency.clip(1)), 0.0)
    with pytest.raises(InferenceError, match=r"run away|not identified|not converge"):
        fit_purchases("bg_nbd", cells_of(frequency, last.clip(0), age))


def test_equal_spend_is_refused() -> None:
    with pytest.raises(InferenceError):
        fit_spend(spend_cells([1, 2, 3, 4], [20.0] * 4, [90, 50, 20, 10]))


def test_a_flat_likelihood_is_refused() -> None:
    def flat(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        off = np.log(theta[0] * theta[1])
        return np.array([-(off**2)]), np.array([[-2 * off, -2 * off]])

    with pytest.raises(InferenceError, match="not identified"):
        maximise(flat, count=np.array([9.0]), starts=[np.array([2.0, 3.0])], model="flat",
                 names=["p", "q"])  # fmt: skip


def test_information_of_a_known_function() -> None:
    matrix = np.array([[2.0, 0.5], [0.5, 1.0]])

    def bowl(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logs = np.log(theta) - [1.0, -2.0]
        return np.array([-logs @ matrix @ logs / 2]), -(matrix @ logs)[None, :]

    found = maximise(bowl, count=np.array([4.0]), starts=[np.ones(2)], model="bowl",
                     names=["p", "q"])  # fmt: skip
    np.testing.assert_allclose(np.log(found.parameters), [1.0, -2.0], atol=1e-9)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(4 * matrix), rtol=1e-9)
    information = observed_information(bowl, np.zeros(2), count=np.array([1.0]))
    np.testing.assert_allclose(information, matrix, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recency_cell": "a"}, "together"),
        ({"monetary_cell": "a"}, "needs monetary_value"),
        ({"holdout": "a"}, "together"),
        ({"model": "bg_bb", "recency_cell": "a", "age_cell": "b"}, "opportunities"),
        ({"model": "bgnbd"}, "bg_nbd"),
        ({"recency_cel": "a"}, "did you mean"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        validate(ClvOptions, {**NAMES, **options})


def test_data_that_do_not_fit_are_refused() -> None:
    options = ClvOptions(**NAMES, monetary_value="spend")
    damaged = {
        "text": CUSTOMERS.head(50).assign(x="a"),
        "negative spend": CUSTOMERS.assign(spend=-CUSTOMERS["spend"]),
        "recency": CUSTOMERS.assign(t_x=CUSTOMERS["T"] + 1),
        "nothing": CUSTOMERS.head(0),
    }
    for frame in damaged.values():
        with pytest.raises(DataError) as caught:
            run(fit(options), PandasEngine(frame))
        assert "\n" not in str(caught.value)
    with pytest.raises(CausalError, match="t_x"):
        run(fit(options), PandasEngine(CUSTOMERS.drop(columns="t_x")))


def test_frequencies_add_up(fitted: ClvFit) -> None:
    table = calibration.frequency_table(fitted.purchases, fitted.cells, n_max=5)
    assert table["actual"].sum() == pytest.approx(4000)
    assert table["expected"].sum() == pytest.approx(4000)
    assert table["actual"].iloc[2] == (CUSTOMERS["x"] == 2).sum()
    fits = calibration.goodness_of_fit(fitted.purchases, fitted.cells, n_max=9)
    assert fits.pvalue is not None
    assert fits.pvalue > 1e-3
    with pytest.raises(DataError, match="n_max"):
        calibration.goodness_of_fit(fitted.purchases, fitted.cells, n_max=2)


def test_later_purchases_by_frequency(fitted: ClvFit) -> None:
    assert fitted.holdout is not None
    table = calibration.holdout_table(fitted.purchases, fitted.cells, fitted.holdout, n_max=4)
    actual = CUSTOMERS.groupby(CUSTOMERS["x"].clip(upper=4))["later"].mean()
    np.testing.assert_allclose(table["actual"], actual)
    total = total_purchases(fitted.purchases, fitted.cells, t=30.0).estimate[0]
    assert (table["n"] * table["expected"]).sum() == pytest.approx(total)


def test_cumulative_purchases_reach_the_models_total(fitted: ClvFit) -> None:
    end = CUSTOMERS["T"].max()
    found = calibration.cumulative_purchases(
        fitted.purchases, fitted.cells, times=np.array([0.0, end / 2, end])
    )
    each = MODELS["bg_nbd"].expected_purchases(
        fitted.purchases.parameters, CUSTOMERS["T"].to_numpy()
    )
    assert found[0] == 0
    assert found[2] == pytest.approx(each.sum())
    assert found[2] == pytest.approx(CUSTOMERS["x"].sum(), rel=0.1)


def test_figures_show_what_the_tables_hold(fitted: ClvFit) -> None:
    assert fitted.holdout is not None
    frequencies = calibration.frequency_table(fitted.purchases, fitted.cells)
    bars = clv_figures.frequency_figure(frequencies, model="BG/NBD").axes[0]
    assert [patch.get_height() for patch in bars.patches[:8]] == frequencies["actual"].tolist()
    later = calibration.holdout_table(fitted.purchases, fitted.cells, fitted.holdout)
    lines = clv_figures.holdout_figure(later, model="BG/NBD").axes[0].lines
    np.testing.assert_allclose(lines[0].get_ydata(), later["actual"])
    times = np.arange(1.0, 60)
    expected = calibration.cumulative_purchases(fitted.purchases, fitted.cells, times=times)
    figure = clv_figures.cumulative_figure(
        times, actual=expected * 1.1, expected=expected, fitted_until=38.0, model="BG/NBD"
    )
    figure.canvas.draw()
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), expected)


def test_a_fit_is_frozen(fitted: ClvFit) -> None:
    assert isinstance(fitted.purchases, Fit)
    with pytest.raises(AttributeError):
        fitted.purchases.n = 3  # type: ignore[misc]


@pytest.mark.parametrize("module", [models, fitting])
def test_the_examples_run(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0
