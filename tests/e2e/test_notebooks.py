"""Every notebook runs from its first cell to its last, with its pictures, on a small world."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
N_PICTURES = {
    "01_quickstart": 6,
    "02_power_and_cuped": 4,
    "03_sequential": 8,
    "04_heterogeneity": 4,
    "05_rollout": 4,
    "06_encouragement": 3,
    "07_regions": 12,
    "08_confounded_exposure": 5,
    "09_targeting": 4,
    "10_customer_value": 7,
}
SMALL_PICTURE = 5_000
IMAGE = 'src="data:image/png;base64,'
QUICK = (
    *("--driver-memory", "2g"),
    *("--conf", "spark.master=local[2]"),
    *("--conf", "spark.sql.shuffle.partitions=2"),
    *("--conf", "spark.driver.extraJavaOptions=-XX:+UseSerialGC"),
)


@dataclass(frozen=True)
class Run:
    """What one `spark-submit.sh notebook` left of all notebooks."""

    folder: Path
    shown: str

    @property
    def warehouse(self) -> Path:
        return self.folder / "warehouse"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All notebooks in one session: each generates what those before it have not."""
    folder = tmp_path_factory.mktemp("notebooks")
    done = subprocess.run(
        [
            str(ROOT / "spark-submit.sh"),
            *QUICK,
            "notebook",
            *("--file", *map(str, NOTEBOOKS), "--output", "out", "--warehouse", "warehouse"),
            *("--set", "widgets.size=6000"),
        ],
        cwd=folder,
        env={**os.environ, "CAUSALAKE_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    return Run(folder, done.stderr + done.stdout)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path, run: Run) -> None:
    assert f"notebook {notebook.name}: done" in run.shown, run.shown
    output = run.folder / "out"
    executed = json.loads((output / f"{notebook.stem}.ipynb").read_text(encoding="utf-8"))
    shown = list(pictures(executed))
    assert len(shown) >= N_PICTURES[notebook.stem]
    for picture in shown:
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > SMALL_PICTURE
    page = (output / f"{notebook.stem}.html").read_text(encoding="utf-8")
    assert "No description has been provided" not in page
    assert page.count(IMAGE) == len(shown) + sum(text.count(IMAGE) for text in pages(executed))


def test_results_are_kept(run: Run) -> None:
    assert (run.warehouse / "mlflow" / "mlflow.db").is_file()
    assert (run.warehouse / "causalake" / "effects" / "_delta_log").is_dir()


def pictures(notebook: dict[str, Any]) -> Iterator[bytes]:
    for cell in notebook["cells"]:
        for item in cell.get("outputs", ()):
            if "image/png" in item.get("data", {}):
                yield base64.b64decode(item["data"]["image/png"])


def pages(notebook: dict[str, Any]) -> Iterator[str]:
    """What cells showed as HTML, such as a scorecard with figures of its own."""
    for cell in notebook["cells"]:
        for item in cell.get("outputs", ()):
            yield "".join(item.get("data", {}).get("text/html", ""))
