"""The examples in the method's docstring and on its page are true."""

import doctest
import re
from pathlib import Path

import yaml

from causal.core.spec import validate
from causal.experiments import ab
from causal.experiments.ab_options import AbOptions
from causal.experiments.metrics import Metric, Winsorise

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods" / "ab.md"


def test_the_example_runs() -> None:
    found = doctest.testmod(ab)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_spec_of_the_page_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert validate(ab.SPEC, yaml.safe_load(block)).name == "checkout"


def test_the_page_of_metrics_is_valid_and_names_what_it_explains() -> None:
    text = (PAGE.parent / "ab_metrics.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)

    assert validate(ab.SPEC, yaml.safe_load(block)).name == "pages"
    own = ("quantile", "resolution", "churn_day", "observed_days", "horizon")
    assert [name for name in own if name not in Metric.model_fields or f"`{name}" not in text] == []
    assert [name for name in Winsorise.model_fields if name not in text] == []


def test_the_page_names_every_option() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in AbOptions.model_fields if f"`{name}`" not in text] == []
