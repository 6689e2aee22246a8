"""Fifteen columns of subscribers drawn and written: Delta through the lakehouse, polars to Parquet.

Both draw the same distributions; the numbers differ, because ours are functions of (seed, id,
stream) and the peer's come from numpy's generator.
"""

import datetime as dt
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from bench import data, engine
from bench.harness import Bench, Question, Sides, compare
from jobs.runtime.lakehouse import Lakehouse
from transforms.schema import Field, Table
from transforms.synthetic.randomness import Draws, lookup

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TIERS, PRICES = ("basic", "standard", "premium", "family"), (6.99, 11.99, 15.99, 17.99)
TIER_SHARES = (0.5, 0.3, 0.15, 0.05)
DEVICES, DEVICE_SHARES = ("tv", "mobile", "web"), (0.4, 0.35, 0.25)
N_REGIONS = 60
FIRST_SIGNUP = dt.date(2021, 1, 1)
SIGNUP_DAYS = 1_826
_MEAN_TOLERANCE = 0.1
_BATCH = 1_000_000

TABLE = Table(
    name="bench_subscribers",
    comment="Subscribers of the generation benchmark",
    key=("subscriber_id",),
    checks={},
    fields=tuple(
        Field(name=name, type=kind, comment="Benchmark column")
        for name, kind in (
            ("subscriber_id", "BIGINT"), ("tier", "STRING"), ("region", "INT"),
            ("device", "STRING"), ("signup_on", "DATE"), ("tenure_days", "INT"),
            ("pre_minutes", "DOUBLE"), ("is_treated", "BOOLEAN"), ("is_exposed", "BOOLEAN"),
            ("effect", "DOUBLE"), ("minutes", "DOUBLE"), ("sessions", "INT"),
            ("churn_share", "DOUBLE"), ("is_churned", "BOOLEAN"), ("revenue", "DOUBLE"),
        )
    ),
)  # fmt: skip


def with_spark(session: "SparkSession", *, n_units: int) -> "DataFrame":
    """The fifteen columns as functions of the id."""
    from pyspark.sql import functions as F

    draws = Draws(seed=data.SEED, world="bench")
    ids = ("subscriber_id",)
    last = F.lit(FIRST_SIGNUP + dt.timedelta(days=SIGNUP_DAYS))
    drawn = session.range(n_units).select(
        (F.col("id") + 1).alias("subscriber_id")
    ).select(
        "subscriber_id",
        draws.index("tier", TIER_SHARES, *ids).alias("tier_number"),
        F.floor(draws.uniform("region", *ids) * N_REGIONS).cast("int").alias("region"),
        lookup(DEVICES, draws.index("device", DEVICE_SHARES, *ids)).alias("device"),
        F.floor(draws.uniform("signup", *ids) * SIGNUP_DAYS).cast("int").alias("signup_day"),
        (draws.uniform("arm", *ids) < 0.5).alias("is_treated"),
        draws.uniform("exposure", *ids).alias("exposure"),
        draws.uniform("churn", *ids).alias("churn"),
        *[draws.normal(name, *ids).alias(name) for name in ("level", "mood", "response")],
    )  # fmt: skip
    shaped = drawn.select(
        "*",
        lookup(TIERS, F.col("tier_number")).alias("tier"),
        F.date_add(F.lit(FIRST_SIGNUP), F.col("signup_day")).alias("signup_on"),
        F.exp(5.0 + 0.8 * F.col("level")).alias("pre_minutes"),
        (F.col("is_treated") & (F.col("exposure") < 0.8)).alias("is_exposed"),
        (
            F.lit(0.05)
            + 0.03 * (F.col("tier_number") == 2).cast("double")
            + 0.02 * F.col("response")
        ).alias("effect"),
    )
    lifted = F.when(F.col("is_exposed"), F.col("effect")).otherwise(0.0)
    used = shaped.withColumn(
        "minutes", F.exp(5.0 + 0.56 * F.col("level") + 0.57 * F.col("mood") + lifted)
    ).withColumn(
        "churn_share",
        1.0 / (1.0 + F.exp(2.0 + 0.0027 * (F.col("minutes") - 150.0) + 0.3 * F.col("mood"))),
    )
    price = lookup(PRICES, F.col("tier_number"))
    return used.select(
        "*",
        F.datediff(last, F.col("signup_on")).alias("tenure_days"),
        (F.col("minutes") / 25.0).cast("int").alias("sessions"),
        (F.col("churn") < F.col("churn_share")).alias("is_churned"),
        (price * (1.0 - F.col("churn_share")) + 0.002 * F.col("minutes")).alias("revenue"),
    ).select(*TABLE.columns)


