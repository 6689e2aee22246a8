"""Merge small files of every table and delete those that no recent version uses."""

from pydantic import Field

from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.lakehouse import VACUUM_HOURS
from transforms.tables import TABLES, table


class MaintainConfig(JobConfig):
    """Options of the job.

    Attributes:
        tables: The tables; all that exist if left out.
        retain_hours: Age from which unused files are deleted, at least seven days.
    """

    tables: tuple[str, ...] = Field(default=(), description="tables (default: all that exist)")
    retain_hours: int = Field(
        default=VACUUM_HOURS,
        ge=VACUUM_HOURS,
        description="unused files older than this are deleted; at least seven days, because "
        "running writers and pinned readers need the younger ones",
    )


def check(config: MaintainConfig) -> None:
    """Refuse a table that the suite does not have."""
    for name in config.tables:
        table(name)


def run(context: Context, config: MaintainConfig) -> int:
    """OPTIMIZE and VACUUM; the exit code.

    Raises:
        DataError: A table that was named has not been written yet.
    """
    lakehouse, rows = context.lakehouse, []
    for name in config.tables:
        lakehouse.version(name)
    names = [name for name in (config.tables or tuple(TABLES)) if lakehouse.exists(name)]
    for index, name in enumerate(names):
        context.progress.bar(done=index, total=len(names), label=name)
        n_before = lakehouse.n_files(name)
        with context.progress.step(f"maintain {name}"):
            lakehouse.optimize(name)
            lakehouse.vacuum(name, hours=config.retain_hours)
        rows.append((name, n_before, lakehouse.n_files(name)))
    context.progress.table("Files", ("table", "before", "after"), rows)
    return 0


JOB = CommandJob(name="maintain", config=MaintainConfig, run=run, check=check)
