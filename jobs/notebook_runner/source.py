"""The Databricks source format: Python whose comments say where cells begin and what they are.

# Databricks notebook source        first line of the file
# COMMAND ----------                between two cells
# DBTITLE 1,Some title              title of the cell that follows
# MAGIC %md ...                     a cell that is not Python: every line behind `# MAGIC`
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from causal.core.errors import SpecError

HEADER = "# Databricks notebook source"
_SEPARATOR = "# COMMAND ----------"
_TITLE = "# DBTITLE 1,"
_MAGIC = "# MAGIC"

CellKind = Literal["python", "md", "sql"]
_RUN = "run"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        kind: What its text is.
        text: The text, without markers.
        title: Its title, or nothing.
        file: The file it stands in.
        line: Where it begins there, from 1.
    """

    kind: CellKind
    text: str
    title: str
    file: Path
    line: int


def read_cells(path: Path) -> tuple[Cell, ...]:
    """The cells of a notebook; those of notebooks that it names by `%run` stand in their place.

    Args:
        path: The notebook.

    Raises:
        SpecError: The file cannot be read, is no notebook, holds an unknown magic, or runs itself.
    """
    return tuple(_cells(path, above=()))


def _cells(path: Path, *, above: tuple[Path, ...]) -> Iterator[Cell]:
    here = path.resolve()
    if here in above:
        raise SpecError("a notebook runs itself", given=path, file=above[0])
    try:
        text = here.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(f"the notebook cannot be read: {reason}", given=path) from error
    for cell, run in _parsed(text, path):
        if run is None:
            yield cell
        else:
            yield from _cells(_named(run, path.parent), above=(*above, here))


def _named(run: str, folder: Path) -> Path:
    name = run.strip("\"' ")
    return folder / (name if name.endswith(".py") else f"{name}.py")


def _parsed(text: str, file: Path) -> Iterator[tuple[Cell, str | None]]:
    """Cells that are not empty, each with the notebook it runs, if that is what it does."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != HEADER:
        raise SpecError(
            "this is no notebook in Databricks source format",
            allowed=f"first line: {HEADER}",
            file=file,
        )
    start = 1
    ends = [number for number, line in enumerate(lines) if line.strip() == _SEPARATOR]
    for end in (*ends, len(lines)):
        found = _cell(lines[start:end], file=file, line=start + 1)
        if found is not None:
            yield found
        start = end + 1


def _cell(lines: Sequence[str], *, file: Path, line: int) -> tuple[Cell, str | None] | None:
    content = list(lines)
    title = ""
    while content and (not content[0].strip() or content[0].startswith(_TITLE)):
        title = content[0].removeprefix(_TITLE).strip() if content[0].strip() else title
        content, line = content[1:], line + 1
    while content and not content[-1].strip():
        content.pop()
    if not content:
        return None
    if not content[0].startswith(_MAGIC):
        return Cell(kind="python", text="\n".join(content), title=title, file=file, line=line), None
    return _magic(content, title=title, file=file, line=line)


def _magic(content: Sequence[str], *, title: str, file: Path, line: int) -> tuple[Cell, str | None]:
    for offset, text in enumerate(content):
        if not text.startswith(_MAGIC):
            raise _wrong("a cell is either magic or Python", file, line + offset, given=text)
    bare = [text.removeprefix(_MAGIC).removeprefix(" ") for text in content]
    word, _, rest = bare[0].partition(" ")
    name = word.removeprefix("%").removesuffix("-sandbox")
    known = (*get_args(CellKind), _RUN)
    if not word.startswith("%") or name not in known:
        raise _wrong(
            "unknown magic", file, line, given=word, allowed=[f"%{item}" for item in known]
        )
    text = "\n".join([rest, *bare[1:]]).strip("\n")
    kind = cast("CellKind", "python" if name == _RUN else name)
    cell = Cell(kind=kind, text=text, title=title, file=file, line=line)
    return cell, text if name == _RUN else None


def _wrong(
    message: str, file: Path, line: int, *, given: object, allowed: object = None
) -> SpecError:
    return SpecError(message, given=given, allowed=allowed, file=file, key=f"line {line}")
