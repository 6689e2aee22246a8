"""The newest stored figures as the rows of the table in docs/performance.md."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

_HEAD = (
    "| work | peer | ratio (CPU) | ratio (wall) | target | ours, CPU s | peer, CPU s | measured |",
    "|---|---|---|---|---|---|---|---|",
)


def table(names: Iterable[str], *, folder: Path) -> str:
    """A Markdown table, one row per question that has been measured at full scale.

    Args:
        names: Questions in the order wanted.
        folder: Where the results live.
    """
    paths = [folder / f"{name}.json" for name in names]
    newest = [json.loads(path.read_text(encoding="utf-8"))[-1] for path in paths if path.exists()]
    return "\n".join([*_HEAD, *map(_row, newest)])


def _row(entry: dict[str, Any]) -> str:
    cells = (
        entry["work"],
        entry["peer"],
        f"**{entry['ratio']:.2g}** {'met' if entry['is_met'] else 'missed'}",
        "-" if entry["wall_ratio"] is None else f"{entry['wall_ratio']:.2g}",
        f"<= {entry['target']:g}",
        _seconds(entry["ours"]),
        _seconds(entry["peer_runs"]),
        str(entry["machine"]["measured_at"])[:10],
    )
    return f"| {' | '.join(cells)} |"


def _seconds(runs: list[dict[str, float]]) -> str:
    return f"{median(run['cpu_seconds'] for run in runs):.2f}" if runs else "-"
