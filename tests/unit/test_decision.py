"""Which combination of conditions gives which verdict, and what can never happen."""

import dataclasses
import doctest
import operator
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from causal.checks import guardrail as guardrail_check
from causal.core.errors import CausalError, InferenceError, SpecError
from causal.core.inference import effect
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Effect, Result, Scale
from causal.core.spec import validate
from causal.experiments import ab, decision
from causal.experiments.bayes import NormalPrior
from causal.experiments.decision import (
    DECISION_COLUMNS,
    REASON_COLUMNS,
    Decision,
    Decisions,
    Verdict,
    decide,
)
from causal.experiments.decision_rule import (
    DecisionRule,
    Guardrail,
    Primary,
    Thresholds,
    rule_of_metrics,
)
from causal.experiments.metrics import Metric
from jobs.runtime import places

TERM = "treatment - control"
ORDER: tuple[Verdict, ...] = ("roll_back", "hold", "needs_more_data", "ship")
RULE = DecisionRule(
    primary=Primary(metric="profit"),
    guardrails=(Guardrail(metric="refunds", margin=0.01, direction="decrease"),),
)
ALONE = DecisionRule(primary=Primary(metric="profit"))


def made(  # noqa: PLR0913 - one argument per field that a test varies
    metric: str, estimate: float, std_error: float, *, scale: Scale = "relative",
    term: str = TERM, df: float | None = None, estimator: str = "cuped",
) -> Effect:  # fmt: skip
    return effect(
        estimator=estimator, estimand="ate", metric=metric, term=term, scale=scale,
        estimate=estimate, std_error=std_error, confidence_level=0.95, n_treated=1000,
        n_control=1000, df=df,
    )  # fmt: skip


def check(name: str, *, passed: bool | None) -> Diagnostic:
    return Diagnostic(name=name, statistic=9.0, pvalue=1e-6, passed=passed, detail=f"{name} seen")


def one(
    profit: tuple[float, float], refunds: tuple[float, float] = (0.0, 0.002),
    *checks: Diagnostic, rule: DecisionRule = RULE,
) -> Decision:  # fmt: skip
    effects = (made("profit", *profit), made("refunds", *refunds, scale="absolute"))
    (found,) = decide(Result(effects=effects, diagnostics=checks), rule).decisions
    return found


def failed(found: Decision) -> set[str]:
    return {item.rule for item in found.reasons if not item.passed}


RED = check("sample_ratio", passed=False)
GOOD, FLAT, WIDE, BAD, SMALL_LOSS = (
    (0.012, 0.004), (-0.0002, 0.001), (0.002, 0.006), (-0.02, 0.004), (-0.001, 0.004),
)  # fmt: skip
FINE, BREACHED, UNCLEAR, COARSE = (0.0, 0.002), (0.02, 0.002), (0.007, 0.004), (-0.02, 0.0085)


@pytest.mark.parametrize(
    ("profit", "refunds", "checks", "verdict", "reasons"),
    [
        (GOOD, FINE, (), "ship", set()),
        (GOOD, FINE, (RED,), "hold", {"health"}),
        (BAD, FINE, (RED,), "hold", {"health", "harm", "gain", "prob_worse", "gain_possible"}),
        (BAD, FINE, (), "roll_back", {"harm", "gain", "prob_worse", "gain_possible"}),
        (GOOD, BREACHED, (), "roll_back", {"guardrail_breach", "guardrail_cleared"}),
        (FLAT, FINE, (), "hold", {"gain", "gain_possible"}),
        (FLAT, UNCLEAR, (), "hold", {"gain", "gain_possible", "guardrail_cleared"}),
        (WIDE, FINE, (), "needs_more_data", {"prob_worse"}),
        (SMALL_LOSS, FINE, (), "needs_more_data", {"gain", "prob_worse"}),
        (GOOD, UNCLEAR, (), "needs_more_data", {"guardrail_cleared"}),
        (GOOD, COARSE, (), "needs_more_data", {"guardrail_precision"}),
    ],
)
def test_the_table_of_verdicts(
    profit: tuple[float, float], refunds: tuple[float, float], checks: tuple[Diagnostic, ...],
    verdict: Verdict, reasons: set[str],
) -> None:  # fmt: skip
    found = one(profit, refunds, *checks)
    assert found.verdict == verdict
    assert failed(found) == reasons


