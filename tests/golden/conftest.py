"""Where golden tests find published data."""

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def validation_data() -> Path:
    """The folder of the public validation cases that no package ships.

    Set `CAUSALAKE_VALIDATION_DATA` when it does not stand beside the repository.
    """
    given = os.environ.get("CAUSALAKE_VALIDATION_DATA")
    folder = Path(given) if given else _REPOSITORY.parent / "shared" / "validation" / "data"
    if not folder.is_dir():
        pytest.skip(f"no public validation data: {folder} does not exist")
    return folder
