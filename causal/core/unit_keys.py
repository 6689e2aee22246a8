"""The columns that a spec names as the unit identify its rows."""

from collections.abc import Generator

import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Condition, FrameRequest, KeyRequest


def check_units(
    units: tuple[str, ...], where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, None]:
    """One row per unit, where the spec names the unit.

    Args:
        units: The columns that identify a row; empty: nothing is asked.
        where: Conditions on the rows.

    Raises:
        DataError: A unit repeats or is null.
    """
    if not units:
        return
    row = (yield KeyRequest(key=units, where=where)).iloc[0]
    if row["n_duplicated"] or row["n_null"]:
        raise DataError(
            f"{', '.join(units)} must identify the rows: {row['n_duplicated']} values "
            f"repeat and {row['n_null']} rows lack it",
            given=list(row["examples"]),
        )
