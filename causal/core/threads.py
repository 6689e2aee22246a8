"""Linear algebra on one thread, where matrices are small and many."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block BLAS has one thread.

    On matrices of a few columns its threads mostly wait for each other, and waiting costs as much
    processor time as working.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
