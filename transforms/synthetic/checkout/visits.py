"""What happens in a session: the steps of the funnel, the order and its money, page loads.

The realised tables call `sessions` with the arm that was drawn, the truth with every arm; all draws
are functions of user, day and number of the session, so they are the same under every arm.
"""

import math

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.checkout.plan import CheckoutPlan
from transforms.synthetic.checkout.visitors import visit_days
from transforms.synthetic.money import to_cents
from transforms.synthetic.randomness import lookup

STEPS = ("visit", "view_product", "add_to_cart", "start_checkout", "purchase")
CHECKOUT_STEP, PURCHASE_STEP = 4, 5
PAGES = ("landing", "checkout")
_OPENS, _OPEN_SECONDS = 6 * 3600, 17 * 3600
_COST_SPREAD = 0.16
_LARGEST_PROBABILITY = 0.99
_IDS = ("unit_id", "day", "number")


def sessions(units: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """Every session of the users, with what happens in it.

    Args:
        units: Rows of `population`; `arm` decides the effects.
        plan: The world.

    Returns:
        The columns of `units` and of `visit_days` with `number` (INT, the session's place on its
        day), `second` (INT, of the day), `channel` (INT position), `n_steps` (INT, steps of the
        funnel taken, 1 to 5), `is_order`, `is_refund` (BOOLEAN), `n_tickets` (INT), `revenue`,
        `cost`, `refund_amount`, `gross_profit` (DOUBLE, whole cents, zero without an order), and
        `landing_ms`, `checkout_ms` (INT), null where the page was not loaded or not measured.
    """
    return _with_pages(_with_money(_with_steps(_numbered(units, plan), plan), plan), plan)


def _numbered(units: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """One row per session of a visit day, in the order of the day."""
    second, third = plan.world.visits.further_sessions
    drawn = plan.draws.uniform("n-sessions", "unit_id", "day")
    n_sessions = 1 + (drawn < second).cast("int") + (drawn < third).cast("int")
    place = (F.col("number") + plan.draws.uniform("second", *_IDS)) / F.col("n_sessions")
    return (
        visit_days(units, plan)
        .withColumn("n_sessions", n_sessions)
        .withColumn("number", F.explode(F.sequence(F.lit(0), F.col("n_sessions") - 1)))
        .withColumn("second", (F.floor(place * float(_OPEN_SECONDS)) + _OPENS).cast("int"))
    )


def _with_steps(rows: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """Add `channel`, `n_steps` and `is_order`."""
    world, draws, funnel = plan.world, plan.draws, plan.world.funnel
    by_device = lookup([device.intent for device in world.devices.values()], F.col("device"))
    by_channel = lookup([one.intent for one in world.channels.values()], F.col("channel"))
    shift = F.col("intent") + by_device + by_channel
    completion = F.lit(1.0) + plan.effect.completion * F.col("strength")
    probabilities = (
        F.lit(funnel.view),
        _shifted(funnel.cart, shift),
        F.lit(funnel.checkout),
        F.least(_shifted(funnel.purchase, shift) * completion, F.lit(_LARGEST_PROBABILITY)),
    )
    n_steps = F.lit(1)
    # From the last step to the first: a step that is not taken ends the session there.
    for place, probability in reversed(list(enumerate(probabilities, start=1))):
        is_taken = draws.uniform(f"step/{STEPS[place]}", *_IDS) < probability
        n_steps = F.when(is_taken, n_steps + 1).otherwise(F.lit(1))
    return (
        rows.withColumn("channel", _channel(plan))
        .withColumn("n_steps", n_steps)
        .withColumn("is_order", F.col("n_steps") >= PURCHASE_STEP)
    )


def _channel(plan: CheckoutPlan) -> Column:
    """Where the session comes from; more and more from the last channel under `traffic_drift`."""
    shares = [channel.share for channel in plan.world.channels.values()]
    channel = plan.draws.index("channel", shares, *_IDS)
    if "traffic_drift" not in plan.faults:
        return channel
    progress = (F.col("day") - plan.world.pre_days + 1) / float(plan.n_trial_days)
    is_moved = plan.draws.uniform("drift", *_IDS) < progress * plan.world.faults.traffic_drift
    return F.when(is_moved, F.lit(len(shares) - 1)).otherwise(channel)


def _shifted(probability: float, shift: Column) -> Column:
    """The probability with its logit shifted."""
    logit = math.log(probability / (1.0 - probability))
    return F.lit(1.0) / (F.lit(1.0) + F.exp(-(shift + logit)))


def _with_money(rows: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """Add value, cost, refund, gross profit and tickets of the order."""
    settings, draws, effect = plan.world.orders, plan.draws, plan.effect
    strength = F.col("strength")
    log_value = (
        F.col("log_basket")
        + settings.log_basket
        + settings.order_sd * draws.normal("order-value", *_IDS)
    )
    value = F.exp(log_value) * (F.lit(1.0) + effect.basket * strength)
    cost_share = settings.cost_share + (draws.uniform("cost", *_IDS) - 0.5) * _COST_SPREAD
    refund_share = settings.refund * (F.lit(1.0) + effect.refund * strength)
    is_full = draws.uniform("full-refund", *_IDS) < settings.full_refund
    refund = F.when(is_full, F.col("revenue")).otherwise(to_cents(F.col("revenue") / 2.0))
    ticket_share = F.when(F.col("is_refund"), settings.refund_ticket).otherwise(settings.ticket)
    ticket = ticket_share * (F.lit(1.0) + effect.ticket * strength)
    has_ticket = F.col("is_order") & (draws.uniform("ticket", *_IDS) < ticket)
    is_refund = F.col("is_order") & (draws.uniform("refund", *_IDS) < refund_share)
    return (
        rows.withColumn("revenue", _if_order(F.least(value, F.lit(settings.max_basket))))
        .withColumn("cost", _if_order(F.col("revenue") * cost_share))
        .withColumn("is_refund", is_refund)
        .withColumn("refund_amount", F.when(F.col("is_refund"), refund).otherwise(0.0))
        .withColumn("gross_profit", profit())
        .withColumn("n_tickets", has_ticket.cast("int"))
    )


def profit() -> Column:
    """Gross profit: value less cost less what was refunded, in whole cents."""
    return to_cents(F.col("revenue") - F.col("cost") - F.col("refund_amount"))


def _if_order(amount: Column) -> Column:
    return F.when(F.col("is_order"), to_cents(amount)).otherwise(0.0)


def _with_pages(rows: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """Add the latencies that were measured."""
    settings, draws = plan.world.pages, plan.draws
    by_device = lookup([device.latency for device in plan.world.devices.values()], F.col("device"))
    factors = {
        "landing": F.lit(1.0),
        "checkout": settings.checkout_factor
        * (F.lit(1.0) + plan.effect.latency * F.col("strength")),
    }
    is_loaded = {"landing": F.lit(True), "checkout": F.col("n_steps") >= CHECKOUT_STEP}
    for page in PAGES:
        noise = settings.load_sd * draws.normal(f"load/{page}", *_IDS)
        latency = by_device * factors[page] * F.exp(F.col("log_latency") + noise)
        is_seen = is_loaded[page] & (draws.uniform(f"seen/{page}", *_IDS) < settings.measured)
        rows = rows.withColumn(f"{page}_ms", F.when(is_seen, F.ceil(latency).cast("int")))
    return rows
