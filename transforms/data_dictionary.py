"""The data dictionary, `docs/data-dictionary.md`, written from the declarations of the tables.

Run `python -m transforms.data_dictionary > docs/data-dictionary.md` after changing a declaration.
"""

import sys
from collections.abc import Iterable

from transforms.result_tables import RESULT_TABLES
from transforms.schema import Field, Table
from transforms.synthetic.tables import WORLD_TABLES
from transforms.tables import DERIVED_TABLES

_SECTIONS = (
    ("Generated worlds", WORLD_TABLES),
    ("Derived tables", DERIVED_TABLES),
    ("Results", RESULT_TABLES),
)
_OPENING = """# Data dictionary

Every table of the lakehouse with its columns. A column may be null only where it says so. Money is
in the currency of the world; dates are days of UTC; weeks count from 0 at the world's first day.

This page is written by `python -m transforms.data_dictionary`; a test compares the two.
"""


def data_dictionary() -> str:
    """The text of the data dictionary, Markdown."""
    parts = [_OPENING]
    for title, tables in _SECTIONS:
        parts.append(f"## {title}\n")
        parts.extend(_table(table) for table in tables)
    return "\n".join(parts)


def _table(table: Table) -> str:
    lines = [
        f"### {table.name}\n",
        f"{table.comment}.\n",
        f"Key: {_listed(table.key)}.",
    ]
    if table.clustering:
        lines.append(f"Clustered by {_listed(table.clustering)}.")
    lines += ["", "| column | type | null | meaning |", "|---|---|---|---|"]
    lines += [_field(field) for field in table.fields]
    if table.checks:
        lines += ["", "Checks:", ""]
        lines += [f"- `{name}`: `{predicate}`" for name, predicate in table.checks.items()]
    return "\n".join(lines) + "\n"


def _field(field: Field) -> str:
    null = "yes" if field.is_nullable else "no"
    meaning = field.comment.replace("|", "\\|")
    return f"| `{field.name}` | {field.type} | {null} | {meaning} |"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(data_dictionary())
