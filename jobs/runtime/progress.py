"""The terminal: lines with the time that passed, a bar for long work, tables at the end."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

_BAR_WIDTH = 24
_PAUSE = 60.0
"""Seconds between two lines about one piece of work in a log, which has no bar."""

# Steps that run in threads of their own indent by where those threads were started.
_DEPTH: ContextVar[int] = ContextVar("depth", default=0)


class Progress:
    """Writes what a run is doing; the only module that prints.

    Args:
        stream: Where to write; standard output by default.
        is_quiet: Show only tables and warnings.
    """

    def __init__(self, *, stream: TextIO | None = None, is_quiet: bool = False) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._is_quiet = is_quiet
        self._started = time.monotonic()
        self._told = 0.0
        self._writing = threading.Lock()

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def line(self, text: str) -> None:
        """One line with the time that passed."""
        if not self._is_quiet:
            self._write(f"{self.elapsed:7.1f} s  {_indent()}{text}\n")

    def warning(self, text: str) -> None:
        """One line that is shown even when quiet."""
        self._write(f"{self.elapsed:7.1f} s  {_indent()}warning: {text}\n")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A piece of work: one line when it ends, with the time it took."""
        begun = time.monotonic()
        self._transient(f"{self.elapsed:7.1f} s  {_indent()}{title} ...")
        depth = _DEPTH.set(_DEPTH.get() + 1)
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            _DEPTH.reset(depth)
            self._transient("")
            self.line(f"{title}: {outcome} in {time.monotonic() - begun:.1f} s")

    def bar(self, *, done: int, total: int, label: str = "") -> None:
        """Redraw a bar on a terminal; elsewhere say how far it is, once a minute at most."""
        if not self._stream.isatty():
            if self.elapsed - self._told >= _PAUSE and done < total:
                self._told = self.elapsed
                self.line(f"{done:,} of {total:,} {label}".rstrip())
            return
        filled = _BAR_WIDTH * done // max(total, 1)
        drawn = "#" * filled + "." * (_BAR_WIDTH - filled)
        self._transient(
            f"{self.elapsed:7.1f} s  [{drawn}] {done}/{total} {label}" if done < total else ""
        )

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table with aligned columns; numbers to the right."""
        texts = [[_text(value) for value in row] for row in rows]
        widths = [
            max([len(name), *(len(row[index]) for row in texts)])
            for index, name in enumerate(columns)
        ]
        numeric = [
            bool(rows)
            and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
            for index in range(len(columns))
        ]
        lines = ["", title, _aligned(columns, widths, numeric), "  ".join("-" * w for w in widths)]
        lines += [_aligned(row, widths, numeric) for row in texts]
        self._write("\n".join(line.rstrip() for line in lines) + "\n")

    def text(self, text: str) -> None:
        """A text as it is."""
        self._write(text.rstrip("\n") + "\n")

    def _transient(self, text: str) -> None:
        if self._stream.isatty() and not self._is_quiet:
            self._write(f"\r\x1b[2K{text}")

    def _write(self, text: str) -> None:
        with self._writing:
            self._stream.write(text)
            self._stream.flush()


def _indent() -> str:
    return "  " * _DEPTH.get()


def _aligned(texts: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    return "  ".join(
        text.rjust(width) if is_number else text.ljust(width)
        for text, width, is_number in zip(texts, widths, numeric, strict=True)
    )


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
