"""What many fits say together: effects, adjusted p-values, how many failed and why.

All fits of treated regions form one family, each judged by its first effect on the absolute scale;
their p-values are adjusted together (`causal/core/multiplicity.py`). Placebo fits stand outside it:
nothing was done to their regions, so the share of them that would be called an effect shows how
often the analysis errs on these very data.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from causal.core.multiplicity import FALSE_DISCOVERY, adjusted_pvalues
from causal.core.result import Diagnostic, Effect, Result
from causal.fits.fits_spec import FitsSpec
from causal.fits.fitting import Fitted
from causal.fits.grid import Grid

FIT_COLUMNS = (
    "number", "metric", "unit", "start", "is_placebo", "estimator", "estimate", "std_error",
    "statistic", "ci_lower", "ci_upper", "pvalue", "pvalue_adjusted", "reason", "seconds",
)  # fmt: skip
"""Columns of the table `fits`; those from `estimator` to `pvalue_adjusted` are null on failure."""

_SHOWN_REASONS = 5
_NUMBERS = ("estimate", "std_error", "statistic", "ci_lower", "ci_upper", "pvalue")


def readout(spec: FitsSpec, found: Sequence[Fitted], *, grid: Grid) -> Result:
    """Effects and checks of all fits in the rows of every other method, and a table of the fits.

    Terms carry the region (`average | North`), estimators of placebo fits end with `_placebo`.

    Args:
        spec: The spec of all fits.
        found: What came of each.
        grid: The grid.
    """
    table = fit_table(spec, found)
    diagnostics = [
        _outcome_of_fits(found, grid=grid),
        *_multiplicity(spec, table),
        *_placebos(spec, table),
        *_checks(found),
        *_failures(found),
        *_adjusted(table),
    ]
    return Result(
        effects=tuple(effect for item in found for effect in effects_of(item)),
        diagnostics=tuple(diagnostics),
        params={
            "n_fits": len(found),
            "n_failed": sum(item.reason is not None for item in found),
            "n_treated_regions": len(grid.treated),
            "n_donors": len(grid.donors),
            "n_discoveries": int((table["pvalue_adjusted"] <= 1.0 - spec.confidence_level).sum()),
            "fit_seconds": float(table["seconds"].sum()),
        },
        tables={"fits": table},
    )


def effects_of(item: Fitted) -> tuple[Effect, ...]:
    """A fit's effects with its region in their terms."""
    suffix = "_placebo" if item.fit.is_placebo else ""
    return tuple(
        dataclasses.replace(
            effect,
            term=f"{effect.term} | {item.fit.unit}",
            estimator=f"{effect.estimator}{suffix}",
        )
        for effect in item.effects
    )


