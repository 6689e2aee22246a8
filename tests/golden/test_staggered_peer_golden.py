"""`staggered` and csdid on the same raw rows, drawn at random: effects, averages and errors.

csdid 0.4.3 is the Python port of R's `did`. Its errors without clusters are analytic; those of
clusters are bootstrapped and have other tests (`tests/unit/test_staggered_parity.py`).
"""

import warnings

import numpy as np
import pandas as pd
import pytest
from csdid.att_gt import ATTgt
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import staggered

METHODS = {"regression": "reg", "weighting": "ipw", "doubly_robust": "dr"}
CONTROLS = {"never_treated": "nevertreated", "not_yet_treated": "notyettreated"}
AVERAGES = ("simple", "group", "dynamic", "calendar")
_SAME = 1e-8


def make_rows(seed: int, *, n: int, missing: float) -> pd.DataFrame:
    """A panel of `n` units and six periods, of which a share of rows is missing."""
    rng = np.random.default_rng(seed)
    first = rng.choice([0.0, 3.0, 4.0, 6.0], n, p=[0.4, 0.2, 0.2, 0.2])
    x = rng.normal(size=n) + 0.2 * (first > 0)
    y = rng.normal(size=(n, 1)) + rng.normal(size=(n, 6)).cumsum(axis=1) + np.outer(x, np.arange(6))
    periods = np.arange(1, 7)
    y += ((periods >= first[:, None]) & (first[:, None] > 0)) * rng.normal(1, 1, (n, 1))
    rows = pd.DataFrame(
        {
            "id": np.repeat(np.arange(1, n + 1), 6), "t": np.tile(periods, n),
            "first": np.repeat(first, 6), "x": np.repeat(x, 6), "y": y.ravel(),
        }
    )  # fmt: skip
    return rows[rng.random(len(rows)) >= missing].reset_index(drop=True)


def ours(rows: pd.DataFrame, **options: object) -> Result:
    columns = {"unit": "id", "period": "t", "outcome": "y", "first_treated_period": "first"}
    data = {
        "name": "peer", "source": {"table": "t"}, "method": "staggered",
        "options": {**columns, "never_treated_value": 0, "min_cohort_size": 1, **options},
    }  # fmt: skip
    return run(staggered.estimate(validate(staggered.SPEC, data)), PandasEngine(rows))


def peers(rows: pd.DataFrame, *, method: str, base: str, **options: object) -> ATTgt:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ATTgt(yname="y", tname="t", idname="id", gname="first", data=rows, **options)
        return found.fit(est_method=method, base_period=base, bstrap=False)


def average(peer: ATTgt, kind: str) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = peer.aggte(typec=kind, bstrap=False, cband=False, na_rm=True).atte
    return float(found["overall_att"]), float(np.ravel(found["overall_se"])[0])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    control=st.sampled_from(sorted(CONTROLS)),
    base=st.sampled_from(["varying", "universal"]),
    anticipation=st.integers(0, 1),
    adjustment=st.sampled_from(["none", *METHODS]),
    missing=st.sampled_from([0.0, 0.05]),
    by_rows=st.booleans(),
)
def test_effects_and_errors_are_those_of_csdid(  # noqa: PLR0913
    *,
    seed: int,
    control: str,
    base: str,
    anticipation: int,
    adjustment: str,
    missing: float,
    by_rows: bool,
) -> None:
    rows = make_rows(seed, n=160, missing=missing)
    assume(rows.groupby(["first", "t"]).size().min() > 8)
    has_covariate = adjustment != "none"
    peer = peers(
        rows, method=METHODS.get(adjustment, "dr"), base=base, anticipation=anticipation,
        control_group=[CONTROLS[control]], xformla="y~x" if has_covariate else "y~1",
        allow_unbalanced_panel=by_rows,
    )  # fmt: skip
    given_x = {"covariates": ["x"], "adjustment": adjustment} if has_covariate else {}
    found = ours(
        rows, control_group=control, base_period=base, anticipation=anticipation,
        panel=not by_rows, **given_x,
    )  # fmt: skip
    table = found.tables["group_time"].set_index(["first_treated_period", "period"])
    cells = pd.DataFrame({name: np.ravel(peer.results[name]) for name in ("group", "year", "att")})
    cells["se"] = np.ravel(peer.results["se"])
    cells = cells[cells["se"] > 0].set_index(["group", "year"])  # the reference is 0 by definition

    assert len(cells) >= 10
    same = table.loc[cells.index]
    np.testing.assert_allclose(same["estimate"], cells["att"], rtol=_SAME, atol=_SAME)
    np.testing.assert_allclose(same["std_error"], cells["se"], rtol=_SAME)
    overall = found.tables["overall"].set_index("term")
    for kind in AVERAGES:
        assert tuple(overall.loc[kind, ["estimate", "std_error"]]) == pytest.approx(
            average(peer, kind), rel=_SAME, abs=_SAME
        ), kind
