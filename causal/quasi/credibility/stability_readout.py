"""Placebos and variants of a staggered design as a table and diagnostics."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from causal.core.result import Diagnostic
from causal.quasi.credibility.readout import Checks
from causal.quasi.credibility.stability import Variant, averages, variants
from causal.quasi.credibility.stability_options import Check
from causal.quasi.group_time_inference import Inference
from causal.quasi.influence import Estimates
from causal.quasi.staggered_options import StaggeredOptions
from causal.quasi.staggered_panel import Design

_PLACEBOS: tuple[Check, ...] = ("placebo_time", "placebo_cohorts")


def stability_checks(
    design: Design,
    options: StaggeredOptions,
    infer: Callable[[Estimates], Inference],
    *,
    metric: str,
    alpha: float,
) -> Checks:
    """The variants beside the analysis.

    Args:
        design: The cohorts.
        options: The analysis, whose `stability` says what to do.
        infer: Gives estimates their errors as the analysis does.
        metric: The outcome.
        alpha: A placebo fails where its p-value is below this level.
    """
    if options.stability is None:
        return Checks()
    items = variants(design, options, options.stability.checks)
    table = _table(items, averages(design, options, items), infer, metric=metric)
    said = [_said(table, check, alpha=alpha) for check in options.stability.checks]
    return Checks(diagnostics=tuple(said), tables={"stability": table})


def _table(
    items: Sequence[Variant],
    found: Estimates,
    infer: Callable[[Estimates], Inference],
    *,
    metric: str,
) -> pd.DataFrame:
    """One row per variant, the analysis first.

    Columns: metric, check, variant, is_placebo, estimate, std_error, ci_lower, ci_upper, pvalue,
    difference (from the analysis; NaN for placebos), difference_std_error, difference_pvalue,
    n_treated and n_control (units).
    """
    rows = []
    for k, item in enumerate(items):
        own, less = infer(found.chosen([k])), infer(found.chosen([len(items) + k]))
        half = own.pointwise * own.std_errors[0]
        is_variant = not item.is_placebo and item.check != "analysis"
        cohorts = {cell.cohort: cell.n_treated for cell in item.cells}
        rows.append(
            {
                "metric": metric, "check": item.check, "variant": item.name,
                "is_placebo": item.is_placebo, "estimate": float(own.values[0]),
                "std_error": own.std_errors[0], "ci_lower": own.values[0] - half,
                "ci_upper": own.values[0] + half, "pvalue": _pvalue(own),
                "difference": float(less.values[0]) if is_variant else np.nan,
                "difference_std_error": less.std_errors[0] if is_variant else np.nan,
                "difference_pvalue": _pvalue(less) if is_variant else np.nan,
                "n_treated": sum(cohorts.values()),
                "n_control": max(cell.n_control for cell in item.cells),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _pvalue(found: Inference) -> float:
    from causal.core.inference import two_sided_pvalue

    if not found.is_known[0]:
        return float("nan")
    return two_sided_pvalue(float(found.values[0] / found.std_errors[0]), df=found.df)


def _said(table: pd.DataFrame, check: Check, *, alpha: float) -> Diagnostic:
    rows = table[table["check"] == check]
    if rows.empty:
        return _noted(check, f"not possible: {_WHY[check]}")
    if check in _PLACEBOS:
        return _placebo(check, rows, alpha=alpha)
    whole = float(table["estimate"].iloc[0])
    far = rows.loc[rows["difference"].abs().idxmax()]
    moved, pvalue = float(far["difference"]), float(far["difference_pvalue"])
    words = f"{far['variant']}: {far['estimate']:.4g} instead of {whole:.4g}"
    if check == "control_group" and not np.isnan(pvalue):
        return Diagnostic(
            name=check, statistic=moved, pvalue=pvalue, passed=pvalue >= alpha, detail=words
        )
    signs = int((np.sign(rows["estimate"]) != np.sign(whole)).sum())
    turned = f"; the sign turns in {signs} of {len(rows)}" if signs else ""
    return _noted(check, f"the average effect moves most {words}{turned}", moved)


def _placebo(check: Check, rows: pd.DataFrame, *, alpha: float) -> Diagnostic:
    """The placebo whose p-value, times their number (Bonferroni), is the smallest."""
    known = rows[rows["pvalue"].notna()]
    if known.empty:
        return _noted(check, "not known: no placebo has a variance")
    worst = known.loc[known["pvalue"].idxmin()]
    pvalue = min(1.0, float(worst["pvalue"]) * len(known))
    of = f", the smallest p-value of {len(known)} times {len(known)}" if len(known) > 1 else ""
    return Diagnostic(
        name=check, statistic=float(worst["estimate"]), pvalue=pvalue, passed=pvalue >= alpha,
        detail=f"placebo effect, {worst['variant']}: {worst['estimate']:.4g} "
        f"[{worst['ci_lower']:.4g}, {worst['ci_upper']:.4g}], p = {pvalue:.3g}{of}",
    )  # fmt: skip


_WHY = {
    "leave_one_cohort_out": "there is one cohort",
    "control_group": "nobody is in the other comparison group",
    "placebo_time": "no cohort has so many periods before its start",
    "placebo_cohorts": "no cohort is untreated when an earlier one starts",
}


def _noted(check: Check, detail: str, statistic: float | None = None) -> Diagnostic:
    return Diagnostic(name=check, statistic=statistic, pvalue=None, passed=None, detail=detail)
