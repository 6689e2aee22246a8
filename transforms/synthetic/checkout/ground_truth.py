"""The truth of the shop: potential outcomes of every enrolled user, and the effects that follow.

The sessions of each enrolled user are computed under both arms with the same draws. Effects are
differences of means, or of ratios of sums, over all enrolled users: finite-population truths
without sampling error. Under `novelty` they are those of the fading effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.checkout.plan import CONTROL, TREATMENT, CheckoutPlan
from transforms.synthetic.checkout.visitors import is_enrolled, is_new, under_both_arms
from transforms.synthetic.checkout.visits import sessions
from transforms.synthetic.ground_truth import treated_less_control
from transforms.synthetic.money import exact_sum
from transforms.synthetic.randomness import lookup

RETURN_DAYS = 7
_MONEY = ("revenue", "gross_profit")
_COUNTS = ("visitor_days", "sessions", "orders", "refunds", "tickets")
_LOADS = ("checkout_loads", "slow_checkout_loads", "checkout_ms")
_RETURNS = ("followed_d7", "returned_d7")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric that is a ratio of two sums over users; `n_users` below makes it a mean."""

    name: str
    numerator: str
    denominator: str = "n_users"


DAY_METRICS: tuple[Metric, ...] = (
    *(Metric(name=name, numerator=name) for name in (*_COUNTS, *_MONEY)),
    Metric(
        name="gross_profit_per_visitor_day", numerator="gross_profit", denominator="visitor_days"
    ),
    Metric(name="orders_per_visitor_day", numerator="orders", denominator="visitor_days"),
    Metric(name="orders_per_session", numerator="orders", denominator="sessions"),
)
METRICS: tuple[Metric, ...] = (
    *DAY_METRICS,
    Metric(name="is_converted", numerator="converted"),
    Metric(name="revenue_per_order", numerator="revenue", denominator="orders"),
    Metric(name="refund_rate", numerator="refunds", denominator="orders"),
    Metric(name="tickets_per_order", numerator="tickets", denominator="orders"),
    Metric(name="d7_return", numerator="returned_d7", denominator="followed_d7"),
    Metric(
        name="slow_checkout_share", numerator="slow_checkout_loads", denominator="checkout_loads"
    ),
    Metric(name="checkout_latency", numerator="checkout_ms", denominator="checkout_loads"),
)


