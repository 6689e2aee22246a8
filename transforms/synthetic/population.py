"""What units of both worlds have: place, tenure, engagement, a churn clock and usage levels."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.parameters import Fault, World
from transforms.synthetic.places import PlacePlan
from transforms.synthetic.randomness import Draws, lookup

MOOD_DAYS = 28
MAX_ACTIVE_SHARE = 0.98


def draw_tenure(units: DataFrame, draws: Draws, world: World) -> DataFrame:
    """Add `tenure_days` (INT, at least 1) at the start of the world and `signup_on` (DATE)."""
    drawn = F.floor(draws.exponential("tenure", F.col("unit_id")) * world.mean_tenure_days) + 1
    tenure = F.least(drawn, F.lit(world.max_tenure_days)).cast("int")
    return units.withColumn("tenure_days", tenure).withColumn(
        "signup_on", F.date_sub(F.lit(world.starts_on), F.col("tenure_days"))
    )


def draw_churn(units: DataFrame, draws: Draws, world: World, *, factor: Column) -> DataFrame:
    """Add `churn_clock` (DOUBLE, days): when the unit leaves if no perk changes its hazard.

    Hazards fall with engagement and tenure, so early leavers are the less engaged.
    """
    churn = world.churn
    unit = F.col("unit_id")
    log_hazard = (
        churn.engagement * F.col("engagement")
        + churn.tenure * F.log1p(F.col("tenure_days") / 365.0)
        + churn.sd * draws.normal("hazard", unit)
    )
    hazard = F.lit(churn.daily_hazard) * factor * F.exp(log_hazard)
    return units.withColumn("churn_clock", draws.exponential("churn", unit) / hazard)


def draw_levels(units: DataFrame, draws: Draws, world: World) -> DataFrame:
    """Add the persistent usage levels: `active_share` and `log_amount` (DOUBLE)."""
    usage = world.usage
    unit = F.col("unit_id")
    logit = (
        F.lit(usage.activity_logit)
        + usage.activity_engagement * F.col("engagement")
        + usage.activity_sd * draws.normal("activity", unit)
    )
    log_amount = (
        F.lit(usage.log_amount)
        + usage.amount_engagement * F.col("engagement")
        + usage.amount_sd * draws.normal("amount", unit)
    )
    return units.withColumn("active_share", F.lit(1.0) / (F.lit(1.0) + F.exp(-logit))).withColumn(
        "log_amount", log_amount
    )


def draw_multiplier(units: DataFrame, heterogeneity: list[float], draws: Draws) -> DataFrame:
    """Add `multiplier` (DOUBLE in [0, 2], mean one): how strongly a unit responds to its variant."""
    sd = lookup(
        [*heterogeneity, 0.0],
        F.when(F.col("trial") >= 0, F.col("trial")).otherwise(len(heterogeneity)),
    )
    drawn = F.lit(1.0) + sd * draws.normal("response", F.col("unit_id"))
    return units.withColumn("multiplier", F.least(F.greatest(drawn, F.lit(0.0)), F.lit(2.0)))


def to_weeks(units: DataFrame, draws: Draws, world: World, places: PlacePlan) -> DataFrame:
    """One row per unit and week in which it is there, with what is drawn by week.

    Adds:
        week: INT from zero.
        week_factor: DOUBLE factor on the amounts of the week: place shock and the unit's mood.
        event_day: INT, the day of the rollout's event of the week; null when there is none.
        event_size: DOUBLE, its size relative to the rollout's parameters.
    """
    unit, week, place = F.col("unit_id"), F.col("week"), F.col("place")
    mood = world.usage.mood_sd * draws.normal("mood", unit, F.floor(week * 7 / MOOD_DAYS))
    intensity = F.col("intensity")
    event_day = week * 7 + F.floor(draws.uniform("event-day", unit, week) * 7.0)
    has_event = (
        (intensity > 0.0)
        & (draws.uniform("event", unit, week) < world.rollout.share)
        & (event_day < F.col("churn_day"))
    )
    return (
        units.withColumn("week", F.explode(F.sequence(F.lit(0), F.lit(places.n_weeks - 1))))
        .where(week * 7 < F.col("churn_day"))
        .withColumn("week_factor", places.factor(place, week) * F.exp(mood))
        .withColumn("intensity", places.intensity(place, week))
        .withColumn("event_day", F.when(has_event, event_day.cast("int")))
        .withColumn("event_size", intensity * (draws.uniform("event-size", unit, week) + 0.5))
    )


def to_days(weeks: DataFrame) -> DataFrame:
    """One row per unit and day on which it is there; adds `day` and `weekday` (INT from zero)."""
    return (
        weeks.withColumn("weekday", F.explode(F.sequence(F.lit(0), F.lit(6))))
        .withColumn("day", F.col("week") * 7 + F.col("weekday"))
        .where(F.col("day") < F.col("churn_day"))
    )


def day_factors(
    weekdays: tuple[float, ...], world: World, *, n_days: int, faults: frozenset[Fault]
) -> list[float]:
    """Factor of each day of the world: the weekly season, and a common trend under `drift`."""
    drift = world.faults.drift if "drift" in faults else 0.0
    return [weekdays[day % 7] * (1.0 + drift) ** (day / 7.0) for day in range(n_days)]
