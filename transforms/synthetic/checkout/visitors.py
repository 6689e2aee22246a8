"""Who visits the shop, from when on, how often, and in which arm.

Visit days are a Poisson process seen by the day: a day with rate r is a visit day with probability
1 - exp(-r). The first visit day of the trial, on which a user is assigned, is the day on which the
cumulated rate passes an exponential draw, which is the same process; it comes before any effect, so
it is the same under every arm.
"""

import math
from itertools import accumulate

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.checkout.parameters import Device
from transforms.synthetic.checkout.plan import CONTROL, TREATMENT, CheckoutPlan
from transforms.synthetic.randomness import lookup

_MEAN_TENURE_DAYS, _MAX_TENURE_DAYS = 400.0, 1500
_LARGEST_MULTIPLIER = 2.0
_N_NODES = 60


def population(units: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """Draw the users.

    Args:
        units: One BIGINT column `id` from zero.
        plan: The world.

    Returns:
        One row per user: `unit_id`; `device`, `country` (INT positions); `start_day` (INT, first
        day on which the user is seen, below zero before the world); `pre_mood`, `trial_mood`,
        `log_rate`, `intent`, `log_basket`, `log_latency`, `multiplier` (DOUBLE); `first_day` (INT,
        first visit day of the trial, null if none); `arm` (INT).
    """
    world, draws = plan.world, plan.draws
    devices = [device.share for device in world.devices.values()]
    return (
        units.select((F.col("id") + 1).alias("unit_id"))
        .withColumn("device", draws.index("device", devices, "unit_id"))
        .withColumn("country", draws.index("country", list(world.countries.values()), "unit_id"))
        .withColumn("start_day", _start_day(plan))
        .withColumn("pre_mood", draws.normal("pre-mood", "unit_id"))
        .withColumn("trial_mood", draws.normal("trial-mood", "unit_id"))
        .withColumn("intent", world.funnel.intent_sd * draws.normal("intent", "unit_id"))
        .withColumn("log_basket", world.orders.user_sd * draws.normal("basket", "unit_id"))
        .withColumn("log_latency", world.pages.user_sd * draws.normal("latency", "unit_id"))
        .withColumn("log_rate", _log_rate(plan))
        .withColumn("first_day", _first_day(plan))
        .withColumn("multiplier", _multiplier(plan))
        .withColumn("arm", _arm(plan))
    )


def visit_days(units: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """One row per user and day on which the user visits.

    Args:
        units: Rows of `population`; `arm` decides the effects.
        plan: The world.

    Returns:
        The columns of `units` with `day` (INT) and `strength` (DOUBLE): the size of the effect on
        the user on that day, relative to the world's parameters; zero where there is none.
    """
    day, first, start = F.col("day"), F.col("first_day"), F.col("start_day")
    is_before = day < plan.world.pre_days
    is_free = (is_before & (day > start)) | (~is_before & F.coalesce(day > first, F.lit(False)))
    is_drawn = plan.draws.uniform("visit", "unit_id", "day") < F.lit(1.0) - F.exp(-_rate(plan))
    is_sure = (day == start) | F.coalesce(day == first, F.lit(False))
    days = F.sequence(F.greatest(start, F.lit(0)), F.lit(plan.n_days - 1))
    return (
        units.withColumn("day", F.explode(days))
        .withColumn("strength", _strength(plan))
        .where(is_sure | (is_free & is_drawn))
    )


def is_enrolled() -> Column:
    """Visits during the trial (the same under every arm)."""
    return F.col("first_day").isNotNull()


def is_new(plan: CheckoutPlan) -> Column:
    """First seen during the trial."""
    return F.col("start_day") >= plan.world.pre_days


def enrolled_share(plan: CheckoutPlan, device: Device) -> float:
    """Expected share of a device's users who visit during the trial.

    The rate of a user is log-normal, so the probability of no visit is an integral over a normal,
    done by Gauss-Hermite quadrature.
    """
    world, visits = plan.world, plan.world.visits
    nodes, weights = np.polynomial.hermite_e.hermegauss(_N_NODES)
    days = sum(visits.weekday[day % 7] for day in range(world.pre_days, plan.n_days))
    sd = math.hypot(visits.sd, visits.mood_sd)

    def share(shift: float) -> float:
        rates = visits.daily_rate * np.exp(device.visits + shift + sd * nodes)
        return float(weights @ -np.expm1(-rates * days) / weights.sum())

    before = world.pre_days / plan.n_days
    newcomers = before * share(world.newcomers.visits) + 1.0 - before
    return (1.0 - world.newcomers.share) * share(0.0) + world.newcomers.share * newcomers


def under_both_arms(units: DataFrame) -> DataFrame:
    """The enrolled users once per arm."""
    arms = F.explode(F.array(F.lit(CONTROL), F.lit(TREATMENT)))
    return units.where(is_enrolled()).withColumn("arm", arms)


def _start_day(plan: CheckoutPlan) -> Column:
    """First day on which a user is seen: before the world, or any of its days for newcomers."""
    draws = plan.draws
    tenure = F.floor(draws.exponential("tenure", "unit_id") * _MEAN_TENURE_DAYS) + 1
    before = -F.least(tenure, F.lit(_MAX_TENURE_DAYS))
    within = F.floor(draws.uniform("start", "unit_id") * float(plan.n_days))
    is_newcomer = draws.uniform("newcomer", "unit_id") < plan.world.newcomers.share
    return F.when(is_newcomer, within).otherwise(before).cast("int")


def _log_rate(plan: CheckoutPlan) -> Column:
    """Log of the rate of visit days, before weekday and mood."""
    visits, world = plan.world.visits, plan.world
    by_device = lookup([device.visits for device in world.devices.values()], F.col("device"))
    by_start = F.when(F.col("start_day") >= 0, world.newcomers.visits).otherwise(0.0)
    own = visits.sd * plan.draws.normal("rate", "unit_id")
    return F.log(F.lit(visits.daily_rate)) + by_device + by_start + own


def _rate(plan: CheckoutPlan) -> Column:
    """Rate of the column `day`: weekday, mood and, after the first visit day, the effect."""
    visits, day = plan.world.visits, F.col("day")
    mood = F.when(day < plan.world.pre_days, F.col("pre_mood")).otherwise(F.col("trial_mood"))
    weekday = lookup(list(visits.weekday), day % 7)
    effect = F.lit(1.0) + plan.effect.visits * F.col("strength")
    return F.exp(F.col("log_rate") + visits.mood_sd * mood) * weekday * effect


def _first_day(plan: CheckoutPlan) -> Column:
    """First visit day of the trial; null for users who do not visit during it."""
    world = plan.world
    weights = [world.visits.weekday[day % 7] for day in range(world.pre_days, plan.n_days)]
    cumulated = F.split(F.lit(";".join(map(repr, accumulate(weights)))), ";").cast("array<double>")
    rate = F.exp(F.col("log_rate") + world.visits.mood_sd * F.col("trial_mood"))
    needed = plan.draws.exponential("first-visit", "unit_id") / rate
    n_idle = F.size(F.filter(cumulated, lambda reached: reached < needed))
    drawn = F.when(n_idle < plan.n_trial_days, n_idle + world.pre_days)
    return F.when(is_new(plan), F.col("start_day")).otherwise(drawn).cast("int")


def _multiplier(plan: CheckoutPlan) -> Column:
    """How strongly a user responds: by device and newness, and a spread of mean one."""
    world = plan.world
    by_device = lookup([device.response for device in world.devices.values()], F.col("device"))
    by_start = F.when(is_new(plan), world.newcomers.response).otherwise(1.0)
    drawn = F.lit(1.0) + world.trial.heterogeneity * plan.draws.normal("response", "unit_id")
    limited = F.least(F.greatest(drawn, F.lit(0.0)), F.lit(_LARGEST_MULTIPLIER))
    return by_device * by_start * limited


def _arm(plan: CheckoutPlan) -> Column:
    """The arm: by salted hash, unless a fault lets the device or the past decide with it."""
    world, faults = plan.world, plan.world.faults
    share = F.lit(world.trial.share)
    if "segment_imbalance" in plan.faults:
        first, *others = (
            device.share * enrolled_share(plan, device) for device in world.devices.values()
        )
        loss = faults.segment_imbalance * first / sum(others)
        share = share + F.when(F.col("device") == 0, faults.segment_imbalance).otherwise(-loss)
    if "pre_period_imbalance" in plan.faults:
        excess = F.lit(faults.pre_period_imbalance)
        share = share + F.when(F.col("pre_mood") > 0.0, excess).otherwise(-excess)
    drawn = plan.draws.uniform(f"assignment/{world.trial.salt}", "unit_id")
    return F.when(drawn < share, F.lit(TREATMENT)).otherwise(F.lit(CONTROL))


def _strength(plan: CheckoutPlan) -> Column:
    """Size of the effect on the column `day`: from the first day on, halving under `novelty`."""
    age = (F.col("day") - F.col("first_day")).cast("double")
    size = F.col("multiplier")
    if "novelty" in plan.faults:
        size = size * F.pow(F.lit(0.5), age / plan.world.faults.novelty)
    applies = (F.col("arm") == TREATMENT) & F.coalesce(age >= 0.0, F.lit(False))
    return F.when(applies, size).otherwise(F.lit(0.0))
