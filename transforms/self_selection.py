"""Units that choose their arm themselves: an observational study whose truth is known.

A generated world keeps the outcomes of each unit under every arm of a trial. Here nobody draws the
arm: a unit takes the treatment with a chance that depends on what is known of it beforehand, and
has the outcomes that go with its choice. Comparing the two groups is confounded, all confounders
are columns, and the effect on every unit is known exactly.
"""

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.assignment import uniform_column
from transforms.columns import Transform, World
from transforms.potential_outcomes import potential_outcomes
from transforms.schema import check_columns
from transforms.terms import quoted

CHOSEN, CHANCE, CHOICE = "is_chosen", "propensity", "choice"
_DECIMALS = 9
"""Sums of doubles differ in their last bits with the order of the rows."""
_ESTIMANDS = {
    "ate": "mean over all units of the study",
    "att": "mean over the units that chose the treatment",
    "overlap": "mean weighted by p (1 - p), with the chance p of each unit's choice",
}


def without(outcome: str) -> str:
    """Column of an outcome of a unit that does not take the treatment."""
    return f"{outcome}_without"


def treated(outcome: str) -> str:
    """Column of an outcome of a unit that takes it."""
    return f"{outcome}_treated"


def self_selected(
    *, unit: str, outcomes: Sequence[str], pull: Mapping[str, float], salt: str
) -> Transform:
    """Let each unit choose: log-odds are the sum of `pull` times the columns, standardised.

    The chance is between 0 and 1 for every unit, and a function of the columns alone; the choice is
    made by a hash of the unit. A unit without a value of a column counts as an average one.

    Args:
        unit: Column of the unit.
        outcomes: The outcomes, each with columns `<outcome>_without` and `<outcome>_treated`.
        pull: Log-odds that a standard deviation of a column adds; a constant adds nothing.
        salt: Of the hash.

    Returns:
        A transform that writes the outcomes anew and adds `is_chosen` and
        `propensity`, the chance of that. Units without a potential outcome are left out.

    Raises:
        SpecError: A column lacks.
    """
    potential = [name(outcome) for outcome in outcomes for name in (without, treated)]

    def transform(df: DataFrame) -> DataFrame:
        check_columns(df.columns, (unit, *pull, *potential), key="pull")
        known = df.dropna(subset=potential)
        centres = known.agg(
            *[F.round(F.avg(_number(name)), _DECIMALS).alias(_centre(name)) for name in pull],
            *[F.round(F.stddev(_number(name)), _DECIMALS).alias(_spread(name)) for name in pull],
        )
        chance = F.lit(1.0) / (F.lit(1.0) + F.exp(-_log_odds(pull)))
        drawn = uniform_column(quoted(unit), salt=salt)
        own = {
            outcome: F.when(F.col(CHOSEN), quoted(treated(outcome))).otherwise(
                quoted(without(outcome))
            )
            for outcome in outcomes
        }
        return (
            known.crossJoin(F.broadcast(centres))
            .withColumn(CHANCE, F.round(chance, _DECIMALS))
            .withColumn(CHOSEN, drawn < F.col(CHANCE))
            .drop(*map(_centre, pull), *map(_spread, pull))
            .withColumns(own)
        )

    return transform


def study(*, world: World, truth: DataFrame) -> Transform:
    """The units of a trial as they would have been had they chosen between two of its arms.

    Args:
        world: The world, with what pulls its units.
        truth: Outcomes of each unit under every arm.

    Returns:
        A transform of the world's experiment units to the columns of `<w>_choices` and of
        `truth_<w>_choices`: what was known before the trial began, the choice, and outcomes.
    """
    choice = world.choice
    outcomes = [outcome.name for outcome in world.outcomes]
    arms = ((without, choice.control), (treated, choice.treatment))

    def transform(units: DataFrame) -> DataFrame:
        potential = potential_outcomes(
            truth,
            experiment=choice.experiment,
            unit=F.col(world.unit).alias("unit_id"),
            outcomes={name(o.name): (arm, o.name, o.type)
                      for name, arm in arms for o in world.outcomes},
        )  # fmt: skip
        chosen = self_selected(
            unit="unit_id", outcomes=outcomes, pull=choice.pull, salt=choice.name
        )
        return (
            units.where(F.col("experiment") == choice.experiment)
            .select("unit_id", *_known_before(world))
            .join(potential, on="unit_id")
            .transform(chosen)
            .withColumn(CHOICE, F.lit(choice.name))
        )

    return transform


def observed(units: DataFrame, *, world: World) -> DataFrame:
    """`<w>_choices`: rows of `study` without what nobody sees."""
    outcomes = [outcome.name for outcome in world.outcomes]
    return units.select(CHOICE, "unit_id", *_known_before(world), CHOSEN, *outcomes)


def potential(units: DataFrame, *, world: World) -> DataFrame:
    """`truth_<w>_choices`: what nobody sees of the rows of `study`."""
    hidden = [name(outcome.name) for outcome in world.outcomes for name in (without, treated)]
    return units.select(CHOICE, "unit_id", CHOSEN, CHANCE, *hidden)


def effects(units: DataFrame, *, world: World) -> DataFrame:
    """`truth_<w>_choice_effects`: means of the effects over units of the study.

    Args:
        units: Rows of `potential`.
        world: The world.
    """
    chance = F.col(CHANCE)
    weights = {
        "ate": F.lit(1.0),
        "att": F.col(CHOSEN).cast("double"),
        "overlap": chance * (F.lit(1.0) - chance),
    }
    rows = F.array(
        *[
            F.struct(
                F.lit(estimand).alias("estimand"),
                F.lit(outcome.name).alias("metric"),
                _mean_effect(outcome.name, weight).alias("value"),
                F.lit(_ESTIMANDS[estimand]).alias("comment"),
            )
            for estimand, weight in weights.items()
            for outcome in world.outcomes
        ]
    )
    return (
        units.agg(rows.alias("rows"))
        .select(F.inline("rows"))
        .where(F.col("value").isNotNull())
        .select(
            F.lit(world.name).alias("world"),
            F.lit(world.choice.name).alias("design"),
            "estimand",
            "metric",
            F.lit(CHOSEN).alias("term"),
            F.lit("absolute").alias("scale"),
            "value",
            "comment",
        )
    )


def _known_before(world: World) -> tuple[str, ...]:
    """Columns of the experiment units that are older than the trial."""
    before = [f"pre_{outcome.name}" for outcome in world.outcomes]
    return (world.place, *world.segments, "tenure_days", *before, "pre_active_days")


def _mean_effect(outcome: str, weight: Column) -> Column:
    effect = F.col(treated(outcome)) - F.col(without(outcome))
    return F.round(F.try_divide(F.sum(weight * effect), F.sum(weight)), _DECIMALS)


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
