"""The chi-square test behind the sample-ratio gate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from transforms.quality import chi_square_pvalue


@given(counts=st.lists(st.integers(0, 10_000), min_size=2, max_size=5))
def test_agrees_with_scipy(counts: list[int]) -> None:
    total = sum(counts)
    if total == 0:
        return
    arms = [str(place) for place in range(len(counts))]
    shares = {arm: 1.0 / len(counts) for arm in arms}

    expected = chisquare(counts, [total / len(counts)] * len(counts)).pvalue
    assert chi_square_pvalue(dict(zip(arms, counts, strict=True)), shares) == pytest.approx(
        expected, rel=1e-12, abs=1e-300
    )


def test_a_split_of_51_to_49_is_found_in_a_hundred_thousand_units() -> None:
    assert chi_square_pvalue({"a": 51_000, "b": 49_000}, {"a": 0.5, "b": 0.5}) < 1e-9


def test_an_arm_without_units_counts_as_empty() -> None:
    assert chi_square_pvalue({"a": 100}, {"a": 0.5, "b": 0.5}) < 1e-20


def test_an_arm_without_a_share_is_impossible() -> None:
    assert chi_square_pvalue({"a": 50, "b": 50, "c": 1}, {"a": 0.5, "b": 0.5}) == 0.0


def test_nothing_to_compare_is_no_mismatch() -> None:
    assert chi_square_pvalue({}, {"a": 0.5, "b": 0.5}) == 1.0
    assert chi_square_pvalue({"a": 7}, {"a": 1.0}) == 1.0
