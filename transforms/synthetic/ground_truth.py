"""The truth: potential outcomes of every unit, and the effects that follow from them exactly.

Trials: the outcomes of each enrolled unit over the experiment window are computed under every arm
of its trial, with the same draws, given the rollout as it happened. Effects are differences of
means over the enrolled units: finite-population truths, without sampling error. Rollout: its events
add to the outcomes, so its effect on a unit-week is the event itself, given the arms as they were
drawn; the effects are averages over the unit-weeks of treated places, all units counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from transforms.synthetic.parameters import EffectT, World
from transforms.synthetic.randomness import lookup
from transforms.synthetic.trials import Arm, is_enrolled

EFFECT_COLUMNS = ("world", "design", "estimand", "metric", "term", "scale", "value", "comment")


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A metric that is a ratio of two sums over units."""

    name: str
    numerator: str
    denominator: str


def under_every_arm(units: DataFrame, arms: Sequence[Arm[EffectT]], world: World) -> DataFrame:
    """The enrolled units once per arm of their trial: `arm` replaces the realised one."""
    trials = [arm.trial.experiment if arm.trial else "" for arm in arms]
    numbers = {name: [n for n, other in enumerate(trials) if other == name] for name in trials}
    firsts = [float(numbers[name][0]) for name in trials]
    lasts = [float(numbers[name][-1]) for name in trials]
    first = lookup(firsts, F.col("arm")).cast("int")
    last = lookup(lasts, F.col("arm")).cast("int")
    return units.where(is_enrolled(world)).withColumn("arm", F.explode(F.sequence(first, last)))


def in_window(days: DataFrame, world: World) -> DataFrame:
    """The unit-days of the experiment window."""
    return days.where(F.col("day") >= world.pre_days)


def label_arms(frame: DataFrame, arms: Sequence[Arm[EffectT]]) -> DataFrame:
    """Add `experiment` and `variant`, the names behind `arm`."""
    experiments = [arm.trial.experiment if arm.trial else "" for arm in arms]
    variants = [arm.variant for arm in arms]
    return frame.withColumn("experiment", lookup(experiments, F.col("arm"))).withColumn(
        "variant", lookup(variants, F.col("arm"))
    )


def unit_truth(
    units: DataFrame,
    days: DataFrame,
    arms: Sequence[Arm[EffectT]],
    *,
    outcomes: Sequence[str],
    n_days: int,
) -> DataFrame:
    """Potential outcomes over the experiment window, one row per enrolled unit and variant.

    Args:
        units: Units under every arm, after `respond`: (unit_id, arm) is unique.
        days: Their unit-days in the window.
        arms: The numbered arms.
        outcomes: Columns of `days` to add up; a unit without rows has zeros.
        n_days: Days of the world.

    Returns:
        experiment, unit_id, variant, is_exposed, is_uptake, the outcomes and is_retained.
    """
    zeros = units.select(
        "unit_id",
        "arm",
        "is_exposed",
        "is_uptake",
        (F.col("churn_day") >= n_days).alias("is_retained"),
        *[F.lit(0.0).alias(name) for name in outcomes],
    )
    rows = days.select(
        "unit_id",
        "arm",
        F.lit(None).cast("boolean").alias("is_exposed"),
        F.lit(None).cast("boolean").alias("is_uptake"),
        F.lit(None).cast("boolean").alias("is_retained"),
        *[F.col(name).cast("double").alias(name) for name in outcomes],
    )
    sums = (
        zeros.unionByName(rows)
        .groupBy("unit_id", "arm")
        .agg(
            *[F.max(name).alias(name) for name in ("is_exposed", "is_uptake", "is_retained")],
            *[F.round(F.sum(name), 2).alias(name) for name in outcomes],
        )
    )
    return label_arms(sums, arms)


