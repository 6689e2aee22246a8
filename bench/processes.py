"""CPU time and memory of processes, read from `/proc` (Linux)."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(root: int) -> float:
    """CPU seconds of a process, its living descendants and the ended children they waited for."""
    return sum(one.own + one.waited_for for one in _spent(root).values())


@dataclass(frozen=True)
class Spent:
    """CPU seconds of a process, and of its ended children that it waited for."""

    own: float
    waited_for: float


class TreeClock:
    """CPU seconds of a process and everything below it since the clock was made.

    A process that ends takes its seconds along unless somebody waits for it, which nobody does for
    the Python workers of Spark. What the clock has counted stays counted.

    Args:
        root: The process.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._last = _spent(root)
        self._total = 0.0

    def __call__(self) -> float:
        """Seconds so far."""
        now = _spent(self._root)
        self._total += seconds_between(self._last, now)
        self._last = now
        return self._total


def seconds_between(
    before: Mapping[tuple[int, int], Spent], after: Mapping[tuple[int, int], Spent]
) -> float:
    """CPU seconds between two looks at some processes, each named by its id and when it started.

    The seconds of a process that ended come to those of whoever waited for it; if nobody did, what
    it spent since the first look is lost.
    """
    nothing = Spent(own=0.0, waited_for=0.0)
    own = sum(one.own - before.get(key, nothing).own for key, one in after.items())
    waited = sum(one.waited_for - before.get(key, nothing).waited_for for key, one in after.items())
    ended = sum(one.own + one.waited_for for key, one in before.items() if key not in after)
    return own + max(waited - ended, 0.0)


def own_cpu_seconds() -> float:
    """CPU seconds of this process alone, all of its threads."""
    times = os.times()
    return times.user + times.system


def peak_resident_bytes(pid: int) -> int:
    """The largest resident set that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def descendants(root: int) -> tuple[int, ...]:
    """Process ids below a process."""
    return tuple(pid for pid in _tree(root) if pid != root)


def _tree(root: int) -> dict[int, list[str]]:
    found = dict(_processes())
    children: dict[int, list[int]] = {}
    for pid, fields in found.items():
        children.setdefault(int(fields[1]), []).append(pid)
    inside, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        inside.append(pid)
        waiting.extend(children.get(pid, []))
    return {pid: found[pid] for pid in inside if pid in found}


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Process ids and what `/proc/<pid>/stat` says behind the command's name."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
                continue
            yield int(folder.name), text[text.rindex(")") + 2 :].split()


def _spent(root: int) -> dict[tuple[int, int], Spent]:
    """By process id and start time, in ticks since the machine's."""
    return {
        (pid, int(fields[19])): Spent(
            own=(int(fields[11]) + int(fields[12])) / _TICKS,
            waited_for=(int(fields[13]) + int(fields[14])) / _TICKS,
        )
        for pid, fields in _tree(root).items()
    }
