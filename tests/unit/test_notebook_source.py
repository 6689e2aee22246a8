"""The Databricks source format: cells, magics, titles, and what is refused."""

from pathlib import Path

import pytest

from causal.core.errors import SpecError
from jobs.notebook_runner.source import HEADER, Cell, read_cells

SAMPLE = f"""{HEADER}
# MAGIC %md
# MAGIC # Title
# MAGIC
# MAGIC Text.

# COMMAND ----------

import math

# an ordinary comment
x = math.pi

# COMMAND ----------

# DBTITLE 1,Rows by arm
# MAGIC %sql
# MAGIC SELECT 1 AS one
# MAGIC UNION ALL SELECT 2

# COMMAND ----------


# COMMAND ----------

# MAGIC %python
# MAGIC y = 1
"""


def written(folder: Path, text: str, name: str = "nb.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_cells_have_kind_text_title_and_line(tmp_path: Path) -> None:
    path = written(tmp_path, SAMPLE)
    assert read_cells(path) == (
        Cell(kind="md", text="# Title\n\nText.", title="", file=path, line=2),
        Cell(
            kind="python",
            text="import math\n\n# an ordinary comment\nx = math.pi",
            title="",
            file=path,
            line=9,
        ),
        Cell(
            kind="sql",
            text="SELECT 1 AS one\nUNION ALL SELECT 2",
            title="Rows by arm",
            file=path,
            line=17,
        ),
        Cell(kind="python", text="y = 1", title="", file=path, line=26),
    )


def test_text_on_the_magic_line_belongs_to_the_cell(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}\n# MAGIC %md-sandbox Hello\n# MAGIC there\n")
    assert [cell.text for cell in read_cells(path)] == ["Hello\nthere"]


def test_run_puts_another_notebook_in_its_place(tmp_path: Path) -> None:
    inner = written(tmp_path, f"{HEADER}\na = 1\n", "inner.py")
    path = written(tmp_path, f"{HEADER}\n# MAGIC %run ./inner\n\n# COMMAND ----------\n\nb = a\n")
    assert [(cell.text, cell.file.name) for cell in read_cells(path)] == [
        ("a = 1", inner.name),
        ("b = a", path.name),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "no notebook in Databricks source format"),
        (f"{HEADER}\n# MAGIC %scala\n# MAGIC val x = 1\n", "unknown magic"),
        (f"{HEADER}\n# MAGIC no magic word\n", "unknown magic"),
        (f"{HEADER}\n# MAGIC %md\nx = 1\n", "either magic or Python"),
        (f"{HEADER}\n# MAGIC %run ./nb\n", "runs itself"),
        (f"{HEADER}\n# MAGIC %run ./absent\n", "cannot be read"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_cells(written(tmp_path, text))


def test_the_message_names_the_line(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}\nx = 1\n\n# COMMAND ----------\n\n# MAGIC %r\n")
    with pytest.raises(SpecError, match="line 6"):
        read_cells(path)
