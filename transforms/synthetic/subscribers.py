"""The world of subscribers: who they are, and what each does and pays on each day.

`population` draws the units, `usage` maps units with an arm to unit-days. The realised tables use
the arm that was drawn; the truth tables call the same `usage` with every arm of the unit's trial.
"""

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.parameters import Fault, SubscriberEffect, SubscriberWorld
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
from transforms.synthetic.randomness import Draws, lookup, position
from transforms.synthetic.trials import (
    Arm,
    arms_of,
    by_arm,
    draw_exposure,
    draw_strata,
    draw_trials,
    effect_strength,
    normal_share,
    respond,
)

OUTCOMES = ("minutes", "sessions", "revenue", "active_days")


@dataclass(frozen=True, kw_only=True)
class SubscriberPlan:
    """All that is fixed before a row is made.

    Attributes:
        world: The parameters.
        draws: Randomness.
        places: Regions, their shocks and the rollout.
        arms: The numbered arms of all trials.
        n_days: Days of the world, whole weeks.
        faults: The faults that are switched on.
    """

    world: SubscriberWorld
    draws: Draws
    places: PlacePlan
    arms: tuple[Arm[SubscriberEffect], ...]
    n_days: int
    faults: frozenset[Fault]


def plan(
    world: SubscriberWorld, *, seed: int, n_days: int, faults: frozenset[Fault]
) -> SubscriberPlan:
    """Fix a world of subscribers."""
    draws = Draws(seed=seed, world="subscribers")
    return SubscriberPlan(
        world=world,
        draws=draws,
        places=plan_places(world, draws, n_weeks=n_days // 7, faults=faults),
        arms=arms_of(world.trials, SubscriberEffect()),
        n_days=n_days,
        faults=faults,
    )


def population(units: DataFrame, plan: SubscriberPlan) -> DataFrame:
    """Draw the subscribers.

    Args:
        units: One BIGINT column `id` from zero.
        plan: The world.

    Returns:
        One row per subscriber: `unit_id`, attributes, trial, realised arm and what `respond` adds.
    """
    world, draws = plan.world, plan.draws
    identified = units.select((F.col("id") + 1).alias("unit_id")).withColumn(
        "household_id", _household(plan)
    )
    household = F.col("household_id")
    engaged = identified.withColumn("engagement", _engagement(plan)).withColumn(
        "place", draws.index("place", plan.places.weights, household)
    )
    typed = draw_tenure(engaged.transform(_draw_contract, plan=plan), draws, world)
    channel_churn = lookup([channel.churn for channel in world.channels.values()], F.col("channel"))
    leaving = draw_churn(typed, draws, world, factor=channel_churn)
    assigned = draw_trials(
        draw_levels(leaving, draws, world), world.trials, draws, cluster="household_id"
    )
    exposed = draw_exposure(assigned, world.trials, draws, world)
    responsive = draw_multiplier(
        draw_strata(exposed, world.trials, draws, world, faults=plan.faults),
        [trial.heterogeneity for trial in world.trials],
        draws,
    )
    return respond(responsive, plan.arms, world, n_days=plan.n_days)


def usage(units: DataFrame, plan: SubscriberPlan) -> DataFrame:
    """What units do on each day on which they watch or pay.

    Args:
        units: Rows of `population`; `arm` and what `respond` makes of it decide the effects.
        plan: The world.

    Returns:
        The columns of `units` with `day` (INT), `minutes` (INT), `sessions` (INT), `revenue` (DOUBLE,
        two decimals) and `active_days` (INT, 1 when minutes are above zero). Days without minutes and
        revenue have no row.
    """
    day = F.col("day")
    is_billed = F.pmod(day + F.col("billing_day"), F.lit(plan.world.billing.cycle_days)) == 0
    days = (
        to_days(to_weeks(units, plan.draws, plan.world, plan.places))
        .withColumn("strength", effect_strength(plan.world, day, faults=plan.faults))
        .withColumn("is_active", _is_active(plan))
        .withColumn("is_billed", is_billed)
        .withColumn("has_event", F.coalesce(F.col("event_day") == day, F.lit(False)))
        .where(F.col("is_active") | F.col("is_billed") | F.col("has_event"))
    )
    return (
        days.withColumn("own_minutes", _own_minutes(plan))
        .withColumn("minutes", (F.col("own_minutes") + _event_minutes(plan)).cast("int"))
        .withColumn("sessions", _sessions(plan))
        .withColumn("revenue", F.round(_own_revenue(plan) + _event_revenue(plan), 2))
        .withColumn("active_days", (F.col("is_active") | F.col("has_event")).cast("int"))
    )


def rollout_additions(units: DataFrame, plan: SubscriberPlan) -> DataFrame:
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
            _event_minutes(plan).alias("minutes"),
            F.lit(1).alias("sessions"),
            _event_revenue(plan).alias("revenue"),
            (~_is_active(plan)).cast("int").alias("active_days"),
        )
    )


def _is_active(plan: SubscriberPlan) -> Column:
    """Whether the unit watches on the day for reasons other than the rollout's event."""
    season = day_factors(
        plan.world.usage.weekday_activity, plan.world, n_days=plan.n_days, faults=plan.faults
    )
    effect = by_arm(plan.arms, lambda e: e.activity, F.col("arm")) * F.col("strength")
    share = lookup(season, F.col("day")) * F.col("active_share") * (F.lit(1.0) + effect)
    drawn = plan.draws.uniform("active", F.col("unit_id"), F.col("day"))
    return drawn < F.least(share, F.lit(MAX_ACTIVE_SHARE))


