"""Answers survive the frame tables without losing a digit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from causal.core.frames import (
    Column,
    Condition,
    FrameRequest,
    GramRequest,
    HistogramRequest,
    Indicator,
    KeyRequest,
    MeatRequest,
    PanelGramRequest,
    Score,
    linear,
)
from causal.core.gram import HISTOGRAM_COLUMNS, grams, key_of, meat, panel_grams
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.stored_gram import Recorder, StoredGramEngine
from causal.experiments import ab
from jobs.runtime.lakehouse import Lakehouse
from tests import experiment_worlds as worlds
from transforms import gram as spark_engine
from transforms.bounded import collect_bounded
from transforms.result_tables import FRAME_TABLES
from transforms.stored_frames import answers_of, rows_of, table_of

Y, X = Column("y"), Column("x")
RESIDUAL = linear([(Y, 1.0), (X, -1 / 3)])
REQUESTS: Mapping[str, FrameRequest] = {
    "gram": GramRequest(terms=(Y, X, RESIDUAL), by=("v", "k"), weight=Column("w")),
    "gram of all": GramRequest(terms=(Y,), where=(Condition("v", ("a",)),)),
    "counts": GramRequest(terms=(), by=("v",)),
    "within": GramRequest(terms=(Y, X), by=("k",), absorb="u"),
    "meat": MeatRequest(scores=(Score(X, RESIDUAL), Score(Indicator("v", "a"), X)), cluster=("k",)),
    "panel": PanelGramRequest(
        unit="u", period="t", outcome=Y, first_treated_period="first", by=("k",)
    ),
    "panel of all": PanelGramRequest(unit="u", period="t", outcome=X),
    "duplicates": KeyRequest(key=("k", "t")),
    "a key": KeyRequest(key=("u", "t")),
    "histogram": HistogramRequest(term=X, edges=(-0.1, 1 / 3), by=("v", "k")),
    "range": HistogramRequest(term=Y),
}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    n = 60
    u = np.arange(n) // 3
    return pd.DataFrame(
        {
            "u": u, "t": np.arange(n) % 3, "k": u % 4, "v": rng.choice(["a", "b'", None], n),
            "first": np.array([np.nan, 1.0, 2.0])[u % 3], "y": 1e8 + rng.normal(size=n),
            "x": rng.normal(size=n) / 3, "w": rng.uniform(0.5, 2, n),
        }
    )  # fmt: skip


def stored(request: FrameRequest, answer: pd.DataFrame) -> list[dict[str, object]]:
    return rows_of(request, answer, analysis="a", source="s.t", source_identity="version 3")


def assert_identical(  # noqa: C901 - one per kind
    found: pd.DataFrame, expected: pd.DataFrame, request: FrameRequest
) -> None:
    match request:
        case GramRequest():
            ours, theirs = grams(found, request), grams(expected, request)
            assert set(ours) == set(theirs)
            for key, one in theirs.items():
                assert (ours[key].n, ours[key].n_missing) == (one.n, one.n_missing)
                np.testing.assert_array_equal(ours[key].mean, one.mean)
                np.testing.assert_array_equal(ours[key].cross, one.cross)
        case MeatRequest():
            np.testing.assert_array_equal(meat(found)[0], meat(expected)[0])
            assert meat(found)[1] == meat(expected)[1]
        case PanelGramRequest():
            for ours_, theirs_ in zip(
                panel_grams(found, request), panel_grams(expected, request), strict=True
            ):
                assert (ours_.first_treated_period, ours_.key, ours_.n) == (
                    theirs_.first_treated_period, theirs_.key, theirs_.n,
                )  # fmt: skip
                np.testing.assert_array_equal(ours_.cross, theirs_.cross)
        case HistogramRequest():
            ours, theirs = (
                {key_of(row, request.by): row for row in frame.to_dict("records")}
                for frame in (found, expected)
            )
            assert set(ours) == set(theirs)
            for key, row in theirs.items():
                for name in HISTOGRAM_COLUMNS:
                    np.testing.assert_array_equal(ours[key][name], row[name])
        case KeyRequest():
            assert found.iloc[0].to_dict() == expected.iloc[0].to_dict()


def test_answers_come_back_from_spark(spark: SparkSession, rows: pd.DataFrame) -> None:
    engine = PandasEngine(rows)
    for table in FRAME_TABLES:
        chosen = [item for item in REQUESTS.values() if table_of(item) is table]
        assert chosen
        made = [row for item in chosen for row in stored(item, engine(item))]
        assert all(tuple(row) == table.columns for row in made)
        tuples = [tuple(row.values()) for row in made]
        frame = collect_bounded(
            spark.createDataFrame(tuples, table.schema), max_rows=1000, what="answers"
        )
        answers = dict(answers_of([frame]))

        assert set(answers) == set(chosen)
        for request in chosen:
            assert_identical(answers[request], engine(request), request)


def test_a_stored_table_is_an_engine(lakehouse: Lakehouse, rows: pd.DataFrame) -> None:
    request = GramRequest(terms=(Y, X), by=("u", "k"))
    engine = PandasEngine(rows)
    table = table_of(request)
    frame = lakehouse.frame(stored(request, engine(request)), table.name)
    lakehouse.write(frame, table.name, run_key="first")
    kept = collect_bounded(lakehouse.read(table.name), max_rows=1000, what="answers")
    from_table = StoredGramEngine(answers_of([kept]))
    coarser = GramRequest(terms=(X, Y), by=("k",))

    assert_identical(from_table(request), engine(request), request)
    found, expected = (grams(one(coarser), coarser) for one in (from_table, engine))
    for key, one in expected.items():
        np.testing.assert_allclose(found[key].cross, one.cross, rtol=1e-6, atol=1e-6)


def test_a_further_metric_costs_one_scan(
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    users = worlds.users(300)
    users.to_parquet(tmp_path / "users.parquet")
    source = spark.read.parquet(str(tmp_path / "users.parquet"))
    *known, new = worlds.SPEC["options"]["metrics"]
    fewer, all_of_them = (
        worlds.spec(options={**worlds.SPEC["options"], "metrics": metrics})
        for metrics in (known, [*known, new])
    )
    recorder = Recorder(spark_engine.SparkEngine(source), {})
    run(ab.estimate(fewer), recorder)
    kept = [pd.DataFrame(stored(item, answer)) for item, answer in recorder.answers]
    plans: list[str] = []

    def shown(df: DataFrame, **bounds: Any) -> pd.DataFrame:
        capsys.readouterr()
        df.explain()
        plans.append(capsys.readouterr().out)
        return collect_bounded(df, **bounds)

    monkeypatch.setattr(spark_engine, "collect_bounded", shown)
    again = StoredGramEngine(answers_of(kept), otherwise=spark_engine.SparkEngine(source))
    assert run(ab.estimate(fewer), again).effects
    assert not plans
    found = run(ab.estimate(all_of_them), again)

    # The look at some rows, for a shift near the mean, is no scan: it ends at a limit.
    scans = [plan.count("FileScan") for plan in plans if "Limit 4096" not in plan]
    assert scans == [1]
    assert len(plans) == 2
    expected = run(ab.estimate(all_of_them), PandasEngine(users))
    pd.testing.assert_frame_equal(found.to_frame(), expected.to_frame(), rtol=1e-8)
