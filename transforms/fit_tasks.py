"""Many fits on one panel as tasks: the rows of an outcome travel to each task that fits it.

Under Spark the panel is copied once per task, not once per fit; nothing but a text per fit comes
back. The function runs in the workers' Python, so they need the suite (`--py-files`, or the wheel).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd
from pyspark.sql import Column, DataFrame, types
from pyspark.sql import functions as F

from causal.core.frames import Condition
from transforms.columns import Transform
from transforms.terms import filtered, kinds, quoted

FitTask = Callable[[int, pd.DataFrame], Sequence[tuple[int, str]]]
"""From the number of a task and the rows of its outcome to a text for each of its fits."""

_TASK, _VALUE = "(task)", "(value)"
_SPREAD = 3
"""Partitions per task: task numbers are hashed to partitions, and few of these get two."""


def fits_of(
    outcomes: Mapping[int, str],
    *,
    fit: FitTask,
    columns: Iterable[str],
    where: tuple[Condition, ...] = (),
) -> Transform:
    """Run tasks of fits, each on the panel of its outcome.

    Args:
        outcomes: The outcome column of each task, by the task's number.
        fit: Makes the fits of a task; it is given a frame of `columns` and the outcome.
        columns: Columns that are read beside the outcome; those that the rows lack are passed over.
        where: Rows that are kept.

    Returns:
        A transform to columns number (of the fit) and answer (its text).
    """

    def run(key: tuple[int], rows: pd.DataFrame) -> pd.DataFrame:
        task = int(key[0])
        outcome = outcomes[task]
        shared = rows.drop(columns=[_TASK, *rows.columns.intersection([outcome])])
        named = shared.rename(columns={_VALUE: outcome})
        return pd.DataFrame(fit(task, named), columns=["number", "answer"])

    def transform(df: DataFrame) -> DataFrame:
        wanted = set(columns)
        kept = [_plain(df, name) for name in df.columns if name in wanted]
        copies = [
            F.struct(F.lit(task).alias(_TASK), quoted(outcome).cast("double").alias(_VALUE))
            for task, outcome in outcomes.items()
        ]
        rows = filtered(df, where, kinds(df))
        copied = rows.select(*kept, F.inline(F.array(*copies)))
        spread = copied.repartition(_SPREAD * len(outcomes), quoted(_TASK))
        return spread.groupBy(quoted(_TASK)).applyInPandas(run, "number int, answer string")

    return transform


def _plain(df: DataFrame, name: str) -> Column:
    """A column as pandas holds it: decimals would be objects."""
    is_decimal = isinstance(df.schema[name].dataType, types.DecimalType)
    return quoted(name).cast("double").alias(name) if is_decimal else quoted(name)
