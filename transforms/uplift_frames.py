"""Rows of units on their way through learners: parted, scored, and as the table of scores."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.frames import BUCKET, HashBucket, Level
from causal.uplift.inputs import STATUSES
from causal.uplift.learned_model import UpliftModel, name_of
from transforms.columns import Transform
from transforms.predictions import with_predictions
from transforms.result_tables import UPLIFT_SCORES
from transforms.sampling import label
from transforms.terms import bucketed, quoted

Part = Literal["training", "held_out"]
PARTS: tuple[Part, ...] = ("training", "held_out")


def part_of(split: HashBucket, *, n_held_out: int, part: Part) -> Transform:
    """The units that models may see, or those that they may not.

    Args:
        split: How units are parted.
        n_held_out: Buckets that are held out, the first ones.
        part: Which.
    """

    def transform(df: DataFrame) -> DataFrame:
        number = quoted(BUCKET)
        kept = number < n_held_out if part == "held_out" else number >= n_held_out
        return bucketed(df, split).where(kept).drop(BUCKET)

    return transform


def with_fold(bucket: HashBucket, *, name: str) -> Transform:
    """Add the number of each row's bucket as a column."""

    def transform(df: DataFrame) -> DataFrame:
        return bucketed(df, bucket).withColumnRenamed(BUCKET, name)

    return transform


def with_arm_scores(
    *, outcome: str, variant: str, arms: Sequence[Level], chances: Sequence[float] | None
) -> Transform:
    """Add doubly robust scores: `arm_score_a` of each arm, `gain_t` of each treatment over none.

    `predicted_a + 1{arm = a} (outcome - predicted_a) / chance_a`, as
    `causal.uplift.policy.doubly_robust_scores` has it; null without an outcome or a prediction.

    Args:
        outcome: Column of the outcome.
        variant: Column of the arm.
        arms: Control first.
        chances: Of the arms; `None`: columns `chance_a` hold them.
    """

    def transform(df: DataFrame) -> DataFrame:
        own = label(df, variant)
        scores = {}
        for number, arm in enumerate(arms):
            predicted = F.col(f"predicted_{number}")
            chance = F.col(f"chance_{number}") if chances is None else F.lit(chances[number])
            residual = quoted(outcome).cast("double") - predicted
            is_own = F.when(own == str(arm), residual / chance).otherwise(0.0 * residual)
            scores[f"arm_score_{number}"] = predicted + is_own
        gains = {
            f"gain_{number}": F.col(f"arm_score_{number}") - F.col("arm_score_0")
            for number in range(1, len(arms))
        }
        return df.withColumns(scores).withColumns(gains)

    return transform


def evaluated(model: UpliftModel) -> Transform:
    """Add all that an evaluation of a model wants to know of rows (`UpliftModel.evaluation`)."""
    return with_predictions(
        names=model.evaluation_names(),
        predict=model.evaluation,
        numbers=model.inputs.numbers,
        labels=tuple(model.inputs.levels),
    )


def with_effects(model: UpliftModel, *, learner: str) -> Transform:
    """Add `status` and `effect_<treatment>`, null unless the row can be scored.

    Args:
        model: The model.
        learner: Which of its learners.
    """
    return with_predictions(
        names=("status", *map(effect_name, model.treatments)),
        predict=partial(model.effects, learner=learner),
        numbers=model.inputs.numbers,
        labels=tuple(model.inputs.levels),
    )


def effect_name(treatment: str) -> str:
    """Name of the column of a treatment's effect."""
    return "effect_" + re.sub(r"[^a-z0-9_]", "_", treatment.lower())


def status_text() -> Column:
    """What the number in `status` stands for."""
    names = F.array(*map(F.lit, STATUSES))
    return F.element_at(names, F.col("status").cast("int") + 1)


def score_rows(
    *, analysis: str, unit: str, outcome: str, variant: str, scored: Sequence[tuple[str, str, int]]
) -> Transform:
    """Rows of the table `uplift_scores`.

    Args:
        analysis: Name of the analysis.
        unit: Column of the unit.
        outcome: Column of the outcome.
        variant: Column of the arm.
        scored: Learner, treatment, and the treatment's number.
    """

    def transform(df: DataFrame) -> DataFrame:
        entries = [
            F.struct(
                F.lit(learner).alias("learner"),
                F.lit(treatment).alias("treatment"),
                F.col(name_of("effect", learner, number)).alias("effect"),
                F.col(name_of("bin", learner, number)).cast("int").alias("score_bin"),
                F.col(f"gain_{number}").alias("doubly_robust_effect"),
            )
            for learner, treatment, number in scored
        ]
        rows = df.select(
            F.lit(analysis).alias("analysis"),
            label(df, unit).alias("unit_id"),
            label(df, variant).alias("variant"),
            quoted(outcome).cast("double").alias("outcome"),
            status_text().alias("status"),
            F.explode(F.array(*entries)).alias("entry"),
        )
        return rows.select("*", "entry.*").select(*UPLIFT_SCORES.columns)

    return transform
