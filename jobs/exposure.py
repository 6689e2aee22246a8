"""First exposure of each unit to each experiment, from the raw exposure log."""

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field
from pyspark.sql import DataFrame

from jobs.runtime.contract import TableJob
from jobs.runtime.worlds import WorldConfig
from transforms.columns import World
from transforms.exposure import first_exposures
from transforms.quality import Gate, keys_unique, no_nulls, referential


class ExposureConfig(WorldConfig):
    """Options of the exposure job."""

    late_after_hours: int = Field(
        default=48, gt=0, description="an event is late when it arrives this many hours after it"
    )
    late_rows: Literal["drop", "keep"] = Field(
        default="drop", description="whether late events are dropped (and counted) or kept"
    )


def reads(config: ExposureConfig) -> tuple[str, ...]:
    """Log, assignments and definitions of each world."""
    return config.tables("exposure_log", "assignments", "trials")


def writes(config: ExposureConfig) -> tuple[str, ...]:
    """First exposures of each world."""
    return config.tables("first_exposures")


def build(config: ExposureConfig, frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The first exposures from the log."""
    return {
        world.table("first_exposures"): frames[world.table("exposure_log")].transform(
            first_exposures(
                world=world,
                assignments=frames[world.table("assignments")],
                trials=frames[world.table("trials")],
                late_after_hours=config.late_after_hours,
                late_rows=config.late_rows,
            )
        )
        for world in config.worlds
    }


def gates(config: ExposureConfig, frames: Mapping[str, DataFrame]) -> Iterable[Gate]:
    """One assignment per experiment and unit, to an experiment that is defined."""
    return tuple(_assignment_gate(world, frames) for world in config.worlds)


def _assignment_gate(world: World, frames: Mapping[str, DataFrame]) -> Gate:
    return Gate(
        name=world.table("assignments"),
        frame=frames[world.table("assignments")],
        rules=(
            keys_unique("experiment", world.unit),
            *no_nulls("variant", "assigned_at", shown=("experiment", world.unit)),
            referential(
                ("experiment",),
                other=frames[world.table("trials")],
                other_columns=("experiment",),
                other_name=world.table("trials"),
            ),
        ),
    )


JOB = TableJob(
    name="exposure",
    config=ExposureConfig,
    reads=reads,
    writes=writes,
    build=build,
    gates=gates,
)
