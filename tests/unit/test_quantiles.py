"""Quantile metrics of the method `ab` against numpy, statistics, statsmodels and a bootstrap."""

import math
import statistics
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from causal.core.errors import CausalError, DataError
from causal.core.frames import FrameRequest, HistogramRequest
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect, Result
from causal.core.spec import validate
from causal.experiments import ab

CONTROL, TREATMENT = "control", "treatment"
WIDTH = 1.3
P50 = {"name": "p50", "type": "quantile", "column": "ms", "quantile": 0.5}
P95 = {"name": "p95", "type": "quantile", "column": "ms", "quantile": 0.95}


@pytest.fixture(scope="module")
def pages() -> pd.DataFrame:
    """Pages of users: their number varies by user and goes with how long they take."""
    rng = np.random.default_rng(11)
    n_users = 1500
    slow = rng.normal(size=n_users)
    n_pages = rng.poisson(np.exp(1 + 0.4 * slow)) + 1
    user = np.repeat(np.arange(n_users), n_pages)
    treated = (rng.random(n_users) < 0.4)[user]
    ms = np.exp(5 + 0.4 * slow[user] - 0.05 * treated + 0.6 * rng.normal(size=len(user)))
    return pd.DataFrame(
        {
            "page": np.arange(len(user)),
            "user": user,
            "variant": np.where(treated, TREATMENT, CONTROL),
            "treated": treated.astype(int),
            "ms": ms,
            "whole_ms": np.round(ms),
            "seconds": np.round(ms / 1000, 2),
            "cost": rng.gamma(2.0, 1.0, len(user)),
        }
    )


def analyse(frame: pd.DataFrame, *metrics: dict[str, Any], **options: Any) -> Result:
    spec = validate(ab.SPEC, spec_data(*metrics, **options))
    return run(ab.estimate(spec), PandasEngine(frame))


def spec_data(*metrics: dict[str, Any], **options: Any) -> dict[str, Any]:
    base = {"unit": "page", "variant": "variant", "control": CONTROL, "metrics": list(metrics)}
    data = {"name": "pages", "source": {"table": "t"}, "method": "ab"}
    return {**data, "options": {**base, **options}}


def effect_of(result: Result, metric: str, scale: str = "absolute") -> Effect:
    (found,) = [e for e in result.effects if (e.metric, e.scale) == (metric, scale)]
    return found


def arms_of(frame: pd.DataFrame, column: str = "ms") -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        frame.loc[frame["variant"] == name, column].dropna().to_numpy()
        for name in (CONTROL, TREATMENT)
    )


def quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf"))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.95, 0.99])
def test_effects_are_differences_of_numpys_quantiles(pages: pd.DataFrame, share: float) -> None:
    found = analyse(pages, P95 | {"quantile": share})
    control, treatment = (quantile(values, share) for values in arms_of(pages))

    assert effect_of(found, "p95").estimate == treatment - control
    assert effect_of(found, "p95", "relative").estimate == pytest.approx(treatment / control - 1)
    assert list(found.tables["arms"]["mean"]) == [control, treatment]


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_errors_are_woodruffs(pages: pd.DataFrame, share: float) -> None:
    """The error of F over the density that Woodruff's interval shows, from the sorted rows."""
    errors = []
    for values in map(np.sort, arms_of(pages)):
        n = len(values)
        of_share = math.sqrt(share * (1 - share) / n)
        low, high = (math.ceil(n * (share + sign * WIDTH * of_share)) for sign in (-1.0, 1.0))
        errors.append(of_share * n * (values[high - 1] - values[low - 1]) / (high - low))
    found = effect_of(analyse(pages, P95 | {"quantile": share}), "p95")

    assert found.std_error == pytest.approx(math.hypot(*errors), rel=1e-10)
    assert found.estimator == "quantile"


