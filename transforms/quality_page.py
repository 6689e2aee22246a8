"""The page of the SQL quality checks, `docs/quality-checks.md`, written from their declarations.

Run `python -m transforms.quality_page > docs/quality-checks.md` after changing a check.
"""

import sys

from transforms.checkout_checks import CHECKOUT_CHECKS
from transforms.sql_checks import SqlCheck

_OPENING = """# Quality checks of the shop

Each query returns one row per violation and none when all is well. They run as they stand in any
Spark SQL editor whose tables have these names (`:as_of` is the date of the run).
`./spark-submit.sh quality` runs all of them on the lakehouse, prints the counts and a warning with
up to five examples for each that found something, and ends with 3 if there is one.
`generate --world checkout --faults NAME` switches the fault of the same name on: it raises this
warning and no other.

This page is written by `python -m transforms.quality_page`; a test compares the two.
"""


def quality_page() -> str:
    """The text of the page, Markdown."""
    return "\n".join([_OPENING, *map(_section, CHECKOUT_CHECKS)])


def _section(check: SqlCheck) -> str:
    sentence = check.warning[0].upper() + check.warning[1:]
    return f"## {check.name}\n\n{sentence}.\n\n```sql\n{check.sql.strip()}\n```\n"


if __name__ == "__main__":
    sys.stdout.write(quality_page())
