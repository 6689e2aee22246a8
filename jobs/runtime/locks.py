"""A lock between processes of one machine, with a message on who holds it."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from causal.core.errors import ConcurrencyError

_POLL_SECONDS = 0.1


@contextmanager
def held(path: Path, *, timeout: float, purpose: str) -> Iterator[None]:
    """Hold the lock file for the block; the kernel frees it even if the process is killed.

    Args:
        path: The lock file; made if missing, never removed.
        timeout: Seconds to wait for another holder.
        purpose: What the holder does; others read it while they wait.

    Raises:
        ConcurrencyError: Another process held it all the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, path, timeout=timeout)
        holder = {
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "for": purpose,
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, *, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise ConcurrencyError(
                    f"gave up after {timeout:g} s: another process holds the lock",
                    given=_holder(descriptor),
                    file=path,
                ) from None
            time.sleep(_POLL_SECONDS)
        else:
            return


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, 4096, 0).decode(errors="replace")
    return text or "a process that has not said who it is"
