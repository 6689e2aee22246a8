"""SIGTERM and SIGINT become an exception, so that locks, runs and files are closed on the way."""

import signal
from types import FrameType


class Interrupted(BaseException):
    """The process was asked to stop; not an `Exception`, so nothing on the way swallows it.

    Args:
        signum: The signal's number.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")

    @property
    def exit_code(self) -> int:
        """128 plus the signal: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.signum


def raise_on_signals() -> None:
    """Make SIGTERM and SIGINT raise `Interrupted` in the main thread.

    Call it again after the session has started: Spark installs a SIGINT handler of its own.
    """
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _raise)


def _raise(signum: int, frame: FrameType | None) -> None:
    del frame
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)  # a second signal must not break the clean-up
    raise Interrupted(signum)
