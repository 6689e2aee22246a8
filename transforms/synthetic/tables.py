"""Declarations of the tables of the generated worlds."""

from transforms.schema import Field, Table
from transforms.synthetic.checkout.tables import CHECKOUT_TABLES
from transforms.synthetic.passengers.tables import PASSENGER_TABLES
from transforms.truth_tables import effects_table

_ID_COMMENT = {
    "subscriber_id": "Subscriber, numbered from 1",
    "driver_id": "Driver, numbered from 1",
}


def _id(name: str) -> Field:
    return Field(name=name, type="BIGINT", comment=_ID_COMMENT[name])


def _text(name: str, comment: str) -> Field:
    return Field(name=name, type="STRING", comment=comment)


def _date(name: str, comment: str, *, is_nullable: bool = False) -> Field:
    return Field(name=name, type="DATE", comment=comment, is_nullable=is_nullable)


def _moment(name: str, comment: str) -> Field:
    return Field(name=name, type="TIMESTAMP", comment=comment)


def _count(name: str, comment: str) -> Field:
    return Field(name=name, type="INT", comment=comment)


def _double(name: str, comment: str) -> Field:
    return Field(name=name, type="DOUBLE", comment=comment)


def _flag(name: str, comment: str) -> Field:
    return Field(name=name, type="BOOLEAN", comment=comment)


_SIGNUP = _date("signup_on", "Day of the first contract")
_CHURNED = _date(
    "churned_on", "First day on which the unit is gone; null if it stays", is_nullable=True
)
_ACTIVITY = _date("activity_on", "Day of the activity")
_EXPERIMENT = _text("experiment", "Name of the trial")
_VARIANT = _text("variant", "Arm of the trial")
_FIRST_TREATED = Field(
    name="first_treated_period",
    type="INT",
    comment="Week (from zero at the start of the world) of the rollout; null if it never comes",
    is_nullable=True,
)
_RETAINED = _flag("is_retained", "Still there at the end of the window")
_WINDOW = "over the experiment window, under the variant"