def arm_totals(
    units: DataFrame, days: DataFrame, *, outcomes: Sequence[str], n_days: int, scenario: str
) -> DataFrame:
    """Sums over all enrolled units and over the exposed ones, per arm.

    Args:
        units: Units under some arms, after `respond`.
        days: Their unit-days in the window.
        outcomes: Columns of `days` to add up.
        n_days: Days of the world.
        scenario: `realised`, or `extreme` when no one but the controls, or everyone, has the variant.

    Returns:
        scenario, arm, is_exposed, n, is_retained, uptake and the outcomes; at most two rows an arm.
    """
    by = ("arm", "is_exposed")
    heads = units.select(
        *by,
        F.lit(1.0).alias("n"),
        (F.col("churn_day") >= n_days).cast("double").alias("is_retained"),
        F.col("is_uptake").cast("double").alias("uptake"),
        *[F.lit(0.0).alias(name) for name in outcomes],
    )
    rows = days.select(
        *by,
        *[F.lit(0.0).alias(name) for name in ("n", "is_retained", "uptake")],
        *[F.col(name).cast("double").alias(name) for name in outcomes],
    )
    return (
        heads.unionByName(rows)
        .groupBy(*by)
        .agg(*[F.sum(name).alias(name) for name in _sums(outcomes)])
        .withColumn("scenario", F.lit(scenario))
    )


def trial_effects(
    totals: DataFrame,
    arms: Sequence[Arm[EffectT]],
    *,
    world: str,
    outcomes: Sequence[str],
    ratios: Sequence[Ratio],
) -> DataFrame:
    """Effects of the trials from `arm_totals`, with the columns EFFECT_COLUMNS.

    Estimands:
        ate: Mean over all enrolled units of the outcome under the variant less that under control.
        att: The same over the exposed units, who are the same under every variant.
        itt, late: In encouragements: the ate, and the ate over that on uptake, which is exactly the
            mean effect on compliers (Imbens and Angrist 1994).
        total: Everyone has the variant against no one has it, spillovers included.
        spillover: Controls as it happened less controls if no one had the variant.
    Scale `relative` divides by the mean (or ratio) of the comparison.
    """
    means = [Ratio(name=name, numerator=name, denominator="n") for name in _sums(outcomes)[1:]]
    values = _arm_values(totals, arms, [*means, *ratios], outcomes=outcomes)
    contrasts = _contrasts(values)
    rows = contrasts.select(
        F.lit(world).alias("world"),
        F.col("experiment").alias("design"),
        F.explode(_estimands()).alias("entry"),
        "metric",
        F.col("comparison").alias("term"),
    ).select("world", "design", "entry.estimand", "metric", "term", "entry.scale", "entry.value")
    return (
        rows.where(F.col("value").isNotNull())
        .withColumn("comment", _comment())
        .select(*EFFECT_COLUMNS)
    )


def rollout_effects(
    place_weeks: DataFrame, *, world: str, design: str, outcomes: Sequence[str]
) -> DataFrame:
    """Effects of the rollout per unit-week, with the columns EFFECT_COLUMNS.

    Args:
        place_weeks: period, first_treated_period (null is never), n_units, and the sums of the
            rollout's additions to each outcome.
        world: Name of the world.
        design: Name of the rollout.
        outcomes: The outcome columns.

    Terms are `overall` (all treated unit-weeks), `g=G` (those of a cohort), `event_time=K` and
    `g=G,t=T`; the last two also before the treatment, where the effect is exactly zero.
    """
    cohort, period = F.col("first_treated_period"), F.col("period")
    is_after = period >= cohort
    terms = F.array(
        F.when(is_after, F.lit("overall")),
        F.when(is_after, F.concat(F.lit("g="), cohort)),
        F.concat(F.lit("event_time="), period - cohort),
        F.concat(F.lit("g="), cohort, F.lit(",t="), period),
    )
    metrics = [F.struct(F.lit(name).alias("metric"), F.col(name).alias("sum")) for name in outcomes]
    return (
        place_weeks.where(cohort.isNotNull())
        .select("n_units", F.explode(F.array(*metrics)).alias("entry"), terms.alias("terms"))
        .select("n_units", "entry.metric", "entry.sum", F.explode("terms").alias("term"))
        .where(F.col("term").isNotNull())
        .groupBy("metric", "term")
        .agg((F.sum("sum") / F.sum("n_units")).alias("value"))
        .select(
            F.lit(world).alias("world"),
            F.lit(design).alias("design"),
            F.lit("att").alias("estimand"),
            "metric",
            "term",
            F.lit("absolute").alias("scale"),
            "value",
            F.lit("mean over unit-weeks of treated places, all their units counted").alias(
                "comment"
            ),
        )
    )


def _sums(outcomes: Sequence[str]) -> list[str]:
    return ["n", "is_retained", "uptake", *outcomes]


