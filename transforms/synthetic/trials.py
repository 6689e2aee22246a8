"""Who is in which trial, in which arm, when the perk reaches them, and when they leave.

Trials run on disjoint layers: a cluster (household, driver) belongs to at most one trial, drawn by
hash. All arms of all trials of a world are numbered in one list, the first being "in no trial"; a
unit's realised arm is one number, and its potential outcomes are the same computation with another.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.parameters import EffectT, World
from transforms.synthetic.plan import Plan, WorldT
from transforms.synthetic.randomness import lookup, position

_FAR_DAY = 1_000_000


def draw_trials(units: DataFrame, plan: Plan[WorldT, EffectT], *, cluster: str) -> DataFrame:
    """Add `trial` (INT, -1 for none) and `arm` (INT): layer by cluster, variant by salted hash.

    Args:
        units: Rows with `unit_id` and the column named by `cluster`.
        plan: The world.
        cluster: Column whose values share a layer, and a variant in clustered trials.
    """
    draws, trials = plan.draws, plan.trials
    populations: list[float] = [trial.population for trial in trials]
    rest = max(0.0, 1.0 - sum(populations))
    layer = position(draws.uniform("layer", cluster), [*populations, rest])
    firsts = [number for number, arm in enumerate(plan.arms) if arm.is_control]
    arm = F.lit(0)
    for place, (trial, first) in enumerate(zip(trials, firsts, strict=True)):
        unit = cluster if trial.design == "clustered" else "unit_id"
        shares = [variant.share for variant in trial.variants]
        drawn = draws.index(f"assignment/{trial.salt}", shares, unit)
        arm = F.when(F.col("layer") == place, F.lit(first) + drawn).otherwise(arm)
    return (
        units.withColumn("layer", layer)
        .withColumn("arm", arm)
        .withColumn("trial", F.when(F.col("layer") < len(trials), F.col("layer")).otherwise(-1))
        .drop("layer")
    )


def draw_exposure(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """Add `exposure_day` (INT, null if never): when the unit would first see its variant.

    The day is drawn before variant and churn, so it is the same under every variant: what a unit in
    the control arm would have been shown. A unit that leaves earlier is not exposed (`respond`).
    """
    trial = F.col("trial")
    share = lookup([entry.exposure for entry in plan.trials], trial)
    delay = lookup([entry.exposure_delay for entry in plan.trials], trial)
    day = plan.world.pre_days + F.floor(plan.draws.exponential("exposure-delay", "unit_id") * delay)
    is_reached = (trial >= 0) & (plan.draws.uniform("exposure", "unit_id") < share)
    return units.withColumn("exposure_day", F.when(is_reached, day.cast("int")))


def draw_strata(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """Add the principal stratum of an encouragement: `is_always_taker`, `is_complier` (BOOLEAN).

    The stratum depends on `engagement`, so comparing those who took the perk up with the others is
    confounded, and the offer is a valid instrument. Both are false outside encouragements.
    """
    is_weak = "weak_instrument" in plan.faults
    factor = plan.world.faults.weak_instrument if is_weak else 1.0
    is_always = is_complier = F.col("trial") < -1
    for place, trial in enumerate(plan.trials):
        if trial.uptake is None:
            continue
        selection = trial.uptake.selection
        own = plan.draws.normal(f"uptake/{trial.salt}", "unit_id")
        score = F.col("engagement") * selection + own * (1.0 - selection**2) ** 0.5
        rank = normal_share(-score)
        is_here = F.col("trial") == place
        limit = trial.uptake.always + trial.uptake.compliers * factor
        is_always = is_always | (is_here & (rank < trial.uptake.always))
        is_complier = is_complier | (is_here & (rank >= trial.uptake.always) & (rank < limit))
    return units.withColumn("is_always_taker", is_always).withColumn("is_complier", is_complier)


def draw_multiplier(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """Add `multiplier` (DOUBLE, 0 to 2, mean one): how strongly a unit responds to its variant."""
    sds = [trial.heterogeneity for trial in plan.trials]
    sd = F.coalesce(lookup(sds, F.greatest(F.col("trial"), F.lit(0))), F.lit(0.0))
    drawn = F.lit(1.0) + sd * plan.draws.normal("response", "unit_id")
    return units.withColumn("multiplier", F.least(F.greatest(drawn, F.lit(0.0)), F.lit(2.0)))


def respond(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """Add what follows from `arm`: whether the effect applies, and the day the unit leaves.

    With hazard h a day, factor f on it from the exposure day x on, and a unit's own exponential
    draw E, the unit leaves when the cumulated hazard reaches E: at E / h if that is before x, else
    at x + (E / h - x) / f. The draw is the same under every arm.

    Adds:
        is_exposed: BOOLEAN, sees its variant within the world; the same under every arm.
        is_uptake: BOOLEAN, takes the perk up under this arm (encouragements only).
        is_affected: BOOLEAN, the arm's effect applies from `exposure_day` on.
        churn_day: INT, first day on which the unit is gone; `n_days` or more is after the world.
    """
    exposure, clock, arm = F.col("exposure_day"), F.col("churn_clock"), F.col("arm")
    is_exposed = exposure.isNotNull() & (exposure < plan.n_days) & (exposure < clock)
    is_offer = plan.is_arm(lambda entry: entry.is_encouragement and not entry.is_control, arm)
    has_uptake = plan.is_arm(lambda entry: entry.is_encouragement, arm)
    would_take = F.col("is_always_taker") | (F.col("is_complier") & is_offer)
    change = plan.of_effect(lambda effect: effect.churn, arm) * F.col("multiplier")
    slowed = exposure + (clock - exposure) / (F.lit(1.0) + change)
    left = F.when(F.col("is_affected"), slowed).otherwise(clock)
    return (
        units.withColumn("is_exposed", is_exposed)
        .withColumn("is_uptake", has_uptake & F.col("is_exposed") & would_take)
        .withColumn("is_affected", F.col("is_exposed") & (~has_uptake | F.col("is_uptake")))
        .withColumn("churn_day", F.least(F.floor(left) + 1, F.lit(_FAR_DAY)).cast("int"))
    )


def is_enrolled(world: World) -> Column:
    """In a trial, and still there when the trials start (the same under every arm)."""
    return (F.col("trial") >= 0) & (F.col("churn_clock") >= world.pre_days)


def effect_strength(plan: Plan[WorldT, EffectT]) -> Column:
    """Size of a unit's effect on the column `day`, relative to its arm's parameters (DOUBLE).

    Zero before exposure; then the unit's multiplier, halving every few days under `novelty`.
    """
    day, strength = F.col("day"), F.col("multiplier")
    if "novelty" in plan.faults:
        age = (day - F.col("exposure_day")).cast("double")
        strength = strength * F.pow(F.lit(0.5), age / plan.world.faults.novelty)
    applies = F.col("is_affected") & (day >= F.col("exposure_day"))
    return F.when(applies, strength).otherwise(F.lit(0.0))


def normal_share(value: Column) -> Column:
    """The standard normal distribution function, to 8e-8 (Abramowitz and Stegun 1964, 26.2.17)."""
    t = F.lit(1.0) / (F.lit(1.0) + F.lit(0.2316419) * F.abs(value))
    polynomial = F.lit(0.0)
    for coefficient in (1.330274429, -1.821255978, 1.781477937, -0.356563782, 0.319381530):
        polynomial = (polynomial + F.lit(coefficient)) * t
    upper = polynomial * F.exp(-value * value / 2.0) * F.lit(0.3989422804014327)
    return F.when(value >= 0.0, F.lit(1.0) - upper).otherwise(upper)
