"""Errors of panel regressions equal those of regressions with dummies on the raw rows."""

from itertools import product

import numpy as np
import pandas as pd
import pyfixest as pf
import pytest
import statsmodels.api as sm
from linearmodels.panel import PanelOLS

from causal.core.errors import DataError, InferenceError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Diagnostic, Result
from causal.core.spec import validate
from causal.quasi import did, panel_errors, row_scores
from causal.regression.wild_bootstrap import WEBB, draw_weights

RELATIVE = 1e-9
COHORTS = {"first_treated_period": "first"}
CONTROLS = {"weight": "w", "covariates": ["x"], "period_effects_by": "zone"}


def analyse(frame: pd.DataFrame, *, seed: int = 0, **options: object) -> Result:
    columns = {"unit": "id", "period": "t", "outcome": "y", "estimator": "twfe"}
    data = {
        "name": "errors",
        "source": {"table": "t"},
        "method": "did",
        "seed": seed,
        "options": {**columns, **options},
    }
    return run(did.estimate(validate(did.SPEC, data)), PandasEngine(frame))


def make_panel(seed: int, *, n: int = 24, n_periods: int = 7, missing: float = 0.0) -> pd.DataFrame:
    """Starts 3 and 5 and never, each in every region; errors shared in regions and in periods."""
    rng = np.random.default_rng(seed)
    unit, t = np.repeat(np.arange(n), n_periods), np.tile(np.arange(1, n_periods + 1), n)
    region = unit % 6
    first = np.array([3.0, 5.0, np.nan])[(unit // 6) % 3]
    shocks = rng.normal(size=(6, n_periods))[region, t - 1]
    common = rng.normal(size=n_periods)[t - 1]
    own = np.cumsum(rng.normal(size=(n, n_periods)), axis=1).ravel()
    x = rng.normal(size=len(t)) + 0.1 * t
    frame = pd.DataFrame(
        {
            "id": unit, "t": t, "first": first, "region": [f"r{r}" for r in region],
            "zone": np.where(unit % 2 == 0, "north", "south"), "x": x,
            "w": rng.uniform(0.5, 3.0, size=len(t)),
        }
    )  # fmt: skip
    frame["d"] = (t >= np.where(np.isnan(first), 99.0, first)).astype(float)
    frame["y"] = frame["d"] * (1 + common) + 0.5 * x + shocks + 0.3 * own
    return frame[rng.uniform(size=len(t)) >= missing].reset_index(drop=True)


class Raw:
    """The regression with a dummy for every unit and period on the raw rows."""

    def __init__(
        self, frame: pd.DataFrame, columns: list[str] | None = None, *, controls: bool = False
    ) -> None:
        self.frame = frame
        wanted = frame[columns or ["d"]].to_numpy(dtype=float)
        periods = frame["t"].astype(str) + (frame["zone"] if controls else "")
        parts = [
            wanted,
            *([frame[["x"]].to_numpy()] if controls else []),
            pd.get_dummies(frame["id"], dtype=float).to_numpy(),
            pd.get_dummies(periods, dtype=float).to_numpy(),
        ]
        self.n_wanted = wanted.shape[1]
        self.x = np.column_stack(parts)
        self.y = frame["y"].to_numpy()
        self.w = frame["w"].to_numpy() if controls else np.ones(len(frame))
        root = np.sqrt(self.w)[:, None]
        self.pinv = np.linalg.pinv(root * self.x) * root.T
        self.b = self.pinv @ self.y
        self.rank = int(np.linalg.matrix_rank(self.x))

    @property
    def k(self) -> int:
        """Coefficients without unit effects."""
        return self.rank - self.frame["id"].nunique() + 1

    def influence(self) -> np.ndarray:
        """What each row adds to the wanted coefficients."""
        return (self.pinv * (self.y - self.x @ self.b)).T[:, : self.n_wanted]

    def clustered(self, *columns: str) -> tuple[np.ndarray, int]:
        codes = self.frame.groupby(list(columns)).ngroup().to_numpy()
        sums = np.zeros((codes.max() + 1, self.n_wanted))
        np.add.at(sums, codes, self.influence())
        return sums.T @ sums, len(sums)


def errors(result: Result, n: int) -> np.ndarray:
    return result.tables["coefficients"]["std_error"].to_numpy()[:n]


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("controls", [False, True])
@pytest.mark.parametrize("cluster", ["id", "region"])
def test_cr3_is_refitting_without_each_cluster(
    *, missing: float, controls: bool, cluster: str
) -> None:
    frame = make_panel(1, missing=missing)
    raw = Raw(frame, controls=controls)
    moved = [
        Raw(frame.drop(index=rows), controls=controls).b[0] - raw.b[0]
        for rows in frame.groupby(cluster).groups.values()
    ]
    options = {**COHORTS, **(CONTROLS if controls else {}), "covariance": "CR3", "cluster": cluster}
    found = analyse(frame, **options).effects[0]
    jackknife = analyse(frame, **options, small_sample="jackknife").effects[0]

    assert found.estimate == pytest.approx(raw.b[0], rel=RELATIVE)
    assert found.std_error == pytest.approx(np.sqrt(np.sum(np.square(moved))), rel=1e-8)
    g = len(moved)
    assert jackknife.std_error == pytest.approx(found.std_error * np.sqrt((g - 1) / g), rel=1e-12)
    assert (found.n_clusters, found.df) == (g, g - 1)


def test_cr3_is_that_of_pyfixest() -> None:
    frame = make_panel(2, missing=0.1)
    found = analyse(frame, **COHORTS, covariance="CR3", cluster="region").effects[0]
    dummies = frame.assign(unit=frame["id"].astype(str), time=frame["t"].astype(str))
    peer = pf.feols(
        "y ~ d + C(unit) + C(time)", dummies, vcov={"CRV3": "region"},
        ssc=pf.ssc(k_adj=False, G_adj=False),
    )  # fmt: skip
    g = frame["region"].nunique()
    factors = {1.0, (g - 1) / g, g / (g - 1)}

    ratio = (peer.se()["d"] / found.std_error) ** 2
    assert min(abs(ratio - factor) for factor in factors) < 1e-7


def test_effects_that_only_one_cluster_has_may_be_lost_with_it() -> None:
    """Period effects by region, clusters by region: each takes its period effects along."""
    frame = make_panel(3)
    options = {**COHORTS, "period_effects_by": "region", "covariance": "CR3", "cluster": "region"}
    found = analyse(frame, **options).effects[0]

    def fitted(rows: pd.DataFrame) -> float:
        cells = rows["region"] + rows["t"].astype(str)
        x = np.column_stack([rows["d"], pd.get_dummies(rows["id"]), pd.get_dummies(cells)])
        return float(np.linalg.lstsq(x.astype(float), rows["y"].to_numpy(), rcond=None)[0][0])

    moved = [
        fitted(frame[frame["region"] != name]) - found.estimate for name in set(frame["region"])
    ]
    assert found.std_error == pytest.approx(np.sqrt(np.sum(np.square(moved))), rel=1e-8)


def test_cr3_refuses_where_one_cluster_alone_identifies() -> None:
    frame = make_panel(4)
    frame["first"] = frame["first"].where(frame["region"] == "r0")
    with pytest.raises(InferenceError, match=r"without some of them.*given: 1 such clusters"):
        analyse(frame, **COHORTS, covariance="CR3", cluster="region")


EVENTS = ["e-2", "e0", "e1", "e2"]


def with_events(frame: pd.DataFrame) -> pd.DataFrame:
    elapsed = frame["t"] - frame["first"]
    return frame.assign(
        **{
            "e-2": (elapsed <= -2).astype(float), "e0": (elapsed == 0).astype(float),
            "e1": (elapsed == 1).astype(float), "e2": (elapsed >= 2).astype(float),
        }
    )  # fmt: skip


STUDY = {"estimator": "event_study", "min_event_time": -2, "max_event_time": 2, **COHORTS}


@pytest.mark.parametrize("covariance", ["cluster", "CR3"])
def test_weights_and_controls_in_an_event_study(covariance: str) -> None:
    frame = with_events(make_panel(14, missing=0.1))
    raw = Raw(frame, EVENTS, controls=True)
    n, k = len(frame), raw.k
    total, g = raw.clustered("region")
    expected = np.sqrt(np.diag(total) * g / (g - 1) * (n - 1) / (n - k))
    if covariance == "CR3":
        moved = [
            Raw(frame[frame["region"] != name], EVENTS, controls=True).b[:4] - raw.b[:4]
            for name in set(frame["region"])
        ]
        expected = np.sqrt(np.sum(np.square(moved), axis=0))
    found = analyse(frame, **STUDY, **CONTROLS, cluster="region", covariance=covariance)

    table = found.to_frame().iloc[1:]
    np.testing.assert_allclose(table["estimate"], raw.b[:4], rtol=1e-8)
    np.testing.assert_allclose(table["std_error"], expected, rtol=1e-8)


def test_leads_without_errors_are_not_tested_and_the_effect_stands() -> None:
    """One region alone holds the cohort with two leads."""
    frame = make_panel(15)
    frame["first"] = frame["first"].where(frame["first"].isna() | (frame["region"] == "r0"), 2.0)
    frame["d"] = (frame["t"] >= frame["first"]).astype(float)
    options = {**COHORTS, "cluster": "region"}
    plain = analyse(frame, **options)
    found = analyse(frame, **options, covariance="CR3")

    assert check(plain, "pre_trend").statistic is not None
    assert check(found, "pre_trend").statistic is None
    assert found.effects[0].estimate == pytest.approx(plain.effects[0].estimate, rel=RELATIVE)


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("controls", [False, True])
@pytest.mark.parametrize("columns", [("id", "t"), ("region", "t"), ("zone", "region")])
def test_two_way_errors_are_sums_over_rows(
    *, missing: float, controls: bool, columns: tuple[str, str]
) -> None:
    frame = make_panel(5, n=36, n_periods=9, missing=missing)
    raw = Raw(frame, controls=controls)
    parts = [raw.clustered(columns[0]), raw.clustered(columns[1]), raw.clustered(*columns)]
    signs, n = (1, 1, -1), len(frame)
    small = min(parts[0][1], parts[1][1])
    rows = (n - 1) / (n - raw.k)
    expected = {
        "none": sum(s * v for s, (v, _) in zip(signs, parts, strict=True)),
        "cr1": sum(s * v * g / (g - 1) * rows for s, (v, g) in zip(signs, parts, strict=True)),
    }
    expected["min"] = expected["none"] * small / (small - 1) * rows
    options = {**COHORTS, **(CONTROLS if controls else {}), "cluster": list(columns)}
    for factor, variance in expected.items():
        if variance[0, 0] <= 0:
            with pytest.raises(InferenceError, match="two-way clustered variance is negative"):
                analyse(frame, **options, small_sample=factor)
            continue
        found = analyse(frame, **options, small_sample=factor).effects[0]
        assert found.estimate == pytest.approx(raw.b[0], rel=RELATIVE)
        assert found.std_error == pytest.approx(np.sqrt(variance[0, 0]), rel=1e-8)
        assert (found.n_clusters, found.df) == (small, small - 1)


def test_two_way_errors_of_an_event_study_are_those_of_statsmodels() -> None:
    frame = with_events(make_panel(6, n=36, n_periods=9, missing=0.1))
    raw = Raw(frame, EVENTS)
    groups = frame[["region", "t"]].apply(lambda column: pd.factorize(column)[0]).to_numpy()
    keep = raw.x[:, [*range(4), *range(4, 40), *range(41, raw.x.shape[1])]]
    fit = sm.OLS(raw.y, keep).fit(method="qr")
    peer = fit.get_robustcov_results("cluster", groups=groups, use_correction=False)
    found = analyse(frame, **STUDY, cluster=["region", "t"], small_sample="none")

    table = found.to_frame().iloc[1:]
    np.testing.assert_allclose(table["estimate"], peer.params[:4], rtol=1e-8)
    variances = np.diag(peer.cov_params())[:4]
    np.testing.assert_allclose(table["std_error"], np.sqrt(variances), rtol=1e-8)


@pytest.mark.parametrize("lags", [None, 0, 3])
@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_driscoll_kraay_is_that_of_linearmodels(missing: float, lags: int | None) -> None:
    """linearmodels multiplies by n / (n - k), k counting all effects."""
    frame = make_panel(7, n_periods=16, missing=missing)
    found = analyse(
        frame, treatment="d", covariates=["x"], covariance="driscoll_kraay", lags=lags,
        small_sample="none",
    )  # fmt: skip
    indexed = frame.set_index(["id", "t"])
    model = PanelOLS(indexed["y"], indexed[["d", "x"]], entity_effects=True, time_effects=True)
    peer = model.fit(cov_type="kernel", debiased=True, bandwidth=lags)
    n, k = len(frame), 2 + frame["id"].nunique() + frame["t"].nunique() - 1

    table = found.tables["coefficients"].set_index("term").loc[["d", "x"]]
    np.testing.assert_allclose(table["estimate"], peer.params, rtol=1e-8)
    np.testing.assert_allclose(
        table["std_error"] * np.sqrt(n / (n - k)), peer.std_errors, rtol=1e-8
    )


def test_driscoll_kraay_with_weights_and_its_factor() -> None:
    frame = make_panel(8, n_periods=16, missing=0.1)
    raw = Raw(frame, controls=True)
    sums = pd.DataFrame(raw.influence()).groupby(frame["t"].to_numpy()).sum().to_numpy()
    total = float((sums**2).sum())
    for lag in (1, 2):
        total += 2 * (1 - lag / 3) * float((sums[lag:] * sums[:-lag]).sum())
    n, t = len(frame), 16
    factor = t / (t - 1) * (n - 1) / (n - raw.rank)
    found = analyse(frame, **COHORTS, **CONTROLS, covariance="driscoll_kraay", lags=2)

    assert found.effects[0].std_error == pytest.approx(np.sqrt(factor * total), rel=1e-8)
    assert (found.effects[0].df, found.effects[0].n_clusters) == (t - 1, None)
    note = next(d for d in found.diagnostics if d.name == "driscoll_kraay_periods")
    assert note.statistic == t
    assert "2 lags over 16 periods" in note.detail


class BruteForce:
    """The restricted wild cluster bootstrap as it is written: new outcomes, new fits."""

    def __init__(self, raw: Raw, contrast: np.ndarray, cluster: str) -> None:
        self.raw, self.codes = raw, pd.factorize(raw.frame[cluster])[0]
        self.r = np.zeros(raw.x.shape[1])
        self.r[: len(contrast)] = contrast
        root = np.sqrt(raw.w)[:, None]
        self.inverse = np.linalg.pinv((root * raw.x).T @ (root * raw.x))

    def statistic(self, y: np.ndarray, value: float) -> float:
        raw = self.raw
        b = raw.pinv @ y
        moves = (self.r @ raw.pinv) * (y - raw.x @ b)
        sums = np.bincount(self.codes, moves)
        return float((self.r @ b - value) / np.sqrt(sums @ sums))

    def pvalue(self, value: float, draws: np.ndarray, *, is_complete: bool) -> float:
        raw = self.raw
        distance = self.r @ raw.b - value
        b = raw.b - self.inverse @ self.r * distance / (self.r @ self.inverse @ self.r)
        fitted, residual = raw.x @ b, raw.y - raw.x @ b
        observed = abs(self.statistic(raw.y, value))
        found = [
            abs(self.statistic(fitted + v[self.codes] * residual, value)) >= observed * (1 - 1e-8)
            for v in draws
        ]
        more = 0 if is_complete else 1
        return (sum(found) + more) / (len(found) + more)


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("controls", [False, True])
def test_the_wild_bootstrap_is_the_bootstrap_of_rows(*, missing: float, controls: bool) -> None:
    """All 64 draws of six regions; just inside its ends the interval is not rejected."""
    frame = make_panel(9, missing=missing)
    options = {**COHORTS, **(CONTROLS if controls else {}), "cluster": "region"}
    plain = analyse(frame, **options).effects[0]
    result = analyse(frame, **options, wild_bootstrap={})
    found = result.effects[0]
    brute = BruteForce(Raw(frame, controls=controls), np.array([1.0]), "region")
    draws = np.array(list(product([1.0, -1.0], repeat=6)))

    def pvalue(value: float) -> float:
        return brute.pvalue(value, draws, is_complete=True)

    assert (found.estimate, found.std_error) == pytest.approx(
        (plain.estimate, plain.std_error), rel=RELATIVE
    )
    assert found.estimator == "twfe_wild_bootstrap"
    assert found.pvalue == pytest.approx(pvalue(0.0), abs=1e-12)
    assert found.ci_lower < found.estimate < found.ci_upper
    for end, inwards in ((found.ci_lower, 1), (found.ci_upper, -1)):
        step = 1e-6 * found.std_error * inwards
        assert pvalue(end + step) > 0.05
        assert pvalue(end - step) <= 0.05
    note = next(d for d in result.diagnostics if d.name == "wild_bootstrap")
    assert note.statistic == 64
    assert "all 64 rademacher draws over 6 clusters" in note.detail


def test_webb_weights_and_averages_of_an_event_study() -> None:
    frame = with_events(make_panel(10, missing=0.1))
    study = {**STUDY, "cluster": "region", "wild_bootstrap": {"weights": "webb", "n_draws": 199}}
    result = analyse(frame, seed=5, **study)
    raw = Raw(frame, EVENTS)
    counts = frame[EVENTS].sum().to_numpy() * [0, 1, 1, 1]
    draws = draw_weights(6, kind="webb", n_draws=199, seed=5).values
    contrasts = [counts / counts.sum(), *np.eye(4)]

    assert set(np.unique(draws)) <= set(WEBB)
    for effect, contrast in zip(result.effects, contrasts, strict=True):
        brute = BruteForce(raw, contrast, "region")
        assert effect.pvalue == pytest.approx(
            brute.pvalue(0.0, draws, is_complete=False), abs=1e-12
        )
        assert effect.ci_lower < effect.estimate < effect.ci_upper
    table = result.tables["event_study"].set_index("term")
    assert table.loc["event_time=0", "ci_lower"] == result.effects[2].ci_lower


def test_too_few_clusters_to_reject_give_an_unbounded_interval() -> None:
    """Four clusters have 16 draws: no p-value below 1/8."""
    frame = make_panel(11)
    frame["region"] = np.array(["a", "b", "c", "d"])[frame["id"] % 4]
    found = analyse(frame, **COHORTS, cluster="region", wild_bootstrap={}).effects[0]

    assert found.pvalue >= 1 / 8
    assert (found.ci_lower, found.ci_upper) == (-np.inf, np.inf)
    assert '"Infinity"' in Result(effects=(found,)).effects_json()


def test_webb_has_moments_of_signs() -> None:
    assert WEBB.mean() == pytest.approx(0.0, abs=1e-15)
    assert (WEBB**2).mean() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cluster": ["region", "region"]}, "must differ"),
        ({"cluster": ["id", "t"], "covariance": "CR3"}, "two columns of clusters"),
        ({"cluster": ["id", "t"], "wild_bootstrap": {}}, "wild_bootstrap goes with"),
        ({"covariance": "CR3", "wild_bootstrap": {}}, "wild_bootstrap goes with"),
        ({"covariance": "driscoll_kraay", "cluster": "region"}, "cluster goes with"),
        ({"covariance": "CR3", "small_sample": "cr1"}, "one of none, jackknife"),
        ({"small_sample": "min"}, "two columns of clusters"),
        ({"lags": 2}, "lags goes with"),
        ({"estimator": "two_by_two", "covariance": "CR3"}, "goes with the regressions"),
        ({"estimator": "two_by_two", "cluster": ["id", "t"]}, "two columns of clusters"),
        ({"estimator": "two_by_two", "wild_bootstrap": {}}, "wild_bootstrap goes with"),
        ({"wild_bootstrap": {"n_draws": 10}}, "n_draws"),
        ({"wild_bootstrap": {"weights": "normal"}}, "rademacher"),
    ],
)
def test_what_does_not_go_together(options: dict, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        analyse(make_panel(1), **COHORTS, **options)


def test_what_the_data_cannot_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = make_panel(12)
    crossed = frame.assign(region=np.where(frame["t"] > 3, "late", frame["region"]))
    gap = frame.assign(region=frame["region"].where(frame["id"] != 3))
    cr3 = {**COHORTS, "covariance": "CR3", "cluster": "region"}
    with pytest.raises(DataError, match="a id must lie in one cluster"):
        analyse(crossed, **cr3)
    with pytest.raises(DataError, match="region is null in some rows; given: 7 rows"):
        analyse(gap, **cr3)
    with pytest.raises(DataError, match=r"region.* is null in some rows; given: 7 rows"):
        analyse(gap, **COHORTS, cluster=["region", "t"])
    with pytest.raises(InferenceError, match="two or more clusters; given: 1"):
        analyse(frame.assign(region="one"), **cr3)
    with pytest.raises(InferenceError, match="lags must be fewer than the periods"):
        analyse(frame, **COHORTS, covariance="driscoll_kraay", lags=7)
    monkeypatch.setattr(panel_errors, "MAX_CLUSTERS", 5)
    with pytest.raises(DataError, match=r"too many of them; given: 6; allowed: at most 5"):
        analyse(frame, **cr3)
    monkeypatch.setattr(row_scores, "MAX_ROWS", 100)
    with pytest.raises(DataError, match="panels of regions"):
        analyse(frame, **COHORTS, covariance="driscoll_kraay")


def check(result: Result, name: str) -> Diagnostic:
    return next(item for item in result.diagnostics if item.name == name)


@pytest.mark.parametrize("options", [{"covariance": "CR3"}, {"cluster": ["region", "t"]}])
def test_the_test_of_the_leads_uses_the_same_errors(options: dict) -> None:
    frame = make_panel(13, n=36, n_periods=9)
    study = analyse(frame, **{**COHORTS, "estimator": "event_study"}, cluster="region")
    other = analyse(frame, **{**COHORTS, "estimator": "event_study", "cluster": "region"} | options)

    assert check(study, "pre_trend").statistic != check(other, "pre_trend").statistic
