"""What the method `ab` asks of the data, counts in it and refuses."""

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core.errors import CausalError, DataError
from causal.core.frames import FrameRequest, GramRequest, KeyRequest, MeatRequest
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Result
from causal.core.spec import validate
from causal.experiments import ab, cluster_sums

REVENUE = {"name": "revenue", "type": "mean", "column": "revenue"}
PAID = {"name": "paid", "type": "proportion", "column": "paid"}
RATE = {"name": "rate", "type": "ratio", "numerator": "orders", "denominator": "sessions"}


@pytest.fixture
def users() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    n = 630
    before = rng.gamma(2.0, 5.0, n)
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "home": np.arange(n) // 3,
            "variant": np.array(["control", "light", "full"])[np.arange(n) // 3 % 3],
            "revenue": 10 + before + rng.normal(size=n),
            "paid": rng.integers(0, 2, n),
            "orders": rng.poisson(3, n),
            "sessions": rng.poisson(8, n) + 1,
            "pre_revenue": before,
        }
    )


def spec_of(metrics: Sequence[dict[str, Any]], **options: object) -> ab.AbSpec:
    base = {"unit": "user", "variant": "variant", "control": "control", "metrics": [*metrics]}
    data = {"name": "x", "source": {"table": "t"}, "method": "ab", "options": base | options}
    return validate(ab.SPEC, data)


def analyse(
    frame: pd.DataFrame,
    *metrics: dict[str, Any],
    requests: list[FrameRequest] | None = None,
    **options: object,
) -> Result:
    seen = requests if requests is not None else []
    plan = ab.estimate(spec_of(metrics, **options))
    return run(plan, PandasEngine(frame), on_request=lambda _, request: seen.append(request))


def diagnostic(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


def test_every_treatment_has_both_scales_adjusted_before_raw(users: pd.DataFrame) -> None:
    result = analyse(users, REVENUE | {"covariates": ["pre_revenue"]}, PAID)
    rows = [(e.metric, e.term, e.estimator, e.scale) for e in result.effects]
    scales = ("absolute", "relative")
    assert rows == [
        *(
            ("revenue", f"{arm} - control", estimator, scale)
            for arm in ("full", "light")
            for estimator in ("cuped", "welch")
            for scale in scales
        ),
        *(("paid", f"{arm} - control", "welch", s) for arm in ("full", "light") for s in scales),
    ]
    assert all(e.ci_lower < e.estimate < e.ci_upper for e in result.effects)
    assert {(e.n_treated, e.n_control) for e in result.effects} == {(210, 210)}
    assert list(result.tables["arms"]["variant"]) == ["control", "full", "control", "light"] * 2


def test_a_comparison_does_not_change_when_another_arm_joins(users: pd.DataFrame) -> None:
    metric = REVENUE | {"covariates": ["pre_revenue"]}
    both = analyse(users, metric).to_frame()
    alone = analyse(users[users["variant"] != "light"], metric).to_frame()
    chosen = analyse(users, metric, treatments=["full"])
    of_full = both[both["term"] == "full - control"].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_full, alone)
    pd.testing.assert_frame_equal(chosen.to_frame(), alone)
    assert diagnostic(chosen, "other_variants").statistic == 210


def test_one_pass_serves_all_metrics_when_nothing_is_missing(users: pd.DataFrame) -> None:
    requests: list[FrameRequest] = []
    analyse(users, REVENUE, PAID, RATE, requests=requests)
    assert [type(request) for request in requests] == [KeyRequest, GramRequest]


def test_nulls_of_one_metric_cost_another_no_row(users: pd.DataFrame) -> None:
    holes = users.copy()
    holes.loc[holes.index[:30], "revenue"] = np.nan
    result = analyse(holes, REVENUE, PAID)
    by_metric = {(e.metric, e.term): e.n_treated + e.n_control for e in result.effects}
    assert by_metric["paid", "full - control"] == 420
    assert by_metric["revenue", "full - control"] == 420 - 12 - 9
    missing = diagnostic(result, "missing_rows.revenue")
    assert (missing.statistic, missing.passed) == (30, None)
    assert diagnostic(result, "missing_rows.paid").passed is True
    expected = analyse(holes.dropna(), REVENUE).effects
    assert [e for e in result.effects if e.metric == "revenue"] == list(expected)
    assert diagnostic(result, "assumed_sample_ratio").statistic == 0


