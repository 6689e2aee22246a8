"""Predict what customers will buy and are worth, from a log of purchases, into a table.

A spec names the log and the model (docs/methods/clv.md). With `method: clv` one aggregation makes a
row per customer and another one the distinct histories that a model of purchases is fitted on; with
`method: early_spend` regressions on the first days of customers compete on a bounded sample. Either
way every customer is scored in Spark.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from pydantic import Field

from causal.clv import early_spend, value_spec
from causal.core.errors import CausalError
from causal.core.spec import Spec
from jobs.runtime import analyses, customers, readout
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.customers import Report, Stored
from jobs.runtime.early_spends import early_spends
from jobs.runtime.purchase_values import valued
from jobs.runtime.readout import Readout
from jobs.runtime.runner import RunRecord, record
from jobs.runtime.spark_errors import translated
from transforms.result_tables import DIAGNOSTICS

Method = Callable[[Context, Analysis, Bound], tuple[Report, Stored, int | None]]
_MODELS: Mapping[str, type[Spec]] = MappingProxyType(
    {"clv": value_spec.SPEC, "early_spend": early_spend.SPEC}
)
_METHODS: Mapping[str, Method] = MappingProxyType({"clv": valued, "early_spend": early_spends})


class ClvConfig(JobConfig):
    """Options of the job.

    Attributes:
        spec: Which customers, and the model.
        output: Folder for the tables, the summary and the figures.
    """

    spec: Path = Field(description="spec of the customers and the model")
    output: Path | None = Field(
        default=None, description="folder for the tables as CSV, summary.md and the figures"
    )


def check(config: ClvConfig) -> None:
    """Validate the spec and the output folder without Spark."""
    _loaded(config)
    readout.check_output(config.output)


def _loaded(config: ClvConfig) -> Analysis:
    return analyses.load_for_table(config.spec, model=_MODELS)


def run(context: Context, config: ClvConfig) -> int:
    """Learn, check, score and write; the exit code.

    Raises:
        CausalError: The log cannot carry the model, or the table cannot be written.
    """
    valued_customers(context, config)
    return 0


def valued_customers(context: Context, config: ClvConfig) -> Report:
    """What `run` finds, once it is written.

    Raises:
        CausalError: The log cannot carry the model, or the table cannot be written.
    """
    item = _loaded(config)
    started_at = datetime.now(UTC)
    bound = customers.bound_log(context, item)
    try:
        with translated():
            report, stored, version = _METHODS[item.spec.method](context, item, bound)
    except CausalError as error:
        raise item.located(error) from error
    customers.leave(context, bound, report, place=stored.place, output=config.output)
    if version is not None:
        rows = readout.diagnostic_rows(Readout(bound, report.result, started_at))
        lakehouse = context.lakehouse
        lakehouse.merge(
            lakehouse.frame(rows, DIAGNOSTICS.name), DIAGNOSTICS.name, run_key=bound.run_key
        )
        made = RunRecord(
            run_key=bound.run_key,
            job="clv",
            started_at=started_at,
            config=config,
            inputs={} if bound.version is None else {bound.source: bound.version},
            outputs={stored.table.name: version},
        )
        record(context, [made])
    return report


JOB = CommandJob(name="clv", config=ClvConfig, run=run, check=check)
