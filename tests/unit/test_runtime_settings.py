"""Settings are layered: base, environment, --set, flags."""

from pathlib import Path

import pytest

from causal.core.errors import SpecError
from jobs.runtime import places
from jobs.runtime.session import read_properties
from jobs.runtime.settings import ENVIRONMENTS, assignments, load_settings, merged


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_is_valid(env: str) -> None:
    assert load_settings(env=env).env == env
    assert read_properties(env)["spark.sql.session.timeZone"] == "UTC"


def test_the_local_warehouse_lies_in_the_checkout() -> None:
    assert load_settings().local_warehouse == places.root() / "warehouse"


def test_a_given_warehouse_starts_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(warehouse="here").local_warehouse == tmp_path / "here"
    assert load_settings(warehouse="s3a://bucket/x").local_warehouse is None
    assert load_settings(warehouse="file:///data/x").local_warehouse == Path("/data/x")


def test_overrides_win() -> None:
    settings = load_settings(overrides=["limits.lock_seconds=5", "spark={spark.x: 'y'}"])
    assert settings.limits.lock_seconds == 5
    assert settings.limits.write_attempts == 5
    assert settings.spark == {"spark.x": "y"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["limits.lock_second=5"], "did you mean 'lock_seconds'"),
        (["limits.lock_seconds=often"], "limits.lock_seconds"),
        (["limits"], "key.path=value"),
        (["limits=[1"], "not YAML"),
        (["tables=catalog"], "needs a catalog"),
        (["catalog=a; DROP"], "catalog"),
        (["database=2026-13-45"], "not YAML"),
    ],
)
def test_mistakes(overrides: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_settings(overrides=overrides)


@pytest.mark.parametrize("warehouse", ["", "a\0b"])
def test_a_warehouse_needs_a_name(warehouse: str) -> None:
    with pytest.raises(SpecError, match="a folder or URI is expected"):
        load_settings(warehouse=warehouse)


def test_a_warehouse_is_no_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below"):
        with pytest.raises(SpecError, match="this is a file, not a folder"):
            load_settings(warehouse=str(place))


def test_an_unknown_environment() -> None:
    with pytest.raises(SpecError, match="allowed: local, cluster, databricks"):
        load_settings(env="prod")


def test_a_mistake_in_a_file_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base.yaml").write_text("warehouse: w\n", encoding="utf-8")
    (tmp_path / "local.yaml").write_text("warehouse: v\nlimitz: {}\n", encoding="utf-8")
    monkeypatch.setenv("CAUSALAKE_CONF", str(tmp_path))
    with pytest.raises(SpecError, match=r"local\.yaml:2: limitz: unknown key, did you mean"):
        load_settings()


def test_assignments_nest_and_merge() -> None:
    assert assignments(["a.b=1", "a.c=[x, y]"]) == {"a": {"b": 1, "c": ["x", "y"]}}
    assert merged({"a": {"b": 1}, "c": 2}, {"a": {"d": 3}}) == {"a": {"b": 1, "d": 3}, "c": 2}
