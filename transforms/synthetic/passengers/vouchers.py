"""The voucher: a pilot among earlier passengers, a trial among the last ones, and the truth.

Whoever has a voucher and would not ride in the first two weeks starts anew with some chance, and
from then on lives the life of another passenger of the same platform. Who starts anew is drawn by
lot among those who do not ride, and who lives the other life among all, so the voucher changes how
many ride early, not what early riding tells of later spend: given the platform and the first two
weeks, the spend of twelve weeks is independent of the voucher (surrogacy). Moreover the density of
early behaviour with a voucher over that without is linear in platform and `has_ridden_14`: a linear
index that holds these two has no bias. The fault `direct_effect` changes later fares alone.

Two and twelve weeks from a registration are as many season-weighted days on whatever weekday they
begin, so nothing depends on the day of the registration.
"""

from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.ground_truth import treated_less_control
from transforms.synthetic.money import exact_sum, to_cents
from transforms.synthetic.passengers.lives import fare, rate_draw_given_platform, with_life
from transforms.synthetic.passengers.mixtures import poisson
from transforms.synthetic.passengers.plan import PassengerPlan

EARLY_DAYS, LATE_DAYS = 14, 84
CONTROL, VOUCHER = "control", "voucher"
HISTORY, PILOT, TRIAL = "history", "voucher_pilot", "voucher_trial"
METRICS = ("has_ridden_14", "trips_14", "spend_14", "spend_84")


def voucher_passengers(people: DataFrame, plan: PassengerPlan) -> DataFrame:
    """`voucher_passengers`: what is seen of every passenger.

    Args:
        people: Rows of `population`.
        plan: The world.
    """
    has_voucher = plan.draws.uniform("voucher", "unit_id") < plan.world.vouchers.share
    drawn = F.when(has_voucher, F.lit(VOUCHER)).otherwise(F.lit(CONTROL))
    variant = F.when(F.col("part") != HISTORY, drawn)
    is_over = F.col("start_day") + LATE_DAYS <= plan.n_days
    return (
        _outcomes(_lives(people, plan).withColumn("variant", variant), plan)
        .withColumn("passenger_id", F.col("unit_id"))
        .withColumn("registered_on", plan.date(F.col("start_day")))
        .withColumn("is_first_platform", F.col("platform") == 0)
        .withColumn("spend_84", F.when(is_over, F.col("spend_84")))
    )


def voucher_truth(people: DataFrame, plan: PassengerPlan) -> DataFrame:
    """`truth_voucher_passengers`: pilot and trial under either variant; arguments as above."""
    enrolled = _lives(people, plan).where(F.col("part") != HISTORY)
    either = F.explode(F.array(F.lit(CONTROL), F.lit(VOUCHER)))
    return (
        _outcomes(enrolled.withColumn("variant", either), plan)
        .withColumn("experiment", F.col("part"))
        .withColumn("passenger_id", F.col("unit_id"))
    )


def voucher_effects(truth: DataFrame, plan: PassengerPlan) -> DataFrame:
    """`truth_passenger_effects`: differences of means over all passengers of a trial.

    Args:
        truth: Rows of `voucher_truth`.
        plan: The world.
    """
    numbers = truth.select(
        "experiment", "variant", *[F.col(name).cast("double").alias(name) for name in METRICS]
    )
    means = [(exact_sum(name) / F.count(F.lit(1))).alias(name) for name in METRICS]
    entries = [
        F.struct(F.lit(name).alias("metric"), F.col(name).alias("level")) for name in METRICS
    ]
    levels = (
        numbers.groupBy("experiment", "variant")
        .agg(*means)
        .select("experiment", "variant", F.inline(F.array(*entries)))
    )

    return (
        treated_less_control(levels, ("experiment", "metric"), treated=VOUCHER, control=CONTROL)
        .withColumn("world", F.lit(plan.draws.world))
        .withColumn("design", F.col("experiment"))
        .withColumn("estimand", F.lit("ate"))
        .withColumn("term", F.lit(f"{VOUCHER} - {CONTROL}"))
        .withColumn("comment", F.lit("all passengers of it, with a voucher less without"))
    )


