"""Answers by day as rows of the table `daily_gram`, and back, without losing a digit."""

import datetime as dt
import json
from typing import Any

import pandas as pd

from causal.core.daily_gram import DailyAnswers
from causal.core.frames import GramRequest, decode, encode, fingerprint
from transforms.result_tables import DAILY_GRAM
from transforms.stored_frames import plain


def rows_of_days(answers: DailyAnswers, *, analysis: str) -> list[dict[str, Any]]:
    """Rows of `daily_gram`, in the order of its key.

    Args:
        answers: Frames by request and day.
        analysis: Name of the experiment.
    """
    rows = [
        {
            "analysis": analysis,
            "day_on": day,
            "request_hash": fingerprint(request),
            "request_json": json.dumps(encode(request), sort_keys=True),
            "key_json": json.dumps({name: plain(answer[name]) for name in request.by}),
            "n": int(answer["n"]),
            "n_missing": int(answer["n_missing"]),
            "sum_weights": float(answer["sum_weights"]),
            "mean": plain(answer["mean"]),
            "cross_products": plain(answer["cross"]),
        }
        for request, days in answers.items()
        for day, frame in days.items()
        for answer in frame.to_dict("records")
    ]
    return sorted(rows, key=lambda row: tuple(str(row[name]) for name in DAILY_GRAM.key))


def answers_by_day(rows: pd.DataFrame) -> DailyAnswers:
    """Frames by request and day from rows of `daily_gram`."""
    out: DailyAnswers = {}
    for (_, day), part in rows.groupby(["request_hash", "day_on"], sort=True):
        request = decode(json.loads(part["request_json"].iloc[0]))
        if isinstance(request, GramRequest):
            out.setdefault(request, {})[_date(day)] = _frame(request, part)
    return out


def _frame(request: GramRequest, part: pd.DataFrame) -> pd.DataFrame:
    keys = [json.loads(text) for text in part["key_json"]]
    records = [
        {name: key[name] for name in request.by}
        | {
            "n": int(row["n"]),
            "n_missing": int(row["n_missing"]),
            "n_units": 0,
            "sum_weights": float(row["sum_weights"]),
            "mean": list(row["mean"]),
            "cross": list(row["cross_products"]),
        }
        for key, row in zip(keys, part.to_dict("records"), strict=True)
    ]
    return pd.DataFrame(records)


def _date(value: Any) -> dt.date:
    return value.date() if isinstance(value, dt.datetime) else value
