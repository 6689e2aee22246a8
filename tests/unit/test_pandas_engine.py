"""The reference engine against sums written out by hand."""

import numpy as np
import pandas as pd
import pytest

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
from causal.core.gram import gram, grams, meat, panel_grams, unpack
from causal.core.pandas_engine import PandasEngine, evaluate

Y, X, W, U = Column("y"), Column("x"), Column("w"), Column("u")


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    n = 120
    return pd.DataFrame(
        {
            "u": np.arange(n) // 4, "t": np.arange(n) % 4,
            "g": np.array([np.nan, 1.0, 2.0])[np.arange(n) // 4 % 3],
            "v": np.array(["a", "b"])[np.arange(n) // 4 % 2],
            "y": rng.normal(10, 2, n), "x": rng.integers(0, 5, n), "w": rng.uniform(0.5, 2, n),
            "flag": rng.uniform(size=n) < 0.5,
        }
    )  # fmt: skip


TERMS: list[tuple[Term, list[float]]] = [
    (Column("x"), [1, 2, np.nan]),
    (Column("flag"), [1, 0, 1]),
    (Constant(2.5), [2.5, 2.5, 2.5]),
    (Indicator("v", "a"), [1, 0, np.nan]),
    (Indicator("x", 2), [0, 1, np.nan]),
    (Indicator("flag", level=True), [1, 0, 1]),
    (Indicator("v", "unseen"), [0, 0, np.nan]),
    (EventTime("t", "g", low=0), [1, 0, 0]),
    (EventTime("t", "g", high=-1), [0, 1, 0]),
    (EventTime("t", "g", low=1, high=2), [1, 0, 0]),
    (EventTime("t", "g"), [1, 1, 0]),
    (Product((Column("x"), Indicator("v", "b"))), [0, 2, np.nan]),
    (Product((Column("x"), Column("x"), Constant(3.0))), [3, 12, np.nan]),
    (linear([(Column("x"), 2.0), (Column("flag"), -1.0)]), [1, 4, np.nan]),
    (Clipped(Column("x"), low=1.5), [1.5, 2, np.nan]),
    (Clipped(Column("x"), high=1.5), [1, 1.5, np.nan]),
    (Clipped(Product((Column("x"), Column("x"))), low=2, high=3), [2, 3, np.nan]),
    (Clipped(Column("x")), [1, 2, np.nan]),
    (Between(Column("x"), high=1.0), [1, 0, np.nan]),
    (Between(Product((Column("x"), Column("x"))), high=4.0), [1, 1, np.nan]),
    (Exponential(Product((Column("x"), Constant(0.0)))), [1, 1, np.nan]),
    (Reciprocal(linear([(Column("x"), 2.0), (Constant(), 2.0)])), [0.25, 1 / 6, np.nan]),
    (SquareRoot(Product((Column("x"), Column("x")))), [1, 2, np.nan]),
    (Logistic(linear([(Column("x"), 8000.0), (Constant(), -12000.0)])), [0, 1, np.nan]),
    (Between(Column("x"), low=1, high=2), [1, 1, np.nan]),
    (Between(Column("x"), low=1, high=2, is_closed=False), [1, 0, np.nan]),
    (Between(Column("x"), low=1.5), [0, 1, np.nan]),
    (Between(Column("x")), [1, 1, np.nan]),
]


@pytest.mark.parametrize(("term", "values"), TERMS, ids=[str(term) for term, _ in TERMS])
def test_terms_row_by_row(term: Term, values: list[float]) -> None:
    frame = pd.DataFrame(
        {
            "x": [1.0, 2.0, np.nan], "v": ["a", "b", None], "flag": [True, False, True],
            "t": [5, 2, 3], "g": [4.0, 3.0, np.nan],
        }
    )  # fmt: skip

    np.testing.assert_array_equal(evaluate(frame, term), np.array(values, dtype=float))


def test_an_unknown_period_is_missing() -> None:
    frame = pd.DataFrame({"t": [np.nan, np.nan], "g": [1.0, np.nan]})

    assert np.isnan(evaluate(frame, EventTime("t", "g", low=0))).all()


def test_nullable_dtypes_are_read() -> None:
    frame = pd.DataFrame(
        {
            "x": pd.array([1, None, 3], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "v": pd.array(["a", None, "b"], dtype="string"),
        }
    )

    np.testing.assert_array_equal(evaluate(frame, Column("x")), [1, np.nan, 3])
    np.testing.assert_array_equal(evaluate(frame, Column("flag")), [1, np.nan, 0])
    np.testing.assert_array_equal(evaluate(frame, Indicator("v", "a")), [1, np.nan, 0])


def test_moments_by_key_and_weight(rows: pd.DataFrame) -> None:
    request = GramRequest(terms=(Y, X), by=("v",), weight=W)
    found = grams(PandasEngine(rows)(request), request)

    for level, part in rows.groupby("v"):
        one = found[(str(level),)]
        values, weights = part[["y", "x"]].to_numpy(float), part["w"].to_numpy()
        mean = np.average(values, axis=0, weights=weights)
        cross = (values - mean).T @ ((values - mean) * weights[:, None])
        assert one.n == len(part)
        assert one.sum_weights == pytest.approx(weights.sum(), rel=1e-12)
        np.testing.assert_allclose(one.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(one.cross, cross, rtol=1e-9)


def test_absorbed_units_are_swept_out(rows: pd.DataFrame) -> None:
    request = GramRequest(terms=(Y, X), absorb="u")
    found = gram(PandasEngine(rows)(request), request)
    within = rows[["y", "x"]] - rows.groupby("u")[["y", "x"]].transform("mean")

    assert found.n_units == 30
    np.testing.assert_allclose(found.cross, within.T @ within, rtol=1e-9)


def test_counts_alone(rows: pd.DataFrame) -> None:
    request = GramRequest(terms=(), by=("v",))
    frame = PandasEngine(rows)(request)

    assert dict(zip(frame["v"], frame["n"], strict=True)) == rows["v"].value_counts().to_dict()


def test_missing_values_are_left_out_and_counted(rows: pd.DataFrame) -> None:
    gaps = rows.astype({"x": float})
    gaps.loc[[3, 8], "x"] = np.nan
    gaps.loc[[8, 9], "w"] = np.nan
    request = GramRequest(terms=(Y, X), weight=W)
    found = gram(PandasEngine(gaps)(request), request)

    assert (found.n, found.n_missing) == (117, 3)


def test_conditions_keep_rows(rows: pd.DataFrame) -> None:
    request = GramRequest(terms=(Y,), where=(Condition("v", ("a",)), Condition("t", (0, 3))))
    kept = rows[(rows["v"] == "a") & rows["t"].isin([0, 3])]

    assert gram(PandasEngine(rows)(request), request).mean[0] == pytest.approx(kept["y"].mean())


def test_the_meat_sums_scores_by_cluster_first(rows: pd.DataFrame) -> None:
    request = MeatRequest(scores=(Score(X, Y), Score(Constant(), Y)), cluster=("v", "t"), weight=W)
    found, n_clusters = meat(PandasEngine(rows)(request))
    scores = pd.DataFrame({"a": rows.x * rows.y * rows.w, "b": rows.y * rows.w})
    sums = scores.groupby([rows["v"], rows["t"]]).sum()

    assert n_clusters == len(sums) == 8
    np.testing.assert_allclose(found, sums.T @ sums, rtol=1e-10)


def test_without_clusters_each_row_is_one(rows: pd.DataFrame) -> None:
    found, n_clusters = meat(PandasEngine(rows)(MeatRequest(scores=(Score(X, Y),))))

    assert n_clusters == len(rows)
    assert found[0, 0] == pytest.approx(((rows.x * rows.y) ** 2).sum())


def test_the_meat_within_units_takes_deviations(rows: pd.DataFrame) -> None:
    request = MeatRequest(scores=(Score(X, Y),), cluster=("v",), absorb="u")
    found, n_clusters = meat(PandasEngine(rows)(request))
    within = rows[["y", "x"]] - rows.groupby("u")[["y", "x"]].transform("mean")
    sums = (within.x * within.y).groupby(rows["v"]).sum()

    assert n_clusters == 2
    assert found[0, 0] == pytest.approx((sums**2).sum(), rel=1e-9)


def test_a_null_cluster_is_missing(rows: pd.DataFrame) -> None:
    gaps = rows.assign(v=rows["v"].where(rows["u"] != 2))
    answer = PandasEngine(gaps)(MeatRequest(scores=(Score(X, Y),), cluster=("v",)))

    assert (answer["n"][0], answer["n_missing"][0], answer["n_clusters"][0]) == (116, 4, 2)


def test_paths_of_complete_units_by_cohort(rows: pd.DataFrame) -> None:
    gaps = rows.drop(index=[0, 4]).assign(y=rows["y"].where(rows.index != 9))
    request = PanelGramRequest(unit="u", period="t", outcome=Y, first_treated_period="g", by=("v",))
    found = {
        (item.first_treated_period, *item.key): item
        for item in panel_grams(PandasEngine(gaps)(request), request)
    }

    assert found[(None, "a")].n_incomplete == 1
    assert found[(1.0, "b")].n_incomplete == 1
    assert (found[(2.0, "a")].n_incomplete, found[(2.0, "a")].n_missing) == (1, 1)
    cohort = gaps[(gaps["g"] == 1.0) & (gaps["v"] == "a")]
    paths = cohort.pivot_table(index="u", columns="t", values="y").dropna()
    one = found[(1.0, "a")]
    assert one.n == len(paths) == 5
    np.testing.assert_allclose(one.mean, paths.mean(), rtol=1e-12)
    np.testing.assert_allclose(one.cross, paths.cov() * (len(paths) - 1), rtol=1e-9)


def test_values_of_paths_with_gaps_are_those_of_the_units_that_are_seen(rows: pd.DataFrame) -> None:
    gaps = rows.drop(index=[0, 4, 5, 6, 7, 13]).assign(y=rows["y"].where(rows.index != 9))
    request = PanelGramRequest(
        unit="u", period="t", outcome=Y, first_treated_period="g", units="seen",
        values=(UnitValue(1), UnitSeen(1), Product((UnitSeen(0), UnitValue(1))), StartsIn(2.0)),
    )  # fmt: skip
    found = panel_grams(PandasEngine(gaps)(request), request)
    paths = gaps.pivot_table(index="u", columns="t", values="y")
    first = gaps.groupby("u")["g"].first()
    assert paths.isna().to_numpy().sum() > 2
    for item in found:
        start = item.first_treated_period
        own = paths[first.isna() if start is None else first == start]
        y, seen = own[1].fillna(0.0), own[1].notna().astype(float)
        values = np.column_stack([y, seen, y * own[0].notna(), np.full(len(y), start == 2.0)])
        assert item.n == len(own)
        assert item.n_incomplete == own.isna().any(axis=1).sum()
        np.testing.assert_allclose(item.mean, values.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(
            item.cross, np.cov(values.T, bias=True) * len(values), rtol=1e-9, atol=1e-12
        )


def test_all_units_that_are_seen_have_values_of_their_own() -> None:
    with pytest.raises(ValueError, match="units seen needs values"):
        PanelGramRequest(unit="u", period="t", outcome=Y, units="seen")


def test_key_violations_are_counted_with_examples() -> None:
    frame = pd.DataFrame({"a": [1, 1, 2, 3, 3, 3], "b": ["x", "x", "y", None, "z", "z"]})
    row = PandasEngine(frame)(KeyRequest(key=("a", "b"))).iloc[0]

    assert (row["n"], row["n_null"], row["n_keys"], row["n_duplicated"]) == (6, 1, 3, 2)
    assert row["examples"] == ["1, x", "3, z"]


def test_at_most_five_examples() -> None:
    frame = pd.DataFrame({"a": list(range(9)) * 2})
    row = PandasEngine(frame)(KeyRequest(key=("a",))).iloc[0]

    assert row["n_duplicated"] == 9
    assert row["examples"] == ["0", "1", "2", "3", "4"]


def test_kinds_of_columns() -> None:
    frame = pd.DataFrame(
        {
            "n": [1], "x": [0.5], "flag": [True], "text": ["a"], "on": [pd.Timestamp("2026-01-05")],
            "span": [pd.Timedelta(days=1)],
        }
    )  # fmt: skip

    assert PandasEngine(frame).columns == {
        "n": "number", "x": "number", "flag": "boolean", "text": "string", "on": "date",
        "span": "other",
    }  # fmt: skip


REFUSED: dict[str, tuple[FrameRequest, str]] = {
    "negative weight": (GramRequest(terms=(Y,), weight=linear([(W, -1.0)])), "not be negative"),
    "repeated row": (PanelGramRequest(unit="u", period="v", outcome=Y), "more than one row"),
    "changing cohort": (
        PanelGramRequest(unit="u", period="t", outcome=Y, first_treated_period="t"),
        "t must not change within u",
    ),
    "split unit": (
        MeatRequest(scores=(Score(X, Y),), cluster=("t",), absorb="u"),
        "a u must lie in one cluster; given: 30 lie in several",
    ),
}


@pytest.mark.parametrize(("request_", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_rows_that_cannot_carry_a_request(
    rows: pd.DataFrame, request_: FrameRequest, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        PandasEngine(rows)(request_)


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinite_values_are_refused_where_the_answer_is_read(
    rows: pd.DataFrame, bad: float
) -> None:
    engine = PandasEngine(rows.assign(y=rows["y"].mask(rows.index == 5, bad)))
    moments = GramRequest(terms=(X, Y))
    within = GramRequest(terms=(X, Y), absorb="u", weight=W)
    panel = PanelGramRequest(unit="u", period="t", outcome=Y)

    with pytest.raises(DataError, match="given: y"):
        gram(engine(moments), moments)
    with pytest.raises(DataError, match="given: y"):
        gram(engine(within), within)
    with pytest.raises(DataError, match="given: y"):
        panel_grams(engine(panel), panel)
    with pytest.raises(DataError, match="score is not finite"):
        meat(engine(MeatRequest(scores=(Score(X, Y), Score(Constant(), Y)), cluster=("v",))))


def test_the_frame_is_not_changed(rows: pd.DataFrame) -> None:
    before = rows.copy(deep=True)
    engine = PandasEngine(rows)
    for request in (
        GramRequest(terms=(Y, X), by=("v",), weight=W, where=(Condition("v", ("a",)),)),
        GramRequest(terms=(Y,), absorb="u"),
        MeatRequest(scores=(Score(X, Y),), cluster=("v",), absorb="u"),
        PanelGramRequest(unit="u", period="t", outcome=Y, first_treated_period="g"),
        KeyRequest(key=("u", "t")),
    ):
        engine(request)

    pd.testing.assert_frame_equal(rows, before)


def test_no_rows_give_empty_answers(rows: pd.DataFrame) -> None:
    engine = PandasEngine(rows.head(0))

    assert engine(GramRequest(terms=(Y,), by=("v",))).empty
    assert engine(GramRequest(terms=(Y,)))["n"].tolist() == [0]
    assert engine(MeatRequest(scores=(Score(X, Y),), cluster=("v",)))["n_clusters"].tolist() == [0]
    assert engine(KeyRequest(key=("u",)))["n"].tolist() == [0]


def test_unpacked_answers_are_symmetric(rows: pd.DataFrame) -> None:
    answer = PandasEngine(rows)(GramRequest(terms=(Y, X, W))).iloc[0]
    matrix = unpack(answer["cross"], 3)

    np.testing.assert_array_equal(matrix, matrix.T)


@pytest.mark.parametrize(
    ("column", "level"),
    [
        (["1", "2", None], 1),
        ([1, 2, None], "1"),
        ([1, 2, None], 1.0),
        ([True, False, None], True),
        (pd.to_datetime(["2026-01-05", "2026-01-06", None]), "2026-01-05"),
        (pd.Categorical(["1", "2", None]), 1),
        (pd.array([1, 2, None], dtype="Int64"), 1),
    ],
    ids=str,
)
def test_a_level_finds_its_value_in_any_type(column: object, level: str | float) -> None:
    frame = pd.DataFrame({"v": column, "y": [3.0, 4.0, 5.0]})
    request = GramRequest(terms=(Y,), where=(Condition("v", (level,)),))

    np.testing.assert_array_equal(evaluate(frame, Indicator("v", level)), [1.0, 0.0, np.nan])
    assert gram(PandasEngine(frame)(request), request).mean[0] == 3.0


def test_a_text_that_is_no_number_finds_no_number() -> None:
    frame = pd.DataFrame({"v": [1, 2]})

    np.testing.assert_array_equal(evaluate(frame, Indicator("v", "basic")), [0.0, 0.0])
