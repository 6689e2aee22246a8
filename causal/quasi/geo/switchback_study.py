"""What a switchback finds: the effect after a wash-out, carry-over, and a randomisation test."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal.core.errors import DataError, InferenceError
from causal.core.gram import Array
from causal.quasi.geo.switchback_cells import Cells
from causal.quasi.geo.switchback_clusters import bias_reduced, clusters, pooled
from causal.quasi.geo.switchback_fit import Fit, driscoll_kraay, least_squares, newey_west
from causal.quasi.geo.switchback_options import SwitchbackOptions
from causal.quasi.row_scores import lag_count
from causal.quasi.synthetic.region_panel import Indices

_MAX_SHOWN = 24
_EPSILON = 1e-9
_MAX_REDRAWS = 1_000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Coefficients with their covariance.

    Attributes:
        coefficients: Shape (q,).
        covariance: Shape (q, q).
        dfs: Degrees of freedom of the t reference of each, shape (q,).
        n_clusters: Clusters behind the covariance; `None`: serial correlation.
        n_treated: Treated cells.
        n_control: The others.
        n_units: Randomised units that were treated, and that were not.
    """

    coefficients: Array
    covariance: Array
    dfs: Array
    n_clusters: int | None
    n_treated: int
    n_control: int
    n_units: tuple[int, int]

    @property
    def estimate(self) -> float:
        """The first coefficient."""
        return float(self.coefficients[0])

    @property
    def std_error(self) -> float:
        """Its standard error."""
        return float(np.sqrt(self.covariance[0, 0]))

    @property
    def df(self) -> float:
        """Degrees of freedom of its t reference."""
        return float(self.dfs[0])


@dataclass(frozen=True, kw_only=True)
class RandomisationTest:
    """The observed statistic among those of other assignments.

    Attributes:
        pvalue: Share of assignments, the observed one included, with a statistic as large.
        statistic: The observed one, `|estimate| / std_error` (of CR1 where errors are clustered).
        n_draws: Assignments drawn.
    """

    pvalue: float
    statistic: float
    n_draws: int


def effect_of(options: SwitchbackOptions, cells: Cells, *, wash_out: int) -> Estimate:
    """The effect of lasting treatment, from cells settled for so many periods.

    Raises:
        DataError: The wash-out leaves no treated or no other cell.
        InferenceError: The treatment does not vary beyond the fixed effects.
    """
    kept = cells.layout.is_settled(cells.assignment, wash_out=wash_out)
    treated = int(cells.treatment[kept].sum())
    if treated == 0 or treated == int(kept.sum()):
        raise DataError(
            "the wash-out leaves no treated or no other periods",
            given=f"{treated} treated of {int(kept.sum())}", allowed="a shorter wash_out",
        )  # fmt: skip
    return _estimate(options, cells, kept, cells.treatment[:, None])


def carry_over(options: SwitchbackOptions, cells: Cells) -> Estimate | None:
    """The effect of the block before on settled cells, which comes first; `None`: not identified.

    The treatment of the block before was drawn independently, so without carry-over beyond the
    wash-out its coefficient is zero.
    """
    before = cells.layout.previous_span
    by_span = cells.assignment[cells.layout.span_unit]
    settled = cells.layout.is_settled(cells.assignment, wash_out=options.wash_out)
    regressors = np.column_stack([by_span[before], cells.treatment])
    try:
        return _estimate(options, cells, settled & (before >= 0), regressors)
    except InferenceError:
        return None


def effects_by_position(options: SwitchbackOptions, cells: Cells) -> Estimate | None:
    """The effect in each period of a block, none left out; `None`: not identified."""
    position = np.minimum(cells.layout.position, _MAX_SHOWN - 1)
    shown = np.unique(position)
    regressors = cells.treatment[:, None] * (position[:, None] == shown[None, :])
    try:
        return _estimate(options, cells, np.ones(len(position), dtype=np.bool_), regressors)
    except InferenceError:
        return None


def longest_wash_out(options: SwitchbackOptions, cells: Cells) -> int:
    """The longest wash-out for which an effect is shown."""
    return min(cells.layout.longest - 1, max(2 * options.wash_out, 6), _MAX_SHOWN)


def randomisation_test(options: SwitchbackOptions, cells: Cells, *, seed: int) -> RandomisationTest:
    """How often another assignment gives a statistic as large, had the treatment no effect at all.

    Each draw goes through the same wash-out and fit. The statistic is the t ratio, which keeps its
    size also where the treatment changes the spread (Bojinov, Simchi-Levi and Zhao 2023, section
    5; Wu and Ding 2021). Its clustered error is CR1: against its own distribution it needs no
    correction, and draws are many.

    Raises:
        InferenceError: Hardly any assignment can be analysed.
    """
    rng = np.random.default_rng(seed)
    options = options.model_copy(update={"cluster_correction": "cr1"})
    observed = _statistic(options, cells, cells.assignment)
    if observed is None:
        raise InferenceError("the standard error of the effect is zero")
    n_larger, n_done = 0, 0
    for _ in range(options.randomisation_draws + _MAX_REDRAWS):
        if n_done == options.randomisation_draws:
            break
        statistic = _statistic(options, cells, drawn(options, cells, rng))
        if statistic is not None:
            n_done += 1
            n_larger += statistic >= observed * (1 - _EPSILON)
    if n_done < options.randomisation_draws:
        raise InferenceError(
            "most assignments cannot be analysed: too few blocks for a randomisation test",
            given=f"{n_done} of {n_done + _MAX_REDRAWS} draws",
            allowed="randomisation_draws: 0, or more blocks",
        )
    return RandomisationTest(
        pvalue=(1 + n_larger) / (1 + n_done), statistic=observed, n_draws=n_done
    )


