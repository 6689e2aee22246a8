"""Effects, checks and tables of a switchback."""

import numpy as np
import pandas as pd

from causal.checks import few_clusters, panel_health, srm
from causal.core.errors import DataError, InferenceError
from causal.core.inference import critical_value, effect, two_sided_pvalue
from causal.core.readout import Readout
from causal.core.result import Diagnostic
from causal.quasi.geo.switchback_cells import Cells
from causal.quasi.geo.switchback_options import SwitchbackOptions, SwitchbackSpec
from causal.quasi.geo.switchback_study import (
    Estimate,
    carry_over,
    effect_of,
    effects_by_position,
    longest_wash_out,
    randomisation_test,
)

TERM = "treated - control"
_SAMPLE_RATIO = 0.001


def readout(spec: SwitchbackSpec, cells: Cells, *, outcome: str) -> Readout:
    """What one outcome says."""
    options = spec.options
    found = effect_of(options, cells, wash_out=options.wash_out)
    average = effect(
        estimator="switchback",
        estimand="ate",
        metric=outcome,
        term=TERM,
        estimate=found.estimate,
        std_error=found.std_error,
        df=found.df,
        confidence_level=spec.confidence_level,
        n_treated=found.n_treated,
        n_control=found.n_control,
        n_clusters=found.n_clusters,
    )
    tables = {
        "by_wash_out": _by_wash_out(spec, cells),
        "by_position": _by_position(spec, cells),
        "blocks": _blocks(cells),
    }
    kept = cells.layout.is_settled(cells.assignment, wash_out=options.wash_out)
    shares = cells.weights * (kept & (cells.treatment == 0))
    return Readout(
        effects=(average,),
        diagnostics=tuple(_checks(spec, cells, found)),
        params={
            "n_regions": len(cells.regions),
            "n_blocks": len(cells.assignment),
            "n_cells": len(cells.outcome),
            "n_used": int(kept.sum()),
            "control_mean": float(shares @ cells.outcome / shares.sum()),
        },
        tables={
            name: table.assign(metric=outcome)[["metric", *table.columns]]
            for name, table in tables.items()
        },
    )


def _checks(spec: SwitchbackSpec, cells: Cells, found: Estimate) -> list[Diagnostic]:
    options = spec.options
    checks = [panel_health.missing_rows(cells.n_missing), *_gaps(cells), *_left_out(options, cells)]
    checks += _clusters(options, found)
    if options.randomisation == "bernoulli":
        n_treated = int(cells.assignment.sum())
        checks.append(
            srm.check(
                {"treated": n_treated, "control": len(cells.assignment) - n_treated},
                shares=(options.treated_share, 1 - options.treated_share), alpha=_SAMPLE_RATIO,
            )
        )  # fmt: skip
    checks.append(_carry_over(spec, cells))
    if options.randomisation_draws:
        checks.append(_randomisation(spec, cells, found))
    return checks


def _gaps(cells: Cells) -> list[Diagnostic]:
    """Periods in which regions have no row, and regions whose outcome never changes."""
    found = []
    period, region = cells.layout.period, cells.layout.region
    n_places = len(cells.regions) * int(period.max() - period.min() + 1)
    n_absent = n_places - len(period)
    if n_absent:
        detail = (
            f"{n_absent:,} of {n_places:,} regions and periods from the first to the last have no "
            "value; where that depends on the treatment, as hours without a trip may, the effect "
            "is biased: give them a row"
        )
        found.append(panel_health.note("n_absent", n_absent, detail))
    by_region = [cells.outcome[region == number] for number in range(len(cells.regions))]
    still = [
        str(name)
        for name, values in zip(cells.regions, by_region, strict=True)
        if len(values) > 1 and np.ptp(values) == 0
    ]
    if still:
        detail = f"{len(still)} regions have the same outcome in every period: {', '.join(still)}"
        found.append(panel_health.note("constant_regions", len(still), detail))
    return found


def _left_out(options: SwitchbackOptions, cells: Cells) -> list[Diagnostic]:
    if options.wash_out == 0:
        return []
    settled = cells.layout.is_settled(cells.assignment, wash_out=options.wash_out)
    known = cells.layout.has_past(options.wash_out)
    n_washed, n_unknown = int((~settled & known).sum()), int((~known).sum())
    return [
        panel_health.note(
            "wash_out", n_washed,
            f"{n_washed:,} of {len(settled):,} regions and periods left out: within "
            f"{options.wash_out} periods after a switch",
        ),
        panel_health.note(
            "unknown_past", n_unknown,
            f"{n_unknown:,} regions and periods left out: the treatment of the {options.wash_out} "
            "periods before is not known",
        ),
    ]  # fmt: skip


