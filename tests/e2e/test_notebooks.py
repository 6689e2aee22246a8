"""Every notebook runs from its first cell to its last, with its pictures, on a small world."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
N_PICTURES = {"01_quickstart": 6}
SMALL_PICTURE = 5_000
QUICK = (
    *("--driver-memory", "2g"),
    *("--conf", "spark.master=local[2]"),
    *("--conf", "spark.sql.shuffle.partitions=2"),
    *("--conf", "spark.driver.extraJavaOptions=-XX:+UseSerialGC"),
)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = subprocess.run(
        [
            str(ROOT / "spark-submit.sh"),
            *QUICK,
            "notebook",
            *("--file", str(notebook), "--output", str(output)),
            *("--warehouse", str(tmp_path / "warehouse"), "--set", "widgets.size=2000"),
        ],
        cwd=tmp_path,
        env={**os.environ, "CAUSALAKE_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    executed = json.loads((output / f"{notebook.stem}.ipynb").read_text(encoding="utf-8"))
    shown = list(pictures(executed))
    assert len(shown) >= N_PICTURES[notebook.stem]
    for picture in shown:
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > SMALL_PICTURE
    page = (output / f"{notebook.stem}.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<img[^>]*src="data:image/png;base64,', page)) == len(shown)
    assert (tmp_path / "warehouse" / "mlflow" / "mlflow.db").is_file()
    assert (tmp_path / "warehouse" / "causalake" / "effects" / "_delta_log").is_dir()


def pictures(notebook: dict[str, Any]) -> Iterator[bytes]:
    for cell in notebook["cells"]:
        for item in cell.get("outputs", ()):
            if "image/png" in item.get("data", {}):
                yield base64.b64decode(item["data"]["image/png"])
