"""Keep the moments of experiments by day, and restate single days without touching the others.

The first run aggregates every day of an experiment whose spec has `looks.day`. A later one with
`--days` aggregates only those days again, such as the newest one or one with late corrections, and
puts them in the place of what is stored. `experiment` then reads the days in place of the rows.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

import pandas as pd
from pydantic import Field

from causal.core import plan
from causal.core.daily_gram import DailyAnswers, DailyGramEngine
from causal.core.errors import CausalError, DataError, SpecError
from causal.experiments import ab
from causal.scorecard.entry_days import EntryDays
from causal.scorecard.experiment_spec import ExperimentSpec
from jobs.runtime import analyses, daily, experiments
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.catalogue import code_version
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.runner import RunRecord, record

_SHOWN = 5


class RefreshConfig(JobConfig):
    """Options of the job.

    Attributes:
        spec: The experiments; those of `conf/experiments` with a column of days if left out.
        days: The days to aggregate again; all if left out.
    """

    spec: tuple[Path, ...] = Field(
        default=(),
        description="experiment specs (default: those of conf/experiments with looks.day)",
    )
    days: tuple[dt.date, ...] = Field(
        default=(), description="days to aggregate (default: all, unless all are current)"
    )

    def chosen(self) -> tuple[Analysis, ...]:
        """The experiments.

        Raises:
            SpecError: One has no column of days.
        """
        paths = self.spec or analyses.default_specs("experiments")
        loaded = analyses.load_all(paths, model=ExperimentSpec)
        without = [item for item in loaded if _column(item) is None]
        if self.spec and without:
            raise SpecError(
                "days need the column of the day on which a unit entered",
                file=without[0].file.path,
                key="looks.day",
            )
        return tuple(item for item in loaded if item not in without)


def check(config: RefreshConfig) -> None:
    """Validate the specs without Spark."""
    config.chosen()


def run(context: Context, config: RefreshConfig) -> int:
    """Aggregate the days that are not current; the exit code.

    Raises:
        DataError: Days changed that are not among those to be restated.
    """
    for item in config.chosen():
        with experiments.one_at_a_time(context, item.spec.name):
            try:
                _refresh(context, item, config.days)
            except CausalError as error:
                raise item.located(error) from error
    return 0


def _refresh(context: Context, item: Analysis, restated: Sequence[dt.date]) -> None:
    spec, started_at = cast("ExperimentSpec", item.spec), datetime.now(UTC)
    column = str(spec.looks.day)
    bound = analyses.bind(context, item)
    made_of = daily.source_of_days(context, spec.name)
    if made_of is None:
        # Nothing is stored, or a run was stopped between two of its days: all of them are made.
        restated = ()
    if not restated and made_of == bound.identity:
        context.progress.line(f"refresh: {spec.name} is current")
        return
    days = experiments.days_of(bound, spec)
    if days is None:
        return
    held = daily.stored_days(context, spec.name) if restated else {}
    absent = sorted(set(restated) - set(days.units) - _days_in(held))
    if absent:
        raise DataError("no unit entered on this day", given=absent[0], allowed="days of the data")
    engine = DailyGramEngine(
        list(days.units),
        column=column,
        held=_without(held, restated),
        ask=partial(daily.aggregate, context, bound, column=column),
        otherwise=bound.engine,
    )
    with context.progress.step(f"days of {spec.name}"):
        plan.run(ab.estimate(spec), engine)
    of_all_rows = {
        request: by_day
        for request, by_day in engine.answers.items()
        if request in held and request.where == spec.source.conditions
    }
    _check_days(of_all_rows, days, held=held, restated=restated)
    touched = None if not restated else sorted({*restated, *_days_in(engine.made)})
    key = _run_key(bound, touched)
    written = daily.restate(context, engine.answers, touched, bound=bound, run_key=key)
    n_touched = len(days.units) if touched is None else len(touched)
    context.progress.line(f"{spec.name}: {n_touched} of {len(days.units)} days written")
    made = RunRecord(
        run_key=key,
        job="refresh",
        started_at=started_at,
        config=spec,
        inputs={bound.source: bound.version},
        outputs=written,
    )
    record(context, [made])


def _check_days(
    answers: DailyAnswers, days: EntryDays, *, held: DailyAnswers, restated: Sequence[dt.date]
) -> None:
    """Days that are kept must hold as many rows as the data have.

    Args:
        answers: Answers by day to requests that are about all rows.
        days: Rows of the data by day.
        held: What was stored.
        restated: The days that are aggregated again.

    Raises:
        DataError: They do not: more days changed than were to be restated.
    """
    changed = {
        day
        for by_day in answers.values()
        for day, n in days.units.items()
        if day not in restated and _rows(by_day[day]) != n
    }
    gone = _days_in(held) - set(days.units) - set(restated)
    if changed | gone:
        listed = [str(day) for day in sorted(changed | gone)]
        raise DataError(
            "more days changed than are to be restated",
            given=", ".join(listed[:_SHOWN]),
            allowed="--days with these as well, or none to aggregate all days",
        )


def _rows(frame: pd.DataFrame) -> int:
    return int(frame["n"].sum() + frame["n_missing"].sum()) if len(frame) else 0


def _without(held: DailyAnswers, restated: Sequence[dt.date]) -> DailyAnswers:
    return {
        request: {day: frame for day, frame in by_day.items() if day not in restated}
        for request, by_day in held.items()
    }


def _days_in(answers: DailyAnswers) -> set[dt.date]:
    return {day for by_day in answers.values() for day in by_day}


def _column(item: Analysis) -> str | None:
    return cast("ExperimentSpec", item.spec).looks.day


def _run_key(bound: Bound, touched: Sequence[dt.date] | None) -> str:
    parts = {
        "job": "refresh",
        "analysis": bound.analysis.spec.name,
        "identity": bound.identity,
        "days": None if touched is None else [str(day) for day in touched],
        "code": code_version(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


JOB = CommandJob(name="refresh", config=RefreshConfig, run=run, check=check)
