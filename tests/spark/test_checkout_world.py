"""The world of the shop: the same whatever the partitions, sane, and equal to its own truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from causal.core import plan, registry
from causal.core.pandas_engine import PandasEngine
from causal.core.spec import validate
from jobs import generate, visitors
from jobs.runtime import analyses, truths
from tests.world_tables import check_table
from transforms.checkout_tables import CHECKOUT_DERIVED_TABLES
from transforms.synthetic.checkout.tables import CHECKOUT_TABLES, OUTCOMES
from transforms.synthetic.checkout.visitors import enrolled_share

pytestmark = pytest.mark.usefixtures("many_small_queries")

SIZE = 4_000
TERM = "treatment - control"
Frames = Mapping[str, pd.DataFrame]


def _frames(
    spark: SparkSession, *, n_partitions: int = 2, **given: object
) -> Mapping[str, DataFrame]:
    job = generate.JOB
    assert job.defaults is not None
    assert job.sources is not None
    chosen = {"world": "checkout", "size": SIZE, "seed": 7, **given}
    config = validate(generate.GenerateConfig, {**job.defaults({}), **chosen})
    units = {"checkout_ids": spark.range(0, config.size, 1, n_partitions)}
    return job.build(config, {**job.sources(spark, config), **units})


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """All tables, those that are derived too; collected."""
    folder = tmp_path_factory.mktemp("checkout")
    made = _stored(spark, _frames(spark), folder)
    config = validate(generate.GenerateConfig, _defaults())
    assert generate.JOB.finish is not None
    made |= generate.JOB.finish(config, made)
    made |= visitors.JOB.build(visitors.VisitorsConfig(), made)
    return {name: frame.toPandas() for name, frame in made.items()}


def _defaults() -> dict[str, Any]:
    assert generate.JOB.defaults is not None
    return {**generate.JOB.defaults({}), "world": "checkout", "size": SIZE, "seed": 7}


def _stored(
    spark: SparkSession, frames: Mapping[str, DataFrame], folder: Path
) -> dict[str, DataFrame]:
    """The frames from files, so that nothing is drawn twice."""
    for name, frame in frames.items():
        frame.write.parquet(str(folder / name))
    return {name: spark.read.parquet(str(folder / name)) for name in frames}


def _content(frame: pd.DataFrame) -> tuple[int, int]:
    plain = frame.apply(lambda column: column.map(repr) if column.dtype == object else column)
    return len(frame), int(pd.util.hash_pandas_object(plain, index=False).sum())


def test_partitions_do_not_matter_and_the_seed_does(spark: SparkSession, world: Frames) -> None:
    names = ["checkout_orders", "truth_checkout_users"]
    many = _frames(spark, n_partitions=200)
    for name in names:
        assert _content(many[name].toPandas()) == _content(world[name]), name
    other = _frames(spark, seed=8)["checkout_orders"].toPandas()
    assert _content(other) != _content(world["checkout_orders"])


@pytest.mark.parametrize(
    "table", [*CHECKOUT_TABLES, *CHECKOUT_DERIVED_TABLES], ids=lambda table: table.name
)
def test_tables_have_unique_keys_and_no_missing_values(table: Any, world: Frames) -> None:
    check_table(table, world[table.name])


def test_outcomes_are_the_potential_outcomes_of_the_assigned_variant(world: Frames) -> None:
    """Generator and transform meet: records, aggregated by user, are the truth to the cent."""
    units, truth = world["checkout_units"], world["truth_checkout_users"]
    both = units.merge(
        truth.rename(columns={"user_id": "unit_id"}),
        on=["experiment", "unit_id", "variant"],
        suffixes=("", "_true"),
        validate="one_to_one",
    )
    assert len(both) == len(units) > SIZE / 2
    assert len(truth) == 2 * len(units)
    for name in ("device", "customer_type", *(field.name for field in OUTCOMES)):
        assert (both[name] == both[f"{name}_true"]).all(), name


def test_visitor_days_add_up_to_the_users(world: Frames) -> None:
    days, units = world["checkout_visitor_days"], world["checkout_units"].set_index("unit_id")
    sums = days.groupby("unit_id")
    assert (sums.size() == units["visitor_days"].sort_index()).all()
    for name in ("sessions", "orders", "gross_profit", "tickets", "checkout_ms"):
        difference = sums[name].sum() - units[name].sort_index()
        assert difference.abs().max() < 1e-6, name
    assert days["visitor_day_id"].is_unique
    assert (days.loc[days["day"] == 0, "visited_on"] == days["assigned_on"][days["day"] == 0]).all()


def test_covariates_come_from_before_the_trial(world: Frames) -> None:
    trial = world["checkout_trials"].iloc[0]
    orders = world["checkout_orders"]
    before = orders[orders["ordered_at"] < pd.Timestamp(trial["starts_on"])]
    sums = before.groupby("user_id")["gross_profit"].sum()
    units = world["checkout_units"].set_index("unit_id")
    expected = sums.reindex(units.index).fillna(0.0)
    assert np.allclose(units["pre_gross_profit"], expected, atol=1e-6)
    assert (units.loc[units["customer_type"] == "new", "pre_visitor_days"] == 0).all()
    assert np.corrcoef(units["pre_visitor_days"], units["visitor_days"])[0, 1] > 0.3


def _effect(world: Frames, metric: str, *, term: str = TERM, scale: str = "absolute") -> float:
    effects = world["truth_checkout_effects"]
    rows = effects[
        (effects["metric"] == metric) & (effects["term"] == term) & (effects["scale"] == scale)
    ]
    assert len(rows) == 1
    return float(rows["value"].iloc[0])


def test_effects_follow_from_the_potential_outcomes(world: Frames) -> None:
    truth = world["truth_checkout_users"]
    by_variant = truth.groupby("variant")
    means, sums = by_variant.mean(numeric_only=True), by_variant.sum(numeric_only=True)
    for name in ("orders", "gross_profit", "visitor_days", "is_converted"):
        expected = means.loc["treatment", name] - means.loc["control", name]
        assert _effect(world, name) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    rate = sums["gross_profit"] / sums["visitor_days"]
    assert _effect(world, "gross_profit_per_visitor_day", scale="relative") == pytest.approx(
        rate["treatment"] / rate["control"] - 1.0, rel=1e-9
    )
    mobile = truth[truth["device"] == "mobile"].groupby("variant")["orders"].mean()
    assert _effect(world, "orders", term=f"{TERM} | device=mobile") == pytest.approx(
        mobile["treatment"] - mobile["control"], rel=1e-9
    )


def test_days_since_the_first_visit_add_up_to_the_truth_of_users(world: Frames) -> None:
    days, users = world["truth_checkout_days"], world["truth_checkout_users"]
    keys = ["variant", "device", "customer_type"]
    for name in ("visitor_days", "sessions", "orders", "gross_profit", "refunds", "tickets"):
        of_days, of_users = days.groupby(keys)[name].sum(), users.groupby(keys)[name].sum()
        assert np.allclose(of_days, of_users, atol=1e-6), name
    first = days[days["day"] == 0].groupby(keys)
    assert (first["n_users"].sum() == users.groupby(keys).size()).all()
    assert (first["visitor_days"].sum() == first["n_users"].sum()).all()


def test_the_effect_differs_by_device_and_fades_under_novelty(
    spark: SparkSession, world: Frames
) -> None:
    latency = [
        _effect(world, "checkout_latency", term=f"{TERM} | device={device}", scale="relative")
        for device in ("mobile", "desktop")
    ]
    assert latency[0] < latency[1] - 0.01 < 0.0
    plain = world["truth_checkout_users"].set_index(["user_id", "variant"])["checkout_ms"]
    faded = _frames(spark, faults=["novelty"])["truth_checkout_users"].toPandas()
    faded = faded.set_index(["user_id", "variant"])["checkout_ms"]
    change = (plain - faded).groupby("variant").sum()
    assert change["control"] == 0
    saved = plain.xs("control", level=1).sum() - plain.xs("treatment", level=1).sum()
    # Orders hardly move latency sums; the faded treatment saves less time than the plain one.
    assert saved > 0
    assert change["treatment"] < -0.1 * saved


def test_as_many_users_visit_during_the_trial_as_expected(world: Frames) -> None:
    plan_ = generate.checkout_plan(validate(generate.GenerateConfig, _defaults()))
    users, units = world["checkout_users"], world["checkout_units"]
    for name, device in plan_.world.devices.items():
        n_users, share = (users["device"] == name).sum(), enrolled_share(plan_, device)
        n_enrolled = (units["device"] == name).sum()
        assert abs(n_enrolled / n_users - share) < 4 * (share * (1 - share) / n_users) ** 0.5


def test_distributions_look_like_the_business(world: Frames) -> None:
    users, sessions = world["checkout_users"], world["checkout_sessions"]
    orders, events, perf = (world[f"checkout_{name}"] for name in ("orders", "events", "perf"))
    share = (users["device"] == "mobile").mean()
    assert abs(share - 0.58) < 4 * (0.58 * 0.42 / len(users)) ** 0.5
    assert 0.02 < len(orders) / len(sessions) < 0.08
    steps = events["event"].value_counts()
    assert steps["visit"] == len(sessions)
    assert steps["purchase"] == len(orders)
    funnel = ["visit", "view_product", "add_to_cart", "start_checkout", "purchase"]
    assert steps[funnel].is_monotonic_decreasing
    assert 30.0 < orders["revenue"].median() < 80.0
    assert 0.25 < orders["gross_profit"].sum() / orders["revenue"].sum() < 0.45
    assert 0.03 < (orders["refund_amount"] > 0).mean() < 0.12
    assert 0.01 < orders["n_tickets"].mean() < 0.09
    checkout = perf.loc[perf["page"] == "checkout", "latency_ms"]
    assert 2_500 < checkout.quantile(0.95) < 5_000
    units = world["checkout_units"]
    control = units[units["variant"] == "control"]
    assert 0.2 < control["returned_d7"].sum() / control["followed_d7"].sum() < 0.6
    when = sessions["started_at"].dt
    assert when.hour.between(6, 22).all()
    weekend = (when.dayofweek >= 5).sum() / 2
    assert weekend > 1.03 * (when.dayofweek < 5).sum() / 5


@pytest.mark.parametrize("name", ["checkout_users", "checkout_visitor_days"])
def test_the_analyses_cover_the_truth(name: str, world: Frames) -> None:
    """Every z-score of the shipped specs within 4, for every metric that has a truth."""
    (path,) = [one for one in analyses.default_specs("analyses/checkout") if one.stem == name]
    spec = analyses.load(path).spec
    known = {
        (row.world, row.design, row.estimand, row.metric, row.term, row.scale): row.value
        for row in world["truth_checkout_effects"].itertuples()
    }
    source = world[str(spec.source.table)]
    result = plan.run(registry.method(spec.method).estimate(spec), PandasEngine(source))
    scores = {
        (effect.metric, effect.estimator, effect.term, effect.scale): (effect.estimate - value)
        / effect.std_error
        for effect in result.effects
        if (value := truths.truth_of(spec, effect, known)) is not None
    }
    assert {key[0] for key in scores} == {metric.name for metric in spec.options.metrics}
    assert any("device=mobile" in key[2] for key in scores)
    assert max(map(abs, scores.values())) < 4.0, scores
    stopped = [check.name for check in result.diagnostics if check.passed is False]
    assert not [one for one in stopped if one.startswith(("sample_ratio", "covariate_balance"))]
