"""Effects, checks and tables of an instrumental-variable regression."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causal.checks.panel_health import note
from causal.core.errors import DataError, InferenceError
from causal.core.frames import Term
from causal.core.inference import effect
from causal.core.readout import Readout, covariance_table
from causal.core.result import Diagnostic, Effect, Estimand
from causal.instruments import notes as checks
from causal.instruments.anderson_rubin import AndersonRubin, Interval, confidence_set, curve
from causal.instruments.compliers import complier_table, shares
from causal.instruments.errors import IvErrors
from causal.instruments.first_stage import coefficient_covariance, strength, wald_f
from causal.instruments.model import Model
from causal.instruments.options import IvOptions, IvSpec
from causal.instruments.specification_tests import (
    Statistic,
    cragg_donald,
    sargan,
    underidentification,
)
from causal.regression.data import RegressionData
from causal.regression.equation import redundant_names
from causal.regression.notes import coefficient_table, data_notes
from causal.regression.sandwich import Errors, check_variances

_MARGIN = 4.0
"""Standard errors around the estimate that the Anderson-Rubin curve covers at least."""


def identified(
    options: IvOptions,
    data: RegressionData,
    *,
    treatments: tuple[Term, ...],
    instruments: tuple[Term, ...],
    names: Mapping[Term, str],
) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """The instruments that are not redundant, and the names of the others.

    Raises:
        InferenceError: A treatment or instrument is constant or collinear, or too few are left.
    """
    controls = data.controls
    fillers = [f"control {j}" for j in range(len(controls))]
    for group, kind in ((treatments, "treatment"), (instruments, "instrument")):
        labels = [names[term] for term in group]
        lost = [
            name
            for part in redundant_names(data.moments, (*controls, *group), [*fillers, *labels])
            for name in part
        ]
        if lost and (kind == "treatment" or options.collinear == "refuse"):
            raise InferenceError(
                f"{kind}s that are constant or collinear with the covariates or each other",
                given=lost,
                allowed=None if kind == "treatment" else "leave them out, or collinear: drop",
            )
    kept = tuple(term for term in instruments if names[term] not in lost)
    if len(kept) < len(treatments):
        raise InferenceError(
            "the model is not identified: fewer instruments than treatments are left", given=lost
        )
    return kept, tuple(lost)


def not_binary(options: IvOptions) -> DataError:
    """The complaint about characteristics of compliers where there are none."""
    return DataError(
        "characteristics of compliers need a treatment and an instrument that are 0 or 1",
        given=options.characteristics,
    )


def read(spec: IvSpec, model: Model, errors: IvErrors) -> Readout:
    """Everything that one regression says."""
    options = spec.options
    has_intercept = options.absorb is None
    names = model.coefficient_names(has_intercept=has_intercept)
    estimates = model.main.coefficients[model.positions(has_intercept=has_intercept)]
    check_variances(errors.coefficients, names, options=options)
    tables = {
        "coefficients": coefficient_table(
            names, estimates, errors.coefficients,
            metric=model.metric, confidence_level=spec.confidence_level,
        ),
        "covariance": covariance_table(
            names, errors.coefficients.covariance, metric=model.metric
        ),
        "first_stage": _stage_table(spec, model, errors),
        "least_squares": _least_squares_table(spec, model),
    }  # fmt: skip
    tested, more = _anderson_rubin(spec, model, errors)
    tables |= more
    if model.compliers:
        tables["compliers"] = complier_table(
            model.compliers,
            errors.compliers,
            metric=model.metric,
            confidence_level=spec.confidence_level,
        )
    diagnostics = [
        *data_notes(options, model.data, errors.coefficients, k=len(names)),
        *([checks.dropped_instruments(model.dropped)] if model.dropped else []),
        *_strength(options, model, errors),
        *tested,
        *_exogeneity(model, errors),
        *_overidentification(spec, model, errors),
        *_complier_note(model),
        note("estimand", None, f"{model.meaning.estimand}: {model.meaning.detail}"),
    ]
    return Readout(
        effects=tuple(_effects(spec, model, errors, names=names, estimates=estimates)),
        diagnostics=tuple(diagnostics),
        params=_params(options, model),
        tables=tables,
    )


def _effects(
    spec: IvSpec, model: Model, errors: IvErrors, *, names: Sequence[str], estimates: Any
) -> list[Effect]:
    options = spec.options
    n = model.data.counted.n
    terms = {column.name: column.term for column in model.data.columns}
    found = []
    for j, name in enumerate(names):
        is_treatment = j < model.m
        if ("treatment" if is_treatment else "covariates") not in options.report:
            continue
        term = model.stage.treatments[j] if is_treatment else terms.get(name)
        sides = (n, n) if term is None else model.data.sides(term)
        estimand: Estimand = model.meaning.estimand if is_treatment else "coefficient"
        found.append(
            _effect(
                spec, errors.coefficients, estimator=options.estimator, estimand=estimand,
                metric=model.metric, term=name, estimate=float(estimates[j]),
                std_error=float(errors.coefficients.std_errors[j]), sides=sides,
            )
        )  # fmt: skip
    for column in range(1 + model.m):
        kind = "reduced_form" if column == 0 else "first_stage"
        if kind in options.report:
            found += _stage_effects(spec, model, errors, column=column)
    return found


def _stage_effects(spec: IvSpec, model: Model, errors: IvErrors, *, column: int) -> list[Effect]:
    """The coefficients of the instruments in the reduced form (0) or a first stage (1, ...)."""
    estimates = model.stage.coefficients(column)
    block = Errors(
        covariance=coefficient_covariance(model.stage, errors.stage, column),
        df=errors.stage_df,
        n_clusters=errors.coefficients.n_clusters,
    )
    found = []
    for j, term in enumerate(model.stage.instruments):
        is_itt = column == 0 and model.data.is_binary(term)
        found.append(
            _effect(
                spec, block,
                estimator="reduced_form" if column == 0 else "first_stage",
                estimand="itt" if is_itt else "coefficient",
                metric=model.metric
                if column == 0
                else model.names[model.stage.treatments[column - 1]],
                term=model.names[term]
                if len(spec.options.outcomes) == 1 or column == 0
                else f"{model.names[term]} (rows of {model.metric})",
                estimate=float(estimates[j]), std_error=float(block.std_errors[j]),
                sides=model.data.sides(term),
            )
        )  # fmt: skip
    return found


def _effect(  # noqa: PLR0913 - fields of an effect
    spec: IvSpec,
    errors: Errors,
    *,
    estimator: str,
    estimand: Estimand,
    metric: str,
    term: str,
    estimate: float,
    std_error: float,
    sides: tuple[int, int],
) -> Effect:
    return effect(
        estimator=estimator, estimand=estimand, metric=metric, term=term, estimate=estimate,
        std_error=std_error, df=errors.df, confidence_level=spec.confidence_level,
        n_treated=sides[0], n_control=sides[1], n_clusters=errors.n_clusters,
    )  # fmt: skip


def _stage_table(spec: IvSpec, model: Model, errors: IvErrors) -> pd.DataFrame:
    """Reduced form and first stages: target, instrument, estimate and its error."""
    parts = []
    for column in range(1 + model.m):
        target = model.metric if column == 0 else model.names[model.stage.treatments[column - 1]]
        block = Errors(
            covariance=coefficient_covariance(model.stage, errors.stage, column),
            df=errors.stage_df,
            n_clusters=errors.coefficients.n_clusters,
        )
        table = coefficient_table(
            [model.names[term] for term in model.stage.instruments],
            model.stage.coefficients(column), block,
            metric=model.metric, confidence_level=spec.confidence_level,
        )  # fmt: skip
        table.insert(1, "equation", "reduced form" if column == 0 else "first stage")
        table.insert(2, "target", target)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _least_squares_table(spec: IvSpec, model: Model) -> pd.DataFrame:
    """The treatments' coefficients without instruments, with classical errors, to compare with."""
    fit = model.least_squares
    at = np.array(model.treatment_positions)
    errors = Errors(
        covariance=fit.classical(divisor=fit.df_resid)[np.ix_(at, at)], df=fit.df_resid,
        n_clusters=None,
    )  # fmt: skip
    return coefficient_table(
        [model.names[term] for term in model.stage.treatments], fit.coefficients[at], errors,
        metric=model.metric, confidence_level=spec.confidence_level,
    )  # fmt: skip


