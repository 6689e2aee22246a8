"""The zip that `--py-files` ships: packages and configuration, rebuilt when they changed.

A zip, not a wheel: a wheel given to `--py-files` imports on the driver but not on executors.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

_FOLDERS = {
    "jobs": (".py",),
    "transforms": (".py",),
    "causal": (".py",),
    "conf": (".yaml", ".conf"),
}
_EPOCH = (2020, 1, 1, 0, 0, 0)
_KEPT = 3


def ensure_zip(root: Path, *, folder: Path | None = None) -> Path:
    """The path of a zip of the checkout as it is now.

    Its name holds a hash of the content: a running job keeps the zip it started with, and the same
    content gives the same bytes.

    Args:
        root: The checkout.
        folder: Where to put it; `build` in the checkout by default.
    """
    members = {str(path.relative_to(root)): path.read_bytes() for path in _sources(root)}
    digest = hashlib.sha256()
    for name, content in members.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    folder = folder if folder is not None else root / "build"
    target = folder / f"causalake-{digest.hexdigest()[:12]}.zip"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{target.name}.{os.getpid()}"
        _write(partial, members)
        partial.replace(target)
        _forget_old(folder)
    return target


def _sources(root: Path) -> Iterator[Path]:
    for name, suffixes in _FOLDERS.items():
        for path in sorted((root / name).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield path


def _write(target: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(target, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=_EPOCH), content, zipfile.ZIP_DEFLATED)


def _forget_old(folder: Path) -> None:
    """Keep the newest few: an older one may still be read by a job that is running."""
    newest_first = sorted(folder.glob("causalake-*.zip"), key=lambda path: -path.stat().st_mtime)
    for path in newest_first[_KEPT:]:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    from jobs.runtime import places
    from jobs.runtime.progress import Progress

    Progress().text(str(ensure_zip(places.root())))
