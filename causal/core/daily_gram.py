"""Gram frames kept day by day, so that a late day is restated without touching the others.

A Gram is additive over rows, so the frames of all days, pooled, answer what a pass over all rows
would. Each day is aggregated by itself, from its own rows alone: what is kept of a day does not
depend on when it was aggregated or on which other days were there.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Engine, FrameRequest, GramRequest, describe
from causal.core.stored_gram import Stored, StoredGramEngine

Days = Mapping[dt.date, pd.DataFrame]
DailyAnswers = dict[GramRequest, dict[dt.date, pd.DataFrame]]
"""By request and day: the answer from the rows of that day."""


class DailyGramEngine:
    """An engine that answers Gram requests from days, and aggregates the days that it lacks.

    Args:
        days: The days that an answer is made of.
        column: Name of the column of days.
        held: Answers that are kept already.
        ask: Aggregates a request over the rows of each of some days.
        otherwise: Engine for all other requests.
    """

    def __init__(
        self,
        days: Sequence[dt.date],
        *,
        column: str,
        held: Mapping[GramRequest, Days],
        ask: Callable[[GramRequest, Sequence[dt.date]], Days],
        otherwise: Engine,
    ) -> None:
        self._days = tuple(days)
        self._column = column
        self._answers: DailyAnswers = {request: dict(by_day) for request, by_day in held.items()}
        self._ask = ask
        self._otherwise = otherwise
        self._asked: dict[GramRequest, None] = {}
        self.made: DailyAnswers = {}
        """What had to be aggregated, by request and day."""

    @property
    def answers(self) -> DailyAnswers:
        """All answers by request and day, of the requests that were asked."""
        return {request: dict(self._answers[request]) for request in self._asked}

    @property
    def columns(self) -> Mapping[str, str]:
        """Columns of the source."""
        return self._otherwise.columns

    def __call__(self, request: FrameRequest) -> pd.DataFrame:
        """The frame that the request describes, over all the days.

        Raises:
            DataError: There is no row on any day.
        """
        if not isinstance(request, GramRequest) or request.absorb is not None:
            return self._otherwise(request)
        if request.summed_by:
            # A cluster may have rows on several days: its sum is no sum of one day.
            return self._otherwise(request)
        self._asked[request] = None
        known = self._answers.setdefault(request, {})
        absent = [day for day in self._days if day not in known]
        if absent:
            found = self._ask(request, absent)
            known.update(found)
            self.made.setdefault(request, {}).update(found)
        return pooled_days(request, {day: known[day] for day in self._days}, column=self._column)


def pooled_days(request: GramRequest, days: Days, *, column: str) -> pd.DataFrame:
    """The answer over several days.

    Args:
        request: What was asked of each day.
        days: The answers by day.
        column: Name of the column of days.

    Raises:
        DataError: There is no row on any day.
    """
    answer = StoredGramEngine([by_day(request, days, column=column)]).stored_answer(request)
    if answer is None:
        raise DataError("the days do not answer this request", given=describe(request))
    return answer


def by_day(request: GramRequest, days: Days, *, column: str) -> Stored:
    """The answers of several days as one stored frame with the day among its keys.

    Args:
        request: What was asked of each day.
        days: The answers by day.
        column: Name of the column of days.
    """
    if column in request.by:
        raise DataError("the day is among the keys already", given=describe(request))
    frames = [frame.assign(**{column: str(day)}) for day, frame in sorted(days.items())]
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    together = pd.concat(filled, ignore_index=True)
    return dataclasses.replace(request, by=(*request.by, column)), together
