"""The world of drivers in city markets: who they are, and what each works and earns on each day.

`population` draws the units, `work` maps units with an arm to unit-days, as in the world of
subscribers. Drivers of a city compete for trips: everybody's trips fall with the share of the
city's drivers who are planned to have the surge scheme (the spillover of that variant).
"""

from dataclasses import dataclass

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.parameters import DriverEffect, DriverWorld, Fault
from transforms.synthetic.places import PlacePlan, plan_places
from transforms.synthetic.population import (
    MAX_ACTIVE_SHARE,
    day_factors,
    draw_churn,
    draw_levels,
    draw_multiplier,
    draw_tenure,
    to_days,
    to_weeks,
)
from transforms.synthetic.randomness import Draws, lookup
from transforms.synthetic.trials import (
    Arm,
    arms_of,
    by_arm,
    draw_exposure,
    draw_strata,
    draw_trials,
    effect_strength,
    respond,
)

OUTCOMES = ("hours", "trips", "earnings", "payouts", "active_days")


@dataclass(frozen=True, kw_only=True)
class DriverPlan:
    """All that is fixed before a row is made.

    Attributes:
        world: The parameters.
        draws: Randomness.
        places: Cities, their shocks and the rollout.
        surge_shares: Planned share of each city's drivers who have a surge variant.
        arms: The numbered arms of all trials.
        n_days: Days of the world, whole weeks.
        faults: The faults that are switched on.
    """

    world: DriverWorld
    draws: Draws
    places: PlacePlan
    surge_shares: tuple[float, ...]
    arms: tuple[Arm[DriverEffect], ...]
    n_days: int
    faults: frozenset[Fault]


