"""Matching against plain loops over the rows and regressions on the matched rows."""

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray

from causal.core.errors import CausalError, DataError, InferenceError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.observational.nearest import MatchingRule, conditional_variances, match
from causal.quasi import matching, weighting

Numbers = NDArray[np.float64]
DESIGN = {"outcome": "y", "treatment": "t", "covariates": ["x", "z"]}


def rows(*, seed: int = 5, n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x, z = rng.integers(0, 8, n), rng.normal(size=n).round(1)
    t = (rng.uniform(size=n) < 1 / (1 + np.exp(1.2 - 0.2 * x - 0.5 * z))).astype(int)
    y = x + z + t * (1 + 0.2 * x) + rng.normal(size=n)
    kind = np.array(["a", "b"])[rng.integers(0, 2, n)]
    return pd.DataFrame({"id": np.arange(n), "t": t, "x": x, "z": z, "y": y, "kind": kind})


ROWS = rows()


def analysed(frame: pd.DataFrame = ROWS, *, module: Any = matching, **options: Any) -> Result:
    name = module.__name__.rpartition(".")[2]
    data = {
        "name": "parity", "source": {"table": "rows"}, "method": name,
        "options": {**DESIGN, **options},
    }  # fmt: skip
    return run(module.estimate(validate(module.SPEC, data)), PandasEngine(frame))


def greedy(focal: Numbers, pool: Numbers, rule: MatchingRule) -> list[tuple[int, int]]:
    """Every unit in turn looks at all partners."""
    turns = {"largest": np.argsort(-focal, kind="stable"), "unit": np.arange(len(focal))}.get(
        rule.order, np.argsort(focal, kind="stable")
    )
    free, found = list(range(len(pool))), []
    for _ in range(rule.ratio):
        for at in turns:
            if not free:
                return found
            gaps = np.abs(pool[free] - focal[at])
            best = int(np.argmin(gaps))
            if rule.caliper is None or gaps[best] <= rule.caliper:
                found.append((int(at), free.pop(best)))
    return found


@pytest.mark.parametrize("order", ["largest", "smallest", "unit"])
@pytest.mark.parametrize("ratio", [1, 3])
@pytest.mark.parametrize("caliper", [None, 0.05])
def test_greedy_matches_are_those_of_a_loop(order: Any, ratio: int, caliper: float | None) -> None:
    rule = MatchingRule(ratio=ratio, order=order, caliper=caliper)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        focal, pool = rng.uniform(size=12), rng.uniform(size=20)
        if seed % 2:
            focal, pool = focal.round(1), pool.round(1)
        groups = np.zeros(12), np.zeros(20)
        found = match(focal, pool, rule=rule, groups=groups)
        expected = greedy(focal, pool, rule)

        assert list(zip(found.focal, found.match, strict=True)) == expected


@pytest.mark.parametrize("ratio", [1, 2, 4, 12])
@pytest.mark.parametrize("caliper", [None, 0.1])
def test_with_replacement_everyone_has_the_nearest(ratio: int, caliper: float | None) -> None:
    """Of the own group, with ties (scores of one digit: many) to who comes first."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        focal, pool = (rng.uniform(size=n).round(1 + seed % 2) for n in (15, 30))
        groups = rng.integers(0, 2, 15), rng.integers(0, 2, 30)
        rule = MatchingRule(ratio=ratio, is_replaced=True, caliper=caliper)
        found = match(focal, pool, rule=rule, groups=groups)
        for at, value in enumerate(focal):
            own = np.flatnonzero(groups[1] == groups[0][at])
            gaps = np.abs(pool[own] - value)
            nearest = np.argsort(gaps, kind="stable")[:ratio]
            if caliper is not None:
                nearest = nearest[gaps[nearest] <= caliper]
            assert found.match[found.focal == at].tolist() == own[nearest].tolist()


@pytest.mark.parametrize("is_replaced", [True, False])
@pytest.mark.parametrize("n_scores", [3, 10**9])
@pytest.mark.parametrize("n_groups", [1, 5000])
def test_many_units_are_matched_in_seconds(is_replaced: bool, n_scores: int, n_groups: int) -> None:  # noqa: FBT001
    """Ties and groups too: looking at all partners, or at all units for a group, takes minutes."""
    rng = np.random.default_rng(2)
    focal, pool = (rng.integers(0, n_scores, n) / n_scores for n in (10_000, 20_000))
    groups = tuple(rng.integers(0, n_groups, n) for n in (10_000, 20_000))
    rule = MatchingRule(ratio=2, is_replaced=is_replaced)
    began = time.process_time()
    found = match(focal, pool, rule=rule, groups=(groups[0], groups[1]))
    variances = conditional_variances(focal, rng.normal(size=10_000), np.zeros(10_000))
    assert time.process_time() - began < 10
    assert len(found.focal) > 10_000
    assert (variances >= 0).all()


def test_partners_share_the_exact_group() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 3, 20), rng.integers(0, 3, 30)
    found = match(rng.uniform(size=20), rng.uniform(size=30), rule=MatchingRule(), groups=groups)

    assert (groups[0][found.focal] == groups[1][found.match]).all()


def _scores(frame: pd.DataFrame) -> Numbers:
    x = sm.add_constant(frame[["x", "z"]].to_numpy(dtype=float))
    fit = sm.Logit(frame["t"].to_numpy(), x).fit(disp=0, method="newton", tol=1e-14)
    return np.asarray(fit.predict())


def test_pairs_have_the_errors_of_a_regression_clustered_by_pair() -> None:
    p, t, y = _scores(ROWS), ROWS["t"].to_numpy(), ROWS["y"].to_numpy()
    pairs = greedy(p[t == 1], p[t == 0], MatchingRule())
    left, right = (np.array(side) for side in zip(*pairs, strict=True))
    outcome = np.concatenate([y[t == 1][left], y[t == 0][right]])
    treated = np.repeat([1.0, 0.0], len(pairs))
    fit = sm.OLS(outcome, sm.add_constant(treated)).fit(
        cov_type="cluster", cov_kwds={"groups": np.tile(np.arange(len(pairs)), 2)}
    )
    effect = analysed(unit="id").effects[0]

    assert effect.estimate == pytest.approx(fit.params[1], rel=1e-9)
    assert effect.std_error == pytest.approx(fit.bse[1], rel=1e-9)


def test_errors_with_replacement_follow_abadie_and_imbens() -> None:
    p, t, y = _scores(ROWS), ROWS["t"].to_numpy(), ROWS["y"].to_numpy()
    own, pool = np.flatnonzero(t == 1), np.flatnonzero(t == 0)
    chosen = [pool[np.argsort(np.abs(p[pool] - p[i]), kind="stable")[:2]] for i in own]
    gaps = np.array([y[i] - y[j].mean() for i, j in zip(own, chosen, strict=True)])
    uses = np.bincount(np.concatenate(chosen), minlength=len(y))[pool]
    variances = []
    for j in pool:
        others = pool[pool != j]
        distance = np.abs(p[others] - p[j])
        ties = others[distance == distance.min()]
        variances.append([(y[j] - y[k]) ** 2 / 2 for k in ties])
    low = np.array([min(item) for item in variances])
    high = np.array([max(item) for item in variances])

    def error(sigma: Numbers) -> float:
        total = ((gaps - gaps.mean()) ** 2).sum() + (uses * (uses - 1) / 4 * sigma).sum()
        return float(np.sqrt(total) / len(own))

    effect = analysed(unit="id", replace=True, ratio=2).effects[0]
    assert effect.estimate == pytest.approx(gaps.mean(), rel=1e-9)
    assert error(low) - 1e-9 <= effect.std_error <= error(high) + 1e-9


@pytest.mark.parametrize("estimand", ["att", "atc", "ate"])
@pytest.mark.parametrize("covariance", ["robust", "strata"])
def test_cells_are_a_weighted_regression(estimand: str, covariance: str) -> None:
    cuts = [-0.5, 0.0, 0.7]
    cell = ROWS["x"].astype(str) + "/" + np.searchsorted(cuts, ROWS["z"], side="right").astype(str)
    counts = pd.crosstab(cell, ROWS["t"])
    matched = ROWS.assign(cell=cell)[cell.isin(counts[(counts > 0).all(axis=1)].index)]
    n1 = matched["cell"].map(counts[1])
    n0 = matched["cell"].map(counts[0])
    goal = {"att": n1, "atc": n0, "ate": n0 + n1}[estimand]
    weights = goal / np.where(matched["t"] == 1, n1, n0)
    model = sm.WLS(matched["y"], sm.add_constant(matched[["t"]].astype(float)), weights=weights)
    groups = {"groups": pd.factorize(matched["cell"])[0]}
    fit = (
        model.fit(cov_type="HC1")
        if covariance == "robust"
        else model.fit(cov_type="cluster", cov_kwds=groups)
    )
    result = analysed(
        matching="coarsened", cutpoints={"z": cuts}, estimand=estimand, covariance=covariance
    )
    effect = result.effects[0]

    assert effect.estimate == pytest.approx(fit.params["t"], rel=1e-9)
    assert effect.std_error == pytest.approx(fit.bse["t"], rel=1e-9)
    assert effect.n_treated == int((matched["t"] == 1).sum())
    assert result.params["n_cells"] == matched["cell"].nunique()
    after = result.tables["balance"].query("stage == 'after' and covariate == 'x'")
    assert abs(float(after["smd"].iloc[0])) < 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "id", "max_units": 100}, "too many"),
        ({"unit": "id", "caliper": 1e-9, "exact": ["id"]}, "almost no unit has a partner"),
        ({}, "needs unit"),
        ({"matching": "coarsened", "ratio": 2}, "ratio goes with matching: nearest"),
        ({"unit": "id", "cutpoints": {"x": 2}}, "cutpoints goes with matching: coarsened"),
        ({"unit": "id", "estimand": "ate"}, "goes with matching: coarsened"),
        ({"matching": "coarsened", "cutpoints": {"w": 2}}, "no covariate: w"),
    ],
)
def test_matching_that_cannot_be_right_is_refused(options: Any, message: str) -> None:
    with pytest.raises(CausalError, match=message):
        analysed(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimand": "overlap", "estimator": "aipw"}, "overlap goes with ipw"),
        ({"covariance": "robust", "estimator": "regression"}, "covariance: sandwich"),
        ({"trim": {"rule": "fixed", "low": 0.1}}, "needs low and high"),
        ({"trim": {"rule": "crump", "low": 0.1}}, "low and high go with rule: fixed"),
        ({"estimator": "entropy_balancing", "trim": {"rule": "crump"}}, "has not"),
        ({"estimator": ["ipw", "ipw"]}, "stands twice"),
        ({"covariates": []}, "name covariates"),
        ({"covariates": ["t"]}, "two roles: t"),
        ({"control": 1}, "treated and control are both 1"),
    ],
)
def test_weighting_that_cannot_be_right_is_refused(options: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        analysed(module=weighting, **options)


def test_a_column_that_separates_the_arms_is_named() -> None:
    frame = ROWS.assign(flag=((ROWS["t"] == 1) & (ROWS["x"] > 4)).astype(int))
    with pytest.raises(InferenceError, match="flag separates the arms"):
        analysed(frame, module=weighting, covariates=["x", "flag"])
    tall = ROWS.assign(x=ROWS["x"] + 0.01 * ROWS["z"])
    tall = tall.assign(t=(tall["x"] > 3.5).astype(int))
    with pytest.raises(InferenceError, match="separate the arms"):
        analysed(tall, module=weighting)


def test_means_out_of_reach_cannot_be_balanced() -> None:
    frame = ROWS.assign(x=ROWS["x"] + 20.0 * ROWS["t"])
    with pytest.raises(InferenceError, match="no positive weights balance"):
        analysed(frame, module=weighting, estimator="entropy_balancing", estimand="att")


def test_other_levels_and_missing_rows_are_counted() -> None:
    extra = ROWS.head(20).assign(t=2, id=range(1000, 1020))
    holes = ROWS.head(7).assign(x=np.nan, id=range(2000, 2007))
    frame = pd.concat([ROWS, extra, holes], ignore_index=True)
    result = analysed(frame, module=weighting)
    counts = {item.name: item.statistic for item in result.diagnostics}

    assert (counts["other_levels"], counts["missing_rows"]) == (20, 7)
    assert result.effects[0].estimate == pytest.approx(
        analysed(module=weighting).effects[0].estimate, rel=1e-10
    )


def test_units_that_repeat_are_refused() -> None:
    with pytest.raises(DataError, match="must identify the rows"):
        analysed(pd.concat([ROWS, ROWS.head(2)]), unit="id")


@pytest.mark.parametrize("estimand", ["att", "atc"])
def test_sensitivity_of_pairs_is_that_of_their_signed_ranks(estimand: str) -> None:
    from scipy import stats

    options = {"unit": "id", "estimand": estimand, "caliper": 0.5, "sensitivity": True}
    found = analysed(**options)
    (item,) = found.effects
    bounds = found.tables["rosenbaum_bounds"].set_index("gamma")
    values = found.tables["sensitivity"].set_index("quantity")["value"]
    reference = pairs_of(ROWS, estimand=estimand)
    assert len(reference) == found.params["n_sets"]
    assert reference.mean() == pytest.approx(item.estimate, rel=1e-9)
    plain = stats.wilcoxon(reference, alternative="greater", correction=False, method="approx")
    assert bounds.loc[1.0, "pvalue_upper"] == pytest.approx(plain.pvalue, rel=1e-9)
    assert bounds["pvalue_upper"].is_monotonic_increasing
    inside = bounds.index[bounds["pvalue_upper"] <= 0.025]
    outside = bounds.index[bounds["pvalue_upper"] > 0.025]
    assert max(inside, default=0.0) <= values["rosenbaum_gamma"] < min(outside, default=np.inf)
    ratio = np.exp(0.91 * item.estimate / ROWS["y"].std())
    assert values["e_value"] == pytest.approx(ratio + np.sqrt(ratio * (ratio - 1)), rel=1e-9)


@pytest.mark.parametrize("n_pairs", [19, 20])
def test_large_sample_bounds_take_twenty_pairs_that_differ(n_pairs: int) -> None:
    """40 pairs of neighbours, of which the first `n_pairs` differ in their outcome."""
    pair, t = np.repeat(np.arange(40), 2), np.tile([1, 0], 40)
    y = np.sin(pair) + np.where(pair < n_pairs, 1 + pair / 100, 0) * t
    frame = pd.DataFrame({"id": np.arange(80), "t": t, "x": pair % 7, "pair": pair, "y": y})
    found = analysed(frame, covariates=["x"], exact=["pair"], unit="id", sensitivity=True)
    assert found.params["n_sets"] == 40
    is_enough = n_pairs == 20
    quantities = set(found.tables["sensitivity"]["quantity"])
    assert ("rosenbaum_bounds" in found.tables) is is_enough
    assert ("rosenbaum_gamma" in quantities) is is_enough
    assert {"e_value", "e_value_interval"} <= quantities
    told = [note.statistic for note in found.diagnostics if note.name == "few_pairs"]
    assert told == ([] if is_enough else [19])


def pairs_of(frame: pd.DataFrame, *, estimand: str) -> Numbers:
    """Treated less control of each pair, matched by a plain loop on statsmodels' propensity."""
    propensity = sm.Logit(frame["t"], sm.add_constant(frame[["x", "z"]])).fit(disp=0).predict()
    is_focal = (frame["t"] == (estimand == "att")).to_numpy()
    focal, pool = np.flatnonzero(is_focal), np.flatnonzero(~is_focal)
    caliper = 0.5 * propensity.std(ddof=1)
    rule = MatchingRule(order="largest", caliper=float(caliper))
    found = greedy(propensity[focal], propensity[pool], rule)
    y = frame["y"].to_numpy()
    sign = 1.0 if estimand == "att" else -1.0
    return np.array([sign * (y[focal[at]] - y[pool[other]]) for at, other in found])


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (matching, {"unit": "id", "ratio": 2}),
        (matching, {"unit": "id", "replace": True}),
        (matching, {"matching": "coarsened", "cutpoints": {"z": 3}}),
        (weighting, {"estimator": ["ipw", "aipw"]}),
    ],
)
def test_e_values_of_every_estimator(module: Any, options: dict[str, Any]) -> None:
    found = analysed(module=module, sensitivity=True, **options)
    assert "rosenbaum_bounds" not in found.tables
    table = found.tables["sensitivity"]
    assert table["estimator"].drop_duplicates().tolist() == [e.estimator for e in found.effects]
    assert set(table["quantity"]) == {"e_value", "e_value_interval"}
    assert (table["value"] >= 1).all()
    plain = analysed(module=module, **options)
    assert "sensitivity" not in plain.tables
    assert plain.effects == found.effects
