"""Answers of requests as rows of the frame tables, and back, without losing a digit."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causal.core.frames import (
    FrameRequest,
    GramRequest,
    HistogramRequest,
    KeyRequest,
    MeatRequest,
    PanelGramRequest,
    decode,
    encode,
    fingerprint,
)
from transforms.result_tables import FRAME_TABLES, GRAM, HISTOGRAM, KEY_CHECK, MEAT, PANEL_GRAM
from transforms.schema import Table

_TABLES: Mapping[type, Table] = {
    GramRequest: GRAM,
    PanelGramRequest: PANEL_GRAM,
    MeatRequest: MEAT,
    KeyRequest: KEY_CHECK,
    HistogramRequest: HISTOGRAM,
}
_RENAMED = {"cross": "cross_products"}


def table_of(request: FrameRequest) -> Table:
    """The table that holds the answers of such a request."""
    return _TABLES[type(request)]


def rows_of(
    request: FrameRequest, frame: pd.DataFrame, *, analysis: str, source: str, source_identity: str
) -> list[dict[str, Any]]:
    """The answer's rows with the columns of `table_of(request)`.

    Args:
        request: What was asked.
        frame: What was answered.
        analysis: Name of the analysis that asked.
        source: Name of the table that was aggregated.
        source_identity: Names the content that was aggregated.
    """
    shared = {
        "analysis": analysis,
        "source": source,
        "source_identity": source_identity,
        "request_hash": fingerprint(request),
        "request_json": json.dumps(encode(request), sort_keys=True),
    }
    by = _by(request)
    columns = table_of(request).columns
    out = []
    for answer in frame.to_dict("records"):
        row = shared | {_RENAMED.get(str(name), str(name)): value for name, value in answer.items()}
        row["key_json"] = json.dumps({name: plain(answer[name]) for name in by})
        out.append({name: plain(row[name]) for name in columns})
    return out


def answers_of(frames: Iterable[pd.DataFrame]) -> list[tuple[FrameRequest, pd.DataFrame]]:
    """Requests and their answers from rows of the frame tables."""
    return [
        _answer(rows) for frame in frames for _, rows in frame.groupby("request_hash", sort=True)
    ]


def _answer(rows: pd.DataFrame) -> tuple[FrameRequest, pd.DataFrame]:
    request: FrameRequest = decode(json.loads(rows["request_json"].iloc[0]))
    by = _by(request)
    keys = [json.loads(text) for text in rows["key_json"]] if by else [{}] * len(rows)
    meta = {field.name for field in FRAME_TABLES[0].fields[:6]}
    kept = [name for name in rows.columns if name not in meta]
    renamed = {stored: name for name, stored in _RENAMED.items()}
    records = [
        key | {renamed.get(name, name): _native(row[name]) for name in kept}
        for key, row in zip(keys, rows[kept].to_dict("records"), strict=True)
    ]
    return request, pd.DataFrame(records)


def _by(request: FrameRequest) -> Sequence[str]:
    match request:
        case GramRequest() | HistogramRequest():
            return request.keys
        case PanelGramRequest(by=by):
            return by
        case _:
            return ()


def plain(value: Any) -> Any:
    """Python values: what JSON and Spark both take."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    return value if isinstance(value, str | int | float | bool) else str(value)


def _native(value: Any) -> Any:
    return list(value) if isinstance(value, np.ndarray) and value.dtype == object else value