def plan(world: DriverWorld, *, seed: int, n_days: int, faults: frozenset[Fault]) -> DriverPlan:
    """Fix a world of drivers."""
    draws = Draws(seed=seed, world="drivers")
    places = plan_places(world, draws, n_weeks=n_days // 7, faults=faults)
    return DriverPlan(
        world=world,
        draws=draws,
        places=places,
        surge_shares=_surge_shares(world, draws, n_places=len(places.names), faults=faults),
        arms=arms_of(world.trials, DriverEffect()),
        n_days=n_days,
        faults=faults,
    )


def population(units: DataFrame, plan: DriverPlan) -> DataFrame:
    """Draw the drivers.

    Args:
        units: One BIGINT column `id` from zero.
        plan: The world.

    Returns:
        One row per driver: `unit_id`, attributes, trial, realised arm and what `respond` adds.
    """
    world, draws = plan.world, plan.draws
    unit = F.col("unit_id")
    identified = (
        units.select((F.col("id") + 1).alias("unit_id"))
        .withColumn("engagement", draws.normal("engagement", unit))
        .withColumn("place", draws.index("place", plan.places.weights, unit))
        .withColumn("vehicle", draws.index("vehicle", list(world.vehicles.values()), unit))
        .withColumn("log_rate", world.work.trips_sd * draws.normal("rate", unit))
        .withColumn("log_fare", world.work.fare_sd * draws.normal("fare", unit))
    )
    leaving = draw_churn(draw_tenure(identified, draws, world), draws, world, factor=F.lit(1.0))
    assigned = draw_trials(
        draw_levels(leaving, draws, world), world.trials, draws, cluster="unit_id"
    )
    exposed = draw_exposure(_saturate(assigned, plan), world.trials, draws, world)
    responsive = draw_multiplier(
        draw_strata(exposed, world.trials, draws, world, faults=plan.faults),
        [trial.heterogeneity for trial in world.trials],
        draws,
    )
    return respond(responsive, plan.arms, world, n_days=plan.n_days).withColumn(
        "surge_share", lookup(plan.surge_shares, F.col("place"))
    )


def work(units: DataFrame, plan: DriverPlan) -> DataFrame:
    """What units do on each day on which they work.

    Args:
        units: Rows of `population`; `arm`, what `respond` makes of it and `surge_share` decide the
            effects.
        plan: The world.

    Returns:
        The columns of `units` with `day` (INT), `hours` (DOUBLE, quarters), `trips` (INT), `fares`,
        `payouts` (incentives), `earnings` (their sum; DOUBLE, two decimals) and `active_days` (INT, 1).
    """
    day = F.col("day")
    days = (
        to_days(to_weeks(units, plan.draws, plan.world, plan.places))
        .withColumn("strength", effect_strength(plan.world, day, faults=plan.faults))
        .withColumn("is_active", _is_active(plan))
        .withColumn("has_event", F.coalesce(F.col("event_day") == day, F.lit(False)))
        .where(F.col("is_active") | F.col("has_event"))
    )
    return (
        days.withColumn("own_hours", _own_hours(plan))
        .withColumn("hours", F.col("own_hours") + _event_hours(plan))
        .withColumn("own_trips", _own_trips(plan))
        .withColumn("trips", (F.col("own_trips") + _event_trips(plan)).cast("int"))
        .withColumn("own_fares", _own_fares(plan))
        .withColumn("fares", F.round(F.col("own_fares") + _event_fares(plan), 2))
        .withColumn("payouts", F.round(_own_incentives(plan) + _event_payouts(plan), 2))
        .withColumn("earnings", F.round(F.col("fares") + F.col("payouts"), 2))
        .withColumn("active_days", F.lit(1))
    )


def at_extreme_shares(units: DataFrame, plan: DriverPlan) -> DataFrame:
    """Units under the controls with no surge in their city, and under surge with everyone in it.

    Args:
        units: Units under every arm.
        plan: The world.

    Returns:
        The rows of control and surge arms with `surge_share` zero, or its largest possible value.
    """
    is_surge = by_arm(plan.arms, lambda e: float(e.surge > 0.0), F.col("arm")) > 0.0
    is_control = lookup([float(arm.is_control) for arm in plan.arms], F.col("arm")) > 0.0
    largest = sum(
        trial.population
        for trial in plan.world.trials
        if any(variant.effect.surge > 0.0 for variant in trial.variants)
    )
    return units.where(is_surge | is_control).withColumn(
        "surge_share", F.when(is_surge, largest).otherwise(0.0)
    )


def rollout_additions(units: DataFrame, plan: DriverPlan) -> DataFrame:
    """What the rollout's events add, one row per event: place, week and the outcomes' additions."""
    day = F.col("day")
    return (
        to_weeks(units, plan.draws, plan.world, plan.places)
        .where(F.col("event_day").isNotNull())
        .withColumn("day", F.col("event_day"))
        .withColumn("strength", effect_strength(plan.world, day, faults=plan.faults))
        .withColumn("has_event", F.lit(True))
        .select(
            "place",
            "week",
            _event_hours(plan).alias("hours"),
            _event_trips(plan).alias("trips"),
            F.round(_event_fares(plan) + _event_payouts(plan), 2).alias("earnings"),
            _event_payouts(plan).alias("payouts"),
            (~_is_active(plan)).cast("int").alias("active_days"),
        )
    )


def _is_active(plan: DriverPlan) -> Column:
    """Whether the driver works on the day for reasons other than the rollout's event."""
    season = day_factors(
        plan.world.usage.weekday_activity, plan.world, n_days=plan.n_days, faults=plan.faults
    )
    effect = by_arm(plan.arms, lambda e: e.activity, F.col("arm")) * F.col("strength")
    share = lookup(season, F.col("day")) * F.col("active_share") * (F.lit(1.0) + effect)
    drawn = plan.draws.uniform("active", F.col("unit_id"), F.col("day"))
    return drawn < F.least(share, F.lit(MAX_ACTIVE_SHARE))


def _event_hours(plan: DriverPlan) -> Column:
    """Hours of the rollout's event, in quarters; at least a quarter."""
    quarters = F.round(F.col("event_size") * plan.world.rollout.amount * 4.0)
    hours = F.greatest(quarters, F.lit(1.0)) / 4.0
    return F.when(F.col("has_event"), hours).otherwise(0.0)


def _event_trips(plan: DriverPlan) -> Column:
    """Trips of the rollout's event: the mean rate of the world times its hours."""
    return F.round(_event_hours(plan) * plan.world.work.trips_per_hour).cast("int")


def _event_fares(plan: DriverPlan) -> Column:
    """Fares of the rollout's event: its trips at the mean fare of the world."""
    return F.round(_event_trips(plan) * plan.world.work.fare, 2)


def _event_payouts(plan: DriverPlan) -> Column:
    """Incentive of the rollout's event, for those who fulfil it; scales with the event."""
    rollout = plan.world.rollout
    is_paid = plan.draws.uniform("event-paid", F.col("unit_id"), F.col("week")) < rollout.paid_share
    return F.when(
        F.col("has_event") & is_paid, F.round(F.col("event_size") * rollout.payment, 2)
    ).otherwise(0.0)


def _surge_shares(
    world: DriverWorld, draws: Draws, *, n_places: int, faults: frozenset[Fault]
) -> tuple[float, ...]:
    """Planned surge share of all drivers of each city; differs by city under spillover_saturation."""
    planned = sum(
        trial.population * variant.share
        for trial in world.trials
        for variant in trial.variants
        if variant.effect.surge > 0.0
    )
    return tuple(float(planned * kept) for kept in _kept(world, draws, n_places, faults))


def _kept(world: DriverWorld, draws: Draws, n_places: int, faults: frozenset[Fault]) -> list[float]:
    """Share of the drawn surge drivers of each city who keep it; the others become controls."""
    if "spillover_saturation" not in faults:
        return [1.0] * n_places
    drawn = draws.few_uniforms("saturation", np.arange(n_places))
    return [float(value) for value in 1.0 - world.faults.spillover_saturation * drawn]


def _saturate(units: DataFrame, plan: DriverPlan) -> DataFrame:
    """Turn surge drivers of less saturated cities into controls (two-stage randomisation)."""
    if "spillover_saturation" not in plan.faults:
        return units
    kept = _kept(plan.world, plan.draws, len(plan.places.names), plan.faults)
    loses = plan.draws.uniform("saturation-unit", F.col("unit_id")) >= lookup(kept, F.col("place"))
    controls = [
        next(
            (
                float(number)
                for number, other in enumerate(plan.arms)
                if other.trial is arm.trial and other.is_control
            ),
            0.0,
        )
        if arm.effect.surge > 0.0
        else float(place)
        for place, arm in enumerate(plan.arms)
    ]
    control = lookup(controls, F.col("arm")).cast("int")
    return units.withColumn("arm", F.when(loses, control).otherwise(F.col("arm")))


def _own_hours(plan: DriverPlan) -> Column:
    """Hours beside the rollout's, in quarters: log-normal with a daily limit."""
    settings = plan.world.usage
    noise = plan.draws.normal("hours", F.col("unit_id"), F.col("day"))
    effect = by_arm(plan.arms, lambda e: e.hours, F.col("arm")) * F.col("strength")
    hours = (
        F.exp(F.col("log_amount") + settings.day_sd * noise)
        * F.col("week_factor")
        * lookup(list(settings.weekday_amount), F.col("weekday"))
        * (F.lit(1.0) + effect)
    )
    quarters = F.ceil(F.least(hours, F.lit(settings.max_amount)) * 4.0)
    return F.when(F.col("is_active"), quarters / 4.0).otherwise(0.0)


def _own_trips(plan: DriverPlan) -> Column:
    """Trips: hours times the driver's rate, less the city's spillover while the trial runs."""
    settings = plan.world.work
    spread = plan.draws.uniform("trips", F.col("unit_id"), F.col("day")) * 0.5 + 0.75
    in_trial = F.col("day") >= plan.world.pre_days
    loss = F.when(in_trial, F.col("surge_share") * settings.spillover).otherwise(0.0)
    rate = settings.trips_per_hour * F.exp(F.col("log_rate")) * (F.lit(1.0) - loss)
    rounding = plan.draws.uniform("trips-rounding", F.col("unit_id"), F.col("day"))
    return F.floor(F.col("own_hours") * rate * spread + rounding).cast("int")


def _own_fares(plan: DriverPlan) -> Column:
    """Fares after commission: trips times the driver's mean fare of the day."""
    spread = plan.draws.uniform("fares", F.col("unit_id"), F.col("day")) * 0.4 + 0.8
    fare = plan.world.work.fare * F.exp(F.col("log_fare")) * spread
    return F.round(F.col("own_trips") * fare, 2)


def _own_incentives(plan: DriverPlan) -> Column:
    """Promotions of every driver, the flat bonus of a full day, and the surge on fares."""
    settings, arms, strength = plan.world.work, plan.arms, F.col("strength")
    surge = by_arm(arms, lambda e: e.surge, F.col("arm")) * strength
    bonus = by_arm(arms, lambda e: e.bonus, F.col("arm")) * strength
    is_full = F.col("own_trips") >= settings.bonus_trips
    paid_bonus = F.when(is_full, F.round(bonus, 2)).otherwise(0.0)
    return F.round(F.col("own_fares") * (surge + settings.promotion), 2) + paid_bonus
