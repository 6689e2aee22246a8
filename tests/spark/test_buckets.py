"""Hash buckets: Spark and pandas put every value into the same one, and sum the same rows."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from causal.core.buckets import bucket_numbers, value_hashes
from causal.core.errors import SpecError
from causal.core.frames import (
    BUCKET,
    Column,
    Condition,
    Constant,
    GramRequest,
    HashBucket,
    linear,
)
from causal.core.gram import grams
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import check_columns, run
from causal.core.spec import validate
from causal.core.stored_gram import StoredGramEngine
from causal.experiments import ab
from transforms.gram import SparkEngine
from transforms.stored_frames import answers_of, rows_of
from transforms.terms import bucketed

pytestmark = pytest.mark.spark

WHOLE = [0, 1, -1, 7, 2**31, -(2**40), 2**53 + 1, 2**63 - 1, -(2**63), None]
TEXTS = ["", "a", "7", "Zürich ✓", *("0123456789" * 8)[:79:6], "x" * 31, "x" * 32, "x" * 97, None]
N_BUCKETS = 1009


def spark_buckets(
    spark: SparkSession, values: list[object], kind: str, *, salt: int = 5
) -> list[object]:
    rows = spark.createDataFrame(list(enumerate(values)), f"position INT, value {kind}")
    found = bucketed(rows, HashBucket("value", N_BUCKETS, salt))
    return [row[BUCKET] for row in found.orderBy("position").collect()]


def pandas_buckets(values: "pd.Series[object]", *, salt: int = 5) -> list[object]:
    numbers = bucket_numbers(values, HashBucket("value", N_BUCKETS, salt))
    return [None if number < 0 else int(number) for number in numbers]


@pytest.mark.parametrize(
    ("values", "kind", "dtype"),
    [
        (WHOLE, "BIGINT", "Int64"),
        (WHOLE, "BIGINT", "object"),
        ([0, 1, -5, None], "INT", "float64"),
        ([0.0, -0.0, 1.0, 1e9, 0.5, -2.25, 1e300, None], "DOUBLE", "float64"),
        ([0.5, 3.0, None], "FLOAT", "float64"),
        ([True, False, None], "BOOLEAN", "boolean"),
        (TEXTS, "STRING", "object"),
        (TEXTS, "STRING", "category"),
    ],
)
def test_the_same_bucket(spark: SparkSession, values: list[object], kind: str, dtype: str) -> None:
    expected = pandas_buckets(pd.Series(values, dtype=dtype))
    assert spark_buckets(spark, values, kind) == expected
    assert expected[-1] is None


def test_decimals(spark: SparkSession) -> None:
    values = [Decimal(3), Decimal("0.5"), Decimal(-12), None]
    as_numbers = pd.Series([3.0, 0.5, -12.0, np.nan])
    assert spark_buckets(spark, list(values), "DECIMAL(20, 4)") == pandas_buckets(as_numbers)


def test_the_hash_is_sparks(spark: SparkSession) -> None:
    """Without `bucketed`: the function as anyone may call it in SQL."""
    text = spark.range(1).select(
        F.xxhash64(F.lit(9).cast("bigint"), F.lit("household-17")).alias("text"),
        F.xxhash64(F.lit(9).cast("bigint"), F.lit(17).cast("bigint")).alias("number"),
    )
    row = text.collect()[0]
    assert value_hashes(pd.Series(["household-17"]), salt=9).view(np.int64)[0] == row["text"]
    assert value_hashes(pd.Series([17]), salt=9).view(np.int64)[0] == row["number"]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    n = 3000
    home = rng.integers(0, 700, n)
    y = 1e6 + rng.lognormal(0, 1.5, n)
    return pd.DataFrame(
        {
            "unit_id": [f"user-{i}" for i in range(n)],
            "home": np.where(rng.random(n) < 0.01, np.nan, home),
            "variant": np.array(["a", "b"])[home % 2],
            "tier": rng.choice(["x", "y", "z"], n),
            "y": np.where(rng.random(n) < 0.02, np.nan, y),
            "x": rng.normal(size=n),
        }
    )  # fmt: skip


Y, X = Column("y"), Column("x")
CENTRED = linear([(Y, 1.0), (Constant(), -1e6)])


@pytest.mark.parametrize(
    "request_",
    [
        GramRequest(terms=(Y, X), by=("variant",), bucket=HashBucket("unit_id", 50)),
        GramRequest(terms=(Y, X), by=("variant", "tier"), bucket=HashBucket("home", 20, 3)),
        GramRequest(terms=(Y,), bucket=HashBucket("home", 20, 3), weight=Constant(2.0)),
        GramRequest(
            terms=(Constant(), CENTRED, X),
            by=("variant",),
            bucket=HashBucket("home", 40),
            summed_by=("home",),
            where=(Condition("tier", ("x", "y")),),
        ),
        GramRequest(terms=(Constant(), CENTRED), summed_by=("home", "tier")),
    ],
    ids=["units", "strata and homes", "weights", "sums", "sums in one"],
)
def test_both_engines_sum_the_same_rows(
    spark: SparkSession, rows: pd.DataFrame, request_: GramRequest
) -> None:
    plain = rows.astype(object).where(rows.notna(), None)
    df = spark.createDataFrame(
        list(plain.itertuples(index=False, name=None)),
        "unit_id STRING, home DOUBLE, variant STRING, tier STRING, y DOUBLE, x DOUBLE",
    )
    answer = SparkEngine(df)(request_)
    ours, theirs = grams(answer, request_), grams(PandasEngine(rows)(request_), request_)
    assert set(ours) == set(theirs)
    for key, one in theirs.items():
        other = ours[key]
        assert (other.n, other.n_missing) == (one.n, one.n_missing), key
        np.testing.assert_allclose(other.mean, one.mean, rtol=1e-11, atol=1e-12)
        scale = np.sqrt(np.outer(np.diag(one.cross), np.diag(one.cross))) + 1e-6
        assert np.all(np.abs(other.cross - one.cross) <= 1e-8 * scale), key


def test_buckets_survive_the_stored_frame(rows: pd.DataFrame) -> None:
    by_bucket = GramRequest(terms=(Y, X), by=("variant",), bucket=HashBucket("unit_id", 50))
    frame = PandasEngine(rows)(by_bucket)
    stored = rows_of(by_bucket, frame, analysis="a", source="t", source_identity="1")
    (found,) = answers_of([pd.DataFrame(stored)])
    assert found[0] == by_bucket
    ours, theirs = grams(found[1], by_bucket), grams(frame, by_bucket)
    assert set(ours) == set(theirs)
    whole = GramRequest(terms=(Y, X), by=("variant",))
    pooled = grams(StoredGramEngine([found])(whole), whole)
    for key, one in grams(PandasEngine(rows)(whole), whole).items():
        assert (pooled[key].n, pooled[key].n_missing) == (one.n, one.n_missing)
        np.testing.assert_allclose(pooled[key].cross, one.cross, rtol=1e-9)


def test_dates_are_not_hashed() -> None:
    with pytest.raises(SpecError, match="cannot be hashed"):
        check_columns(GramRequest(terms=(), bucket=HashBucket("day", 10)), {"day": "date"})


CLUSTERED = {
    "cluster": "home", "cluster_correction": "cr1", "degrees_of_freedom": "clusters_minus_one",
}  # fmt: skip


@pytest.mark.parametrize("design", [{}, CLUSTERED, {"strata": ["tier"]}], ids=str)
def test_both_engines_give_the_same_certificate(
    spark: SparkSession, rows: pd.DataFrame, design: dict[str, object]
) -> None:
    whole = rows.dropna(subset=["home"])
    options = {
        "unit": "unit_id", "variant": "variant", "control": "a",
        "metrics": [{"name": "y", "type": "mean", "column": "y", "covariates": ["x"]}],
        "certificate": {"replications": 1000, "buckets": 2000}, **design,
    }  # fmt: skip
    data = {"name": "c", "source": {"table": "t"}, "method": "ab", "options": options}
    spec = validate(ab.SPEC, data)
    plain = whole.astype(object).where(whole.notna(), None)
    df = spark.createDataFrame(
        list(plain.itertuples(index=False, name=None)),
        "unit_id STRING, home DOUBLE, variant STRING, tier STRING, y DOUBLE, x DOUBLE",
    )
    found, expected = (
        run(ab.estimate(spec), engine).tables["certificate"]
        for engine in (SparkEngine(df), PandasEngine(whole))
    )
    pd.testing.assert_frame_equal(found, expected, rtol=1e-7)
