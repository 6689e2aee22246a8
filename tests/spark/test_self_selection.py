"""Units that choose their arm: confounded by what is known of them, with their true effects."""

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from causal.core.errors import SpecError
from transforms.self_selection import self_selected

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
            "y_0": np.where(np.arange(N) % 50 == 1, np.nan, without),
            "y_1": without + 2.0 * days,
        }
    )


def test_choices_follow_the_columns_and_outcomes_the_choices(
    spark: SparkSession, frame: pd.DataFrame
) -> None:
    transform = self_selected(
        unit="unit_id", outcome="minutes", potential=("y_0", "y_1"),
        pull={"days": 1.2, "same": 5.0}, salt="test",
    )  # fmt: skip
    rows = spark.createDataFrame(frame).repartition(3)
    is_odd = F.col("days").isNull() & (F.col("unit_id") % 200 == 0)
    rows = rows.withColumn("days", F.when(is_odd, F.lit(float("nan"))).otherwise(F.col("days")))
    made = rows.transform(transform)
    assert made.columns == [
        "unit_id", "days", "same", "minutes", "is_chosen", "true_effect", "true_propensity",
    ]  # fmt: skip
    found = made.toPandas().set_index("unit_id").sort_index()
    known = frame[frame["y_0"].notna()].set_index("unit_id")
    assert list(found.index) == list(known.index)

    away = (known["days"] - known["days"].mean()) / known["days"].std()
    expected = 1 / (1 + np.exp(-1.2 * away.fillna(0.0)))
    np.testing.assert_allclose(found["true_propensity"], expected, rtol=1e-9)
    chosen = found["is_chosen"] == 1
    scatter = np.sqrt((expected * (1 - expected)).sum())
    assert abs(chosen.sum() - expected.sum()) < 4 * scatter
    np.testing.assert_allclose(found["true_effect"], known["y_1"] - known["y_0"])
    np.testing.assert_allclose(found["minutes"], np.where(chosen, known["y_1"], known["y_0"]))

    naive = found.loc[chosen, "minutes"].mean() - found.loc[~chosen, "minutes"].mean()
    assert naive > 2 * found["true_effect"].mean()
    weight = np.where(chosen, 1 / expected, 1 / (1 - expected))
    by_weight = (
        np.average(found["minutes"][chosen], weights=weight[chosen])
        - np.average(found["minutes"][~chosen], weights=weight[~chosen])
    )  # fmt: skip
    assert by_weight == pytest.approx(found["true_effect"].mean(), abs=6)
    assert found.loc[chosen, "true_effect"].mean() > found["true_effect"].mean()


def test_what_cannot_be_chosen_by_is_refused(spark: SparkSession, frame: pd.DataFrame) -> None:
    with pytest.raises(SpecError, match="nobody chooses"):
        self_selected(
            unit="unit_id", outcome="minutes", potential=("y_0", "y_1"), pull={}, salt="s"
        )
    transform = self_selected(
        unit="unit_id", outcome="minutes", potential=("y_0", "y_1"), pull={"age": 1.0}, salt="s"
    )
    with pytest.raises(SpecError, match="age"):
        spark.createDataFrame(frame.head(3)).transform(transform)
