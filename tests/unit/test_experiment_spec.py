"""The spec of an experiment says what goes together before anything is read."""

from typing import Any

import pytest

from causal.core.errors import SpecError
from causal.scorecard.experiment_spec import ExperimentSpec
from jobs.runtime import analyses
from tests import experiment_worlds as worlds


def options(**changes: Any) -> dict[str, Any]:
    return {**worlds.SPEC["options"], **changes}


def test_the_rule_follows_from_the_metrics() -> None:
    rule = worlds.spec(bayes={"prior": {"mean": 0.01, "sd": 0.1}}).rule

    assert (rule.primary.metric, rule.primary.scale) == ("profit", "relative")
    assert [(item.metric, item.margin, item.direction) for item in rule.guardrails] == [
        ("refund_rate", 0.02, "decrease"),
        ("kept", 0.05, "increase"),
    ]
    thresholds = rule.thresholds
    assert (thresholds.min_gain, thresholds.worse_than, thresholds.max_prob_worse) == (
        0,
        0.005,
        0.05,
    )
    assert thresholds.max_std_error_to_margin == 0.8
    assert (rule.prior.mean, rule.prior.sd) == (0.01, 0.1)


def test_a_rule_that_is_said_is_taken() -> None:
    rule = worlds.spec(
        decision={
            "primary": {"metric": "orders", "scale": "absolute"},
            "guardrails": [{"metric": "profit", "margin": 0.2}],
            "thresholds": {"worse_than": 0.1},
            "terms": ["perk - control"],
        }
    ).rule

    assert rule.primary.metric == "orders"
    assert [item.metric for item in rule.guardrails] == ["profit"]
    assert rule.terms == ("perk - control",)


def test_the_metric_that_earns_is_the_primary_one_unless_said() -> None:
    assert worlds.spec().earning_metric.name == "profit"
    named = {**worlds.SPEC["roi"], "metric": "orders"}
    assert worlds.spec(roi=named).earning_metric.name == "orders"


RATIO = [{"name": "r", "type": "ratio", "numerator": "a", "denominator": "b", "role": "primary"}]
PROFIT = {"name": "profit", "type": "mean", "column": "profit", "role": "primary"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": options(metrics=[{**PROFIT, "role": "secondary"}])}, "exactly one primary"),
        ({"decision": {"primary": {"metric": "sales"}}}, "no metric is called sales"),
        (
            {"decision": {"primary": {"metric": "profit", "scale": "absolute"}}},
            "thresholds.worse_than must be said",
        ),
        ({"decision": {"primary": {"metric": "profit"}, "scale": "relative"}}, "primary.scale"),
        ({"options": options(relative_interval="fieller")}, "judged on the relative scale"),
        (
            {
                "options": options(relative_interval="fieller"),
                "decision": {"scale": "absolute", "thresholds": {"worse_than": 0.1}},
                "sequential": {"maximum_information": 9.0, "scale": "relative"},
            },
            "the lift needs relative_interval delta",
        ),
        ({"bayes": {"rope": [0.1, -0.1]}}, "the lower one first"),
        (
            {"bayes": {"beta": {}}, "options": options(metrics=[PROFIT])},
            "no metric is a proportion",
        ),
        ({"bayes": {"gamma": {}}, "options": options(cluster="house")}, "independent units"),
        ({"options": options(metrics=RATIO)}, "is a ratio; a return needs an effect per unit"),
        ({"roi": {**worlds.SPEC["roi"], "metric": "sales"}}, "no metric is called sales"),
        ({"roi": {"eligible_units": 5}}, "roi.periods_per_year: this key is required"),
        ({"sequential": {"method": "pocock"}}, "method pocock needs planned_fractions"),
        ({"sequential": {"information": "days", "maximum_information": 3.0}}, "information"),
        ({"looks": {"days": "entered_on"}}, "did you mean 'day'"),
        ({"options": options(inference="bootstrap")}, "profit is judged, so its interval must"),
        ({"guardrails": []}, "unknown key"),
        ({"method": "did"}, "method"),
    ],
)
def test_what_cannot_be_right_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        worlds.spec(**changes)


def test_the_experiments_of_the_suite_are_valid() -> None:
    paths = analyses.default_specs("experiments")
    assert paths
    loaded = analyses.load_all(paths, model=ExperimentSpec)
    names = {item.spec.name for item in loaded}
    assert names.isdisjoint(item.spec.name for item in analyses.load_all(analyses.default_specs()))
