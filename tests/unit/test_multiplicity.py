"""Adjusted p-values against statsmodels; the levels of adjusted intervals."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from causal.core.errors import InferenceError
from causal.core.multiplicity import (
    FALSE_DISCOVERY,
    Correction,
    adjusted_pvalues,
    interval_levels,
)

CORRECTIONS: tuple[Correction, ...] = get_args(Correction)
PEERS = {
    "bonferroni": "bonferroni",
    "holm": "holm",
    "hommel": "hommel",
    "benjamini_hochberg": "fdr_bh",
    "benjamini_yekutieli": "fdr_by",
}
PVALUES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=25)


@pytest.mark.parametrize("correction", CORRECTIONS)
@settings(max_examples=60, deadline=None)
@given(pvalues=PVALUES)
def test_statsmodels(correction: Correction, pvalues: list[float]) -> None:
    found = adjusted_pvalues(np.array(pvalues), correction=correction)
    # Hommel's procedure of statsmodels warns on a single p-value of which it takes no minimum.
    if len(pvalues) == 1:
        assert found.tolist() == pvalues
        return
    expected = multipletests(pvalues, method=PEERS[correction])[1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("correction", CORRECTIONS)
@settings(max_examples=40, deadline=None)
@given(pvalues=PVALUES)
def test_adjusted_values_are_ordered_and_never_smaller(
    correction: Correction, pvalues: list[float]
) -> None:
    raw = np.array(pvalues)
    found = adjusted_pvalues(raw, correction=correction)
    assert (found >= raw - 1e-15).all()
    assert (found <= 1).all()
    assert (np.diff(found[np.argsort(raw, kind="stable")]) >= -1e-15).all()
    shuffled = np.random.default_rng(0).permutation(len(raw))
    np.testing.assert_allclose(
        adjusted_pvalues(raw[shuffled], correction=correction), found[shuffled], atol=1e-15
    )


@settings(max_examples=40, deadline=None)
@given(pvalues=PVALUES)
def test_stepwise_tests_reject_no_less_than_bonferroni(pvalues: list[float]) -> None:
    raw = np.array(pvalues)
    bonferroni, holm, hommel = (
        adjusted_pvalues(raw, correction=name) for name in ("bonferroni", "holm", "hommel")
    )
    assert (holm <= bonferroni + 1e-15).all()
    assert (hommel <= holm + 1e-15).all()


@pytest.mark.parametrize("correction", ["bonferroni", *FALSE_DISCOVERY])
@settings(max_examples=60, deadline=None)
@given(zs=st.lists(st.floats(-6, 6), min_size=1, max_size=20))
def test_an_interval_excludes_zero_just_when_its_test_rejects(
    correction: Correction, zs: list[float]
) -> None:
    statistics = np.array(zs)
    pvalues = 2 * stats.norm.sf(np.abs(statistics))
    adjusted = adjusted_pvalues(pvalues, correction=correction)
    levels = interval_levels(pvalues, correction=correction, alpha=0.05)
    half = stats.norm.ppf(0.5 + levels / 2)
    clear = np.abs(adjusted - 0.05) > 1e-9
    assert ((adjusted <= 0.05) == (np.abs(statistics) >= half))[clear].all()


def test_levels_of_the_intervals() -> None:
    pvalues = np.array([0.001, 0.02, 0.3, 0.9])
    for name in ("bonferroni", "holm", "hommel"):
        assert interval_levels(pvalues, correction=name, alpha=0.05) == pytest.approx([0.9875] * 4)
    # Two of four are discoveries: each at 1 - 2 * 0.05 / 4.
    levels = interval_levels(pvalues, correction="benjamini_hochberg", alpha=0.05)
    assert levels == pytest.approx([0.975] * 4)
    levels = interval_levels(pvalues, correction="benjamini_yekutieli", alpha=0.05)
    assert levels == pytest.approx([1 - 0.05 / 4 / (1 + 1 / 2 + 1 / 3 + 1 / 4)] * 4)
    nothing = np.array([0.5, 0.9])
    assert interval_levels(nothing, correction="benjamini_hochberg", alpha=0.1) == pytest.approx(
        [0.95, 0.95]
    )


@pytest.mark.parametrize("bad", [[], [0.2, float("nan")], [1.2], [-0.1]])
def test_what_is_no_pvalue_is_refused(bad: list[float]) -> None:
    with pytest.raises(InferenceError, match="between 0 and 1"):
        adjusted_pvalues(np.array(bad), correction="holm")
