"""How a notebook of the suite begins: its settings as widgets, and the tables that it reads."""

import os
from collections.abc import Sequence
from typing import Any

from causal.core.errors import SpecError
from jobs.runtime.catalogue import find_job
from jobs.runtime.cli import configured
from jobs.runtime.context import Context
from jobs.runtime.contract import TableJob
from jobs.runtime.progress import Progress
from jobs.runtime.runner import run_job
from jobs.runtime.settings import load_settings

ENVIRONMENTS = ("local", "cluster", "databricks")
SIZE = "10000"
SEED = "20261121"


def prepared(dbutils: Any, *, world: str, jobs: Sequence[str]) -> Context:
    """Ask for the settings and make the tables that are not there yet.

    The notebook gets the widgets `env`, `warehouse`, `schema`, `size` and `seed`. A job runs if one
    of its tables is missing, so a notebook shows what `make demo` made.

    Args:
        dbutils: That of Databricks or of this runner.
        world: Which world the jobs work on.
        jobs: Names of jobs that write tables, in order.

    Returns:
        The context of the notebook's own runs.

    Raises:
        CausalError: A setting cannot be right, or a job failed.
    """
    widgets = dbutils.widgets
    on_databricks = "DATABRICKS_RUNTIME_VERSION" in os.environ
    default = "databricks" if on_databricks else "local"
    widgets.dropdown("env", default, list(ENVIRONMENTS), "Settings of conf")
    widgets.text("warehouse", "", "Folder of the tables (not on Databricks)")
    widgets.text("schema", "causalake", "Schema of the tables")
    widgets.text("size", SIZE, "Number of units, if they must be generated")
    widgets.text("seed", SEED, "Seed of the world, if it must be generated")
    settings = load_settings(
        env=widgets.get("env"),
        warehouse=widgets.get("warehouse") or None,
        overrides=[f"database={widgets.get('schema')}"],
    )
    context = Context(settings=settings, progress=Progress())
    given = {"world": world, "size": widgets.get("size"), "seed": widgets.get("seed")}
    for name in jobs:
        job = find_job(name)
        if not isinstance(job, TableJob):
            raise SpecError("the job writes no tables", given=name)
        known = {key: value for key, value in given.items() if key in job.config.model_fields}
        config = configured(job, known)
        if not all(context.lakehouse.exists(table) for table in job.writes(config)):
            run_job(context, job, config)
    return context
