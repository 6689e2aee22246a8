"""What every analysis spec shares, and the conversion of pydantic's complaints to one line."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from causal.core.errors import SpecError
from causal.core.frames import Condition, Level

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
_MAX_SHOWN = 80
COLUMN_PATTERN = r"^[^`\x00-\x1f]{1,255}$"


class Part(BaseModel):
    """Base of every piece of a spec: frozen, unknown keys refused, no silent conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(Part):
    """The table that an analysis reads: a table of the lakehouse or a path to files.

    Attributes:
        table: `table` of the suite's own schema, or `schema.table` or `catalog.schema.table`.
        path: A file or folder; relative paths start at the working directory, then at the spec's.
        format: Format of `path`: delta, parquet or csv (guessed from the name if left out).
        version: Delta version to read (Delta only); the newest one if left out.
        null_value: The text that stands for a missing value in a CSV.
        where: Keeps rows whose column equals the value (or one of the listed values).
    """

    table: str | None = Field(
        default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,2}$"
    )
    path: str | None = Field(default=None, min_length=1)
    format: Literal["delta", "parquet", "csv"] | None = None
    version: int | None = Field(default=None, ge=0)
    null_value: str = ""
    where: dict[str, Level | Annotated[list[Level], Field(min_length=1)]] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if (self.table is None) == (self.path is None):
            raise ValueError("give exactly one of table and path")
        return self

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """`where` as conditions."""
        return tuple(
            Condition(column, tuple(value) if isinstance(value, list) else (value,))
            for column, value in self.where.items()
        )


class Truth(Part):
    """Where the generated worlds keep the true value of what this analysis estimates.

    Attributes:
        world: The world.
        design: Trial, campaign or choice of the world.
        coefficient: The estimand that coefficients of a regression are held against; left out:
            the contrast that the term names, or the average treatment effect. A regression
            adjusted for what units choose by aims at `overlap`, a mean weighted by the variance of
            the choice (Angrist 1998).
    """

    world: Literal["subscribers", "drivers", "checkout", "passengers"]
    design: str
    coefficient: Literal["ate", "att", "overlap"] | None = None


class Spec(Part):
    """One analysis: its data, its method and the method's options.

    Methods subclass this and narrow `method` and `options`.
    """

    name: str = Field(pattern=NAME_PATTERN)
    description: str = ""
    source: Source
    method: str
    confidence_level: float = Field(default=0.95, gt=0.5, lt=1.0, strict=True)
    seed: int = Field(default=0, ge=0, lt=2**63, strict=True)
    truth: Truth | None = None

    @property
    def other_sources(self) -> Mapping[str, Source]:
        """Further tables that the method reads, by the option that names them."""
        return {}


SpecType = TypeVar("SpecType", bound=BaseModel)
Location = tuple[int | str, ...]


def validate(
    model: type[SpecType], data: Any, *, file: object = None, prefix: str = ""
) -> SpecType:
    """Build a pydantic model; the first complaint becomes a `SpecError` with file and key.

    Args:
        model: The model.
        data: Parsed YAML or JSON.
        file: Named in the message.
        prefix: Dotted path under which `data` stands in the file.

    Raises:
        SpecError: The data do not fit; names the key, what was given and what is allowed.
    """
    if not isinstance(data, dict):
        raise SpecError(
            "a mapping of keys to values is expected", given=type(data).__name__, file=file
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _spec_error(model, error, data=data, file=file, prefix=prefix) from error


def _spec_error(
    model: type[BaseModel], error: ValidationError, *, data: Any, file: object, prefix: str
) -> SpecError:
    # An unknown key is usually a misspelt one: report it before the key it left missing.
    problems = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    paths = [_path(item["loc"], data, is_missing=item["type"] == "missing") for item in problems]
    top = paths[0]
    # Each branch of a union complains; the one that got furthest is the one that was meant.
    branches = [at for at, path in enumerate(paths) if path[: len(top)] == top]
    chosen = max(branches, key=lambda at: (len(paths[at]), -at))
    n_more = len({path for at, path in enumerate(paths) if at not in branches})
    more = f" (and {n_more} more)" if n_more else ""
    first, path = problems[chosen], paths[chosen]
    given = first["input"]
    same = [item["msg"] for item, other in zip(problems, paths, strict=True) if other == path]
    if first["type"] == "value_error" and isinstance(given, dict):
        for name in _keys_named(first["msg"], given):
            path, given = (*path, name), given[name]
    key = ".".join(str(part) for part in ((prefix,) if prefix else ()) + path) or None
    if first["type"] == "extra_forbidden":
        allowed = _keys_at(model, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), allowed, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        return SpecError(f"unknown key{hint}{more}", allowed=allowed, file=file, key=key)
    if first["type"] == "missing":
        return SpecError(f"this key is required{more}", file=file, key=key)
    return SpecError(f"{_message(same)}{more}", given=_given(given), file=file, key=key)


def _message(complaints: Sequence[str]) -> str:
    """One sentence of what all branches of a union say about the same value."""
    own = dict.fromkeys(text.removeprefix("Value error, ") for text in complaints)
    start = "Input should be "
    if len(own) > 1 and all(text.startswith(start) for text in own):
        return start + ", or ".join(text.removeprefix(start) for text in own)
    return "; or ".join(own)


def _keys_named(message: str, given: Mapping[str, object]) -> list[str]:
    """The key that a complaint about several keys names first; none or one."""
    words = re.findall(r"\w+", message.removeprefix("Value error, "))
    return [word for word in words if word in given][:1]


def _path(location: Location, data: Any, *, is_missing: bool) -> Location:
    """The keys of the file in pydantic's location, without the union branches that it names."""
    path: list[int | str] = []
    here = data
    for part in location[:-1] if is_missing else location:
        is_key = isinstance(here, dict) and part in here
        is_index = isinstance(here, list | tuple) and isinstance(part, int)
        if is_key or is_index:
            path.append(part)
            here = here[part]
    return (*path, *location[-1:]) if is_missing else tuple(path)


def _given(value: object) -> str | None:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else None


def _keys_at(model: type[BaseModel], path: Location) -> list[str]:
    """The keys a mapping at `path` may have, following nested models and lists of models."""
    models: list[type[BaseModel]] = [model]
    for part in path:
        if isinstance(part, int):
            continue
        followed = [
            inner
            for current in models
            for name, info in current.model_fields.items()
            if name == part
            for inner in _models_in(info.annotation)
        ]
        models = followed or [m for m in models if m.__name__ == part] or models
    return sorted({name for current in models for name in current.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    arguments = getattr(annotation, "__args__", ())
    return [found for argument in arguments for found in _models_in(argument)]
