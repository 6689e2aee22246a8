"""What goes wrong with the shop's records: each fault changes the tables as a broken system would.

Four further switches change the world itself and stand where it is made: `novelty`,
`segment_imbalance` and `pre_period_imbalance` in `visitors`, `traffic_drift` in `visits`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.synthetic.checkout import tables
from transforms.synthetic.checkout.parameters import CheckoutFault
from transforms.synthetic.checkout.plan import DAY_SECONDS, CheckoutPlan
from transforms.synthetic.checkout.visits import profit
from transforms.synthetic.money import to_cents

Frames = Mapping[str, DataFrame]
Breakage = Callable[[Frames, CheckoutPlan], Frames]

N_BOT_COPIES = 100
_DAYS_LATE = 3
_HOURS_FAST = 6
_MILLISECONDS = 1_000.0
_CENTS = 100.0
_ASSIGNMENTS, _SESSIONS = tables.ASSIGNMENTS.name, tables.SESSIONS.name
_EVENTS, _ORDERS, _PERF = tables.EVENTS.name, tables.ORDERS.name, tables.PERF.name
_TIMES = {
    _SESSIONS: "started_at",
    _EVENTS: "occurred_at",
    _ORDERS: "ordered_at",
    _PERF: "loaded_at",
}


def with_faults(frames: Frames, plan: CheckoutPlan) -> Frames:
    """The records after everything that the plan lets go wrong with them.

    Args:
        frames: The tables of the shop by name.
        plan: The world; faults of the world itself are in the frames already.
    """
    for name, broken in RECORD_FAULTS.items():
        if name in plan.faults:
            frames = {**frames, **broken(frames, plan)}
    return frames


def _sample_ratio_mismatch(frames: Frames, plan: CheckoutPlan) -> Frames:
    is_safe = F.col("variant") == plan.world.trial.control
    drawn = _drawn(plan, "mismatch", "user_id")
    kept = is_safe | (drawn >= plan.world.faults.sample_ratio_mismatch)
    return {_ASSIGNMENTS: frames[_ASSIGNMENTS].where(kept)}


def _duplicate_assignments(frames: Frames, plan: CheckoutPlan) -> Frames:
    is_double = _drawn(plan, "double", "user_id") < plan.world.faults.duplicate_assignments
    return {_ASSIGNMENTS: _repeated(frames[_ASSIGNMENTS], is_double)}


def _crossover(frames: Frames, plan: CheckoutPlan) -> Frames:
    trial, rows = plan.world.trial, frames[_ASSIGNMENTS]
    crosses = _drawn(plan, "crossover", "user_id") < plan.world.faults.crossover
    is_control = F.col("variant") == trial.control
    other = F.when(is_control, trial.treatment).otherwise(trial.control)
    return {_ASSIGNMENTS: rows.unionByName(rows.where(crosses).withColumn("variant", other))}


def _activity_before_assignment(frames: Frames, plan: CheckoutPlan) -> Frames:
    is_late = (
        _drawn(plan, "assigned-late", "user_id") < plan.world.faults.activity_before_assignment
    )
    return {_ASSIGNMENTS: _later(frames[_ASSIGNMENTS], "assigned_at", is_late, DAY_SECONDS)}


def _null_user_id(frames: Frames, plan: CheckoutPlan) -> Frames:
    is_lost = _drawn_text(plan, "anonymous", "session_id") < plan.world.faults.null_user_id
    known = F.when(~is_lost, F.col("user_id"))
    return {_SESSIONS: frames[_SESSIONS].withColumn("user_id", known)}


def _bot_sessions(frames: Frames, plan: CheckoutPlan) -> Frames:
    rows = frames[_SESSIONS]
    is_bot = _drawn_text(plan, "bot", "session_id") < plan.world.faults.bot_sessions
    copies = F.explode(F.sequence(F.lit(1), F.lit(N_BOT_COPIES)))
    repeated = (
        rows.where(is_bot)
        .withColumn("copy", copies)
        .withColumn("session_id", F.concat_ws("-", "session_id", "copy"))
        .drop("copy")
    )
    return {_SESSIONS: rows.unionByName(repeated)}


def _missing_day(frames: Frames, plan: CheckoutPlan) -> Frames:
    return _where_day(frames, plan, lambda day: day != plan.world.faults.missing_day)


def _stale_data(frames: Frames, plan: CheckoutPlan) -> Frames:
    return _where_day(frames, plan, lambda day: day < plan.n_days - plan.world.faults.stale_data)


def _orders_without_session(frames: Frames, plan: CheckoutPlan) -> Frames:
    return _without_session(frames, plan, _ORDERS, plan.world.faults.orders_without_session)


def _events_without_session(frames: Frames, plan: CheckoutPlan) -> Frames:
    return _without_session(frames, plan, _EVENTS, plan.world.faults.events_without_session)


def _duplicate_orders(frames: Frames, plan: CheckoutPlan) -> Frames:
    is_double = _drawn_text(plan, "order-twice", "order_id") < plan.world.faults.duplicate_orders
    return {_ORDERS: _repeated(frames[_ORDERS], is_double)}


def _profit_mismatch(frames: Frames, plan: CheckoutPlan) -> Frames:
    is_wrong = _drawn_text(plan, "profit", "order_id") < plan.world.faults.profit_mismatch
    wrong = to_cents(F.col("revenue") - F.col("refund_amount"))
    recorded = F.when(is_wrong, wrong).otherwise(F.col("gross_profit"))
    return {_ORDERS: frames[_ORDERS].withColumn("gross_profit", recorded)}


def _refund_above_order(frames: Frames, plan: CheckoutPlan) -> Frames:
    drawn = _drawn_text(plan, "refund-twice", "order_id")
    is_double = drawn < plan.world.faults.refund_above_order
    refund = F.col("refund_amount") * F.when(is_double, 2.0).otherwise(1.0)
    orders = frames[_ORDERS].withColumn("refund_amount", refund)
    return {_ORDERS: orders.withColumn("gross_profit", profit())}


def _price_outlier(frames: Frames, plan: CheckoutPlan) -> Frames:
    drawn = _drawn_text(plan, "in-cents", "order_id")
    factor = F.when(drawn < plan.world.faults.price_outlier, _CENTS).otherwise(1.0)
    amounts = {name: F.col(name) * factor for name in ("revenue", "cost", "refund_amount")}
    return {_ORDERS: frames[_ORDERS].withColumns(amounts).withColumn("gross_profit", profit())}


def _logging_loss(frames: Frames, plan: CheckoutPlan) -> Frames:
    treated = frames[_ASSIGNMENTS].where(F.col("variant") == plan.world.trial.treatment)
    users = treated.select("user_id", F.lit(True).alias("is_treated")).distinct()
    is_kept = _drawn_text(plan, "loss", "load_id") >= plan.world.faults.logging_loss
    rows = frames[_PERF].join(users, on="user_id", how="left")
    kept = rows.where(F.col("is_treated").isNull() | is_kept)
    return {_PERF: kept.select(*frames[_PERF].columns)}


def _latency_in_seconds(frames: Frames, plan: CheckoutPlan) -> Frames:
    is_wrong = _drawn_text(plan, "unit", "load_id") < plan.world.faults.latency_in_seconds
    seconds = F.ceil(F.col("latency_ms") / _MILLISECONDS).cast("int")
    recorded = F.when(is_wrong, seconds).otherwise(F.col("latency_ms"))
    return {_PERF: frames[_PERF].withColumn("latency_ms", recorded)}


def _late_events(frames: Frames, plan: CheckoutPlan) -> Frames:
    is_late = _drawn_text(plan, "event-late", "event_id") < plan.world.faults.late_events
    return {_EVENTS: _later(frames[_EVENTS], "ingested_at", is_late, _DAYS_LATE * DAY_SECONDS)}


def _clock_skew(frames: Frames, plan: CheckoutPlan) -> Frames:
    is_fast = _drawn_text(plan, "clock", "session_id") < plan.world.faults.clock_skew
    return {_EVENTS: _later(frames[_EVENTS], "occurred_at", is_fast, _HOURS_FAST * 3_600)}


RECORD_FAULTS: Mapping[CheckoutFault, Breakage] = MappingProxyType(
    {
        "sample_ratio_mismatch": _sample_ratio_mismatch,
        "duplicate_assignments": _duplicate_assignments,
        "crossover": _crossover,
        "activity_before_assignment": _activity_before_assignment,
        "null_user_id": _null_user_id,
        "bot_sessions": _bot_sessions,
        "missing_day": _missing_day,
        "stale_data": _stale_data,
        "orders_without_session": _orders_without_session,
        "events_without_session": _events_without_session,
        "duplicate_orders": _duplicate_orders,
        "profit_mismatch": _profit_mismatch,
        "refund_above_order": _refund_above_order,
        "price_outlier": _price_outlier,
        "logging_loss": _logging_loss,
        "latency_in_seconds": _latency_in_seconds,
        "late_events": _late_events,
        "clock_skew": _clock_skew,
    }
)


def _drawn(plan: CheckoutPlan, stream: str, *ids: str) -> Column:
    return plan.draws.uniform(f"fault/{stream}", *ids)


def _drawn_text(plan: CheckoutPlan, stream: str, text_id: str) -> Column:
    """A uniform that is a function of a text id."""
    return plan.draws.uniform(f"fault/{stream}", f"xxhash64({text_id})")


def _repeated(rows: DataFrame, is_double: Column) -> DataFrame:
    return rows.unionByName(rows.where(is_double))


def _later(rows: DataFrame, name: str, is_late: Column, n_seconds: int) -> DataFrame:
    """A moment of some rows moved to a later time."""
    moved = F.timestamp_seconds(F.unix_seconds(name) + F.when(is_late, n_seconds).otherwise(0))
    return rows.withColumn(name, moved)


def _where_day(frames: Frames, plan: CheckoutPlan, is_kept: Callable[[Column], Column]) -> Frames:
    """The rows of everything that users do, on some days of the world."""

    def day(name: str) -> Column:
        return F.datediff(_utc_date(name), F.lit(plan.world.starts_on))

    return {table: frames[table].where(is_kept(day(name))) for table, name in _TIMES.items()}


def _utc_date(name: str) -> Column:
    days = F.floor(F.unix_seconds(name) / DAY_SECONDS).cast("int")
    return F.date_from_unix_date(days)


def _without_session(frames: Frames, plan: CheckoutPlan, table: str, share: float) -> Frames:
    key = {_ORDERS: "order_id", _EVENTS: "event_id"}[table]
    is_lost = _drawn_text(plan, f"orphan/{table}", key) < share
    unknown = F.concat(F.lit("lost-"), F.col("session_id"))
    orphaned = F.when(is_lost, unknown).otherwise(F.col("session_id"))
    return {table: frames[table].withColumn("session_id", orphaned)}
