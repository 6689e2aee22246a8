"""The checks and counts that stand beside a plan."""

import math
from collections.abc import Mapping, Sequence

from causal.checks import few_clusters
from causal.checks.panel_health import note
from causal.core.result import Diagnostic
from causal.experiments.power_history import ArrivalHistory, History
from causal.experiments.power_options import PowerOptions
from causal.experiments.power_questions import Question

SAFE_CONTROL_LEVEL = 4.0


def total_of(row: Mapping[str, object]) -> int:
    """Units in all arms of a row of the table `plan`; 0 where none are asked for."""
    total = row["n_total"]
    return total if isinstance(total, int) else 0


def history_checks(options: PowerOptions, history: History) -> list[Diagnostic]:
    """Units of the history, rows that a metric lacks, few clusters."""
    found = [
        Diagnostic(
            name="history",
            statistic=float(history.n),
            pvalue=None,
            passed=None,
            detail=f"planned from {history.n:,} units of the history",
        )
    ]
    for metric in options.metrics:
        missing = history.moments[metric.name].n_missing
        found.append(
            Diagnostic(
                name=f"missing_rows.{metric.name}",
                statistic=float(missing),
                pvalue=None,
                passed=True if missing == 0 else None,
                detail=f"{metric.name}: {missing:,} rows left out for missing values",
            )
        )
    fewest = min((item.n_clusters for item in history.clusters.values()), default=few_clusters.FEW)
    if fewest < few_clusters.FEW:
        detail = f"{fewest} clusters: the clustered variance of the history is itself uncertain"
        found.append(note("few_clusters", float(fewest), detail))
    return found


def arrival_checks(found: ArrivalHistory) -> list[Diagnostic]:
    """Units a day, and those without a day."""
    arrivals = found.arrivals
    per_day = float((arrivals.new + arrivals.returning).mean())
    detail = (
        f"{per_day:,.0f} units a day over {arrivals.n_days} days, "
        f"{arrivals.new.sum() / (arrivals.new + arrivals.returning).sum():.0%} of them new"
    )
    if found.n_without_day:
        detail += f"; {found.n_without_day:,} units without a day are left out"
    return [Diagnostic(name="arrivals", statistic=per_day, pvalue=None, passed=None, detail=detail)]


def scale_checks(
    questions: Sequence[Question], rows: Sequence[Mapping[str, object]]
) -> list[Diagnostic]:
    """A lift whose control level is too close to zero for its interval to be trusted."""
    found = []
    for question, row in zip(questions, rows, strict=True):
        total = row["n_total"] or row["units"]
        if question.test.scale != "relative" or not isinstance(total, int):
            continue
        outcome = question.outcome
        n_control = total * question.control_share / question.test.inflation
        clearance = outcome.level / math.sqrt(outcome.residual / n_control)
        if clearance < SAFE_CONTROL_LEVEL:
            found.append(
                Diagnostic(
                    name=f"relative_scale.{question.name}.{question.estimator}",
                    statistic=clearance,
                    pvalue=None,
                    passed=None,
                    detail=f"{question.name}: the control level will be {clearance:.1f} standard "
                    "errors from zero, too few for the power of a lift to be trusted",
                )
            )
    return found


def time_checks(rows: Sequence[Mapping[str, object]], options: PowerOptions) -> list[Diagnostic]:
    """Sample sizes that the arrivals do not fill in time, by the best estimator of each metric."""
    if options.arrivals is None:
        return []
    best: dict[tuple[object, object], Mapping[str, object]] = {}
    for row in rows:
        best.setdefault((row["metric"], row["term"]), row)
    return [
        Diagnostic(
            name=f"duration.{row['metric']}.{row['term']}",
            statistic=float(total_of(row)),
            pvalue=None,
            passed=False,
            detail=f"{row['metric']}, {row['term']} ({row['estimator']}): {total_of(row):,} units "
            f"do not arrive within {options.arrivals.max_weeks} weeks",
        )
        for row in best.values()
        if row["n_total"] is not None and row["enrolment_days"] is None
    ]


def binding_check(row: Mapping[str, object]) -> Diagnostic:
    """The metric that needs most units."""
    days = row["total_days"]
    lasting = "" if days is None else f", {days} days"
    return Diagnostic(
        name="binding_metric",
        statistic=float(total_of(row)),
        pvalue=None,
        passed=None,
        detail=f"{row['metric']}, {row['term']} ({row['estimator']}) needs most: "
        f"{total_of(row):,} units in all arms{lasting}",
    )
