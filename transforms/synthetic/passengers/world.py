"""From a plan and a range of ids to passengers, their trips and their true expectations.

Trips follow the BG/NBD process of Fader, Hardie and Lee (2005) with a weekly season: a passenger
who is there rides as a Poisson process whose rate is the passenger's own, times the weekday's
factor; after each trip the passenger leaves for good with the passenger's own chance. The trips of
a Poisson process, given their number, are independent places in its time, so a passenger's trips
are a sorted array of draws, cut where the passenger leaves: no row has to know another one.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.money import to_cents
from transforms.synthetic.passengers import tables
from transforms.synthetic.passengers.mixtures import (
    N_STEPS,
    Steps,
    beta_steps,
    gamma_steps,
    inverse_gamma_steps,
    poisson,
)
from transforms.synthetic.passengers.parameters import PassengerWorld
from transforms.synthetic.randomness import Draws, lookup

FEATURE_DAYS, TARGET_DAYS = 7, 30
_DAY_SECONDS = 86_400
_WEEK = 7
_NEVER = 10**6


@dataclass(frozen=True, kw_only=True)
class PassengerPlan:
    """A world of passengers that is fixed but not yet generated.

    Attributes:
        world: The parameters.
        draws: Randomness.
        n_days: Days of the world from the first registration on, whole weeks.
    """

    world: PassengerWorld
    draws: Draws
    n_days: int

    def date(self, day: Column) -> Column:
        """The DATE of a day of the world."""
        return F.date_add(F.lit(self.world.starts_on), day)

    def at_second(self, day: Column, second: Column) -> Column:
        """The TIMESTAMP of a second of a day of the world, whatever the session's time zone."""
        midnight = dt.datetime.combine(self.world.starts_on, dt.time(), tzinfo=dt.UTC)
        seconds = F.lit(int(midnight.timestamp())) + day.cast("bigint") * _DAY_SECONDS
        return F.timestamp_seconds(seconds + second.cast("bigint"))


def plan(world: PassengerWorld, *, seed: int, n_days: int) -> PassengerPlan:
    """Fix a world of passengers.

    Args:
        world: The parameters.
        seed: Of everything that is drawn.
        n_days: Days after the last registration.
    """
    draws = Draws(seed=seed, world="passengers")
    return PassengerPlan(world=world, draws=draws, n_days=world.registration_days + n_days)


def passenger_frames(plan: PassengerPlan, *, units: DataFrame) -> Mapping[str, DataFrame]:
    """The tables of the world.

    Args:
        plan: The world.
        units: One BIGINT column `id` from zero, one row per passenger.

    Returns:
        Frames by table name, with the columns of `tables`.
    """
    people = population(units, plan)
    made = {
        tables.PASSENGERS.name: _passengers(people, plan),
        tables.TRIPS.name: _trips(people, plan),
        tables.TRUTH_PASSENGERS.name: _truth(people, plan),
    }
    return {
        table.name: made[table.name].select(
            *[F.col(field.name).cast(field.data_type).alias(field.name) for field in table.fields]
        )
        for table in tables.PASSENGER_TABLES
    }


def population(units: DataFrame, plan: PassengerPlan) -> DataFrame:
    """Draw the passengers.

    Args:
        units: One BIGINT column `id` from zero.
        plan: The world.

    Returns:
        One row per passenger: `unit_id`; `city`, `platform`, `start_day` (INT); `rate` (trips a
        day), `leave` (a chance), `money` (mean fare); `start`, `length` (season-weighted days up to
        the registration, and from there to the end); `places` (ARRAY<DOUBLE>, sorted shares of
        `length` at which the passenger rides, until leaving) and `has_left`.
    """
    world, draws = plan.world, plan.draws
    riding, leaving, fares = world.riding, world.leaving, world.fares
    rates = gamma_steps(riding.shape, rate=riding.rate)
    money = [fares.shape * value for value in _inverse(plan)]
    start_day = F.floor(draws.uniform("start", "unit_id") * float(world.registration_days))
    drawn = (
        units.select((F.col("id") + 1).alias("unit_id"))
        .withColumn("city", draws.index("city", list(world.cities.values()), "unit_id"))
        .withColumn("start_day", start_day.cast("int"))
        .withColumn("rate", _step(rates, draws.uniform("rate", "unit_id")))
        .withColumn("platform", _platform(plan))
        .withColumn(
            "leave", _step(beta_steps(leaving.a, leaving.b), draws.uniform("leave", "unit_id"))
        )
        .withColumn("money", _step(money, draws.uniform("money", "unit_id")))
        .withColumn("start", _elapsed(F.col("start_day"), plan))
        .withColumn("length", F.lit(float(plan.n_days)) - F.col("start"))
    )
    counted = drawn.withColumn(
        "n_wanted", poisson(draws.uniform("trips", "unit_id"), F.col("rate") * F.col("length"))
    ).withColumn("n_until_leaving", _n_until_leaving(plan))
    places = F.array_sort(draws.uniforms("places", "unit_id", n="n_wanted"))
    return counted.withColumn("places", F.slice(places, 1, F.col("n_until_leaving"))).withColumn(
        "has_left", F.col("n_wanted") >= F.col("n_until_leaving")
    )


