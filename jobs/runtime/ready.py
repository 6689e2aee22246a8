"""Whether this machine is ready: a Java is found, the Delta jars are cached (`make setup`)."""

import sys

from jobs.runtime import jars
from jobs.runtime.cli import guarded
from jobs.runtime.java import find_java_home, java_version
from jobs.runtime.progress import Progress


def main() -> int:
    """Check; the exit code."""
    home = find_java_home()
    paths = jars.ensure_jars()
    java = java_version(home / "bin" / "java")
    Progress().line(f"ready: Java {java}, Delta {jars.VERSION} in {paths[0].parent}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, is_debug="--debug" in sys.argv))