def _arm_values(
    totals: DataFrame,
    arms: Sequence[Arm[EffectT]],
    metrics: Sequence[Ratio],
    *,
    outcomes: Sequence[str],
) -> DataFrame:
    """One row per scenario, arm, population and metric, with the metric's `level`."""
    is_encouragement = [arm.trial is not None and arm.trial.uptake is not None for arm in arms]
    is_control = [arm.is_control for arm in arms]
    populations = F.when(F.col("is_exposed"), F.array(F.lit("all"), F.lit("exposed"))).otherwise(
        F.array(F.lit("all"))
    )
    entries = [
        F.struct(
            F.lit(metric.name).alias("metric"),
            (F.col(metric.numerator) / F.col(metric.denominator)).alias("level"),
        )
        for metric in metrics
    ]
    return label_arms(
        totals.withColumn("population", F.explode(populations))
        .groupBy("scenario", "arm", "population")
        .agg(*[F.sum(name).alias(name) for name in _sums(outcomes)])
        .select("scenario", "arm", "population", F.explode(F.array(*entries)).alias("entry"))
        .select("scenario", "arm", "population", "entry.metric", "entry.level")
        .withColumn("is_encouragement", lookup(is_encouragement, F.col("arm")))
        .withColumn("is_control", lookup(is_control, F.col("arm")))
        .where(F.col("is_encouragement") | (F.col("metric") != "uptake")),
        arms,
    )


def _contrasts(values: DataFrame) -> DataFrame:
    """Each variant beside its control, and the realised control beside the extreme one."""
    same = Window.partitionBy("experiment", "scenario", "population", "metric")
    across = Window.partitionBy("experiment", "population", "metric")
    uptake = Window.partitionBy("experiment", "scenario", "population", "arm")
    is_extreme = F.col("scenario") == "extreme"
    control = F.max(F.when(F.col("is_control"), F.col("level"))).over(same)
    untouched = F.max(F.when(F.col("is_control") & is_extreme, F.col("level"))).over(across)
    name = F.max(F.when(F.col("is_control"), F.col("variant"))).over(same)
    is_spillover = F.col("is_control") & ~is_extreme & (F.col("population") == "all")
    return (
        values.withColumn("base", F.when(is_spillover, untouched).otherwise(control))
        .withColumn("comparison", F.concat_ws(" - ", F.col("variant"), name))
        .withColumn("change", F.col("level") - F.col("base"))
        .withColumn(
            "uptake_change",
            F.max(F.when(F.col("metric") == "uptake", F.col("change"))).over(uptake),
        )
        .withColumn(
            "comparison", F.when(is_spillover, F.col("variant")).otherwise(F.col("comparison"))
        )
        .where(~F.col("is_control") | (is_spillover & F.col("base").isNotNull()))
    )


def _estimands() -> Column:
    """The array of (estimand, scale, value) that one contrast stands for."""
    absolute, relative = F.col("change"), F.col("change") / F.col("base")
    is_all, is_exposed = F.col("population") == "all", F.col("population") == "exposed"
    is_realised = F.col("scenario") == "realised"
    is_offer = F.col("is_encouragement") & is_all & is_realised
    names = {
        "ate": is_realised & is_all & ~F.col("is_control"),
        "att": is_realised & is_exposed & ~F.col("is_control"),
        "itt": is_offer & ~F.col("is_control"),
        "total": ~is_realised & is_all,
        "spillover": F.col("is_control"),
    }
    entries = [
        _entry(name, scale, F.when(condition, value))
        for name, condition in names.items()
        for scale, value in (("absolute", absolute), ("relative", relative))
    ]
    is_late = is_offer & ~F.col("is_control") & (F.col("metric") != "uptake")
    late = F.when(is_late, absolute / F.col("uptake_change"))
    return F.array(*entries, _entry("late", "absolute", late))


def _entry(estimand: str, scale: str, value: Column) -> Column:
    return F.struct(
        F.lit(estimand).alias("estimand"), F.lit(scale).alias("scale"), value.alias("value")
    )


def _comment() -> Column:
    texts = {
        "ate": "mean over all enrolled units, under the variant less under control",
        "att": "mean over exposed units, under the variant less under control",
        "itt": "effect of the offer on all enrolled units",
        "late": "mean effect of uptake on compliers",
        "total": "everyone has the variant less no one has it, spillovers included",
        "spillover": "controls as it happened less controls if no one had the variant",
    }
    pairs = [F.lit(text) for pair in texts.items() for text in pair]
    return F.element_at(F.create_map(*pairs), F.col("estimand"))
