"""Generated worlds: the same whatever the partitions, sane, and equal to their own truth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from causal.core.spec import validate
from jobs.generate import JOB, GenerateConfig
from tests.world_tables import check_table
from transforms.synthetic.randomness import Draws
from transforms.synthetic.tables import DRIVER_TABLES, SUBSCRIBER_TABLES

pytestmark = pytest.mark.usefixtures("large_queries")

SIZE = 5_000
OUTCOMES = {
    "subscriber": ["minutes", "sessions", "revenue", "active_days"],
    "driver": ["hours", "trips", "earnings", "payouts", "active_days"],
}
WORLDS = ["subscriber", "driver"]
ROLLOUTS = ["early_content", "weekly_quests"]
Frames = Mapping[str, pd.DataFrame]


def _frames(
    spark: SparkSession, *, n_partitions: int = 2, with_effects: bool = True, **given: object
) -> Mapping[str, DataFrame]:
    """The tables of the job; what others are made from is kept."""
    assert JOB.defaults is not None
    assert JOB.sources is not None
    config = validate(GenerateConfig, {**JOB.defaults({}), **given})
    sources = dict(JOB.sources(spark, config))
    for name, n_units in (("subscriber_ids", config.size), ("driver_ids", config.n_drivers)):
        if name in sources:
            sources[name] = spark.range(0, n_units, 1, n_partitions)
    made = {name: frame.cache() for name, frame in JOB.build(config, sources).items()}
    if not with_effects:
        return made
    assert JOB.finish is not None
    return {**made, **JOB.finish(config, {**sources, **made})}


@pytest.fixture(scope="module")
def world(spark: SparkSession) -> Frames:
    """All tables of both worlds, collected."""
    return {name: frame.toPandas() for name, frame in _made(spark).items()}


def _made(spark: SparkSession, *, n_partitions: int = 2, **given: Any) -> Mapping[str, DataFrame]:
    drivers = _drivers(per_subscriber=0.5)
    given = {"seed": 7, "drivers": drivers, **given}
    return _frames(spark, n_partitions=n_partitions, size=SIZE, **given)


def _drivers(*, per_subscriber: float) -> dict[str, Any]:
    assert JOB.defaults is not None
    given: Any = JOB.defaults({})["drivers"]
    return {**given, "drivers_per_subscriber": per_subscriber}


def _content_hashes(frames: Frames) -> dict[str, tuple[int, int]]:
    """Number of rows, and the sum of their hashes, by table: the order of rows does not matter."""
    hashes = {}
    for name, frame in frames.items():
        plain = frame.apply(lambda column: column.map(repr) if column.dtype == object else column)
        hashed = pd.util.hash_pandas_object(plain, index=False)
        hashes[name] = (len(frame), int(hashed.sum()))
    return hashes


def test_partitions_do_not_matter_and_the_seed_does(spark: SparkSession, world: Frames) -> None:
    """All tables from 2 and from 200 partitions; the two largest from another seed."""
    few = _content_hashes(world)
    many, other = _made(spark, n_partitions=200), _made(spark, seed=8, with_effects=False)
    assert _content_hashes({name: many[name].toPandas() for name in few}) == few
    changed = ["subscriber_days", "driver_days"]
    hashes = _content_hashes({name: other[name].toPandas() for name in changed})
    assert all(hashes[name] != few[name] for name in changed)


def test_spark_and_numpy_draw_the_same(spark: SparkSession) -> None:
    draws = Draws(seed=11, world="test")
    rows = (
        spark.range(500)
        .select(
            "id", draws.uniform("u", "id", "id * 3").alias("u"), draws.normal("z", "id").alias("z")
        )
        .toPandas()
    )
    ids = rows["id"].to_numpy()
    assert np.array_equal(rows["u"].to_numpy(), draws.few_uniforms("u", ids, ids * 3))
    assert np.allclose(rows["z"].to_numpy(), draws.few_normals("z", ids), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    "table", [*SUBSCRIBER_TABLES, *DRIVER_TABLES], ids=lambda table: table.name
)
def test_tables_have_unique_keys_and_no_missing_values(table: Any, world: Frames) -> None:
    check_table(table, world[table.name])


@pytest.mark.parametrize("name", WORLDS)
def test_realised_outcomes_are_the_potential_outcomes_of_the_assigned_variant(
    name: str, world: Frames
) -> None:
    key = f"{name}_id"
    outcomes = [outcome for outcome in OUTCOMES[name] if outcome != "active_days"]
    days = world[f"{name}_days"]
    starts_on = world[f"{name}_trials"]["starts_on"].iloc[0]
    in_window = days[days["activity_on"] >= starts_on]
    sums = in_window.groupby(key)[outcomes].sum()
    assigned = world[f"{name}_assignments"].merge(
        world[f"truth_{name}s"], on=["experiment", key, "variant"], validate="one_to_one"
    )
    assert len(assigned) == len(world[f"{name}_assignments"])
    realised = sums.reindex(assigned[key]).fillna(0.0)
    assert np.allclose(realised.to_numpy(), assigned[outcomes].to_numpy(dtype=float), atol=1e-6)


@pytest.mark.parametrize("name", WORLDS)
def test_effects_are_means_of_unit_level_truth(name: str, world: Frames) -> None:
    units, effects = world[f"truth_{name}s"], world[f"truth_{name}_effects"]
    means = units.groupby(["experiment", "variant"])[[*OUTCOMES[name], "is_retained"]].mean()
    ates = effects[(effects["estimand"] == "ate") & effects["metric"].isin(means.columns)]
    assert len(ates) > 0
    for row in ates.itertuples():
        variant = row.term.split(" - ")[0]
        treated = means.loc[(row.design, variant), row.metric]
        control = means.loc[(row.design, "control"), row.metric]
        is_absolute = row.scale == "absolute"
        expected = treated - control if is_absolute else treated / control - 1.0
        assert row.value == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("name", "place"), [("subscriber", "region"), ("driver", "city")])
def test_rollout_effects_are_sums_over_treated_unit_weeks(
    name: str, place: str, world: Frames
) -> None:
    added = world[f"truth_{name}_rollout"]
    effects = world[f"truth_{name}_effects"]
    effects = effects[effects["estimand"].eq("att") & effects["design"].isin(ROLLOUTS)]
    effects = effects.set_index(["metric", "term"])["value"].sort_index()
    after = added[added["period"] >= added["first_treated_period"]]
    outcome = OUTCOMES[name][0]
    overall = after[outcome].sum() / after["n_units"].sum()
    assert effects[outcome, "overall"] == pytest.approx(overall, rel=1e-12)
    assert effects[outcome, "overall"] > 0.0
    early = added[added["period"] < added["first_treated_period"].fillna(99)]
    assert (early[outcome] == 0.0).all()
    assert effects[outcome, "event_time=-2"] == 0.0
    sizes = world[f"{name}s"].groupby(place).size()
    assert (added.groupby(place)["n_units"].first().sort_index() == sizes.sort_index()).all()


@pytest.mark.parametrize("name", WORLDS)
def test_differences_in_means_cover_the_truth(name: str, world: Frames) -> None:
    """Every z-score within 4; their mean square is near one, as for unbiased estimates."""
    key = f"{name}_id"
    seen = world[f"{name}_assignments"].merge(
        world[f"truth_{name}s"], on=["experiment", key, "variant"]
    )
    truth = world[f"truth_{name}_effects"]
    scores = []
    for row in truth[(truth["estimand"] == "ate") & (truth["scale"] == "absolute")].itertuples():
        if row.metric not in OUTCOMES[name]:
            continue
        trial = seen[seen["experiment"] == row.design]
        arms = [trial[trial["variant"] == arm] for arm in row.term.split(" - ")]
        values = [_clustered_mean(arm, row.metric) for arm in arms]
        difference = values[0][0] - values[1][0]
        scores.append((difference - row.value) / np.hypot(values[0][1], values[1][1]))
    assert np.abs(scores).max() < 4.0
    assert np.mean(np.square(scores)) < 2.5


def _clustered_mean(arm: pd.DataFrame, metric: str) -> tuple[float, float]:
    values = arm[metric].astype(float)
    scores = (values - values.mean()).groupby(arm["cluster_id"]).sum()
    return float(values.mean()), float(np.sqrt(np.square(scores).sum()) / len(values))


def test_late_is_the_offers_effect_over_its_effect_on_uptake(world: Frames) -> None:
    effects = world["truth_subscriber_effects"]
    mine = effects[(effects["design"] == "premium_upgrade") & (effects["scale"] == "absolute")]
    values = mine.set_index(["estimand", "metric"])["value"]
    assert values["late", "minutes"] == pytest.approx(
        values["itt", "minutes"] / values["itt", "uptake"]
    )
    share = values["itt", "uptake"]
    n = world["subscriber_assignments"]["experiment"].eq("premium_upgrade").sum()
    assert abs(share - 0.34) < 4 * (0.34 * 0.66 / n) ** 0.5 + 0.02


def test_distributions_look_like_the_business(world: Frames) -> None:
    subscribers, days = world["subscribers"], world["subscriber_days"]
    n = len(subscribers)
    assert abs((subscribers["tier"] == "basic").mean() - 0.35) < 4 * (0.35 * 0.65 / n) ** 0.5
    sizes = subscribers.groupby("household_id").size()
    assert sizes.min() == 1
    assert sizes.max() <= 5
    assert (subscribers.groupby("household_id")["region"].nunique() == 1).all()
    assert (subscribers.groupby("region")["country"].nunique() == 1).all()
    when = pd.to_datetime(days["activity_on"])
    day = (when - pd.Timestamp("2026-01-05")).dt.days
    pre = days[day < 28].groupby("subscriber_id")["minutes"].sum()
    post = days[day >= 28].groupby("subscriber_id")["minutes"].sum()
    gone = set(subscribers.loc[subscribers["churned_on"].notna(), "subscriber_id"])
    stayed = [unit for unit in subscribers["subscriber_id"] if unit not in gone]
    correlation = np.corrcoef(pre.reindex(stayed).fillna(0.0), post.reindex(stayed).fillna(0.0))[
        0, 1
    ]
    assert correlation > 0.7
    assert post.skew() > 2.0
    weekend = days[when.dt.dayofweek >= 5]["minutes"].sum() / 2
    assert weekend > 1.1 * days[when.dt.dayofweek < 5]["minutes"].sum() / 5
    churned = subscribers.dropna(subset=["churned_on"])
    assert 0.03 < len(churned) / n < 0.2
    after = days.merge(churned, on="subscriber_id")
    assert (after["activity_on"] < after["churned_on"]).all()


def test_exposure_log_has_duplicates_and_late_rows(world: Frames) -> None:
    for name in WORLDS:
        log = world[f"{name}_exposure_log"]
        assert 0.0 < log["event_id"].duplicated().mean() < 0.06
        is_late = log["ingested_at"] - log["exposed_at"] > pd.Timedelta(days=1)
        assert 0.0 < is_late.mean() < 0.05
        exposed = set(log[f"{name}_id"])
        assert 0.5 < len(exposed) / len(world[f"{name}_assignments"]) < 1.0


def test_faults_do_what_they_name(spark: SparkSession, world: Frames) -> None:
    faults = [
        "sample_ratio_mismatch",
        "duplicate_units",
        "crossover",
        "logging_loss",
        "weak_instrument",
        "novelty",
    ]
    frames = _frames(spark, world="subscribers", size=SIZE, seed=7, faults=faults)
    names = [
        "subscriber_assignments",
        "subscriber_exposure_log",
        "subscriber_uptakes",
        "truth_subscriber_effects",
    ]
    faulty = {name: frames[name].toPandas() for name in names}
    key = ["experiment", "subscriber_id"]
    assigned, calm = faulty["subscriber_assignments"], world["subscriber_assignments"]
    assert assigned.duplicated(key).any()
    kept = assigned.drop_duplicates(key)
    assert (kept["variant"] == "control").sum() == (calm["variant"] == "control").sum()
    lost = 1 - (kept["variant"] != "control").sum() / (calm["variant"] != "control").sum()
    assert 0.03 < lost < 0.07
    seen = faulty["subscriber_exposure_log"].groupby(key)["variant"].nunique()
    assert 0.005 < (seen > 1).mean() < 0.04
    assert len(faulty["subscriber_uptakes"]) < 0.5 * len(world["subscriber_uptakes"])
    index = ["design", "estimand", "metric", "term", "scale"]
    at = ("loyalty_rewards", "ate", "minutes", "treatment - control", "absolute")
    faded = faulty["truth_subscriber_effects"].set_index(index)["value"]
    full = world["truth_subscriber_effects"].set_index(index)["value"]
    assert 0.0 < faded[at] < 0.7 * full[at]
