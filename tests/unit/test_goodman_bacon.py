"""The decomposition adds up to the regression with a dummy for every unit and period."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.quasi import staggered


def decomposition(frame: pd.DataFrame, **options: object) -> pd.DataFrame:
    columns = {"unit": "id", "period": "t", "outcome": "y", "first_treated_period": "first"}
    data = {
        "name": "bacon", "source": {"table": "t"}, "method": "staggered",
        "options": {**columns, "n_draws": 1000, **options},
    }  # fmt: skip
    result = run(staggered.estimate(validate(staggered.SPEC, data)), PandasEngine(frame))
    return result.tables["twfe_decomposition"]


def make(seed: int, starts: list[float], *, n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    periods = np.arange(1.0, 7.0)
    first = rng.choice(np.array(starts), n)
    later = periods[None, :] >= np.where(np.isnan(first), np.inf, first)[:, None]
    y = rng.normal(size=(n, 1)) + rng.normal(size=(n, 6)) + later * rng.normal(1, 1, (n, 6))
    return pd.DataFrame(
        {"id": np.repeat(np.arange(n), 6), "t": np.tile(periods, n),
         "first": np.repeat(first, 6), "y": y.ravel()}
    )  # fmt: skip


def two_way(frame: pd.DataFrame) -> float:
    dummies = pd.get_dummies(frame[["id", "t"]].astype(str), drop_first=True, dtype=float)
    treated = (frame["t"] >= frame["first"]).astype(float)
    return float(sm.OLS(frame["y"], sm.add_constant(dummies.assign(d=treated))).fit().params["d"])


@given(
    seed=st.integers(0, 2**32 - 1),
    starts=st.sets(st.sampled_from([2.0, 3.0, 4.0, 5.0, 6.0]), min_size=2),
    never=st.booleans(),
)
@settings(max_examples=15)
def test_it_adds_up_to_two_way_fixed_effects(*, seed: int, starts: set[float], never: bool) -> None:
    frame = make(seed, [*sorted(starts), *([np.nan, 9.0] if never else [])])
    sizes = frame.drop_duplicates("id").groupby("first", dropna=False).size()
    assume(sizes.min() > 2)
    assume(sizes.index.nunique() > 1)
    found = decomposition(frame, control_group="never_treated" if never else "not_yet_treated")

    assert found["weight"].sum() == pytest.approx(1.0)
    assert (found["weight"] > 0).all()
    assert float(found["weight"] @ found["estimate"]) == pytest.approx(two_way(frame), abs=1e-9)


def test_the_kinds_of_comparison() -> None:
    found = decomposition(make(1, [3.0, 5.0, np.nan])).set_index(["treated", "kind"])["control"]

    assert found.to_dict() == pytest.approx(
        {
            (3.0, "never treated"): np.nan,
            (5.0, "never treated"): np.nan,
            (3.0, "not yet treated"): 5.0,
            (5.0, "already treated"): 3.0,
        },
        nan_ok=True,
    )


def test_one_cohort_is_one_comparison() -> None:
    frame = make(2, [4.0, np.nan])
    found = decomposition(frame)

    assert found["weight"].tolist() == [1.0]
    assert found["kind"].tolist() == ["never treated"]
    assert found["estimate"].item() == pytest.approx(two_way(frame), abs=1e-10)
