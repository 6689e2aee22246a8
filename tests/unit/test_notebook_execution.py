"""Cells run in a kernel: outputs, early end, failure, nothing left for the next notebook."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

from causal.core.errors import CausalError
from jobs.notebook_runner.execution import FORGET, pictures, run_cells, started_kernel, to_notebook
from jobs.notebook_runner.source import HEADER, read_cells

SETUP = "from jobs.notebook_runner.shim import DbUtils, display; dbutils = DbUtils({})"
SEPARATOR = "\n# COMMAND ----------\n"


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    with started_kernel() as started:
        yield started


def notebook_of(folder: Path, *cells: str) -> Path:
    path = folder / "nb.py"
    path.write_text(f"{HEADER}\n{SEPARATOR.join(cells)}\n", encoding="utf-8")
    return path


def test_a_notebook_may_end_early_and_keeps_its_pictures(
    kernel: KernelManager, tmp_path: Path
) -> None:
    path = notebook_of(
        tmp_path,
        "from matplotlib.figure import Figure",
        "figure = Figure()\nfigure.subplots().set_title('Up')",
        "# DBTITLE 1,A picture\ndisplay(figure)",
        "dbutils.notebook.exit('enough')",
        "raise RuntimeError('not reached')",
    )
    cells = read_cells(path)
    made = to_notebook(cells, setup=SETUP)
    assert run_cells(made, cells, kernel=kernel, timeout=60) == "enough"
    assert len(list(pictures(made))) == 1
    (shown,) = made.cells[4].outputs
    assert shown.metadata["image/png"]["alt"] == "Up"
    assert made.cells[3].source == "#### A picture"
    assert made.cells[-1].outputs == []
    assert made.cells[-2].outputs == []


def test_a_failing_cell_is_named_by_file_and_line(kernel: KernelManager, tmp_path: Path) -> None:
    cells = read_cells(notebook_of(tmp_path, "x = 1", "y = x / 0"))
    with pytest.raises(CausalError, match=r"(?s)nb\.py.*line 4.*ZeroDivisionError"):
        run_cells(to_notebook(cells, setup=SETUP), cells, kernel=kernel, timeout=60)


def test_sql_cells_show_their_rows(tmp_path: Path) -> None:
    cells = read_cells(notebook_of(tmp_path, "# MAGIC %sql\n# MAGIC SELECT 'a' AS letter"))
    made = to_notebook(cells, setup=SETUP)
    assert made.cells[1].source == "_sqldf = spark.sql(\"SELECT 'a' AS letter\")\ndisplay(_sqldf)"


def test_names_of_one_notebook_are_unknown_to_the_next(
    kernel: KernelManager, tmp_path: Path
) -> None:
    for number, source in enumerate(("held = 1", "assert 'held' not in globals()")):
        folder = tmp_path / str(number)
        folder.mkdir()
        cells = read_cells(notebook_of(folder, source))
        made = to_notebook(cells, setup=f"{FORGET}\n{SETUP}")
        assert run_cells(made, cells, kernel=kernel, timeout=60) is None
