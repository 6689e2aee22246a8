r"""Least squares with unit and period effects, from moments.

Two ways to the same numbers. With every unit observed in every period the cohorts' sizes, mean
paths and T x T cross-products suffice: with `Z_c = M (X_c - X_bar)`, `M` the demeaning matrix over
periods and `X_bar` the mean of the regressors over units,

    b = (sum_c n_c Z_c' Z_c)^-1 sum_c n_c Z_c' mu_c,
    meat by unit = sum_c Z_c' (S_c + n_c r_c r_c') Z_c,

and by clusters of whole units the same moments by cluster.

Otherwise unit effects are absorbed row by row in the engine, period effects stay explicit columns,
and the regressors of interest are partialled out on them (Frisch-Waugh-Lovell). Both equal least
squares with a dummy for every unit and period.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from causal.core.errors import DataError, InferenceError
from causal.core.frames import Indicator, Linear, Score, Term
from causal.core.gram import Array, Gram, Key, PanelGram
from causal.core.regression import inverse, redundant_columns
from causal.quasi.panel import Panel
from causal.quasi.treatment_timing import EventWindow, level

FLAT = 1e-12
"""Share of a column's sum of squares below which what is left of it is rounding."""


@dataclass(frozen=True)
class Regressor:
    """A column of the regression.

    Attributes:
        name: Its name in the results.
        term: Its values.
        window: The event times in which it is 1, if that is what it is.
    """

    name: str
    term: Term
    window: EventWindow | None = None