def test_clustered_errors_rest_on_the_clustered_distribution_function(pages: pd.DataFrame) -> None:
    """Of both arms' F together, as statsmodels gives them for regressions on the arms."""
    share = 0.95
    found = effect_of(analyse(pages, P95, cluster="user", cluster_correction="cr1"), "p95")
    names = ["is_control", "is_treated"]
    frame = pages.assign(is_control=1 - pages["treated"], is_treated=pages["treated"])
    slopes, errors = [], []
    for arm, values in zip((0, 1), map(np.sort, arms_of(pages)), strict=True):
        below = (frame["ms"] <= quantile(values, share)).astype(float)
        fit = sm.OLS(below, frame[names]).fit(
            cov_type="cluster", cov_kwds={"groups": frame["user"]}
        )
        error = float(fit.bse.iloc[arm])
        n = len(values)
        low, high = (math.ceil(n * (share + sign * WIDTH * error)) for sign in (-1.0, 1.0))
        slopes.append(n * (values[high - 1] - values[low - 1]) / (high - low))
        errors.append(error)
    # No user is in both arms, so that the arms' distribution functions are uncorrelated.
    expected = math.hypot(slopes[0] * errors[0], slopes[1] * errors[1])

    assert found.std_error == pytest.approx(expected, rel=1e-9)
    assert found.n_clusters == pages["user"].nunique()
    assert found.std_error > 1.2 * effect_of(analyse(pages, P95), "p95").std_error


@pytest.mark.parametrize("correction", ["cr0", "cr3"])
def test_other_corrections_reach_the_quantile(pages: pd.DataFrame, correction: str) -> None:
    base = effect_of(analyse(pages, P95, cluster="user"), "p95")
    other = analyse(pages, P95, cluster="user", cluster_correction=correction)

    assert effect_of(other, "p95").estimate == base.estimate
    assert effect_of(other, "p95").std_error == pytest.approx(base.std_error, rel=0.02)
    assert effect_of(other, "p95").std_error != base.std_error


def test_errors_agree_with_a_cluster_bootstrap(pages: pd.DataFrame) -> None:
    rng = np.random.default_rng(3)
    by_user = [part["ms"].to_numpy() for _, part in pages.groupby("user")]
    arm = pages.groupby("user")["treated"].first().to_numpy()
    draws = {share: [] for share in (0.5, 0.95)}
    for _ in range(400):
        picked = rng.integers(0, len(by_user), len(by_user))
        parts = [
            np.concatenate([by_user[user] for user in picked[arm[picked] == side]])
            for side in (0, 1)
        ]
        for share, found in draws.items():
            low, high = (quantile(values, share) for values in parts)
            found.append(high - low)
    result = analyse(pages, P50, P95, cluster="user")

    for name, found in zip(("p50", "p95"), draws.values(), strict=True):
        assert effect_of(result, name).std_error == pytest.approx(np.std(found), rel=0.15)


def test_the_median_agrees_with_quantile_regression(pages: pd.DataFrame) -> None:
    fit = smf.quantreg("ms ~ treated", pages).fit(q=0.5)
    found = effect_of(analyse(pages, P50), "p50")

    # Of an even number of rows any value between the middle two is a solution; the reference takes
    # the density from a kernel over both arms.
    assert found.estimate == pytest.approx(fit.params["treated"], abs=0.1 * found.std_error)
    assert found.std_error == pytest.approx(fit.bse["treated"], rel=0.2)


def test_rounded_values_are_interpolated_like_the_grouped_median(pages: pd.DataFrame) -> None:
    metric = P50 | {"column": "whole_ms", "resolution": 1}
    found = effect_of(analyse(pages, metric), "p50")
    control, treatment = (
        statistics.median_grouped(list(values), 1) for values in arms_of(pages, "whole_ms")
    )
    exact = effect_of(analyse(pages, P50), "p50")

    assert found.estimate == pytest.approx(treatment - control, rel=1e-12)
    assert found.estimate == pytest.approx(exact.estimate, abs=0.1 * exact.std_error)
    assert found.std_error == pytest.approx(exact.std_error, rel=0.05)


def test_coarse_values_have_the_error_of_the_values_behind_them(pages: pd.DataFrame) -> None:
    """Steps of 10 ms hold one to five per cent of the rows each."""
    metric = P95 | {"column": "seconds", "resolution": 0.01}
    for cluster in ({}, {"cluster": "user"}):
        found = effect_of(analyse(pages, metric, **cluster), "p95")
        exact = effect_of(analyse(pages, P95, **cluster), "p95")

        assert 1000 * found.estimate == pytest.approx(exact.estimate, abs=exact.std_error / 4)
        assert 1000 * found.std_error == pytest.approx(exact.std_error, rel=0.2)


