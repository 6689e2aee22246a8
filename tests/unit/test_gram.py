"""Moments merge as if their rows had been one set, and keep their digits."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal.core.errors import DataError
from causal.core.frames import Column, Constant, GramRequest, PanelGramRequest, Product, linear
from causal.core.gram import (
    Array,
    Gram,
    combine,
    gram,
    grams,
    meat,
    pack,
    panel_grams,
    pooled,
    unpack,
)
from causal.core.pandas_engine import PandasEngine

TERMS = tuple(Column(f"x{i}") for i in range(3))
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.lists(st.integers(0, 7), min_size=1, max_size=5)
LEVELS = st.sampled_from([0.0, 1.0, -3e4, 1e8])


def direct(x: Array, w: Array) -> Gram:
    """From rows, in extended precision."""
    wide = x.astype(np.longdouble)
    total = w.sum()
    mean = w @ wide / total if total else np.zeros(x.shape[1], dtype=np.longdouble)
    deviations = wide - mean
    cross = (deviations * w[:, None]).T @ deviations
    return Gram(
        TERMS, len(x), 0, 0, float(total), mean.astype(np.float64), cross.astype(np.float64)
    )


def blocks(seed: int, sizes: Sequence[int], level: float) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(seed)
    return [
        (level + rng.normal(size=(size, 3)) * [1, 2, 0.5], rng.uniform(0.1, 3, size))
        for size in sizes
    ]


def assert_same(left: Gram, right: Gram) -> None:
    assert (left.terms, left.n, left.n_missing) == (right.terms, right.n, right.n_missing)
    assert left.sum_weights == pytest.approx(right.sum_weights, rel=1e-12)
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-12, atol=1e-12)
    assert np.all(np.abs(left.cross - right.cross) <= tolerance(right))


def tolerance(of: Gram) -> Array:
    """1e-12 of the spread, and what a mean stored as a double costs."""
    spread = np.sqrt(np.diag(of.cross))
    rounding = 8 * np.finfo(np.float64).eps * np.abs(of.mean)
    half = np.outer(rounding * np.sqrt(of.sum_weights), spread)
    corner = of.sum_weights * np.outer(rounding, rounding)
    return 1e-12 * (np.outer(spread, spread) + 1.0) + half + half.T + corner


@given(SEEDS, SIZES, LEVELS)
def test_merged_parts_equal_the_whole(seed: int, sizes: list[int], level: float) -> None:
    parts = blocks(seed, sizes, level)
    x, w = (np.concatenate(side) for side in zip(*parts, strict=True))

    assert_same(pooled(direct(*part) for part in parts), direct(x, w))


@given(SEEDS, st.tuples(*[st.integers(0, 6)] * 3), LEVELS)
def test_merging_is_associative_and_commutative(
    seed: int, sizes: tuple[int, int, int], level: float
) -> None:
    a, b, c = (direct(*part) for part in blocks(seed, sizes, level))

    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_same(a.merge(b), b.merge(a))


def test_a_mean_of_1e8_leaves_nine_digits_of_the_variance() -> None:
    rng = np.random.default_rng(7)
    x = 1e8 + rng.normal(size=20_000)
    exact = np.var(x.astype(np.longdouble), ddof=1)
    request = GramRequest(terms=(TERMS[0],), by=("part",))
    frame = pd.DataFrame({"x0": x, "part": np.arange(len(x)) % 97})

    merged = pooled(grams(PandasEngine(frame)(request), request).values())
    one = gram(PandasEngine(frame)(GramRequest(terms=(TERMS[0],))), GramRequest(terms=(TERMS[0],)))

    assert float(merged.covariance[0, 0]) == pytest.approx(float(exact), rel=1e-9)
    assert float(one.covariance[0, 0]) == pytest.approx(float(exact), rel=1e-9)


def test_an_empty_part_only_adds_its_missing_rows() -> None:
    filled = direct(*blocks(1, [5], 0.0)[0])
    empty = Gram(TERMS, 0, 4, 0, 0.0, np.zeros(3), np.zeros((3, 3)))

    for merged in (filled.merge(empty), empty.merge(filled)):
        assert (merged.n, merged.n_missing) == (5, 4)
        np.testing.assert_array_equal(merged.cross, filled.cross)
        np.testing.assert_array_equal(merged.mean, filled.mean)


def test_a_subset_keeps_the_order_asked_for() -> None:
    whole = direct(*blocks(2, [9], 3.0)[0])
    part = whole.subset([TERMS[2], TERMS[0]])

    assert part.terms == (TERMS[2], TERMS[0])
    np.testing.assert_array_equal(part.mean, whole.mean[[2, 0]])
    np.testing.assert_array_equal(part.cross, whole.cross[np.ix_([2, 0], [2, 0])])
    assert part.positions([TERMS[0], TERMS[2]]) == [1, 0]


def test_uncentred_moments_are_sums_of_products() -> None:
    x, w = blocks(3, [40], 2.0)[0]

    np.testing.assert_allclose(direct(x, w).moment(), (x * w[:, None]).T @ x, rtol=1e-12)


@given(SEEDS, LEVELS)
def test_combinations_are_those_of_the_rows(seed: int, level: float) -> None:
    x, w = blocks(seed, [12], level)[0]
    wanted = [
        linear([(TERMS[0], 2.0), (TERMS[2], -1.0)]),
        linear([(TERMS[1], 1.0)]),
        linear([(TERMS[0], 1.0), (TERMS[0], 0.5)]),
    ]
    weights = np.array([[2, 0, -1], [0, 1, 0], [1.5, 0, 0]])
    found = combine(direct(x, w), wanted)
    expected = direct(x @ weights.T, w)

    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.cross, expected.cross, rtol=1e-6, atol=1e-6)
    assert found.terms == tuple(wanted)


def test_a_combination_may_hold_a_constant() -> None:
    frame = pd.DataFrame({"x0": [1.0, 2.0, 6.0]})
    request = GramRequest(terms=(TERMS[0], Constant()))
    found = combine(
        gram(PandasEngine(frame)(request), request), [linear([(TERMS[0], 1.0), (Constant(), -3.0)])]
    )

    assert found.mean[0] == pytest.approx(0.0, abs=1e-12)
    assert found.cross[0, 0] == pytest.approx(14.0)


@given(SEEDS, st.integers(0, 8))
def test_packing_is_reversible(seed: int, size: int) -> None:
    half = np.random.default_rng(seed).normal(size=(size, size))
    matrix = half + half.T

    np.testing.assert_array_equal(unpack(pack(matrix), size), matrix)


def test_the_meat_knows_its_size() -> None:
    matrix = np.arange(9.0).reshape(3, 3)
    matrix = matrix + matrix.T
    found, n_clusters = meat(pd.DataFrame([{"n_clusters": 4, "cross": pack(matrix)}]))

    np.testing.assert_array_equal(found, matrix)
    assert n_clusters == 4


def test_null_keys_are_keys() -> None:
    frame = pd.DataFrame({"x0": [1.0, 2.0, 3.0], "v": ["a", None, "a"], "k": [1.0, 1.0, np.nan]})
    request = GramRequest(terms=(TERMS[0],), by=("v", "k"))

    assert {key: item.n for key, item in grams(PandasEngine(frame)(request), request).items()} == {
        ("a", 1.0): 1,
        (None, 1.0): 1,
        ("a", None): 1,
    }


def answer_with(**values: object) -> pd.DataFrame:
    row = {"n": 3, "n_missing": 0, "n_units": 0, "sum_weights": 3.0}
    return pd.DataFrame([row | {"mean": [1.0], "cross": [2.0]} | values])


@pytest.mark.parametrize("values", [{"mean": [np.nan]}, {"cross": [np.inf]}])
def test_values_that_are_not_finite_are_refused_by_name(values: dict[str, object]) -> None:
    with pytest.raises(DataError, match="NaN or infinite values; given: x0"):
        gram(answer_with(**values), GramRequest(terms=(TERMS[0],)))


def test_the_column_behind_a_combination_is_named() -> None:
    x, y, z = (Column(name) for name in "xyz")
    both = linear([(x, 1.0), (y, -2.0)])
    bad_first = {"mean": [np.inf, 1.0, 0.0], "cross": [np.nan, np.nan, 0.0, 1.0, 0.0, 1.0]}
    cases = {
        "y": (both, x, z),  # x is fine in a term of its own
        "x": (x, both, z),
        "x, y": (both, z, Product((z, z))),
    }
    for name, terms in cases.items():
        with pytest.raises(DataError, match=f"NaN or infinite values; given: {name}$"):
            gram(answer_with(**bad_first), GramRequest(terms=terms))
    with pytest.raises(DataError, match=r"infinite values; given: [^xyz]*x[^,]*y"):
        gram(answer_with(**bad_first), GramRequest(terms=(both, x, y)))


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="weights must be finite"):
        gram(answer_with(sum_weights=np.inf), GramRequest(terms=(TERMS[0],)))


def test_a_meat_that_is_not_finite_is_refused() -> None:
    with pytest.raises(DataError, match="a score is not finite"):
        meat(pd.DataFrame([{"n_clusters": 4, "cross": [np.nan]}]))


def test_no_usable_row_is_an_error() -> None:
    request = GramRequest(terms=(TERMS[0],))
    frame = pd.DataFrame({"x0": [np.nan, np.nan]})

    with pytest.raises(DataError, match=r"no row has a value.*given: 2 rows"):
        gram(PandasEngine(frame)(request), request)


def test_panels_come_by_cohort_with_never_treated_last() -> None:
    frame = pd.DataFrame(
        [(u, t, {0: 3.0, 1: np.nan, 2: 2.0}[u], u + t) for u in range(3) for t in (5, 6)],
        columns=["u", "t", "g", "y"],
    )
    request = PanelGramRequest(unit="u", period="t", outcome=Column("y"), first_treated_period="g")
    found = panel_grams(PandasEngine(frame)(request), request)

    assert [item.first_treated_period for item in found] == [2.0, 3.0, None]
    np.testing.assert_array_equal(found[1].mean, [5.0, 6.0])
    np.testing.assert_array_equal(found[1].periods, [5.0, 6.0])


def test_a_panel_that_is_not_finite_is_refused() -> None:
    frame = pd.DataFrame({"u": [1, 1, 2, 2], "t": [1, 2, 1, 2], "y": [0.0, 1.0, np.inf, 1.0]})
    request = PanelGramRequest(unit="u", period="t", outcome=Column("y"))

    with pytest.raises(DataError, match="NaN or infinite values; given: y"):
        panel_grams(PandasEngine(frame)(request), request)


def test_nulls_and_nan_in_one_key_are_refused() -> None:
    """To Spark they are two groups, to pandas one: the second would replace the first."""
    request = GramRequest(terms=(Column("y"),), by=("g",))
    row = PandasEngine(pd.DataFrame({"g": [1.0, 1.0], "y": [1.0, 2.0]}))(request)
    answer = pd.concat([row.assign(g=None), row.assign(g=np.nan)], ignore_index=True)

    with pytest.raises(DataError, match="both nulls and NaN"):
        grams(answer, request)