def test_the_limits_are_where_the_rule_says() -> None:
    z = 1.6448536269514722
    se = 0.004
    assert one((z * se - 0.005 + 1e-9, se), rule=ALONE).verdict == "ship"
    assert one((z * se - 0.005 - 1e-9, se), rule=ALONE).verdict == "needs_more_data"
    assert one((1e-9, 0.001), rule=ALONE).verdict == "ship"
    assert one((0.0, 0.001), rule=ALONE).verdict == "hold"
    assert one((0.0, 0.005 / z + 1e-9), rule=ALONE).verdict == "needs_more_data"
    assert one((-1.95 * se, se), rule=ALONE).verdict == "hold"
    assert one((-1.97 * se, se), rule=ALONE).verdict == "roll_back"
    precise, coarse = ((-0.02, 0.008 - 1e-9), (-0.02, 0.008))
    assert one(GOOD, precise).verdict == "ship"
    assert failed(one(GOOD, coarse)) == {"guardrail_precision"}


def test_thresholds_can_be_stated() -> None:
    for min_gain, verdict in ((0.014, "needs_more_data"), (0.02, "hold")):
        strict = RULE.model_copy(update={"thresholds": Thresholds(min_gain=min_gain)})
        assert one(GOOD, rule=strict).verdict == verdict
    patient = RULE.model_copy(update={"thresholds": Thresholds(worthwhile=0.0001)})
    assert one(FLAT, rule=patient).verdict == "needs_more_data"
    lenient = RULE.model_copy(update={"thresholds": Thresholds(max_prob_breach=0.5)})
    assert one(GOOD, UNCLEAR, rule=lenient).verdict == "ship"
    sceptical = ALONE.model_copy(update={"prior": NormalPrior(mean=-0.02, sd=0.003)})
    assert one(GOOD, rule=sceptical).verdict == "roll_back"


def test_what_is_good_can_be_less() -> None:
    rule = DecisionRule(
        primary=Primary(metric="profit", direction="decrease"),
        prior=NormalPrior(mean=-0.02, sd=0.003),
    )
    found = one((-0.012, 0.004), rule=rule)
    assert found.verdict == "ship"
    assert found.gain.mean > 0.012
    assert found.effect.estimate == -0.012
    assert one((0.03, 0.001), rule=rule).verdict == "roll_back"


def test_every_reason_says_what_was_compared() -> None:
    relations = {"<": operator.lt, ">": operator.gt, ">=": operator.ge, "=": operator.eq}
    seen = 0
    for profit in (GOOD, FLAT, WIDE, BAD, SMALL_LOSS):
        for refunds in (FINE, BREACHED, UNCLEAR, COARSE):
            for item in one(profit, refunds).reasons:
                assert item.value is not None
                assert item.threshold is not None
                assert relations[item.relation](item.value, item.threshold) is item.passed
                assert item.compared in {"profit", "refunds", "red checks"}
                seen += 1
    assert seen > 100


@pytest.mark.parametrize(
    "ends", [{"ci_lower": -np.inf, "ci_upper": np.inf}, {"ci_lower": -0.5}], ids=["none", "other"]
)
def test_an_interval_of_another_kind_is_refused(ends: dict[str, float]) -> None:
    """The posterior of a permutation test's error would ship what its interval leaves open."""
    effects = (dataclasses.replace(made("profit", 0.02, 0.001), **ends),)

    with pytest.raises(InferenceError, match="interval follows from its standard error"):
        decide(Result(effects=effects), ALONE)


def test_only_checks_that_stop_block() -> None:
    for name in ("pre_trend", "covariate_balance.x", "assumed_sample_ratio"):
        assert one(GOOD, FINE, check(name, passed=False)).verdict == "ship"
    assert one(GOOD, FINE, check("sample_ratio", passed=None)).verdict == "ship"
    found = one(GOOD, FINE, RED)
    assert [item.compared for item in found.reasons if item.rule == "health"] == ["sample_ratio"]
    assert "sample_ratio seen" in found.text


def test_a_lift_over_a_level_near_zero_blocks() -> None:
    near_zero = check(f"relative_scale.profit.{TERM}", passed=None)
    assert one(GOOD, FINE, near_zero).verdict == "hold"
    other = check("relative_scale.profit.second - control", passed=None)
    assert one(GOOD, FINE, other).verdict == "ship"


def test_a_guardrail_of_the_result_that_the_rule_does_not_name_counts_too() -> None:
    breached = check(f"guardrail.latency.{TERM}", passed=False)
    found = one(GOOD, FINE, breached)
    assert found.verdict == "roll_back"
    assert "latency" in found.text
    assert (
        one(GOOD, FINE, check("guardrail.latency.second - control", passed=False)).verdict == "ship"
    )
    own = guardrail_check.check(
        made("refunds", 0.001, 0.0001, scale="absolute"), direction="decrease", margin=0.0005
    )
    assert own.passed is False
    assert one(GOOD, FINE, own).verdict == "ship", "the rule's margin governs its own guardrail"


small = st.floats(-0.05, 0.05)
errors = st.floats(1e-4, 0.02)


