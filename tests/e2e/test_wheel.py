"""The wheel holds what the checkout holds: every module and every file of the configuration."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jobs", "transforms", "causal")


def test_the_wheel_holds_all_modules_and_the_configuration(tmp_path: Path) -> None:
    for name in (*PACKAGES, "conf"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "setup.py", tmp_path)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", "dist", "."], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "dist").glob("causalake-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    modules = {str(p.relative_to(ROOT)) for name in PACKAGES for p in (ROOT / name).rglob("*.py")}
    files = {
        f"jobs/{path.relative_to(ROOT)}"
        for path in (ROOT / "conf").rglob("*")
        if path.suffix in {".yaml", ".conf", ".properties"}
    }

    assert len(files) > 30
    assert modules | files <= held
