"""Designing a geo experiment on the history of its regions: which to treat, and for how long.

Sets of regions are screened by the spread of their placebo effects; for the best ones the test to
come is run in pretended experiments on the history, which gives its A/A rate, its power at any
lift and the smallest detectable one. The idea is that of GeoLift's market selection (Meta 2022) and
of matched markets (Vaver and Koehler 2011; Kerman, Wang and Vaver 2017; Au 2018). A plan is not an
estimate: its result has no effects but tables, of which `plan` ranks the designs and `assignment`
holds the first one's. See `docs/methods/geo_design.md`.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causal.checks import donor_pool, panel_health
from causal.core.errors import DataError
from causal.core.frames import FrameRequest, Level
from causal.core.gram import Array
from causal.core.registry import Plan
from causal.core.result import Diagnostic, Result
from causal.quasi.geo.candidates import Candidate, Market, candidates
from causal.quasi.geo.design_options import GeoDesignOptions, GeoDesignSpec
from causal.quasi.geo.design_power import Trials, power_at, smallest_lift
from causal.quasi.geo.placebo_windows import (
    Window,
    arrange,
    n_independent,
    placebo_effect,
    placebo_trial,
    pretended_paths,
    windows,
)
from causal.quasi.synthetic.region_notes import never_moves
from causal.quasi.synthetic.region_panel import (
    check_values,
    found_region,
    observe_table,
    spaced_periods,
    without,
)
from causal.quasi.time_axis import Periods

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = GeoDesignSpec

SHOWN: Mapping[str, str] = {
    "rank": "rank", "treated": "treated", "selection": "selection", "duration": "periods",
    "share_of_volume": "share of volume", "aa_rate": "A/A rate", "aa_lower": "from",
    "aa_upper": "to", "mde": "smallest lift", "pre_error": "error before", "cost": "cost",
}  # fmt: skip
"""Columns of the table `plan` that a reader sees first, and their headings."""

_FEW_WINDOWS = 20


@dataclass(frozen=True, kw_only=True)
class History:
    """The regions and their outcomes.

    Attributes:
        units: The N regions.
        periods: The T periods, numbers or dates.
        market: Outcomes and who may be treated.
        n_missing: Rows without an outcome or weight.
        dropped: Regions left out because they lack a period.
    """

    units: tuple[Level, ...]
    periods: Periods
    market: Market
    n_missing: int
    dropped: tuple[Level, ...]


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A candidate and a duration with their pretended experiments."""

    candidate: Candidate
    duration: int
    trials: Trials


def estimate(spec: GeoDesignSpec) -> Plan:
    """Rank designs by what their analysis finds where nothing happened.

    Args:
        spec: The plan.

    Returns:
        A plan that yields requests and returns the result: tables `plan`, `power`, `assignment`,
        `series` and `trials`.

    Raises:
        DataError: The history cannot carry the plan.
    """
    history = yield from _observe(spec)
    found, n_beyond = candidates(spec.options, history.market, seed=spec.seed)
    grids = {size: _windows(spec.options, history, size) for size in spec.options.durations}
    finalists = _screened(spec, history, found, grids)
    simulated = [
        _simulated(spec, history, item, duration, grid)
        for item in finalists
        for duration, grid in grids.items()
    ]
    return _result(spec, history, simulated, n_screened=len(found), n_beyond=n_beyond)


def figures(result: Result) -> Mapping[str, "Figure"]:
    """Power by lift and duration, and the chosen regions beside what stands in for them."""
    from causal.quasi.geo.design_figures import power_figure, series_figure

    return {"power_by_lift": power_figure(result), "chosen_regions": series_figure(result)}


def sentences(result: Result) -> list[str]:
    """The best design in plain words."""
    best = result.tables["plan"].iloc[0]
    lift = "no lift is found" if pd.isna(best["mde"]) else f"a lift of {best['mde']:.1%} is found"
    cost = "" if pd.isna(best["cost"]) else f"; it costs {best['cost']:,.0f}"
    design = (
        f"treat {best['treated']} for {best['duration']} periods "
        f"({best['share_of_volume']:.1%} of the volume): {lift} with {best['power']:.0%} power"
        f"{cost}"
    )
    aa = (
        f"where nothing happened the test rejects in {best['aa_rate']:.1%} of "
        f"{best['n_windows']} windows (interval {best['aa_lower']:.1%} to {best['aa_upper']:.1%}, "
        f"{best['n_independent']} of them independent)"
    )
    return [design, aa]


