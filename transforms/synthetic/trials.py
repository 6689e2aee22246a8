"""Who is in which trial, in which arm, when the perk reaches them, and when they leave.

Trials run on disjoint layers: a cluster (household, driver) belongs to at most one trial, drawn by
hash. All arms of all trials of a world are numbered in one list, the first being "in no trial"; a
unit's realised arm is one number, and its potential outcomes are the same computation with another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.parameters import EffectT, Fault, Trial, World
from transforms.synthetic.randomness import Draws, lookup, position


@dataclass(frozen=True, kw_only=True)
class Arm(Generic[EffectT]):
    """One numbered arm; number zero is "in no trial".

    Attributes:
        trial: The trial of the arm, None for number zero.
        variant: Name of the variant, empty for number zero.
        effect: What the variant does to an affected unit.
        is_control: Whether it is the control of its trial.
    """

    trial: Trial[EffectT] | None
    variant: str
    effect: EffectT
    is_control: bool


def arms_of(trials: Sequence[Trial[EffectT]], none: EffectT) -> tuple[Arm[EffectT], ...]:
    """All arms in order: none, then the variants of each trial."""
    arms = [Arm(trial=None, variant="", effect=none, is_control=False)]
    for trial in trials:
        for place, variant in enumerate(trial.variants):
            arms.append(
                Arm(
                    trial=trial,
                    variant=variant.name,
                    effect=variant.effect,
                    is_control=place == 0,
                )
            )
    return tuple(arms)


def by_arm(arms: Sequence[Arm[EffectT]], value: Callable[[EffectT], float], arm: Column) -> Column:
    """The value that an arm's effect gives, looked up by the arm's number."""
    return lookup([float(value(entry.effect)) for entry in arms], arm)


def first_arms(trials: Sequence[Trial[EffectT]]) -> list[int]:
    """Number of the control arm of each trial."""
    numbers = [1]
    for trial in trials[:-1]:
        numbers.append(numbers[-1] + len(trial.variants))
    return numbers


def draw_trials(
    units: DataFrame, trials: Sequence[Trial[EffectT]], draws: Draws, *, cluster: str
) -> DataFrame:
    """Add `trial` (INT, -1 for none) and `arm` (INT): layer by cluster, variant by salted hash.

    Args:
        units: Rows with `unit_id` and the column named by `cluster`.
        trials: The trials of the world.
        draws: Randomness of the world.
        cluster: Column whose values share a layer, and a variant in clustered trials.
    """
    populations = [trial.population for trial in trials]
    layer = position(draws.uniform("layer", F.col(cluster)), [*populations, _rest(populations)])
    arm = F.lit(0)
    for place, (trial, first) in enumerate(zip(trials, first_arms(trials), strict=True)):
        unit = cluster if trial.design == "clustered" else "unit_id"
        shares = [variant.share for variant in trial.variants]
        drawn = draws.index(f"assignment/{trial.salt}", shares, F.col(unit))
        arm = F.when(F.col("layer") == place, F.lit(first) + drawn).otherwise(arm)
    return (
        units.withColumn("layer", layer)
        .withColumn("arm", arm)
        .withColumn("trial", F.when(F.col("layer") < len(trials), F.col("layer")).otherwise(-1))
        .drop("layer")
    )


def draw_exposure(
    units: DataFrame, trials: Sequence[Trial[EffectT]], draws: Draws, world: World
) -> DataFrame:
    """Add `exposure_day` (INT, null if never): when the unit would first see its variant.

    The day is drawn before variant and churn, so it is the same under every variant: what a unit in
    the control arm would have been shown. A unit that leaves earlier is not exposed (`draw_churn`).
    """
    trial = F.col("trial")
    share = lookup([entry.exposure for entry in trials], trial)
    delay = lookup([entry.exposure_delay for entry in trials], trial)
    day = world.pre_days + F.floor(draws.exponential("exposure-delay", F.col("unit_id")) * delay)
    is_reached = (trial >= 0) & (draws.uniform("exposure", F.col("unit_id")) < share)
    return units.withColumn("exposure_day", F.when(is_reached, day.cast("int")))


def draw_strata(
    units: DataFrame,
    trials: Sequence[Trial[EffectT]],
    draws: Draws,
    world: World,
    *,
    faults: frozenset[Fault],
) -> DataFrame:
    """Add the principal stratum of an encouragement: `is_always_taker`, `is_complier` (BOOLEAN).

    The stratum depends on `engagement`, so comparing those who took the perk up with the others is
    confounded, and the offer is a valid instrument. Both are false outside encouragements.
    """
    factor = world.faults.weak_instrument if "weak_instrument" in faults else 1.0
    is_always = is_complier = F.lit(False)
    for place, trial in enumerate(trials):
        if trial.uptake is None:
            continue
        selection = trial.uptake.selection
        score = (
            F.col("engagement") * selection
            + draws.normal(f"uptake/{trial.salt}", F.col("unit_id")) * (1.0 - selection**2) ** 0.5
        )
        rank = normal_share(-score)
        is_here = F.col("trial") == place
        limit = trial.uptake.always + trial.uptake.compliers * factor
        is_always = is_always | (is_here & (rank < trial.uptake.always))
        is_complier = is_complier | (is_here & (rank >= trial.uptake.always) & (rank < limit))
    return units.withColumn("is_always_taker", is_always).withColumn("is_complier", is_complier)


def respond(
    units: DataFrame, arms: Sequence[Arm[EffectT]], world: World, *, n_days: int
) -> DataFrame:
    """Add what follows from `arm`: whether the effect applies, and the day the unit leaves.

    With hazard h a day, factor f on it from the exposure day x on, and a unit's own exponential draw
    E, the unit leaves when the cumulated hazard reaches E: at E / h if that is before x, else at
    x + (E / h - x) / f. The draw is the same under every arm.

    Adds:
        is_exposed: BOOLEAN, sees its variant within the world; the same under every arm.
        is_uptake: BOOLEAN, takes the perk up under this arm (encouragements only).
        is_affected: BOOLEAN, the arm's effect applies from `exposure_day` on.
        churn_day: INT, first day on which the unit is gone; `n_days` or more is after the world.
    """
    exposure = F.col("exposure_day")
    clock = F.col("churn_clock")
    is_exposed = exposure.isNotNull() & (exposure < n_days) & (exposure < clock)
    is_uptake_arm = [entry.trial is not None and entry.trial.uptake is not None for entry in arms]
    is_offer_arm = [
        has_uptake and not entry.is_control
        for has_uptake, entry in zip(is_uptake_arm, arms, strict=True)
    ]
    has_uptake = lookup(is_uptake_arm, F.col("arm"))
    would_take = F.col("is_always_taker") | (
        F.col("is_complier") & lookup(is_offer_arm, F.col("arm"))
    )
    factor = by_arm(arms, lambda effect: 1.0 + effect.churn, F.col("arm"))
    slowing = F.lit(1.0) + (factor - 1.0) * F.col("multiplier")
    left = F.when(F.col("is_affected"), exposure + (clock - exposure) / slowing).otherwise(clock)
    return (
        units.withColumn("is_exposed", is_exposed)
        .withColumn("is_uptake", has_uptake & F.col("is_exposed") & would_take)
        .withColumn("is_affected", F.col("is_exposed") & (~has_uptake | F.col("is_uptake")))
        .withColumn("churn_day", F.least(F.floor(left) + 1, F.lit(_FAR_DAY)).cast("int"))
    )


def is_enrolled(world: World) -> Column:
    """In a trial, and still there when the trials start (the same under every arm)."""
    return (F.col("trial") >= 0) & (F.col("churn_clock") >= world.pre_days)


def effect_strength(world: World, day: Column, *, faults: frozenset[Fault]) -> Column:
    """Size of a unit's effect on a day, relative to its arm's parameters (DOUBLE).

    Zero before exposure; then the unit's multiplier, halving every few days under `novelty`.
    """
    strength = F.col("multiplier")
    if "novelty" in faults:
        age = (day - F.col("exposure_day")).cast("double")
        strength = strength * F.pow(F.lit(0.5), age / world.faults.novelty)
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


_FAR_DAY = 1_000_000


def _rest(populations: Sequence[float]) -> float:
    return max(0.0, 1.0 - sum(populations))