def _event_minutes(plan: SubscriberPlan) -> Column:
    """Minutes of the rollout's event on a row with `has_event` and `event_size`; at least one."""
    minutes = F.greatest(F.round(F.col("event_size") * plan.world.rollout.amount), F.lit(1.0))
    return F.when(F.col("has_event"), minutes.cast("int")).otherwise(0)


def _event_revenue(plan: SubscriberPlan) -> Column:
    """Money of the rollout's event; scales with the event like its minutes."""
    rollout = plan.world.rollout
    is_paid = plan.draws.uniform("event-paid", F.col("unit_id"), F.col("week")) < rollout.paid_share
    return F.when(
        F.col("has_event") & is_paid, F.round(F.col("event_size") * rollout.payment, 2)
    ).otherwise(0.0)


def _household(plan: SubscriberPlan) -> Column:
    """Id of the household: the id of its first member."""
    patterns = plan.world.households.patterns
    size = sum(patterns[0])
    first_members = [
        float(first)
        for pattern in patterns
        for first, n_members in zip(_starts(pattern), pattern, strict=True)
        for _ in range(n_members)
    ]
    block = F.floor((F.col("unit_id") - 1) / size)
    place = F.pmod(F.col("unit_id") - 1, F.lit(size))
    pattern = plan.draws.index("household", [1.0] * len(patterns), block)
    first = lookup(first_members, pattern * size + place)
    return (block * size + first + 1).cast("bigint")


def _starts(pattern: tuple[int, ...]) -> list[int]:
    return [sum(pattern[:place]) for place in range(len(pattern))]


def _engagement(plan: SubscriberPlan) -> Column:
    correlation = plan.world.households.correlation
    shared = plan.draws.normal("household-engagement", F.col("household_id"))
    own = plan.draws.normal("engagement", F.col("unit_id"))
    return shared * correlation**0.5 + own * (1.0 - correlation) ** 0.5


def _draw_contract(units: DataFrame, plan: SubscriberPlan) -> DataFrame:
    """Add `tier` and `channel` (positions), `price`, `ads_per_minute` and `billing_day`."""
    world, draws = plan.world, plan.draws
    unit = F.col("unit_id")
    slope = world.tier_engagement
    score = F.col("engagement") * slope + draws.normal("tier", unit) * (1.0 - slope**2) ** 0.5
    tiers = list(world.tiers.values())
    is_legacy = draws.uniform("legacy", unit) < world.billing.legacy_share
    discount = F.when(is_legacy, world.billing.legacy_discount).otherwise(0.0)
    billing_day = F.floor(draws.uniform("billing", unit) * float(world.billing.cycle_days))
    return (
        units.withColumn("tier", position(normal_share(score), [tier.share for tier in tiers]))
        .withColumn(
            "channel",
            draws.index("channel", [entry.share for entry in world.channels.values()], unit),
        )
        .withColumn(
            "price", F.round(lookup([tier.price for tier in tiers], F.col("tier")) - discount, 2)
        )
        .withColumn(
            "ads_per_minute", lookup([tier.ads_per_minute for tier in tiers], F.col("tier"))
        )
        .withColumn("billing_day", billing_day.cast("int"))
    )


def _own_minutes(plan: SubscriberPlan) -> Column:
    """Minutes beside the rollout's: log-normal, at least one on an active day, with a daily limit."""
    settings = plan.world.usage
    noise = plan.draws.normal("minutes", F.col("unit_id"), F.col("day"))
    effect = by_arm(plan.arms, lambda e: e.minutes, F.col("arm")) * F.col("strength")
    minutes = (
        F.exp(F.col("log_amount") + settings.day_sd * noise)
        * F.col("week_factor")
        * lookup(list(settings.weekday_amount), F.col("weekday"))
        * (F.lit(1.0) + effect)
    )
    limited = F.least(F.ceil(minutes), F.lit(settings.max_amount))
    return F.when(F.col("is_active"), limited.cast("int")).otherwise(0)


def _sessions(plan: SubscriberPlan) -> Column:
    """Sessions: one on an active day and one more for about every `minutes_per_session`; one an event."""
    spread = plan.draws.uniform("sessions", F.col("unit_id"), F.col("day")) + 0.5
    more = F.floor(F.col("own_minutes") / plan.world.minutes_per_session * spread)
    own = F.when(F.col("is_active"), more + 1).otherwise(0)
    return (own + F.col("has_event").cast("int")).cast("int")


def _own_revenue(plan: SubscriberPlan) -> Column:
    """Subscription payment on the billing day, advertising by the minute, and purchases."""
    billing, draws, arms = plan.world.billing, plan.draws, plan.arms
    unit, day, arm, strength = F.col("unit_id"), F.col("day"), F.col("arm"), F.col("strength")

    def changed(value: Column) -> Column:
        return F.lit(1.0) + value * strength

    price = F.round(F.col("price") * changed(by_arm(arms, lambda e: e.price, arm)), 2)
    payment = F.when(F.col("is_billed"), price).otherwise(0.0)
    ads_change = F.greatest(changed(by_arm(arms, lambda e: e.ads, arm)), F.lit(0.0))
    ads = F.round(F.col("own_minutes") * F.col("ads_per_minute") * ads_change, 2)
    share = F.lit(billing.purchase_share) * changed(by_arm(arms, lambda e: e.purchases, arm))
    is_purchase = F.col("is_active") & (draws.uniform("purchase", unit, day) < share)
    amount = F.round(
        F.lit(billing.purchase_price)
        * F.pow(draws.uniform("purchase-price", unit, day), F.lit(-billing.purchase_tail)),
        2,
    )
    purchase = F.when(is_purchase, F.least(amount, F.lit(billing.max_purchase))).otherwise(0.0)
    return payment + ads + purchase
