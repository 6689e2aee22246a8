"""Dense panel of units and weeks from the daily activity."""

import datetime as dt
from collections.abc import Iterable, Mapping

from pydantic import Field
from pyspark.sql import DataFrame

from jobs.runtime.contract import TableJob
from jobs.runtime.worlds import WorldConfig
from transforms.panels import weeks, within_panel
from transforms.quality import Gate


class PanelsConfig(WorldConfig):
    """Options of the panels job."""

    starts_on: dt.date = Field(default=dt.date(2026, 1, 5), description="first day of the panel")
    n_weeks: int = Field(default=8, ge=2, le=520, description="weeks of the panel")


def reads(config: PanelsConfig) -> tuple[str, ...]:
    """Population, activity and rollout of each world."""
    return (*config.populations, *config.tables("days", "rollout"))


def writes(config: PanelsConfig) -> tuple[str, ...]:
    """Unit panels of each world."""
    return config.tables("weeks")


def build(config: PanelsConfig, frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The panels from the daily activity."""
    return {
        world.table("weeks"): frames[world.table("days")].transform(
            weeks(
                world=world,
                population=frames[world.name],
                rollout=frames[world.table("rollout")],
                starts_on=config.starts_on,
                n_weeks=config.n_weeks,
            )
        )
        for world in config.worlds
    }


def gates(config: PanelsConfig, frames: Mapping[str, DataFrame]) -> Iterable[Gate]:
    """No activity outside the panel, where it would not be counted."""
    inside = within_panel(starts_on=config.starts_on, n_weeks=config.n_weeks)
    return tuple(
        Gate(name=world.table("days"), frame=frames[world.table("days")], rules=(inside,))
        for world in config.worlds
    )


JOB = TableJob(
    name="panels", config=PanelsConfig, reads=reads, writes=writes, build=build, gates=gates
)
