"""Runs a method's plan against an engine."""

import difflib
from collections.abc import Callable, Generator, Mapping
from typing import TypeVar

import pandas as pd

from causal.core.buckets import HASHED_KINDS
from causal.core.errors import DataError, SpecError
from causal.core.frames import (
    Engine,
    FrameRequest,
    GramRequest,
    buckets_of,
    columns_of,
    numeric_columns_of,
)

OnRequest = Callable[[int, FrameRequest], None]
Answer = TypeVar("Answer")


def run(
    plan: Generator[FrameRequest, pd.DataFrame, Answer],
    engine: Engine,
    *,
    on_request: OnRequest | None = None,
) -> Answer:
    """Answer the plan's requests one after the other and return its result.

    Args:
        plan: What a method's `estimate` returned, or any other generator of requests.
        engine: Where the data are.
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
            request = plan.send(frame) if frame is not None else next(plan)
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer
        number += 1
        check_columns(request, engine.columns)
        _check_kinds(request, engine)
        if on_request is not None:
            on_request(number, request)
        frame = engine(request)


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
