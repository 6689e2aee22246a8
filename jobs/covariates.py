"""One row per enrolled unit and experiment: covariates from before it, outcomes during it."""

from collections.abc import Iterable, Mapping

from pydantic import Field
from pyspark.sql import DataFrame

from jobs.runtime.contract import TableJob
from jobs.runtime.worlds import WorldConfig
from transforms.columns import World
from transforms.covariates import experiment_units
from transforms.quality import SAMPLE_RATIO_ALPHA, Gate, keys_unique, referential, sample_ratio


class CovariatesConfig(WorldConfig):
    """Options of the covariates job."""

    sample_ratio_alpha: float = Field(
        default=SAMPLE_RATIO_ALPHA,
        ge=0.0,
        lt=1.0,
        description="stop when an experiment's arms miss their shares at this level; 0 never stops",
    )


def reads(config: CovariatesConfig) -> tuple[str, ...]:
    """Population, activity, definitions, assignments, exposures and uptakes of each world."""
    uptakes = tuple(world.table("uptakes") for world in config.worlds if world.has_uptakes)
    inputs = config.tables("days", "trials", "assignments", "first_exposures")
    return (*config.populations, *inputs, *uptakes)


def writes(config: CovariatesConfig) -> tuple[str, ...]:
    """Experiment units of each world."""
    return config.tables("experiment_units")


def build(config: CovariatesConfig, frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The experiment units from the daily activity."""
    return {
        world.table("experiment_units"): frames[world.table("days")].transform(
            experiment_units(
                world=world,
                population=frames[world.name],
                assignments=frames[world.table("assignments")],
                trials=frames[world.table("trials")],
                exposures=frames[world.table("first_exposures")],
                uptakes=frames.get(world.table("uptakes")),
            )
        )
        for world in config.worlds
    }


def gates(config: CovariatesConfig, frames: Mapping[str, DataFrame]) -> Iterable[Gate]:
    """Each unit once per experiment, in the population, and the arms in their shares."""
    return tuple(_gate(world, config, frames) for world in config.worlds)


def _gate(world: World, config: CovariatesConfig, frames: Mapping[str, DataFrame]) -> Gate:
    return Gate(
        name=world.table("assignments"),
        frame=frames[world.table("assignments")],
        rules=(
            keys_unique("experiment", world.unit),
            referential(
                (world.unit,),
                other=frames[world.name],
                other_columns=(world.unit,),
                other_name=world.name,
            ),
            sample_ratio(
                experiment="experiment",
                variant="variant",
                unit="cluster_id",
                definitions=frames[world.table("trials")],
                alpha=config.sample_ratio_alpha,
            ),
        ),
    )


JOB = TableJob(
    name="covariates",
    config=CovariatesConfig,
    reads=reads,
    writes=writes,
    build=build,
    gates=gates,
)
