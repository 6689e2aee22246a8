"""Declarations of the tables that analyses of the shop read: users and their visitor days."""

from transforms.schema import Field, Table
from transforms.synthetic.checkout.tables import OUTCOMES

SEGMENTS: tuple[Field, ...] = (
    Field(name="country", type="STRING", comment="Country of the user"),
    Field(name="device", type="STRING", comment="Device of the user"),
    Field(
        name="customer_type",
        type="STRING",
        comment="new: first seen during the trial; existing: before it",
    ),
)
ACTIVITY: tuple[Field, ...] = tuple(
    field
    for field in OUTCOMES
    if field.name not in {"visitor_days", "is_converted", "followed_d7", "returned_d7"}
)
"""What adds up over the days of a user."""
PRE_OUTCOMES = ("visitor_days", "sessions", "orders", "revenue", "gross_profit")

_KEYS: tuple[Field, ...] = (
    Field(name="experiment", type="STRING", comment="Name of the trial"),
    Field(name="unit_id", type="BIGINT", comment="The unit: user_id"),
)
_VARIANT = Field(name="variant", type="STRING", comment="Arm to which the user was assigned")
_ASSIGNED = Field(name="assigned_on", type="DATE", comment="UTC day of the assignment")
_FIELDS = {field.name: field for field in OUTCOMES}

CHECKOUT_UNITS = Table(
    name="checkout_units",
    comment="Every assigned user with covariates from before the trial and outcomes from the "
    "assignment to the trial's end; no activity counts as zero",
    fields=(
        *_KEYS,
        _VARIANT,
        _ASSIGNED,
        *SEGMENTS,
        *(
            Field(
                name=f"pre_{name}",
                type=_FIELDS[name].type,
                comment=f"{_FIELDS[name].comment}, before the trial",
            )
            for name in PRE_OUTCOMES
        ),
        *(
            Field(name=field.name, type=field.type, comment=f"{field.comment}, during the trial")
            for field in OUTCOMES
        ),
    ),
    key=("experiment", "unit_id"),
    checks={
        "returned_was_followed": "returned_d7 <= followed_d7",
        "slow_loads_are_loads": "slow_checkout_loads <= checkout_loads",
    },
    clustering=("unit_id",),
)
CHECKOUT_VISITOR_DAYS = Table(
    name="checkout_visitor_days",
    comment="Every day of the trial on which an assigned user was seen, from the assignment on",
    fields=(
        *_KEYS,
        Field(name="visited_on", type="DATE", comment="The UTC day"),
        Field(
            name="visitor_day_id",
            type="BIGINT",
            comment="One number for experiment, user and day",
        ),
        _VARIANT,
        _ASSIGNED,
        Field(name="day", type="INT", comment="Days since the assignment"),
        *SEGMENTS,
        *(
            Field(name=field.name, type=field.type, comment=f"{field.comment}, on the day")
            for field in ACTIVITY
        ),
    ),
    key=("experiment", "unit_id", "visited_on"),
    checks={"day_not_negative": "day >= 0"},
    clustering=("unit_id",),
)
CHECKOUT_DERIVED_TABLES: tuple[Table, ...] = (CHECKOUT_UNITS, CHECKOUT_VISITOR_DAYS)
