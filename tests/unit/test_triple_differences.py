"""Period effects by several columns: least squares with every dummy, and triple differences."""

import warnings

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest

from causal.core.errors import InferenceError, SpecError
from tests.unit.test_did_parity import analyse

EFFECT = 0.5
TRIPLE = {
    "estimator": "twfe", "first_treated_period": "first", "cluster": "region",
    "period_effects_by": ["region", "eligible"],
}  # fmt: skip


def rollout(seed: int, *, n_regions: int = 24, missing: float = 0.0) -> pd.DataFrame:
    """Regions and eligible units go their own ways; two regions of three start."""
    rng = np.random.default_rng(seed)
    n, n_periods = n_regions * 6, 6
    unit, t = np.repeat(np.arange(n), n_periods), np.tile(np.arange(n_periods), n)
    region, eligible = unit % n_regions, (unit // n_regions) % 2
    start = np.array([2.0, 4.0, np.nan])[region % 3]
    first = np.where(eligible == 1, start, np.nan)
    ways = rng.normal(size=(n_regions, n_periods)).cumsum(axis=1) + (np.arange(n_regions) % 3)[
        :, None
    ] * 0.4 * np.arange(n_periods)
    shared = rng.normal(size=(2, n_periods)).cumsum(axis=1)
    treated = (t >= np.where(np.isnan(first), np.inf, first)).astype(float)
    own = rng.normal(size=n)[unit] + 0.4 * rng.normal(size=(n_regions, 2))[region, eligible] * t
    y = EFFECT * treated + ways[region, t] + shared[eligible, t] + own + rng.normal(size=len(t))
    frame = pd.DataFrame(
        {
            "id": unit, "t": t, "region": region, "eligible": eligible, "first": first,
            "d": treated, "y": y,
        }
    )  # fmt: skip
    return frame[rng.uniform(size=len(frame)) >= missing]


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_pyfixest_gives_the_same(missing: float) -> None:
    frame = rollout(1, missing=missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = pf.feols(
            "y ~ d | id + region^t + eligible^t", frame, vcov={"CRV1": "region"},
            ssc=pf.ssc(k_adj=False, G_adj=False), fixef_tol=1e-12,
        )  # fmt: skip
    found = analyse(frame, **TRIPLE, small_sample="none").effects[0]
    assert found.estimate == pytest.approx(fit.coef()["d"], rel=1e-8)
    assert found.std_error == pytest.approx(fit.se()["d"], rel=1e-8)


def test_the_order_of_the_columns_does_not_matter() -> None:
    frame = rollout(2)
    swapped = {**TRIPLE, "period_effects_by": ["eligible", "region"]}
    one, other = (analyse(frame, **options).effects[0] for options in (TRIPLE, swapped))
    assert one.estimate == pytest.approx(other.estimate, rel=1e-9)
    assert one.std_error == pytest.approx(other.std_error, rel=1e-9)


def test_one_column_alone_is_the_same_as_its_name() -> None:
    frame = rollout(3)
    named = analyse(frame, **{**TRIPLE, "period_effects_by": "region"}).effects
    listed = analyse(frame, **{**TRIPLE, "period_effects_by": ["region"]}).effects
    assert named == listed


def test_intervals_cover_where_two_differences_do_not() -> None:
    """Regions that start earlier grow faster, and eligible units have shocks of their own."""
    n_worlds, triple, double = 60, 0, 0
    for seed in range(n_worlds):
        frame = rollout(seed, n_regions=15)
        found = analyse(frame, **TRIPLE).effects[0]
        plain = {**TRIPLE, "period_effects_by": None}
        other = analyse(frame, **plain).effects[0]
        triple += found.ci_lower <= EFFECT <= found.ci_upper
        double += other.ci_lower <= EFFECT <= other.ci_upper
    assert 0.85 <= triple / n_worlds <= 0.995
    assert double / n_worlds < 0.75


def test_what_cannot_be_told_apart_is_refused() -> None:
    frame = rollout(4)
    frame["cell"] = frame["region"] * 2 + frame["eligible"]
    with pytest.raises(InferenceError, match="not identified"):
        analyse(frame, **{**TRIPLE, "period_effects_by": ["cell"]})
    with pytest.raises(SpecError, match="names a column twice"):
        analyse(frame, **{**TRIPLE, "period_effects_by": ["region", "region"]})
