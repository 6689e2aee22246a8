"""Generate the worlds of subscribers and drivers, with their true effects, into tables."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from jobs.runtime import places
from jobs.runtime.contract import JobConfig, TableJob
from jobs.runtime.yaml_file import read_yaml
from transforms.schema import Table
from transforms.synthetic import drivers, subscribers, worlds
from transforms.synthetic.parameters import DriverWorld, Fault, SubscriberWorld
from transforms.synthetic.tables import (
    DRIVER_TABLES,
    DRIVER_TRIALS,
    SUBSCRIBER_TABLES,
    SUBSCRIBER_TRIALS,
    TRUTH_DRIVER_ROLLOUT,
    TRUTH_DRIVERS,
    TRUTH_SUBSCRIBER_ROLLOUT,
    TRUTH_SUBSCRIBERS,
)

UNITS_PER_PARTITION = 125_000


class GenerateConfig(JobConfig):
    """Options of the job.

    Attributes:
        world: Which worlds to generate.
        size: Number of subscribers.
        days: Days of activity.
        seed: Seed of everything that is drawn.
        faults: Faults to switch on, at the strength that the world's file gives them.
        subscribers: Parameters of the world of subscribers; `conf/worlds/subscribers.yaml`.
        drivers: Parameters of the world of drivers; `conf/worlds/drivers.yaml`.
    """

    world: Literal["subscribers", "drivers", "both"] = Field(
        default="both", description="which worlds to generate"
    )
    size: int = Field(
        default=1_000_000,
        ge=1_000,
        le=10**10,
        description="number of subscribers; drivers are a fifth of it (drivers_per_subscriber)",
    )
    days: int = Field(
        default=56, ge=28, le=3_640, multiple_of=7, description="days of activity, whole weeks"
    )
    seed: int = Field(default=20261121, ge=0, lt=2**63, description="seed of everything drawn")
    faults: tuple[Fault, ...] = Field(
        default=(), description="faults to switch on, at the strength given in conf/worlds"
    )
    subscribers: SubscriberWorld
    drivers: DriverWorld

    @model_validator(mode="after")
    def _time_is_enough(self) -> "GenerateConfig":
        for name, world in (("subscribers", self.subscribers), ("drivers", self.drivers)):
            if self.days <= world.pre_days:
                raise ValueError(
                    f"days must exceed the {world.pre_days} pre_days of {name}, got {self.days}"
                )
            if max(world.rollout.cohorts) >= self.days // 7:
                raise ValueError(
                    f"the rollout of {name} starts in week {max(world.rollout.cohorts)}, "
                    f"but {self.days} days are weeks 0 to {self.days // 7 - 1}"
                )
        return self

    @property
    def n_drivers(self) -> int:
        """Number of drivers, at least one."""
        return max(1, round(self.size * self.drivers.drivers_per_subscriber))


def subscriber_plan(config: GenerateConfig) -> subscribers.SubscriberPlan:
    """The world of subscribers that the options describe."""
    return subscribers.plan(
        config.subscribers, seed=config.seed, n_days=config.days, faults=frozenset(config.faults)
    )


def driver_plan(config: GenerateConfig) -> drivers.DriverPlan:
    """The world of drivers that the options describe."""
    return drivers.plan(
        config.drivers, seed=config.seed, n_days=config.days, faults=frozenset(config.faults)
    )


def defaults(_given: Mapping[str, object]) -> Mapping[str, object]:
    """The parameters of the worlds, from `conf/worlds`."""
    return {
        name: read_yaml(places.conf() / "worlds" / f"{name}.yaml").data
        for name in ("subscribers", "drivers")
    }


def reads(_config: GenerateConfig) -> tuple[str, ...]:
    """Nothing: the worlds are made from their seed."""
    return ()


def writes(config: GenerateConfig) -> tuple[str, ...]:
    """The tables of the chosen worlds."""
    chosen: dict[str, tuple[Table, ...]] = {
        "subscribers": SUBSCRIBER_TABLES,
        "drivers": DRIVER_TABLES,
        "both": SUBSCRIBER_TABLES + DRIVER_TABLES,
    }
    return tuple(table.name for table in chosen[config.world])


def sources(session: SparkSession, config: GenerateConfig) -> Mapping[str, DataFrame]:
    """The ids of the units, and what is fixed before a row is made, as frames."""
    frames: dict[str, DataFrame] = {}
    if config.world != "drivers":
        plan = subscriber_plan(config)
        frames["subscriber_ids"] = _ids(session, config.size)
        frames["regions"] = _rows(session, worlds.place_rows(plan.places), worlds.PLACE_SCHEMA)
        frames[SUBSCRIBER_TRIALS.name] = _rows(
            session, worlds.subscriber_trial_rows(plan), SUBSCRIBER_TRIALS.schema
        )
    if config.world != "subscribers":
        driver = driver_plan(config)
        frames["driver_ids"] = _ids(session, config.n_drivers)
        frames["cities"] = _rows(session, worlds.place_rows(driver.places), worlds.PLACE_SCHEMA)
        frames[DRIVER_TRIALS.name] = _rows(
            session, worlds.driver_trial_rows(driver), DRIVER_TRIALS.schema
        )
    return frames


def build(config: GenerateConfig, frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The tables of the chosen worlds, all but the true effects."""
    made: dict[str, DataFrame] = {}
    if config.world != "drivers":
        made |= worlds.subscriber_frames(
            subscriber_plan(config),
            units=frames["subscriber_ids"],
            places=frames["regions"],
            trials=frames[SUBSCRIBER_TRIALS.name],
        )
    if config.world != "subscribers":
        made |= worlds.driver_frames(
            driver_plan(config),
            units=frames["driver_ids"],
            places=frames["cities"],
            trials=frames[DRIVER_TRIALS.name],
        )
    return made


def finish(config: GenerateConfig, frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The true effects, from the potential outcomes."""
    made: dict[str, DataFrame] = {}
    if config.world != "drivers":
        made |= worlds.subscriber_effects(
            subscriber_plan(config),
            truth=frames[TRUTH_SUBSCRIBERS.name],
            rollout=frames[TRUTH_SUBSCRIBER_ROLLOUT.name],
        )
    if config.world != "subscribers":
        made |= worlds.driver_effects(
            driver_plan(config),
            units=frames["driver_ids"],
            truth=frames[TRUTH_DRIVERS.name],
            rollout=frames[TRUTH_DRIVER_ROLLOUT.name],
        )
    return made


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
