"""An experiment with a true lift, its spec, and its looks, for the tests of the scorecard."""

import copy
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.experiments import ab
from causal.scorecard import experiment_readout, looks
from causal.scorecard.experiment_readout import ExperimentReadout
from causal.scorecard.experiment_spec import ExperimentSpec
from causal.scorecard.scorecard_content import Provenance

TERM = "perk - control"
PROVENANCE = Provenance(source="users", version=3, run_key="ab" * 32, code_version="cd" * 32)
SPEC: Mapping[str, Any] = {
    "name": "perk",
    "description": "Free <delivery> for subscribers & friends",
    "source": {"table": "users"},
    "method": "ab",
    "options": {
        "unit": "user",
        "variant": "variant",
        "control": "control",
        "expected_shares": {"control": 1, "perk": 1},
        "metrics": [
            {"name": "profit", "type": "mean", "column": "profit", "role": "primary",
             "covariates": ["before"]},
            {"name": "orders", "type": "count", "column": "orders"},
            {"name": "refund_rate", "type": "ratio", "numerator": "refunds",
             "denominator": "orders", "role": "guardrail", "direction": "decrease",
             "margin": 0.02},
            {"name": "kept", "type": "proportion", "column": "kept", "role": "guardrail",
             "margin": 0.05},
        ],
    },
    "sequential": {"information": "units", "maximum_information": 6000},
    "bayes": {"rope": [-0.005, 0.005]},
    "roi": {"eligible_units": 2_000_000, "periods_per_year": 12, "cost_per_treated_unit": 0.1,
            "uptake": 0.3, "one_off_cost": 50_000},
}  # fmt: skip


def users(n: int, *, lift: float = 0.8, seed: int = 3) -> pd.DataFrame:
    """Units in the order in which they entered, a hundred a day from 2026-11-01 on."""
    rng = np.random.default_rng(seed)
    is_treated = rng.random(n) < 0.5
    before = rng.gamma(2.0, 5.0, n)
    days = pd.Timestamp("2026-11-01") + pd.to_timedelta(np.arange(n) // 100, unit="D")
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "variant": np.where(is_treated, "perk", "control"),
            "entered_on": days.date,
            "profit": before + rng.gamma(2.0, 4.0, n) + lift * is_treated,
            "before": before,
            "orders": rng.poisson(2.0, n),
            "refunds": rng.binomial(1, 0.1, n),
            "kept": (rng.random(n) < 0.6).astype(int),
        }
    )


def spec(**changes: Any) -> ExperimentSpec:
    """The spec with whole sections replaced; `None` takes one away."""
    data = {**copy.deepcopy(dict(SPEC)), **changes}
    return validate(ExperimentSpec, {k: v for k, v in data.items() if v is not None})


def looked(
    experiment: ExperimentSpec, frames: Sequence[pd.DataFrame], *, is_final: bool = False
) -> ExperimentReadout:
    """The readout of the last of several looks, a week apart from 2026-11-07 on."""
    earlier = pd.DataFrame(columns=list(looks.LOOK_COLUMNS))
    readout: ExperimentReadout | None = None
    for number, frame in enumerate(frames, start=1):
        readout = experiment_readout.read(
            experiment,
            run(ab.estimate(experiment), PandasEngine(frame)),
            earlier=earlier,
            as_of=dt.date(2026, 11, 7 * number),
            is_final=is_final and number == len(frames),
        )
        earlier = readout.looks
    assert readout is not None
    return readout
