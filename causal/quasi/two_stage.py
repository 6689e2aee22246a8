r"""Two stages: unit and period effects from untreated rows, then means of what is left.

Gardner (2021). The first stage fits unit and period effects to the untreated rows alone, the second
regresses the outcome less these effects on the treatment: on one dummy, and on one per event time
from the start on. Under parallel trends and no anticipation the coefficients are mean effects over
the treated rows behind them, however effects differ between cohorts; the points are those of
imputation (Borusyak, Jaravel and Spiess 2024).

Everything follows from the cohorts' sizes `n_c`, mean paths and T x T cross-products. With `m_c`
the 0/1 vector of a cohort's untreated periods, T_c their number, `X_c` its T x K regressors and

    M_c = diag(m_c) - m_c m_c' / T_c,          P_c = I - 1 m_c' / T_c,
    A   = sum_c n_c M_c,                       Q   = sum_c n_c X_c' P_c,

the period effects are `l = A^- sum_c n_c M_c mu_c`, what is left of a unit is `P_c (y_i - l)`, and
its influence on the coefficients, both stages together, is `B` times

    s_i = W_c (y_i - l) - X_c' X_c b,   W_c = (X_c' - Q A^- diag(m_c)) P_c.

The covariance is that of Gardner's GMM, `B (sum of s s') B` over clusters of whole units, as in
`did2s`; `small_sample` says by which factor it is multiplied.

`imputation` gives the same effects the errors of Borusyak, Jaravel and Spiess (their section 4.3).
With `v_i = W_c' B` the weights of a unit's outcomes in an effect, the variance is the sum of

    (sum_t v_it e_it)^2,   e_it the residual of an untreated row, the row's effect less the mean
                           effect of its cohort and period of a treated one,

over units, or of squares of sums over clusters. So `X_c' X_c b` gives way to `X_c' r_c`, r_c being
what is left of the cohort's mean path. The weights are taken as given: effects that differ between
cohorts are no noise. It is conservative where effects differ within a cohort and period. With
`leave_out` the mean effect is that of the other units (clusters) of the cohort.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import FrameRequest
from causal.core.gram import Array, Key, PanelGram
from causal.core.readout import Readout, covariance_table
from causal.quasi.did_options import DidOptions, DidSpec
from causal.quasi.effects_regression import Regressions, regress_leads
from causal.quasi.event_study import AVERAGE, count_rows
from causal.quasi.panel import (
    Clusters,
    Panel,
    cohort_means,
    complete_cells,
    complete_panel,
    observe,
)
from causal.quasi.panel_errors import covariances
from causal.quasi.readout import (
    coefficient_table,
    lead_regressors,
    panel_diagnostics,
    pre_trend,
    regression_effect,
)
from causal.quasi.treated_clusters import ask_treated_clusters
from causal.quasi.treatment_timing import EventWindow, event_times, event_windows, treated_post
from causal.quasi.within_fit import Regressor, WithinFit


def estimate(spec: DidSpec, *, outcome: str) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    """The effects by event time, and that over all treated unit-periods, for one outcome.

    `average post` is Gardner's static estimate: its errors allow for effects that differ between
    event times and cohorts, which the averages of `etwfe` take as given.

    Raises:
        DataError: Units that lack a period, a cohort without untreated periods, or a period
            without untreated units.
    """
    options, where = spec.options, spec.source.conditions
    everyone = yield from observe(options, outcome=outcome, where=where, by_cluster=True)
    panel = complete_panel(options, everyone)
    timing = panel.timing
    if timing is None:
        raise DataError(f"{options.estimator} needs first_treated_period or group")
    times = [
        time
        for time in event_times(panel.periods, [s for s in panel.starts if s <= panel.periods[-1]])
        if time >= -options.anticipation
    ]
    windows = event_windows(times, reference=min(times) - 1)
    first = _first_stage(options, panel)
    whole = _second_stage(options, panel, first, [treated_post(options.anticipation)])
    by_time = _second_stage(options, panel, first, windows)
    static, study = yield from covariances(options, [whole, by_time], where=where)
    leads = yield from regress_leads(
        _of_leads(options), lead_regressors(options, panel),
        outcome=outcome, panel=panel, where=where,
    )  # fmt: skip
    sides = yield from ask_treated_clusters(options, panel, where=where)
    n_treated, n_control = panel.n_units()
    cells = complete_cells(panel)
    found, events = (
        Regressions(
            main=estimates, leads=leads, n_treated=n_treated, n_control=n_control,
            n_missing=panel.n_missing, cells=cells,
        )
        for estimates in (static, study)
    )  # fmt: skip
    (only,) = static.names
    return Readout(
        effects=(
            regression_effect(spec, found, metric=outcome, term=AVERAGE, weights={only: 1.0}),
            *(regression_effect(spec, events, metric=outcome, term=w.name) for w in windows),
        ),
        diagnostics=(
            pre_trend(options, leads, alpha=1 - spec.confidence_level),
            *panel_diagnostics(options, everyone, found),
            *sides,
        ),
        params={"n_rows": whole.n, "n_units": whole.n_units},
        tables={
            "cohort_means": cohort_means(cells, metric=outcome),
            "event_study": coefficient_table(
                study, metric=outcome, confidence_level=spec.confidence_level
            ).assign(event_time=times, n=[count_rows(w, cells) for w in windows]),
            "covariance": covariance_table(study.names, study.covariance, metric=outcome),
        },
    )


@dataclass(frozen=True, kw_only=True)
class _FirstStage:
    """Period effects, and what turns paths of a cohort into what is left of them.

    Attributes:
        cohorts: Cohorts with complete units.
        effects: Of the periods, the first one's zero, shape (T,).
        untreated: 1 in the periods in which a cohort is not treated, shape (C, T).
        inverse: A generalised inverse of A, shape (T, T).
    """

    cohorts: tuple[PanelGram, ...]
    effects: Array
    untreated: Array
    inverse: Array

    def remainder(self, at: int) -> Array:
        """P of a cohort: paths less their mean over untreated periods, shape (T, T)."""
        m = self.untreated[at]
        return np.asarray(np.eye(len(m)) - m[None, :] / m.sum())


def _of_leads(options: DidOptions) -> DidOptions:
    """Leads are an ordinary regression: they have a factor also where effects have none."""
    if options.estimator != "imputation" or options.small_sample is not None:
        return options
    return options.model_copy(update={"small_sample": "cr1"})


def _first_stage(options: DidOptions, panel: Panel) -> _FirstStage:
    """Unit and period effects of the untreated rows.

    Raises:
        DataError: They do not identify every unit's and every period's effect.
    """
    cohorts = panel.cohorts
    begins = np.array(
        [
            np.inf if c.first_treated_period is None else c.first_treated_period
            for c in cohorts
        ]
    )  # fmt: skip
    untreated = (panel.periods < begins[:, None] - options.anticipation).astype(np.float64)
    for cohort, m in zip(cohorts, untreated, strict=True):
        if not m.any():
            raise DataError(
                f"the cohort of {cohort.first_treated_period:g} is treated in every period: leave "
                "it out (source.where)",
                given=f"first period {panel.periods[0]:g}, anticipation {options.anticipation}",
            )
    bare = panel.periods[~untreated.any(axis=0)]
    if len(bare):
        raise DataError(
            f"no unit is untreated in period {bare[0]:g}: keep the periods before it "
            "(source.where)",
            given=f"cohorts {', '.join(f'{start:g}' for start in panel.starts)}",
        )
    counts = np.array([cohort.n for cohort in cohorts], dtype=np.float64)
    shares = counts / counts.sum()
    within = [np.diag(m) - np.outer(m, m) / m.sum() for m in untreated]
    a = np.einsum("c,cts->ts", shares, within)
    right = np.einsum("c,cts,cs->t", shares, within, [cohort.mean for cohort in cohorts])
    if np.linalg.matrix_rank(a) < len(a) - 1:
        raise DataError("the untreated rows do not link all periods with each other")
    inverse = np.zeros_like(a)
    inverse[1:, 1:] = np.linalg.inv(a[1:, 1:])
    return _FirstStage(
        cohorts=cohorts, effects=inverse @ right, untreated=untreated,
        inverse=inverse / counts.sum(),
    )  # fmt: skip


def _second_stage(
    options: DidOptions, panel: Panel, first: _FirstStage, windows: Sequence[EventWindow]
) -> WithinFit:
    """What is left of the outcome, regressed on dummies of event times that exclude each other.

    Raises:
        DataError: Errors of imputation are asked for, and a treated cohort lies in one cluster.
    """
    timing = panel.timing
    if timing is None:
        raise ValueError("a panel without cohorts has no event times")
    cohorts = first.cohorts
    x = [
        np.column_stack([w.path(panel.periods, c.first_treated_period) for w in windows])
        for c in cohorts
    ]
    left = [first.remainder(at) for at in range(len(cohorts))]
    n = np.array([cohort.n for cohort in cohorts], dtype=np.float64)
    rest = [p @ (c.mean - first.effects) for c, p in zip(cohorts, left, strict=True)]
    bread: Array = np.asarray(np.linalg.inv(np.einsum("c,ctk,ctl->kl", n, x, x)), dtype=np.float64)
    b = bread @ np.einsum("c,ctk,ct->k", n, x, rest)
    q = np.einsum("c,ctk,cts->ks", n, x, left) @ first.inverse
    weights = [(own.T - q * m) @ p for own, m, p in zip(x, first.untreated, left, strict=True)]
    at = {cohort.first_treated_period: j for j, cohort in enumerate(cohorts)}
    is_imputed = options.estimator == "imputation"
    if is_imputed:
        _check_shared(options, panel, [c for c, own in zip(cohorts, x, strict=True) if own.any()])
    centres = [own.T @ (r if is_imputed else own @ b) for own, r in zip(x, rest, strict=True)]
    # Less the mean of the others, a unit's effects deviate n / (n - 1) times as much.
    around = [
        w + options.leave_out * own.T @ p / max(c.n - 1, 1)
        for w, own, p, c in zip(weights, x, left, cohorts, strict=True)
    ]

    def score(part: PanelGram) -> Array:
        """Sum of the influences of the units of a cohort that lie in one cluster, shape (K,)."""
        j = at[part.first_treated_period]
        centre, others = centres[j], cohorts[j].n - part.n
        if options.leave_out and others:
            own = x[j].T @ left[j] @ (part.mean - first.effects)
            centre = (cohorts[j].n * centre - part.n * own) / others
        return np.asarray(part.n * (weights[j] @ (part.mean - first.effects) - centre))

    means = [score(cohort) / cohort.n for cohort in cohorts]
    meat = np.einsum("ckt,cts,cls->kl", around, [c.cross for c in cohorts], around)
    meat += np.einsum("c,ck,cl->kl", n, means, means)
    known = {panel.unit: (bread @ meat @ bread, panel.n)}
    if panel.clusters is not None:
        known[panel.clusters.column] = _by_cluster(panel.clusters, score, bread)
    residuals = [r - own @ b for r, own in zip(rest, x, strict=True)]
    rss = np.einsum("cut,cts,cus->", left, [c.cross for c in cohorts], left)
    rss += np.einsum("c,ct,ct->", n, residuals, residuals)
    return WithinFit(
        regressors=tuple(Regressor(w.name, timing.term(w, panel.periods), w) for w in windows),
        coefficients=b,
        bread=bread,
        rss=float(rss),
        n=panel.n * len(panel.periods),
        n_units=panel.n,
        n_nuisance=len(panel.periods) - 1,
        scores=(),
        known=known,
    )


def _by_cluster(
    clusters: Clusters, score: Callable[[PanelGram], Array], bread: Array
) -> tuple[Array, int]:
    """Covariance of sums of influences by cluster, and their number."""
    sums: dict[Key, Array] = {}
    for part in clusters.parts:
        if part.n > 0:
            sums[part.key] = sums.get(part.key, np.zeros(len(bread))) + score(part)
    stacked = np.array(list(sums.values())) @ bread
    return np.asarray(stacked.T @ stacked, dtype=np.float64), len(sums)


def _check_shared(options: DidOptions, panel: Panel, treated: Sequence[PanelGram]) -> None:
    """Every treated cohort lies in two clusters or more: one alone has no spread around its mean.

    Raises:
        DataError: One does not.
    """
    counts = {cohort.first_treated_period: cohort.n for cohort in treated}
    if panel.clusters is not None and options.clusters != options.unit:
        parts = [part for part in panel.clusters.parts if part.n > 0]
        counts = {
            start: len({p.key for p in parts if p.first_treated_period == start})
            for start in counts
        }  # fmt: skip
    alone = [f"{start:g}" for start, count in counts.items() if start is not None and count == 1]
    if alone:
        raise DataError(
            "errors of imputation need two units (clusters) or more in every treated cohort",
            given=f"one in the cohort of {', '.join(alone)}",
            allowed="estimator: two_stage, or source.where without these cohorts",
        )
