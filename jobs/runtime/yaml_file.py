"""Reading a YAML file so that a mistake in it can be pointed at by line.

Only plain data is read (`yaml.SafeLoader`); keys that repeat, files that are too large and aliases
that would expand beyond reason are refused.
"""

import stat
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from causal.core.errors import CausalError, SpecError

MAX_BYTES = 1_000_000
MAX_NODES = 50_000
MAX_DEPTH = 50
_MAX_SHOWN = 200
_KEY_TAGS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:int"})


@dataclass(frozen=True)
class YamlFile:
    """The data of a file and the line of each of its keys.

    Attributes:
        path: Where it was read.
        data: The top mapping.
        lines: Dotted key path (`options.metrics.0.name`) to line number, counted from 1.
    """

    path: Path
    data: dict[str, Any]
    lines: dict[str, int]

    def line_of(self, key: str | None) -> int | None:
        """The line of a key, or of the nearest key above it that the file has."""
        parts = key.split(".") if key else []
        while parts:
            if (line := self.lines.get(".".join(parts))) is not None:
                return line
            parts.pop()
        return None

    def located(self, error: CausalError) -> CausalError:
        """The same error, pointing at file and line."""
        line = self.line_of(error.key)
        place = str(self.path) if line is None else f"{self.path}:{line}"
        return type(error)(
            error.message, given=error.given, allowed=error.allowed, file=place, key=error.key
        )


class PlainLoader(yaml.SafeLoader):
    """Plain data only; a value that its tag does not fit is pointed at."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Hashable:  # noqa: FBT001, FBT002 - PyYAML's signature
        """The value of a node."""
        try:
            value: Hashable = super().construct_object(node, deep=deep)
        except (ValueError, KeyError, AttributeError) as error:
            # PyYAML looks up and matches without asking: `!!bool maybe`, `!!timestamp abc`.
            detail = f": {error}" if isinstance(error, ValueError) else ""
            raise yaml.constructor.ConstructorError(
                None, None, f"a value is not what it looks like{detail}", node.start_mark
            ) from error
        return value


def read_yaml(path: Path | str) -> YamlFile:
    """Read a YAML file whose top is a mapping.

    Raises:
        SpecError: The file cannot be read, is too large, is no YAML or mapping, repeats a key.
    """
    path = Path(path)
    root = _compose(_text(path), path)
    if not isinstance(root, yaml.MappingNode):
        raise SpecError("a mapping of keys to values is expected", file=path)
    lines = dict(_lines(root, path))
    return YamlFile(path=path, data=_data(root, path), lines=lines)


def plain_value(text: str) -> Any:
    """The value of a YAML text, e.g. of one setting.

    Raises:
        yaml.YAMLError: The text is no YAML.
    """
    loader = PlainLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _data(root: yaml.Node, path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = PlainLoader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, path) from error
    return data


def _text(path: Path) -> str:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            # A device may have no end, and a pipe is empty when the job reads it again.
            raise SpecError("is not a regular file", file=path)
        if state.st_size > MAX_BYTES:
            raise SpecError(
                "the file is too large",
                given=state.st_size,
                allowed=f"{MAX_BYTES} bytes",
                file=path,
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"cannot be read ({error.strerror})", file=shown_path(path)) from error
    except UnicodeDecodeError as error:
        raise SpecError("is not UTF-8 text", file=path) from error
    except ValueError as error:
        raise SpecError(f"cannot be read ({error})", file=repr(str(path))) from error


def shown_path(path: object) -> str:
    """A path as a message shows it: cut where no system takes so long a name."""
    text = str(path)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _compose(text: str, path: Path) -> yaml.Node:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, path) from error
    except yaml.YAMLError as error:
        raise SpecError("is not YAML: a character that may not stand there", file=path) from error
    except RecursionError as error:
        raise _too_deep(path) from error
    if root is None:
        raise SpecError("the file is empty", file=path)
    return root


def _not_yaml(error: yaml.MarkedYAMLError, path: Path) -> SpecError:
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    return SpecError(f"is not YAML: {error.problem}", file=f"{path}:{line}")


def _too_deep(path: Path) -> SpecError:
    return SpecError("is nested too deeply", allowed=f"{MAX_DEPTH} levels", file=path)


def _lines(root: yaml.MappingNode, path: Path) -> Iterator[tuple[str, int]]:
    """Each key path with its line; refuses repeated or structured keys and huge expansions."""
    pending: list[tuple[str, int, yaml.Node]] = [("", 0, root)]
    n_seen = 0
    while pending:
        prefix, depth, node = pending.pop()
        n_seen += 1
        if depth > MAX_DEPTH:
            raise _too_deep(path)
        if n_seen > MAX_NODES:
            raise SpecError("expands to too many values", allowed=f"{MAX_NODES} values", file=path)
        if isinstance(node, yaml.MappingNode):
            for name, line, value in _entries(node, path):
                yield f"{prefix}{name}", line
                pending.append((f"{prefix}{name}.", depth + 1, value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                yield f"{prefix}{index}", value.start_mark.line + 1
                pending.append((f"{prefix}{index}.", depth + 1, value))


def _entries(node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, int, yaml.Node]]:
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        place = f"{path}:{line}"
        if not isinstance(key, yaml.ScalarNode) or key.tag not in _KEY_TAGS:
            given = key.value if isinstance(key, yaml.ScalarNode) else None
            raise SpecError(
                "a key must be text or a whole number (quote it)", given=given, file=place
            )
        if key.value in seen:
            raise SpecError(
                f"the key stands twice (also in line {seen[key.value]})", file=place, key=key.value
            )
        seen[key.value] = line
        yield key.value, line, value
