"""Units that choose a perk themselves: a confounded exposure whose true effects are known."""

from collections.abc import Iterable, Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime.contract import TableJob
from jobs.runtime.worlds import WorldConfig
from transforms import self_selection
from transforms.columns import World
from transforms.quality import Gate, keys_unique, referential


class ChoicesConfig(WorldConfig):
    """Options of the choices job."""


def reads(config: ChoicesConfig) -> tuple[str, ...]:
    """Experiment units of each world, and their outcomes under every arm."""
    return (*config.tables("experiment_units"), *(f"truth_{name}" for name in config.populations))


def writes(config: ChoicesConfig) -> tuple[str, ...]:
    """What was observed of the units, their potential outcomes and the effects."""
    return tuple(
        name
        for world in config.worlds
        for name in (world.table("choices"), _potential(world), _effects(world))
    )


def build(config: ChoicesConfig, frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The studies from the units of a trial of each world."""
    tables: dict[str, DataFrame] = {}
    for world in config.worlds:
        units = frames[world.table("experiment_units")].transform(
            self_selection.study(world=world, truth=frames[f"truth_{world.name}"])
        )
        tables |= {
            world.table("choices"): self_selection.observed(units, world=world),
            _potential(world): self_selection.potential(units, world=world),
        }
    return tables


def finish(config: ChoicesConfig, frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The true effects, from the potential outcomes."""
    return {
        _effects(world): self_selection.effects(frames[_potential(world)], world=world)
        for world in config.worlds
    }


def gates(config: ChoicesConfig, frames: Mapping[str, DataFrame]) -> Iterable[Gate]:
    """Each unit of a trial once, and its outcomes known: tables of two worlds do not mix."""
    return tuple(_gate(world, frames) for world in config.worlds)


def _gate(world: World, frames: Mapping[str, DataFrame]) -> Gate:
    name, truth = world.table("experiment_units"), f"truth_{world.name}"
    is_trial = F.col("experiment") == world.choice.experiment
    return Gate(
        name=name,
        frame=frames[name].where(is_trial),
        rules=(
            keys_unique("unit_id"),
            referential(
                ("unit_id",),
                other=frames[truth].where(is_trial),
                other_columns=(world.unit,),
                other_name=truth,
            ),
        ),
    )


def _potential(world: World) -> str:
    return f"truth_{world.table('choices')}"


def _effects(world: World) -> str:
    return f"truth_{world.table('choice_effects')}"


JOB = TableJob(
    name="choices",
    config=ChoicesConfig,
    reads=reads,
    writes=writes,
    build=build,
    finish=finish,
    gates=gates,
)
