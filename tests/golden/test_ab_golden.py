"""The method `ab` against figures that were published or made by other programs."""

from importlib.resources import files
from pathlib import Path

import causaldata
import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from causal.core.multiplicity import adjusted_pvalues, interval_levels
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect, Result
from causal.core.spec import validate
from causal.experiments import ab

SLEEP = pd.DataFrame(
    {
        "id": range(20),
        "group": ["1"] * 10 + ["2"] * 10,
        "extra": [
            *(0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0),
            *(1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4),
        ],
    }
)
"""R's datasets::sleep: extra hours of sleep of ten patients under two drugs."""

ORDERS = {"numerator": "orders", "denominator": "sessions"}
ORDERS_BEFORE = {"numerator": "orders_covariate", "denominator": "sessions_covariate"}


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    data = {"name": "golden", "source": {"table": "t"}, "method": "ab", "options": options}
    return run(ab.estimate(validate(ab.SPEC, data)), PandasEngine(frame))


def one(result: Result, *, estimator: str, metric: str | None = None) -> Effect:
    found = [
        effect
        for effect in result.effects
        if effect.estimator == estimator
        and effect.scale == "absolute"
        and metric in {None, effect.metric}
    ]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def nsw() -> pd.DataFrame:
    """LaLonde's NSW experiment, the Dehejia-Wahba sample of 445 men."""
    frame = causaldata.nsw_mixtape.load_pandas().data
    return frame.assign(id=np.arange(len(frame)), treat=frame["treat"].astype(int))


@pytest.fixture(scope="module")
def tea(validation_data: Path) -> pd.DataFrame:
    return pd.read_csv(validation_data / "tea_users_100_rng42.csv")


def test_ab1_sleep_welch() -> None:
    effect = one(
        analyse(
            SLEEP,
            unit="id",
            variant="group",
            control="2",
            metrics=[{"name": "extra", "type": "mean", "column": "extra"}],
        ),
        estimator="welch",
    )
    assert effect.statistic == pytest.approx(-1.8608, abs=5e-5)
    assert effect.df == pytest.approx(17.776, abs=5e-4)
    assert effect.pvalue == pytest.approx(0.07939, abs=5e-6)
    assert effect.ci_lower == pytest.approx(-3.3654832, abs=5e-8)
    assert effect.ci_upper == pytest.approx(0.2054832, abs=5e-8)


def test_ab2_nsw_welch_and_pooled(nsw: pd.DataFrame) -> None:
    metrics = [{"name": "earnings", "type": "mean", "column": "re78"}]
    options = {"unit": "id", "variant": "treat", "control": 0, "metrics": metrics}
    welch = one(analyse(nsw, **options), estimator="welch")
    assert welch.estimate == pytest.approx(1794.342, abs=1e-3)
    assert welch.std_error == pytest.approx(670.9967, abs=1e-3)
    assert welch.df == pytest.approx(307.1325, abs=1e-3)
    assert welch.pvalue == pytest.approx(0.007893, abs=5e-7)
    assert (welch.ci_lower, welch.ci_upper) == pytest.approx((474.01, 3114.67), abs=0.01)
    assert (welch.n_treated, welch.n_control) == (185, 260)
    pooled = one(analyse(nsw, **options, variance="pooled"), estimator="pooled")
    assert pooled.std_error == pytest.approx(632.8534, abs=1e-3)
    assert pooled.df == 443


def test_ab3_hillstrom(validation_data: Path) -> None:
    rows = pd.read_csv(validation_data / "hillstrom.csv")
    result = analyse(
        rows.assign(customer=np.arange(len(rows))),
        unit="customer",
        variant="segment",
        control="No E-Mail",
        treatments=["Womens E-Mail"],
        metrics=[
            {"name": "visit", "type": "proportion", "column": "visit"},
            {"name": "conversion", "type": "proportion", "column": "conversion"},
            {"name": "spend", "type": "mean", "column": "spend"},
        ],
    )
    published = {
        "visit": (0.0452331066, 0.0032344621),
        "conversion": (0.0031110575, 0.0008226771),
        "spend": (0.4244122159, 0.1303328585),
    }
    for metric, (estimate, std_error) in published.items():
        effect = one(result, estimator="welch", metric=metric)
        assert effect.estimate == pytest.approx(estimate, abs=1e-9)
        assert effect.std_error == pytest.approx(std_error, abs=1e-9)
    arms = result.tables["arms"].set_index(["metric", "variant"])["mean"]
    assert arms["visit", "Womens E-Mail"] == pytest.approx(0.151400, abs=5e-7)
    assert arms["visit", "No E-Mail"] == pytest.approx(0.106167, abs=5e-7)
    left_out = next(item for item in result.diagnostics if item.name == "other_variants")
    assert left_out.statistic == 21_307