def _trials(name: str, unit: str) -> Table:
    return Table(
        name=name,
        comment=f"Definitions of the randomised trials on {unit}s, one row each",
        fields=(
            _EXPERIMENT,
            _text("perk", "What is tried"),
            _text("design", "randomised, clustered, stratified or encouragement"),
            _text("unit", "Column by which variants are drawn"),
            _text("salt", "Salt of the assignment hash"),
            _date("starts_on", "First day of the experiment window"),
            _date("ends_on", "Last day of the experiment window"),
            _date("pre_starts_on", "First day of the pre-period, which ends before starts_on"),
            _count("attribution_days", "Days from the start in which a first exposure counts"),
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


def _assignments(name: str, key: str, cluster: str) -> Table:
    return Table(
        name=name,
        comment="Variant of each enrolled unit; units gone before the start are not enrolled",
        fields=(
            _EXPERIMENT,
            _id(key),
            _VARIANT,
            _text("stratum", "Stratum of a stratified trial; 'all' in others"),
            Field(
                name="cluster_id", type="BIGINT", comment=f"{cluster} if clustered, else the unit"
            ),
            _moment("assigned_at", "Time of the assignment, UTC"),
        ),
        key=("experiment", key),
        checks={},
    )


def _exposure_log(name: str, key: str) -> Table:
    return Table(
        name=name,
        comment="Raw exposure log: rows may be there twice (same event_id) or arrive days late",
        fields=(
            _text("event_id", "Id of the event; duplicates of it share the id"),
            _EXPERIMENT,
            _id(key),
            _VARIANT,
            _moment("exposed_at", "Time of the exposure, UTC"),
            _moment("ingested_at", "Time at which the row arrived, UTC"),
        ),
        key=("event_id", "ingested_at"),
        checks={"arrives_after_event": "ingested_at >= exposed_at"},
    )


def _effects(name: str) -> Table:
    return effects_table(
        name,
        comment="True effects of the generated world, exact for its finite population",
        design="Name of the trial or of the rollout",
        estimand="ate, att, itt, late, total, direct, spillover or carry_over",
        metric="Outcome, or a ratio of two outcomes' sums",
        term="'variant - control', or a term of the rollout such as event_time=2",
    )


SUBSCRIBERS = Table(
    name="subscribers",
    comment="One row per subscriber who was there when the world started",
    fields=(
        _id("subscriber_id"),
        Field(name="household_id", type="BIGINT", comment="Id of the household's first member"),
        _text("country", "Country"),
        _text("region", "Region, nested in the country"),
        _text("tier", "Subscription tier"),
        _text("channel", "Marketing channel of the signup"),
        _SIGNUP,
        _double("price", "Price per billing cycle before perks, in money"),
        _CHURNED,
    ),
    key=("subscriber_id",),
    checks={"price_is_positive": "price > 0", "left_after_signup": "churned_on > signup_on"},
    clustering=("subscriber_id",),
)
SUBSCRIBER_DAYS = Table(
    name="subscriber_days",
    comment="Days on which a subscriber watched or paid; no row of a live subscriber is a zero",
    fields=(
        _id("subscriber_id"),
        _ACTIVITY,
        _count("minutes", "Minutes watched; the day is active if above zero"),
        _count("sessions", "Sessions"),
        _double("revenue", "Subscription, advertising and purchases, in money"),
    ),
    key=("subscriber_id", "activity_on"),
    checks={
        "minutes_in_a_day": "minutes BETWEEN 0 AND 1440",
        "sessions_not_negative": "sessions >= 0",
        "revenue_not_negative": "revenue >= 0",
    },
    clustering=("subscriber_id",),
)
SUBSCRIBER_TRIALS = _trials("subscriber_trials", "subscriber")
SUBSCRIBER_ASSIGNMENTS = _assignments("subscriber_assignments", "subscriber_id", "Household")
SUBSCRIBER_UPTAKES = Table(
    name="subscriber_uptakes",
    comment="Who took up the perk of an encouragement trial, offered or not",
    fields=(_EXPERIMENT, _id("subscriber_id"), _moment("taken_up_at", "Time of the uptake, UTC")),
    key=("experiment", "subscriber_id"),
    checks={},
)
SUBSCRIBER_EXPOSURE_LOG = _exposure_log("subscriber_exposure_log", "subscriber_id")
SUBSCRIBER_ROLLOUT = Table(
    name="subscriber_rollout",
    comment="Rollout of early content by region",
    fields=(_text("region", "Region"), _text("country", "Country"), _FIRST_TREATED),
    key=("region",),
    checks={"first_period_not_negative": "first_treated_period >= 0"},
)
TRUTH_SUBSCRIBERS = Table(
    name="truth_subscribers",
    comment="Potential outcomes of each enrolled subscriber under each variant of its trial",
    fields=(
        _EXPERIMENT,
        _id("subscriber_id"),
        _VARIANT,
        _flag("is_exposed", "Exposed in the window; the same under every variant"),
        _flag("is_uptake", "Takes the perk of an encouragement up under this variant"),
        _count("minutes", f"Minutes {_WINDOW}"),
        _count("sessions", f"Sessions {_WINDOW}"),
        _double("revenue", f"Revenue {_WINDOW}"),
        _count("active_days", f"Days with minutes {_WINDOW}"),
        _RETAINED,
    ),
    key=("experiment", "subscriber_id", "variant"),
    checks={},
)
TRUTH_SUBSCRIBER_ROLLOUT = Table(
    name="truth_subscriber_rollout",
    comment="What the rollout added in each region and week, summed over the region's subscribers",
    fields=(
        _text("region", "Region"),
        _count("period", "Week from zero at the start of the world"),
        _FIRST_TREATED,
        Field(
            name="n_units", type="BIGINT", comment="Subscribers of the region, gone ones included"
        ),
        _double("minutes", "Minutes added"),
        _double("sessions", "Sessions added"),
        _double("revenue", "Revenue added"),
        _double("active_days", "Active days added"),
    ),
    key=("region", "period"),
    checks={},
)
TRUTH_SUBSCRIBER_EFFECTS = _effects("truth_subscriber_effects")

DRIVERS = Table(
    name="drivers",
    comment="One row per driver who was there when the world started",
    fields=(
        _id("driver_id"),
        _text("city", "City, the driver's market"),
        _text("vehicle", "Kind of vehicle"),
        _SIGNUP,
        _CHURNED,
    ),
    key=("driver_id",),
    checks={"left_after_signup": "churned_on > signup_on"},
    clustering=("driver_id",),
)
DRIVER_DAYS = Table(
    name="driver_days",
    comment="Days on which a driver worked; no row of a live driver is a zero",
    fields=(
        _id("driver_id"),
        _ACTIVITY,
        _double("hours", "Supply hours, in quarters"),
        _count("trips", "Trips"),
        _double("earnings", "Fares after commission and incentives, in money"),
        _double("payouts", "Incentives alone: promotions, bonus and surge, in money"),
    ),
    key=("driver_id", "activity_on"),
    checks={
        "hours_in_a_day": "hours > 0 AND hours <= 24",
        "trips_not_negative": "trips >= 0",
        "earnings_hold_payouts": "payouts >= 0 AND earnings >= payouts",
    },
    clustering=("driver_id",),
)
DRIVER_TRIALS = _trials("driver_trials", "driver")
DRIVER_ASSIGNMENTS = _assignments("driver_assignments", "driver_id", "City")
DRIVER_EXPOSURE_LOG = _exposure_log("driver_exposure_log", "driver_id")
DRIVER_PAYOUTS = Table(
    name="driver_payouts",
    comment="Weekly payouts to drivers, fares and incentives apart",
    fields=(
        _text("payout_id", "Id of the payout"),
        _id("driver_id"),
        _text("kind", "fares or incentive"),
        _double("amount", "Amount of the week, in money"),
        _moment("paid_at", "Time of the payout, UTC"),
    ),
    key=("payout_id",),
    checks={"amount_is_positive": "amount > 0", "kind_is_known": "kind IN ('fares', 'incentive')"},
)
DRIVER_ROLLOUT = Table(
    name="driver_rollout",
    comment="Rollout of weekly quests by city",
    fields=(_text("city", "City"), _text("market", "Group of cities"), _FIRST_TREATED),
    key=("city",),
    checks={"first_period_not_negative": "first_treated_period >= 0"},
)
DRIVER_SWITCHBACK_SLOTS = Table(
    name="driver_switchback_slots",
    comment="A switchback: cities whose bonus is drawn anew for each block of slots of a day",
    fields=(
        _text("city", "City"),
        _count("slot", "Slot of the day, counted from zero at the start of the world"),
        _count("block", "Block of slots, within which the treatment is the same"),
        _count("treatment", "1 if drivers of the city have the bonus, else 0"),
        _double("trips_per_driver", "Trips of the slot per driver of the city"),
    ),
    key=("city", "slot"),
    checks={"treatment_is_a_flag": "treatment IN (0, 1)", "trips_positive": "trips_per_driver > 0"},
)
DRIVER_CAMPAIGN_WEEKS = Table(
    name="driver_campaign_weeks",
    comment="A geo experiment: cities by week, with a long history before the campaign in some",
    fields=(
        _text("city", "City"),
        _count("period", "Week from zero at the start of the world; negative before it"),
        Field(
            name="first_treated_period",
            type="INT",
            comment="First week of the city's campaign; null if it has none",
            is_nullable=True,
        ),
        _double("trips_per_driver", "Trips of the week per driver of the city"),
    ),
    key=("city", "period"),
    checks={"trips_positive": "trips_per_driver > 0"},
)
DRIVER_DISPATCH_UNITS = Table(
    name="driver_dispatch_units",
    comment="A saturation trial: drivers whose city's share of treated drivers was drawn as well",
    fields=(
        _count("participant", "Number of the participant from 1; no driver of another table"),
        _text("city", "City"),
        _count("saturation", "Chance of the treatment in the city, in per cent"),
        _count("treatment", "1 if the driver has priority, else 0"),
        _text("exposure", "Own treatment and saturation, such as treated_30"),
        _double("inverse_probability", "1 / the probability of that exposure under the design"),
        _double("pre_trips", "Trips of the four weeks before"),
        _double("trips", "Trips of the four weeks of the trial"),
    ),
    key=("participant",),
    checks={
        "treatment_is_a_flag": "treatment IN (0, 1)",
        "weight_of_a_probability": "inverse_probability >= 1",
    },
)
TRUTH_DRIVERS = Table(
    name="truth_drivers",
    comment="Potential outcomes of each enrolled driver by variant, at planned surge shares",
    fields=(
        _EXPERIMENT,
        _id("driver_id"),
        _VARIANT,
        _flag("is_exposed", "Exposed in the window; the same under every variant"),
        _double("hours", f"Hours {_WINDOW}"),
        _count("trips", f"Trips {_WINDOW}"),
        _double("earnings", f"Earnings {_WINDOW}"),
        _double("payouts", f"Incentives {_WINDOW}"),
        _count("active_days", f"Working days {_WINDOW}"),
        _RETAINED,
    ),
    key=("experiment", "driver_id", "variant"),
    checks={},
)
TRUTH_DRIVER_ROLLOUT = Table(
    name="truth_driver_rollout",
    comment="What the rollout added in each city and week, summed over the city's drivers",
    fields=(
        _text("city", "City"),
        _count("period", "Week from zero at the start of the world"),
        _FIRST_TREATED,
        Field(name="n_units", type="BIGINT", comment="Drivers of the city, gone ones included"),
        _double("hours", "Hours added"),
        _double("trips", "Trips added"),
        _double("earnings", "Earnings added"),
        _double("payouts", "Incentives added"),
        _double("active_days", "Working days added"),
    ),
    key=("city", "period"),
    checks={},
)
TRUTH_DRIVER_EFFECTS = _effects("truth_driver_effects")

SUBSCRIBER_TABLES: tuple[Table, ...] = (
    SUBSCRIBERS,
    SUBSCRIBER_DAYS,
    SUBSCRIBER_TRIALS,
    SUBSCRIBER_ASSIGNMENTS,
    SUBSCRIBER_UPTAKES,
    SUBSCRIBER_EXPOSURE_LOG,
    SUBSCRIBER_ROLLOUT,
    TRUTH_SUBSCRIBERS,
    TRUTH_SUBSCRIBER_ROLLOUT,
    TRUTH_SUBSCRIBER_EFFECTS,
)
DRIVER_TABLES: tuple[Table, ...] = (
    DRIVERS,
    DRIVER_DAYS,
    DRIVER_TRIALS,
    DRIVER_ASSIGNMENTS,
    DRIVER_EXPOSURE_LOG,
    DRIVER_PAYOUTS,
    DRIVER_ROLLOUT,
    DRIVER_SWITCHBACK_SLOTS,
    DRIVER_CAMPAIGN_WEEKS,
    DRIVER_DISPATCH_UNITS,
    TRUTH_DRIVERS,
    TRUTH_DRIVER_ROLLOUT,
    TRUTH_DRIVER_EFFECTS,
)
WORLD_TABLES: tuple[Table, ...] = (
    SUBSCRIBER_TABLES + DRIVER_TABLES + CHECKOUT_TABLES + PASSENGER_TABLES
)
