"""Texts that messages and diagnostics are made of."""

from collections.abc import Iterable

_MAX_SHOWN = 8


def listed(items: Iterable[object], *, most: int = _MAX_SHOWN, separator: str = ", ") -> str:
    """The first items, and how many more there are: `10, 11, and 28 more`.

    Args:
        items: The items.
        most: So many are written out.
        separator: Between two of them.
    """
    texts = [str(item) for item in items]
    n_more = len(texts) - most
    return separator.join([*texts[:most], f"and {n_more:,} more"] if n_more > 0 else texts)
