"""The example in the method's docstring is run."""

import doctest

from causal.experiments import ab


def test_the_example_runs() -> None:
    found = doctest.testmod(ab)
    assert found.attempted > 0
    assert found.failed == 0
