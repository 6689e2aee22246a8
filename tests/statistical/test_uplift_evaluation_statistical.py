"""Coverage of the intervals of uplift figures, for units and for clusters."""

from collections.abc import Callable

import numpy as np
import pytest

from causal.uplift.evaluation import Intervals, auuc, qini, qini_area, rate, uplift_at
from causal.uplift.resampling import Resampling, Score
from causal.uplift.score_histogram import Arm, ScoreHistogram, histogram_of

ESTIMATES = Intervals(resampling=None)
SCORE = np.linspace(0.95, -0.95, 20)
LEVEL = 0.3
ERRORS = 3.5
"""Half-width of a band in binomial standard errors."""

FIGURES: dict[str, Callable[[ScoreHistogram, Intervals], Score]] = {
    "qini": lambda data, how: qini(data, intervals=how),
    "auuc": lambda data, how: auuc(data, intervals=how),
    "qini causalml": lambda data, how: qini(data, definition="causalml", intervals=how),
    "auuc causalml": lambda data, how: auuc(data, definition="causalml", intervals=how),
    "autoc": lambda data, how: rate(data, intervals=how),
    "rate qini": lambda data, how: rate(data, weighting="qini", intervals=how),
    "uplift at 30 %": lambda data, how: uplift_at(data, k=0.3, intervals=how),
}


def histogram(n: np.ndarray, ones: np.ndarray) -> ScoreHistogram:
    """Twenty bins; n and ones have the arms (control, treated) as rows."""
    control, treated = (
        Arm(n=a[:, None], total=b[:, None], squares=b[:, None])
        for a, b in zip(n, ones, strict=True)
    )
    return ScoreHistogram(score=SCORE, treated=treated, control=control)


def chances() -> np.ndarray:
    return np.array([np.full(20, LEVEL), LEVEL + 0.08 + 0.1 * SCORE])


def coverage(name: str, *, n_worlds: int, n_draws: int, n: int) -> float:
    """Share of worlds of n units whose interval holds the value in an endless world."""
    rng = np.random.default_rng(31)
    truth = FIGURES[name](histogram(np.full((2, 20), 1e9), 1e9 * chances()), ESTIMATES).estimate
    inside = 0
    for world in range(n_worlds):
        sizes = rng.multinomial(n, np.full(40, 1 / 40)).reshape(2, 20)
        data = histogram(sizes * 1.0, rng.binomial(sizes, chances()) * 1.0)
        how = Intervals(resampling=Resampling(n_draws=n_draws, seed=world))
        found = FIGURES[name](data, how)
        assert found.ci_lower is not None
        assert found.ci_upper is not None
        inside += found.ci_lower <= truth <= found.ci_upper
    return inside / n_worlds


def band(n_worlds: int) -> float:
    return ERRORS * float(np.sqrt(0.95 * 0.05 / n_worlds))


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_intervals_hold_the_truth(name: str) -> None:
    found = coverage(name, n_worlds=300, n_draws=200, n=8000)
    assert found == pytest.approx(0.95, abs=band(300) + 0.005)


@pytest.mark.validation
@pytest.mark.parametrize("name", FIGURES)
def test_intervals_hold_the_truth_in_many_worlds(name: str) -> None:
    found = coverage(name, n_worlds=4000, n_draws=400, n=8000)
    assert found == pytest.approx(0.95, abs=band(4000) + 0.003)


@pytest.mark.slow
def test_clusters_need_folds() -> None:
    """Households of twenty share treatment and luck: intervals by units are too short."""
    rng = np.random.default_rng(5)
    n_worlds, n_clusters, size = 200, 300, 20
    truth, inside = None, np.zeros(2)
    for world in range(n_worlds + 1):
        # The first world is large and stands for the truth.
        clusters = 60_000 if world == 0 else n_clusters
        treated = np.repeat(rng.permutation(clusters) % 2, size)
        luck = np.repeat(rng.normal(0, 0.6, clusters), size)
        score = np.repeat(rng.choice(SCORE, clusters), size)
        outcome = 0.3 * treated * score + luck + rng.normal(0, 0.5, len(score))
        fold = np.repeat(np.arange(clusters) % 150, size)
        data = histogram_of(score=score, treated=treated, outcome=outcome, fold=fold)
        if truth is None:
            truth = qini_area(data, intervals=ESTIMATES).estimate * (n_clusters / clusters) ** 2
            continue
        for position, by in enumerate(("units", "folds")):
            how = Intervals(resampling=Resampling(by=by, n_draws=200, seed=world))  # type: ignore[arg-type]
            found = qini_area(data, intervals=how)
            assert found.ci_lower is not None
            assert found.ci_upper is not None
            inside[position] += found.ci_lower <= truth <= found.ci_upper
    by_units, by_folds = inside / n_worlds
    assert by_folds == pytest.approx(0.95, abs=band(n_worlds) + 0.01)
    assert by_units < 0.85
