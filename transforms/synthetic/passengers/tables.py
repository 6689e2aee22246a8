"""Declarations of the tables of the passengers."""

from transforms.schema import Field, Table

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

PASSENGER_TABLES: tuple[Table, ...] = (PASSENGERS, TRIPS, TRUTH_PASSENGERS)
