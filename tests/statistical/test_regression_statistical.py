"""Coverage of intervals of regressions: LIML, absorbed effects, two-way and few clusters, panels.

Each study has a wrong procedure beside the right one, whose intervals are seen to cover less. The
bands hold a procedure of exactly 95 % coverage with a probability of 0.999; asymptotic procedures
may miss by what their samples are short of infinity, which each study says.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core import registry
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate

TRUTH = 0.5
LEVEL = 0.95
sizes = pytest.mark.parametrize(
    "n_worlds",
    [pytest.param(80, id="quick"), pytest.param(2000, id="long", marks=pytest.mark.validation)],
)


def band(n: int, *, certainty: float = 0.999) -> tuple[float, float]:
    """Where the share of covering intervals lies with this certainty."""
    low, high = stats.binom.interval(certainty, n, LEVEL)
    return low / n, high / n


def coverage(
    draw: Callable[[np.random.Generator], pd.DataFrame],
    procedures: Mapping[str, tuple[str, dict[str, object]]],
    *,
    n_worlds: int,
) -> dict[str, float]:
    """Share of worlds in which the interval of the first effect holds the truth."""
    rng = np.random.default_rng(20261121)
    hits = dict.fromkeys(procedures, 0)
    for _ in range(n_worlds):
        engine = PandasEngine(draw(rng))
        for name, (method, options) in procedures.items():
            module = registry.method(method)
            data = {"name": "case", "source": {"table": "t"}, "method": method, "options": options}
            effect = run(module.estimate(validate(module.SPEC, data)), engine).effects[0]
            hits[name] += effect.ci_lower <= TRUTH <= effect.ci_upper
    return {name: count / n_worlds for name, count in hits.items()}


@pytest.mark.parametrize(
    "n_worlds",
    [pytest.param(40, id="quick"), pytest.param(2000, id="long", marks=pytest.mark.validation)],
)
def test_liml_covers_where_many_instruments_bias_two_stage_least_squares(n_worlds: int) -> None:
    """Twelve instruments of moderate strength: 2SLS leans towards least squares, LIML does not."""

    def draw(rng: np.random.Generator) -> pd.DataFrame:
        n = 400
        z = rng.normal(size=(n, 12))
        hidden = rng.normal(size=n)
        d = 0.12 * z.sum(axis=1) + hidden + 0.5 * rng.normal(size=n)
        frame = pd.DataFrame(z, columns=[f"z{j}" for j in range(12)])
        return frame.assign(d=d, y=TRUTH * d + hidden + 0.5 * rng.normal(size=n))

    options = {
        "outcome": "y", "treatment": "d", "instruments": [f"z{j}" for j in range(12)],
        "report": ["treatment"], "covariance": "classical",
    }  # fmt: skip
    found = coverage(
        draw,
        {
            "liml": ("iv", {**options, "estimator": "liml"}),
            "fuller": ("iv", {**options, "estimator": "fuller"}),
            "2sls": ("iv", options),
        },
        n_worlds=n_worlds,
    )
    low, high = band(n_worlds)

    assert low - 0.02 <= found["liml"] <= high
    assert low - 0.02 <= found["fuller"] <= high
    assert found["2sls"] < found["liml"]


@sizes
def test_absorbed_effects(n_worlds: int) -> None:
    """Groups differ in level and in slope of the regressor; errors are shared in groups."""

    def draw(rng: np.random.Generator) -> pd.DataFrame:
        g = np.repeat(np.arange(40), 8)
        level = rng.normal(size=40)
        x = level[g] + rng.normal(size=320)
        trend = rng.normal(size=40)[g] * np.tile(np.linspace(-1, 1, 8), 40)
        x += 0.7 * trend
        y = TRUTH * x + 2 * level[g] + 1.5 * rng.normal(size=40)[g] * trend + rng.normal(size=320)
        return pd.DataFrame({"g": g, "x": x, "y": y})

    absorbed = {"outcome": "y", "numeric": ["x"], "absorb": "g"}
    plain = {"outcome": "y", "numeric": ["x"], "cluster": "g", "report": ["x"]}
    found = coverage(
        draw,
        {
            "CR1": ("ols", {**absorbed, "cluster": "g"}),
            "CR3": ("ols", {**absorbed, "cluster": "g", "covariance": "CR3"}),
            "not clustered": ("ols", {**absorbed, "covariance": "classical"}),
            "not absorbed": ("ols", plain),
        },
        n_worlds=n_worlds,
    )
    low, high = band(n_worlds)

    assert low - 0.03 <= found["CR1"] <= high
    assert low <= found["CR3"] <= high + 0.02
    assert found["not clustered"] < low
    assert found["not absorbed"] < 0.5


@sizes
def test_two_way_clusters(n_worlds: int) -> None:
    """Regressor and error share parts within both firms and years, 30 of each."""

    def draw(rng: np.random.Generator) -> pd.DataFrame:
        firm, year = np.divmod(np.arange(900), 30)
        x = rng.normal(size=30)[firm] + rng.normal(size=30)[year] + rng.normal(size=900)
        noise = rng.normal(size=30)[firm] + rng.normal(size=30)[year] + rng.normal(size=900)
        return pd.DataFrame({"firm": firm, "year": year, "x": x, "y": TRUTH * x + noise})

    options = {"outcome": "y", "numeric": ["x"], "report": ["x"]}
    found = coverage(
        draw,
        {
            "two ways": ("ols", {**options, "cluster": ["firm", "year"]}),
            "smallest": ("ols", {**options, "cluster": ["firm", "year"], "small_sample": "min"}),
            "one way": ("ols", {**options, "cluster": "firm"}),
        },
        n_worlds=n_worlds,
    )
    low, high = band(n_worlds)

    assert low - 0.04 <= found["two ways"] <= high
    assert low - 0.04 <= found["smallest"] <= high
    assert found["one way"] < found["two ways"]


PANEL = {"unit": "id", "period": "t", "outcome": "y", "estimator": "twfe", "treatment": "d"}


def shared_regions(rng: np.random.Generator) -> pd.DataFrame:
    """Ten regions of unequal size, four of them treated from the middle on."""
    sizes_ = np.array([2, 2, 3, 3, 4, 4, 6, 8, 10, 14])
    region = np.repeat(np.arange(10), sizes_)
    n, n_periods = len(region), 6
    treated = np.isin(region, rng.choice(10, size=4, replace=False))
    shocks = np.cumsum(rng.normal(size=(10, n_periods)), axis=1)[region]
    t = np.arange(n_periods)
    d = treated[:, None] & (t >= 3)
    y = TRUTH * d + rng.normal(size=(n, 1)) + shocks + rng.normal(size=(n, n_periods))
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), n_periods), "t": np.tile(t, n),
            "region": np.repeat(region, n_periods), "d": d.ravel().astype(float), "y": y.ravel(),
        }
    )  # fmt: skip


@sizes
def test_few_unequal_regions(n_worlds: int) -> None:
    """The bootstrap is near 95 % where CR1 is far below; CR3 errs on the safe side."""
    options = {**PANEL, "cluster": "region"}
    found = coverage(
        shared_regions,
        {
            "wild": ("did", {**options, "wild_bootstrap": {"weights": "webb", "n_draws": 399}}),
            "CR3": ("did", {**options, "covariance": "CR3"}),
            "CR1": ("did", options),
        },
        n_worlds=n_worlds,
    )
    low, high = band(n_worlds)

    assert low - 0.03 <= found["wild"] <= min(1.0, high + 0.03)
    assert low - 0.03 <= found["CR3"] <= 1.0
    assert found["CR1"] < found["CR3"]


def treated_regions(rng: np.random.Generator) -> pd.DataFrame:
    """Rows of sixteen regions of unequal size, four of which are treated."""
    sizes_ = np.array([4, 4, 4, 4, 6, 6, 6, 6, 10, 10, 10, 10, 20, 20, 30, 40])
    region = np.repeat(np.arange(16), sizes_)
    d = np.isin(region, rng.choice(16, size=4, replace=False)).astype(float)
    noise = 0.5 * rng.normal(size=16)[region] + rng.normal(size=len(region))
    return pd.DataFrame({"region": region, "d": d, "y": TRUTH * d + noise})


@pytest.mark.parametrize(
    "n_worlds",
    [pytest.param(300, id="quick"), pytest.param(4000, id="long", marks=pytest.mark.validation)],
)
def test_degrees_of_freedom_of_few_treated_regions(n_worlds: int) -> None:
    """CR2 with the degrees of freedom of Bell and McCaffrey is near 95 %, with G - 1 below it."""
    options = {"outcome": "y", "numeric": ["d"], "cluster": "region", "report": ["d"]}
    found = coverage(
        treated_regions,
        {
            "own": ("ols", {**options, "covariance": "CR2", "reference": "satterthwaite"}),
            "G - 1": ("ols", {**options, "covariance": "CR2"}),
            "CR1": ("ols", options),
        },
        n_worlds=n_worlds,
    )
    low, high = band(n_worlds)

    assert low - 0.02 <= found["own"] <= min(1.0, high + 0.02), found
    assert found["CR1"] < found["G - 1"] < found["own"], found


def shared_periods(rng: np.random.Generator) -> pd.DataFrame:
    """Twelve regions over 80 periods; a shock of all regions hits each with a strength of its own.

    The treatment comes and goes; shocks last.
    """
    n, n_periods = 12, 80
    shock, wave = np.zeros((2, n_periods))
    for t in range(1, n_periods):
        shock[t], wave[t] = 0.4 * np.array([shock[t - 1], wave[t - 1]]) + rng.normal(size=2)
    load = rng.normal(size=n)
    d = load[:, None] * wave + 0.5 * rng.normal(size=(n, n_periods))
    y = TRUTH * d + load[:, None] * shock + rng.normal(size=(n, n_periods))
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), n_periods), "t": np.tile(np.arange(n_periods), n),
            "d": d.ravel(), "y": y.ravel(),
        }
    )  # fmt: skip


@pytest.mark.validation
def test_shocks_that_all_regions_share() -> None:
    """Few lags over 80 periods: Driscoll-Kraay intervals are a little short, others much."""
    n_worlds = 500
    found = coverage(
        shared_periods,
        {
            "driscoll_kraay": ("did", {**PANEL, "covariance": "driscoll_kraay"}),
            "two ways": ("did", {**PANEL, "cluster": ["id", "t"]}),
            "classical": ("did", {**PANEL, "covariance": "classical"}),
        },
        n_worlds=n_worlds,
    )
    low, high = band(n_worlds)

    assert low - 0.06 <= found["driscoll_kraay"] <= high
    assert found["classical"] < found["driscoll_kraay"]
