"""Weights and importances against pysyncon on its example of the Basque Country.

pysyncon belongs to the benchmarks (`make bench-setup`); without it these tests are skipped.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal.quasi.synthetic.simplex_least_squares import objective, simplex_weights
from tests.golden.test_synthetic_golden import (
    BASQUE,
    BASQUE_PREDICTORS,
    SECTORS,
    analyse,
    basque,
)

__all__ = ["basque"]

pysyncon = pytest.importorskip("pysyncon", reason="pysyncon comes with make bench-setup")
SEARCHES = [(method, start) for method in ("BFGS", "Nelder-Mead") for start in ("equal", "ols")]
WINDOW = range(1960, 1970)


def prepared(frame: pd.DataFrame) -> Any:
    treated = BASQUE["treated"]
    return pysyncon.Dataprep(
        foo=frame, dependent="gdpcap", unit_variable="regionname", time_variable="year",
        predictors=BASQUE_PREDICTORS["predictors"], predictors_op="mean",
        time_predictors_prior=range(1964, 1970),
        special_predictors=[
            ("gdpcap", WINDOW, "mean"),
            *((f"sec.{name}", range(1961, 1971, 2), "mean") for name in SECTORS),
            ("popdens", [1969], "mean"),
        ],
        treatment_identifier=treated,
        controls_identifier=[
            name for name in frame["regionname"].unique() if name not in {treated, "Spain (Espana)"}
        ],
        time_optimize_ssr=WINDOW,
    )  # fmt: skip


@pytest.mark.parametrize(("method", "start"), SEARCHES)
def test_the_objectives_are_never_worse_than_its_own(
    basque: pd.DataFrame,
    method: str,
    start: str,
) -> None:
    synth, data = pysyncon.Synth(), prepared(basque)
    synth.fit(dataprep=data, optim_method=method, optim_initial=start)
    donors, target = data.make_covariate_mats()
    spread = pd.concat([donors, target], axis=1).std(axis=1)
    root = np.sqrt(synth.V)
    scaled = (root[:, None] * donors.div(spread, axis=0).to_numpy(), root * (target / spread))
    weights = simplex_weights(scaled[0], scaled[1].to_numpy())

    theirs = objective(synth.W, scaled[0], scaled[1].to_numpy())
    assert objective(weights, scaled[0], scaled[1].to_numpy()) <= theirs * (1 + 1e-9)
    ours = analyse("synthetic_control", basque, **BASQUE, **BASQUE_PREDICTORS)
    assert ours.params["pre_mspe"] <= synth.loss_V * (1 + 1e-9)


def test_the_objective_on_outcomes_is_never_worse_than_its_own(basque: pd.DataFrame) -> None:
    donors, target = prepared(basque).make_outcome_mats()
    synth = pysyncon.Synth()
    synth.fit(X0=donors, X1=target, Z0=donors, Z1=target, custom_V=np.ones(len(target)))
    # pysyncon divides each period by its spread over the regions
    spread = pd.concat([donors, target], axis=1).std(axis=1)
    scaled = donors.div(spread, axis=0).to_numpy(), (target / spread).to_numpy()
    weights = simplex_weights(*scaled)

    assert objective(weights, *scaled) <= objective(synth.W, *scaled) * (1 + 1e-9)
