"""The two Delta jars: kept in a local cache, fetched once by Spark's own resolver, checked by hash.

Plain `--packages` would put some thirty jars beside Spark's own, older copies of hadoop, jackson
and log4j among them; these two are all that Delta needs.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from causal.core.errors import CausalError
from jobs.runtime import places

VERSION = "4.4.0"
PACKAGE = f"io.delta:delta-spark_4.2_2.13:{VERSION}"
SHA256: Mapping[str, str] = {
    f"delta-spark_4.2_2.13-{VERSION}.jar": (
        "27d4fd8b1f879535c573ed1c718177d6a27f24d3e626ba02e216369725721ead"
    ),
    f"delta-storage-{VERSION}.jar": (
        "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc"
    ),
}
_EXCLUDED = (
    "org.apache.hadoop:hadoop-client-runtime",
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.parquet:parquet-hadoop",
    "io.unitycatalog:unitycatalog-client",
    "io.unitycatalog:unitycatalog-hadoop",
    "io.delta:delta-kernel-api",
    "io.delta:delta-kernel-defaults",
    "io.delta:delta-kernel-unitycatalog",
    "org.apache.logging.log4j:log4j-slf4j2-impl",
    "org.slf4j:slf4j-api",
)
_RESOLVE_SECONDS = 600


def ensure_jars() -> tuple[Path, ...]:
    """The paths of the two jars in the cache, which is filled if it is not yet.

    Raises:
        CausalError: They could not be resolved, or a file is not the published one.
    """
    folder = places.cache() / "jars"
    paths = tuple(folder / name for name in SHA256)
    if not all(path.is_file() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            if not path.is_file() and not _copied_from_local(path):
                _resolve(folder)
    for path in paths:
        _verify(path)
    return paths


def _copied_from_local(target: Path) -> bool:
    """Copy a jar that Ivy or Maven has fetched before; whether one was found."""
    for candidate in _local_copies(target.name):
        if candidate.is_file() and _sha256(candidate) == SHA256[target.name]:
            _copy(candidate, target)
            return True
    return False


def _local_copies(name: str) -> Iterator[Path]:
    artifact = name.removesuffix(f"-{VERSION}.jar")
    home = Path.home()
    for ivy in (home / ".ivy2", home / ".ivy2.5.2"):
        yield ivy / "jars" / f"io.delta_{name}"
        yield ivy / "cache" / "io.delta" / artifact / "jars" / name
    yield home / ".m2" / "repository" / "io" / "delta" / artifact / VERSION / name


def _resolve(folder: Path) -> None:
    """Let spark-submit resolve the package into an Ivy folder of its own; keep the two jars."""
    with tempfile.TemporaryDirectory(prefix="causalake-jars-") as scratch:
        script = Path(scratch) / "resolved.py"
        script.write_text("", encoding="utf-8")
        command = [
            spark_submit(),
            *("--master", "local[1]", "--conf", f"spark.jars.ivy={scratch}/ivy"),
            *("--packages", PACKAGE, "--exclude-packages", ",".join(_EXCLUDED), str(script)),
        ]
        done = subprocess.run(  # noqa: S603 - the command is built here from constants
            command, capture_output=True, text=True, timeout=_RESOLVE_SECONDS, check=False
        )
        for name in SHA256:
            found = Path(scratch) / "ivy" / "jars" / f"io.delta_{name}"
            if not found.is_file():
                raise CausalError(
                    f"the Delta jars could not be resolved (spark-submit: {done.returncode}); "
                    f"connect once, or put {' and '.join(SHA256)} into the folder",
                    given=folder,
                )
            _copy(found, folder / name)


def spark_submit() -> str:
    """The spark-submit to use: `SPARK_HOME`'s, else that of the installed pyspark."""
    home = os.environ.get("SPARK_HOME")
    if home:
        return str(Path(home) / "bin" / "spark-submit")
    import pyspark

    return str(Path(pyspark.__file__).parent / "bin" / "spark-submit")


def _copy(source: Path, target: Path) -> None:
    """Copy by way of a name of its own, so that no reader sees half a jar."""
    partial = target.with_suffix(f".{os.getpid()}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _verify(path: Path) -> None:
    found = _sha256(path)
    if found != SHA256[path.name]:
        raise CausalError(
            "the jar is not the published one; delete it and try again",
            given=found,
            allowed=SHA256[path.name],
            file=path,
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
