"""Methods are found by name and imported when they are first used."""

import subprocess
import sys

import pytest

from causal.core import registry
from causal.core.errors import SpecError
from causal.core.spec import Spec


@pytest.mark.parametrize("name", registry.names())
def test_a_method_exposes_its_spec_plan_and_figures(name: str) -> None:
    method = registry.method(name)

    assert issubclass(method.SPEC, Spec)
    assert method.SPEC.model_fields["method"].annotation is not str
    assert callable(method.estimate)
    assert callable(method.figures)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="method: unknown method; given: abc; allowed: ab, did"):
        registry.method("abc")


def test_the_registry_imports_no_method() -> None:
    modules = sorted(registry.MODULES.values())
    code = f"import sys, causal.core.registry; print([m for m in {modules} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_table_of_methods_is_read_only() -> None:
    with pytest.raises(TypeError):
        registry.MODULES["new"] = "causal.new"  # type: ignore[index]