def _clusters(options: SwitchbackOptions, found: Estimate) -> list[Diagnostic]:
    if found.n_clusters is None:
        return []
    is_corrected = options.correction == "cr2"
    checks = [few_clusters.total(found.n_clusters, is_corrected=is_corrected)]
    if options.errors in {"block", "neighbours"}:
        treated, control = found.n_units
        checks += few_clusters.sides(
            {"treated": treated, "control": control}, name="few_blocks", is_corrected=is_corrected
        )
    return checks


def _carry_over(spec: SwitchbackSpec, cells: Cells) -> Diagnostic:
    found = carry_over(spec.options, cells)
    if found is None or not found.std_error > 0:
        detail = "not tested: the treatment of the block before does not vary by itself"
        return panel_health.note("carry_over", None, detail)
    statistic = found.estimate / found.std_error
    pvalue = two_sided_pvalue(statistic, df=found.df)
    half = critical_value(spec.confidence_level, df=found.df) * found.std_error
    after = (
        f"{spec.options.wash_out} periods after a switch" if spec.options.wash_out else "at once"
    )
    detail = (
        f"treatment in the block before moves the outcome by {found.estimate:+.4g} "
        f"[{found.estimate - half:+.4g}, {found.estimate + half:+.4g}], p = {pvalue:.3g}; counted "
        f"{after}, it should move nothing"
    )
    return Diagnostic(
        name="carry_over", statistic=statistic, pvalue=pvalue,
        passed=pvalue > 1 - spec.confidence_level, detail=detail,
    )  # fmt: skip


def _randomisation(spec: SwitchbackSpec, cells: Cells, found: Estimate) -> Diagnostic:
    test = randomisation_test(spec.options, cells, seed=spec.seed)
    usual = two_sided_pvalue(found.estimate / found.std_error, df=found.df)
    detail = (
        f"no effect in any period: {test.n_draws:,} other assignments give p = {test.pvalue:.3g}, "
        f"the standard error {usual:.3g}"
    )
    return Diagnostic(
        name="randomisation_test", statistic=test.statistic, pvalue=test.pvalue, passed=None,
        detail=detail,
    )  # fmt: skip


def _by_wash_out(spec: SwitchbackSpec, cells: Cells) -> pd.DataFrame:
    """The effect under longer and longer wash-outs."""
    rows = []
    for wash_out in range(longest_wash_out(spec.options, cells) + 1):
        try:
            found = effect_of(spec.options, cells, wash_out=wash_out)
        except (DataError, InferenceError):
            break
        half = critical_value(spec.confidence_level, df=found.df) * found.std_error
        rows.append(
            {
                "wash_out": wash_out, "is_chosen": wash_out == spec.options.wash_out,
                "estimate": found.estimate, "std_error": found.std_error,
                "ci_lower": found.estimate - half, "ci_upper": found.estimate + half,
                "n_used": found.n_treated + found.n_control,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _by_position(spec: SwitchbackSpec, cells: Cells) -> pd.DataFrame:
    """The effect in each period of a block."""
    columns = ["position", "estimate", "std_error", "ci_lower", "ci_upper"]
    found = effects_by_position(spec.options, cells)
    if found is None:
        return pd.DataFrame(columns=columns, dtype=np.float64)
    errors = np.sqrt(np.diag(found.covariance))
    critical = [critical_value(spec.confidence_level, df=float(df)) for df in found.dfs]
    half = np.array(critical) * errors
    values = found.coefficients
    rows = [np.arange(len(values)), values, errors, values - half, values + half]
    return pd.DataFrame(dict(zip(columns, rows, strict=True)))


def _blocks(cells: Cells) -> pd.DataFrame:
    """Each block of each region with its treatment and mean outcome."""
    laid, n = cells.layout, len(cells.layout.span_region)
    total = np.bincount(laid.span, cells.weights, n)
    mean = np.bincount(laid.span, cells.weights * cells.outcome, n) / total
    return pd.DataFrame(
        {
            "region": [str(cells.regions[at]) for at in laid.span_region],
            "first_period": laid.span_low,
            "last_period": laid.span_high,
            "treatment": cells.assignment[laid.span_unit].astype(np.int64),
            "mean_outcome": mean,
        }
    )
