"""Instrumental variables: two-stage least squares, LIML and Fuller, and whether to trust them.

One pass of cross-products gives coefficients, one pass of summed scores (three for two-way
clusters) everything that is robust: errors, first-stage F, Anderson-Rubin set, Wu-Hausman, Hansen.
See `docs/methods/iv.md`.
"""

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from causal.core.frames import Column, Condition, FrameRequest, Term
from causal.core.readout import combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.core.unit_keys import check_units
from causal.instruments import readout
from causal.instruments.compliers import complier_means, products
from causal.instruments.errors import observe_errors
from causal.instruments.estimands import meaning
from causal.instruments.first_stage import stage_of
from causal.instruments.model import Model
from causal.instruments.options import IvOptions, IvSpec, variable_name, variable_term
from causal.regression.data import RegressionData, observe
from causal.regression.equation import Equation, k_class, least_squares, liml_kappa

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = IvSpec


def estimate(spec: IvSpec) -> Plan:
    """Estimate the effect of the treatment or treatments on each outcome.

    Args:
        spec: The analysis.

    Returns:
        A plan that yields requests and returns the result.
    """
    options, where = spec.options, spec.source.conditions
    yield from check_units(options.units, where)
    readouts = {}
    for outcome in options.outcomes:
        model = yield from fit(options, outcome=outcome, where=where)
        errors = yield from observe_errors(options, model)
        readouts[outcome] = readout.read(spec, model, errors)
    return combined(readouts)


def figures(spec: IvSpec, result: Result) -> Mapping[str, "Figure"]:
    """Estimates side by side, and the Anderson-Rubin test over the effect.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.instruments.figures import anderson_rubin_figure, estimate_figure

    found: dict[str, Figure] = {}
    for outcome in spec.options.outcomes:
        found[f"estimates_{outcome}"] = estimate_figure(spec, result, outcome=outcome)
        if "anderson_rubin" in result.tables:
            found[f"anderson_rubin_{outcome}"] = anderson_rubin_figure(
                spec, result, outcome=outcome
            )
    return found


def fit(
    options: IvOptions, *, outcome: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Model]:
    """The regression of one outcome and what stands beside it.

    Args:
        options: The analysis.
        outcome: The outcome column.
        where: Conditions on the rows.

    Raises:
        InferenceError: Instruments that do not identify, or collinear columns.
    """
    y = Column(outcome)
    treatments = tuple(variable_term(item) for item in options.treatments)
    instruments = tuple(variable_term(item) for item in options.excluded)
    is_single = len(treatments) == 1 and len(instruments) == 1
    extra = products(y, treatments[0], options.characteristics) if is_single else ()
    data = yield from observe(options, [y, *treatments, *instruments, *extra], where=where)
    names = {
        term: variable_name(item)
        for term, item in zip(
            (*treatments, *instruments), (*options.treatments, *options.excluded), strict=True
        )
    }
    instruments, lost = readout.identified(
        options, data, treatments=treatments, instruments=instruments, names=names
    )
    stage = stage_of(
        data.moments, outcome=y, treatments=treatments, controls=data.controls,
        instruments=instruments,
    )  # fmt: skip
    main = _main(options, data, outcome=y, treatments=treatments, instruments=instruments)
    is_pair = is_single and data.is_binary(treatments[0]) and data.is_binary(instruments[0])
    if options.characteristics and not is_pair:
        raise readout.not_binary(options)
    return Model(
        metric=outcome,
        main=main,
        two_stage=main
        if options.estimator == "2sls"
        else k_class(
            data.moments, outcome=y, regressors=(*data.controls, *treatments),
            instruments=(*data.controls, *instruments),
        ),
        least_squares=least_squares(
            data.moments, outcome=y, regressors=(*data.controls, *treatments)
        ),
        stage=stage,
        data=data,
        names=names,
        dropped=lost,
        compliers=complier_means(
            data.moments, outcome=y, treatment=treatments[0], controls=data.controls,
            instrument=instruments[0], characteristics=options.characteristics,
        )
        if is_pair
        else (),
        meaning=meaning(options, data, is_binary_pair=is_pair),
    )  # fmt: skip


def _main(
    options: IvOptions,
    data: RegressionData,
    *,
    outcome: Column,
    treatments: tuple[Term, ...],
    instruments: tuple[Term, ...],
) -> Equation:
    controls, kappa = data.controls, 1.0
    if options.estimator != "2sls":
        kappa = liml_kappa(
            data.moments, outcome=outcome, endogenous=treatments, exogenous=controls,
            instruments=instruments,
        )  # fmt: skip
    if options.estimator == "fuller":
        n_first = 1 if data.moments.has_intercept else 0
        n_all = n_first + len(controls) + len(instruments) + data.moments.gram.n_units
        kappa -= options.fuller / (data.moments.n - n_all)
    return k_class(
        data.moments, outcome=outcome, regressors=(*controls, *treatments),
        instruments=(*controls, *instruments), kappa=kappa,
    )  # fmt: skip
