"""The world of subscribers: who they are, and what each does and pays on each day.

`population` draws the units, `usage` maps units with an arm to unit-days. The realised tables use
the arm that was drawn; the truth tables call the same `usage` with every arm of the unit's trial.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.money import to_cents
from transforms.synthetic.parameters import Fault, SubscriberEffect, SubscriberWorld
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
from transforms.synthetic.randomness import Draws, lookup, position
from transforms.synthetic.trials import (
    draw_exposure,
    draw_multiplier,
    draw_strata,
    draw_trials,
    normal_share,
    respond,
)

OUTCOMES = ("minutes", "sessions", "revenue", "active_days")
SubscriberPlan = Plan[SubscriberWorld, SubscriberEffect]


def plan(
    world: SubscriberWorld, *, seed: int, n_days: int, faults: frozenset[Fault]
) -> SubscriberPlan:
    """Fix a world of subscribers."""
    draws = Draws(seed=seed, world="subscribers")
    return Plan(
        world=world,
        trials=world.trials,
        arms=arms_of(world.trials, SubscriberEffect()),
        draws=draws,
        places=plan_places(world, draws, n_weeks=n_days // 7, faults=faults),
        n_days=n_days,
        faults=faults,
        outcomes=OUTCOMES,
    )


def population(units: DataFrame, plan: SubscriberPlan) -> DataFrame:
    """Draw the subscribers.

    Args:
        units: One BIGINT column `id` from zero.
        plan: The world.

    Returns:
        One row per subscriber: `unit_id`, attributes, trial, realised arm and what `respond` adds.
    """
    world = plan.world
    identified = units.select((F.col("id") + 1).alias("unit_id")).withColumn(
        "household_id", _household(plan)
    )
    placed = identified.withColumn("engagement", _engagement(plan)).withColumn(
        "place", plan.draws.index("place", plan.places.weights, "household_id")
    )
    typed = draw_tenure(_draw_contract(placed, plan), plan)
    channel_churn = lookup([channel.churn for channel in world.channels.values()], F.col("channel"))
    leaving = draw_levels(draw_churn(typed, plan, factor=channel_churn), plan)
    assigned = draw_trials(leaving, plan, cluster="household_id")
    responsive = draw_multiplier(draw_strata(draw_exposure(assigned, plan), plan), plan)
    return respond(responsive, plan)


def usage(units: DataFrame, plan: SubscriberPlan) -> DataFrame:
    """What units do on each day on which they watch or pay.

    Args:
        units: Rows of `population`; `arm` and what `respond` makes of it decide the effects.
        plan: The world.

    Returns:
        The columns of `units` with `day` (INT), `minutes` (INT), `sessions` (INT), `revenue`
        (DOUBLE, two decimals) and `active_days` (INT, 1 when minutes are above zero). Days without
        minutes and payment have no row.
    """
    billing_phase = F.col("day") + F.col("billing_day")
    is_billed = F.pmod(billing_phase, F.lit(plan.world.billing.cycle_days)) == 0
    days = (
        to_days(to_weeks(units, plan), plan)
        .withColumn("is_billed", is_billed)
        .where(F.col("is_active") | F.col("is_billed") | F.col("has_event"))
    )
    return (
        days.withColumn("own_minutes", _own_minutes(plan))
        .withColumn("minutes", (F.col("own_minutes") + _event_minutes(plan)).cast("int"))
        .withColumn("sessions", _sessions(plan))
        .withColumn("revenue", to_cents(_own_revenue(plan) + _event_revenue(plan)))
        .withColumn("active_days", (F.col("is_active") | F.col("has_event")).cast("int"))
    )


def rollout_additions(units: DataFrame, plan: SubscriberPlan) -> DataFrame:
    """What the rollout's events add, one row per event: place, week and the outcomes' additions."""
    return to_event_days(to_weeks(units, plan), plan).select(
        "place",
        "week",
        _event_minutes(plan).alias("minutes"),
        F.lit(1).alias("sessions"),
        _event_revenue(plan).alias("revenue"),
        (~F.col("is_active")).cast("int").alias("active_days"),
    )


def _event_minutes(plan: SubscriberPlan) -> Column:
    """Minutes of the rollout's event on a row with `has_event` and `event_size`; at least one."""
    minutes = F.greatest(F.round(F.col("event_size") * plan.world.rollout.amount), F.lit(1.0))
    return F.when(F.col("has_event"), minutes.cast("int")).otherwise(0)


