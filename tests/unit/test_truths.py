"""Which true effect of a world an estimate is held against."""

import pytest

from causal.core.errors import SpecError
from causal.core.inference import effect
from causal.core.result import Estimand
from causal.core.spec import Spec, validate
from jobs.runtime.truths import truth_of

TRUTHS = {
    ("subscribers", "own_choice", estimand, "minutes", "is_chosen", "absolute"): value
    for estimand, value in (("ate", 5.0), ("att", 7.0), ("overlap", 6.0))
}


def spec_of(**truth: str) -> Spec:
    named = {"world": "subscribers", "design": "own_choice", **truth}
    return validate(
        Spec, {"name": "a", "source": {"table": "choices"}, "method": "ols", "truth": named}
    )


def held_against(spec: Spec, estimand: Estimand) -> float | None:
    found = effect(
        estimator="ols", estimand=estimand, metric="minutes", term="is_chosen", estimate=5.5,
        std_error=1.0, confidence_level=0.95, n_treated=10, n_control=10,
    )  # fmt: skip
    return truth_of(spec, found, TRUTHS)


def test_a_coefficient_is_held_against_the_average_unless_the_spec_says_which() -> None:
    assert held_against(spec_of(), "coefficient") == 5.0
    assert held_against(spec_of(coefficient="overlap"), "coefficient") == 6.0
    assert held_against(spec_of(coefficient="att"), "coefficient") == 7.0


def test_other_estimands_say_themselves_what_they_are() -> None:
    spec = spec_of(coefficient="overlap")
    assert held_against(spec, "ate") == 5.0
    assert held_against(spec, "att") == 7.0
    assert held_against(spec, "late") is None


def test_a_coefficient_of_an_unknown_estimand_is_refused() -> None:
    with pytest.raises(SpecError, match=r"truth\.coefficient"):
        spec_of(coefficient="late")
