"""Declarations of the tables of the passengers."""

from transforms.schema import Field, Table
from transforms.truth_tables import effects_table

_PASSENGER = Field(name="passenger_id", type="BIGINT", comment="Passenger, numbered from 1")


def _double(name: str, comment: str) -> Field:
    return Field(name=name, type="DOUBLE", comment=comment)


PASSENGERS = Table(
    name="passengers",
    comment="One row per registered passenger",
    fields=(
        _PASSENGER,
        Field(name="registered_on", type="DATE", comment="Day of the registration"),
        Field(name="city", type="STRING", comment="City of the registration"),
        Field(name="platform", type="STRING", comment="Platform of the app: ios or android"),
    ),
    key=("passenger_id",),
    checks={},
    clustering=("passenger_id",),
)
TRIPS = Table(
    name="passenger_trips",
    comment="One row per trip of a passenger, from the registration to the world's last day",
    fields=(
        _PASSENGER,
        Field(name="trip_number", type="INT", comment="Number of the trip, from 1 for the first"),
        Field(name="started_at", type="TIMESTAMP", comment="Start of the trip, UTC"),
        _double("fare", "What the passenger paid in money"),
    ),
    key=("passenger_id", "trip_number"),
    checks={"fare_positive": "fare > 0", "number_positive": "trip_number > 0"},
    clustering=("passenger_id",),
)
TRUTH_PASSENGERS = Table(
    name="truth_passengers",
    comment="What each passenger is like, and what is to be expected of those who are still there",
    fields=(
        _PASSENGER,
        _double("trip_rate", "Trips a day in the mean week, as long as the passenger is there"),
        _double("leave_probability", "Chance of leaving for good after a trip"),
        _double("mean_fare", "Expected fare of a trip in money"),
        Field(
            name="left_on",
            type="DATE",
            comment="Day of the trip after which the passenger left; null if still there",
            is_nullable=True,
        ),
        _double(
            "expected_spend_30",
            "Expected fares from day 7 to day 37 after the registration; 0 if gone by day 7",
        ),
        _double("expected_trips_next_30", "Expected trips in the 30 days after the world's last"),
        _double("expected_spend_next_30", "Expected fares in the 30 days after the world's last"),
    ),
    key=("passenger_id",),
    checks={"probability_is_share": "leave_probability BETWEEN 0 AND 1"},
)


def _outcomes(*, long_term: Field) -> tuple[Field, ...]:
    return (
        Field(
            name="has_ridden_14",
            type="BOOLEAN",
            comment="Whether there is a trip in the first 14 days from the registration on",
        ),
        Field(name="trips_14", type="INT", comment="Trips in the first 14 days"),
        _double("spend_14", "Fares of the first 14 days in money"),
        long_term,
    )


VOUCHERS = Table(
    name="voucher_passengers",
    comment="One row per passenger: the history, and the voucher's pilot and trial",
    fields=(
        _PASSENGER,
        Field(name="registered_on", type="DATE", comment="Day of the registration"),
        Field(
            name="is_first_platform",
            type="BOOLEAN",
            comment="Whether the platform is the world's first: ios",
        ),
        Field(
            name="part",
            type="STRING",
            comment="history: no voucher was to be had; voucher_pilot; voucher_trial",
        ),
        Field(
            name="variant",
            type="STRING",
            comment="control or voucher; null in the history",
            is_nullable=True,
        ),
        *_outcomes(
            long_term=Field(
                name="spend_84",
                type="DOUBLE",
                comment="Fares of the first 84 days in money; null if these are not over",
                is_nullable=True,
            )
        ),
    ),
    key=("passenger_id",),
    checks={
        "has_ridden_is_a_trip": "has_ridden_14 = (trips_14 > 0)",
        "variant_of_the_drawn": "(variant IS NULL) = (part = 'history')",
    },
    clustering=("passenger_id",),
)
TRUTH_VOUCHERS = Table(
    name="truth_voucher_passengers",
    comment="Outcomes of each passenger of the pilot and of the trial under either variant",
    fields=(
        Field(name="experiment", type="STRING", comment="voucher_pilot or voucher_trial"),
        _PASSENGER,
        Field(name="variant", type="STRING", comment="control or voucher"),
        Field(
            name="is_restarted",
            type="BOOLEAN",
            comment="Whether the voucher makes the passenger start anew",
        ),
        *_outcomes(long_term=_double("spend_84", "Fares of the first 84 days in money")),
    ),
    key=("experiment", "passenger_id", "variant"),
    checks={"has_ridden_is_a_trip": "has_ridden_14 = (trips_14 > 0)"},
)
TRUTH_EFFECTS = effects_table(
    "truth_passenger_effects",
    comment="True effects of the voucher, exact for the passengers of the pilot and of the trial",
    design="voucher_pilot or voucher_trial",
    estimand="ate: the mean effect",
    metric="Outcome whose mean is moved",
    term="voucher - control",
)

PASSENGER_TABLES: tuple[Table, ...] = (
    PASSENGERS,
    TRIPS,
    VOUCHERS,
    TRUTH_PASSENGERS,
    TRUTH_VOUCHERS,
    TRUTH_EFFECTS,
)
