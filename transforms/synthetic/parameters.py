"""The parameters of the generated worlds: what `conf/worlds/*.yaml` may say."""

import datetime as dt
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fault = Literal[
    "sample_ratio_mismatch",
    "logging_loss",
    "novelty",
    "drift",
    "weak_instrument",
    "trend_violation",
    "heterogeneous_rollout",
    "dynamic_rollout",
    "duplicate_units",
    "crossover",
    "spillover_saturation",
]
Design = Literal["randomised", "clustered", "stratified", "encouragement"]

_TOLERANCE = 1e-9

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Parameters(BaseModel):
    """Base of every block: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SubscriberEffect(Parameters):
    """What a variant does to an affected subscriber, as relative changes.

    Attributes:
        activity: Of the probability of an active day.
        minutes: Of the minutes of an active day.
        churn: Of the daily churn hazard.
        price: Of the subscription price.
        ads: Of the advertising revenue per minute.
        purchases: Of the probability of a purchase on an active day.
    """

    activity: float = 0.0
    minutes: float = 0.0
    churn: float = Field(default=0.0, gt=-0.5)
    price: float = Field(default=0.0, ge=-1.0)
    ads: float = Field(default=0.0, ge=-1.0)
    purchases: float = Field(default=0.0, ge=-1.0)


class DriverEffect(Parameters):
    """What a variant does to an affected driver.

    Attributes:
        activity: Relative change of the probability of a working day.
        hours: Relative change of the hours of a working day.
        churn: Relative change of the daily churn hazard.
        bonus: Incentive paid for every day with at least `bonus_trips` trips, in money.
        surge: Relative change of the fares, paid as an incentive.
    """

    activity: float = 0.0
    hours: float = 0.0
    churn: float = Field(default=0.0, gt=-0.5)
    bonus: NotNegative = 0.0
    surge: NotNegative = 0.0


EffectT = TypeVar("EffectT", SubscriberEffect, DriverEffect)


class Variant(Parameters, Generic[EffectT]):
    """One arm of a trial: its name, its share of the enrolled units and what it does."""

    name: Name
    share: Share
    effect: EffectT


class Uptake(Parameters):
    """Principal strata of an encouragement (Imbens and Angrist 1994); the rest never takes it up.

    Attributes:
        always: Share that takes it up with or without the offer.
        compliers: Share that takes it up only when offered.
        selection: How strongly uptake depends on engagement (in standard deviations).
    """

    always: Share
    compliers: Share
    selection: Share


class Trial(Parameters, Generic[EffectT]):
    """A randomised trial on its own layer of units; the first variant is the control.

    Attributes:
        experiment: Name of the trial.
        perk: What is tried.
        design: How variants are drawn.
        population: Share of all clusters (households, drivers) in the layer of this trial.
        salt: Salt of the assignment hash.
        exposure: Share of the enrolled that would see their variant if they stayed.
        exposure_delay: Mean days from the start to the first exposure.
        heterogeneity: Standard deviation over units of the multiplier of the effect (mean one).
        uptake: For design `encouragement` only.
        variants: The arms, control first.
    """

    experiment: Name
    perk: Name
    design: Design
    population: Share
    salt: str = Field(min_length=1)
    exposure: Share
    exposure_delay: Positive
    heterogeneity: Annotated[float, Field(ge=0.0, le=0.3)]
    uptake: Uptake | None = None
    variants: tuple[Variant[EffectT], ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _is_consistent(self) -> "Trial[EffectT]":
        check_total("the shares of variants", [variant.share for variant in self.variants])
        if (self.design == "encouragement") != (self.uptake is not None):
            raise ValueError("uptake goes with the design encouragement, and only with it")
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"variant names repeat: {', '.join(names)}")
        return self


class Rollout(Parameters):
    """A staggered rollout over places: weekly events that add to the outcomes, nothing else.

    Attributes:
        name: What is rolled out.
        cohorts: First treated period (week index from zero) to the number of places; the other
            places are never treated.
        share: Probability that a live unit has the event in a treated week.
        amount: Mean minutes (subscribers) or hours (drivers) of an event.
        paid_share: Probability that an event brings money.
        payment: Money of a paid event.
    """

    name: Name
    cohorts: dict[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(min_length=1)
    share: Share
    amount: Positive
    paid_share: Share
    payment: NotNegative


class Place(Parameters):
    """A group of places, such as a country: how many, and their share of all units."""

    n_places: Annotated[int, Field(ge=1)]
    share: Share


class Places(Parameters):
    """Regions or cities.

    Attributes:
        groups: Country (or market) to its places.
        size_exponent: The k-th largest place of a group has weight k to the minus this.
        level_sd: Standard deviation of the permanent log level of a place.
        shock_sd: Standard deviation of the weekly log shock common to all units of a place.
        shock_persistence: Week-to-week correlation of that shock.
    """

    groups: dict[str, Place] = Field(min_length=1)
    size_exponent: NotNegative
    level_sd: NotNegative
    shock_sd: NotNegative
    shock_persistence: Annotated[float, Field(ge=0.0, lt=1.0)]

    @model_validator(mode="after")
    def _has_all_units(self) -> "Places":
        check_total("the shares of groups", [group.share for group in self.groups.values()])
        return self


class Faults(Parameters):
    """Strength of each fault when it is switched on (all are off unless the job is told).

    Attributes:
        sample_ratio_mismatch: Share of the units of each treatment arm missing from assignments.
        logging_loss: Share of the activity and exposure rows lost in each treatment arm.
        novelty: Days in which an effect halves.
        drift: Weekly relative growth of everyone's activity.
        weak_instrument: Factor on the share of compliers.
        trend_violation: Extra weekly log growth of the places that will be treated.
        heterogeneous_rollout: Effect of the first cohort relative to the last.
        dynamic_rollout: Growth of the rollout's effect with each further week.
        duplicate_units: Share of assignment rows that are there twice.
        crossover: Share of exposed units that are also logged under another variant.
        spillover_saturation: Largest relative change of a city's share of the surge arm.
    """

    sample_ratio_mismatch: Share
    logging_loss: Share
    novelty: Positive
    drift: float
    weak_instrument: Share
    trend_violation: float
    heterogeneous_rollout: Positive
    dynamic_rollout: float
    duplicate_units: Share
    crossover: Share
    spillover_saturation: Share


class ExposureLog(Parameters):
    """How the raw exposure log is untidy even when nothing is wrong.

    Attributes:
        repeats: Mean number of further exposures after the first.
        duplicates: Share of rows logged twice under one event_id.
        late: Share of rows that arrive days after the event.
        max_days_late: Largest delay of a late row, in days.
    """

    repeats: NotNegative
    duplicates: Share
    late: Share
    max_days_late: Annotated[int, Field(ge=2)]


class Churn(Parameters):
    """Daily hazard `daily_hazard * exp(engagement * e + tenure * ln(1 + years) + sd * z)`."""

    daily_hazard: Positive
    engagement: float
    tenure: float
    sd: NotNegative


class Usage(Parameters):
    """How often and how much: logit of the active-day probability and log of the daily amount.

    Attributes:
        activity_logit: Mean logit of the probability that a day is active.
        activity_engagement: Slope of that logit in engagement.
        activity_sd: Standard deviation of its unit effect beside engagement.
        log_amount: Mean log minutes (hours) of an active day.
        amount_engagement: Slope of it in engagement.
        amount_sd: Standard deviation of its unit effect beside engagement.
        mood_sd: Standard deviation of the log shock a unit keeps for four weeks.
        day_sd: Standard deviation of the log shock of one day.
        weekday_activity: Factor on the active-day probability, Monday to Sunday.
        weekday_amount: Factor on the daily amount, Monday to Sunday.
        max_amount: Largest amount of a day before the rollout's additions.
    """

    activity_logit: float
    activity_engagement: float
    activity_sd: NotNegative
    log_amount: float
    amount_engagement: float
    amount_sd: NotNegative
    mood_sd: NotNegative
    day_sd: NotNegative
    weekday_activity: tuple[Positive, ...] = Field(min_length=7, max_length=7)
    weekday_amount: tuple[Positive, ...] = Field(min_length=7, max_length=7)
    max_amount: Positive


class World(Parameters):
    """What both worlds have.

    Attributes:
        starts_on: First day, a Monday.
        pre_days: Days before the trials start, whole weeks.
        attribution_days: Days after the start in which a first exposure counts.
        mean_tenure_days: Mean of the exponential age of accounts at the start.
        max_tenure_days: Largest age of an account.
    """

    starts_on: dt.date
    pre_days: Annotated[int, Field(ge=7)]
    attribution_days: Annotated[int, Field(ge=1)]
    mean_tenure_days: Positive
    max_tenure_days: Annotated[int, Field(ge=30)]
    places: Places
    rollout: Rollout
    churn: Churn
    usage: Usage
    exposure_log: ExposureLog
    faults: Faults

    @model_validator(mode="after")
    def _weeks_are_whole(self) -> "World":
        if self.starts_on.weekday() != 0:
            raise ValueError(f"starts_on must be a Monday, {self.starts_on} is not")
        if self.pre_days % 7:
            raise ValueError(f"pre_days must be whole weeks, {self.pre_days} is not")
        n_places = sum(group.n_places for group in self.places.groups.values())
        if sum(self.rollout.cohorts.values()) >= n_places:
            raise ValueError(f"the rollout's cohorts leave none of the {n_places} places untreated")
        return self


class Tier(Parameters):
    """A subscription tier: share of subscribers, monthly price, advertising revenue per minute."""

    share: Share
    price: Positive
    ads_per_minute: NotNegative


class Channel(Parameters):
    """A marketing channel: share of subscribers and factor on the churn hazard."""

    share: Share
    churn: Positive


class Households(Parameters):
    """Households are cut from blocks of consecutive ids.

    Attributes:
        patterns: Each one way to cut a block into households of 1 to 5; a block draws one.
        correlation: Correlation of engagement within a household.
    """

    patterns: tuple[tuple[Annotated[int, Field(ge=1, le=5)], ...], ...] = Field(min_length=1)
    correlation: Share

    @model_validator(mode="after")
    def _cut_equal_blocks(self) -> "Households":
        if len({sum(pattern) for pattern in self.patterns}) > 1:
            raise ValueError("every pattern of households must add to the same block size")
        return self


class Billing(Parameters):
    """Revenue beside advertising.

    Attributes:
        cycle_days: Days between two payments of the subscription price.
        legacy_share: Share of subscribers on an old, lower price.
        legacy_discount: How much lower, in money.
        purchase_share: Probability of a purchase on an active day.
        purchase_price: Smallest price of a purchase; prices above follow a Pareto law.
        purchase_tail: Exponent on the uniform of that law (0.5 is tail index 2).
        max_purchase: Largest price of a purchase.
    """

    cycle_days: Annotated[int, Field(ge=7)]
    legacy_share: Share
    legacy_discount: NotNegative
    purchase_share: Share
    purchase_price: Positive
    purchase_tail: Annotated[float, Field(gt=0.0, lt=0.5)]
    max_purchase: Positive


class SubscriberWorld(World):
    """The world of subscribers and perks."""

    households: Households
    tiers: dict[str, Tier] = Field(min_length=1)
    tier_engagement: Share
    channels: dict[str, Channel] = Field(min_length=1)
    billing: Billing
    minutes_per_session: Positive
    trials: tuple[Trial[SubscriberEffect], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _shares_are_whole(self) -> "SubscriberWorld":
        check_total("the shares of tiers", [tier.share for tier in self.tiers.values()])
        check_total("the shares of channels", [channel.share for channel in self.channels.values()])
        _check_layers([trial.population for trial in self.trials])
        return self


class Work(Parameters):
    """What an hour of driving brings.

    Attributes:
        trips_per_hour: Mean trips per hour.
        trips_sd: Standard deviation of the log of a driver's own rate.
        fare: Mean fare of a trip after commission, in money.
        fare_sd: Standard deviation of the log of a driver's own fare.
        promotion: Incentives that every driver is paid, as a share of fares.
        bonus_trips: Trips of a day from which a bonus is paid.
        spillover: Relative loss of trips of all drivers of a city in which every driver has surge.
    """

    trips_per_hour: Positive
    trips_sd: NotNegative
    fare: Positive
    fare_sd: NotNegative
    promotion: NotNegative
    bonus_trips: Annotated[int, Field(ge=1)]
    spillover: Share


class Switchback(Parameters):
    """A switchback of cities in slots of a day, each block of slots drawn by itself.

    Attributes:
        name: What is tried.
        n_cities: Cities that take part, drawn at random.
        block_slots: Slots of a block.
        share: Probability of the treatment in a block.
        added: Trips per driver and slot that lasting treatment adds.
        carry_over: Share of it that comes from the treatment in the slot before.
        trips: Mean trips per driver and slot.
        profile: Factor of each slot of the day; as many as a day has slots.
        city_sd: Standard deviation of the log level of a city.
        slot_sd: Standard deviation of the log shock of a city in a slot.
        persistence: Slot-to-slot correlation of that shock.
    """

    name: Name
    n_cities: Annotated[int, Field(ge=2)]
    block_slots: Annotated[int, Field(ge=2)]
    share: Annotated[float, Field(gt=0.0, lt=1.0)]
    added: NotNegative
    carry_over: Share
    trips: Positive
    profile: tuple[Positive, ...] = Field(min_length=1, max_length=24)
    city_sd: NotNegative
    slot_sd: NotNegative
    persistence: Annotated[float, Field(ge=0.0, lt=1.0)]


class Campaign(Parameters):
    """A geo experiment: a campaign in some cities from the start of the experiment window on.

    Attributes:
        name: What is tried.
        n_treated: Cities that get it.
        history_weeks: Weeks before the world's first day.
        lift: Relative effect.
        trips: Mean trips per driver and week.
        city_sd: Standard deviation of the log level of a city.
        season: Mean log amplitude of the season of the year.
        swing_sd: Standard deviation over cities of that amplitude, relative to it.
        growth_sd: Standard deviation over cities of the log growth in a year.
        week_sd: Standard deviation of the log shock of a city in a week.
        persistence: Week-to-week correlation of that shock.
    """

    name: Name
    n_treated: Annotated[int, Field(ge=1)]
    history_weeks: Annotated[int, Field(ge=0)]
    lift: float
    trips: Positive
    city_sd: NotNegative
    season: NotNegative
    swing_sd: NotNegative
    growth_sd: NotNegative
    week_sd: NotNegative
    persistence: Annotated[float, Field(ge=0.0, lt=1.0)]


class Dispatch(Parameters):
    """A saturation trial: cities are given a saturation, and drivers are treated with that chance.

    Attributes:
        name: What is tried.
        n_participants: Drivers of all cities who take part, about.
        saturations: Chances of the treatment in per cent, zero among them; cities are shared out
            evenly among them.
        direct: Relative effect of the own treatment.
        spillover: Relative loss of everyone in a city of which all are treated.
        trips: Trips of four weeks of the median driver.
        driver_sd: Standard deviation of a driver's own log level.
        city_sd: Standard deviation of the log level of a city.
        shock_sd: Standard deviation of the log change of a city since the weeks before.
        noise_sd: Standard deviation of the log of a driver's four weeks.
    """

    name: Name
    n_participants: Annotated[int, Field(ge=1)]
    saturations: tuple[Annotated[int, Field(ge=0, lt=100)], ...] = Field(min_length=2)
    direct: float
    spillover: Share
    trips: Positive
    driver_sd: NotNegative
    city_sd: NotNegative
    shock_sd: NotNegative
    noise_sd: NotNegative

    @model_validator(mode="after")
    def _has_untouched_cities(self) -> "Dispatch":
        if 0 not in self.saturations or len(set(self.saturations)) < len(self.saturations):
            raise ValueError("saturations must differ, and 0 must be among them")
        return self


class DriverWorld(World):
    """The world of drivers in city markets."""

    drivers_per_subscriber: Positive
    vehicles: dict[str, Share] = Field(min_length=1)
    work: Work
    switchback: Switchback
    campaign: Campaign
    dispatch: Dispatch
    trials: tuple[Trial[DriverEffect], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _shares_are_whole(self) -> "DriverWorld":
        check_total("the shares of vehicles", list(self.vehicles.values()))
        _check_layers([trial.population for trial in self.trials])
        return self

    @model_validator(mode="after")
    def _cities_are_enough(self) -> "DriverWorld":
        n_cities = sum(group.n_places for group in self.places.groups.values())
        if self.campaign.n_treated >= n_cities:
            raise ValueError(f"the campaign leaves none of the {n_cities} cities untreated")
        if self.switchback.n_cities > n_cities:
            raise ValueError(f"the switchback has more cities than there are: {n_cities}")
        return self


def check_total(what: str, shares: list[float]) -> None:
    """Refuse shares that do not add to one.

    Raises:
        ValueError: They do not; names what they are of.
    """
    if abs(sum(shares) - 1.0) > _TOLERANCE:
        raise ValueError(f"{what} must add to 1, they add to {sum(shares):.6g}")


def _check_layers(shares: list[float]) -> None:
    if sum(shares) > 1.0 + _TOLERANCE:
        raise ValueError(f"the populations of trials add to {sum(shares):.6g}, more than 1")
