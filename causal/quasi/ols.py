"""Linear regression on any table: least squares with the covariance that the design asks for.

Coefficients come from one pass of cross-products, errors from a pass of summed scores, so a billion
rows cost what ten thousand do. Columns are numbers, categories and their interactions; one column
of fixed effects may be absorbed. See `docs/methods/ols.md`.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causal.core.errors import InferenceError, SpecError
from causal.core.frames import Column, Condition, FrameRequest
from causal.core.gram import gram
from causal.core.inference import effect
from causal.core.readout import Readout, combined, covariance_table
from causal.core.registry import Plan
from causal.core.result import Diagnostic, Effect, Result
from causal.core.unit_keys import check_units
from causal.quasi.ols_options import INTERCEPT, OlsOptions, OlsSpec
from causal.regression.data import RegressionData, observe
from causal.regression.equation import Equation, least_squares
from causal.regression.leverage import (
    bell_mccaffrey_dfs,
    bound_request,
    cluster_moments,
    corrected_scores,
    largest_leverage,
    leave_out_covariance,
    leverage,
)
from causal.regression.notes import coefficient_table, data_notes
from causal.regression.sandwich import Errors, check_variances, middle, reference_df, row_factor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = OlsSpec


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A regression with its errors.

    Attributes:
        metric: The outcome.
        fit: The equation; absorbed effects may be among its regressors.
        names: Names of the p coefficients that are reported.
        groups: The item of the spec that each of them stands for.
        positions: Where they stand in the equation.
        errors: Their covariance, shape (p, p).
        data: What it was computed from.
    """

    metric: str
    fit: Equation
    names: tuple[str, ...]
    groups: tuple[str, ...]
    positions: tuple[int, ...]
    errors: Errors
    data: RegressionData

    @property
    def coefficients(self) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """The reported coefficients, shape (p,)."""
        return self.fit.coefficients[list(self.positions)]

    def find(self, wanted: Sequence[str], *, key: str) -> list[int]:
        """Positions of coefficients by name or by item of the spec.

        Raises:
            SpecError: There is no such coefficient.
        """
        found: list[int] = []
        for item in wanted:
            at = [j for j, name in enumerate(self.names) if item in {name, self.groups[j]}]
            if not at:
                raise SpecError(
                    "the regression has no such coefficient",
                    given=item, allowed=self.names, key=key,
                )  # fmt: skip
            found += [j for j in at if j not in found]
        return found


def estimate(spec: OlsSpec) -> Plan:
    """Regress each outcome on the columns of the design.

    Args:
        spec: The analysis.

    Returns:
        A plan that yields requests and returns the result.
    """
    options, where = spec.options, spec.source.conditions
    yield from check_units(options.units, where)
    readouts = {}
    for outcome in options.outcomes:
        fit = yield from regress(options, outcome=outcome, where=where)
        readouts[outcome] = _readout(spec, fit)
    return combined(readouts)