def metrics(result: Result) -> dict[str, float]:
    """The numbers of the best design."""
    best = result.tables["plan"].iloc[0]
    names = ("mde", "aa_rate", "aa_lower", "aa_upper", "duration", "n_treated", "share_of_volume")
    return {name: float(best[name]) for name in names if not pd.isna(best[name])}


def _observe(spec: GeoDesignSpec) -> Generator[FrameRequest, pd.DataFrame, History]:
    options = spec.options
    table, n_missing = yield from observe_table(
        options, spec.source.conditions, column=options.outcome
    )
    table = without(table, options.excluded)
    if table.empty:
        raise DataError("the source has no rows after the filters")
    holes = [unit for unit in table.index if table.loc[unit].isna().any()]
    if holes and options.incomplete == "refuse":
        raise DataError(
            f"some regions lack a value in some {options.period}",
            given=f"{len(holes)} regions, such as {', '.join(map(str, holes[:5]))}",
            allowed="a value in each period, or incomplete: drop",
        )
    table = table.drop(index=holes).sort_index(key=lambda index: index.map(str))
    if table.empty:
        raise DataError("every region lacks a period", given=f"{len(holes)} regions")
    periods = spaced_periods(options, table)
    values = table.to_numpy(dtype=np.float64)
    check_values(values, options.outcome)
    return History(
        units=tuple(table.index),
        periods=periods,
        market=_market(options, list(table.index), values),
        n_missing=n_missing,
        dropped=tuple(holes),
    )


def _market(options: GeoDesignOptions, units: list[Level], values: Array) -> Market:
    totals = values.sum(axis=1)
    if totals.min() < 0 or totals.sum() <= 0:
        raise DataError(
            f"lifts and shares of the volume need {options.outcome} to be positive",
            given=f"a region with {totals.min():g} in all",
        )
    included = [units.index(found_region(x, units, role="included")) for x in options.include]
    spared = [
        units.index(found_region(x, units, role="control_only")) for x in options.control_only
    ]
    free = [row for row in range(len(units)) if row not in {*included, *spared}]
    return Market(
        values=values,
        included=np.array(sorted(included), dtype=np.intp),
        free=np.array(free, dtype=np.intp),
        volume=totals / totals.sum(),
    )


