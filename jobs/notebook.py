"""Run a notebook in Databricks source format and keep it with its pictures.

The notebook gets a kernel of its own with `spark`, `dbutils`, `display` and `displayHTML`. Its
widgets take `--set widgets.<name>=<value>`; `env` and `warehouse` are those of this run.
"""

from pathlib import Path

from pydantic import Field

from jobs.notebook_runner.execution import execute
from jobs.notebook_runner.source import read_cells
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig


class NotebookConfig(JobConfig):
    """Options of the job.

    Attributes:
        file: The notebook.
        output: Folder for the notebook with its outputs.
        timeout: Seconds that one cell may take.
        widgets: Values that win over the widgets' defaults.
    """

    file: Path = Field(description="the notebook, such as notebooks/01_quickstart.py")
    output: Path = Field(
        default=Path("build/notebooks"), description="folder for the executed .ipynb and its HTML"
    )
    timeout: int = Field(default=3600, gt=0, description="seconds that one cell may take")
    widgets: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="values of the notebook's widgets"
    )


def check(config: NotebookConfig) -> None:
    """The file is a notebook whose every cell can be run."""
    read_cells(config.file)


def run(context: Context, config: NotebookConfig) -> int:
    """Run the notebook; the exit code."""
    own = {"env": context.settings.env, "warehouse": context.settings.warehouse}
    given = {name: str(value) for name, value in config.widgets.items()}
    with context.progress.step(f"notebook {config.file.name}"):
        done = execute(
            config.file,
            output=config.output,
            settings=context.settings,
            widgets=own | given,
            timeout=config.timeout,
        )
    context.progress.line(f"{done.n_cells} cells, {done.n_pictures} pictures: {done.html}")
    if done.exit_value is not None:
        context.progress.line(f"ended early: {done.exit_value}")
    return 0


JOB = CommandJob(name="notebook", config=NotebookConfig, run=run, check=check)