def test_cu1_nsw_cuped(nsw: pd.DataFrame) -> None:
    metrics = [{"name": "earnings", "type": "mean", "column": "re78", "covariates": ["re75"]}]
    options = {"unit": "id", "variant": "treat", "control": 0, "metrics": metrics}
    total = analyse(nsw, **options)
    effect = one(total, estimator="cuped")
    assert total.params["theta.earnings.1.re75"] == pytest.approx(0.178046582, abs=1e-7)
    assert effect.estimate == pytest.approx(1747.13399, abs=1e-3)
    assert effect.std_error == pytest.approx(668.96191, abs=1e-3)
    assert (effect.ci_lower, effect.ci_upper) == pytest.approx((430.80, 3063.47), abs=0.01)
    assert effect.pvalue == pytest.approx(0.0094519, abs=5e-7)
    within = one(analyse(nsw, **options, theta="within"), estimator="cuped")
    assert within.estimate == pytest.approx(1750.1509, abs=1e-3)
    assert within.std_error == pytest.approx(668.9602, abs=1e-3)


def test_cu1b_ratio_with_ratio_covariate(tea: pd.DataFrame) -> None:
    metric = {"name": "conversion", "type": "ratio", **ORDERS, "covariates": [ORDERS_BEFORE]}
    result = analyse(tea, unit="user", variant="variant", control=0, metrics=[metric])
    effect = one(result, estimator="cuped")
    control, treatment = result.tables["arms"]["adjusted_mean"]
    assert control == pytest.approx(0.25572348, abs=1e-8)
    assert treatment == pytest.approx(0.23549786, abs=1e-8)
    assert effect.estimate == pytest.approx(-0.02022562, abs=1e-8)
    assert effect.statistic == pytest.approx(-0.35731890, abs=1e-8)


def test_ra1_ratio(tea: pd.DataFrame) -> None:
    options = {
        "unit": "user",
        "variant": "variant",
        "control": 0,
        "metrics": [{"name": "conversion", "type": "ratio", **ORDERS}],
    }
    result = analyse(tea, **options)
    control, treatment = result.tables["arms"]["mean"]
    assert control == pytest.approx(0.2857142857, abs=1e-10)
    assert treatment == pytest.approx(0.2022471910, abs=1e-10)
    assert one(result, estimator="welch").statistic == pytest.approx(-1.086417004, abs=1e-8)
    pooled = one(analyse(tea, **options, variance="pooled"), estimator="pooled")
    assert pooled.statistic == pytest.approx(-1.0794048, abs=1e-7)


def test_ra2_standard_error_of_a_ratio(validation_data: Path) -> None:
    """R survey's svyratio on the Californian school sample: the level of an arm and its error."""
    schools = pd.read_csv(validation_data / "api_apisrs.csv")
    half = schools.assign(id=np.arange(len(schools)), arm="sample")
    twin = half.assign(id=half["id"] + len(half), arm="twin")
    tested = {"name": "tested", "type": "ratio", "numerator": "api.stu", "denominator": "enroll"}
    options = {"unit": "id", "variant": "arm", "control": "sample", "metrics": [tested]}
    arms = analyse(pd.concat([half, twin]), **options).tables["arms"].set_index("variant")
    assert arms.loc["sample", "mean"] == pytest.approx(0.8253536546, abs=1e-9)
    assert arms.loc["sample", "std_error"] == pytest.approx(0.01023542973, abs=1e-9)
    sizes = {"sample": 6194, "twin": 6194}
    finite = analyse(pd.concat([half, twin]), **options, population_sizes=sizes)
    arms = finite.tables["arms"].set_index("variant")
    assert arms.loc["sample", "std_error"] == pytest.approx(0.01006882632, abs=1e-9)


def test_cl1_petersen_two_arms_with_crossed_clusters() -> None:
    """Petersen's panel, the regressor cut at zero so that it is an arm, against statsmodels."""
    file = files("statsmodels") / "stats" / "tests" / "test_data.txt"
    rows = pd.read_csv(str(file), sep=r"\s+", header=None, names=["firm", "year", "x", "y"])
    rows = rows.assign(id=np.arange(len(rows)), high=(rows["x"] > 0).astype(int))
    options = {
        "unit": "id",
        "variant": "high",
        "control": 0,
        "metrics": [{"name": "y", "type": "mean", "column": "y"}],
    }
    model = smf.ols("y ~ high", rows)
    for cluster in ("firm", "year", ["firm", "year"]):
        for correction in ("cr0", "cr1"):
            found = one(
                analyse(rows, **options, cluster=cluster, cluster_correction=correction),
                estimator="cluster_robust",
            )
            reference = model.fit(
                cov_type="cluster",
                cov_kwds={
                    "groups": rows[cluster].to_numpy(),
                    "use_correction": correction == "cr1",
                },
            )
            assert found.std_error == pytest.approx(reference.bse["high"], rel=1e-9)


def test_fifteen_endpoints_of_benjamini_and_hochberg() -> None:
    """The example of Benjamini and Hochberg (1995), section 3: 3 rejections become 4."""
    pvalues = np.array(
        [
            *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459),
            *(0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
        ]
    )
    rejected = {
        name: int((adjusted_pvalues(pvalues, correction=name) <= 0.05).sum())
        for name in ("bonferroni", "holm", "benjamini_hochberg")
    }
    assert rejected == {"bonferroni": 3, "holm": 3, "benjamini_hochberg": 4}
    levels = interval_levels(pvalues, correction="benjamini_hochberg", alpha=0.05)
    assert levels == pytest.approx([1 - 4 * 0.05 / 15] * 15)
