"""Generate the worlds of subscribers, drivers, the shop and passengers, and their truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field, model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from jobs.runtime import places
from jobs.runtime.contract import JobConfig, TableJob
from jobs.runtime.yaml_file import read_yaml
from transforms.schema import Table
from transforms.synthetic import drivers, subscribers, worlds
from transforms.synthetic.checkout import plan as checkout
from transforms.synthetic.checkout import world as shop
from transforms.synthetic.checkout.parameters import CheckoutFault, CheckoutWorld
from transforms.synthetic.checkout.tables import (
    CHECKOUT_TABLES,
    TRIALS,
    TRUTH_DAYS,
    TRUTH_USERS,
)
from transforms.synthetic.parameters import DriverWorld, Fault, SubscriberWorld
from transforms.synthetic.passengers import plan as passengers
from transforms.synthetic.passengers import world as riders
from transforms.synthetic.passengers.parameters import PassengerFault, PassengerWorld
from transforms.synthetic.passengers.tables import PASSENGER_TABLES, TRUTH_VOUCHERS
from transforms.synthetic.tables import (
    DRIVER_TABLES,
    DRIVER_TRIALS,
    SUBSCRIBER_TABLES,
    SUBSCRIBER_TRIALS,
    TRUTH_DRIVER_EFFECTS,
    TRUTH_DRIVER_ROLLOUT,
    TRUTH_DRIVERS,
    TRUTH_SUBSCRIBER_ROLLOUT,
    TRUTH_SUBSCRIBERS,
)

UNITS_PER_PARTITION = 125_000
AnyFault = Literal[Fault, CheckoutFault, PassengerFault]
Frames = Mapping[str, DataFrame]


class GenerateConfig(JobConfig):
    """Options of the job.

    Attributes:
        world: Which worlds to generate.
        size: Number of subscribers, of users of the shop, and of passengers.
        days: Days of activity.
        seed: Seed of everything that is drawn.
        faults: Faults to switch on, at the strength that the world's file gives them.
        subscribers: Parameters of the world of subscribers; `conf/worlds/subscribers.yaml`.
        drivers: Parameters of the world of drivers; `conf/worlds/drivers.yaml`.
        checkout: Parameters of the world of the shop; `conf/worlds/checkout.yaml`.
        passengers: Parameters of the world of passengers; `conf/worlds/passengers.yaml`.
    """

    world: Literal["subscribers", "drivers", "both", "checkout", "passengers", "all"] = Field(
        default="both", description="which worlds to generate; both: subscribers and drivers"
    )
    size: int = Field(
        default=1_000_000,
        ge=1_000,
        le=10**10,
        description="number of subscribers (drivers are a fifth of it, drivers_per_subscriber), "
        "of users of the shop, and of passengers",
    )
    days: int = Field(
        default=56, ge=28, le=3_640, multiple_of=7, description="days of activity, whole weeks"
    )
    seed: int = Field(default=20261121, ge=0, lt=2**63, description="seed of everything drawn")
    faults: tuple[AnyFault, ...] = Field(
        default=(), description="faults to switch on, at the strength given in conf/worlds"
    )
    subscribers: SubscriberWorld
    drivers: DriverWorld
    checkout: CheckoutWorld
    passengers: PassengerWorld

    @model_validator(mode="after")
    def _time_is_enough(self) -> "GenerateConfig":
        for name, pre_days in (
            ("subscribers", self.subscribers.pre_days),
            ("drivers", self.drivers.pre_days),
            ("checkout", self.checkout.pre_days),
        ):
            if self.days <= pre_days:
                raise ValueError(
                    f"days must exceed the {pre_days} pre_days of {name}, got {self.days}"
                )
        for name, world in (("subscribers", self.subscribers), ("drivers", self.drivers)):
            if max(world.rollout.cohorts) >= self.days // 7:
                raise ValueError(
                    f"the rollout of {name} starts in week {max(world.rollout.cohorts)}, "
                    f"but {self.days} days are weeks 0 to {self.days // 7 - 1}"
                )
        return self

    @model_validator(mode="after")
    def _faults_are_of_the_worlds(self) -> "GenerateConfig":
        known = {fault for name in self.worlds for fault in get_args(_FAULTS[name])}
        unknown = [fault for fault in self.faults if fault not in known]
        if unknown:
            raise ValueError(f"no world of '{self.world}' has the fault {unknown[0]}")
        return self

    @property
    def worlds(self) -> tuple[str, ...]:
        """The worlds that were chosen."""
        groups = {"both": ("subscribers", "drivers"), "all": tuple(_FAULTS)}
        return groups.get(self.world, (self.world,))

    @property
    def n_drivers(self) -> int:
        """Number of drivers, at least one."""
        return max(1, round(self.size * self.drivers.drivers_per_subscriber))

    def faults_of(self, kind: Any) -> frozenset[Any]:
        """Those of the faults that are of a kind."""
        return frozenset(self.faults) & frozenset(get_args(kind))


_FAULTS: Mapping[str, Any] = {
    "subscribers": Fault,
    "drivers": Fault,
    "checkout": CheckoutFault,
    "passengers": PassengerFault,
}


def subscriber_plan(config: GenerateConfig) -> subscribers.SubscriberPlan:
    """The world of subscribers that the options describe."""
    faults = config.faults_of(Fault)
    return subscribers.plan(config.subscribers, seed=config.seed, n_days=config.days, faults=faults)


def driver_plan(config: GenerateConfig) -> drivers.DriverPlan:
    """The world of drivers that the options describe."""
    faults = config.faults_of(Fault)
    return drivers.plan(config.drivers, seed=config.seed, n_days=config.days, faults=faults)


def checkout_plan(config: GenerateConfig) -> checkout.CheckoutPlan:
    """The world of the shop that the options describe."""
    faults = config.faults_of(CheckoutFault)
    return checkout.plan(config.checkout, seed=config.seed, n_days=config.days, faults=faults)


def passenger_plan(config: GenerateConfig) -> passengers.PassengerPlan:
    """The world of passengers that the options describe."""
    faults = config.faults_of(PassengerFault)
    return passengers.plan(config.passengers, seed=config.seed, n_days=config.days, faults=faults)


def defaults(_given: Mapping[str, object]) -> Mapping[str, object]:
    """The parameters of the worlds, from `conf/worlds`."""
    return {name: read_yaml(places.conf() / "worlds" / f"{name}.yaml").data for name in _FAULTS}


def reads(_config: GenerateConfig) -> tuple[str, ...]:
    """Nothing: the worlds are made from their seed."""
    return ()


def writes(config: GenerateConfig) -> tuple[str, ...]:
    """The tables of the chosen worlds."""
    tables: Mapping[str, tuple[Table, ...]] = {
        "subscribers": SUBSCRIBER_TABLES,
        "drivers": DRIVER_TABLES,
        "checkout": CHECKOUT_TABLES,
        "passengers": PASSENGER_TABLES,
    }
    return tuple(table.name for name in config.worlds for table in tables[name])


def sources(session: SparkSession, config: GenerateConfig) -> Frames:
    """The ids of the units, and what is fixed before a row is made, as frames."""
    frames: dict[str, DataFrame] = {}
    for name in config.worlds:
        frames |= _MAKERS[name].sources(session, config)
    return frames


def build(config: GenerateConfig, frames: Frames) -> Frames:
    """The tables of the chosen worlds, all but the true effects."""
    made: dict[str, DataFrame] = {}
    for name in config.worlds:
        made |= _MAKERS[name].build(config, frames)
    return made


def finish(config: GenerateConfig, frames: Frames) -> Frames:
    """The true effects, from the potential outcomes."""
    made: dict[str, DataFrame] = {}
    for name in config.worlds:
        made |= _MAKERS[name].finish(config, frames)
    return made


@dataclass(frozen=True, kw_only=True)
class _Maker:
    """How one world is made: what is fixed, its tables, and the effects from these."""

    sources: Callable[[SparkSession, GenerateConfig], Frames]
    build: Callable[[GenerateConfig, Frames], Frames]
    finish: Callable[[GenerateConfig, Frames], Frames]


def _subscriber_sources(session: SparkSession, config: GenerateConfig) -> Frames:
    plan = subscriber_plan(config)
    trials = worlds.subscriber_trial_rows(plan)
    return {
        "subscriber_ids": _ids(session, config.size),
        "regions": _rows(session, worlds.place_rows(plan.places), worlds.PLACE_SCHEMA),
        SUBSCRIBER_TRIALS.name: _rows(session, trials, SUBSCRIBER_TRIALS.schema),
    }


def _subscriber_frames(config: GenerateConfig, frames: Frames) -> Frames:
    return worlds.subscriber_frames(
        subscriber_plan(config),
        units=frames["subscriber_ids"],
        places=frames["regions"],
        trials=frames[SUBSCRIBER_TRIALS.name],
    )


def _subscriber_effects(config: GenerateConfig, frames: Frames) -> Frames:
    return worlds.subscriber_effects(
        subscriber_plan(config),
        truth=frames[TRUTH_SUBSCRIBERS.name],
        rollout=frames[TRUTH_SUBSCRIBER_ROLLOUT.name],
    )


def _driver_sources(session: SparkSession, config: GenerateConfig) -> Frames:
    plan = driver_plan(config)
    trials = worlds.driver_trial_rows(plan)
    return {
        "driver_ids": _ids(session, config.n_drivers),
        "cities": _rows(session, worlds.place_rows(plan.places), worlds.PLACE_SCHEMA),
        DRIVER_TRIALS.name: _rows(session, trials, DRIVER_TRIALS.schema),
        "city_effects": _rows(session, worlds.city_effect_rows(plan), TRUTH_DRIVER_EFFECTS.schema),
        **{
            table.name: _rows(session, rows(plan), table.schema) for table, rows in worlds.CITY_ROWS
        },
    }


def _driver_frames(config: GenerateConfig, frames: Frames) -> Frames:
    made = worlds.driver_frames(
        driver_plan(config),
        units=frames["driver_ids"],
        places=frames["cities"],
        trials=frames[DRIVER_TRIALS.name],
    )
    return {**made, **{table.name: frames[table.name] for table, _ in worlds.CITY_ROWS}}


def _driver_effects(config: GenerateConfig, frames: Frames) -> Frames:
    return worlds.driver_effects(
        driver_plan(config),
        units=frames["driver_ids"],
        truth=frames[TRUTH_DRIVERS.name],
        rollout=frames[TRUTH_DRIVER_ROLLOUT.name],
        cities=frames["city_effects"],
    )


def _checkout_sources(session: SparkSession, config: GenerateConfig) -> Frames:
    trials = shop.trial_rows(checkout_plan(config))
    return {
        "checkout_ids": _ids(session, config.size),
        TRIALS.name: _rows(session, trials, TRIALS.schema),
    }


def _checkout_frames(config: GenerateConfig, frames: Frames) -> Frames:
    return shop.checkout_frames(
        checkout_plan(config), units=frames["checkout_ids"], trials=frames[TRIALS.name]
    )


def _checkout_effects(config: GenerateConfig, frames: Frames) -> Frames:
    return shop.checkout_effects(
        checkout_plan(config), users=frames[TRUTH_USERS.name], days=frames[TRUTH_DAYS.name]
    )


def _passenger_sources(session: SparkSession, config: GenerateConfig) -> Frames:
    return {"passenger_ids": _ids(session, config.size)}


def _passenger_frames(config: GenerateConfig, frames: Frames) -> Frames:
    return riders.passenger_frames(passenger_plan(config), units=frames["passenger_ids"])


def _passenger_effects(config: GenerateConfig, frames: Frames) -> Frames:
    return riders.passenger_effects(passenger_plan(config), vouchers=frames[TRUTH_VOUCHERS.name])


_MAKERS: Mapping[str, _Maker] = {
    "subscribers": _Maker(
        sources=_subscriber_sources, build=_subscriber_frames, finish=_subscriber_effects
    ),
    "drivers": _Maker(sources=_driver_sources, build=_driver_frames, finish=_driver_effects),
    "checkout": _Maker(sources=_checkout_sources, build=_checkout_frames, finish=_checkout_effects),
    "passengers": _Maker(
        sources=_passenger_sources, build=_passenger_frames, finish=_passenger_effects
    ),
}


def _ids(session: SparkSession, n_units: int) -> DataFrame:
    n_partitions = max(2, -(-n_units // UNITS_PER_PARTITION))
    return session.range(0, n_units, 1, n_partitions)


def _rows(
    session: SparkSession, rows: list[tuple[Any, ...]], schema: StructType | str
) -> DataFrame:
    return session.createDataFrame(rows, schema)


JOB = TableJob(
    name="generate",
    config=GenerateConfig,
    reads=reads,
    writes=writes,
    build=build,
    finish=finish,
    sources=sources,
    defaults=defaults,
)
