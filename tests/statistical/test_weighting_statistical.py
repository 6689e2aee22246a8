"""Coverage and size of weighting where the truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import weighting

ESTIMATORS = ["ipw", "regression", "aipw", "entropy_balancing"]


def drawn(rng: np.random.Generator, *, n: int, effect: float) -> pd.DataFrame:
    """An effect that grows with x; E[x] = 0, so the mean effect is `effect`."""
    x, z = rng.normal(size=(2, n))
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-0.5 * x - 0.3 * z))).astype(int)
    y = 1 + x + 0.5 * z + t * (effect + 0.5 * x) + rng.normal(size=n) * (1 + 0.5 * t)
    return pd.DataFrame({"t": t, "x": x, "z": z, "y": y})


def simulated(*, n_draws: int, n: int, effect: float) -> pd.DataFrame:
    spec = validate(
        weighting.SPEC,
        {
            "name": "coverage", "source": {"table": "rows"}, "method": "weighting",
            "options": {
                "outcome": "y", "treatment": "t", "covariates": ["x", "z"],
                "estimator": ESTIMATORS,
            },
        },
    )  # fmt: skip
    rng = np.random.default_rng(20261121)
    parts = [
        run(weighting.estimate(spec), PandasEngine(drawn(rng, n=n, effect=effect))).to_frame()
        for _ in range(n_draws)
    ]
    return pd.concat(parts, ignore_index=True)


def check(table: pd.DataFrame, *, effect: float) -> None:
    for name in ESTIMATORS:
        own = table[table["estimator"] == name]
        covered = int(((own["ci_lower"] < effect) & (effect < own["ci_upper"])).sum())
        bias = (own["estimate"].mean() - effect) / (own["estimate"].std() / np.sqrt(len(own)))

        assert stats.binomtest(covered, len(own), 0.95).pvalue > 1e-3, (name, covered)
        assert abs(bias) < 4, (name, bias)
        assert own["std_error"].mean() / own["estimate"].std() == pytest.approx(1, abs=0.2), name


def test_intervals_cover_the_truth() -> None:
    check(simulated(n_draws=100, n=500, effect=1.0), effect=1.0)


@pytest.mark.validation
@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_intervals_cover_the_truth_in_thousands_of_draws(effect: float) -> None:
    check(simulated(n_draws=3000, n=1000, effect=effect), effect=effect)


def in_places(
    rng: np.random.Generator, *, n_places: int, shared: float, pull: float = 1.2
) -> pd.DataFrame:
    """Places of 8 to 40 units share a part of x and of the outcome; overlap is thin."""
    place = np.repeat(np.arange(n_places), rng.integers(8, 41, n_places))
    n = len(place)
    own = rng.normal(size=(n_places, 2))[place]
    x = np.sqrt(0.2) * own[:, 0] + np.sqrt(0.8) * rng.normal(size=n)
    z = rng.normal(size=n)
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-pull * x - 0.5 * z))).astype(int)
    y = 1 + x + 0.5 * z + t * (1.0 + 0.5 * x) + shared * own[:, 1] + rng.normal(size=n)
    return pd.DataFrame({"t": t, "x": x, "z": z, "y": y, "place": place})


def mean_effect_kept(result: Result) -> float:
    """The mean of 1 + 0.5 x over those whose log-odds, as fitted, lie between the bounds.

    They are normal around their constant; x follows its part of them.
    """
    level, x, z = result.tables["propensity"]["estimate"].astype(float)
    spread = float(np.hypot(x, z))
    ends = [
        (np.log(p) - np.log1p(-p) - level) / spread
        for p in (result.params["propensity_low"], result.params["propensity_high"])
    ]
    kept = stats.norm.cdf(ends[1]) - stats.norm.cdf(ends[0])
    standardised = (stats.norm.pdf(ends[0]) - stats.norm.pdf(ends[1])) / kept
    return 1.0 + 0.5 * x / spread * float(standardised)


def trimmed(*, n_draws: int, n_places: int, cluster: str | None, **trim: object) -> pd.DataFrame:
    """Estimates after Crump's trimming in places whose units hang together."""
    spec = validate(
        weighting.SPEC,
        {
            "name": "coverage", "source": {"table": "rows"}, "method": "weighting",
            "options": {
                "outcome": "y", "treatment": "t", "covariates": ["x", "z"],
                "estimator": ["ipw", "aipw"], "trim": {"rule": "crump", **trim},
                "cluster": cluster,
            },
        },
    )  # fmt: skip
    rng = np.random.default_rng(20261123)
    parts = []
    for _ in range(n_draws):
        frame = in_places(rng, n_places=n_places, shared=0.6)
        result = run(weighting.estimate(spec), PandasEngine(frame))
        truth = mean_effect_kept(result)
        a, b = (frame.loc[frame["t"] == arm, "y"] for arm in (1, 0))
        naive = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        parts.append(
            result.to_frame().assign(
                truth=truth, naive=naive.low < 1.0 < naive.high,
                kept=result.params["n_kept"] / len(frame),
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def shares_held(table: pd.DataFrame) -> "pd.Series[float]":
    held = (table["ci_lower"] < table["truth"]) & (table["truth"] < table["ci_upper"])
    return held.groupby(table["estimator"]).mean()


def check_trimmed(table: pd.DataFrame) -> None:
    off = table.assign(off=table["estimate"] - table["truth"]).groupby("estimator")["off"]
    n = len(table) // 2
    for name, held in shares_held(table).items():
        assert stats.binomtest(round(held * n), n, 0.95).pvalue > 1e-3, (name, held)
    assert (off.mean().abs() < 4 * off.std() / n**0.5).all(), off.mean()
    assert table["kept"].between(0.7, 0.99).mean() > 0.9
    assert table["naive"].mean() < 0.1


def test_intervals_cover_the_effect_on_those_kept() -> None:
    check_trimmed(trimmed(n_draws=100, n_places=60, cluster="place"))
    units = trimmed(n_draws=100, n_places=60, cluster=None)
    assert (shares_held(units) < 0.92).all()


@pytest.mark.validation
@pytest.mark.parametrize("n_places", [40, 150])
def test_intervals_cover_the_effect_on_those_kept_in_a_thousand_draws(n_places: int) -> None:
    table = trimmed(n_draws=1000, n_places=n_places, cluster="place")
    print(shares_held(table).to_string(), table["naive"].mean())  # noqa: T201 - for the docs
    check_trimmed(table)
