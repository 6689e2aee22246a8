"""The tables an observer sees of the shop, before any fault of the records."""

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.checkout import tables
from transforms.synthetic.checkout.plan import DAY_SECONDS, CheckoutPlan
from transforms.synthetic.checkout.visitors import is_enrolled
from transforms.synthetic.checkout.visits import PAGES, PURCHASE_STEP, STEPS
from transforms.synthetic.randomness import lookup

_STEP_SECONDS = 60
_USUAL_DELAY_SECONDS = 30.0
_MAX_REFUND_DAYS = 14.0
_IDS = ("unit_id", "day", "number")


def records(
    people: DataFrame, rows: DataFrame, plan: CheckoutPlan, *, trials: DataFrame
) -> Mapping[str, DataFrame]:
    """The tables of the shop by name, as they are when nothing is wrong.

    Args:
        people: Rows of `population`.
        rows: Their `sessions`.
        plan: The world.
        trials: `checkout_trials`.
    """
    identified = rows.withColumn("session_id", _id(plan, "session-id", *_IDS))
    return {
        tables.USERS.name: _users(people, plan),
        tables.TRIALS.name: trials,
        tables.ASSIGNMENTS.name: _assignments(rows, plan),
        tables.SESSIONS.name: _sessions(identified, plan),
        tables.EVENTS.name: _events(identified, plan),
        tables.ORDERS.name: _orders(identified, plan),
        tables.PERF.name: _perf(identified, plan),
    }


def _users(people: DataFrame, plan: CheckoutPlan) -> DataFrame:
    return people.select(
        F.col("unit_id").alias("user_id"),
        plan.date(F.col("start_day")).alias("first_seen_on"),
        lookup(list(plan.world.countries), F.col("country")).alias("country"),
        lookup(list(plan.world.devices), F.col("device")).alias("device"),
    )


def _assignments(rows: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """A user is assigned when the first session of the trial begins."""
    is_first = is_enrolled() & (F.col("day") == F.col("first_day")) & (F.col("number") == 0)
    return rows.where(is_first).select(
        F.lit(plan.world.trial.experiment).alias("experiment"),
        F.col("unit_id").alias("user_id"),
        plan.variant(F.col("arm")).alias("variant"),
        plan.at_second(F.col("day"), F.col("second")).alias("assigned_at"),
    )


def _sessions(rows: DataFrame, plan: CheckoutPlan) -> DataFrame:
    return rows.select(
        "session_id",
        F.col("unit_id").alias("user_id"),
        lookup(list(plan.world.channels), F.col("channel")).alias("channel"),
        plan.at_second(F.col("day"), F.col("second")).alias("started_at"),
    )


def _events(rows: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """One row per step that was taken; some arrive days late."""
    draws, settings, ids = plan.draws, plan.world.event_log, (*_IDS, "step")
    n_days = 2 + F.floor(draws.uniform("late-days", *ids) * float(settings.max_days_late - 1))
    is_late = draws.uniform("late", *ids) < settings.late
    usual = F.floor(draws.exponential("ingestion", *ids) * _USUAL_DELAY_SECONDS) + 1
    delay = usual + F.when(is_late, n_days * DAY_SECONDS).otherwise(0)
    steps = rows.withColumn("step", F.explode(F.sequence(F.lit(1), F.col("n_steps"))))
    second = _step_second(plan, "step")
    return steps.select(
        _id(plan, "event-id", *ids).alias("event_id"),
        "session_id",
        F.col("unit_id").alias("user_id"),
        lookup(list(STEPS), F.col("step") - 1).alias("event"),
        plan.at_second(F.col("day"), second).alias("occurred_at"),
        plan.at_second(F.col("day"), second + delay).alias("ingested_at"),
    )


def _orders(rows: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """One row per order; its refund arrives up to two weeks later."""
    step = rows.where("is_order").withColumn("step", F.lit(PURCHASE_STEP))
    second = _step_second(plan, "step")
    wait = F.ceil(plan.draws.uniform("refund-wait", *_IDS) * _MAX_REFUND_DAYS * DAY_SECONDS)
    refunded_at = plan.at_second(F.col("day"), second + wait)
    return step.select(
        _id(plan, "order-id", *_IDS).alias("order_id"),
        "session_id",
        F.col("unit_id").alias("user_id"),
        plan.at_second(F.col("day"), second).alias("ordered_at"),
        "revenue",
        "cost",
        "refund_amount",
        F.when(F.col("is_refund"), refunded_at).alias("refunded_at"),
        "gross_profit",
        "n_tickets",
    )


def _perf(rows: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """One row per page load that was measured."""
    loads = F.array(
        *[
            F.struct(
                F.lit(number).alias("page_number"),
                F.lit(page).alias("page"),
                F.lit(step).alias("step"),
                F.col(f"{page}_ms").alias("latency_ms"),
            )
            for number, (page, step) in enumerate(zip(PAGES, (1, 4), strict=True))
        ]
    )
    measured = rows.select(*_IDS, "second", "session_id", F.inline(loads)).where(
        "latency_ms IS NOT NULL"
    )
    return measured.select(
        _id(plan, "load-id", *_IDS, "page_number").alias("load_id"),
        "session_id",
        F.col("unit_id").alias("user_id"),
        "page",
        "latency_ms",
        plan.at_second(F.col("day"), _step_second(plan, "step")).alias("loaded_at"),
    )


def _step_second(plan: CheckoutPlan, step: str) -> Column:
    """Second of the day of a step of the funnel: about a minute after the one before."""
    jitter = F.floor(plan.draws.uniform("step-second", *_IDS, step) * float(_STEP_SECONDS))
    return F.col("second") + F.when(
        F.col(step) > 1, (F.col(step) - 1) * _STEP_SECONDS + jitter
    ).otherwise(0)


def _id(plan: CheckoutPlan, stream: str, *ids: str) -> Column:
    return F.lower(F.hex(plan.draws.bits(stream, *ids)))
