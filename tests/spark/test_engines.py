"""The Spark engine answers what the pandas engine answers, whatever the rows look like.

Rows come from many random cases that are stacked under the key `case`, so that one aggregation
serves them all.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from causal.core.errors import DataError
from causal.core.frames import (
    Between,
    Clipped,
    Column,
    Condition,
    Constant,
    EventTime,
    Exponential,
    FrameRequest,
    GramRequest,
    HistogramRequest,
    Indicator,
    KeyRequest,
    Logistic,
    MeatRequest,
    PanelGramRequest,
    Product,
    Reciprocal,
    Score,
    SquareRoot,
    StartsIn,
    Term,
    UnitSeen,
    UnitValue,
    linear,
)
from causal.core.gram import Array, gram, grams, key_of, meat, panel_grams
from causal.core.pandas_engine import PandasEngine
from causal.experiments.levels import ROUNDING
from transforms import bounded, within
from transforms import gram as gram_on_spark
from transforms.gram import Limits, SparkEngine

LEVEL = 1e8
N_UNITS, N_PERIODS = 12, 4
SCHEMA = (
    "case STRING, u INT, t INT, g INT, first DOUBLE, v STRING, k BOOLEAN, "
    "y DOUBLE, x INT, z DOUBLE, w DOUBLE, b BOOLEAN, code STRING"
)
NULLABLE = ("v", "k", "y", "x", "z", "w", "b")

Y, X, Z, W, B = (Column(name) for name in ("y", "x", "z", "w", "b"))
CENTRED = linear([(Y, 1.0), (Constant(), -LEVEL)])
POST = EventTime("t", "first", low=0)


def case_rows(number: int, *, seed: int, gaps: float, lost: float) -> pd.DataFrame:
    """A panel of units with nulls (`gaps`: share of them) and absent rows (`lost`)."""
    rng = np.random.default_rng([seed, number])
    n = N_UNITS * N_PERIODS
    u, t = np.repeat(np.arange(N_UNITS), N_PERIODS), np.tile(np.arange(N_PERIODS), N_UNITS)
    start = np.array([np.nan, 1.0, 3.0])[rng.integers(0, 3, N_UNITS)]
    frame = pd.DataFrame(
        {
            "case": f"case {number}", "u": u + 100 * number, "t": t, "g": u % 5, "first": start[u],
            "v": rng.choice(["a", "b", "c'`\\"], n), "k": rng.uniform(size=n) < 0.5,
            "y": LEVEL + rng.normal(size=n), "x": rng.integers(-3, 9, n), "z": rng.normal(size=n),
            "w": rng.uniform(0.2, 3, n), "b": rng.uniform(size=n) < 0.3,
            "code": (u % 3).astype(str),
        }
    ).astype({"k": "boolean", "x": "Int64", "b": "boolean"})  # fmt: skip
    for name in NULLABLE:
        frame[name] = frame[name].mask(rng.uniform(size=n) < gaps)
    return frame[rng.uniform(size=n) >= lost]


def stacked(*, seed: int, gaps: float, lost: float, n_cases: int = 4) -> pd.DataFrame:
    cases = [case_rows(number, seed=seed, gaps=gaps, lost=lost) for number in range(n_cases)]
    return pd.concat(cases, ignore_index=True)


def on_spark(spark: SparkSession, frame: pd.DataFrame) -> DataFrame:
    """Missing values as nulls: in Spark a NaN is a number."""
    plain = frame.astype(object).where(frame.notna(), None)
    return spark.createDataFrame(list(plain.itertuples(index=False, name=None)), SCHEMA)


def tolerance(mean: Array, cross: Array, total: float) -> Array:
    """1e-9 of the spread, and what a mean stored as a double costs.

    Spark takes one shift for all keys, so the mean is the largest that the term has in any.
    """
    spread = np.sqrt(np.maximum(np.diag(cross), 0.0))
    rounding = 16 * np.finfo(np.float64).eps * np.abs(mean)
    half = np.outer(rounding * np.sqrt(total), spread)
    return (
        1e-9 * (np.outer(spread, spread) + 1.0)
        + half
        + half.T
        + total * np.outer(rounding, rounding)
    )


def assert_grams_agree(found: pd.DataFrame, expected: pd.DataFrame, request: GramRequest) -> None:
    ours, theirs = grams(found, request), grams(expected, request)
    largest = np.max([np.abs(one.mean) for one in theirs.values()], axis=0) if theirs else None
    assert set(ours) == set(theirs)
    for key, one in theirs.items():
        other = ours[key]
        assert (other.n, other.n_missing, other.n_units) == (one.n, one.n_missing, one.n_units), key
        assert other.sum_weights == pytest.approx(one.sum_weights, rel=1e-12)
        np.testing.assert_allclose(
            other.mean, one.mean, rtol=1e-12, atol=1e-12 * (1 + largest.max(initial=0.0))
        )
        allowed = tolerance(largest, one.cross, one.sum_weights)
        assert np.all(np.abs(other.cross - one.cross) <= allowed), key


def assert_meats_agree(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    ours, theirs = meat(found)[0], meat(expected)[0]
    counts = ["n", "n_missing", "n_clusters"]
    assert found[counts].iloc[0].tolist() == expected[counts].iloc[0].tolist()
    spread = np.sqrt(np.diag(theirs))
    assert np.all(np.abs(ours - theirs) <= 1e-8 * (np.outer(spread, spread) + 1e-3))


def assert_panels_agree(
    found: pd.DataFrame, expected: pd.DataFrame, request: PanelGramRequest
) -> None:
    ours, theirs = panel_grams(found, request), panel_grams(expected, request)
    assert len(ours) == len(theirs)
    for other, one in zip(ours, theirs, strict=True):
        assert (other.first_treated_period, other.key) == (one.first_treated_period, one.key)
        assert (other.n, other.n_incomplete, other.n_missing) == (
            one.n, one.n_incomplete, one.n_missing,
        )  # fmt: skip
        np.testing.assert_array_equal(other.periods, one.periods)
        np.testing.assert_allclose(other.mean, one.mean, rtol=1e-12)
        assert np.all(
            np.abs(other.cross - one.cross) <= tolerance(one.mean, one.cross, float(one.n))
        )


def assert_histograms_agree(
    found: pd.DataFrame, expected: pd.DataFrame, request: HistogramRequest
) -> None:
    ours, theirs = (
        {key_of(row, request.by): row for row in frame.to_dict("records")}
        for frame in (found, expected)
    )
    assert set(ours) == set(theirs)
    for key, row in theirs.items():
        assert (ours[key]["n"], ours[key]["n_missing"]) == (row["n"], row["n_missing"]), key
        for name in ("bins", "counts", "lowest", "highest"):
            np.testing.assert_array_equal(ours[key][name], row[name])


def assert_agree(request: FrameRequest, spark_engine: SparkEngine, rows: pd.DataFrame) -> None:
    found, expected = spark_engine(request), PandasEngine(rows)(request)
    assert list(found.columns) == list(expected.columns)
    match request:
        case GramRequest():
            assert_grams_agree(found, expected, request)
        case MeatRequest():
            assert_meats_agree(found, expected)
        case PanelGramRequest():
            assert_panels_agree(found, expected, request)
        case HistogramRequest():
            assert_histograms_agree(found, expected, request)
        case KeyRequest():
            assert found.iloc[0].to_dict() == expected.iloc[0].to_dict()


UNIT_MEAN = Product(
    (Reciprocal(Clipped(linear([(UnitSeen(0), 1.0), (UnitSeen(1), 1.0)]), low=1.0)),
     linear([(UnitValue(0), 1.0), (UnitValue(1), 1.0)]))
)  # fmt: skip
START = linear([(Constant(), 1.0), (StartsIn(2.0), -0.5)])
PERIODS = tuple(Indicator("t", t) for t in (1, 2, 3))
LEVELS = tuple(Indicator("v", level) for level in ("a", "b", "c'`\\"))
GROUPS = (*(Indicator("g", g) for g in range(5)), *LEVELS)
CELLS = tuple(Product((group, period)) for group in GROUPS for period in PERIODS)
MIXED = linear([(POST, 2.0), (LEVELS[0], -1.0), (Constant(), 0.5)])
SCORES = (Score(X, CENTRED), Score(POST, CENTRED), Score(Product((B, Z)), X))
FIXED: Mapping[str, FrameRequest] = {
    "all kinds of terms": GramRequest(
        terms=(Y, X, B, POST, Constant(), Indicator("v", "a"), EventTime("t", "first", high=-1))
    ),
    "weighted by null keys": GramRequest(terms=(Y, X), by=("v", "k", "first"), weight=W),
    "counts": GramRequest(terms=(), by=("k",)),
    "weighted counts": GramRequest(terms=(), by=("v",), weight=W),
    "quotes in a level": GramRequest(terms=(Indicator("v", "c'`\\"), X)),
    "a number as text": GramRequest(
        terms=(Indicator("code", 1), Y), where=(Condition("code", (1, "2")),)
    ),
    "a text as number": GramRequest(terms=(Indicator("g", "3"), Indicator("g", "north"), Z)),
    "within units": GramRequest(terms=(Y, X, POST, Indicator("t", 2)), by=("case",), absorb="u"),
    "weighted within": GramRequest(
        terms=(Y, X, POST), absorb="u", weight=W, where=(Condition("g", (0, 3)),)
    ),
    "many terms": GramRequest(terms=(*CELLS, Y, X, POST), by=("v", "k"), weight=W),
    "many terms of nothing": GramRequest(
        terms=(*CELLS, Y, X, Z), by=("k",), where=(Condition("v", ("unseen",)),)
    ),
    "many sums": GramRequest(terms=(*CELLS, X, POST, Z), by=("case",), summed_by=("g",), weight=W),
    "many scores": MeatRequest(scores=tuple(Score(t, CENTRED) for t in (*CELLS, *PERIODS, X))),
    "many dummies within units": GramRequest(
        terms=(*PERIODS, Y, *CELLS, X, POST), by=("case", "first"), absorb="u"
    ),
    "dummies that change, weighted": GramRequest(
        terms=(*CELLS, *LEVELS, Z, EventTime("t", "first", low=-1, high=0), MIXED),
        absorb="u", weight=W, where=(Condition("g", (0, 3)),),
    ),
    "blocks of single units": GramRequest(
        terms=(*CELLS, *PERIODS, Y, Product((Z, POST))), by=("u", "case"), absorb="u"
    ),
    "many others within units": GramRequest(
        terms=(*CELLS, *(Product((X, period)) for period in PERIODS), Y, Z, B), absorb="u"
    ),
    "robust": MeatRequest(scores=SCORES),
    "robust weighted": MeatRequest(scores=SCORES, weight=W, where=(Condition("b", (False,)),)),
    "clustered by two": MeatRequest(scores=SCORES, cluster=("g", "v"), weight=W),
    "within, by unit": MeatRequest(scores=SCORES, cluster=("u",), absorb="u"),
    "within, by cluster": MeatRequest(scores=SCORES, cluster=("case", "g"), absorb="u", weight=W),
    "panel by cohort": PanelGramRequest(
        unit="u", period="t", outcome=Y, first_treated_period="first", by=("case",)
    ),
    "panel by group": PanelGramRequest(unit="u", period="t", outcome=Product((Z, X)), by=("g",)),
    "panel with many products": PanelGramRequest(
        unit="u", period="t", outcome=Z, first_treated_period="first", by=("case",),
        covariates=tuple(Indicator("g", g) for g in range(5)),
    ),
    "paths with gaps": PanelGramRequest(
        unit="u", period="t", outcome=Z, first_treated_period="first", by=("case",), units="seen",
        values=(UNIT_MEAN, Product((UnitSeen(0), UNIT_MEAN)), Product((UnitSeen(1), START)), START),
    ),
    "roots of paths with gaps": PanelGramRequest(
        unit="u", period="t", outcome=Z, first_treated_period="first", units="seen",
        values=(SquareRoot(Product((UNIT_MEAN, UNIT_MEAN))), UnitValue(1)),
    ),
    "no key": KeyRequest(key=("g", "t")),
    "a key": KeyRequest(key=("u", "t")),
    "null keys": KeyRequest(key=("v", "first", "k")),
    "thresholds": GramRequest(
        terms=(Between(X, high=2.0), Between(Product((X, Z)), high=0.1), Y), by=("v",)
    ),
    "threshold scores": MeatRequest(
        scores=(Score(Between(CENTRED, high=0.0), X),), cluster=("g",), weight=W
    ),
    "histogram": HistogramRequest(
        term=X, edges=(-3.0, -1.0, 0.0, 0.5, 2.0, 2.5, 1e300), by=("v", "k")
    ),
    "histogram of all": HistogramRequest(
        term=CENTRED, edges=tuple(np.linspace(-3, 3, 1023)), where=(Condition("g", (0, 3)),)
    ),
    "range": HistogramRequest(term=Z, by=("first",)),
    "histogram of nothing": HistogramRequest(
        term=Y, edges=(LEVEL,), where=(Condition("v", ("unseen",)),)
    ),
    "nothing kept": GramRequest(terms=(Y,), by=("v",), where=(Condition("v", ("unseen",)),)),
}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return stacked(seed=1, gaps=0.1, lost=0.15)


@pytest.fixture(scope="module")
def engine(spark: SparkSession, rows: pd.DataFrame) -> SparkEngine:
    return SparkEngine(on_spark(spark, rows).repartition(3))


@pytest.mark.parametrize("request_", FIXED.values(), ids=FIXED.keys())
def test_engines_agree(engine: SparkEngine, rows: pd.DataFrame, request_: FrameRequest) -> None:
    assert_agree(request_, engine, rows)


def test_columns_have_the_same_kinds(engine: SparkEngine, rows: pd.DataFrame) -> None:
    assert dict(engine.columns) == dict(PandasEngine(rows).columns)


LEAVES: st.SearchStrategy[Term] = st.sampled_from(
    [
        Y, X, Z, B, CENTRED, POST, Constant(2.5), Indicator("v", "a"), Indicator("k", level=True),
        Indicator("x", 2), EventTime("t", "first", low=-2, high=1), Clipped(X, -0.5, 1.0),
        Logistic(linear([(Z, 2.0), (Constant(), -0.5)])), Exponential(Z), Between(Z, -0.5, 0.7),
        Reciprocal(linear([(Constant(), 1.0), (Product((Z, Z)), 0.5)])),
        SquareRoot(Product((Z, Z))),
        Between(X, high=3.0, is_closed=False),
    ]
)  # fmt: skip
SMALL = st.sampled_from([-2.0, 0.5, 3.0])
TERMS: st.SearchStrategy[Term] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: Product(tuple(parts))),
        st.lists(st.tuples(inner, SMALL), min_size=1, max_size=3).map(linear),
    ),
    max_leaves=3,
)
TERM_LISTS = st.lists(TERMS, min_size=1, max_size=4, unique=True).map(tuple)
WEIGHTS = st.sampled_from([None, W, Product((W, W))])
CONDITIONS = st.sampled_from(
    [(), (Condition("v", ("a", "b")),), (Condition("k", (True,)), Condition("g", (0, 1, 2, 3)))]
)
RANDOM: st.SearchStrategy[FrameRequest] = st.one_of(
    st.builds(
        GramRequest,
        terms=TERM_LISTS,
        by=st.sampled_from([("case",), ("case", "v"), ("k", "first")]),
        weight=WEIGHTS,
        where=CONDITIONS,
    ),
    st.builds(
        GramRequest,
        terms=TERM_LISTS,
        by=st.sampled_from([(), ("case",), ("first", "g")]),
        absorb=st.just("u"),
        weight=WEIGHTS,
        where=CONDITIONS,
    ),
    st.builds(
        MeatRequest,
        scores=st.just(SCORES),
        cluster=st.sampled_from([(), ("case", "v"), ("u", "k")]),
        weight=WEIGHTS,
        where=CONDITIONS,
    ),
)


@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    seed=st.integers(2, 2**31),
    gaps=st.sampled_from([0.0, 0.05, 0.4]),
    lost=st.sampled_from([0.0, 0.3]),
    requests=st.lists(RANDOM, min_size=3, max_size=3),
)
def test_engines_agree_on_random_requests(
    spark: SparkSession, seed: int, gaps: float, lost: float, requests: list[FrameRequest]
) -> None:
    rows = stacked(seed=seed, gaps=gaps, lost=lost)
    engine = SparkEngine(on_spark(spark, rows))
    for request in requests:
        assert_agree(request, engine, rows)


REFUSED: Mapping[str, tuple[str, FrameRequest, str]] = {
    "negative weight": (
        "*", GramRequest(terms=(X,), weight=linear([(W, -1.0)])), "weights must not be negative",
    ),
    "repeated row": (
        "* EXCEPT (t), 0 AS t", PanelGramRequest(unit="u", period="t", outcome=Y),
        "more than one row for the same u and t",
    ),
    "changing cohort": (
        "* EXCEPT (first), CAST(t AS DOUBLE) AS first",
        PanelGramRequest(unit="u", period="t", outcome=Y, first_treated_period="first"),
        "first must not change within u",
    ),
    "cohort sometimes null": (
        "* EXCEPT (first), IF(t = 2, NULL, 1.0D) AS first",
        PanelGramRequest(unit="u", period="t", outcome=Y, first_treated_period="first"),
        "first must not change within u",
    ),
    "unit in two clusters": (
        "*", MeatRequest(scores=SCORES, cluster=("t",), absorb="u"), "a u must lie in one cluster",
    ),
    "within without clusters": (
        "*", MeatRequest(scores=SCORES, absorb="u"), "scores within a unit need clusters",
    ),
    "panel without rows": (
        "*",
        PanelGramRequest(unit="u", period="t", outcome=Y, where=(Condition("v", ("unseen",)),)),
        "no row has an outcome, a unit and a period",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("select", "request_", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_rows_that_cannot_carry_a_request(
    spark: SparkSession, rows: pd.DataFrame, select: str, request_: FrameRequest, says: str
) -> None:
    df = on_spark(spark, rows)
    name = f"rows_{abs(hash(select))}"
    df.createOrReplaceTempView(name)

    with pytest.raises(DataError, match=says):
        SparkEngine(spark.sql(f"SELECT {select} FROM {name}"))(request_)


def test_many_scores_of_nothing_are_none(engine: SparkEngine) -> None:
    scores = tuple(Score(cell, CENTRED) for cell in (*CELLS, *PERIODS))
    answer = engine(MeatRequest(scores=scores, where=(Condition("v", ("unseen",)),)))

    matrix, n_clusters = meat(answer)
    assert (answer["n"].iloc[0], n_clusters) == (0, 0)
    np.testing.assert_array_equal(matrix, np.zeros((27, 27)))


def test_dummies_that_are_constant_within_units_vary_by_nothing(engine: SparkEngine) -> None:
    kinds = tuple(Indicator("g", g) for g in range(5))
    request = GramRequest(terms=(*kinds, *CELLS, *PERIODS, Z), absorb="u", weight=W)
    cross = gram(engine(request), request).cross

    np.testing.assert_array_equal(np.diag(cross)[:5], np.zeros(5))
    assert (np.diag(cross)[5:] > 0).all()


@pytest.mark.parametrize("most", [within.MAX_CELLS, 3])
def test_ids_that_are_one_double_are_told_apart_within_units(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(within, "MAX_CELLS", most)
    rng = np.random.default_rng(5)
    ids = 23_842_500_000_000_010 + np.arange(18)
    rows = pd.DataFrame(
        {"u": np.repeat(np.arange(40), 6), "r": rng.choice(ids, 240), "z": rng.normal(size=240)}
    )
    terms = (*(Indicator("r", int(number)) for number in ids), Column("z"))
    request = GramRequest(terms=terms, absorb="u")

    found = gram(SparkEngine(spark.createDataFrame(rows))(request), request)
    right = gram(PandasEngine(rows)(request), request)

    np.testing.assert_allclose(found.cross, right.cross, atol=1e-10)
    np.testing.assert_allclose(found.mean, right.mean, rtol=1e-12)


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_no_nulls(spark: SparkSession, rows: pd.DataFrame, bad: str) -> None:
    df = on_spark(spark, rows).selectExpr(
        "* EXCEPT (y)", f"IF(u = 101 AND t = 1, DOUBLE('{bad}'), 1.0D + t) AS y"
    )
    engine = SparkEngine(df)
    moments = GramRequest(terms=(Y, X), by=("case",))
    panel = PanelGramRequest(unit="u", period="t", outcome=Y)

    with pytest.raises(DataError, match="NaN or infinite values; given: y"):
        grams(engine(moments), moments)
    with pytest.raises(DataError, match="NaN or infinite values; given: y"):
        panel_grams(engine(panel), panel)
    asked = HistogramRequest(term=Y, edges=(0.5, 2.0, 3.0))
    top = float(engine(asked)["highest"].iloc[0][-1])
    low = float(engine(asked)["lowest"].iloc[0][0])
    assert not (np.isfinite(top) and np.isfinite(low))
    with pytest.raises(DataError, match="score is not finite"):
        meat(engine(MeatRequest(scores=(Score(Constant(), Y),), cluster=("case",))))


def test_a_key_that_makes_an_answer_too_large_is_named(engine: SparkEngine) -> None:
    small = SparkEngine(engine._df, limits=Limits(max_rows=9))

    with pytest.raises(
        DataError, match=r"by case, u .*given: about 4\d values of u, about 4 values of case"
    ):
        small(GramRequest(terms=(Y,), by=("case", "u")))


def test_limits_count_bytes_too() -> None:
    limits = Limits(max_rows=1000, max_bytes=8 * 100 * 7)

    assert limits.rows(7) == 100
    assert limits.rows(1) == 700
    assert limits.rows(10**6) == 1


def test_a_backtick_in_a_name_is_refused(spark: SparkSession) -> None:
    df = spark.sql("SELECT 1 AS `a``b`")

    with pytest.raises(DataError, match="must not hold a backtick"):
        SparkEngine(df)(GramRequest(terms=(Column("a`b"),)))


def test_names_with_dots_and_blanks(spark: SparkSession) -> None:
    df = spark.sql("SELECT id AS `a.b c`, id % 2 AS `select`, 'x' AS `k_y`, id AS w FROM range(6)")
    request = GramRequest(terms=(Column("a.b c"), Column("w")), by=("select", "k_y"))
    found = grams(SparkEngine(df)(request), request)

    assert {key: list(item.mean) for key, item in found.items()} == {
        (0, "x"): [2.0, 2.0],
        (1, "x"): [3.0, 3.0],
    }


def test_keys_with_dots(spark: SparkSession) -> None:
    rng = np.random.default_rng(5)
    unit = np.repeat(np.arange(12), 3)
    frame = pd.DataFrame(
        {
            "u.x": unit, "c.x": np.array(["p", "q", "r"])[unit % 3], "f.x": unit % 2 * 2.0,
            "t": np.tile(np.arange(3), 12), "y": rng.normal(size=36), "x": rng.normal(size=36),
        }
    )  # fmt: skip
    on = SparkEngine(spark.createDataFrame(frame)), PandasEngine(frame)

    keys = [engine(KeyRequest(key=("u.x", "f.x"))).iloc[0] for engine in on]
    assert list(keys[0]) == list(keys[1])
    assert keys[0]["n_duplicated"] == 12
    within = MeatRequest(scores=(Score(X, Y),), cluster=("c.x",), absorb="u.x")
    middles = [meat(engine(within)) for engine in on]
    np.testing.assert_allclose(middles[0][0], middles[1][0], rtol=1e-12)
    assert middles[0][1] == middles[1][1] == 3
    request = PanelGramRequest(
        unit="u.x", period="t", outcome=Y, first_treated_period="f.x", by=("c.x",)
    )
    paths = [
        engine(request).sort_values(["first_treated_period", "c.x"], ignore_index=True)
        for engine in on
    ]
    assert list(paths[0]["n"]) == list(paths[1]["n"])
    np.testing.assert_allclose(list(paths[0]["mean"]), list(paths[1]["mean"]), rtol=1e-12)


def test_columns_may_have_any_name(spark: SparkSession) -> None:
    names = ("given_c0", "GIVEN_B0", "a0", "b0", "t0", "w", "n_used")
    own = ", ".join(f"id * {at + 2} AS {name}" for at, name in enumerate(names))
    df = spark.sql(f"SELECT CAST(id AS DOUBLE) AS x, {own} FROM range(6)")
    clipped = Clipped(linear([(X, 0.25), (Constant(), 0.5)]), low=0.75, high=1.5)
    terms = (clipped, linear([(Column(name), 0.125) for name in names]))
    request = GramRequest(terms=terms, weight=Column("w"))

    found, expected = (
        gram(engine(request), request) for engine in (SparkEngine(df), PandasEngine(df.toPandas()))
    )

    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.cross, expected.cross, rtol=1e-12)


def test_rows_that_are_not_used_divide_by_nothing(spark: SparkSession) -> None:
    df = spark.sql(
        "SELECT * FROM VALUES (1D, .5D, 2D), (2D, .25D, 1D), (CAST(NULL AS DOUBLE), 0D, 1D), "
        "(3D, 0D, CAST(NULL AS DOUBLE)) AS rows(y, z, w)"
    )
    odds = Product((Y, Reciprocal(Z)))
    requests = [
        GramRequest(terms=(odds, Y), weight=W),
        GramRequest(terms=(Y, W), weight=Reciprocal(Z)),
    ]
    engines = SparkEngine(df), PandasEngine(df.toPandas())

    for request in requests:
        found, expected = (gram(engine(request), request) for engine in engines)
        assert found.n == expected.n == 2
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
        np.testing.assert_allclose(found.cross, expected.cross, rtol=1e-12)
    scores = MeatRequest(scores=(Score(odds, W),))
    middles = [meat(engine(scores)) for engine in engines]
    np.testing.assert_allclose(middles[0][0], middles[1][0], rtol=1e-12)


def test_an_expression_too_long_to_compile_is_refused(spark: SparkSession) -> None:
    squares = [Product((side, side)) for side in (linear([(X, c), (Y, 1.0)]) for c in range(2_000))]
    engine = SparkEngine(spark.sql("SELECT 1.0 AS x, 2.0 AS y"))

    with pytest.raises(DataError, match="too long an expression"):
        engine(MeatRequest(scores=(Score(linear([(square, 1.0) for square in squares]), Y),)))


def test_dates_are_compared_as_dates(spark: SparkSession) -> None:
    df = spark.sql("SELECT DATE'2026-01-05' + CAST(id AS INT) AS day, id AS y FROM range(4)")
    day = "2026-01-06"
    request = GramRequest(
        terms=(Y, Indicator("day", day)), where=(Condition("day", (day, "2026-01-08")),)
    )

    assert list(gram(SparkEngine(df)(request), request).mean) == [2.0, 0.5]


def test_whole_numbers_sum_exactly_whatever_the_partitions(spark: SparkSession) -> None:
    df = spark.sql("SELECT id, (id * 7919) % 1001 AS y, 100000000 + id % 13 AS x FROM range(5000)")
    request = GramRequest(terms=(Y, X), by=())
    answers = [SparkEngine(df.repartition(n, "id"))(request).iloc[0] for n in (1, 7)]

    np.testing.assert_array_equal(answers[0]["mean"], answers[1]["mean"])
    np.testing.assert_allclose(answers[0]["cross"], answers[1]["cross"], rtol=1e-13)


@pytest.mark.parametrize(
    ("near", "rtol"),
    [
        (((500.0, 290.0), (1e8, 3.7), (0.5, 0.5)), 1e-12),
        # A hint that is wrong by ten spreads costs two digits; one of no spread, none.
        (((3500.0, 290.0), (1e8 + 40.0, 3.7), (0.5, 0.5)), 1e-10),
        (((500.0, 0.0), (1e8 + 6.0, 0.0), (0.5, 0.0)), 1e-12),
    ],
    ids=["near", "not so near", "no spread"],
)
def test_what_is_known_is_not_looked_at(
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
    near: tuple[tuple[float, float], ...],
    rtol: float,
) -> None:
    df = spark.sql(
        "SELECT id % 3 AS k, (id * 7919) % 1001 AS y, 100000000 + id % 13 AS x, "
        "id % 2 = 0 AS z FROM range(5000)"
    )
    terms = (Y, X, Column("z"))
    collected = counted(monkeypatch)
    hinted = GramRequest(terms=terms, by=("k",), near=near)
    found = SparkEngine(df)(hinted)
    assert len(collected) == 1
    SparkEngine(df)(GramRequest(terms=terms, by=("k",)))
    assert len(collected) == 3

    expected = PandasEngine(df.toPandas())(hinted)
    mine, own = (answer.sort_values("k", ignore_index=True) for answer in (found, expected))
    for name in ("mean", "cross"):
        for left, right in zip(mine[name], own[name], strict=True):
            np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol * 1e4)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[DataFrame]:
    """What the engine collects from now on."""
    collected: list[DataFrame] = []

    def counting(found: DataFrame, **bounds: Any) -> pd.DataFrame:
        collected.append(found)
        return bounded.collect_bounded(found, **bounds)

    monkeypatch.setattr(gram_on_spark, "collect_bounded", counting)
    return collected


WIDE = "1e10 * sin(7 * id)"


@pytest.mark.parametrize(
    ("y", "x"),
    [
        ("(id * 7919) % 1001", "3 * sin(id)"),
        (WIDE, "1e8 + sin(id)"),
        (WIDE, "20261123 + id % 7"),
        ("IF(id % 3 = 0 AND id < 60, 1e12, 0) + sin(id)", "IF(id % 3 = 0, 1e9, -1e9) + cos(id)"),
        ("0", "IF(id % 7 = 0, 1e3, 0)"),
    ],
    ids=["near zero", "far from it", "whole numbers", "keys apart", "zero"],
)
def test_rows_that_are_derived_are_read_once_and_lose_no_digits(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, y: str, x: str
) -> None:
    rows = spark.sql(
        f"SELECT id, id % 3 AS k, CAST({y} AS DOUBLE) AS y, CAST({x} AS DOUBLE) AS x, "
        "IF(id % 11 = 0, NULL, id % 2 = 0) AS z FROM range(5000) UNION ALL "
        "SELECT 6000, 8, 1, 2, NULL UNION ALL SELECT 6001, 9, 1, 2, TRUE"
    )
    df = spark.sql(
        "SELECT k, sum(y) AS y, sum(x) AS x, max(z) AS z FROM {rows} GROUP BY k, id", rows=rows
    )
    collected = counted(monkeypatch)
    request = GramRequest(terms=(Y, X, Column("z"), Product((X, Column("z")))), by=("k",))
    found = grams(SparkEngine(df, is_derived=True)(request), request)
    assert len(collected) == 1

    expected = grams(PandasEngine(df.toPandas())(request), request)
    assert found.keys() == expected.keys() == {(0,), (1,), (2,), (8,), (9,)}
    for key, own in found.items():
        assert (own.n, own.n_missing) == (expected[key].n, expected[key].n_missing)
        assert own.sum_weights == expected[key].sum_weights
        size = np.maximum(np.abs(expected[key].mean), np.sqrt(expected[key].cross.diagonal()))
        np.testing.assert_allclose(
            own.mean, expected[key].mean, rtol=1e-12, atol=1e-12 * size.max()
        )
        spread = np.sqrt(np.maximum(expected[key].cross.diagonal(), 1e-300))
        scale = np.outer(spread, spread)
        # A running mean rounds to digits of its own size, whatever the spread about it.
        far = np.abs(expected[key].mean) * np.sqrt(own.sum_weights) / spread
        lost = 1e-16 * far[spread > 1e-9].max(initial=0.0)
        np.testing.assert_allclose(
            own.cross / scale, expected[key].cross / scale, rtol=0, atol=1e-12 + lost
        )


def test_what_spark_does_not_centre_is_looked_at(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    df = spark.sql("SELECT id, 1e8 + id % 13 AS x, id % 5 AS y FROM range(500)")
    engine, other = SparkEngine(df, is_derived=True), PandasEngine(df.toPandas())
    collected = counted(monkeypatch)
    many = tuple(linear([(X, 1.0), (Y, 0.1 * i)]) for i in range(9))
    requests = {
        GramRequest(terms=(X,), weight=Y): 2,
        GramRequest(terms=many): 2,
        GramRequest(terms=many[:8]): 1,
        GramRequest(terms=(X,), near=((1e8, 3.7),)): 1,
        GramRequest(terms=(X,), crossed="none", by=("y",)): 2,
    }
    for request, n_passes in requests.items():
        collected.clear()
        found, expected = (grams(on(request), request) for on in (engine, other))
        assert len(collected) == n_passes
        for key, own in expected.items():
            np.testing.assert_allclose(found[key].mean, own.mean, rtol=1e-12)
            np.testing.assert_allclose(found[key].cross, own.cross, rtol=1e-9)
    nothing = SparkEngine(df.where("id < 0"), is_derived=True)
    assert nothing(GramRequest(terms=(X,), by=("id",))).empty


@pytest.mark.parametrize("is_derived", [False, True])
def test_constants_are_constant_beside_what_varies(
    spark: SparkSession, *, is_derived: bool
) -> None:
    constants = {"c1": 0.1, "c3": 0.3, "c7": 0.7, "c9": 1.9}
    held = ", ".join(f"{value}D AS {name}" for name, value in constants.items())
    df = spark.sql(f"SELECT {held}, 30 * sin(id) AS y, 1e9 * cos(id) AS z FROM range(5000)")
    request = GramRequest(terms=(Y, Z, *map(Column, constants)))
    own = gram(SparkEngine(df, is_derived=is_derived)(request), request)

    np.testing.assert_allclose(own.mean[2:], list(constants.values()), rtol=1e-12)
    spread = np.sqrt(np.abs(own.cross.diagonal()[2:]) / own.n)
    assert (spread <= ROUNDING * own.mean[2:]).all()


def test_steps_of_the_shift_suit_the_narrowest_column(spark: SparkSession) -> None:
    df = spark.sql(
        "SELECT id % 4 AS k, 1e8 + sin(7 * id) * IF(id % 4 = 0, 1e4, 1) AS x, cos(id) AS z, "
        "1e8 + sin(id) + CASE id % 8 WHEN 0 THEN 1e10 WHEN 4 THEN -1e10 ELSE 0 END AS y "
        "FROM range(0, 8000, 1, 1)"
    )
    request = GramRequest(terms=(Y, X, Z), by=("k",))
    found, expected = (
        grams(engine(request), request) for engine in (SparkEngine(df), PandasEngine(df.toPandas()))
    )
    for key in ((1,), (2,), (3,)):
        np.testing.assert_allclose(
            found[key].cross.diagonal(), expected[key].cross.diagonal(), rtol=1e-12
        )
