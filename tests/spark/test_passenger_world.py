"""The world of passengers: the same whatever the partitions, and distributed as it says."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import stats

from causal.core.spec import validate
from jobs import generate
from tests.world_tables import check_table
from transforms.synthetic.passengers.mixtures import poisson
from transforms.synthetic.passengers.tables import PASSENGERS, TRIPS, TRUTH_PASSENGERS
from transforms.synthetic.randomness import Draws

pytestmark = pytest.mark.usefixtures("many_small_queries")

TABLES = (PASSENGERS, TRIPS, TRUTH_PASSENGERS)
SIZE = 4_000
MEANS = (0.05, 4.0, 900.0)
Frames = Mapping[str, pd.DataFrame]


def _config(**given: object) -> generate.GenerateConfig:
    assert generate.JOB.defaults is not None
    chosen = {"world": "passengers", "size": SIZE, "seed": 7, **given}
    return validate(generate.GenerateConfig, {**generate.JOB.defaults({}), **chosen})


def _frames(spark: SparkSession, *, n_partitions: int, **given: object) -> Mapping[str, DataFrame]:
    config = _config(**given)
    units = {"passenger_ids": spark.range(0, config.size, 1, n_partitions)}
    return generate.JOB.build(config, units)


@pytest.fixture(scope="module")
def world(spark: SparkSession) -> Frames:
    """The tables of the passengers, collected; those of the vouchers are in `test_vouchers`."""
    made = _frames(spark, n_partitions=2)
    return {table.name: made[table.name].toPandas() for table in TABLES}


def _content(frame: pd.DataFrame) -> tuple[int, int]:
    return len(frame), int(pd.util.hash_pandas_object(frame, index=False).sum())


def test_partitions_do_not_matter_and_the_seed_does(spark: SparkSession, world: Frames) -> None:
    many = _frames(spark, n_partitions=16)["passenger_trips"].toPandas()
    assert _content(many) == _content(world["passenger_trips"])
    other = _frames(spark, n_partitions=2, seed=8)["passengers"].toPandas()
    assert _content(other) != _content(world["passengers"])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_tables_have_unique_keys_and_no_missing_values(table: Any, world: Frames) -> None:
    frame = world[table.name]
    check_table(table, frame)
    assert set(frame["passenger_id"]) <= set(range(1, SIZE + 1))


def _trips(world: Frames) -> pd.DataFrame:
    """Trips with their days since the registration."""
    trips = world["passenger_trips"].merge(world["passengers"], on="passenger_id")
    since = trips["started_at"] - pd.to_datetime(trips["registered_on"])
    return trips.assign(age=since.dt.total_seconds() / 86_400)


def test_trips_are_numbered_in_time_and_lie_in_the_world(world: Frames) -> None:
    trips = _trips(world).sort_values(["passenger_id", "trip_number"])
    assert (trips["age"] >= 0).all()
    assert trips["started_at"].max() < pd.Timestamp("2025-10-13") + pd.Timedelta(days=84 + 56)
    gaps = trips.groupby("passenger_id")["started_at"].diff().dropna()
    assert (gaps >= pd.Timedelta(0)).all()
    assert (trips.groupby("passenger_id")["trip_number"].min() == 1).all()
    weekend = trips["started_at"].dt.dayofweek.isin([4, 5]).mean()
    share = (1.16 + 1.24) / 7
    assert abs(weekend - share) < 5 * (share * (1 - share) / len(trips)) ** 0.5


def test_passengers_who_left_made_their_last_trip_on_that_day(world: Frames) -> None:
    last = world["passenger_trips"].groupby("passenger_id")["started_at"].max().dt.date
    truth = world["truth_passengers"].set_index("passenger_id")
    left = truth["left_on"].dropna()
    assert 0.3 < len(left) / SIZE < 0.9
    assert (left == last.reindex(left.index)).all()
    assert (truth.loc[left.index, "expected_spend_next_30"] == 0).all()
    stays = truth["left_on"].isna()
    assert (truth.loc[stays, "expected_spend_next_30"] > 0).all()


def test_latent_values_have_the_means_of_their_distributions(world: Frames) -> None:
    truth = world["truth_passengers"]
    for name, mean, sd in (
        ("trip_rate", 0.8 / 4, 0.8**0.5 / 4),
        ("leave_probability", 0.9 / 6.9, stats.beta(0.9, 6.0).std()),
        ("mean_fare", 4 * 9 / 4, 4 * stats.invgamma(5, scale=9).std()),
    ):
        assert abs(truth[name].mean() - mean) < 4 * sd / SIZE**0.5, name
        assert truth[name].std() == pytest.approx(sd, rel=0.15), name
    ranks = truth[["trip_rate", "leave_probability", "mean_fare"]].corr("spearman").to_numpy()
    assert np.abs(ranks[np.triu_indices(3, 1)]).max() < 4 / SIZE**0.5


def test_trips_and_fares_are_what_is_expected(world: Frames) -> None:
    """Spend from day 7 to 37 and all trips scatter around the truth without bias."""
    truth = world["truth_passengers"].set_index("passenger_id")
    trips = _trips(world)
    later = trips[trips["age"].between(7, 37, inclusive="left")]
    spend = later.groupby("passenger_id")["fare"].sum().reindex(truth.index).fillna(0.0)
    off = spend - truth["expected_spend_30"]
    assert abs(off.mean()) < 4 * off.std() / SIZE**0.5
    gone = truth["expected_spend_30"] == 0
    assert (spend[gone] == 0).all()
    # Fares scatter around the passenger's own mean, with the coefficient of variation 1 / sqrt(p).
    ratio = trips["fare"] / truth["mean_fare"].reindex(trips["passenger_id"]).to_numpy()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / len(trips) ** 0.5
    assert ratio.std() == pytest.approx(0.5, rel=0.03)


def test_the_platform_tells_of_the_rate_and_the_shares_hold(world: Frames) -> None:
    both = world["passengers"].merge(world["truth_passengers"], on="passenger_id")
    share = (both["platform"] == "ios").mean()
    assert abs(share - 0.45) < 4 * 0.5 / SIZE**0.5
    means = both.groupby("platform")["trip_rate"].mean()
    assert means["ios"] > 1.15 * means["android"]


def test_poisson_draws_have_the_poisson_distribution(spark: SparkSession) -> None:
    draws = Draws(seed=3, world="test")
    means = F.element_at(F.array(*map(F.lit, MEANS)), (F.col("id") % 3 + 1).cast("int"))
    drawn = spark.range(9000).select(means.alias("mean"), draws.uniform("n", "id").alias("u"))
    found = drawn.withColumn("n", poisson(F.col("u"), F.col("mean"))).toPandas()
    for mean, rows in found.groupby("mean"):
        n = np.sort(rows["n"])
        assert abs(n.mean() - mean) < 4 * (mean / 3000) ** 0.5
        assert (n == np.sort(stats.poisson.ppf(rows["u"], mean))).all()
        edges = np.unique(stats.poisson(mean).ppf(np.linspace(0.1, 0.9, 9)))
        below = np.searchsorted(n, edges, side="right") / 3000
        assert np.abs(below - stats.poisson(mean).cdf(edges)).max() < 0.035


def test_uniforms_are_those_of_single_draws(spark: SparkSession) -> None:
    draws = Draws(seed=3, world="test")
    rows = spark.range(5).select("id", draws.uniforms("u", "id", n="id").alias("u")).collect()
    for row in rows:
        expected = draws.few_uniforms("u", row["id"], np.arange(1, row["id"] + 1))
        assert row["u"] == pytest.approx(list(expected), abs=0)
