"""Long-term effects from short-term outcomes: the surrogate index as an experiment's outcome.

On historical units, whose long-term outcome Y is known, Y is regressed on short-term outcomes (the
surrogates) and what else is known of a unit; the fitted value is the surrogate index. In an
experiment that is too young for Y, the effect on the index is the effect on Y if three things hold:
the treatment was randomised; Y is independent of the treatment given the surrogates (surrogacy);
and the relation of Y to the surrogates is that of the historical units (comparability). See Athey,
Chetty, Imbens and Kang (2019), "The Surrogate Index: Combining Short-Term Proxies to Estimate
Long-Term Treatment Effects More Rapidly and Precisely", NBER working paper 26463.
"""

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from causal.core.frames import FrameRequest
from causal.core.plan import of_source
from causal.core.registry import Plan
from causal.core.result import Result
from causal.core.unit_keys import check_units
from causal.experiments.arms import Design, ask_units
from causal.experiments.surrogate_effects import ask_effects
from causal.experiments.surrogate_fit import SurrogateIndex, fit_index
from causal.experiments.surrogate_options import HISTORY, SurrogateOptions, SurrogateSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = SurrogateSpec


def estimate(spec: SurrogateSpec) -> Plan:
    """Compare every treatment with control on the prediction of the long-term outcome.

    Raises:
        DataError: History or experiment cannot carry it.
        InferenceError: Surrogates are combinations of others, or an effect has no variance.

    Example:
        >>> import numpy as np
        >>> from causal.core.pandas_engine import PandasEngine
        >>> from causal.core.plan import run
        >>> from causal.core.spec import validate
        >>> rng = np.random.default_rng(0)
        >>> week = rng.normal(size=1000)
        >>> past = pd.DataFrame({"id": range(1000), "week": week, "year": 10 + 3 * week})
        >>> past["year"] += rng.normal(size=1000)
        >>> arm = np.array(["control", "perk"] * 500)
        >>> new = pd.DataFrame({"id": range(1000, 2000), "arm": arm})
        >>> new["week"] = 0.5 * (arm == "perk") + rng.normal(size=1000)
        >>> spec = validate(
        ...     SPEC,
        ...     {
        ...         "name": "perk",
        ...         "source": {"table": "new"},
        ...         "method": "surrogate_index",
        ...         "options": {
        ...             "unit": "id",
        ...             "variant": "arm",
        ...             "control": "control",
        ...             "outcome": "year",
        ...             "surrogates": ["week"],
        ...             "history": {"table": "past"},
        ...         },
        ...     },
        ... )
        >>> others = {"history": PandasEngine(past)}
        >>> effect = run(estimate(spec), PandasEngine(new), others=others).effects[0]
        >>> effect.metric, effect.ci_lower < 1.5 < effect.ci_upper
        ('year', True)
    """
    options = spec.options
    fitted = _fitted(options)
    index = yield from (of_source(fitted, HISTORY) if spec.other_sources else fitted)
    design = Design(
        unit=options.unit,
        variant=options.variant,
        control=options.control,
        treatments=options.treatments,
        where=spec.source.conditions,
    )
    yield from ask_units(design)
    return (yield from ask_effects(index, design, options, confidence_level=spec.confidence_level))


def figures(spec: SurrogateSpec, result: Result) -> Mapping[str, "Figure"]:
    """The effects, by way of the index and, of a back-test, on the outcome itself.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.core.interval_figure import interval_figure

    table = result.to_frame()
    table["term"] = table["term"] + ", " + table["estimator"].str.replace("_", " ")
    outcome = spec.options.outcome
    return {"effects": interval_figure(table, title=f"Effects on {outcome}", quantity=outcome)}


def _fitted(options: SurrogateOptions) -> Generator[FrameRequest, pd.DataFrame, SurrogateIndex]:
    """The index, after a check that a historical row is a unit or lies in a group of rows."""
    where = options.history.conditions
    if options.history_cluster is None:
        yield from check_units((options.unit,), where)
    return (
        yield from fit_index(
            outcome=options.outcome,
            surrogates=options.surrogates,
            cluster=options.history_cluster,
            where=where,
        )
    )
