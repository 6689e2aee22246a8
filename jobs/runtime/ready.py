"""Is this machine ready: a Java is found and the Delta jars are in the cache. `make setup` calls it."""

import sys

from jobs.runtime import jars
from jobs.runtime.cli import guarded
from jobs.runtime.java import find_java_home, java_version
from jobs.runtime.progress import Progress


def main() -> int:
    """Check; the exit code."""
    home = find_java_home()
    paths = jars.ensure_jars()
    Progress().line(
        f"ready: Java {java_version(home / 'bin' / 'java')}, Delta {jars.VERSION} in {paths[0].parent}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, is_debug="--debug" in sys.argv))
