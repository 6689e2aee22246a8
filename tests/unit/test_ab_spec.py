"""What a spec of the method `ab` may say; each mistake is one line with its key."""

from typing import Any

import pytest

from causal.core.errors import SpecError
from causal.core.frames import Column
from causal.core.spec import validate
from causal.experiments import ab
from causal.experiments.metrics import covariate_name

REVENUE = {"name": "revenue", "type": "mean", "column": "revenue"}
OPTIONS = {"unit": "user", "variant": "variant", "control": "control", "metrics": [REVENUE]}


def spec_of(**changes: object) -> ab.AbSpec:
    data = {"name": "x", "source": {"table": "t"}, "method": "ab", "options": OPTIONS | changes}
    return validate(ab.SPEC, data, file="x.yaml")


def with_metric(**changes: object) -> ab.AbSpec:
    return spec_of(metrics=[REVENUE | changes])


def test_defaults() -> None:
    options = spec_of().options
    assert (options.variance, options.theta, options.cluster_correction) == (
        "welch", "total", None,
    )  # fmt: skip
    assert options.degrees_of_freedom == "satterthwaite"
    assert options.srm_alpha == 0.0005
    assert options.metrics[0].role == "secondary"


def test_terms_are_columns_each_once_outcome_first() -> None:
    metric = with_metric(
        type="ratio",
        column=None,
        numerator="orders",
        denominator="sessions",
        covariates=[
            {"numerator": "pre_orders", "denominator": "pre_sessions"},
            {"numerator": "pre_refunds", "denominator": "pre_sessions"},
            "tenure",
        ],
    ).options.metrics[0]
    names = ("orders", "sessions", "pre_orders", "pre_sessions", "pre_refunds", "tenure")
    assert metric.terms == tuple(Column(name) for name in names)
    assert [(q.numerator, q.denominator) for q in metric.quotients] == [
        (0, 1), (2, 3), (4, 3), (5, None),
    ]  # fmt: skip
    assert [covariate_name(item) for item in metric.covariates] == [
        "pre_orders/pre_sessions", "pre_refunds/pre_sessions", "tenure",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": []}, "at least 1 item"),
        ({"metrics": [REVENUE, REVENUE]}, "two metrics are called revenue"),
        ({"treatments": ["a", "a"]}, "a treatment is listed twice"),
        ({"treatments": ["control"]}, "control control is listed as a treatment"),
        ({"treatments": []}, "at least 1 item"),
        ({"cluster": "user"}, "unit, variant, cluster and period must be different columns"),
        ({"variant": "revenue"}, "revenue is the unit, variant, cluster or period"),
        ({"cluster": "home", "variance": "pooled"}, "variance applies to independent units"),
        ({"cluster_correction": "none"}, "cluster_correction needs cluster"),
        ({"degrees_of_freedom": "satterthwaite"}, "degrees_of_freedom needs cluster"),
        ({"cluster": ["h", "s"], "cluster_correction": "cr2"}, "cr2 is for one column"),
        ({"expected_shares": {"control": 0.5, "a": 0.0}}, "share of a must be positive"),
        ({"expected_shares": {"a": 1.0}}, "variant control has no expected share"),
        ({"treatments": ["b"], "expected_shares": {"control": 1, "a": 1}}, "variant b has no"),
        ({"srm_alpha": 1.5}, "less than 1"),
        ({"theta": "pooled"}, "'total' or 'within'"),
        ({"clusters": "home"}, "unknown key, did you mean 'cluster'"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(**changes)
    assert message in str(caught.value)
    assert str(caught.value).startswith("x.yaml: options")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "ratio"}, "type ratio takes denominator and numerator"),
        ({"numerator": "orders"}, "type mean takes column"),
        (
            {"type": "ratio", "column": None, "numerator": "a", "denominator": "a"},
            "numerator and denominator are the same column",
        ),
        ({"margin": 0.1}, "only a guardrail has a margin"),
        ({"role": "guardrail", "margin": -0.1}, "greater than 0"),
        ({"role": "guardrail", "margin_scale": "relative"}, "margin_scale needs a margin"),
        ({"covariates": ["revenue"]}, "covariate revenue is made of the outcome"),
        (
            {"covariates": [{"numerator": "revenue", "denominator": "d"}]},
            "covariate revenue/d is made of the outcome",
        ),
        ({"covariates": ["a", "a"]}, "covariate a is listed twice"),
        (
            {"covariates": [{"numerator": "d", "denominator": "d"}]},
            "numerator and denominator must be different columns",
        ),
        ({"covariates": ["user"]}, "user is the unit, variant, cluster or period"),
        ({"name": "gross profit"}, "should match pattern"),
        ({"direction": "up"}, "'increase' or 'decrease'"),
        ({"rôle": "primary"}, "unknown key, did you mean 'role'"),
    ],
)
def test_wrong_metrics_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        with_metric(**changes)
    assert message in str(caught.value)


def test_the_key_of_a_misspelt_covariate_is_its_path_in_the_file() -> None:
    with pytest.raises(SpecError) as caught:
        with_metric(covariates=[{"numerator": "a", "denom": "b"}])
    assert caught.value.key == "options.metrics.0.covariates.0.denom"
