"""Coverage of quantile effects: medians and tails, heavy tails, rows that hang together.

Every arm goes through the functions that the plan uses, on sorted rows in place of histograms;
`tests/unit/test_quantiles.py` checks that the plan gives the same digits. Bands are binomial.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from causal.core.inference import critical_value
from causal.experiments.order_statistics import OrderStatistic, rank_of
from causal.experiments.quantiles import Position, ends, position, share_variance, slope

pytestmark = pytest.mark.slow

Array = NDArray[np.float64]
ERRORS = 3.5
"""Half-width of a band in binomial standard errors."""
NOMINAL = 0.95

SIZES = [
    pytest.param(250, id="quick"),
    pytest.param(5_000, id="long", marks=pytest.mark.validation),
]
SHARES = (0.5, 0.95, 0.99)


def point(rows: Array, share: float, resolution: float | None) -> Position:
    """A quantile of sorted rows."""
    value = rows[rank_of(share, len(rows)) - 1]
    low, high = (int(np.searchsorted(rows, value, side)) for side in ("left", "right"))
    found = OrderStatistic(value=float(value), n_below=low, n_equal=high - low)
    return position(found, n=len(rows), share=share, resolution=resolution)


def read(
    values: Array, share: float, *, clusters: Array | None = None, resolution: float | None = None
) -> tuple[float, float]:
    """A quantile and its standard error."""
    rows, n = np.sort(values), len(values)
    at = point(rows, share, resolution)
    error = math.sqrt(share_variance(at, share=share, n=n))
    reach = math.sqrt(share * (1 - share) / n)
    if clusters is not None:
        below = (values <= at.value) - np.mean(values <= at.value)
        sums = np.bincount(clusters, below)
        error = math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums)) / n
        reach = error
    outer = ends(share, reach, n)
    assert outer is not None
    return at.value, error * slope(*(point(rows, one, resolution) for one in outer))


def covers(control: tuple[float, float], treatment: tuple[float, float], truth: float) -> bool:
    half = critical_value(NOMINAL) * math.hypot(control[1], treatment[1])
    return abs(treatment[0] - control[0] - truth) <= half


def assert_covers(found: list[bool], *, low: float = NOMINAL, high: float = NOMINAL) -> None:
    rate = float(np.mean(found))
    below = low - ERRORS * math.sqrt(low * (1 - low) / len(found))
    above = high + ERRORS * math.sqrt(high * (1 - high) / len(found))
    assert below <= rate <= above, rate


@pytest.mark.parametrize("n_experiments", SIZES)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("tail", ["lognormal", "pareto"])
def test_independent_rows(n_experiments: int, share: float, tail: str) -> None:
    """2,000 and 3,000 rows; the Pareto rows have no variance. A lift of 10 % scales every row."""
    rng = np.random.default_rng(1)

    def draw(n: int) -> Array:
        return np.exp(rng.normal(size=n)) if tail == "lognormal" else rng.uniform(size=n) ** -0.5

    far = 10**7
    quantile = float(np.quantile(draw(far), share))
    found = [
        covers(read(draw(2000), share), read(1.1 * draw(3000), share), 0.1 * quantile)
        for _ in range(n_experiments)
    ]
    assert_covers(found, low=0.945, high=0.96)


@pytest.mark.parametrize("n_experiments", SIZES)
@pytest.mark.parametrize("share", SHARES)
def test_rows_of_users(n_experiments: int, share: float) -> None:
    """Users are randomised; the pages of one user are alike and slow users see fewer of them."""
    rng = np.random.default_rng(2)

    def draw(n_users: int) -> tuple[Array, Array]:
        slow = rng.normal(size=n_users)
        n_pages = 1 + rng.poisson(np.exp(1.2 - 0.4 * slow))
        user = np.repeat(np.arange(n_users), n_pages)
        return np.exp(0.6 * slow[user] + 0.8 * rng.normal(size=len(user))), user

    naive, found = [], []
    for _ in range(n_experiments):
        arms = [draw(700), draw(700)]
        pair = [read(values, share, clusters=user) for values, user in arms]
        found.append(covers(pair[0], pair[1], 0.0))
        naive.append(covers(*(read(values, share) for values, _ in arms), 0.0))
    assert_covers(found, low=0.943, high=0.96)
    if share == 0.5:
        assert np.mean(naive) < 0.9


@pytest.mark.parametrize("n_experiments", SIZES)
@pytest.mark.parametrize("share", SHARES)
def test_rounded_rows(n_experiments: int, share: float) -> None:
    """Steps that hold several per cent of the rows near the median."""
    rng = np.random.default_rng(3)
    step = 0.1

    def draw() -> Array:
        return np.round(np.exp(0.7 * rng.normal(size=2500)) / step) * step

    found = [
        covers(read(draw(), share, resolution=step), read(draw(), share, resolution=step), 0.0)
        for _ in range(n_experiments)
    ]
    assert_covers(found, low=0.945, high=0.96)
