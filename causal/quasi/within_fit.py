r"""Least squares with unit and period effects, from moments.

Two ways to the same numbers. With every unit observed in every period the cohorts' sizes, mean
paths and T x T cross-products suffice: with `Z_c = M (X_c - X_bar)`, `M` the demeaning matrix over
periods and `X_bar` the mean of the regressors over units,

    b = (sum_c n_c Z_c' Z_c)^-1 sum_c n_c Z_c' mu_c,
    meat by unit = sum_c Z_c' (S_c + n_c r_c r_c') Z_c,

and by clusters of whole units the same moments by cluster.

Otherwise unit effects are absorbed row by row in the engine and period effects are columns of a
least-squares equation. Both equal least squares with a dummy for every unit and period.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from causal.core.cross_products import inverse, redundant_columns
from causal.core.errors import DataError, InferenceError
from causal.core.frames import Indicator, Linear, Score, Term, linear
from causal.core.gram import Array, Gram, Key, PanelGram
from causal.quasi.panel import Panel
from causal.quasi.treatment_timing import EventWindow, level
from causal.regression.equation import Equation, Moments, least_squares

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
        rss: Weighted residual sum of squares; `None`: not asked for.
        n: Rows.
        n_units: Units.
        n_nuisance: Period effects and the like that were estimated, the constant not counted.
        scores: How each coefficient moves with a row: sums by cluster, their outer products
            summed, are the covariance without small-sample factor.
        known: That covariance, shape (K, K), and the number of clusters by the column of the
            clusters, where no pass is needed for it.
        dropped: Names of redundant columns that were left out.
        equation: The regression with its period effects as columns; `None`: closed form.
    """

    regressors: tuple[Regressor, ...]
    coefficients: Array
    bread: Array
    rss: float | None
    n: int
    n_units: int
    n_nuisance: int
    scores: tuple[Score, ...]
    known: Mapping[str, tuple[Array, int]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    equation: Equation | None = None

    @property
    def k(self) -> int:
        """Coefficients that the factor CR1 counts: all but the unit effects."""
        return len(self.regressors) + self.n_nuisance + 1

    @property
    def positions(self) -> list[int]:
        """Where the regressors of interest stand in the equation."""
        if self.equation is None:
            return list(range(len(self.regressors)))
        return [self.equation.regressors.index(r.term) for r in self.regressors]

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom, all effects counted."""
        return self.n - self.n_units - self.n_nuisance - len(self.regressors)

    @property
    def residual_variance(self) -> float:
        """Residual sum of squares by degree of freedom."""
        if self.rss is None:
            raise ValueError("this fit has no residual sum of squares")
        return self.rss / self.df_resid


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
    by_unit = np.einsum("ctk,cts,csl->kl", z, spread, z)
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
                bread=bread,
                periods=effects,
                means=np.column_stack([mean_outcome, mean_path]),
            ),
            known={
                column: (bread @ meat @ bread, n_clusters)
                for column, (meat, n_clusters) in {
                    panel.unit: (by_unit, int(counts.sum())),
                    **_meat_of_clusters(
                        panel, cohorts, z, mean_outcome=mean_outcome, b=coefficients
                    ),
                }.items()
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
    terms = [column.term for column in ordered]
    moments = Moments.of(
        gram.subset([outcome, *terms]), intercept=False, spread={outcome: 0.0, **(spread or {})}
    )
    if moments.block([outcome], [outcome])[0, 0] == 0:
        raise DataError("the outcome does not vary within units: there is nothing to explain")
    redundant = set(redundant_columns(moments.block(terms, terms)))
    lost = [c.name for j, c in enumerate(ordered) if j in redundant and c in regressors]
    if lost:
        raise InferenceError(
            "not identified: collinear with the unit effects, period effects or other regressors",
            given=lost,
        )
    kept = [column for j, column in enumerate(ordered) if j not in redundant]
    left_out = [column for j, column in enumerate(ordered) if j in redundant]
    wanted = [*regressors, *(column for column in kept if column in optional)]
    equation = least_squares(moments, outcome=outcome, regressors=[c.term for c in kept])
    at = [kept.index(column) for column in wanted]
    return WithinFit(
        regressors=tuple(wanted),
        coefficients=equation.coefficients[at],
        bread=equation.bread[np.ix_(at, at)],
        rss=equation.rss,
        n=gram.n,
        n_units=gram.n_units,
        n_nuisance=len(kept) - len(wanted),
        scores=_marked(equation.scores(at), [column.term for column in left_out]),
        dropped=tuple(column.name for column in left_out),
        equation=equation,
    )


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


def _scores(
    outcome: Term,
    regressors: Sequence[Regressor],
    *,
    coefficients: Array,
    bread: Array,
    periods: Sequence[Term],
    means: Array,
) -> tuple[Score, ...]:
    """Influence of a row on each coefficient, less what unit means take out of both factors.

    Args:
        outcome: The outcome.
        regressors: The K regressors.
        coefficients: Their coefficients, shape (K,).
        bread: Inverse of the regressors' cross-products, shape (K, K).
        periods: The T period dummies.
        means: Means of outcome and regressors over units in each period, shape (T, 1 + K).
    """
    terms = tuple(regressor.term for regressor in regressors)
    contrast = np.array([1.0, *(-coefficients)])
    residual = linear(
        [
            *zip((outcome, *terms), contrast, strict=True),
            *zip(periods, -means @ contrast, strict=True),
        ]
    )
    return tuple(
        Score(
            linear(
                [*zip(terms, row, strict=True), *zip(periods, -means[:, 1:] @ row, strict=True)]
            ),
            residual,
        )
        for row in bread
    )


def _marked(scores: Sequence[Score], left_out: Sequence[Term]) -> tuple[Score, ...]:
    """The scores, missing in every row in which a column is missing that was left out."""
    zero = (0.0,) * len(left_out)
    return tuple(
        Score(score.left, Linear((score.right, *left_out), (1.0, *zero))) if left_out else score
        for score in scores
    )
