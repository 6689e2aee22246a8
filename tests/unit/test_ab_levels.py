"""Levels of two arms: gradients, properties that hold for any data, bad moments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal.core.errors import DataError
from causal.core.frames import Column
from causal.core.gram import Array, Gram
from causal.experiments.levels import (
    Levels,
    Quotient,
    Spread,
    covariate_thetas,
    difference,
    is_binary,
    is_constant,
    joint_spread,
    lift,
    metric_levels,
    pooled_spread,
    welch_spread,
)

MEAN = (Quotient("y", 0), Quotient("x", 2))
RATIO = (Quotient("y/d", 0, 1), Quotient("x", 2), Quotient("x/z", 2, 3))


def moments(rows: Array) -> Gram:
    """Moments of rows of shape (n, p)."""
    mean = rows.mean(axis=0)
    terms = tuple(Column(f"c{j}") for j in range(rows.shape[1]))
    return Gram(terms, len(rows), 0, 0, float(len(rows)), mean, (rows - mean).T @ (rows - mean))


def draw(seed: int, *, n: int = 60) -> tuple[Gram, Gram, Array, Array]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(4, 4)) * 0.4
    rows = [rng.normal(size=(n + 7 * arm, 4)) @ mixing + [5, 8, 6, 9] for arm in (0, 1)]
    return moments(rows[0]), moments(rows[1]), rows[0], rows[1]


def readout(
    control: Gram, treatment: Gram, quotients: tuple[Quotient, ...], *, theta: str = "total"
) -> tuple[Levels, Spread]:
    thetas = covariate_thetas(control, treatment, quotients=quotients, theta=theta)
    levels = metric_levels(control, treatment, quotients=quotients, thetas=thetas)
    return levels, welch_spread(levels, control, treatment)


@pytest.mark.parametrize("quotients", [MEAN, RATIO], ids=["mean", "ratio"])
@pytest.mark.parametrize("arm", [0, 1])
def test_gradient_is_the_derivative_of_both_levels(
    quotients: tuple[Quotient, ...], arm: int
) -> None:
    pair = list(draw(1)[:2])
    thetas = covariate_thetas(*pair, quotients=quotients)
    levels = metric_levels(*pair, quotients=quotients, thetas=thetas)
    step = 1e-6
    for column in range(4):
        ends = []
        for sign in (1, -1):
            moved = pair.copy()
            shift = np.eye(4)[column] * step * sign
            moved[arm] = Gram(
                pair[arm].terms, pair[arm].n, 0, 0, pair[arm].sum_weights,
                pair[arm].mean + shift, pair[arm].cross,
            )  # fmt: skip
            ends.append(metric_levels(*moved, quotients=quotients, thetas=thetas).value)
        numeric = (ends[0] - ends[1]) / (2 * step)
        assert levels.gradient(arm)[:, column] == pytest.approx(numeric, rel=1e-6, abs=1e-9)


def test_clustered_spread_of_single_units_is_welch() -> None:
    control, treatment, _, _ = draw(2)
    levels, spread = readout(control, treatment, RATIO)
    blocks = np.zeros((8, 8))
    blocks[:4, :4] = control.covariance / control.n
    blocks[4:, 4:] = treatment.covariance / treatment.n
    clustered = joint_spread(levels, (blocks,), (50 - 1.0,))
    assert clustered.covariance == pytest.approx(spread.covariance, rel=1e-12)
    assert clustered.df(np.array([-1.0, 1.0])) == 49


def test_lift_variance_carries_the_pooled_covariate_level() -> None:
    """The lift's error is that of the rows' influence on both adjusted levels, no part left out."""
    control, treatment, rows0, rows1 = draw(3, n=4000)
    levels, spread = readout(control, treatment, MEAN)
    theta = float(levels.thetas[0])
    pooled = np.concatenate([rows0, rows1])[:, 2].mean()
    ratio = levels.value[1] / levels.value[0]
    total = len(rows0) + len(rows1)
    variance = 0.0
    for arm, rows in enumerate((rows0, rows1)):
        own = rows[:, 0] - theta * (rows[:, 2] - pooled)
        weight = 1.0 if arm else -ratio
        shared = theta * (rows[:, 2] - pooled) * (1.0 - ratio) * len(rows) / total
        variance += ((weight * own + shared) / levels.value[0]).var(ddof=1) / len(rows)
    assert lift(levels, spread).std_error == pytest.approx(np.sqrt(variance), rel=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_swapping_arms_flips_the_sign(seed: int) -> None:
    control, treatment, _, _ = draw(seed)
    levels, spread = readout(control, treatment, RATIO)
    swapped, swapped_spread = readout(treatment, control, RATIO)
    there, back = difference(levels, spread), difference(swapped, swapped_spread)
    assert back.value == pytest.approx(-there.value, rel=1e-9)
    assert back.std_error == pytest.approx(there.std_error, rel=1e-9)
    assert back.df == pytest.approx(there.df, rel=1e-9)


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
@settings(max_examples=200, deadline=None)
def test_scaling_the_outcome_scales_the_difference_and_leaves_the_lift(
    seed: int, scale: float
) -> None:
    _, _, rows0, rows1 = draw(seed)
    factor = np.array([scale, 1.0, 1.0, 1.0])
    before = readout(moments(rows0), moments(rows1), RATIO)
    after = readout(moments(rows0 * factor), moments(rows1 * factor), RATIO)
    assert difference(*after).value == pytest.approx(scale * difference(*before).value, rel=1e-7)
    assert difference(*after).std_error == pytest.approx(
        scale * difference(*before).std_error, rel=1e-7
    )
    assert lift(*after).value == pytest.approx(lift(*before).value, rel=1e-7, abs=1e-12)
    assert lift(*after).std_error == pytest.approx(lift(*before).std_error, rel=1e-7)


@given(seed=st.integers(0, 10_000), shift=st.floats(-1e6, 1e6))
@settings(max_examples=200, deadline=None)
def test_a_constant_added_to_outcome_and_covariate_leaves_the_difference(
    seed: int, shift: float
) -> None:
    _, _, rows0, rows1 = draw(seed)
    moved = np.array([shift, 0.0, -shift, 0.0])
    before = difference(*readout(moments(rows0), moments(rows1), MEAN))
    after = difference(*readout(moments(rows0 + moved), moments(rows1 + moved), MEAN))
    assert after.value == pytest.approx(before.value, abs=1e-7)
    assert after.std_error == pytest.approx(before.std_error, rel=1e-6)


@given(seed=st.integers(0, 10_000), effect=st.floats(-100, 100))
@settings(max_examples=100, deadline=None)
def test_within_theta_does_not_move_with_an_additive_effect(seed: int, effect: float) -> None:
    control, treatment, _, rows1 = draw(seed)
    injected = moments(rows1 + np.array([effect, 0.0, 0.0, 0.0]))
    before = difference(*readout(control, treatment, MEAN, theta="within"))
    after = difference(*readout(control, injected, MEAN, theta="within"))
    assert after.value - before.value == pytest.approx(effect, abs=1e-8)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_row_order_does_not_matter(seed: int) -> None:
    _, _, rows0, rows1 = draw(seed)
    before = lift(*readout(moments(rows0), moments(rows1), RATIO))
    after = lift(*readout(moments(rows0[::-1]), moments(rows1[::-1]), RATIO))
    assert after.value == pytest.approx(before.value, rel=1e-9, abs=1e-13)
    assert after.std_error == pytest.approx(before.std_error, rel=1e-9)


def test_large_means_keep_their_digits() -> None:
    rng = np.random.default_rng(5)
    rows = [rng.normal(size=(5000, 4)) + 1e8 for _ in range(2)]
    levels, spread = readout(moments(rows[0]), moments(rows[1]), (Quotient("y", 0),))
    variance = sum(part[:, 0].var(ddof=1) / len(part) for part in rows)
    assert difference(levels, spread).std_error == pytest.approx(np.sqrt(variance), rel=1e-6)


def test_pooled_spread_pools_the_linearised_metric() -> None:
    control, treatment, rows0, rows1 = draw(8)
    quotients = (Quotient("y/d", 0, 1),)
    levels = metric_levels(control, treatment, quotients=quotients, thetas=np.zeros(0))
    spread = pooled_spread(levels, control, treatment)
    squares = 0.0
    for rows, level in ((rows0, levels.value[0]), (rows1, levels.value[1])):
        squares += (((rows[:, 0] - level * rows[:, 1]) / rows[:, 1].mean()) ** 2).sum()
    df = len(rows0) + len(rows1) - 2
    expected = squares / df * (1 / len(rows0) + 1 / len(rows1))
    assert difference(levels, spread).std_error == pytest.approx(np.sqrt(expected), rel=1e-9)
    assert difference(levels, spread).df == df


def test_a_zero_denominator_is_an_error_that_names_the_metric() -> None:
    with pytest.raises(DataError, match="refunds: the denominator's mean is zero"):
        Quotient("refunds", 0, 1).value(np.array([1.0, 0.0]))


@pytest.mark.parametrize("theta", ["total", "within"])
def test_constant_and_collinear_covariates_are_named(theta: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 1))
    rows = np.hstack([rng.normal(size=(50, 1)), x, 3 * x - 1, np.full((50, 1), 0.1)])
    pair = (moments(rows[:25]), moments(rows[25:]))
    for covariates, named in (((1, 2), "c2"), ((3,), "c3"), ((1, 3), "c3")):
        quotients = (Quotient("y", 0), *(Quotient(f"c{j}", j) for j in covariates))
        with pytest.raises(DataError, match=f"y: covariates that are constant.*{named}") as caught:
            covariate_thetas(*pair, quotients=quotients, theta=theta)
        assert named in str(caught.value)


def test_constant_and_binary_columns_are_told_from_others() -> None:
    rng = np.random.default_rng(1)
    rows = np.column_stack(
        [np.full(99, 0.1), rng.integers(0, 2, 99), rng.random(99), rng.normal(size=99) + 1e8]
    )
    gram = moments(rows)
    assert is_constant(gram, Quotient("c", 0))
    assert not is_constant(gram, Quotient("c", 3))
    assert is_binary(gram, 1)
    assert not is_binary(gram, 0)
    assert not is_binary(gram, 2)
    assert not is_binary(gram, 3)