@given(first=small, second=small, std_error=errors, refunds=small, refunds_error=errors)
def test_a_better_estimate_never_gives_a_worse_verdict(
    first: float, second: float, std_error: float, refunds: float, refunds_error: float
) -> None:
    low, high = sorted((first, second))
    other = (refunds, refunds_error)
    worse, better = (one((value, std_error), other).verdict for value in (low, high))
    assert ORDER.index(better) >= ORDER.index(worse)


@given(first=small, second=small, std_error=errors, profit=small, profit_error=errors)
def test_a_better_guardrail_never_gives_a_worse_verdict(
    first: float, second: float, std_error: float, profit: float, profit_error: float
) -> None:
    low, high = sorted((first, second))
    worse, better = (
        one((profit, profit_error), (value, std_error)).verdict for value in (high, low)
    )
    assert ORDER.index(better) >= ORDER.index(worse)


@given(profit=small, profit_error=errors, refunds=small, refunds_error=errors)
def test_a_red_check_never_ships_and_never_rolls_back(
    profit: float, profit_error: float, refunds: float, refunds_error: float
) -> None:
    assert one((profit, profit_error), (refunds, refunds_error), RED).verdict == "hold"


@settings(max_examples=40)
@given(
    profit=small, profit_error=errors, refunds=small, refunds_error=errors,
    unit=st.floats(1e-3, 1e3),
)  # fmt: skip
def test_units_do_not_matter(
    profit: float, profit_error: float, refunds: float, refunds_error: float, unit: float
) -> None:
    scaled = RULE.model_copy(
        update={
            "thresholds": Thresholds(worse_than=0.005 * unit),
            "guardrails": (Guardrail(metric="refunds", margin=0.01 * unit, direction="decrease"),),
        }
    )
    # A value that sits on a limit may fall to either side of it by rounding.
    if any(abs(x) < 1e-6 for x in (profit, refunds)):
        return
    plain = one((profit, profit_error), (refunds, refunds_error))
    other = one(
        (profit * unit, profit_error * unit), (refunds * unit, refunds_error * unit), rule=scaled
    )
    assert plain.verdict == other.verdict


def three_arms() -> Result:
    effects = []
    for term, profit in (("a - control", 0.010), ("b - control", 0.015), ("c - control", -0.02)):
        effects += [
            made("profit", profit, 0.004, term=term),
            made("profit", -0.5, 0.004, term=term, estimator="welch"),
            made("refunds", 0.0, 0.002, scale="absolute", term=term),
        ]
    return Result(effects=tuple(effects))


def test_several_treatments_have_a_decision_each_and_one_is_recommended() -> None:
    found = decide(three_arms(), RULE)
    assert [item.verdict for item in found.decisions] == ["ship", "ship", "roll_back"]
    assert found.recommended == "b - control"
    frame = found.to_frame()
    assert tuple(frame.columns) == DECISION_COLUMNS
    assert frame["is_recommended"].tolist() == [False, True, False]
    assert frame["estimator"].tolist() == ["cuped"] * 3
    reasons = found.reasons_frame()
    assert tuple(reasons.columns) == REASON_COLUMNS
    assert len(reasons) == sum(len(item.reasons) for item in found.decisions)
    assert found.text.endswith("Of the treatments that may ship, b - control promises most.")
    chosen = decide(three_arms(), RULE.model_copy(update={"terms": ("c - control",)}))
    assert [item.term for item in chosen.decisions] == ["c - control"]
    assert (chosen.recommended, len(chosen.text.split("\n\n"))) == (None, 1)
    raw = RULE.model_copy(update={"primary": Primary(metric="profit", estimator="welch")})
    assert decide(three_arms(), raw).text.endswith("No treatment may ship.")


