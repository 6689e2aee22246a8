"""Coverage of double machine learning where treatment is confounded and the truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.quasi import dml
from causal.uplift import linear_uplift

EFFECT = 1.0


def drawn(rng: np.random.Generator, *, n: int, slope: float = 0.5) -> pd.DataFrame:
    """x and z raise both the chance of treatment and the outcome; the mean effect is 1."""
    x, z = rng.normal(size=(2, n))
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(-0.7 * x - 0.4 * z))).astype(int)
    y = 1 + x + 0.5 * z + t * (EFFECT + slope * x) + rng.normal(size=n) * (1 + 0.5 * t)
    return pd.DataFrame({"id": np.arange(n), "t": t, "x": x, "z": z, "y": y})


def simulated(*, n_draws: int, n: int, **options: object) -> pd.DataFrame:
    """Estimates of both models, and the difference in means that ignores the confounders."""
    design = {"unit": "id", "outcome": "y", "treatment": "t", "covariates": ["x", "z"]}
    rng = np.random.default_rng(20261122)
    parts = []
    for draw in range(n_draws):
        spec = validate(
            dml.SPEC,
            {
                "name": "coverage", "source": {"table": "rows"}, "method": "dml", "seed": draw,
                "options": design | options,
            },
        )  # fmt: skip
        frame = drawn(rng, n=n, slope=0.0 if options.get("estimator") == "plr" else 0.5)
        found = run(dml.estimate(spec), PandasEngine(frame)).to_frame()
        a, b = (frame.loc[frame["t"] == arm, "y"] for arm in (1, 0))
        interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        naive = {
            "estimator": "naive", "estimate": a.mean() - b.mean(), "std_error": np.nan,
            "ci_lower": interval.low, "ci_upper": interval.high,
        }  # fmt: skip
        parts += [found[list(naive)], pd.DataFrame([naive])]
    return pd.concat(parts, ignore_index=True)


def coverage(table: pd.DataFrame, name: str) -> tuple[int, int]:
    own = table[table["estimator"] == name]
    return int(((own["ci_lower"] < EFFECT) & (own["ci_upper"] > EFFECT)).sum()), len(own)


def check(table: pd.DataFrame, name: str) -> None:
    own = table[table["estimator"] == name]
    covered, n = coverage(table, name)
    bias = (own["estimate"].mean() - EFFECT) / (own["estimate"].std() / np.sqrt(n))

    assert stats.binomtest(covered, n, 0.95).pvalue > 1e-3, (name, covered, n)
    assert abs(bias) < 4, (name, bias)
    assert own["std_error"].mean() / own["estimate"].std() == pytest.approx(1, abs=0.25), name
    missed, _ = coverage(table, "naive")
    assert missed < 0.5 * n, "the difference in means should fail in these worlds"


@pytest.mark.parametrize("name", ["aipw", "plr"])
def test_intervals_cover_the_truth(name: str) -> None:
    check(simulated(n_draws=50, n=400, estimator=name, folds=2), name)


@pytest.mark.validation
@pytest.mark.parametrize("name", ["aipw", "plr"])
def test_intervals_cover_the_truth_in_a_thousand_worlds(name: str) -> None:
    table = simulated(n_draws=1000, n=1000, estimator=name, folds=5)
    check(table, name)
    covered, n = coverage(table, name)
    assert 0.935 <= covered / n <= 0.965, covered


def learned(*, n_draws: int, n: int, propensity: str) -> pd.DataFrame:
    """Slopes of the effect along x by every learner that has one; the truth is 0.5."""
    spec = validate(
        linear_uplift.SPEC,
        {
            "name": "coverage", "source": {"table": "rows"}, "method": "uplift",
            "options": {
                "outcome": "y", "treatment": "t", "covariates": ["x", "z"],
                "learners": ["t", "x", "dr", "r"], "effect_columns": ["x"],
                "propensity": propensity,
            },
        },
    )  # fmt: skip
    rng = np.random.default_rng(5)
    parts = []
    for _ in range(n_draws):
        result = run(linear_uplift.estimate(spec), PandasEngine(drawn(rng, n=n)))
        table = result.tables["coefficients"]
        parts.append(table[table["term"] == "x"])
    return pd.concat(parts, ignore_index=True)


def check_slopes(table: pd.DataFrame) -> None:
    for name, own in table.groupby("learner"):
        off = (own["estimate"] - 0.5).abs() / own["std_error"]
        covered = int((off < stats.norm.ppf(0.975)).sum())
        assert stats.binomtest(covered, len(own), 0.95).pvalue > 1e-3, (name, covered)


def test_slopes_of_the_effect_are_covered() -> None:
    table = learned(n_draws=60, n=500, propensity="logistic")
    check_slopes(table)
    with pytest.raises(AssertionError):
        check_slopes(table.assign(std_error=0.6 * table["std_error"]))


@pytest.mark.validation
def test_slopes_of_the_effect_are_covered_in_a_thousand_worlds() -> None:
    check_slopes(learned(n_draws=1000, n=2000, propensity="logistic"))


@pytest.mark.validation
def test_slopes_of_few_rows_are_covered() -> None:
    """250 rows per arm: coverage, and the size of the test of a slope, within 1 % of nominal."""
    table = learned(n_draws=1500, n=500, propensity="logistic")
    is_held = (table["ci_lower"] < 0.5) & (table["ci_upper"] > 0.5)
    covered = is_held.groupby(table["learner"]).mean()
    width = 2 * (0.95 * 0.05 / 1500) ** 0.5  # of the simulation itself
    assert ((covered > 0.94 - width) & (covered < 0.96 + width)).all(), covered


def clustered(rng: np.random.Generator, *, n_clusters: int) -> pd.DataFrame:
    """Whole places are treated; their outcomes, and the effect of x, differ between them."""
    size = rng.integers(5, 25, n_clusters)
    place = np.repeat(np.arange(n_clusters), size)
    own = rng.normal(size=(n_clusters, 2))[place]
    x = 0.5 * own[:, 0] + rng.normal(size=len(place))
    t = (np.arange(n_clusters) % 2)[place]
    y = 1 + x + 0.5 * own[:, 1] + t * (EFFECT + 0.5 * x) + rng.normal(size=len(place))
    return pd.DataFrame({"t": t, "x": x, "place": place, "y": y})


def learned_of_clusters(*, n_draws: int, n_clusters: int) -> pd.DataFrame:
    spec = validate(
        linear_uplift.SPEC,
        {
            "name": "coverage", "source": {"table": "rows"}, "method": "uplift",
            "options": {
                "outcome": "y", "treatment": "t", "covariates": ["x"], "learners": ["t", "dr", "r"],
                "cluster": "place", "propensity": 0.5,
            },
        },
    )  # fmt: skip
    rng = np.random.default_rng(6)
    parts = []
    for _ in range(n_draws):
        engine = PandasEngine(clustered(rng, n_clusters=n_clusters))
        table = run(linear_uplift.estimate(spec), engine).tables["coefficients"]
        parts.append(table[table["term"] == "x"])
    return pd.concat(parts, ignore_index=True)


def test_slopes_of_clusters_are_covered() -> None:
    table = learned_of_clusters(n_draws=60, n_clusters=36)
    for name, own in table.groupby("learner"):
        covered = int(((own["ci_lower"] < 0.5) & (own["ci_upper"] > 0.5)).sum())
        assert stats.binomtest(covered, len(own), 0.95).pvalue > 1e-3, (name, covered)


@pytest.mark.validation
def test_slopes_of_clusters_are_covered_in_a_thousand_worlds() -> None:
    """36 clusters of 5 to 24 units, some 500 units: CR3 errs on the side of length."""
    table = learned_of_clusters(n_draws=1000, n_clusters=36)
    is_held = (table["ci_lower"] < 0.5) & (table["ci_upper"] > 0.5)
    covered = is_held.groupby(table["learner"]).mean()
    width = 2 * (0.95 * 0.05 / 1000) ** 0.5
    assert ((covered > 0.94 - width) & (covered < 0.965 + width)).all(), covered
