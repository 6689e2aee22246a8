"""Lives of passengers: who they are, when they ride until they leave, and what a trip costs.

Trips follow the BG/NBD process of Fader, Hardie and Lee (2005) with a weekly season: a passenger
who is there rides as a Poisson process whose rate is the passenger's own, times the weekday's
factor; after each trip the passenger leaves for good with the passenger's own chance. The trips of
a Poisson process, given their number, are independent places in its time, so a passenger's trips
are a sorted array of draws, cut where the passenger leaves: no row has to know another one.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.money import to_cents
from transforms.synthetic.passengers.mixtures import (
    N_STEPS,
    Steps,
    beta_steps,
    gamma_steps,
    inverse_gamma_steps,
    poisson,
)
from transforms.synthetic.passengers.plan import PassengerPlan
from transforms.synthetic.passengers.season import elapsed_until
from transforms.synthetic.randomness import Draws, lookup

_NEVER = 10**6


def population(units: DataFrame, plan: PassengerPlan) -> DataFrame:
    """Draw the passengers.

    Args:
        units: One BIGINT column `id` from zero.
        plan: The world.

    Returns:
        One row per passenger: `unit_id`; `city`, `platform`, `start_day` (INT); `start`, `length`
        (season-weighted days up to the registration, and from there to the end), and the columns
        of `with_life`.
    """
    world, draws = plan.world, plan.draws
    start_day = F.floor(draws.uniform("start", "unit_id") * float(world.registration_days))
    registered = (
        units.select((F.col("id") + 1).alias("unit_id"))
        .withColumn("city", draws.index("city", list(world.cities.values()), "unit_id"))
        .withColumn("start_day", start_day.cast("int"))
        .withColumn("platform", _platform(plan))
        .withColumn("start", elapsed_until(F.col("start_day"), plan))
        .withColumn("length", F.lit(float(plan.n_days)) - F.col("start"))
    )
    return with_life(registered, plan, rate_draw=draws.uniform("rate", "unit_id"))


def with_life(passengers: DataFrame, plan: PassengerPlan, *, rate_draw: Column) -> DataFrame:
    """Draw what passengers are like and when they ride.

    Args:
        passengers: `unit_id` and `length`, the season-weighted days that are looked at.
        plan: The world, and the draws of this life.
        rate_draw: Place of the passenger's rate among all rates, in (0, 1).

    Returns:
        The passengers with `rate` (trips a day), `leave` (a chance), `money` (mean fare);
        `n_wanted` (trips if nobody left), `n_until_leaving` (the trip after which the passenger
        leaves); `places` (ARRAY<DOUBLE>, sorted shares of `length` at which the passenger rides,
        until leaving) and `has_left`.
    """
    draws, riding, leaving = plan.draws, plan.world.riding, plan.world.leaving
    rates = gamma_steps(riding.shape, rate=riding.rate)
    leaves = beta_steps(leaving.a, leaving.b)
    money = [plan.world.fares.shape * value for value in _inverse(plan)]
    counted = (
        passengers.withColumn("rate", _step(rates, rate_draw))
        .withColumn("leave", _step(leaves, draws.uniform("leave", "unit_id")))
        .withColumn("money", _step(money, draws.uniform("money", "unit_id")))
        .withColumn(
            "n_wanted", poisson(draws.uniform("trips", "unit_id"), F.col("rate") * F.col("length"))
        )
        .withColumn("n_until_leaving", _n_until_leaving(plan))
    )
    places = F.array_sort(draws.uniforms("places", "unit_id", n="n_wanted"))
    return counted.withColumn("places", F.slice(places, 1, F.col("n_until_leaving"))).withColumn(
        "has_left", F.col("n_wanted") >= F.col("n_until_leaving")
    )


def fare(plan: PassengerPlan, draws: Draws) -> Column:
    """What a trip costs in whole cents, from `unit_id`, `money` and `number`, zero for the first.

    Args:
        plan: The world.
        draws: Those of the life that the trip is of.
    """
    shape = plan.world.fares.shape
    drawn = _step(gamma_steps(shape), draws.uniform("fare", "unit_id", "number"))
    return F.greatest(to_cents(F.col("money") / shape * drawn), F.lit(0.01))


def rate_draw_given_platform(plan: PassengerPlan, uniform: Column) -> Column:
    """The place of a rate among all rates, drawn among passengers of the column `platform`.

    The share of the first platform is linear in that place u, so the density of u on a platform is
    1 + k (u - 1/2), and its distribution function a parabola, which is inverted here.

    Args:
        plan: The world.
        uniform: Uniform on (0, 1).
    """
    share, tilt = next(iter(plan.world.platforms.values())), plan.world.platform_tilt
    is_first = F.col("platform") == 0
    slope = F.when(is_first, F.lit(tilt / share)).otherwise(F.lit(-tilt / (1.0 - share)))
    base = F.lit(1.0) - slope / 2.0
    drawn = F.lit(2.0) * uniform / (base + F.sqrt(base * base + slope * uniform * 2.0))
    return F.least(drawn, F.lit(1.0 - 2.0**-52))


def _platform(plan: PassengerPlan) -> Column:
    """The platform: it tells something of the rate, whose own distribution it leaves as it is."""
    share = F.lit(next(iter(plan.world.platforms.values())))
    tilt = plan.draws.uniform("rate", "unit_id") - 0.5
    is_first = plan.draws.uniform("platform", "unit_id") < share + tilt * plan.world.platform_tilt
    return F.when(is_first, 0).otherwise(1)


def _n_until_leaving(plan: PassengerPlan) -> Column:
    """The trip after which the passenger leaves: geometric."""
    needed = F.log(plan.draws.uniform("stay", "unit_id")) / F.log1p(-F.col("leave"))
    return F.least(F.greatest(F.ceil(needed), F.lit(1)), F.lit(_NEVER)).cast("int")


def _inverse(plan: PassengerPlan) -> Steps:
    fares = plan.world.fares
    return inverse_gamma_steps(fares.spread, rate=fares.scale)


def _step(steps: Steps, uniform: Column) -> Column:
    return lookup(steps, F.floor(uniform * float(N_STEPS)))
