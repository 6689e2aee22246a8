"""The parameters of the world of passengers: what `conf/worlds/passengers.yaml` may say."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field, model_validator

from transforms.synthetic.parameters import Name, Parameters, Positive, Share, check_total

PassengerFault = Literal["direct_effect"]


class Riding(Parameters):
    """How often passengers ride: rates differ between them as Gamma(shape, rate).

    Attributes:
        shape: Shape r of the rates.
        rate: Rate alpha of the rates, in days: the mean passenger takes shape / rate trips a day.
        weekday: Factor on the rate, Monday to Sunday; their mean is one.
    """

    shape: Positive
    rate: Positive
    weekday: tuple[Positive, ...] = Field(min_length=7, max_length=7)

    @model_validator(mode="after")
    def _a_week_is_a_week(self) -> "Riding":
        check_total("the factors of weekdays over seven", [value / 7 for value in self.weekday])
        return self


class Leaving(Parameters):
    """The chance of leaving for good after a trip differs between passengers as Beta(a, b)."""

    a: Positive
    b: Positive


class Fares(Parameters):
    """A fare is Gamma(shape, nu); nu differs between passengers as Gamma(spread, scale).

    Attributes:
        shape: Shape p of the fares of one passenger.
        spread: Shape q over passengers; above one, or the mean fare is infinite.
        scale: Rate gamma over passengers, in money: the mean fare is shape * scale / (spread - 1).
    """

    shape: Positive
    spread: Annotated[float, Field(gt=1.0)]
    scale: Positive


class Vouchers(Parameters):
    """The trials of a voucher on the day of the registration.

    A passenger with a voucher who would not ride in the first two weeks starts anew with some
    chance: rides from then on as another passenger of the platform does.

    Attributes:
        from_day: Passengers who register from this day of the world on are in the trial; the
            earlier ones are in the pilot or the history.
        pilot_share: Share of the earlier passengers who are in the pilot.
        share: Planned share of the voucher, in the pilot and in the trial.
        restart: The chance that a voucher makes a passenger start anew who would not ride: the
            size of the effect.
    """

    from_day: Annotated[int, Field(ge=1)]
    pilot_share: Annotated[float, Field(gt=0.0, lt=1.0)]
    share: Annotated[float, Field(gt=0.0, lt=1.0)]
    restart: Share


class PassengerFaults(Parameters):
    """Strength of each fault when it is switched on (all are off unless the job is told).

    Attributes:
        direct_effect: Relative change of what a passenger with a voucher pays for every trip after
            the first two weeks: an effect on the long-term spend that nothing short-term shows.
    """

    direct_effect: Annotated[float, Field(ge=-0.9, le=0.9)]


class PassengerWorld(Parameters):
    """The world of the passengers of a ride-hailing service.

    Attributes:
        starts_on: First day of registrations, a Monday.
        registration_days: Days on which passengers register, whole weeks; the days that the job is
            asked for follow them.
        cities: Cities and their shares of passengers.
        platforms: Two platforms and their shares.
        platform_tilt: By how much the share of the first platform is larger among those who ride
            most than among those who ride least.
        riding: Trips of passengers who have not left.
        leaving: Chances of leaving.
        fares: What trips cost.
        vouchers: A randomised voucher.
        faults: Strength of the faults.
    """

    starts_on: dt.date
    registration_days: Annotated[int, Field(ge=7)]
    cities: dict[Name, Share] = Field(min_length=1)
    platforms: dict[Name, Share] = Field(min_length=2, max_length=2)
    platform_tilt: Annotated[float, Field(ge=-1.0, le=1.0)]
    riding: Riding
    leaving: Leaving
    fares: Fares
    vouchers: Vouchers
    faults: PassengerFaults

    @model_validator(mode="after")
    def _weeks_and_shares_are_whole(self) -> "PassengerWorld":
        if self.starts_on.weekday() != 0:
            raise ValueError(f"starts_on must be a Monday, {self.starts_on} is not")
        if self.registration_days % 7:
            raise ValueError(
                f"registration_days must be whole weeks, {self.registration_days} is not"
            )
        if self.vouchers.from_day >= self.registration_days:
            raise ValueError(
                f"vouchers.from_day must lie before the last of {self.registration_days} "
                f"registration_days, {self.vouchers.from_day} does not"
            )
        check_total("the shares of cities", list(self.cities.values()))
        check_total("the shares of platforms", list(self.platforms.values()))
        first = next(iter(self.platforms.values()))
        if abs(self.platform_tilt) / 2 > min(first, 1.0 - first):
            raise ValueError(f"platform_tilt of {self.platform_tilt:g} takes a share out of [0, 1]")
        return self
