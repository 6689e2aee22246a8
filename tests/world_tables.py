"""What holds for every table of a generated world."""

import pandas as pd

from transforms.schema import Table


def check_table(table: Table, frame: pd.DataFrame) -> None:
    """Declared columns, rows, unique keys and no missing values.

    Args:
        table: Its declaration.
        frame: Its rows.
    """
    assert tuple(frame.columns) == table.columns
    assert len(frame) > 0
    assert not frame.duplicated(list(table.key)).any()
    required = [field.name for field in table.fields if not field.is_nullable]
    assert not frame[required].isna().to_numpy().any()
