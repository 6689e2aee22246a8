"""Size, coverage and bias of the methods for regions over many worlds of drivers.

The campaign of the world of drivers without its lift: 40 cities that differ in level, in how the
year's season moves them and in growth, 56 weeks before the start and four after it. Nothing
happens, so that each significant effect is a false one. A lift would move estimate and truth alike:
the weights, the placebos and the model never see what follows the start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core import plan, registry
from causal.core.gram import Array
from causal.core.pandas_engine import PandasEngine
from causal.core.spec import validate
from jobs.generate import JOB, GenerateConfig, driver_plan
from transforms.synthetic.cities.campaign import campaign

pytestmark = pytest.mark.slow

UNIT = {"unit": "city", "period": "week", "outcome": "trips", "first_treated_period": "start"}
SAMPLER = {"n_draws": 400, "placebo": False}
METHODS: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType(
    {
        "synthetic_did": ("synthetic_did", {"n_replications": 100}),
        "synthetic_control": ("synthetic_control", {"leave_one_out": False, "n_placebos": 100}),
        "bsts": ("bsts", SAMPLER),
        "bsts_rough": ("bsts", {**SAMPLER, "priors": {"level_sd": 0.1}}),
        "bsts_vague": ("bsts", {**SAMPLER, "priors": {"level_df": 1.0, "residual_df": 1.0}}),
    }
)
"""By name: the method and its options. The last two guess otherwise than by default: ten times the
step of the level, and a guess that is hardly worth anything."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a method says of worlds without an effect, as shares of the treated cities' outcome.

    Attributes:
        estimates: Shape (n,).
        covered: Whether the 95 % interval holds zero, shape (n,).
        rejected: Whether p < 0.05, shape (n,).
    """

    estimates: Array
    covered: Array
    rejected: Array

    @property
    def n(self) -> int:
        """Worlds."""
        return len(self.estimates)

    @property
    def bias(self) -> float:
        """Mean estimate."""
        return float(self.estimates.mean())

    @property
    def rmse(self) -> float:
        """Root mean squared estimate."""
        return float(np.sqrt((self.estimates**2).mean()))

    def __str__(self) -> str:
        return (
            f"{self.n} worlds: coverage {self.covered.mean():.3f}, rejected "
            f"{self.rejected.mean():.3f}, bias {self.bias:+.2%}, rmse {self.rmse:.2%}"
        )


def world(seed: int, *, n_treated: int) -> pd.DataFrame:
    """Cities by week, none of them affected."""
    assert JOB.defaults is not None
    given: Any = JOB.defaults({})
    given["drivers"]["campaign"] |= {"n_treated": n_treated}
    drawn_plan = driver_plan(validate(GenerateConfig, {**given, "seed": seed}))
    drawn = campaign(drawn_plan)
    n_weeks = len(drawn.weeks)
    return pd.DataFrame(
        {
            "city": np.repeat(drawn_plan.places.names, n_weeks),
            "week": np.tile(drawn.weeks, len(drawn_plan.places.names)),
            "start": np.repeat(np.where(drawn.is_treated, drawn.starts, np.nan), n_weeks),
            "trips": drawn.untreated.ravel(),
        }
    )


def by_method(name: str, *, n_treated: int, seeds: range) -> Found:
    """A method on many worlds, from the spec to the effects."""
    method, options = METHODS[name]
    module = registry.method(method)
    rows = []
    for seed in seeds:
        frame = world(seed, n_treated=n_treated)
        data = {
            "name": "study", "source": {"table": "t"}, "method": method, "seed": seed,
            "options": {**UNIT, **options},
        }  # fmt: skip
        spec = validate(module.SPEC, data)
        effect = plan.run(module.estimate(spec), PandasEngine(frame)).effects[0]
        level = frame.loc[frame["week"] >= frame["start"], "trips"].mean()
        assert effect.term == "average"
        assert effect.pvalue is not None
        rows.append(
            (
                effect.estimate / level, effect.ci_lower <= 0 <= effect.ci_upper,
                effect.pvalue <= 0.05 + 1e-12,
            )
        )  # fmt: skip
    estimates, covered, rejected = np.array(rows).T
    return Found(estimates=estimates, covered=covered, rejected=rejected)


def before_and_after(*, n_treated: int, seeds: range) -> Found:
    """The treated cities' weeks after the start against those before it, as if independent."""
    rows = []
    for seed in seeds:
        frame = world(seed, n_treated=n_treated)
        weeks = frame[frame["start"].notna()].groupby("week")["trips"].mean()
        start = frame["start"].max()
        after, before = weeks[weeks.index >= start], weeks[weeks.index < start]
        pvalue = stats.ttest_ind(after, before, equal_var=False).pvalue
        rows.append(((after.mean() - before.mean()) / after.mean(), pvalue))
    estimates, pvalues = np.array(rows).T
    return Found(estimates=estimates, covered=pvalues >= 0.05, rejected=pvalues < 0.05)


def check(name: str, *, n_treated: int, n_worlds: int, lowest: float, seed: int) -> None:
    """Coverage, size and bias are those of the page, and far from those of before and after.

    Args:
        name: Of the method.
        n_treated: Treated cities, of 40.
        n_worlds: Worlds.
        lowest: Coverage that the method has at least.
        seed: Of the first world.
    """
    seeds = range(seed, seed + n_worlds)
    found = by_method(name, n_treated=n_treated, seeds=seeds)
    naive = before_and_after(n_treated=n_treated, seeds=seeds)

    print(f"{name}, {n_treated} treated: {found}; before and after: {naive}")  # noqa: T201
    low, _ = stats.binom.interval(0.999, n_worlds, lowest)
    assert found.covered.sum() >= low
    assert found.rejected.sum() <= n_worlds - low
    assert abs(found.bias) < 0.25 * abs(naive.bias)
    assert naive.rmse > 1.5 * found.rmse
    assert naive.rejected.mean() > 0.5


PAGE = [
    ("synthetic_did", 1, 0.93), ("synthetic_did", 8, 0.95),
    ("synthetic_control", 1, 0.95), ("synthetic_control", 8, 0.95),
    ("bsts", 1, 0.82), ("bsts", 8, 0.95), ("bsts_rough", 1, 0.93),
]  # fmt: skip
"""Method, treated cities, and the coverage that docs/methods/synthetic_did.md reports at least."""


@pytest.mark.parametrize(("name", "n_treated", "lowest"), PAGE)
def test_coverage_beside_a_comparison_of_before_and_after(
    name: str, n_treated: int, lowest: float
) -> None:
    check(name, n_treated=n_treated, n_worlds=40, lowest=lowest, seed=301)


@pytest.mark.validation
@pytest.mark.parametrize(
    ("name", "n_treated", "lowest"),
    [
        *PAGE,
        ("bsts_vague", 1, 0.85), ("bsts_rough", 8, 0.95), ("bsts_vague", 8, 0.86),
    ],
)  # fmt: skip
def test_coverage_in_many_worlds(name: str, n_treated: int, lowest: float) -> None:
    check(name, n_treated=n_treated, n_worlds=500, lowest=lowest, seed=1_001)