def figures(spec: OlsSpec, result: Result) -> Mapping[str, "Figure"]:
    """A coefficient plot for each outcome.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.regression.figures import coefficient_figure

    return {
        f"coefficients_{outcome}": coefficient_figure(
            [item for item in result.effects if item.metric == outcome],
            title=f"Regression of {outcome}",
            confidence_level=spec.confidence_level,
        )
        for outcome in spec.options.outcomes
    }


def regress(
    options: OlsOptions, *, outcome: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Regression]:
    """One regression and its errors.

    Args:
        options: The analysis.
        outcome: The outcome column.
        where: Conditions on the rows.
    """
    y = Column(outcome)
    data = yield from observe(options, [y], where=where)
    fit = least_squares(data.moments, outcome=y, regressors=data.controls)
    shown = [fit.n_first + len(data.effects) + j for j in range(len(data.columns))]
    names = [column.name for column in data.columns]
    groups = [column.group for column in data.columns]
    if fit.n_first and options.absorb is None:
        shown, names, groups = [0, *shown], [INTERCEPT, *names], [INTERCEPT, *groups]
    if not shown:
        raise InferenceError("no regressor is left", given=data.dropped)
    errors = yield from _errors(options, fit, shown, data=data)
    check_variances(errors, names, options=options)
    return Regression(
        metric=outcome, fit=fit, names=tuple(names), groups=tuple(groups),
        positions=tuple(shown), errors=errors, data=data,
    )  # fmt: skip


def joint_tests(options: OlsOptions, regression: Regression) -> list[dict[str, Any]]:
    """The joint tests of the spec, and that of all slopes; NaN where there is none.

    A test of more coefficients than the clusters allow has no statistic.
    """
    slopes = [j for j, name in enumerate(regression.names) if name != INTERCEPT]
    wanted = {
        name: regression.find(items, key=f"options.tests.{name}")
        for name, items in options.tests.items()
    }
    found = []
    for name, positions in {"all slopes": slopes, **wanted}.items():
        if not positions:
            continue
        try:
            statistic, pvalue = regression.errors.wald(regression.coefficients, positions)
        except InferenceError:
            statistic, pvalue = float("nan"), float("nan")
        found.append(
            {
                "metric": regression.metric, "name": name, "statistic": statistic,
                "df_numerator": len(positions), "df": regression.errors.df_of(positions),
                "pvalue": pvalue,
            }
        )  # fmt: skip
    return found


def _errors(
    options: OlsOptions, fit: Equation, shown: Sequence[int], *, data: RegressionData
) -> Generator[FrameRequest, pd.DataFrame, Errors]:
    at = np.ix_(shown, shown)
    n, k = fit.n, data.n_counted(fit.k)
    if options.kind == "classical":
        divisor = fit.n if options.factor == "none" else fit.df_resid
        df = reference_df(options, n_clusters=None, df_resid=fit.df_resid)
        return Errors(covariance=fit.classical(divisor=divisor)[at], df=df, n_clusters=None)
    if options.kind in {"CR2", "CR3"}:
        g, moments = len(data.clusters), cluster_moments(fit, data.clusters)
        covariance = leave_out_covariance(moments, kind=options.kind)
        factor = (g - 1) / g if options.factor == "jackknife" else 1.0
        df = reference_df(options, n_clusters=g, df_resid=fit.df_resid)
        if options.kind == "CR3":
            return Errors(covariance=factor * covariance[at], df=df, n_clusters=g)
        dfs = bell_mccaffrey_dfs(moments)[shown]
        return Errors(
            covariance=covariance[at], df=df, n_clusters=g,
            dfs=dfs if options.reference == "satterthwaite" else None,
            alone=tuple(np.flatnonzero(np.isnan(dfs)).tolist()),
        )  # fmt: skip
    scores = fit.scores(shown)
    if options.kind in {"HC2", "HC3"}:
        h = leverage(fit, data.rows.weight)
        request = bound_request(h, data.rows)
        bound = largest_leverage(gram((yield request), request))
        scores = corrected_scores(fit, shown, h=h, bound=bound, kind=options.kind)
    found = yield from middle(scores, errors=options, rows=data.rows)
    df = reference_df(options, n_clusters=found.n_clusters, df_resid=fit.df_resid)
    return Errors(
        covariance=row_factor(options, n=n, k=k) * found.matrix, df=df, n_clusters=found.n_clusters
    )


def _readout(spec: OlsSpec, regression: Regression) -> Readout:
    options = spec.options
    tests = joint_tests(options, regression)
    return Readout(
        effects=tuple(_effects(spec, regression)),
        diagnostics=tuple(_diagnostics(options, regression, tests)),
        params=_params(options, regression),
        tables={
            "coefficients": coefficient_table(
                regression.names, regression.coefficients, regression.errors,
                metric=regression.metric, confidence_level=spec.confidence_level,
            ),
            "covariance": covariance_table(
                regression.names, regression.errors.covariance, metric=regression.metric
            ),
            "tests": pd.DataFrame(
                tests, columns=["metric", "name", "statistic", "df_numerator", "df", "pvalue"]
            ),
        },
    )  # fmt: skip


def _effects(spec: OlsSpec, regression: Regression) -> list[Effect]:
    options = spec.options
    every = list(range(len(regression.names)))
    shown = every if options.report is None else regression.find(options.report, key="report")
    terms = {column.name: column.term for column in regression.data.columns}
    std_errors = regression.errors.std_errors
    n = regression.data.counted.n
    found = []
    for j in shown:
        name = regression.names[j]
        if j in regression.errors.alone:
            raise InferenceError(
                "one cluster alone identifies this coefficient: its error cannot be told",
                given=name, allowed="report: other coefficients", key="options.report",
            )  # fmt: skip
        n_treated, n_control = regression.data.sides(terms[name]) if name in terms else (n, n)
        found.append(
            effect(
                estimator="ols" if options.weight is None else "wls",
                estimand="coefficient",
                metric=regression.metric,
                term=name,
                estimate=float(regression.coefficients[j]),
                std_error=float(std_errors[j]),
                df=regression.errors.df_of([j]),
                confidence_level=spec.confidence_level,
                n_treated=n_treated,
                n_control=n_control,
                n_clusters=regression.errors.n_clusters,
            )
        )
    return found


def _diagnostics(
    options: OlsOptions, regression: Regression, tests: Sequence[Mapping[str, Any]]
) -> list[Diagnostic]:
    found = data_notes(options, regression.data, regression.errors, k=len(regression.names))
    for test in tests:
        df = "" if test["df"] is None else f", {test['df']:g}"
        has_test = not np.isnan(test["statistic"])
        text = f"F({test['df_numerator']}{df}) = {test['statistic']:.4g}, p = {test['pvalue']:.3g}"
        found.append(
            Diagnostic(
                name=f"joint.{test['name']}",
                statistic=test["statistic"] if has_test else None,
                pvalue=test["pvalue"] if has_test else None,
                passed=None,
                detail=f"{test['name']} all zero: {text if df else text.replace('F(', 'chi2(')}"
                if has_test
                else f"no joint test of {test['name']}: the covariance of the coefficients is "
                "not positive (more coefficients than clusters, say) or its degrees of freedom are "
                "too few",
            )
        )
    return found


def _params(options: OlsOptions, regression: Regression) -> dict[str, Any]:
    fit, data = regression.fit, regression.data
    within = fit.tss
    if data.effects:
        effects = [column.term for column in data.effects]
        within = float(data.moments.net([fit.outcome], effects)[0, 0])
    total: float | None = fit.tss
    if fit.n_absorbed:
        at = data.counted.index(fit.outcome)
        total = float(data.counted.cross[at, at]) if options.weight is None else None
    found: dict[str, Any] = {
        "n": fit.n,
        "n_coefficients": len(regression.names),
        "df_resid": fit.df_resid,
        "covariance": options.kind,
        "small_sample": options.factor,
        "rmse": float(np.sqrt(fit.rss / fit.df_resid)),
    }
    if options.absorb is not None:
        found["n_absorbed"] = fit.n_absorbed or len(data.effects) + 1
        found["r_squared_within"] = 1.0 - fit.rss / within
    if total is not None:
        explained = 1.0 - fit.rss / total
        found["r_squared"] = explained
        lost = fit.n - (1 if options.has_constant else 0)
        found["r_squared_adjusted"] = 1.0 - (1.0 - explained) * lost / fit.df_resid
    return found