def with_polars(path: Path, *, n_units: int) -> None:
    """The same distributions from numpy's generator, written as Parquet by polars, in batches."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    for number, first in enumerate(range(1, n_units + 1, _BATCH)):
        size = min(_BATCH, n_units + 1 - first)
        batch = _batch(np.random.default_rng([data.SEED, number]), first=first, size=size)
        batch.write_parquet(path / f"part-{number:03}.parquet", compression="zstd")


def _batch(rng: np.random.Generator, *, first: int, size: int) -> pl.DataFrame:
    def choice(shares: tuple[float, ...]) -> np.ndarray:
        limits = np.cumsum(shares)[:-1]
        return np.searchsorted(limits, rng.random(size), side="right").astype(np.uint32)

    tier, device = choice(TIER_SHARES), choice(DEVICE_SHARES)
    level, mood, response = rng.standard_normal((3, size))
    is_treated = rng.random(size) < 0.5
    is_exposed = is_treated & (rng.random(size) < 0.8)
    effect = 0.05 + 0.03 * (tier == 2) + 0.02 * response
    minutes = np.exp(5.0 + 0.56 * level + 0.57 * mood + np.where(is_exposed, effect, 0.0))
    churn_share = 1.0 / (1.0 + np.exp(2.0 + 0.0027 * (minutes - 150.0) + 0.3 * mood))
    signup_day = rng.integers(0, SIGNUP_DAYS, size, dtype=np.int32)
    return pl.DataFrame(
        {
            "subscriber_id": np.arange(first, first + size),
            "tier": pl.Series(TIERS).gather(tier),
            "region": rng.integers(0, N_REGIONS, size, dtype=np.int32),
            "device": pl.Series(DEVICES).gather(device),
            "signup_on": (signup_day + np.datetime64(FIRST_SIGNUP, "D").astype(np.int32)),
            "tenure_days": SIGNUP_DAYS - signup_day,
            "pre_minutes": np.exp(5.0 + 0.8 * level),
            "is_treated": is_treated,
            "is_exposed": is_exposed,
            "effect": effect,
            "minutes": minutes,
            "sessions": (minutes / 25.0).astype(np.int32),
            "churn_share": churn_share,
            "is_churned": rng.random(size) < churn_share,
            "revenue": np.array(PRICES)[tier] * (1.0 - churn_share) + 0.002 * minutes,
        }
    ).with_columns(pl.col("signup_on").cast(pl.Int32).cast(pl.Date))


def prepare(bench: Bench) -> Sides:
    """Question: rows drawn and written, the earlier ones replaced."""
    session = bench.session()
    n_units = bench.size(10_000_000, small=20_000)
    lakehouse = Lakehouse(
        session=session, settings=engine.settings(bench.data), declared=lambda _name: TABLE
    )
    path = bench.data / "generated_by_polars"

    def ours() -> None:
        lakehouse.write(with_spark(session, n_units=n_units), TABLE.name, run_key="bench")

    def check(_ours: object, _peer: object) -> None:
        """Both wrote all rows, with the same means."""
        mine = lakehouse.read(TABLE.name).selectExpr(
            "count(*)", "avg(minutes)", "avg(revenue)", "avg(int(is_churned))"
        ).collect()[0]  # fmt: skip
        theirs = pl.scan_parquet(path).select(
            pl.len(), *[pl.col(name).mean() for name in ("minutes", "revenue", "is_churned")]
        ).collect().row(0)  # fmt: skip
        np.testing.assert_equal((mine[0], theirs[0]), (n_units, n_units))
        np.testing.assert_allclose(tuple(mine)[1:], theirs[1:], rtol=_MEAN_TOLERANCE)

    return Sides(
        ours=ours,
        peer=lambda: with_polars(path, n_units=n_units),
        check=check,
        rows=n_units,
        notes={"columns": len(TABLE.fields)},
    )


QUESTIONS = (
    Question(
        name="generation",
        work="10 M rows x 15 columns generated and written to Delta",
        peer="polars writing Parquet (drawn by numpy)",
        target=3.0,
        measure=compare(prepare),
    ),
)
