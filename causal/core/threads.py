"""Linear algebra on one thread, where matrices are small and many."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_counting = threading.Lock()
_inside: list[Any] = []
"""The limit, once per block that is being run: analyses run side by side and BLAS is shared."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block BLAS has one thread; the last block that ends gives it back its threads.

    On matrices of a few columns its threads mostly wait for each other, and waiting costs as much
    processor time as working.
    """
    from threadpoolctl import threadpool_limits

    with _counting:
        _inside.append(_inside[0] if _inside else threadpool_limits(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _counting:
            limit = _inside.pop()
            if not _inside:
                limit.restore_original_limits()
