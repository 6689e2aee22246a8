"""Plans run on rows that a job has prepared."""

from collections.abc import Generator
from typing import TypeVar

import pandas as pd
from pyspark.sql import DataFrame

from causal.core import plan
from causal.core.frames import FrameRequest, describe
from jobs.runtime.analyses import engine_of
from jobs.runtime.context import Context

T = TypeVar("T")


def asked(context: Context, asking: Generator[FrameRequest, pd.DataFrame, T], df: DataFrame) -> T:
    """What a plan makes of rows.

    Args:
        context: The run.
        asking: The plan.
        df: The rows.

    Raises:
        CausalError: They cannot carry it.
    """
    return plan.run(
        asking,
        engine_of(context, df),
        on_request=lambda number, asked: context.progress.line(f"pass {number}: {describe(asked)}"),
    )
