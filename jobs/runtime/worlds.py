"""The option that jobs on derived tables share: which worlds they work on."""

from typing import Literal

from pydantic import Field

from jobs.runtime.contract import JobConfig
from transforms.columns import World, worlds


class WorldConfig(JobConfig):
    """Options of a job that does the same for every world."""

    world: Literal["both", "subscribers", "drivers"] = Field(
        default="both", description="which units: both, subscribers or drivers"
    )

    @property
    def worlds(self) -> tuple[World, ...]:
        """The worlds that were chosen."""
        return worlds(self.world)

    def tables(self, *names: str) -> tuple[str, ...]:
        """Names of tables of every chosen world, such as `days` and `trials`."""
        return tuple(world.table(name) for world in self.worlds for name in names)

    @property
    def populations(self) -> tuple[str, ...]:
        """Names of the population tables of the chosen worlds."""
        return tuple(world.name for world in self.worlds)