@dataclass(frozen=True, kw_only=True)
class WithinFit:
    """A regression with unit and period effects.

    Attributes:
        regressors: The K regressors of interest.
        coefficients: Shape (K,).
        bread: Inverse of the cross-product of the regressors net of all effects, shape (K, K).
        rss: Weighted residual sum of squares.
        n: Rows.
        n_units: Units.
        n_nuisance: Period effects and the like that were estimated, the constant not counted.
        scores: What is summed by cluster for the meat, one per regressor of interest.
        meats: The meat, shape (K, K), and the number of clusters by the column of the clusters,
            where they are known already.
        dropped: Names of redundant columns that were left out.
    """

    regressors: tuple[Regressor, ...]
    coefficients: Array
    bread: Array
    rss: float
    n: int
    n_units: int
    n_nuisance: int
    scores: tuple[Score, ...]
    meats: Mapping[str, tuple[Array, int]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    @property
    def k(self) -> int:
        """Coefficients that the factor CR1 counts: all but the unit effects."""
        return len(self.regressors) + self.n_nuisance + 1

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom, all effects counted."""
        return self.n - self.n_units - self.n_nuisance - len(self.regressors)


def fit_complete(panel: Panel, regressors: Sequence[Regressor], *, outcome: Term) -> WithinFit:
    """Two-way effects regression on the complete units of a panel, in closed form.

    Args:
        panel: The panel; its cohorts determine the regressors.
        regressors: K regressors with event windows.
        outcome: The outcome, for the scores.

    Raises:
        InferenceError: A regressor is collinear with the effects or the other regressors.
    """
    cohorts = [cohort for cohort in panel.cohorts if cohort.n > 0]
    counts = np.array([cohort.n for cohort in cohorts], dtype=np.float64)
    paths = np.array([_paths(panel, c.first_treated_period, regressors) for c in cohorts])
    means = np.array([cohort.mean for cohort in cohorts])
    mean_path = np.einsum("c,ctk->tk", counts, paths) / counts.sum()
    mean_outcome = counts @ means / counts.sum()
    z = _over_periods(paths - mean_path)
    y = _over_periods(means - mean_outcome)
    bread = _bread(np.einsum("c,ctk,ctl->kl", counts, z, z), paths, counts, regressors)
    coefficients = bread @ np.einsum("c,ctk,ct->k", counts, z, y)
    residual = y - z @ coefficients
    spread = np.array([c.cross for c in cohorts]) + np.einsum(
        "c,ct,cs->cts", counts, residual, residual
    )
    n_periods = len(panel.periods)
    rss = float(np.einsum("ctt->", spread) - spread.sum() / n_periods)
    effects = [_period_term(panel, period) for period in panel.periods]
    return _checked(
        WithinFit(
            regressors=tuple(regressors),
            coefficients=coefficients,
            bread=bread,
            rss=max(rss, 0.0),
            n=int(counts.sum()) * n_periods,
            n_units=int(counts.sum()),
            n_nuisance=n_periods - 1,
            scores=_scores(
                outcome,
                regressors,
                coefficients=coefficients,
                nuisance=effects,
                projection=mean_path,
                effects=mean_outcome - mean_path @ coefficients,
            ),
            meats={
                panel.unit: (np.einsum("ctk,cts,csl->kl", z, spread, z), int(counts.sum())),
                **_meat_of_clusters(panel, cohorts, z, mean_outcome=mean_outcome, b=coefficients),
            },
        )
    )


def fit_rows(
    gram: Gram,
    regressors: Sequence[Regressor],
    *,
    outcome: Term,
    optional: Sequence[Regressor] = (),
    nuisance: Sequence[Regressor] = (),
    spread: Mapping[Term, float] | None = None,
) -> WithinFit:
    """Regression with unit effects absorbed, from the within-unit cross-products of all terms.

    Args:
        gram: Within-unit moments of outcome, regressors, optional and nuisance columns.
        regressors: Columns that must be identified.
        outcome: The outcome.
        optional: Covariates: reported, but left out where redundant.
        nuisance: Period effects: partialled out, left out where redundant.
        spread: Sum of squares of columns around their mean over all rows, to tell variation
            within units from rounding.

    Raises:
        DataError: The outcome does not vary within units.
        InferenceError: A regressor of interest is not identified, or too few rows.
    """
    ordered = [*nuisance, *optional, *regressors]
    cross, flat = _cleaned(
        gram, [outcome, *(column.term for column in ordered)], spread=spread or {}
    )
    if flat[0]:
        raise DataError("the outcome does not vary within units: there is nothing to explain")
    redundant = set(redundant_columns(cross[1:, 1:]))
    lost = [c.name for j, c in enumerate(ordered) if j in redundant and c in regressors]
    if lost:
        raise InferenceError(
            "not identified: collinear with the unit effects, period effects or other regressors",
            given=lost,
        )
    kept = [c for j, c in enumerate(ordered) if j not in redundant]
    inner = [c for c in kept if c in nuisance]
    wanted = [*regressors, *(c for c in kept if c in optional)]
    at_inner = [1 + ordered.index(c) for c in inner]
    at_wanted = [1 + ordered.index(c) for c in wanted]
    solve_inner = inverse(cross[np.ix_(at_inner, at_inner)], [c.term for c in inner])
    projection = solve_inner @ cross[np.ix_(at_inner, [0, *at_wanted])]
    net = (
        cross[np.ix_([0, *at_wanted], [0, *at_wanted])]
        - cross[np.ix_([0, *at_wanted], at_inner)] @ projection
    )
    bread = inverse(net[1:, 1:], [c.term for c in wanted])
    coefficients = bread @ net[1:, 0]
    rss = float(net[0, 0] - coefficients @ net[1:, 0])
    left_out = [c for j, c in enumerate(ordered) if j in redundant]
    effects = projection[:, 0] - projection[:, 1:] @ coefficients
    return _checked(
        WithinFit(
            regressors=tuple(wanted),
            coefficients=coefficients,
            bread=bread,
            rss=max(rss, 0.0),
            n=gram.n,
            n_units=gram.n_units,
            n_nuisance=len(inner),
            scores=_scores(
                outcome,
                wanted,
                coefficients=coefficients,
                nuisance=[*(c.term for c in inner), *(c.term for c in left_out)],
                projection=_padded(projection[:, 1:], len(left_out)),
                effects=np.concatenate([effects, np.zeros(len(left_out))]),
            ),
            dropped=tuple(c.name for c in left_out),
        )
    )


def summed(grams: Sequence[Gram]) -> Gram:
    """Within-unit moments of disjoint sets of units together: the cross-products add up."""
    total = sum(gram.sum_weights for gram in grams)
    first = grams[0]
    size = len(first.terms)
    mean = sum((g.sum_weights * g.mean for g in grams), np.zeros(size)) / max(total, 1e-300)
    return Gram(
        first.terms, sum(g.n for g in grams), sum(g.n_missing for g in grams),
        sum(g.n_units for g in grams), total, mean,
        sum((g.cross for g in grams), np.zeros((size, size))),
    )  # fmt: skip


def _checked(fit: WithinFit) -> WithinFit:
    if fit.df_resid <= 0:
        raise InferenceError(
            "too few rows for this model",
            given=f"{fit.n} rows, {fit.n - fit.df_resid} coefficients",
        )
    return fit


def _paths(panel: Panel, start: float | None, regressors: Sequence[Regressor]) -> Array:
    """Values of the regressors in each period for one cohort, shape (T, K)."""
    return np.column_stack(
        [r.window.path(panel.periods, start) for r in regressors if r.window is not None]
    )


def _meat_of_clusters(
    panel: Panel, cohorts: Sequence[PanelGram], z: Array, *, mean_outcome: Array, b: Array
) -> dict[str, tuple[Array, int]]:
    """The meat by clusters of whole units: their sizes and mean paths by cohort suffice.

    The score of a cluster is `sum_c n_gc Z_c' (mu_gc - y_bar - Z_c b)` over its cohorts c.
    """
    if panel.clusters is None:
        return {}
    at = {cohort.first_treated_period: z[j] for j, cohort in enumerate(cohorts)}
    scores: dict[Key, Array] = {}
    for part in panel.clusters.parts:
        if part.n > 0:
            own = at[part.first_treated_period]
            score = part.n * own.T @ (part.mean - mean_outcome - own @ b)
            scores[part.key] = scores.get(part.key, np.zeros(len(b))) + score
    stacked = np.array(list(scores.values()))
    return {panel.clusters.column: (stacked.T @ stacked, len(scores))}


def _over_periods(values: Array) -> Array:
    """Deviations from the mean over periods, the second axis."""
    return np.asarray(values - values.mean(axis=1, keepdims=True), dtype=np.float64)


def _bread(cross: Array, paths: Array, counts: Array, regressors: Sequence[Regressor]) -> Array:
    size = np.einsum("c,ctk->k", counts, paths**2)
    flat = np.diag(cross) <= FLAT * size
    clean = np.where(flat[:, None] | flat[None, :], 0.0, cross)
    redundant = redundant_columns(clean)
    if redundant:
        raise InferenceError(
            "not identified: collinear with the unit effects, period effects or other regressors",
            given=[regressors[j].name for j in redundant],
        )
    return inverse(cross, [r.term for r in regressors])


def _period_term(panel: Panel, period: float) -> Term:
    if panel.timing is None:
        raise ValueError("a panel without cohorts has no closed form")
    return Indicator(panel.timing.period, level(period))


def _cleaned(
    gram: Gram, terms: Sequence[Term], *, spread: Mapping[Term, float]
) -> tuple[Array, list[bool]]:
    """Cross-products of the terms with columns that do not vary within units set to zero.

    Variation is held against that over all rows where it is known, else (0/1 columns) against
    the size of the column; the outcome comes first and may have a large level.
    """
    at = gram.positions(terms)
    cross = gram.cross[np.ix_(at, at)]
    size = gram.sum_weights * gram.mean[at] ** 2
    size[0] = 0.0
    total = np.array([spread.get(term, size[j]) for j, term in enumerate(terms)])
    flat = np.diag(cross) <= FLAT * total
    return np.where(flat[:, None] | flat[None, :], 0.0, cross), [bool(item) for item in flat]


def _padded(matrix: Array, n_rows: int) -> Array:
    return np.vstack([matrix, np.zeros((n_rows, matrix.shape[1]))])


def _scores(
    outcome: Term,
    regressors: Sequence[Regressor],
    *,
    coefficients: Array,
    nuisance: Sequence[Term],
    projection: Array,
    effects: Array,
) -> tuple[Score, ...]:
    """The regressors net of the nuisance columns, each times the residual.

    Args:
        outcome: The outcome.
        regressors: The K regressors.
        coefficients: Their coefficients, shape (K,).
        nuisance: The m nuisance columns; all of them enter every combination, some with a
            coefficient of zero, so that the same rows are complete in every pass.
        projection: Coefficients of the regressors on the nuisance columns, shape (m, K).
        effects: Coefficients of the nuisance columns in the model, shape (m,).
    """
    residual = Linear(
        (outcome, *(r.term for r in regressors), *nuisance),
        (1.0, *(-float(b) for b in coefficients), *(-float(e) for e in effects)),
    )
    return tuple(
        Score(Linear((r.term, *nuisance), (1.0, *(-float(c) for c in projection[:, j]))), residual)
        for j, r in enumerate(regressors)
    )
