"""Where the project keeps its files: the checkout, its configuration and the cache of jars."""

import os
from pathlib import Path

from causal.core.errors import SpecError

_PACKAGE = Path(__file__).resolve().parents[1]


def root() -> Path:
    """The folder that relative paths of the settings start from.

    The checkout when there is one; the working directory when the package was installed or zipped.
    """
    given = os.environ.get("CAUSALAKE_ROOT")
    if given:
        return Path(given)
    checkout = _PACKAGE.parent
    return checkout if (checkout / "conf" / "base.yaml").is_file() else Path.cwd()


def conf(*parts: str) -> Path:
    """A file or folder below `conf`.

    Args:
        *parts: Path below `conf`, such as `("worlds", "drivers.yaml")`.

    Raises:
        SpecError: No configuration folder is found.
    """
    candidates = [root() / "conf", _PACKAGE / "conf"]
    if "CAUSALAKE_CONF" in os.environ:
        candidates.insert(0, Path(os.environ["CAUSALAKE_CONF"]))
    for folder in candidates:
        if (folder / "base.yaml").is_file():
            return folder.joinpath(*parts)
    raise SpecError(
        "no conf folder with a base.yaml was found; set CAUSALAKE_CONF to it", given=candidates
    )


def cache() -> Path:
    """The folder for what is fetched once: jars (override with `CAUSALAKE_CACHE`)."""
    given = os.environ.get("CAUSALAKE_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "causalake"