def drawn(options: SwitchbackOptions, cells: Cells, rng: np.random.Generator) -> Array:
    """Another assignment of the randomised units, shape (u,)."""
    n_units = len(cells.assignment)
    if options.randomisation == "bernoulli":
        return (rng.random(n_units) < options.treated_share).astype(np.float64)
    region = cells.layout.unit_region
    # Sorted by region with random ties: the k-th unit of a region gets its k-th value in disorder.
    order, mixed = np.argsort(region, kind="stable"), np.lexsort((rng.random(n_units), region))
    found = np.empty(n_units)
    found[order] = cells.assignment[mixed]
    return found


def _statistic(options: SwitchbackOptions, cells: Cells, assignment: Array) -> float | None:
    kept = cells.layout.is_settled(assignment, wash_out=options.wash_out)
    treatment = assignment[cells.layout.unit]
    try:
        found = _estimate(options, cells, kept, treatment[:, None])
    except InferenceError:
        return None
    return abs(found.estimate) / found.std_error if found.std_error > 0 else None


def _estimate(
    options: SwitchbackOptions, cells: Cells, kept: NDArray[np.bool_], regressors: Array
) -> Estimate:
    if int(kept.sum()) <= regressors.shape[1] + 1:
        raise InferenceError("too few periods are left", given=int(kept.sum()))
    groups = _groups(options, cells)
    fit = least_squares(
        cells.outcome[kept], regressors[kept], weights=cells.weights[kept],
        groups=tuple(codes[kept] for codes in groups),
    )  # fmt: skip
    covariance, dfs, n_clusters = _covariance(options, cells, fit, kept)
    is_treated, unit = cells.treatment[kept] > 0, cells.layout.unit[kept]
    return Estimate(
        coefficients=fit.coefficients,
        covariance=covariance,
        dfs=dfs,
        n_clusters=n_clusters,
        n_treated=int(is_treated.sum()),
        n_control=int((~is_treated).sum()),
        n_units=(len(np.unique(unit[is_treated])), len(np.unique(unit[~is_treated]))),
    )


def _groups(options: SwitchbackOptions, cells: Cells) -> tuple[Indices, ...]:
    period = cells.layout.period
    found: list[Indices] = []
    for name in options.fixed_effects:
        codes = {
            "region": cells.layout.region,
            "season": np.mod(period, options.season or 1),
            "period": period - period.min(),
        }[name]
        found.append(codes.astype(np.intp))
    return tuple(found)


def _covariance(
    options: SwitchbackOptions, cells: Cells, fit: Fit, kept: NDArray[np.bool_]
) -> tuple[Array, Array, int | None]:
    laid = cells.layout
    region, period = laid.region[kept], laid.period[kept]
    n = round(float(cells.rows[kept].sum()))
    k = len(fit.coefficients) + fit.basis.rank
    if options.errors == "region" and "region" in options.fixed_effects:
        # Effects of regions lie within the clusters: not counted, as in the suite's other panels.
        k -= len(np.unique(region)) - 1
    if n <= k:
        raise InferenceError("too few periods for the fixed effects", given=f"{n} and {k}")
    if options.is_serial:
        covariance, df = _serial(options, fit, (region, period), n=n, k=k, longest=laid.longest)
        return covariance, np.full(len(covariance), float(df)), None
    by = {"region": laid.region, "region_day": _days(options, cells)}
    codes = by.get(options.errors, laid.unit)[kept]
    is_tied = options.errors == "neighbours"
    found = clusters(codes, laid.neighbours(options.wash_out) if is_tied else None)
    if options.correction == "cr2":
        covariance, dfs = bias_reduced(fit, found)
    else:
        covariance, dfs = pooled(fit, found, n=n, k=k)
    return covariance, dfs, found.n


def _serial(
    options: SwitchbackOptions,
    fit: Fit,
    places: tuple[Indices, NDArray[np.int64]],
    *,
    n: int,
    k: int,
    longest: int,
) -> tuple[Array, int]:
    region, period = places
    n_periods = len(np.unique(period))
    lags = options.lags
    if lags is None:
        # Bartlett's weights fall from the first lag on: over one block's length they would lose
        # half of what its periods share.
        lags = max(lag_count(n_periods, asked=None), 2 * longest)
    if options.errors == "newey_west":
        return newey_west(fit, region, period, lags=lags, n=n, k=k), n_periods - 1
    # Over all regions there is one series: its long-run variance rests on some T / lags pieces,
    # not on T periods. About the critical value of Kiefer and Vogelsang (2005) for Bartlett's
    # weights, 1.96 + 2.97 b + 0.42 b^2 - 0.53 b^3 with b = (lags + 1) / T, as a t quantile.
    df = max(1, min(n_periods - 1, round(0.85 * n_periods / (lags + 1))))
    return driscoll_kraay(fit, period, lags=lags, n=n, k=k), df


def _days(options: SwitchbackOptions, cells: Cells) -> Indices:
    laid = cells.layout
    if options.covariance != "region_day":
        return laid.unit
    length, origin = options.day_length, options.block_origin
    first = np.floor_divide(laid.span_low - origin, length)
    last = np.floor_divide(laid.span_high - origin, length)
    if (first != last).any():
        raise DataError(
            "some blocks reach over the end of a day, so that clusters by region_day would split "
            "what is randomised",
            given=f"{int((first != last).sum())} blocks",
            allowed="covariance: block, or another day_length",
        )
    day = np.floor_divide(laid.period - origin, length)
    return np.asarray(
        laid.region * (int(day.max() - day.min()) + 1) + day - day.min(), dtype=np.intp
    )