def _windows(options: GeoDesignOptions, history: History, duration: int) -> list[Window]:
    n_periods = len(history.periods)
    least = options.min_pre_periods
    if least is None:
        least = max(2, n_periods // 3)
    if options.pre_periods is not None:
        least = max(options.min_pre_periods or 0, min(options.pre_periods, n_periods))
    found = windows(
        n_periods, duration=duration, step=options.step or duration,
        n_windows=options.n_windows, least_pre=least, most_pre=options.pre_periods,
    )  # fmt: skip
    if len(found) < 2:  # noqa: PLR2004
        raise DataError(
            "the history is too short for pretended experiments of this length",
            given=f"{n_periods} periods, {least} before the first window, duration {duration}",
            allowed="a shorter duration or step, fewer min_pre_periods, or a longer history",
        )
    return found


def _screened(
    spec: GeoDesignSpec,
    history: History,
    found: Sequence[Candidate],
    grids: Mapping[int, Sequence[Window]],
) -> list[Candidate]:
    """The candidates of each size whose placebo effects spread least, over all durations."""
    values = history.market.values

    def spread(item: Candidate) -> float:
        parts = []
        for grid in grids.values():
            panels = [arrange(values, item.rows, window) for window in grid]
            effects = np.array([placebo_effect(spec, panel) for panel in panels])
            level = _level(values, item, grid, history)
            parts.append(float(np.sqrt((effects**2).mean())) / level)
        return float(np.mean(parts))

    chosen: list[Candidate] = []
    for size in spec.options.sizes:
        of_size = [item for item in found if len(item.rows) == size]
        chosen += sorted(of_size, key=lambda item: (spread(item), item.rows))[
            : spec.options.n_finalists
        ]
    return chosen


def _level(values: Array, item: Candidate, grid: Sequence[Window], history: History) -> float:
    rows = values[list(item.rows)]
    level = float(np.mean([rows[:, window.start : window.end].mean() for window in grid]))
    if level <= 0:
        raise DataError(
            "a lift needs treated regions with a positive outcome",
            given=_names(history, item),
        )
    return level


def _simulated(
    spec: GeoDesignSpec, history: History, item: Candidate, duration: int, grid: list[Window]
) -> Simulated:
    values = history.market.values
    trials = tuple(placebo_trial(spec, arrange(values, item.rows, window)) for window in grid)
    for window, trial in zip(grid, trials, strict=True):
        if trial.level <= 0:
            _level(values, item, [window], history)
    return Simulated(
        candidate=item,
        duration=duration,
        trials=Trials(items=trials, n_independent=n_independent(grid)),
    )


def _result(
    spec: GeoDesignSpec,
    history: History,
    simulated: Sequence[Simulated],
    *,
    n_screened: int,
    n_beyond: int,
) -> Result:
    rows = [_row(spec, history, item) for item in simulated]
    order = sorted(range(len(rows)), key=lambda at: _merit(spec, rows[at]))
    plan = pd.DataFrame([{"rank": rank + 1, **rows[at]} for rank, at in enumerate(order)])
    best = simulated[order[0]]
    ranked = [simulated[at] for at in order]
    return Result(
        effects=(),
        diagnostics=tuple(
            _checks(spec, history, plan, ranked, n_screened=n_screened, n_beyond=n_beyond)
        ),
        params={
            "n_regions": len(history.units), "n_periods": len(history.periods),
            "n_screened": n_screened, "n_designs": len(plan), "level": 1 - spec.confidence_level,
        },
        tables={
            "plan": plan,
            "power": _power_table(spec, history, ranked),
            "assignment": _assignment(history, best),
            "series": _series(spec, history, best),
            "trials": _trials_table(spec, history, ranked),
        },
    )  # fmt: skip


def _row(spec: GeoDesignSpec, history: History, item: Simulated) -> dict[str, Any]:
    options, trials = spec.options, item.trials
    aa = power_at(trials, 0.0, confidence_level=spec.confidence_level)
    side = 1.0 if options.direction == "increase" else -1.0
    mde = smallest_lift(trials, power=options.power, side=side)
    size = len(item.candidate.rows)
    total = None if mde is None else mde * trials.level * size * item.duration
    has_cost = total is not None and options.cost_per_unit is not None
    cost = float(total) * float(options.cost_per_unit or 0.0) if has_cost and total else None
    return {
        "treated": _names(history, item.candidate),
        "selection": item.candidate.selection,
        "n_treated": size,
        "n_control": len(history.units) - size,
        "duration": item.duration,
        "share_of_volume": float(history.market.volume[list(item.candidate.rows)].sum()),
        "estimator": options.estimator,
        "n_windows": len(trials.items),
        "n_independent": trials.n_independent,
        "n_refused": trials.n_refused,
        "aa_rate": aa.share,
        "aa_lower": aa.lower,
        "aa_upper": aa.upper,
        "power": options.power,
        "mde": math.nan if mde is None else side * mde,
        "mde_total": math.nan if total is None else side * total,
        "bias": trials.bias,
        "rmse": trials.rmse,
        "pre_error": trials.pre_error,
        "cost": math.nan if cost is None else cost,
        "is_within_budget": options.budget is None or (cost is not None and cost <= options.budget),
    }


def _merit(spec: GeoDesignSpec, row: Mapping[str, Any]) -> tuple[float, ...]:
    """What is sorted by: a valid test, then the budget, the smallest lift, the fit before."""
    rejects_too_often = row["aa_lower"] > 1 - spec.confidence_level
    size = math.inf if math.isnan(row["mde"]) else abs(row["mde"])
    return (
        float(rejects_too_often), float(not row["is_within_budget"]), size, row["pre_error"],
        float(row["duration"]),
    )  # fmt: skip


def _power_table(
    spec: GeoDesignSpec, history: History, ranked: Sequence[Simulated]
) -> pd.DataFrame:
    rows = []
    for rank, item in enumerate(ranked, start=1):
        for lift in spec.options.shown_lifts:
            rate = power_at(item.trials, lift, confidence_level=spec.confidence_level)
            rows.append(
                {
                    "rank": rank, "treated": _names(history, item.candidate),
                    "duration": item.duration, "lift": lift,
                    "is_aa": lift == 0.0, "power": rate.share, "lower": rate.lower,
                    "upper": rate.upper, "n_windows": len(item.trials.items),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _names(history: History, item: Candidate) -> str:
    return ", ".join(str(history.units[row]) for row in item.rows)


def _assignment(history: History, best: Simulated) -> pd.DataFrame:
    treated = set(best.candidate.rows)
    pairs = {row: n for n, pair in enumerate(best.candidate.pairs, start=1) for row in pair}
    market, rows = history.market, range(len(history.units))
    return pd.DataFrame(
        {
            "unit": [str(unit) for unit in history.units],
            "role": ["treatment" if row in treated else "control" for row in rows],
            "pair": pd.array([pairs.get(row) for row in rows], dtype="Int64"),
            "share_of_volume": market.volume,
            "mean_outcome": market.values.mean(axis=1),
        }
    )


def _series(spec: GeoDesignSpec, history: History, best: Simulated) -> pd.DataFrame:
    """Treated regions and what stands in for them, the last periods held out."""
    values, n = history.market.values, len(history.periods)
    before = spec.options.pre_periods
    start = n - best.duration
    window = Window(first=0 if before is None else max(0, start - before), start=start, end=n)
    treated, synthetic = pretended_paths(spec, arrange(values, best.candidate.rows, window))
    return pd.DataFrame(
        {
            "period": history.periods[window.first :], "treated": treated, "synthetic": synthetic,
            "is_held_out": np.arange(window.first, n) >= start,
        }
    )  # fmt: skip


def _trials_table(
    spec: GeoDesignSpec, history: History, ranked: Sequence[Simulated]
) -> pd.DataFrame:
    rows = []
    for rank, item in enumerate(ranked, start=1):
        grid = _windows(spec.options, history, item.duration)
        for window, trial in zip(grid, item.trials.items, strict=True):
            rows.append(
                {
                    "rank": rank, "duration": item.duration,
                    "start": history.periods[window.start], "n_pre": window.n_pre,
                    "effect": trial.effect, "half_width": trial.half_width,
                    "level": trial.level, "is_rejected": abs(trial.effect) > trial.half_width,
                    "is_refused": trial.is_refused,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _checks(
    spec: GeoDesignSpec,
    history: History,
    plan: pd.DataFrame,
    ranked: Sequence[Simulated],
    *,
    n_screened: int,
    n_beyond: int,
) -> list[Diagnostic]:
    found = [panel_health.missing_rows(history.n_missing)]
    if history.dropped:
        found.append(donor_pool.dropped_donors(history.dropped))
    is_still = never_moves(history.market.values)
    if is_still.any():
        names = [history.units[int(row)] for row in np.flatnonzero(is_still)]
        found.append(donor_pool.constant_donors(names))
    detail = f"{n_screened} sets of regions screened" + (
        f", {n_beyond} more passed over: max_candidates" if n_beyond else ""
    )
    found.append(panel_health.note("n_beyond", n_beyond, detail))
    found.append(_aa_check(spec, plan))
    found += _budget_check(spec, plan)
    best, trials = plan.iloc[0], ranked[0].trials
    if trials.n_refused:
        detail = (
            f"in {trials.n_refused} of {best['n_windows']} windows the method would refuse "
            "(nothing is left unexplained before them); they count as not rejected"
        )
        found.append(panel_health.note("n_refused", trials.n_refused, detail))
    if best["n_independent"] < _FEW_WINDOWS:
        detail = (
            f"rates rest on {best['n_independent']} windows that do not overlap: they move in "
            f"steps of {1 / best['n_independent']:.0%}"
        )
        found.append(panel_health.note("few_windows", float(best["n_independent"]), detail))
    detail = (
        f"the best of {len(plan)} designs on the same windows looks better than it will be; a set "
        "with a much smaller lift than the others is to be doubted"
    )
    found.append(panel_health.note("selection", len(plan), detail))
    return found


def _aa_check(spec: GeoDesignSpec, plan: pd.DataFrame) -> Diagnostic:
    best, level = plan.iloc[0], 1 - spec.confidence_level
    n_bad = int((plan["aa_lower"] > level).sum())
    detail = (
        f"where nothing happened the test of the first design rejects in {best['aa_rate']:.1%} of "
        f"windows, interval {best['aa_lower']:.1%} to {best['aa_upper']:.1%}, nominal {level:.0%}; "
        f"{n_bad} of {len(plan)} designs reject too often"
    )
    return Diagnostic(
        name="aa_rate", statistic=float(best["aa_rate"]), pvalue=None,
        passed=bool(best["aa_lower"] <= level), detail=detail,
    )  # fmt: skip


def _budget_check(spec: GeoDesignSpec, plan: pd.DataFrame) -> list[Diagnostic]:
    budget = spec.options.budget
    if budget is None:
        return []
    n_within = int(plan["is_within_budget"].sum())
    detail = f"{n_within} of {len(plan)} designs find a lift that costs at most {budget:,}"
    return [
        Diagnostic(
            name="budget", statistic=float(n_within), pvalue=None, passed=n_within > 0,
            detail=detail,
        )
    ]  # fmt: skip
