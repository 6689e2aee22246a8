"""The documents are true: links resolve, commands exist, examples run, the tree is the disk's."""

import doctest
import re
from pathlib import Path

import pytest
import yaml

from causal.core import registry
from causal.core.spec import validate
from jobs.runtime.catalogue import job_lines
from jobs.runtime.places import root

ROOT = root()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
JOB = re.compile(r"spark-submit\.sh ([a-z_]+)\b")
TARGET = re.compile(r"\bmake ([a-z]+(?:-[a-z0-9]+)*)\b")
MACHINE = re.compile(r"/(?:home|root|tmp|work|Users)/\w|localhost:\d")
PACKAGES = ("jobs", "transforms", "causal", "tests", "conf")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code(text: str) -> str:
    """What stands in code spans and blocks."""
    return "\n".join(
        [*re.findall(r"```.*?```", text, flags=re.DOTALL), *re.findall(r"`[^`\n]+`", text)]
    )


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_resolve(page: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_exist(page: Path) -> None:
    text = code(page.read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, flags=re.MULTILINE))
    assert set(TARGET.findall(text)) <= targets
    assert set(JOB.findall(text)) <= set(job_lines())


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_no_path_of_a_machine(page: Path) -> None:
    assert MACHINE.findall(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("image", sorted((ROOT / "docs" / "images").iterdir()), ids=relative)
def test_pictures_are_small_and_shown(image: Path) -> None:
    assert image.stat().st_size < 300_000
    assert any(f"images/{image.name}" in page.read_text(encoding="utf-8") for page in PAGES)


def test_the_example_of_a_method_runs() -> None:
    outcome = doctest.testfile(
        str(ROOT / "docs" / "adding-a-method.md"),
        module_relative=False,
        optionflags=doctest.ELLIPSIS,
        encoding="utf-8",
    )
    assert outcome.attempted > 20
    assert outcome.failed == 0


def test_the_spec_of_the_readme_is_valid() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    data = yaml.safe_load(block)
    assert validate(registry.method(data["method"]).SPEC, data).name == "refunds"


def test_the_changelog_has_what_is_not_released() -> None:
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_tree_is_the_disks() -> None:
    drawn = _drawn()
    on_disk = {
        relative(folder)
        for package in PACKAGES
        for folder in [ROOT / package, *(ROOT / package).rglob("*")]
        if folder.is_dir() and not folder.name.startswith((".", "__"))
    }
    assert {path for path in drawn if path.split("/")[0] in PACKAGES} == on_disk
    assert [path for path in drawn if not (ROOT / path).exists()] == []


def test_every_job_is_in_the_documents() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [name for name in job_lines() if f"`{name}`" not in text] == []


def test_decisions_are_listed_and_complete() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text(encoding="utf-8")
    decisions = sorted(folder.glob("0*.md"))
    assert [path.name for path in decisions if path.name not in index] == []
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        parts = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
        assert parts == ["Context", "Drivers", "Options", "Decision"], path.name


def _drawn() -> set[str]:
    """The folders and files of the tree in docs/architecture.md, as paths."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```\ncausalake\n(.*?)```", text, flags=re.DOTALL)
    paths: set[str] = set()
    parent = ""
    for line in block.splitlines():
        names = re.split(r"\s{2,}", line.lstrip("│├└─ "))[0].split()
        is_top = line.startswith(("├", "└"))
        parent = names[0] if is_top else parent
        paths.update(names if is_top else {f"{parent}/{name}" for name in names})
    return paths
