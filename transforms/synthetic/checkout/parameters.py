"""The parameters of the world of the shop: what `conf/worlds/checkout.yaml` may say."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field, model_validator

from transforms.synthetic.parameters import (
    Name,
    NotNegative,
    Parameters,
    Positive,
    Share,
    check_total,
)

CheckoutFault = Literal[
    "novelty",
    "sample_ratio_mismatch",
    "duplicate_assignments",
    "crossover",
    "segment_imbalance",
    "pre_period_imbalance",
    "activity_before_assignment",
    "null_user_id",
    "bot_sessions",
    "missing_day",
    "stale_data",
    "traffic_drift",
    "orders_without_session",
    "events_without_session",
    "duplicate_orders",
    "profit_mismatch",
    "refund_above_order",
    "price_outlier",
    "logging_loss",
    "latency_in_seconds",
    "late_events",
    "clock_skew",
]

Change = Annotated[float, Field(ge=-0.9, le=0.9)]


class CheckoutEffect(Parameters):
    """What the new checkout does to a user who has it, as relative changes.

    Attributes:
        completion: Of the probability that a started checkout ends with an order.
        basket: Of the value of an order.
        refund: Of the probability that an order is refunded.
        ticket: Of the probability of a support ticket about an order.
        latency: Of the time in which the checkout page loads.
        visits: Of the rate of visit days after the first one.
    """

    completion: Change = 0.0
    basket: Change = 0.0
    refund: Change = 0.0
    ticket: Change = 0.0
    latency: Change = 0.0
    visits: Change = 0.0


class CheckoutTrial(Parameters):
    """The trial: two variants, drawn by salted hash of the user.

    Attributes:
        experiment: Name of the trial.
        perk: What is tried.
        salt: Salt of the assignment hash.
        control: Name of the variant without the effect.
        treatment: Name of the variant with it.
        share: Planned share of the treatment.
        heterogeneity: Standard deviation over users of the multiplier of the effect (mean one).
        effect: What the treatment does.
    """

    experiment: Name
    perk: Name
    salt: str = Field(min_length=1)
    control: Name
    treatment: Name
    share: Annotated[float, Field(gt=0.0, lt=1.0)]
    heterogeneity: Annotated[float, Field(ge=0.0, le=0.3)]
    effect: CheckoutEffect

    @property
    def variants(self) -> list[str]:
        """The variants, control first."""
        return [self.control, self.treatment]

    @property
    def shares(self) -> list[float]:
        """Their planned shares."""
        return [1.0 - self.share, self.share]

    @model_validator(mode="after")
    def _variants_differ(self) -> "CheckoutTrial":
        if self.control == self.treatment:
            raise ValueError(f"control and treatment are both called {self.control}")
        return self


class Device(Parameters):
    """A kind of device.

    Attributes:
        share: Share of users.
        response: Factor on the effect of the treatment.
        visits: Shift of the log rate of visit days.
        intent: Shift of the logits of cart and purchase.
        latency: Median time in which a landing page loads, in milliseconds.
    """

    share: Share
    response: NotNegative
    visits: float
    intent: float
    latency: Annotated[float, Field(ge=100.0, le=30_000.0)]


class Newcomers(Parameters):
    """Users who are first seen after the world's start, on any of its days.

    Attributes:
        share: Their share of all users.
        response: Factor on the effect of the treatment on those first seen during the trial.
        visits: Shift of the log rate of visit days.
    """

    share: Share
    response: NotNegative
    visits: float


class Visits(Parameters):
    """On which days users come.

    Attributes:
        daily_rate: Median over users of the rate of visit days.
        sd: Standard deviation of its log over users.
        mood_sd: Standard deviation of a shock to that log, one before the trial and one during it.
        weekday: Factor on the rate, Monday to Sunday.
        further_sessions: Probability of a second and of a third session on a visit day.
    """

    daily_rate: Positive
    sd: NotNegative
    mood_sd: NotNegative
    weekday: tuple[Positive, ...] = Field(min_length=7, max_length=7)
    further_sessions: tuple[Share, Share]

    @model_validator(mode="after")
    def _a_third_follows_a_second(self) -> "Visits":
        second, third = self.further_sessions
        if third > second:
            raise ValueError(f"a third session cannot be likelier than a second: {third:g}")
        return self


class Traffic(Parameters):
    """A channel that brings sessions: its share, and its shift of the logits of cart and order."""

    share: Share
    intent: float


class Funnel(Parameters):
    """Probability of each step after the one before, at average intent.

    Attributes:
        view: Landing to a product's page.
        cart: Product to cart.
        checkout: Cart to checkout.
        purchase: Checkout to order.
        intent_sd: Standard deviation over users of the shift of the logits of cart and purchase.
    """

    view: Annotated[float, Field(gt=0.0, lt=1.0)]
    cart: Annotated[float, Field(gt=0.0, lt=1.0)]
    checkout: Annotated[float, Field(gt=0.0, lt=1.0)]
    purchase: Annotated[float, Field(gt=0.0, lt=1.0)]
    intent_sd: NotNegative


class Orders(Parameters):
    """What an order brings, costs and leads to.

    Attributes:
        log_basket: Mean log of its value.
        user_sd: Standard deviation of that over users.
        order_sd: Standard deviation of that over the orders of a user.
        max_basket: Largest value.
        cost_share: Mean cost of goods and shipping relative to the value.
        refund: Probability of a refund.
        full_refund: Share of refunds that give everything back; the others give half.
        ticket: Probability of a support ticket about an order that is kept.
        refund_ticket: Probability of one about an order that is refunded.
    """

    log_basket: float
    user_sd: NotNegative
    order_sd: NotNegative
    max_basket: Positive
    cost_share: Annotated[float, Field(ge=0.1, le=0.9)]
    refund: Share
    full_refund: Share
    ticket: Share
    refund_ticket: Share


class Pages(Parameters):
    """How long pages take to load.

    Attributes:
        user_sd: Standard deviation of the log latency over users.
        load_sd: Standard deviation of it over the loads of a user.
        checkout_factor: Median latency of the checkout relative to the landing page.
        measured: Share of loads that are measured.
        slow_ms: A checkout that takes more milliseconds is slow.
    """

    user_sd: NotNegative
    load_sd: NotNegative
    checkout_factor: Positive
    measured: Share
    slow_ms: Positive


class EventLog(Parameters):
    """Share of events that arrive days late even when nothing is wrong, and at most how late."""

    late: Share
    max_days_late: Annotated[int, Field(ge=3)]


class CheckoutFaults(Parameters):
    """Strength of each fault when it is switched on (all are off unless the job is told).

    Attributes:
        novelty: Days in which the effect halves.
        sample_ratio_mismatch: Share of the treatment's users missing from assignments.
        duplicate_assignments: Share of assignment rows that are there twice.
        crossover: Share of users who are also assigned to the other variant.
        segment_imbalance: Excess share of the treatment on the first device, made up on the others.
        pre_period_imbalance: Excess share of the treatment among those who visited more than usual
            before the trial, made up by the others.
        activity_before_assignment: Share of users whose assignment is recorded a day late.
        null_user_id: Share of sessions without the user's id.
        bot_sessions: Share of sessions that a bot repeats a hundred times.
        missing_day: Day of the world, from zero, that is lost everywhere.
        stale_data: Days at the end that have not arrived.
        traffic_drift: Share of the sessions of the last week that come from the last channel in
            place of their own; grows evenly from the trial's start.
        orders_without_session: Share of orders whose session is unknown.
        events_without_session: Share of events whose session is unknown.
        duplicate_orders: Share of orders that are there twice.
        profit_mismatch: Share of orders whose gross profit leaves the cost out.
        refund_above_order: Share of refunds that are paid twice.
        price_outlier: Share of orders recorded in cents.
        logging_loss: Share of the treatment's page loads that are not recorded.
        latency_in_seconds: Share of page loads recorded in seconds.
        late_events: Share of events that arrive days late.
        clock_skew: Share of sessions whose device's clock is some hours fast.
    """

    novelty: Positive
    sample_ratio_mismatch: Share
    duplicate_assignments: Share
    crossover: Share
    segment_imbalance: Share
    pre_period_imbalance: Share
    activity_before_assignment: Share
    null_user_id: Share
    bot_sessions: Share
    missing_day: Annotated[int, Field(ge=0)]
    stale_data: Annotated[int, Field(ge=1)]
    traffic_drift: Share
    orders_without_session: Share
    events_without_session: Share
    duplicate_orders: Share
    profit_mismatch: Share
    refund_above_order: Share
    price_outlier: Share
    logging_loss: Share
    latency_in_seconds: Share
    late_events: Share
    clock_skew: Share


class CheckoutWorld(Parameters):
    """The world of an online shop that tries a new checkout.

    Attributes:
        starts_on: First day, a Monday.
        pre_days: Days before the trial starts, whole weeks.
        trial: The trial.
        devices: Kinds of devices; the first is the one that `segment_imbalance` favours.
        countries: Countries and their shares of users.
        newcomers: Users who are first seen after the world's start.
        visits: Visit days and sessions.
        channels: Where sessions come from.
        funnel: From visit to order.
        orders: Value, cost, refunds and tickets.
        pages: Latencies.
        event_log: How late events arrive.
        faults: Strength of the faults.
    """

    starts_on: dt.date
    pre_days: Annotated[int, Field(ge=7)]
    trial: CheckoutTrial
    devices: dict[str, Device] = Field(min_length=2)
    countries: dict[str, Share] = Field(min_length=1)
    newcomers: Newcomers
    visits: Visits
    channels: dict[str, Traffic] = Field(min_length=2)
    funnel: Funnel
    orders: Orders
    pages: Pages
    event_log: EventLog
    faults: CheckoutFaults

    @model_validator(mode="after")
    def _weeks_and_shares_are_whole(self) -> "CheckoutWorld":
        if self.starts_on.weekday() != 0:
            raise ValueError(f"starts_on must be a Monday, {self.starts_on} is not")
        if self.pre_days % 7:
            raise ValueError(f"pre_days must be whole weeks, {self.pre_days} is not")
        check_total("the shares of devices", [entry.share for entry in self.devices.values()])
        check_total("the shares of channels", [entry.share for entry in self.channels.values()])
        check_total("the shares of countries", list(self.countries.values()))
        return self

    @model_validator(mode="after")
    def _imbalances_leave_both_variants(self) -> "CheckoutWorld":
        first = next(iter(self.devices.values())).share
        excess = self.faults.segment_imbalance
        room = min(self.trial.share, 1.0 - self.trial.share)
        if first >= 1.0 or max(excess, excess * first / (1.0 - first)) >= room:
            raise ValueError(f"segment_imbalance of {excess:g} leaves a device with one variant")
        if self.faults.pre_period_imbalance >= room:
            raise ValueError("pre_period_imbalance leaves frequent visitors with one variant")
        return self