def _event_revenue(plan: SubscriberPlan) -> Column:
    """Money of the rollout's event; scales with the event like its minutes."""
    rollout = plan.world.rollout
    is_paid = plan.draws.uniform("event-paid", "unit_id", "week") < rollout.paid_share
    return F.when(
        F.col("has_event") & is_paid, to_cents(F.col("event_size") * rollout.payment)
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
    place = F.pmod(F.col("unit_id") - 1, F.lit(size))
    pattern = plan.draws.index("household", [1.0] * len(patterns), f"(unit_id - 1) div {size}")
    first = lookup(first_members, pattern * size + place)
    return (F.col("unit_id") - place + first).cast("bigint")


def _starts(pattern: tuple[int, ...]) -> list[int]:
    return [sum(pattern[:place]) for place in range(len(pattern))]


def _engagement(plan: SubscriberPlan) -> Column:
    correlation = plan.world.households.correlation
    shared = plan.draws.normal("household-engagement", "household_id")
    own = plan.draws.normal("engagement", "unit_id")
    common = float(correlation**0.5)
    rest = float((1.0 - correlation) ** 0.5)
    return shared * common + own * rest


def _draw_contract(units: DataFrame, plan: SubscriberPlan) -> DataFrame:
    """Add `tier` and `channel` (positions), `price`, `ads_per_minute` and `billing_day`."""
    world, draws = plan.world, plan.draws
    slope = world.tier_engagement
    score = F.col("engagement") * slope + draws.normal("tier", "unit_id") * (1.0 - slope**2) ** 0.5
    tiers = list(world.tiers.values())
    is_legacy = draws.uniform("legacy", "unit_id") < world.billing.legacy_share
    discount = F.when(is_legacy, world.billing.legacy_discount).otherwise(0.0)
    billing_day = F.floor(draws.uniform("billing", "unit_id") * float(world.billing.cycle_days))
    return (
        units.withColumn("tier", position(normal_share(score), [tier.share for tier in tiers]))
        .withColumn(
            "channel",
            draws.index("channel", [entry.share for entry in world.channels.values()], "unit_id"),
        )
        .withColumn(
            "price", to_cents(lookup([tier.price for tier in tiers], F.col("tier")) - discount)
        )
        .withColumn(
            "ads_per_minute", lookup([tier.ads_per_minute for tier in tiers], F.col("tier"))
        )
        .withColumn("billing_day", billing_day.cast("int"))
    )


def _own_minutes(plan: SubscriberPlan) -> Column:
    """Minutes beside the rollout's: log-normal, one or more on an active day, limited."""
    settings = plan.world.usage
    noise = plan.draws.normal("minutes", "unit_id", "day")
    effect = plan.of_effect(lambda e: e.minutes, F.col("arm")) * F.col("strength")
    minutes = (
        F.exp(F.col("log_amount") + settings.day_sd * noise)
        * F.col("week_factor")
        * lookup(list(settings.weekday_amount), F.col("weekday"))
        * (F.lit(1.0) + effect)
    )
    limited = F.least(F.ceil(minutes), F.lit(settings.max_amount))
    return F.when(F.col("is_active"), limited.cast("int")).otherwise(0)


def _sessions(plan: SubscriberPlan) -> Column:
    """One session on an active day, one more every `minutes_per_session`, one an event."""
    spread = plan.draws.uniform("sessions", "unit_id", "day") + 0.5
    more = F.floor(F.col("own_minutes") / plan.world.minutes_per_session * spread)
    own = F.when(F.col("is_active"), more + 1).otherwise(0)
    return (own + F.col("has_event").cast("int")).cast("int")


def _own_revenue(plan: SubscriberPlan) -> Column:
    """Subscription payment on the billing day, advertising by the minute, and purchases."""
    billing, draws = plan.world.billing, plan.draws
    arm, strength = F.col("arm"), F.col("strength")

    def changed(value: Column) -> Column:
        return F.lit(1.0) + value * strength

    price = to_cents(F.col("price") * changed(plan.of_effect(lambda e: e.price, arm)))
    payment = F.when(F.col("is_billed"), price).otherwise(0.0)
    ads_change = F.greatest(changed(plan.of_effect(lambda e: e.ads, arm)), F.lit(0.0))
    ads = to_cents(F.col("own_minutes") * F.col("ads_per_minute") * ads_change)
    share = F.lit(billing.purchase_share) * changed(plan.of_effect(lambda e: e.purchases, arm))
    is_purchase = F.col("is_active") & (draws.uniform("purchase", "unit_id", "day") < share)
    amount = to_cents(
        F.lit(billing.purchase_price)
        * F.pow(draws.uniform("purchase-price", "unit_id", "day"), F.lit(-billing.purchase_tail))
    )
    purchase = F.when(is_purchase, F.least(amount, F.lit(billing.max_purchase))).otherwise(0.0)
    return payment + ads + purchase
