"""Reading stored looks: decisions, endings, refusals, and how the parts agree with each other."""

import dataclasses
import doctest
import io
import pickle
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import DataError, SpecError
from causal.core.spec import validate
from causal.experiments import crossing, sequential, sequential_design
from causal.experiments.group_sequential import boundaries, planned_error
from causal.experiments.sequential import LookReadout, evaluate, figure
from causal.experiments.sequential_looks import Look, looks_of
from causal.experiments.sequential_options import SequentialOptions
from causal.experiments.spending import Spending
from jobs.runtime.places import root

PLAN = (0.25, 0.5, 0.75, 1.0)
FUTILITY = {"power": 0.9, "spending": {"family": "power", "parameter": 1.5}}


def options(**given: object) -> SequentialOptions:
    return validate(SequentialOptions, given)


def looks(z: Sequence[float], fractions: Sequence[float] = PLAN, **last: bool) -> list[Look]:
    """Looks with given z at given fractions of 400 units of information."""
    out = [
        Look(name=f"day {k}", estimate=value * (400 * at) ** -0.5, std_error=(400 * at) ** -0.5)
        for k, (value, at) in enumerate(zip(z, fractions, strict=False), 1)
    ]
    out[-1] = dataclasses.replace(out[-1], **last)
    return out


SPENDING = options(maximum_information=400)