def fit_table(spec: FitsSpec, found: Sequence[Fitted]) -> pd.DataFrame:
    """One row per fit, columns `FIT_COLUMNS`."""
    rows = []
    for item in found:
        head, fit = item.headline, item.fit
        numbers = {name: None if head is None else getattr(head, name) for name in _NUMBERS}
        rows.append(
            {
                "number": fit.number, "metric": fit.outcome, "unit": str(fit.unit),
                "start": fit.start, "is_placebo": fit.is_placebo,
                "estimator": None if head is None else head.estimator, **numbers,
                "reason": item.reason, "seconds": item.seconds,
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table = table.astype(dict.fromkeys(_NUMBERS, np.float64))
    table["pvalue_adjusted"] = np.nan
    tested = table["pvalue"].notna() & ~table["is_placebo"]
    if tested.any():
        pvalues = table.loc[tested, "pvalue"].to_numpy()
        table.loc[tested, "pvalue_adjusted"] = adjusted_pvalues(
            pvalues, correction=spec.fits.correction
        )
    return table[list(FIT_COLUMNS)]


def discoveries(spec: FitsSpec, table: pd.DataFrame) -> pd.DataFrame:
    """The fits whose adjusted p-value is at most alpha, the largest statistics first."""
    chosen = table[table["pvalue_adjusted"] <= 1.0 - spec.confidence_level]
    return chosen.sort_values("statistic", key=np.abs, ascending=False, kind="stable")


def reasons(found: Sequence[Fitted]) -> list[tuple[str, int]]:
    """Why fits failed, and how many of them, the most frequent first."""
    return Counter(item.reason for item in found if item.reason is not None).most_common()


def _outcome_of_fits(found: Sequence[Fitted], *, grid: Grid) -> Diagnostic:
    failed = sum(item.reason is not None for item in found)
    shown = "; ".join(f"{n} x {text}" for text, n in reasons(found)[:_SHOWN_REASONS])
    return Diagnostic(
        name="fits",
        statistic=float(failed),
        pvalue=None,
        passed=failed == 0,
        detail=f"{len(found) - failed:,} of {len(found):,} fits were made, each of a region "
        f"against {len(grid.donors):,} never-treated ones"
        + (f"; failed: {shown}" if shown else ""),
    )


def _multiplicity(spec: FitsSpec, table: pd.DataFrame) -> Iterator[Diagnostic]:
    n_tests = int(table["pvalue_adjusted"].notna().sum())
    if n_tests == 0:
        return
    correction, alpha = spec.fits.correction, 1.0 - spec.confidence_level
    n_found = len(discoveries(spec, table))
    n_alone = int((table.loc[~table["is_placebo"], "pvalue"] <= alpha).sum())
    rate = "false discovery rate" if correction in FALSE_DISCOVERY else "family-wise error rate"
    yield Diagnostic(
        name="multiplicity",
        statistic=float(n_found),
        pvalue=None,
        passed=None,
        detail=f"{n_found} of {n_tests} effects differ from zero at a {rate} of {alpha:.3g} "
        f"({correction}); {n_alone} would if each were the only one",
    )


def _placebos(spec: FitsSpec, table: pd.DataFrame) -> Iterator[Diagnostic]:
    pvalues = table.loc[table["is_placebo"], "pvalue"].dropna()
    if pvalues.empty:
        return
    alpha = 1.0 - spec.confidence_level
    share = float((pvalues <= alpha).mean())
    yield Diagnostic(
        name="placebo_rejections",
        statistic=share,
        pvalue=None,
        passed=None,
        detail=f"{share:.1%} of {len(pvalues)} placebo fits, where there is no effect, are called "
        f"one at level {alpha:.3g} (they share donors, so they are not independent)",
    )


def _checks(found: Sequence[Fitted]) -> Iterator[Diagnostic]:
    """The checks of the fits of treated regions, one row per name."""
    held: dict[str, list[Diagnostic]] = {}
    for item in found:
        for check in () if item.fit.is_placebo else item.diagnostics:
            held.setdefault(check.name, []).append(check)
    for name, checks in held.items():
        failed = sum(check.passed is False for check in checks)
        is_note = all(check.passed is None for check in checks)
        values = [check.statistic for check in checks if check.statistic is not None]
        span = f"; from {min(values):.4g} to {max(values):.4g}" if values else ""
        said = f"noted in {len(checks)} fits" if is_note else f"fails in {failed} of {len(checks)}"
        yield Diagnostic(
            name=name,
            statistic=float(np.median(values)) if values else None,
            pvalue=None,
            passed=None if is_note else failed == 0,
            detail=f"{said}{span}" + (f" (median {np.median(values):.4g})" if values else ""),
        )


def _failures(found: Sequence[Fitted]) -> Iterator[Diagnostic]:
    """A row per fit that failed, and one per check of a fit that did."""
    for item in found:
        fit = item.fit
        suffix = f":{fit.outcome}:{fit.unit}" + (":placebo" if fit.is_placebo else "")
        if item.reason is not None:
            yield Diagnostic(
                name=f"fit{suffix}", statistic=None, pvalue=None, passed=False,
                detail=f"{fit.label} could not be fitted: {item.reason}",
            )  # fmt: skip
        for check in item.diagnostics:
            if check.passed is False:
                yield dataclasses.replace(check, name=f"{check.name}{suffix}")


def _adjusted(table: pd.DataFrame) -> Iterator[Diagnostic]:
    """The adjusted p-value of each fit of a treated region, for who reads the tables alone."""
    tested = table[table["pvalue_adjusted"].notna()]
    for row in tested.to_dict("records"):
        yield Diagnostic(
            name=f"pvalue_adjusted:{row['metric']}:{row['unit']}",
            statistic=row["statistic"],
            pvalue=row["pvalue_adjusted"],
            passed=None,
            detail=f"{row['metric']} in {row['unit']}: {row['estimate']:+.4g}, p = "
            f"{row['pvalue']:.3g}, adjusted {row['pvalue_adjusted']:.3g}",
        )
