"""Difference in differences: the effect of a treatment that some units start and others do not.

The estimators share one set of options: `two_by_two` compares four means, `twfe` fits one
treatment coefficient and `event_study` one per event time beside unit and period effects;
`sun_abraham` and `etwfe` fit one per cohort and event time and average them; `two_stage` takes unit
and period effects from untreated rows and averages what is left of the others; `dose_response`
compares units by how much of a treatment they get.
Everything is computed from aggregates; no unit row reaches the driver.
"""

from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import pandas as pd

from causal.core.frames import FrameRequest
from causal.core.readout import Readout, combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.quasi import cohort_effects, dose_response, event_study, twfe, two_by_two, two_stage
from causal.quasi.did_options import DidSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = DidSpec

Estimator = Callable[..., Generator[FrameRequest, pd.DataFrame, Readout]]

ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        "two_by_two": two_by_two.estimate,
        "twfe": twfe.estimate,
        "event_study": event_study.estimate,
        "sun_abraham": cohort_effects.estimate,
        "etwfe": cohort_effects.estimate,
        "two_stage": two_stage.estimate,
        "imputation": two_stage.estimate,
        "dose_response": dose_response.estimate,
    }
)


def estimate(spec: DidSpec) -> Plan:
    """Estimate the effect on each outcome.

    Args:
        spec: The analysis.

    Returns:
        A plan that yields requests and returns the result.
    """
    readouts = {}
    for outcome in spec.options.outcomes:
        readouts[outcome] = yield from ESTIMATORS[spec.options.estimator](spec, outcome=outcome)
    return combined(readouts)


def figures(spec: DidSpec, result: Result) -> Mapping[str, "Figure"]:
    """Figures of a result by file name: cohort paths, the estimator's own, and its credibility.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.quasi.credibility.figures import credibility_figures
    from causal.quasi.did_figures import (
        cohort_path_figure,
        dose_response_figure,
        event_study_figure,
        two_by_two_figure,
    )

    found: dict[str, Figure] = {}
    for outcome in spec.options.outcomes:
        if "event_study" in result.tables:
            found[f"event_study_{outcome}"] = event_study_figure(spec, result, outcome=outcome)
        if "dose_response" in result.tables:
            found[f"dose_response_{outcome}"] = dose_response_figure(result, outcome=outcome)
        found |= credibility_figures(result, outcome=outcome)
        if "cells" in result.tables:
            found[f"two_by_two_{outcome}"] = two_by_two_figure(spec, result, outcome=outcome)
        found[f"cohort_paths_{outcome}"] = cohort_path_figure(spec, result, outcome=outcome)
    return found
