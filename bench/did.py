"""Two-way fixed effects with errors clustered by unit, against pyfixest on a frame in memory."""

import os

import numpy as np
import pandas as pd
import pyfixest
import statsmodels.formula.api as smf

from bench import data
from bench.harness import Bench, Question, Sides, compare
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi.did import estimate
from causal.quasi.did_options import DidSpec
from transforms.gram import SparkEngine

_TOLERANCE = 1e-9
_CROSS_CHECK_UNITS = 120

SPEC = {
    "name": "bench_twfe",
    "source": {"table": "panel"},
    "method": "did",
    "options": {
        "unit": "unit_id",
        "period": "period",
        "outcome": "y",
        "first_treated_period": "first_treated_period",
        "estimator": "twfe",
    },
}


def prepare(bench: Bench) -> Sides:
    """Question: one treatment coefficient and its clustered error."""
    session = bench.session()
    n_units = bench.size(1_000_000, small=2_000)
    path = data.panel(bench.data, n_units=n_units)
    in_memory = pd.read_parquet(path)
    spec = validate(DidSpec, SPEC)
    cross_check(in_memory)

    return Sides(
        ours=lambda: run(estimate(spec), SparkEngine(session.read.parquet(str(path)))),
        peer=lambda: with_pyfixest(in_memory),
        check=check,
        rows=n_units * data.N_PERIODS,
        notes={
            "units": n_units,
            "periods": data.N_PERIODS,
            "agreement": _TOLERANCE,
            "hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
            "ours_reads": "Parquet files in every run; the peer's frame is in memory",
        },
    )


def with_pyfixest(rows: pd.DataFrame) -> tuple[float, float]:
    """Estimate and standard error with Stata's factor, unit effects nested in the clusters."""
    fit = pyfixest.feols(
        "y ~ d | unit_id + period",
        rows,
        vcov={"CRV1": "unit_id"},
        ssc=pyfixest.ssc(k_adj=True, k_fixef="nonnested", G_adj=True),
    )
    return float(fit.coef().iloc[0]), float(fit.se().iloc[0])


def cross_check(rows: pd.DataFrame) -> None:
    """The peer agrees with statsmodels' dummy-variable least squares on the first units.

    pyfixest 0.60.0's clustered errors with two fixed effects depend on Python's hash seed: a wrong
    reference would be worse than none.
    """
    few = rows[rows["unit_id"] <= _CROSS_CHECK_UNITS]
    fit = smf.ols("y ~ d + C(unit_id) + C(period)", few).fit(
        cov_type="cluster", cov_kwds={"groups": few["unit_id"]}, use_correction=True
    )
    n, n_units = len(few), _CROSS_CHECK_UNITS
    # statsmodels counts the unit dummies in k; they are nested in the clusters and should not be.
    nested = (n - len(fit.params)) / (n - len(fit.params) + n_units - 1)
    estimate_, std_error = with_pyfixest(few)
    np.testing.assert_allclose(estimate_, fit.params["d"], rtol=_TOLERANCE)
    np.testing.assert_allclose(std_error, fit.bse["d"] * np.sqrt(nested), rtol=_TOLERANCE)


def check(ours: Result, peer: tuple[float, float]) -> None:
    """Estimate and standard error agree to 1e-9."""
    effect = ours.effects[0]
    np.testing.assert_allclose((effect.estimate, effect.std_error), peer, rtol=_TOLERANCE)


QUESTIONS = (
    Question(
        name="twfe",
        work="TWFE, 1 M units x 14 periods, clustered by unit",
        peer="pyfixest, warm, data in memory",
        target=0.5,
        measure=compare(prepare),
    ),
)
