"""Potential outcomes of single units, which the generated worlds keep, beside scores."""

from collections.abc import Sequence
from types import MappingProxyType

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from causal.core.errors import SpecError
from causal.core.spec import Truth
from causal.uplift.learned_model import UpliftModel, name_of
from jobs.runtime.context import Context
from transforms.bounded import collect_bounded
from transforms.potential_outcomes import potential_outcomes as by_unit
from transforms.sampling import label

_TABLES = MappingProxyType(
    {
        "subscribers": "truth_subscribers",
        "drivers": "truth_drivers",
        "checkout": "truth_checkout_users",
    }
)
_MAX_ROWS = 100_000
UNIT = "(truth unit)"


def potential_outcomes(
    context: Context, truth: Truth, *, outcome: str, arms: Sequence[str]
) -> DataFrame:
    """The outcome of each unit under every arm: `UNIT` as text and `truth_outcome_a`.

    Args:
        context: The run.
        truth: Where the truth is.
        outcome: The outcome.
        arms: Control first.

    Raises:
        SpecError: The world keeps no such outcome.
    """
    df = context.lakehouse.read(_TABLES[truth.world])
    if outcome not in df.columns:
        raise SpecError(
            "the world keeps no such outcome", given=outcome, allowed=df.columns, key="truth"
        )
    (unit,) = [name for name in df.columns if name.endswith("_id")]
    return by_unit(
        df,
        experiment=truth.design,
        unit=label(df, unit).alias(UNIT),
        outcomes={f"truth_outcome_{n}": (arm, outcome, "double") for n, arm in enumerate(arms)},
    )


def effects_beside_truth(context: Context, model: UpliftModel, scored: DataFrame) -> pd.DataFrame:
    """Scores and true effects of some held-out units, the same ones whatever their order.

    Args:
        context: The run.
        model: The model.
        scored: The units with the columns of `UpliftModel.evaluation`.

    Raises:
        SpecError: The world keeps no such truth.
    """
    spec, options = model.spec, model.spec.options
    if spec.truth is None:
        raise SpecError("the spec names no truth", key="truth")
    arms = tuple(map(str, options.arms))
    truths = potential_outcomes(context, spec.truth, outcome=options.outcome, arms=arms)
    numbers = range(1, len(arms))
    effects = [name_of("effect", learner, n) for learner in model.learners for n in numbers]
    some = (
        scored.where(F.col("status") == 0)
        .select(label(scored, options.unit).alias(UNIT), *map(F.col, effects))
        .orderBy(F.xxhash64(F.lit(spec.seed), UNIT), UNIT)
        .limit(_MAX_ROWS)
        .join(truths, on=UNIT, how="inner")
        .select(
            *effects,
            *[
                (F.col(f"truth_outcome_{n}") - F.col("truth_outcome_0")).alias(f"truth_{n}")
                for n in numbers
            ],
        )
    )
    return collect_bounded(some, max_rows=_MAX_ROWS, what="scores beside true effects")