def _strength(options: IvOptions, model: Model, errors: IvErrors) -> list[Diagnostic]:
    stage = model.stage
    is_robust = options.kind != "classical"
    classical = stage.classical(divisor=errors.first_divisor)
    found = []
    for j, term in enumerate(stage.treatments):
        suffix = "" if model.m == 1 else f".{model.names[term]}"
        f = wald_f(stage, classical, j + 1)
        found.append(checks.first_stage_f(f, q=stage.q, df=errors.first_divisor, suffix=suffix))
        if is_robust:
            found.append(_robust_f(model, errors, j + 1, suffix=suffix))
    if model.m == 1:
        try:
            found.append(checks.effective_f(strength(stage, errors.stage)))
        except (InferenceError, np.linalg.LinAlgError):
            found.append(checks.no_effective_f())
    else:
        found.append(checks.cragg_donald(cragg_donald(stage, df_resid=errors.first_divisor)))
    found.append(checks.underidentification(_triple(underidentification(stage, n=model.main.n))))
    return found


def _robust_f(model: Model, errors: IvErrors, column: int, *, suffix: str) -> Diagnostic:
    try:
        f = wald_f(model.stage, errors.stage, column)
    except InferenceError as error:
        return checks.no_robust_f(error.message, suffix=suffix)
    return checks.robust_first_stage_f(f, q=model.stage.q, df=errors.stage_df, suffix=suffix)