def user_truth(people: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """`truth_checkout_users`: outcomes from the assignment on, by enrolled user and variant.

    Args:
        people: Rows of `population`.
        plan: The world.
    """
    rows = _trial_sessions(people, plan)
    age = F.col("day") - F.col("first_day")
    is_followed = F.col("first_day") + RETURN_DAYS < plan.n_days
    keys = ("unit_id", "arm", "device", "customer_type", "first_day")
    sums = rows.groupBy(*keys).agg(
        *_activity(),
        F.count("checkout_ms").alias("checkout_loads"),
        F.count_if(F.col("checkout_ms") > plan.world.pages.slow_ms).alias("slow_checkout_loads"),
        F.coalesce(F.sum("checkout_ms"), F.lit(0)).alias("checkout_ms"),
        F.bool_or("is_order").alias("is_converted"),
        F.bool_or(age.between(1, RETURN_DAYS)).alias("is_back"),
    )
    return (
        _named(sums, plan)
        .withColumn("user_id", F.col("unit_id"))
        .withColumn("followed_d7", is_followed.cast("int"))
        .withColumn("returned_d7", (is_followed & F.col("is_back")).cast("int"))
    )


def day_truth(people: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """`truth_checkout_days`: sums over users by segment, variant and day since the first visit.

    Arguments as in `user_truth`.
    """
    cell = ("arm", "device", "customer_type", "age")
    sums = (
        _trial_sessions(people, plan)
        .withColumn("age", F.col("day") - F.col("first_day"))
        .groupBy(*cell)
        .agg(*_activity())
    )
    users = (
        people.where(is_enrolled())
        .withColumn("customer_type", _customer_type(plan))
        .groupBy("device", "customer_type", "first_day")
        .agg(F.count(F.lit(1)).alias("n"))
    )
    last = F.lit(plan.n_days - 1) - F.col("first_day")
    arms = F.explode(F.array(F.lit(CONTROL), F.lit(TREATMENT)))
    at_risk = (
        users.withColumn("age", F.explode(F.sequence(F.lit(0), last)))
        .withColumn("arm", arms)
        .groupBy(*cell)
        .agg(F.sum("n").alias("n_users"))
    )
    joined = at_risk.join(sums, on=list(cell), how="left")
    filled = {name: F.coalesce(F.col(name), F.lit(0)) for name in (*_COUNTS, *_MONEY)}
    return _named(joined.withColumns(filled), plan).withColumn("day", F.col("age"))


def effects(users: DataFrame, days: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """`truth_checkout_effects` from the two other truth tables.

    Args:
        users: `truth_checkout_users`.
        days: `truth_checkout_days`.
        plan: The world.
    """
    slices = F.array(
        F.lit(""),
        *[F.concat(F.lit(f" | {name}="), F.col(name)) for name in ("device", "customer_type")],
    )
    by_user = (
        users.withColumn("n_users", F.lit(1))
        .withColumn("converted", F.col("is_converted").cast("int"))
        .withColumn("slice", F.explode(slices))
    )
    by_day = days.withColumn("slice", F.concat(F.lit(" | day="), F.col("day")))
    sums = (*_COUNTS, *_LOADS, *_RETURNS, "converted")
    levels = _levels(by_user, METRICS, counts=sums).unionByName(
        _levels(by_day, DAY_METRICS, counts=_COUNTS)
    )
    return _contrasts(levels, plan)


def _trial_sessions(people: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """The sessions of the trial under both arms."""
    rows = sessions(under_both_arms(people), plan)
    return rows.where(F.col("day") >= plan.world.pre_days).withColumn(
        "customer_type", _customer_type(plan)
    )


def _activity() -> tuple[Column, ...]:
    """Aggregates of sessions: visitor days, sessions, orders, money, refunds and tickets."""
    return (
        F.count_if(F.col("number") == 0).alias("visitor_days"),
        F.count(F.lit(1)).alias("sessions"),
        F.count_if("is_order").alias("orders"),
        *[exact_sum(name).alias(name) for name in _MONEY],
        F.count_if("is_refund").alias("refunds"),
        F.sum("n_tickets").alias("tickets"),
    )


def _customer_type(plan: CheckoutPlan) -> Column:
    return F.when(is_new(plan), F.lit("new")).otherwise(F.lit("existing"))


def _named(rows: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """Names in place of the numbers of arm and device."""
    return (
        rows.withColumn("experiment", F.lit(plan.world.trial.experiment))
        .withColumn("variant", plan.variant(F.col("arm")))
        .withColumn("device", lookup(list(plan.world.devices), F.col("device")))
    )


def _levels(rows: DataFrame, metrics: Sequence[Metric], *, counts: Sequence[str]) -> DataFrame:
    """The level of each metric by slice and variant."""
    sums = rows.groupBy("variant", "slice").agg(
        F.sum("n_users").alias("n_users"),
        *[F.sum(name).alias(name) for name in counts],
        *[exact_sum(name).alias(name) for name in _MONEY],
    )
    entries = F.array(
        *[
            F.struct(
                F.lit(metric.name).alias("metric"),
                F.try_divide(
                    F.col(metric.numerator).cast("double"), F.col(metric.denominator)
                ).alias("level"),
            )
            for metric in metrics
        ]
    )
    return sums.select("variant", "slice", F.inline(entries))


def _contrasts(levels: DataFrame, plan: CheckoutPlan) -> DataFrame:
    """Treatment less control, absolute and relative to the control, with a declared row each."""
    trial, term = plan.world.trial, f"{plan.world.trial.treatment} - {plan.world.trial.control}"
    is_whole = F.col("slice") == ""
    changes = treated_less_control(
        levels, ("slice", "metric"), treated=trial.treatment, control=trial.control
    )
    return changes.select(
        F.lit(plan.draws.world).alias("world"),
        F.lit(trial.experiment).alias("design"),
        F.when(is_whole, "ate").otherwise("cate").alias("estimand"),
        "metric",
        F.concat(F.lit(term), F.col("slice")).alias("term"),
        "scale",
        "value",
        F.when(is_whole, "all enrolled users, under the treatment less under control")
        .otherwise("enrolled users of the slice, under the treatment less under control")
        .alias("comment"),
    )
