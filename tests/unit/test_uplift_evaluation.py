"""Uplift figures from histograms against the libraries' definitions on rows."""

import doctest
import math
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from causal.core.errors import CausalError, DataError, InferenceError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.uplift import curves, evaluation, evaluation_figures, score_histogram
from causal.uplift.curves import qini_curve
from causal.uplift.evaluation import (
    Intervals,
    auuc,
    evaluate,
    qini,
    qini_area,
    qini_band,
    rate,
    toc_band,
    uplift_at,
)
from causal.uplift.groups import Groups, calibration, calibration_of, uplift_by_group
from causal.uplift.resampling import Resampling, observed, resampled
from causal.uplift.score_histogram import HistogramOptions, count, histogram_of

ESTIMATES = Intervals(resampling=None)
Array = NDArray[np.float64]
Units = tuple[Array, Array, Array]


def units(seed: int, *, n: int = 150, digits: int | None = None) -> Units:
    """Scores, treatment and 0/1 outcomes; rounded scores tie."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    treated = rng.permutation(np.arange(n) % 2) * 1.0
    outcome = (rng.random(n) < 0.3 + 0.1 * treated * score).astype(float)
    return (score if digits is None else score.round(digits)), treated, outcome


# Definitions on rows, as scikit-uplift 0.5.1 has them.


def row_curve(score: Array, treated: Array, outcome: Array, *, kind: str) -> tuple[Array, Array]:
    order = np.argsort(score, kind="mergesort")[::-1]
    y, t, s = outcome[order], treated[order], score[order]
    at = np.r_[np.where(np.diff(s))[0], len(s) - 1]
    y_t, y_c, n_t = (np.cumsum(v)[at] for v in (y * t, y * (1 - t), t))
    n_c = at + 1 - n_t

    def share(over: Array, under: Array) -> Array:
        return np.divide(over, under, out=np.zeros(len(at)), where=under != 0)

    if kind == "qini":
        value = y_t - y_c * share(n_t, n_c)
    else:
        value = (share(y_t, n_t) - share(y_c, n_c)) * (at + 1)
    return np.r_[0, at + 1], np.r_[0, value]


def row_over_random(score: Array, treated: Array, outcome: Array, *, kind: str) -> float:
    n, value = row_curve(score, treated, outcome, kind=kind)
    return float(np.trapezoid(value, n) - n[-1] * value[-1] / 2)


def row_share(rows: Units, *, kind: str) -> float:
    _, treated, outcome = rows
    if kind == "qini":
        perfect = outcome * treated - outcome * (1 - treated)
    else:
        n_control_ones = ((outcome == 1) & (treated == 0)).sum()
        n_treated_zeros = ((outcome == 0) & (treated == 1)).sum()
        last = outcome if n_control_ones > n_treated_zeros else treated
        perfect = 2 * (outcome == treated) + last
    best = row_over_random(perfect, treated, outcome, kind=kind)
    return row_over_random(*rows, kind=kind) / best


# Definitions on rows, as causalml 0.18.0 has them.


def row_sums(rows: Units) -> pd.DataFrame:
    score, treated, outcome = rows
    frame = pd.DataFrame({"s": score, "t": treated, "y": outcome})
    frame = frame.sort_values("s", ascending=False).reset_index(drop=True)
    frame.index = frame.index + 1
    return pd.DataFrame({
        "t": frame["t"].cumsum(), "c": frame.index - frame["t"].cumsum(),
        "y_t": (frame["y"] * frame["t"]).cumsum(), "y_c": (frame["y"] * (1 - frame["t"])).cumsum(),
    })  # fmt: skip


def row_filled(curve: "pd.Series[float]") -> "pd.Series[float]":
    return pd.concat([pd.Series([0.0], index=[0]), curve]).interpolate()


def row_auuc(rows: Units) -> float:
    sums = row_sums(rows)
    gain = row_filled(sums["y_t"] / sums["t"] - sums["y_c"] / sums["c"])
    gain = gain * gain.index
    return float((gain / abs(gain.iloc[-1])).sum() / len(gain))


def row_qini(rows: Units) -> float:
    sums = row_sums(rows)
    curve = row_filled(sums["y_t"] - sums["y_c"] * sums["t"] / sums["c"])
    curve = curve / abs(curve.iloc[-1])
    return float((curve.sum() - np.linspace(0, curve.iloc[-1], len(curve)).sum()) / len(curve))


def row_toc_average(rows: Units, weighting: str) -> float:
    sums = row_sums(rows)
    lift = sums["y_t"] / sums["t"] - sums["y_c"] / sums["c"]
    lift = lift.where((sums["t"] > 0) & (sums["c"] > 0), lift.iloc[-1])
    toc = np.r_[0, lift - lift.iloc[-1]]
    q = np.linspace(0, 1, len(toc))
    middle = (q[1:] + q[:-1]) / 2
    weights = 1 / middle if weighting == "autoc" else middle
    return float(np.average((toc[1:] + toc[:-1]) / 2, weights=weights))


# The definition of grf.


def row_rate(score: Array, effect: Array, weighting: str) -> float:
    order = np.argsort(-score, kind="stable")
    tied = pd.Series(effect).groupby(score).transform("mean").to_numpy()[order]
    n = np.arange(1, len(tied) + 1)
    toc = np.cumsum(tied) / n - effect.mean()
    return float((toc * (1 if weighting == "autoc" else n / len(tied))).mean())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("digits", [None, 1, 0])
def test_scikit_uplift_on_rows(seed: int, digits: int | None) -> None:
    """Ties included: its curves have a point per distinct score, as bins do."""
    rows = units(seed, digits=digits)
    data = histogram_of(score=rows[0], treated=rows[1], outcome=rows[2])
    assert data.n_bins == len(np.unique(rows[0]))
    found = qini(data, intervals=ESTIMATES).estimate
    assert found == pytest.approx(row_share(rows, kind="qini"), rel=1e-9)
    found = auuc(data, intervals=ESTIMATES).estimate
    assert found == pytest.approx(row_share(rows, kind="uplift"), rel=1e-9)
    found = qini_area(data, intervals=ESTIMATES).estimate
    assert found == pytest.approx(row_over_random(*rows, kind="qini"), rel=1e-9)
    curve = qini_curve(observed(data).bins)
    n, value = row_curve(*rows, kind="qini")
    np.testing.assert_allclose(curve.n, n)
    np.testing.assert_allclose(curve.value, value, atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_causalml_on_rows(seed: int) -> None:
    rows = units(seed)
    data = histogram_of(score=rows[0], treated=rows[1], outcome=rows[2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = row_auuc(rows), row_qini(rows)
    found = auuc(data, definition="causalml", intervals=ESTIMATES).estimate
    assert found == pytest.approx(expected[0], rel=1e-9)
    found = qini(data, definition="causalml", intervals=ESTIMATES).estimate
    assert found == pytest.approx(expected[1], rel=1e-9)
    for weighting in ("autoc", "qini"):
        found = rate(data, weighting=weighting, definition="causalml", intervals=ESTIMATES).estimate
        assert found == pytest.approx(row_toc_average(rows, weighting), rel=1e-9)


def test_causalml_with_ties_is_the_mean_over_their_orders() -> None:
    rows = units(4, n=400, digits=0)
    data = histogram_of(score=rows[0], treated=rows[1], outcome=rows[2])
    rng = np.random.default_rng(0)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for _ in range(300):
            mixed = rows[0] + rng.random(400) * 1e-3
            found.append((row_auuc((mixed, *rows[1:])), row_qini((mixed, *rows[1:]))))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / 300**0.5
    ours = [
        auuc(data, definition="causalml", intervals=ESTIMATES).estimate,
        qini(data, definition="causalml", intervals=ESTIMATES).estimate,
    ]
    # Even mixing is the mean up to the curvature of the ratio where few units are ahead.
    assert (np.abs(ours - mean) < 5 * error + 0.01 * np.abs(mean)).all()


@pytest.mark.parametrize("weighting", ["autoc", "qini"])
@pytest.mark.parametrize("digits", [None, 1])
def test_rate_on_rows(weighting: str, digits: int | None) -> None:
    score, treated, outcome = units(7, digits=digits)
    weighted = outcome * treated / 0.4 - outcome * (1 - treated) / 0.6
    plain = histogram_of(score=score, treated=treated, outcome=outcome)
    found = rate(plain, weighting=weighting, propensity=0.4, intervals=ESTIMATES)  # type: ignore[arg-type]
    assert found.estimate == pytest.approx(row_rate(score, weighted, weighting), rel=1e-9)
    share = treated.mean()
    weighted = outcome * treated / share - outcome * (1 - treated) / (1 - share)
    found = rate(plain, weighting=weighting, intervals=ESTIMATES)  # type: ignore[arg-type]
    assert found.estimate == pytest.approx(row_rate(score, weighted, weighting), rel=1e-9)
    effect = np.random.default_rng(1).normal(score, 1)
    robust = histogram_of(score=score, treated=treated, outcome=outcome, pseudo_outcome=effect)
    found = rate(robust, weighting=weighting, intervals=ESTIMATES)  # type: ignore[arg-type]
    assert found.estimate == pytest.approx(row_rate(score, effect, weighting), rel=1e-9)


@pytest.mark.parametrize("strategy", ["overall", "by_group"])
@pytest.mark.parametrize("k", [0.1, 0.3, 0.77])
def test_uplift_at_k_on_rows(strategy: str, k: float) -> None:
    score, treated, outcome = units(5)
    data = histogram_of(score=score, treated=treated, outcome=outcome)
    order = np.argsort(score, kind="mergesort")[::-1]
    y, t = outcome[order], treated[order]
    if strategy == "overall":
        n = int(len(y) * k)
        expected = y[:n][t[:n] == 1].mean() - y[:n][t[:n] == 0].mean()
    else:
        parts = [y[t == arm][: int((t == arm).sum() * k)].mean() for arm in (1, 0)]
        expected = parts[0] - parts[1]
    found = uplift_at(data, k=k, strategy=strategy, intervals=ESTIMATES)  # type: ignore[arg-type]
    assert found.estimate == pytest.approx(expected, rel=1e-12)


def test_groups_on_rows() -> None:
    score, treated, outcome = units(6, n=503)
    data = histogram_of(score=score, treated=treated, outcome=outcome)
    order = np.argsort(score)[::-1]
    table = uplift_by_group(data, n_groups=7)
    parts = np.array_split(order, 7)
    for row, part in zip(table.itertuples(), parts, strict=True):
        y, t = outcome[part], treated[part]
        assert (row.n_treated, row.n_control) == pytest.approx(((t == 1).sum(), (t == 0).sum()))
        assert row.uplift == pytest.approx(y[t == 1].mean() - y[t == 0].mean())
        error = np.sqrt(sum(y[t == arm].var(ddof=1) / (t == arm).sum() for arm in (0, 1)))
        assert row.std_error == pytest.approx(error)
        assert row.score == pytest.approx(score[part].mean())


def test_calibration_is_the_weighted_line() -> None:
    import statsmodels.api as sm

    score, treated, outcome = units(6, n=900)
    data = histogram_of(score=score, treated=treated, outcome=outcome)
    table = uplift_by_group(data)
    line = sm.WLS(
        table["uplift"], sm.add_constant(table["score"]), weights=table["std_error"] ** -2
    ).fit(cov_type="fixed scale")
    found = calibration(data)
    assert (found.intercept, found.slope) == pytest.approx(tuple(line.params))
    errors = (found.intercept_std_error, found.slope_std_error)
    assert errors == pytest.approx(tuple(line.bse))
    assert found.pvalue < 1e-6
    right = histogram_of(score=0.1 * score, treated=treated, outcome=outcome)
    assert calibration(right).pvalue > 0.01


def test_the_plan_gives_what_arrays_give() -> None:
    score, treated, outcome = units(3, n=300, digits=1)
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({
        "uplift": score, "arm": np.where(treated == 1, "perk", "none"), "stayed": outcome,
        "fold": rng.integers(0, 25, 300), "effect": rng.normal(size=300),
    })  # fmt: skip
    other = frame.head(20).assign(arm="other")
    holes = frame.head(6).assign(stayed=np.nan)
    options = HistogramOptions(
        score="uplift", outcome="stayed", variant="arm", treatment="perk", control="none",
        fold="fold", pseudo_outcome="effect",
    )  # fmt: skip
    found = run(count(options), PandasEngine(pd.concat([frame, other, holes])))
    direct = histogram_of(
        score=score, treated=treated, outcome=outcome, fold=frame["fold"],
        pseudo_outcome=frame["effect"],
    )  # fmt: skip
    assert {item.name: item.statistic for item in found.diagnostics} == {
        "missing_rows": 6,
        "other_variants": 20,
    }
    np.testing.assert_allclose(found.histogram.score, direct.score, atol=1e-12)
    assert found.histogram.n_folds == 25
    for name in ("qini", "autoc"):
        left, right = (
            evaluate(data, intervals=ESTIMATES).set_index(["name", "definition"])["estimate"]
            for data in (found.histogram, direct)
        )
        np.testing.assert_allclose(left.loc[name], right.loc[name])


def test_bins_hold_the_mean_of_their_scores() -> None:
    score, treated, outcome = units(3, n=300)
    frame = pd.DataFrame({
        "s": score, "bin": np.floor(score * 2), "t": treated, "y": outcome,
    })  # fmt: skip
    options = HistogramOptions(
        score="s", score_bin="bin", outcome="y", variant="t", treatment=1, control=0
    )
    found = run(count(options), PandasEngine(frame)).histogram
    means = frame.groupby("bin")["s"].mean().sort_index(ascending=False)
    np.testing.assert_allclose(found.score, means)
    tied = histogram_of(score=np.floor(score * 2), treated=treated, outcome=outcome)
    assert qini(found, intervals=ESTIMATES) == qini(tied, intervals=ESTIMATES)
    upside_down = frame.assign(bin=-frame["bin"])
    with pytest.raises(DataError, match="ascend"):
        run(count(options), PandasEngine(upside_down))


def test_draws_of_units_are_those_of_a_row_bootstrap() -> None:
    rows = units(9, n=400, digits=1)
    data = histogram_of(score=rows[0], treated=rows[1], outcome=rows[2])
    rng = np.random.default_rng(0)
    found = []
    for _ in range(800):
        weight = rng.poisson(1.0, 400)
        found.append(row_over_random(*(np.repeat(part, weight) for part in rows), kind="qini"))
    ours = qini_area(data, intervals=Intervals(resampling=Resampling(n_draws=4000)))
    assert ours.std_error == pytest.approx(np.std(found), rel=0.1)


def test_draws_of_other_outcomes_have_the_bootstraps_moments() -> None:
    score, treated, _ = units(9, n=400, digits=1)
    rng = np.random.default_rng(3)
    outcome = rng.gamma(1.0, 2 + treated, 400)
    data = histogram_of(score=score, treated=treated, outcome=outcome)
    assert not data.is_binary
    found = []
    for _ in range(800):
        weight = rng.poisson(1.0, 400)
        parts = (np.repeat(part, weight) for part in (score, treated, outcome))
        found.append(row_over_random(*parts, kind="qini"))
    ours = qini_area(data, intervals=Intervals(resampling=Resampling(n_draws=4000)))
    assert ours.std_error == pytest.approx(np.std(found), rel=0.1)
    table = evaluate(data, intervals=Intervals(resampling=Resampling(n_draws=60)))
    assert ("qini", "scikit-uplift") not in set(
        table[["name", "definition"]].itertuples(index=False, name=None)
    )


def test_the_same_seed_gives_the_same_interval() -> None:
    rows = units(2, n=300, digits=1)
    data = histogram_of(score=rows[0], treated=rows[1], outcome=rows[2])
    how = Intervals(resampling=Resampling(n_draws=80, seed=5), confidence_level=0.9)
    assert qini(data, intervals=how) == qini(data, intervals=how)
    other = Intervals(resampling=Resampling(n_draws=80, seed=6), confidence_level=0.9)
    assert qini(data, intervals=how).std_error != qini(data, intervals=other).std_error
    area = qini_area(data, intervals=how)
    assert area.ci_upper is not None
    assert area.std_error is not None
    assert area.ci_upper - area.estimate == pytest.approx(1.6448536 * area.std_error)


@pytest.mark.parametrize("sign", [1, -1])
def test_intervals_of_quotients_are_those_of_fieller(sign: int) -> None:
    """Ends solve `|over - q under| = z sd(over - q under)`; the sign of the end is fixed."""
    rng = np.random.default_rng(2)
    score, treated = rng.integers(0, 9, 900) / 9, rng.integers(0, 2, 900)
    outcome = rng.random(900) < 0.4 + sign * treated * (0.1 + 0.2 * score)
    data = histogram_of(score=score, treated=treated, outcome=outcome * 1)
    resampling = Resampling(n_draws=300, seed=5)
    found = qini(data, definition="causalml", intervals=Intervals(resampling=resampling))
    over, under = [], []
    for sample in (observed(data), *resampled(data, resampling)):
        curve = curves.unit_qini_curve(sample.bins)
        end = curve.value[..., -1]
        over.append(np.atleast_1d(curves.unit_sum(curve) / (curve.n[..., -1] + 1) - end / 2))
        under.append(np.atleast_1d(end))
    draws = (np.concatenate(over[1:]), sign * np.concatenate(under[1:]))
    point = (float(over[0][0]), sign * float(under[0][0]))

    assert point[1] > 0
    assert found.estimate == pytest.approx(point[0] / point[1])
    for end in (found.ci_lower, found.ci_upper):
        assert end is not None
        spread = float(np.std(draws[0] - end * draws[1], ddof=1))
        assert abs(point[0] - end * point[1]) == pytest.approx(1.959964 * spread, rel=1e-6)
    linear = np.std(draws[0] - found.estimate * draws[1], ddof=1) / point[1]
    assert found.std_error == pytest.approx(linear)


def test_a_quotient_by_an_effect_that_may_be_none_is_unbounded() -> None:
    """Both arms buy alike: no area is a share of a gain that may be none."""
    rng = np.random.default_rng(4)
    score, treated = rng.integers(0, 5, 600), rng.integers(0, 2, 600)
    outcome = (rng.random(600) < 0.3).astype(float)
    data = histogram_of(score=score, treated=treated, outcome=outcome)
    found = qini(data, definition="causalml")

    assert (found.ci_lower, found.ci_upper) == (-math.inf, math.inf)
    assert found.std_error is not None


def test_the_band_follows_the_curve() -> None:
    rows = units(2, n=500, digits=1)
    data = histogram_of(score=rows[0], treated=rows[1], outcome=rows[2])
    how = Intervals(resampling=Resampling(n_draws=100))
    band = qini_band(data, n_points=11, intervals=how)
    n, value = row_curve(*rows, kind="qini")
    expected = np.interp(np.linspace(0, 500, 11), n, value) / rows[1].sum()
    np.testing.assert_allclose(band["estimate"], expected, atol=1e-12)
    assert (band["std_error"].iloc[1:] > 0).all()
    with pytest.raises(SpecError, match="resampling"):
        qini_band(data, intervals=ESTIMATES)
    score = qini(data, intervals=how)
    figure = evaluation_figures.qini_figure(band, outcome="visits", score=score)
    figure.canvas.draw()
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), band["estimate"])
    assert f"{score.estimate:.3f}" in figure.axes[0].get_title(loc="left")
    table = uplift_by_group(data, n_groups=5)
    bars = evaluation_figures.decile_figure(table, outcome="visits").axes[0].patches
    np.testing.assert_allclose([bar.get_height() for bar in bars], table["uplift"])
    bare = evaluation_figures.qini_figure(band, outcome="visits")
    assert bare.axes[0].get_title(loc="left") == "Qini curve"


def test_the_toc_is_the_mean_of_the_top_and_averages_to_autoc() -> None:
    rng = np.random.default_rng(8)
    score, pseudo = rng.normal(size=200), rng.normal(size=200)
    data = histogram_of(
        score=score, treated=np.arange(200) % 2, outcome=pseudo, pseudo_outcome=pseudo
    )
    how = Intervals(resampling=Resampling(n_draws=400, seed=2))
    band = toc_band(data, first=1 / 200, n_points=200, intervals=how)
    ranked = pseudo[np.argsort(-score)]
    running = ranked.cumsum() / np.arange(1, 201) - pseudo.mean()
    np.testing.assert_allclose(band["estimate"], running, atol=1e-12)
    assert band["estimate"].mean() == pytest.approx(rate(data, intervals=ESTIMATES).estimate)
    assert band["std_error"].iloc[-1] == pytest.approx(0.0, abs=1e-9)
    # Of the top half, less all: half of the difference of two means of 100.
    expected = np.sqrt(ranked[:100].var() + ranked[100:].var()) / 2 / 10
    assert band["std_error"].iloc[99] == pytest.approx(expected, rel=0.15)
    figure = evaluation_figures.toc_figure(band, outcome="visits")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), band["estimate"])
    with pytest.raises(SpecError, match="resampling"):
        toc_band(data, intervals=ESTIMATES)
    with pytest.raises(SpecError, match="between 0 and 1"):
        toc_band(data, first=0.0)


def test_groups_of_pseudo_outcomes_hold_equally_many_units_of_all_arms() -> None:
    """A third arm that is likelier at high scores counts in groups and in their mean scores."""
    rng = np.random.default_rng(3)
    score = np.repeat(np.arange(20.0), 50)
    third = rng.uniform(size=1000) < (score + 1) / 25
    frame = pd.DataFrame({"score": score, "third": third, "pseudo": score + rng.normal(size=1000)})
    pair = frame[~frame["third"]]
    whole, two = (
        histogram_of(
            score=rows["score"], treated=np.arange(len(rows)) % 2, outcome=rows["pseudo"],
            pseudo_outcome=rows["pseudo"],
        )
        for rows in (frame, pair)
    )  # fmt: skip
    data = replace(two, pseudo=whole.pseudo)
    table = uplift_by_group(data, n_groups=5, measured="pseudo")
    ranked = frame.sort_values("score", ascending=False, kind="stable")
    for found, column in (("score", "score"), ("uplift", "pseudo")):
        parts = np.array_split(ranked[column].to_numpy(), 5)
        np.testing.assert_allclose(table[found], [part.mean() for part in parts])


def test_calibration_of_correlated_groups_is_that_of_their_covariance() -> None:
    rng = np.random.default_rng(4)
    root = rng.normal(size=(4, 4)) + 2 * np.eye(4)
    covariance = root @ root.T
    score, uplift = np.array([4.0, 3.0, 2.0, 1.0]), np.array([5.0, 2.5, 2.0, 0.0])
    table = pd.DataFrame(
        {
            "score": score, "uplift": uplift, "std_error": np.sqrt(np.diag(covariance)),
            "n_treated": 5, "n_control": 5,
        }
    )  # fmt: skip
    found = calibration_of(Groups(table=table, covariance=covariance, df=30.0))
    x, w = np.column_stack([np.ones(4), score]), np.diag(1 / np.diag(covariance))
    maps = np.linalg.solve(x.T @ w @ x, x.T @ w)
    np.testing.assert_allclose([found.intercept, found.slope], maps @ uplift)
    errors = np.sqrt(np.diag(maps @ covariance @ maps.T))
    np.testing.assert_allclose([found.intercept_std_error, found.slope_std_error], errors)
    distance = (uplift - score) @ np.linalg.solve(covariance, uplift - score)
    assert found.statistic == pytest.approx(distance)
    assert found.pvalue == pytest.approx(stats.f.sf(27 / (30 * 4) * distance, 4, 27))


def test_what_cannot_be_right_is_refused() -> None:
    score, treated, outcome = units(1, n=60)
    data = histogram_of(score=score, treated=treated, outcome=outcome)
    other = histogram_of(score=score, treated=treated, outcome=outcome * 3.5)
    with pytest.raises(DataError, match="0 and 1"):
        qini(other, intervals=ESTIMATES)
    with pytest.raises(DataError, match="0 and 1"):
        auuc(other, intervals=ESTIMATES)
    with pytest.raises(SpecError, match="share"):
        uplift_at(data, k=1.0, intervals=ESTIMATES)
    with pytest.raises(SpecError, match="propensity"):
        rate(data, definition="causalml", propensity=0.5, intervals=ESTIMATES)
    with pytest.raises(SpecError, match="propensity"):
        rate(data, propensity=1.5, intervals=ESTIMATES)
    with pytest.raises(SpecError, match="draws"):
        Resampling(n_draws=5)
    with pytest.raises(DataError, match="folds"):
        qini(data, intervals=Intervals(resampling=Resampling(by="folds")))
    with pytest.raises(DataError, match="fewer groups"):
        uplift_by_group(data, n_groups=30)
    with pytest.raises(DataError, match="control units"):
        histogram_of(score=score, treated=np.ones(60), outcome=outcome)
    with pytest.raises(DataError, match="finite"):
        histogram_of(score=score, treated=treated, outcome=np.full(60, np.nan))
    with pytest.raises(DataError, match="0 or 1"):
        histogram_of(score=score, treated=treated * 2, outcome=outcome)
    nothing = histogram_of(score=score, treated=treated, outcome=np.zeros(60))
    with pytest.raises(InferenceError, match="not defined"):
        qini(nothing, intervals=ESTIMATES)
    with pytest.raises(InferenceError, match="do not vary"):
        calibration(nothing, n_groups=3)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"s": [1.0], "t": ["x"], "y": [1.0]}), "no unit"),
        (pd.DataFrame({"s": [1.0], "t": ["a"], "y": [1.0]}), "control units"),
        (pd.DataFrame({"s": [1.0], "t": ["a"]}), "no such column"),
    ],
)
def test_tables_that_cannot_be_evaluated_are_refused(frame: pd.DataFrame, message: str) -> None:
    options = HistogramOptions(score="s", outcome="y", variant="t", treatment="a", control="b")
    with pytest.raises(CausalError, match=message):
        run(count(options), PandasEngine(frame))


def test_arms_must_differ() -> None:
    data = {"score": "s", "outcome": "y", "variant": "t", "treatment": 1, "control": "1"}
    with pytest.raises(SpecError, match="both"):
        validate(HistogramOptions, data)


@pytest.mark.parametrize("module", [evaluation, score_histogram])
def test_the_examples_run(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0