def _anderson_rubin(
    spec: IvSpec, model: Model, errors: IvErrors
) -> tuple[list[Diagnostic], dict[str, pd.DataFrame]]:
    test = AndersonRubin(stage=model.stage, covariance=errors.stage, df=errors.stage_df)
    try:
        at_zero = test.statistic(np.zeros(model.m))
        if model.m > 1:
            return [
                checks.anderson_rubin(at_zero, test.pvalue(at_zero), intervals=None, level=0.0)
            ], {}
        centre = float(model.main.coefficients[-1])
        scale = float(errors.coefficients.std_errors[0])
        intervals = confidence_set(
            test, confidence_level=spec.confidence_level, centre=centre, scale=scale
        )
        low, high = _range(intervals, centre=centre, scale=scale)
        values, statistics, pvalues = curve(test, low=low, high=high)
    except InferenceError as error:
        return [checks.no_anderson_rubin(error.message)], {}
    note = checks.anderson_rubin(
        at_zero, test.pvalue(at_zero), intervals=intervals, level=spec.confidence_level
    )
    return [note], {
        "anderson_rubin": pd.DataFrame(
            {
                "metric": model.metric, "value": values, "statistic": statistics,
                "pvalue": pvalues,
            }
        ),
        "anderson_rubin_set": pd.DataFrame(
            [
                {"metric": model.metric, "part": j, "lower": lower, "upper": upper}
                for j, (lower, upper) in enumerate(intervals, start=1)
            ],
            columns=["metric", "part", "lower", "upper"],
        ),
    }  # fmt: skip


def _range(intervals: Sequence[Interval], *, centre: float, scale: float) -> tuple[float, float]:
    """What the curve covers: the estimate's surroundings, zero, and the set's ends."""
    ends = [end for interval in intervals for end in interval if np.isfinite(end)]
    points = [centre - _MARGIN * scale, centre + _MARGIN * scale, 0.0, *ends]
    room = 0.1 * (max(points) - min(points))
    return min(points) - room, max(points) + room


def _exogeneity(model: Model, errors: IvErrors) -> list[Diagnostic]:
    if errors.augmented is None or errors.exogeneity is None:
        return [checks.no_wu_hausman()]
    added = errors.augmented
    plain = Errors(
        covariance=added.bread * (added.rss / added.df_resid), df=added.df_resid, n_clusters=None
    )
    every = range(model.m)
    statistic, pvalue = plain.wald(added.coefficients, every)
    found = [checks.wu_hausman(statistic, pvalue, df=(model.m, added.df_resid))]
    if errors.hansen is not None or not np.array_equal(
        plain.covariance, errors.exogeneity.covariance
    ):
        try:
            robust, robust_pvalue = errors.exogeneity.wald(added.coefficients, every)
        except InferenceError:
            return found
        found.append(checks.robust_wu_hausman(robust, robust_pvalue))
    return found


def _overidentification(spec: IvSpec, model: Model, errors: IvErrors) -> list[Diagnostic]:
    if model.q == model.m:
        return [checks.just_identified()]
    alpha = 1.0 - spec.confidence_level
    plain = sargan(model.main, n_treatments=model.m)
    if spec.options.kind == "classical":
        return [checks.sargan(_triple(plain), alpha=alpha)]
    # Under heteroskedasticity Sargan's test has the wrong size: it informs, Hansen's decides.
    found = [checks.sargan(_triple(plain), alpha=None)]
    if errors.hansen is None:
        found.append(checks.no_hansen())
    else:
        found.append(checks.hansen(_triple(errors.hansen), alpha=alpha))
    return found


def _complier_note(model: Model) -> list[Diagnostic]:
    if not model.compliers:
        return []
    moments = model.data.moments
    found = shares(
        float(model.stage.coefficients(1)[0]),
        mean_treatment=float(moments.means(model.stage.treatments)[0]),
        mean_instrument=float(moments.means(model.stage.instruments)[0]),
    )
    return [
        checks.complier_share(
            found.compliers, always=found.always_takers, never=found.never_takers,
            is_reversed=found.is_reversed,
        )
    ]  # fmt: skip


def _params(options: IvOptions, model: Model) -> dict[str, Any]:
    found: dict[str, Any] = {
        "n": model.main.n,
        "n_instruments": model.q,
        "n_treatments": model.m,
        "estimator": options.estimator,
        "kappa": model.main.kappa,
        "covariance": options.kind,
        "small_sample": options.factor,
        "df_resid": model.main.df_resid,
        "rmse": float(np.sqrt(model.main.rss / model.main.df_resid)),
    }
    if options.absorb is not None:
        found["n_absorbed"] = model.main.n_absorbed or len(model.data.effects) + 1
    for j, term in enumerate(model.stage.treatments):
        at = model.treatment_positions[j]
        found[f"least_squares:{model.names[term]}"] = float(model.least_squares.coefficients[at])
    return found


def _triple(test: Statistic) -> tuple[float, float, float]:
    return test.statistic, test.pvalue, test.df[0]
