"""The settings of a run: `conf/base.yaml`, the environment's differences, `--set` and flags."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from causal.core.errors import SpecError
from causal.core.spec import validate
from jobs.runtime import places
from jobs.runtime.yaml_file import YamlFile, plain_value, read_yaml

ENVIRONMENTS = ("local", "cluster", "databricks")
_IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]*$"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrackingSettings(_Part):
    """Where runs are recorded.

    Attributes:
        uri: MLflow tracking URI; none: SQLite in the warehouse folder.
        artifacts: Artefacts of new experiments; none: beside the SQLite file, or the server's.
        prefix: Stands before every experiment's name (a workspace folder on Databricks).
    """

    uri: str | None = None
    artifacts: str | None = None
    prefix: str = ""


class Limits(_Part):
    """Guards.

    Attributes:
        frame_rows: Most rows of an aggregated frame that may reach the driver.
        frame_bytes: Most bytes of one.
        lock_seconds: How long to wait for another process that holds a table.
        write_attempts: How often a write is tried against concurrent writers.
        parallel_jobs: How many independent tables or analyses are worked on at a time.
    """

    frame_rows: int = Field(default=2_000_000, gt=0)
    frame_bytes: int = Field(default=1_000_000_000, gt=0)
    lock_seconds: float = Field(default=600.0, ge=0)
    write_attempts: int = Field(default=5, ge=1)
    parallel_jobs: int = Field(default=2, ge=1)


class Settings(_Part):
    """Everything about the place of a run that is not a job's own option.

    Attributes:
        env: local, cluster or databricks.
        warehouse: Folder or URI of the tables when `tables` is `path`.
        tables: `path`: tables live at `<warehouse>/<schema>/<table>`; `catalog`: they are
            `<catalog>.<database>.<table>` of the session's catalog.
        catalog: First part of three-level names when `tables` is `catalog`.
        database: The schema (second part of the name).
        tracking: MLflow.
        limits: Guards.
        spark: Spark settings that win over `conf/spark/<env>.conf`.
        jobs: Default options of jobs, by job name.
    """

    env: Literal["local", "cluster", "databricks"]
    warehouse: str = Field(min_length=1)
    tables: Literal["path", "catalog"] = "path"
    catalog: str | None = Field(default=None, pattern=_IDENTIFIER)
    database: str = Field(default="causalake", pattern=_IDENTIFIER)
    tracking: TrackingSettings = TrackingSettings()
    limits: Limits = Limits()
    spark: dict[str, str] = Field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_catalog(self) -> "Settings":
        if self.tables == "catalog" and self.catalog is None:
            raise ValueError("tables: catalog needs a catalog")
        return self

    @property
    def local_warehouse(self) -> Path | None:
        """The warehouse as a folder, or `None` when it is no local one."""
        if self.tables == "catalog":
            return None
        if self.warehouse.startswith("file:"):
            return Path(self.warehouse.removeprefix("file:").replace("///", "/", 1))
        return None if ":/" in self.warehouse else Path(self.warehouse)


def load_settings(
    *, env: str = "local", overrides: Iterable[str] = (), warehouse: str | None = None
) -> Settings:
    """Read the settings of an environment.

    Args:
        env: Which of `ENVIRONMENTS`.
        overrides: `key.path=value` texts, the value read as YAML.
        warehouse: Wins over the file; relative to the working directory.

    Raises:
        SpecError: An unknown environment or key, or a value that does not fit.
    """
    if env not in ENVIRONMENTS:
        raise SpecError("unknown environment", given=env, allowed=ENVIRONMENTS, key="--env")
    base = read_yaml(places.conf("base.yaml"))
    overlay = read_yaml(places.conf(f"{env}.yaml"))
    _checked(base, {"env": env, "warehouse": "unset", **base.data})
    data = merged(merged({"env": env}, base.data), overlay.data)
    _checked(overlay, data)
    given = assignments(overrides)
    data = merged(data, given)
    if warehouse is not None:
        if not warehouse or "\0" in warehouse:
            raise SpecError("a folder or URI is expected", given=repr(warehouse), key="--warehouse")
        data["warehouse"] = warehouse if ":/" in warehouse else str(Path(warehouse).resolve())
    settings = validate(Settings, data, file="--set" if given else None)
    found = settings.model_copy(update={"warehouse": _absolute(settings.warehouse)})
    if (folder := found.local_warehouse) is not None:
        check_folder(folder, key="--warehouse")
    return found


def check_folder(folder: Path, *, key: str) -> None:
    """Refuse a folder that cannot be made because a file stands in its way.

    Raises:
        SpecError: It, or a folder above it, is a file.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise SpecError("this is a file, not a folder", given=place, key=key)


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Nested mapping of `key.path=value` texts; values are read as YAML.

    Raises:
        SpecError: A text without `=`, or a value that is no YAML.
    """
    result: dict[str, Any] = {}
    for text in texts:
        path, equals, raw = text.partition("=")
        if not equals or not path:
            raise SpecError("--set takes key.path=value", given=text)
        try:
            value = plain_value(raw)
        except (yaml.YAMLError, RecursionError) as error:
            raise SpecError("the value is not YAML", given=raw, key=path) from error
        for part in reversed(path.split(".")):
            value = {part: value}
        result = merged(result, value)
    return result


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """`upper` over `lower`, mappings merged key by key, everything else replaced."""
    result = dict(lower)
    for key, value in upper.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both and isinstance(below, Mapping) else value
    return result


def _checked(source: YamlFile, data: Mapping[str, Any]) -> None:
    try:
        validate(Settings, dict(data))
    except SpecError as error:
        raise source.located(error) from error


def _absolute(warehouse: str) -> str:
    return warehouse if ":/" in warehouse else str(places.root() / warehouse)
