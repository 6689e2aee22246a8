"""Panel of regions (cities) and weeks, summed from the panel of units."""

from collections.abc import Mapping

from pyspark.sql import DataFrame

from jobs.runtime.contract import TableJob
from jobs.runtime.worlds import WorldConfig
from transforms.panels import place_weeks


class RegionsConfig(WorldConfig):
    """Options of the regions job."""


def reads(config: RegionsConfig) -> tuple[str, ...]:
    """Unit panels of each world."""
    return config.tables("weeks")


def writes(config: RegionsConfig) -> tuple[str, ...]:
    """Region or city panels of each world."""
    return tuple(world.table(f"{world.place}_weeks") for world in config.worlds)


def build(config: RegionsConfig, frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The panel of places from the panel of units."""
    return {
        world.table(f"{world.place}_weeks"): frames[world.table("weeks")].transform(
            place_weeks(world=world)
        )
        for world in config.worlds
    }


JOB = TableJob(name="regions", config=RegionsConfig, reads=reads, writes=writes, build=build)
