"""The world of drivers in city markets: who they are, and what each works and earns on each day.

`population` draws the units, `work` maps units with an arm to unit-days, as in the world of
subscribers. Drivers of a city compete for trips: everybody's trips fall with the share of the
city's drivers who are planned to have the surge scheme (the spillover of that variant).
"""

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.money import to_cents
from transforms.synthetic.parameters import DriverEffect, DriverWorld, Fault
from transforms.synthetic.places import plan_places
from transforms.synthetic.plan import Plan, arms_of
from transforms.synthetic.population import (
    draw_churn,
    draw_levels,
    draw_tenure,
    to_days,
    to_event_days,
    to_weeks,
)
from transforms.synthetic.randomness import Draws, lookup
from transforms.synthetic.trials import (
    draw_exposure,
    draw_multiplier,
    draw_strata,
    draw_trials,
    respond,
)

OUTCOMES = ("hours", "trips", "earnings", "payouts", "active_days")
DriverPlan = Plan[DriverWorld, DriverEffect]


def plan(world: DriverWorld, *, seed: int, n_days: int, faults: frozenset[Fault]) -> DriverPlan:
    """Fix a world of drivers."""
    draws = Draws(seed=seed, world="drivers")
    return Plan(
        world=world,
        trials=world.trials,
        arms=arms_of(world.trials, DriverEffect()),
        draws=draws,
        places=plan_places(world, draws, n_weeks=n_days // 7, faults=faults),
        n_days=n_days,
        faults=faults,
        outcomes=OUTCOMES,
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
    identified = (
        units.select((F.col("id") + 1).alias("unit_id"))
        .withColumn("engagement", draws.normal("engagement", "unit_id"))
        .withColumn("place", draws.index("place", plan.places.weights, "unit_id"))
        .withColumn("vehicle", draws.index("vehicle", list(world.vehicles.values()), "unit_id"))
        .withColumn("log_rate", world.work.trips_sd * draws.normal("rate", "unit_id"))
        .withColumn("log_fare", world.work.fare_sd * draws.normal("fare", "unit_id"))
    )
    leaving = draw_churn(draw_tenure(identified, plan), plan, factor=F.lit(1.0))
    assigned = draw_trials(draw_levels(leaving, plan), plan, cluster="unit_id")
    exposed = draw_exposure(_saturate(assigned, plan), plan)
    responsive = draw_multiplier(draw_strata(exposed, plan), plan)
    return respond(responsive, plan).withColumn(
        "surge_share", lookup(surge_shares(plan), F.col("place"))
    )


def surge_shares(plan: DriverPlan) -> list[float]:
    """Planned share of all drivers of each city who have a surge variant.

    Equal in all cities, unless `spillover_saturation` is on (two-stage randomisation).
    """
    planned = sum(
        trial.population * variant.share
        for trial in plan.trials
        for variant in trial.variants
        if variant.effect.surge > 0.0
    )
    return [planned * kept for kept in _kept_shares(plan)]


def work(units: DataFrame, plan: DriverPlan) -> DataFrame:
    """What units do on each day on which they work.

    Args:
        units: Rows of `population`; `arm`, what `respond` makes of it and `surge_share` decide the
            effects.
        plan: The world.

    Returns:
        The columns of `units` with `day` (INT), `hours` (DOUBLE, quarters), `trips` (INT), `fares`,
        `payouts` (incentives) and `earnings`, their sum (DOUBLE, two decimals), and `active_days`
        (INT, 1).
    """
    days = to_days(to_weeks(units, plan), plan).where(F.col("is_active") | F.col("has_event"))
    return (
        days.withColumn("own_hours", _own_hours(plan))
        .withColumn("hours", F.col("own_hours") + _event_hours(plan))
        .withColumn("own_trips", _own_trips(plan))
        .withColumn("trips", (F.col("own_trips") + _event_trips(plan)).cast("int"))
        .withColumn("own_fares", _own_fares(plan))
        .withColumn("fares", to_cents(F.col("own_fares") + _event_fares(plan)))
        .withColumn("payouts", to_cents(_own_incentives(plan) + _event_payouts(plan)))
        .withColumn("earnings", to_cents(F.col("fares") + F.col("payouts")))
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
    is_surge = plan.is_arm(lambda arm: arm.effect.surge > 0.0, F.col("arm"))
    is_control = plan.is_arm(lambda arm: arm.is_control, F.col("arm"))
    largest = sum(
        trial.population
        for trial in plan.trials
        if any(variant.effect.surge > 0.0 for variant in trial.variants)
    )
    return units.where(is_surge | is_control).withColumn(
        "surge_share", F.when(is_surge, largest).otherwise(0.0)
    )


def rollout_additions(units: DataFrame, plan: DriverPlan) -> DataFrame:
    """What the rollout's events add, one row per event: place, week and the outcomes' additions."""
    return to_event_days(to_weeks(units, plan), plan).select(
        "place",
        "week",
        _event_hours(plan).alias("hours"),
        _event_trips(plan).alias("trips"),
        to_cents(_event_fares(plan) + _event_payouts(plan)).alias("earnings"),
        _event_payouts(plan).alias("payouts"),
        (~F.col("is_active")).cast("int").alias("active_days"),
    )


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
    return to_cents(_event_trips(plan) * plan.world.work.fare)


def _event_payouts(plan: DriverPlan) -> Column:
    """Incentive of the rollout's event, for those who fulfil it; scales with the event."""
    rollout = plan.world.rollout
    is_paid = plan.draws.uniform("event-paid", "unit_id", "week") < rollout.paid_share
    return F.when(
        F.col("has_event") & is_paid, to_cents(F.col("event_size") * rollout.payment)
    ).otherwise(0.0)


def _kept_shares(plan: DriverPlan) -> list[float]:
    """Share of the drawn surge drivers of each city who keep it; the others become controls."""
    n_places = len(plan.places.names)
    if "spillover_saturation" not in plan.faults:
        return [1.0] * n_places
    drawn = plan.draws.few_uniforms("saturation", np.arange(n_places))
    return [float(value) for value in 1.0 - plan.world.faults.spillover_saturation * drawn]


def _saturate(units: DataFrame, plan: DriverPlan) -> DataFrame:
    """Turn surge drivers of less saturated cities into controls."""
    if "spillover_saturation" not in plan.faults:
        return units
    drawn = plan.draws.uniform("saturation-unit", "unit_id")
    loses = drawn >= lookup(_kept_shares(plan), F.col("place"))
    control = lookup(plan.controls(of=lambda arm: arm.effect.surge > 0.0), F.col("arm"))
    return units.withColumn("arm", F.when(loses, control.cast("int")).otherwise(F.col("arm")))


def _own_hours(plan: DriverPlan) -> Column:
    """Hours beside the rollout's, in quarters: log-normal with a daily limit."""
    settings = plan.world.usage
    noise = plan.draws.normal("hours", "unit_id", "day")
    effect = plan.of_effect(lambda e: e.hours, F.col("arm")) * F.col("strength")
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
    spread = plan.draws.uniform("trips", "unit_id", "day") * 0.5 + 0.75
    in_trial = F.col("day") >= plan.world.pre_days
    loss = F.when(in_trial, F.col("surge_share") * settings.spillover).otherwise(0.0)
    rate = settings.trips_per_hour * F.exp(F.col("log_rate")) * (F.lit(1.0) - loss)
    rounding = plan.draws.uniform("trips-rounding", "unit_id", "day")
    return F.floor(F.col("own_hours") * rate * spread + rounding).cast("int")


def _own_fares(plan: DriverPlan) -> Column:
    """Fares after commission: trips times the driver's mean fare of the day."""
    spread = plan.draws.uniform("fares", "unit_id", "day") * 0.4 + 0.8
    fare = plan.world.work.fare * F.exp(F.col("log_fare")) * spread
    return to_cents(F.col("own_trips") * fare)


def _own_incentives(plan: DriverPlan) -> Column:
    """Promotions of every driver, the flat bonus of a full day, and the surge on fares."""
    settings, strength = plan.world.work, F.col("strength")
    surge = plan.of_effect(lambda e: e.surge, F.col("arm")) * strength
    bonus = plan.of_effect(lambda e: e.bonus, F.col("arm")) * strength
    is_full = F.col("own_trips") >= settings.bonus_trips
    paid_bonus = F.when(is_full, to_cents(bonus)).otherwise(0.0)
    return to_cents(F.col("own_fares") * (surge + settings.promotion)) + paid_bonus
