"""Jobs on derived tables build what the declarations say, from nothing but declared tables."""

from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from causal.core.errors import DataError
from jobs import choices, cohorts, covariates, exposure, panels, regions
from jobs.runtime.contract import TableJob
from transforms.tables import TABLES, table

JOBS = [module.JOB for module in (exposure, cohorts, covariates, choices, panels, regions)]
every_job = pytest.mark.parametrize("job", JOBS, ids=[job.name for job in JOBS])


def inputs(spark: SparkSession, job: TableJob[Any], config: Any) -> dict[str, DataFrame]:
    return {name: spark.createDataFrame([], table(name).schema) for name in job.reads(config)}


@every_job
@pytest.mark.parametrize("world", ["both", "subscribers", "drivers"])
def test_outputs_have_the_declared_columns(
    spark: SparkSession, job: TableJob[Any], world: str
) -> None:
    config = job.config(world=world)
    frames = inputs(spark, job, config)
    outputs = dict(job.build(config, frames))
    if job.finish is not None:
        outputs |= job.finish(config, {**frames, **outputs})

    assert set(outputs) == set(job.writes(config))
    for name, frame in outputs.items():
        declared = [(field.name, field.data_type) for field in table(name).fields]
        assert [(field.name, field.dataType) for field in frame.schema.fields] == declared


@every_job
def test_gates_pass_on_empty_tables(spark: SparkSession, job: TableJob[Any]) -> None:
    config = job.config(world="drivers")
    frames = inputs(spark, job, config)
    gates = [] if job.gates is None else list(job.gates(config, frames))

    for gate in gates:
        assert gate.name in TABLES
        gate.check()


@pytest.mark.parametrize("job", [exposure.JOB, covariates.JOB], ids=["exposure", "covariates"])
def test_a_unit_that_is_assigned_twice_stops_the_run(
    spark: SparkSession, job: TableJob[Any]
) -> None:
    config = job.config(world="drivers")
    frames = inputs(spark, job, config)
    twice = "SELECT 'payout' AS experiment, 7L AS driver_id, 'surge' AS variant, 'all' AS stratum"
    rows = spark.sql(f"{twice}, 7L AS cluster_id, now() AS assigned_at FROM range(2)")
    assert job.gates is not None
    first, *_ = job.gates(config, {**frames, "driver_assignments": rows})

    with pytest.raises(DataError, match=r"driver_id\) is unique: 1 violation.*payout, driver_id 7"):
        first.check()


def test_choices_of_two_worlds_do_not_mix(spark: SparkSession) -> None:
    job = choices.JOB
    config = job.config(world="drivers")
    frames = inputs(spark, job, config)
    units, truth = "driver_experiment_units", "truth_drivers"
    trial = F.lit("payout_scheme")
    frames[units] = spark.range(3).select(trial.alias("experiment"), F.col("id").alias("unit_id"))
    frames[truth] = spark.range(2).select(trial.alias("experiment"), F.col("id").alias("driver_id"))
    assert job.gates is not None
    (gate,) = job.gates(config, frames)

    with pytest.raises(DataError, match=r"unit_id\) is known to truth_drivers: 1 violation.*2"):
        gate.check()