def test_clustered_metrics_share_passes_up_to_the_limit(
    users: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = users.assign(**{f"m{j}": users["revenue"] * j + users["orders"] for j in range(20)})
    metrics = [{"name": f"m{j}", "type": "mean", "column": f"m{j}"} for j in range(20)]
    requests: list[FrameRequest] = []
    together = analyse(wide, *metrics, cluster="home", requests=requests)
    by_home = [r for r in requests if isinstance(r, GramRequest) and "home" in r.by]
    assert [len(request.terms) for request in by_home] == [20]
    alone = analyse(wide, metrics[17], cluster="home")
    found = [e for e in together.effects if e.metric == "m17"]
    for one, other in zip(found, alone.effects, strict=True):
        assert one.std_error == pytest.approx(other.std_error, rel=1e-12)
        assert one.df == pytest.approx(other.df, rel=1e-12)
    monkeypatch.setattr(cluster_sums, "MAX_CLUSTERS", 100)
    asked: list[FrameRequest] = []
    summed = analyse(wide, *metrics, cluster="home", treatments=["full"], requests=asked)
    meats = [request for request in asked if isinstance(request, MeatRequest)]
    assert [len(request.scores) for request in meats] == [2, 40]
    assert 2 * 20 <= cluster_sums.MAX_SCORES < 2 * 25
    assert len(summed.effects) == 40


def test_paired_clusters_give_the_paired_t_test(users: pd.DataFrame) -> None:
    """Every cluster holds one unit of each arm: the clustered error is the paired one."""
    pairs = users.head(200).assign(
        home=np.arange(200) // 2, variant=np.tile(["control", "full"], 100)
    )
    wide = pairs.pivot(index="home", columns="variant", values="revenue")
    reference = stats.ttest_rel(wide["full"], wide["control"])
    exact = analyse(pairs, REVENUE, cluster="home").effects[0]
    assert exact.statistic == pytest.approx(reference.statistic, rel=1e-9)
    assert exact.df == pytest.approx(reference.df, rel=1e-9)
    result = analyse(pairs, REVENUE, cluster="home", cluster_correction="cr1")
    # The factor (N - 1) / (N - k) is 199 / 198 for 200 units in two arms.
    statistic = result.effects[0].statistic * np.sqrt(199 / 198)
    assert statistic == pytest.approx(reference.statistic, rel=1e-9)
    assert diagnostic(result, "assumed_sample_ratio").passed is None


def test_numbered_arms_come_in_order(users: pd.DataFrame) -> None:
    numbered = users.assign(variant=users["user"] % 3 * 5)
    result = analyse(numbered, PAID, control=0)
    assert [e.term for e in result.effects[::2]] == ["5 - 0", "10 - 0"]


def test_input_is_unchanged_and_row_order_and_index_do_not_matter(users: pd.DataFrame) -> None:
    before = users.copy(deep=True)
    first = analyse(users, REVENUE | {"covariates": ["pre_revenue"]}, RATE, cluster="home")
    pd.testing.assert_frame_equal(users, before)
    shuffled = users.sample(frac=1.0, random_state=3).set_index("orders", drop=False)
    second = analyse(shuffled, REVENUE | {"covariates": ["pre_revenue"]}, RATE, cluster="home")
    numbers = ["estimate", "std_error", "ci_lower", "pvalue"]
    np.testing.assert_allclose(
        second.to_frame()[numbers].to_numpy(), first.to_frame()[numbers].to_numpy(), rtol=1e-9
    )


def test_result_pickles(users: pd.DataFrame) -> None:
    result = analyse(users, REVENUE)
    assert pickle.loads(pickle.dumps(result)).effects == result.effects  # noqa: S301


def test_integer_and_boolean_variants(users: pd.DataFrame) -> None:
    numbered = users.assign(variant=(users["variant"] == "full").astype(int))
    flags = numbered.assign(variant=numbered["variant"] == 1)
    one = analyse(numbered, REVENUE, control=0, expected_shares={0: 2, 1: 1})
    other = analyse(flags, REVENUE, control=False)
    assert one.effects[0].term == "1 - 0"
    assert other.effects[0].term == "True - False"
    assert one.effects[0].estimate == other.effects[0].estimate
    assert diagnostic(one, "sample_ratio").passed is True
    assert diagnostic(other, "assumed_sample_ratio").passed is False


def test_source_conditions_reach_the_requests(users: pd.DataFrame) -> None:
    data = {
        "name": "x",
        "source": {"table": "t", "where": {"variant": ["control", "full"]}},
        "method": "ab",
        "options": {
            "unit": "user", "variant": "variant", "control": "control", "metrics": [REVENUE],
        },
    }  # fmt: skip
    result = run(ab.estimate(validate(ab.SPEC, data)), PandasEngine(users))
    assert {e.term for e in result.effects} == {"full - control"}


def test_a_zero_control_level_has_no_lift_and_says_so(users: pd.DataFrame) -> None:
    never = users.assign(paid=np.where(users["variant"] == "control", 0, users["paid"]))
    result = analyse(never, PAID, treatments=["full"])
    assert [e.scale for e in result.effects] == ["absolute"]
    note = diagnostic(result, "relative_scale.paid.full - control")
    assert note.passed is None
    assert "not reported" in note.detail
    guarded = PAID | {"role": "guardrail", "margin": 0.1, "margin_scale": "relative"}
    result = analyse(never, guarded, treatments=["full"])
    assert diagnostic(result, "guardrail.paid.full - control").passed is None


@pytest.mark.parametrize(("level", "said"), [(0.2, "too close to zero"), (-50.0, "opposite sign")])
def test_lifts_of_small_and_negative_levels_carry_a_note(
    users: pd.DataFrame, level: float, said: str
) -> None:
    profit = users.assign(revenue=users["revenue"] - users["revenue"].mean() + level)
    result = analyse(profit, REVENUE, treatments=["full"])
    assert said in diagnostic(result, "relative_scale.revenue.full - control").detail


def test_covariates_come_with_their_gain_and_balance(users: pd.DataFrame) -> None:
    result = analyse(users, REVENUE | {"covariates": ["pre_revenue"]}, treatments=["full"])
    gain = diagnostic(result, "variance_reduction.revenue.full - control")
    assert gain.statistic is not None
    assert gain.statistic > 0.9
    assert gain.passed is True
    assert diagnostic(result, "covariate_balance.revenue.full - control").passed is True
    tilted = users.assign(pre_revenue=users["pre_revenue"] + 9 * (users["variant"] == "full"))
    result = analyse(tilted, REVENUE | {"covariates": ["pre_revenue"]}, treatments=["full"])
    assert diagnostic(result, "covariate_balance.revenue.full - control").passed is False
    assert diagnostic(result, "variance_reduction.revenue.full - control").passed is False


def test_guardrails_few_clusters_and_clustered_balance(users: pd.DataFrame) -> None:
    guardrail = RATE | {"role": "guardrail", "direction": "decrease", "margin": 0.5}
    metric = REVENUE | {"covariates": ["pre_revenue"]}
    homes = users.assign(home=users["home"] // 30 * 3 + users["home"] % 3)
    result = analyse(homes, guardrail, metric, treatments=["full"], cluster="home")
    assert diagnostic(result, "guardrail.rate.full - control").passed is True
    assert diagnostic(result, "few_clusters").statistic == 14
    assert diagnostic(result, "covariate_balance.revenue.full - control").passed is True
    assert diagnostic(result, "assumed_sample_ratio").passed is True


def _null(users: pd.DataFrame, column: str) -> pd.DataFrame:
    return users.assign(**{column: users[column].astype(object).where(users["user"] != 5)})


def _all(users: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    return users.assign(**{column: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda u: pd.concat([u, u.head(2)]), "user must identify a row; given: 2 units occur"),
        (lambda u: _null(u, "user"), "user is null; given: 1 of 630 rows"),
        (lambda u: _null(u, "variant"), "variant is null; given: 1 rows"),
        (lambda u: _null(u, "home"), "home is null; given: 1 rows"),
        (lambda u: u.head(0), "no rows"),
        (lambda u: _all(u, "variant", "control"), "one arm only"),
        (lambda u: _all(u, "variant", "light"), "no such variant; given: control; allowed: light"),
        (lambda u: _all(u, "revenue", 0.1), "revenue: zero variance"),
        (lambda u: _all(u, "revenue", np.nan), "revenue: variant control has fewer than 2 units"),
        (lambda u: _all(u, "revenue", np.inf), "NaN or infinite"),
        (lambda u: _all(u, "paid", u["paid"] * 2), "paid: a proportion needs a column of zeros"),
        (lambda u: _all(u, "paid", u["paid"] / 2), "paid: a proportion needs a column of zeros"),
        (lambda u: _all(u, "sessions", 0), "rate: the denominator's mean is zero"),
        (lambda u: _all(u, "pre_revenue", 3.0), "revenue: covariates that are constant"),
        (lambda u: _all(u, "pre_revenue", u["revenue"] * 2), "covariates explain it exactly"),
        (lambda u: _all(u, "orders", u["sessions"]), "rate: zero variance"),
        (
            lambda u: _all(u, "home", u["home"].where(u["variant"] != "full", -1)),
            "all units of variant full lie in one cluster",
        ),
        (
            lambda u: pd.concat([u[u["variant"] == "control"], u[u["variant"] == "full"].head(1)]),
            "variant full has fewer than 2 units",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_bad_data_is_one_clear_line(
    users: pd.DataFrame, make: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    metrics = (REVENUE | {"covariates": ["pre_revenue"]}, PAID, RATE)
    with pytest.raises(DataError) as caught:
        analyse(make(users), *metrics, cluster="home")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_key_of_the_metric_is_named(users: pd.DataFrame) -> None:
    with pytest.raises(CausalError) as caught:
        analyse(users.assign(paid=1), REVENUE, PAID)
    assert caught.value.key == "options.metrics.1"


def test_one_constant_arm_is_no_error(users: pd.DataFrame) -> None:
    always = users.assign(paid=np.where(users["variant"] == "full", 1, users["paid"]))
    result = analyse(always, PAID, treatments=["full"])
    assert result.effects[0].std_error > 0
    assert result.effects[0].df == pytest.approx(209)


def test_an_arm_with_few_clusters_is_red(users: pd.DataFrame) -> None:
    """100 clusters beside 2: the total says nothing of the arm that has almost none."""
    rows = np.arange(len(users))
    is_full = (users["variant"] == "full").to_numpy()
    place = np.where(is_full, 1000 + rows % 2, rows % 100)
    result = analyse(users.assign(home=place), REVENUE, treatments=["full"], cluster="home")

    assert diagnostic(result, "arm_clusters").passed is False
    assert diagnostic(result, "arm_clusters").statistic == 2
    assert not any(item.name == "few_clusters" for item in result.diagnostics)
