"""The stored-Gram engine answers what the rows would answer, or says that it cannot."""

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import DataError
from causal.core.frames import (
    Between,
    Column,
    Condition,
    Constant,
    FrameRequest,
    GramRequest,
    HistogramRequest,
    Indicator,
    Linear,
    MeatRequest,
    Product,
    Score,
    linear,
)
from causal.core.pandas_engine import PandasEngine
from causal.core.stored_gram import StoredGramEngine

Y, X, W = Column("y"), Column("x"), Column("w")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(20261121)
    n = 900
    return pd.DataFrame(
        {
            "y": 1e6 + rng.normal(size=n),
            "x": rng.normal(3, 2, n),
            "w": rng.uniform(0.5, 2, n),
            "variant": rng.choice(["control", "treatment"], n),
            "region": rng.choice(["north", "south", "west"], n),
            "cluster": rng.integers(0, 40, n),
        }
    )


def _frames_agree(left: pd.DataFrame, right: pd.DataFrame, by: tuple[str, ...]) -> None:
    assert list(left.columns) == list(right.columns)
    if by:
        left, right = (
            frame.sort_values(list(by)).reset_index(drop=True) for frame in (left, right)
        )
    for name in left.columns:
        for a, b in zip(left[name], right[name], strict=True):
            if isinstance(a, str):
                assert a == b
            else:
                np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-9, atol=1e-6)


REQUESTS = [
    GramRequest(terms=(Y, X), by=("variant",)),
    GramRequest(terms=(X,), by=()),
    GramRequest(terms=(X, Y), by=("region", "variant")),
    GramRequest(terms=(Y,), by=("variant",), where=(Condition("region", ("north", "west")),)),
    MeatRequest(
        scores=(
            Score(Indicator("variant", "control"), linear([(X, 1.0), (Constant(), -3.0)])),
            Score(X, Linear((Product((Indicator("variant", "treatment"), X)),), (2.0,))),
        ),
        cluster=("cluster",),
    ),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_answers_subsets_coarser_keys_and_meat_as_the_rows_do(
    rows: pd.DataFrame, request_: GramRequest | MeatRequest
) -> None:
    engine = PandasEngine(rows)
    stored = GramRequest(terms=(Y, X), by=("variant", "region", "cluster"))
    answer = StoredGramEngine([(stored, engine(stored))])(request_)
    by = request_.by if isinstance(request_, GramRequest) else ()
    _frames_agree(answer, engine(request_), by)


@pytest.mark.parametrize(
    "request_",
    [
        GramRequest(terms=(Y, W)),
        GramRequest(terms=(Y,), weight=W),
        GramRequest(terms=(Y,), by=("day",)),
        GramRequest(terms=(Y,), where=(Condition("day", (1,)),)),
        GramRequest(terms=(Y,), absorb="cluster"),
        MeatRequest(scores=(Score(Product((X, X)), Y),), cluster=("cluster",)),
        MeatRequest(scores=(Score(X, Y),)),
        MeatRequest(scores=(Score(Between(X, high=1.0), Y),), cluster=("cluster",)),
        GramRequest(terms=(Between(Y, high=1.0),)),
        HistogramRequest(term=Y, edges=(1.0,)),
    ],
    ids=str,
)
def test_refuses_what_it_cannot_know(rows: pd.DataFrame, request_: FrameRequest) -> None:
    stored = GramRequest(terms=(Y, X), by=("cluster",))
    engine = StoredGramEngine([(stored, PandasEngine(rows)(stored))])
    with pytest.raises(DataError, match="no stored frame"):
        engine(request_)


def test_missing_rows_forbid_other_term_sets(rows: pd.DataFrame) -> None:
    with_gap = rows.assign(x=rows["x"].where(rows.index != 5))
    stored = GramRequest(terms=(Y, X), by=("variant",))
    engine = StoredGramEngine([(stored, PandasEngine(with_gap)(stored))])
    assert engine.stored_answer(GramRequest(terms=(Y, X))) is not None
    assert engine.stored_answer(GramRequest(terms=(Y,))) is None


def test_falls_through_to_the_other_engine(rows: pd.DataFrame) -> None:
    request = GramRequest(terms=(W,))
    engine = StoredGramEngine([], otherwise=PandasEngine(rows))
    assert int(engine(request)["n"].iloc[0]) == len(rows)