def test_few_degrees_of_freedom_make_tails_heavier() -> None:
    def verdict(df: float | None) -> Verdict:
        result = Result(effects=(made("profit", 0.002, 0.004, df=df),))
        return decide(result, ALONE).decisions[0].verdict

    assert (verdict(None), verdict(4)) == ("ship", "needs_more_data")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"primary": {"metric": "sales"}}, "primary: the result has no such effect"),
        ({"primary": {"metric": "profit", "scale": "absolute"}}, "worse_than must be said"),
        (
            {
                "primary": {"metric": "profit", "scale": "absolute"},
                "thresholds": {"worse_than": 2.0},
            },
            "profit .absolute",
        ),
        ({"primary": {"metric": "profit", "estimator": "did"}}, "profit .relative, did"),
        (
            {"primary": {"metric": "profit"}, "guardrails": [{"metric": "p95", "margin": 1}]},
            "guardrails.0: the result has no such effect for a - control",
        ),
        ({"primary": {"metric": "profit"}, "terms": ["d - control"]}, "no such comparison"),
    ],
)
def test_a_rule_that_the_result_cannot_answer_is_refused(
    rule: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        decide(three_arms(), validate(DecisionRule, rule))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"primary": {"metric": "a"}, "guardrails": [{"metric": "a", "margin": 1}]}, "a guardrail"),
        (
            {"primary": {"metric": "a"}, "guardrails": [{"metric": "b", "margin": 1}] * 2},
            "guardrail b is listed twice",
        ),
        ({"primary": {"metric": "a"}, "guardrails": [{"metric": "b", "margin": 0}]}, "margin"),
        ({"primary": {"metric": "a"}, "terms": ["x", "x"]}, "a term is listed twice"),
        ({"primary": {"metric": "a"}, "thresholds": {"max_prob_worse": 5}}, "max_prob_worse"),
        (
            {"primary": {"metric": "a"}, "thresholds": {"min_gain": 0.1, "worthwhile": 0.01}},
            "worthwhile must be at least min_gain",
        ),
        ({"primary": {"metric": "a"}, "threshold": {}}, "did you mean 'thresholds'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        validate(DecisionRule, rule)


def test_coefficients_are_not_treatments() -> None:
    times = (made("profit", 0.01, 0.004, term=f"event_time={t}") for t in (-2, 0, 1))
    result = Result(effects=tuple(times))
    with pytest.raises(SpecError, match="say which of them decides"):
        decide(result, ALONE)
    one_of = ALONE.model_copy(update={"terms": ("event_time=1",)})
    assert decide(result, one_of).decisions[0].verdict == "ship"


METRICS = (
    Metric(name="profit", type="mean", column="profit", role="primary"),
    Metric(
        name="refunds", type="proportion", column="refunded", role="guardrail",
        direction="decrease", margin=0.05,
    ),
    Metric(name="tickets", type="mean", column="tickets", role="guardrail", direction="decrease"),
    Metric(name="visits", type="mean", column="visits"),
)  # fmt: skip


def test_an_experiment_implies_its_rule() -> None:
    rule = rule_of_metrics(METRICS)
    assert rule.primary == Primary(metric="profit")
    assert rule.guardrails == (Guardrail(metric="refunds", margin=0.05, direction="decrease"),)
    for metrics in (METRICS[1:], (*METRICS, METRICS[0].model_copy(update={"name": "x"}))):
        with pytest.raises(SpecError, match="exactly one primary metric"):
            rule_of_metrics(metrics)


@pytest.mark.parametrize(
    ("lift", "share", "verdict"),
    [(0.05, 0.5, "ship"), (-0.05, 0.5, "roll_back"), (0.05, 0.6, "hold")],
)
def test_from_rows_to_a_decision(lift: float, share: float, verdict: Verdict) -> None:
    rng = np.random.default_rng(11)
    n = 4000
    treated = rng.random(n) < share
    rows = pd.DataFrame(
        {
            "user": np.arange(n),
            "variant": np.where(treated, "treatment", "control"),
            "profit": rng.normal(10 * (1 + lift * treated), 1.0),
            "refunded": rng.integers(0, 10, n) == 0,
            "tickets": rng.poisson(0.2, n),
            "visits": rng.poisson(3, n),
        }
    ).astype({"refunded": float})
    options = {
        "unit": "user", "variant": "variant", "control": "control",
        "expected_shares": {"control": 0.5, "treatment": 0.5},
        "metrics": [metric.model_dump(exclude_unset=True) for metric in METRICS],
    }  # fmt: skip
    data = {"name": "x", "source": {"table": "t"}, "method": "ab", "options": options}
    result = run(ab.estimate(validate(ab.SPEC, data)), PandasEngine(rows))
    found = decide(result, rule_of_metrics(METRICS))
    assert [item.verdict for item in found.decisions] == [verdict]


def test_decisions_are_frozen_and_pickle() -> None:
    found = decide(three_arms(), RULE)
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301 - made in this line
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.decisions[0].verdict = "ship"  # type: ignore[misc]
    assert isinstance(found, Decisions)


def test_no_decision_without_effects() -> None:
    with pytest.raises(CausalError, match="a result with effects"):
        decide(Result(effects=()), ALONE)


def test_the_examples_run() -> None:
    found = doctest.testmod(decision)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_rule_of_the_documents_is_valid() -> None:
    page = places.root() / "docs" / "methods" / "decision.md"
    (block,) = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    rule = validate(DecisionRule, yaml.safe_load(block))
    assert rule.thresholds == Thresholds()
    assert [item.metric for item in rule.guardrails] == ["refund_rate", "retained_day_7"]
