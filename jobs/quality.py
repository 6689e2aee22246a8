"""Run the SQL quality checks of the shop's records; each finding is a named warning."""

import datetime as dt

from pydantic import Field

from causal.core.errors import DataError
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from transforms.checkout_checks import CHECKOUT_CHECKS
from transforms.sql_checks import run_checks
from transforms.synthetic.checkout.tables import RECORD_TABLES, TRIALS


class QualityConfig(JobConfig):
    """Options of the job.

    Attributes:
        as_of: Date of the run.
    """

    as_of: dt.date | None = Field(
        default=None,
        description="day that the data must reach, if it is before the trial's end (default: that)",
    )


def run(context: Context, config: QualityConfig) -> int:
    """Print every check with its count, and a warning for each that found something.

    Returns:
        0, or the exit code of bad data if there is a warning. Nothing is stopped or written.
    """
    names = [table.name for table in (*RECORD_TABLES, TRIALS)]
    frames = {name: context.lakehouse.read(name) for name in names}
    with context.progress.step(f"{len(CHECKOUT_CHECKS)} quality checks"):
        warnings = run_checks(CHECKOUT_CHECKS, frames, as_of=config.as_of)
    counts = {warning.name: warning.n_violations for warning in warnings}
    rows = [(check.name, counts.get(check.name, 0)) for check in CHECKOUT_CHECKS]
    context.progress.table("Quality checks", ("check", "found"), rows)
    for warning in warnings:
        context.progress.warning(str(warning))
    return DataError.exit_code if warnings else 0


JOB = CommandJob(name="quality", config=QualityConfig, run=run)
