"""Intervals of the surrogate index hold the long-term effect; those without its error do not."""

import numpy as np
import pytest

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.experiments.surrogate_index import back_test, estimate_long_term, fit_index
from tests.unit.test_surrogate_index import ARMS, NAMES, TRUE_EFFECT, units


def coverage(*, n_worlds: int, n_history: int, n: int, seed: int) -> dict[str, float]:
    """Shares of worlds whose intervals hold what they should."""
    held = {"index": 0, "without_its_error": 0, "unexplained": 0}
    for world in range(n_worlds):
        rng = np.random.default_rng([seed, world])
        engine = PandasEngine(units(rng, n, noise=4.0))
        history = PandasEngine(units(rng, n_history, noise=4.0))
        index = run(fit_index(outcome="year", surrogates=NAMES), history)
        result = run(estimate_long_term(index, **ARMS), engine)
        (effect,) = result.effects
        (share,) = [d.statistic for d in result.diagnostics if d.name == "index_error.perk"]
        assert share is not None
        off = abs(effect.estimate - TRUE_EFFECT) / effect.std_error
        held["index"] += off < 1.96
        held["without_its_error"] += off < 1.96 * (1 - share) ** 0.5
        rest = run(back_test(index, **ARMS), engine).effects[2]
        held["unexplained"] += rest.ci_lower <= 0 <= rest.ci_upper
    return {name: count / n_worlds for name, count in held.items()}


def test_intervals_hold_the_long_term_effect() -> None:
    n_worlds = 400
    found = coverage(n_worlds=n_worlds, n_history=150, n=3000, seed=1)
    width = 3 * (0.95 * 0.05 / n_worlds) ** 0.5
    assert abs(found["index"] - 0.95) < width + 0.02
    assert abs(found["unexplained"] - 0.95) < width + 0.02
    assert found["without_its_error"] < found["index"] - 0.05


@pytest.mark.validation
@pytest.mark.parametrize(("n_history", "n"), [(100, 4000), (1000, 1000), (10_000, 400)])
def test_intervals_hold_the_long_term_effect_in_many_worlds(n_history: int, n: int) -> None:
    n_worlds = 4000
    found = coverage(n_worlds=n_worlds, n_history=n_history, n=n, seed=2)
    width = 3 * (0.95 * 0.05 / n_worlds) ** 0.5
    assert abs(found["index"] - 0.95) < width + 0.01
    assert abs(found["unexplained"] - 0.95) < width + 0.01
