"""Which jobs there are: one file each in `jobs/`; help lines are read without importing them."""

import ast
import difflib
import functools
import hashlib
import importlib
from collections.abc import Mapping
from importlib.resources import files
from types import ModuleType
from typing import TYPE_CHECKING, Any

from causal.core.errors import SpecError

if TYPE_CHECKING:
    from jobs.runtime.contract import CommandJob, TableJob

_NO_JOBS = frozenset({"__init__", "run"})


def job_lines() -> dict[str, str]:
    """Name and one-line help of each job, by name."""
    sources = {
        entry.name.removesuffix(".py"): entry
        for entry in files("jobs").iterdir()
        if entry.name.endswith(".py")
    }
    lines = {}
    for name in sorted(set(sources) - _NO_JOBS):
        docstring = ast.get_docstring(ast.parse(sources[name].read_text(encoding="utf-8")))
        lines[name] = docstring.splitlines()[0] if docstring else ""
    return lines


def find_job(name: str) -> "TableJob[Any] | CommandJob[Any]":
    """The `JOB` of `jobs/<name>.py`.

    Raises:
        SpecError: There is no such job.
    """
    known = job_lines()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise SpecError(f"unknown job{hint}", given=name, allowed=list(known))
    module: ModuleType = importlib.import_module(f"jobs.{name}")
    job: TableJob[Any] | CommandJob[Any] = module.JOB
    return job


@functools.cache
def code_version() -> str:
    """SHA-256 over every module of the suite: a change of code makes what it wrote stale."""
    digest = hashlib.sha256()
    for package in ("causal", "jobs", "transforms"):
        for path, text in sorted(_modules(files(package), package).items()):
            digest.update(f"{path}\0{len(text)}\0{text}".encode())
    return digest.hexdigest()


def _modules(folder: Any, prefix: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for entry in folder.iterdir():
        path = f"{prefix}/{entry.name}"
        if entry.is_dir():
            found.update(_modules(entry, path))
        elif entry.name.endswith(".py"):
            found[path] = entry.read_text(encoding="utf-8")
    return found
