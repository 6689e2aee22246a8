"""What no module may do: leave the DataFrame, draw from global randomness, hide a failure, print.

Source is parsed, so a word in a comment or docstring is no offence.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("jobs", "transforms", "causal")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NOT_IN_CONNECT = frozenset({"rdd", "sparkContext", "_jvm", "_jsc", "_jdf", "_sc"})
RANDOM_COLUMNS = frozenset({"rand", "randn", "shuffle", "uuid", "monotonically_increasing_id"})
COLLECTS = frozenset(
    {"toPandas", "toArrow", "toLocalIterator", "collect", "take", "tail", "foreach", "mapInPandas"}
)
MAY_COLLECT = frozenset(
    {
        "transforms/bounded.py",
        "jobs/runtime/lakehouse.py",  # lines of table histories
        "jobs/notebook_runner/shim.py",  # the rows that a notebook displays
    }
)
LOADS_BY_HASH = "causal/uplift/learners.py"
"""Runs stored models, after their bytes were found to be the recorded ones."""

OUTERMOST = "jobs/runtime/cli.py"

Rule = Callable[[ast.AST, str], bool]


def leaves_the_data_frame(node: ast.AST, _: str) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in NOT_IN_CONNECT


def draws_random_columns(node: ast.AST, _: str) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="F"), attr=name)):
            return name in RANDOM_COLUMNS
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="random"), attr=name)):
            return name not in {"default_rng", "SeedSequence", "Generator", "PCG64"}
        case _:
            return False


def collects_rows(node: ast.AST, module: str) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in COLLECTS and module not in MAY_COLLECT
        case _:
            return False


def loads_unsafely(node: ast.AST, module: str) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="yaml"), attr=name)):
            return name in {"load", "unsafe_load", "full_load"}
        case ast.Call(func=ast.Attribute(value=ast.Name(id="pickle"), attr=name)):
            return name in {"load", "loads"} and module != LOADS_BY_HASH
        case ast.Call(func=ast.Name(id=name)):
            return name in {"eval", "exec"}
        case _:
            return False


def prints(node: ast.AST, _: str) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name in {"print", "breakpoint"}
        case _:
            return False


def hides_a_failure(node: ast.AST, module: str) -> bool:
    if not isinstance(node, ast.ExceptHandler) or module == OUTERMOST:
        return False
    caught = [node.type] if node.type is None else list(ast.walk(node.type))
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"})
        for kind in caught
    )


RULES = (
    leaves_the_data_frame,
    draws_random_columns,
    collects_rows,
    loads_unsafely,
    prints,
    hides_a_failure,
)


def offences(source: str, module: str, rule: Rule) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if rule(node, module):
            yield node.lineno  # type: ignore[attr-defined]


@pytest.mark.parametrize("rule", RULES, ids=[rule.__name__ for rule in RULES])
def test_no_module_breaks_the_rule(rule: Rule) -> None:
    found = [
        f"{module}:{line}"
        for path in MODULES
        for module in [path.relative_to(ROOT).as_posix()]
        for line in offences(path.read_text("utf-8"), module, rule)
    ]

    assert found == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (leaves_the_data_frame, "df.rdd.map(f)"),
        (leaves_the_data_frame, "spark.sparkContext"),
        (draws_random_columns, "F.rand(seed)"),
        (draws_random_columns, "np.random.normal()"),
        (collects_rows, "df.limit(3).toPandas()"),
        (collects_rows, "rows = df.collect()"),
        (loads_unsafely, "yaml.load(text)"),
        (loads_unsafely, "pickle.loads(data)"),
        (prints, "print(1)"),
        (hides_a_failure, "try:\n    f()\nexcept Exception:\n    pass"),
        (hides_a_failure, "try:\n    f()\nexcept (ValueError, BaseException):\n    pass"),
        (hides_a_failure, "try:\n    f()\nexcept:\n    pass"),
    ],
)
def test_the_rules_find_what_they_forbid(rule: Rule, source: str) -> None:
    assert list(offences(source, "causal/module.py", rule))


def test_the_outermost_frame_catches_once() -> None:
    source = (ROOT / OUTERMOST).read_text("utf-8")

    assert len(list(offences(source, "elsewhere", hides_a_failure))) == 1


def test_the_rules_see_every_package() -> None:
    assert set(PACKAGES) == {path.relative_to(ROOT).parts[0] for path in MODULES}
    assert {path.relative_to(ROOT).as_posix() for path in MODULES} >= MAY_COLLECT
