"""Runs a method's plan against an engine."""

import difflib
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import TypeVar

import pandas as pd

from causal.core.buckets import HASHED_KINDS
from causal.core.errors import CausalError, DataError, SpecError
from causal.core.frames import (
    Engine,
    FrameRequest,
    FromSource,
    GramRequest,
    buckets_of,
    columns_of,
    numeric_columns_of,
)

OnRequest = Callable[[int, FrameRequest], None]
Answer = TypeVar("Answer")


def of_source(
    plan: Generator[FrameRequest, pd.DataFrame, Answer], source: str
) -> Generator[FromSource, pd.DataFrame, Answer]:
    """The same plan, asking another table of the spec.

    Args:
        plan: The plan.
        source: The option that names the table.
    """
    frame: pd.DataFrame | None = None
    while True:
        try:
            request = plan.send(frame) if frame is not None else next(plan)
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer
        frame = yield FromSource(source, request)


def run(
    plan: Generator[FrameRequest | FromSource, pd.DataFrame, Answer],
    engine: Engine,
    *,
    others: Mapping[str, Engine] = MappingProxyType({}),
    on_request: OnRequest | None = None,
) -> Answer:
    """Answer the plan's requests one after the other and return its result.

    Args:
        plan: What a method's `estimate` returned, or any other generator of requests.
        engine: Where the data are.
        others: Where the data of further tables are, by the option of the spec that names them.
        on_request: Called with the number of the pass (from 1) and the request, before each pass.

    Raises:
        SpecError: A request names a column that the data do not have, or of the wrong kind.
        DataError: There are no rows to tell what the columns hold (a CSV with only a header).
        CausalError: Whatever the method or the engine finds wrong.
    """
    number = 0
    frame: pd.DataFrame | None = None
    while True:
        try:
            asked = plan.send(frame) if frame is not None else next(plan)
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer
        number += 1
        if isinstance(asked, FromSource):
            frame = _answered_by(others, asked, number=number, on_request=on_request)
        else:
            frame = _answer(asked, engine, number=number, on_request=on_request)


def _answer(
    request: FrameRequest, engine: Engine, *, number: int, on_request: OnRequest | None
) -> pd.DataFrame:
    check_columns(request, engine.columns)
    _check_kinds(request, engine)
    if on_request is not None:
        on_request(number, request)
    return engine(request)


def _answered_by(
    others: Mapping[str, Engine], asked: FromSource, *, number: int, on_request: OnRequest | None
) -> pd.DataFrame:
    """The answer of another table, which its errors name."""
    if asked.source not in others:
        raise SpecError("the plan asks a table that it was not given", given=asked.source)
    engine = others[asked.source]
    try:
        return _answer(asked.request, engine, number=number, on_request=on_request)
    except CausalError as error:
        raise type(error)(
            f"{asked.source}: {error.message}",
            given=error.given, allowed=error.allowed, file=error.file, key=error.key,
        ) from error  # fmt: skip


def check_columns(request: FrameRequest, columns: Mapping[str, str]) -> None:
    """Every column the request reads exists.

    Raises:
        SpecError: It does not; `given` is the column's name.
    """
    for name in sorted(columns_of(request)):
        if name not in columns:
            close = difflib.get_close_matches(name, columns, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise SpecError(
                f"the source has no such column{hint}", given=name, allowed=sorted(columns)
            )
    for name in sorted({bucket.column for bucket in buckets_of(request)}):
        if columns[name] not in HASHED_KINDS:
            raise SpecError(
                "this column cannot be hashed to buckets",
                given=f"{name} ({columns[name]})",
                allowed=sorted(HASHED_KINDS),
            )


def _check_kinds(request: FrameRequest, engine: Engine) -> None:
    """Columns that must hold numbers do; without rows nobody knows what a column of text holds."""
    kinds = engine.columns
    for name in sorted(numeric_columns_of(request)):
        if kinds[name] not in {"number", "boolean"}:
            counts = engine(GramRequest(terms=()))
            if counts[["n", "n_missing"]].to_numpy().sum() == 0:
                raise DataError("the source has no rows")
            raise SpecError("this column must hold numbers", given=f"{name} ({kinds[name]})")
