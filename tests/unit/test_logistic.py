"""Logistic regression from aggregates: when its steps may stop."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, special

from causal.core.errors import InferenceError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.observational.logistic import LogisticFit, fit_logistic
from causal.observational.study import observe
from causal.quasi import weighting

COVARIATES = ("x0", "x1", "x2")


def rows(*, seed: int, slope: float, n: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=n), 50 + 9 * rng.normal(size=n), rng.gamma(2.0, size=n)])
    odds = slope * (x[:, 0] + 0.1 * (x[:, 1] - 50) - 0.5 * x[:, 2] + 0.4)
    treated = (rng.uniform(size=n) < special.expit(odds)).astype(int)
    frame = pd.DataFrame(x, columns=list(COVARIATES))
    return frame.assign(d=treated, y=rng.normal(size=n))


def fitted(frame: pd.DataFrame, *, is_point_estimate: bool) -> tuple[LogisticFit, int]:
    """The fit and how many passes it took."""
    options = {"outcome": "y", "treatment": "d", "covariates": list(COVARIATES)}
    document = {"name": "logit", "source": {"table": "rows"}, "method": "weighting"}
    spec = validate(weighting.SPEC, document | {"options": options})
    engine = PandasEngine(frame)
    study = run(observe(spec.options, outcome="y", where=()), engine)
    passes: list[int] = []
    fit = run(
        fit_logistic(study, is_point_estimate=is_point_estimate),
        engine,
        on_request=lambda number, _: passes.append(number),
    )
    return fit, len(passes)


@pytest.mark.parametrize("slope", [0.0, 0.5, 2.0, 6.0, 12.0])
@pytest.mark.parametrize("seed", range(5))
def test_point_estimates_are_exact_a_pass_earlier(slope: float, seed: int) -> None:
    frame = rows(seed=seed, slope=slope)
    (whole, n_whole), (alone, n_alone) = (
        fitted(frame, is_point_estimate=flag) for flag in (False, True)
    )
    x = frame[list(COVARIATES)].to_numpy()
    centre, spread = x.mean(axis=0), x.std(axis=0)
    z = sm.add_constant((x - centre) / spread)
    # Its own criterion is on the likelihood, which rounding keeps from falling below 1e-14.
    reference = sm.Logit(frame["d"], z).fit(
        disp=0, method="newton", tol=1e-14, maxiter=100, warn_convergence=False
    )

    assert n_alone in {n_whole, n_whole - 1}
    for found in (whole, alone):
        slopes = found.coefficients[1:] * spread
        level = found.coefficients[0] + found.coefficients[1:] @ centre
        apart = np.abs(np.array([level, *slopes]) - reference.params.to_numpy())
        assert (apart < 1e-9 * reference.bse.to_numpy()).all()


def test_some_point_estimates_save_a_pass() -> None:
    frame = rows(seed=1, slope=0.5)

    assert fitted(frame, is_point_estimate=True)[1] < fitted(frame, is_point_estimate=False)[1]


def is_separated(frame: pd.DataFrame) -> bool:
    """Whether some combination of the columns is never on the wrong side (Konis 2007)."""
    x = frame[list(COVARIATES)].to_numpy()
    sides = (2 * frame["d"].to_numpy() - 1)[:, None] * np.column_stack(
        [np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)]
    )
    found = optimize.linprog(
        -sides.sum(axis=0), A_ub=-sides, b_ub=np.zeros(len(x)), bounds=[(-1, 1)] * sides.shape[1]
    )
    return bool(-found.fun > 1e-7)


@pytest.mark.parametrize("slope", [6.0, 12.0, 25.0, 50.0])
@pytest.mark.parametrize("n", [150, 2_000])
def test_separated_arms_are_refused_and_nearly_separated_ones_are_not(slope: float, n: int) -> None:
    for seed in range(6):
        frame = rows(seed=seed, slope=slope, n=n)
        if is_separated(frame):
            with pytest.raises(InferenceError, match="separate the arms"):
                fitted(frame, is_point_estimate=False)
        else:
            fit, _ = fitted(frame, is_point_estimate=False)
            assert np.isfinite(fit.coefficients).all()
            assert fit.score_norm < 1e-12


def test_both_kinds_of_arms_are_tried() -> None:
    tried = {is_separated(rows(seed=seed, slope=25.0, n=150)) for seed in range(6)}

    assert tried == {False, True}
