"""Intervals of the surrogate index hold the long-term effect; those without its error do not."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core.result import Result
from tests.unit.test_surrogate_index import TRUE_EFFECT, analysed, units


def in_homes(rng: np.random.Generator, n: int, *, first: int = 0) -> pd.DataFrame:
    """Homes of four share their arm and, in the history and the trial, a part of all they do."""
    frame = units(rng, n, noise=4.0, first=first)
    shared = rng.normal(size=n // 4)[frame["home"]]
    visits, spend = frame["visits"] + shared, frame["spend"] + shared
    year = frame["year"] + 3.5 * shared + 3.0 * rng.normal(size=n // 4)[frame["home"]]
    return frame.assign(visits=visits, spend=spend, year=year)


def coverage(
    *, n_worlds: int, n_history: int, n: int, seed: int, is_clustered: bool = False
) -> dict[str, float]:
    """Shares of worlds whose intervals hold what they should."""
    held = {"index": 0, "cuped": 0, "without_its_error": 0, "unexplained": 0, "by_units": 0}
    options: dict[str, Any] = {"back_test": True, "covariates": ["before"]}
    homes = {"cluster": "home", "history_cluster": "home"} if is_clustered else {}
    for world in range(n_worlds):
        rng = np.random.default_rng([seed, world])
        if is_clustered:
            new, past = in_homes(rng, n, first=10**6), in_homes(rng, n_history)
        else:
            new, past = units(rng, n, noise=4.0, first=10**6), units(rng, n_history, noise=4.0)
        result = analysed(new, past, **options, **homes)
        adjusted, _, _, found, _, rest = result.effects
        held["index"] += found.ci_lower <= TRUE_EFFECT <= found.ci_upper
        held["cuped"] += adjusted.ci_lower <= TRUE_EFFECT <= adjusted.ci_upper
        held["unexplained"] += rest.ci_lower <= 0 <= rest.ci_upper
        off = abs(adjusted.estimate - TRUE_EFFECT) / adjusted.std_error
        held["without_its_error"] += off < 1.96 * (1 - _share(result)) ** 0.5
        if is_clustered:
            plain = analysed(new, past, **options).effects[3]
            held["by_units"] += plain.ci_lower <= TRUE_EFFECT <= plain.ci_upper
    return {name: count / n_worlds for name, count in held.items()}


def _share(result: Result) -> float:
    (share,) = [d.statistic for d in result.diagnostics if d.name.startswith("index_error")]
    assert share is not None
    return share


def check(found: dict[str, float], n_worlds: int) -> None:
    for name in ("index", "cuped", "unexplained"):
        held = round(found[name] * n_worlds)
        assert stats.binomtest(held, n_worlds, 0.95).pvalue > 1e-3, found


def test_intervals_hold_the_long_term_effect() -> None:
    found = coverage(n_worlds=200, n_history=150, n=3000, seed=1)
    check(found, 200)
    assert found["without_its_error"] < found["cuped"] - 0.05


def test_intervals_of_homes_hold_the_long_term_effect() -> None:
    found = coverage(n_worlds=200, n_history=400, n=1200, seed=3, is_clustered=True)
    check(found, 200)
    assert found["by_units"] < 0.9


@pytest.mark.validation
@pytest.mark.parametrize("is_clustered", [False, True])
@pytest.mark.parametrize(("n_history", "n"), [(100, 4000), (1000, 1000), (10_000, 400)])
def test_intervals_hold_the_long_term_effect_in_many_worlds(
    n_history: int, n: int, *, is_clustered: bool
) -> None:
    found = coverage(n_worlds=2000, n_history=n_history, n=n, seed=2, is_clustered=is_clustered)
    print(n_history, n, is_clustered, found)  # noqa: T201 - docs/methods/surrogate_index.md
    assert all(0.935 <= found[name] <= 0.965 for name in ("index", "cuped", "unexplained")), found
