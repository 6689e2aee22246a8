"""Executes a notebook in a kernel of its own; keeps it, pictures included, as .ipynb and HTML."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal.core.errors import CausalError
from jobs.notebook_runner.source import Cell, read_cells
from jobs.runtime import places
from jobs.runtime.settings import Settings

if TYPE_CHECKING:
    from jupyter_client.manager import KernelManager
    from nbformat import NotebookNode

FORGET = "get_ipython().run_line_magic('reset', '-f')"
"""Python that takes all names from a kernel."""
_EXIT = "NotebookExit"
_CELL = "causalake_cell"
_STARTUP_SECONDS = 300
_PAGE = "page.html.j2"
_TITLED_PICTURES = """
{%- extends 'lab/index.html.j2' -%}
{%- block data_png scoped -%}
{%- set title = (output | get_metadata('alt', 'image/png') or 'picture') | escape_html -%}
{{ super() | replace('<img ', '<img alt="' ~ title ~ '" ', 1) }}
{%- endblock data_png -%}
"""
"""The usual page, whose pictures say what they are called."""


@dataclass(frozen=True, kw_only=True)
class Executed:
    """A notebook that was run.

    Attributes:
        ipynb: The notebook with its outputs.
        html: The same as a page.
        n_cells: Cells of the source.
        n_pictures: Pictures among the outputs.
        exit_value: What the notebook gave to `dbutils.notebook.exit`; `None` if it ran to its end.
    """

    ipynb: Path
    html: Path
    n_cells: int
    n_pictures: int
    exit_value: str | None


@contextmanager
def started_kernel() -> Iterator["KernelManager"]:
    """A kernel that is there for as long as the context."""
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    from jupyter_client.manager import KernelManager

    kernel = KernelManager(kernel_name="python3")
    with tempfile.TemporaryDirectory(prefix="kernel-") as keys, _environment(keys):
        kernel.start_kernel(extra_arguments=["--HistoryManager.enabled=False", "--log-level=ERROR"])
        try:
            yield kernel
        finally:
            kernel.shutdown_kernel()


def execute(
    path: Path,
    *,
    kernel: "KernelManager",
    output: Path,
    settings: Settings,
    widgets: Mapping[str, str],
    timeout: float,
) -> Executed:
    """Run a notebook from its first cell to its last.

    It finds none of the names that another left in the kernel, only its Spark session.
    What was run is written even when a cell fails, so that the failure can be seen in its place.

    Args:
        path: The notebook in Databricks source format.
        kernel: Where to run it.
        output: Folder for `<name>.ipynb` and `<name>.html`.
        settings: Of the Spark session in the kernel.
        widgets: Values that win over the widgets' defaults.
        timeout: Seconds that one cell may take.

    Raises:
        SpecError: The file is no such notebook.
        CausalError: A cell failed, or the kernel died.
    """
    cells = read_cells(path)
    notebook = to_notebook(cells, setup=_setup(path.parent, settings, widgets))
    output.mkdir(parents=True, exist_ok=True)
    try:
        exit_value = run_cells(notebook, cells, kernel=kernel, timeout=timeout)
    finally:
        del notebook.cells[0]
        ipynb, html = _write(notebook, output, path.stem)
    return Executed(
        ipynb=ipynb,
        html=html,
        n_cells=len(cells),
        n_pictures=sum(1 for _ in pictures(notebook)),
        exit_value=exit_value,
    )


def to_notebook(cells: Sequence[Cell], *, setup: str) -> "NotebookNode":
    """The notebook that a kernel runs.

    Args:
        cells: The cells of the source.
        setup: Python that prepares the kernel's namespace; becomes the first cell.
    """
    from nbformat import v4

    made = [v4.new_code_cell(setup)]
    for number, cell in enumerate(cells):
        if cell.title:
            made.append(v4.new_markdown_cell(f"#### {cell.title}"))
        if cell.kind == "md":
            made.append(v4.new_markdown_cell(cell.text))
        else:
            made.append(v4.new_code_cell(_code(cell), metadata={_CELL: number}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook: NotebookNode = v4.new_notebook(cells=made, metadata={"kernelspec": kernel})
    return notebook


def run_cells(
    notebook: "NotebookNode", cells: Sequence[Cell], *, kernel: "KernelManager", timeout: float
) -> str | None:
    """Run the notebook, filling its outputs in.

    Args:
        notebook: What `to_notebook` made.
        cells: The cells of the source, for messages.
        kernel: Where to run it.
        timeout: Seconds that one cell may take.

    Returns:
        What the notebook gave to `dbutils.notebook.exit`; `None` if it ran to its end.

    Raises:
        CausalError: A cell failed, or the kernel died.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook, km=kernel, timeout=int(timeout), startup_timeout=_STARTUP_SECONDS
    )
    try:
        client.execute()
    except CellExecutionError as error:
        failed = _failed_cell(notebook)
        if error.ename == _EXIT:
            failed.outputs = [item for item in failed.outputs if item.output_type != "error"]
            return str(error.evalue)
        raise _located(f"{error.ename}: {error.evalue}", failed, cells) from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise CausalError(str(error).splitlines()[0], file=cells[0].file) from error
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
    return None


def pictures(notebook: "NotebookNode") -> Iterator[str]:
    """The PNG pictures among the outputs, in base64."""
    for cell in notebook.cells:
        for item in cell.get("outputs", ()):
            if "image/png" in item.get("data", {}):
                yield item["data"]["image/png"]


def _code(cell: Cell) -> str:
    if cell.kind == "sql":
        return f"_sqldf = spark.sql({cell.text!r})\ndisplay(_sqldf)"
    return cell.text


def _setup(folder: Path, settings: Settings, widgets: Mapping[str, str]) -> str:
    return (
        f"{FORGET}\n"
        f"__import__('os').chdir({str(folder.resolve())!r})\n"
        "from jobs.notebook_runner import shim as _shim\n"
        f"_shim.install(globals(), settings={settings.model_dump_json()!r}, "
        f"widgets={json.dumps(dict(widgets))!r})"
    )


def _failed_cell(notebook: "NotebookNode") -> Any:
    return next(
        cell
        for cell in notebook.cells
        if any(item.output_type == "error" for item in cell.get("outputs", ()))
    )


def _located(message: str, failed: Any, cells: Sequence[Cell]) -> CausalError:
    number = failed.metadata.get(_CELL)
    if number is None:
        return CausalError(f"the notebook could not be set up: {message}", file=cells[0].file)
    cell = cells[number]
    return CausalError(f"a cell failed: {message}", file=cell.file, key=f"line {cell.line}")


@contextmanager
def _environment(runtime_folder: str) -> Iterator[None]:
    """What the kernel inherits: the packages of the checkout, and a folder for its keys."""
    path = os.pathsep.join(filter(None, (str(places.root()), os.environ.get("PYTHONPATH"))))
    wanted = {"PYTHONPATH": path, "JUPYTER_RUNTIME_DIR": runtime_folder}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _write(notebook: "NotebookNode", output: Path, name: str) -> tuple[Path, Path]:
    import nbformat
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(
        extra_loaders=[DictLoader({_PAGE: _TITLED_PICTURES})],
        template_file=_PAGE,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    ).from_notebook_node(notebook)
    written = []
    for suffix, text in ((".ipynb", nbformat.writes(notebook)), (".html", page)):
        target = output / f"{name}{suffix}"
        partial = target.with_suffix(f"{suffix}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
        written.append(target)
    return written[0], written[1]