def _lives(people: DataFrame, plan: PassengerPlan) -> DataFrame:
    """The life that a passenger has without a voucher, and the one after a new start.

    Returns:
        `unit_id`, `start_day`, `platform`, `part`, `is_restarted`; `own` and `other`, structs of
        `money` and `ages` (the sorted season-weighted days since the registration at which the
        passenger rides).
    """
    vouchers = plan.world.vouchers
    ages = _ages(people, plan).withColumn("own", F.struct("money", "ages"))
    is_idle = F.size(F.filter("ages", lambda age: age < float(EARLY_DAYS))) == 0
    is_restarted = is_idle & (plan.draws.uniform("restart", "unit_id") < vouchers.restart)
    is_pilot = plan.draws.uniform("pilot", "unit_id") < vouchers.pilot_share
    earlier = F.when(is_pilot, F.lit(PILOT)).otherwise(F.lit(HISTORY))
    part = F.when(F.col("start_day") >= vouchers.from_day, F.lit(TRIAL)).otherwise(earlier)
    kept = ages.select(
        "unit_id",
        "start_day",
        "platform",
        "own",
        part.alias("part"),
        is_restarted.alias("is_restarted"),
        F.lit(float(LATE_DAYS)).alias("length"),
    )
    again = _restarted(plan)
    place = rate_draw_given_platform(plan, again.draws.uniform("rate", "unit_id"))
    days = F.transform("places", lambda share: share * float(LATE_DAYS))
    return with_life(kept, again, rate_draw=place).withColumn(
        "other", F.struct(F.col("money"), days.alias("ages"))
    )


def _restarted(plan: PassengerPlan) -> PassengerPlan:
    """The world with other draws: those of the lives after a new start."""
    return replace(plan, draws=replace(plan.draws, world=f"{plan.draws.world} restarted"))


def _ages(people: DataFrame, plan: PassengerPlan) -> DataFrame:
    """Add `ages`: the trips of the world's days, and those of the days after its last."""
    draws = plan.draws
    rest = F.greatest(F.lit(float(LATE_DAYS)) - F.col("length"), F.lit(0.0))
    counted = people.withColumn("rest", rest).withColumn(
        "n_later", poisson(draws.uniform("later_trips", "unit_id"), F.col("rate") * F.col("rest"))
    )
    places = F.array_sort(draws.uniforms("later_places", "unit_id", n="n_later"))
    n_left = F.greatest(F.col("n_until_leaving") - F.col("n_wanted"), F.lit(0))
    days = F.transform("places", lambda share: share * F.col("length"))
    later = F.transform(
        F.slice(places, 1, n_left), lambda share: F.col("length") + share * F.col("rest")
    )
    return counted.withColumn("ages", F.concat(days, later))


def _outcomes(lives: DataFrame, plan: PassengerPlan) -> DataFrame:
    """What passengers do in their first weeks under their column `variant`."""
    keys = ("unit_id", "start_day", "platform", "part", "variant", "is_restarted")
    has_voucher = F.coalesce(F.col("variant") == VOUCHER, F.lit(False))
    is_other = has_voucher & F.col("is_restarted")
    life = F.when(is_other, F.col("other")).otherwise(F.col("own"))
    trips = (
        lives.select(*keys, is_other.alias("is_other"), life.alias("life"))
        .select(
            *keys,
            "is_other",
            F.col("life.money").alias("money"),
            F.posexplode_outer("life.ages").alias("number", "age"),
        )
        .withColumn(
            "listed",
            F.when(F.col("is_other"), fare(plan, _restarted(plan).draws)).otherwise(
                fare(plan, plan.draws)
            ),
        )
    )
    is_early, is_late = F.col("age") < EARLY_DAYS, F.col("age") < LATE_DAYS
    factor = 1.0 + (plan.world.faults.direct_effect if "direct_effect" in plan.faults else 0.0)
    paid = F.when(has_voucher & ~is_early, to_cents(F.col("listed") * factor)).otherwise(
        F.col("listed")
    )
    zero = F.lit(0.0)
    return (
        trips.withColumn("early", F.when(is_early, paid).otherwise(zero))
        .withColumn("late", F.when(is_late, paid).otherwise(zero))
        .groupBy(*keys)
        .agg(
            F.count_if(is_early).cast("int").alias("trips_14"),
            exact_sum("early").alias("spend_14"),
            exact_sum("late").alias("spend_84"),
        )
        .withColumn("has_ridden_14", F.col("trips_14") > 0)
    )
