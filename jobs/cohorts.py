"""Cohorts of each unit: week of signup, week of first exposure, first treated period."""

import datetime as dt
from collections.abc import Iterable, Mapping

from pydantic import Field
from pyspark.sql import DataFrame

from jobs.runtime.contract import TableJob
from jobs.runtime.worlds import WorldConfig
from transforms.cohorts import cohorts
from transforms.columns import World
from transforms.quality import Gate, keys_unique, referential


class CohortsConfig(WorldConfig):
    """Options of the cohorts job."""

    starts_on: dt.date = Field(
        default=dt.date(2026, 1, 5), description="first day of the panel of weeks"
    )


def reads(config: CohortsConfig) -> tuple[str, ...]:
    """Population, first exposures and rollout of each world."""
    return (*config.populations, *config.tables("first_exposures", "rollout"))


def writes(config: CohortsConfig) -> tuple[str, ...]:
    """Cohorts of each world."""
    return config.tables("cohorts")


def build(config: CohortsConfig, frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The cohorts of every unit of the population."""
    return {
        world.table("cohorts"): frames[world.name].transform(
            cohorts(
                world=world,
                exposures=frames[world.table("first_exposures")],
                rollout=frames[world.table("rollout")],
                panel_starts_on=config.starts_on,
            )
        )
        for world in config.worlds
    }


def gates(config: CohortsConfig, frames: Mapping[str, DataFrame]) -> Iterable[Gate]:
    """One row per unit, one per place, and every place in the rollout."""
    return tuple(gate for world in config.worlds for gate in _population_gates(world, frames))


def _population_gates(world: World, frames: Mapping[str, DataFrame]) -> tuple[Gate, ...]:
    rollout = world.table("rollout")
    known = referential(
        (world.place,),
        other=frames[rollout],
        other_columns=(world.place,),
        other_name=rollout,
    )
    return (
        Gate(name=rollout, frame=frames[rollout], rules=(keys_unique(world.place),)),
        Gate(name=world.name, frame=frames[world.name], rules=(keys_unique(world.unit), known)),
    )


JOB = TableJob(
    name="cohorts", config=CohortsConfig, reads=reads, writes=writes, build=build, gates=gates
)
