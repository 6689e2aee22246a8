"""What units of both worlds have: tenure, a churn clock, usage levels, and their weeks and days."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.parameters import EffectT
from transforms.synthetic.plan import Plan, WorldT
from transforms.synthetic.trials import effect_strength

MOOD_DAYS = 28
MAX_ACTIVE_SHARE = 0.98


def draw_tenure(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """Add `tenure_days` (INT, at least 1) at the start of the world and `signup_on` (DATE)."""
    world = plan.world
    drawn = F.floor(plan.draws.exponential("tenure", "unit_id") * world.mean_tenure_days) + 1
    tenure = F.least(drawn, F.lit(world.max_tenure_days)).cast("int")
    return units.withColumn("tenure_days", tenure).withColumn(
        "signup_on", F.date_sub(F.lit(world.starts_on), F.col("tenure_days"))
    )


def draw_churn(units: DataFrame, plan: Plan[WorldT, EffectT], *, factor: Column) -> DataFrame:
    """Add `churn_clock` (DOUBLE, days): when the unit leaves if no perk changes its hazard.

    Hazards fall with engagement and tenure, so early leavers are the less engaged.
    """
    churn = plan.world.churn
    log_hazard = (
        churn.engagement * F.col("engagement")
        + churn.tenure * F.log1p(F.col("tenure_days") / 365.0)
        + churn.sd * plan.draws.normal("hazard", "unit_id")
    )
    hazard = F.lit(churn.daily_hazard) * factor * F.exp(log_hazard)
    return units.withColumn("churn_clock", plan.draws.exponential("churn", "unit_id") / hazard)


def draw_levels(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """Add the persistent usage levels: `active_share` and `log_amount` (DOUBLE)."""
    usage = plan.world.usage
    logit = (
        F.lit(usage.activity_logit)
        + usage.activity_engagement * F.col("engagement")
        + usage.activity_sd * plan.draws.normal("activity", "unit_id")
    )
    log_amount = (
        F.lit(usage.log_amount)
        + usage.amount_engagement * F.col("engagement")
        + usage.amount_sd * plan.draws.normal("amount", "unit_id")
    )
    return units.withColumn("active_share", F.lit(1.0) / (F.lit(1.0) + F.exp(-logit))).withColumn(
        "log_amount", log_amount
    )


def to_weeks(units: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """One row per unit and week in which it is there, with what is drawn by week.

    Adds:
        week, month: INT from zero.
        week_factor: DOUBLE factor on the amounts of the week: place shock and the unit's mood.
        event_day: INT, the day of the rollout's event of the week; null when there is none.
        event_size: DOUBLE, its size relative to the rollout's parameters.
    """
    draws, usage = plan.draws, plan.world.usage
    week, place = F.col("week"), F.col("place")
    ids = ("unit_id", "week")
    mood = usage.mood_sd * draws.normal("mood", "unit_id", "month")
    intensity = F.col("intensity")
    event_day = week * 7 + F.floor(draws.uniform("event-day", *ids) * 7.0)
    has_event = (
        (intensity > 0.0)
        & (draws.uniform("event", *ids) < plan.world.rollout.share)
        & (event_day < F.col("churn_day"))
    )
    return (
        units.withColumn("week", F.explode(F.sequence(F.lit(0), F.lit(plan.n_weeks - 1))))
        .where(week * 7 < F.col("churn_day"))
        .withColumn("month", F.floor(week * 7 / MOOD_DAYS))
        .withColumn("week_factor", plan.places.factor(place, week) * F.exp(mood))
        .withColumn("intensity", plan.places.intensity(place, week))
        .withColumn("event_day", F.when(has_event, event_day.cast("int")))
        .withColumn("event_size", intensity * (draws.uniform("event-size", *ids) + 0.5))
    )


def to_days(weeks: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """One row per unit and day on which it is there.

    Adds:
        weekday, day: INT from zero.
        strength: DOUBLE, size of the variant's effect on the day (`effect_strength`).
        is_active: BOOLEAN, active for reasons other than the rollout's event.
        has_event: BOOLEAN, the rollout's event of the week is on this day.
    """
    day = F.col("day")
    return (
        weeks.withColumn("weekday", F.explode(F.sequence(F.lit(0), F.lit(6))))
        .withColumn("day", F.col("week") * 7 + F.col("weekday"))
        .where(day < F.col("churn_day"))
        .withColumn("strength", effect_strength(plan))
        .withColumn("is_active", _is_active(plan))
        .withColumn("has_event", F.col("event_day").isNotNull() & (F.col("event_day") == day))
    )


def to_event_days(weeks: DataFrame, plan: Plan[WorldT, EffectT]) -> DataFrame:
    """One row per event of the rollout; adds what `to_days` adds on the event's day."""
    return (
        weeks.where(F.col("event_day").isNotNull())
        .withColumn("day", F.col("event_day"))
        .withColumn("strength", effect_strength(plan))
        .withColumn("is_active", _is_active(plan))
        .withColumn("has_event", F.col("event_day").isNotNull())
    )


def _is_active(plan: Plan[WorldT, EffectT]) -> Column:
    effect = plan.of_effect(lambda e: e.activity, F.col("arm")) * F.col("strength")
    season = plan.season(plan.world.usage.weekday_activity)
    share = season * F.col("active_share") * (F.lit(1.0) + effect)
    drawn = plan.draws.uniform("active", "unit_id", "day")
    return drawn < F.least(share, F.lit(MAX_ACTIVE_SHARE))
