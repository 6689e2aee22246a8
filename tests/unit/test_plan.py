"""A plan is run to its end; what it asks of the data is checked first."""

import io
from collections.abc import Generator

import pandas as pd
import pytest

from causal.core.errors import DataError, SpecError
from causal.core.frames import Column, FrameRequest, GramRequest, Indicator, KeyRequest
from causal.core.gram import gram
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import check_columns, of_source, run
from causal.core.registry import Plan
from causal.core.result import Result

ROWS = pd.DataFrame(
    {"minutes": [1.0, 2.0, 6.0], "variant": ["a", "b", "b"], "is_active": [True, False, True]}
)
MEAN = GramRequest(terms=(Column("minutes"),))


def two_passes() -> Plan:
    first = gram((yield MEAN), MEAN)
    above = GramRequest(terms=(Column("is_active"),))
    second = gram((yield above), above)
    return Result(effects=(), params={"mean": first.mean[0], "share": second.mean[0]})


def asking(request: FrameRequest) -> Plan:
    yield request
    return Result(effects=())


def test_answers_reach_the_plan_in_order() -> None:
    asked: list[tuple[int, FrameRequest]] = []
    result = run(two_passes(), PandasEngine(ROWS), on_request=lambda *step: asked.append(step))

    assert result.params == {"mean": 3.0, "share": pytest.approx(2 / 3)}
    assert [number for number, _ in asked] == [1, 2]
    assert asked[0][1] == MEAN


def test_a_plan_that_asks_nothing() -> None:
    def plan() -> Plan:
        return Result(effects=(), params={"n": 0})
        yield MEAN

    assert run(plan(), PandasEngine(ROWS)).params == {"n": 0}


def test_a_missing_column_is_named_with_what_was_meant() -> None:
    request = GramRequest(terms=(Column("minuts"),))

    with pytest.raises(SpecError, match=r"did you mean 'minutes'.*given: minuts; allowed: is_act"):
        run(asking(request), PandasEngine(ROWS))


def test_a_missing_key_is_found_before_the_engine_runs() -> None:
    def engine_that_fails(_: FrameRequest) -> pd.DataFrame:
        raise AssertionError

    engine = PandasEngine(ROWS)
    engine.__class__ = type("Failing", (PandasEngine,), {"__call__": engine_that_fails})
    with pytest.raises(SpecError, match="no such column"):
        run(asking(KeyRequest(key=("unit",))), engine)


def test_text_is_no_number() -> None:
    with pytest.raises(SpecError, match=r"must hold numbers; given: variant \(string\)"):
        run(asking(GramRequest(terms=(Column("variant"),))), PandasEngine(ROWS))


def test_a_header_without_rows_is_no_text() -> None:
    """Nobody can tell what the columns of an empty file hold: it is the rows that are missing."""
    empty = pd.read_csv(io.StringIO("minutes,variant\n"))

    with pytest.raises(DataError, match=r"^the source has no rows$"):
        run(two_passes(), PandasEngine(empty))


def test_text_and_booleans_where_they_may_stand() -> None:
    request = GramRequest(terms=(Indicator("variant", "a"), Column("is_active")), by=("variant",))

    check_columns(request, PandasEngine(ROWS).columns)


def test_what_a_method_raises_comes_through() -> None:
    def plan() -> Generator[FrameRequest, pd.DataFrame, Result]:
        yield MEAN
        raise DataError("one arm only", given="a")

    with pytest.raises(DataError, match="one arm only; given: a"):
        run(plan(), PandasEngine(ROWS))


def test_another_table_answers_what_is_asked_of_it() -> None:
    def plan() -> Plan:
        own = gram((yield MEAN), MEAN)
        other = yield from of_source(two_passes(), "history")
        return Result(effects=(), params={"own": own.mean[0], "other": other.params["mean"]})

    past = ROWS.assign(minutes=ROWS["minutes"] + 10)
    asked: list[FrameRequest] = []
    result = run(
        plan(),
        PandasEngine(ROWS),
        others={"history": PandasEngine(past)},
        on_request=lambda _, request: asked.append(request),
    )

    assert result.params == {"own": 3.0, "other": 13.0}
    assert asked[:2] == [MEAN, MEAN]
    with pytest.raises(SpecError, match="a table that it was not given; given: history"):
        run(plan(), PandasEngine(ROWS))
    lacking = PandasEngine(past[["is_active"]])
    with pytest.raises(SpecError, match=r"^history: the source has no such column; given: minutes"):
        run(plan(), PandasEngine(ROWS), others={"history": lacking})
