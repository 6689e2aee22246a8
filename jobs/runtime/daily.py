"""The moments of an experiment by day, in the tables `daily_gram` and `daily_sources`."""

import datetime as dt
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import pandas as pd
from pyspark.sql import functions as F

from causal.core.daily_gram import DailyAnswers, by_day
from causal.core.frames import GramRequest
from causal.core.stored_gram import StoredGramEngine
from jobs.runtime.analyses import Bound, Until
from jobs.runtime.context import Context
from transforms.bounded import collect_bounded
from transforms.daily_frames import answers_by_day, rows_of_days
from transforms.gram import Limits, SparkEngine
from transforms.result_tables import DAILY_GRAM, DAILY_SOURCES


def source_of_days(context: Context, analysis: str) -> str | None:
    """Identity of the content that all stored days were made of; `None`: there is none."""
    name = DAILY_SOURCES.name
    if not context.lakehouse.exists(name):
        return None
    rows = collect_bounded(
        context.lakehouse.read(name).where((F.col("analysis") == analysis) & F.col("is_complete")),
        max_rows=1,
        what=f"the source of the days of {analysis}",
    )
    return None if rows.empty else str(rows["source_identity"].iloc[0])


def stored_days(context: Context, analysis: str) -> DailyAnswers:
    """The answers by day that are stored for an experiment."""
    if not context.lakehouse.exists(DAILY_GRAM.name):
        return {}
    limits = context.settings.limits
    rows = collect_bounded(
        context.lakehouse.read(DAILY_GRAM.name).where(F.col("analysis") == analysis),
        max_rows=limits.frame_rows,
        what=f"stored days of {analysis}",
        keys=("day_on", "request_hash"),
    )
    return answers_by_day(rows)


def from_days(context: Context, bound: Bound, until: Until) -> StoredGramEngine | None:
    """The engine of a look that reads stored days first; `None` if they are of other content.

    Args:
        context: The run.
        bound: The analysis on the rows of the look, for what the days do not answer.
        until: The days of the look.
    """
    name = bound.analysis.spec.name
    whole = bound.identity.removesuffix(f" until {until.day}")
    if source_of_days(context, name) != whole:
        return None
    context.progress.line(f"{name}: moments from the stored days up to {until.day}")
    kept = {
        request: {day: frame for day, frame in days.items() if day <= until.day}
        for request, days in stored_days(context, name).items()
    }
    answers = [by_day(item, days, column=until.column) for item, days in kept.items() if days]
    return StoredGramEngine(answers, otherwise=bound.engine)


def aggregate(
    context: Context, bound: Bound, request: GramRequest, days: Sequence[dt.date], *, column: str
) -> dict[dt.date, pd.DataFrame]:
    """The answer to a request from the rows of each of some days, a few days at a time."""
    source = bound.analysis.spec.source
    df, _ = context.lakehouse.read_source(
        source.model_copy(update={"version": bound.version}),
        beside=bound.analysis.file.path.parent,
    )
    day_of = F.to_date(F.col("`" + column.replace("`", "``") + "`"))
    bounds = context.settings.limits
    limits = Limits(max_rows=bounds.frame_rows, max_bytes=bounds.frame_bytes)
    tasks = {
        day.isoformat(): partial(
            SparkEngine(df.where(day_of == F.lit(day)), limits=limits), request
        )
        for day in days
    }
    found = context.side_by_side(tasks)
    return {day: found[day.isoformat()] for day in days}


def restate(
    context: Context,
    answers: DailyAnswers,
    days: Sequence[dt.date] | None,
    *,
    bound: Bound,
    run_key: str,
) -> Mapping[str, int]:
    """Put the rows of some days in the place of those that are stored, in one commit.

    While that goes on the days are marked incomplete, so that no look reads half of them.

    Args:
        context: The run.
        answers: All answers of these days.
        days: The days; all there are if `None`.
        bound: The analysis and what it read.
        run_key: Names the run.

    Returns:
        Tables written, with their versions.
    """
    name = bound.analysis.spec.name
    chosen = {
        request: {day: frame for day, frame in held.items() if days is None or day in days}
        for request, held in answers.items()
    }
    # Names of experiments match NAME_PATTERN, so they hold no quote.
    part = f"analysis = '{name}'"
    if days is not None:
        listed = ", ".join(f"DATE'{day}'" for day in sorted(days))
        part += f" AND day_on IN ({listed})"
    _mark(context, bound, run_key=run_key, is_complete=False)
    rows = rows_of_days(chosen, analysis=name)
    with context.progress.step(f"{DAILY_GRAM.name}: {len(rows):,} rows"):
        frame = context.lakehouse.frame(rows, DAILY_GRAM.name)
        written = context.lakehouse.write(
            frame, DAILY_GRAM.name, run_key=run_key, replace_where=part
        )
    marked = _mark(context, bound, run_key=run_key, is_complete=True)
    return {DAILY_GRAM.name: written, DAILY_SOURCES.name: marked}


def _mark(context: Context, bound: Bound, *, run_key: str, is_complete: bool) -> int:
    row = {
        "analysis": bound.analysis.spec.name,
        "source": bound.source,
        "source_identity": bound.identity,
        "is_complete": is_complete,
        "refreshed_at": datetime.now(UTC),
    }
    frame = context.lakehouse.frame([row], DAILY_SOURCES.name)
    return context.lakehouse.merge(frame, DAILY_SOURCES.name, run_key=run_key)
