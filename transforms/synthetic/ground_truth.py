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

from transforms.synthetic.money import exact_sum
from transforms.synthetic.parameters import EffectT
from transforms.synthetic.plan import Plan, WorldT
from transforms.synthetic.randomness import lookup
from transforms.synthetic.trials import is_enrolled, respond

EFFECT_COLUMNS = ("world", "design", "estimand", "metric", "term", "scale", "value", "comment")


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A metric that is a ratio of two sums over units."""

    name: str
    numerator: str
    denominator: str


def under_every_arm(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """The enrolled units once per arm of their trial, responding to that arm."""
    numbers = {
        arm.experiment: [
            n for n, other in enumerate(plan.arms) if other.experiment == arm.experiment
        ]
        for arm in plan.arms
    }
    first = plan.of_arm(lambda arm: numbers[arm.experiment][0], F.col("arm")).cast("int")
    last = plan.of_arm(lambda arm: numbers[arm.experiment][-1], F.col("arm")).cast("int")
    arms = F.explode(F.sequence(first, last))
    return respond(units.where(is_enrolled(plan.world)).withColumn("arm", arms), plan)


def in_window(days: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """The unit-days of the experiment window."""
    return days.where(F.col("day") >= plan.world.pre_days)


def label_arms(frame: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """Add `experiment` and `variant`, the names behind `arm`."""
    experiments = [arm.experiment for arm in plan.arms]
    variants = [arm.variant for arm in plan.arms]
    return frame.withColumn("experiment", lookup(experiments, F.col("arm"))).withColumn(
        "variant", lookup(variants, F.col("arm"))
    )


def unit_truth(units: DataFrame, days: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """Potential outcomes over the experiment window, one row per enrolled unit and variant.

    Args:
        units: Units under every arm: (unit_id, arm) is unique.
        days: Their unit-days in the window; a unit without rows has zeros.
        plan: The world.

    Returns:
        experiment, unit_id, variant, is_exposed, is_uptake, the outcomes and is_retained.
    """
    zeros = units.select(
        "unit_id",
        "arm",
        "is_exposed",
        "is_uptake",
        (F.col("churn_day") >= plan.n_days).alias("is_retained"),
        *[F.lit(0.0).alias(name) for name in plan.outcomes],
    )
    rows = days.select(
        "unit_id",
        "arm",
        F.lit(None).cast("boolean").alias("is_exposed"),
        F.lit(None).cast("boolean").alias("is_uptake"),
        F.lit(None).cast("boolean").alias("is_retained"),
        *[F.col(name).cast("double").alias(name) for name in plan.outcomes],
    )
    sums = (
        zeros.unionByName(rows)
        .groupBy("unit_id", "arm")
        .agg(
            *[F.max(name).alias(name) for name in ("is_exposed", "is_uptake", "is_retained")],
            *[exact_sum(name).alias(name) for name in plan.outcomes],
        )
    )
    return label_arms(sums, plan)


def arm_totals(truth: DataFrame, plan: Plan[WorldT, EffectT], *, scenario: str) -> DataFrame:
    """Sums over all enrolled units and over the exposed ones, per arm.

    Args:
        truth: Rows of `unit_truth`; `is_uptake` may lack where nothing is encouraged.
        plan: The world.
        scenario: `realised`, or `extreme`: no one has the variant (controls), or everyone.

    Returns:
        scenario, arm, is_exposed, n, is_retained, uptake and the outcomes; at most two rows an arm.
    """
    uptake = F.col("is_uptake") if "is_uptake" in truth.columns else F.lit(False)
    return (
        truth.select(
            _arm(plan).alias("arm"),
            "is_exposed",
            F.lit(1.0).alias("n"),
            F.col("is_retained").cast("double").alias("is_retained"),
            uptake.cast("double").alias("uptake"),
            *[F.col(name).cast("double").alias(name) for name in plan.outcomes],
        )
        .groupBy("arm", "is_exposed")
        .agg(*[exact_sum(name).alias(name) for name in _sums(plan)])
        .withColumn("scenario", F.lit(scenario))
    )


def trial_effects(
    totals: DataFrame, plan: Plan[WorldT, EffectT], *, ratios: Sequence[Ratio]
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
    means: list[Ratio] = [
        Ratio(name=name, numerator=name, denominator="n") for name in _sums(plan)[1:]
    ]
    values = _arm_values(totals, plan, [*means, *ratios])
    contrasts = _contrasts(values)
    rows = contrasts.select(
        F.lit(plan.draws.world).alias("world"),
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


def treated_less_control(
    levels: DataFrame, keys: Sequence[str], *, treated: str, control: str
) -> DataFrame:
    """What a treatment changes, absolute and relative to the control.

    Args:
        levels: The keys, `variant` and `level`: a row per variant and key.
        keys: What levels are of, such as a metric.
        treated: The one variant.
        control: The other.

    Returns:
        The keys, `scale` and `value`; no row where a level is missing or the relative change is
        one of nothing.
    """

    def level(variant: str) -> Column:
        return F.max(F.when(F.col("variant") == variant, F.col("level")))

    change = F.col("treated") - F.col("untreated")
    scales = F.array(
        F.struct(F.lit("absolute").alias("scale"), change.alias("value")),
        F.struct(
            F.lit("relative").alias("scale"),
            F.try_divide(change, F.col("untreated")).alias("value"),
        ),
    )
    return (
        levels.groupBy(*keys)
        .agg(level(treated).alias("treated"), level(control).alias("untreated"))
        .select(*keys, F.inline(scales))
        .where(F.col("value").isNotNull())
    )


def rollout_effects(place_weeks: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """Effects of the rollout per unit-week, with the columns EFFECT_COLUMNS.

    Args:
        place_weeks: period, first_treated_period (null is never), n_units, and the sums of the
            rollout's additions to each outcome.
        plan: The world.

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
    metrics = [
        F.struct(F.lit(name).alias("metric"), F.col(name).alias("sum")) for name in plan.outcomes
    ]
    return (
        place_weeks.where(cohort.isNotNull())
        .select("n_units", F.explode(F.array(*metrics)).alias("entry"), terms.alias("terms"))
        .select("n_units", "entry.metric", "entry.sum", F.explode("terms").alias("term"))
        .where(F.col("term").isNotNull())
        .groupBy("metric", "term")
        .agg((exact_sum("sum") / F.sum("n_units")).alias("value"))
        .select(
            F.lit(plan.draws.world).alias("world"),
            F.lit(plan.world.rollout.name).alias("design"),
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


def _arm(plan: Plan[WorldT, EffectT]) -> Column:
    """Number of the arm from the names that `label_arms` gave it."""
    names = [
        F.struct(F.lit(arm.experiment).alias("experiment"), F.lit(arm.variant).alias("variant"))
        for arm in plan.arms
    ]
    found = F.array_position(F.array(*names), F.struct("experiment", "variant"))
    return (found - 1).cast("int")


def _sums(plan: Plan[WorldT, EffectT]) -> list[str]:
    return ["n", "is_retained", "uptake", *plan.outcomes]


def _arm_values(
    totals: DataFrame, plan: Plan[WorldT, EffectT], metrics: Sequence[Ratio]
) -> DataFrame:
    """One row per scenario, arm, population and metric, with the metric's `level`."""
    is_encouragement = plan.is_arm(lambda arm: arm.is_encouragement, F.col("arm"))
    is_control = plan.is_arm(lambda arm: arm.is_control, F.col("arm"))
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
        .agg(*[exact_sum(name).alias(name) for name in _sums(plan)])
        .select("scenario", "arm", "population", F.explode(F.array(*entries)).alias("entry"))
        .select("scenario", "arm", "population", "entry.metric", "entry.level")
        .withColumn("is_encouragement", is_encouragement)
        .withColumn("is_control", is_control)
        .where(F.col("is_encouragement") | (F.col("metric") != "uptake")),
        plan,
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
