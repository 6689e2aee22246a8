"""Units that choose their arm: confounded by what is known of them, with their true effects."""

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from causal.core.errors import SpecError
from transforms.columns import SUBSCRIBER_WORLD
from transforms.self_selection import effects, observed, potential, self_selected, study
from transforms.tables import table

N = 8_000


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    days = rng.poisson(9, N).astype(float)
    without = 20.0 * days + rng.normal(0, 30, N)
    return pd.DataFrame(
        {
            "unit_id": np.arange(N),
            "days": np.where(np.arange(N) % 100 == 0, np.nan, days),
            "same": 1.0,
            "minutes": -1.0,
            "minutes_without": np.where(np.arange(N) % 50 == 1, np.nan, without),
            "minutes_treated": without + 2.0 * days,
        }
    )


def test_choices_follow_the_columns_and_outcomes_the_choices(
    spark: SparkSession, frame: pd.DataFrame
) -> None:
    transform = self_selected(
        unit="unit_id", outcomes=["minutes"], pull={"days": 1.2, "same": 5.0}, salt="test"
    )
    rows = spark.createDataFrame(frame).repartition(3)
    is_odd = F.col("days").isNull() & (F.col("unit_id") % 200 == 0)
    rows = rows.withColumn("days", F.when(is_odd, F.lit(float("nan"))).otherwise(F.col("days")))
    made = rows.transform(transform)
    assert made.columns == [
        "unit_id", "days", "same", "minutes", "minutes_without", "minutes_treated", "propensity",
        "is_chosen",
    ]  # fmt: skip
    found = made.toPandas().set_index("unit_id").sort_index()
    known = frame[frame["minutes_without"].notna()].set_index("unit_id")
    assert list(found.index) == list(known.index)

    away = (known["days"] - known["days"].mean()) / known["days"].std()
    expected = 1 / (1 + np.exp(-1.2 * away.fillna(0.0)))
    np.testing.assert_allclose(found["propensity"], expected, atol=1e-8)
    chosen = found["is_chosen"]
    scatter = np.sqrt((expected * (1 - expected)).sum())
    assert abs(chosen.sum() - expected.sum()) < 4 * scatter
    np.testing.assert_allclose(
        found["minutes"], np.where(chosen, known["minutes_treated"], known["minutes_without"])
    )

    effect = known["minutes_treated"] - known["minutes_without"]
    naive = found.loc[chosen, "minutes"].mean() - found.loc[~chosen, "minutes"].mean()
    assert naive > 2 * effect.mean()
    weight = np.where(chosen, 1 / expected, 1 / (1 - expected))
    by_weight = (
        np.average(found["minutes"][chosen], weights=weight[chosen])
        - np.average(found["minutes"][~chosen], weights=weight[~chosen])
    )  # fmt: skip
    assert by_weight == pytest.approx(effect.mean(), abs=6)
    assert effect[chosen].mean() > effect.mean()


def test_what_cannot_be_chosen_by_is_refused(spark: SparkSession, frame: pd.DataFrame) -> None:
    transform = self_selected(unit="unit_id", outcomes=["minutes"], pull={"age": 1.0}, salt="s")
    with pytest.raises(SpecError, match="age"):
        spark.createDataFrame(frame.head(3)).transform(transform)


@pytest.mark.parametrize("n_partitions", [1, 5])
def test_a_study_and_its_true_effects(spark: SparkSession, n_partitions: int) -> None:
    """Against numpy; units of another trial, and those without a potential outcome, are not in."""
    units, truth = small_world()
    made = spark.createDataFrame(units).repartition(n_partitions).transform(
        study(world=SUBSCRIBER_WORLD, truth=spark.createDataFrame(truth))
    )  # fmt: skip
    seen = observed(made, world=SUBSCRIBER_WORLD)
    hidden = potential(made, world=SUBSCRIBER_WORLD)
    assert set(seen.columns) == set(table("subscriber_choices").columns)
    assert set(hidden.columns) == set(table("truth_subscriber_choices").columns)

    kept = hidden.toPandas().set_index("unit_id").sort_index()
    wide = truth[truth["experiment"] == "ad_free"].pivot(
        index="subscriber_id", columns="variant", values="minutes"
    )
    wide = wide.dropna(subset=["control", "full"])
    assert list(kept.index) == list(wide.index)
    np.testing.assert_array_equal(kept["minutes_without"], wide["control"])
    np.testing.assert_array_equal(kept["minutes_treated"], wide["full"])
    rows = seen.toPandas().set_index("unit_id").sort_index()
    chosen = rows["is_chosen"]
    np.testing.assert_array_equal(rows["minutes"], np.where(chosen, wide["full"], wide["control"]))

    found = effects(hidden, world=SUBSCRIBER_WORLD)
    assert set(found.columns) == set(table("truth_subscriber_choice_effects").columns)
    values = found.toPandas().set_index(["metric", "estimand"])["value"]
    effect, chance = (wide["full"] - wide["control"]).astype(float), kept["propensity"]
    expected = {
        "ate": effect.mean(), "att": effect[chosen].mean(),
        "overlap": np.average(effect, weights=chance * (1 - chance)),
    }  # fmt: skip
    assert values["minutes"].to_dict() == pytest.approx(expected, abs=1e-8)


def small_world() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Units of two trials, and their outcomes under each of three arms."""
    rng = np.random.default_rng(9)
    n = 400
    days = rng.poisson(8, n)
    units = pd.DataFrame(
        {
            "experiment": np.where(np.arange(n) % 5 == 0, "other", "ad_free"),
            "unit_id": np.arange(n), "region": "r", "country": "c", "tier": "basic",
            "channel": "web", "tenure_days": rng.integers(1, 900, n), "pre_minutes": 30 * days,
            "pre_sessions": days, "pre_revenue": 1.5, "pre_active_days": days,
        }
    )  # fmt: skip
    arms = [
        pd.DataFrame(
            {
                "experiment": units["experiment"], "subscriber_id": units["unit_id"],
                "variant": arm, "minutes": 30 * days + factor * days, "sessions": days,
                "revenue": 2.25,
            }
        )
        for arm, factor in {"control": 0, "light": 1, "full": 3}.items()
    ]  # fmt: skip
    truth = pd.concat(arms, ignore_index=True)
    is_lost = (truth["subscriber_id"] == 7) & (truth["variant"] == "full")
    return units, truth[~is_lost]
