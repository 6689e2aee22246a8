"""Every mistake in a YAML file is one line with file and line number."""

from pathlib import Path

import pytest

from causal.core.errors import SpecError
from jobs.runtime.yaml_file import MAX_BYTES, read_yaml


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "spec.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_data_and_lines(tmp_path: Path) -> None:
    found = read_yaml(written(tmp_path, "a: 1\nb:\n  c:\n    - {d: x}\n"))
    assert found.data == {"a": 1, "b": {"c": [{"d": "x"}]}}
    assert found.line_of("b.c.0.d") == 4
    assert found.line_of("b.missing") == 2
    assert found.line_of(None) is None


def test_an_error_is_located(tmp_path: Path) -> None:
    found = read_yaml(written(tmp_path, "a: 1\nb:\n  c: 2\n"))
    text = str(found.located(SpecError("wrong", key="b.c")))
    assert text == f"{found.path}:3: b.c: wrong"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\na: 2\n", 2, "stands twice"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4, "stands twice"),
        ("a: [1, 2\nb: 3\n", 2, "is not YAML"),
        ("a: 1\n\tb: 2\n", 2, "is not YAML"),
        ("on: 1\n", 1, "must be text"),
        ("? [1, 2]\n: 3\n", 1, "must be text"),
        ("", None, "is empty"),
        ("- 1\n", None, "a mapping"),
        (b"a: \xff\n", None, "UTF-8"),
        ("a: !!python/object/apply:os.getcwd []\n", 1, "is not YAML"),
        ("day: 2026-13-45\n", 1, "not what it looks like"),
        ("a: 1\nb: !!timestamp abc\n", 2, "not what it looks like"),
        ("a: 1\nb: !!bool maybe\n", 2, "not what it looks like"),
        ("a: " + "[" * 3000 + "]" * 3000, None, "nested too deeply"),
        ("a: " + "[" * 60 + "]" * 60, None, "nested too deeply"),
        ("a: &a [*a]\n", None, "nested too deeply"),
    ],
)
def test_mistakes(tmp_path: Path, text: str | bytes, line: int | None, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SpecError, match=message) as raised:
        read_yaml(path)
    assert str(raised.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert "\n" not in str(raised.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path, b"\xef\xbb\xbfa: 1\n")).data == {"a": 1}


def test_missing_and_huge_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        read_yaml(tmp_path)
    with pytest.raises(SpecError, match="too large"):
        read_yaml(written(tmp_path, b"a: " + b"x" * MAX_BYTES))


def test_aliases_do_not_explode(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    with pytest.raises(SpecError, match="too many values"):
        read_yaml(written(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    ("path", "message"),
    [("/dev/zero", "not a regular file"), ("a\0b", "null byte"), ("x" * 5000, "too long")],
)
def test_odd_paths(path: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        read_yaml(path)
    assert len(str(raised.value)) < 400
