"""Units that choose their arm themselves: an observational study whose truth is known.

A generated world keeps the outcome of each unit under every arm of a trial. Here nobody draws the
arm: a unit takes the treatment with a chance that depends on what is known of it beforehand, and
has the outcome that goes with its choice. Comparing the two groups is confounded, all confounders
are columns, and the effect on every unit is known exactly.
"""

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.errors import SpecError
from transforms.assignment import uniform_column
from transforms.columns import Transform
from transforms.schema import check_columns
from transforms.terms import quoted

CHOSEN, EFFECT, CHANCE = "is_chosen", "true_effect", "true_propensity"


def self_selected(
    *, unit: str, outcome: str, potential: tuple[str, str], pull: Mapping[str, float], salt: str
) -> Transform:
    """Let each unit choose: log-odds are the sum of `pull` times the columns, standardised.

    The chance is between 0 and 1 for every unit, and a function of the columns alone; the choice is
    made by a hash of the unit. A unit without a value of a column counts as an average one.

    Args:
        unit: Column of the unit.
        outcome: Column of the outcome, which is written anew.
        potential: Columns of the outcome without the treatment and with it; they are dropped.
        pull: Log-odds that a standard deviation of a column adds; a constant adds nothing.
        salt: Of the hash.

    Returns:
        A transform that writes the outcome and adds `is_chosen` (INT, 0 or 1), `true_effect`, what
        the treatment does to the unit, and `true_propensity`, its chance. The mean of `true_effect`
        is the ATE of these units, that where `is_chosen` is 1 their ATT.

    Raises:
        SpecError: A column lacks, or nothing pulls.
    """
    if not pull:
        raise SpecError("without a column that pulls, nobody chooses", key="pull")
    without, treated = potential

    def transform(df: DataFrame) -> DataFrame:
        check_columns(df.columns, (unit, *pull, *potential), key="pull")
        known = df.where(quoted(without).isNotNull() & quoted(treated).isNotNull())
        centres = known.agg(
            *[F.avg(_number(name)).alias(_centre(name)) for name in pull],
            *[F.stddev(_number(name)).alias(_spread(name)) for name in pull],
        )
        chance = F.lit(1.0) / (F.lit(1.0) + F.exp(-_log_odds(pull)))
        kept = [quoted(name) for name in df.columns if name not in {outcome, *potential}]
        return (
            known.crossJoin(F.broadcast(centres))
            .withColumn(CHANCE, chance)
            .withColumn(
                CHOSEN, (uniform_column(quoted(unit), salt=salt) < F.col(CHANCE)).cast("int")
            )
            .withColumn(EFFECT, quoted(treated) - quoted(without))
            .withColumn(
                outcome, F.when(F.col(CHOSEN) == 1, quoted(treated)).otherwise(quoted(without))
            )
            .select(*kept, quoted(outcome), CHOSEN, EFFECT, CHANCE)
        )

    return transform


def _log_odds(pull: Mapping[str, float]) -> Column:
    total = F.lit(0.0)
    for name, strength in pull.items():
        spread = quoted(_spread(name))
        away = F.when(spread > 0, (_number(name) - quoted(_centre(name))) / spread)
        total = total + F.lit(float(strength)) * F.coalesce(away, F.lit(0.0))
    return total


def _number(name: str) -> Column:
    """The value, null where it is not a number: what is not known pulls as the average does."""
    return F.nanvl(quoted(name).cast("double"), F.lit(None).cast("double"))


def _centre(name: str) -> str:
    return f"(mean {name})"


def _spread(name: str) -> str:
    return f"(sd {name})"