def test_other_metrics_are_not_touched(pages: pd.DataFrame) -> None:
    cost = {"name": "cost", "type": "mean", "column": "cost"}
    options = {"multiplicity": {"correction": "holm"}}
    roles = [P95 | {"role": "primary"}, cost | {"role": "primary"}]
    for design in ({}, {"cluster": "user"}):
        both = analyse(pages, *roles, **options, **design)
        alone = analyse(pages, cost | {"role": "primary"}, **design)
        plain = [e for e in both.effects if e.metric == "cost" and "holm" not in e.estimator]

        assert plain == list(alone.effects)
        assert {e.metric for e in both.effects if e.estimator == "quantile_holm"} == {"p95"}


def test_a_guardrail_on_a_quantile(pages: pd.DataFrame) -> None:
    guard = P95 | {"role": "guardrail", "direction": "decrease", "margin": 0.2}
    result = analyse(pages, guard | {"margin_scale": "relative"}, relative_interval="fieller")
    (check,) = [item for item in result.diagnostics if item.name.startswith("guardrail.p95")]

    assert check.passed is True


def test_missing_rows_are_counted(pages: pd.DataFrame) -> None:
    frame = pages.assign(ms=pages["ms"].mask(pages.index < 40))
    result = analyse(frame, P95)
    (note,) = [item for item in result.diagnostics if item.name == "missing_rows.p95"]
    found = effect_of(result, "p95")

    assert note.statistic == 40
    assert found.n_treated + found.n_control == len(pages) - 40


def test_segments_say_that_quantiles_are_left_out(pages: pd.DataFrame) -> None:
    frame = pages.assign(device=np.array(["phone", "web"])[pages["user"] % 2])
    cost = {"name": "cost", "type": "mean", "column": "cost"}
    result = analyse(frame, P95, cost, segments=["device"])
    (note,) = [item for item in result.diagnostics if item.name == "whole_arms_only"]

    assert "p95" in note.detail
    assert {e.metric for e in result.effects if "device" in e.term} == {"cost"}


def test_the_passes_do_not_grow_with_the_rows(pages: pd.DataFrame) -> None:
    asked: list[FrameRequest] = []
    spec = validate(ab.SPEC, spec_data(P95))
    run(ab.estimate(spec), PandasEngine(pages), on_request=lambda _, one: asked.append(one))
    histograms = [one for one in asked if isinstance(one, HistogramRequest)]

    assert 2 <= len(histograms) <= 6
    assert max(len(one.edges) for one in histograms) <= 1023


@pytest.mark.parametrize(
    ("frame", "metric", "says"),
    [
        ({"ms": "whole_ms"}, {}, "moves in steps and has no standard error"),
        ({"ms": "seconds"}, {"resolution": 0.03}, "no multiples of the resolution"),
        ({}, {"quantile": 0.9999}, "too few rows beyond its quantile"),
        ({}, {"quantile": 0.0001}, "too few rows beyond its quantile"),
    ],
)
def test_data_that_cannot_carry_a_quantile(
    pages: pd.DataFrame, frame: dict[str, str], metric: dict[str, Any], says: str
) -> None:
    rows = pages.assign(**{name: pages[other] for name, other in frame.items()})
    if frame.get("ms") == "whole_ms":
        rows["ms"] = (rows["ms"] / 50).round()

    with pytest.raises(DataError, match=says):
        analyse(rows, P95 | metric)


def test_a_constant_column_is_refused(pages: pd.DataFrame) -> None:
    with pytest.raises(CausalError, match="moves in steps"):
        analyse(pages.assign(ms=3.0), P50)


@pytest.mark.parametrize(
    ("metric", "options", "says"),
    [
        ({"quantile": 1.0}, {}, "less than 1"),
        ({"quantile": None}, {}, "type quantile, and no other, takes quantile"),
        ({"type": "mean"}, {}, "type quantile, and no other, takes quantile"),
        ({"covariates": ["cost"]}, {}, "a quantile has no covariates"),
        ({"winsorise": {"upper": 9}}, {}, "only a mean or a count can be winsorised"),
        ({}, {"strata": ["device"]}, "strata is for means, not for a quantile"),
        ({}, {"variance": "pooled"}, "variance is for means"),
        ({}, {"population_sizes": {"control": 10**6}}, "population_sizes is for means"),
        ({}, {"segments": ["device"]}, "need a mean"),
        ({"type": "mean", "quantile": None, "resolution": 1}, {}, "only a quantile has a resol"),
    ],
)
def test_specs_that_are_refused(metric: dict[str, Any], options: dict[str, Any], says: str) -> None:
    with pytest.raises(CausalError, match=says):
        validate(ab.SPEC, spec_data(P95 | metric, **options))
