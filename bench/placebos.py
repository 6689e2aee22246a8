"""Placebos of a synthetic control: every donor is matched by the others, as if it were treated."""

import numpy as np
import pandas as pd
from pysyncon import Synth

from bench.harness import Bench, Question, Sides, compare
from causal.core import plan, registry
from causal.core.pandas_engine import PandasEngine
from causal.core.spec import validate

_N_FACTORS = 3
_N_PERIODS, _FIRST_TREATED = 60, 40
_SLACK = 1e-9
"""What rounding may add to a mean square."""


def panel(n_regions: int) -> pd.DataFrame:
    """Outcomes of regions that follow three random walks, shape (60, regions)."""
    rng = np.random.default_rng(20261122)
    walks = rng.normal(size=(_N_PERIODS, _N_FACTORS)).cumsum(axis=0)
    loadings = rng.dirichlet(np.ones(_N_FACTORS), n_regions)
    outcomes = 100.0 + 5.0 * walks @ loadings.T + rng.normal(size=(_N_PERIODS, n_regions))
    return pd.DataFrame(outcomes, columns=[f"r{region:03d}" for region in range(n_regions)])


def with_causalake(rows: pd.DataFrame, *, treated: str) -> pd.Series:
    """Mean square of the gap before the start, by donor: the whole method, from rows to tables."""
    method = registry.method("synthetic_control")
    options = {
        "unit": "region", "period": "period", "outcome": "y", "treated": treated,
        "treatment_period": _FIRST_TREATED, "leave_one_out": False,
    }  # fmt: skip
    spec = validate(
        method.SPEC,
        {
            "name": "placebos",
            "source": {"table": "panel"},
            "method": "synthetic_control",
            "options": options,
        },
    )
    placebos = plan.run(method.estimate(spec), PandasEngine(rows)).tables["placebos"]
    return placebos[~placebos["is_treated"]].set_index("unit")["pre_rmspe"] ** 2


def with_pysyncon(outcomes: pd.DataFrame, *, treated: str) -> pd.Series:
    """The same with pysyncon's weights."""
    before = outcomes.iloc[:_FIRST_TREATED].drop(columns=treated)
    equal = np.ones(_FIRST_TREATED)
    found = {}
    for donor in before.columns:
        others, own = before.drop(columns=donor), before[donor]
        fit = Synth()
        fit.fit(X0=others, X1=own, Z0=others, Z1=own, custom_V=equal)
        found[donor] = float(((own - others @ fit.W) ** 2).mean())
    return pd.Series(found)


def prepare(bench: Bench) -> Sides:
    """Question: 200 donors, 40 periods before the start and 20 after."""
    n_regions = bench.size(201, small=9)
    outcomes = panel(n_regions)
    treated = str(outcomes.columns[0])
    rows = (
        outcomes.rename_axis("period")
        .reset_index()
        .melt("period", var_name="region", value_name="y")
    )
    return Sides(
        ours=lambda: with_causalake(rows, treated=treated),
        peer=lambda: with_pysyncon(outcomes, treated=treated),
        check=check,
        rows=len(rows),
        notes={"placebos": n_regions - 1},
    )


def check(ours: pd.Series, peer: pd.Series) -> None:
    """Our weights never fit worse."""
    worse = ours - peer.loc[ours.index]
    if not (worse <= _SLACK).all():
        raise AssertionError(f"worse than the peer's by up to {worse.max():.3g}")


QUESTIONS = (
    Question(
        name="placebos",
        work="synthetic control of one region with 200 placebos",
        peer="pysyncon, the placebos' weights alone",
        target=0.01,
        measure=compare(prepare, n_warm=1),
    ),
)
