"""Run notebooks in Databricks source format and keep them with their pictures.

A notebook finds `spark`, `dbutils`, `display` and `displayHTML`; several run one after another in
one kernel, each without the names of the others. Widgets take `--set widgets.<name>=<value>`; `env`
and `warehouse` are those of this run.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from causal.core.errors import CausalError, SpecError
from jobs.notebook_runner.execution import execute, started_kernel
from jobs.notebook_runner.source import read_cells
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig

if TYPE_CHECKING:
    from jupyter_client.manager import KernelManager


class NotebookConfig(JobConfig):
    """Options of the job.

    Attributes:
        file: The notebooks.
        output: Folder for the notebooks with their outputs.
        timeout: Seconds that one cell may take.
        widgets: Values that win over the widgets' defaults.
    """

    file: tuple[Path, ...] = Field(
        min_length=1, description="the notebooks, such as notebooks/01_quickstart.py"
    )
    output: Path = Field(
        default=Path("build/notebooks"), description="folder for each executed .ipynb and its HTML"
    )
    timeout: int = Field(default=3600, gt=0, description="seconds that one cell may take")
    widgets: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="values of the notebooks' widgets"
    )


def check(config: NotebookConfig) -> None:
    """The files are notebooks whose every cell can be run."""
    for file in config.file:
        read_cells(file)
    stems = [file.stem for file in config.file]
    if len(set(stems)) < len(stems):
        raise SpecError("two notebooks have the same name", given=stems, key="file")


def run(context: Context, config: NotebookConfig) -> int:
    """Run the notebooks, each even where one before it failed; the exit code.

    Raises:
        CausalError: A cell failed; with several notebooks, those that failed by name.
    """
    failures: dict[str, CausalError] = {}
    with started_kernel() as kernel:
        for file in config.file:
            try:
                _run_one(context, config, file=file, kernel=kernel)
            except CausalError as error:
                failures[file.name] = error
                context.progress.line(str(error))
    if len(failures) > 1:
        raise CausalError(f"{len(failures)} notebooks failed", given=list(failures))
    if failures:
        raise next(iter(failures.values()))
    return 0


def _run_one(
    context: Context, config: NotebookConfig, *, file: Path, kernel: "KernelManager"
) -> None:
    own = {"env": context.settings.env, "warehouse": context.settings.warehouse}
    given = {name: str(value) for name, value in config.widgets.items()}
    with context.progress.step(f"notebook {file.name}"):
        done = execute(
            file,
            kernel=kernel,
            output=config.output,
            settings=context.settings,
            widgets=own | given,
            timeout=config.timeout,
        )
    context.progress.line(f"{done.n_cells} cells, {done.n_pictures} pictures: {done.html}")
    if done.exit_value is not None:
        context.progress.line(f"ended early: {done.exit_value}")


JOB = CommandJob(name="notebook", config=NotebookConfig, run=run, check=check)
