"""Work on all cores in processes of their own, for numbers that need no Spark."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import TypeVar

Piece = TypeVar("Piece")
Found = TypeVar("Found")

OnDone = Callable[[int, int], None]


class Processes:
    """Workers that run pieces of work side by side; a context manager.

    Processes are spawned, not forked: a fork would copy the threads' locks of the driver.

    Args:
        n: Processes.
        on_done: Called with the pieces that are done and their number.
    """

    def __init__(self, n: int, *, on_done: OnDone) -> None:
        self._on_done = on_done
        # Small matrices: threads of the linear algebra would only compete with the processes.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        self._pool = ProcessPoolExecutor(
            n, mp_context=multiprocessing.get_context("spawn"), initializer=_leave_signals
        )

    def __enter__(self) -> "Processes":
        """The workers; the processes start with the first piece."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the processes; at once if something went wrong."""
        if kind is None:
            self._pool.shutdown()
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()

    def __call__(
        self, work: Callable[[Piece], Found], pieces: Sequence[Piece], /
    ) -> Iterator[Found]:
        """What the function makes of each piece, in the order of the pieces."""
        for done, found in enumerate(self._pool.map(work, pieces), start=1):
            self._on_done(done, len(pieces))
            yield found


def _leave_signals() -> None:
    """An interrupt of the terminal reaches all processes; the driver ends its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
