"""Declarations of the tables of the shop.

The records are declared as an observer gets them: what may go wrong (a session without its user, a
refund above its order) is for the quality checks to say and no constraint.
"""

from transforms.schema import Field, Table
from transforms.truth_tables import effects_table


def _text(name: str, comment: str) -> Field:
    return Field(name=name, type="STRING", comment=comment)


def _number(name: str, comment: str, *, type_: str = "DOUBLE") -> Field:
    return Field(name=name, type=type_, comment=comment)


def _moment(name: str, comment: str, *, is_nullable: bool = False) -> Field:
    return Field(name=name, type="TIMESTAMP", comment=comment, is_nullable=is_nullable)


def _day(name: str, comment: str) -> Field:
    return Field(name=name, type="DATE", comment=comment)


_EXPERIMENT = _text("experiment", "Name of the trial")
_VARIANT = _text("variant", "Arm of the trial")
_USER = _number("user_id", "User, numbered from 1", type_="BIGINT")
_SESSION = _text("session_id", "The session")

USERS = Table(
    name="checkout_users",
    comment="One row per user who was seen before the world's end",
    fields=(
        _USER,
        _day("first_seen_on", "Day of the first visit"),
        _text("country", "Country"),
        _text("device", "Device: mobile, desktop or tablet"),
    ),
    key=("user_id",),
    checks={},
    clustering=("user_id",),
)
TRIALS = Table(
    name="checkout_trials",
    comment="Definition of the trial, one row",
    fields=(
        _EXPERIMENT,
        _text("perk", "What is tried"),
        _text("salt", "Salt of the assignment hash"),
        _day("starts_on", "First day of the trial"),
        _day("ends_on", "Last day of the trial"),
        _day("pre_starts_on", "First day of the pre-period, which ends before starts_on"),
        _text("control", "Name of the control variant"),
        Field(name="variants", type="ARRAY<STRING>", comment="All variants, control first"),
        Field(name="shares", type="ARRAY<DOUBLE>", comment="Planned shares of the variants"),
    ),
    key=("experiment",),
    checks={
        "window_in_order": "pre_starts_on < starts_on AND starts_on <= ends_on",
        "one_share_a_variant": "size(variants) = size(shares)",
    },
)
ASSIGNMENTS = Table(
    name="checkout_assignments",
    comment="Variant of each user who visited during the trial, drawn at the first session of it",
    fields=(_EXPERIMENT, _USER, _VARIANT, _moment("assigned_at", "Time of the assignment, UTC")),
    key=("experiment", "user_id"),
    checks={},
    clustering=("user_id",),
)
SESSIONS = Table(
    name="checkout_sessions",
    comment="One row per session",
    fields=(
        _SESSION,
        Field(
            name="user_id",
            type="BIGINT",
            comment="User; null if the session could not be told whose it is",
            is_nullable=True,
        ),
        _text("channel", "What brought the session"),
        _moment("started_at", "Start of the session, UTC"),
    ),
    key=("session_id",),
    checks={},
)
EVENTS = Table(
    name="checkout_events",
    comment="One row per step of the funnel that a session took, in this order: visit, "
    "view_product, add_to_cart, start_checkout, purchase",
    fields=(
        _text("event_id", "The event"),
        _SESSION,
        _USER,
        _text("event", "The step"),
        _moment("occurred_at", "Time of the event by the clock of the device, UTC"),
        _moment("ingested_at", "Time at which the row arrived, UTC"),
    ),
    key=("event_id",),
    checks={},
)
ORDERS = Table(
    name="checkout_orders",
    comment="One row per order",
    fields=(
        _text("order_id", "The order"),
        _SESSION,
        _USER,
        _moment("ordered_at", "Time of the order, UTC"),
        _number("revenue", "Value of the order in money"),
        _number("cost", "Goods and shipping in money"),
        _number("refund_amount", "What was given back in money; zero if nothing"),
        _moment("refunded_at", "Time of the refund, UTC; null if there is none", is_nullable=True),
        _number("gross_profit", "Value less cost less refund in money"),
        _number("n_tickets", "Support tickets about the order", type_="INT"),
    ),
    key=("order_id",),
    checks={},
)
PERF = Table(
    name="checkout_perf",
    comment="One row per page load that was measured",
    fields=(
        _text("load_id", "The page load"),
        _SESSION,
        _USER,
        _text("page", "landing or checkout"),
        _number("latency_ms", "Time until the page was usable, in milliseconds", type_="INT"),
        _moment("loaded_at", "Time of the load, UTC"),
    ),
    key=("load_id",),
    checks={},
)

