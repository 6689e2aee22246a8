"""Names shared by the transforms, and the description of a world that makes them generic."""

from collections.abc import Callable

from pyspark.sql import DataFrame

Transform = Callable[[DataFrame], DataFrame]


def quoted(name: str) -> str:
    """A column name in back-quotes, so that dots and spaces in it are taken literally."""
    return f"`{name.replace('`', '``')}`"
