"""What each unit of a generated world would have had under every arm of a trial."""

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.terms import quoted


def potential_outcomes(
    truth: DataFrame,
    *,
    experiment: str,
    unit: Column,
    outcomes: Mapping[str, tuple[str, str, str]],
) -> DataFrame:
    """One row per unit from a table with a row per unit and arm.

    Args:
        truth: Columns `experiment`, `variant`, a unit and outcomes.
        experiment: The trial.
        unit: Names the unit, with its alias.
        outcomes: By the name of the new column: arm, outcome, and type of the new column.
    """
    values = [
        F.max(F.when(F.col("variant") == arm, quoted(outcome))).cast(kind).alias(name)
        for name, (arm, outcome, kind) in outcomes.items()
    ]
    return truth.where(F.col("experiment") == experiment).groupBy(unit).agg(*values)