_WINDOW = "from the assignment to the trial's end, under the variant"
OUTCOMES: tuple[Field, ...] = (
    _number("visitor_days", "Days with a session", type_="BIGINT"),
    _number("sessions", "Sessions", type_="BIGINT"),
    _number("orders", "Orders", type_="BIGINT"),
    _number("revenue", "Value of the orders in money"),
    _number("gross_profit", "Gross profit of the orders in money, refunds taken off"),
    _number("refunds", "Orders that were refunded", type_="BIGINT"),
    _number("tickets", "Support tickets about the orders", type_="BIGINT"),
    _number("checkout_loads", "Measured loads of the checkout page", type_="BIGINT"),
    _number("slow_checkout_loads", "Of these, those above the limit", type_="BIGINT"),
    _number("checkout_ms", "Sum of the latencies of these loads", type_="BIGINT"),
    Field(name="is_converted", type="BOOLEAN", comment="Has an order"),
    _number("followed_d7", "1 if the seven days after the first visit were seen", type_="INT"),
    _number("returned_d7", "1 if these were seen and hold another visit day", type_="INT"),
)
"""What is measured of each enrolled user over the trial."""

TRUTH_USERS = Table(
    name="truth_checkout_users",
    comment="Potential outcomes of each enrolled user under each variant",
    fields=(
        _EXPERIMENT,
        _USER,
        _VARIANT,
        _text("device", "Device: mobile, desktop or tablet"),
        _text("customer_type", "new: first seen during the trial; existing: before it"),
        *(
            Field(name=field.name, type=field.type, comment=f"{field.comment}, {_WINDOW}")
            for field in OUTCOMES
        ),
    ),
    key=("experiment", "user_id", "variant"),
    checks={},
)
TRUTH_DAYS = Table(
    name="truth_checkout_days",
    comment="Potential outcomes of all enrolled users by segment and day since the first visit",
    fields=(
        _EXPERIMENT,
        _VARIANT,
        _text("device", "Device: mobile, desktop or tablet"),
        _text("customer_type", "new: first seen during the trial; existing: before it"),
        _number("day", "Days since the first visit of the trial", type_="INT"),
        _number("n_users", "Enrolled users whose day lies within the trial", type_="BIGINT"),
        _number("visitor_days", "Of these, those who visit", type_="BIGINT"),
        _number("sessions", "Sessions", type_="BIGINT"),
        _number("orders", "Orders", type_="BIGINT"),
        _number("revenue", "Value of the orders in money"),
        _number("gross_profit", "Gross profit in money"),
        _number("refunds", "Orders that were refunded", type_="BIGINT"),
        _number("tickets", "Support tickets", type_="BIGINT"),
    ),
    key=("experiment", "variant", "device", "customer_type", "day"),
    checks={"day_not_negative": "day >= 0", "visitors_are_users": "visitor_days <= n_users"},
)
TRUTH_EFFECTS = effects_table(
    "truth_checkout_effects",
    comment="True effects of the new checkout, exact for the users of the world",
    design="Name of the trial",
    estimand="ate; cate within a segment or on a day since the first visit",
    metric="Outcome, or a ratio of two outcomes' sums",
    term="treatment - control, followed by the segment or day where it is of one",
)

RECORD_TABLES: tuple[Table, ...] = (USERS, ASSIGNMENTS, SESSIONS, EVENTS, ORDERS, PERF)
CHECKOUT_TABLES: tuple[Table, ...] = (
    USERS,
    TRIALS,
    ASSIGNMENTS,
    SESSIONS,
    EVENTS,
    ORDERS,
    PERF,
    TRUTH_USERS,
    TRUTH_DAYS,
    TRUTH_EFFECTS,
)