def _passengers(people: DataFrame, plan: PassengerPlan) -> DataFrame:
    return people.select(
        F.col("unit_id").alias("passenger_id"),
        plan.date(F.col("start_day")).alias("registered_on"),
        lookup(list(plan.world.cities), F.col("city")).alias("city"),
        lookup(list(plan.world.platforms), F.col("platform")).alias("platform"),
    )


def _trips(people: DataFrame, plan: PassengerPlan) -> DataFrame:
    """One row per trip; the season turns shares of the passenger's time into days and seconds."""
    rows = people.select(
        "unit_id", "money", "start", "length", F.posexplode("places").alias("number", "share")
    ).withColumn("elapsed", F.col("start") + F.col("share") * F.col("length"))
    timed = rows.withColumn("day", _day(F.col("elapsed"), plan)).withColumn(
        "second", _second(F.col("elapsed"), F.col("day"), plan)
    )
    fares = plan.world.fares
    drawn = plan.draws.uniform("fare", "unit_id", "number")
    fare = F.col("money") / fares.shape * _step(gamma_steps(fares.shape), drawn)
    return timed.select(
        F.col("unit_id").alias("passenger_id"),
        (F.col("number") + 1).alias("trip_number"),
        plan.at_second(F.col("day"), F.col("second")).alias("started_at"),
        F.greatest(to_cents(fare), F.lit(0.01)).alias("fare"),
    )


def _truth(people: DataFrame, plan: PassengerPlan) -> DataFrame:
    """What is expected of a passenger in a time ahead: nothing if gone, else (1 - e^-lpt) / p."""
    n_trips = F.size("places")
    seen = F.filter("places", lambda share: share * F.col("length") < float(FEATURE_DAYS))
    is_there_early = F.size(seen) < F.col("n_until_leaving")
    last = F.col("start") + F.element_at("places", n_trips) * F.col("length")
    early = F.col("start_day") + FEATURE_DAYS
    ahead = _elapsed(early + TARGET_DAYS, plan) - _elapsed(early, plan)
    end = F.lit(plan.n_days)
    after = _elapsed(end + TARGET_DAYS, plan) - _elapsed(end, plan)
    next_trips = F.when(F.col("has_left"), 0.0).otherwise(_expected(after))
    return people.select(
        F.col("unit_id").alias("passenger_id"),
        F.col("rate").alias("trip_rate"),
        F.col("leave").alias("leave_probability"),
        F.col("money").alias("mean_fare"),
        F.when(F.col("has_left"), plan.date(_day(last, plan))).alias("left_on"),
        F.when(is_there_early, _expected(ahead) * F.col("money"))
        .otherwise(0.0)
        .alias("expected_spend_30"),
        next_trips.alias("expected_trips_next_30"),
        (next_trips * F.col("money")).alias("expected_spend_next_30"),
    )


def _expected(ahead: Column) -> Column:
    """Expected trips in season-weighted days ahead of a passenger who is there (equation 7)."""
    return -F.expm1(-F.col("rate") * F.col("leave") * ahead) / F.col("leave")


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


def _starts(plan: PassengerPlan) -> list[float]:
    """Season-weighted days from Monday to the start of each weekday."""
    return [0.0, *accumulate(plan.world.riding.weekday[:-1])]


def _elapsed(day: Column, plan: PassengerPlan) -> Column:
    """Season-weighted days from the world's first day to the start of a day."""
    within = lookup(_starts(plan), F.pmod(day, F.lit(_WEEK)))
    return F.floor(day / F.lit(_WEEK)) * float(_WEEK) + within


def _day(elapsed: Column, plan: PassengerPlan) -> Column:
    """The day that season-weighted days lie in (INT)."""
    week = F.floor(elapsed / float(_WEEK))
    rest = elapsed - week * float(_WEEK)
    weekday = F.lit(0)
    for start in _starts(plan)[1:]:
        weekday = weekday + (rest >= F.lit(start)).cast("int")
    return (week * _WEEK + weekday).cast("int")


def _second(elapsed: Column, day: Column, plan: PassengerPlan) -> Column:
    """The second of that day."""
    factor = lookup(list(plan.world.riding.weekday), F.pmod(day, F.lit(_WEEK)))
    share = (elapsed - _elapsed(day, plan)) / factor
    limited = F.least(F.floor(share * _DAY_SECONDS), F.lit(_DAY_SECONDS - 1))
    return F.greatest(limited, F.lit(0)).cast("int")