@pytest.mark.parametrize("module", [sequential, sequential_design])
def test_the_examples_run(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0


def test_the_page_of_the_method_runs() -> None:
    found = doctest.testfile(
        str(root() / "docs" / "methods" / "sequential.md"), module_relative=False, encoding="utf-8"
    )
    assert found.attempted > 3
    assert found.failed == 0


@pytest.mark.parametrize("fractions", [PLAN, (0.1, 0.1003, 0.5, 1.0), tuple(np.arange(1, 21) / 20)])
def test_integration_has_converged(
    fractions: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as many panels, all of them counted, change no boundary by more than 1e-9."""
    error = planned_error(Spending(family="pocock"), fractions, alpha=0.025, is_two_sided=True)
    coarse = boundaries(fractions, error, is_two_sided=True).efficacy
    monkeypatch.setattr(crossing, "_PANEL", 0.75)
    monkeypatch.setattr(crossing, "_NARROW", 0.0)
    fine = boundaries(fractions, error, is_two_sided=True).efficacy
    assert coarse == pytest.approx(fine, abs=1e-9)


def test_it_runs_until_a_boundary_is_crossed_and_says_so() -> None:
    going = evaluate(looks([1.0, 2.0]), SPENDING)
    assert going.decision == "continue"
    assert going.stopped_at is None
    assert going.adjusted is None
    over = evaluate(looks([1.0, 3.5, 3.6]), SPENDING)
    assert [look.decision for look in over.looks] == ["continue", "stop_efficacy", "after_stop"]
    assert (over.decision, over.stopped_at) == ("stop_efficacy", 2)
    assert over.adjusted is not None
    assert over.adjusted.ci_lower > 0


def test_either_sign_stops_a_two_sided_test() -> None:
    found = evaluate(looks([1.0, -3.5]), SPENDING)
    mirrored = evaluate(looks([-1.0, 3.5]), SPENDING)
    assert found.decision == mirrored.decision == "stop_efficacy"
    assert found.adjusted is not None
    assert mirrored.adjusted is not None
    assert found.adjusted.estimate == pytest.approx(-mirrored.adjusted.estimate, rel=1e-9)
    assert found.adjusted.ci_lower == pytest.approx(-mirrored.adjusted.ci_upper, rel=1e-9)
    assert found.adjusted.pvalue == pytest.approx(mirrored.adjusted.pvalue, rel=1e-9)


def test_one_look_is_the_fixed_horizon_test() -> None:
    found = evaluate(looks([2.1], [1.0]), SPENDING)
    assert found.looks[0].efficacy_upper == pytest.approx(1.959963985, abs=1e-9)
    assert found.adjusted is not None
    assert found.adjusted.pvalue == pytest.approx(0.0357288, abs=1e-7)
    assert found.adjusted.estimate == pytest.approx(0.105, abs=1e-9)
    assert found.adjusted.ci_lower == pytest.approx(0.105 - 1.959963985 * 0.05, abs=1e-8)
    assert found.looks[0].pvalue == pytest.approx(0.0357288, abs=1e-7)


@pytest.mark.parametrize("method", ["spending", "pocock", "confidence_sequence", "msprt"])
@pytest.mark.parametrize(
    "z", [[0.5, 1.0, 2.0, 2.2], [2.0, 2.9, 3.4, 3.3], [-1.0, -3.6, -4.0, -4.4]]
)
def test_interval_pvalue_and_boundary_agree_at_every_look(method: str, z: list[float]) -> None:
    given: dict[str, object] = {"method": method}
    given |= {
        "spending": {"maximum_information": 400},
        "pocock": {"planned_fractions": PLAN},
        "confidence_sequence": {"maximum_information": 400},
        "msprt": {"effect_spread": 0.2},
    }[method]
    for look in evaluate(looks(z), options(**given)).looks:
        is_outside = abs(look.statistic) >= look.efficacy_upper
        assert is_outside == (look.ci_lower >= 0 or look.ci_upper <= 0)
        assert look.pvalue <= 0.05 or not is_outside
        assert look.efficacy_lower == -look.efficacy_upper


def test_the_pvalue_is_the_level_at_which_the_look_would_have_stopped() -> None:
    z = [1.2, 2.4, 2.9]
    found = evaluate(looks(z), SPENDING)
    level = found.looks[2].pvalue
    at = np.array(PLAN[:3])
    error = planned_error(Spending(), at, alpha=level / 2, is_two_sided=True)
    assert boundaries(at, error, is_two_sided=True).efficacy[2] == pytest.approx(2.9, abs=1e-7)
    pvalues = [look.pvalue for look in found.looks]
    assert pvalues == sorted(pvalues, reverse=True)


def test_downwards_mirrors_upwards() -> None:
    common = {"maximum_information": 400, "planned_fractions": PLAN, "futility": FUTILITY}
    up = evaluate(looks([1.0, 2.2, 2.6]), options(alternative="increase", **common))
    down = evaluate(looks([-1.0, -2.2, -2.6]), options(alternative="decrease", **common))
    assert up.decision == down.decision == "stop_efficacy"
    for one, other in zip(up.looks, down.looks, strict=True):
        assert one.efficacy_upper == -other.efficacy_lower
        assert one.efficacy_lower == -np.inf
        assert other.efficacy_upper == np.inf
        assert one.futility is not None
        assert other.futility == -one.futility
        assert one.pvalue == other.pvalue
        assert one.ci_lower == pytest.approx(-other.ci_upper)
    assert up.adjusted is not None
    assert down.adjusted is not None
    assert up.adjusted.pvalue == pytest.approx(down.adjusted.pvalue)
    assert up.adjusted.ci_upper == pytest.approx(-down.adjusted.ci_lower)
    assert up.adjusted.confidence_level == pytest.approx(0.9)


def test_a_null_value_shifts_everything() -> None:
    shifted = [dataclasses.replace(look, estimate=look.estimate + 7) for look in looks([1, 3.5])]
    at_zero = evaluate(looks([1, 3.5]), SPENDING)
    at_seven = evaluate(shifted, options(maximum_information=400, null_value=7))
    assert at_zero.adjusted is not None
    assert at_seven.adjusted is not None
    assert at_seven.adjusted.estimate == pytest.approx(at_zero.adjusted.estimate + 7)
    assert at_seven.adjusted.ci_lower == pytest.approx(at_zero.adjusted.ci_lower + 7)
    assert at_seven.adjusted.pvalue == pytest.approx(at_zero.adjusted.pvalue)


def test_overrunning_spends_what_is_left_and_ends() -> None:
    found = evaluate(looks([1.0, 1.5, 1.9], [0.3, 0.7, 1.3]), SPENDING)
    assert found.looks[-1].alpha_spent == 0.05
    assert found.looks[-1].fraction == pytest.approx(1.3)
    assert (found.decision, found.stopped_at) == ("stop_end", 3)
    with pytest.raises(DataError, match="after the planned end"):
        evaluate(looks([1.0, 1.5, 1.9], [0.3, 1.0, 1.3]), SPENDING)


def test_an_early_end_spends_what_is_left() -> None:
    found = evaluate(looks([1.0, 2.1], is_final=True), SPENDING)
    running = evaluate(looks([1.0, 2.1]), SPENDING)
    assert found.looks[-1].alpha_spent == 0.05
    assert found.decision == "stop_efficacy"
    assert running.decision == "continue"


def test_a_classic_test_spends_as_planned_at_other_information() -> None:
    given = options(method="obrien_fleming", planned_fractions=PLAN, maximum_information=400)
    planned = evaluate(looks([0.0] * 4), given)
    constant = planned.looks[-1].efficacy_upper
    expected = [constant / at**0.5 for at in PLAN]
    assert [look.efficacy_upper for look in planned.looks] == pytest.approx(expected, abs=1e-9)
    observed = evaluate(looks([0.0] * 4, [0.3, 0.4, 0.8, 0.95]), given)
    spent = [look.alpha_spent for look in observed.looks]
    assert spent == pytest.approx([look.alpha_spent for look in planned.looks], abs=1e-12)
    assert observed.looks[1].efficacy_upper != pytest.approx(expected[1], abs=1e-3)


def test_more_looks_than_a_classic_test_planned() -> None:
    with pytest.raises(DataError, match="more looks than planned"):
        evaluate(looks([0.0] * 4), options(method="pocock", planned_fractions=(0.5, 0.75, 1.0)))


def test_earlier_boundaries_do_not_change_with_later_looks() -> None:
    z, at = [0.5, 0.7, 1.0, 1.2], [0.2, 0.33, 0.71, 1.0]
    whole = evaluate(looks(z, at), SPENDING)
    for n_looks in (1, 2, 3):
        part = evaluate(looks(z[:n_looks], at), SPENDING)
        found = [look.efficacy_upper for look in part.looks]
        assert found == [look.efficacy_upper for look in whole.looks[:n_looks]]


def test_a_nonbinding_futility_stop_may_be_overruled() -> None:
    given = options(
        alternative="increase", maximum_information=400, planned_fractions=PLAN, futility=FUTILITY
    )
    assert evaluate(looks([-1.5]), given).decision == "stop_futility"
    later = evaluate(looks([-1.5, 1.5]), given)
    assert [look.decision for look in later.looks] == ["continue", "continue"]
    without = options(alternative="increase", maximum_information=400)
    assert [look.efficacy_upper for look in later.looks] == [
        look.efficacy_upper for look in evaluate(looks([-1.5, 1.5]), without).looks
    ]


def test_a_binding_futility_stop_is_final_and_buys_a_lower_boundary() -> None:
    common = {"maximum_information": 400, "planned_fractions": PLAN, "alternative": "increase"}
    binding = options(futility={**FUTILITY, "is_binding": True}, **common)
    z = [1.0, 1.6, 1.8, 1.64]
    lower = evaluate(looks(z), binding).looks[-1].efficacy_upper
    higher = evaluate(looks(z), options(**common)).looks[-1].efficacy_upper
    assert lower < higher
    stopped = evaluate(looks([-1.5]), binding)
    assert stopped.decision == "stop_futility"
    assert stopped.adjusted is not None
    assert stopped.adjusted.pvalue > 0.5
    with pytest.raises(DataError, match="binding futility stop"):
        evaluate(looks([-1.5, 1.0]), binding)


def test_two_sided_futility_is_an_inner_wedge() -> None:
    given = options(maximum_information=400, planned_fractions=PLAN, futility=FUTILITY)
    found = evaluate(looks([0.3, -0.3, 0.1]), given)
    assert (found.decision, found.stopped_at) == ("stop_futility", 3)
    wedge = found.looks[2].futility
    assert wedge is not None
    assert 0.1 < wedge < found.looks[2].efficacy_upper


def test_a_confidence_sequence_is_narrowest_at_its_target() -> None:
    fractions = np.linspace(0.1, 3.0, 59)
    given = options(method="confidence_sequence", maximum_information=400)
    found = evaluate(looks([0.0] * 59, fractions), given)
    ratio = [look.efficacy_upper for look in found.looks]
    target = int(np.argmin(np.abs(fractions - 1.0)))
    assert int(np.argmin(ratio)) == target
    # Waudby-Smith et al.: the closed form with rho^2 = tuning / n.
    from scipy import special

    tuned = -special.lambertw(-(0.05**2) / np.e, k=-1).real - 1
    expected = np.sqrt((1 + 1 / tuned) * np.log((1 + tuned) / 0.05**2))
    assert ratio[target] == pytest.approx(expected, rel=1e-12)


def test_msprt_is_the_mixture_of_johari_and_others() -> None:
    """Likelihood ratio and interval in the form of the paper."""
    spread, alpha = 0.15, 0.05
    found = evaluate(looks([1.0, 3.0]), options(method="msprt", effect_spread=spread))
    best = 1.0
    for look in found.looks:
        v, t = look.std_error**2, spread**2
        likelihood = np.sqrt(v / (v + t)) * np.exp(t * look.estimate**2 / (2 * v * (v + t)))
        best = min(best, 1 / likelihood)
        half = np.sqrt(v * (v + t) / t * (2 * np.log(1 / alpha) - np.log(v / (v + t))))
        assert look.pvalue == pytest.approx(best, rel=1e-12)
        assert look.ci_upper - look.estimate == pytest.approx(half, rel=1e-12)
        assert look.alpha_spent is None


def test_one_sided_always_valid_boundary_is_lower() -> None:
    common = {"method": "confidence_sequence", "maximum_information": 400, "alpha": 0.05}
    one = evaluate(looks([0.0] * 4), options(alternative="increase", **common))
    two = evaluate(looks([0.0] * 4), options(**common))
    for a, b in zip(one.looks, two.looks, strict=True):
        assert a.efficacy_upper < b.efficacy_upper
        assert a.efficacy_lower == -np.inf


def test_frames_have_one_row_per_look_and_results_are_frozen() -> None:
    found = evaluate(looks([1.0, 3.5]), SPENDING)
    frame = found.to_frame()
    assert list(frame.columns) == [field.name for field in dataclasses.fields(LookReadout)]
    assert frame["name"].tolist() == ["day 1", "day 2"]
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.decision = "continue"  # type: ignore[misc]


def test_looks_come_from_stored_rows() -> None:
    given = looks([1.0, 3.5], is_final=True)
    frame = pd.DataFrame([dataclasses.asdict(look) for look in given]).drop(columns="information")
    assert looks_of(frame) == tuple(given)
    counted = looks_of(frame.assign(information=[10, 20]))
    assert [look.information for look in counted] == [10.0, 20.0]
    with pytest.raises(DataError, match="lack columns"):
        looks_of(frame.drop(columns="std_error"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no look"),
        (looks([1.0, 1.0], [0.5, 0.5]), "information must grow"),
        (looks([1.0, 1.0], [0.5, 0.4]), "information must grow"),
        ([Look(name="a", estimate=float("nan"), std_error=1.0)], "look a"),
        ([Look(name="a", estimate=0.0, std_error=0.0)], "positive"),
        ([Look(name="a", estimate=0.0, std_error=1.0, information=-1.0)], "positive"),
        (
            [
                Look(name="a", estimate=0.0, std_error=0.1, is_final=True),
                Look(name="b", estimate=0.0, std_error=0.05),
            ],
            "marked final",
        ),
        (
            [
                Look(name="a", estimate=0.0, std_error=0.1, information=1.0),
                Look(name="b", estimate=0.0, std_error=0.05),
            ],
            "every look, or of none",
        ),
    ],
)
def test_looks_that_cannot_be_read_are_refused(given: list[Look], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        evaluate(given, SPENDING)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs maximum_information"),
        ({"maximum_information": 1, "delta": 0.2}, "no use for delta"),
        ({"method": "pocock"}, "needs planned_fractions"),
        ({"method": "wang_tsiatis", "planned_fractions": PLAN}, "needs delta"),
        ({"method": "msprt"}, "needs effect_spread"),
        ({"method": "msprt", "effect_spread": 1, "futility": FUTILITY}, "no use for futility"),
        ({"method": "pocock", "planned_fractions": (0.5, 0.9)}, "end at 1"),
        ({"method": "pocock", "planned_fractions": (0.5, 0.5, 1.0)}, "must grow"),
        ({"maximum_information": 1, "futility": FUTILITY}, "futility needs planned_fractions"),
        (
            {
                "maximum_information": 1,
                "planned_fractions": PLAN,
                "futility": {**FUTILITY, "is_binding": True},
            },
            "one-sided",
        ),
        ({"maximum_information": 1, "spending": {"family": "power"}}, "needs its parameter"),
        (
            {"maximum_information": 1, "spending": {"family": "power", "parameter": -1}},
            "must be positive",
        ),
        (
            {"maximum_information": 1, "spending": {"family": "pocock", "parameter": 1}},
            "has no parameter",
        ),
        ({"maximum_information": 1, "alpha": 0.7}, "less than"),
        ({"maximum_information": 1, "alhpa": 0.05}, "did you mean 'alpha'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    given: dict[str, object], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        validate(SequentialOptions, given)


@pytest.mark.parametrize(
    ("given", "z"),
    [
        (SPENDING, [1.0, 2.0]),
        (SPENDING, [1.0, 3.5, 3.0]),
        (options(method="pocock", planned_fractions=PLAN, alternative="decrease"), [0.5, -1.0]),
        (
            options(
                alternative="increase",
                maximum_information=400,
                planned_fractions=PLAN,
                futility=FUTILITY,
            ),
            [1.0, 0.2],
        ),
        (
            options(maximum_information=400, planned_fractions=PLAN, futility=FUTILITY),
            [1.0, 0.5, 0.2, 0.1],
        ),
        (options(method="confidence_sequence", maximum_information=400), [1.0, 1.1]),
        (options(method="msprt", effect_spread=0.1), [4.4]),
    ],
)
def test_the_figure_draws_and_says_the_decision(given: SequentialOptions, z: list[float]) -> None:
    result = evaluate(looks(z), given)
    drawn = figure(result)
    target = io.BytesIO()
    drawn.savefig(target, format="png", dpi=50)
    assert target.getbuffer().nbytes > 4000
    left, right = drawn.axes
    text = left.texts[0].get_text()
    assert ("goes on" in text) == (result.decision == "continue")
    assert [label.get_text() for label in right.get_xticklabels()] == [
        look.name for look in result.looks
    ]
