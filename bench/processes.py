"""CPU time and memory of processes, read from `/proc` (Linux)."""

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(root: int) -> float:
    """CPU seconds of a process, its living descendants and the ended children they waited for."""
    return sum(_cpu_seconds(fields) for fields in _tree(root).values())


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


def _cpu_seconds(fields: list[str]) -> float:
    return sum(int(value) for value in fields[11:15]) / _TICKS
